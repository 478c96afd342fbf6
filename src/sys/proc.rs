//! This process: its number, how much it may open, and the names that procfs has for this thread's
//! descriptors.

use super::{
    AsFd, AtFlags, CWD, Errno, FsKind, Mode, OFlags, OwnedFd, Result, fs_kind, openat, statx,
};
use rustix::fd::AsRawFd;
use std::ffi::CString;

/// The number of this process.
pub(crate) fn process_id() -> u32 {
    #[cfg(feature = "_hook")]
    if let Some(id) = super::hook::process() {
        return id;
    }
    std::process::id()
}

/// How many descriptors this process may have open (`RLIMIT_NOFILE`, the soft limit).
///
/// # Errors
/// As getrlimit(2).
pub(crate) fn descriptor_limit() -> Result<u64> {
    super::call("getrlimit", super::raw::descriptor_limit)
}

/// The directory of this thread's descriptors in procfs (Linux 3.17), and the name of `fd` in it: a link
/// that leads to the open file itself, whatever its path.
///
/// Four calls: the directory is opened, must be procfs, and the link must lead to what `fd` is open on. So
/// nothing that is mounted in its place, be it of another process, is taken for it.
///
/// # Errors
/// `EOPNOTSUPP`: there is no procfs here, or not of this process. `EMFILE`, `ENFILE`, `ENOMEM`.
pub(crate) fn descriptor_link(fd: impl AsFd) -> Result<(OwnedFd, CString)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = match openat(CWD, c"/proc/thread-self/fd", flags, Mode::empty()) {
        Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(e),
        Err(_) => return Err(Errno::OPNOTSUPP),
        Ok(dir) => dir,
    };
    match fs_kind(&dir) {
        Ok(FsKind::Proc) => {}
        _ => return Err(Errno::OPNOTSUPP),
    }
    // A decimal number holds no NUL.
    let number = CString::new(fd.as_fd().as_raw_fd().to_string()).map_err(|_| Errno::INVAL)?;
    let link = statx(&dir, number.as_c_str(), AtFlags::empty());
    match (link, statx(fd, c"", AtFlags::EMPTY_PATH)) {
        (Ok(link), Ok(own)) if link.id() == own.id() => Ok((dir, number)),
        _ => Err(Errno::OPNOTSUPP),
    }
}
