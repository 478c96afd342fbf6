//! What transactions cost: syncs, the size of the state folder, and what an open has to read.

use std::fs;
use std::path::Path;
use std::time::Duration;
use steadfast::Root;
use steadfast::sys::hook;
use steadfast::workspace::{Workspace, WorkspaceOptions};

/// The calls of one commit that make something durable.
fn syncs(workspace: &Workspace, files: usize, len: usize) -> Vec<&'static str> {
    let mut tx = workspace.begin();
    let (done, calls) = hook::scope(None, || {
        for n in 0..files {
            tx.write(format!("f{n}"), vec![1; len])?;
        }
        tx.commit()
    });
    done.unwrap();
    let of_sync = ["fsync", "fdatasync", "syncfs", "sync_file_range"];
    calls.into_iter().filter(|c| of_sync.contains(c)).collect()
}

#[test]
fn small_transactions_cost_one_sync_and_large_ones_a_few() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    // Without an exchange a name is not there for a moment, and that must not outlive the old file.
    let in_two: &[_] = match hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        true => &["fsync", "fsync"],
        false => &[],
    };
    for round in 0..2 {
        for files in [1, 100] {
            let small = syncs(&workspace, files, 100);
            let (first, more) = small.split_first().unwrap();
            assert_eq!(*first, "fdatasync", "round {round}: {small:?}");
            assert!(
                more.is_empty() || more == in_two,
                "round {round}: {small:?}"
            );
        }
        let few = syncs(&workspace, 100, 1 << 20);
        assert!(few.len() <= 4 + in_two.len(), "round {round}: {few:?}");
        let one = syncs(&workspace, 1, 1 << 20);
        assert!(one.len() <= 3 + in_two.len(), "round {round}: {one:?}");
    }
}

#[test]
fn writing_in_place_costs_few_syncs() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    // Short ones travel in the log; long ones are copied beside, old and new.
    for (files, len, most) in [
        (1, 100, 1),
        (100, 5_000, 1),
        // The record is in a file.
        (1000, 5_000, 3),
        (1, 20_000, 6),
        (100, 20_000, 3),
    ] {
        let mut tx = workspace.begin();
        for n in 0..files {
            fs::write(dir.path().join(format!("f{n}")), "old").unwrap();
            tx.write_in_place(format!("f{n}"), vec![1; len]).unwrap();
        }
        let (done, calls) = hook::scope(None, || tx.commit());
        done.unwrap();
        let syncs = calls.iter().filter(|c| c.contains("sync")).count();
        assert!(syncs <= most, "{files} files of {len} bytes: {syncs}");
        // The one that is in the record is opened once, and then looked at and written.
        if len < 16 << 10 {
            assert!(calls.len() <= 60 + 10 * files, "{}", calls.len());
        }
    }
    workspace.close().unwrap();
}

/// A record that is too long for the log is durable, with its name, before the log says where it is.
#[test]
fn a_long_record_costs_two_syncs_more() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let options = WorkspaceOptions::new().log(8 << 10, 64);
    let workspace = options.open(&root).unwrap();
    let made = syncs(&workspace, 60, 300);
    let (file, more) = made.split_at(2);
    assert_eq!(file, ["fsync", "fsync"], "{made:?}");
    assert_eq!(more, ["fdatasync"], "{made:?}");
}

fn size(dir: &Path) -> u64 {
    let mut out = 0;
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        out += if meta.is_dir() {
            size(&entry.path())
        } else {
            meta.len()
        };
    }
    out
}

/// How many calls an open makes, and how many of them read.
fn calls_of_open(root: &Root) -> (usize, usize) {
    let (workspace, calls) = hook::scope(None, || WorkspaceOptions::new().create(false).open(root));
    let workspace = workspace.unwrap();
    assert!(workspace.recovered().is_empty());
    workspace.close().unwrap();
    let reads = calls.iter().filter(|c| c.contains("read")).count();
    (calls.len(), reads)
}

