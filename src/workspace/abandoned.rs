//! Work that somebody has given up: recovery leaves it out, and does the rest.
//!
//! Each is a file in the folder `abandoned`, which is made when it is needed first, named by the number of
//! the transaction. The file is the decision: it is durable before anything is done about it, and names
//! exactly what is given up, so that whoever comes to it after a crash does the same.

use super::mapping::{Before, Body, Mapping, Object, ObjectIx, Place, PlaceIx, Slot, SlotIx};
use super::record::{self, Commit};
use super::{private, setup, state};
use crate::publish::{FileOptions, Preserve};
use crate::root::{Dir, sync_names, temp_name};
use crate::sys::{self, AsFd, Errno, Mode, OFlags};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;

pub(super) const FOLDER: &CStr = c"abandoned";
const OP: &str = "read what was given up";
/// More than any of them is long.
const LONGEST: usize = 16 << 20;

/// What becomes of the new things that were to get a name and do not; and of what a section has put away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Abandon {
    /// They are kept beside, and each is a conflict that can be resolved. What a section has put away is kept
    /// under names that begin with `given-up-` and its number; it is no conflict.
    KeepOurs,
    /// They are removed. What existed before a transaction never is; of a section, what it has kept of the
    /// state before is.
    Drop,
}

/// What is given up of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Abandonment {
    pub(crate) number: u64,
    pub(crate) how: Abandon,
    /// Its record cannot be read, so that nothing of it can be done.
    pub(crate) unread: bool,
    pub(crate) slots: BTreeSet<SlotIx>,
    pub(crate) changes: BTreeSet<usize>,
}

impl Abandonment {
    fn encode(&self) -> Vec<u8> {
        let mut w = record::begin();
        w.u64(self.number);
        w.u8(match self.how {
            Abandon::KeepOurs => 0,
            Abandon::Drop => 1,
        });
        w.u8(self.unread.into());
        for all in [&self.slots, &self.changes] {
            w.u64(all.len() as u64);
            for ix in all {
                w.u64(*ix as u64);
            }
        }
        let crc = crc32c::crc32c(&w.out);
        w.u32(crc);
        w.out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::of_kind(OP, ErrorKind::Corrupt);
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        record::decode(content, |r| {
            let number = r.u64()?;
            let how = match r.u8()? {
                0 => Abandon::KeepOurs,
                1 => Abandon::Drop,
                _ => return Err("nobody knows what is to become of it"),
            };
            let unread = r.u8()? != 0;
            let mut all = [BTreeSet::new(), BTreeSet::new()];
            for set in &mut all {
                for _ in 0..r.u64()? {
                    set.insert(usize::try_from(r.u64()?).map_err(|_| "an index is too high")?);
                }
            }
            let [slots, changes] = all;
            Ok(Self {
                number,
                how,
                unread,
                slots,
                changes,
            })
        })
    }

    /// What is left of a commit when this is taken out of it.
    pub(crate) fn rest(&self, commit: &Commit) -> Commit {
        Commit {
            mapping: if self.unread {
                Mapping::default()
            } else {
                without(&commit.mapping, &self.slots, &self.changes)
            },
            ..commit.clone()
        }
    }
}

