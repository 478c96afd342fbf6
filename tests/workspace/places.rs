//! A workspace that was moved, renamed or copied between a crash and the recovery.

use crate::foreign::crashed;
use std::fs;
use std::path::Path;
use std::process::Command;
use steadfast::workspace::Workspace;
use steadfast::{DiskState, ErrorKind, Root};

fn open(dir: &Path) -> steadfast::Result<Workspace> {
    Workspace::open(&Root::open(dir).unwrap())
}

fn all_new(dir: &Path) {
    for n in 0..5 {
        let text = fs::read_to_string(dir.join(format!("f{n}"))).unwrap();
        assert_eq!(text, format!("new {n}"));
    }
}

fn copy(from: &Path, to: &Path) {
    let done = crate::common::output(Command::new("cp").arg("-a").arg(from).arg(to));
    assert!(done.unwrap().status.success());
}

#[test]
fn a_root_that_was_renamed_recovers() {
    let dir = crashed();
    let moved = dir.path().with_extension("moved");
    fs::rename(dir.path(), &moved).unwrap();
    let workspace = open(&moved).unwrap();
    assert_eq!(workspace.recovered().finished().len(), 1);
    all_new(&moved);
    workspace.close().unwrap();
    fs::remove_dir_all(&moved).unwrap();
}

#[test]
fn a_copy_does_not_replay_the_work_of_the_original() {
    let dir = crashed();
    let copied = dir.path().with_extension("copy");
    copy(dir.path(), &copied);
    // What it would do to these files is for the original's files.
    let e = open(&copied).unwrap_err();
    assert_eq!(
        (e.kind(), e.disk_state()),
        (ErrorKind::Changed, DiskState::Unchanged),
        "{e}"
    );
    assert_eq!(fs::read_to_string(copied.join("f0")).unwrap(), "old 0");
    fs::remove_dir_all(&copied).unwrap();
    let workspace = open(dir.path()).unwrap();
    assert_eq!(workspace.recovered().finished().len(), 1);
    all_new(dir.path());
    workspace.close().unwrap();
    // A copy of one that is closed becomes one of its own.
    copy(dir.path(), &copied);
    let format = |dir: &Path| fs::read(dir.join(".steadfast/format")).unwrap();
    let workspace = open(&copied).unwrap();
    assert_ne!(format(&copied), format(dir.path()));
    let mut tx = workspace.begin();
    tx.write("f0", "of the copy").unwrap();
    tx.commit().unwrap();
    workspace.close().unwrap();
    all_new(dir.path());
    fs::remove_dir_all(&copied).unwrap();
}
