//! A kill, and an error, at every call of a transaction, and at every call of the recovery after it.

use crate::common::{no_child, output};
use crate::scripts::{self, Script};
use crate::tree::{Tree, difference, litter, tree};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, ENV, Plan};
use steadfast::workspace::{Workspace, WorkspaceOptions};
use steadfast::{DiskState, ErrorKind, Root};

const SCRIPT: &str = "STEADFAST_WORKSPACE_SCRIPT";
const DIR: &str = "STEADFAST_WORKSPACE_DIR";
/// More calls than any of them makes.
const BOUND: u64 = 5000;
const SIGKILL: i32 = 9;

/// What the children are: this binary with two variables set. On its own it does nothing. An empty name
/// stands for opening the workspace, which recovers.
#[test]
fn child() {
    let (Some(name), Some(dir)) = (std::env::var_os(SCRIPT), std::env::var_os(DIR)) else {
        return;
    };
    let root = Root::open(dir).unwrap();
    if name.is_empty() {
        hook::arm_from_env();
        Workspace::open(&root).unwrap().close().unwrap();
        return;
    }
    if let Some(case) = name.to_str().and_then(crate::folders::case) {
        let workspace = Workspace::open(&root).unwrap();
        hook::arm_from_env();
        (case.run)(&workspace).unwrap();
        return;
    }
    let script = scripts::all().into_iter().find(|s| *s.name == *name);
    // What is displaced waits in every other one, and goes when the workspace is closed.
    let later = if name.len().is_multiple_of(2) {
        1
    } else {
        usize::MAX
    };
    let options = WorkspaceOptions::new().remove_later_from(later);
    let workspace = options.open(&root).unwrap();
    hook::arm_from_env();
    let mut tx = workspace.begin();
    (script.unwrap().run)(&mut tx).unwrap();
    tx.commit().unwrap();
    workspace.close().unwrap();
}

/// Runs a child that stops at a call. `false`: it came to its end before.
pub(crate) fn killed(script: &str, dir: &Path, plan: &str) -> bool {
    // What the whole run is denied stays denied.
    let inherited = std::env::var(ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "faults::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ENV, format!("{inherited};{plan}"))
        .env(SCRIPT, script)
        .env(DIR, dir);
    let child = output(&mut command).unwrap();
    if child.status.signal() == Some(SIGKILL) {
        return true;
    }
    assert!(child.status.success(), "{script}, {plan}: {child:?}");
    assert!(
        String::from_utf8_lossy(&child.stdout).contains("1 passed"),
        "{child:?}"
    );
    false
}

/// A directory with the tree before, and a workspace; and what it looks like after.
pub(crate) fn prepared(top: &Path, script: &Script) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(top).unwrap();
    (script.before)(dir.path());
    let workspace = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
    workspace.close().unwrap();
    dir
}

