//! Making a mapping true: the one executor of commit, recovery and rollback.
//!
//! It looks where everything is and goes on from there, so that it may be stopped anywhere and run again, by
//! anybody, as often as need be.

#![allow(dead_code)] // Until the layer above calls it.

use super::ctx::Ctx;
use super::identity::Ident;
use super::mapping::{Mapping, SlotIx};
use crate::{DiskState, Error, ErrorKind, Name, Result};

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
}

impl Outcome {
    pub(crate) fn of(conflicts: Vec<Found>) -> Self {
        Self { conflicts }
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
    /// The name in `kept/` of what the transaction wanted there, if that is anything and still exists.
    pub(crate) kept: Option<Name>,
}

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Slot(SlotIx),
    /// Index of a change.
    Change(usize),
}

/// Makes the mapping true.
///
/// # Errors
/// Of the calls that it makes, with [`DiskState::Committed`]: it can be run again, with [`Mode::Again`].
pub(crate) fn realise(_ctx: &mut Ctx<'_>, _mapping: &Mapping, _mode: Mode) -> Result<Outcome> {
    Err(
        Error::of_kind("realise transaction", ErrorKind::Unsupported)
            .with_state(DiskState::Committed),
    )
}
