//! What is known of where everything is, and what that means.

use super::super::ctx::Ctx;
use super::super::identity::{Ident, Kind};
use super::super::mapping::{
    Before, Body, Change, Mapping, Object, ObjectIx, PlaceIx, Slot, SlotIx, first_slots,
};
use super::super::open_files::OpenFiles;
use super::super::place::Held;
use super::ids::{Ids, Torn};
use super::unsynced::Unsynced;
use super::{Mode, Outcome};
use crate::Name;
use crate::sys::{AsFd, BorrowedFd};
use std::ffi::CStr;

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Unknown,
    Empty,
    Thing(Ident),
}

impl At {
    pub(super) fn thing(self) -> Option<Ident> {
        match self {
            Self::Thing(ident) => Some(ident),
            Self::Unknown | Self::Empty => None,
        }
    }
}

impl From<Option<Ident>> for At {
    fn from(ident: Option<Ident>) -> Self {
        ident.map_or(Self::Empty, Self::Thing)
    }
}

/// A name where something may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pos {
    Slot(SlotIx),
    /// The private name of a new or kept object.
    Home(ObjectIx),
    /// One of [`Work::asides`].
    Aside(usize),
}

/// A private folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    Staged,
    Kept,
    Retired,
}

/// Something under a private name that the mapping does not record.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    pub(super) folder: Folder,
    pub(super) name: Name,
    pub(super) at: At,
    /// It was made anew as this object.
    pub(super) of: Option<ObjectIx>,
    /// To be removed in the end.
    pub(super) drop: bool,
}

/// How far a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Open,
    /// It is left to somebody else.
    Conflict,
}

/// What the work is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A transaction, or its recovery.
    Commit,
    /// A step of a section, which may be taken back.
    Step,
    /// Taking a section back.
    Back,
}

/// A mapping under way.
pub(super) struct Work<'c, 'a, 'm> {
    pub(super) ctx: &'c mut Ctx<'a>,
    pub(super) mapping: &'m Mapping,
    pub(super) mode: Mode,
    pub(super) purpose: Purpose,
    /// Nothing that was written can have been lost.
    pub(super) intact: bool,
    /// The directories; `None`: not open, or not to be found.
    pub(super) places: Vec<Option<Held<'a>>>,
    /// Files that are to be written over.
    pub(super) opened: OpenFiles,
    pub(super) slots: Vec<At>,
    /// By object; those without a private name have nothing there.
    pub(super) homes: Vec<At>,
    pub(super) asides: Vec<Aside>,
    /// `retired/` and `kept/` were read.
    pub(super) scanned: bool,
    /// What each object is, as far as known now: one made anew is another inode.
    pub(super) ids: Ids,
    /// The slot that each object is to stand at.
    pub(super) target: Vec<Option<SlotIx>>,
    pub(super) progress: Vec<Progress>,
    /// Incomplete files of ours that a crash has left.
    pub(super) torn: Torn,
    /// What is to go and was written over by an earlier recovery, which could not give it its time:
    /// as it is now.
    pub(super) half_written: Vec<(ObjectIx, Ident)>,
    /// In recovery: slots that had something else than what they are to have.
    pub(super) strange: Vec<SlotIx>,
    /// What was there before and stays.
    survivors: Vec<ObjectIx>,
    /// Objects that were made anew.
    pub(super) remade: Vec<bool>,
    /// Names that something that must survive has left or reached without a sync.
    pub(super) dirty: Vec<Pos>,
    /// By object: what was found at its private name has no other.
    pub(super) alone: Vec<bool>,
    /// Something was put into `kept/`.
    pub(super) kept: bool,
    /// Things whose content is as it is to be: by [`Chains::thing`](super::chain::Chains::thing). Their
    /// times are ours, even if the file system has rounded them.
    pub(super) filled: Vec<ObjectIx>,
    /// What was written in place, with the changes whose copies can go when it is durable.
    pub(super) written: Vec<(ObjectIx, Vec<&'m Change>)>,
    pub(super) unsynced: Unsynced<'m>,
    pub(super) out: Outcome,
}

