//! linkat(2), symlinkat(2), readlinkat(2), and giving an unnamed file a name.

use super::{Arg, AsFd, AtFlags, Errno, Result, descriptor_link, retry};
use std::ffi::CString;

/// linkat(2): a further name `new` in `new_dir` for the file `old` in `old_dir`; a symlink itself is
/// linked, not its target.
///
/// # Errors
/// As linkat(2). `EEXIST`: the name is taken; there is no replacing link. `EPERM`: no hard links here.
pub fn linkat(old_dir: impl AsFd, old: impl Arg, new_dir: impl AsFd, new: impl Arg) -> Result<()> {
    let (old_dir, new_dir) = (old_dir.as_fd(), new_dir.as_fd());
    old.into_with_c_str(|old| {
        new.into_with_c_str(|new| {
            retry("linkat", || {
                rustix::fs::linkat(old_dir, old, new_dir, new, AtFlags::empty())
            })
        })
    })
}

/// Gives the open file `fd` the name `new` in `new_dir`: for a file from
/// [`open_tmpfile`](super::open_tmpfile), or a further name for any open file that has one.
///
/// Up to six calls: [`link_empty_path`], and where that is refused, [`link_proc`].
///
/// # Errors
/// `EOPNOTSUPP`: neither way is open to this process. Else as linkat(2); `EEXIST`: the name is taken;
/// `ENOENT`: `new_dir` was removed, or the file was, or it was opened with `O_EXCL`.
///
/// Source: linkat(2), open(2) on `O_TMPFILE`.
pub fn link_descriptor(fd: impl AsFd, new_dir: impl AsFd, new: impl Arg) -> Result<()> {
    let (fd, new_dir) = (fd.as_fd(), new_dir.as_fd());
    new.into_with_c_str(|new| match link_empty_path(fd, new_dir, new) {
        // ENOENT and EPERM are the refusals to a process without the right; EINVAL and ENOSYS those of
        // sandboxes that do not know the flag.
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL | Errno::NOSYS) => {
            link_proc(fd, new_dir, new)
        }
        done => done,
    })
}

/// linkat(2) with `AT_EMPTY_PATH`: the name `new` in `new_dir` for the open file `fd`.
///
/// # Errors
/// As linkat(2). `ENOENT` also for a process without `CAP_DAC_READ_SEARCH`, before Linux 6.10 or where the
/// file was opened with other credentials.
pub fn link_empty_path(fd: impl AsFd, new_dir: impl AsFd, new: impl Arg) -> Result<()> {
    new.into_with_c_str(|new| {
        retry("linkat(AT_EMPTY_PATH)", || {
            rustix::fs::linkat(fd.as_fd(), c"", new_dir.as_fd(), new, AtFlags::EMPTY_PATH)
        })
    })
}

/// linkat(2) through the descriptor's link in procfs: the name `new` in `new_dir` for the open file `fd`.
/// Five calls, as it is checked that this is a real procfs and the link the right one.
///
/// # Errors
/// `EOPNOTSUPP`: no procfs of this process here. Else as linkat(2).
pub fn link_proc(fd: impl AsFd, new_dir: impl AsFd, new: impl Arg) -> Result<()> {
    let (proc, number) = descriptor_link(fd.as_fd())?;
    new.into_with_c_str(|new| {
        retry("linkat(/proc/self/fd)", || {
            rustix::fs::linkat(
                &proc,
                number.as_c_str(),
                new_dir.as_fd(),
                new,
                AtFlags::SYMLINK_FOLLOW,
            )
        })
    })
}

/// symlinkat(2): a symlink `new` in `dir` with the text `target`.
///
/// # Errors
/// As symlinkat(2).
pub fn symlinkat(target: impl Arg, dir: impl AsFd, new: impl Arg) -> Result<()> {
    target.into_with_c_str(|target| {
        new.into_with_c_str(|new| {
            retry("symlinkat", || {
                rustix::fs::symlinkat(target, dir.as_fd(), new)
            })
        })
    })
}

/// readlinkat(2): the text of a symlink; with an empty `path`, of the link that `dir` itself is open on
/// (`O_PATH | O_NOFOLLOW`).
///
/// # Errors
/// As readlinkat(2). `EINVAL` (with an empty path `ENOENT`): not a symlink.
pub fn readlinkat(dir: impl AsFd, path: impl Arg) -> Result<CString> {
    path.into_with_c_str(|path| {
        retry("readlinkat", || {
            rustix::fs::readlinkat(dir.as_fd(), path, Vec::new())
        })
    })
}