/// The mapping without these slots and changes, and without what is only there for them.
fn without(all: &Mapping, slots: &BTreeSet<SlotIx>, changes: &BTreeSet<usize>) -> Mapping {
    let stays = |ix: &SlotIx| !slots.contains(ix);
    let stays_change = |ix: &usize| !changes.contains(ix);
    // What is referred to is referred to again from there.
    let mut need = Need {
        all,
        slots: BTreeSet::new(),
        objects: BTreeSet::new(),
        places: BTreeSet::new(),
    };
    for ix in (0..all.slots.len()).filter(stays) {
        need.slot(ix);
        if let Some(slot) = all.slots.get(ix) {
            if let Before::Object(object) = slot.before {
                need.object(object);
            }
            if let Some(object) = slot.after {
                need.object(object);
            }
        }
    }
    for ix in (0..all.changes.len()).filter(stays_change) {
        if let Some(change) = all.changes.get(ix) {
            need.object(change.object);
        }
    }
    let new = |set: &BTreeSet<usize>, old: usize| set.iter().take_while(|ix| **ix < old).count();
    let object = |old: ObjectIx| new(&need.objects, old);
    let place = |old: PlaceIx| new(&need.places, old);
    let slot_ix = |old: SlotIx| new(&need.slots, old);
    let pick = |ix: &usize| all.slots.get(*ix).map(|slot| (*ix, slot));
    Mapping {
        places: (need.places.iter())
            .filter_map(|ix| all.places.get(*ix))
            .map(|p| match p {
                Place::Keys => Place::Keys,
                Place::New(o) => Place::New(object(*o)),
                Place::Existing {
                    path,
                    ident,
                    object: o,
                } => Place::Existing {
                    path: path.clone(),
                    ident: *ident,
                    object: o.map(object),
                },
            })
            .collect(),
        objects: (need.objects.iter())
            .filter_map(|ix| all.objects.get(*ix))
            .map(|o| match o {
                Object::Existing { ident, slot } => Object::Existing {
                    ident: *ident,
                    slot: slot_ix(*slot),
                },
                Object::New {
                    staged,
                    ident,
                    body: Body::Link(of),
                    attr,
                } => Object::New {
                    staged: staged.clone(),
                    ident: *ident,
                    body: Body::Link(object(*of)),
                    attr: attr.clone(),
                },
                other => other.clone(),
            })
            .collect(),
        slots: (need.slots.iter())
            .filter_map(pick)
            .map(|(ix, slot)| {
                let given_up = slots.contains(&ix);
                let before = match slot.before {
                    _ if given_up => Before::Nothing,
                    Before::Object(o) => Before::Object(object(o)),
                    other => other,
                };
                Slot {
                    place: place(slot.place),
                    before,
                    // One that is given up is only a place where something may be found.
                    after: slot.after.filter(|_| !given_up).map(object),
                    ..slot.clone()
                }
            })
            .collect(),
        changes: (0..all.changes.len())
            .filter(stays_change)
            .filter_map(|ix| all.changes.get(ix))
            .map(|change| super::mapping::Change {
                object: object(change.object),
                what: change.what.clone(),
            })
            .collect(),
        // Of one transaction there is nothing in it.
        seen: Vec::new(),
        vacated: Vec::new(),
    }
}

/// What is referred to, with what that refers to.
struct Need<'m> {
    all: &'m Mapping,
    slots: BTreeSet<SlotIx>,
    objects: BTreeSet<ObjectIx>,
    places: BTreeSet<PlaceIx>,
}

impl Need<'_> {
    fn slot(&mut self, ix: SlotIx) {
        if let Some(slot) = self.all.slots.get(ix)
            && self.slots.insert(ix)
        {
            self.place(slot.place);
        }
    }

    fn place(&mut self, ix: PlaceIx) {
        if !self.places.insert(ix) {
            return;
        }
        let of = match self.all.places.get(ix) {
            Some(Place::New(object)) => Some(*object),
            Some(Place::Existing { object, .. }) => *object,
            _ => None,
        };
        if let Some(object) = of {
            self.object(object);
        }
    }

    fn object(&mut self, ix: ObjectIx) {
        if !self.objects.insert(ix) {
            return;
        }
        match self.all.objects.get(ix) {
            Some(Object::Existing { slot, .. }) => self.slot(*slot),
            Some(Object::New {
                body: Body::Link(of),
                ..
            }) => self.object(*of),
            _ => {}
        }
    }
}

/// The folder; `None`: nothing was ever given up.
pub(super) fn folder(state: &Dir) -> Result<Option<Dir>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    match sys::openat(state, FOLDER, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::new(OP, "openat", e).with_path(shown())),
    }
}

