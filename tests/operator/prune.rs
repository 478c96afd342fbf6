//! Removal of what nobody needs: no more than that, also when it is killed.

use crate::support::{
    BOUND, dir, identity, mixed, open, prepare, recover, root, run, segments, snapshot, step,
    synced, texts,
};
use std::fs;
use std::path::Path;
use std::time::Duration;
use steadfast::ErrorKind;
use steadfast::workspace::{PruneOptions, Workspace, prune, repair};

/// Six closed logs, two keys, litter, and what a repair has set aside.
fn untidy(dir: &Path) {
    prepare(dir);
    let all: Vec<Workspace> = (0..6).map(|_| open(dir).unwrap()).collect();
    for (n, workspace) in all.into_iter().enumerate() {
        let mut tx = workspace.begin();
        tx.write("a", format!("{n}")).unwrap();
        if n < 2 {
            tx.key(format!("key {n}"), b"value");
        }
        tx.commit().unwrap();
        workspace.close().unwrap();
    }
    let state = dir.join(".steadfast");
    // Of a log that there is not, of no log, and nobody's at all.
    fs::write(state.join("staged/00000077-0123456789abcdef"), "litter").unwrap();
    fs::create_dir(state.join("retired/00000000-0123456789abcdef")).unwrap();
    fs::write(state.join("retired/00000000-0123456789abcdef/in"), "litter").unwrap();
    fs::write(state.join("kept/somebody's"), "not ours").unwrap();
    fs::write(state.join("conflicts/0000000000000001-00000000"), "?").unwrap();
    let done = repair(&root(dir)).unwrap();
    assert!(!done.is_empty());
}

fn keys(dir: &Path) -> usize {
    dir.join(".steadfast/keys").read_dir().unwrap().count()
}

fn logs(dir: &Path) -> usize {
    dir.join(".steadfast/logs").read_dir().unwrap().count()
}

#[test]
fn only_what_was_asked_for() {
    let tmp = dir();
    untidy(tmp.path());
    let at = root(tmp.path());
    let before = snapshot(tmp.path());
    let everything = PruneOptions::new()
        .keep_logs(0)
        .keys_older_than(Duration::ZERO)
        .set_aside(true);
    let would = prune(&at, &everything.clone().dry_run(true)).unwrap();
    assert!(
        snapshot(tmp.path()) == before,
        "a dry run has changed something"
    );
    assert_eq!(
        (would.litter.len(), would.keys, would.logs.len()),
        (2, 2, 6),
        "{would}"
    );
    assert!(!would.set_aside.is_empty() && would.bytes > 0, "{would}");
    let done = prune(&at, &PruneOptions::new()).unwrap();
    assert!(done.keys == 0 && done.set_aside.is_empty(), "{done}");
    assert_eq!(keys(tmp.path()), 2);
    // Its own one, and four.
    assert_eq!(logs(tmp.path()), 5, "{done}");
    let young = PruneOptions::new().keys_older_than(Duration::from_secs(3600));
    assert_eq!(prune(&at, &young).unwrap().keys, 0);
    let (done, durable) = synced(|| prune(&at, &everything).unwrap());
    assert_eq!(done.keys, 2, "{done}");
    assert!(durable.contains(&identity(&tmp.path().join(".steadfast/keys"))));
    assert_eq!(done.set_aside, would.set_aside, "{done}");
    assert_eq!((keys(tmp.path()), logs(tmp.path())), (0, 1));
    assert!(tmp.path().join(".steadfast/kept/somebody's").exists());
    let again = prune(&at, &everything).unwrap();
    assert!(again.is_empty(), "{again}");
    let workspace = open(tmp.path()).unwrap();
    assert_eq!(workspace.key("key 1").unwrap(), None);
    mixed(&workspace).unwrap();
    workspace.close().unwrap();
    assert_eq!(texts(tmp.path(), &["a", "d"]), ["new a", "old c"]);
}

#[test]
fn what_the_living_have_stays() {
    let tmp = dir();
    prepare(tmp.path());
    let at = root(tmp.path());
    let workspace = open(tmp.path()).unwrap();
    let mut tx = workspace.begin();
    tx.write_from("big", &vec![b'x'; 200_000][..]).unwrap();
    let done = prune(&at, &PruneOptions::new().keep_logs(0)).unwrap();
    assert!(done.litter.is_empty(), "{done}");
    tx.commit().unwrap();
    assert_eq!(fs::read(tmp.path().join("big")).unwrap().len(), 200_000);
    workspace.close().unwrap();
}

#[test]
fn what_is_damaged_is_not_pruned() {
    let tmp = dir();
    assert!(!run("many", tmp.path(), ""));
    let segment = segments(tmp.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[700] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let at = root(tmp.path());
    let error = prune(&at, &PruneOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let nothing = tempfile::tempdir().unwrap();
    let error = prune(&root(nothing.path()), &PruneOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn killed_at_every_call() {
    let made = dir();
    for call in (1..BOUND).step_by(step(6)) {
        let tmp = tempfile::tempdir_in(made.path()).unwrap();
        untidy(tmp.path());
        let killed = run("prune", tmp.path(), &format!("stop-before:{call}"));
        let everything = PruneOptions::new()
            .keep_logs(0)
            .keys_older_than(Duration::ZERO)
            .set_aside(true);
        prune(&root(tmp.path()), &everything).unwrap();
        assert_eq!((keys(tmp.path()), logs(tmp.path())), (0, 1), "{call}");
        let again = prune(&root(tmp.path()), &everything).unwrap();
        assert!(again.is_empty(), "{call}: {again}");
        assert!(recover(tmp.path()).is_empty(), "{call}");
        assert_eq!(texts(tmp.path(), &["a"]), ["5"], "{call}");
        if !killed {
            return;
        }
    }
    panic!("it never ends");
}
