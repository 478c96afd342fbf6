//! Records of a workspace, written from the description of their format (`docs/workspace-format.md`), not by
//! the library. What they say is chosen by the input: mostly things that are there, by their true identity.

use crate::input::Input;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::path::Path;

/// Bytes under construction.
#[derive(Clone, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub fn stamp(&mut self, (seconds, nanos): (i64, u32)) {
        self.0.extend_from_slice(&seconds.to_le_bytes());
        self.u32(nanos);
    }

    fn index(&mut self, index: Option<usize>) {
        match index {
            None => self.u8(0),
            Some(index) => {
                self.u8(1);
                self.count(index);
            }
        }
    }
}

/// A thing that there is: its path and its identity, encoded.
#[derive(Clone, Debug)]
pub struct Thing {
    pub path: String,
    pub identity: Vec<u8>,
}

impl Thing {
    /// What stands at `path` in `top`.
    pub fn of(top: &Path, path: &str) -> Self {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let meta = statx(CWD, top.join(path), flags, StatxFlags::ALL).unwrap();
        let mut out = Bytes::default();
        out.u8(match meta.stx_mode & 0o170_000 {
            0o100_000 => 0,
            0o040_000 => 1,
            0o120_000 => 2,
            _ => 3,
        });
        out.u64(meta.stx_ino);
        let known = StatxFlags::from_bits_retain(meta.stx_mask).contains(StatxFlags::BTIME);
        out.u8(known.into());
        if known {
            out.stamp((meta.stx_btime.tv_sec, meta.stx_btime.tv_nsec));
        }
        out.u64(meta.stx_size);
        out.stamp((meta.stx_mtime.tv_sec, meta.stx_mtime.tv_nsec));
        Self {
            path: path.to_owned(),
            identity: out.0,
        }
    }

    fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }
}

/// What records can be about.
#[derive(Debug)]
pub struct World {
    /// In the tree.
    pub things: Vec<Thing>,
    /// Directories in the tree, the root first.
    pub dirs: Vec<Thing>,
    /// Private, by their names in `staged/` and `kept/`.
    pub staged: Vec<Thing>,
    pub kept: Vec<Thing>,
    /// Not in the workspace.
    pub beside: Thing,
}

/// Names for what is new, and for what may be there.
const NAMES: [&str; 8] = ["a", "b", "x", "z", "new", "e", ".steadfast", "l"];

impl World {
    fn thing(&self, input: &mut Input<'_>) -> &Thing {
        match input.one_in(24) {
            true => &self.beside,
            false => &self.things[input.below(self.things.len())],
        }
    }

    fn staged(&self, input: &mut Input<'_>) -> &Thing {
        &self.staged[input.below(self.staged.len())]
    }

    fn kept(&self, input: &mut Input<'_>) -> &Thing {
        &self.kept[input.below(self.kept.len())]
    }

    fn attributes(input: &mut Input<'_>, out: &mut Bytes) {
        out.u32(input.of(&[0o644, 0o600, 0o755, 0o700, 0o4755, 0, u32::MAX]));
        out.u32(input.of(&[0, 0, 0, 1, u32::MAX]));
        out.u32(input.of(&[0, 0, 0, 1, u32::MAX]));
        out.stamp((input.of(&[1, 1_000_000_000, i64::MAX, i64::MIN]), 5));
        out.u8(0);
        let xattrs = input.below(8) / 7;
        out.count(xattrs);
        for _ in 0..xattrs {
            out.bytes(input.of(&[b"user.a".as_slice(), b"security.x", b"", b"user.\0"]));
            out.bytes(b"value");
        }
    }

