//! The view against the disk: single cases, and what it asks the kernel.

mod by_hand;
mod facts;
mod model;
mod mounts;
mod place;

use super::*;
use crate::ErrorKind;
use crate::sys::Errno;
pub(super) use crate::workspace::child::dir;
use crate::workspace::draft::{Op, Renaming};
use crate::workspace::mapping::Before;
use std::path::Path;

pub(super) fn write(path: &str, bytes: &str) -> Op {
    Op::Write {
        path: path.into(),
        source: Source::Bytes(bytes.as_bytes().into()),
        attr: AttrRequest::default(),
        create_new: false,
    }
}

pub(super) fn rename(from: &str, to: &str, how: Renaming) -> Op {
    Op::Rename {
        from: from.into(),
        to: to.into(),
        how,
    }
}

/// A sequence of numbers that one seed fixes (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

#[test]
fn swapping_through_a_third_name_is_two_slots() {
    let dir = dir();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    std::fs::write(dir.path().join("b"), "b").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut view = View::new(&root).unwrap();
    for (from, to) in [("a", "tmp"), ("b", "a"), ("tmp", "b")] {
        view.run(&rename(from, to, Renaming::NoReplace)).unwrap();
    }
    let read = view.read(Path::new("a")).unwrap();
    assert!(matches!(&read[..], [Content::Disk(_)]));
    let draft = view.draft();
    assert_eq!((draft.slots.len(), draft.objects.len()), (2, 2));
    for slot in &draft.slots {
        assert!(matches!(slot.before, Before::Object(o) if slot.after != Some(o)));
    }
}

