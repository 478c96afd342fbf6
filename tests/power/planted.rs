//! The model must find what is wrong: with one sync left out, some state does not pass.

use crate::publications::{Rule, View, atomic, hunt, put};
use crate::recorder::Recorder;
use crate::run::{Budget, memory, record};
use crate::scripts::five;
use crate::transactions::{self, Row};
use std::fs;
use std::path::Path;
use steadfast::publish::FileOptions;
use steadfast::publish::FolderOptions;
use steadfast::sys::Mode;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::tree::SyncStrategy;
use steadfast::{Durability, Result, Root};

const SYNCS: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

fn budget() -> Budget {
    Budget {
        masks: 12,
        torn: 2,
        mixed: 2,
        nested: 0,
    }
}

fn skip(at: usize) -> Plan {
    Plan {
        at: at as u64 + 1,
        action: Action::Skip,
    }
}

/// Leaves out each sync of a publication in turn: this many of them are found at least.
fn publication(
    name: &str,
    least: usize,
    old: &[(&str, &str)],
    operation: &dyn Fn(&Root) -> Result<()>,
    allowed: &dyn Fn(&View, &View) -> Rule,
) {
    let run = |top: &Path, _: &Recorder<()>| {
        let root = Root::open(top).unwrap();
        let (done, calls) = hook::scope(None, || operation(&root));
        done.unwrap();
        calls
    };
    let (_, _, calls, _) = record((), |top| put(top, old), run);
    let (mut found, mut spare) = (0, Vec::new());
    for (at, call) in calls.iter().enumerate().filter(|(_, c)| SYNCS.contains(c)) {
        let what = format!("{name} without {call} ({at})");
        let skipping = |root: &Root| hook::scope(Some(skip(at)), || operation(root)).0;
        match hunt(&what, old, skipping, allowed, budget()) {
            // Not to be looked at with these calls switched off.
            None => return,
            Some(Err(_)) => found += 1,
            Some(Ok(_)) => spare.push(what),
        }
    }
    // A folder's names are synced more often than a cut can show.
    assert!(found >= least, "{name}: {spare:?} of {calls:?}");
}

#[test]
fn a_sync_left_out_of_a_publication_is_found() {
    let old = &[("f", "the old text"), ("live/a", "old a")][..];
    let write = |path: &'static str| {
        move |root: &Root| {
            FileOptions::new()
                .write(root, path, "the new text")
                .map(drop)
        }
    };
    publication("replace", 2, old, &write("f"), &atomic);
    publication("create", 2, old, &write("n"), &atomic);
    let folder = |root: &Root| {
        let options = FolderOptions::new().sync_strategy(SyncStrategy::EachFile);
        let staged = options.begin(root, "new")?;
        let file = FileOptions::new().durability(Durability::None);
        file.write(staged.root(), "a", "new a")?;
        staged.root().create_dir("sub", Mode::RWXU)?;
        file.write(staged.root(), "sub/c", "new c")?;
        staged.commit().map(drop)
    };
    if !hook::denied_by_env("renameat2(RENAME_NOREPLACE)") {
        publication("folder", 4, old, &folder, &atomic);
    }
}

/// Leaves out the last sync of this name in a row of transactions.
fn row(name: &str, call: &str, last: bool, row: fn(&Row<'_>)) {
    let calls = transactions::calls(five, row);
    let mut of_it = calls.iter().enumerate().filter(|(_, c)| **c == call);
    let found = if last {
        of_it.next_back()
    } else {
        of_it.next()
    };
    let (at, _) = found.unwrap_or_else(|| panic!("{name}: no {call} in {calls:?}"));
    match transactions::hunt(name, five, 8, Some(skip(at)), budget(), row) {
        Err(_) => {}
        // Not looked at with system calls switched off.
        Ok(0) => {}
        Ok(states) => panic!("{name}: not found in {states} states"),
    }
}

#[test]
fn a_sync_left_out_of_a_transaction_is_found() {
    let one = |row: &Row<'_>| row.commit(&|tx| tx.write("f0", "new 0"));
    row("without the sync of the record", "fdatasync", true, one);
    let settled = |row: &Row<'_>| {
        row.commit(&|tx| tx.write("f0", "new 0"));
        row.settle();
    };
    row(
        "without the sync of the checkpoint",
        "syncfs",
        true,
        settled,
    );
    let long = |row: &Row<'_>| row.commit(&|tx| tx.write("f0", vec![b'l'; 40_000]));
    row("without the sync of what is staged", "fsync", false, long);
}

/// Nothing of the tests is left where they make their states.
#[test]
fn states_are_removed() {
    let tmp = memory();
    let path = tmp.path().to_owned();
    drop(tmp);
    assert!(fs::symlink_metadata(path).is_err());
}
