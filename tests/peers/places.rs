//! Where the file goes, whatever happens to the directories, and what is synced there.

use crate::common;
use crate::support::{
    as_nobody, chmod, is_root, names, read, refused, replacing, skipped, with_own_cwd,
};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use steadfast::publish::{self, FileOptions, FolderOptions, Target};
use steadfast::sys::Mode;
use steadfast::sys::hook;
use steadfast::{DiskState, ErrorKind, Root};

fn count(calls: &[&str], name: &str) -> usize {
    calls.iter().filter(|c| **c == name).count()
}

/// Elsewhere a name without a directory has no parent, which is taken for "nothing to sync".
#[test]
fn the_directory_of_a_bare_name_is_synced() {
    let tmp = common::dir();
    with_own_cwd(|| {
        std::env::set_current_dir(tmp.path()).unwrap();
        for path in ["name", "./name"] {
            let (done, calls) = hook::scope(None, || publish::write(path, "text"));
            done.unwrap();
            assert_eq!(count(&calls, "fsync"), 2, "{path}: {calls:?}");
        }
        std::env::set_current_dir("/").unwrap();
    });
    assert_eq!(read(&tmp.path().join("name")), "text");
}

#[test]
fn a_missing_parent_is_said_and_nothing_made() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    refused(
        FileOptions::new().write(&root, "a/b/f", "x"),
        ErrorKind::NotFound,
    );
    refused(
        FolderOptions::new().begin(&root, "a/b"),
        ErrorKind::NotFound,
    );
    refused(
        publish::write(tmp.path().join("a/f"), "x"),
        ErrorKind::NotFound,
    );
    assert_eq!(names(tmp.path()), [""; 0]);
}

/// Elsewhere a new directory is not synced in its parent, and is gone with the file after a power cut.
#[test]
fn parents_that_are_made_are_synced() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let options = FileOptions::new().create_parents(Mode::from_raw_mode(0o755));
    let (done, calls) = hook::scope(None, || options.write(&root, "a/b/c/f", "x"));
    done.unwrap();
    // The root for a, a for b, b for c, the file, c for the file.
    assert_eq!(count(&calls, "fsync"), 5, "{calls:?}");
    let last = |name| calls.iter().rposition(|c| *c == name).unwrap();
    assert!(last("mkdirat") < last("write"));
    let (done, calls) = hook::scope(None, || options.write(&root, "a/b/c/f", "y"));
    done.unwrap();
    assert_eq!(count(&calls, "fsync"), 2, "only what is new: {calls:?}");
}

/// Of a move between two directories both are synced, the source first, or btrfs shows both names after a
/// power cut.
#[test]
fn both_directories_of_a_move_are_synced() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("stage")).unwrap();
    fs::write(tmp.path().join("stage/from"), "x").unwrap();
    let options = FileOptions::new().staging(publish::Staging::In("stage".into()));
    let (done, calls) = hook::scope(None, || options.write(&root, "f", "x"));
    done.unwrap();
    // The file, and both directories.
    assert_eq!(count(&calls, "fsync"), 3, "{calls:?}");
    let moved = FolderOptions::new();
    let (done, calls) = hook::scope(None, || moved.publish(&root, "stage/from", &root, "to"));
    done.unwrap();
    assert_eq!(count(&calls, "fsync"), 3, "{calls:?}");
}

/// Elsewhere the path is resolved again when it is published.
#[test]
fn a_change_of_the_working_directory_does_no_harm() {
    let tmp = common::dir();
    for name in ["a", "b"] {
        fs::create_dir(tmp.path().join(name)).unwrap();
    }
    with_own_cwd(|| {
        std::env::set_current_dir(tmp.path().join("a")).unwrap();
        let (root, name) = Root::around("f").unwrap();
        let mut pending = FileOptions::new().begin(&root, &name).unwrap();
        let folder = FolderOptions::new().begin(&root, "d").unwrap();
        pending.write_all(b"x").unwrap();
        std::env::set_current_dir("../b").unwrap();
        pending.commit().unwrap();
        FileOptions::new().write(folder.root(), "in", "x").unwrap();
        folder.commit().unwrap();
        std::env::set_current_dir("/").unwrap();
    });
    assert_eq!(names(&tmp.path().join("a")), ["d", "f"]);
    assert_eq!(names(&tmp.path().join("a/d")), ["in"]);
    assert_eq!(names(&tmp.path().join("b")), [""; 0]);
}

#[test]
fn a_renamed_parent_does_no_harm() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir_all(tmp.path().join("p/q")).unwrap();
    fs::write(tmp.path().join("p/q/f"), "old").unwrap();
    let mut file = FileOptions::new().begin(&root, "p/q/f").unwrap();
    file.write_all(b"new").unwrap();
    let folder = FolderOptions::new().begin(&root, "p/q/d").unwrap();
    FileOptions::new().write(folder.root(), "in", "x").unwrap();
    fs::rename(tmp.path().join("p"), tmp.path().join("moved")).unwrap();
    // What has the name now is none of ours.
    fs::create_dir_all(tmp.path().join("p/q")).unwrap();
    fs::write(tmp.path().join("p/q/f"), "another").unwrap();
    file.commit().unwrap();
    folder.commit().unwrap();
    assert_eq!(read(&tmp.path().join("moved/q/f")), "new");
    assert_eq!(names(&tmp.path().join("moved/q")), ["d", "f"]);
    assert_eq!(read(&tmp.path().join("p/q/f")), "another");
    assert_eq!(names(&tmp.path().join("p/q")), ["f"]);
}

