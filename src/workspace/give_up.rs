//! Carrying out what somebody has decided to give up: what exists is put where it is found again.
//!
//! It may be stopped anywhere and run again: what it is to do is fixed by the decision (`abandoned`), and
//! what is done shows in where things are. What existed before the transaction is never removed.

#[cfg(test)]
mod tests;

use super::abandoned::{Abandon, Abandonment};
use super::conflict::{self, ConflictId};
use super::identity::Kind;
use super::mapping::{Before, Body, Object, ObjectIx, Place, Set, SlotIx};
use super::place;
use super::realise::{Found, Outcome, Spot};
use super::record::Commit;
use super::state::State;
use super::whereabouts::{Folders, Progress, Seen, Whereabouts};
use crate::publish::{FileOptions, Preserve, SymlinkPolicy};
use crate::root::sync_names;
use crate::sys::{self, AsFd, BorrowedFd, Errno, Mode, RenameFlags};
use crate::{Dir, Error, Name, Result, Root};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

const OP: &str = "abandon transaction";

/// What cannot be finished of a transaction as things stand: everything that is not as it is to be.
pub(super) fn unfinished(seen: &Whereabouts<'_>) -> (BTreeSet<SlotIx>, BTreeSet<usize>) {
    let mapping = seen.mapping;
    let mut slots: BTreeSet<SlotIx> = (0..mapping.slots.len())
        .filter(|ix| {
            let slot = &mapping.slots[*ix];
            let over = match seen.progress(*ix) {
                Progress::After => true,
                // Somebody else's thing is at a name that was to be empty: ours is not there any more.
                Progress::Theirs => slot.after.is_none(),
                _ => false,
            };
            !over && !slot.is_as_before()
        })
        .collect();
    loop {
        let before = slots.len();
        for (ix, slot) in mapping.slots.iter().enumerate() {
            let object = slot.after.and_then(|o| Some((o, mapping.objects.get(o)?)));
            // What does not get to its name leaves its old one to nobody.
            if let Some((moved, Object::Existing { slot: origin, .. })) = object {
                if slots.contains(&ix) {
                    slots.insert(*origin);
                    slots.extend(at_before(mapping, moved));
                } else if matches!(seen.slot(*origin), Seen::Unreachable(_)) {
                    slots.insert(ix);
                }
            }
            // Nothing comes into a directory that does not come.
            if let Some(Place::New(dir)) = mapping.places.get(slot.place)
                && mapping
                    .slots
                    .iter()
                    .enumerate()
                    .any(|(at, s)| s.after == Some(*dir) && slots.contains(&at))
            {
                slots.insert(ix);
            }
        }
        if slots.len() == before {
            break;
        }
    }
    let changes = (0..mapping.changes.len())
        .filter(|ix| seen.change(*ix) != Progress::After)
        .collect();
    (slots, changes)
}

fn at_before(mapping: &super::mapping::Mapping, object: ObjectIx) -> Vec<SlotIx> {
    let all = mapping.slots.iter().enumerate();
    all.filter(|(_, s)| s.before == Before::Object(object))
        .map(|(ix, _)| ix)
        .collect()
}

/// Does what was decided. Gives the conflicts.
pub(super) fn set_aside(
    root: &Root,
    state: &State,
    commit: &Commit,
    what: &Abandonment,
) -> Result<Vec<ConflictId>> {
    let folders = Folders {
        staged: Some(state.staged.try_clone()?),
        kept: Some(state.kept.try_clone()?),
        retired: Some(state.retired.try_clone()?),
        keys: Some(state.keys.try_clone()?),
    };
    let seen = Whereabouts::new(root, &folders, &commit.mapping);
    let mut work = Work {
        seen: &seen,
        state,
        what,
        found: Vec::new(),
        moved: false,
    };
    work.survivors()?;
    if what.how == Abandon::KeepOurs {
        work.keep_new()?;
        work.keep_changes()?;
    }
    let (found, moved) = (work.found, work.moved);
    if moved {
        sync_names(state.kept.as_fd()).map_err(|e| fail("fsync", e))?;
    }
    let outcome = Outcome {
        conflicts: found,
        ..Outcome::default()
    };
    conflict::record(state, commit, &outcome)
}

struct Work<'s, 'm> {
    seen: &'s Whereabouts<'m>,
    state: &'s State,
    what: &'s Abandonment,
    found: Vec<Found>,
    moved: bool,
}

impl Work<'_, '_> {
    fn target(&self, object: ObjectIx) -> Option<SlotIx> {
        let slots = &self.seen.mapping.slots;
        slots.iter().position(|s| s.after == Some(object))
    }

    fn is_given_up(&self, slot: SlotIx) -> bool {
        self.what.slots.contains(&slot)
    }

