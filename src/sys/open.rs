//! openat(2), openat2(2) and unnamed files.

use super::{Arg, AsFd, Errno, Mode, OFlags, OwnedFd, ResolveFlags, Result, raw, retry};

/// Arguments of [`openat2`]: open flags, the mode of a file that is created, and how the path is resolved.
///
/// `O_CLOEXEC` is always set. Source: openat2(2), `struct open_how`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct OpenHow {
    pub(crate) flags: OFlags,
    pub(crate) mode: Mode,
    pub(crate) resolve: ResolveFlags,
}

impl OpenHow {
    /// With these open flags (`O_CLOEXEC` is added), no mode and no resolve flags.
    pub const fn new(flags: OFlags) -> Self {
        Self {
            flags: flags.union(OFlags::CLOEXEC),
            mode: Mode::empty(),
            resolve: ResolveFlags::empty(),
        }
    }

    /// Permissions of a file that this call creates, before the umask. With neither `O_CREAT` nor
    /// `O_TMPFILE` the kernel refuses a mode (`EINVAL`).
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How the path is resolved.
    pub const fn resolve(mut self, resolve: ResolveFlags) -> Self {
        self.resolve = resolve;
        self
    }
}

/// openat(2), close-on-exec.
///
/// # Errors
/// As openat(2).
pub fn openat(dir: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    path.into_with_c_str(|path| {
        retry("openat", || {
            rustix::fs::openat(dir.as_fd(), path, flags, mode)
        })
    })
}

/// openat2(2), Linux 5.6.
///
/// # Errors
/// As openat2(2). `ENOSYS`, or `EPERM` where a seccomp filter answers so, means that the call is not to be
/// had: see [`openat2_blocked`]. `EAGAIN` may mean that something was renamed meanwhile.
pub fn openat2(dir: impl AsFd, path: impl Arg, how: OpenHow) -> Result<OwnedFd> {
    path.into_with_c_str(|path| {
        retry("openat2", || {
            rustix::fs::openat2(dir.as_fd(), path, how.flags, how.mode, how.resolve)
        })
    })
}

/// Whether openat2 is missing or blocked for this process, asked without a path, a descriptor or a
/// permission in play: openat2 with null pointers answers `EFAULT` if it is there.
///
/// Source: openat2(2), seccomp(2).
#[must_use]
pub fn openat2_blocked() -> bool {
    let probe = retry("openat2(NULL)", raw::openat2_null);
    // With the test seam, a denied openat2 is a blocked one.
    #[cfg(feature = "_hook")]
    let probe = super::call("openat2", || probe);
    matches!(probe, Err(Errno::NOSYS | Errno::PERM))
}

/// An unnamed regular file in directory `dir` (`O_TMPFILE`), open for reading and writing, that
/// [`link_descriptor`](super::link_descriptor) can give a name. Linux 3.11 and the file system's support.
///
/// # Errors
/// As open(2). `EOPNOTSUPP` (`EISDIR` on old kernels and in some sandboxes): not supported here.
pub fn open_tmpfile(dir: impl AsFd, mode: Mode) -> Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    retry("openat(O_TMPFILE)", || {
        rustix::fs::openat(dir.as_fd(), c".", flags, mode)
    })
}
