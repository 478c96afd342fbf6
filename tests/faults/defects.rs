//! Defects that were found here, each by its name.

use crate::common;
use std::fs;
use std::io::Write;
use std::path::Path;
use steadfast::publish::{
    Batch, FileOptions, FolderOptions, Kept, Note, SweepOptions, SymlinkPolicy, Target, Version,
    sweep,
};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, Durability, ErrorKind, Root};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The n-th call of this name, counted over all calls from 1.
fn nth_of(calls: &[&str], name: &str) -> u64 {
    calls.iter().position(|c| *c == name).unwrap() as u64 + 1
}

/// An exchange of a name with itself succeeds, and what "came out" of it was then removed.
#[test]
fn publishing_onto_itself_is_refused() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir_all(tmp.path().join("d/sub")).unwrap();
    fs::write(tmp.path().join("d/sub/f"), "text").unwrap();
    fs::write(tmp.path().join("f"), "text").unwrap();
    fs::hard_link(tmp.path().join("f"), tmp.path().join("g")).unwrap();
    let options = FolderOptions::new();
    let keeping = FolderOptions::new().keep_old("kept");
    for options in [options, keeping] {
        for (from, to) in [("d", "d"), ("d", "d/../d"), ("f", "f"), ("f", "g")] {
            let error = options.publish(&root, from, &root, to).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "{from} {to}: {error}"
            );
            assert_eq!(error.disk_state(), DiskState::Unchanged);
        }
    }
    assert_eq!(names(tmp.path()), ["d", "f", "g"]);
    assert_eq!(
        fs::read_to_string(tmp.path().join("d/sub/f")).unwrap(),
        "text"
    );
}

/// The file that was to be kept was renamed over.
#[test]
fn a_file_that_is_to_be_kept_needs_the_exchange() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("old"), "old").unwrap();
    fs::write(tmp.path().join("new"), "new").unwrap();
    hook::deny(&[("renameat2(RENAME_EXCHANGE)", Errno::INVAL)], || {
        let keep = FolderOptions::new().keep_old("kept");
        let error = keep.publish(&root, "new", &root, "old").unwrap_err();
        let state = (error.kind(), error.disk_state());
        assert_eq!(state, (ErrorKind::Unsupported, DiskState::Unchanged));
        assert_eq!(fs::read_to_string(tmp.path().join("old")).unwrap(), "old");
        assert_eq!(names(tmp.path()), ["new", "old"]);
    });
}

/// A batch whose wave had failed went on, and its commit was Ok without the files of that wave.
#[test]
fn a_batch_with_a_failed_wave_cannot_be_committed() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let options = FileOptions::new().durability(Durability::None);
    let new = options.clone().target(Target::CreateNew);
    let mut batch = Batch::new(&root).unwrap();
    for n in 0..Batch::WAVE {
        batch.write(n.to_string(), "x", &new).unwrap();
    }
    fs::write(tmp.path().join("0"), "theirs").unwrap();
    // With room for more files it would not be due yet.
    let late = || batch.write("late", "x", &options).unwrap_err();
    let error = hook::deny(&[("getrlimit", Errno::PERM)], late);
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = batch.write("later", "x", &options).map_or_else(
        |e| e,
        |()| batch.commit().expect_err("files of the batch are missing"),
    );
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::Poisoned, DiskState::Unchanged));
    assert_eq!(names(tmp.path()), ["0"]);
}

/// Between the look at the target and the reading of its attributes somebody removed it.
#[test]
fn a_target_that_vanishes_is_created() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    let write = || FileOptions::new().write(&root, "f", "new");
    write().unwrap();
    let (_, calls) = hook::scope(None, write);
    let plan = Plan {
        at: nth_of(&calls, "openat"),
        action: Action::Fail(Errno::NOENT),
    };
    let (done, _) = hook::scope(Some(plan), write);
    done.unwrap();
    assert_eq!(fs::read_to_string(tmp.path().join("f")).unwrap(), "new");
}

/// A sweep that only reports holds a new directory for a moment; its maker took another one, and left it.
#[test]
fn a_directory_that_a_sweeper_looks_at_is_not_left() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let begin = || FolderOptions::new().begin(&root, "d").map(drop);
    // The first of a process draws random numbers as well.
    begin().unwrap();
    let (_, calls) = hook::scope(None, begin);
    let plan = Plan {
        at: nth_of(&calls, "flock"),
        action: Action::Fail(Errno::AGAIN),
    };
    let (done, calls) = hook::scope(Some(plan), begin);
    done.unwrap();
    assert_eq!(calls.iter().filter(|c| **c == "mkdirat").count(), 2);
    assert_eq!(names(tmp.path()), [""; 0]);
}

