//! What was seen of a path at a moment: for people, and for programs that compare.

use crate::sys::{FileType, Gid, Mode, Uid};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Facts about one path, taken by [`Section::evidence`](super::Section::evidence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(super) path: PathBuf,
    pub(super) seen: Option<Seen>,
}

/// Facts about what was at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// What it is.
    pub kind: FileType,
    /// Length in bytes.
    pub len: u64,
    /// Permission bits, set-user-id and the like included.
    pub mode: Mode,
    /// Owner.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// Last change of content.
    pub modified: SystemTime,
    /// Inode number.
    pub inode: u64,
    /// SHA-256 of the content of a regular file, if it was asked for (feature `sha256`).
    pub sha256: Option<[u8; 32]>,
}

impl Evidence {
    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was there; `None`: nothing.
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }
}
