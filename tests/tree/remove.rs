//! Removing trees: what goes, what stays, what it costs.

use crate::common;
use crate::support::{
    Random, as_nobody, assert_same, build, chmod, give_away, is_root, list, name, skipped, snapshot,
};
use rustix::fs::IFlags;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast::sys::Errno;
use steadfast::sys::hook::{deny, scope};
use steadfast::tree::{MountCheck, RemoveOptions, remove, remove_watched};
use steadfast::{DiskState, ErrorKind, Root};

fn options() -> RemoveOptions {
    RemoveOptions::new()
}

#[test]
fn a_tree_goes_and_nothing_else() {
    let dir = common::dir();
    for seed in 0..20 {
        let outside = dir.path().join("outside");
        build(&outside, &mut Random::new(seed + 100));
        let before = snapshot(&outside);
        let top = dir.path().join("t");
        build(&top, &mut Random::new(seed));
        if is_root() || top.metadata().is_ok() {
            symlink("../outside", top.join("link to outside")).unwrap();
        }
        let entries = snapshot(&top);
        let dirs = entries
            .values()
            .filter(|s| s.mode & 0o170_000 == 0o040_000)
            .count() as u64;
        let root = Root::open(dir.path()).unwrap();
        let done = remove(&root, &name("t"), &options()).unwrap();
        assert_eq!(done.dirs, dirs, "seed {seed}");
        assert_eq!(done.files, entries.len() as u64 - dirs, "seed {seed}");
        assert_ne!(done.mount_check, MountCheck::NotNeeded);
        assert_eq!(list(dir.path()), ["outside"]);
        assert_same(&snapshot(&outside), &before);
        remove(&root, &name("outside"), &options()).unwrap();
    }
}

#[test]
fn single_files_symlinks_and_what_is_missing() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("kept")).unwrap();
    fs::write(dir.path().join("kept/f"), "").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    symlink("kept", dir.path().join("link")).unwrap();
    for single in ["file", "link"] {
        let done = root.remove_tree(single, &options()).unwrap();
        assert_eq!((done.files, done.dirs), (1, 0));
    }
    assert_eq!(list(dir.path()), ["kept"]);
    let error = root.remove_tree("file", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.disk_state(), DiskState::Unchanged);
    assert_eq!(error.operation(), "remove tree");
    let done = root
        .remove_tree("file", &options().missing_ok(true))
        .unwrap();
    assert_eq!((done.files, done.dirs), (0, 0));
    root.remove_tree("no/such/file", &options().missing_ok(true))
        .unwrap();
    let error = root
        .remove_tree("kept/f/x", &options().missing_ok(true))
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOTDIR));
}

#[test]
fn last_components_that_are_no_names_are_refused_as_rmdir_does() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/f"), "").unwrap();
    symlink("b", dir.path().join("a/link")).unwrap();
    let before = snapshot(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let errno = |path: &str| {
        root.remove_tree(path, &options())
            .unwrap_err()
            .errno()
            .unwrap()
    };
    for path in [".", "a/.", "a/b/./.", "a/.//"] {
        assert_eq!(errno(path), Errno::INVAL, "{path}");
    }
    assert_eq!(errno("a/.."), Errno::NOTEMPTY);
    assert_eq!(errno("a/b/.."), Errno::NOTEMPTY);
    assert_eq!(errno(""), Errno::NOENT);
    assert_eq!(errno("a/link/"), Errno::NOTDIR);
    assert_eq!(errno("a/b/f/"), Errno::NOTDIR);
    assert_eq!(errno("a/nope/"), Errno::NOENT);
    let in_root = root.with_options(steadfast::RootOptions::new().scope(steadfast::Scope::InRoot));
    let error = in_root.unwrap().remove_tree("/", &options()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::BUSY));
    let error = root.remove_tree("a/../../x", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Escape);
    assert_eq!(snapshot(dir.path()), before);
    // A directory may have its slash.
    assert_eq!(root.remove_tree("a/b//", &options()).unwrap().dirs, 1);
}

