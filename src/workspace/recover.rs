//! Finishing what dead processes have committed, and the checkpoint that lets logs begin anew.
//!
//! A log without a holder belongs to nobody: whoever opens the workspace takes it, and finishes its
//! transactions. Those of all such logs are finished as one (`compose`), since after a power cut the names
//! of any of them may have been lost. Within one boot a transaction that has no mark in the ledger was done,
//! and is left alone.

use super::abandoned;
use super::compose::compose;
use super::conflict::{self, ConflictId};
use super::give_up;
use super::incarnation::Incarnation;
use super::ledger::{DeadMark, MarkKind, RecoveryLock};
use super::mapping::Object;
use super::options::WorkspaceOptions;
use super::realise::resume;
use super::record::{Commit, in_record};
use super::section::{self, OpenSection, SectionReport};
use super::state::{State, Sub};
use super::writers::{self, DeadLog, Writer};
use crate::journal::{Entry, Log, Recovered};
use crate::sys::{self, Errno};
use crate::tree::{self, RemoveOptions};
use crate::{Dir, Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const OP: &str = "recover workspace";
/// How long a process that dies takes until all its locks are free.
const DYING: Duration = Duration::from_secs(10);

/// What a recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use]
pub struct Recovery {
    finished: Vec<u64>,
    taken_back: Vec<u64>,
    abandoned: Vec<u64>,
    conflicts: Vec<ConflictId>,
    sections: Vec<SectionReport>,
    removed: u64,
}

impl Recovery {
    /// Numbers of the transactions that were finished: committed by a process that died before all of it was
    /// in place, or before that was known to be durable.
    #[must_use]
    pub fn finished(&self) -> &[u64] {
        &self.finished
    }

    /// Numbers of the protected sections that were taken back.
    #[must_use]
    pub fn taken_back(&self) -> &[u64] {
        &self.taken_back
    }

    /// What was found of protected sections: those that were taken back, those that had been decided, and
    /// those that could not be taken back and stay open.
    #[must_use]
    pub fn sections(&self) -> &[SectionReport] {
        &self.sections
    }

    pub(super) fn open_sections(&self) -> impl Iterator<Item = &OpenSection> {
        self.sections.iter().filter_map(SectionReport::still_open)
    }

    /// Numbers of the transactions of which somebody had given up a part
    /// ([`abandon`](super::operator::abandon)): what was not given up is done.
    #[must_use]
    pub fn abandoned(&self) -> &[u64] {
        &self.abandoned
    }

    /// Conflicts that were found.
    #[must_use]
    pub fn conflicts(&self) -> &[ConflictId] {
        &self.conflicts
    }

    /// How many private files and folders of dead processes were removed.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Whether it is the mark of a section that could not be taken back.
    fn is_open(&self, mark: &DeadMark) -> bool {
        let number = |open: &OpenSection| open.number() == mark.number;
        mark.kind == MarkKind::Section && self.open_sections().any(number)
    }

    /// There was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn also(mut self, finished: Vec<u64>) -> Self {
        self.finished.extend(finished);
        self
    }

    fn add(&mut self, other: Self) {
        self.finished.extend(other.finished);
        self.taken_back.extend(other.taken_back);
        self.abandoned.extend(other.abandoned);
        self.conflicts.extend(other.conflicts);
        for report in other.sections {
            // Of one that stays open, what was found last.
            self.sections
                .retain(|known| known.number() != report.number());
            self.sections.push(report);
        }
        self.removed += other.removed;
    }
}

