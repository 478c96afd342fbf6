//! All steps of a section as one: what stood at each name before the first of them.

use super::undo::{Fragment, Place, Spot, Undo, What, covers};
use crate::Name;
use crate::sys::Errno;
use crate::workspace::identity::{Ident, Kind};
use crate::workspace::mapping::{
    self, Attributes, Before, Change, Mapping, Object, ObjectIx, Set, Slot, SlotIx,
};
use crate::{Error, Result};

/// The sum of fragments.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    all: Fragment,
    /// Directories as the first step has found each.
    seen: Vec<Ident>,
}

/// What [`Sum::mapping`] makes of a spot with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The thing itself is as it was.
    Live,
    Copy,
}

impl Sum {
    /// Adds a step: of what is known already, what was there first counts.
    pub(super) fn add(&mut self, step: Fragment) {
        let things = step.spots.iter().filter_map(|spot| match &spot.what {
            What::Thing(ident) if ident.kind == Kind::Dir => Some(ident),
            _ => None,
        });
        for ident in step.places.iter().map(|place| &place.ident).chain(things) {
            if !self.seen.iter().any(|known| known.is(ident)) {
                self.seen.push(*ident);
            }
        }
        let places: Vec<usize> = (step.places.into_iter())
            .map(|place| self.all.place(place))
            .collect();
        for spot in step.spots {
            let place = places[spot.place];
            let same = |s: &&mut Spot| s.place == place && s.name == spot.name;
            match self.all.spots.iter_mut().find(same) {
                Some(known) if known.what == What::Passing => known.what = spot.what,
                Some(_) => {}
                None => self.all.spots.push(Spot { place, ..spot }),
            }
        }
        for undo in step.changes {
            let same = |u: &Undo| u.thing.is(&undo.thing) && is_same(&u.set, &undo.set);
            if !self.all.changes.iter().any(same) {
                self.all.changes.push(undo);
            }
        }
        for ident in step.touched {
            if !self.has_touched(&ident) {
                self.all.touched.push(ident);
            }
        }
        if self.all.top.is_none() {
            self.all.top = step.top;
        }
    }

    pub(super) fn spots(&self) -> &[Spot] {
        &self.all.spots
    }

    pub(super) fn place_of(&self, spot: &Spot) -> &Place {
        &self.all.places[spot.place]
    }

    /// The path of a spot before the section.
    pub(super) fn path(&self, spot: &Spot) -> Vec<u8> {
        self.all.path(spot)
    }

    /// The root's attributes, if all of it is protected.
    pub(super) fn top(&self) -> Option<&Attributes> {
        self.all.top.as_ref()
    }

    /// Directories in which something was touched.
    pub(super) fn places(&self) -> &[Place] {
        &self.all.places
    }

    /// Whether the section has made this directory.
    pub(super) fn made(&self, ident: &Ident) -> bool {
        self.all.places.iter().any(|p| p.made && p.ident.is(ident))
    }

    /// Whether it is known where this thing was.
    pub(super) fn knows(&self, ident: &Ident) -> bool {
        let mut spots = self.all.spots.iter();
        spots.any(|s| matches!(&s.what, What::Thing(thing) if thing.is(ident)))
    }

    /// Whether the section has moved this thing's time of change.
    pub(super) fn has_touched(&self, ident: &Ident) -> bool {
        let place = |p: &Place| p.ident.is(ident);
        self.knows(ident)
            || self.all.touched.iter().any(|known| known.is(ident))
            || self.all.places.iter().any(place)
    }

    /// A directory as it was when the first step found it.
    pub(super) fn as_first_seen<'a>(&'a self, ident: &'a Ident) -> &'a Ident {
        let first = self.seen.iter().find(|known| known.is(ident));
        first.unwrap_or(ident)
    }

    /// Whether a path is in what there is an image of.
    pub(super) fn protects(&self, path: &[u8]) -> bool {
        let image = |s: &Spot| matches!(s.what, What::Image { .. });
        self.all.top.is_some()
            || (self.all.spots.iter()).any(|s| image(s) && covers(&self.path(s), path))
    }

    /// Paths of all names that are to be as before.
    pub(super) fn paths(&self) -> Vec<Vec<u8>> {
        if self.all.top.is_some() {
            return vec![Vec::new()];
        }
        let real = self.all.spots.iter().filter(|s| s.what.matters());
        real.map(|s| self.path(s)).collect()
    }

