//! Looking: nothing is changed, and everything is told.

use crate::common::{output, skipped};
use crate::support::{
    BOUND, NOBODY, dir, long, mixed, open, prepare, recover, root, run, run_as, segments, snapshot,
    step,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use steadfast::ErrorKind;
use steadfast::lease::Leases;
use steadfast::sys::hook;
use steadfast::workspace::{
    ExplainedStep, Now, TransactionState, Workspace, explain, records, status,
};

#[test]
fn where_there_is_no_workspace() {
    let tmp = dir();
    let root = root(tmp.path());
    assert_eq!(status(&root).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(explain(&root, 1).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        records(&root, None).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!tmp.path().join(".steadfast").exists());
}

#[test]
fn one_that_is_clean_and_one_that_is_open() {
    let tmp = dir();
    prepare(tmp.path());
    let at = root(tmp.path());
    let seen = status(&at).unwrap();
    assert!(seen.id.is_some() && seen.version == Some(1) && !seen.copy);
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    assert!(seen.transactions.is_empty() && seen.sections.is_empty());
    assert!(seen.writers.iter().all(|w| !w.live && w.records == 0));
    let workspace = open(tmp.path()).unwrap();
    let number = mixed(&workspace).unwrap();
    let seen = status(&at).unwrap();
    assert!(seen.problems.is_empty(), "{:?}", seen.problems);
    let [one] = &seen.transactions[..] else {
        panic!("{seen}");
    };
    assert_eq!((one.number, one.state), (number, TransactionState::Done));
    assert_eq!(one.label, "mixed");
    assert!(one.time.is_some());
    assert!(one.paths.iter().any(|p| p == Path::new("sub/f")), "{one}");
    assert!(
        seen.writers
            .iter()
            .any(|w| w.live && w.records == 1 && w.bytes > 0)
    );
    // In place: nothing is to be done.
    let said = explain(&at, number).unwrap();
    assert!(!said.steps.is_empty());
    assert!(said.steps.iter().all(|s| s.now == Now::After), "{said}");
    let logs = records(&at, None).unwrap();
    let all: Vec<_> = logs.iter().flat_map(|l| &l.records).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].kind, all[0].number), ("commit", number));
    let text = logs.iter().map(ToString::to_string).collect::<String>();
    for what in [
        "replace a",
        "create b",
        "move c -> d",
        "remove e",
        "create n",
    ] {
        assert!(text.contains(what), "{what}: {text}");
    }
    workspace.settle().unwrap();
    assert!(status(&at).unwrap().transactions.is_empty());
    assert_eq!(
        explain(&at, number).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        records(&at, Some(77)).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    workspace.close().unwrap();
}

/// A kill at each call of a commit: what is told before is what recovery does after, and telling changes
/// nothing.
#[test]
fn what_is_told_is_what_recovery_does() {
    told_and_done("");
}

/// A directory's name is claimed by an empty one then, which is nobody else's.
#[test]
fn what_is_told_is_what_recovery_does_where_every_rename_may_replace() {
    let claims = told_and_done("deny:renameat2(RENAME_NOREPLACE)=EINVAL;");
    assert!(claims > 0 || !long());
}

/// Gives how often an empty directory stood at the name of one that was to come.
fn told_and_done(denied: &str) -> u64 {
    let mut states = std::collections::BTreeSet::new();
    let mut claims = 0;
    // One of the two at every call.
    let by = if denied.is_empty() { 1 } else { step(4) };
    for call in (1..BOUND).step_by(by) {
        let tmp = dir();
        prepare(tmp.path());
        let killed = run("mixed", tmp.path(), &format!("{denied}stop-before:{call}"));
        let at = root(tmp.path());
        let before = snapshot(tmp.path());
        let seen = status(&at).unwrap();
        let text = seen.to_string();
        assert!(seen.problems.is_empty(), "{call}: {text}");
        let mut expected = false;
        for one in &seen.transactions {
            states.insert(one.state.as_str());
            let said = explain(&at, one.number).unwrap();
            let done = said.steps.iter().all(|s| s.now == Now::After);
            match one.state {
                TransactionState::Dead => {
                    expected = true;
                    let right = |now| matches!(now, Now::After | Now::Before | Now::Between);
                    let mut now = said.steps.iter().map(|s| s.now);
                    assert!(now.all(right), "{call}: {said}");
                    let is = |s: &&ExplainedStep| s.path == Path::new("n");
                    let made = said.steps.iter().find(is).map(|s| s.now);
                    if made == Some(Now::Between) && tmp.path().join("n").is_dir() {
                        claims += 1;
                    }
                }
                TransactionState::Done => assert!(done, "{call}: {said}"),
                TransactionState::Lost => assert!(said.steps.is_empty(), "{call}: {said}"),
                _ => panic!("{call}: {text}"),
            }
        }
        records(&at, None).unwrap();
        assert!(snapshot(tmp.path()) == before, "{call}: it was changed");
        let litter: u64 = seen.private.iter().map(|f| f.litter).sum();
        assert!(killed || litter == 0, "{call}: {text}");
        let recovered = recover(tmp.path());
        assert_eq!(!recovered.finished().is_empty(), expected, "{call}: {text}");
        let after = status(&at).unwrap();
        assert!(after.transactions.is_empty(), "{call}: {after}");
        let left: u64 = after.private.iter().map(|f| f.litter + f.owned).sum();
        assert_eq!(left, 0, "{call}: {after}");
        if !killed {
            assert!(states.len() >= 2, "{states:?}");
            return claims;
        }
    }
    panic!("it never ends");
}