    /// What existed before and is under a private name, though it is not to go: it gets its old name back,
    /// or, if that is taken, is kept beside.
    fn survivors(&mut self) -> Result<()> {
        let mapping = self.seen.mapping;
        for (ix, object) in mapping.objects.iter().enumerate() {
            let Object::Existing { slot: origin, .. } = object else {
                continue;
            };
            let target = self.target(ix);
            let stranded = match target {
                Some(target) => self.is_given_up(target),
                // It is to go: but not if nothing came in its place.
                None => self.is_given_up(*origin),
            };
            if !stranded || self.seen.slot_of(ix).is_some_and(|at| !self.is_inside(at)) {
                continue;
            }
            let from = match self.seen.slot_of(ix) {
                Some(at) => {
                    let slot = &mapping.slots[at];
                    self.seen
                        .dir(slot.place)
                        .ok()
                        .map(|d| (d, slot.name.clone()))
                }
                None => {
                    let found = self.seen.private(ix);
                    found.map(|(dir, name)| (dir.as_fd(), name))
                }
            };
            let Some((dir, name)) = from else { continue };
            if self.put_back(dir, &name, *origin)? {
                continue;
            }
            let kept = self.keep(dir, &name)?;
            self.conflict(target.unwrap_or(*origin), Some(kept));
        }
        Ok(())
    }

    /// Whether a slot is in a new directory that has no public name.
    fn is_inside(&self, slot: SlotIx) -> bool {
        let mapping = self.seen.mapping;
        let mut place = mapping.slots[slot].place;
        for _ in 0..=mapping.places.len() {
            let Some(Place::New(dir)) = mapping.places.get(place) else {
                return false;
            };
            match self.target(*dir) {
                Some(at) if self.is_given_up(at) => return true,
                Some(at) => place = mapping.slots[at].place,
                None => return true,
            }
        }
        true
    }

    fn put_back(&self, dir: BorrowedFd<'_>, name: &Name, slot: SlotIx) -> Result<bool> {
        let slot = &self.seen.mapping.slots[slot];
        let Ok(to) = self.seen.dir(slot.place) else {
            return Ok(false);
        };
        match rename_new(dir, name.as_c_str(), to, slot.name.as_c_str()) {
            Ok(()) => {
                sync_names(to).map_err(|e| fail("fsync", e))?;
                Ok(true)
            }
            // Whatever stands against it: it is kept.
            Err(_) => Ok(false),
        }
    }

    /// Moves something into `kept/`, under its own name if that is a private one.
    fn keep(&mut self, dir: BorrowedFd<'_>, name: &Name) -> Result<Name> {
        let to = match super::writers::owner_of(name) {
            Some(_) => name.clone(),
            None => super::writers::fresh_name(0)?,
        };
        self.moved = true;
        sys::renameat2(
            dir,
            name.as_c_str(),
            &self.state.kept,
            to.as_c_str(),
            RenameFlags::empty(),
        )
        .map_err(|e| fail("renameat", e).with_path(name))?;
        Ok(to)
    }

    fn conflict(&mut self, slot: SlotIx, kept: Option<Name>) {
        let found = match self.seen.slot(slot) {
            Seen::Thing(ident) => Some(ident),
            _ => None,
        };
        self.found.push(Found {
            at: Spot::Slot(slot),
            path: self.seen.mapping.slots[slot].path.clone(),
            found,
            kept,
        });
    }

    /// New things that do not get their names.
    fn keep_new(&mut self) -> Result<()> {
        let mapping = self.seen.mapping;
        for slot in self.what.slots.iter().copied() {
            let Some(object) = mapping.slots.get(slot).and_then(|s| s.after) else {
                continue;
            };
            let Some(Object::New { body, .. }) = mapping.objects.get(object) else {
                continue;
            };
            let link = matches!(body, Body::Link(_));
            let satisfied = self.seen.progress(slot) == Progress::After;
            if link || satisfied || self.is_inside(slot) {
                continue;
            }
            if let Some(name) = self.keep_object(object)? {
                self.conflict(slot, Some(name));
            }
        }
        Ok(())
    }

    /// Puts a new object, with what is to be in it, into `kept/`. `None`: it is lost.
    fn keep_object(&mut self, object: ObjectIx) -> Result<Option<Name>> {
        let mapping = self.seen.mapping;
        let Some(Object::New { staged, body, .. }) = mapping.objects.get(object) else {
            return Ok(None);
        };
        let at = |dir: &Dir| place::ident_at(dir, staged.as_c_str()).map_err(|e| fail("statx", e));
        // What was displaced may be there instead.
        let here = at(&self.state.staged)?.filter(|found| self.is_whole(object, found, body));
        let there = at(&self.state.kept)?;
        if here.is_some() {
            if *body == Body::Dir {
                self.fill(object, &self.state.staged, staged)?;
            }
            return self.keep(self.state.staged.as_fd(), staged).map(Some);
        }
        if there.is_none() && !self.make(object, staged)? {
            return Ok(None);
        }
        if *body == Body::Dir {
            self.fill(object, &self.state.kept, staged)?;
        }
        Ok(Some(staged.clone()))
    }

    fn is_whole(&self, object: ObjectIx, found: &super::identity::Ident, body: &Body) -> bool {
        match body {
            // A crash may have left it short.
            Body::Inline(content) => {
                self.seen.is(object, found) && found.len == content.len() as u64
            }
            Body::Dir => found.kind == Kind::Dir,
            Body::Symlink(_) => found.kind == Kind::Symlink,
            Body::Staged => self.seen.is(object, found),
            Body::Link(_) => false,
        }
    }

