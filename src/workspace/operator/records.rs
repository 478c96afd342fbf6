//! The records of the logs, in words.

use super::look::{LogSeen, Look};
use super::status::{begin, paths, phase, text, time};
use super::words;
use crate::journal::{Damage, End, Entry};
use crate::workspace::record::{COMMIT, COMMIT_IN_FILE, PHASE, SECTION_BEGIN};
use crate::{Error, ErrorKind, Result, Root};
use std::path::PathBuf;
use std::time::SystemTime;

const OP: &str = "read log of workspace";

/// The records of one log that are not released.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LogRecords {
    /// The log's index.
    pub writer: u32,
    /// Somebody has it open.
    pub live: bool,
    /// In order; up to the damage, if there is any.
    pub records: Vec<LogRecord>,
    /// What is damaged, with segment and offset.
    pub damage: Option<Damage>,
    /// Why nothing at all could be read.
    pub error: Option<Error>,
}

/// One record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LogRecord {
    /// Its number in its log.
    pub seq: u64,
    /// Its kind: `commit`, `section-begin` and so on; `unknown`: of a later version.
    pub kind: &'static str,
    /// The number of its transaction or section.
    pub number: u64,
    /// When it was written, if it says so.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serial::time_option")
    )]
    pub time: Option<SystemTime>,
    /// The caller's text for people, if it has any.
    pub label: String,
    /// What it says: the steps of a transaction, the name of a phase; or why it cannot be read.
    pub summary: Vec<String>,
    /// The paths it is about, beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub paths: Vec<PathBuf>,
    /// It cannot be read.
    pub damaged: bool,
}

/// Reads the records of one log of the workspace of `root`, or of all, in the order of their indices. What is
/// released is not shown.
///
/// As [`status`](super::status), it changes nothing and takes no lock.
///
/// # Errors
/// [`ErrorKind::NotFound`]: there is no workspace, or no log with this index. As open(2) and getdents(2) of
/// the folder of logs. Damage is part of the answer.
pub fn records(root: &Root, index: Option<u32>) -> Result<Vec<LogRecords>> {
    let look = Look::open(root, OP)?;
    let wanted = |seen: &LogSeen| index.is_none_or(|index| seen.index == index);
    let logs: Vec<LogSeen> = look.logs()?.into_iter().filter(wanted).collect();
    if let (Some(index), true) = (index, logs.is_empty()) {
        return Err(Error::of_kind(OP, ErrorKind::NotFound)
            .with_path(super::look::log_path(index))
            .with_advice("status lists the logs that there are"));
    }
    Ok(logs.into_iter().map(|seen| describe(&look, seen)).collect())
}

fn describe(look: &Look, seen: LogSeen) -> LogRecords {
    let mut out = LogRecords {
        writer: seen.index,
        live: false,
        records: Vec::new(),
        damage: None,
        error: None,
    };
    match seen.log {
        Err(e) => out.error = Some(e),
        Ok(log) => {
            out.live = log.live;
            out.records = log.records.iter().map(|e| record(look, e)).collect();
            if let End::Corrupt(damage) = log.end {
                out.damage = Some(damage);
            }
        }
    }
    out
}

fn record(look: &Look, entry: &Entry) -> LogRecord {
    let mut out = LogRecord {
        seq: entry.seq,
        kind: words::kind(entry.kind),
        number: entry.transaction,
        time: None,
        label: String::new(),
        summary: Vec::new(),
        paths: Vec::new(),
        damaged: false,
    };
    match entry.kind {
        COMMIT | COMMIT_IN_FILE => match look.commit(entry) {
            Ok(Some(commit)) => {
                let mapping = &commit.mapping;
                out.time = time(commit.time);
                out.label = text(&commit.label);
                out.paths = paths(&commit);
                let slots = mapping.slots.iter().filter(|s| !s.is_as_before());
                out.summary = slots.map(|s| words::slot(mapping, s)).collect();
                let changes = mapping.changes.iter();
                out.summary
                    .extend(changes.map(|c| words::change(mapping, c)));
            }
            Ok(None) => {}
            Err(e) => {
                out.damaged = true;
                out.summary.push(e.to_string());
            }
        },
        SECTION_BEGIN => match begin(&entry.payload) {
            Some((at, label)) => {
                out.time = time(at);
                out.label = text(&label);
            }
            None => out.damaged = true,
        },
        PHASE => match phase(&entry.payload) {
            Some(name) => out.summary.push(name),
            None => out.damaged = true,
        },
        _ => {}
    }
    out
}
