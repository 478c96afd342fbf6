//! Copying trees: the copy is the same, or there is none.

use crate::common;
use crate::support::{
    Random, acl, assert_same, build, chmod, is_fifo, is_root, list, mode_of, name, set_xattr,
    skipped, snapshot,
};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::tree::{CopyOptions, Special, copy, copy_watched};
use steadfast::{DiskState, ErrorKind, Name, Root};

fn options() -> CopyOptions {
    CopyOptions::new().special(Special::Recreate)
}

#[test]
fn random_trees_are_copied_whole() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    for seed in 0..40 {
        let top = dir.path().join("t");
        build(&top, &mut Random::new(seed));
        let before = snapshot(&top);
        let done = copy(&root, &name("t"), &root, &name("copy"), &options()).unwrap();
        let after = snapshot(&dir.path().join("copy"));
        eprintln!("seed {seed}: {done:?}");
        assert_same(&before, &after);
        assert_same(&snapshot(&top), &before);
        let entries = done.files + done.dirs + done.symlinks + done.specials + done.hard_links;
        assert_eq!(entries, before.len() as u64);
        let missed = done.owners_missed + done.xattrs_missed + done.links_missed;
        assert_eq!((missed, done.changed, done.skipped), (0, 0, 0));
        root.remove_tree("t", &Default::default()).unwrap();
        root.remove_tree("copy", &Default::default()).unwrap();
    }
}