#[test]
fn many_transactions_leave_the_state_folder_small_and_the_open_short() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    Workspace::open(&root).unwrap().close().unwrap();
    let few = calls_of_open(&root);
    let many = match std::env::var("STEADFAST_TRANSACTIONS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) if crate::long() => 100_000,
        Err(_) => 5_000 / crate::step(1),
    };
    let options = WorkspaceOptions::new()
        .log(64 << 10, 8)
        .checkpoint_bytes(128 << 10);
    let workspace = options.open(&root).unwrap();
    let mut largest = 0;
    for n in 0..many {
        let mut tx = workspace.begin();
        tx.write(format!("f{}", n % 10), format!("{n}")).unwrap();
        tx.commit().unwrap();
        if n % (many / 10) == 0 {
            largest = largest.max(size(&dir.path().join(".steadfast")));
        }
    }
    workspace.close().unwrap();
    largest = largest.max(size(&dir.path().join(".steadfast")));
    // The segment that the first open made, and eight of 64 KiB.
    assert!(largest < 3 << 20, "{largest} bytes");
    let after = calls_of_open(&root);
    println!(
        "{many} transactions, {largest} bytes at the most; an open makes {after:?} calls, {few:?} before"
    );
    assert!(after.0 <= few.0 + 30, "{few:?} {after:?}");
}

#[test]
fn recovery_looks_only_at_what_is_open() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    for n in 0..200 {
        let mut tx = workspace.begin();
        tx.write(format!("f{n}"), "text").unwrap();
        tx.commit().unwrap();
    }
    workspace.settle().unwrap();
    let mut tx = workspace.begin();
    tx.write("last", "text").unwrap();
    tx.commit().unwrap();
    // As after a crash.
    drop(workspace);
    let (workspace, calls) = hook::scope(None, || Workspace::open(&root));
    workspace.unwrap().close().unwrap();
    assert!(calls.len() < 200, "{} calls", calls.len());
}

#[test]
fn checkpoints_come_by_size_by_time_and_when_the_log_is_full() {
    let commit = |workspace: &Workspace, len: usize| {
        let mut tx = workspace.begin();
        tx.write("f", vec![1; len]).unwrap();
        let (done, calls) = hook::scope(None, || tx.commit());
        done.unwrap();
        calls.contains(&"syncfs")
    };
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let usual = Workspace::open(&root).unwrap();
    assert!(!(0..20).any(|_| commit(&usual, 10_000)));
    usual.close().unwrap();
    let by_size = WorkspaceOptions::new()
        .checkpoint_bytes(50_000)
        .open(&root)
        .unwrap();
    let checkpoints = (0..20).filter(|_| commit(&by_size, 10_000)).count();
    assert!((3..=5).contains(&checkpoints), "{checkpoints}");
    // A record in a file counts for a sixteenth: of 2.4 MB, 150,000 bytes.
    let by_files = || {
        let mut tx = by_size.begin();
        for n in 0..150 {
            tx.write_in_place(format!("long{n}"), vec![1; 16_000])?;
        }
        let (done, calls) = hook::scope(None, || tx.commit());
        done.map(|_| calls.contains(&"syncfs"))
    };
    for n in 0..150 {
        fs::write(dir.path().join(format!("long{n}")), "old").unwrap();
    }
    assert!(by_files().unwrap());
    by_size.close().unwrap();
    let by_time = WorkspaceOptions::new()
        .checkpoint_every(Duration::ZERO)
        .open(&root)
        .unwrap();
    assert!((0..3).all(|_| commit(&by_time, 10)));
    by_time.close().unwrap();
    // Nobody asks for one, and the log has room for a few.
    let other = crate::dir();
    let root = Root::open(other.path()).unwrap();
    let small = WorkspaceOptions::new()
        .log(32 << 10, 2)
        .open(&root)
        .unwrap();
    let checkpoints = (0..40).filter(|_| commit(&small, 10_000)).count();
    assert!((5..40).contains(&checkpoints), "{checkpoints}");
    // A record that is longer than the log goes to a file.
    let mut tx = small.begin();
    for n in 0..20 {
        tx.write(format!("g{n}"), vec![2; 10_000]).unwrap();
    }
    tx.commit().unwrap();
    assert!(
        (0..20).all(|n| fs::read(other.path().join(format!("g{n}"))).unwrap() == vec![2; 10_000])
    );
    small.close().unwrap();
    assert_eq!(
        crate::tree::litter(other.path()),
        Vec::<std::path::PathBuf>::new()
    );
}