/// What opening a workspace does first. Gives a log for the new writer, if one of the dead ones' is empty.
pub(super) fn on_open(
    root: &Root,
    state: &mut State,
    options: &WorkspaceOptions,
) -> Result<(Recovery, Option<Writer>)> {
    if state.is_copy() {
        state.adopt()?;
    }
    // Whoever is recovering holds logs that would be missed here: what they ask for comes first.
    let lock = state.ledger.recovery_lock(options.wait)?;
    let logs = writers::open_dead(state)?;
    let clean = |log: &DeadLog| matches!(&log.log, Ok((_, found)) if found.clean && found.records.is_empty());
    // A repair may have emptied a log whose transaction is still marked: whoever took that log as its own
    // would keep the mark from being cleared.
    if logs.iter().all(clean) && state.ledger.dead()?.is_empty() {
        // The counter is not synced: a power cut may have taken it back, and never may a number be given out
        // that the horizon covers.
        state.ledger.raise(0)?;
        // A log is as it was closed until its next writer's first record, and he may have died before that,
        // with files that were to be committed.
        let owners = logs.iter().map(|log| log.index).collect();
        let recovery = Recovery {
            removed: sweep(state, &owners, false)?,
            ..Recovery::default()
        };
        return Ok((recovery, logs.into_iter().find_map(own)));
    }
    let (recovery, logs) = work(root, state, options, &lock, logs)?;
    let mut logs = logs.into_iter();
    let own = logs.next().map(|(index, log)| Writer { log, index });
    for (index, log) in logs {
        // Left as after a crash it is only dearer to open.
        let _ = writers::close(state, index, log);
    }
    Ok((recovery, own))
}

fn own(dead: DeadLog) -> Option<Writer> {
    let (log, _) = dead.log.ok()?;
    Some(Writer {
        log,
        index: dead.index,
    })
}

/// Finishes what those have left whose marks nobody holds. Their locks are freed in one step for each open
/// file, not for each process, so that their logs may be taken a moment longer.
pub(super) fn the_dead(root: &Root, state: &State, options: &WorkspaceOptions) -> Result<Recovery> {
    the_marked(root, state, options, false)
}

/// [`the_dead`], also if there is no mark of them: as on opening.
pub(super) fn all(root: &Root, state: &State, options: &WorkspaceOptions) -> Result<Recovery> {
    the_marked(root, state, options, true)
}

