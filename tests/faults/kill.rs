//! The process is killed before and after every call of every operation.

use crate::common::{concerned, spawn};
use crate::errno::{claims, is_empty_dir, sides, states, still_kept};
use crate::op::Op;
use crate::ops;
use crate::state::{Entry, State, state, sweep_all};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use steadfast::Root;
use steadfast::sys::hook::{self, ENV};

const OP: &str = "STEADFAST_FAULTS_OP";
const DIR: &str = "STEADFAST_FAULTS_DIR";
/// More calls than any operation makes.
const BOUND: u64 = 2000;
const SIGKILL: i32 = 9;

/// What the children are: this binary with two variables set. On its own it does nothing.
#[test]
fn child() {
    let (Some(name), Some(dir)) = (std::env::var_os(OP), std::env::var_os(DIR)) else {
        return;
    };
    let op = ops::all().into_iter().find(|op| *op.name == *name).unwrap();
    let root = Root::open(dir).unwrap();
    hook::arm_from_env();
    if let Err(fault) = (op.run)(&root) {
        assert!(!op.possible() && fault.unsupported, "{fault:?}");
    }
}

/// Runs the operation in a child that stops at a call. `false`: it came to its end before.
fn killed(op: &Op, dir: &Path, plan: &str) -> bool {
    // What the whole run is denied stays denied.
    let inherited = std::env::var(ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(ENV, format!("{inherited};{plan}"))
        .env(OP, op.name)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = spawn(&mut command).wait_with_output().unwrap();
    if child.status.signal() == Some(SIGKILL) {
        return true;
    }
    assert!(child.status.success(), "{}, {plan}: {child:?}", op.name);
    assert!(
        String::from_utf8_lossy(&child.stdout).contains("1 passed"),
        "{child:?}"
    );
    false
}

fn check(op: &Op, old: &State, new: &State, dir: &Path, context: &str) {
    let now = state(dir);
    for target in op.targets {
        let tree = now.tree(target);
        let whole = tree == old.tree(target) || tree == new.tree(target);
        // Without RENAME_NOREPLACE a folder's name is claimed by an empty one.
        let claimed = claims(op) && tree.is_some_and(is_empty_dir);
        let parents = op.traits.parents
            && tree.is_some_and(|t| t.values().all(|e| matches!(e, Entry::Dir(_))));
        assert!(
            whole || claimed || parents,
            "{context}: {target} is {tree:?}"
        );
    }
    // Only batches, for which each name is a file of its own, mix old and new.
    if !op.traits.partial || op.name.starts_with("swap") {
        let is_new = |t: &&&str| now.tree(t) == new.tree(t) && old.tree(t) != new.tree(t);
        let changed = op.targets.iter().filter(is_new).count();
        assert!(
            changed == 0 || changed == op.targets.len(),
            "{context}: in part"
        );
    }
    still_kept(op, old, &now, context);
    sides(op, old, new, &now, context);
}

/// One operation, killed at every call. Gives the number of kills and of failures.
fn kill_everywhere(top: &Path, op: &Op) -> (u64, u64) {
    let (old, new, calls) = states(top, op);
    let (mut kills, mut failed) = (0, 0);
    if !concerned(&calls) {
        return (0, 0);
    }
    for side in ["before", "after"] {
        for at in 1.. {
            assert!(at < BOUND, "{}: no end", op.name);
            let dir = tempfile::tempdir_in(top).unwrap();
            (op.before)(dir.path());
            let plan = format!("stop-{side}:{at}");
            if !killed(op, dir.path(), &plan) {
                break;
            }
            kills += 1;
            let context = format!("{}, {plan}", op.name);
            let checks = AssertUnwindSafe(|| {
                check(op, &old, &new, dir.path(), &context);
                sweep_all(dir.path(), op.traits.keep, &context);
                still_kept(op, &old, &state(dir.path()), &context);
            });
            failed += u64::from(catch_unwind(checks).is_err());
        }
    }
    (kills, failed)
}

#[test]
fn killed_at_every_call() {
    let top = crate::dir();
    let queue = Mutex::new(ops::all());
    let (kills, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let Some(op) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    let (k, f) = kill_everywhere(top.path(), &op);
                    kills.fetch_add(k, Ordering::Relaxed);
                    failed.fetch_add(f, Ordering::Relaxed);
                }
            });
        }
    });
    let kills = kills.into_inner();
    println!("{kills} processes killed");
    assert_eq!(failed.into_inner(), 0, "of {kills} killed processes");
}
