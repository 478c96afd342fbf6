//! Locks that the kernel frees with their holder: open-file-description locks, flock(2), and the lease that
//! tells whether anybody has a file open for writing.

use super::{AsFd, FlockOperation, OwnedFd, Result, call, raw, retry};

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Many holders; the descriptor must be open for reading.
    Shared,
    /// One holder; the descriptor must be open for writing.
    Exclusive,
}

/// The bytes that a lock covers; they need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LockRange {
    start: i64,
    len: i64,
}

impl LockRange {
    /// Everything, however far the file grows.
    pub const WHOLE: Self = Self { start: 0, len: 0 };

    /// `len` bytes from `start`; `None` if that is no byte, or ends beyond the largest file offset.
    #[must_use]
    pub fn new(start: u64, len: u64) -> Option<Self> {
        let (start, len) = (i64::try_from(start).ok()?, i64::try_from(len).ok()?);
        (len > 0 && start.checked_add(len).is_some()).then_some(Self { start, len })
    }
}

/// Takes an open-file-description lock (`F_OFD_SETLKW`), waiting for it. It belongs to the open file
/// description: two descriptors from two opens conflict, even in one process; duplicates share it; it ends
/// with the last of them. Linux 3.15. It replaces what the same description holds on the range.
///
/// # Errors
/// As fcntl(2). `EBADF`: opened without the right that the kind needs. `ENOLCK`: no memory, or no locks here.
pub fn ofd_lock(fd: impl AsFd, kind: LockKind, range: LockRange) -> Result<()> {
    retry("fcntl(F_OFD_SETLKW)", || {
        raw::ofd(
            fd.as_fd(),
            libc::F_OFD_SETLKW,
            kind.raw(),
            range.start,
            range.len,
        )
    })
}

/// [`ofd_lock`] without waiting (`F_OFD_SETLK`).
///
/// # Errors
/// `EAGAIN` (on some systems `EACCES`): held by somebody else. Else as [`ofd_lock`].
pub fn ofd_try_lock(fd: impl AsFd, kind: LockKind, range: LockRange) -> Result<()> {
    retry("fcntl(F_OFD_SETLK)", || {
        raw::ofd(
            fd.as_fd(),
            libc::F_OFD_SETLK,
            kind.raw(),
            range.start,
            range.len,
        )
    })
}

/// Whether [`ofd_try_lock`] would be refused now (`F_OFD_GETLK`); nothing is locked. The descriptor may be
/// open for reading only.
///
/// # Errors
/// As fcntl(2).
pub fn ofd_would_wait(fd: impl AsFd, kind: LockKind, range: LockRange) -> Result<bool> {
    retry("fcntl(F_OFD_GETLK)", || {
        raw::ofd_conflict(fd.as_fd(), kind.raw(), range.start, range.len)
    })
}

/// Gives back what this open file description holds on the range.
///
/// # Errors
/// As fcntl(2).
pub fn ofd_unlock(fd: impl AsFd, range: LockRange) -> Result<()> {
    retry("fcntl(F_OFD_SETLK, F_UNLCK)", || {
        raw::ofd(
            fd.as_fd(),
            libc::F_OFD_SETLK,
            libc::F_UNLCK,
            range.start,
            range.len,
        )
    })
}

impl LockKind {
    fn raw(self) -> libc::c_int {
        match self {
            Self::Shared => libc::F_RDLCK,
            Self::Exclusive => libc::F_WRLCK,
        }
    }
}

/// flock(2) without waiting; also for a directory. `EAGAIN` (`EWOULDBLOCK`): held by somebody else.
///
/// # Errors
/// As flock(2). On NFS an exclusive lock needs a descriptor that is open for writing (`EBADF`).
pub fn try_flock(fd: impl AsFd, kind: LockKind) -> Result<()> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    retry("flock", || rustix::fs::flock(fd.as_fd(), operation))
}

/// Proof, while it lives, that nobody had the file open for writing when it was made: whoever opens it so
/// afterwards waits until this is dropped.
#[derive(Debug)]
pub struct WriterFree<'a>(&'a OwnedFd);

/// Takes a read lease (fcntl(2), `F_SETLEASE`) on a file that is open read-only: the kernel grants it only
/// while nobody, in any process or container of this machine, has the file open for writing.
///
/// The holder is asked to give it back by SIGURG, which does nothing by default. Two calls.
///
/// # Errors
/// `EAGAIN`: somebody has it open for writing. `EACCES`: the file is another user's, and this process lacks
/// `CAP_LEASE`. `EINVAL`: no leases on this file system, or switched off.
pub fn lease_free_of_writers(fd: &OwnedFd) -> Result<WriterFree<'_>> {
    call("fcntl(F_SETLEASE)", || raw::read_lease(fd.as_fd()))?;
    Ok(WriterFree(fd))
}

impl Drop for WriterFree<'_> {
    fn drop(&mut self) {
        // It cannot fail for a lease that is held; closing the descriptor would end it all the same.
        let _ = raw::unlease(self.0.as_fd());
    }
}
