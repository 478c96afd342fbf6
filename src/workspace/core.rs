//! An open workspace: deciding transactions, finishing them, checkpoints.

use super::commit::Receipt;
use super::conflict::{self, Conflict};
use super::ctx::Ctx;
use super::displaced::{self, is_full};
use super::draft::StagedFile;
use super::identity::now;
use super::ledger::{DeadMark, Mark, MarkKind};
use super::mapping::Mapping;
use super::open_files::OpenFiles;
use super::options::WorkspaceOptions;
use super::private;
use super::realise::{Mode, realise_opened};
use super::record::{COMMIT, COMMIT_IN_FILE, Commit, InFile};
use super::recover::{self, Recovery};
use super::section::{self, OpenSection};
use super::stage::Staging;
use super::state::State;
use super::transaction::Transaction;
use super::writers::{self, Writer};
use crate::claim::{Claim, Want};
use crate::journal::Record;
use crate::sys::BorrowedFd;
use crate::{DiskState, Error, ErrorKind, Name, Result, Root};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const OP: &str = "commit transaction";
/// More than anybody should keep beside a key.
const LONGEST_KEY: usize = 64 << 20;
/// How long a checkpoint that nobody asked for waits for those who are just committing.
const AT_EASE: Duration = Duration::from_millis(200);
/// A record in a file fills the disk and not the log: what part of it counts for the next checkpoint.
const IN_FILE: u64 = 16;
const CHECKPOINT: &str = "checkpoint workspace";

/// A root with a state folder in which transactions are logged. See the [module](super).
///
/// Many threads may use it at once, and many processes may have the same one open.
#[derive(Debug)]
pub struct Workspace {
    pub(super) root: Root,
    pub(super) state: State,
    pub(super) writer: Writer,
    pub(super) options: WorkspaceOptions,
    recovered: Recovery,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Committed, and not finished: they keep their claims and marks, and are tried again.
    unfinished: Vec<Decided>,
    /// A record of which nobody knows whether it is durable: its claims stay taken.
    in_doubt: Vec<(Mark, Claim, Mapping)>,
    last_checkpoint: Instant,
    /// One of our threads makes one that nobody asked for.
    at_checkpoint: bool,
    /// Bytes of records since then.
    bytes: u64,
    /// Records since then that were too long for the log.
    files: Vec<Name>,
    /// Of dead processes, and not to be taken back for now: their paths are closed.
    open_sections: Vec<OpenSection>,
}

/// A transaction whose record is durable.
#[derive(Debug)]
pub(super) struct Decided {
    // Before the claim, which it must not outlive.
    pub(super) mark: Mark,
    pub(super) claim: Claim,
    pub(super) commit: Commit,
    pub(super) opened: OpenFiles,
}

impl Workspace {
    /// Opens the workspace of `root` with the default [`WorkspaceOptions`].
    ///
    /// # Errors
    /// As [`WorkspaceOptions::open`].
    pub fn open(root: &Root) -> Result<Self> {
        WorkspaceOptions::new().open(root)
    }

    pub(super) fn new(
        root: Root,
        state: State,
        writer: Writer,
        options: WorkspaceOptions,
        recovered: Recovery,
    ) -> Self {
        Self {
            root,
            state,
            writer,
            options,
            inner: Mutex::new(Inner {
                open_sections: recovered.open_sections().cloned().collect(),
                unfinished: Vec::new(),
                in_doubt: Vec::new(),
                last_checkpoint: Instant::now(),
                at_checkpoint: false,
                bytes: 0,
                files: Vec::new(),
            }),
            recovered,
        }
    }

    /// The root whose tree it is about.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// What opening it had to finish or take back.
    pub fn recovered(&self) -> &Recovery {
        &self.recovered
    }

