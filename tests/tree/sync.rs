//! Which calls a sync makes, and what it says when one fails.

use crate::common;
use crate::support::{as_nobody, chmod};
use std::fs;
use steadfast::sys::hook::{Action, Plan, scope};
use steadfast::sys::{AsFd, Errno};
use steadfast::tree::{SyncStrategy, sync, sync_watched};
use steadfast::{DiskState, ErrorKind, Root};

/// A tree of `n` files in two directories, with what cannot be synced beside them.
fn tree(n: usize) -> (tempfile::TempDir, Root) {
    let dir = common::dir();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for i in 0..n {
        fs::write(dir.path().join(format!("sub/{i}")), "x").unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), kind, mode, 0).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn count(calls: &[&str], name: &str) -> usize {
    calls.iter().filter(|c| **c == name).count()
}

#[test]
fn a_small_tree_is_synced_one_by_one_and_a_large_one_at_once() {
    let (_dir, root) = tree(6);
    let (done, calls) = scope(None, || sync(&root, SyncStrategy::Auto).unwrap());
    assert_eq!(
        (done.files, done.dirs, done.whole_file_system),
        (6, 2, false)
    );
    assert_eq!((count(&calls, "fsync"), count(&calls, "syncfs")), (8, 0));

    let (_dir, root) = tree(7);
    let (done, calls) = scope(None, || sync(&root, SyncStrategy::Auto).unwrap());
    assert_eq!(
        (done.files, done.dirs, done.whole_file_system),
        (0, 0, true)
    );
    assert_eq!((count(&calls, "fsync"), count(&calls, "syncfs")), (0, 1));

    let (done, calls) = scope(None, || sync(&root, SyncStrategy::EachFile).unwrap());
    assert_eq!(
        (done.files, done.dirs, done.whole_file_system),
        (7, 2, false)
    );
    assert_eq!((count(&calls, "fsync"), count(&calls, "syncfs")), (9, 0));

    let (done, calls) = scope(None, || sync(&root, SyncStrategy::WholeFileSystem).unwrap());
    assert!(done.whole_file_system);
    assert_eq!(calls, ["openat", "syncfs"]);
}

#[test]
fn contents_come_before_the_directory_that_holds_them() {
    let (dir, root) = tree(3);
    fs::create_dir(dir.path().join("sub/deep")).unwrap();
    let mut order = Vec::new();
    sync_watched(&root, SyncStrategy::EachFile, &mut |p| {
        order.push((p.files, p.dirs));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    // sub is the second directory, after all its files.
    let of_sub = order.iter().find(|(_, dirs)| *dirs == 2).unwrap();
    assert_eq!(of_sub.0, 3);
    let done = root.sync_tree("sub", SyncStrategy::EachFile).unwrap();
    assert_eq!((done.files, done.dirs), (3, 2));
}

#[test]
fn a_failed_sync_is_not_tried_again() {
    for strategy in [
        SyncStrategy::EachFile,
        SyncStrategy::Auto,
        SyncStrategy::WholeFileSystem,
    ] {
        let (_dir, root) = tree(3);
        let (_, calls) = scope(None, || sync(&root, strategy).unwrap());
        for (n, call) in calls.iter().enumerate() {
            if !["fsync", "syncfs"].contains(call) {
                continue;
            }
            let plan = Plan {
                at: n as u64 + 1,
                action: Action::Fail(Errno::IO),
            };
            let (done, after) = scope(Some(plan), || sync(&root, strategy));
            let error = done.unwrap_err();
            assert_eq!(error.disk_state(), DiskState::Published);
            assert_eq!(error.system_call(), Some(*call));
            assert_eq!(error.operation(), "sync tree");
            assert_eq!(
                after.len(),
                n + 1,
                "it goes on after a failed sync: {after:?}"
            );
        }
    }
}

#[test]
fn what_may_not_be_read_is_synced_with_the_whole_file_system() {
    let (dir, _) = tree(2);
    chmod(&dir.path().join("sub/1"), 0o200);
    chmod(dir.path(), 0o755);
    chmod(&dir.path().join("sub"), 0o755);
    let root = Root::open(dir.path()).unwrap();
    let done = as_nobody(|| sync(&root, SyncStrategy::EachFile)).unwrap();
    assert!(done.whole_file_system);
    let done = as_nobody(|| sync(&root, SyncStrategy::Auto)).unwrap();
    assert!(done.whole_file_system);
    chmod(&dir.path().join("sub/1"), 0o600);
    chmod(&dir.path().join("sub"), 0);
    for strategy in [SyncStrategy::EachFile, SyncStrategy::Auto] {
        let done = as_nobody(|| sync(&root, strategy)).unwrap();
        assert!(done.whole_file_system);
    }
    chmod(&dir.path().join("sub"), 0o700);
}

#[test]
fn a_directory_that_may_be_written_but_not_read_is_synced() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("drop")).unwrap();
    crate::support::give_away(&dir.path().join("drop"));
    chmod(&dir.path().join("drop"), 0o300);
    chmod(dir.path(), 0o755);
    let root = Root::open(dir.path()).unwrap();
    for strategy in [
        SyncStrategy::EachFile,
        SyncStrategy::Auto,
        SyncStrategy::WholeFileSystem,
    ] {
        let done = as_nobody(|| root.sync_tree("drop", strategy)).unwrap();
        assert!(done.whole_file_system);
    }
    chmod(&dir.path().join("drop"), 0o700);
    assert!(crate::support::list(&dir.path().join("drop")).is_empty());
}

#[test]
fn it_can_be_cancelled_and_refuses_what_is_no_directory() {
    let (dir, root) = tree(3);
    let stop = &mut |_: &_| std::ops::ControlFlow::Break(());
    let error = sync_watched(root.as_fd(), SyncStrategy::EachFile, stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let error = root.sync_tree("fifo", SyncStrategy::Auto).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    let error = root.sync_tree("nope", SyncStrategy::Auto).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(dir.path().join("sub/0").exists());
}
