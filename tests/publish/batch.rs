//! Batches.

use crate::{common, names};
use std::fs;
use std::io;
use steadfast::publish::{Batch, BatchStrategy, FileOptions, Target};
use steadfast::sys::hook;
use steadfast::{DiskState, ErrorKind, Root};

#[test]
fn many_files_in_waves_and_few_syncs() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    let n = Batch::WAVE + 10;
    let (receipts, calls) = hook::scope(None, || {
        let mut batch = Batch::new(&root)
            .unwrap()
            .strategy(BatchStrategy::WholeFileSystem);
        for i in 0..n {
            let path = if i % 2 == 0 {
                format!("f{i}")
            } else {
                format!("d/f{i}")
            };
            batch
                .write(path, i.to_string(), &FileOptions::new())
                .unwrap();
        }
        batch.commit().unwrap()
    });
    assert_eq!(receipts.len(), n);
    for i in 0..n {
        let path = if i % 2 == 0 {
            format!("f{i}")
        } else {
            format!("d/f{i}")
        };
        assert_eq!(
            fs::read_to_string(tmp.path().join(path)).unwrap(),
            i.to_string()
        );
    }
    let count = |name: &str| calls.iter().filter(|c| **c == name).count();
    // One for each wave, and one for each directory.
    assert_eq!((count("syncfs"), count("fsync")), (2, 2));
    assert_eq!(names(tmp.path()).len(), 1 + n.div_ceil(2));
}

#[test]
fn every_strategy_publishes() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    use BatchStrategy::{Auto, EachFile, StartThenEachFile, WholeFileSystem};
    for (n, strategy) in [Auto, EachFile, StartThenEachFile, WholeFileSystem]
        .into_iter()
        .enumerate()
    {
        let mut batch = Batch::new(&root).unwrap().strategy(strategy);
        for i in 0..6 {
            batch
                .write_from(format!("{n}-{i}"), &b"text"[..], &FileOptions::new())
                .unwrap();
        }
        assert_eq!(batch.commit().unwrap().len(), 6);
    }
    assert_eq!(names(tmp.path()).len(), 24);
}

#[test]
fn the_error_says_how_far_it_came() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let new = FileOptions::new().target(Target::CreateNew);
    // The first file already fails: nothing was published.
    let mut batch = Batch::new(&root).unwrap();
    batch.write("a", "1", &new).unwrap();
    batch.write("b", "1", &new).unwrap();
    fs::write(tmp.path().join("a"), "theirs").unwrap();
    let error = batch.commit().unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::AlreadyExists, DiskState::Unchanged)
    );
    assert_eq!(names(tmp.path()), ["a"]);
    // The second one fails: the first is there.
    let mut batch = Batch::new(&root).unwrap();
    batch.write("b", "1", &new).unwrap();
    batch.write("c", "1", &new).unwrap();
    batch.write("d", "1", &new).unwrap();
    fs::write(tmp.path().join("c"), "theirs").unwrap();
    let error = batch.commit().unwrap_err();
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
    assert_eq!(error.path().unwrap(), "c");
    assert_eq!(names(tmp.path()), ["a", "b", "c"]);
    assert_eq!(fs::read_to_string(tmp.path().join("c")).unwrap(), "theirs");
    // A source that fails concerns only its own file.
    let mut batch = Batch::new(&root).unwrap();
    batch.write("e", "1", &new).unwrap();
    let fails = |_: &mut steadfast::publish::PendingFile<'_>| Err(io::Error::other("no more"));
    let error = batch.write_with("f", &new, fails).unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::Source, DiskState::Unchanged)
    );
    batch.commit().unwrap();
    assert_eq!(names(tmp.path()), ["a", "b", "c", "e"]);
    drop(Batch::new(&root).unwrap());
}
