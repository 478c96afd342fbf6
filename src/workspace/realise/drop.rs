//! Removing what is to go: first its name, then, when everything else stands, the thing itself.

use super::super::displaced;
use super::super::identity::{Ident, Kind};
use super::super::mapping::{Before, Object, ObjectIx, SlotIx};
use super::state::{At, Folder, Pos, Progress, Purpose, Work};
use super::{Found, Mode, Spot, fail};
use crate::sys::{self, Errno};
use crate::tree::{self, RemoveOptions};
use crate::{ErrorKind, Name, Result};

impl Work<'_, '_, '_> {
    /// Frees every name that is to have nothing.
    pub(super) fn retire_all(&mut self) -> Result<()> {
        for slot in 0..self.slots.len() {
            let s = &self.mapping.slots[slot];
            if s.after.is_none()
                && (s.before != Before::Nothing || self.is_left_over(slot))
                && self.progress[slot] == Progress::Open
                && self.name_at(Pos::Slot(slot)).is_some()
            {
                self.retire(slot)?;
            }
        }
        Ok(())
    }

    /// Whether a thing that one transaction made and a later one removed stands at a name that had nothing.
    fn is_left_over(&self, slot: SlotIx) -> bool {
        let found = self.slots[slot].thing();
        self.mode == Mode::Again
            // A section that is taken back leaves alone what it says nothing of, its own things included.
            && self.purpose == Purpose::Commit
            && found.is_some_and(|found| self.is_ours(&found))
    }

    fn retire(&mut self, slot: SlotIx) -> Result<()> {
        let here = Pos::Slot(slot);
        let assumed = match self.mapping.slots[slot].before {
            Before::Object(object) => Some(self.ids[object]),
            Before::Nothing | Before::Anything => None,
        };
        // Looked at before it is touched: what is not to go must not be away even for a moment.
        if self.mode == Mode::First && self.at(here).thing() == assumed {
            self.look(here)?;
        }
        self.look_if_unknown(here)?;
        let At::Thing(found) = self.at(here) else {
            return Ok(());
        };
        if !self.may_go(slot, &found) || found.kind == Kind::Dir && self.lost().is_some() {
            return self.conflict(slot);
        }
        let aside = match self.put_away(here, Folder::Retired) {
            Ok(Some(aside)) => aside,
            Ok(None) => return Ok(()),
            // A directory of a lower overlay layer cannot be renamed; it is removed where it is.
            Err(e)
                if e.errno() == Some(Errno::XDEV)
                    && found.kind == Kind::Dir
                    && self.purpose == Purpose::Commit =>
            {
                return self.remove_in_place(here);
            }
            Err(e) => return Err(e),
        };
        let any = self.mapping.slots[slot].before == Before::Anything;
        match self.look(Pos::Aside(aside))? {
            At::Thing(out) if !any && !self.is_expected(&found, &out) => {
                self.put_back(aside, slot)?;
                self.conflict(slot)
            }
            _ => {
                self.asides[aside].drop = true;
                Ok(())
            }
        }
    }

    /// Whether what stands at a name that is to have nothing may be removed there.
    fn may_go(&self, slot: SlotIx, found: &Ident) -> bool {
        !self.is_awaited(found) && self.may_displace(slot, found)
    }

    /// Whether it is something that has not come to where it is to stand. A link is but a name of what has a
    /// place of its own.
    fn is_awaited(&self, found: &Ident) -> bool {
        let awaited = |object: ObjectIx| {
            self.target[object].is_some()
                && !self.is_link(object)
                && self.is(object, found)
                && !self.has_arrived(object)
                && !self.is_kept(object)
        };
        self.any_object(found, awaited)
    }

    /// Whether it was put into `kept/`, so that any other name of it may go.
    fn is_kept(&self, object: ObjectIx) -> bool {
        self.asides.iter().any(|aside| {
            let found = aside.at.thing();
            aside.folder == Folder::Kept && found.is_some_and(|found| self.is(object, &found))
        })
    }

    /// Removes what was displaced, and the private names of what has arrived.
    pub(super) fn drop_all(&mut self) -> Result<()> {
        if self.mode == Mode::Again {
            // An earlier run may have put away what is to go, or left a second name of what has arrived.
            self.scan()?;
        }
        let homes = (0..self.homes.len()).map(Pos::Home);
        let asides = (0..self.asides.len()).map(Pos::Aside);
        let drops: Vec<(Pos, Ident)> = homes
            .chain(asides)
            .filter_map(|pos| Some((pos, self.at(pos).thing()?)))
            .filter(|(pos, found)| self.is_to_drop(*pos, found))
            .collect();
        if drops.iter().any(|(_, found)| found.kind == Kind::Dir) {
            self.sync_survivors()?;
        } else if drops.iter().any(|(pos, _)| self.dirty.contains(pos)) {
            self.sync_dirty()?;
        }
        let mut later = self.may_wait(drops.len());
        for (pos, found) in drops {
            if later > 0 && self.leave(pos, &found) {
                later -= 1;
                continue;
            }
            // All objects are looked for: not for each file.
            let lost = match found.kind {
                Kind::Dir => self.lost(),
                _ => None,
            };
            match lost {
                Some(slot) => self.keep_whole(pos, slot)?,
                None => self.remove(pos, found.kind)?,
            }
        }
        Ok(())
    }

    /// How many of these may be removed later.
    fn may_wait(&self, drops: usize) -> usize {
        let later = self.ctx.later;
        if drops < later.from { 0 } else { later.at_most }
    }

    /// Leaves a small file that was exchanged for a new one under that one's private name. One that has
    /// another name would be seen there to have two.
    fn leave(&mut self, pos: Pos, found: &Ident) -> bool {
        let Pos::Home(object) = pos else {
            return false;
        };
        let small = found.kind == Kind::File && found.len <= displaced::LONGEST;
        match self.home(object) {
            Some((Folder::Staged, name)) if small && self.alone[object] => {
                self.out.displaced.push(name.clone());
                true
            }
            _ => false,
        }
    }

    /// The slot of something that must survive and is nowhere. It may be in any directory that is to go, if
    /// somebody has moved things about there.
    fn lost(&self) -> Option<SlotIx> {
        (0..self.ids.len()).find_map(|object| {
            let existed = matches!(self.mapping.objects[object], Object::Existing { .. });
            let slot = self.target[object].filter(|_| existed)?;
            self.find_any(object).is_none().then_some(slot)
        })
    }

    /// Keeps a directory that would have been removed.
    fn keep_whole(&mut self, pos: Pos, slot: SlotIx) -> Result<()> {
        if let Some(aside) = self.put_away(pos, Folder::Kept)? {
            self.kept = true;
            self.out.conflicts.push(Found {
                at: Spot::Slot(slot),
                path: self.mapping.slots[slot].path.clone(),
                found: None,
                kept: Some(self.asides[aside].name.clone()),
            });
        }
        Ok(())
    }

    fn is_to_drop(&self, pos: Pos, found: &Ident) -> bool {
        match pos {
            Pos::Slot(_) => false,
            Pos::Home(object) if self.is(object, found) => {
                // A second name of what has arrived, or what nobody wants.
                self.target[object].is_none() || self.has_arrived(object) || self.is_link(object)
            }
            Pos::Home(object) => self.target[object].is_some_and(|slot| self.may_go(slot, found)),
            Pos::Aside(aside) => {
                let aside = &self.asides[aside];
                let waits = self.is_awaited(found);
                match aside.folder {
                    Folder::Kept => false,
                    _ if aside.drop => !waits,
                    Folder::Retired | Folder::Staged => !waits && self.is_ours(found),
                }
            }
        }
    }

    /// Before a directory is removed: what was moved out of it must have its new name for good.
    fn sync_survivors(&mut self) -> Result<()> {
        if self.mode == Mode::Again {
            // Moves of an earlier run, which may have been killed.
            for object in 0..self.ids.len() {
                if let Object::Existing { slot, .. } = self.mapping.objects[object]
                    && let Some(target) = self.target[object]
                    && target != slot
                {
                    self.dirty.extend([Pos::Slot(slot), Pos::Slot(target)]);
                }
            }
        }
        self.sync_dirty()
    }

    fn remove(&mut self, pos: Pos, kind: Kind) -> Result<()> {
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(());
        };
        if kind == Kind::Dir {
            let removed = Name::from_entry(name)
                .map_err(|e| fail("unlinkat", e, b""))
                .and_then(|name| tree::remove(dir, &name, &RemoveOptions::new().missing_ok(true)));
            match removed {
                Ok(_) => {}
                // What is in it may need rights that nobody here has. It has no public name any more.
                Err(e) if is_obstinate(e.kind()) => self.out.left.push(e),
                Err(e) => return Err(e),
            }
        } else {
            match sys::unlinkat(dir, name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(fail("unlinkat", e, self.path(pos))),
            }
        }
        self.set(pos, At::Empty);
        Ok(())
    }

    pub(super) fn remove_in_place(&mut self, pos: Pos) -> Result<()> {
        self.sync_survivors()?;
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(());
        };
        let name = Name::from_entry(name).map_err(|e| fail("unlinkat", e, self.path(pos)))?;
        tree::remove(dir, &name, &RemoveOptions::new().missing_ok(true))?;
        self.set(pos, At::Empty);
        Ok(())
    }
}

/// Whether trying again will not help.
fn is_obstinate(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PermissionDenied | ErrorKind::Busy | ErrorKind::DirectoryNotEmpty
    )
}
