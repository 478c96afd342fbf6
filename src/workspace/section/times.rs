//! Times of directories: as before, where that hides nobody's work.
//!
//! Names that came and went move them, and on some file systems (XFS) so does a directory's own move.

use super::image;
use super::record::Begin;
use super::sum::{Sum, Use};
use super::undo::{Spot, What};
use crate::sys::{self, AsFd, Errno, Mode as FileMode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use crate::workspace::identity::{Ident, Kind, Stamp};
use crate::workspace::state;
use crate::{Dir, Error, Name, Result, Root};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const OP: &str = "take back section";

/// Gives the directories that the section was at work in, or has moved, their times back, unless others have
/// been at work there since it began: their change must show.
pub(super) fn restore(
    root: &Root,
    begin: &Begin,
    sum: &Sum,
    images: &[(usize, Use)],
) -> Result<()> {
    for place in sum.places().iter().filter(|place| !place.made) {
        one(
            root,
            &place.path,
            sum.as_first_seen(&place.ident),
            Some((begin, sum)),
        )?;
    }
    for (at, spot) in sum.spots().iter().enumerate() {
        match &spot.what {
            What::Thing(ident) if ident.kind == Kind::Dir => {
                let ident = sum.as_first_seen(ident);
                one(root, &sum.path(spot), ident, Some((begin, sum)))?;
            }
            // All that is in it was put there now.
            What::Image { ident, .. }
                if ident.kind == Kind::Dir && images.contains(&(at, Use::Copy)) =>
            {
                one(root, &sum.path(spot), ident, None)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn one(root: &Root, path: &[u8], ident: &Ident, others: Option<(&Begin, &Sum)>) -> Result<()> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(OsStr::from_bytes(path));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir: Dir = match path {
        b"" => root.dir().try_clone()?,
        path => match root.open_raw(path, flags, FileMode::empty()) {
            Ok(fd) => fd.into(),
            // It is in what was put back as a whole, others have moved it, or it may not be read.
            Err(e) if is_out_of_reach(e) => return Ok(()),
            Err(e) => return Err(fail("openat2")(e)),
        },
    };
    let now = Ident::of(&dir.metadata()?);
    if !now.is(ident) || now.mtime == ident.mtime {
        return Ok(());
    }
    if let Some((begin, sum)) = others
        && others_were_here(&dir, ident, begin, sum)
            .map_err(|e| e.with_default_path(OsStr::from_bytes(path)))?
    {
        return Ok(());
    }
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: timespec(ident.mtime),
    };
    match sys::futimens(dir.as_fd(), &times) {
        // Only its owner may.
        Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
        Err(e) => Err(fail("futimens")(e)),
    }
}

/// Whether something that the section has not touched has changed in a directory since it began.
fn others_were_here(dir: &Dir, ident: &Ident, begin: &Begin, sum: &Sum) -> Result<bool> {
    let fail = |call| move |e| Error::new(OP, call, e);
    let mut entries = match dir.read_dir() {
        Err(e) if e.errno().is_some_and(is_out_of_reach) => return Ok(true),
        done => done?,
    };
    while let Some(entry) = entries.next().map_err(fail("getdents64"))? {
        let name = Name::from_entry(entry.name()).map_err(fail("getdents64"))?;
        let own = |s: &Spot| sum.place_of(s).ident.is(ident) && s.name == name;
        if name.as_c_str() == state::FOLDER || sum.spots().iter().any(own) {
            continue;
        }
        let Some(meta) = image::look(dir, &name).map_err(fail("statx"))? else {
            continue;
        };
        let found = Ident::of(&meta);
        // What was moved shows that in its time under its other names as well.
        if !sum.has_touched(&found) && image::stamp(meta.ctime()) >= begin.time {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_out_of_reach(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS
    )
}

pub(super) fn timespec((seconds, nanos): Stamp) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    }
}
