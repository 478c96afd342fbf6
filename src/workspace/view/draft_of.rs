//! What the view amounts to: only what differs from the disk, and what that refers to.

use super::{InodeIx, Part, ROOT, View, join};
use crate::Name;
use crate::workspace::draft::{
    AttrRequest, Draft, DraftChange, DraftObject, DraftSet, NewContent, Piece,
};
use crate::workspace::identity::Kind;
use crate::workspace::mapping::{Before, ObjectIx, Place, PlaceIx, Slot, SlotIx};
use std::collections::HashMap;

/// A name in a directory.
type At<'v> = (InodeIx, &'v Name);

impl View<'_> {
    /// The sum of the operations.
    pub(crate) fn draft(&self) -> Draft {
        let mut maker = Maker::new(self);
        for dir in 0..self.inodes.len() {
            if !maker.reachable[dir] {
                continue;
            }
            for (name, entry) in &self.inodes[dir].entries {
                if entry.before != entry.now {
                    maker.slot((dir, name));
                }
            }
        }
        maker.draft.seen.root = self.inodes[ROOT].origin.as_ref().map(|origin| origin.meta);
        maker.keys();
        for ix in 0..self.inodes.len() {
            maker.changes_of(ix);
        }
        maker.draft
    }
}

/// All names of one inode that were seen.
#[derive(Clone, Debug, Default)]
struct Names<'v> {
    /// Those that it has on the disk.
    before: Vec<At<'v>>,
    /// Those that it has in the view.
    now: Vec<At<'v>>,
}

/// Where something that stands at a name comes from.
#[derive(Clone, Copy, Debug)]
enum From<'v> {
    /// It stood at this name.
    Name(At<'v>),
    /// It is made.
    Made,
    /// It is a further name of the inode.
    Link,
}

struct Maker<'v> {
    view: &'v View<'v>,
    draft: Draft,
    /// For each inode: a directory that is below the root in the end.
    reachable: Vec<bool>,
    names: Vec<Names<'v>>,
    /// For each name in the view: where that which stands there comes from.
    from: HashMap<At<'v>, From<'v>>,
    places: HashMap<InodeIx, PlaceIx>,
    slots: HashMap<At<'v>, SlotIx>,
    /// Of things on the disk, by their name there.
    existing: HashMap<At<'v>, ObjectIx>,
    /// Of things that are made.
    made: HashMap<InodeIx, ObjectIx>,
}

