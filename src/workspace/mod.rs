//! Transactions over many files and folders, on plain files: all of it, or nothing, after any crash.
//!
//! A [`Transaction`] collects changes, checks its conditions under claims, prepares every new file under a
//! private name, and commits with one record in a log: from that record on it is finished whatever
//! happens, by this process or by the next one that opens the workspace. Before it nothing is visible.
//!
//! ```
//! use steadfast::{Root, workspace::Workspace};
//! # let dir = tempfile::tempdir()?;
//! # std::fs::write(dir.path().join("list"), "one\n")?;
//! let root = Root::open(dir.path())?;
//! let workspace = Workspace::open(&root)?;
//! let mut tx = workspace.begin();
//! tx.expect_absent("two"); // Or nothing happens.
//! tx.write("two", "second\n")?;
//! tx.append("list", "two\n")?;
//! tx.rename("list", "index").symlink("index", "list");
//! assert_eq!(tx.read("index")?, b"one\ntwo\n");
//! tx.commit()?;
//! assert_eq!(std::fs::read(dir.path().join("list"))?, b"one\ntwo\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Section`] is for what cannot be collected first: its changes, and those of other programs, are
//! visible at once, and are taken back unless it commits.
//!
//! # What it promises
//! - **All or nothing**, for everybody who takes claims, and after any crash. A reader without claims
//!   sees the names change one after the other, each in one step.
//! - **Durable.** Once [`Transaction::commit`] has returned `Ok` a power cut does not take it back:
//!   opening the workspace puts in place what is missing. [`Workspace::settle`] makes that so for those
//!   who read the tree without opening it.
//! - **Nothing of anybody else's is lost.** What somebody without claims has changed meanwhile stays as
//!   it is, ours is kept beside, and the path is closed until [`Workspace::resolve`].
//! - **No waiting for the dead.** A killed process's claims are free at once, and who comes next finishes
//!   its work; nobody takes over from one that lives, however slow it is.
//! - **Honest errors.** [`Error::disk_state`](crate::Error::disk_state) tells on which side of the record
//!   an error was: `Unchanged`, `Committed`, or `Indeterminate`.
//!
//! # What it needs
//! Open-file-description locks (Linux 3.15) that are the kernel's own, and inode numbers that stay over a
//! remount: ext4, xfs, btrfs, tmpfs (where nothing survives a power cut), and overlayfs (where folders of
//! a lower layer cannot be moved). All that changes is on the root's own mount. Without `RENAME_EXCHANGE`
//! (3.15) a name that is replaced is missing for a moment, and without `RENAME_NOREPLACE` (3.15) a file
//! has two names for a moment; recovery makes both good. Before Linux 6.8, and without procfs, recovery
//! looks at more than it had to.
//!
//! Limits, costs, and how it works: `docs/transactions.md`. The bytes: `docs/workspace-state.md` and
//! `docs/workspace-format.md`. For a person with a damaged one: `docs/recovery.md`.

mod abandoned;
mod attributes;
#[cfg(test)]
mod child;
mod commit;
mod compose;
mod conflict;
mod core;
mod ctx;
mod decode;
mod displaced;
mod draft;
mod encode;
mod folders;
mod format;
mod give_up;
mod identity;
mod incarnation;
mod ledger;
mod mapping;
mod open_files;
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
