//! Exchanging two names.

use super::place::{advise, sync_dir};
use crate::root::{Access, rename_targets, resolve_error};
use crate::sys::{self, AsFd, AsRawFd, AtFlags, BorrowedFd, Errno, RenameFlags};
use crate::{DiskState, Durability, Error, Result, Root};
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
///
/// [`ErrorKind::Unsupported`]: crate::ErrorKind::Unsupported
/// [`ErrorKind::NotFound`]: crate::ErrorKind::NotFound
/// [`ErrorKind::CrossDevice`]: crate::ErrorKind::CrossDevice
/// [`ErrorKind::LowerLayer`]: crate::ErrorKind::LowerLayer
/// [`ErrorKind::Busy`]: crate::ErrorKind::Busy
/// [`ErrorKind::InvalidInput`]: crate::ErrorKind::InvalidInput
pub fn swap(
    root_a: &Root,
    a: impl AsRef<Path>,
    root_b: &Root,
    b: impl AsRef<Path>,
    durability: Durability,
) -> Result<()> {
    let (a, b) = (a.as_ref(), b.as_ref());
    operation!("swap", a = a, b = b);
    let named = |e: Error| e.with_path(a).with_other(b);
    let locate = |root, path: &Path| {
        Root::target(root, path.as_os_str().as_bytes(), Access::Sync)
            .map_err(|e| resolve_error(SWAP, e, path))
    };
    let (at_a, at_b) = (locate(root_a, a)?, locate(root_b, b)?);
    rename_targets(SWAP, &at_a, &at_b, RenameFlags::EXCHANGE).map_err(|error| {
        let error = match error.errno() {
            // A device error leaves open whether it happened; the names alone cannot tell.
            Some(Errno::IO) => error.with_state(DiskState::Indeterminate),
            _ => error,
        };
        named(advise(error))
    })?;
    if durability.syncs_names() {
        let (fd_a, fd_b) = (at_a.dir.as_fd(), at_b.dir.as_fd());
        sync_dir(SWAP, fd_a).map_err(named)?;
        if !same_dir(fd_a, fd_b) {
            sync_dir(SWAP, fd_b).map_err(named)?;
        }
    }
    Ok(())
}

/// Whether both are known to be one directory.
fn same_dir(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    // Both names right beneath one root.
    if a.as_raw_fd() == b.as_raw_fd() {
        return true;
    }
    let id = |dir| sys::statx(dir, c"", AtFlags::EMPTY_PATH).map(|m| m.id());
    id(a).is_ok_and(|a| id(b) == Ok(a))
}
