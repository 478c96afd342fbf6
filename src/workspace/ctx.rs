//! Where the work on a transaction goes on: the root, and the private folders beside its logs.

use super::state::State;
use crate::{Dir, Name, Result, Root};

/// What staging and realising need of a workspace.
pub(crate) struct Ctx<'a> {
    pub(crate) root: &'a Root,
    pub(crate) staged: &'a Dir,
    pub(crate) kept: &'a Dir,
    pub(crate) retired: &'a Dir,
    pub(crate) keys: &'a Dir,
    /// Where a sync of the whole file system proves nothing: everything is synced by itself.
    pub(crate) each: Option<&'a State>,
    /// Gives private names that nobody else is given.
    pub(crate) names: &'a mut dyn FnMut() -> Result<Name>,
}

impl std::fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx")
            .field("root", self.root)
            .finish_non_exhaustive()
    }
}
