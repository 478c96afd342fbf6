//! Making a mapping true: the one executor of commit, recovery and rollback.
//!
//! It looks where everything is and goes on from there, so that it may be stopped anywhere and run again, by
//! anybody, as often as need be. What it finds that is neither as before nor as after stays where it is.
//!
//! Nothing that must survive is ever without a name. It stands at a name of the mapping, at a private name
//! that the mapping records, or in `retired/` or `kept/`, where it is found again by what it is. So those
//! folders may be cleared of what nobody owns only when no record is left to realise.

mod anew;
mod chain;
mod change;
mod conflict;
mod content;
mod drop;
mod each;
mod ids;
mod locate;
mod moves;
mod place;
mod state;
#[cfg(test)]
mod tests;
mod unsynced;

use super::ctx::Ctx;
use super::identity::Ident;
use super::mapping::{Mapping, SlotIx};
use super::open_files::OpenFiles;
use crate::root::sync_names;
use crate::sys::Errno;
use crate::{DiskState, Error, Name, Result};
use state::{Purpose, Work};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const OPERATION: &str = "carry out transaction";

/// What is known about the state that the work begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Right after the commit, by who committed and still holds the claims: all is as the mapping says that
    /// it was before, unless somebody without claims has changed it.
    First,
    /// Anything: some of the work may have been done, by anybody, and be lost again in part.
    Again,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was found changed by somebody else, and was left alone.
    pub(crate) conflicts: Vec<Found>,
    /// What was to be removed and could not be: it is hidden in a private folder, and litter there.
    pub(crate) left: Vec<Error>,
    /// Small files that gave way, under their private names in `staged/`: they may be removed at any time.
    pub(crate) displaced: Vec<Name>,
}

impl Outcome {
    pub(crate) fn of(conflicts: Vec<Found>) -> Self {
        Self {
            conflicts,
            ..Self::default()
        }
    }
}

/// Something that is neither as before the transaction nor as after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) at: Spot,
    /// The path for people.
    pub(crate) path: Vec<u8>,
    /// What is there; `None`: nothing, or its directory is gone.
    pub(crate) found: Option<Ident>,
    /// The name in `kept/`, durable, of what the transaction wanted there, if that is anything and still
    /// exists.
    pub(crate) kept: Option<Name>,
}

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Slot(SlotIx),
    /// Index of a change.
    Change(usize),
}

/// Makes the mapping true. `opened`: files that staging has opened, if they were kept.
///
/// # Errors
/// Of the calls that it makes, with [`DiskState::Committed`]: it can be run again, with [`Mode::Again`].
pub(crate) fn realise_opened(
    ctx: &mut Ctx<'_>,
    mapping: &Mapping,
    mode: Mode,
    opened: OpenFiles,
) -> Result<Outcome> {
    let mut work = Work::new(ctx, mapping, mode);
    work.opened = opened;
    run(work)
}

#[cfg(test)]
pub(crate) fn realise(ctx: &mut Ctx<'_>, mapping: &Mapping, mode: Mode) -> Result<Outcome> {
    realise_opened(ctx, mapping, mode, OpenFiles::default())
}

/// [`realise_opened`] in recovery. `intact`: no power cut can have come in between, so that what
/// stands under a private name as it was recorded, has all its attributes.
///
/// # Errors
/// As [`realise_opened`].
pub(crate) fn resume(ctx: &mut Ctx<'_>, mapping: &Mapping, intact: bool) -> Result<Outcome> {
    let mut work = Work::new(ctx, mapping, Mode::Again);
    work.intact = intact;
    run(work)
}

/// Makes the mapping true for the first time, as a step of a section: nothing of what is displaced is
/// removed. It stays in a private folder.
///
/// # Errors
/// As [`realise_opened`].
pub(crate) fn step(ctx: &mut Ctx<'_>, mapping: &Mapping) -> Result<Outcome> {
    let mut work = Work::new(ctx, mapping, Mode::First);
    work.purpose = Purpose::Step;
    run(work)
}

/// Makes the mapping true that takes a section back. What is to be put back is looked for in all private
/// folders by what it is; attributes are set whatever they are now; nothing of what is displaced is removed.
///
/// # Errors
/// As [`realise_opened`].
pub(crate) fn roll_back(ctx: &mut Ctx<'_>, mapping: &Mapping) -> Result<Outcome> {
    let mut work = Work::new(ctx, mapping, Mode::Again);
    work.purpose = Purpose::Back;
    run(work)
}

fn run(mut work: Work<'_, '_, '_>) -> Result<Outcome> {
    work.run().map_err(|e| e.with_state(DiskState::Committed))?;
    Ok(work.out)
}

impl Work<'_, '_, '_> {
    fn run(&mut self) -> Result<()> {
        self.open_places()?;
        if self.mode == Mode::Again {
            self.know_half_written()?;
            self.undo_displaced()?;
            self.mend()?;
        }
        if self.purpose == Purpose::Back {
            self.open_up_changed()?;
        }
        self.place_all()?;
        self.retire_all()?;
        self.change_all()?;
        self.sync_each()?;
        if self.purpose == Purpose::Commit {
            self.drop_all()?;
        }
        self.settle_kept()
    }
}

#[cold]
fn fail(call: &'static str, errno: Errno, path: &[u8]) -> Error {
    Error::new(OPERATION, call, errno)
        .with_path(OsStr::from_bytes(path))
        .with_state(DiskState::Committed)
}
