//! One transaction or section: what it is about, what is there now, and what recovery would do.

use super::look::Look;
use super::status::{self, SectionStatus, TransactionState, TransactionStatus, path};
use super::words;
use crate::journal::Entry;
use crate::workspace::abandoned::Abandonment;
use crate::workspace::mapping::Mapping;
use crate::workspace::record::{COMMIT, COMMIT_IN_FILE, Commit};
use crate::workspace::state::Sub;
use crate::workspace::whereabouts::{Folders, Progress, Whereabouts};
use crate::{Error, ErrorKind, Result, Root};
use std::path::PathBuf;

const OP: &str = "explain transaction";

/// What a transaction or section is about: [`explain`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// Its number.
    pub number: u64,
    /// The transaction, if it is one.
    pub transaction: Option<TransactionStatus>,
    /// The section, if it is one.
    pub section: Option<SectionStatus>,
    /// Each name and each change, with what is there now.
    pub steps: Vec<ExplainedStep>,
    /// What becomes of it, in one sentence.
    pub outlook: String,
}

/// One name that a transaction is about, or one change of a thing that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExplainedStep {
    /// The path beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub path: PathBuf,
    /// What the transaction does there, in words.
    pub what: String,
    /// What is there now.
    pub now: Now,
    /// What recovery would do there, in words.
    pub would: String,
}

/// What is at a name now, seen from a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Now {
    /// What the transaction wants: it is done.
    After,
    /// What was there before it: it is to be done.
    Before,
    /// Something on its way from the one to the other.
    Between,
    /// Something else: somebody who takes no claims has changed it.
    Theirs,
    /// It cannot be told: the directory is gone, or closed to this process.
    Unknown,
    /// Whatever is there: somebody has given this up.
    GivenUp,
}

/// Looks what the transaction or section with this number is about, what is there now, and what recovery
/// would do.
///
/// As [`status`](super::status), it changes nothing and takes no lock.
///
/// # Errors
/// [`ErrorKind::NotFound`]: no log has it: it is settled, or never was. [`ErrorKind::Corrupt`]: its record
/// cannot be read. As [`status`](super::status).
pub fn explain(root: &Root, number: u64) -> Result<Explanation> {
    let look = Look::open(root, OP)?;
    let seen = status::status(root)?;
    let transaction = seen.transactions.into_iter().find(|t| t.number == number);
    let section = seen.sections.into_iter().find(|s| s.number == number);
    if transaction.is_none() && section.is_none() {
        return Err(not_found(OP, number));
    }
    let given_up = look.abandoned()?.into_iter().find_map(|(_, read)| {
        let what = read.ok()?;
        (what.number == number).then_some(what)
    });
    let unread = given_up.as_ref().is_some_and(|a| a.unread);
    let commit = match find(&look, number)? {
        Some(entry) if !unread => look.commit(&entry)?,
        _ => None,
    };
    let mut steps = Vec::new();
    if let Some(commit) = &commit {
        let folders = folders(&look)?;
        let whereabouts = Whereabouts::new(root, &folders, &commit.mapping);
        steps = describe(&whereabouts, commit, given_up.as_ref());
    }
    Ok(Explanation {
        number,
        outlook: outlook(transaction.as_ref(), section.as_ref(), given_up.as_ref()),
        transaction,
        section,
        steps,
    })
}

pub(super) fn not_found(op: &'static str, number: u64) -> Error {
    Error::of_kind(op, ErrorKind::NotFound)
        .with_detail(format!("no log has a transaction or section {number}"))
        .with_advice("it is settled, or never was; status lists what is not settled")
}

/// The record that commits a transaction.
fn find(look: &Look, number: u64) -> Result<Option<Entry>> {
    for seen in look.logs()? {
        let Ok(log) = seen.log else { continue };
        let own = |e: &Entry| e.transaction == number && matches!(e.kind, COMMIT | COMMIT_IN_FILE);
        if let Some(entry) = log.records.into_iter().find(own) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

pub(super) fn folders(look: &Look) -> Result<Folders> {
    Ok(Folders {
        staged: look.sub(Sub::Staged)?,
        kept: look.sub(Sub::Kept)?,
        retired: look.sub(Sub::Retired)?,
        keys: look.sub(Sub::Keys)?,
    })
}

fn describe(
    seen: &Whereabouts<'_>,
    commit: &Commit,
    given_up: Option<&Abandonment>,
) -> Vec<ExplainedStep> {
    let mapping: &Mapping = &commit.mapping;
    let mut out = Vec::new();
    for (ix, slot) in mapping.slots.iter().enumerate() {
        if slot.is_as_before() {
            continue;
        }
        let gone = given_up.is_some_and(|a| a.slots.contains(&ix));
        out.push(step(
            &slot.path,
            words::slot(mapping, slot),
            seen.progress(ix),
            gone,
        ));
    }
    for (ix, change) in mapping.changes.iter().enumerate() {
        let gone = given_up.is_some_and(|a| a.changes.contains(&ix));
        let at = words::changed_path(mapping, change);
        let what = words::change(mapping, change);
        out.push(step(at, what, seen.change(ix), gone));
    }
    out
}

fn step(at: &[u8], what: String, progress: Progress, given_up: bool) -> ExplainedStep {
    let (now, would) = match progress {
        _ if given_up => (Now::GivenUp, "nothing: it was given up".to_owned()),
        Progress::After => (Now::After, "nothing: it is done".to_owned()),
        Progress::Before => (Now::Before, "do it".to_owned()),
        Progress::Between => (Now::Between, "go on with it".to_owned()),
        Progress::Theirs => (
            Now::Theirs,
            "leave what is there, keep ours beside, and report a conflict".to_owned(),
        ),
        Progress::Unknown(e) => (
            Now::Unknown,
            format!("try it; what is there cannot be told now ({e})"),
        ),
    };
    ExplainedStep {
        path: path(at),
        what,
        now,
        would,
    }
}

fn outlook(
    transaction: Option<&TransactionStatus>,
    section: Option<&SectionStatus>,
    given_up: Option<&Abandonment>,
) -> String {
    if given_up.is_some_and(|a| a.unread) {
        return "its record cannot be read, and it was given up".to_owned();
    }
    let text = match (transaction.map(|t| t.state), section) {
        (Some(TransactionState::InProgress), _) => "its process is about to commit it",
        (Some(TransactionState::Pending), _) => "its process lives and is putting it in place",
        (Some(TransactionState::Done), _) => {
            "it is in place; the log keeps it until the next checkpoint"
        }
        (Some(TransactionState::Dead), _) => {
            "its process has died: the next open of the workspace finishes it"
        }
        (Some(TransactionState::Lost), _) => {
            "its process died before it was committed: nothing of it will be seen"
        }
        (Some(TransactionState::Abandoned), _) => {
            "what is not in place was given up; the rest stays done"
        }
        (None, Some(section)) if section.live => "its process lives: it is under way",
        (None, _) => "its process has died: the next open of the workspace takes it back",
    };
    text.to_owned()
}
