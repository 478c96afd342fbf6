//! What takes one step of a section back, in terms of the tree as it was before the section.
//!
//! A later step may be in a directory that an earlier one has moved. Its paths are translated back, so that
//! all steps of a section speak of the same tree, and together are one sum (`sum`).

use super::sum::Sum;
use crate::sys::Metadata;
use crate::tree::acl;
use crate::workspace::identity::{Ident, Stamp};
use crate::workspace::mapping::{self, Attributes, Before, Body, Mapping, Object, Set, Slot};
use crate::{Error, ErrorKind, Name, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What takes a step back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) places: Vec<Place>,
    pub(super) spots: Vec<Spot>,
    pub(super) changes: Vec<Undo>,
    /// Other things whose time of change the step moves, such as those that get or lose a further name.
    pub(super) touched: Vec<Ident>,
    /// The whole root is protected: its own attributes. Names in it that are not among the spots go.
    pub(super) top: Option<Attributes>,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Before the section; of one that the section made, where it put it.
    pub(super) path: Vec<u8>,
    pub(super) ident: Ident,
    /// The section made it.
    pub(super) made: bool,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: usize,
    pub(super) name: Name,
    pub(super) what: What,
}

/// What stood at a name before the section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It does not matter: something may be found there that belongs elsewhere.
    Passing,
    /// As that, and this thing was moved from here. It does not come back, for an image does, but what is in
    /// it may belong elsewhere.
    Was(Ident),
    Nothing,
    /// This, wherever it is now.
    Thing(Ident),
    /// This, of which there is a copy in `kept/`, for it may be changed by anybody.
    Image {
        name: Name,
        /// Of the copy.
        ident: Ident,
        /// Of the thing itself.
        live: Ident,
        /// No change of it that was made before the copy was begun has this time or a later one.
        since: Stamp,
    },
}

impl What {
    /// Whether the name is to be as it was.
    pub(super) fn matters(&self) -> bool {
        !matches!(self, Self::Passing | Self::Was(_))
    }
}

/// An attribute of a thing, to be set as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undo {
    pub(super) thing: Ident,
    /// `before` is what the section has set, `after` what it was.
    pub(super) set: Set,
}

impl Fragment {
    pub(super) fn place(&mut self, place: Place) -> usize {
        let known = self.places.iter().position(|p| p.ident.is(&place.ident));
        known.unwrap_or_else(|| {
            self.places.push(place);
            self.places.len() - 1
        })
    }

    /// The path of a spot before the section.
    pub(super) fn path(&self, spot: &Spot) -> Vec<u8> {
        join(&self.places[spot.place].path, &spot.name)
    }

    fn add(&mut self, place: usize, name: &Name, what: What) {
        let same = |s: &&mut Spot| s.place == place && s.name == *name;
        match self.spots.iter_mut().find(same) {
            Some(spot) if !spot.what.matters() => spot.what = what,
            Some(_) => {}
            None => self.spots.push(Spot {
                place,
                name: name.clone(),
                what,
            }),
        }
    }
}

/// Where the section has moved things: from where they are now to where they were before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves(Vec<(Vec<u8>, Vec<u8>)>);

impl Moves {
    /// The path that something had before the section.
    pub(super) fn before(&self, path: &[u8]) -> Vec<u8> {
        let under = self.0.iter().filter(|(now, _)| covers(now, path));
        match under.max_by_key(|(now, _)| now.len()) {
            Some((now, before)) => [before, &path[now.len()..]].concat(),
            None => path.to_vec(),
        }
    }

    /// Takes in what a step has moved and removed.
    pub(super) fn add(&mut self, mapping: &Mapping) {
        let mut gone: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (ix, object) in mapping.objects.iter().enumerate() {
            if let Object::Existing { slot, .. } = object
                && let Some(old) = path_now(mapping, &mapping.slots[*slot])
            {
                let target = mapping.slots.iter().position(|s| s.after == Some(ix));
                if target != Some(*slot) {
                    gone.push((old, target.map(|t| mapping.slots[t].path.clone())));
                }
            }
        }
        let mut next = Self::default();
        for (now, before) in &self.0 {
            let over = gone.iter().filter(|(old, _)| covers(old, now));
            match over.max_by_key(|(old, _)| old.len()) {
                // It moves itself, and is taken in below.
                Some((old, _)) if old == now => {}
                Some((old, Some(new))) => {
                    let moved = [new, &now[old.len()..]].concat();
                    next.0.push((moved, before.clone()));
                }
                Some((_, None)) => {}
                None => next.0.push((now.clone(), before.clone())),
            }
        }
        for (old, new) in gone {
            if let Some(new) = new {
                next.0.push((new, self.before(&old)));
            }
        }
        *self = next;
    }
}