    /// Makes an object anew in `kept/`, if its record says what it is.
    fn make(&mut self, object: ObjectIx, name: &Name) -> Result<bool> {
        let Some(Object::New { body, attr, .. }) = self.seen.mapping.objects.get(object) else {
            return Ok(false);
        };
        let kept = &self.state.kept;
        self.moved = true;
        match body {
            Body::Inline(content) => {
                FileOptions::new()
                    .preserve(Preserve::NOTHING)
                    .symlink(SymlinkPolicy::Replace)
                    // Not more than its owner may do with what may be another one's.
                    .mode(Mode::from_raw_mode(attr.mode & 0o700))
                    .write(&Root::from(kept.try_clone()?), name, content)?;
                Ok(true)
            }
            Body::Symlink(target) => {
                let target =
                    CString::new(target.as_slice()).map_err(|_| fail("symlinkat", Errno::INVAL))?;
                sys::symlinkat(target.as_c_str(), kept, name.as_c_str())
                    .map_err(|e| fail("symlinkat", e))?;
                Ok(true)
            }
            Body::Dir => {
                sys::mkdirat(kept, name.as_c_str(), Mode::RWXU).map_err(|e| fail("mkdirat", e))?;
                Ok(true)
            }
            Body::Staged | Body::Link(_) => Ok(false),
        }
    }

    /// Puts into a new directory what the transaction was to put there and has not yet.
    fn fill(&mut self, object: ObjectIx, folder: &Dir, name: &Name) -> Result<()> {
        let mapping = self.seen.mapping;
        let dir = place::open_in(folder, name.as_c_str()).map_err(|e| fail("openat", e))?;
        for (ix, slot) in mapping.slots.iter().enumerate() {
            let inside =
                matches!(mapping.places.get(slot.place), Some(Place::New(o)) if *o == object);
            let Some(child) = slot.after.filter(|_| inside) else {
                continue;
            };
            let new = matches!(
                mapping.objects.get(child),
                Some(Object::New { body, .. }) if !matches!(body, Body::Link(_))
            );
            let there =
                place::ident_at(&dir, slot.name.as_c_str()).map_err(|e| fail("statx", e))?;
            if !new || there.is_some() || !self.is_given_up(ix) {
                continue;
            }
            let Some(kept) = self.keep_object(child)? else {
                continue;
            };
            let (from, to) = (kept.as_c_str(), slot.name.as_c_str());
            sys::renameat2(&self.state.kept, from, &dir, to, RenameFlags::empty())
                .map_err(|e| fail("renameat", e))?;
        }
        sync_names(dir.as_fd()).map_err(|e| fail("fsync", e))
    }

    fn keep_changes(&mut self) -> Result<()> {
        let mapping = self.seen.mapping;
        for ix in self.what.changes.iter().copied() {
            let Some(change) = mapping.changes.get(ix) else {
                continue;
            };
            let mut kept = None;
            if let Set::Logged { name, after, .. } = &change.what {
                let (staged, to) = (&self.state.staged, &self.state.kept);
                place::keep_bytes(staged, to, name.as_c_str(), after)
                    .map_err(|(call, e)| fail(call, e).with_path(name))?;
                self.moved = true;
                kept = Some(name.clone());
            } else if let Set::Content { after, .. } = &change.what {
                let at = |dir: &Dir| place::ident_at(dir, after.as_c_str());
                if at(&self.state.staged)
                    .map_err(|e| fail("statx", e))?
                    .is_some()
                {
                    kept = Some(self.keep(self.state.staged.as_fd(), after)?);
                } else if at(&self.state.kept)
                    .map_err(|e| fail("statx", e))?
                    .is_some()
                {
                    kept = Some(after.clone());
                }
            }
            let slot = self
                .seen
                .slot_of(change.object)
                .or_else(|| self.target(change.object));
            let origin = match mapping.objects.get(change.object) {
                Some(Object::Existing { slot, .. }) => Some(*slot),
                _ => None,
            };
            let Some(slot) = slot.or(origin) else {
                continue;
            };
            let found = match self.seen.slot(slot) {
                Seen::Thing(ident) => Some(ident),
                _ => None,
            };
            self.found.push(Found {
                at: Spot::Change(ix),
                path: mapping.slots[slot].path.clone(),
                found,
                kept,
            });
        }
        Ok(())
    }
}

/// Renames to a name that must be free.
fn rename_new(
    from_dir: BorrowedFd<'_>,
    from: &CStr,
    to_dir: BorrowedFd<'_>,
    to: &CStr,
) -> std::result::Result<(), Errno> {
    match sys::renameat2(from_dir, from, to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return done,
    }
    // A directory cannot be linked, and stays where it is.
    sys::linkat(from_dir, from, to_dir, to)?;
    sys::unlinkat(from_dir, from)
}

fn fail(call: &'static str, errno: Errno) -> Error {
    Error::new(OP, call, errno)
}
