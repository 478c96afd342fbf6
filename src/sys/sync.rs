//! fsync(2), fdatasync(2), syncfs(2), sync_file_range(2).
//!
//! Never called again after an error: the second answer may be 0 for data that is lost (fsync(2), and
//! Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

use super::{AsFd, Result, call_on, raw, retry};

/// fsync(2): content and metadata of a file, or the names in a directory, are on the device.
///
/// Not repeated on `EINTR` (see the [module](super)).
///
/// # Errors
/// As fsync(2). After any error the state on the device is unknown.
pub fn fsync(fd: impl AsFd) -> Result<()> {
    call_on("fsync", fd.as_fd(), || rustix::fs::fsync(fd.as_fd()))
}

/// fdatasync(2): content and size are on the device; mode, owner, times and extended attributes need not be.
///
/// Not repeated on `EINTR`.
///
/// # Errors
/// As fdatasync(2).
pub fn fdatasync(fd: impl AsFd) -> Result<()> {
    call_on("fdatasync", fd.as_fd(), || {
        rustix::fs::fdatasync(fd.as_fd())
    })
}

/// syncfs(2): the whole file system that holds `fd` is on the device, everybody's changes included.
/// It reports write errors since Linux 5.8.
///
/// Not repeated on `EINTR`.
///
/// # Errors
/// As syncfs(2).
pub fn syncfs(fd: impl AsFd) -> Result<()> {
    call_on("syncfs", fd.as_fd(), || rustix::fs::syncfs(fd.as_fd()))
}

/// Which steps [`sync_file_range`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncRange {
    /// Start writing dirty pages out, without waiting for them.
    Start,
    /// Wait for writes under way, start the rest, wait for all.
    WriteAndWait,
}

/// sync_file_range(2): page-cache content of a range is written out; `len` 0 means to the end.
///
/// **Not durability**: no metadata is written and no device cache is flushed. Use it to start I/O early.
///
/// # Errors
/// As sync_file_range(2).
pub fn sync_file_range(fd: impl AsFd, offset: u64, len: u64, what: SyncRange) -> Result<()> {
    retry("sync_file_range", || {
        raw::sync_file_range(fd.as_fd(), offset, len, what)
    })
}
