//! Giving up a transaction that cannot be finished, so that the workspace can be opened again.

use super::explain::not_found;
use super::status::{path, text};
use super::words;
use crate::journal::Entry;
use crate::workspace::abandoned::{self, Abandon, Abandonment};
use crate::workspace::conflict::ConflictId;
use crate::workspace::give_up;
use crate::workspace::mapping::{Mapping, Object, Place};
use crate::workspace::record::{COMMIT, COMMIT_IN_FILE, Commit};
use crate::workspace::recover;
use crate::workspace::section::{self, is_of_section};
use crate::workspace::state::State;
use crate::workspace::whereabouts::{Folders, Progress, Whereabouts};
use crate::workspace::writers::{self, DeadLog};
use crate::{Error, ErrorKind, Result, Root};
use std::path::PathBuf;
use std::time::Duration;

const OP: &str = "abandon transaction";
const WAIT: Duration = Duration::from_secs(10);

/// What was given up of a transaction: [`abandon`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Abandoned {
    /// Its number.
    pub number: u64,
    /// The caller's text for people.
    pub label: String,
    /// What is in place, and stays.
    pub done: Vec<AbandonedStep>,
    /// What is given up.
    pub given_up: Vec<AbandonedStep>,
    /// Conflicts under which new things are kept. They close their paths until they are resolved.
    pub conflicts: Vec<ConflictId>,
}

/// One name, or one change of a thing that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct AbandonedStep {
    /// The path beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub path: PathBuf,
    /// What the transaction does there, in words.
    pub what: String,
}

/// Gives up what is not in place of a committed transaction whose process has died, and which cannot be
/// finished: a permission was taken away, a directory is gone. What is done stays done. What is not is given
/// up: new things are kept or dropped as `how` says, and what existed before is where it was, or kept beside.
/// Afterwards the workspace can be opened.
///
/// A protected section that cannot be taken back, because its hook is missing or what it needs is lost, is
/// given up as a whole: everything stays as it is, and what was there before is kept in the state folder, as
/// [`Abandoned::given_up`] tells, or dropped. Hooks are not called.
///
/// It is for people who have looked at it ([`explain`](super::explain)): a transaction that is given up is
/// not atomic any more.
///
/// # Errors
/// [`ErrorKind::NotFound`]: there is no such transaction, or it is in place. [`ErrorKind::Busy`]: its process
/// lives. [`ErrorKind::Conflict`]: a later transaction that is not finished either builds on it: give that up
/// first. [`ErrorKind::Corrupt`]: a log is damaged: [`repair`](super::repair) first.
/// Else as opening a workspace.
///
/// # After a crash
/// It was given up or not; if it was, opening the workspace does the rest, and so does calling this again.
pub fn abandon(root: &Root, number: u64, how: Abandon) -> Result<Abandoned> {
    operation!("abandon transaction", number = number);
    let state = State::open(root, false).map_err(|e| e.with_operation(OP))?;
    if state.is_copy() {
        return Err(Error::of_kind(OP, ErrorKind::Changed)
            .with_detail("this is a copy of a workspace: its work belongs to the original"));
    }
    let _alone = state.ledger.recovery_lock(WAIT)?;
    let dead = writers::open_dead(&state)?;
    let section = section::give_up(&state, &dead, number, how);
    if let Some(gone) = section.map_err(|e| e.with_operation(OP))? {
        let kept = |path: PathBuf| AbandonedStep {
            what: format!("what was there before is kept as {}", path.display()),
            path,
        };
        return Ok(Abandoned {
            number,
            label: text(&gone.label),
            done: Vec::new(),
            given_up: gone.kept.into_iter().map(kept).collect(),
            conflicts: Vec::new(),
        });
    }
    let (commit, later) = find(&state, dead.as_slice(), number)?;
    if let Some(later) = later
        .iter()
        .filter(|c| builds_on(c, &commit))
        .max_by_key(|c| c.number)
    {
        return Err(Error::of_kind(OP, ErrorKind::Conflict)
            .with_detail(format!("transaction {} builds on it", later.number))
            .with_advice(format!("abandon {} first", later.number)));
    }
    let folders = Folders {
        staged: Some(state.staged.try_clone()?),
        kept: Some(state.kept.try_clone()?),
        retired: Some(state.retired.try_clone()?),
        keys: Some(state.keys.try_clone()?),
    };
    let seen = Whereabouts::new(root, &folders, &commit.mapping);
    let (mut slots, mut changes) = give_up::unfinished(&seen);
    let mut how = how;
    if let Some(before) = abandoned::read(&state.dir, number)? {
        // It was decided already, and may be done in part.
        slots.extend(before.slots);
        changes.extend(before.changes);
        how = before.how;
    }
    let what = Abandonment {
        number,
        how,
        unread: false,
        slots,
        changes,
    };
    let mut out = describe(&seen, &commit, &what);
    drop(seen);
    abandoned::write(&state.dir, &what)?;
    out.conflicts = give_up::set_aside(root, &state, &commit, &what)?;
    drop(dead);
    Ok(out)
}