/// Whether a path is the other one or above it.
pub(super) fn covers(above: &[u8], path: &[u8]) -> bool {
    above.is_empty()
        || path
            .strip_prefix(above)
            .is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}

pub(super) fn join(dir: &[u8], name: &Name) -> Vec<u8> {
    match dir {
        b"" => name.as_bytes().to_vec(),
        dir => [dir, b"/", name.as_bytes()].concat(),
    }
}

/// The path of a name before the step, if its directory was there.
fn path_now(mapping: &Mapping, slot: &Slot) -> Option<Vec<u8>> {
    match &mapping.places[slot.place] {
        mapping::Place::Existing { path, .. } => Some(join(path, &slot.name)),
        _ => None,
    }
}

/// What takes back a step that is not made yet. `facts` looks at what stands at a slot.
///
/// # Errors
/// [`ErrorKind::Unsupported`]: a step that a section does not take. Those of `facts`.
pub(super) fn of_step(
    mapping: &Mapping,
    sum: &Sum,
    moves: &Moves,
    facts: &mut dyn FnMut(&Slot) -> Result<Metadata>,
) -> Result<Fragment> {
    let mut out = Fragment::default();
    let mut places = Vec::new();
    for place in &mapping.places {
        places.push(match place {
            mapping::Place::Existing { path, ident, .. } => out.place(Place {
                path: moves.before(path),
                ident: *ident,
                made: sum.made(ident),
            }),
            mapping::Place::New(object) => {
                let at = mapping.slots.iter().find(|s| s.after == Some(*object));
                let ident = match &mapping.objects[*object] {
                    Object::New { ident, .. } => *ident,
                    Object::Existing { ident, .. } | Object::Kept { ident, .. } => *ident,
                };
                out.place(Place {
                    path: at.map(|s| s.path.clone()).unwrap_or_default(),
                    ident,
                    made: true,
                })
            }
            mapping::Place::Keys => {
                return Err(Error::of_kind("apply changes", ErrorKind::InvalidInput)
                    .with_detail("a key is recorded with the commit of the section")
                    .with_advice("use Section::key"));
            }
        });
    }
    for slot in &mapping.slots {
        let place = places[slot.place];
        let path = join(&out.places[place].path, &slot.name);
        let what = if out.places[place].made || sum.protects(&path) {
            // Of what the section makes itself, only that counts which was there before and is moved.
            let object = |o: usize| &mapping.objects[o];
            match (slot.before, slot.after) {
                (Before::Object(old), after) if after != Some(old) => match object(old) {
                    Object::Existing { ident, .. } => What::Was(*ident),
                    _ => What::Passing,
                },
                (_, Some(new)) => match object(new) {
                    Object::Existing { .. }
                    | Object::New {
                        body: Body::Dir, ..
                    } => What::Passing,
                    _ => continue,
                },
                _ => continue,
            }
        } else {
            match slot.before {
                Before::Object(object) if slot.after == Some(object) => continue,
                Before::Object(object) => match &mapping.objects[object] {
                    Object::Existing { ident, .. } => What::Thing(*ident),
                    _ => What::Nothing,
                },
                _ if slot.after.is_none() => What::Passing,
                _ => What::Nothing,
            }
        };
        out.add(place, &slot.name, what);
    }
    for change in &mapping.changes {
        let Object::Existing { ident, slot } = &mapping.objects[change.object] else {
            continue;
        };
        let slot = &mapping.slots[*slot];
        let place = places[slot.place];
        let path = join(&out.places[place].path, &slot.name);
        // Elsewhere it may still be a thing from before, by a further name: it is told by what it is.
        if !sum.knows(ident) && !out.places[place].made && !sum.protects(&path) {
            // It stays where it is, and is to be found there.
            out.add(place, &slot.name, What::Thing(*ident));
        }
        let mut undo = reversed(ident, &change.what)
            .map_err(|e| e.with_path(OsStr::from_bytes(&slot.path)))?;
        if let (Set::Times { atime: Some(_), .. }, Set::Times { atime, .. }) =
            (&change.what, &mut undo.set)
        {
            let was = facts(slot)?.atime();
            *atime = Some((was.tv_sec, u32::try_from(was.tv_nsec).unwrap_or_default()));
        }
        out.changes.push(undo);
        let of_same = |c: &mapping::Change| c.object == change.object;
        let explicit = |c: &mapping::Change| of_same(c) && matches!(c.what, Set::Mode { .. });
        if moves_mode(&change.what) && !mapping.changes.iter().any(explicit) {
            let mode = facts(slot)?.mode().as_raw_mode();
            let (before, after) = (mode, mode);
            let set = Set::Mode { before, after };
            out.changes.push(Undo { thing: *ident, set });
        }
    }
    for object in &mapping.objects {
        let moved = |known: &Ident, s: &Spot| matches!(&s.what, What::Thing(t) if t.is(known));
        if let Object::Existing { ident, .. } = object
            && !sum.knows(ident)
            && !out.spots.iter().any(|s| moved(ident, s))
        {
            out.touched.push(*ident);
        }
    }
    Ok(out)
}

