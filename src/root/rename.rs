//! Renaming and exchanging beneath roots, and what the kernel's refusals of it mean.

use super::parent::{Last, Target};
use super::{Access, Root, resolve_error};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FileId, FileType, FsKind, Mode, OFlags};
use crate::sys::{Metadata, RenameFlags};
use crate::{Error, ErrorKind, Result};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OP: &str = "rename";

impl Root {
    /// Renames `from` to `to` beneath `to_root`, which may be this root: without flags replacing what is
    /// there, with `NOREPLACE` only to a free name, with `EXCHANGE` each to the other's name. Symlinks
    /// themselves are renamed. Two names of one file stay as they are, and the answer is success.
    ///
    /// Atomic against other processes and, of these two names, in a crash. Durable after
    /// [`sync_dir`](Self::sync_dir) of both parents, first that of the old name.
    ///
    /// # Errors
    /// As renameat2(2). `EXDEV`: not on one file system, mount, subvolume or project
    /// ([`CrossDevice`](ErrorKind::CrossDevice)), an overlayfs directory from a lower layer
    /// ([`LowerLayer`](ErrorKind::LowerLayer)), or a path that leads out of its root
    /// ([`Escape`](ErrorKind::Escape)). `EINVAL`: a directory moved into itself, or flags that contradict
    /// each other; with flags also, as [`Unsupported`](ErrorKind::Unsupported), a file system without them.
    /// `EBUSY`: a mount point.
    pub fn rename(
        &self,
        from: impl AsRef<Path>,
        to_root: &Self,
        to: impl AsRef<Path>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let with_paths = |e: Error| e.with_path(from).with_other(to);
        if !sensible(flags) {
            return Err(with_paths(Error::new(OP, "renameat2", Errno::INVAL)));
        }
        let old = self
            .target(from.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, from))?;
        let new = to_root
            .target(to.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, to))?;
        rename_targets(OP, &old, &new, flags).map_err(with_paths)
    }
}

/// One renameat2, of names that are resolved.
pub(crate) fn rename_targets(
    operation: &'static str,
    old: &Target<'_>,
    new: &Target<'_>,
    flags: RenameFlags,
) -> Result<()> {
    check_slashes(old, new, flags).map_err(|e| Error::new(operation, "renameat2", e))?;
    let (old_name, new_name) = (old.last.for_change(), new.last.for_change());
    sys::renameat2(&old.dir, old_name, &new.dir, new_name, flags).map_err(|e| {
        let (old_dir, new_dir) = (old.dir.as_fd(), new.dir.as_fd());
        rename_error(operation, e, old_dir, old_name, new_dir, new_name, flags)
    })
}

/// Whether the flags are known and do not contradict each other.
fn sensible(flags: RenameFlags) -> bool {
    let alone = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
    let known = alone | RenameFlags::EXCHANGE;
    known.contains(flags) && !(flags.contains(RenameFlags::EXCHANGE) && flags.intersects(alone))
}

/// A slash behind a name asks for a directory: the old one in a rename, each its own in an exchange.
fn check_slashes(old: &Target<'_>, new: &Target<'_>, flags: RenameFlags) -> sys::Result<()> {
    let names = matches!((&old.last, &new.last), (Last::Normal(_), Last::Normal(_)));
    if !names || !(old.slash || new.slash) {
        return Ok(());
    }
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let is_dir = |side: &Target<'_>| side.kind().map(|kind| kind == FileType::Directory);
    let old_is_dir = if old.slash || !exchange {
        is_dir(old)
    } else {
        Ok(true)
    };
    let new_is_dir = if new.slash && exchange {
        is_dir(new)
    } else {
        Ok(true)
    };
    if (old_is_dir, new_is_dir) == (Ok(true), Ok(true)) {
        return Ok(());
    }
    // It is refused. What the kernel would have said before it came to the slashes comes first: of two
    // mounts, of a read-only one, of names that are missing or taken.
    let dots = sys::renameat2(&old.dir, c".", &new.dir, c".", RenameFlags::empty());
    if dots == Err(Errno::XDEV) {
        return Err(Errno::XDEV);
    }
    if sys::is_read_only(&old.dir)? {
        return Err(Errno::ROFS);
    }
    old.kind()?;
    match new.kind() {
        Ok(_) if flags.contains(RenameFlags::NOREPLACE) => Err(Errno::EXIST),
        Err(Errno::NOENT) if !exchange => Err(Errno::NOTDIR),
        Err(e) => Err(e),
        Ok(_) => Err(Errno::NOTDIR),
    }
}

/// The error of a failed renameat2, with what `EXDEV` and `EINVAL` mean in this case. Calls only where they
/// have several meanings.
#[cold]
pub(crate) fn rename_error(
    operation: &'static str,
    errno: Errno,
    old_dir: BorrowedFd<'_>,
    old: &CStr,
    new_dir: BorrowedFd<'_>,
    new: &CStr,
    flags: RenameFlags,
) -> Error {
    let error = Error::new(operation, sys::rename_call(flags), errno);
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let dir = |place: BorrowedFd<'_>, name: &CStr| {
        let facts = sys::statx(
            place,
            name,
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        );
        facts.ok().filter(Metadata::is_dir)
    };
    let (old_is_dir, new_is_dir) = match errno {
        Errno::XDEV | Errno::INVAL => (dir(old_dir, old), dir(new_dir, new)),
        _ => return error,
    };
    if errno == Errno::XDEV {
        let moved = old_is_dir.or(new_is_dir.filter(|_| exchange));
        let lower = moved.is_some() && one_overlay(old_dir, new_dir);
        return match lower {
            true => error
                .with_kind(ErrorKind::LowerLayer)
                .with_advice("copy the directory and publish the copy"),
            false => error,
        };
    }
    let nested = old_is_dir.is_some_and(|d| is_within(new_dir, d.id()))
        || exchange && new_is_dir.is_some_and(|d| is_within(old_dir, d.id()));
    if nested || flags.is_empty() || !sensible(flags) {
        error
    } else {
        error.with_kind(ErrorKind::Unsupported)
    }
}

/// Whether both directories are on the same mount of an overlayfs.
fn one_overlay(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    let mount = |fd| super::open::facts(fd).ok()?.mount_id();
    sys::fs_kind(a) == Ok(FsKind::Overlay) && mount(a).is_some() && mount(a) == mount(b)
}

/// Whether `dir` is the directory `ancestor` or somewhere below it: goes up by `..` to the top of what this
/// process sees. A directory that cannot be passed ends the search with no.
fn is_within(dir: BorrowedFd<'_>, ancestor: FileId) -> bool {
    let Ok(here) = super::open::facts(dir) else {
        return false;
    };
    let (mut here, mut fd) = (here.id(), None);
    loop {
        if here == ancestor {
            return true;
        }
        let from = fd.as_ref().map_or(dir, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(up) = sys::openat(from, c"..", flags, Mode::empty()) else {
            return false;
        };
        match super::open::facts(up.as_fd()) {
            Ok(above) if above.id() != here => here = above.id(),
            _ => return false,
        }
        fd = Some(up);
    }
}
