//! Making a damaged workspace one that can be opened: what can be read is kept, the rest is set aside.
//!
//! Bytes are renamed, never removed, and a whole file takes the place of a damaged one in one step, so that a
//! repair that is killed can be repeated.

use super::look::{Look, log_path, names_in};
use super::status;
use crate::claim::{Claim, Claims};
use crate::journal::{self, Damage, End};
use crate::root::Dir;
use crate::sys::{Errno, LockKind};
use crate::workspace::abandoned::{self, Abandon, Abandonment};
use crate::workspace::format::Format;
use crate::workspace::ledger;
use crate::workspace::mapping::{Mapping, Object, Set};
use crate::workspace::record::{COMMIT, COMMIT_IN_FILE};
use crate::workspace::section::is_of_section;
use crate::workspace::state::{self, Sub};
use crate::workspace::{setup, writers};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod aside;
mod sections;

pub(super) use aside::ASIDE;
use aside::{Place, to_name};

const OP: &str = "repair workspace";
const WAIT: Duration = Duration::from_secs(10);

/// What a repair of a workspace did: [`repair`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Repaired {
    /// `format` was missing or damaged, and was written anew, with a new id. Whether the workspace is a copy
    /// is not known any more.
    pub format: bool,
    /// Folders that were missing, or something else, and were made.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub folders: Vec<PathBuf>,
    /// The ledger was missing or damaged, and was rebuilt.
    pub ledger: Option<RebuiltLedger>,
    /// Logs that were damaged.
    pub logs: Vec<RepairedLog>,
    /// Transactions whose record stands in its log and cannot be understood, and sections with such a record.
    /// What is in place of them stays; what was there before such a section, as far as it had put that away,
    /// is among what is set aside, and so are its records.
    pub unreadable: Vec<u64>,
    /// Damaged files of conflicts, and damaged decisions to give something up.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub notes: Vec<PathBuf>,
    /// Where the damaged bytes are now, beneath the root: nothing removes them but
    /// [`prune`](super::prune) when it is told to.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub set_aside: Vec<PathBuf>,
}

/// A ledger that was rebuilt from the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RebuiltLedger {
    /// Work with this number or a lower one is known to be in place. What is above it and in a log is looked
    /// at again by the next open, and put in place if it is not.
    pub horizon: u64,
    /// New transactions get numbers above this one.
    pub last: u64,
}

/// A log that was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RepairedLog {
    /// Its index.
    pub index: u32,
    /// What was damaged, with segment and offset.
    pub damage: Damage,
    /// The last record that was kept.
    pub last: u64,
    /// Transactions and sections whose records were durable and are given up, as far as their numbers can be
    /// read. What is in place of them stays.
    pub given_up: Vec<u64>,
    /// How many records that were durable, or may have been, cannot be read at all.
    pub unreadable: u64,
    /// Nothing in it can be read, and how much there was is not known.
    pub everything: bool,
}

