//! Single moves: a rename that replaces nothing, an exchange, and what stands in for them.
//!
//! Before a name that something surviving has left is used again, the directories involved are synced, so
//! that no crash can leave the second move without the first.

use super::super::identity::Kind;
use super::fail;
use super::state::{Aside, At, Folder, Pos, Purpose, Work};
use crate::Result;
use crate::root::sync_names;
use crate::sys::{self, Errno, Mode, RenameFlags};

/// More directories than this are synced by one sync of the file system.
const FEW: usize = 3;

/// What became of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Done,
    /// The target has something.
    Taken,
    /// One of the names is not there.
    Gone,
    /// Not in this way: the flag is missing here, or one of the two is inside the other.
    Refused(Errno),
}

impl Work<'_, '_, '_> {
    /// Moves what stands at `from` to `to`, unless something is there.
    pub(super) fn move_in(&mut self, from: Pos, to: Pos) -> Result<Moved> {
        self.sync_if_dirty(&[from, to])?;
        let moved = match self.rename(from, to, RenameFlags::NOREPLACE) {
            Ok(()) => Moved::Done,
            Err(Errno::EXIST) => Moved::Taken,
            Err(Errno::NOENT) => Moved::Gone,
            Err(Errno::INVAL | Errno::NOSYS) => match self.at(from) {
                At::Thing(ident) if ident.kind == Kind::Dir => self.claim_and_rename(from, to)?,
                _ => self.link_and_unlink(from, to)?,
            },
            Err(e) => return Err(self.refused("renameat2(RENAME_NOREPLACE)", e, to)),
        };
        if moved == Moved::Done {
            self.note_move(from, to);
            let at = self.at(from);
            self.set(to, at);
            self.set(from, At::Empty);
        }
        Ok(moved)
    }

    /// Exchanges what stands at the two names.
    pub(super) fn exchange(&mut self, a: Pos, b: Pos) -> Result<Moved> {
        self.sync_if_dirty(&[a, b])?;
        match self.rename(a, b, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Moved::Gone),
            Err(e @ (Errno::INVAL | Errno::NOSYS)) => return Ok(Moved::Refused(e)),
            // A directory of a lower overlay layer, which gives way to its image.
            Err(e @ Errno::XDEV) if self.purpose == Purpose::Back => {
                return Ok(Moved::Refused(e));
            }
            Err(e) => return Err(self.refused("renameat2(RENAME_EXCHANGE)", e, b)),
        }
        self.note_move(a, b);
        self.note_move(b, a);
        let (at_a, at_b) = (self.at(a), self.at(b));
        self.set(a, at_b);
        self.set(b, at_a);
        Ok(Moved::Done)
    }

    /// Moves what stands at `from` to a fresh private name, whose index it gives; `None`: nothing was there.
    pub(super) fn put_away(&mut self, from: Pos, folder: Folder) -> Result<Option<usize>> {
        self.sync_if_dirty(&[from])?;
        let name = (self.ctx.names)()?;
        self.asides.push(Aside {
            folder,
            name,
            at: At::Empty,
            of: None,
            drop: false,
        });
        let aside = self.asides.len() - 1;
        let to = Pos::Aside(aside);
        // The name is fresh and in a private folder: there is nothing to replace.
        match self.rename(from, to, RenameFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => {
                self.asides.pop();
                self.set(from, At::Empty);
                return Ok(None);
            }
            Err(e) => {
                self.asides.pop();
                return Err(self.refused("renameat", e, from));
            }
        }
        self.note_move(from, to);
        let at = self.at(from);
        self.set(to, at);
        self.set(from, At::Empty);
        Ok(Some(aside))
    }

    fn rename(&self, from: Pos, to: Pos, flags: RenameFlags) -> sys::Result<()> {
        match (self.name_at(from), self.name_at(to)) {
            (Some((from_dir, from)), Some((to_dir, to))) => {
                sys::renameat2(from_dir, from, to_dir, to, flags)
            }
            _ => Err(Errno::NOENT),
        }
    }

    /// link(2) refuses a taken name as well. A crash between the two calls leaves both names.
    fn link_and_unlink(&mut self, from: Pos, to: Pos) -> Result<Moved> {
        let survives = self
            .at(from)
            .thing()
            .is_some_and(|ident| self.survives(&ident));
        let (Some((from_dir, from_name)), Some((to_dir, to_name))) =
            (self.name_at(from), self.name_at(to))
        else {
            return Ok(Moved::Gone);
        };
        match sys::linkat(from_dir, from_name, to_dir, to_name) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Moved::Taken),
            Err(Errno::NOENT) => return Ok(Moved::Gone),
            Err(e) => return Err(self.refused("linkat", e, to)),
        }
        if survives {
            // Else a crash could keep the removal of the one name without the other.
            sync_names(to_dir).map_err(|e| self.refused("fsync", e, to))?;
        }
        match sys::unlinkat(from_dir, from_name) {
            Ok(()) | Err(Errno::NOENT) => Ok(Moved::Done),
            Err(e) => Err(self.refused("unlinkat", e, from)),
        }
    }

    /// An empty directory is the exclusive claim, which the rename replaces.
    fn claim_and_rename(&mut self, from: Pos, to: Pos) -> Result<Moved> {
        let Some((to_dir, to_name)) = self.name_at(to) else {
            return Ok(Moved::Gone);
        };
        match sys::mkdirat(to_dir, to_name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Moved::Taken),
            Err(Errno::NOENT) => return Ok(Moved::Gone),
            Err(e) => return Err(self.refused("mkdirat", e, to)),
        }
        let renamed = self.rename(from, to, RenameFlags::empty());
        if renamed.is_err() {
            // The claim, unless somebody has put something into it, and then it stays theirs.
            match sys::rmdirat(to_dir, to_name) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(self.refused("unlinkat(AT_REMOVEDIR)", e, to)),
            }
        }
        match renamed {
            Ok(()) => Ok(Moved::Done),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Moved::Taken),
            Err(Errno::NOENT) => Ok(Moved::Gone),
            Err(e @ Errno::INVAL) => Ok(Moved::Refused(e)),
            Err(e) => Err(self.refused("renameat", e, to)),
        }
    }

    #[cold]
    fn refused(&self, call: &'static str, errno: Errno, pos: Pos) -> crate::Error {
        fail(call, errno, self.path(pos))
    }

    fn note_move(&mut self, from: Pos, to: Pos) {
        if let At::Thing(ident) = self.at(from)
            && (self.purpose == Purpose::Step || self.survives(&ident))
        {
            self.dirty.extend([from, to]);
        }
    }

    fn sync_if_dirty(&mut self, touched: &[Pos]) -> Result<()> {
        // A retired or kept name is never used twice.
        if touched.iter().any(|pos| self.dirty.contains(pos)) {
            self.sync_dirty()
        } else {
            Ok(())
        }
    }

    /// Makes all moves of surviving things durable.
    pub(super) fn sync_dirty(&mut self) -> Result<()> {
        let mut dirs: Vec<Pos> = Vec::new();
        for pos in std::mem::take(&mut self.dirty) {
            if !dirs.iter().any(|seen| self.same_dir(*seen, pos)) {
                dirs.push(pos);
            }
        }
        for pos in &dirs {
            let Some((dir, _)) = self.name_at(*pos) else {
                continue;
            };
            if dirs.len() > FEW {
                // The private folders are on the same file system, and open for reading.
                return (self.ctx.syncfs(self.ctx.staged))
                    .map_err(|e| self.refused("syncfs", e, *pos));
            }
            sync_names(dir).map_err(|e| self.refused("fsync", e, *pos))?;
        }
        Ok(())
    }

    fn same_dir(&self, a: Pos, b: Pos) -> bool {
        let place = |pos| match pos {
            Pos::Slot(slot) => Err(self.mapping.slots[slot].place),
            Pos::Home(object) => Ok(self.home(object).map(|(folder, _)| folder)),
            Pos::Aside(aside) => Ok(Some(self.asides[aside].folder)),
        };
        place(a) == place(b)
    }
}
