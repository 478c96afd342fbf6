//! create_dir_all makes what is missing, syncs what it made, and leaves only directories when it fails.

use super::support::{backends, mode, path, plant, root, snapshot};
use crate::common;
use rustix::io::Errno;
use std::fs;
use std::path::Path;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{Backend, DiskState, Durability, ErrorKind};

fn same(fd: &steadfast::Dir, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fd.metadata().unwrap().id().ino == fs::metadata(dir).unwrap().ino()
}

#[test]
fn makes_and_opens() {
    for backend in backends() {
        let tmp = common::dir();
        let top = tmp.path().join("t");
        plant(&top);
        let r = root(&top, backend);
        let long = [&[b'n'; 255][..], b"/", &[0xff; 250]].concat();
        for p in [
            &b"x"[..],
            b"d",
            b"d/a/b/c",
            b"e/",
            b"y//z///",
            b"./w/./v/.",
            b".",
            b"ld/via",
            b"d/../u/v",
            b"ld/../s",
            &long,
        ] {
            for durability in [Durability::Full, Durability::None] {
                let made = r.create_dir_all(path(p), mode(0o755), durability).unwrap();
                assert!(same(&made, &top.join(path(p))), "{p:?} {backend:?}");
            }
        }
    }
}

/// What exists costs one open; what is missing a mkdir, an open and, where asked for, a sync each.
#[test]
fn costs_what_it_does() {
    if hook::denied_by_env("openat2") {
        return;
    }
    let tmp = common::dir();
    let r = root(tmp.path(), Backend::Auto);
    let count = |p: &str, durability| {
        let (made, calls) = hook::scope(None, || r.create_dir_all(p, mode(0o755), durability));
        made.unwrap();
        calls
    };
    let calls = count("a/b/c/d/e/f/g/h", Durability::Full);
    let number = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!(
        (number("mkdirat"), number("openat"), number("fsync")),
        (8, 8, 8)
    );
    assert!(number("openat2") <= 6, "{calls:?}");
    // All is made before the first sync.
    let first = calls.iter().position(|c| *c == "fsync").unwrap();
    assert!(!calls[first..].contains(&"mkdirat"), "{calls:?}");

    assert_eq!(count("a/b/c/d/e/f/g/h", Durability::Full), ["openat2"]);
    assert_eq!(
        count("a/b/c/d/e/f/g/i", Durability::Full),
        ["openat2", "openat2", "mkdirat", "openat", "fsync"]
    );
    assert_eq!(
        count("a/b/c/d/e/f/g/j", Durability::Ordered),
        ["openat2", "openat2", "mkdirat", "openat"]
    );
}

