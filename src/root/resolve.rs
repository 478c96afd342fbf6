//! Resolving a path beneath a directory: which back end answers, and what its refusals mean.
//!
//! Two back ends give the same answers: the kernel's openat2(2), and a [walk](super::walk) of our own. No
//! third way exists: where neither can answer, the caller gets the errno.

use super::Backend;
use super::walk;
use crate::sys::{self, BorrowedFd, Errno, Mode, OFlags, OpenHow, OwnedFd, ResolveFlags};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether openat2 was found blocked. A filter cannot be removed from a process, so this is remembered;
/// that it works is not, for a filter may be added later.
static BLOCKED: AtomicBool = AtomicBool::new(false);

/// How often the kernel is asked again when something was renamed under a `..`, before the walk answers.
const TRIES: u32 = 8;

/// One open: all that openat2 takes, beneath `root`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) root: BorrowedFd<'a>,
    /// Any bytes; one with a NUL is refused with `EINVAL`.
    pub(crate) path: &'a [u8],
    /// As for openat2(2).
    pub(crate) flags: OFlags,
    pub(crate) mode: Mode,
    /// Exactly one of `BENEATH` and `IN_ROOT`, and further restrictions.
    pub(crate) resolve: ResolveFlags,
}

/// Opens, by the back end that the caller chose. EAGAIN for a racing rename never comes out of it.
pub(crate) fn open(backend: Backend, request: &Request<'_>) -> sys::Result<OwnedFd> {
    if request.path.contains(&0) {
        return Err(Errno::INVAL);
    }
    match backend {
        Backend::Walk => walk::open(request),
        Backend::Auto if BLOCKED.load(Ordering::Relaxed) => walk::open(request),
        Backend::Auto => auto(request),
        Backend::Kernel => {
            for _ in 0..TRIES * TRIES {
                match ask_kernel(request) {
                    Err(Errno::AGAIN) if !request.resolve.contains(ResolveFlags::CACHED) => {}
                    done => return done,
                }
            }
            Err(Errno::AGAIN)
        }
    }
}

/// openat2 once.
pub(crate) fn ask_kernel(request: &Request<'_>) -> sys::Result<OwnedFd> {
    let how = OpenHow::new(request.flags)
        .mode(request.mode)
        .resolve(request.resolve);
    sys::openat2(request.root, request.path, how)
}

fn auto(request: &Request<'_>) -> sys::Result<OwnedFd> {
    for _ in 0..TRIES {
        match ask_kernel(request) {
            Err(Errno::AGAIN) if !request.resolve.contains(ResolveFlags::CACHED) => {}
            Err(e @ (Errno::NOSYS | Errno::PERM)) => {
                if !sys::openat2_blocked() {
                    return Err(e);
                }
                BLOCKED.store(true, Ordering::Relaxed);
                break;
            }
            // The kernel carries its count of links over a retry of its own, and so may refuse a path
            // with more than 20 of its 40 links. The walk counts each once.
            Err(Errno::LOOP) if !request.resolve.contains(ResolveFlags::NO_SYMLINKS) => break,
            done => return done,
        }
    }
    walk::open(request)
}

/// The resolver itself, for tests that give it what no [`Root`](super::Root) would.
#[cfg(feature = "_hook")]
#[doc(hidden)]
pub mod bare {
    use super::{Backend, Request, open};
    use crate::root::walk;
    use crate::sys::{BorrowedFd, Mode, OFlags, OwnedFd, ResolveFlags, Result};

    /// Opens `path` beneath `root`.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn resolve(
        backend: Backend,
        root: BorrowedFd<'_>,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        let request = Request {
            root,
            path,
            flags: flags | OFlags::CLOEXEC,
            mode,
            resolve,
        };
        open(backend, &request)
    }

    /// Opens with `O_PATH`, and gives the path without links, `.` and `..`.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn canonical(
        root: BorrowedFd<'_>,
        path: &[u8],
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<(OwnedFd, Vec<u8>)> {
        walk::canonical(&Request {
            root,
            path,
            flags: flags | OFlags::CLOEXEC,
            mode: Mode::empty(),
            resolve,
        })
    }
}
