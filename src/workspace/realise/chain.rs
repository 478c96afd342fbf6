//! Changes of the same thing by several transactions that are finished as one: the last of each kind counts.
//! Those before it tell only which values a crash may have left.
//!
//! What a transaction changes of a thing stands in the mapping in the order content, owner, mode, attributes,
//! times. So of two kinds in that order, the one that comes later in spite of it is that of a later
//! transaction.

use super::super::mapping::{Change, ObjectIx, Set};
use super::Mode;
use super::state::{Purpose, Work};
use std::collections::BTreeMap;

/// What is changed of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part<'m> {
    Content,
    Owner,
    Mode,
    /// An extended attribute.
    Xattr(&'m [u8]),
    Times,
}

/// File capabilities: capabilities(7).
const CAPABILITIES: &[u8] = b"security.capability";

fn part(set: &Set) -> Part<'_> {
    match set {
        Set::Content { .. } | Set::Logged { .. } => Part::Content,
        Set::Owner { .. } => Part::Owner,
        Set::Mode { .. } => Part::Mode,
        Set::Xattr { name, .. } => Part::Xattr(name),
        Set::Times { .. } => Part::Times,
    }
}

/// The order in which the changes of one thing are made. A change of content or owner clears set-user-id, so
/// the mode comes after it; an access list sets the rights in it after that. An attribute of class `user`
/// takes the right to write to the file, which a mode may give or take.
fn rank(set: &Set) -> u8 {
    match set {
        Set::Content { .. } | Set::Logged { .. } | Set::Owner { .. } => 0,
        Set::Mode { after, .. } if after & 0o200 != 0 => 1,
        Set::Xattr { name, .. } if name.starts_with(b"user.") => 2,
        Set::Mode { .. } => 3,
        Set::Xattr { .. } => 4,
        Set::Times { .. } => 5,
    }
}

/// The changes of a mapping by what they change.
pub(super) struct Chains<'m> {
    changes: &'m [Change],
    /// By change: an object that stands for the thing, whichever of its names it is changed by.
    things: Vec<ObjectIx>,
    /// Each in the order of the transactions.
    parts: BTreeMap<(ObjectIx, Part<'m>), Vec<usize>>,
}

impl<'m> Work<'_, '_, 'm> {
    pub(super) fn chains(&self) -> Chains<'m> {
        // Only recovery finishes more than one transaction, and one knows a thing by one object.
        let many = self.mode == Mode::Again && self.purpose == Purpose::Commit;
        let changes = &self.mapping.changes;
        let mut known = BTreeMap::new();
        let things: Vec<ObjectIx> = (changes.iter())
            .map(|change| {
                let id = self.ids[change.object];
                match id.btime {
                    Some(born) if many => *known.entry((id.ino, born)).or_insert(change.object),
                    // The number alone may be another one's by now.
                    _ => change.object,
                }
            })
            .collect();
        let mut parts: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            let key = (things[at], part(&change.what));
            parts.entry(key).or_default().push(at);
        }
        Chains {
            changes,
            things,
            parts,
        }
    }
}

impl<'m> Chains<'m> {
    /// The changes that count, in the order in which they are to be made.
    pub(super) fn order(&self) -> Vec<usize> {
        let counts = |at: &usize| !self.is_over(*at);
        let mut all: Vec<usize> = (0..self.changes.len()).filter(counts).collect();
        all.sort_by_key(|at| (self.things[*at], rank(&self.changes[*at].what)));
        all
    }

    /// The changes of one kind that end with this one: any of their values may be there.
    pub(super) fn up_to(&self, at: usize) -> impl Iterator<Item = &'m Change> + Clone {
        let key = (self.things[at], part(&self.changes[at].what));
        let all = self.parts.get(&key).map_or(&[][..], Vec::as_slice);
        let changes = self.changes;
        all.iter().map(move |at| &changes[*at])
    }

    /// An object that stands for the thing that is changed, by whichever of its names.
    pub(super) fn thing(&self, at: usize) -> ObjectIx {
        self.things[at]
    }

    /// Whether such a part of the same thing is changed.
    pub(super) fn has(&self, at: usize, part: Part<'m>) -> bool {
        self.last(at, part).is_some()
    }

    fn last(&self, at: usize, part: Part<'m>) -> Option<usize> {
        let all = self.parts.get(&(self.things[at], part));
        all.and_then(|all| all.last().copied())
    }

    /// The last change of such a part of the same thing, if a later transaction has made it. `part` is one
    /// that comes before the change's own in a transaction.
    pub(super) fn later(&self, at: usize, part: Part<'m>) -> Option<&'m Change> {
        let last = self.last(at, part).filter(|last| *last > at);
        last.map(|at| &self.changes[at])
    }

    /// A later change makes up for it.
    fn is_over(&self, at: usize) -> bool {
        let part = part(&self.changes[at].what);
        self.last(at, part).is_some_and(|last| last > at)
            // The kernel takes them away with the content and with the owner.
            || part == Part::Xattr(CAPABILITIES)
                && [Part::Content, Part::Owner]
                    .into_iter()
                    .any(|part| self.later(at, part).is_some())
    }
}