pub(super) fn shown() -> String {
    format!("{}/abandoned", state::shown())
}

pub(super) fn file_name(number: u64) -> Result<Name> {
    Name::new(format!("{number:016x}")).map_err(|e| Error::new(OP, "openat", e))
}

fn number_of(name: &Name) -> Option<u64> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    let number = u64::from_str_radix(text, 16).ok()?;
    file_name(number)
        .is_ok_and(|n| n == *name)
        .then_some(number)
}

/// All that was given up and is not settled, in the order of the numbers.
pub(super) fn list(state: &Dir) -> Result<Vec<(Name, Result<Abandonment>)>> {
    let Some(dir) = folder(state)? else {
        return Ok(Vec::new());
    };
    let fail = |e| Error::new(OP, "getdents64", e).with_path(shown());
    let mut names = Vec::new();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(OP))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        names.extend(Name::from_entry(entry.name()).ok());
    }
    names.retain(|name| number_of(name).is_some());
    names.sort();
    Ok(names
        .into_iter()
        .map(|name| {
            let read = read_file(&dir, &name);
            (name, read)
        })
        .collect())
}

fn read_file(dir: &Dir, name: &Name) -> Result<Abandonment> {
    let bytes = private::read(dir, name, LONGEST)?;
    Abandonment::decode(&bytes)
        .and_then(|found| match number_of(name) == Some(found.number) {
            true => Ok(found),
            false => Err(Error::of_kind(OP, ErrorKind::Corrupt)),
        })
        .map_err(|e| {
            e.with_operation(OP)
                .with_path(Path::new(&shown()).join(name))
                .with_advice("repair the workspace: what the file says is given up is tried again")
        })
}

/// Removes files that never got their names. Whoever writes them, and whoever calls this, does it alone.
pub(super) fn tidy(state: &Dir) -> Result<()> {
    let Some(dir) = folder(state)? else {
        return Ok(());
    };
    let fail = |call| move |e| Error::new(OP, call, e).with_path(shown());
    let mut names = Vec::new();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(OP))?;
    while let Some(entry) = stream.next().map_err(fail("getdents64"))? {
        if temp_name::parse(entry.name().to_bytes()).is_some() {
            names.extend(Name::from_entry(entry.name()).ok());
        }
    }
    for name in names {
        match sys::unlinkat(&dir, name.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(fail("unlinkat")(e)),
        }
    }
    Ok(())
}

/// What was given up of this transaction, if anything.
pub(super) fn read(state: &Dir, number: u64) -> Result<Option<Abandonment>> {
    let Some(dir) = folder(state)? else {
        return Ok(None);
    };
    match read_file(&dir, &file_name(number)?) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Decides it: durable when this returns.
pub(super) fn write(state: &Dir, what: &Abandonment) -> Result<()> {
    let fail = |(call, e)| Error::new("abandon", call, e).with_path(shown());
    let dir = setup::make_folder(state, FOLDER).map_err(fail)?;
    sync_names(state.as_fd()).map_err(|e| fail(("fsync", e)))?;
    FileOptions::new()
        .preserve(Preserve::NOTHING)
        .mode(Mode::RUSR | Mode::WUSR)
        .write(&Root::from(dir), file_name(what.number)?, what.encode())?;
    Ok(())
}

/// Forgets it, when no log has the transaction any more.
pub(super) fn forget(state: &Dir, number: u64) -> Result<()> {
    let Some(dir) = folder(state)? else {
        return Ok(());
    };
    match sys::unlinkat(&dir, file_name(number)?.as_c_str()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(Error::new("forget what was given up", "unlinkat", e).with_path(shown())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_is_believed() {
        let decision = Abandonment {
            number: 7,
            how: Abandon::Drop,
            unread: false,
            slots: [0, 3].into(),
            changes: [1].into(),
        };
        let bytes = decision.encode();
        assert_eq!(Abandonment::decode(&bytes).unwrap(), decision);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = Abandonment::decode(&flipped).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bit}");
        }
    }
}