    /// A change of a thing as it is.
    fn set(&self, input: &mut Input<'_>, out: &mut Bytes) {
        let kind = input.below(5);
        out.u8(kind as u8);
        match kind {
            0 => {
                out.u32(input.of(&[0o600, 0o644, 0o755]));
                out.u32(input.of(&[0o600, 0o644, 0o7777, u32::MAX]));
            }
            1 => (0..4).for_each(|_| out.u32(input.of(&[0, 0, 1, u32::MAX]))),
            2 => {
                out.stamp((input.of(&[0, 1, 1_000_000_000]), 0));
                out.stamp((input.of(&[0, 1, 1_000_000_000, i64::MAX]), 0));
                out.u8(0);
            }
            3 => {
                out.bytes(input.of(&[b"user.a".as_slice(), b"trusted.b", b""]));
                for _ in 0..2 {
                    let some = input.one_in(2);
                    out.u8(some.into());
                    if some {
                        out.bytes(b"v");
                    }
                }
            }
            _ => {
                let (kept, staged) = (self.kept(input), self.staged(input));
                out.bytes(kept.path.as_bytes());
                out.bytes(staged.path.as_bytes());
            }
        }
    }

    /// A commit record. `boot` is that of now.
    pub fn commit(&self, input: &mut Input<'_>, number: u64, boot: [u8; 16]) -> Vec<u8> {
        let mut draft = Draft::default();
        for _ in 0..1 + input.below(6) {
            draft.add(self, input);
        }
        let objects = draft.objects.len();
        for slot in &mut draft.slots {
            match input.below(4) {
                0 => slot.after = None,
                1 if objects > 0 => slot.after = Some(input.below(objects)),
                _ => {}
            }
        }
        let mut out = Bytes(vec![1]);
        out.u64(number);
        match input.below(3) {
            0 => out.u8(0),
            other => {
                out.u8(1);
                out.0.extend(if other == 1 { boot } else { [9; 16] });
            }
        }
        out.u8(0);
        out.stamp((1_700_000_000, 0));
        out.bytes(b"label");
        draft.encode(self, input, &mut out);
        out.0
    }

    /// What takes a step of a section back. Whether it takes back all of the root, is told as well.
    pub fn fragment(&self, input: &mut Input<'_>, number: u64) -> (Vec<u8>, bool) {
        let mut out = Bytes(vec![1]);
        out.u64(number);
        out.u8(0);
        let places = 1 + input.below(3);
        out.count(places);
        for _ in 0..places {
            let dir = &self.dirs[input.below(self.dirs.len())];
            out.bytes(dir.path.as_bytes());
            out.0.extend_from_slice(&dir.identity);
            out.u8(input.one_in(4).into());
        }
        let spots = input.below(5);
        out.count(spots);
        for _ in 0..spots {
            let thing = self.thing(input);
            out.count(input.below(places));
            match input.one_in(3) {
                true => out.bytes(input.of(&NAMES).as_bytes()),
                false => out.bytes(thing.split().1.as_bytes()),
            }
            let what = input.below(5);
            out.u8(what as u8);
            match what {
                2 | 4 => out.0.extend_from_slice(&thing.identity),
                3 => {
                    let kept = self.kept(input);
                    out.bytes(kept.path.as_bytes());
                    out.0.extend_from_slice(&kept.identity);
                    out.0.extend_from_slice(&thing.identity);
                    out.stamp((input.of(&[0, 1_700_000_000, i64::MAX]), 0));
                }
                _ => {}
            }
        }
        let changes = input.below(3);
        out.count(changes);
        for _ in 0..changes {
            let thing = self.thing(input);
            out.0.extend_from_slice(&thing.identity);
            self.set(input, &mut out);
        }
        let touched = input.below(3);
        out.count(touched);
        for _ in 0..touched {
            let thing = self.thing(input);
            out.0.extend_from_slice(&thing.identity);
        }
        let all = input.one_in(8);
        out.u8(all.into());
        if all {
            Self::attributes(input, &mut out);
        }
        (out.0, all)
    }
}

struct Slot {
    place: usize,
    name: String,
    before: Before,
    after: Option<usize>,
}

enum Before {
    Nothing,
    Object(usize),
    Anything,
}

enum Object {
    Existing(Vec<u8>, usize),
    New(Thing, usize),
    Kept(Thing),
}

enum Place {
    Existing(Thing, Option<usize>),
    New(usize),
    Keys,
}

/// A mapping that fits together.
#[derive(Default)]
struct Draft {
    places: Vec<Place>,
    objects: Vec<Object>,
    slots: Vec<Slot>,
}

impl Draft {
    fn place(&mut self, dir: &Thing) -> usize {
        let is = |p: &Place| matches!(p, Place::Existing(known, _) if known.path == dir.path);
        self.places.iter().position(is).unwrap_or_else(|| {
            self.places.push(Place::Existing(dir.clone(), None));
            self.places.len() - 1
        })
    }

