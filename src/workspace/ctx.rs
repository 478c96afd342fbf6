//! Where the work on a transaction goes on: the root, and the private folders beside its logs.

use super::displaced::Later;
use super::place;
use super::state::State;
use crate::sys::{self, AsFd, Metadata};
use crate::{Dir, Name, Result, Root};
use std::cell::OnceCell;

/// What staging and realising need of a workspace.
pub(crate) struct Ctx<'a> {
    pub(crate) root: &'a Root,
    pub(crate) staged: &'a Dir,
    pub(crate) kept: &'a Dir,
    pub(crate) retired: &'a Dir,
    pub(crate) keys: &'a Dir,
    /// Whom a failed sync is told to; `None` only in tests.
    pub(crate) state: Option<&'a State>,
    /// A sync of the whole file system proves nothing: everything is synced by itself.
    pub(crate) each: bool,
    /// Short contents that are written in place travel in the record.
    pub(crate) logs_contents: bool,
    /// What may be removed later of what is displaced.
    pub(crate) later: Later,
    /// The number of the private folders' device, once somebody has asked.
    pub(crate) device: OnceCell<u64>,
    /// Gives private names that nobody else is given.
    pub(crate) names: &'a mut dyn FnMut() -> Result<Name>,
}

impl Ctx<'_> {
    /// As [`State::syncfs`].
    pub(crate) fn syncfs(&self, fd: impl AsFd) -> sys::Result<()> {
        match self.state {
            Some(state) => state.syncfs(fd),
            None => sys::syncfs(fd),
        }
    }

    /// Whether a sync of the file system of the private folders reaches a file.
    pub(crate) fn reaches(&self, meta: &Metadata) -> sys::Result<bool> {
        let own = match self.device.get() {
            Some(own) => *own,
            None => {
                let own = place::facts(self.staged)?.id().dev;
                *self.device.get_or_init(|| own)
            }
        };
        Ok(own == meta.id().dev)
    }

    /// A sync has failed: nothing is taken for durable in place until the next mount.
    pub(crate) fn doubt(&self) -> Result<()> {
        self.state.map_or(Ok(()), State::doubt)
    }
}

impl std::fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx")
            .field("root", self.root)
            .finish_non_exhaustive()
    }
}