    /// The mapping that takes everything back, with what is to become of each image (by spot), and further
    /// names that are to go: in the root, whose identity comes first.
    pub(super) fn mapping(
        &self,
        images: &[(usize, Use)],
        extra: Option<(Ident, Vec<Name>)>,
    ) -> Result<Mapping> {
        let mut maker = Maker::default();
        let mut kept: Vec<Option<ObjectIx>> = Vec::with_capacity(self.all.spots.len());
        for (at, spot) in self.all.spots.iter().enumerate() {
            kept.push(match &spot.what {
                What::Passing | What::Nothing => None,
                What::Was(ident) => {
                    maker.was(*ident, at);
                    None
                }
                What::Thing(ident) => Some(maker.thing(*ident)?),
                What::Image {
                    name, ident, live, ..
                } => {
                    // It may be anywhere, with things in it that belong elsewhere.
                    maker.was(*live, at);
                    let copy = images.contains(&(at, Use::Copy));
                    copy.then(|| maker.object(name.clone(), *ident))
                }
            });
        }
        // So may the directories that the section was at work in.
        for place in (self.all.places.iter()).filter(|place| !place.path.is_empty()) {
            maker.thing(place.ident)?;
        }
        for undo in &self.all.changes {
            if !self.knows(&undo.thing) {
                maker.thing(undo.thing)?;
            }
        }
        let out = &mut maker.mapping;
        for place in &self.all.places {
            let same =
                |o: &Object| matches!(o, Object::Kept { ident, .. } if ident.is(&place.ident));
            out.places.push(mapping::Place::Existing {
                path: place.path.clone(),
                ident: place.ident,
                object: out.objects.iter().position(same),
            });
        }
        for (spot, after) in self.all.spots.iter().zip(kept) {
            let before = match (&spot.what, after) {
                (What::Nothing, _) | (_, Some(_)) => Before::Anything,
                _ => Before::Nothing,
            };
            out.slots.push(Slot {
                place: spot.place,
                name: spot.name.clone(),
                path: self.path(spot),
                before,
                after,
            });
        }
        if let Some((root, names)) = extra {
            let known = self.all.places.iter().position(|p| p.ident.is(&root));
            let place = known.unwrap_or_else(|| {
                out.places.push(mapping::Place::Existing {
                    path: Vec::new(),
                    ident: root,
                    object: None,
                });
                out.places.len() - 1
            });
            for name in names {
                let same = |s: &&mut Slot| s.place == place && s.name == name;
                match out.slots.iter_mut().find(same) {
                    Some(slot) => slot.before = Before::Anything,
                    None => out.slots.push(Slot {
                        place,
                        path: name.as_bytes().to_vec(),
                        name,
                        before: Before::Anything,
                        after: None,
                    }),
                }
            }
        }
        for undo in &self.all.changes {
            let same =
                |o: &Object| matches!(o, Object::Kept { ident, .. } if ident.is(&undo.thing));
            if let Some(object) = out.objects.iter().position(same) {
                out.changes.push(Change {
                    object,
                    what: undo.set.clone(),
                });
            }
        }
        // Of one thing together, for each is opened once.
        (out.changes).sort_by_key(|change| (change.object, rank(&change.what)));
        Ok(maker.mapping)
    }
}

#[derive(Default)]
struct Maker {
    mapping: Mapping,
}

impl Maker {
    /// A thing that was at a slot, and is not to be put back there: what is in it may belong elsewhere.
    fn was(&mut self, ident: Ident, slot: SlotIx) {
        (self.mapping.objects).push(Object::Existing { ident, slot });
    }

    /// A thing that is looked for by what it is: no thing has the name that it is given here.
    fn thing(&mut self, ident: Ident) -> Result<ObjectIx> {
        let name = Name::new(format!("anywhere-{}", self.mapping.objects.len()))
            .map_err(|e: Errno| Error::new("take back section", "openat", e))?;
        Ok(self.object(name, ident))
    }

    fn object(&mut self, name: Name, ident: Ident) -> ObjectIx {
        self.mapping.objects.push(Object::Kept { name, ident });
        self.mapping.objects.len() - 1
    }
}

/// A change of owner clears set-user-id, and one of the access list the group's bits of the mode.
fn rank(set: &Set) -> u8 {
    match set {
        Set::Content { .. } | Set::Logged { .. } => 0,
        Set::Owner { .. } => 1,
        Set::Xattr { .. } => 2,
        Set::Mode { .. } => 3,
        Set::Times { .. } => 4,
    }
}

/// Whether two changes are of the same attribute.
fn is_same(a: &Set, b: &Set) -> bool {
    match (a, b) {
        (Set::Xattr { name: a, .. }, Set::Xattr { name: b, .. }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}
