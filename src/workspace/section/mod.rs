//! Protected sections: changes that are visible at once, and are taken back unless the section commits.
//!
//! A section is for work that cannot be collected first: another program changes files, or the next step
//! depends on what a reader sees. Before anything is changed, what undoes it is durable in a log; error,
//! panic, drop, signal or crash puts everything back.
//!
//! Each section has a log of its own while it lives, and everything private that it makes is named after
//! that log. So a section that stays open for long holds up nobody's log, and what it leaves is told by name.

mod apply;
mod evidence;
mod finish;
mod give_up;
mod hold;
mod image;
mod protect;
mod record;
mod recover;
mod resource;
mod sum;
mod take_back;
mod times;
mod undo;

pub use apply::Captured;
pub use evidence::{Evidence, Seen};
pub(super) use give_up::{give_up, given_up};
pub use hold::Hold;
pub(super) use record::{Story, is_of_section};
pub use recover::{OpenSection, SectionReport, StillOpen};
pub(super) use recover::{blocked, check, settle_all};
pub(super) use resource::Hooks;
pub use resource::{Authority, HookResult};

use super::Workspace;
use super::commit::Receipt;
use super::identity::stamp;
use super::ledger::{Mark, MarkKind};
use super::private;
use super::record::{InFile, PHASE, SECTION_BEGIN, SECTION_ITEM};
use super::state::Sub;
use super::transaction::Transaction;
use super::writers::{self, Writer};
use crate::claim::{Claim, ClaimPath, Want};
use crate::journal::Record;
use crate::publish::Note;
use crate::sys;
use crate::{DiskState, Error, ErrorKind, Name, Result};
use record::{Begin, Item};
use std::path::{Path, PathBuf};
use sum::Sum;
use undo::Moves;

const OP: &str = "work in section";

/// Work in progress that is taken back unless [`commit`](Self::commit) is called. Made by
/// [`Workspace::section`].
///
/// Dropping it, also by a panic, takes everything back. So does whoever opens the workspace next, or meets
/// one of its paths, after its process has died. While it lives it holds exclusive claims on what it has
/// touched.
///
/// What it takes back is what it was told of: paths that were [protected](Self::protect), whoever has changed
/// them, and what it has changed itself ([`apply`](Self::apply), [`capture`](Self::capture)). Content, mode,
/// owner, extended attributes, times, names and hard links among them are as before; so is the time of a
/// directory in which names came and went, unless others have changed something there as well.
#[derive(Debug)]
#[must_use = "dropping a section takes it back"]
pub struct Section<'w> {
    workspace: &'w Workspace,
    begin: Begin,
    /// Until it is over.
    held: Option<Held>,
    claimed: Vec<Want>,
    /// Its first record is written.
    begun: bool,
    sum: Sum,
    moves: Moves,
    resources: Vec<(String, Vec<u8>)>,
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// What its steps could not keep of files that they replaced.
    notes: Vec<Note>,
    /// A step is half done, or nobody knows whether a record is durable: it can only be taken back.
    broken: bool,
    /// A child that was forked has a copy.
    process: u32,
}

/// What ends with a section's life.
#[derive(Debug)]
struct Held {
    // Before the claim, which it must not outlive.
    mark: Mark,
    claim: Claim,
    writer: Writer,
}

