//! Repair of everything but the bytes of logs, by itself and killed at every call.

use crate::support::{
    BOUND, content, dir, identity, long, mixed, open, prepare, rebooted, recover, root, run,
    segments, snapshot, step, synced, texts,
};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use steadfast::ErrorKind;
use steadfast::workspace::{Workspace, repair, status};

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "sub/f", "n/x"];
const NEW: [&str; 7] = ["new a", "new b", "-", "old c", "-", "new f", "new x"];

/// A transaction that is committed and has nothing in place.
fn committed(dir: &Path) {
    // The first call after the deciding one; it is the same each time.
    static CALL: OnceLock<u64> = OnceLock::new();
    let call = CALL.get_or_init(|| {
        let dies_open = |call: &u64| {
            let tmp = crate::support::dir();
            prepare(tmp.path());
            assert!(run("mixed", tmp.path(), &format!("stop-before:{call}")));
            let seen = status(&root(tmp.path())).unwrap();
            seen.transactions.iter().any(|t| t.state.as_str() == "dead")
        };
        (1..BOUND).find(dies_open).unwrap()
    });
    prepare(dir);
    assert!(run("mixed", dir, &format!("stop-before:{call}")));
}

fn is_corrupt(dir: &Path) {
    let error = open(dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn what_is_whole_is_left_alone() {
    let tmp = dir();
    let at = root(tmp.path());
    assert_eq!(repair(&at).unwrap_err().kind(), ErrorKind::NotFound);
    prepare(tmp.path());
    assert!(run("mixed", tmp.path(), "stop-before:60"));
    let before = snapshot(tmp.path());
    let done = repair(&at).unwrap();
    assert!(done.is_empty(), "{done}");
    // Taking the locks writes nothing.
    let same = |a: &std::collections::BTreeMap<std::path::PathBuf, (u64, i64, i64, Vec<u8>)>| {
        a.iter()
            .map(|(p, f)| (p.clone(), f.0, f.3.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(same(&snapshot(tmp.path())), same(&before));
    let _ = recover(tmp.path());
}

#[test]
fn a_lost_ledger() {
    for harm in ["lost", "short", "garbage", "copies"] {
        let tmp = dir();
        committed(tmp.path());
        let ledger = tmp.path().join(".steadfast/ledger");
        match harm {
            "lost" => fs::remove_file(&ledger).unwrap(),
            "short" => fs::write(&ledger, [0; 100]).unwrap(),
            "garbage" => fs::write(&ledger, vec![0xa5; 16384]).unwrap(),
            _ => {
                let mut bytes = fs::read(&ledger).unwrap();
                bytes[9] ^= 1;
                bytes[4096 + 9] ^= 1;
                fs::write(&ledger, bytes).unwrap();
            }
        }
        is_corrupt(tmp.path());
        let (done, durable) = synced(|| repair(&root(tmp.path())).unwrap());
        assert!(durable.contains(&identity(&tmp.path().join(".steadfast"))));
        let ledger = done.ledger.unwrap();
        assert!(ledger.last >= 1 && ledger.horizon == 0, "{harm}: {done}");
        assert_eq!(done.set_aside.is_empty(), harm == "lost", "{harm}: {done}");
        assert!(repair(&root(tmp.path())).unwrap().is_empty(), "{harm}");
        // What was committed in this boot is done, though its mark is lost.
        let recovered = recover(tmp.path());
        assert_eq!(recovered.finished().len(), 1, "{harm}");
        assert!(recovered.conflicts().is_empty(), "{harm}");
        assert_eq!(texts(tmp.path(), &NAMES), NEW, "{harm}");
        let workspace = open(tmp.path()).unwrap();
        let mut tx = workspace.begin();
        tx.write("later", b"later").unwrap();
        assert!(tx.commit().unwrap().number() > ledger.last, "{harm}");
    }
}

/// Work that is long settled, and whose records are released, says how far the horizon was: a dead log with
/// older records does not bring back what was removed since.
#[test]
fn a_lost_ledger_does_not_bring_back_what_is_gone() {
    let tmp = dir();
    prepare(tmp.path());
    let workspace = open(tmp.path()).unwrap();
    // In place, with a log of its own that nobody releases.
    assert!(!run("mixed", tmp.path(), ""));
    let mut tx = workspace.begin();
    tx.remove_file("b");
    let number = tx.commit().unwrap().number();
    workspace.settle().unwrap();
    workspace.close().unwrap();
    fs::remove_file(tmp.path().join(".steadfast/ledger")).unwrap();
    let done = repair(&root(tmp.path())).unwrap();
    assert_eq!(done.ledger.unwrap().horizon, number, "{done}");
    assert!(recover(tmp.path()).conflicts().is_empty());
    assert_eq!(texts(tmp.path(), &["b"]), ["-"]);
}

#[test]
fn a_damaged_counter() {
    let tmp = dir();
    prepare(tmp.path());
    let ledger = tmp.path().join(".steadfast/ledger");
    let mut bytes = fs::read(&ledger).unwrap();
    bytes[8192] ^= 1;
    fs::write(&ledger, bytes).unwrap();
    let done = repair(&root(tmp.path())).unwrap();
    assert!(done.ledger.is_some(), "{done}");
    mixed(&open(tmp.path()).unwrap()).unwrap();
}

#[test]
fn beside_the_living_a_ledger_is_not_rebuilt() {
    let tmp = dir();
    prepare(tmp.path());
    let workspace = open(tmp.path()).unwrap();
    fs::remove_file(tmp.path().join(".steadfast/ledger")).unwrap();
    let error = repair(&root(tmp.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(!tmp.path().join(".steadfast/ledger").exists());
    drop(workspace);
    repair(&root(tmp.path())).unwrap();
    let _ = recover(tmp.path());
}

#[test]
fn lost_folders_and_format() {
    let all = [
        "logs",
        "staged",
        "kept",
        "retired",
        "keys",
        "conflicts",
        "format",
    ];
    for name in all {
        for replaced in [false, true] {
            let tmp = dir();
            prepare(tmp.path());
            let at = tmp.path().join(".steadfast").join(name);
            if name == "format" {
                fs::write(&at, "nonsense").unwrap();
            } else {
                fs::remove_dir_all(&at).unwrap();
                if replaced {
                    fs::write(&at, "a file").unwrap();
                }
            }
            let done = repair(&root(tmp.path())).unwrap();
            assert!(!done.is_empty(), "{name}");
            assert_eq!(done.format, name == "format", "{done}");
            assert_eq!(
                done.set_aside.is_empty(),
                !replaced && name != "format",
                "{done}"
            );
            assert!(repair(&root(tmp.path())).unwrap().is_empty(), "{name}");
            let workspace = open(tmp.path()).unwrap();
            mixed(&workspace).unwrap();
            workspace.close().unwrap();
            assert_eq!(texts(tmp.path(), &NAMES), NEW, "{name}");
        }
    }
}

#[test]
fn a_later_format_is_not_touched() {
    let tmp = dir();
    prepare(tmp.path());
    let format = tmp.path().join(".steadfast/format");
    let mut bytes = fs::read(&format).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&format, &bytes).unwrap();
    let error = repair(&root(tmp.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(fs::read(&format).unwrap(), bytes);
}

/// What a conflict keeps survives the loss of the conflict.
#[test]
fn a_damaged_conflict() {
    let tmp = dir();
    committed(tmp.path());
    // Somebody else was there in between.
    fs::write(tmp.path().join("theirs"), "theirs").unwrap();
    fs::rename(tmp.path().join("theirs"), tmp.path().join("a")).unwrap();
    assert_eq!(recover(tmp.path()).conflicts().len(), 1);
    let conflicts = tmp.path().join(".steadfast/conflicts");
    let file = fs::read_dir(&conflicts)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let error = Workspace::open(&root(tmp.path()))
        .and_then(|w| w.conflicts())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let (done, durable) = synced(|| repair(&root(tmp.path())).unwrap());
    assert_eq!(done.notes.len(), 1, "{done}");
    assert_eq!(done.set_aside.len(), 2, "{done}");
    assert!(durable.contains(&identity(&conflicts)));
    assert!(durable.contains(&identity(&tmp.path().join(".steadfast/kept"))));
    let kept = done
        .set_aside
        .iter()
        .find(|p| p.starts_with(".steadfast/kept"))
        .unwrap();
    assert_eq!(fs::read(tmp.path().join(kept)).unwrap(), b"new a");
    let workspace = open(tmp.path()).unwrap();
    assert!(workspace.conflicts().unwrap().is_empty());
    mixed(&workspace).unwrap_err();
    workspace.close().unwrap();
    let _ = recover(tmp.path());
    assert_eq!(fs::read(tmp.path().join(kept)).unwrap(), b"new a");
}

/// A record whose file is lost is given up, and nothing else is.
#[test]
fn a_record_whose_file_is_lost() {
    let tmp = dir();
    assert!(!run("long record", tmp.path(), ""));
    // Of several files, the one that is no staged content: it is not there any more after that.
    for entry in fs::read_dir(tmp.path().join(".steadfast/staged")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let opened = rebooted(|| open(tmp.path()).map(drop));
    if opened.is_ok() {
        // The log was long enough.
        panic!("the record is not in a file");
    }
    let done = repair(&root(tmp.path())).unwrap();
    assert_eq!(done.unreadable.len(), 1, "{done}");
    assert!(done.to_string().contains("given up"), "{done}");
    assert!(repair(&root(tmp.path())).unwrap().is_empty());
    let _ = rebooted(|| recover(tmp.path()));
    // What was in place stays.
    assert_eq!(fs::read(tmp.path().join("long7")).unwrap(), vec![b'x'; 300]);
    assert!(
        !tmp.path()
            .join(".steadfast/abandoned")
            .read_dir()
            .unwrap()
            .any(|_| true)
    );
    let workspace = open(tmp.path()).unwrap();
    let mut tx = workspace.begin();
    tx.write("long7", b"short").unwrap();
    tx.commit().unwrap();
}

/// Everything at once is damaged, and repair is killed at every call.
#[test]
fn killed_at_every_call() {
    let plans = if long() { 2 } else { 1 };
    for plan in &["stop-before", "stop-after"][..plans] {
        for call in (1..BOUND).step_by(step(5)) {
            let tmp = dir();
            assert!(!run("many", tmp.path(), ""));
            let state = tmp.path().join(".steadfast");
            fs::remove_file(state.join("ledger")).unwrap();
            fs::write(state.join("format"), "nonsense").unwrap();
            fs::write(state.join("conflicts/0000000000000001-00000000"), "?").unwrap();
            fs::remove_dir(state.join("retired")).unwrap();
            let segment = segments(tmp.path()).remove(1);
            let mut bytes = fs::read(&segment).unwrap();
            bytes[600] ^= 1;
            fs::write(&segment, bytes).unwrap();
            let killed = run("repair", tmp.path(), &format!("{plan}:{call}"));
            let again = repair(&root(tmp.path())).unwrap();
            assert_eq!(
                again.is_empty() && !killed,
                !killed,
                "{plan}:{call}: {again}"
            );
            assert!(
                repair(&root(tmp.path())).unwrap().is_empty(),
                "{plan}:{call}"
            );
            for n in 1..=50 {
                let _ = fs::read(tmp.path().join(format!("f{n}"))).map(|text| {
                    assert_eq!(text, content(n), "{plan}:{call}");
                });
            }
            let workspace =
                rebooted(|| open(tmp.path())).unwrap_or_else(|e| panic!("{plan}:{call}: {e}"));
            assert!(workspace.conflicts().unwrap().is_empty(), "{plan}:{call}");
            workspace.close().unwrap();
            let aside = |dir: &str| {
                let all = fs::read_dir(state.join(dir)).unwrap();
                all.filter(|e| {
                    let name = e.as_ref().unwrap().file_name();
                    name.to_string_lossy().starts_with("damaged-")
                })
                .count()
            };
            assert_eq!(aside(""), 1, "{plan}:{call}: format");
            assert_eq!(aside("conflicts"), 1, "{plan}:{call}: conflict");
            assert!(aside("logs/00000001") >= 1, "{plan}:{call}: log");
            if !killed {
                break;
            }
        }
    }
}
