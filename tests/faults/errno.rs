//! Every call of every operation fails once with every errno, and once after it was carried out.

use crate::common::{concerned, no_child};
use crate::op::{Op, Outcome};
use crate::ops;
use crate::state::{Entry, State, Tree, same_content, state, sweep_all};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, Root};

/// At every call.
const ALWAYS: [Action; 3] = [
    Action::Fail(Errno::INTR),
    Action::Fail(Errno::IO),
    Action::FailAfter(Errno::IO),
];
/// At every call in turn, or all of them in the long form and in memory.
const IN_TURN: [Errno; 4] = [Errno::NOSPC, Errno::ACCESS, Errno::MFILE, Errno::DQUOT];

/// More calls than any operation makes: a loop that never ends fails.
const BOUND: u64 = 2000;

/// A fresh directory with the operation's old state.
fn prepared(top: &Path, op: &Op) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(top).unwrap();
    (op.before)(dir.path());
    dir
}

/// Old and new state of an operation that nobody disturbs, and its calls.
pub(crate) fn states(top: &Path, op: &Op) -> (State, State, Vec<&'static str>) {
    // A child that another test starts would hold, until its exec, what was open here at its fork, and a
    // sweep would leave it.
    let _no_child = no_child();
    let dir = prepared(top, op);
    let old = state(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let (done, calls) = hook::scope(None, || (op.run)(&root));
    let new = state(dir.path());
    if op.possible() {
        let done = done.unwrap_or_else(|e| panic!("{}: {e:?}", op.name));
        assert!(
            done.left.is_empty() && !done.narrowed,
            "{}: {done:?}",
            op.name
        );
        assert!(new.temps.is_empty(), "{}: {:?}", op.name, new.temps);
        assert!(
            op.traits.sweeps || old.names != new.names,
            "{} does nothing",
            op.name
        );
    } else {
        let fault = done.unwrap_err();
        assert!(
            fault.unsupported && fault.state == DiskState::Unchanged,
            "{}",
            fault.text
        );
        assert_eq!(old, new);
    }
    (old, new, calls)
}

fn sweep_over(ops: Vec<Op>) {
    let top = crate::dir();
    let everything = crate::long() || top.path().starts_with("/dev/shm");
    let (mut swept, mut runs, mut failed) = (0, 0, 0);
    for op in &ops {
        let (old, new, undisturbed) = states(top.path(), op);
        if !concerned(&undisturbed) {
            continue;
        }
        swept += 1;
        let mut calls = 0;
        let in_turn = IN_TURN.map(Action::Fail);
        for (turn, action) in ALWAYS.into_iter().chain(in_turn).enumerate() {
            for at in 1.. {
                assert!(at < BOUND, "{}: no end", op.name);
                if turn >= ALWAYS.len()
                    && !everything
                    && at as usize % IN_TURN.len() != turn - ALWAYS.len()
                {
                    if at > calls {
                        break;
                    }
                    continue;
                }
                let alone = no_child();
                let dir = prepared(top.path(), op);
                let root = Root::open(dir.path()).unwrap();
                let (outcome, seen) = hook::scope(Some(Plan { at, action }), || (op.run)(&root));
                // Nothing of this process is open any more.
                drop(alone);
                calls = calls.max(seen.len() as u64);
                let Some(call) = seen.get(at as usize - 1) else {
                    break;
                };
                runs += 1;
                let context = format!("{}, call {at} {call}, {action:?}: {outcome:?}", op.name);
                let checks = AssertUnwindSafe(|| {
                    check(op, &old, &new, &outcome, dir.path(), &context);
                    if action == Action::Fail(Errno::INTR) {
                        // A sync that was made again could answer 0 for data that is lost.
                        let once = ["fsync", "fdatasync", "syncfs"].contains(call);
                        let either = *call == "fcntl(F_SETLEASE)" || !op.possible();
                        assert!(either || outcome.is_ok() != once, "{context}: made again?");
                    }
                    sweep_all(dir.path(), op.traits.keep, &context);
                    still_kept(op, &old, &state(dir.path()), &context);
                });
                // All that is wrong is told, not only the first.
                failed += u32::from(catch_unwind(checks).is_err());
                fs::remove_dir_all(dir.path()).unwrap();
            }
        }
    }
    println!("{swept} of {} operations, {runs} disturbed runs", ops.len());
    assert_eq!(failed, 0, "of {runs} disturbed runs");
}

fn check(op: &Op, old: &State, new: &State, outcome: &Outcome, dir: &Path, context: &str) {
    let now = state(dir);
    let narrowed = outcome.as_ref().is_ok_and(|done| done.narrowed);
    let (target_state, left) = match outcome {
        Ok(done) => (None, &done.left),
        Err(fault) => (Some(fault.state), &fault.left),
    };
    for temp in now.temps.keys() {
        assert!(
            op.traits.sweeps || left.contains(temp),
            "{context}: {temp:?} is left"
        );
    }
    still_kept(op, old, &now, context);
    match target_state {
        None => {
            // What a success could not remove, it says.
            let extra = now.names.keys().filter(|n| !new.names.contains_key(*n));
            assert!(extra.into_iter().all(|n| left.contains(n)), "{context}");
            for (name, tree) in &new.names {
                let found = now
                    .names
                    .get(name)
                    .unwrap_or_else(|| panic!("{context}: {name:?}"));
                let displaced: Vec<_> = op.targets.iter().filter_map(|t| old.tree(t)).collect();
                let same = found == tree
                    || narrowed && same_content(found, tree)
                    || op.traits.nested
                        && left.contains(&PathBuf::from("in/next"))
                        && below(Some(found), &displaced, old.names.get(name));
                assert!(same, "{context}: {name:?} is {found:?}");
            }
        }
        Some(DiskState::Unchanged) => {
            let (now, old) = if op.traits.parents {
                (now.without_empty_dirs(), old.clone().without_empty_dirs())
            } else {
                (now, old.clone())
            };
            assert_eq!(now.names, old.names, "{context}: not unchanged");
        }
        Some(DiskState::Published) => {
            for target in op.targets {
                assert_eq!(
                    now.tree(target),
                    new.tree(target),
                    "{context}: {target} is not new"
                );
            }
            sides(op, old, new, &now, context);
        }
        Some(_) => {
            let known = !op.traits.partial && !claims(op);
            assert!(!known, "{context}: the state must be known");
            for target in op.targets {
                let tree = now.tree(target);
                let whole = tree == old.tree(target)
                    || tree == new.tree(target)
                    || claims(op) && tree.is_some_and(is_empty_dir);
                assert!(whole, "{context}: {target} is neither old nor new");
            }
            sides(op, old, new, &now, context);
        }
    }
}

/// What was to be kept is there, under whatever name.
pub(crate) fn still_kept(op: &Op, old: &State, now: &State, context: &str) {
    if op.traits.keep {
        for tree in op.targets.iter().filter_map(|t| old.tree(t)) {
            assert!(now.holds(tree), "{context}: what was to be kept is lost");
        }
    }
}

/// Names beside the target: as before or after, or they hold what was replaced.
pub(crate) fn sides(op: &Op, old: &State, new: &State, now: &State, context: &str) {
    let displaced: Vec<_> = op.targets.iter().filter_map(|t| old.tree(t)).collect();
    for name in old.names.keys().chain(new.names.keys()) {
        if op.targets.iter().any(|t| Path::new(t) == name) {
            continue;
        }
        let tree = now.names.get(name);
        let claimed = claims(op)
            && tree.is_some_and(|t| is_empty_dir(t) || Some(&unclaimed(t)) == old.names.get(name));
        let expected = tree == old.names.get(name)
            || tree == new.names.get(name)
            || claimed
            || tree.is_some_and(|t| displaced.contains(&t))
            || op.traits.nested && below(tree, &displaced, old.names.get(name));
        assert!(expected, "{context}: {name:?} is {tree:?}");
    }
    for name in now.names.keys() {
        let known = old.names.contains_key(name) || new.names.contains_key(name);
        assert!(known, "{context}: {name:?} appeared");
    }
}

/// Whether the operation makes a name by an empty directory, the exclusive claim where `RENAME_NOREPLACE` is
/// missing; a failure or a kill may leave that.
pub(crate) fn claims(op: &Op) -> bool {
    op.traits.claims && hook::denied_by_env("renameat2(RENAME_NOREPLACE)")
}

pub(crate) fn is_empty_dir(tree: &Tree) -> bool {
    tree.len() == 1 && matches!(tree.get(Path::new("")), Some(Entry::Dir(_)))
}

/// A directory without the empty one in it that claims the name of what is kept.
fn unclaimed(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    if !tree
        .keys()
        .any(|path| path.starts_with("before") && path != Path::new("before"))
    {
        tree.remove(Path::new("before"));
    }
    tree
}

/// Whether a directory is as it was, but for one name in it, which holds what was replaced.
fn below(now: Option<&Tree>, displaced: &[&Tree], old: Option<&Tree>) -> bool {
    let (Some(now), Some(old)) = (now, old) else {
        return false;
    };
    let split = |tree: &Tree| -> (Tree, Tree) {
        let (inner, outer): (Tree, Tree) = tree
            .clone()
            .into_iter()
            .partition(|(path, _)| path.starts_with("next"));
        let inner = inner.into_iter().map(|(path, entry)| {
            let path = path.strip_prefix("next").unwrap().to_owned();
            (path, entry)
        });
        (inner.collect(), outer)
    };
    let ((inner, outer), (_, before)) = (split(now), split(old));
    outer == before && displaced.contains(&&inner)
}

#[test]
fn files() {
    sweep_over(ops::file_ops());
}

#[test]
fn folders() {
    sweep_over(ops::folder_ops());
}

#[test]
fn moves_and_swaps() {
    sweep_over(ops::move_ops());
    sweep_over(ops::swap_ops());
}

#[test]
fn batches() {
    sweep_over(ops::batch_ops());
}

#[test]
fn sweeps() {
    sweep_over(ops::sweep_ops());
}