impl<'c, 'a, 'm> Work<'c, 'a, 'm> {
    pub(super) fn new(ctx: &'c mut Ctx<'a>, mapping: &'m Mapping, mode: Mode) -> Self {
        let target = first_slots(&mapping.slots, mapping.objects.len());
        let is_new = |at: ObjectIx| matches!(mapping.objects[at], Object::New { .. });
        let survivors = (0..target.len())
            .filter(|at| target[*at].is_some() && !is_new(*at))
            .collect();
        let ids = Ids::new(mapping);
        let first = mode == Mode::First;
        let before = |slot: &Slot| match slot.before {
            Before::Nothing if first => At::Empty,
            Before::Object(object) if first => At::Thing(ids[object]),
            _ => At::Unknown,
        };
        let home = |object: &Object| match object {
            Object::Existing { .. } => At::Empty,
            Object::New { ident, .. } | Object::Kept { ident, .. } if first => At::Thing(*ident),
            Object::New { .. } | Object::Kept { .. } => At::Unknown,
        };
        Self {
            places: mapping.places.iter().map(|_| None).collect(),
            opened: OpenFiles::default(),
            slots: mapping.slots.iter().map(before).collect(),
            homes: mapping.objects.iter().map(home).collect(),
            asides: Vec::new(),
            scanned: false,
            target,
            progress: vec![Progress::Open; mapping.slots.len()],
            torn: Torn::default(),
            half_written: Vec::new(),
            strange: Vec::new(),
            survivors,
            remade: vec![false; mapping.objects.len()],
            dirty: Vec::new(),
            alone: vec![false; mapping.objects.len()],
            kept: false,
            filled: Vec::new(),
            written: Vec::new(),
            unsynced: Unsynced::default(),
            out: Outcome::default(),
            ids,
            ctx,
            mapping,
            mode,
            purpose: Purpose::Commit,
            intact: false,
        }
    }