impl Workspace {
    /// Begins a protected section. The label is for people.
    ///
    /// ```
    /// use steadfast::{Root, workspace::Workspace};
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::write(dir.path().join("config"), "old")?;
    /// let root = Root::open(dir.path())?;
    /// let workspace = Workspace::open(&root)?;
    /// let mut section = workspace.section("upgrade")?;
    /// section.protect(["config"])?;
    /// // Any program may change it now.
    /// std::fs::write(dir.path().join("config"), "broken")?;
    /// section.rollback()?;
    /// assert_eq!(std::fs::read(dir.path().join("config"))?, b"old");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// It takes some milliseconds: what changes afterwards must be told by its time from what changed before,
    /// and files are stamped by the kernel's ticks.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: 256 transactions and sections are under way. Those of opening a log.
    pub fn section(&self, label: &str) -> Result<Section<'_>> {
        operation!("begin section", label = label);
        // What changes after this call began must be told from what its caller has done before.
        let since = sys::realtime();
        self.ready()?;
        // Its copies may need all the room that there is.
        self.state.purge();
        let (writer, _) = writers::open_own(&self.state, self.options.log)?;
        let ledger = &self.state.ledger;
        let claim = self.state.claims.try_claim(&[])?;
        let (number, mark) = ledger.begin(&claim, writer.index, MarkKind::Section)?;
        Ok(Section {
            workspace: self,
            begin: Begin {
                number,
                time: stamp(sys::between_files(since)),
                label: label.as_bytes().to_vec(),
            },
            held: Some(Held {
                claim,
                mark,
                writer,
            }),
            claimed: Vec::new(),
            begun: false,
            sum: Sum::default(),
            moves: Moves::default(),
            resources: Vec::new(),
            keys: Vec::new(),
            notes: Vec::new(),
            broken: false,
            process: std::process::id(),
        })
    }
}

impl<'w> Section<'w> {
    /// Its number in the workspace: higher than that of every transaction and section before it. Also the
    /// fencing number for its [resources](Self::resource).
    #[must_use]
    pub fn number(&self) -> u64 {
        self.begin.number
    }