/// A writer that is killed after its exchange may have displaced something else than it meant to: the same
/// file with another content was taken for the old one, and swept.
#[test]
fn a_displaced_file_that_was_changed_is_not_swept() {
    if hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        eprintln!("SKIPPED a_displaced_file_that_was_changed_is_not_swept: no RENAME_EXCHANGE");
        return;
    }
    let _no_child = common::no_child();
    for changed in [false, true] {
        let tmp = common::dir();
        let root = Root::open(tmp.path()).unwrap();
        fs::write(tmp.path().join("f"), "old").unwrap();
        let seen = Target::IfUnchanged(Version::of(&root, "f").unwrap());
        // As a kill between the exchange and the removal leaves it.
        let receipt = hook::deny(&[("unlinkat", Errno::IO)], || {
            FileOptions::new()
                .target(seen)
                .write(&root, "f", "new")
                .unwrap()
        });
        let Some(Note::Left(displaced)) = receipt.notes().last() else {
            panic!("{receipt:?}");
        };
        if changed {
            fs::write(tmp.path().join(displaced), "theirs").unwrap();
        }
        let report = sweep(&root, ".", &SweepOptions::new()).unwrap();
        if changed {
            assert_eq!(report.kept(), [(displaced.clone(), Kept::Displaced)]);
            assert_eq!(
                fs::read_to_string(tmp.path().join(displaced)).unwrap(),
                "theirs"
            );
        } else {
            assert_eq!(report.removed(), std::slice::from_ref(displaced));
        }
    }
}

/// So is a symlink that a folder has replaced: its mark is its own, and not that of what it leads to.
#[test]
fn a_displaced_symlink_is_swept() {
    if hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        return common::skipped("a_displaced_symlink_is_swept", "no RENAME_EXCHANGE");
    }
    let _no_child = common::no_child();
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    std::os::unix::fs::symlink("d", tmp.path().join("f")).unwrap();
    let options = FolderOptions::new().symlink(SymlinkPolicy::Replace);
    let pending = options.begin(&root, "f").unwrap();
    let receipt = hook::deny(&[("unlinkat", Errno::IO)], || pending.commit().unwrap());
    let Some(Note::Left(displaced)) = receipt.notes().last() else {
        panic!("{receipt:?}");
    };
    let report = sweep(&root, ".", &SweepOptions::new()).unwrap();
    assert_eq!(report.removed(), std::slice::from_ref(displaced));
    assert!(tmp.path().join("d").is_dir());
}

/// What is left was said to be beside the name that the caller gave, wherever it was.
#[test]
fn what_is_left_is_named_by_where_it_is() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    fs::write(tmp.path().join("d/f"), "old").unwrap();
    std::os::unix::fs::symlink("d/f", tmp.path().join("link")).unwrap();
    let follow = FileOptions::new().symlink(SymlinkPolicy::Follow);
    let off = [("fsync", Errno::IO), ("unlinkat", Errno::IO)];
    let error = hook::deny(&off, || follow.write(&root, "link", "new").unwrap_err());
    assert_eq!(error.disk_state(), DiskState::Unchanged);
    let [left] = error.left_behind() else {
        panic!("{error}");
    };
    assert!(
        left.starts_with("d") && tmp.path().join(left).exists(),
        "{left:?}"
    );
}

/// Where a free name cannot be asked for, a link gives it, and the temporary name goes.
#[test]
fn a_name_that_a_link_gave_is_the_only_one() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let options = FileOptions::new().target(Target::CreateNew);
    let no_flag = [("renameat2(RENAME_NOREPLACE)", Errno::INVAL)];
    hook::deny(&no_flag, || options.write(&root, "f", "new").unwrap());
    assert_eq!(names(tmp.path()), ["f"]);
}

/// A caller that passes over the error of a write does not publish a file that is cut short.
#[test]
fn after_a_failed_write_nothing_is_published() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let mut pending = FileOptions::new().begin(&root, "f").unwrap();
    pending.write_all(b"half").unwrap();
    let full = [("write", Errno::NOSPC)];
    hook::deny(&full, || pending.write_all(b"the rest").unwrap_err());
    let error = pending.commit().unwrap_err();
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::Poisoned, DiskState::Unchanged));
    assert_eq!(names(tmp.path()), [""; 0]);
}
