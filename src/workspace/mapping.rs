//! What a transaction amounts to: which thing stands at which name afterwards.
//!
//! Not the operations are recorded, but their sum: a set of names (slots), and for each what stood there
//! before and what is to stand there. So it does not matter which of the renames in between a crash has kept:
//! whoever finishes the work looks where everything is now and goes on from there. Swapping two files,
//! renaming a file and writing a new one at its old name, replacing a directory by a file are all the same.

use super::identity::{Ident, Stamp};
use crate::Name;
use std::sync::Arc;

/// Index of a [`Place`].
pub(crate) type PlaceIx = usize;
/// Index of an [`Object`].
pub(crate) type ObjectIx = usize;
/// Index of a [`Slot`].
pub(crate) type SlotIx = usize;

/// The sum of a transaction. Indices are checked when a record is decoded, so that all of them are in range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) places: Vec<Place>,
    pub(crate) objects: Vec<Object>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) changes: Vec<Change>,
    /// Of several transactions as one: in which states the later ones have found things that an earlier one
    /// has changed. It is in no record.
    pub(crate) seen: Vec<(ObjectIx, Ident)>,
    /// Of several transactions as one: names at which one of them has left nothing, and a later one has put
    /// something. They are in no record.
    pub(crate) vacated: Vec<SlotIx>,
}

/// By object: the first slot that it is to stand at.
pub(crate) fn first_slots(slots: &[Slot], objects: usize) -> Vec<Option<SlotIx>> {
    let mut first = vec![None; objects];
    for (ix, slot) in slots.iter().enumerate() {
        if let Some(of) = slot.after.and_then(|object| first.get_mut(object)) {
            of.get_or_insert(ix);
        }
    }
    first
}

/// A directory in which names change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that was there before: by its path beneath the root before the transaction (no links in it; empty
    /// for the root), and what it is. If the transaction moves the directory itself, `object` is that.
    Existing {
        path: Vec<u8>,
        ident: Ident,
        object: Option<ObjectIx>,
    },
    /// One that the transaction makes.
    New(ObjectIx),
    /// The folder of idempotency keys in the state folder.
    Keys,
}

/// A thing that has, or gets, a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// It was there before, at this slot.
    Existing { ident: Ident, slot: SlotIx },
    /// It is made by the transaction, under the private name `staged`, before the commit.
    New {
        staged: Name,
        /// Of the staged inode; after a power cut there may be another one in its place.
        ident: Ident,
        body: Body,
        attr: Attributes,
    },
    /// It was put away under this name in `kept/`, and is to be put back: itself, or its image.
    Kept { name: Name, ident: Ident },
}

/// What is in a new thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A file whose content travels in the record.
    Inline(Arc<[u8]>),
    /// A file whose content was durable, under the staged name, before the commit.
    Staged,
    Symlink(Vec<u8>),
    /// A directory, empty but for what slots put into it.
    Dir,
    /// A further name of an object.
    Link(ObjectIx),
}

/// The attributes of a new thing: enough to make it anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, set-user-id and the like included.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Set explicitly, so that an edit by somebody else shows.
    pub(crate) mtime: Stamp,
    /// `None`: as it comes.
    pub(crate) atime: Option<Stamp>,
    /// Access list included, by its attribute name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A name that the transaction is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) place: PlaceIx,
    pub(crate) name: Name,
    /// The path beneath the root for messages and conflicts: as the caller meant it at the end.
    pub(crate) path: Vec<u8>,
    pub(crate) before: Before,
    /// What is to stand there; `None`: nothing.
    pub(crate) after: Option<ObjectIx>,
}

impl Slot {
    /// It is only a place where something is found.
    pub(crate) fn is_as_before(&self) -> bool {
        match self.before {
            Before::Nothing => self.after.is_none(),
            Before::Object(object) => self.after == Some(object),
            Before::Anything => false,
        }
    }
}

/// What stood at a name before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    Object(ObjectIx),
    /// Whatever is there gives way: in the rollback of a section, whose owner may have done anything.
    Anything,
}

/// A change of a thing that stays the inode that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// An [`Object::Existing`].
    pub(crate) object: ObjectIx,
    pub(crate) what: Set,
}

/// One attribute, or the content: what it was and what it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Mode {
        before: u32,
        after: u32,
    },
    Owner {
        before: (u32, u32),
        after: (u32, u32),
    },
    /// Time of modification, and of access if given.
    Times {
        before: Stamp,
        after: Stamp,
        atime: Option<Stamp>,
    },
    Xattr {
        name: Vec<u8>,
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    },
    /// The content is written over in place. `before` is the name of its copy in `kept/`, which is durable
    /// before the commit; the new content is that of the staged file `after`, likewise.
    Content {
        before: Name,
        after: Name,
    },
    /// The same with contents that are not long: both are here, and `time` is the time of modification that
    /// comes with the new one. `name` is free in `kept/`, should the new one have to be kept.
    Logged {
        name: Name,
        before: Arc<[u8]>,
        after: Arc<[u8]>,
        time: Stamp,
    },
}

impl Set {
    /// The same for a note: contents that it holds are named only.
    pub(crate) fn without_contents(&self) -> Self {
        match self {
            Self::Logged { name, .. } => Self::Content {
                before: name.clone(),
                after: name.clone(),
            },
            other => other.clone(),
        }
    }
}

/// A mode as chown(2) leaves it: without set-user-id, and without the set-group-id of a program.
pub(crate) fn unprivileged(mode: u32) -> u32 {
    let program = mode & 0o010 != 0;
    mode & !if program { 0o6000 } else { 0o4000 }
}
