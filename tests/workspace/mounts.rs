//! What is mounted beneath the root: a single file that cannot be renamed over is written in place.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use steadfast::Root;
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::workspace::Workspace;

/// Runs `f` with a directory `root` in which `f` is the file `of/file` beside it, on a thread with mounts of
/// its own, which go with it. `elsewhere`: on another file system.
fn with_mounted_file(test: &str, elsewhere: bool, f: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        return crate::common::skipped(test, "needs root");
    }
    let dir = crate::dir();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Deprecated for what it does with CLONE_FILES, which is not asked for here.
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            fs::create_dir(dir.path().join("root")).unwrap();
            fs::write(dir.path().join("root/f"), "beneath").unwrap();
            let of = dir.path().join("of");
            fs::create_dir(&of).unwrap();
            if elsewhere {
                mount("tmpfs", &of, "tmpfs", MountFlags::empty(), None).unwrap();
            }
            fs::write(of.join("file"), "old").unwrap();
            mount_bind(of.join("file"), dir.path().join("root/f")).unwrap();
            f(dir.path());
        });
        thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
}

#[test]
fn whichever_call_fails_a_mounted_file_is_old_or_new_after_recovery() {
    const TEST: &str = "whichever_call_fails_a_mounted_file_is_old_or_new_after_recovery";
    with_mounted_file(TEST, false, |top| {
        let root = Root::open(top.join("root")).unwrap();
        let (mut old, mut new) = (0, 0);
        for at in 1.. {
            assert!(at < 2000, "it never comes to its end");
            fs::write(top.join("of/file"), "old").unwrap();
            let workspace = Workspace::open(&root).unwrap();
            let mut tx = workspace.begin();
            tx.write_in_place("f", "new").unwrap();
            let plan = Plan {
                at,
                action: Action::Fail(Errno::IO),
            };
            let (done, calls) = hook::scope(Some(plan), || tx.commit());
            // As after a crash.
            drop(workspace);
            let workspace = Workspace::open(&root).unwrap();
            assert_eq!(workspace.conflicts().unwrap(), [], "call {at}");
            let found = fs::read(top.join("of/file")).unwrap();
            match &found[..] {
                b"old" => old += 1,
                b"new" => new += 1,
                other => panic!("call {at}: {other:?}"),
            }
            assert!(done.is_err() || found == b"new", "call {at}");
            workspace.close().unwrap();
            if (calls.len() as u64) < at {
                break;
            }
        }
        assert!(old > 5 && new > 5, "{old} times old, {new} times new");
    });
}

/// No checkpoint's sync reaches it: it is synced by itself, and before the commit returns.
#[test]
fn a_mounted_file_of_another_file_system_is_synced_by_the_commit() {
    const TEST: &str = "a_mounted_file_of_another_file_system_is_synced_by_the_commit";
    with_mounted_file(TEST, true, |top| {
        let workspace = Workspace::open(&Root::open(top.join("root")).unwrap()).unwrap();
        let file = fs::metadata(top.join("of/file")).unwrap();
        let synced = Rc::new(Cell::new(false));
        let observer = {
            let synced = synced.clone();
            move |call: &'static str, of: Option<(u64, u64)>| {
                if call == "fsync" && of == Some((file.dev(), file.ino())) {
                    synced.set(true);
                }
            }
        };
        hook::observe(observer, || {
            let mut tx = workspace.begin();
            tx.write_in_place("f", "new").unwrap();
            tx.commit().unwrap();
        });
        assert_eq!(fs::read(top.join("of/file")).unwrap(), b"new");
        assert!(synced.get(), "not synced");
        workspace.close().unwrap();
    });
}
