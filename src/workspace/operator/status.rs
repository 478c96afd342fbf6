//! What is open in a workspace, and what is wrong with it. Only read, beside whoever is at work.

use super::look::{LogSeen, Look, log_path, names_in};
use crate::journal::{Damage, End, Entry};
use crate::lease::{LeaseInfo, Leases};
use crate::root::Dir;
use crate::sys::{self, AtFlags};
use crate::tree::{Event, Walk};
use crate::workspace::conflict::Conflict;
use crate::workspace::identity::Stamp;
use crate::workspace::incarnation::Incarnation;
use crate::workspace::ledger::{DeadMark, MarkKind, Peek};
use crate::workspace::record::{
    self, COMMIT, COMMIT_IN_FILE, Commit, PHASE, SECTION_BEGIN, SECTION_END,
};
use crate::workspace::section::{Story, is_of_section};
use crate::workspace::state::Sub;
use crate::workspace::{abandoned, state, writers};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const OP: &str = "read status of workspace";

/// What is open in a workspace, and what is wrong with it: [`status`].
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The random id of the workspace; `None`: its `format` cannot be read.
    pub id: Option<[u8; 16]>,
    /// The version of its format; `None`: it cannot be read, or is a later one.
    pub version: Option<u32>,
    /// The state folder was copied from elsewhere.
    pub copy: bool,
    /// Work with this number or a lower one is durable in place; `None`: the ledger is damaged.
    pub horizon: Option<u64>,
    /// The last number that was given out; `None`: the ledger is damaged.
    pub last: Option<u64>,
    /// Whatever stands in the way of opening or using it. Empty: nothing.
    pub problems: Vec<Problem>,
    /// The logs.
    pub writers: Vec<WriterStatus>,
    /// Transactions that are not known to be durable in place, in the order of their numbers.
    pub transactions: Vec<TransactionStatus>,
    /// Protected sections that are not over, in the order of their numbers.
    pub sections: Vec<SectionStatus>,
    /// Conflicts that nobody has resolved.
    pub conflicts: Vec<Conflict>,
    /// The private folders.
    pub private: Vec<FolderStatus>,
    /// The leases, if any was ever taken in the state folder.
    pub leases: Vec<LeaseInfo>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Problem {
    /// Of what sort.
    pub kind: ErrorKind,
    /// What it is about, beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub path: PathBuf,
    /// The problem in words.
    pub what: String,
}

/// One log and its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WriterStatus {
    /// The log's index.
    pub index: u32,
    /// Somebody has it open.
    pub live: bool,
    /// How many records it holds that are not released.
    pub records: u64,
    /// The length of its files in bytes.
    pub bytes: u64,
    /// What is damaged, with segment and offset.
    pub damage: Option<Damage>,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum TransactionState {
    /// A living process is about to commit it.
    InProgress,
    /// Committed; a living process is putting it in place.
    Pending,
    /// Committed and in place; the log keeps it until the next checkpoint.
    Done,
    /// Committed by a process that died: the next open of the workspace finishes it.
    Dead,
    /// Its process died before it was committed: nothing of it will be seen.
    Lost,
    /// Somebody has given up what is not in place.
    Abandoned,
}

/// A transaction that is not known to be durable in place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TransactionStatus {
    /// Its number.
    pub number: u64,
    /// The caller's text for people.
    pub label: String,
    /// When it was committed; `None`: it is not, or its record cannot be read.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serial::time_option")
    )]
    pub time: Option<SystemTime>,
    /// How far it is.
    pub state: TransactionState,
    /// The index of its log.
    pub writer: u32,
    /// The paths it is about, beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub paths: Vec<PathBuf>,
}

/// A protected section that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SectionStatus {
    /// Its number.
    pub number: u64,
    /// The caller's text for people.
    pub label: String,
    /// When it began, if that can be read.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serial::time_option")
    )]
    pub time: Option<SystemTime>,
    /// The last phase that it reached.
    pub phase: Option<String>,
    /// Its process lives; if not, the next open of the workspace takes it back.
    pub live: bool,
    /// The index of its log.
    pub writer: u32,
}

/// What is in a private folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FolderStatus {
    /// The folder beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub path: PathBuf,
    /// Things that somebody alive, a record or a conflict needs.
    pub owned: u64,
    /// Length of the files among and in them, in bytes.
    pub owned_bytes: u64,
    /// Things of dead processes that nobody needs: the next recovery removes them.
    pub litter: u64,
    /// Length of the files among and in them, in bytes.
    pub litter_bytes: u64,
    /// Things that a repair has set aside, and others that are nobody's: nothing removes them unasked.
    pub others: u64,
}