    /// A thing that is there, or that is new, with its name.
    fn add(&mut self, world: &World, input: &mut Input<'_>) {
        let object = self.objects.len();
        let slot = self.slots.len();
        if input.one_in(2) {
            let thing = world.thing(input);
            let (above, name) = thing.split();
            let dir = world.dirs.iter().find(|d| d.path == above);
            let place = self.place(dir.unwrap_or(&world.dirs[0]));
            self.slots.push(Slot {
                place,
                name: name.to_owned(),
                before: Before::Object(object),
                after: Some(object),
            });
            self.objects
                .push(Object::Existing(thing.identity.clone(), slot));
            // The directory itself may be moved.
            let own =
                |p: &&mut Place| matches!(p, Place::Existing(known, _) if known.path == thing.path);
            if let Some(Place::Existing(_, moved)) = self.places.iter_mut().find(own) {
                *moved = Some(object);
            }
            return;
        }
        let place = match input.below(8) {
            0 if !self.objects.is_empty() => {
                self.places
                    .push(Place::New(input.below(self.objects.len())));
                self.places.len() - 1
            }
            1 => {
                self.places.push(Place::Keys);
                self.places.len() - 1
            }
            _ => self.place(&world.dirs[input.below(world.dirs.len())]),
        };
        self.slots.push(Slot {
            place,
            name: input.of(&NAMES).to_owned(),
            before: match input.one_in(8) {
                true => Before::Anything,
                false => Before::Nothing,
            },
            after: Some(object),
        });
        self.objects.push(match input.one_in(6) {
            true => Object::Kept(world.kept(input).clone()),
            false => Object::New(world.staged(input).clone(), input.below(5)),
        });
    }

    fn encode(&self, world: &World, input: &mut Input<'_>, out: &mut Bytes) {
        let existing: Vec<usize> = (0..self.objects.len())
            .filter(|o| matches!(self.objects[*o], Object::Existing(..)))
            .collect();
        let changes = if existing.is_empty() {
            0
        } else {
            input.below(3)
        };
        for n in [
            self.places.len(),
            self.objects.len(),
            self.slots.len(),
            changes,
        ] {
            out.count(n);
        }
        for place in &self.places {
            match place {
                Place::Existing(dir, moved) => {
                    out.u8(0);
                    out.bytes(dir.path.as_bytes());
                    out.0.extend_from_slice(&dir.identity);
                    out.index(*moved);
                }
                Place::New(object) => {
                    out.u8(1);
                    out.count(*object);
                }
                Place::Keys => out.u8(2),
            }
        }
        for object in &self.objects {
            match object {
                Object::Existing(identity, slot) => {
                    out.u8(0);
                    out.0.extend_from_slice(identity);
                    out.count(*slot);
                }
                Object::New(staged, body) => {
                    out.u8(1);
                    out.bytes(staged.path.as_bytes());
                    out.0.extend_from_slice(&staged.identity);
                    // A directory is one.
                    let body = if staged.identity[0] == 1 { 3 } else { *body };
                    out.u8(body as u8);
                    match body {
                        0 => out.bytes(b"content of a record"),
                        2 => out.bytes(input.of(&[b"none".as_slice(), b"../beside", b""])),
                        4 => out.count(input.below(self.objects.len())),
                        _ => {}
                    }
                    World::attributes(input, out);
                }
                Object::Kept(kept) => {
                    out.u8(2);
                    out.bytes(kept.path.as_bytes());
                    out.0.extend_from_slice(&kept.identity);
                }
            }
        }
        for slot in &self.slots {
            out.count(slot.place);
            out.bytes(slot.name.as_bytes());
            out.bytes(slot.name.as_bytes());
            match slot.before {
                Before::Nothing => out.u8(0),
                Before::Object(object) => {
                    out.u8(1);
                    out.count(object);
                }
                Before::Anything => out.u8(2),
            }
            out.index(slot.after);
        }
        for _ in 0..changes {
            out.count(existing[input.below(existing.len())]);
            world.set(input, out);
        }
    }
}
