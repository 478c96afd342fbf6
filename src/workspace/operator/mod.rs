//! What a person looks at and does when a workspace needs one: what is open and why, the log in words,
//! giving up what cannot be finished, repair of what is damaged, removal of what nobody needs.
//!
//! Nothing here is needed in ordinary life: opening a workspace recovers it.

mod abandon;
mod explain;
mod look;
mod prune;
mod records;
mod repair;
mod status;
mod text;
mod words;

pub use crate::workspace::abandoned::Abandon;
pub use abandon::{Abandoned, AbandonedStep, abandon};
pub use explain::{ExplainedStep, Explanation, Now, explain};
pub use prune::{PruneOptions, Pruned, prune};
pub use records::{LogRecord, LogRecords, records};
pub use repair::{RebuiltLedger, Repaired, RepairedLog, repair};
pub use status::{
    FolderStatus, Problem, SectionStatus, Status, TransactionState, TransactionStatus,
    WriterStatus, status,
};