#[test]
fn a_single_file_symlink_or_fifo_is_a_tree() {
    let dir = common::dir();
    fs::write(dir.path().join("f"), "content").unwrap();
    chmod(&dir.path().join("f"), 0o751);
    symlink("f", dir.path().join("l")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    root.mkfifo("p", rustix::fs::Mode::RUSR).unwrap();
    for single in ["f", "l", "p"] {
        let to = format!("{single}2");
        copy(&root, &name(single), &root, &name(&to), &options()).unwrap();
        let (a, b) = (dir.path().join(single), dir.path().join(&to));
        assert_same(&snapshot(&a), &snapshot(&b));
    }
    assert!(is_fifo(&dir.path().join("p2")));
    assert_eq!(
        fs::read_link(dir.path().join("l2")).unwrap(),
        Path::new("f")
    );
}

#[test]
fn the_target_must_not_exist() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "old").unwrap();
    fs::write(dir.path().join("f"), "old").unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let before = snapshot(dir.path());
    for from in ["d", "f", "dangling"] {
        for to in ["d", "f", "dangling"] {
            let error = copy(&root, &name(from), &root, &name(to), &options()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{from} {to}");
            assert_eq!(error.disk_state(), DiskState::Unchanged);
            assert_eq!(error.operation(), "copy tree");
            assert_eq!(error.path(), Some(Path::new(from)));
            assert_eq!(error.other_path(), Some(Path::new(to)));
        }
        for to in [".", "d/..", "d/."] {
            let error = root.copy_tree(from, &root, to, &options()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{from} {to}");
        }
    }
    let error = copy(&root, &name("nope"), &root, &name("x"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn paths_beneath_roots() {
    let dir = common::dir();
    for sub in ["a/t/in", "b"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    fs::write(dir.path().join("a/t/in/f"), "x").unwrap();
    symlink("t", dir.path().join("a/link")).unwrap();
    let (a, b) = (
        Root::open(dir.path().join("a")).unwrap(),
        Root::open(dir.path().join("b")).unwrap(),
    );
    a.copy_tree("t", &b, "1", &options()).unwrap();
    a.copy_tree("t/", &b, "2", &options()).unwrap();
    a.copy_tree("t/in/..", &b, "3/", &options()).unwrap();
    a.copy_tree("link/", &b, "4", &options()).unwrap();
    let whole = Root::open(dir.path().join("a/t")).unwrap();
    whole.copy_tree(".", &b, "5/", &options()).unwrap();
    for n in 1..=5 {
        assert_same(
            &snapshot(&dir.path().join("a/t")),
            &snapshot(&dir.path().join(format!("b/{n}"))),
        );
    }
    a.copy_tree("link", &b, "6", &options()).unwrap();
    assert!(dir.path().join("b/6").is_symlink());
    for from in ["t/in/f", "link"] {
        let error = a.copy_tree(from, &b, "7/", &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory, "{from}");
    }
    let error = a.copy_tree("t/in/f/", &b, "7", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    let error = a.copy_tree("../b", &b, "7", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Escape);
    let error = a.copy_tree("t", &b, "../7", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Escape);
    assert_eq!(list(&dir.path().join("b")), ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn a_tree_is_not_copied_into_itself() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
    fs::write(dir.path().join("t/a/f"), "x").unwrap();
    let before = snapshot(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let copies = [
        ("t", "t/copy"),
        ("t", "t/a/b/copy"),
        ("t/", "t/a/copy"),
        (".", "t/copy"),
    ];
    for (from, to) in copies {
        let error = root.copy_tree(from, &root, to, &options()).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{from} {to}: {error}"
        );
        assert_eq!(error.disk_state(), DiskState::Unchanged);
        let after = snapshot(dir.path());
        assert!(before.keys().eq(after.keys()), "{from} {to}");
    }
    // Beside it is fine.
    root.copy_tree("t/a", &root, "t/copy", &options()).unwrap();
}

#[test]
fn special_files_by_policy() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::write(dir.path().join("t/f"), "x").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut specials = 3;
    root.mkfifo("t/fifo", rustix::fs::Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("t/socket"));
    if _socket.is_err() {
        // The path is too long for a socket's name here.
        specials -= 1;
    }
    if is_root() {
        let (mode, null) = (rustix::fs::Mode::RUSR, rustix::fs::makedev(1, 3));
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("t/null"), kind, mode, null).unwrap();
        specials += 1;
    } else {
        skipped("special_files_by_policy, devices", "need root");
    }
    chmod(&dir.path().join("t/fifo"), 0o621);
    // In the mode that this gives, the group's bits are the mask's.
    let fifo = dir.path().join("t/masked");
    root.mkfifo("t/masked", rustix::fs::Mode::RUSR).unwrap();
    let masked = set_xattr(&fifo, "system.posix_acl_access", &acl(6, (7, 6), 4, 6, 0));
    let error = root
        .copy_tree("t", &root, "refused", &CopyOptions::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAFile);
    assert_eq!(error.disk_state(), DiskState::Unchanged);
    let skip = CopyOptions::new().special(Special::Skip);
    let done = root.copy_tree("t", &root, "skipped", &skip).unwrap();
    assert_eq!((done.skipped, done.files), (specials, 1));
    assert_eq!(list(&dir.path().join("skipped")), ["f"]);
    let done = root.copy_tree("t", &root, "made", &options()).unwrap();
    assert_eq!(done.specials, specials);
    if masked {
        assert_eq!(mode_of(&fifo), 0o660);
        assert_eq!(mode_of(&dir.path().join("made/masked")), 0o640);
    }
    for top in ["t", "made"] {
        fs::remove_file(dir.path().join(top).join("masked")).unwrap();
    }
    let (from, to) = (
        snapshot(&dir.path().join("t")),
        snapshot(&dir.path().join("made")),
    );
    for (path, seen) in &from {
        assert_eq!(
            (seen.mode, seen.device),
            (to[path].mode, to[path].device),
            "{path:?}"
        );
    }
    assert_eq!(from.len(), to.len());
    assert_eq!(list(dir.path()), ["made", "skipped", "t"]);
}

#[test]
fn hard_links_stay_together_and_outside_ones_stay_outside() {
    let dir = common::dir();
    for sub in ["t/a/b", "t/z", "t/shut"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    fs::write(dir.path().join("outside"), "x").unwrap();
    for path in ["t/shut/1", "t/a/b/2", "t/a/b/3", "t/z/4", "t/5"] {
        fs::hard_link(dir.path().join("outside"), dir.path().join(path)).unwrap();
    }
    // A symlink with two names.
    symlink("nowhere", dir.path().join("t/l1")).unwrap();
    rustix::fs::link(dir.path().join("t/l1"), dir.path().join("t/a/l2")).unwrap();
    chmod(&dir.path().join("t/shut"), 0o500);
    let root = Root::open(dir.path()).unwrap();
    let done = root.copy_tree("t", &root, "copy", &options()).unwrap();
    assert_eq!((done.files, done.symlinks, done.hard_links), (1, 1, 5));
    assert_same(
        &snapshot(&dir.path().join("t")),
        &snapshot(&dir.path().join("copy")),
    );
    assert_eq!(dir.path().join("copy/5").metadata().unwrap().nlink(), 5);
    assert_eq!(dir.path().join("outside").metadata().unwrap().nlink(), 6);
    chmod(&dir.path().join("t/shut"), 0o700);
}

#[test]
fn where_links_are_refused_the_names_become_files() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    fs::write(dir.path().join("t/1"), "x").unwrap();
    fs::hard_link(dir.path().join("t/1"), dir.path().join("t/a/2")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    for errno in [Errno::PERM, Errno::MLINK] {
        let done = steadfast::sys::hook::deny(&[("linkat", errno)], || {
            root.copy_tree("t", &root, "copy", &options()).unwrap()
        });
        assert_eq!((done.files, done.hard_links, done.links_missed), (2, 0, 1));
        assert_eq!(fs::read(dir.path().join("copy/a/2")).unwrap(), b"x");
        root.remove_tree("copy", &Default::default()).unwrap();
    }
}

#[test]
fn names_of_any_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = common::dir();
    fs::create_dir(dir.path().join("t")).unwrap();
    let names = [
        &b"\xff\xfe"[..],
        b"new\nline",
        b" ",
        b"\\",
        b"...",
        &[b'n'; 255],
        &[0xc3; 255],
    ];
    for bytes in names {
        let path = dir.path().join("t").join(OsStr::from_bytes(bytes));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(OsStr::from_bytes(bytes)), bytes).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let long = Name::new(OsStr::from_bytes(&[0xff; 255])).unwrap();
    copy(&root, &name("t"), &root, &long, &options()).unwrap();
    assert_same(
        &snapshot(&dir.path().join("t")),
        &snapshot(&dir.path().join(long.as_os_str())),
    );
}

#[test]
fn it_can_be_cancelled_at_any_step_and_leaves_nothing() {
    let dir = common::dir();
    build(&dir.path().join("t"), &mut Random::new(3));
    let root = Root::open(dir.path()).unwrap();
    let mut steps = 0;
    loop {
        let mut calls = 0;
        let done = copy_watched(
            &root,
            &name("t"),
            &root,
            &name("copy"),
            &options(),
            &mut |_| {
                calls += 1;
                if calls > steps {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        match done {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Cancelled);
                assert_eq!(error.disk_state(), DiskState::Unchanged);
                assert!(error.left_behind().is_empty());
                assert_eq!(list(dir.path()), ["t"], "step {steps}");
            }
        }
        steps += 1;
    }
    assert!(steps > 25, "{steps}");
}

#[test]
fn a_callback_that_panics_leaves_nothing_either() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    fs::write(dir.path().join("t/a/f"), "x").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let run = std::panic::AssertUnwindSafe(|| {
        copy_watched(
            &root,
            &name("t"),
            &root,
            &name("copy"),
            &options(),
            &mut |_| panic!("on purpose"),
        )
    });
    std::panic::catch_unwind(run).unwrap_err();
    assert_eq!(list(dir.path()), ["t"]);
}

#[test]
fn somebody_elses_tree_in_the_place_of_the_copy_is_not_removed() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/a")).unwrap();
    fs::write(dir.path().join("t/a/f"), "x").unwrap();
    fs::create_dir(dir.path().join("theirs")).unwrap();
    fs::write(dir.path().join("theirs/precious"), "x").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let error = copy_watched(
        &root,
        &name("t"),
        &root,
        &name("copy"),
        &options(),
        &mut |_| {
            fs::rename(dir.path().join("copy"), dir.path().join("moved")).unwrap();
            fs::rename(dir.path().join("theirs"), dir.path().join("copy")).unwrap();
            ControlFlow::Break(())
        },
    )
    .unwrap_err();
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
    assert_eq!(error.left_behind(), [Path::new("copy")]);
    assert!(dir.path().join("copy/precious").exists());
}

#[test]
fn nothing_is_more_readable_on_the_way() {
    let dir = common::dir();
    let top = dir.path().join("t");
    fs::create_dir_all(top.join("private")).unwrap();
    fs::write(top.join("private/f"), vec![1; 3 << 20]).unwrap();
    fs::write(top.join("secret"), vec![1; 3 << 20]).unwrap();
    chmod(&top.join("private/f"), 0o644);
    chmod(&top.join("secret"), 0o600);
    chmod(&top.join("private"), 0o755);
    chmod(&top, 0o750);
    set_xattr(&top, "user.a", b"v");
    let root = Root::open(dir.path()).unwrap();
    let mut looked = 0;
    // Through the buffer, so that there are steps inside of files.
    let by_hand = [
        ("ioctl(FICLONE)", Errno::OPNOTSUPP),
        ("copy_file_range", Errno::OPNOTSUPP),
    ];
    steadfast::sys::hook::deny(&by_hand, || {
        copy_watched(
            &root,
            &name("t"),
            &root,
            &name("copy"),
            &options(),
            &mut |p| {
                let to = dir.path().join("copy");
                if p.dirs < 2 {
                    looked += 1;
                    assert_eq!(mode_of(&to), 0o700);
                    for (path, _) in snapshot(&to) {
                        let (from, to) = (mode_of(&top.join(&path)), mode_of(&to.join(&path)));
                        assert!(
                            to == from || to & 0o077 == 0,
                            "{path:?}: {to:o} of {from:o}"
                        );
                    }
                }
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    });
    assert!(looked > 24, "{looked}");
    assert_same(&snapshot(&top), &snapshot(&dir.path().join("copy")));
}