#[test]
fn the_state_folder_is_refused() {
    let dir = dir();
    std::fs::create_dir(dir.path().join(".steadfast")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut view = View::new(&root).unwrap();
    for path in [".steadfast", ".steadfast/claims", "./.steadfast/x/y"] {
        let error = view.run(&write(path, "")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
        assert_eq!(error.errno(), None);
    }
    let error = view.run(&write("none/x", "")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT));
    assert_eq!(view.list(Path::new(".")).unwrap(), []);
}

/// A view of a tree made by `build`, for `check`.
fn with_view(build: impl FnOnce(&Path), check: impl FnOnce(&mut View<'_>, &Path)) {
    let dir = dir();
    build(dir.path());
    let root = Root::open(dir.path()).unwrap();
    check(&mut View::new(&root).unwrap(), dir.path());
}

fn attr(path: &str, attr: AttrRequest) -> Op {
    Op::SetAttributes {
        path: path.into(),
        attr,
    }
}

#[test]
fn the_plan_tells_the_sum() {
    let build = |top: &Path| {
        std::fs::create_dir_all(top.join("d/e")).unwrap();
        for name in ["a", "b", "c", "d/f", "x", "y z"] {
            std::fs::write(top.join(name), name).unwrap();
        }
    };
    with_view(build, |view, _| {
        let ops = [
            write("d/e/new", "twelve bytes"),
            rename("a", "tmp", Renaming::Replace),
            rename("b", "a", Renaming::Replace),
            rename("tmp", "b", Renaming::Replace),
            write("c", "other"),
            Op::HardLink {
                from: "c".into(),
                to: "c2".into(),
            },
            rename("d", "dir", Renaming::Replace),
            rename("dir/f", "x", Renaming::Replace),
            Op::RemoveFile { path: "y z".into() },
            Op::Symlink {
                target: b"to where".to_vec(),
                path: "link".into(),
            },
            attr(
                "a",
                AttrRequest {
                    mode: Some(0o600),
                    gid: Some(7),
                    ..AttrRequest::default()
                },
            ),
            Op::Key {
                name: b"k".to_vec(),
                value: Vec::new(),
            },
        ];
        for op in &ops {
            view.run(op).unwrap();
        }
        let plan = crate::workspace::plan::describe(&view.draft());
        let want = "\
            record key .steadfast/keys/k6b\n\
            exchange a <-> b\n\
            replace c (file, 5 bytes)\n\
            create c2 (hard link to c)\n\
            move d -> dir\n\
            create dir/e/new (file, 12 bytes)\n\
            create link (symlink to \"to where\")\n\
            move d/f -> x (replaces)\n\
            remove \"y z\" (file, 3 bytes)\n\
            chown :7 a\n\
            chmod 0600 a\n";
        assert_eq!(plan.to_string(), want);
    });
}

#[test]
fn nothing_is_left_of_what_is_undone() {
    let build = |top: &Path| {
        std::fs::create_dir_all(top.join("d/e")).unwrap();
        std::fs::write(top.join("d/f"), "f").unwrap();
    };
    with_view(build, |view, _| {
        let ops = [
            rename("d", "n", Renaming::Replace),
            write("n/e/new", ""),
            Op::RemoveTree { path: "n/e".into() },
            Op::CreateDir {
                path: "p/q/r".into(),
                mode: Some(0o755),
                parents: true,
            },
            Op::RemoveTree { path: "p".into() },
            rename("n", "d", Renaming::Replace),
        ];
        for op in &ops {
            view.run(op).unwrap();
        }
        let draft = view.draft();
        let slots: Vec<_> = draft.slots.iter().map(|slot| &slot.path[..]).collect();
        assert_eq!(slots, [b"d/e"]);
        assert!(draft.slots[0].after.is_none() && draft.objects.len() == 1);
    });
}

#[test]
fn a_name_in_a_removed_tree_is_no_name() {
    let build = |top: &Path| {
        std::fs::create_dir(top.join("d")).unwrap();
        std::fs::create_dir(top.join("e")).unwrap();
        std::fs::write(top.join("a"), "a").unwrap();
    };
    with_view(build, |view, _| {
        let link = |from: &str, to: &str| Op::HardLink {
            from: from.into(),
            to: to.into(),
        };
        let ops = [
            write("d/new", "new"),
            link("d/new", "e/new"),
            link("a", "d/a"),
            rename("a", "e/b", Renaming::Replace),
            Op::RemoveTree { path: "d".into() },
        ];
        for op in &ops {
            view.run(op).unwrap();
        }
        let plan = crate::workspace::plan::describe(&view.draft());
        let want = "remove d (directory)\nmove a -> e/b\ncreate e/new (file, 3 bytes)\n";
        assert_eq!(plan.to_string(), want);
    });
}

#[test]
fn attributes_add_up_as_system_calls_do() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    for mode in [0o4755, 0o6755, 0o2745, 0o6600] {
        let build = |top: &Path| std::fs::write(top.join("old"), "").unwrap();
        with_view(build, |view, top| {
            let by_hand = top.join("by hand");
            std::fs::write(&by_hand, "").unwrap();
            std::fs::set_permissions(&by_hand, PermissionsExt::from_mode(mode)).unwrap();
            chown(&by_hand, Some(uid), Some(gid)).unwrap();
            let want = std::fs::metadata(&by_hand).unwrap().mode() & 0o7777;
            view.run(&write("new", "")).unwrap();
            for path in ["old", "new"] {
                let with_mode = AttrRequest {
                    mode: Some(mode),
                    xattrs: vec![(b"user.a".to_vec(), None), (b"user.b".to_vec(), None)],
                    ..AttrRequest::default()
                };
                let with_owner = AttrRequest {
                    uid: Some(uid),
                    gid: Some(gid),
                    xattrs: vec![(b"user.a".to_vec(), Some(vec![1]))],
                    ..AttrRequest::default()
                };
                view.run(&attr(path, with_mode)).unwrap();
                view.run(&attr(path, with_owner)).unwrap();
                let facts = view.metadata(Path::new(path)).unwrap();
                assert_eq!(facts.mode, Some(want), "{mode:o}");
            }
            let draft = view.draft();
            let [change] = &draft.changes[..] else {
                panic!("{:?}", draft.changes);
            };
            let crate::workspace::draft::DraftSet::Attributes(sum) = &change.what else {
                panic!("{change:?}");
            };
            let xattrs = [
                (b"user.b".to_vec(), None),
                (b"user.a".to_vec(), Some(vec![1])),
            ];
            assert_eq!((sum.uid, &sum.xattrs[..]), (Some(uid), &xattrs[..]));
        });
    }
}

#[test]
fn a_staged_file_is_read_and_appended_to() {
    use crate::workspace::draft::StagedFile;
    let build = |top: &Path| std::fs::write(top.join("staged"), "12345").unwrap();
    with_view(build, |view, top| {
        let file = std::fs::File::open(top.join("staged")).unwrap();
        let staged = std::sync::Arc::new(StagedFile {
            name: Name::new("staged").unwrap(),
            fd: file.into(),
            len: 5,
        });
        let op = Op::Write {
            path: "f".into(),
            source: Source::File(staged.clone()),
            attr: AttrRequest::default(),
            create_new: true,
        };
        view.run(&op).unwrap();
        let source = Source::Bytes(b"67".as_slice().into());
        let path = "f".into();
        view.run(&Op::Append { path, source }).unwrap();
        assert_eq!(view.metadata(Path::new("f")).unwrap().len, Some(7));
        let read = view.read(Path::new("f")).unwrap();
        assert!(matches!(
            &read[..],
            [Content::Staged(a), Content::Bytes(b)] if a.len == 5 && **b == *b"67"
        ));
    });
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let build = |top: &Path| {
        std::fs::create_dir(top.join("d")).unwrap();
        std::os::unix::fs::symlink("d", top.join("l1")).unwrap();
        for n in 2..=41 {
            let (text, name) = (format!("l{}", n - 1), format!("l{n}"));
            std::os::unix::fs::symlink(text, top.join(name)).unwrap();
        }
    };
    with_view(build, |view, _| {
        view.run(&write("l40/f", "")).unwrap();
        view.run(&write("l39/../l1/f", "")).unwrap();
        for path in ["l41/f", "l40/../l1/f"] {
            let error = view.run(&write(path, "")).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::LOOP), "{path}");
        }
    });
}