    /// Finishes what could not be finished before, of this process and of dead ones. Opening a workspace does
    /// that, and so does a commit that meets a dead process's claim; there is rarely a reason to call this.
    ///
    /// # Errors
    /// [`ErrorKind::Poisoned`]: open the workspace again. Those of changing names, with
    /// [`DiskState::Committed`]: what stands against a transaction still does.
    pub fn recover(&self) -> Result<Recovery> {
        operation!("recover workspace");
        let (done, error) = self.retry()?;
        match error {
            Some(error) => Err(error),
            None => {
                let open = !self.lock().open_sections.is_empty();
                let recovery = if open {
                    recover::all(&self.root, &self.state, &self.options)?
                } else {
                    recover::the_dead(&self.root, &self.state, &self.options)?
                };
                self.note_open_sections(&recovery);
                Ok(recovery.also(done))
            }
        }
    }

    /// Begins a transaction. It holds nothing until it commits, or claims.
    pub fn begin(&self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// Makes everything that was committed durable in its place, so that the tree is as after the last commit
    /// even for those who read it after a power cut without opening the workspace; and lets the logs begin
    /// anew. One syncfs(2), which also waits for other programs' unwritten data on this file system.
    ///
    /// Waits for the transactions that are just being committed, in all processes.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: a process that was stopped in the middle of a commit keeps it from happening.
    /// [`ErrorKind::Poisoned`]: syncfs(2) has failed, now or before, in whatever process. What was committed
    /// stays committed in the logs, and new transactions go on as long as there is room for them; only
    /// mounting the file system anew, and opening the workspace then, ends it. Those of fdatasync(2).
    pub fn settle(&self) -> Result<()> {
        operation!("settle workspace");
        self.ready()?;
        self.checkpoint()
    }

    /// The value of an idempotency key, if work was committed under it.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub fn key(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let name = super::view::key_name(key.as_ref())
            .map_err(|e| Error::new("look for key", "openat", e))?;
        match private::read(&self.state.keys, &name, LONGEST_KEY) {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.with_operation("look for key")),
        }
    }

    /// Checkpoints and closes the log, so that the next open has nothing to do.
    ///
    /// # Errors
    /// As [`settle`](Self::settle). Nothing is lost: the next open does what could not be done.
    pub fn close(self) -> Result<()> {
        operation!("close workspace");
        self.ready()?;
        if self.lock().bytes > 0 {
            self.checkpoint()?;
        }
        writers::close(&self.state, self.writer.index, self.writer.log)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked held it for plain assignments only.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be worked with; tries again what could not be finished before.
    pub(super) fn ready(&self) -> Result<()> {
        // Its error was told to who committed it; others are told only if they meet its paths.
        self.retry().map(drop)
    }

    /// Tries again what could not be finished before: the numbers of what is finished now, and the first
    /// error.
    fn retry(&self) -> Result<(Vec<u64>, Option<Error>)> {
        let unfinished = {
            let mut inner = self.lock();
            if !inner.in_doubt.is_empty() {
                return Err(Error::of_kind(OP, ErrorKind::Poisoned)
                    .with_detail("a sync of the log has failed")
                    .with_advice("open the workspace again: that tells what is durable"));
            }
            std::mem::take(&mut inner.unfinished)
        };
        let mut done = Vec::new();
        let mut error = None;
        for decided in unfinished {
            let number = decided.commit.number;
            match self.finish(decided, Mode::Again) {
                Ok(()) => done.push(number),
                Err(e) => error = error.or(Some(e)),
            }
        }
        Ok((done, error))
    }

    /// Gives private names.
    pub(super) fn names(&self) -> impl FnMut() -> Result<Name> + use<> {
        let index = self.writer.index;
        move || writers::fresh_name(index)
    }

    pub(super) fn ctx<'a>(&'a self, names: &'a mut dyn FnMut() -> Result<Name>) -> Ctx<'a> {
        let later = self.state.displaced.room(self.options.remove_later_from);
        Ctx {
            later,
            ..self.state.ctx(&self.root, names)
        }
    }

    /// Writes what a reader gives to a private file, named after the log with this index.
    pub(super) fn stage_reader(&self, index: u32, mut reader: impl Read) -> Result<StagedFile> {
        // Nobody reads it twice, if the disk is full.
        self.state.purge();
        let mut names = || writers::fresh_name(index);
        let mut ctx = self.ctx(&mut names);
        private::from_reader(&mut ctx, &mut reader)
    }

    /// Copies an open file to a private one, named after the log with this index.
    pub(super) fn stage_copy(&self, index: u32, from: BorrowedFd<'_>) -> Result<StagedFile> {
        self.state.purge();
        let mut names = || writers::fresh_name(index);
        let mut ctx = self.ctx(&mut names);
        private::from_file(&mut ctx, from)
    }

    /// Removes private files that nobody needs.
    pub(super) fn discard(&self, files: &[Name]) {
        displaced::remove(&self.state.staged, files);
    }

    /// Has work of dead processes finished, of which somebody who holds a claim may see a part.
    pub(super) fn finish_the_dead(&self) -> Result<()> {
        let dead = self.state.ledger.dead()?;
        if dead.iter().all(|mark| self.is_open_section(mark)) {
            return Ok(());
        }
        let recovery = recover::the_dead(&self.root, &self.state, &self.options)?;
        self.note_open_sections(&recovery);
        Ok(())
    }

    /// Whether it is known that this section cannot be taken back for now.
    fn is_open_section(&self, mark: &DeadMark) -> bool {
        let inner = self.lock();
        let open = inner
            .open_sections
            .iter()
            .any(|s| s.number() == mark.number);
        mark.kind == MarkKind::Section && open
    }

    fn note_open_sections(&self, recovery: &Recovery) {
        self.lock().open_sections = recovery.open_sections().cloned().collect();
    }

    /// Refuses paths that a conflict is about, other than the one that is being resolved, or a section that
    /// could not be taken back. True if it is taken back now, and so things may be others than they were.
    pub(super) fn unblocked(&self, wants: &[Want], resolved: Option<&Conflict>) -> Result<bool> {
        let blocked = section::blocked(&self.lock().open_sections, wants).is_err();
        if blocked {
            // It may be possible now, or somebody else may have done it.
            let recovery = recover::all(&self.root, &self.state, &self.options)?;
            self.note_open_sections(&recovery);
            section::blocked(recovery.open_sections(), wants)?;
        }
        conflict::unblocked(&self.state, wants, resolved)?;
        Ok(blocked)
    }

    /// The one record: with it the transaction is decided. Then the names.
    pub(super) fn decide(
        &self,
        claim: Claim,
        mut staging: Staging<'_>,
        label: Vec<u8>,
    ) -> Result<Receipt> {
        let ledger = &self.state.ledger;
        let mut commit = Commit {
            number: 0,
            incarnation: self.state.incarnation().parts(),
            time: now(),
            label,
            mapping: staging.take_mapping(),
        };
        let mut again = true;
        let mark = loop {
            ledger.enter(&claim, self.options.wait)?;
            let decided = self.append(&claim, &mut commit);
            match decided {
                Ok(mark) => break mark,
                Err(Refused::Unchanged(e)) => {
                    let left = ledger.leave(&claim);
                    let full = e.kind() == ErrorKind::WouldBlock;
                    if full && std::mem::take(&mut again) && left.is_ok() {
                        // The log is as long as it may be. Nothing is decided yet, so there is time.
                        self.checkpoint()?;
                        continue;
                    }
                    if is_full(&e) && left.is_ok() && self.state.purge() > 0 {
                        continue;
                    }
                    drop(staging);
                    return Err(e.with_operation(OP));
                }
                Err(Refused::InDoubt(e, mark)) => {
                    // The claims stay taken, and what was staged stays, until opening the log again tells.
                    drop(staging.committed());
                    self.lock().in_doubt.push((mark, claim, commit.mapping));
                    return Err(e.with_operation(OP).with_advice(
                        "open the workspace again: that tells whether it is committed",
                    ));
                }
            }
        };
        let number = commit.number;
        let (notes, opened) = (staging.take_notes(), staging.take_opened());
        drop(staging.committed());
        let decided = Decided {
            claim,
            mark,
            commit,
            opened,
        };
        self.finish(decided, Mode::First)?;
        self.maybe_checkpoint();
        Ok(Receipt { number, notes })
    }

    fn append(&self, claim: &Claim, commit: &mut Commit) -> std::result::Result<Mark, Refused> {
        let ledger = &self.state.ledger;
        let index = self.writer.index;
        let (number, mark) = ledger
            .begin(claim, index, MarkKind::Commit)
            .map_err(Refused::Unchanged)?;
        let unchanged = |mark, error| {
            // A mark that stays, without a record: whoever finds it finds nothing to do.
            let _ = ledger.clear(mark, claim);
            Refused::Unchanged(error)
        };
        commit.number = number;
        let encoded = commit.written();
        let parts = encoded.parts();
        let mut len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut record = Record::new(COMMIT, &[]).and(&parts);
        let mut file = None;
        let reference;
        if len > self.writer.log.max_payload() {
            let mut names = self.names();
            let mut ctx = self.ctx(&mut names);
            let name = match private::durable(&mut ctx, &parts) {
                Ok(name) => name,
                Err(e) => return Err(unchanged(mark, e)),
            };
            reference = InFile::of(commit.number, name.clone(), &parts).encode();
            record = Record::new(COMMIT_IN_FILE, &reference);
            len = len / IN_FILE + reference.len() as u64;
            file = Some(name);
        }
        let record = record.transaction(commit.number);
        match self.writer.log.append_durable(&[record]) {
            Ok(_) => {
                let mut inner = self.lock();
                inner.bytes += len;
                inner.files.extend(file);
                Ok(mark)
            }
            Err(e) if e.disk_state() == DiskState::Unchanged => {
                self.discard(file.as_slice());
                Err(unchanged(mark, e))
            }
            Err(e) => Err(Refused::InDoubt(e, mark)),
        }
    }

    /// Changes the names of a decided transaction, and says in the log that it is done.
    fn finish(&self, mut decided: Decided, mode: Mode) -> Result<()> {
        let mut names = self.names();
        // Who tries again has others.
        let opened = std::mem::take(&mut decided.opened);
        let mut ctx = self.ctx(&mut names);
        let done =
            realise_opened(&mut ctx, &decided.commit.mapping, mode, opened).and_then(|outcome| {
                conflict::record(&self.state, &decided.commit, &outcome)?;
                if mode == Mode::Again {
                    // The first time it may have come up to this.
                    self.state.ledger.note_recorded()?;
                }
                Ok(outcome)
            });
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(e) if is_full(&e) && self.state.purge() > 0 => {
                return self.finish(decided, Mode::Again);
            }
            Err(e) => {
                self.lock().unfinished.push(decided);
                return Err(e
                    .with_operation(OP)
                    .with_state(DiskState::Committed)
                    .with_advice(
                        "mend what stands against it and call recover(), or open the workspace \
                         again: it will be finished",
                    ));
            }
        };
        (self.state.displaced).add(outcome.displaced, &self.state.staged);
        let Decided { claim, mark, .. } = decided;
        // A mark that stays has whoever comes next look at a finished transaction.
        let _ = self.state.ledger.end(mark);
        // With the claim, in one step: the mark's byte, and the place inside the gate.
        drop(claim);
        match outcome.conflicts.first() {
            Some(found) => Err(Error::of_kind(OP, ErrorKind::Conflict)
                .with_path(std::ffi::OsStr::from_bytes(&found.path))
                .with_state(DiskState::Committed)
                .with_detail("somebody else changed it at the same moment")
                .with_advice(
                    "theirs stays and ours is kept; the rest is done. See Workspace::conflicts",
                )),
            None => Ok(()),
        }
    }

    fn maybe_checkpoint(&self) {
        let due = {
            let mut inner = self.lock();
            let due = inner.bytes >= self.options.checkpoint_bytes
                || inner.last_checkpoint.elapsed() >= self.options.checkpoint_every;
            // All threads that commit until it is made find it due, and would make one after the other.
            let mine = due && !inner.at_checkpoint;
            inner.at_checkpoint |= mine;
            mine
        };
        if due {
            // The transaction is durable without it. What stands against it is told by settle() and close(),
            // and by a commit once the log is full.
            let options = WorkspaceOptions {
                wait: AT_EASE.min(self.options.wait),
                ..self.options.clone()
            };
            let done = self.checkpoint_with(&options);
            let mut inner = self.lock();
            inner.at_checkpoint = false;
            if done.is_err() {
                inner.bytes = 0;
                inner.last_checkpoint = Instant::now();
            }
        }
    }

    /// Does something while everything that was committed is durable in place, and nobody commits.
    pub(super) fn settled(&self, then: impl FnOnce() -> Result<()>) -> Result<()> {
        self.ready()?;
        recover::checkpoint(&self.root, &self.state, &self.options, then)
    }

    pub(super) fn checkpoint(&self) -> Result<()> {
        self.checkpoint_with(&self.options)
    }

    fn checkpoint_with(&self, options: &WorkspaceOptions) -> Result<()> {
        recover::checkpoint(&self.root, &self.state, options, || {
            let last = self.writer.log.last();
            self.writer.log.release(last)?;
            let mut inner = self.lock();
            inner.bytes = 0;
            inner.last_checkpoint = Instant::now();
            let files = std::mem::take(&mut inner.files);
            drop(inner);
            self.discard(&files);
            Ok(())
        })
        .map_err(|e| e.with_operation(CHECKPOINT))
    }
}