#[test]
fn with_everything_damaged() {
    let tmp = dir();
    prepare(tmp.path());
    assert!(!run("mixed", tmp.path(), ""));
    let state = tmp.path().join(".steadfast");
    let segment = segments(tmp.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[3] ^= 1;
    fs::write(&segment, bytes).unwrap();
    fs::write(state.join("format"), "nonsense").unwrap();
    fs::write(state.join("ledger"), "nonsense").unwrap();
    fs::write(state.join("conflicts/0000000000000001-00000000"), "?").unwrap();
    fs::remove_dir(state.join("retired")).unwrap();
    let before = snapshot(tmp.path());
    let seen = status(&root(tmp.path())).unwrap();
    let text = seen.to_string();
    for what in ["format", "ledger", "logs/0000", "conflicts/0000", "retired"] {
        let about = |p: &steadfast::workspace::Problem| p.path.to_string_lossy().contains(what);
        assert!(seen.problems.iter().any(about), "{what}: {text}");
    }
    let damage = seen.writers.iter().find_map(|w| w.damage.clone()).unwrap();
    assert_eq!(damage.segment, 1);
    assert!(text.contains("problem: "), "{text}");
    records(&root(tmp.path()), None).unwrap();
    assert!(snapshot(tmp.path()) == before);
}

#[test]
fn a_copy_is_told() {
    let tmp = dir();
    let (one, two) = (tmp.path().join("one"), tmp.path().join("two"));
    fs::create_dir(&one).unwrap();
    prepare(&one);
    let copied = output(Command::new("cp").arg("-a").args([&one, &two]));
    assert!(copied.unwrap().status.success());
    assert!(!status(&root(&one)).unwrap().copy);
    let seen = status(&root(&two)).unwrap();
    assert!(seen.copy && seen.to_string().contains("copy"));
}

#[test]
fn leases_are_listed() {
    let tmp = dir();
    prepare(tmp.path());
    let state = root(&tmp.path().join(".steadfast"));
    let lease = Leases::open(state.dir())
        .unwrap()
        .try_acquire("builder")
        .unwrap();
    let seen = status(&root(tmp.path())).unwrap();
    assert_eq!(seen.leases.len(), 1);
    assert_eq!(seen.leases[0].name(), b"builder");
    drop(lease);
}

/// Without any right to write, and on what nobody may write to.
#[test]
fn the_right_to_read_is_enough() {
    if !rustix::process::getuid().is_root() {
        return skipped(
            "the_right_to_read_is_enough",
            "needs root to be somebody else",
        );
    }
    let tmp = dir();
    let top = tmp.path().join("top");
    fs::create_dir(&top).unwrap();
    prepare(&top);
    assert!(run("mixed", &top, "stop-before:40"));
    // Readable for all, writable for nobody.
    let mode = |m: &str, at: &Path| {
        let done = output(Command::new("chmod").args(["-R", m]).arg(at));
        assert!(done.unwrap().status.success());
    };
    mode("a+rX,a-w", tmp.path());
    let before = snapshot(&top);
    let seen = std::thread::scope(|s| {
        let looks = s.spawn(|| {
            use rustix::process::{Gid, Uid};
            let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let seen = status(&root(&top)).unwrap();
            records(&root(&top), None).unwrap();
            seen
        });
        looks.join().unwrap()
    });
    assert!(seen.problems.is_empty(), "{seen}");
    assert!(snapshot(&top) == before);
    mode("u+rwX", tmp.path());
    // A folder that is not one's own is not to be looked into.
    mode("go-rwx", &top.join(".steadfast"));
}

/// A workspace that somebody has used whose umask takes everything, its owner's rights included.
#[test]
fn a_umask_that_takes_the_owners_rights() {
    let tmp = dir();
    let top = tmp.path().join("top");
    fs::create_dir(&top).unwrap();
    let mut user = None;
    if rustix::process::getuid().is_root() {
        use std::os::unix::fs::{PermissionsExt, chown};
        fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&top, Some(NOBODY), Some(NOBODY)).unwrap();
        user = Some(NOBODY);
        if !hook::denied_by_env("") && fs::read_dir(&top).is_err() {
            return skipped(
                "a_umask_that_takes_the_owners_rights",
                "nobody cannot reach it",
            );
        }
    }
    run_as(user, "umask", &top, "");
    run_as(user, "umask", &top, "");
    run_as(user, "open", &top, "");
    for segment in segments(&top) {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(&segment).unwrap().mode() & 0o7777, 0o600);
        let lock = segment.with_file_name("lock");
        assert_eq!(fs::metadata(lock).unwrap().mode() & 0o7777, 0o600);
    }
}

/// Beside writers that commit all the time.
#[test]
fn beside_the_living() {
    let tmp = dir();
    prepare(tmp.path());
    let at = root(tmp.path());
    let workspace = Workspace::open(&at).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 0..200 {
                let mut tx = workspace.begin();
                tx.write("a", format!("{n}")).unwrap();
                tx.commit().unwrap();
                if n % 50 == 49 {
                    workspace.settle().unwrap();
                }
            }
            over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut looks = 0;
        while !over.load(std::sync::atomic::Ordering::SeqCst) || looks == 0 {
            let seen = status(&at).unwrap();
            assert!(seen.problems.is_empty(), "{seen}");
            for one in &seen.transactions {
                let state = one.state;
                let right = [
                    TransactionState::InProgress,
                    TransactionState::Pending,
                    TransactionState::Done,
                ];
                assert!(right.contains(&state), "{seen}");
            }
            records(&at, None).unwrap();
            looks += 1;
        }
    });
    workspace.close().unwrap();
}