/// The first call of which this holds, as it then does of all after it that are made.
fn first(holds: impl Fn(u64) -> bool) -> u64 {
    let mut high = 16;
    while !holds(high) {
        high *= 2;
        assert!(high < BOUND, "none");
    }
    let mut low = if high == 16 { 1 } else { high / 2 + 1 };
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn states(top: &Path, script: &Script) -> (Tree, Tree) {
    let dir = prepared(top, script);
    let old = tree(dir.path());
    let workspace = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
    let mut tx = workspace.begin();
    (script.run)(&mut tx).unwrap();
    tx.commit()
        .unwrap_or_else(|e| panic!("{}: {e}", script.name));
    workspace.close().unwrap();
    let new = tree(dir.path());
    assert_ne!(old, new, "{}: it does nothing", script.name);
    (old, new)
}

/// What must hold once somebody has opened the workspace: all old or all new, nothing else, nobody needed.
pub(crate) fn check(dir: &Path, old: &Tree, new: &Tree, context: &str) -> bool {
    check_in_doubt(dir, old, new, context, false)
}

/// With `in_doubt` a sync of the file system may have failed: then the log is not given up before the next
/// mount.
pub(crate) fn check_in_doubt(
    dir: &Path,
    old: &Tree,
    new: &Tree,
    context: &str,
    in_doubt: bool,
) -> bool {
    let workspace = opened(dir, context);
    let now = tree(dir);
    assert!(
        now == *old || now == *new,
        "{context}: a mixture\n{}\nor\n{}",
        difference(&now, old),
        difference(&now, new)
    );
    closed(dir, workspace, context, in_doubt);
    now == *new
}

/// Somebody else opens it after a kill, and finds nothing in the way and nothing left.
pub(crate) fn usable(dir: &Path, context: &str) {
    closed(dir, opened(dir, context), context, false);
}

fn opened(dir: &Path, context: &str) -> Workspace {
    let root = Root::open(dir).unwrap();
    let options = WorkspaceOptions::new().create(false);
    let workspace = options
        .open(&root)
        .unwrap_or_else(|e| panic!("{context}: {e}"));
    let found = workspace.conflicts().unwrap();
    assert!(found.is_empty(), "{context}: {found:?}");
    workspace
}

fn closed(dir: &Path, workspace: Workspace, context: &str, in_doubt: bool) {
    // Nothing is held: the whole root can be claimed at once.
    let mut tx = workspace.begin();
    tx.claim(["."]).unwrap_or_else(|e| panic!("{context}: {e}"));
    drop(tx);
    match workspace.settle().and_then(|()| workspace.close()) {
        Err(e) if in_doubt && e.kind() == ErrorKind::Poisoned => return,
        done => done.unwrap_or_else(|e| panic!("{context}: {e}")),
    }
    assert_eq!(litter(dir), Vec::<std::path::PathBuf>::new(), "{context}");
}

#[derive(Default)]
struct Count {
    runs: AtomicU64,
    failed: AtomicU64,
    new: AtomicU64,
}

/// Runs `f` for every script, two at a time, and gathers what failed.
fn for_all(what: &str, f: impl Fn(&Path, &Script, &Count) + Sync) {
    let top = crate::dir();
    let queue = Mutex::new(scripts::all());
    let count = Count::default();
    let only = std::env::var("STEADFAST_ONLY").ok();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let Some(script) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    if only
                        .as_ref()
                        .is_some_and(|only| !script.name.contains(only))
                    {
                        continue;
                    }
                    let run = AssertUnwindSafe(|| f(top.path(), &script, &count));
                    if catch_unwind(run).is_err() {
                        count.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (runs, new) = (count.runs.into_inner(), count.new.into_inner());
    println!("{what}: {runs} runs, {new} of them new afterwards");
    assert_eq!(count.failed.into_inner(), 0, "{what}: of {runs} runs");
    assert!(
        only.is_some() || (new > 0 && new < runs),
        "{what}: both are to be seen"
    );
}

impl Count {
    fn run(&self, f: impl FnOnce() -> bool) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(true) => drop(self.new.fetch_add(1, Ordering::Relaxed)),
            Ok(false) => {}
            Err(_) => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[test]
fn killed_at_every_call() {
    for_all("killed", |top, script, count| {
        let (old, new) = states(top, script);
        for side in ["before", "after"] {
            for at in (1..).step_by(crate::step(1)) {
                assert!(at < BOUND, "{}: no end", script.name);
                let dir = prepared(top, script);
                let plan = format!("stop-{side}:{at}");
                if !killed(script.name, dir.path(), &plan) {
                    break;
                }
                let context = format!("{}, {plan}", script.name);
                count.run(|| check(dir.path(), &old, &new, &context));
            }
        }
    });
}

/// The first kill leaves most to do: the record is durable and no name is changed yet.
#[test]
fn recovery_killed_at_every_call() {
    for_all("recovery killed", |top, script, count| {
        let (old, new) = states(top, script);
        // Where the names begin to change: the first kill after which the result is new.
        let first = first(|at| {
            let dir = prepared(top, script);
            // What comes to its end is new as well.
            let _ = killed(script.name, dir.path(), &format!("stop-before:{at}"));
            check(dir.path(), &old, &new, script.name)
        });
        for kill in [first, first + 2, first + 5] {
            for at in (1..BOUND).step_by(crate::step(4)) {
                let dir = prepared(top, script);
                if !killed(script.name, dir.path(), &format!("stop-before:{kill}")) {
                    return;
                }
                let plan = format!("stop-before:{at}");
                if !killed("", dir.path(), &plan) {
                    break;
                }
                let context = format!("{}, killed at {kill}, recovery {plan}", script.name);
                count.run(|| check(dir.path(), &old, &new, &context));
            }
        }
        // A sight of the old state as well, for the count.
        let dir = prepared(top, script);
        count.run(|| check(dir.path(), &old, &new, script.name));
    });
}

#[test]
fn an_error_at_every_call_leaves_what_it_says() {
    let all = [
        Errno::IO,
        Errno::NOSPC,
        Errno::INTR,
        Errno::ACCESS,
        Errno::MFILE,
        Errno::DQUOT,
    ];
    for_all("errors", |top, script, count| {
        let (old, new) = states(top, script);
        for at in (1..).step_by(crate::step(1)) {
            assert!(at < BOUND, "{}: no end", script.name);
            // A different errno at each call in turn, all of them in the long form.
            let some = usize::try_from(at).unwrap() % all.len();
            let errnos = if crate::long() {
                &all[..]
            } else {
                &all[some..=some]
            };
            let mut reached = false;
            for errno in errnos {
                for action in [Action::Fail(*errno), Action::FailAfter(*errno)] {
                    // No kernel has done the work and says that it was interrupted.
                    if action == Action::FailAfter(Errno::INTR) {
                        continue;
                    }
                    // A child of another test would hold the locks of what is dropped until its exec.
                    let _alone = no_child();
                    let dir = prepared(top, script);
                    let root = Root::open(dir.path()).unwrap();
                    let workspace = Workspace::open(&root).unwrap();
                    let plan = Plan { at, action };
                    let (done, calls) = hook::scope(Some(plan), || {
                        let mut tx = workspace.begin();
                        (script.run)(&mut tx)?;
                        tx.commit()
                    });
                    reached |= calls.len() as u64 >= at;
                    let name = calls.get(usize::try_from(at).unwrap() - 1);
                    let context = format!("{}, {action:?} at {at} {name:?}", script.name);
                    count.run(|| {
                        let now = tree(dir.path());
                        match &done {
                            Ok(_) => assert_eq!(now, new, "{context}"),
                            Err(e) => match e.disk_state() {
                                DiskState::Unchanged => assert_eq!(now, old, "{context}: {e}"),
                                DiskState::Committed | DiskState::Indeterminate => {}
                                other => panic!("{context}: {other:?} {e}"),
                            },
                        }
                        let committed = match &done {
                            Ok(_) => Some(true),
                            Err(e) if e.disk_state() == DiskState::Committed => Some(true),
                            Err(e) if e.disk_state() == DiskState::Unchanged => Some(false),
                            Err(_) => None,
                        };
                        // It goes on: this workspace works again, or says that it must be opened anew.
                        let again = workspace.begin().commit();
                        if let Err(e) = again {
                            assert_eq!(e.kind(), ErrorKind::Poisoned, "{context}: {e}");
                        }
                        drop(workspace);
                        let in_doubt = name == Some(&"syncfs");
                        let is_new = check_in_doubt(dir.path(), &old, &new, &context, in_doubt);
                        if let Some(committed) = committed {
                            assert_eq!(is_new, committed, "{context}: {done:?}");
                        }
                        is_new
                    });
                }
            }
            if !reached {
                break;
            }
        }
    });
}

/// Runs a script whose calls all fail from one on, so that nothing more is done: what a kill there leaves,
/// without a process for each. Whoever calls it holds [`no_child`] until nobody looks at locks any more.
fn cut_off(dir: &Path, script: &Script, at: u64) {
    let workspace = Workspace::open(&Root::open(dir).unwrap()).unwrap();
    let plan = Plan {
        at,
        action: Action::FailFrom(Errno::IO),
    };
    let (done, _) = hook::scope(Some(plan), || {
        let mut tx = workspace.begin();
        let done = (script.run)(&mut tx).and_then(|()| tx.commit().map(drop));
        drop(workspace);
        done
    });
    assert!(done.is_err(), "{}: not cut off at {at}", script.name);
}

/// The first call of a script after its record is durable: most of what it decided is left to recovery.
fn decided(top: &Path, script: &Script, old: &Tree, new: &Tree) -> u64 {
    let dir = prepared(top, script);
    let workspace = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
    let ((), calls) = hook::scope(None, || {
        let mut tx = workspace.begin();
        (script.run)(&mut tx).unwrap();
        tx.commit().unwrap();
    });
    drop(workspace);
    // The last fdatasync is that of the record: what follows is not synced.
    let _alone = no_child();
    let record = calls.iter().rposition(|call| *call == "fdatasync").unwrap();
    let next = u64::try_from(record).unwrap() + 2;
    let dir = prepared(top, script);
    cut_off(dir.path(), script, next);
    let context = format!("{}, cut off at {next}", script.name);
    assert!(
        check(dir.path(), old, new, &context),
        "{context}: not decided"
    );
    next
}

/// An error at every call of the recovery of what was decided and not begun.
#[test]
fn an_error_at_every_call_of_recovery_loses_nothing() {
    // Not ENOENT: who is told that a file is gone takes it for somebody else's work.
    let all = [
        Errno::IO,
        Errno::NOSPC,
        Errno::INTR,
        Errno::ACCESS,
        Errno::MFILE,
        Errno::DQUOT,
    ];
    for_all("recovery with errors", |top, script, count| {
        let (old, new) = states(top, script);
        let record = decided(top, script, &old, &new);
        for at in (1..).step_by(crate::step(5)) {
            assert!(at < BOUND, "{}: no end", script.name);
            let some = usize::try_from(at).unwrap() % all.len();
            let errnos = if crate::long() {
                &all[..]
            } else {
                &all[some..=some]
            };
            let mut reached = false;
            for errno in errnos {
                for action in [Action::Fail(*errno), Action::FailAfter(*errno)] {
                    if action == Action::FailAfter(Errno::INTR) {
                        continue;
                    }
                    let _alone = no_child();
                    let dir = prepared(top, script);
                    cut_off(dir.path(), script, record);
                    count.run(|| {
                        let root = Root::open(dir.path()).unwrap();
                        let plan = Plan { at, action };
                        let (done, calls) =
                            hook::scope(Some(plan), || Workspace::open(&root).map(drop));
                        reached |= calls.len() as u64 >= at;
                        let name = calls.get(usize::try_from(at).unwrap() - 1);
                        let context =
                            format!("{}, {action:?} at {at} {name:?}, {done:?}", script.name);
                        let in_doubt = name == Some(&"syncfs");
                        let is_new = check_in_doubt(dir.path(), &old, &new, &context, in_doubt);
                        assert!(is_new, "{context}: it is lost");
                        true
                    });
                }
            }
            if !reached {
                break;
            }
        }
        // A sight of the old state as well, for the count.
        let dir = prepared(top, script);
        count.run(|| check(dir.path(), &old, &new, script.name));
    });
}
