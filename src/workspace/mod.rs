//! Transactions over many files and folders, on plain files: all of it, or nothing, after any crash.
//!
//! A transaction collects changes, checks its conditions under claims, prepares every new file under a
//! private name, and commits with one record in a log: from that record on it is finished whatever
//! happens, by this process or by the next one that opens the workspace. Before it nothing is visible.

mod abandoned;
mod attributes;
#[cfg(test)]
mod child;
mod codec;
mod commit;
mod compose;
mod conflict;
mod core;
mod ctx;
mod draft;
mod format;
mod give_up;
mod identity;
mod incarnation;
mod ledger;
mod mapping;
mod operator;
mod options;
mod place;
mod plan;
mod private;
mod realise;
mod record;
mod recover;
mod section;
mod setup;
mod stage;
mod state;
#[cfg(test)]
mod testbed;
mod transaction;
mod view;
mod whereabouts;
mod writers;

pub use self::core::Workspace;
pub use attributes::Attributes;
pub use commit::Receipt;
pub use conflict::{Conflict, ConflictId, Ours, Resolution, Theirs};
pub use operator::*;
pub use options::WorkspaceOptions;
pub use plan::{Plan, Step, StepKind, Thing};
pub use recover::Recovery;
pub use section::{
    Authority, Captured, Evidence, Hold, HookResult, OpenSection, Section, SectionReport, Seen,
    StillOpen,
};
pub use transaction::{Savepoint, Transaction};
