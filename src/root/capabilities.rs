//! What this kernel, this file system and this process can do in one directory, found out by trying.
//!
//! Documents and version numbers do not tell: a filter blocks calls, a FUSE server implements what it likes,
//! and the answer of a call whose names exist, or are one file, proves nothing. Each feature is tried on
//! fresh files in a private directory, which is removed again. The trials themselves are in `trial.rs`.

use super::trial;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FsKind, Metadata};
use crate::{Error, ErrorKind, Result};
use std::sync::{Mutex, PoisonError};

/// Whether something can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum Capability {
    /// It was done.
    Yes,
    /// The kernel, the file system or a filter refused it with this errno. `ENOSYS` is a kernel without it or
    /// a filter that pretends so, `EPERM` a filter or a missing right, anything else the file system.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::errno"))]
    No(Errno),
    /// It could not be tried: this errno came in the way (`EACCES`, `EROFS`: nothing can be made here).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::errno"))]
    Unknown(Errno),
}

impl Capability {
    /// True for [`Yes`](Self::Yes).
    #[must_use]
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

/// Something that not every kernel, file system and process can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// openat2(2).
    OpenAt2,
    /// Renaming only to a free name (`RENAME_NOREPLACE`).
    NoReplace,
    /// Exchanging two names (`RENAME_EXCHANGE`).
    Exchange,
    /// Leaving a whiteout behind (`RENAME_WHITEOUT`).
    Whiteout,
    /// Unnamed files (`O_TMPFILE`).
    TmpFile,
    /// Naming an open file by its descriptor (linkat(2) with `AT_EMPTY_PATH`).
    LinkEmptyPath,
    /// Naming an open file by its link in procfs.
    LinkProc,
    /// Hard links.
    HardLink,
    /// Copies that share their blocks (`FICLONE`).
    Reflink,
    /// copy_file_range(2).
    CopyFileRange,
    /// Reserving space (fallocate(2)).
    Fallocate,
    /// Extended attributes of users (`user.*`).
    UserXattr,
    /// POSIX access control lists.
    PosixAcl,
    /// fsync(2) of a directory.
    SyncDirectory,
    /// syncfs(2).
    SyncFs,
    /// Open-file-description locks.
    OfdLock,
    /// flock(2) of a directory.
    FlockDirectory,
    /// Read leases, which tell whether somebody writes a file (fcntl(2), `F_SETLEASE`).
    WriteLease,
    /// Birth times, which tell a file from another that got its inode number later.
    BirthTime,
    /// Mount ids (statx(2)).
    MountId,
    /// Mount ids that no later mount gets.
    UniqueMountId,
}

impl Feature {
    /// All of them, in the order of the list above.
    pub const ALL: [Self; 21] = [
        Self::OpenAt2,
        Self::NoReplace,
        Self::Exchange,
        Self::Whiteout,
        Self::TmpFile,
        Self::LinkEmptyPath,
        Self::LinkProc,
        Self::HardLink,
        Self::Reflink,
        Self::CopyFileRange,
        Self::Fallocate,
        Self::UserXattr,
        Self::PosixAcl,
        Self::SyncDirectory,
        Self::SyncFs,
        Self::OfdLock,
        Self::FlockDirectory,
        Self::WriteLease,
        Self::BirthTime,
        Self::MountId,
        Self::UniqueMountId,
    ];

    /// A short name for machines, such as `rename-exchange`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// What steadfast does where it is missing.
    #[must_use]
    pub fn fallback(self) -> &'static str {
        self.texts().1
    }

    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenAt2 => ("openat2", "a userspace walk with the same answers"),
            Self::NoReplace => (
                "rename-noreplace",
                "a hard link, then removal of the old name; for a directory, a rename over an empty one",
            ),
            Self::Exchange => ("rename-exchange", "none: refused outside of a workspace"),
            Self::Whiteout => (
                "rename-whiteout",
                "none is needed: steadfast does not use it",
            ),
            Self::TmpFile => ("tmpfile", "a named temporary"),
            Self::LinkEmptyPath => ("link-empty-path", "the descriptor's link in procfs"),
            Self::LinkProc => ("link-proc", "linkat with AT_EMPTY_PATH"),
            Self::HardLink => ("hard-link", "none: hard links are refused"),
            Self::Reflink => ("reflink", "copy_file_range"),
            Self::CopyFileRange => ("copy-file-range", "read and write"),
            Self::Fallocate => ("fallocate", "a log's segments are written as zeros"),
            Self::UserXattr => (
                "user-xattr",
                "none: setting one is refused, and a copy says what it did not keep",
            ),
            Self::PosixAcl => ("posix-acl", "the permission bits alone"),
            Self::SyncDirectory => ("sync-directory", "none: the error is given"),
            Self::SyncFs => ("syncfs", "none: choose a strategy that syncs each file"),
            Self::OfdLock => ("ofd-lock", "none: what needs them is refused"),
            Self::FlockDirectory => ("flock-directory", "none: a sweep keeps staged directories"),
            Self::WriteLease => ("write-lease", "none: a sweep keeps temporary files"),
            Self::BirthTime => ("birth-time", "device and inode number alone"),
            Self::MountId => ("mount-id", "the device number, which misses bind mounts"),
            Self::UniqueMountId => ("unique-mount-id", "mount ids that may be used again"),
        }
    }
}

/// What can be done in one directory.
///
/// It holds for the file system, mount and process that asked, and for entries made through this mount. On
/// overlayfs a directory from a lower layer may refuse to be renamed (`EXDEV`) all the same.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use steadfast::{Root, root::{Capabilities, Feature}};
/// let root = Root::open(dir.path())?;
/// let can = Capabilities::probe(&root)?;
/// if !can.has(Feature::Exchange) {
///     println!("on {}: {}", can.file_system().name(), Feature::Exchange.fallback());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Capabilities {
    answers: [Capability; Feature::ALL.len()],
    file_system: FsKind,
    read_only: bool,
    mount_id: Option<u64>,
}

