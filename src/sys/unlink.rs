//! unlinkat(2), mkdirat(2), mknodat(2): entries that go and come without content.

use super::{Arg, AsFd, AtFlags, FileType, Mode, Result, retry};

/// unlinkat(2) without flags: removes a name that is not a directory.
///
/// # Errors
/// As unlink(2). `EISDIR`: a directory.
pub fn unlinkat(dir: impl AsFd, name: impl Arg) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("unlinkat", || {
            rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::empty())
        })
    })
}

/// unlinkat(2) with `AT_REMOVEDIR`: removes an empty directory.
///
/// # Errors
/// As rmdir(2). `ENOTEMPTY` or `EEXIST`: not empty.
pub fn rmdirat(dir: impl AsFd, name: impl Arg) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("unlinkat(AT_REMOVEDIR)", || {
            rustix::fs::unlinkat(dir.as_fd(), name, AtFlags::REMOVEDIR)
        })
    })
}

/// mkdirat(2). The umask applies.
///
/// # Errors
/// As mkdirat(2).
pub fn mkdirat(dir: impl AsFd, name: impl Arg, mode: Mode) -> Result<()> {
    name.into_with_c_str(|name| retry("mkdirat", || rustix::fs::mkdirat(dir.as_fd(), name, mode)))
}

/// mknodat(2) for a FIFO. The umask applies.
///
/// # Errors
/// As mkfifo(3).
pub fn mkfifoat(dir: impl AsFd, name: impl Arg, mode: Mode) -> Result<()> {
    mknodat(dir, name, FileType::Fifo, mode, 0)
}

/// mknodat(2): a FIFO, socket, device or empty regular file. The umask applies.
///
/// # Errors
/// As mknod(2). `EPERM`: devices need `CAP_MKNOD`.
pub fn mknodat(
    dir: impl AsFd,
    name: impl Arg,
    kind: FileType,
    mode: Mode,
    device: u64,
) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("mknodat", || {
            rustix::fs::mknodat(dir.as_fd(), name, kind, mode, device)
        })
    })
}