fn the_marked(
    root: &Root,
    state: &State,
    options: &WorkspaceOptions,
    mut anyhow: bool,
) -> Result<Recovery> {
    let start = Instant::now();
    let mut recovery = Recovery::default();
    loop {
        let lock = state.ledger.recovery_lock(options.wait)?;
        if state.ledger.dead()?.is_empty() && !std::mem::take(&mut anyhow) {
            return Ok(recovery);
        }
        let logs = writers::open_dead(state)?;
        let (more, logs) = work(root, state, options, &lock, logs)?;
        recovery.add(more);
        for (index, log) in logs {
            // Left as after a crash it is only dearer to open.
            let _ = writers::close(state, index, log);
        }
        let mut left = state.ledger.dead()?;
        left.retain(|mark| !recovery.is_open(mark));
        if left.is_empty() {
            return Ok(recovery);
        }
        if start.elapsed() > DYING {
            return Err(Error::of_kind(OP, ErrorKind::Busy)
                .with_detail(format!(
                    "transaction {} was left half done, and its log is held still",
                    left[0].number
                ))
                .with_advice(
                    "a child of the process that died may have its descriptors: end it, or try \
                     again later",
                ));
        }
        drop(lock);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Finishes the transactions of logs that are held, and releases them. Gives the logs that are empty now.
fn work(
    root: &Root,
    state: &State,
    options: &WorkspaceOptions,
    lock: &RecoveryLock,
    dead: Vec<DeadLog>,
) -> Result<(Recovery, Vec<(u32, Log)>)> {
    let mut logs: Vec<(u32, Log, Recovered)> = Vec::new();
    for DeadLog { index, log } in dead {
        // One that is damaged may hold what others are built on: nothing is done without it.
        let (log, found) = log?;
        logs.push((index, log, found));
    }
    let marks = state.ledger.dead()?;
    let horizon = state.ledger.horizon()?;
    let mut highest = 0;
    let mut commits = Vec::new();
    let mut given_up = Vec::new();
    if logs.iter().any(|(.., found)| !found.records.is_empty()) {
        // What is damaged is refused before anything is changed.
        conflict::list(state)?;
        abandoned::tidy(&state.dir)?;
        for (_, what) in abandoned::list(&state.dir)? {
            given_up.push(what?);
        }
    }
    let unread: BTreeSet<u64> = (given_up.iter())
        .filter(|what| what.unread)
        .map(|what| what.number)
        .collect();
    for (index, _, found) in &logs {
        for entry in &found.records {
            highest = highest.max(entry.transaction);
            if entry.transaction > horizon && !unread.contains(&entry.transaction) {
                commits.extend(read(state, entry).map_err(|e| name_log(e, *index))?);
            }
        }
        section::check(state, &found.records, &unread).map_err(|e| name_log(e, *index))?;
    }
    state.ledger.raise(highest)?;
    commits.retain(|commit| is_pending(commit, state.incarnation(), &marks));
    commits.sort_by_key(|commit| commit.number);
    let mut recovery = Recovery::default();
    for commit in &mut commits {
        if let Some(what) = given_up.iter().find(|a| a.number == commit.number) {
            let ids = give_up::set_aside(root, state, commit, what)?;
            recovery.conflicts.extend(ids);
            recovery.abandoned.push(commit.number);
            *commit = what.rest(commit);
        }
    }
    finish(root, state, &commits, &mut recovery)?;
    let abandoned = std::mem::take(&mut recovery.abandoned);
    recovery.finished.retain(|n| !abandoned.contains(n));
    recovery.abandoned = abandoned;
    // Sections hold claims longer than transactions do: none of those is on top of one.
    let mut held_back = BTreeSet::new();
    for (index, log, found) in &logs {
        let reports = section::settle_all(root, state, &options.hooks, *index, log, found, &unread)
            .map_err(|e| name_log(e, *index))?;
        for report in reports {
            if let Some(open) = report.still_open() {
                held_back.insert(*index);
                if !marks.iter().any(|mark| mark.number == open.number()) {
                    mark_again(state, open.number(), *index)?;
                }
            }
            if report.was_taken_back() {
                recovery.taken_back.push(report.number());
            }
            recovery.sections.push(report);
        }
    }
    let mine = |mark: &&DeadMark| {
        let held = logs.iter().any(|(index, ..)| *index == mark.log);
        (held || mark.kind == MarkKind::Unknown) && !recovery.is_open(mark)
    };
    let half_done = |mark: &DeadMark| mark.kind != MarkKind::Section;
    if !commits.is_empty() || marks.iter().any(half_done) {
        // Who was stopped may have recorded conflicts and not said so: as long as its mark stands, whoever
        // claims these paths comes here.
        state.ledger.note_recorded()?;
    }
    for mark in &marks {
        // After a power cut the ledger may hold anything: also the mark of a log that is not there, which
        // nobody else would ever clear.
        if mine(&mark) || !writers::exists(state, mark.log)? {
            state.ledger.clear_dead(mark, lock)?;
        }
    }
    // The log of an open section stays as it is, with all that was put away under its index.
    logs.retain(|(index, ..)| !held_back.contains(index));
    // From here on nothing can be lost any more, only be looked at again.
    let owners: BTreeSet<u32> = logs.iter().map(|(index, ..)| *index).collect();
    if logs.iter().all(|(.., found)| found.records.is_empty()) {
        recovery.removed = sweep(state, &owners, true)?;
        return Ok((recovery, without_records(logs)));
    }
    let gate = match state.ledger.close_gate(options.wait) {
        Ok(gate) => gate,
        // Somebody is stopped in the middle of a commit. The logs stay as they are until another time.
        Err(e) if e.kind() == ErrorKind::Busy => return Ok((recovery, Vec::new())),
        Err(e) => return Err(e),
    };
    // Of somebody who died meanwhile, or whose log is not free yet: the horizon must not pass what is not
    // done.
    if state.ledger.dead()?.iter().any(half_done) {
        return Ok((recovery, Vec::new()));
    }
    match settle(state) {
        Ok(()) => drop(gate),
        // Nothing is released, and nothing is lost: it is all in the logs.
        Err(e) if e.kind() == ErrorKind::Poisoned => return Ok((recovery, Vec::new())),
        Err(e) => return Err(e),
    }
    for (index, log, found) in &logs {
        let released = log.release(log.last()).map_err(|e| name_log(e, *index))?;
        let given_up = |n: &u64| given_up.iter().any(|what| what.number == *n);
        let numbers = found.records.iter().map(|entry| entry.transaction);
        let decided: BTreeSet<u64> = numbers.filter(given_up).collect();
        if !decided.is_empty() {
            // A record that makes no sense is passed over only as long as the decision stands.
            log.sync(released).map_err(|e| name_log(e, *index))?;
        }
        for number in decided {
            abandoned::forget(&state.dir, number)?;
        }
    }
    recovery.removed = sweep(state, &owners, true)?;
    Ok((recovery, without_records(logs)))
}

fn without_records(logs: Vec<(u32, Log, Recovered)>) -> Vec<(u32, Log)> {
    logs.into_iter()
        .map(|(index, log, _)| (index, log))
        .collect()
}

/// Everything that was committed is in place: makes that durable, and says so. The gate is closed.
fn settle(state: &State) -> Result<()> {
    const ADVICE: &str = "what was committed is in the logs: when the device is well again, unmount and \
         mount the file system, and open the workspace";
    let now = state.incarnation();
    if state.ledger.is_in_doubt(now)? {
        return Err(Error::of_kind(OP, ErrorKind::Poisoned)
            .with_detail("a sync of this file system has failed since it was mounted")
            .with_advice(ADVICE));
    }
    let last = state.ledger.last()?;
    if let Err(e) = sys::syncfs(&state.dir) {
        state.ledger.doubt(now)?;
        return Err(Error::new(OP, "syncfs", e)
            .with_kind(ErrorKind::Poisoned)
            .with_advice(ADVICE));
    }
    state.ledger.set_horizon(last)
}

/// The commit in a record, if it is one.
pub(super) fn read(state: &State, entry: &Entry) -> Result<Option<Commit>> {
    let number = entry.transaction;
    Commit::of(entry, |file| file.content(&state.staged)).map_err(|e| {
        in_record(
            e,
            format_args!("record {}, transaction {number}", entry.seq),
        )
    })
}

/// Whether any of it may be missing.
pub(super) fn is_pending(commit: &Commit, now: Incarnation, marks: &[DeadMark]) -> bool {
    let marked = |mark: &DeadMark| mark.number == commit.number || mark.kind == MarkKind::Unknown;
    !Incarnation::from_parts(commit.incarnation).is_same(&now) || marks.iter().any(marked)
}

fn finish(root: &Root, state: &State, commits: &[Commit], recovery: &mut Recovery) -> Result<()> {
    let Some((first, others)) = commits.split_first() else {
        return Ok(());
    };
    let mut sum = first.mapping.clone();
    for commit in others {
        compose(&mut sum, commit.mapping.clone());
    }
    let mut names = || writers::fresh_name(owner(&sum));
    let since = |commit: &Commit| Incarnation::from_parts(commit.incarnation);
    let intact = (commits.iter()).all(|commit| since(commit).is_same(&state.incarnation()));
    let outcome =
        resume(&mut state.ctx(root, &mut names), &sum, intact).map_err(|e| e.with_operation(OP))?;
    let mut last = commits[commits.len() - 1].clone();
    last.mapping = sum.clone();
    // A path belongs to the last transaction that was about it.
    for found in &outcome.conflicts {
        let about = |c: &&Commit| c.mapping.slots.iter().any(|s| s.path == found.path);
        if let Some(commit) = commits.iter().rev().find(about) {
            last.number = commit.number;
            last.label.clone_from(&commit.label);
        }
        let one = super::realise::Outcome::of(vec![found.clone()]);
        let ids = conflict::record(state, &last, &one)?;
        recovery.conflicts.extend(ids);
    }
    recovery.finished.extend(commits.iter().map(|c| c.number));
    Ok(())
}

/// Private names made in recovery belong to the log that is recovered, and go with it.
fn owner(mapping: &super::mapping::Mapping) -> u32 {
    let staged = mapping.objects.iter().find_map(|object| match object {
        Object::New { staged, .. } => writers::owner_of(staged),
        _ => None,
    });
    staged.unwrap_or(0)
}

/// After a power cut: an open section is known to all who have the workspace open by its mark.
fn mark_again(state: &State, number: u64, index: u32) -> Result<()> {
    let claim = state.claims.try_claim(&[])?;
    // It stays, without a holder.
    let _mark = (state.ledger).mark(&claim, number, index, MarkKind::Section)?;
    Ok(())
}

/// [`sweep`] for a section that is over.
pub(super) fn sweep_of(state: &State, owners: &BTreeSet<u32>) -> Result<u64> {
    sweep(state, owners, false)
}

/// Removes private things that belong to these logs, which are empty, and to no conflict.
fn sweep(state: &State, owners: &BTreeSet<u32>, unknown: bool) -> Result<u64> {
    let kept: BTreeSet<Name> = conflict::list(state)?
        .into_iter()
        .filter_map(|c| c.kept_name().cloned())
        .collect();
    let mut removed = 0;
    for (sub, dir) in [
        (Sub::Staged, &state.staged),
        (Sub::Retired, &state.retired),
        (Sub::Kept, &state.kept),
    ] {
        for name in names_in(dir, sub)? {
            // 0: made where no log was known.
            let owned = |o| owners.contains(&o) || unknown && o == 0;
            let litter = writers::owner_of(&name).is_some_and(owned);
            if litter && !kept.contains(&name) {
                let options = RemoveOptions::new().missing_ok(true);
                tree::remove(dir, &name, &options).map_err(|e| e.with_operation(OP))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

pub(super) fn names_in(dir: &Dir, sub: Sub) -> Result<Vec<Name>> {
    let fail = |e: Errno| Error::new(OP, "getdents64", e).with_path(sub.path());
    let mut out = Vec::new();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(OP))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        out.push(Name::from_entry(entry.name()).map_err(fail)?);
    }
    Ok(out)
}

fn name_log(error: Error, index: u32) -> Error {
    error.with_default_path(format!("{}/{index:08x}", Sub::Logs.path()))
}

/// Waits until no transaction is in the middle, makes everything durable in place, and has `release` let the
/// caller's log begin anew.
pub(super) fn checkpoint(
    root: &Root,
    state: &State,
    options: &WorkspaceOptions,
    release: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // Before the sync, which would write out what these files hold.
    state.purge();
    let start = Instant::now();
    loop {
        // Those who recover change names outside of the gate.
        let lock = state.ledger.recovery_lock(options.wait)?;
        let gate = state.ledger.close_gate(options.wait)?;
        // A section that could not be taken back has nothing to do with the horizon.
        let dead = state.ledger.dead()?;
        if dead.iter().all(|mark| mark.kind == MarkKind::Section) {
            settle(state)?;
            return release();
        }
        drop((gate, lock));
        let _: Recovery = the_dead(root, state, options)?;
        if start.elapsed() > options.wait + DYING {
            return Err(Error::of_kind(OP, ErrorKind::Busy)
                .with_advice("processes die in the middle of commits all the time: try again"));
        }
    }
}

#[cfg(test)]
mod tests;