#[test]
fn deep_paths_hold_few_descriptors() {
    for backend in backends() {
        let tmp = common::dir();
        let r = root(tmp.path(), backend);
        let deep = "d/".repeat(100);
        let (made, calls) = hook::scope(None, || {
            r.create_dir_all(&deep, mode(0o700), Durability::Full)
                .unwrap()
        });
        assert_eq!(calls.iter().filter(|c| **c == "fsync").count(), 100);
        // Between two syncs no more directories are made than may wait.
        let longest = calls
            .split(|c| *c == "fsync")
            .map(|part| part.iter().filter(|c| **c == "mkdirat").count())
            .max();
        assert_eq!(longest, Some(32));
        assert!(same(&made, &tmp.path().join(&deep)));
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    for backend in backends() {
        let tmp = common::dir();
        let top = tmp.path().join("t");
        plant(&top);
        std::os::unix::fs::symlink("../..", top.join("out")).unwrap();
        let before = (snapshot(&top), snapshot(tmp.path()));
        let r = root(&top, backend);
        for (p, want) in [
            ("", Errno::NOENT),
            ("f", Errno::EXIST),
            ("f/", Errno::EXIST),
            ("d/in", Errno::EXIST),
            ("l", Errno::EXIST),
            ("f/x", Errno::NOTDIR),
            ("f/.", Errno::NOTDIR),
            ("l/x/y", Errno::NOTDIR),
            ("dang", Errno::EXIST),
            ("dang/x/y", Errno::EXIST),
            ("loop/x", Errno::LOOP),
            ("no/../x", Errno::NOENT),
            ("no/..", Errno::NOENT),
            ("no/x/../y", Errno::NOENT),
            ("d/no/./../y", Errno::NOENT),
            ("../x", Errno::XDEV),
            ("/x", Errno::XDEV),
            ("out/x", Errno::XDEV),
            ("d/../../x", Errno::XDEV),
            ("a\0b", Errno::INVAL),
        ] {
            let error = r
                .create_dir_all(p, mode(0o755), Durability::Full)
                .unwrap_err();
            assert_eq!(error.errno(), Some(want), "{p:?} {backend:?}");
            assert_eq!(
                error.disk_state(),
                DiskState::Unchanged,
                "{p:?} {backend:?}"
            );
            if want == Errno::XDEV {
                assert_eq!(error.kind(), ErrorKind::Escape, "{p:?} {backend:?}");
            }
            let after = (snapshot(&top), snapshot(tmp.path()));
            assert!(after == before, "{p:?} {backend:?}");
        }
        // Half-way: what was made before the name that is too long stays, and the error says so.
        let p = [b"one/two/", &[b'n'; 256][..]].concat();
        let error = r
            .create_dir_all(path(&p), mode(0o755), Durability::None)
            .unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NAMETOOLONG), "{backend:?}");
        assert_eq!(error.disk_state(), DiskState::Indeterminate, "{backend:?}");
        assert!(top.join("one/two").is_dir());
    }
}

/// Many makers of the same directories at once: all of them get there.
#[test]
fn concurrent_makers_all_succeed() {
    for backend in backends() {
        let tmp = common::dir();
        let r = root(tmp.path(), backend);
        for round in 0..40 {
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|s| {
                for i in 0..4 {
                    let (r, start) = (&r, &start);
                    s.spawn(move || {
                        let p = format!("{round}/a/b/c/d/{}", i % 2);
                        start.wait();
                        let made = r.create_dir_all(&p, mode(0o755), Durability::None);
                        assert!(made.is_ok(), "{made:?}");
                    });
                }
            });
        }
    }
}

/// Every call fails once, not made or made in vain: only directories are left, and the error's word on the
/// state of the disk is true.
#[test]
fn a_failing_call_leaves_only_directories() {
    for backend in backends() {
        let run = |plan| {
            let tmp = common::dir();
            let r = root(tmp.path(), backend);
            fs::create_dir(tmp.path().join("a")).unwrap();
            let (result, calls) = hook::scope(plan, || {
                r.create_dir_all("a/b/c/d", mode(0o755), Durability::Full)
            });
            (tmp, result, calls)
        };
        let (_, result, calls) = run(None);
        result.unwrap();
        for at in 1..=calls.len() as u64 {
            for action in [Action::Fail(Errno::IO), Action::FailAfter(Errno::IO)] {
                let (tmp, result, seen) = run(Some(Plan { at, action }));
                let call = seen[at as usize - 1];
                let tree = snapshot(tmp.path());
                assert!(tree.values().all(|facts| facts.starts_with("Directory")));
                let Err(error) = result else {
                    panic!("{call} failed and nobody said so");
                };
                assert_eq!(error.errno(), Some(Errno::IO), "{call}");
                match error.disk_state() {
                    DiskState::Published => assert!(tmp.path().join("a/b/c/d").is_dir(), "{call}"),
                    DiskState::Indeterminate => assert!(tmp.path().join("a/b").is_dir(), "{call}"),
                    // mkdir itself may have done its work before it failed; no one could tell.
                    DiskState::Unchanged => {
                        let made = tree.len() > 1;
                        assert_eq!(made, call == "mkdirat" && action != Action::Fail(Errno::IO));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
