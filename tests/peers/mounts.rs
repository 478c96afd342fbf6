//! Mount points, full disks, other file systems, layers, and no procfs; each in a mount namespace of its own.

use crate::common;
use crate::support::{mounted, names, no_exchange, read, refused, replacing, with_own_mounts};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::fs;
use std::io::Write;
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, FolderOptions, Note, Staging, SweepOptions, Target, swap,
    sweep,
};
use steadfast::sys::{Errno, hook};
use steadfast::{DiskState, Durability, ErrorKind, Root};

/// A file that is mounted by itself, as container engines do, cannot be renamed over.
#[test]
fn a_mounted_file_is_busy_and_nothing_is_left() {
    let test = "a_mounted_file_is_busy_and_nothing_is_left";
    let tmp = common::dir();
    let at = |name: &str| tmp.path().join(name);
    with_own_mounts(test, || {
        fs::create_dir(at("d")).unwrap();
        fs::write(at("source"), "mounted").unwrap();
        fs::write(at("d/f"), "beneath").unwrap();
        fs::create_dir_all(at("folder/in")).unwrap();
        fs::create_dir(at("d/folder")).unwrap();
        mount_bind(at("source"), at("d/f")).unwrap();
        mount_bind(at("folder"), at("d/folder")).unwrap();
        let root = Root::open(at("d")).unwrap();
        for options in replacing(&root, "f") {
            let error = refused(options.write(&root, "f", "new"), ErrorKind::Busy);
            assert_eq!(error.errno(), Some(Errno::BUSY));
            assert!(
                error.advice().is_some_and(|a| a.contains("mount")),
                "{error}"
            );
        }
        if !no_exchange() {
            let folder = FolderOptions::new().begin(&root, "folder").unwrap();
            refused(folder.commit(), ErrorKind::Busy);
            refused(
                swap(&root, "f", &root, "folder", Durability::Full),
                ErrorKind::Busy,
            );
        }
        assert_eq!(names(&at("d")), ["f", "folder"]);
        assert_eq!(read(&at("d/f")), "mounted");
        for name in ["d/f", "d/folder"] {
            unmount(at(name), UnmountFlags::DETACH).unwrap();
        }
    });
}

