//! What an operation under test is, what it may leave, and what it answers.

use std::io;
use std::path::{Path, PathBuf};
use steadfast::sys::hook;
use steadfast::{DiskState, Error, ErrorKind, Root};

/// What an operation answered.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) state: DiskState,
    pub(crate) unsupported: bool,
    pub(crate) left: Vec<PathBuf>,
    pub(crate) text: String,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self {
            state: error.disk_state(),
            unsupported: error.kind() == ErrorKind::Unsupported,
            left: error.left_behind().to_vec(),
            text: error.to_string(),
        }
    }
}

impl From<io::Error> for Fault {
    /// Of a write into a guard, which is dropped then.
    fn from(error: io::Error) -> Self {
        Self {
            state: DiskState::Unchanged,
            unsupported: false,
            left: Vec::new(),
            text: error.to_string(),
        }
    }
}

/// What a success says.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The temporaries that it left.
    pub(crate) left: Vec<PathBuf>,
    /// The old file's access list could not be read, and so the group's rights were cut.
    pub(crate) narrowed: bool,
}

pub(crate) type Outcome = Result<Done, Fault>;

/// What an operation may leave that others may not.
#[derive(Clone, Copy, Default)]
pub(crate) struct Traits {
    /// Something replaced is to be kept: it must be found somewhere whatever happens.
    pub(crate) keep: bool,
    /// Directories on the way are made, and stay.
    pub(crate) parents: bool,
    /// Each name for itself: an error in the middle may leave some old and some new.
    pub(crate) partial: bool,
    /// Impossible without `RENAME_EXCHANGE`.
    pub(crate) exchange: bool,
    /// It makes a folder at a free name, which without `RENAME_NOREPLACE` is an empty one for a moment.
    pub(crate) claims: bool,
    /// Temporaries are there before, and may still be there after an error.
    pub(crate) sweeps: bool,
    /// What it moves comes from a directory below.
    pub(crate) nested: bool,
}

pub(crate) struct Op {
    pub(crate) name: &'static str,
    pub(crate) before: fn(&Path),
    pub(crate) run: fn(&Root) -> Outcome,
    /// The topmost names that it publishes.
    pub(crate) targets: &'static [&'static str],
    pub(crate) traits: Traits,
}

impl Op {
    pub(crate) fn possible(&self) -> bool {
        !(self.traits.exchange && hook::denied_by_env("renameat2(RENAME_EXCHANGE)"))
    }
}

pub(crate) const PLAIN: Traits = Traits {
    keep: false,
    parents: false,
    partial: false,
    exchange: false,
    claims: false,
    sweeps: false,
    nested: false,
};
pub(crate) const FOLDER_NEW: Traits = Traits {
    claims: true,
    ..PLAIN
};
pub(crate) const EXCHANGE: Traits = Traits {
    exchange: true,
    ..PLAIN
};
pub(crate) const KEEP: Traits = Traits {
    keep: true,
    claims: true,
    ..EXCHANGE
};
pub(crate) const PARTIAL: Traits = Traits {
    partial: true,
    ..PLAIN
};