/// Looks what is open in the workspace of `root`, and what is wrong with it.
///
/// Nothing is changed and no lock is taken, so that it works beside living writers, with damaged files, with
/// a copy of a workspace, and on a file system that is mounted read-only. It needs the right to read the
/// state folder, which only its owner has. Beside living writers the answer is that of several moments during
/// the call.
///
/// # Errors
/// [`ErrorKind::NotFound`]: there is no workspace. As open(2), getdents(2) and read(2) of the state folder
/// itself. Damage is no error here, but part of the answer.
pub fn status(root: &Root) -> Result<Status> {
    let look = Look::open(root, OP)?;
    let mut problems = Vec::new();
    let format = match look.format() {
        Ok(Some(format)) => Some(format),
        Ok(None) => {
            let what = "it is missing: the workspace was never finished, or is damaged";
            problems.push(Problem::new(ErrorKind::Corrupt, in_state("format"), what));
            None
        }
        Err(e) => {
            problems.push(Problem::of(&e, &in_state("format")).at(in_state("format")));
            None
        }
    };
    let ledger = look.ledger().unwrap_or_else(|e| {
        problems.push(Problem::of(&e, &in_state("ledger")));
        Peek::default()
    });
    if let Some(what) = ledger.damage() {
        problems.push(Problem::new(ErrorKind::Corrupt, in_state("ledger"), what));
    }
    for sub in Sub::ALL {
        match look.sub(sub) {
            Ok(Some(_)) => {}
            Ok(None) => problems.push(Problem::new(
                ErrorKind::Corrupt,
                sub.path().into(),
                "the folder is missing",
            )),
            Err(e) => problems.push(Problem::of(&e, Path::new(&sub.path()))),
        }
    }
    let logs = look.logs().unwrap_or_else(|e| {
        problems.push(Problem::of(&e, Path::new(&Sub::Logs.path())));
        Vec::new()
    });
    let (conflicts, damaged) = look.conflicts().unwrap_or_else(|e| {
        problems.push(Problem::of(&e, Path::new(&Sub::Conflicts.path())));
        Default::default()
    });
    for (name, error) in damaged {
        let path = Path::new(&Sub::Conflicts.path()).join(name);
        problems.push(Problem::of(&error, &path));
    }
    let mut given_up = BTreeSet::new();
    for (name, read) in look.abandoned()? {
        match read {
            Ok(what) => drop(given_up.insert(what.number)),
            Err(e) => problems.push(Problem::of(&e, &Path::new(&abandoned::shown()).join(name))),
        }
    }
    let mut open = Open {
        look: &look,
        ledger: &ledger,
        given_up,
        transactions: BTreeMap::new(),
        sections: BTreeMap::new(),
        problems: Vec::new(),
    };
    let writers = logs.iter().map(|log| open.log(log)).collect();
    open.marks();
    let (transactions, sections) = (open.transactions, open.sections);
    problems.append(&mut open.problems);
    let private = private(&look, &logs, &ledger, &conflicts, &mut problems);
    Ok(Status {
        id: format.map(|f| f.id),
        version: format.map(|_| crate::workspace::format::VERSION),
        copy: format.is_some_and(|f| f.folder != look.folder),
        horizon: ledger.horizon,
        last: ledger.last,
        problems,
        writers,
        transactions: transactions.into_values().collect(),
        sections: sections.into_values().collect(),
        conflicts,
        private,
        leases: leases(&look)?,
    })
}

impl Problem {
    fn new(kind: ErrorKind, path: PathBuf, what: impl Into<String>) -> Self {
        Self {
            kind,
            path,
            what: what.into(),
        }
    }

    /// Of an error; `path` is what it is about if the error does not say.
    pub(super) fn of(error: &Error, path: &Path) -> Self {
        Self::new(
            error.kind(),
            error.path().unwrap_or(path).to_owned(),
            error.to_string(),
        )
    }

    fn at(mut self, path: PathBuf) -> Self {
        self.path = path;
        self
    }
}

/// What is collected from the logs.
struct Open<'a> {
    look: &'a Look,
    ledger: &'a Peek,
    given_up: BTreeSet<u64>,
    transactions: BTreeMap<u64, TransactionStatus>,
    sections: BTreeMap<u64, SectionStatus>,
    problems: Vec<Problem>,
}

