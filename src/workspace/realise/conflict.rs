//! What is done where somebody else was: theirs stays, ours goes to `kept/`.

use super::super::mapping::{Body, Object, ObjectIx, SlotIx};
use super::state::{At, Folder, Pos, Progress, Work};
use super::{Found, Spot, fail};
use crate::root::sync_names;
use crate::sys::{self, AsFd, Mode, OFlags};
use crate::{Name, Result};

impl Work<'_, '_, '_> {
    /// Leaves a slot to whom it belongs now.
    pub(super) fn conflict(&mut self, slot: SlotIx) -> Result<()> {
        if self.progress[slot] == Progress::Conflict {
            return Ok(());
        }
        self.progress[slot] = Progress::Conflict;
        let found = self.look(Pos::Slot(slot))?.thing();
        let kept = match self.mapping.slots[slot].after {
            Some(object) => self.keep(object)?,
            None => None,
        };
        self.out.conflicts.push(Found {
            at: Spot::Slot(slot),
            path: self.mapping.slots[slot].path.clone(),
            found,
            kept,
        });
        Ok(())
    }

    /// Puts an object into `kept/`, and gives its name there.
    fn keep(&mut self, object: ObjectIx) -> Result<Option<Name>> {
        // The file itself has other names.
        if self.is_link(object) {
            return Ok(None);
        }
        let Some(from) = self.find_thoroughly(object)? else {
            return Ok(None);
        };
        self.kept = true;
        match from {
            Pos::Home(home) => {
                if let Some((Folder::Kept, name)) = self.home(home) {
                    return Ok(Some(name.clone()));
                }
            }
            Pos::Aside(aside) if self.asides[aside].folder == Folder::Kept => {
                return Ok(Some(self.asides[aside].name.clone()));
            }
            Pos::Aside(_) | Pos::Slot(_) => {}
        }
        let Some(aside) = self.put_away(from, Folder::Kept)? else {
            return Ok(None);
        };
        if let Pos::Slot(slot) = from {
            let found = self.look(Pos::Aside(aside))?.thing();
            if !found.is_some_and(|found| self.is(object, &found)) {
                self.put_back(aside, slot)?;
                return Ok(None);
            }
        }
        if let Object::New {
            body: Body::Inline(_),
            ..
        } = &self.mapping.objects[object]
        {
            self.sync_content(Pos::Aside(aside))?;
        }
        Ok(Some(self.asides[aside].name.clone()))
    }

    fn sync_content(&self, pos: Pos) -> Result<()> {
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(());
        };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = sys::openat(dir, name, flags, Mode::empty())
            .or_else(|_| {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                sys::openat(dir, name, flags, Mode::empty())
            })
            .map_err(|e| fail("openat", e, b""))?;
        sys::fsync(&fd).map_err(|e| fail("fsync", e, b""))
    }

    /// Makes what was put into `kept/` durable, so that a record can speak of it.
    pub(super) fn settle_kept(&mut self) -> Result<()> {
        if self.kept {
            sync_names(self.ctx.kept.as_fd()).map_err(|e| fail("fsync", e, b""))?;
        }
        Ok(())
    }

    /// In recovery: where an exchange has brought out what is not to go, and nobody has taken it back, that
    /// is done now.
    pub(super) fn undo_displaced(&mut self) -> Result<()> {
        for object in 0..self.ids.len() {
            let home = Pos::Home(object);
            let (Some(slot), At::Thing(out)) = (self.target[object], self.at(home)) else {
                continue;
            };
            if self.is(object, &out) || !self.is_satisfied(slot) || self.may_displace(slot, &out) {
                continue;
            }
            if self.is_being_remade(object, slot)? {
                continue;
            }
            self.take_back(object, home, Pos::Slot(slot))?;
            self.conflict(slot)?;
        }
        Ok(())
    }
}
