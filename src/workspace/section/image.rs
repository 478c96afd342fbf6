//! Before-images: copies of what others may change, and whether they did.

use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, FileType, Metadata, Mode, OFlags, RenameFlags,
    Timestamps,
};
use crate::tree::{self, CopyOptions, Event, Keep, Preserve, Special, Walk};
use crate::workspace::ctx::Ctx;
use crate::workspace::identity::{Ident, Stamp};
use crate::workspace::place::read_at;
use crate::{Dir, Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const OP: &str = "protect";
/// How much is compared at once.
const BUFFER: usize = 256 << 10;

pub(super) fn stamp(time: sys::Timespec) -> Stamp {
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    (time.tv_sec, nanos)
}

/// What the file system's clock says: the time that it gives to a fresh file.
pub(super) fn clock(ctx: &mut Ctx<'_>) -> Result<Stamp> {
    let fail = |call| move |e| Error::new(OP, call, e);
    let name = (ctx.names)()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = sys::openat(ctx.staged, name.as_c_str(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(fail("openat"))?;
    let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"));
    sys::unlinkat(ctx.staged, name.as_c_str()).map_err(fail("unlinkat"))?;
    Ok(stamp(meta?.ctime()))
}

pub(super) fn look(dir: impl AsFd, name: &Name) -> sys::Result<Option<Metadata>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match sys::statx(dir, name.as_c_str(), flags) {
        Ok(meta) => Ok(Some(meta)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Copies what stands at a name to `kept/`, with everything that it is. Gives the copy's name and identity.
/// Nothing is synced.
pub(super) fn take(ctx: &mut Ctx<'_>, dir: &Dir, name: &Name) -> Result<(Name, Ident)> {
    let copy = (ctx.names)()?;
    let preserve = Preserve {
        owner: Keep::Required,
        xattrs: Keep::Required,
        times: true,
    };
    let options = CopyOptions::new()
        .preserve(preserve)
        .special(Special::Recreate);
    let copied =
        tree::copy(dir, name, ctx.kept, &copy, &options).map_err(|e| e.with_operation(OP))?;
    if copied.changed > 0 {
        return Err(Error::of_kind(OP, ErrorKind::Changed)
            .with_path(name)
            .with_detail("it was being changed while it was copied")
            .with_advice("begin the section before others begin to change it"));
    }
    match look(ctx.kept, &copy).map_err(|e| Error::new(OP, "statx", e))? {
        Some(meta) => Ok((copy, Ident::of(&meta))),
        None => Err(Error::new(OP, "statx", Errno::NOENT)),
    }
}

/// Whether nothing of what stands at a name has changed since a time: it is still the same inode, and
/// neither it nor anything in it has a later time of change. Files whose names were removed show in their
/// directory.
///
/// With a copy, in `kept/`, files must also have its content: after a power cut what was written over in
/// place may be there, and the inode still be as before it.
pub(super) fn is_unchanged(
    (dir, name): (&Dir, &Name),
    live: &Ident,
    since: Stamp,
    copy: Option<(&Dir, &Name)>,
) -> Result<bool> {
    let before = |meta: &Metadata| stamp(meta.ctime()) < since;
    let copy = match copy {
        Some((kept, copy)) => Some((Root::from(kept.try_clone()?), copy)),
        None => None,
    };
    let same = |dir: BorrowedFd<'_>, name: &Name, below: &Path| match &copy {
        Some((kept, copy)) => {
            let path: PathBuf = Path::new(copy).join(below).components().collect();
            is_same_content(dir, name, kept, &path)
        }
        None => Ok(true),
    };
    match look(dir, name).map_err(|e| Error::new(OP, "statx", e))? {
        Some(meta) if live.is(&Ident::of(&meta)) && before(&meta) => match meta.kind() {
            FileType::Directory => {}
            FileType::RegularFile => return same(dir.as_fd(), name, Path::new("")),
            _ => return Ok(true),
        },
        _ => return Ok(false),
    }
    let mut walk = Walk::new(dir, name)?;
    loop {
        let event = match walk.next() {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(true),
            // What cannot be looked at counts as changed.
            Err(_) => return Ok(false),
        };
        let entry = match event {
            Event::Enter(entry) | Event::Other(entry) => entry,
            _ => continue,
        };
        match entry.metadata()? {
            Some(meta) if before(&meta) => {
                // Beneath the copy, it has the same path.
                let below: PathBuf = entry.path().components().skip(1).collect();
                if meta.is_file() && !same(entry.parent(), entry.name(), &below)? {
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
    }
}

/// Whether a file has the content of a copy in `kept/`. What cannot be read counts as changed.
fn is_same_content(dir: BorrowedFd<'_>, name: &Name, kept: &Root, copy: &Path) -> Result<bool> {
    let fail = |call| move |e| Error::new(OP, call, e);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(live) = sys::openat(dir, name.as_c_str(), flags, Mode::empty()) else {
        return Ok(false);
    };
    let Ok(copy) = kept.open_raw(copy.as_os_str().as_bytes(), flags, Mode::empty()) else {
        return Ok(false);
    };
    let (mut is, mut was) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0;
    loop {
        let n = read_at(&live, &mut is, at).map_err(fail("pread64"))?;
        if read_at(&copy, &mut was, at).map_err(fail("pread64"))? != n
            || is.get(..n) != was.get(..n)
        {
            return Ok(false);
        }
        if n < BUFFER {
            return Ok(true);
        }
        at += n as u64;
    }
}

/// Files that have names in more than one of the trees: their copies become one file again. Of each tree the
/// directory, the name, and the name of its copy in `kept/`.
pub(super) fn link(ctx: &mut Ctx<'_>, trees: &[(&Dir, &Name, Name)]) -> Result<()> {
    let mut first: BTreeMap<FileKey, (usize, PathBuf)> = BTreeMap::new();
    let kept = Root::from(ctx.kept.try_clone()?);
    for (at, (dir, name, copy)) in trees.iter().enumerate() {
        let mut walk = Walk::new(dir, name)?;
        while let Some(event) = walk.next()? {
            let Event::Other(entry) = event else {
                continue;
            };
            let Some(meta) = entry.metadata()?.filter(|meta| meta.links() > 1) else {
                continue;
            };
            // Beneath the copy, it has the same path.
            let path: PathBuf = entry.path().components().skip(1).collect();
            let path = Path::new(copy).join(path);
            let path: PathBuf = path.components().collect();
            let id = meta.id();
            match first.get(&(id.dev, id.ino)) {
                None => {
                    first.insert((id.dev, id.ino), (at, path));
                }
                // Within one tree the copy has taken care of it.
                Some((tree, _)) if *tree == at => {}
                Some((_, known)) => one_file(ctx, &kept, known, &path)?,
            }
        }
    }
    Ok(())
}

type FileKey = (u64, u64);

/// Makes `path` a further name of the copy `known`, with the time of its directory as it was.
fn one_file(ctx: &mut Ctx<'_>, kept: &Root, known: &Path, path: &Path) -> Result<()> {
    let fail = |call| move |e| Error::new(OP, call, e);
    let (dir, name) = kept.split(path)?;
    let (from, from_name) = kept.split(known)?;
    let before = dir.metadata()?;
    let temp = (ctx.names)()?;
    sys::linkat(&from, from_name.as_c_str(), ctx.staged, temp.as_c_str())
        .map_err(fail("linkat"))?;
    let flags = RenameFlags::empty();
    sys::renameat2(ctx.staged, temp.as_c_str(), &dir, name.as_c_str(), flags)
        .map_err(fail("renameat"))?;
    if Ident::of(&before).is(&Ident::of(&ctx.kept.metadata()?)) {
        return Ok(());
    }
    let times = Timestamps {
        last_access: before.atime(),
        last_modification: before.mtime(),
    };
    sys::futimens(&dir, &times).map_err(fail("futimens"))
}