/// The transaction, if it is a dead one's and not in place, and all later ones of dead logs.
fn find(state: &State, dead: &[DeadLog], number: u64) -> Result<(Commit, Vec<Commit>)> {
    let marks = state.ledger.dead()?;
    let horizon = state.ledger.horizon()?;
    let (mut wanted, mut later) = (None, Vec::new());
    for log in dead {
        let (_, found) = match &log.log {
            Ok(log) => log,
            Err(e) => {
                return Err(e.met_by(OP).with_advice("repair the workspace first"));
            }
        };
        for entry in &found.records {
            if entry.transaction < number || entry.transaction <= horizon {
                continue;
            }
            let Some(commit) = recover::read(state, entry)? else {
                continue;
            };
            if !recover::is_pending(&commit, state.incarnation(), &marks) {
                continue;
            }
            if commit.number == number {
                wanted = Some(commit);
            } else {
                later.push(commit);
            }
        }
    }
    match wanted {
        Some(commit) => Ok((commit, later)),
        None => Err(why_not(state, dead, number)?),
    }
}

/// Why there is nothing to give up.
fn why_not(state: &State, dead: &[DeadLog], number: u64) -> Result<Error> {
    for (index, live) in writers::list(state)? {
        let found = writers::inspect(state, index)?;
        let own = |e: &Entry| {
            e.transaction == number
                && (is_of_section(e) || [COMMIT, COMMIT_IN_FILE].contains(&e.kind))
        };
        // The dead ones are held by us.
        let live = live && !dead.iter().any(|d| d.index == index);
        if live && found.records.iter().any(own) {
            return Ok(Error::of_kind(OP, ErrorKind::Busy)
                .with_detail(format!(
                    "the process with log {index} lives, and works on it"
                ))
                .with_advice("end that process first"));
        }
    }
    Ok(not_found(OP, number))
}

/// Whether a later transaction is about something that an earlier one is about.
fn builds_on(later: &Commit, earlier: &Commit) -> bool {
    let paths = |m: &Mapping| -> Vec<Vec<u8>> {
        let slots = m.slots.iter().map(|s| s.path.clone());
        let places = m.places.iter().filter_map(|p| match p {
            // The root is above everything; names in it are slots.
            Place::Existing { path, .. } if !path.is_empty() => Some(path.clone()),
            _ => None,
        });
        slots.chain(places).collect()
    };
    let is_in = |a: &[u8], b: &[u8]| {
        a.strip_prefix(b)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let slots: Vec<&[u8]> = (earlier.mapping.slots.iter())
        .filter(|s| !s.is_as_before())
        .map(|s| s.path.as_slice())
        .collect();
    let by_path = paths(&later.mapping)
        .iter()
        .any(|l| slots.iter().any(|e| is_in(l, e)));
    let ident = crate::workspace::compose::ident_of;
    let by_thing = later.mapping.objects.iter().any(|l| {
        matches!(l, Object::Existing { .. })
            && earlier
                .mapping
                .objects
                .iter()
                .any(|e| ident(e).is(ident(l)))
    });
    by_path || by_thing
}

fn describe(seen: &Whereabouts<'_>, commit: &Commit, what: &Abandonment) -> Abandoned {
    let mapping = &commit.mapping;
    let mut out = Abandoned {
        number: commit.number,
        label: text(&commit.label),
        done: Vec::new(),
        given_up: Vec::new(),
        conflicts: Vec::new(),
    };
    for (ix, slot) in mapping.slots.iter().enumerate() {
        if slot.is_as_before() {
            continue;
        }
        let step = AbandonedStep {
            path: path(&slot.path),
            what: words::slot(mapping, slot),
        };
        match what.slots.contains(&ix) && seen.progress(ix) != Progress::After {
            true => out.given_up.push(step),
            false => out.done.push(step),
        }
    }
    for (ix, change) in mapping.changes.iter().enumerate() {
        let step = AbandonedStep {
            path: path(words::changed_path(mapping, change)),
            what: words::change(mapping, change),
        };
        match what.changes.contains(&ix) {
            true => out.given_up.push(step),
            false => out.done.push(step),
        }
    }
    out
}