#[test]
fn claims_cover_both_ends_and_what_was_read() {
    let build = |top: &Path| {
        std::fs::create_dir_all(top.join("d/e")).unwrap();
        std::fs::write(top.join("d/f"), "f").unwrap();
        std::fs::write(top.join("r"), "r").unwrap();
        std::os::unix::fs::symlink("d", top.join("l")).unwrap();
    };
    with_view(build, |view, _| {
        view.run(&rename("l/e", "n", Renaming::Replace)).unwrap();
        view.run(&write("n/x", "")).unwrap();
        view.run(&attr(
            "d/f",
            AttrRequest {
                mode: Some(0o600),
                ..AttrRequest::default()
            },
        ))
        .unwrap();
        let (name, value) = (b"k".to_vec(), Vec::new());
        view.run(&Op::Key { name, value }).unwrap();
        view.read(Path::new("r")).unwrap();
        assert!(!view.exists(Path::new("none")).unwrap());
        let wants: Vec<_> = view.wants(&view.draft()).unwrap();
        let want = |path: &str, exclusive: bool| {
            let path = crate::claim::ClaimPath::new(path).unwrap();
            let found = wants.iter().find(|want| *want.path() == path);
            assert_eq!(
                found.map(crate::claim::Want::is_exclusive),
                Some(exclusive),
                "{path:?}"
            );
        };
        for path in ["d/e", "n", "d/f", ".steadfast/keys/k6b"] {
            want(path, true);
        }
        for path in ["l", "r", "none"] {
            want(path, false);
        }
        assert_eq!(wants.len(), 7, "{wants:?}");
        let reads: Vec<_> = view
            .reads()
            .iter()
            .map(|(p, read)| (&p[..], read.found.is_some()))
            .collect();
        let expected: [(&[u8], bool); 3] = [(b"l", true), (b"none", false), (b"r", true)];
        assert_eq!(reads, expected);
    });
}

