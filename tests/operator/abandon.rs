//! Giving up what cannot be finished, by itself and killed at every call; everything by a user without
//! privileges, for whom a directory can be closed.

use crate::common::skipped;
use crate::support::{
    BOUND, NOBODY, dir, identity, long, mixed, open, prepare, recover, root, run_as, snapshot,
    step, synced, texts,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::sys::{Errno, hook};
use steadfast::workspace::{
    Abandon, Ours, Resolution, TransactionState, Workspace, abandon, explain, status,
};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "sub/f", "n/x"];
const NEW: [&str; 7] = ["new a", "new b", "-", "old c", "-", "new f", "new x"];
const OLD: [&str; 7] = ["old a", "-", "old c", "-", "old e", "old f", "-"];

fn user() -> Option<u32> {
    rustix::process::getuid().is_root().then_some(NOBODY)
}

/// Runs `f` without privileges, in a prepared directory that belongs to the thread's user.
fn as_nobody(f: impl FnOnce(&Path) + Send) {
    let tmp = dir();
    let top = tmp.path().join("top");
    fs::create_dir(&top).unwrap();
    fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
    if let Some(user) = user() {
        chown(&top, Some(user), Some(user)).unwrap();
    }
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            if user().is_some() {
                use rustix::process::{Gid, Uid};
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            if let Err(e) = fs::read_dir(&top) {
                return skipped(
                    "abandon",
                    format_args!("nobody cannot reach the directory: {e}"),
                );
            }
            prepare(&top);
            f(&top);
            close(&top, 0o755);
        });
        thread.join().unwrap();
    });
}

fn run(job: &str, dir: &Path, plan: &str) -> bool {
    run_as(user(), job, dir, plan)
}

fn close(dir: &Path, mode: u32) {
    fs::set_permissions(dir.join("sub"), Permissions::from_mode(mode)).unwrap();
}

/// The number of a dead process's transaction that cannot be finished, if the child died at such a point.
fn stuck(dir: &Path, call: u64) -> Option<(u64, bool)> {
    let killed = run("mixed", dir, &format!("stop-before:{call}"));
    let seen = status(&root(dir)).unwrap();
    let dead = seen
        .transactions
        .iter()
        .find(|t| t.state == TransactionState::Dead);
    let number = dead.map(|t| t.number);
    close(dir, 0o555);
    number
        .map(|n| (n, killed))
        .filter(|_| texts(dir, &["sub/f"]) == ["old f"])
}

/// Nothing that existed is lost, and nothing is half.
fn check_tree(dir: &Path, context: &str) {
    let now = texts(dir, &NAMES);
    for (n, text) in now.iter().enumerate() {
        assert!(text == OLD[n] || text == NEW[n], "{context}: {now:?}");
    }
    let c = (now[2] == "old c") as u32 + (now[3] == "old c") as u32;
    assert_eq!(c, 1, "{context}: {now:?}");
}

fn is_blocked(dir: &Path, context: &str) {
    let error = open(dir).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::PermissionDenied,
        "{context}: {error}"
    );
}

/// After giving up: it opens, each new thing is kept or in place, and resolving puts all of it in place.
fn check_kept(dir: &Path, how: Abandon, context: &str) {
    let _ = recover(dir);
    check_tree(dir, context);
    let workspace = open(dir).unwrap();
    let conflicts = workspace.conflicts().unwrap();
    if how == Abandon::Drop {
        assert!(conflicts.is_empty(), "{context}: {conflicts:?}");
    }
    let now = texts(dir, &NAMES);
    for conflict in &conflicts {
        let Ours::Kept(kept) = conflict.ours() else {
            panic!("{context}: {conflict:?}");
        };
        assert!(dir.join(&kept).exists(), "{context}: {conflict:?}");
    }
    if how == Abandon::KeepOurs {
        close(dir, 0o755);
        for conflict in &conflicts {
            let ours = Resolution::KeepOurs;
            workspace
                .resolve(conflict.id(), &ours)
                .unwrap_or_else(|e| panic!("{context}: {e}"));
        }
        let resolved = texts(dir, &["a", "b", "sub/f", "n/x"]);
        assert_eq!(
            resolved,
            ["new a", "new b", "new f", "new x"],
            "{context}: {now:?}"
        );
        check_tree(dir, context);
    }
    workspace.close().unwrap();
    let seen = status(&root(dir)).unwrap();
    assert!(
        seen.problems.is_empty() && seen.transactions.is_empty(),
        "{context}: {seen}"
    );
    let left: u64 = seen.private.iter().map(|f| f.litter + f.owned).sum();
    assert_eq!(left, 0, "{context}: {seen}");
    let abandoned = dir.join(".steadfast/abandoned").read_dir().unwrap().count();
    assert_eq!(abandoned, 0, "{context}");
}