#[test]
fn it_makes_one_call_for_each_file() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("t")).unwrap();
    for n in 0..1000 {
        fs::write(dir.path().join(format!("t/{n}")), "").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let (done, calls) = scope(None, || remove(&root, &name("t"), &options()).unwrap());
    assert_eq!((done.files, done.dirs), (1000, 1));
    let count = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!(count("unlinkat"), 1000);
    assert_eq!(count("unlinkat(AT_REMOVEDIR)"), 1);
    assert_eq!((count("openat"), count("statx")), (1, 1));
    assert!(count("getdents64") <= 4, "{}", count("getdents64"));
    assert_eq!(calls.len() - count("getdents64"), 1003);
}

#[test]
fn an_error_names_the_path_and_says_what_is_done() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("p/t/a/b")).unwrap();
    fs::write(dir.path().join("p/t/a/b/f"), "").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let busy = [("unlinkat(AT_REMOVEDIR)", Errno::BUSY)];
    let error = deny(&busy, || root.remove_tree("p/t", &options())).unwrap_err();
    assert_eq!(error.path(), Some(Path::new("p/t/a/b")));
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
    assert_eq!(list(&dir.path().join("p/t/a/b")), [""; 0]);
    let error = deny(&busy, || root.remove_tree("p/t", &options())).unwrap_err();
    assert_eq!(error.disk_state(), DiskState::Unchanged);
}

#[test]
fn a_directory_that_stays_full_is_given_up() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let full = [("unlinkat(AT_REMOVEDIR)", Errno::NOTEMPTY)];
    let error = deny(&full, || root.remove_tree("t", &options())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    // xfs and what lies on it say EEXIST.
    let full = [("unlinkat(AT_REMOVEDIR)", Errno::EXIST)];
    let error = deny(&full, || root.remove_tree("t", &options())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(error.path(), Some(Path::new("t/a")));
}

#[test]
fn a_file_that_nfs_keeps_is_left_to_the_end() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("t/.nfs000000000001"), "").unwrap();
    fs::write(dir.path().join("t/other"), "").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let busy = [("unlinkat", Errno::BUSY)];
    let error = deny(&busy, || {
        root.remove_tree("t/.nfs000000000001", &options()).unwrap()
    });
    assert_eq!((error.files, error.dirs), (0, 0));
    fs::remove_file(dir.path().join("t/other")).unwrap();
    let error = deny(&busy, || root.remove_tree("t", &options())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    assert!(error.advice().unwrap().contains("holds removed ones open"));
    root.remove_tree("t", &options()).unwrap();
}

#[test]
fn closed_directories_of_our_own_are_opened() {
    let dir = common::dir();
    chmod(dir.path(), 0o755);
    let modes = [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600];
    let root = Root::open(dir.path()).unwrap();
    // Each mode on each of three levels.
    for outer in modes {
        for inner in modes {
            let top = dir.path().join("p");
            fs::create_dir_all(top.join("t/a/b")).unwrap();
            for file in ["t/f", "t/a/f", "t/a/b/f"] {
                fs::write(top.join(file), "").unwrap();
            }
            give_away(&top);
            chmod(&top.join("t/a/b"), inner);
            chmod(&top.join("t/a"), outer);
            chmod(&top.join("t"), inner);
            let done = as_nobody(|| root.remove_tree("p/t", &options())).unwrap();
            assert_eq!((done.files, done.dirs), (3, 3), "{outer:o} {inner:o}");
            assert_eq!(list(&top), [""; 0]);
        }
    }
}

