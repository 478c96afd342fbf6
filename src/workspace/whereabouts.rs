//! Where the things of a mapping are now: only looked at, nothing is changed.

use super::identity::{Ident, Kind};
use super::mapping::{Before, Body, Mapping, Object, ObjectIx, Place, PlaceIx, Set, Slot, SlotIx};
use super::place::{self, Held};
use crate::root::Dir;
use crate::sys::{self, AsFd, BorrowedFd, Errno};
use crate::{Name, Root};
use std::ffi::{CStr, CString};

/// The private folders, as far as they are there.
#[derive(Debug, Default)]
pub(super) struct Folders {
    pub(super) staged: Option<Dir>,
    pub(super) kept: Option<Dir>,
    pub(super) retired: Option<Dir>,
    pub(super) keys: Option<Dir>,
}

/// What is at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its directory cannot be reached.
    Unreachable(Errno),
    Empty,
    Thing(Ident),
}

/// How far a slot or a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// As it is to be.
    After,
    /// As it was.
    Before,
    /// The name is empty, and what stood there is put away: in the middle.
    Between,
    /// Neither: somebody else was there.
    Theirs,
    /// It cannot be told.
    Unknown(Errno),
}

/// A mapping, and where its things are.
pub(super) struct Whereabouts<'m> {
    pub(super) mapping: &'m Mapping,
    root: &'m Root,
    folders: &'m Folders,
    places: Vec<Option<Result<Held<'m>, Errno>>>,
    slots: Vec<Option<Seen>>,
}

impl<'m> Whereabouts<'m> {
    pub(super) fn new(root: &'m Root, folders: &'m Folders, mapping: &'m Mapping) -> Self {
        let mut out = Self {
            places: mapping.places.iter().map(|_| None).collect(),
            slots: vec![None; mapping.slots.len()],
            mapping,
            root,
            folders,
        };
        for ix in 0..mapping.places.len() {
            out.open(ix, 0);
        }
        for ix in 0..mapping.slots.len() {
            out.look(ix, 0);
        }
        out
    }