#[test]
fn a_key_is_recorded_once() {
    let build = |top: &Path| {
        std::fs::create_dir_all(top.join(".steadfast/keys")).unwrap();
        let there = key_name(b"there").unwrap();
        std::fs::write(top.join(".steadfast/keys").join(there.as_os_str()), "").unwrap();
    };
    let key = |name: &[u8]| Op::Key {
        name: name.to_vec(),
        value: b"v".to_vec(),
    };
    with_view(build, |view, _| {
        view.run(&key(b"new")).unwrap();
        for name in [&b"new"[..], b"there"] {
            let error = view.run(&key(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        view.run(&key(&[7; 5000])).unwrap();
        assert_eq!(view.draft().slots.len(), 2);
    });
    let long = |last| [&[1; 500][..], &[last]].concat();
    assert_ne!(key_name(&long(1)).unwrap(), key_name(&long(2)).unwrap());
    assert!(key_name(&long(1)).unwrap().as_bytes().len() <= 255);
    assert_ne!(key_name(b"").unwrap(), key_name(b"\0").unwrap());
}

#[test]
fn nothing_is_beneath_a_file() {
    let build = |top: &Path| std::fs::write(top.join("f"), "").unwrap();
    with_view(build, |view, _| {
        assert!(!view.exists(Path::new("f/x")).unwrap());
        assert!(!view.exists(Path::new("f/x/y")).unwrap());
        assert!(view.identity(Path::new("f/x")).unwrap().is_none());
    });
}

#[test]
fn the_first_answer_stands() {
    let build = |top: &Path| {
        std::fs::create_dir(top.join("d")).unwrap();
        std::fs::write(top.join("d/a"), "a").unwrap();
    };
    with_view(build, |view, top| {
        assert!(!view.exists(Path::new("d/b")).unwrap());
        assert!(view.exists(Path::new("d/a")).unwrap());
        std::fs::write(top.join("d/b"), "b").unwrap();
        std::fs::remove_file(top.join("d/a")).unwrap();
        let names = view.list(Path::new("d")).unwrap();
        let names: Vec<_> = names.iter().map(|(name, _)| name.as_bytes()).collect();
        assert_eq!(names, [b"a"]);
        let error = view.read(Path::new("d/a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
        std::fs::write(top.join("d/a"), "another").unwrap();
        let error = view.read(Path::new("d/a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed);
        std::fs::rename(top.join("d"), top.join("old")).unwrap();
        std::fs::create_dir(top.join("d")).unwrap();
        // The descriptor is of the directory that was seen, which is where it was looked at.
        assert!(!view.exists(Path::new("d/c")).unwrap());
    });
}

#[test]
fn each_name_is_looked_at_once() {
    let build = |top: &Path| {
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/c"), "c").unwrap();
    };
    with_view(build, |view, _| {
        let calls = |view: &mut View<'_>| {
            crate::sys::hook::scope(None, || view.run(&write("a/b/c", "new")).unwrap()).1
        };
        // Two for each directory, one for the file.
        let first = calls(view);
        assert_eq!(first, ["openat", "statx", "openat", "statx", "statx"]);
        assert!(calls(view).is_empty());
    });
}

#[test]
fn rules_of_the_root_are_kept() {
    use crate::{RootOptions, Scope};
    let dir = dir();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink("/d", dir.path().join("abs")).unwrap();
    let run = |options: RootOptions, path: &str| {
        let root = options.open(dir.path()).unwrap();
        let mut view = View::new(&root).unwrap();
        let done = view.run(&write(path, ""));
        done.map(|()| view.draft().slots[0].path.clone())
    };
    let error = run(RootOptions::new(), "abs/f").unwrap_err();
    assert_eq!(
        (error.kind(), error.errno()),
        (ErrorKind::Escape, Some(Errno::XDEV))
    );
    let in_root = RootOptions::new().scope(Scope::InRoot);
    assert_eq!(run(in_root, "abs/../../d/f").unwrap(), b"d/f");
    assert_eq!(run(in_root, "/f").unwrap(), b"f");
    let error = run(in_root.no_symlinks(true), "abs/f").unwrap_err();
    assert_eq!(error.errno(), Some(Errno::LOOP));
}