#[test]
fn somebody_elses_closed_directory_is_refused_and_stays_as_it_is() {
    if !is_root() {
        skipped("somebody_elses_closed_directory", "needs root");
        return;
    }
    let dir = common::dir();
    chmod(dir.path(), 0o777);
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    fs::write(dir.path().join("t/a/f"), "").unwrap();
    for mode in [0o000, 0o500, 0o755] {
        chmod(&dir.path().join("t/a"), mode);
        let before = snapshot(dir.path());
        let root = Root::open(dir.path()).unwrap();
        let error = as_nobody(|| root.remove_tree("t", &options())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{mode:o}");
        assert_eq!(error.disk_state(), DiskState::Unchanged);
        assert_eq!(snapshot(dir.path()), before, "{mode:o}");
    }
}

#[test]
fn an_immutable_file_is_an_error() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    let path = dir.path().join("t/a/f");
    fs::write(&path, "").unwrap();
    let file = fs::File::open(&path).unwrap();
    if rustix::fs::ioctl_setflags(&file, IFlags::IMMUTABLE).is_err() {
        skipped("an_immutable_file", "cannot make one here");
        return;
    }
    let root = Root::open(dir.path()).unwrap();
    let error = root.remove_tree("t", &options()).unwrap_err();
    rustix::fs::ioctl_setflags(&file, IFlags::empty()).unwrap();
    assert_eq!(error.errno(), Some(Errno::PERM));
    assert_eq!(error.path(), Some(Path::new("t/a/f")));
    assert_eq!(error.disk_state(), DiskState::Unchanged);
}

#[test]
fn it_can_be_cancelled_at_any_entry() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    for after in 1..=5 {
        let top = dir.path().join("t");
        fs::create_dir_all(top.join("a")).unwrap();
        for n in 0..3 {
            fs::write(top.join(format!("a/{n}")), "").unwrap();
        }
        let mut calls = 0;
        let done = remove_watched(&root, &name("t"), &options(), &mut |p| {
            calls += 1;
            assert_eq!(p.files + p.dirs, calls);
            if calls == after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if after < 5 {
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            assert_eq!(error.disk_state(), DiskState::Indeterminate);
            assert_eq!(calls, after);
            assert!(top.exists());
        } else {
            // Nothing was left to be cancelled.
            assert_eq!(done.unwrap().dirs, 2);
        }
        fs::remove_dir_all(&top).ok();
    }
}

#[test]
fn many_may_remove_the_same_tree() {
    let dir = common::dir();
    for seed in 0..20 {
        let top = dir.path().join("t");
        build(&top, &mut Random::new(seed));
        // Deeper than the levels that stay open.
        let mut deep = top.join("deep");
        deep.extend((0..40).map(|n| n.to_string()));
        fs::create_dir_all(&deep).unwrap();
        let root = Root::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| match root.remove_tree("t", &options()) {
                    Ok(_) => {}
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => panic!("seed {seed}: {e}"),
                });
            }
        });
        assert!(!top.exists(), "seed {seed}");
    }
}

#[test]
fn what_is_created_meanwhile_goes_too() {
    let dir = common::dir();
    let top = dir.path().join("t");
    let root = Root::open(dir.path()).unwrap();
    for _ in 0..20 {
        fs::create_dir_all(top.join("a/b")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..200 {
                    // Fails once the directory is gone.
                    if fs::write(top.join(format!("a/b/{n}")), "").is_err()
                        || stop.load(Ordering::Relaxed)
                    {
                        break;
                    }
                }
            });
            let done = root.remove_tree("t", &options());
            stop.store(true, Ordering::Relaxed);
            done.unwrap();
        });
        assert!(!top.exists());
    }
}

#[test]
fn a_level_that_is_moved_within_the_tree_is_removed_where_it_is() {
    let dir = common::dir();
    let at = |n: usize| {
        let mut path = dir.path().join("t");
        path.extend(std::iter::repeat_n("d", n));
        path
    };
    fs::create_dir_all(at(40)).unwrap();
    fs::write(at(40).join("f"), "").unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), "").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut moved = false;
    let done = remove_watched(&root, &name("t"), &options(), &mut |_| {
        if !std::mem::replace(&mut moved, true) {
            // One level out of the tree, its parent aside in it: the way back is lost twice.
            fs::rename(at(15), dir.path().join("outside/d")).unwrap();
            fs::rename(at(14), at(13).join("aside")).unwrap();
        }
        ControlFlow::Continue(())
    });
    done.unwrap();
    assert!(!dir.path().join("t").exists());
    assert!(dir.path().join("outside/canary").exists());
}