    /// The directory of a place, if it can be reached.
    pub(super) fn dir(&self, place: PlaceIx) -> Result<BorrowedFd<'_>, Errno> {
        match self.places.get(place) {
            Some(Some(Ok(held))) => Ok(held.as_fd()),
            Some(Some(Err(e))) => Err(*e),
            _ => Err(Errno::NOENT),
        }
    }

    pub(super) fn slot(&self, ix: SlotIx) -> Seen {
        let seen = self.slots.get(ix).copied().flatten();
        seen.unwrap_or(Seen::Unreachable(Errno::NOENT))
    }

    fn open(&mut self, ix: PlaceIx, depth: usize) {
        if self.places.get(ix).is_none_or(Option::is_some) || depth > self.places.len() {
            return;
        }
        let mapping = self.mapping;
        let opened = match &mapping.places[ix] {
            Place::Keys => match &self.folders.keys {
                Some(keys) => Ok(Held::Borrowed(keys.as_fd())),
                None => Err(Errno::NOENT),
            },
            Place::New(object) => self.open_object(*object, depth).map(Held::Own),
            Place::Existing {
                path,
                ident,
                object,
            } => match place::open(self.root, path) {
                Ok((held, meta)) if ident.is(&Ident::of(&meta)) => Ok(held),
                found => match object {
                    Some(object) => self.open_object(*object, depth).map(Held::Own),
                    None => Err(found.err().unwrap_or(Errno::NOENT)),
                },
            },
        };
        self.places[ix] = Some(opened);
    }

    /// A directory that is an object, wherever it is.
    fn open_object(&mut self, object: ObjectIx, depth: usize) -> Result<sys::OwnedFd, Errno> {
        let ident = *self.ident(object);
        if let Some((dir, name)) = self.home(object)
            && let Ok(fd) = place::open_in(dir, name.as_c_str())
        {
            return Ok(fd);
        }
        let mut error = Errno::NOENT;
        for ix in 0..self.mapping.slots.len() {
            let slot = &self.mapping.slots[ix];
            let there = slot.after == Some(object) || slot.before == Before::Object(object);
            if !there {
                continue;
            }
            match self.look(ix, depth + 1) {
                Some(Seen::Thing(found)) if same(&ident, &found) => {
                    let dir = self.dir(slot.place)?;
                    match place::open_in(dir, slot.name.as_c_str()) {
                        Ok(fd) => return Ok(fd),
                        Err(e) => error = e,
                    }
                }
                Some(Seen::Unreachable(e)) => error = e,
                _ => {}
            }
        }
        Err(error)
    }

    fn look(&mut self, ix: SlotIx, depth: usize) -> Option<Seen> {
        if let Some(seen) = self.slots.get(ix).copied().flatten() {
            return Some(seen);
        }
        let slot = self.mapping.slots.get(ix)?;
        self.open(slot.place, depth);
        // Still being opened, further up.
        self.places.get(slot.place)?.as_ref()?;
        let seen = match self.dir(slot.place) {
            Err(e) => Seen::Unreachable(e),
            Ok(dir) => match place::ident_at(dir, slot.name.as_c_str()) {
                Ok(Some(ident)) => Seen::Thing(ident),
                Ok(None) => Seen::Empty,
                Err(e) => Seen::Unreachable(e),
            },
        };
        if let Some(known) = self.slots.get_mut(ix) {
            *known = Some(seen);
        }
        Some(seen)
    }

    pub(super) fn ident(&self, object: ObjectIx) -> &'m Ident {
        super::compose::ident_of(&self.mapping.objects[object])
    }

    /// The folder and the private name of an object, if it has one.
    pub(super) fn home(&self, object: ObjectIx) -> Option<(&'m Dir, &'m Name)> {
        match self.mapping.objects.get(object)? {
            Object::New { staged, .. } => Some((self.folders.staged.as_ref()?, staged)),
            Object::Kept { name, .. } => Some((self.folders.kept.as_ref()?, name)),
            Object::Existing { .. } => None,
        }
    }

    /// What is under the private name of an object.
    pub(super) fn at_home(&self, object: ObjectIx) -> Option<Ident> {
        let (dir, name) = self.home(object)?;
        place::ident_at(dir, name.as_c_str()).ok()?
    }

    /// Whether a thing is the object; one that was made anew after a power cut has its content's length and
    /// time, and another inode.
    pub(super) fn is(&self, object: ObjectIx, found: &Ident) -> bool {
        let known = self.ident(object);
        same(known, found)
            || match &self.mapping.objects[object] {
                Object::New {
                    body: Body::Inline(content),
                    attr,
                    ..
                } => {
                    found.kind == Kind::File
                        && found.len == content.len() as u64
                        && found.mtime == attr.mtime
                }
                Object::New {
                    body: Body::Link(of),
                    ..
                } if *of != object => self.is(*of, found),
                _ => false,
            }
    }

    /// How far a slot is.
    pub(super) fn progress(&self, ix: SlotIx) -> Progress {
        let slot = &self.mapping.slots[ix];
        let was = match slot.before {
            Before::Object(object) => Some(object),
            _ => None,
        };
        match (slot.after, self.slot(ix)) {
            (_, Seen::Unreachable(e)) => Progress::Unknown(e),
            (Some(object), Seen::Thing(found)) if self.is(object, &found) => Progress::After,
            (None, Seen::Empty) => Progress::After,
            (_, Seen::Thing(found)) => match was {
                Some(was) if same(self.ident(was), &found) => Progress::Before,
                _ if slot.before == Before::Anything => Progress::Before,
                // What another slot is to have stands here for the moment.
                _ if self.is_moving(&found) => Progress::Between,
                None if self.is_claim(slot, &found) => Progress::Between,
                _ => Progress::Theirs,
            },
            (Some(_), Seen::Empty) => match was {
                None => Progress::Before,
                Some(was) if self.is_put_away(was) => Progress::Between,
                Some(_) => Progress::Theirs,
            },
        }
    }

    /// Whether it is the empty directory that holds the name for one that is to come, where no rename can be
    /// told not to replace.
    fn is_claim(&self, slot: &Slot, found: &Ident) -> bool {
        let is_dir = |object| self.ident(object).kind == Kind::Dir;
        if found.kind != Kind::Dir || !slot.after.is_some_and(is_dir) {
            return false;
        }
        let Ok(dir) = self.dir(slot.place) else {
            return false;
        };
        let name = slot.name.as_c_str();
        let private = |meta: sys::Metadata| meta.mode() == sys::Mode::RWXU;
        let is_empty = |dir: Dir| dir.read_dir().ok()?.next().ok().map(|e| e.is_none());
        place::look(dir, name).is_ok_and(private)
            && place::open_in(dir, name).is_ok_and(|fd| is_empty(fd.into()) == Some(true))
    }

    fn is_moving(&self, found: &Ident) -> bool {
        let objects = self.mapping.objects.iter().enumerate();
        let mut moving = objects.filter(|(_, o)| matches!(o, Object::Existing { .. }));
        moving.any(|(_, o)| same(super::compose::ident_of(o), found))
    }

    /// Whether what existed before is under a private name, or at another name of the mapping.
    fn is_put_away(&self, object: ObjectIx) -> bool {
        let elsewhere = (0..self.slots.len()).any(
            |ix| matches!(self.slot(ix), Seen::Thing(found) if same(self.ident(object), &found)),
        );
        elsewhere || self.private(object).is_some()
    }

    /// Where in the private folders a thing that existed before is.
    pub(super) fn private(&self, object: ObjectIx) -> Option<(&'m Dir, Name)> {
        let ident = self.ident(object);
        for ix in 0..self.mapping.objects.len() {
            if let Some((dir, name)) = self.home(ix)
                && self.at_home(ix).is_some_and(|found| same(ident, &found))
            {
                return Some((dir, name.clone()));
            }
        }
        let folders = [&self.folders.retired, &self.folders.kept];
        for dir in folders.into_iter().flatten() {
            let mut stream = dir.read_dir().ok()?;
            while let Ok(Some(entry)) = stream.next() {
                let (Ok(name), ino) = (Name::from_entry(entry.name()), entry.ino()) else {
                    continue;
                };
                if ino == ident.ino
                    && let Ok(Some(found)) = place::ident_at(dir, name.as_c_str())
                    && same(ident, &found)
                {
                    return Some((dir, name));
                }
            }
        }
        None
    }

    /// The slot where the thing of a change is.
    pub(super) fn slot_of(&self, object: ObjectIx) -> Option<SlotIx> {
        (0..self.slots.len()).find(
            |ix| matches!(self.slot(*ix), Seen::Thing(found) if same(self.ident(object), &found)),
        )
    }

    /// How far a change is.
    pub(super) fn change(&self, ix: usize) -> Progress {
        let change = &self.mapping.changes[ix];
        let Some(at) = self.slot_of(change.object) else {
            let origin = match self.mapping.objects[change.object] {
                Object::Existing { slot, .. } => self.slot(slot),
                _ => Seen::Empty,
            };
            return match origin {
                Seen::Unreachable(e) => Progress::Unknown(e),
                _ => Progress::Theirs,
            };
        };
        let slot = &self.mapping.slots[at];
        match self.compare(&change.what, slot.place, slot.name.as_c_str()) {
            Ok(progress) => progress,
            Err(e) => Progress::Unknown(e),
        }
    }

    fn compare(&self, set: &Set, place: PlaceIx, name: &CStr) -> Result<Progress, Errno> {
        let dir = self.dir(place)?;
        let meta = place::look(dir, name)?;
        let flags = sys::OFlags::RDONLY
            | sys::OFlags::NOFOLLOW
            | sys::OFlags::NONBLOCK
            | sys::OFlags::NOCTTY;
        let told = |is_after: bool, is_before: bool| match (is_after, is_before) {
            (true, _) => Progress::After,
            (_, true) => Progress::Before,
            _ => Progress::Theirs,
        };
        Ok(match set {
            Set::Mode { before, after } => {
                let found = meta.mode().as_raw_mode();
                told(found == *after, found == *before)
            }
            Set::Owner { before, after } => {
                let found = (meta.uid().as_raw(), meta.gid().as_raw());
                told(found == *after, found == *before)
            }
            Set::Times { before, after, .. } => {
                let found = Ident::of(&meta).mtime;
                told(found == *after, found == *before)
            }
            Set::Xattr {
                name: attribute,
                before,
                after,
            } => {
                if !(meta.is_file() || meta.is_dir()) {
                    return Ok(Progress::Theirs);
                }
                let fd = sys::openat(dir, name, flags, sys::Mode::empty())?;
                let attribute = CString::new(attribute.as_slice()).map_err(|_| Errno::INVAL)?;
                let found = sys::fgetxattr(&fd, attribute.as_c_str())?;
                told(found == *after, found == *before)
            }
            // The copies are removed when it is complete.
            Set::Content { before, after } => {
                let there = |dir: &Option<Dir>, name: &Name| {
                    dir.as_ref()
                        .is_some_and(|d| matches!(place::ident_at(d, name.as_c_str()), Ok(Some(_))))
                };
                let waiting =
                    there(&self.folders.staged, after) || there(&self.folders.kept, after);
                told(!waiting, there(&self.folders.kept, before))
            }
            Set::Logged { before, after, .. } => {
                if !meta.is_file() {
                    return Ok(Progress::Theirs);
                }
                let fd = sys::openat(dir, name, flags, sys::Mode::empty())?;
                // One more than either has, to see where it ends.
                let mut found = vec![0; before.len().max(after.len()) + 1];
                let n = place::read_at(&fd, &mut found, 0)?;
                found.truncate(n);
                told(found == after[..], found == before[..])
            }
        })
    }
}

/// The same inode; of a file that an overlay has copied up, the same content as far as that shows.
pub(super) fn same(a: &Ident, b: &Ident) -> bool {
    a.is(b)
        || (a.kind == b.kind
            && a.kind != Kind::Dir
            && a.ino == b.ino
            && a.len == b.len
            && a.mtime == b.mtime)
}