/// How many mounts are remembered.
const REMEMBERED: usize = 64;

/// Answers without an unknown, by device and mount id.
static CACHE: Mutex<Vec<((u64, u64), Capabilities)>> = Mutex::new(Vec::new());

impl Capabilities {
    /// Tries everything in `dir`, once for each mount in the life of the process. A probe that left something
    /// unknown is not remembered, nor is one on a kernel that does not tell mounts apart (before 5.8).
    ///
    /// # Errors
    /// As [`probe_uncached`](Self::probe_uncached).
    pub fn probe(dir: impl AsFd) -> Result<Self> {
        let dir = dir.as_fd();
        let facts = look(dir)?;
        let key = facts.mount_id().map(|mount| (facts.id().dev, mount));
        let cache = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = key {
            let known = cache()
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, c)| c.clone());
            if let Some(mut known) = known {
                known.read_only = read_only(dir)?;
                return Ok(known);
            }
        }
        let fresh = Self::try_all(dir, &facts)?;
        let complete = !fresh
            .answers
            .iter()
            .any(|a| matches!(a, Capability::Unknown(_)));
        if let Some(key) = key.filter(|_| complete) {
            let mut cache = cache();
            cache.retain(|(k, _)| *k != key);
            if cache.len() == REMEMBERED {
                drop(cache.remove(0));
            }
            cache.push((key, fresh.clone()));
        }
        Ok(fresh)
    }

    /// Tries everything in `dir`, which takes some sixty calls and one fsync of a new, private directory
    /// there. It is removed again with all that is in it.
    ///
    /// Where nothing may be created, what needs it is [`Unknown`](Capability::Unknown); that is no error.
    ///
    /// # Errors
    /// `ENOTDIR`: not a directory. As statx(2) and fstatfs(2). With
    /// [`left_behind`](Error::left_behind): the private directory could not be removed; a later
    /// [`sweep`](crate::publish) knows it by its name.
    pub fn probe_uncached(dir: impl AsFd) -> Result<Self> {
        let dir = dir.as_fd();
        Self::try_all(dir, &look(dir)?)
    }

    fn try_all(dir: BorrowedFd<'_>, facts: &Metadata) -> Result<Self> {
        let file_system = sys::fs_kind(dir).map_err(|e| Error::new(OP, "fstatfs", e))?;
        let mut answers = trial::Answers::new();
        let says = |yes, no| if yes { Ok(()) } else { Err(no) };
        answers.put(
            Feature::BirthTime,
            says(facts.id().btime.is_some(), Errno::OPNOTSUPP),
        );
        answers.put(
            Feature::MountId,
            says(facts.mount_id().is_some(), Errno::NOSYS),
        );
        answers.put(
            Feature::UniqueMountId,
            says(facts.mount_id_is_unique(), Errno::NOSYS),
        );
        trial::without_files(dir, &mut answers);
        trial::with_files(dir, &mut answers).map_err(|(name, e)| {
            Error::new(OP, "unlinkat", e)
                .with_left(name)
                .with_state(crate::DiskState::Indeterminate)
        })?;
        Ok(Self {
            answers: answers.done(),
            file_system,
            read_only: read_only(dir)?,
            mount_id: facts.mount_id(),
        })
    }

    /// The answer for one feature.
    #[must_use]
    pub fn get(&self, feature: Feature) -> Capability {
        self.answers[feature as usize]
    }

    /// Whether a feature was seen to work.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.get(feature).is_yes()
    }

    /// Every feature with its answer.
    pub fn iter(&self) -> impl Iterator<Item = (Feature, Capability)> + '_ {
        Feature::ALL.into_iter().map(|f| (f, self.get(f)))
    }

    /// The kind of file system.
    #[must_use]
    pub fn file_system(&self) -> FsKind {
        self.file_system
    }

    /// Whether the mount, or its file system, is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The mount, where the kernel tells (5.8).
    #[must_use]
    pub fn mount_id(&self) -> Option<u64> {
        self.mount_id
    }
}

const OP: &str = "probe directory";

fn look(dir: BorrowedFd<'_>) -> Result<Metadata> {
    let facts = super::open::facts(dir).map_err(|e| Error::new(OP, "statx", e))?;
    match facts.is_dir() {
        true => Ok(facts),
        false => Err(Error::new(OP, "statx", Errno::NOTDIR).with_kind(ErrorKind::NotADirectory)),
    }
}

fn read_only(dir: BorrowedFd<'_>) -> Result<bool> {
    sys::is_read_only(dir).map_err(|e| Error::new(OP, "fstatfs", e))
}

#[cfg(all(test, feature = "_hook"))]
mod tests {
    use super::*;
    use crate::sys::hook;

    /// In a process where nobody else probes this mount: the tests of the library's own code.
    #[test]
    fn only_a_complete_answer_is_remembered() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(tmp.path()).unwrap();
        let deny = [("flock", Errno::IO)];
        let can = hook::deny(&deny, || Capabilities::probe(&dir)).unwrap();
        let unknown = Capability::Unknown(Errno::IO);
        assert_eq!(can.get(Feature::FlockDirectory), unknown);
        let can = Capabilities::probe(&dir).unwrap();
        assert!(can.has(Feature::FlockDirectory));
        let again = hook::deny(&deny, || Capabilities::probe(&dir)).unwrap();
        assert_eq!(again, can);
    }
}