/// Whether it changes the mode as well: a change of owner clears set-user-id, and an access list comes with
/// the group's bits.
fn moves_mode(set: &Set) -> bool {
    match set {
        Set::Owner { .. } => true,
        Set::Xattr { name, .. } => name == acl::ACCESS.to_bytes(),
        _ => false,
    }
}

fn reversed(thing: &Ident, set: &Set) -> Result<Undo> {
    let set = match set.clone() {
        Set::Mode { before, after } => Set::Mode {
            before: after,
            after: before,
        },
        Set::Owner { before, after } => Set::Owner {
            before: after,
            after: before,
        },
        Set::Times { before, after, .. } => Set::Times {
            before: after,
            after: before,
            atime: None,
        },
        Set::Xattr {
            name,
            before,
            after,
        } => Set::Xattr {
            name,
            before: after,
            after: before,
        },
        Set::Content { .. } | Set::Logged { .. } => {
            return Err(Error::of_kind("apply changes", ErrorKind::Unsupported)
                .with_detail("a section cannot write in place itself")
                .with_advice("protect the file, and write it through Root"));
        }
    };
    Ok(Undo { thing: *thing, set })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::identity::Kind;

    fn moves(all: &[(&str, &str)]) -> Moves {
        let pair = |(a, b): &(&str, &str)| (a.as_bytes().to_vec(), b.as_bytes().to_vec());
        Moves(all.iter().map(pair).collect())
    }

    #[test]
    fn paths_are_translated_by_the_longest_prefix() {
        let moves = moves(&[("e", "d"), ("e/x", "y")]);
        let before = |path: &str| String::from_utf8(moves.before(path.as_bytes())).unwrap();
        assert_eq!(before("e"), "d");
        assert_eq!(before("e/f"), "d/f");
        assert_eq!(before("e/x/f"), "y/f");
        assert_eq!(before("ee"), "ee");
        assert_eq!(before("d"), "d");
    }

    fn dir(ino: u64) -> Ident {
        Ident {
            kind: Kind::Dir,
            ino,
            btime: None,
            len: 0,
            mtime: (0, 0),
        }
    }

    /// A mapping that moves directories of the root, or removes them.
    fn step(all: &[(&str, Option<&str>)]) -> Mapping {
        let mut mapping = Mapping {
            places: vec![mapping::Place::Existing {
                path: Vec::new(),
                ident: dir(1),
                object: None,
            }],
            ..Mapping::default()
        };
        let slot = |name: &str| Slot {
            place: 0,
            name: Name::new(name).unwrap(),
            path: name.as_bytes().to_vec(),
            before: Before::Nothing,
            after: None,
        };
        for (n, (from, _)) in all.iter().enumerate() {
            mapping.slots.push(slot(from));
            mapping.objects.push(Object::Existing {
                ident: dir(10 + n as u64),
                slot: n,
            });
        }
        for (n, (_, to)) in all.iter().enumerate() {
            if let Some(to) = to {
                let at = mapping.slots.iter().position(|s| s.path == to.as_bytes());
                let at = at.unwrap_or_else(|| {
                    mapping.slots.push(slot(to));
                    mapping.slots.len() - 1
                });
                mapping.slots[at].after = Some(n);
            }
        }
        mapping
    }

    #[test]
    fn moves_add_up() {
        let mut moves = Moves::default();
        let check = |moves: &Moves, path: &str, before: &str| {
            assert_eq!(moves.before(path.as_bytes()), before.as_bytes(), "{path}");
        };
        moves.add(&step(&[("a", Some("b"))]));
        check(&moves, "b/x", "a/x");
        moves.add(&step(&[("b", Some("c"))]));
        check(&moves, "c/x", "a/x");
        check(&moves, "b/x", "b/x");
        moves.add(&step(&[("c", Some("d")), ("d", Some("c"))]));
        check(&moves, "d/x", "a/x");
        check(&moves, "c/x", "d/x");
        moves.add(&step(&[("d", None)]));
        check(&moves, "d/x", "d/x");
        check(&moves, "c/x", "d/x");
        moves.add(&step(&[("c", Some("d"))]));
        check(&moves, "d/x", "d/x");
        check(&moves, "c/x", "c/x");
    }
}
