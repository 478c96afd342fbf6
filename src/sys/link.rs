//! linkat(2), symlinkat(2), readlinkat(2), and giving an unnamed file a name.

use super::{Arg, AsFd, AtFlags, CWD, Errno, Mode, OFlags, Result, call, openat, retry};
use rustix::fd::AsRawFd;
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
/// Up to four calls: linkat with `AT_EMPTY_PATH` (unprivileged since Linux 6.10, for the credentials that
/// opened the file), and where that answers `ENOENT`, through `/proc/self/fd`, after checking that this
/// is a real procfs.
///
/// # Errors
/// `EOPNOTSUPP`: neither way is open to this process. Else as linkat(2); `EEXIST`: the name is taken;
/// `ENOENT`: `new_dir` was removed, or the file was, or it was opened with `O_EXCL`.
///
/// Source: linkat(2), open(2) on `O_TMPFILE`.
pub fn link_descriptor(fd: impl AsFd, new_dir: impl AsFd, new: impl Arg) -> Result<()> {
    let (fd, new_dir) = (fd.as_fd(), new_dir.as_fd());
    new.into_with_c_str(|new| {
        let direct = retry("linkat(AT_EMPTY_PATH)", || {
            rustix::fs::linkat(fd, c"", new_dir, new, AtFlags::EMPTY_PATH)
        });
        match direct {
            // ENOENT and EPERM are the refusals to a process without the right; EINVAL and ENOSYS those
            // of sandboxes that do not know the flag.
            Err(Errno::NOENT | Errno::PERM | Errno::INVAL | Errno::NOSYS) => {}
            done => return done,
        }
        let proc = match openat(
            CWD,
            c"/proc/self/fd",
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        ) {
            Ok(proc) => proc,
            Err(_) => return Err(Errno::OPNOTSUPP),
        };
        if !call("fstatfs", || rustix::fs::fstatfs(&proc))
            .is_ok_and(|s| s.f_type == PROC_SUPER_MAGIC)
        {
            return Err(Errno::OPNOTSUPP);
        }
        // A decimal number holds no NUL.
        let number = CString::new(fd.as_raw_fd().to_string()).map_err(|_| Errno::INVAL)?;
        retry("linkat(/proc/self/fd)", || {
            rustix::fs::linkat(
                &proc,
                number.as_c_str(),
                new_dir,
                new,
                AtFlags::SYMLINK_FOLLOW,
            )
        })
    })
}

const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

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