impl Open<'_> {
    fn log(&mut self, seen: &LogSeen) -> WriterStatus {
        let mut out = WriterStatus {
            index: seen.index,
            live: false,
            records: 0,
            bytes: 0,
            damage: None,
        };
        let log = match &seen.log {
            Ok(log) => log,
            Err(e) => {
                self.problems.push(Problem::of(e, &log_path(seen.index)));
                return out;
            }
        };
        out.live = log.live;
        out.records = log.records.len() as u64;
        out.bytes = log.segments.iter().map(|s| s.len).sum();
        if let End::Corrupt(damage) = &log.end {
            let path = log_path(seen.index);
            let problem = Problem::new(ErrorKind::Corrupt, path, damage.to_string());
            self.problems.push(problem);
            out.damage = Some(damage.clone());
        }
        let horizon = self.ledger.horizon.unwrap_or(0);
        for entry in &log.records {
            match entry.kind {
                COMMIT | COMMIT_IN_FILE if entry.transaction > horizon => {
                    self.commit(seen.index, log.live, entry);
                }
                SECTION_BEGIN | PHASE | SECTION_END => self.section(seen.index, log.live, entry),
                _ if entry.transaction > horizon => {
                    if let Err(e) = self.look.commit(entry) {
                        self.unreadable(seen.index, entry, &e);
                    }
                }
                _ => {}
            }
        }
        for (number, story) in Story::each(&log.records) {
            if self.given_up.contains(&number) {
                self.sections.remove(&number);
                continue;
            }
            // A living one removes its files when it is over.
            let read = story.and_then(|story| match log.live {
                true => Ok(()),
                false => self.look.steps(story),
            });
            if let Err(e) = read {
                let problem = Problem::of(&e, &log_path(seen.index)).at(log_path(seen.index));
                self.problems.push(problem);
            }
        }
        out
    }

    fn unreadable(&mut self, writer: u32, entry: &Entry, error: &Error) {
        let (seq, number) = (entry.seq, entry.transaction);
        let what = format!("record {seq}, transaction {number}: {error}");
        let problem = Problem::new(error.kind(), log_path(writer), what);
        self.problems.push(problem);
    }

    fn commit(&mut self, writer: u32, live: bool, entry: &Entry) {
        let number = entry.transaction;
        let commit = match self.look.commit(entry) {
            Ok(commit) => commit,
            // Its file is removed when it is released, which may just have happened.
            Err(e) if live && e.kind() == ErrorKind::NotFound => None,
            Err(_) if self.given_up.contains(&number) => None,
            Err(e) => {
                self.unreadable(writer, entry, &e);
                None
            }
        };
        let incarnation = commit.as_ref().map(|c| c.incarnation);
        let same = incarnation
            .is_some_and(|parts| Incarnation::from_parts(parts).is_same(&self.look.incarnation));
        let mark = self.mark(number);
        let state = match (live, mark) {
            _ if self.given_up.contains(&number) => TransactionState::Abandoned,
            (_, Some(true)) => TransactionState::Pending,
            (_, Some(false)) => TransactionState::Dead,
            (false, None) if !same => TransactionState::Dead,
            _ => TransactionState::Done,
        };
        let status = TransactionStatus {
            number,
            label: commit.as_ref().map_or(String::new(), |c| text(&c.label)),
            time: commit.as_ref().and_then(|c| time(c.time)),
            state,
            writer,
            paths: commit.as_ref().map_or(Vec::new(), paths),
        };
        self.transactions.insert(number, status);
    }

    /// Whether a transaction has a mark, and whether somebody holds it.
    fn mark(&self, number: u64) -> Option<bool> {
        let mut marks = self.ledger.marks.iter();
        let own = marks.find(|(m, _)| m.number == number && m.kind != MarkKind::Unknown);
        let unknown = |(m, live): &&(DeadMark, bool)| m.kind == MarkKind::Unknown && !*live;
        own.or_else(|| self.ledger.marks.iter().find(unknown))
            .map(|(_, live)| *live)
    }

    fn section(&mut self, writer: u32, live: bool, entry: &Entry) {
        let number = entry.transaction;
        if entry.kind == SECTION_END {
            self.sections.remove(&number);
            return;
        }
        let section = self.sections.entry(number).or_insert(SectionStatus {
            number,
            label: String::new(),
            time: None,
            phase: None,
            live,
            writer,
        });
        if entry.kind == PHASE {
            section.phase = phase(&entry.payload).or(section.phase.take());
        } else if let Some((at, label)) = begin(&entry.payload) {
            section.label = text(&label);
            section.time = time(at);
        }
    }

    /// Transactions that have a mark and no record yet.
    fn marks(&mut self) {
        for (mark, live) in &self.ledger.marks {
            let known = self.transactions.contains_key(&mark.number)
                || self.sections.contains_key(&mark.number);
            if known || mark.kind != MarkKind::Commit {
                continue;
            }
            let status = TransactionStatus {
                number: mark.number,
                label: String::new(),
                time: None,
                state: match live {
                    true => TransactionState::InProgress,
                    false => TransactionState::Lost,
                },
                writer: mark.log,
                paths: Vec::new(),
            };
            self.transactions.insert(mark.number, status);
        }
    }
}