impl<'v> Maker<'v> {
    fn new(view: &'v View<'v>) -> Self {
        let reachable: Vec<_> = (0..view.inodes.len())
            .map(|ix| view.inodes[ix].kind == Kind::Dir && view.is_reachable(ix))
            .collect();
        let mut names = vec![Names::default(); view.inodes.len()];
        for (dir, inode) in view.inodes.iter().enumerate() {
            for (name, entry) in &inode.entries {
                if let Some(ix) = entry.before {
                    names[ix].before.push((dir, name));
                }
                if let Some(ix) = entry.now.filter(|_| reachable[dir]) {
                    names[ix].now.push((dir, name));
                }
            }
        }
        let mut from = HashMap::with_capacity(view.inodes.len());
        for (ix, all) in names.iter().enumerate() {
            let is_disk = view.inodes[ix].origin.is_some();
            // A name that is given up is the source of one that is new.
            let stays = |(dir, name): At<'_>| {
                let entry = view.inodes[dir].entries.get(name);
                reachable[dir] && entry.is_some_and(|entry| entry.before == entry.now)
            };
            let mut left = all.before.iter().filter(|at| !stays(**at));
            let mut is_made = is_disk;
            for at in &all.now {
                let source = if stays(*at) {
                    From::Name(*at)
                } else if let Some(old) = left.next() {
                    From::Name(*old)
                } else if is_made {
                    From::Link
                } else {
                    is_made = true;
                    From::Made
                };
                from.insert(*at, source);
            }
        }
        // For most files that are written there is one that is there already.
        let many = view.inodes.len();
        let mut draft = Draft {
            objects: Vec::with_capacity(many),
            slots: Vec::with_capacity(many),
            ..Draft::default()
        };
        draft.seen.objects.reserve(many);
        Self {
            view,
            draft,
            reachable,
            names,
            from,
            places: HashMap::new(),
            slots: HashMap::new(),
            existing: HashMap::new(),
            made: HashMap::new(),
        }
    }

    fn slot(&mut self, at: At<'v>) -> SlotIx {
        if let Some(slot) = self.slots.get(&at) {
            return *slot;
        }
        let (dir, name) = at;
        let slot = self.draft.slots.len();
        self.slots.insert(at, slot);
        self.draft.slots.push(Slot {
            place: 0,
            name: name.clone(),
            path: join(&self.view.path_now(dir), name),
            before: Before::Nothing,
            after: None,
        });
        let place = self.place(dir);
        let entry = self.view.inodes[dir].entries.get(name);
        let before = entry.and_then(|entry| entry.before);
        let before = before.map(|_| self.existing(at));
        let now = entry
            .and_then(|entry| entry.now)
            .filter(|_| self.reachable[dir]);
        let after = now.map(|ix| self.standing_at(at, ix));
        let slot_of = &mut self.draft.slots[slot];
        slot_of.place = place;
        slot_of.before = before.map_or(Before::Nothing, Before::Object);
        slot_of.after = after;
        slot
    }

    fn place(&mut self, dir: InodeIx) -> PlaceIx {
        if let Some(place) = self.places.get(&dir) {
            return *place;
        }
        let inode = &self.view.inodes[dir];
        let place = match &inode.origin {
            None => Place::New(self.made(dir)),
            Some(origin) => {
                let at = origin.name.as_ref().map(|name| (origin.dir, name));
                let moved = at.filter(|at| dir != ROOT && self.is_changed(*at));
                Place::Existing {
                    path: origin.path.clone(),
                    ident: origin.ident,
                    object: moved.map(|at| self.existing(at)),
                }
            }
        };
        // Finding its object may have led here already.
        if let Some(place) = self.places.get(&dir) {
            return *place;
        }
        self.draft.places.push(place);
        self.places.insert(dir, self.draft.places.len() - 1);
        self.draft.places.len() - 1
    }

    fn is_changed(&self, (dir, name): At<'_>) -> bool {
        let entry = self.view.inodes[dir].entries.get(name);
        entry.is_some_and(|entry| entry.before != entry.now)
    }

    /// What stands at a name on the disk.
    fn existing(&mut self, at: At<'v>) -> ObjectIx {
        if let Some(object) = self.existing.get(&at) {
            return *object;
        }
        let entry = self.view.inodes[at.0].entries.get(at.1);
        let origin = entry
            .and_then(|entry| entry.before)
            .and_then(|ix| self.view.inodes[ix].origin.as_ref());
        let Some(origin) = origin else {
            // Only names with something there are asked for.
            return 0;
        };
        let object = self.draft.objects.len();
        self.existing.insert(at, object);
        self.draft.objects.push(DraftObject::Existing {
            ident: origin.ident,
            slot: 0,
        });
        // By another of its names it may be a mount point.
        if origin.dir == at.0 && origin.name.as_ref() == Some(at.1) {
            let seen = &mut self.draft.seen.objects;
            seen.resize(object, None);
            seen.push(Some(origin.meta));
        }
        let found = self.slot(at);
        if let DraftObject::Existing { slot, .. } = &mut self.draft.objects[object] {
            *slot = found;
        }
        object
    }

    /// What is to stand at a name.
    fn standing_at(&mut self, at: At<'v>, ix: InodeIx) -> ObjectIx {
        match self.from.get(&at).copied() {
            Some(From::Name(old)) => self.existing(old),
            Some(From::Link) => {
                let first = self.first_of(ix);
                self.draft.objects.push(DraftObject::New {
                    content: NewContent::Link(first),
                    attr: AttrRequest::default(),
                    like: None,
                });
                self.draft.objects.len() - 1
            }
            _ => self.made(ix),
        }
    }

    /// The object that an inode is by the name that it keeps, or else by one that it had.
    fn first_of(&mut self, ix: InodeIx) -> ObjectIx {
        if self.view.inodes[ix].origin.is_none() {
            return self.made(ix);
        }
        let names = &self.names[ix];
        let stays = |at: &&At<'_>| self.reachable[at.0] && !self.is_changed(**at);
        let stays = names.before.iter().find(stays);
        match stays.or(names.before.first()).copied() {
            Some(at) => self.existing(at),
            None => 0,
        }
    }

    /// Something that is made.
    fn made(&mut self, ix: InodeIx) -> ObjectIx {
        if let Some(object) = self.made.get(&ix) {
            return *object;
        }
        let inode = &self.view.inodes[ix];
        let like = inode.like.map(|like| self.first_of(like));
        let content = match inode.kind {
            Kind::Dir => NewContent::Dir,
            Kind::Symlink => NewContent::Symlink(inode.text.clone().unwrap_or_default()),
            _ => NewContent::File(
                inode
                    .parts
                    .iter()
                    .map(|part| match part {
                        Part::Given(source) => Piece::Given(source.clone()),
                        Part::Existing(file) => Piece::Existing(self.first_of(*file)),
                    })
                    .collect(),
            ),
        };
        // Finding those that it refers to may have led here already.
        if let Some(object) = self.made.get(&ix) {
            return *object;
        }
        let object = self.draft.objects.len();
        self.made.insert(ix, object);
        self.draft.objects.push(DraftObject::New {
            content,
            attr: inode.attr.clone(),
            like,
        });
        object
    }

    fn keys(&mut self) {
        if self.view.keys.is_empty() {
            return;
        }
        let place = self.draft.places.len();
        self.draft.places.push(Place::Keys);
        for (name, file) in &self.view.keys {
            let after = Some(self.made(*file));
            self.draft.slots.push(Slot {
                place,
                name: name.clone(),
                path: join(super::ops::KEYS.as_bytes(), name),
                before: Before::Nothing,
                after,
            });
        }
    }

    fn changes_of(&mut self, ix: InodeIx) {
        let inode = &self.view.inodes[ix];
        let Some(origin) = &inode.origin else {
            return;
        };
        if inode.in_place.is_none() && inode.attr == AttrRequest::default() {
            return;
        }
        // What has lost all its names is changed only if it may have others.
        let names = &self.names[ix];
        let others = inode.kind != Kind::Dir && origin.meta.links() > names.before.len() as u64;
        if names.now.is_empty() && !others {
            return;
        }
        let object = self.first_of(ix);
        let content = inode.in_place.clone().map(DraftSet::Content);
        let attr = Some(inode.attr.clone()).filter(|attr| *attr != AttrRequest::default());
        let sets = content.into_iter().chain(attr.map(DraftSet::Attributes));
        let changes = sets.map(|what| DraftChange { object, what });
        self.draft.changes.extend(changes);
    }
}