/// Why a record was not written.
enum Refused {
    /// It is not there.
    Unchanged(Error),
    /// Nobody knows.
    InDoubt(Error, Mark),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::hook;

    /// Nobody takes a later sync of this mount for a proof.
    fn assert_in_doubt(root: &Root, workspace: Workspace) {
        drop(workspace);
        let workspace = Workspace::open(root).unwrap();
        assert_eq!(workspace.settle().unwrap_err().kind(), ErrorKind::Poisoned);
    }

    #[test]
    fn a_sync_that_fails_for_a_section_ends_checkpoints() {
        let _alone = crate::workspace::child::no_child();
        let dir = crate::workspace::child::dir();
        let root = Root::open(dir.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        let mut section = workspace.section("fails").unwrap();
        section.apply(|tx| tx.write("f", "text")).unwrap();
        let failed = hook::deny(&[("syncfs", crate::sys::Errno::IO)], || section.commit());
        assert!(failed.is_err());
        assert_in_doubt(&root, workspace);
    }

    /// The kernel tells who syncs, and nobody who opens the file system later.
    #[test]
    fn a_sync_that_fails_for_one_transaction_ends_checkpoints() {
        let _alone = crate::workspace::child::no_child();
        for in_place in [false, true] {
            let dir = crate::workspace::child::dir();
            let root = Root::open(dir.path()).unwrap();
            let workspace = Workspace::open(&root).unwrap();
            let mut tx = workspace.begin();
            for n in 0..5 {
                std::fs::write(dir.path().join(format!("f{n}")), "old").unwrap();
                match in_place {
                    // Too long for the log.
                    true => tx.write_in_place(format!("f{n}"), vec![1; 20_000]),
                    false => tx.write(format!("f{n}"), vec![1; 20_000]),
                }
                .unwrap();
            }
            let failed = hook::deny(&[("syncfs", crate::sys::Errno::IO)], || tx.commit());
            assert_eq!(failed.unwrap_err().disk_state(), DiskState::Unchanged);
            assert_in_doubt(&root, workspace);
        }
    }

    #[test]
    fn a_checkpoint_that_is_due_is_made_by_one_thread() {
        let dir = crate::workspace::child::dir();
        let root = Root::open(dir.path()).unwrap();
        let options = WorkspaceOptions::new().checkpoint_every(Duration::ZERO);
        let workspace = options.open(&root).unwrap();
        let makes_one = || {
            let mut tx = workspace.begin();
            tx.write("f", "text").unwrap();
            let (done, calls) = hook::scope(None, || tx.commit());
            done.unwrap();
            calls.contains(&"syncfs")
        };
        assert!(makes_one());
        workspace.lock().at_checkpoint = true;
        assert!(!makes_one());
        workspace.lock().at_checkpoint = false;
        assert!(makes_one() && makes_one());
    }
}
