//! Claims on paths: who works where, kept by the kernel.
//!
//! A claim covers a path and everything below it, shared or exclusive. Two claims conflict if one covers the
//! other's path and one of them is exclusive; claims on siblings do not. The lock table is the kernel's own:
//! open-file-description locks (fcntl(2)) on byte ranges of one file, which stays empty. So a claim ends with
//! its holder at once, however that ends, and never before: there is no time-out to wait for, and none that
//! fires while a holder is merely slow.
//!
//! Claims are advisory, and go by path: whoever takes none is not held back, and a file that has two names
//! can be claimed under each. Give them the resolved path
//! ([`Root::canonicalize`](crate::Root::canonicalize)), or a symlink inside the root is a way round.
//!
//! ```
//! use steadfast::claim::{ClaimPath, Claims, Want};
//! # let tmp = tempfile::tempdir()?;
//! # let state = steadfast::Root::open(tmp.path())?;
//! let claims = Claims::open(state.dir())?;
//! let site = ClaimPath::new("site")?;
//! let page = ClaimPath::new("site/index.html")?;
//! let held = claims.try_claim(&[Want::exclusive(site)])?;
//! assert!(claims.try_claim(&[Want::shared(page.clone())]).is_err());
//! drop(held);
//! claims.try_claim(&[Want::shared(page)])?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod extra;
mod node;
mod path;

pub use path::ClaimPath;

pub(crate) use extra::{Extra, is_held};

use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, FileId, LockRange, Mode, OFlags, OwnedFd,
};
use crate::wait::again_until;
use crate::{Dir, Error, ErrorKind, Result};
use node::{Modes, Node};
use std::collections::BTreeMap;
use std::time::Duration;

const OPERATION: &str = "claim";

/// The lock file. It is made once and never removed: a second one would be a second lock table.
const FILE: &std::ffi::CStr = c"claims";

/// A path to claim, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    path: ClaimPath,
    exclusive: bool,
}

impl Want {
    /// To read: others may read as well.
    #[must_use]
    pub fn shared(path: ClaimPath) -> Self {
        Self {
            path,
            exclusive: false,
        }
    }

    /// To change: nobody else may claim it, anything in it, or a tree that it is in.
    #[must_use]
    pub fn exclusive(path: ClaimPath) -> Self {
        Self {
            path,
            exclusive: true,
        }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &ClaimPath {
        &self.path
    }

    /// Whether it is exclusive.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether two claims of different holders exclude each other.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        (self.exclusive || other.exclusive)
            && (self.path.covers(&other.path) || other.path.covers(&self.path))
    }
}

/// The lock table of one directory.
#[derive(Debug)]
pub struct Claims {
    dir: Dir,
    id: FileId,
}

impl Claims {
    /// The table that is kept in `dir`, in a file `claims` (mode 0600) which is made if it is not there.
    /// All who are to see each other's claims use the same directory.
    ///
    /// # Errors
    /// As open(2). [`ErrorKind::NotAFile`]: something else has that name.
    pub fn open(dir: &Dir) -> Result<Self> {
        let fd = open_file(dir)?;
        let id = identity(&fd)?;
        Ok(Self {
            dir: dir.try_clone()?,
            id,
        })
    }

    /// Takes all of these claims, or none.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: somebody holds a claim that conflicts; the error's path is the one in the way,
    /// or a directory above it. [`ErrorKind::Changed`]: the lock file was removed or replaced. `ENOLCK`:
    /// the kernel or file system has no locks left, or none at all. Else as open(2).
    pub fn try_claim(&self, wants: &[Want]) -> Result<Claim> {
        let fd = open_file(&self.dir)?;
        if identity(&fd)? != self.id {
            return Err(Error::of_kind(OPERATION, ErrorKind::Changed)
                .with_detail("the lock file was replaced")
                .with_advice("everybody who uses this directory must open it anew"));
        }
        let mut claim = Claim {
            fd,
            held: BTreeMap::new(),
            process: sys::process_id(),
        };
        claim.try_extend(wants)?;
        Ok(claim)
    }