/// Elsewhere a short file is published, as the error of the last write comes after the rename or never.
#[test]
fn a_full_disk_never_publishes_a_short_file() {
    let test = "a_full_disk_never_publishes_a_short_file";
    let tmp = common::dir();
    with_own_mounts(test, || {
        if !mounted(test, "tmpfs", tmp.path(), "size=256k") {
            return;
        }
        let root = Root::open(tmp.path()).unwrap();
        let big = vec![b'x'; 1 << 20];
        for old in [None, Some("old")] {
            if let Some(text) = old {
                fs::write(tmp.path().join("f"), text).unwrap();
            }
            for options in replacing(&root, "f") {
                // There must be something to replace.
                if old.is_none() && options.begin(&root, "f").is_err() {
                    continue;
                }
                refused(options.write(&root, "f", &big), ErrorKind::StorageFull);
                refused(
                    options.write_from(&root, "f", &big[..]),
                    ErrorKind::StorageFull,
                );
                let mut pending = options.begin(&root, "f").unwrap();
                while pending.write(&big).is_ok() {}
                refused(pending.commit(), ErrorKind::Poisoned);
            }
            let mut batch = Batch::new(&root).unwrap();
            let small = FileOptions::new();
            batch.write("g", "x", &small).unwrap();
            refused(batch.write("f", &big, &small), ErrorKind::StorageFull);
            drop(batch);
            let expected: &[&str] = if old.is_some() { &["f"] } else { &[] };
            assert_eq!(names(tmp.path()), expected);
        }
        assert_eq!(read(&tmp.path().join("f")), "old");
        FileOptions::new().write(&root, "f", "fits").unwrap();
        assert_eq!(read(&tmp.path().join("f")), "fits");
        drop(root);
        unmount(tmp.path(), UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn another_file_system_is_said_and_nothing_is_left() {
    let test = "another_file_system_is_said_and_nothing_is_left";
    let tmp = common::dir();
    with_own_mounts(test, || {
        let other = tmp.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(tmp.path().join("f"), "old").unwrap();
        fs::create_dir(tmp.path().join("d")).unwrap();
        if !mounted(test, "tmpfs", &other, "size=1m") {
            return;
        }
        fs::create_dir(other.join("d")).unwrap();
        fs::write(other.join("f"), "there").unwrap();
        let root = Root::open(tmp.path()).unwrap();
        for target in [Target::CreateOrReplace, Target::CreateNew, Target::Replace] {
            let path = if target == Target::CreateNew {
                "new"
            } else {
                "f"
            };
            let options = FileOptions::new()
                .target(target)
                .staging(Staging::In("other".into()));
            let done = options.write(&root, path, "new");
            if path == "f" || !hook::denied_by_env("renameat2(RENAME_NOREPLACE)") {
                refused(done, ErrorKind::CrossDevice);
            } else {
                assert_eq!(done.unwrap_err().disk_state(), DiskState::Unchanged);
            }
        }
        let move_over = FolderOptions::new();
        for (from, to) in [("other/f", "f"), ("other/f", "new")] {
            refused(
                move_over.publish(&root, from, &root, to),
                ErrorKind::CrossDevice,
            );
        }
        refused(
            move_over.publish(&root, "other/d", &root, "new"),
            ErrorKind::CrossDevice,
        );
        if !no_exchange() {
            refused(
                move_over.publish(&root, "other/d", &root, "d"),
                ErrorKind::CrossDevice,
            );
            let error = swap(&root, "f", &root, "other/f", Durability::Full);
            refused(error, ErrorKind::CrossDevice);
        }
        assert_eq!(names(tmp.path()), ["d", "f", "other"]);
        assert_eq!(names(&other), ["d", "f"]);
        assert_eq!(
            (read(&tmp.path().join("f")), read(&other.join("f"))),
            ("old".into(), "there".into())
        );
        drop(root);
        unmount(&other, UnmountFlags::DETACH).unwrap();
    });
}

/// A folder of an image's layer cannot be renamed; a copy of it can.
#[test]
fn a_folder_of_a_lower_layer_is_said_to_be_one() {
    let test = "a_folder_of_a_lower_layer_is_said_to_be_one";
    let tmp = common::dir();
    let at = |name: &str| tmp.path().join(name);
    with_own_mounts(test, || {
        for name in ["lower/live/sub", "upper", "work", "merged"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("lower/live/f"), "below").unwrap();
        fs::write(at("lower/file"), "below").unwrap();
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let data = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off",
            lower.display(),
            upper.display(),
            work.display()
        );
        if !mounted(test, "overlay", &at("merged"), &data) {
            return;
        }
        let root = Root::open(at("merged")).unwrap();
        let kind = if no_exchange() {
            ErrorKind::Unsupported
        } else {
            ErrorKind::LowerLayer
        };
        let stage = |name: &str| {
            let folder = FolderOptions::new().begin(&root, name).unwrap();
            FileOptions::new().write(folder.root(), "f", "new").unwrap();
            folder
        };
        refused(stage("live").commit(), kind);
        fs::create_dir(at("merged/next")).unwrap();
        refused(
            FolderOptions::new().publish(&root, "next", &root, "live"),
            kind,
        );
        refused(swap(&root, "next", &root, "live", Durability::Full), kind);
        let lower_layer = FolderOptions::new().publish(&root, "live", &root, "moved");
        let error = lower_layer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LowerLayer, "{error}");
        assert_eq!(names(&at("merged")), ["file", "live", "next"]);
        assert_eq!(read(&at("merged/live/f")), "below");
        // Files, and folders made here, go as anywhere.
        for (n, options) in replacing(&root, "file").into_iter().enumerate() {
            let done = options.write(&root, "file", "new");
            // It was copied up when it was exchanged, and is another file then: it has to be read again.
            if n == 0 && done.is_err() {
                refused(done, ErrorKind::Changed);
                replacing(&root, "file")[0]
                    .write(&root, "file", "new")
                    .unwrap();
                continue;
            }
            done.unwrap();
        }
        stage("made").commit().unwrap();
        if !no_exchange() {
            stage("made").commit().unwrap();
        }
        assert_eq!(names(&at("merged")), ["file", "live", "made", "next"]);
        drop(root);
        unmount(at("merged"), UnmountFlags::DETACH).unwrap();
    });
}

/// Elsewhere an unnamed file can only be linked through procfs, and its content is lost without.
#[test]
fn nothing_needs_procfs() {
    let test = "nothing_needs_procfs";
    let tmp = common::dir();
    with_own_mounts(test, || {
        if let Err(e) = unmount("/proc", UnmountFlags::DETACH) {
            return crate::support::skipped(test, e);
        }
        assert!(fs::metadata("/proc/self").is_err());
        let root = Root::open(tmp.path()).unwrap();
        FileOptions::new().write(&root, "f", "1").unwrap();
        for options in replacing(&root, "f") {
            options.write(&root, "f", "2").unwrap();
        }
        // Nor the other way of linking.
        let unnamed = FileOptions::new().staging(Staging::Unnamed);
        let receipt = hook::deny(&[("linkat(AT_EMPTY_PATH)", Errno::NOENT)], || {
            unnamed.write(&root, "g", "content").unwrap()
        });
        assert!(receipt.notes().contains(&Note::StagedByName), "{receipt:?}");
        assert_eq!(read(&tmp.path().join("g")), "content");
        let mut batch = Batch::new(&root).unwrap();
        for name in ["a", "b", "c", "d", "e", "h"] {
            batch.write(name, "x", &unnamed).unwrap();
        }
        assert_eq!(batch.commit().unwrap().len(), 6);
        let folder = FolderOptions::new().begin(&root, "folder").unwrap();
        FileOptions::new().write(folder.root(), "in", "x").unwrap();
        folder.commit().unwrap();
        let report = sweep(&root, ".", &SweepOptions::new().recursive(true)).unwrap();
        assert!(report.removed().is_empty() && report.kept().is_empty());
        assert_eq!(
            names(tmp.path()),
            ["a", "b", "c", "d", "e", "f", "folder", "g", "h"]
        );
    });
}

/// One syncfs reaches one file system only: files of another one are synced by themselves.
#[test]
fn a_batch_on_two_file_systems_syncs_both() {
    let test = "a_batch_on_two_file_systems_syncs_both";
    let tmp = common::dir();
    with_own_mounts(test, || {
        let other = tmp.path().join("other");
        fs::create_dir(&other).unwrap();
        if !mounted(test, "tmpfs", &other, "size=1m") {
            return;
        }
        let root = Root::open(tmp.path()).unwrap();
        let (done, calls) = hook::scope(None, || {
            let mut batch = Batch::new(&root)?.strategy(BatchStrategy::WholeFileSystem);
            for path in ["f", "g", "other/f"] {
                batch.write(path, path, &FileOptions::new())?;
            }
            batch.commit()
        });
        assert_eq!(done.unwrap().len(), 3);
        let count = |name| calls.iter().filter(|c| **c == name).count();
        // Three files and two directories.
        assert_eq!((count("syncfs"), count("fsync")), (0, 5), "{calls:?}");
        assert_eq!(read(&other.join("f")), "other/f");
        drop(root);
        unmount(&other, UnmountFlags::DETACH).unwrap();
    });
}
