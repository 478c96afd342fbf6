//! Moving content without passing it through the process, reserving space, and finding holes.

use super::{AsFd, Errno, FallocateFlags, Result, retry};
use rustix::fs::SeekFrom;

/// copy_file_range(2) at the two files' own offsets: up to `len` bytes from `from` to `to`, moved on; the
/// number of bytes copied, which may be smaller. 0 is the end of `from`, but also the answer of
/// some special files that do have content.
///
/// # Errors
/// As copy_file_range(2). `EXDEV`, `EINVAL`, `EOPNOTSUPP`, `ENOSYS`: copy in another way.
pub fn copy_file_range(from: impl AsFd, to: impl AsFd, len: usize) -> Result<usize> {
    retry("copy_file_range", || {
        rustix::fs::copy_file_range(from.as_fd(), None, to.as_fd(), None, len)
    })
}

/// `FICLONE` (ioctl_ficlone(2)): `to` shares all of the content of `from` from now on, copy on write.
///
/// # Errors
/// As ioctl_ficlone(2). `EOPNOTSUPP`, `EINVAL`, `ENOTTY`, `EXDEV`: not possible here.
pub fn ficlone(to: impl AsFd, from: impl AsFd) -> Result<()> {
    retry("ioctl(FICLONE)", || {
        rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd())
    })
}

/// fallocate(2): reserves space for `len` bytes from `offset`, or what the mode says.
///
/// # Errors
/// As fallocate(2). `EOPNOTSUPP`: the file system cannot.
pub fn fallocate(fd: impl AsFd, mode: FallocateFlags, offset: u64, len: u64) -> Result<()> {
    retry("fallocate", || {
        rustix::fs::fallocate(fd.as_fd(), mode, offset, len)
    })
}

/// lseek(2) with `SEEK_DATA`: where content next begins at or after `from`; `None` if there is none.
///
/// # Errors
/// As lseek(2). `EINVAL`: the file system cannot tell.
pub fn seek_data(fd: impl AsFd, from: u64) -> Result<Option<u64>> {
    match retry("lseek(SEEK_DATA)", || {
        rustix::fs::seek(fd.as_fd(), SeekFrom::Data(from))
    }) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// lseek(2) with `SEEK_HOLE`: where the next hole begins at or after `from`. The end of the file is a hole.
///
/// # Errors
/// As lseek(2).
pub fn seek_hole(fd: impl AsFd, from: u64) -> Result<u64> {
    retry("lseek(SEEK_HOLE)", || {
        rustix::fs::seek(fd.as_fd(), SeekFrom::Hole(from))
    })
}