/// The child is killed at each call between its commit and its end.
#[test]
fn a_directory_that_was_closed() {
    let mut times = 0;
    let mut over = false;
    for call in 1..BOUND {
        let all = [Abandon::KeepOurs, Abandon::Drop];
        let some = [all[usize::from(call % 2 == 0)]];
        for how in if long() { all.to_vec() } else { some.to_vec() } {
            as_nobody(|top| {
                let context = format!("{call}, {how:?}");
                let Some((number, killed)) = stuck(top, call) else {
                    over |= times > 0;
                    return;
                };
                assert!(killed);
                times += 1;
                is_blocked(top, &context);
                let said = explain(&root(top), number).unwrap();
                let (done, durable) = synced(|| abandon(&root(top), number, how).unwrap());
                // The decision, and what is kept.
                let state = top.join(".steadfast");
                assert!(durable.contains(&identity(&state)), "{context}");
                let kept = durable.contains(&identity(&state.join("kept")));
                assert!(kept || how == Abandon::Drop, "{context}");
                let text = done.to_string();
                assert!(
                    done.given_up.iter().any(|s| s.path == Path::new("sub/f")),
                    "{text}"
                );
                let steps = done.done.len() + done.given_up.len();
                assert_eq!(steps, said.steps.len(), "{context}: {text}");
                // Asking again changes nothing.
                let again = abandon(&root(top), number, how).unwrap();
                assert_eq!(again.given_up, done.given_up, "{context}");
                let seen = status(&root(top)).unwrap();
                assert_eq!(seen.transactions[0].state, TransactionState::Abandoned);
                assert_eq!(recover(top).abandoned(), [number], "{context}");
                check_kept(top, how, &context);
            });
        }
        if over {
            break;
        }
    }
    assert!(times > 4 || user().is_some_and(|_| times == 0), "{times}");
}

#[test]
fn killed_at_every_call() {
    // Where the child dies: right after its commit, and in the middle.
    let mut first = None;
    for call in 1..BOUND {
        let mut found = false;
        as_nobody(|top| found = stuck(top, call).is_some());
        if found {
            first = Some(call);
            break;
        }
    }
    let Some(first) = first else { return };
    for how in ["keep", "drop"] {
        let kind = if how == "keep" {
            Abandon::KeepOurs
        } else {
            Abandon::Drop
        };
        for call in (1..BOUND).step_by(step(5)) {
            let mut over = false;
            as_nobody(|top| {
                let context = format!("{how}: {call}");
                let (number, _) = stuck(top, first + 3).or_else(|| stuck(top, first)).unwrap();
                let job = format!("{how} {number}");
                over = !run(&job, top, &format!("stop-before:{call}"));
                if let Err(error) = open(top).map(drop) {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::PermissionDenied,
                        "{context}: {error}"
                    );
                    abandon(&root(top), number, kind).unwrap();
                }
                check_kept(top, kind, &context);
            });
            if over {
                break;
            }
        }
    }
}

/// Short contents are in the record alone, long ones have copies.
#[test]
fn a_content_that_was_to_be_written_in_place_is_kept() {
    for (len, how) in [
        (1_000, Abandon::KeepOurs),
        (20_000, Abandon::KeepOurs),
        (1_000, Abandon::Drop),
        (20_000, Abandon::Drop),
    ] {
        let tmp = dir();
        let top = tmp.path();
        let new = vec![b'n'; len];
        fs::write(top.join("f"), vec![b'o'; 2 * len]).unwrap();
        let workspace = Workspace::open(&root(top)).unwrap();
        // All of it is written, and what stays of the old one is not cut off.
        hook::deny(&[("ftruncate", Errno::IO)], || {
            let mut tx = workspace.begin();
            tx.write_in_place("f", &new).unwrap();
            tx.commit().unwrap_err();
            drop(workspace);
        });
        let number = status(&root(top)).unwrap().transactions[0].number;
        let done = abandon(&root(top), number, how).unwrap();
        assert_eq!(done.given_up.len(), 1, "{done}");
        let workspace = open(top).unwrap();
        let conflicts = workspace.conflicts().unwrap();
        assert_eq!(fs::metadata(top.join("f")).unwrap().len(), 2 * len as u64);
        match (how, &conflicts[..]) {
            (Abandon::KeepOurs, [conflict]) => {
                let Ours::Kept(kept) = conflict.ours() else {
                    panic!("{len}: {conflict:?}");
                };
                assert_eq!(fs::read(top.join(kept)).unwrap(), new);
                let notes = top.join(".steadfast/conflicts").read_dir().unwrap();
                for note in notes {
                    // It names the content, and does not hold it.
                    let len = note.unwrap().metadata().unwrap().len();
                    assert!(len < 500, "{len}");
                }
                let theirs = Resolution::KeepTheirs;
                workspace.resolve(conflict.id(), &theirs).unwrap();
            }
            (Abandon::Drop, []) => {}
            _ => panic!("{len}, {how:?}: {conflicts:?}"),
        }
        workspace.close().unwrap();
        let seen = status(&root(top)).unwrap();
        let left: u64 = seen.private.iter().map(|f| f.litter + f.owned).sum();
        assert_eq!(left, 0, "{len}, {how:?}: {seen}");
    }
}

#[test]
fn what_is_not_to_be_given_up() {
    as_nobody(|top| {
        let at = root(top);
        let workspace = open(top).unwrap();
        let number = mixed(&workspace).unwrap();
        let refused = |number, kind| {
            let error = abandon(&at, number, Abandon::Drop).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        };
        refused(number, ErrorKind::Busy);
        refused(number + 1, ErrorKind::NotFound);
        workspace.close().unwrap();
        refused(number, ErrorKind::NotFound);
        let before = snapshot(&top.join("sub"));
        assert!(snapshot(&top.join("sub")) == before);
        assert!(!top.join(".steadfast/abandoned").exists());
    });
}