/// The parent is removed: there is nothing to publish in.
#[test]
fn a_removed_parent_is_said() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("p")).unwrap();
    let mut pending = FileOptions::new().begin(&root, "p/f").unwrap();
    pending.write_all(b"x").unwrap();
    fs::remove_dir_all(tmp.path().join("p")).unwrap();
    let error = pending.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_ne!(error.disk_state(), DiskState::Published);
    assert_eq!(names(tmp.path()), [""; 0]);
}

#[test]
fn a_target_swapped_for_a_directory_stays() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    for options in replacing(&root, "f") {
        let mut pending = match options.begin(&root, "f") {
            Ok(pending) => pending,
            // The version of the file that was there at first.
            Err(e) if e.kind() == ErrorKind::Changed => continue,
            Err(e) => panic!("{e}"),
        };
        pending.write_all(b"new").unwrap();
        fs::remove_file(&f).unwrap();
        fs::create_dir(&f).unwrap();
        fs::write(f.join("in"), "theirs").unwrap();
        let error = pending.commit().unwrap_err();
        assert_eq!(error.disk_state(), DiskState::Unchanged, "{error}");
        assert_eq!(read(&f.join("in")), "theirs");
        assert_eq!(names(tmp.path()), ["f"]);
        fs::remove_dir_all(&f).unwrap();
        fs::write(&f, "old").unwrap();
    }
}

/// It cannot be opened for reading, and so not for fsync(2); its file system can be synced.
#[test]
fn a_directory_that_may_be_written_but_not_read() {
    let test = "a_directory_that_may_be_written_but_not_read";
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("w")).unwrap();
        if is_root() {
            use crate::support::NOBODY;
            std::os::unix::fs::chown(dir.join("w"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    };
    as_nobody(test, prepare, |dir| {
        let root = Root::open(dir).unwrap();
        let w = dir.join("w");
        for text in ["1", "2"] {
            chmod(&w, 0o333);
            let (done, calls) = hook::scope(None, || FileOptions::new().write(&root, "w/f", text));
            done.unwrap();
            assert_eq!(count(&calls, "syncfs"), 1, "{calls:?}");
            chmod(&w, 0o700);
            assert_eq!(read(&w.join("f")), text);
            assert_eq!(names(&w), ["f"]);
        }
        chmod(&w, 0o333);
        let folder = FolderOptions::new().begin(&root, "w/d").unwrap();
        FileOptions::new().write(folder.root(), "in", "x").unwrap();
        folder.commit().unwrap();
        chmod(&w, 0o700);
        assert_eq!(names(&w), ["d", "f"]);
    });
}

#[test]
fn a_foreign_file_in_a_sticky_directory_stays() {
    let test = "a_foreign_file_in_a_sticky_directory_stays";
    if !is_root() {
        return skipped(test, "needs root");
    }
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("s")).unwrap();
        chmod(&dir.join("s"), 0o1777);
        fs::write(dir.join("s/f"), "theirs").unwrap();
        fs::create_dir(dir.join("s/d")).unwrap();
        fs::write(dir.join("s/d/in"), "theirs").unwrap();
    };
    as_nobody(test, prepare, |dir| {
        let root = Root::open(dir).unwrap();
        for options in replacing(&root, "s/f") {
            let error = refused(
                options.write(&root, "s/f", "new"),
                ErrorKind::PermissionDenied,
            );
            assert!(
                error.advice().is_some_and(|a| a.contains("sticky")),
                "{error}"
            );
        }
        let folder = FolderOptions::new().begin(&root, "s/d").unwrap();
        let error = folder.commit().unwrap_err();
        assert_eq!(error.disk_state(), DiskState::Unchanged, "{error}");
        assert_eq!(names(&dir.join("s")), ["d", "f"]);
        assert_eq!(read(&dir.join("s/f")), "theirs");
        assert_eq!(read(&dir.join("s/d/in")), "theirs");
    });
}

#[test]
fn an_immutable_file_stays() {
    let test = "an_immutable_file_stays";
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    let file = File::open(&f).unwrap();
    let flags = match ioctl_getflags(&file) {
        Ok(flags) => flags,
        Err(e) => return skipped(test, e),
    };
    if let Err(e) = ioctl_setflags(&file, flags | IFlags::IMMUTABLE) {
        return skipped(test, e);
    }
    let outcome = std::panic::catch_unwind(|| {
        for options in replacing(&root, "f") {
            refused(
                options.write(&root, "f", "new"),
                ErrorKind::PermissionDenied,
            );
        }
        let new = FileOptions::new().target(Target::CreateNew);
        refused(new.write(&root, "f", "new"), ErrorKind::AlreadyExists);
        assert_eq!(names(tmp.path()), ["f"]);
    });
    // Or the directory could never be removed.
    ioctl_setflags(&file, flags).unwrap();
    outcome.unwrap_or_else(|e| std::panic::resume_unwind(e));
    assert_eq!(read(&f), "old");
}
