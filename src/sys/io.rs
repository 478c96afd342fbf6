//! read(2), write(2), lseek(2), ftruncate(2).

use super::{AsFd, OwnedFd, Result, retry};
use rustix::fs::SeekFrom;

/// read(2): the number of bytes read; 0 at the end.
///
/// # Errors
/// As read(2).
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    retry("read", || rustix::io::read(fd.as_fd(), &mut *buf))
}

/// pread(2).
///
/// # Errors
/// As pread(2).
pub fn pread(fd: impl AsFd, buf: &mut [u8], offset: u64) -> Result<usize> {
    retry("pread64", || {
        rustix::io::pread(fd.as_fd(), &mut *buf, offset)
    })
}

/// write(2): the number of bytes written, which may be smaller than asked for.
///
/// # Errors
/// As write(2).
pub fn write(fd: impl AsFd, buf: &[u8]) -> Result<usize> {
    retry("write", || rustix::io::write(fd.as_fd(), buf))
}

/// pwrite(2).
///
/// # Errors
/// As pwrite(2).
pub fn pwrite(fd: impl AsFd, buf: &[u8], offset: u64) -> Result<usize> {
    retry("pwrite64", || rustix::io::pwrite(fd.as_fd(), buf, offset))
}

/// lseek(2): the new offset.
///
/// # Errors
/// As lseek(2).
pub fn seek(fd: impl AsFd, to: std::io::SeekFrom) -> Result<u64> {
    let to = match to {
        std::io::SeekFrom::Start(at) => SeekFrom::Start(at),
        std::io::SeekFrom::End(by) => SeekFrom::End(by),
        std::io::SeekFrom::Current(by) => SeekFrom::Current(by),
    };
    retry("lseek", || rustix::fs::seek(fd.as_fd(), to))
}

/// dup(2): a copy that programs inherit, on the same open file description.
///
/// # Errors
/// As dup(2).
pub fn dup_inheritable(fd: impl AsFd) -> Result<OwnedFd> {
    retry("dup", || rustix::io::dup(fd.as_fd()))
}

/// ftruncate(2).
///
/// # Errors
/// As ftruncate(2).
pub fn ftruncate(fd: impl AsFd, len: u64) -> Result<()> {
    retry("ftruncate", || rustix::fs::ftruncate(fd.as_fd(), len))
}
