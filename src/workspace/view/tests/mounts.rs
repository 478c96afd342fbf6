//! Mounts beneath the root: what is staged cannot be renamed onto another, what is there can be changed.

use super::{attr, dir, rename, write};
use crate::sys::Errno;
use crate::workspace::draft::{AttrRequest, Op, Renaming, Source};
use crate::workspace::view::View;
use crate::{ErrorKind, Root, RootOptions};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use std::fs;
use std::path::Path;

/// Runs `f` with a tree that has mounts in it, on a thread with mounts of its own, which go with it.
fn with_own_mounts(test: &str, f: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        use std::io::Write;
        // Nobody is left to tell if stderr is closed.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: needs root");
        return;
    }
    // It is removed when the mounts in it are gone.
    let dir = dir();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Deprecated for what it does with CLONE_FILES, which is not asked for here.
            #[allow(deprecated)]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            build(dir.path());
            f(dir.path());
        });
        thread
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
}

fn build(top: &Path) {
    for name in ["d", "mnt", "from"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    for name in ["a", "d/f", "from/x", "file"] {
        fs::write(top.join(name), name).unwrap();
    }
    mount_bind(top.join("from"), top.join("mnt")).unwrap();
    mount_bind(top.join("file"), top.join("d/f")).unwrap();
}

#[test]
fn names_on_another_mount_are_refused() {
    with_own_mounts("names_on_another_mount_are_refused", |dir| {
        let root = Root::open(dir).unwrap();
        let mut view = View::new(&root).unwrap();
        let path = |path: &str| path.into();
        let crossing = [
            write("mnt/x", ""),
            write("mnt/new", ""),
            rename("a", "mnt/a", Renaming::Replace),
            rename("mnt/x", "a", Renaming::Exchange),
            rename("mnt/x", "mnt/y", Renaming::Replace),
            Op::RemoveFile {
                path: path("mnt/x"),
            },
            Op::CreateDir {
                path: path("mnt/p/q"),
                mode: Some(0o755),
                parents: true,
            },
            Op::Symlink {
                target: b"t".to_vec(),
                path: path("mnt/l"),
            },
            Op::HardLink {
                from: path("mnt/x"),
                to: path("l"),
            },
            Op::HardLink {
                from: path("d/f"),
                to: path("l"),
            },
        ];
        for op in &crossing {
            let error = view.run(op).unwrap_err();
            let found = (error.kind(), error.errno());
            assert_eq!(found, (ErrorKind::CrossDevice, Some(Errno::XDEV)), "{op:?}");
        }
        let busy = [
            write("d/f", ""),
            rename("a", "d/f", Renaming::Replace),
            rename("d/f", "a", Renaming::Replace),
            Op::RemoveFile { path: path("d/f") },
            Op::RemoveTree { path: path("mnt") },
            Op::RemoveDir { path: path("mnt") },
            rename("mnt", "other", Renaming::Replace),
        ];
        for op in &busy {
            let error = view.run(op).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::BUSY), "{op:?}");
        }
        let mode = AttrRequest {
            mode: Some(0o600),
            ..AttrRequest::default()
        };
        let source = Source::Bytes(b"in place".as_slice().into());
        for op in [
            attr("mnt/x", mode.clone()),
            attr("mnt", mode),
            Op::WriteInPlace {
                path: path("d/f"),
                source,
            },
        ] {
            view.run(&op).unwrap();
        }
        let draft = view.draft();
        assert_eq!(draft.changes.len(), 3);
        assert!(draft.slots.iter().all(|slot| slot.after.is_some()));
    });
}

#[test]
fn a_root_that_stays_on_its_mount_refuses_others() {
    with_own_mounts("a_root_that_stays_on_its_mount_refuses_others", |dir| {
        let root = RootOptions::new().no_mount_crossing(true);
        let root = root.open(dir).unwrap();
        let mut view = View::new(&root).unwrap();
        for path in ["mnt/x", "d/f"] {
            let error = view.metadata(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Escape, "{path}");
            // As the root's own answer.
            assert_eq!(root.metadata(path).unwrap_err().errno(), error.errno());
        }
        view.run(&write("d/new", "")).unwrap();
    });
}