/// Time and label in the record with which a section begins; more may follow.
pub(super) fn begin(payload: &[u8]) -> Option<(Stamp, Vec<u8>)> {
    record::decode_start(payload, |r| {
        r.u64()?;
        Ok((r.stamp()?, r.bytes()?))
    })
}

/// The name in the record of a phase.
pub(super) fn phase(payload: &[u8]) -> Option<String> {
    record::decode_start(payload, |r| {
        r.u64()?;
        r.bytes()
    })
    .map(|name| text(&name))
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `None`: the record says that it does not know.
pub(super) fn time((seconds, nanos): Stamp) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|s| *s > 0)?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// What a transaction is about, each path once.
pub(super) fn paths(commit: &Commit) -> Vec<PathBuf> {
    let slots = commit.mapping.slots.iter();
    let all: BTreeSet<PathBuf> = slots.map(|slot| path(&slot.path)).collect();
    all.into_iter().collect()
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn in_state(name: &str) -> PathBuf {
    Path::new(state::shown()).join(name)
}

fn leases(look: &Look) -> Result<Vec<LeaseInfo>> {
    // Opening them makes the folder and sweeps it: only where it is there.
    match look.folder(c"leases")? {
        Some(_) => Leases::list_in(&look.dir),
        None => Ok(Vec::new()),
    }
}

/// Logs whose private things somebody needs.
pub(super) fn needed_logs(logs: &[LogSeen], ledger: &Peek) -> BTreeSet<u32> {
    let horizon = ledger.horizon.unwrap_or(0);
    let open = |e: &Entry| e.transaction == 0 || e.transaction > horizon || is_of_section(e);
    logs.iter()
        .filter(|seen| match &seen.log {
            Ok(log) => {
                let damaged = matches!(log.end, End::Corrupt(_));
                log.live || damaged || log.records.iter().any(open)
            }
            Err(_) => true,
        })
        .map(|seen| seen.index)
        .collect()
}

fn private(
    look: &Look,
    logs: &[LogSeen],
    ledger: &Peek,
    conflicts: &[Conflict],
    problems: &mut Vec<Problem>,
) -> Vec<FolderStatus> {
    let needed = needed_logs(logs, ledger);
    let kept: BTreeSet<&Name> = conflicts.iter().filter_map(Conflict::kept_name).collect();
    let mut out = Vec::new();
    for sub in [Sub::Staged, Sub::Kept, Sub::Retired] {
        let mut status = FolderStatus {
            path: sub.path().into(),
            ..FolderStatus::default()
        };
        let counted = look.sub(sub).and_then(|dir| match dir {
            Some(dir) => count(&dir, &needed, &kept, &mut status),
            None => Ok(()),
        });
        if let Err(e) = counted {
            problems.push(Problem::of(&e, Path::new(&sub.path())));
        }
        out.push(status);
    }
    out
}

fn count(
    dir: &Dir,
    needed: &BTreeSet<u32>,
    kept: &BTreeSet<&Name>,
    status: &mut FolderStatus,
) -> Result<()> {
    for name in names_in(dir, OP)? {
        let Some(owner) = writers::owner_of(&name) else {
            status.others += 1;
            continue;
        };
        let bytes = bytes(dir, &name);
        if kept.contains(&name) || needed.contains(&owner) {
            status.owned += 1;
            status.owned_bytes += bytes;
        } else {
            status.litter += 1;
            status.litter_bytes += bytes;
        }
    }
    Ok(())
}

/// Length of a file, or of all files in a directory, as far as they can be seen.
pub(super) fn bytes(dir: &Dir, name: &Name) -> u64 {
    match sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(meta) if meta.is_file() => return meta.len(),
        Ok(meta) if meta.is_dir() => {}
        _ => return 0,
    }
    let Ok(mut walk) = Walk::new(dir, name) else {
        return 0;
    };
    let mut sum = 0;
    // What cannot be read does not count.
    while let Ok(Some(event)) = walk.next() {
        if let Event::Other(entry) = event
            && let Ok(Some(meta)) = entry.metadata()
            && meta.is_file()
        {
            sum += meta.len();
        }
    }
    sum
}