    /// Keeps what these paths hold, so that it can be put back whoever changes it: another program may write
    /// in place, append, truncate, rename, create and remove in them.
    ///
    /// The paths are claimed exclusively, and copied into the state folder (shared where the file system can;
    /// memory does not depend on sizes), with everything that they are; the copies and the record of them are
    /// durable when this returns. A path that does not exist is protected too: what is there in the end goes.
    /// `.` is every name in the root but the workspace's own folder. Links on the way are followed beneath
    /// the root; one at the end is protected itself.
    ///
    /// When the section is taken back, a path in which nothing has changed (no inode in it has a later time
    /// of change) is left alone; else the copy takes its place. A protected file's hard links outside of what
    /// is protected stay with the changed file. What a program still writes through descriptors or mappings
    /// that it has open goes to the changed files, which are removed.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: somebody else has claimed them, or they are mounted. [`ErrorKind::Changed`]:
    /// somebody changed them during the copy. [`ErrorKind::InvalidInput`]: the section has changed them
    /// already. Those of [`tree::copy`](crate::tree::copy); owner and attributes that could not be put back
    /// are an error here. Nothing is changed then, and the section can go on.
    pub fn protect<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) -> Result<()> {
        operation!("protect");
        self.usable()?;
        let paths: Vec<PathBuf> = (paths.into_iter()).map(|p| p.as_ref().to_owned()).collect();
        protect::protect(self, &paths)
    }

    /// Makes changes at once, all together, with their undo: what `change` collects is checked, staged,
    /// recorded durably, and done, before this returns. A crash in between takes it back, with the section.
    ///
    /// What is displaced or removed is kept by name: it costs nothing, however large it is.
    ///
    /// # Errors
    /// That of `change`, and those of [`Transaction::commit`] with
    /// [`DiskState::Unchanged`](crate::DiskState::Unchanged): nothing happened, and the section can go on.
    /// Else the step may be half done, and the section can only be taken back.
    /// [`ErrorKind::Conflict`]: somebody without claims has changed the same at the same moment.
    /// [`ErrorKind::Unsupported`]: writing in place; [`protect`](Self::protect) the file for that.
    pub fn apply(&mut self, change: impl FnOnce(&mut Transaction<'w>) -> Result<()>) -> Result<()> {
        self.usable()?;
        apply::apply(self, change, |_| Ok(()))
    }

    /// Moves a file or folder aside, to a name that must be free. Nothing is copied.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn capture(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Captured> {
        self.usable()?;
        apply::capture(self, from.as_ref(), to.as_ref())
    }

    /// Moves it back, if it is still the same thing and its old name is free.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`]: another thing has its name; [`ErrorKind::AlreadyExists`]. As
    /// [`apply`](Self::apply).
    pub fn restore(&mut self, captured: &Captured) -> Result<()> {
        self.usable()?;
        apply::restore(self, captured)
    }

    /// Records durably that a phase is reached. Who takes the section back after a crash is told the last
    /// one ([`SectionReport`]).
    ///
    /// # Errors
    /// Those of writing the log.
    pub fn phase(&mut self, name: &str) -> Result<()> {
        self.usable()?;
        let bytes = record::encode_phase(self.begin.number, name);
        self.append(PHASE, &bytes)
    }

    /// Records durably that a resource of the application is to be given back if the section is taken back:
    /// by the hook of this name ([`WorkspaceOptions::hook`](super::WorkspaceOptions::hook)), which is called
    /// with the payload, the last recorded first, before any file is put back. Call this before taking the
    /// resource.
    ///
    /// A process that has no such hook leaves the section open, with all its paths, for one that has.
    ///
    /// # Errors
    /// Those of writing the log.
    pub fn resource(&mut self, hook: &str, payload: impl AsRef<[u8]>) -> Result<()> {
        self.usable()?;
        let payload = payload.as_ref().to_vec();
        let hook = hook.to_owned();
        self.record(&Item::Resource {
            hook: hook.clone(),
            payload: payload.clone(),
        })?;
        self.resources.push((hook, payload));
        Ok(())
    }

    /// Facts about these paths now (a symlink itself), recorded durably. With `with_hash` also the SHA-256
    /// of regular files.
    ///
    /// # Errors
    /// As statx(2) and read(2), but for a path that does not exist. [`ErrorKind::Unsupported`]: a hash is
    /// asked for, and the feature `sha256` is off.
    pub fn evidence<P: AsRef<Path>>(
        &mut self,
        paths: impl IntoIterator<Item = P>,
        with_hash: bool,
    ) -> Result<Vec<Evidence>> {
        self.usable()?;
        let root = &self.workspace.root;
        let all = (paths.into_iter())
            .map(|path| evidence::take(root, path.as_ref(), with_hash))
            .collect::<Result<Vec<_>>>()?;
        self.record(&Item::Evidence(all.clone()))?;
        Ok(all)
    }

    /// Records, with the commit, that the work known under this key is done, with a value to find again
    /// ([`Workspace::key`]).
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]: it is done already. [`ErrorKind::Busy`]: somebody is at it.
    pub fn key(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        const OP: &str = "record key";
        self.usable()?;
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        let name = super::view::key_name(&key).map_err(|e| Error::new(OP, "openat", e))?;
        let path = Path::new(&Sub::Keys.path()).join(&name);
        self.claim(vec![Want::exclusive(ClaimPath::new(path)?)])?;
        let twice = self.keys.iter().any(|(known, _)| *known == key);
        if twice || self.workspace.key(&key)?.is_some() {
            return Err(Error::of_kind(OP, ErrorKind::AlreadyExists));
        }
        self.keys.push((key, value));
        Ok(())
    }

    /// Keeps everything: once this returns `Ok`, it survives a power cut as it is now. One syncfs(2), so that
    /// what other programs wrote is durable as well.
    ///
    /// # Errors
    /// With [`DiskState::Unchanged`]: the section was taken back, for the files could not be synced or the
    /// end not be recorded. With [`DiskState::Committed`]: it is decided, and the rest is done by whoever
    /// comes next. With [`DiskState::Indeterminate`]: opening the workspace again tells which.
    pub fn commit(mut self) -> Result<Receipt> {
        operation!("commit section");
        finish::commit(&mut self)
    }

    /// Takes everything back. When this returns `Ok` that is durable.
    ///
    /// # Errors
    /// Those of putting things back; a missing hook, and the error of one. Then the section stays open with
    /// all its paths, and whoever meets one of them, calls [`Workspace::recover`], or opens the workspace,
    /// tries again.
    pub fn rollback(mut self) -> Result<()> {
        operation!("roll back section");
        finish::roll_back(&mut self)
    }

    fn usable(&self) -> Result<()> {
        if self.process != std::process::id() {
            return Err(Error::of_kind(OP, ErrorKind::Unsupported)
                .with_detail("it belongs to the process that this one was forked from"));
        }
        if self.broken {
            return Err(Error::of_kind(OP, ErrorKind::Poisoned)
                .with_detail("an earlier step has failed half done")
                .with_advice("take the section back"));
        }
        Ok(())
    }

    fn held(&self) -> Result<&Held> {
        self.held
            .as_ref()
            .ok_or_else(|| Error::of_kind(OP, ErrorKind::Poisoned).with_detail("it is over"))
    }

    /// Gives private names.
    fn names(&self) -> impl FnMut() -> Result<Name> + use<> {
        let index = self.held.as_ref().map_or(0, |held| held.writer.index);
        move || writers::fresh_name(index)
    }

    /// Claims what is not claimed yet. True if that was something: then what was looked at before may be
    /// other things by now.
    fn claim(&mut self, wants: Vec<Want>) -> Result<bool> {
        let enough = |held: &Want, want: &Want| {
            (held.is_exclusive() || !want.is_exclusive()) && held.path().covers(want.path())
        };
        let mut wants = wants;
        wants.retain(|want| !self.claimed.iter().any(|held| enough(held, want)));
        if wants.is_empty() {
            return Ok(false);
        }
        self.workspace.ready()?;
        let wait = self.workspace.options.wait;
        if let Some(held) = &mut self.held {
            (held.claim.extend(&wants, wait)).map_err(|e| e.with_operation(OP))?;
        }
        self.claimed.extend(wants.iter().cloned());
        self.workspace.finish_the_dead()?;
        self.workspace.unblocked(&wants, None)?;
        self.settle_below()?;
        Ok(true)
    }

    /// Sees to it that no transaction on the claimed paths waits for its checkpoint: after a crash it would
    /// be finished over what the section has moved.
    fn settle_below(&self) -> Result<()> {
        let ledger = &self.workspace.state.ledger;
        let (last, horizon) = (ledger.last()?, ledger.horizon()?);
        let own = horizon + 1 == self.begin.number && last == self.begin.number;
        if last > horizon && !own {
            self.workspace.checkpoint()?;
        }
        Ok(())
    }

    /// Makes a step's record durable. After an error nothing may be done of the step.
    fn record(&mut self, item: &Item) -> Result<()> {
        let bytes = item.encode(self.begin.number);
        if bytes.len() as u64 <= self.held()?.writer.log.max_payload() {
            return self.append(SECTION_ITEM, &bytes);
        }
        let mut names = self.names();
        let mut ctx = self.workspace.ctx(&mut names);
        let name = private::durable(&mut ctx, &[&bytes])?;
        let file = Item::InFile(InFile::of(self.begin.number, name.clone(), &[&bytes]));
        self.append(SECTION_ITEM, &file.encode(self.begin.number))
            .inspect_err(|_| {
                if !self.broken {
                    self.workspace.discard(&[name]);
                }
            })
    }

    fn append(&mut self, kind: u16, bytes: &[u8]) -> Result<()> {
        let begin = self.begin.encode();
        let own = |kind, bytes| Record::new(kind, bytes).transaction(self.begin.number);
        let (first, record) = (own(SECTION_BEGIN, &begin), own(kind, bytes));
        let log = &self.held()?.writer.log;
        let done = match self.begun {
            false => log.append_durable(&[first, record]),
            true => log.append_durable(&[record]),
        };
        match done {
            Ok(_) => {
                self.begun = true;
                Ok(())
            }
            Err(e) => {
                // Whether the record is there is not known, or nothing can be recorded any more.
                self.broken =
                    e.disk_state() != DiskState::Unchanged || e.kind() == ErrorKind::Poisoned;
                // It may be there, and its end must be told then.
                self.begun |= e.disk_state() != DiskState::Unchanged;
                Err(e.with_operation(OP))
            }
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.held.is_some() && self.process == std::process::id() {
            // Nobody is left to tell. What could not be put back stays open, and is told to whoever comes.
            let _ = finish::roll_back(self);
        }
    }
}