    /// Takes all of these claims as soon as they are free, and waits for them at the most this long.
    ///
    /// Nothing is held while it waits, so that no two callers of this can wait for each other. Who waits is
    /// not served in order of arrival.
    ///
    /// # Errors
    /// As [`try_claim`](Self::try_claim); [`ErrorKind::Busy`] when the time is up.
    pub fn claim(&self, wants: &[Want], wait: Duration) -> Result<Claim> {
        operation!("claim", paths = wants.len());
        again_until(wait, || self.try_claim(wants))
    }
}

/// Claims that are held. They end when this is dropped, or its process ends.
#[derive(Debug)]
pub struct Claim {
    fd: OwnedFd,
    held: BTreeMap<Node, Modes>,
    /// Whose claim it is: a child that was forked has a copy.
    process: u32,
}

impl Claim {
    /// The descriptor on which all its locks are.
    pub(crate) fn lock_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing alone would leave the locks to a child of another thread that is between fork and exec.
        // But a child that goes on with this value must not give up its parent's claim.
        if self.process == sys::process_id() {
            // They end with the descriptor at the latest.
            let _ = sys::ofd_unlock(&self.fd, LockRange::WHOLE);
        }
    }
}

impl Claim {
    /// Takes further claims, all or none. What is held already, stays; a shared claim may become exclusive.
    ///
    /// # Errors
    /// As [`Claims::try_claim`]; what was held before still is.
    pub fn try_extend(&mut self, wants: &[Want]) -> Result<()> {
        let mut target = self.held.clone();
        for want in wants {
            for (node, modes) in want.path.nodes(want.exclusive) {
                target.entry(node).or_default().add(modes);
            }
        }
        // In one order for everybody, though nobody waits while holding: it makes a loser give up early.
        let mut taken = Vec::new();
        for (node, modes) in &mut target {
            let before = self.held.get(node).copied().unwrap_or_default();
            if before == *modes {
                continue;
            }
            taken.push((*node, before));
            if let Err(errno) = node.take(&self.fd, self.process, before, modes) {
                for (node, before) in taken.into_iter().rev() {
                    // Giving back cannot fail for want of anything; and if it does, more is held, not less.
                    let _ = node.give_back(&self.fd, before);
                }
                let error = Error::new(OPERATION, "fcntl(F_OFD_SETLK)", errno);
                let error = match wants.iter().find_map(|want| want.path.path_of(*node)) {
                    Some(path) => error.with_path(path),
                    None => error,
                };
                return Err(match errno {
                    Errno::AGAIN | Errno::ACCESS => error
                        .with_kind(ErrorKind::Busy)
                        .with_advice("somebody works there: wait, or try again later"),
                    _ => error,
                });
            }
        }
        self.held = target;
        Ok(())
    }

    /// [`try_extend`](Self::try_extend), waiting at the most this long. What is held already, is held while
    /// it waits: two who extend towards each other both wait until one's time is up.
    ///
    /// # Errors
    /// As [`try_extend`](Self::try_extend).
    pub fn extend(&mut self, wants: &[Want], wait: Duration) -> Result<()> {
        operation!("claim", paths = wants.len());
        again_until(wait, || self.try_extend(wants))
    }
}

fn open_file(dir: &Dir) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::RUSR | Mode::WUSR;
    sys::openat(dir, FILE, flags, mode)
        .map_err(|e| Error::new(OPERATION, "openat", e).with_path("claims"))
}

fn identity(fd: &OwnedFd) -> Result<FileId> {
    let meta = sys::statx(fd, c"", AtFlags::EMPTY_PATH)
        .map_err(|e| Error::new(OPERATION, "statx", e).with_path("claims"))?;
    if !meta.is_file() {
        return Err(Error::of_kind(OPERATION, ErrorKind::NotAFile).with_path("claims"));
    }
    Ok(meta.id())
}
