//! Batches.

use crate::{common, names};
use rustix::process::{Resource, getrlimit};
use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use steadfast::publish::{Batch, BatchStrategy, FileOptions, Staging, Target};
use steadfast::sys::{Errno, hook};
use steadfast::{DiskState, ErrorKind, Root};

#[test]
fn many_files_in_waves_and_few_syncs() {
    // As where only few files may be open.
    let calls = hook::deny(&[("getrlimit", Errno::PERM)], || {
        many_files(Batch::WAVE + 10)
    });
    let count = |name: &str| calls.iter().filter(|c| **c == name).count();
    // One for each wave, and one for each directory.
    assert_eq!((count("syncfs"), count("fsync")), (2, 2));
}

#[test]
fn as_few_waves_as_there_are_descriptors_for() {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4;
    let n = Batch::WAVE + 10;
    let waves = if limit < n as u64 { 2 } else { 1 };
    let calls = many_files(n);
    let count = |name: &str| calls.iter().filter(|c| **c == name).count();
    assert_eq!((count("syncfs"), count("fsync")), (waves, 2));
    // A walk to a folder may need some of its own.
    if !hook::denied_by_env("openat2") {
        // What is there, and the facts of what is new; of folders only those that are not the root.
        let others = count("statx") - 2 * n - n / 2;
        assert!(others <= 4, "{others} calls of statx that nobody needs");
    }
}

/// A batch of so many files in two directories, with one syncfs for each wave; the calls that it makes.
fn many_files(n: usize) -> Vec<&'static str> {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
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
    assert_eq!(names(tmp.path()).len(), 1 + n.div_ceil(2));
    calls
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

/// Files that are staged in one directory and published in others, so many that the directories are synced
/// in between: each time where names went away comes first, and at the end no change is left unsynced.
#[test]
fn where_names_went_away_is_synced_first() {
    for count in Batch::WAVE - 2..Batch::WAVE + 3 {
        let tmp = common::dir();
        let root = Root::open(tmp.path()).unwrap();
        fs::create_dir(tmp.path().join("staging")).unwrap();
        let ino = |path: &str| fs::metadata(tmp.path().join(path)).unwrap().ino();
        let staging = ino("staging");
        let mut targets = Vec::new();
        for n in 0..count {
            fs::create_dir(tmp.path().join(format!("d{n}"))).unwrap();
            targets.push(ino(&format!("d{n}")));
        }
        let calls = Rc::new(RefCell::new(Vec::new()));
        let noted = calls.clone();
        let note = move |call: &'static str, synced: Option<(u64, u64)>| {
            noted.borrow_mut().push((call, synced.map(|(_, ino)| ino)));
        };
        hook::observe(note, || {
            let mut batch = Batch::new(&root).unwrap();
            // The first is staged beside itself, and its directory is the first that is known.
            batch.write("d0/f", "new", &FileOptions::new()).unwrap();
            let staged = FileOptions::new().staging(Staging::In("staging".into()));
            for n in 1..count {
                batch.write(format!("d{n}/f"), "new", &staged).unwrap();
            }
            batch.commit().unwrap();
        });
        let mut unsynced = false;
        let mut seen = 0;
        let mut rounds = 0;
        for (call, synced) in calls.borrow().iter() {
            match synced {
                Some(ino) if *ino == staging => {
                    unsynced = false;
                    rounds += 1;
                }
                Some(ino) if targets.contains(ino) => {
                    assert!(!unsynced, "{count}: a name may be durable in both places");
                    seen += 1;
                }
                _ => unsynced |= call.starts_with("renameat") || *call == "unlinkat",
            }
        }
        assert!(
            calls
                .borrow()
                .iter()
                .any(|(call, _)| call.starts_with("renameat"))
        );
        assert_eq!((unsynced, seen), (false, count));
        // No more directories are held open than files in a wave.
        assert_eq!(rounds, if count + 1 < Batch::WAVE { 1 } else { 2 });
    }
}
