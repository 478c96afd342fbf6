//! Exchanging two names.

use super::place::{rename_error, sync_dir};
use crate::root::{Access, Last, Place, resolve_error};
use crate::root::{Capabilities, Feature};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, Metadata, RenameFlags};
use crate::{DiskState, Durability, Error, ErrorKind, Name, Result, Root};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SWAP: &str = "swap";

/// Exchanges the names `a` beneath `root_a` and `b` beneath `root_b`, whatever they are: two folders, a
/// folder and a file, a symlink and a folder. Readers and crashes see both names as they were or both
/// exchanged, and no name is ever missing (`RENAME_EXCHANGE`, Linux 3.15, and the file system's support).
///
/// With [`Durability::Full`] both parent directories are synced. What is *in* two exchanged folders is as
/// durable as it was; [`tree::sync`](crate::tree::sync) makes it so.
///
/// # Errors
/// [`ErrorKind::Unsupported`]: no `RENAME_EXCHANGE` here. [`ErrorKind::NotFound`]: one of them is missing.
/// [`ErrorKind::CrossDevice`]: not on one mount. [`ErrorKind::LowerLayer`]: an overlayfs folder from a lower
/// layer. [`ErrorKind::Busy`]: a mount point. [`ErrorKind::InvalidInput`]: one is inside the other. With
/// [`DiskState::Published`] they are exchanged, but a directory could not be synced.
///
/// ```
/// use steadfast::{Durability, Root, publish::swap};
/// # let tmp = tempfile::tempdir()?;
/// # std::fs::create_dir(tmp.path().join("live"))?;
/// # std::fs::write(tmp.path().join("next"), "")?;
/// let root = Root::open(tmp.path())?;
/// swap(&root, "live", &root, "next", Durability::Full)?;
/// assert!(tmp.path().join("next").is_dir());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn swap(
    root_a: &Root,
    a: impl AsRef<Path>,
    root_b: &Root,
    b: impl AsRef<Path>,
    durability: Durability,
) -> Result<()> {
    let (a, b) = (a.as_ref(), b.as_ref());
    let (dir_a, name_a) = locate(root_a, a)?;
    let (dir_b, name_b) = locate(root_b, b)?;
    let (fd_a, fd_b) = (dir_a.as_fd(), dir_b.as_fd());
    let done = sys::renameat2(
        fd_a,
        name_a.as_c_str(),
        fd_b,
        name_b.as_c_str(),
        RenameFlags::EXCHANGE,
    );
    if let Err(errno) = done {
        return Err(refused(errno, fd_a, &name_a, fd_b)
            .with_path(a)
            .with_other(b));
    }
    if durability.syncs_names() {
        let named = |e: Error| e.with_path(a).with_other(b);
        sync_dir(SWAP, fd_a).map_err(named)?;
        let id = |dir| sys::statx(dir, c"", AtFlags::EMPTY_PATH).map(|m| m.id());
        if id(fd_a).ok() != id(fd_b).ok() {
            sync_dir(SWAP, fd_b).map_err(named)?;
        }
    }
    Ok(())
}

fn locate<'r>(root: &'r Root, path: &Path) -> Result<(Place<'r>, Name)> {
    let target = root
        .target(path.as_os_str().as_bytes(), Access::Sync)
        .map_err(|e| resolve_error(SWAP, e, path))?;
    let Last::Normal(name) = target.last else {
        return Err(resolve_error(SWAP, Errno::BUSY, path));
    };
    if target.slash {
        let look = sys::statx(&target.dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let is_dir = look.map_err(|e| resolve_error(SWAP, e, path))?.is_dir();
        if !is_dir {
            return Err(resolve_error(SWAP, Errno::NOTDIR, path));
        }
    }
    Ok((target.dir, name))
}

/// Why an exchange was refused. `EINVAL` means that one is inside the other, or that there is no such call
/// here, which trying it on two files of our own tells.
fn refused(errno: Errno, dir_a: BorrowedFd<'_>, a: &Name, dir_b: BorrowedFd<'_>) -> Error {
    let look = sys::statx(dir_a, a.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    let is_dir = look.is_ok_and(|m: Metadata| m.is_dir());
    let error = rename_error(SWAP, "renameat2", errno, dir_b, is_dir);
    match errno {
        Errno::INVAL | Errno::NOSYS => exchange_missing(error, errno, dir_b),
        // A device error leaves open whether it happened; the names alone cannot tell.
        Errno::IO => error.with_state(DiskState::Indeterminate),
        _ => error,
    }
}

/// Tells "not supported" from "one is inside the other".
pub(super) fn exchange_missing(error: Error, errno: Errno, dir: BorrowedFd<'_>) -> Error {
    let supported = errno == Errno::INVAL
        && Capabilities::probe_uncached(dir).is_ok_and(|c| c.has(Feature::Exchange));
    if supported {
        return error.with_advice("one of the two names is inside the other");
    }
    error.with_kind(ErrorKind::Unsupported).with_advice(
        "this kernel or file system cannot exchange two names (RENAME_EXCHANGE); `steadfast \
         doctor` shows what it can",
    )
}