impl Repaired {
    /// Nothing was damaged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes good what is damaged in the workspace of `root`: `format`, folders, ledger, logs that nobody holds,
/// records, conflicts. What is given up is in the answer; the bytes are set aside, never removed. What is not
/// damaged is left as it is, so that it may be called at any time, and again.
///
/// Transactions that stand before the damage in a log are kept, and are finished by the next open. Those
/// behind it are given up: what is in place of them stays, and is not looked at any more.
///
/// A lost ledger is rebuilt from the logs. They may hold work that was in place for long, which the next open
/// then looks at again: by what its files are, so that it is left alone where it is done. Where somebody has
/// changed things since, that may be a conflict that is none.
///
/// # Errors
/// [`ErrorKind::NotFound`]: there is no workspace. [`ErrorKind::Busy`]: somebody else repairs or recovers
/// it; or the ledger is damaged and a process that uses it lives: end it first.
/// [`ErrorKind::Unsupported`]: a later version's format. [`ErrorKind::PermissionDenied`]: the folder is
/// another user's. As open(2), write(2), fsync(2), rename(2).
///
/// # After a crash
/// Each thing is as it was or repaired. Calling it again goes on.
pub fn repair(root: &Root) -> Result<Repaired> {
    operation!("repair workspace");
    let look = Look::open(root, OP)?;
    state::check(root, &look.dir)
        .map(drop)
        .map_err(|e| e.with_operation(OP))?;
    let mut work = Work {
        look: &look,
        out: Repaired::default(),
        changed: BTreeSet::new(),
    };
    work.is_workspace()?;
    setup::make_claims(&look.dir).map_err(|e| e.with_operation(OP))?;
    let _alone = alone(&look.dir)?;
    work.format()?;
    work.folders()?;
    // Before the logs, which tell what it said.
    work.ledger()?;
    work.logs()?;
    work.decisions()?;
    work.records()?;
    work.conflicts()?;
    work.sync()?;
    let mut out = work.out;
    out.set_aside.sort();
    Ok(out)
}

/// The byte of those who recover.
fn alone(dir: &Dir) -> Result<Claim> {
    let claim = Claims::open(dir)?.try_claim(&[])?;
    claim
        .wait_extra(LockKind::Exclusive, ledger::RECOVERY, WAIT)
        .map_err(|e| match e.kind() {
            ErrorKind::Busy => e
                .with_operation(OP)
                .with_advice("somebody else is recovering or repairing it: try again later"),
            _ => e.with_operation(OP),
        })?;
    Ok(claim)
}

struct Work<'l> {
    look: &'l Look,
    out: Repaired,
    /// Folders in which names were changed.
    changed: BTreeSet<Option<Place>>,
}

