//! Mounts in a tree: refused before anything on them is touched.

use crate::common;
use crate::support::{is_root, list, skipped, snapshot};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use std::fs;
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::tree::{CopyOptions, Event, MountCheck, RemoveOptions, SyncStrategy};
use steadfast::{DiskState, ErrorKind, Root};

/// Runs `f` in a thread with mounts of its own; false if that is not to be had.
fn with_own_mounts(test: &str, f: impl FnOnce() + Send) {
    if !is_root() {
        skipped(test, "needs root");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Of the flags only the one for descriptors is unsafe.
            #[allow(deprecated)]
            let unshared = rustix::thread::unshare(UnshareFlags::NEWNS);
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            if unshared.is_err() || rustix::mount::mount_change("/", private).is_err() {
                skipped(test, "no mount namespaces here");
                return;
            }
            f();
        });
        thread.join().unwrap();
    });
}

fn tmpfs(at: &Path) {
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("t/a/m")).unwrap();
    fs::create_dir_all(dir.join("other/sub")).unwrap();
    fs::write(dir.join("t/f"), "x").unwrap();
    fs::write(dir.join("other/sub/precious"), "x").unwrap();
}

#[test]
fn a_mount_is_not_touched() {
    with_own_mounts("a_mount_is_not_touched", || {
        for kind in ["tmpfs", "bind"] {
            let dir = common::dir();
            prepare(dir.path());
            let at = dir.path().join("t/a/m");
            if kind == "tmpfs" {
                tmpfs(&at);
                fs::create_dir(at.join("sub")).unwrap();
                fs::write(at.join("sub/precious"), "x").unwrap();
            } else {
                // The same device: only the mount itself tells.
                rustix::mount::mount_bind(dir.path().join("other"), &at).unwrap();
            }
            // A directory that could be made accessible, if it were ours to touch.
            crate::support::chmod(&at, 0o500);
            let before = snapshot(&at);
            let root = Root::open(dir.path()).unwrap();
            let error = root.remove_tree("t", &RemoveOptions::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{kind}");
            assert_eq!(error.path(), Some(Path::new("t/a/m")));
            assert!(error.advice().unwrap().contains("mounted"));
            assert_eq!(snapshot(&at), before, "{kind}");
            // The mount itself as the tree: nothing was touched at all.
            let error = root
                .remove_tree("t/a/m", &RemoveOptions::new())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{kind}");
            assert_eq!(error.disk_state(), DiskState::Unchanged);
            assert_eq!(snapshot(&at), before, "{kind}");

            let error = root
                .copy_tree("t", &root, "copy", &CopyOptions::new())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{kind}");
            assert_eq!(error.path(), Some(Path::new("t/a/m")));
            assert_eq!(list(dir.path()), ["other", "t"]);
            // From a mount, and across one where that is allowed.
            root.copy_tree("t/a/m", &root, "part", &CopyOptions::new())
                .unwrap();
            assert_eq!(list(&dir.path().join("part/sub")), ["precious"]);
            let across = CopyOptions::new().same_mount(false);
            root.copy_tree("t", &root, "copy", &across).unwrap();
            assert_eq!(list(&dir.path().join("copy/a/m/sub")), ["precious"]);

            let mut walk = root.walk("t").unwrap().same_mount(true);
            let mut mounts = 0;
            while let Some(event) = walk.next().unwrap() {
                match event {
                    Event::Mount(e) => {
                        mounts += 1;
                        assert_eq!(e.path(), Path::new("t/a/m"));
                    }
                    Event::Enter(e) => assert_ne!(e.path(), Path::new("t/a/m/sub")),
                    _ => {}
                }
            }
            assert_eq!(mounts, 1);
            let done = root.sync_tree("t", SyncStrategy::EachFile).unwrap();
            assert_eq!((done.mounts_skipped, done.dirs), (1, 2));

            // Where it is allowed it is emptied; the mount point itself is busy.
            let across = RemoveOptions::new().same_mount(false);
            let error = root.remove_tree("t", &across).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::BUSY));
            assert_eq!(list(&at), [""; 0], "{kind}");
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
            let done = root.remove_tree("t", &RemoveOptions::new()).unwrap();
            assert_eq!(done.mount_check, MountCheck::Mount);
        }
    });
}

#[test]
fn a_file_that_something_is_mounted_on_is_busy() {
    with_own_mounts("a_file_that_something_is_mounted_on", || {
        let dir = common::dir();
        prepare(dir.path());
        let (from, at) = (
            dir.path().join("other/sub/precious"),
            dir.path().join("t/f"),
        );
        fs::write(&from, "content").unwrap();
        rustix::mount::mount_bind(&from, &at).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let error = root.remove_tree("t", &RemoveOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(error.path(), Some(Path::new("t/f")));
        assert_eq!(fs::read(&from).unwrap(), b"content");
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_tree_bound_into_itself_is_not_copied_for_ever() {
    with_own_mounts("a_tree_bound_into_itself", || {
        let dir = common::dir();
        prepare(dir.path());
        // The target's place is seen inside the source through another mount.
        let at = dir.path().join("t/a/m");
        rustix::mount::mount_bind(dir.path().join("other"), &at).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let across = CopyOptions::new().same_mount(false);
        let error = root
            .copy_tree("t", &root, "other/copy", &across)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(list(&dir.path().join("other")), ["sub"]);
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}
