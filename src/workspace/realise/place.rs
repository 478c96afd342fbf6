//! Giving every name the thing that it is to have.

use super::super::identity::{Ident, Kind};
use super::super::mapping::{Before, Body, Object, ObjectIx, SlotIx};
use super::super::place;
use super::moves::Moved;
use super::state::{At, Folder, Pos, Progress, Purpose, Work};
use super::{Mode, fail};
use crate::Result;
use crate::sys::{self, AsFd, Errno, Mode as FileMode, OFlags, RenameFlags};
use crate::tree;

/// How often one name is looked at again because somebody changes it meanwhile.
const TRIES: u32 = 8;

/// What became of one slot.
enum Step {
    Done,
    /// Something else has to move first.
    Later(Errno),
}

impl Work<'_, '_, '_> {
    /// First what existed before moves to its new names, then new directories are filled from within, then
    /// the other new things get their names.
    pub(super) fn place_all(&mut self) -> Result<()> {
        let mut open: Vec<SlotIx> = (0..self.slots.len())
            .filter(|slot| self.is_to_be_placed(*slot))
            .collect();
        open.sort_by_key(|slot| self.rank(*slot));
        while !open.is_empty() {
            let (mut later, mut stuck) = (Vec::new(), None);
            for slot in &open {
                if let Step::Later(e) = self.place(*slot)? {
                    later.push(*slot);
                    stuck = Some((*slot, e));
                }
            }
            if let Some((slot, e)) = stuck
                && later.len() == open.len()
            {
                if self.purpose == Purpose::Back && e == Errno::XDEV {
                    // Everything that belongs elsewhere has been moved out of it, now or by an earlier run.
                    self.ctx
                        .syncfs(self.ctx.staged)
                        .map_err(|e| fail("syncfs", e, self.path(Pos::Slot(slot))))?;
                    self.remove_in_place(Pos::Slot(slot))?;
                    continue;
                }
                return Err(fail("renameat2", e, self.path(Pos::Slot(slot))));
            }
            open = later;
        }
        self.close_dirs()
    }

    fn is_to_be_placed(&self, slot: SlotIx) -> bool {
        let slot = &self.mapping.slots[slot];
        match (slot.before, slot.after) {
            (_, None) => false,
            (Before::Object(before), Some(after)) => before != after,
            (_, Some(_)) => true,
        }
    }

    fn rank(&self, slot: SlotIx) -> (u8, usize) {
        let slot = &self.mapping.slots[slot];
        let existed = slot
            .after
            .is_some_and(|o| matches!(self.mapping.objects[o], Object::Existing { .. }));
        let depth = self.depth(slot.place);
        match (existed, depth) {
            (true, _) => (0, 0),
            (false, 0) => (2, 0),
            (false, depth) => (1, usize::MAX - depth),
        }
    }

    fn place(&mut self, slot: SlotIx) -> Result<Step> {
        let here = Pos::Slot(slot);
        let Some(object) = self.mapping.slots[slot].after else {
            return Ok(Step::Done);
        };
        if self.progress[slot] == Progress::Conflict || self.is_satisfied(slot) {
            return Ok(Step::Done);
        }
        if self.name_at(here).is_none() {
            return self.conflict(slot).map(|()| Step::Done);
        }
        for _ in 0..TRIES {
            self.look_if_unknown(here)?;
            if self.is_satisfied(slot) {
                return Ok(Step::Done);
            }
            let Some(from) = self.find_thoroughly(object)? else {
                return self.conflict(slot).map(|()| Step::Done);
            };
            let moved = match self.at(here) {
                At::Empty if self.is_robbed(slot, object)? => None,
                At::Empty => Some(self.fill(slot, object, from)?),
                At::Thing(found) if self.may_displace(slot, &found) => {
                    Some(self.replace(slot, object, from, &found)?)
                }
                At::Thing(found) if self.is_claim(object, &found) => {
                    Some(self.replace_claim(from, here)?)
                }
                At::Thing(_) | At::Unknown => None,
            };
            match moved {
                None => return self.conflict(slot).map(|()| Step::Done),
                Some(Moved::Done) => return Ok(Step::Done),
                Some(Moved::Refused(e)) => return Ok(Step::Later(e)),
                // Somebody was faster: look again.
                Some(Moved::Taken | Moved::Gone) => {
                    self.look(here)?;
                    self.look(from)?;
                }
            }
        }
        self.conflict(slot).map(|()| Step::Done)
    }

    /// Where an object is, and in recovery also among what was put away.
    pub(super) fn find_thoroughly(&mut self, object: ObjectIx) -> Result<Option<Pos>> {
        if self.find(object).is_none() && self.mode == Mode::Again {
            self.scan()?;
        }
        Ok(self.find(object))
    }

    /// Whether somebody took away what stood at the name: it is nowhere, though nothing has replaced it.
    fn is_robbed(&mut self, slot: SlotIx, object: ObjectIx) -> Result<bool> {
        let Before::Object(before) = self.mapping.slots[slot].before else {
            return Ok(false);
        };
        let by_us = self.mapping.vacated.contains(&slot);
        if by_us || self.target[before].is_some() || self.remade[object] {
            return Ok(false);
        }
        Ok(self.find_thoroughly(before)?.is_none())
    }

    /// Moves an object to an empty name.
    fn fill(&mut self, slot: SlotIx, object: ObjectIx, from: Pos) -> Result<Moved> {
        let here = Pos::Slot(slot);
        let moved = self.move_in(from, here)?;
        if moved == Moved::Done && matches!(from, Pos::Slot(_)) {
            // It came from a name that everybody can reach: is it what was there?
            let found = self.look(here)?;
            if !found.thing().is_some_and(|ident| self.is(object, &ident)) {
                self.move_in(here, from)?;
                self.conflict(slot)?;
            }
        }
        Ok(moved)
    }

    /// Exchanges an object with what has its name, which must be what was `expected`.
    fn replace(
        &mut self,
        slot: SlotIx,
        object: ObjectIx,
        from: Pos,
        expected: &Ident,
    ) -> Result<Moved> {
        let here = Pos::Slot(slot);
        match self.exchange(from, here)? {
            Moved::Done => {}
            Moved::Refused(e @ Errno::XDEV) => return Ok(Moved::Refused(e)),
            Moved::Refused(_) => return self.replace_in_two(slot, object, from, expected),
            other => return Ok(other),
        }
        let out = self.look(from)?;
        let any = self.mapping.slots[slot].before == Before::Anything;
        let right_out = any
            || match out {
                At::Thing(found) => self.is_expected(expected, &found),
                At::Empty | At::Unknown => true,
            };
        let right_in = !matches!(from, Pos::Slot(_))
            || self
                .look(here)?
                .thing()
                .is_some_and(|found| self.is(object, &found));
        if !(right_out && right_in) {
            self.take_back(object, from, here)?;
            self.conflict(slot)?;
        }
        Ok(Moved::Done)
    }

    /// Takes an exchange back. If meanwhile somebody has replaced ours as well, theirs is put in its place
    /// again.
    pub(super) fn take_back(&mut self, object: ObjectIx, ours: Pos, theirs: Pos) -> Result<()> {
        if self.exchange(ours, theirs)? != Moved::Done {
            return Ok(());
        }
        let back = self.look(ours)?.thing();
        if back.is_some_and(|found| !self.is(object, &found)) && !matches!(ours, Pos::Slot(_)) {
            self.exchange(ours, theirs)?;
            // What came out first has no other name than this one.
            self.put_away(ours, Folder::Kept)?;
            self.kept = true;
        }
        Ok(())
    }

    /// Without an exchange: the old thing goes to `retired/`, the new one comes in. In between the name is
    /// not there.
    fn replace_in_two(
        &mut self,
        slot: SlotIx,
        object: ObjectIx,
        from: Pos,
        expected: &Ident,
    ) -> Result<Moved> {
        let here = Pos::Slot(slot);
        // Looked at first, so that what is not to go is not touched even for a moment.
        match self.look(here)? {
            At::Thing(found) if self.may_displace(slot, &found) => {}
            _ => return Ok(Moved::Taken),
        }
        let Some(aside) = self.put_away(here, Folder::Retired)? else {
            return Ok(Moved::Gone);
        };
        let out = Pos::Aside(aside);
        let any = self.mapping.slots[slot].before == Before::Anything;
        match self.look(out)? {
            At::Thing(found) if !any && !self.is_expected(expected, &found) => {
                self.put_back(aside, slot)?;
                self.conflict(slot)?;
                return Ok(Moved::Done);
            }
            At::Thing(found) => self.asides[aside].drop = !self.survives(&found),
            At::Empty | At::Unknown => {}
        }
        let moved = self.fill(slot, object, from)?;
        // A crash that kept the removal of the old thing without the second step would look like a theft.
        self.dirty.extend([here, out]);
        Ok(moved)
    }

    /// Gives something that must not be removed its name back; if that is taken, it goes to `kept/`.
    pub(super) fn put_back(&mut self, aside: usize, slot: SlotIx) -> Result<()> {
        self.asides[aside].drop = false;
        let from = Pos::Aside(aside);
        if self.move_in(from, Pos::Slot(slot))? != Moved::Done {
            self.put_away(from, Folder::Kept)?;
            self.kept = true;
        }
        Ok(())
    }

    /// Whether it is the empty directory that an earlier run has made to hold the name, where nothing else
    /// can (see [`Work::move_in`]).
    fn is_claim(&self, object: ObjectIx, found: &Ident) -> bool {
        self.mode == Mode::Again
            && found.kind == Kind::Dir
            && self.ids[object].kind == Kind::Dir
            && !self.is_ours(found)
    }

    /// rename(2) replaces an empty directory, and no other.
    fn replace_claim(&mut self, from: Pos, here: Pos) -> Result<Moved> {
        let private = match self.name_at(here) {
            Some((dir, name)) => match place::look(dir, name) {
                Ok(meta) => meta.mode() == FileMode::RWXU,
                Err(Errno::NOENT) => return Ok(Moved::Gone),
                Err(e) => return Err(fail("statx", e, self.path(here))),
            },
            None => false,
        };
        let (Some((from_dir, from_name)), Some((dir, name))) =
            (self.name_at(from), self.name_at(here))
        else {
            return Ok(Moved::Gone);
        };
        let renamed = if private {
            sys::renameat2(from_dir, from_name, dir, name, RenameFlags::empty())
        } else {
            Err(Errno::NOTEMPTY)
        };
        match renamed {
            Ok(()) => {
                let at = self.at(from);
                self.set(here, at);
                self.set(from, At::Empty);
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                if let Pos::Slot(slot) = here {
                    self.conflict(slot)?;
                }
            }
            Err(e) => return Err(fail("renameat", e, self.path(here))),
        }
        Ok(Moved::Done)
    }

    /// Whether a new directory has rights that do not let its owner put anything into it.
    pub(super) fn is_closed_dir(&self, object: ObjectIx) -> bool {
        matches!(
            &self.mapping.objects[object],
            Object::New { body: Body::Dir, attr, .. } if attr.mode & 0o700 != 0o700
        )
    }

    /// Gives such directories their mode, now that they are filled.
    fn close_dirs(&mut self) -> Result<()> {
        for object in 0..self.ids.len() {
            if !self.is_closed_dir(object) || !self.has_arrived(object) {
                continue;
            }
            let Object::New { attr, .. } = &self.mapping.objects[object] else {
                continue;
            };
            let Some((dir, name)) = self.find_any(object).and_then(|pos| self.name_at(pos)) else {
                continue;
            };
            let path = self.path_of(object);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = match sys::openat(dir, name, flags, FileMode::empty()) {
                // Somebody has taken it away since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                done => done.map_err(|e| fail("openat", e, path))?,
            };
            let meta = place::facts(&fd).map_err(|e| fail("statx", e, path))?;
            let mode = FileMode::from_raw_mode(attr.mode);
            // Any other mode is somebody's choice since.
            if self.is(object, &Ident::of(&meta)) && meta.mode() == mode | FileMode::RWXU {
                tree::chmod_place(fd.as_fd(), mode).map_err(|(call, e)| fail(call, e, path))?;
            }
        }
        Ok(())
    }
}