impl Work<'_> {
    /// A folder without `format` is one only if there is more in it than its making leaves.
    fn is_workspace(&self) -> Result<()> {
        let started = match self.look.format() {
            Ok(Some(_)) => true,
            Ok(None) => match self.look.sub(Sub::Logs)? {
                Some(logs) => !names_in(&logs, OP)?.is_empty(),
                None => false,
            },
            Err(e) if e.kind() == ErrorKind::Corrupt => true,
            Err(e) => return Err(e),
        };
        if started {
            return Ok(());
        }
        Err(Error::of_kind(OP, ErrorKind::NotFound)
            .with_path(state::shown())
            .with_advice(
                "the workspace was never finished: opening it with the wish to create goes on",
            ))
    }

    fn format(&mut self) -> Result<()> {
        match self.look.format() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                self.link_aside(c"format")?;
            }
            Err(e) => return Err(e),
        }
        Format::fresh(self.look.folder)?
            .write(&self.look.dir)
            .map_err(|e| e.with_operation(OP))?;
        self.out.format = true;
        self.changed.insert(None);
        self.sync()
    }

    fn folders(&mut self) -> Result<()> {
        for sub in Sub::ALL {
            match self.look.sub(sub) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                // Something else has its name.
                Err(e) if matches!(e.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => {
                    let name = to_name(sub.name())?;
                    self.move_aside(&self.look.dir, None, &name)?;
                }
                Err(e) => return Err(e),
            }
            setup::make_sub(&self.look.dir, sub).map_err(|e| e.with_operation(OP))?;
            self.out.folders.push(sub.path().into());
            self.changed.insert(None);
        }
        self.sync()
    }

    fn ledger(&mut self) -> Result<()> {
        let peek = self.look.ledger()?;
        if peek.damage().is_none() {
            return Ok(());
        }
        let logs = self.look.logs()?;
        // They would go on with the old one. A log that cannot be read tells by its lock.
        for seen in &logs {
            let live = match &seen.log {
                Ok(log) => log.live,
                Err(_) => self.is_live(seen.index)?,
            };
            if live {
                return Err(Error::of_kind(OP, ErrorKind::Busy)
                    .with_path(log_path(seen.index))
                    .with_detail("the ledger is damaged, and a process that uses it lives")
                    .with_advice("end that process, then repair"));
            }
        }
        let mut horizon = peek.horizon.unwrap_or(0);
        let mut last = peek.last.unwrap_or(0);
        for seen in &logs {
            let Some(dir) = self.log_dir(seen.index)? else {
                continue;
            };
            let counts = |kind| matches!(kind, COMMIT | COMMIT_IN_FILE);
            let numbers = journal::numbers(&dir, counts).map_err(|e| {
                e.with_operation(OP)
                    .map_paths(|p| log_path(seen.index).join(p))
            })?;
            last = last.max(numbers.highest);
            if peek.horizon.is_none() {
                // Records are released when all up to their number is in place, durably.
                horizon = horizon.max(numbers.released);
            }
        }
        for conflict in &self.look.conflicts()?.0 {
            last = last.max(conflict.transaction());
        }
        for (_, read) in self.look.abandoned()? {
            last = last.max(read.map_or(0, |a| a.number));
        }
        last = last.max(horizon);
        if !peek.missing {
            self.link_aside(ledger::FILE)?;
        }
        ledger::rebuild(&self.look.dir, horizon, last).map_err(|e| e.with_operation(OP))?;
        self.out.ledger = Some(RebuiltLedger { horizon, last });
        self.changed.insert(None);
        self.sync()
    }

    fn log_dir(&self, index: u32) -> Result<Option<Dir>> {
        let Some(logs) = self.look.sub(Sub::Logs)? else {
            return Ok(None);
        };
        match writers::open_in(&logs, index) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if e.errno() == Some(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.with_operation(OP)),
        }
    }

    fn is_live(&self, index: u32) -> Result<bool> {
        match self.log_dir(index) {
            Ok(Some(dir)) => journal::is_live(&dir),
            Ok(None) => Ok(false),
            Err(e) if matches!(e.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn logs(&mut self) -> Result<()> {
        let Some(logs) = self.look.sub(Sub::Logs)? else {
            return Ok(());
        };
        for name in names_in(&logs, OP)? {
            let Some(index) = writers::parse(name.as_bytes()) else {
                continue;
            };
            let dir = match writers::open_in(&logs, index) {
                Ok(dir) => dir,
                Err(e) => match e.errno() {
                    Some(Errno::NOENT) => continue,
                    Some(Errno::NOTDIR | Errno::LOOP) => {
                        self.move_aside(&logs, Some(Place::Logs), &name)?;
                        continue;
                    }
                    _ => return Err(e.with_operation(OP)),
                },
            };
            let path = log_path(index);
            self.rescue(index, &dir)?;
            let repaired = match journal::repair(&dir) {
                Ok(repaired) => repaired,
                // Somebody's; or it was never filled.
                Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::NotFound) => continue,
                Err(e) => return Err(e.with_operation(OP).map_paths(|p| path.join(p))),
            };
            let aside = repaired.set_aside.iter().map(|name| path.join(name));
            self.out.set_aside.extend(aside);
            if let Some(damage) = repaired.damage {
                let readable = repaired.given_up.iter().filter_map(|g| g.readable);
                let numbers: BTreeSet<u64> = readable
                    .filter(|(kind, number)| *kind >= COMMIT && *number > 0)
                    .map(|(_, number)| number)
                    .collect();
                let unreadable = repaired.given_up.iter().filter(|g| g.readable.is_none());
                self.out.logs.push(RepairedLog {
                    index,
                    damage,
                    last: repaired.last,
                    everything: repaired.last == 0 && repaired.given_up.is_empty(),
                    given_up: numbers.into_iter().collect(),
                    unreadable: unreadable.count() as u64,
                });
            }
        }
        Ok(())
    }

    /// What a damaged log has under private names, and what of it stands does not speak of, would be litter
    /// when it is repaired.
    fn rescue(&mut self, index: u32, dir: &Dir) -> Result<()> {
        let log = journal::inspect(dir).map_err(|e| e.with_operation(OP))?;
        if log.live || !matches!(log.end, End::Corrupt(_)) {
            return Ok(());
        }
        // Taking one back needs what it has put away.
        if log.records.iter().any(is_of_section) {
            return Ok(());
        }
        self.put_away(index, &log.records)
    }

    /// Decisions that cannot be read: what they are about is tried again.
    fn decisions(&mut self) -> Result<()> {
        let Some(dir) = self.look.folder(abandoned::FOLDER)? else {
            return Ok(());
        };
        for (name, read) in self.look.abandoned()? {
            match read {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    self.move_aside(&dir, Some(Place::Abandoned), &name)?;
                    let path = Path::new(&abandoned::shown()).join(&name);
                    self.out.notes.push(path);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Records that stand and make no sense, or whose file is lost: they are given up.
    fn records(&mut self) -> Result<()> {
        let horizon = self.look.ledger()?.horizon.unwrap_or(0);
        let known: BTreeSet<u64> = (self.look.abandoned()?.into_iter())
            .filter_map(|(_, read)| read.ok())
            .filter(|what| what.unread)
            .map(|what| what.number)
            .collect();
        for seen in self.look.logs()? {
            let log = match seen.log {
                Ok(log) if !log.live && !matches!(log.end, End::Corrupt(_)) => log,
                _ => continue,
            };
            for entry in &log.records {
                let number = entry.transaction;
                if number <= horizon || known.contains(&number) {
                    continue;
                }
                match self.look.commit(entry) {
                    Ok(_) => continue,
                    Err(e) if is_lost(&e) => {}
                    Err(e) => return Err(e.with_operation(OP)),
                }
                self.give_up(number)?;
            }
            self.sections(seen.index, &log.records, &known)?;
        }
        Ok(())
    }

    /// What it is about is not tried again.
    fn give_up(&mut self, number: u64) -> Result<()> {
        let what = Abandonment {
            number,
            how: Abandon::KeepOurs,
            unread: true,
            slots: BTreeSet::new(),
            changes: BTreeSet::new(),
        };
        abandoned::write(&self.look.dir, &what).map_err(|e| e.with_operation(OP))?;
        self.out.unreadable.push(number);
        Ok(())
    }

    fn conflicts(&mut self) -> Result<()> {
        let Some(dir) = self.look.sub(Sub::Conflicts)? else {
            return Ok(());
        };
        let (whole, damaged) = self.look.conflicts()?;
        if damaged.iter().all(|(_, e)| e.kind() != ErrorKind::Corrupt) {
            return match damaged.into_iter().next() {
                Some((_, error)) => Err(error.with_operation(OP)),
                None => Ok(()),
            };
        }
        // First what they may have kept: without them it would be litter.
        if let Some(kept) = self.look.sub(Sub::Kept)? {
            let needed = status::needed_logs(&self.look.logs()?, &self.look.ledger()?);
            let named: BTreeSet<&Name> = whole.iter().filter_map(|c| c.kept_name()).collect();
            for name in names_in(&kept, OP)? {
                let Some(owner) = writers::owner_of(&name) else {
                    continue;
                };
                let mut said = false;
                for (file, _) in &damaged {
                    let bytes = crate::workspace::private::read(&dir, file, 1 << 20)?;
                    let digits = name.as_bytes();
                    said |= bytes.windows(digits.len()).any(|w| w == digits);
                }
                if !named.contains(&name) && (said || !needed.contains(&owner)) {
                    self.move_aside(&kept, Some(Place::Kept), &name)?;
                }
            }
            self.sync()?;
        }
        for (name, error) in damaged {
            if error.kind() != ErrorKind::Corrupt {
                return Err(error.with_operation(OP));
            }
            self.move_aside(&dir, Some(Place::Conflicts), &name)?;
            self.out
                .notes
                .push(Path::new(&Sub::Conflicts.path()).join(&name));
        }
        Ok(())
    }
}

/// The private names that a mapping records.
fn private_names(mapping: &Mapping) -> Vec<Name> {
    let objects = mapping.objects.iter().filter_map(|object| match object {
        Object::New { staged: name, .. } | Object::Kept { name, .. } => Some(name.clone()),
        Object::Existing { .. } => None,
    });
    let changes = mapping.changes.iter().flat_map(|c| match &c.what {
        Set::Content { before, after } => vec![before.clone(), after.clone()],
        Set::Logged { name, .. } => vec![name.clone()],
        _ => Vec::new(),
    });
    objects.chain(changes).collect()
}

/// Whether a record cannot be understood, now or ever.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}