    pub(super) fn folder(&self, folder: Folder) -> BorrowedFd<'a> {
        match folder {
            Folder::Staged => self.ctx.staged.as_fd(),
            Folder::Kept => self.ctx.kept.as_fd(),
            Folder::Retired => self.ctx.retired.as_fd(),
        }
    }

    /// The folder and private name of an object.
    pub(super) fn home(&self, object: ObjectIx) -> Option<(Folder, &'m Name)> {
        match &self.mapping.objects[object] {
            Object::New { staged, .. } => Some((Folder::Staged, staged)),
            Object::Kept { name, .. } => Some((Folder::Kept, name)),
            Object::Existing { .. } => None,
        }
    }

    /// The directory and name of a position; `None` if its directory is not open.
    pub(super) fn name_at(&self, pos: Pos) -> Option<(BorrowedFd<'_>, &CStr)> {
        match pos {
            Pos::Slot(slot) => {
                let slot = &self.mapping.slots[slot];
                let place = self.places[slot.place].as_ref()?;
                Some((place.as_fd(), slot.name.as_c_str()))
            }
            Pos::Home(object) => {
                let (folder, name) = self.home(object)?;
                Some((self.folder(folder), name.as_c_str()))
            }
            Pos::Aside(aside) => {
                let aside = &self.asides[aside];
                Some((self.folder(aside.folder), aside.name.as_c_str()))
            }
        }
    }

    pub(super) fn at(&self, pos: Pos) -> At {
        match pos {
            Pos::Slot(slot) => self.slots[slot],
            Pos::Home(object) => self.homes[object],
            Pos::Aside(aside) => self.asides[aside].at,
        }
    }

    pub(super) fn set(&mut self, pos: Pos, at: At) {
        match pos {
            Pos::Slot(slot) => self.slots[slot] = at,
            Pos::Home(object) => self.homes[object] = at,
            Pos::Aside(aside) => self.asides[aside].at = at,
        }
    }

    /// The path that an error about a position names.
    pub(super) fn path(&self, pos: Pos) -> &'m [u8] {
        match pos {
            Pos::Slot(slot) => &self.mapping.slots[slot].path,
            Pos::Home(object) => self.path_of(object),
            Pos::Aside(_) => b"",
        }
    }

    pub(super) fn path_of(&self, object: ObjectIx) -> &'m [u8] {
        match self.target[object] {
            Some(slot) => &self.mapping.slots[slot].path,
            None => b"",
        }
    }

    /// Whether this is the object, whatever is in it now.
    pub(super) fn is(&self, object: ObjectIx, found: &Ident) -> bool {
        match self.mapping.objects[object] {
            // Never copied up; and after a power cut its number may be another new file's.
            Object::New { .. } => self.ids[object].is(found),
            Object::Existing { .. } | Object::Kept { .. } => same_inode(&self.ids[object], found),
        }
    }

    /// Whether a slot has what it is to have.
    pub(super) fn is_satisfied(&self, slot: SlotIx) -> bool {
        match (self.mapping.slots[slot].after, self.slots[slot]) {
            (Some(object), At::Thing(found)) => self.is(object, &found),
            _ => false,
        }
    }

    /// Whether an object stands where it is to stand.
    pub(super) fn has_arrived(&self, object: ObjectIx) -> bool {
        self.target[object].is_some_and(|slot| self.is_satisfied(slot))
    }

    /// Whether an object that was there before stays, at its name or at another.
    pub(super) fn survives(&self, found: &Ident) -> bool {
        let stays = |at| self.survivors.binary_search(&at).is_ok() && self.is(at, found);
        !self.survivors.is_empty() && self.any_object(found, stays)
    }

    /// The name of another link to the same file that is to stay.
    pub(super) fn another_name(&self, object: ObjectIx) -> Option<Pos> {
        let found = &self.ids[object];
        let mut names = self.target.iter().enumerate();
        names.find_map(|(at, slot)| slot.filter(|_| self.is(at, found)).map(Pos::Slot))
    }

    /// Where an object is: not at a name that has what it is to have, which may be another name of
    /// the same file.
    pub(super) fn find(&self, object: ObjectIx) -> Option<Pos> {
        let holds = |pos: &Pos| match self.at(*pos) {
            At::Thing(found) => self.is(object, &found) && self.name_at(*pos).is_some(),
            At::Unknown | At::Empty => false,
        };
        let first = match &self.mapping.objects[object] {
            Object::Existing { slot, .. } => Pos::Slot(*slot),
            Object::New { .. } | Object::Kept { .. } => Pos::Home(object),
        };
        let moved = |pos: &Pos| !matches!(pos, Pos::Slot(slot) if self.is_satisfied(*slot));
        if holds(&first) && moved(&first) {
            return Some(first);
        }
        // A name that was made for another link to the same file is not free. One that was made for anything
        // else may have been exchanged for what it replaces.
        let link = self.is_link(object);
        let asides = (0..self.asides.len())
            .filter(|aside| match self.asides[*aside].of {
                Some(of) => of == object || !(link || self.is_link(of)),
                None => !link,
            })
            .map(Pos::Aside);
        if link {
            // The file's other names are its own.
            return asides.into_iter().find(holds);
        }
        let slots = (0..self.slots.len()).map(Pos::Slot).filter(moved);
        // Nor is the private name of one, unless an exchange has brought the file itself to where the
        // link was to be.
        let homes = (0..self.homes.len())
            .filter(|home| !self.is_link(*home) || self.has_arrived(*home))
            .map(Pos::Home);
        slots.chain(homes).chain(asides).find(holds)
    }

    /// Any name of an object.
    pub(super) fn find_any(&self, object: ObjectIx) -> Option<Pos> {
        let arrived = self.target[object].filter(|slot| self.is_satisfied(*slot));
        arrived.map(Pos::Slot).or_else(|| self.find(object))
    }

    pub(super) fn is_link(&self, object: ObjectIx) -> bool {
        matches!(
            &self.mapping.objects[object],
            Object::New {
                body: Body::Link(_),
                ..
            }
        )
    }

    /// Whether what stands at a slot may give way to what is to stand there: it is the
    /// transaction's own, or what the transaction found there and is to remove.
    pub(super) fn may_displace(&self, slot: SlotIx, found: &Ident) -> bool {
        self.mapping.slots[slot].before == Before::Anything || self.is_ours(found)
    }

    /// Whether it is a thing of this mapping, and, if it is to be removed, still the thing that was
    /// there.
    pub(super) fn is_ours(&self, found: &Ident) -> bool {
        let ours = |at: ObjectIx| match &self.mapping.objects[at] {
            Object::Existing { ident, .. } if self.target[at].is_none() => {
                unchanged(ident, found) || self.was_seen(at, |seen| unchanged(seen, found))
            }
            _ => self.is(at, found),
        };
        let torn = self.torn.candidates(found);
        torn.iter().any(|torn| torn.is_unchanged(found)) || self.any_object(found, ours)
    }

    /// Whether there is an object of this kind that is, or was, of the inode number that was found.
    pub(super) fn any_object(&self, found: &Ident, is: impl Fn(ObjectIx) -> bool) -> bool {
        let any = self.ids.candidates(found).iter().any(|at| is(*at));
        debug_assert_eq!(any, (0..self.ids.len()).any(is), "an object has no number");
        any
    }

    /// Whether a later transaction has found the object in such a state, which an earlier one had
    /// left, or an earlier recovery has left it so.
    pub(super) fn was_seen(&self, object: ObjectIx, like: impl Fn(&Ident) -> bool) -> bool {
        let mut seen = self.mapping.seen.iter().chain(&self.half_written);
        seen.any(|(of, ident)| *of == object && like(ident))
    }

    /// Whether what came out of a name is what was expected there.
    pub(super) fn is_expected(&self, expected: &Ident, found: &Ident) -> bool {
        if self.survives(expected) {
            same_inode(expected, found)
        } else {
            unchanged(expected, found)
        }
    }

    /// How many new directories a place is in, itself included.
    pub(super) fn depth(&self, mut place: PlaceIx) -> usize {
        use super::super::mapping::Place;
        let mut depth = 0;
        while let Place::New(object) = self.mapping.places[place]
            && depth <= self.mapping.places.len()
        {
            depth += 1;
            match self.target[object] {
                Some(slot) => place = self.mapping.slots[slot].place,
                None => break,
            }
        }
        depth
    }

    /// Whether a slot has to be looked at: something goes, comes, or is changed there.
    pub(super) fn concerns(&self, slot: SlotIx) -> bool {
        match self.mapping.slots[slot] {
            Slot {
                before: Before::Object(object),
                after: Some(after),
                ..
            } if object == after => self.mapping.changes.iter().any(|c| c.object == object),
            Slot {
                before: Before::Nothing,
                after: None,
                ..
            } => false,
            _ => true,
        }
    }
}

pub(super) fn ident_of(object: &Object) -> Ident {
    match object {
        Object::Existing { ident, .. } | Object::New { ident, .. } | Object::Kept { ident, .. } => {
            *ident
        }
    }
}

/// The same inode. Where an overlay has copied a file up in between, its time of birth is another
/// one, but number, length and time of modification stay.
fn same_inode(a: &Ident, b: &Ident) -> bool {
    a.is(b)
        || (a.kind == b.kind
            && a.kind != Kind::Dir
            && a.ino == b.ino
            && a.len == b.len
            && a.mtime == b.mtime)
}

fn unchanged(a: &Ident, b: &Ident) -> bool {
    same_inode(a, b) && (a.kind == Kind::Dir || (a.len == b.len && a.mtime == b.mtime))
}
