//! What all of these tests use.

pub(crate) use crate::common::long;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use steadfast::Backend;
use steadfast::root::bare;

/// One look-up, with all that openat2 takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) path: Vec<u8>,
    pub(crate) flags: OFlags,
    pub(crate) mode: Mode,
    pub(crate) resolve: ResolveFlags,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// openat2, called here.
    Raw,
    Kernel,
    Walk,
    Auto,
}

/// How often openat2 is asked again when it says EAGAIN.
const PATIENCE: u32 = 100_000;

impl Case {
    /// Opens, and asks again as long as the answer depends on what others rename.
    pub(crate) fn open(&self, who: Who, root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let cached = self.resolve.contains(ResolveFlags::CACHED);
        for _ in 0..PATIENCE {
            match self.open_once(who, root) {
                Err(Errno::AGAIN) if matches!(who, Who::Raw | Who::Kernel) && !cached => {}
                done => return done,
            }
        }
        panic!("EAGAIN {PATIENCE} times");
    }

    fn open_once(&self, who: Who, root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let (path, flags) = (self.path.as_slice(), self.flags | OFlags::CLOEXEC);
        let backend = match who {
            Who::Raw => {
                return rustix::fs::openat2(root, path, flags, self.mode, self.resolve);
            }
            Who::Kernel => Backend::Kernel,
            Who::Walk => Backend::Walk,
            Who::Auto => Backend::Auto,
        };
        bare::resolve(backend, root, path, flags, self.mode, self.resolve)
    }
}

/// Device and inode: what was opened.
pub(crate) type Id = (u64, u64);

pub(crate) fn id(fd: impl AsFd) -> Id {
    let stat = rustix::fs::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// The same of a name, links not followed.
pub(crate) fn id_at(dir: impl AsFd, name: &str) -> Id {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// Whether [`Who::Raw`] can be asked: the kernel has openat2 and no filter hides it.
pub(crate) fn has_openat2() -> bool {
    let beneath = ResolveFlags::BENEATH;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::openat(rustix::fs::CWD, "/", flags, Mode::empty()).unwrap();
    rustix::fs::openat2(top, ".", flags, Mode::empty(), beneath).is_ok()
}

/// Whether [`Who::Kernel`] can be asked: neither that nor the environment hides it from the library.
pub(crate) fn kernel_answers() -> bool {
    has_openat2() && !steadfast::sys::hook::denied_by_env("openat2")
}

/// Bytes as a string that can be read and, between quotes, compiled.
pub(crate) fn show(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes.escape_ascii() {
        let _ = write!(out, "{}", byte as char);
    }
    out
}

pub(crate) use crate::common::Random as Rng;

pub(crate) use crate::common::skipped;
