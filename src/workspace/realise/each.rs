//! Syncing each thing by itself, where syncfs(2) does not reach the device.

use super::super::identity::Kind;
use super::state::{Pos, Work};
use super::{fail, sync_names};
use crate::Result;
use crate::sys::{self, Errno, Mode as FileMode, OFlags};

impl Work<'_, '_, '_> {
    /// Makes everything durable that the mapping has put in place, and the names. A sync that fails is told
    /// to everybody who would rely on it: the log stays as it is then, and has it all.
    pub(super) fn sync_each(&mut self) -> Result<()> {
        if !self.ctx.each {
            return Ok(());
        }
        let mut places = Vec::new();
        for slot in (0..self.slots.len()).filter(|slot| self.concerns(*slot)) {
            let place = self.mapping.slots[slot].place;
            if !places.contains(&place) {
                places.push(place);
            }
            if self.is_satisfied(slot) && !self.sync_thing(slot)? {
                return self.ctx.doubt();
            }
        }
        for place in places {
            if let Some(dir) = &self.places[place]
                && sync_names(sys::AsFd::as_fd(dir)).is_err()
            {
                return self.ctx.doubt();
            }
        }
        Ok(())
    }

    /// False if it could not be synced.
    fn sync_thing(&self, slot: usize) -> Result<bool> {
        let is_synced = |kind| matches!(kind, Kind::File | Kind::Dir);
        let thing = self.slots[slot].thing().filter(|t| is_synced(t.kind));
        let (Some(_), Some((dir, name))) = (thing, self.name_at(Pos::Slot(slot))) else {
            return Ok(true);
        };
        let open = |access| {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            sys::openat(dir, name, flags, FileMode::empty())
        };
        let opened = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => open(OFlags::WRONLY),
            done => done,
        };
        match opened {
            Ok(fd) => Ok(sys::fsync(&fd).is_ok()),
            // Somebody else has changed it just now; or it may be neither read nor written, and what is in
            // it was synced under its private name if it was long.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ACCESS | Errno::ISDIR) => {
                Ok(true)
            }
            Err(e) => Err(fail("openat", e, self.path(Pos::Slot(slot)))),
        }
    }
}
