//! A transaction before its new things exist: what the caller asked for, and the mapping that it amounts to.

use super::identity::{Ident, Stamp};
use super::mapping::{ObjectIx, Place, Slot, SlotIx};
use crate::Name;
use crate::sys::{Metadata, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// One change that the caller asked for. Paths are beneath the root; links on the way are followed beneath
/// it, one at the end never is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write {
        path: PathBuf,
        source: Source,
        attr: AttrRequest,
        /// Fail if there is something.
        create_new: bool,
    },
    Append {
        path: PathBuf,
        source: Source,
    },
    /// With `parents`: those too, and no error if the directory exists.
    CreateDir {
        path: PathBuf,
        /// Exactly this; `None`: 0777 less the umask.
        mode: Option<u32>,
        parents: bool,
    },
    /// A file, symlink or special file.
    RemoveFile {
        path: PathBuf,
    },
    /// An empty directory.
    RemoveDir {
        path: PathBuf,
    },
    /// Anything, with all that is in it.
    RemoveTree {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        how: Renaming,
    },
    Symlink {
        target: Vec<u8>,
        path: PathBuf,
    },
    HardLink {
        from: PathBuf,
        to: PathBuf,
    },
    /// Mode, owner, times, extended attributes of what is there (never of what a link points to).
    SetAttributes {
        path: PathBuf,
        attr: AttrRequest,
    },
    /// Writes over the content of a file that stays the inode that it is.
    WriteInPlace {
        path: PathBuf,
        source: Source,
    },
    /// Records an idempotency key with a value.
    Key {
        name: Vec<u8>,
        value: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renaming {
    /// As rename(2): a file replaces a file, a directory an empty directory.
    Replace,
    NoReplace,
    Exchange,
}

/// Content that the caller gave.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Bytes(Arc<[u8]>),
    /// It was written to a private file at once.
    File(Arc<StagedFile>),
}

/// A file in `staged/` that has content and no other attributes yet.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) name: Name,
    /// Open for reading and writing.
    pub(crate) fd: OwnedFd,
    pub(crate) len: u64,
}

/// Attributes that the caller asked for; what is `None` is as it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttrRequest {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<Stamp>,
    pub(crate) atime: Option<Stamp>,
    /// A value to set, or `None` to remove; the last one of a name counts.
    pub(crate) xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The sum of the operations, before anything is staged.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) places: Vec<Place>,
    pub(crate) objects: Vec<DraftObject>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) changes: Vec<DraftChange>,
    pub(crate) seen: Seen,
}

/// What was seen under the claims, for staging, which looks at what is not here.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) root: Option<Metadata>,
    /// Of existing objects, each by the name of its slot.
    pub(crate) objects: Vec<Option<Metadata>>,
}

impl Draft {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.slots.iter().all(Slot::is_as_before)
    }

    /// Has staging look at everything once more: something has come between.
    pub(crate) fn forget_seen(&mut self) {
        self.seen = Seen::default();
    }
}

#[derive(Debug)]
pub(crate) enum DraftObject {
    Existing {
        ident: Ident,
        slot: SlotIx,
    },
    New {
        content: NewContent,
        attr: AttrRequest,
        /// The file whose place it takes, and whose mode, owner, access list and attributes it keeps where
        /// `attr` does not say otherwise.
        like: Option<ObjectIx>,
    },
}

#[derive(Debug)]
pub(crate) enum NewContent {
    /// These pieces, one after the other.
    File(Vec<Piece>),
    Symlink(Vec<u8>),
    Dir,
    Link(ObjectIx),
}

#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Given(Source),
    /// What is in an existing file when the transaction commits.
    Existing(ObjectIx),
}

/// A change of an existing thing that stays what it is.
#[derive(Debug)]
pub(crate) struct DraftChange {
    pub(crate) object: ObjectIx,
    pub(crate) what: DraftSet,
}

#[derive(Debug)]
pub(crate) enum DraftSet {
    Attributes(AttrRequest),
    Content(Source),
}
