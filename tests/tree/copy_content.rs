//! The content of files: every way of copying it, holes, and sources that change meanwhile.

use crate::common;
use crate::support::{keeps_holes, list, name, snapshot};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::sys::hook::{deny, scope};
use steadfast::tree::{Copied, CopyOptions, copy, copy_watched};
use steadfast::{DiskState, ErrorKind, Root};

const BY_HAND: [(&str, Errno); 2] = [
    ("ioctl(FICLONE)", Errno::OPNOTSUPP),
    ("copy_file_range", Errno::OPNOTSUPP),
];

fn copy_one(dir: &Path) -> Copied {
    let root = Root::open(dir).unwrap();
    root.remove_tree(
        "to",
        &steadfast::tree::RemoveOptions::new().missing_ok(true),
    )
    .unwrap();
    copy(
        &root,
        &name("from"),
        &root,
        &name("to"),
        &CopyOptions::new(),
    )
    .unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn every_way_gives_the_same() {
    let dir = common::dir();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let refusals = [
        Errno::XDEV,
        Errno::OPNOTSUPP,
        Errno::INVAL,
        Errno::NOTTY,
        Errno::NOSYS,
        Errno::PERM,
        Errno::IO,
    ];
    for len in [0, 1, 4095, 4096, 70_000, (1 << 20) + 3] {
        fs::write(&from, pattern(len)).unwrap();
        let mut ways: Vec<Vec<(&str, Errno)>> = vec![vec![]];
        for e in refusals {
            ways.push(vec![("ioctl(FICLONE)", e)]);
            ways.push(vec![("ioctl(FICLONE)", e), ("copy_file_range", e)]);
        }
        for way in ways {
            let done = deny(&way, || copy_one(dir.path()));
            assert_eq!(fs::read(&to).unwrap(), pattern(len), "{len} {way:?}");
            assert_eq!((done.bytes, done.changed), (len as u64, 0), "{len} {way:?}");
        }
    }
}

#[test]
fn other_errors_are_errors() {
    let dir = common::dir();
    fs::write(dir.path().join("from"), pattern(10_000)).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let refused = ("ioctl(FICLONE)", Errno::OPNOTSUPP);
    let cases: [&[(&str, Errno)]; 4] = [
        &[("ioctl(FICLONE)", Errno::NOSPC)],
        &[refused, ("copy_file_range", Errno::NOSPC)],
        &[
            refused,
            ("copy_file_range", Errno::XDEV),
            ("write", Errno::NOSPC),
        ],
        &[refused, ("copy_file_range", Errno::IO), ("read", Errno::IO)],
    ];
    for case in cases {
        let copy = || {
            copy(
                &root,
                &name("from"),
                &root,
                &name("to"),
                &CopyOptions::new(),
            )
        };
        let error = deny(case, copy).unwrap_err();
        assert_eq!(error.errno(), Some(case.last().unwrap().1));
        assert_eq!(error.disk_state(), DiskState::Unchanged);
        assert_eq!(list(dir.path()), ["from"]);
    }
}

#[test]
fn a_refused_way_is_not_tried_for_every_file() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("from")).unwrap();
    for n in 0..20 {
        fs::write(dir.path().join(format!("from/{n}")), "x").unwrap();
    }
    let (_, calls) = scope(None, || deny(&BY_HAND, || copy_one(dir.path())));
    let count = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!((count("ioctl(FICLONE)"), count("copy_file_range")), (1, 1));
    assert_eq!(count("write"), 20);
}

#[test]
fn holes_stay_holes() {
    let dir = common::dir();
    let from = dir.path().join("from");
    let size = 3 << 30;
    let file = fs::File::create(&from).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&pattern(100_000), 1 << 20).unwrap();
    file.write_all_at(&pattern(5000), 2 << 30).unwrap();
    file.sync_all().unwrap();
    for way in [&BY_HAND[..], &BY_HAND[..1], &[]] {
        let done = deny(way, || copy_one(dir.path()));
        let to = fs::File::open(dir.path().join("to")).unwrap();
        assert_eq!(to.metadata().unwrap().len(), size);
        assert!(to.metadata().unwrap().blocks() * 512 < 4 << 20, "{way:?}");
        for (at, len) in [(1 << 20, 100_000), (2 << 30, 5000)] {
            let mut buf = vec![0; len];
            to.read_exact_at(&mut buf, at).unwrap();
            assert!(buf == pattern(len), "{way:?} at {at}");
        }
        assert_eq!(done.changed, 0);
        let extents = |path: &Path| snapshot(path)[Path::new("")].extents.clone();
        assert!(keeps_holes(
            &extents(&from),
            &extents(&dir.path().join("to"))
        ));
    }
    // A file that is nothing but a hole, and one that begins with data and ends in a hole.
    for data in [0, 10_000] {
        let file = fs::File::create(&from).unwrap();
        file.write_all_at(&pattern(data), 0).unwrap();
        file.set_len(10 << 20).unwrap();
        deny(&BY_HAND, || copy_one(dir.path()));
        assert!(fs::read(&from).unwrap() == fs::read(dir.path().join("to")).unwrap());
    }
}

#[test]
fn where_holes_cannot_be_told_everything_is_data() {
    let dir = common::dir();
    let file = fs::File::create(dir.path().join("from")).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&pattern(100_000), 1 << 20).unwrap();
    for call in ["lseek(SEEK_DATA)", "lseek(SEEK_HOLE)"] {
        let mut way = BY_HAND.to_vec();
        way.push((call, Errno::INVAL));
        deny(&way, || copy_one(dir.path()));
        let same =
            fs::read(dir.path().join("from")).unwrap() == fs::read(dir.path().join("to")).unwrap();
        assert!(same, "{call}");
    }
}

#[test]
fn a_file_without_a_size_is_read_to_its_end() {
    // procfs says 0 for every size.
    let proc = Root::open("/proc/self").unwrap();
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    copy(
        &proc,
        &name("cmdline"),
        &root,
        &name("to"),
        &CopyOptions::new(),
    )
    .unwrap();
    let want = fs::read("/proc/self/cmdline").unwrap();
    assert!(!want.is_empty());
    assert_eq!(fs::read(dir.path().join("to")).unwrap(), want);
}

/// Copies `from` of 1 MiB through the buffer, with `meddle` called after the first piece.
fn copy_meddled(
    dir: &Path,
    mut meddle: impl FnMut(&fs::File),
) -> (steadfast::Result<Copied>, Vec<u8>) {
    let from = dir.join("from");
    fs::write(&from, pattern(1 << 20)).unwrap();
    let file = fs::File::options().append(true).open(&from).unwrap();
    let root = Root::open(dir).unwrap();
    let mut first = true;
    let done = deny(&BY_HAND, || {
        copy_watched(
            &root,
            &name("from"),
            &root,
            &name("to"),
            &CopyOptions::new(),
            &mut |p| {
                if p.bytes > 0 && std::mem::take(&mut first) {
                    meddle(&file);
                }
                ControlFlow::Continue(())
            },
        )
    });
    (done, fs::read(dir.join("to")).unwrap_or_default())
}

#[test]
fn a_source_that_grows_is_copied_to_its_new_end() {
    let dir = common::dir();
    let (done, copy) = copy_meddled(dir.path(), |mut file| {
        file.write_all(&pattern(300_000)).unwrap()
    });
    assert_eq!(done.unwrap().changed, 1);
    assert!(copy == fs::read(dir.path().join("from")).unwrap());
}

#[test]
fn a_source_that_always_grows_comes_to_an_end() {
    let dir = common::dir();
    let from = dir.path().join("from");
    fs::write(&from, pattern(1 << 20)).unwrap();
    let mut file = fs::File::options().append(true).open(&from).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut calls = 0;
    let done = deny(&BY_HAND, || {
        copy_watched(
            &root,
            &name("from"),
            &root,
            &name("to"),
            &CopyOptions::new(),
            &mut |_| {
                calls += 1;
                assert!(calls < 1000, "it never ends");
                file.write_all(&pattern(300_000)).unwrap();
                ControlFlow::Continue(())
            },
        )
    })
    .unwrap();
    assert_eq!(done.changed, 1);
    let (from, to) = (
        fs::read(&from).unwrap(),
        fs::read(dir.path().join("to")).unwrap(),
    );
    assert!(from.starts_with(&to) && to.len() > 1 << 20);
}

#[test]
fn a_source_that_is_cut_off_gives_what_was_there() {
    let dir = common::dir();
    let (done, copy) = copy_meddled(dir.path(), |file| file.set_len(300_000).unwrap());
    assert_eq!(done.unwrap().changed, 1);
    assert!(copy.len() <= 1 << 20 && copy.len() >= 256 << 10);
    assert!(pattern(1 << 20).starts_with(&copy));
    // The same with holes.
    fs::remove_file(dir.path().join("to")).unwrap();
    let (done, _) = copy_meddled(dir.path(), |file| {
        file.set_len(0).unwrap();
        file.set_len(8 << 20).unwrap();
    });
    assert_eq!(done.unwrap().changed, 1);
}

#[test]
fn a_source_replaced_by_something_else_is_never_opened_as_a_file() {
    let dir = common::dir();
    fs::create_dir(dir.path().join("from")).unwrap();
    for n in 0..40 {
        fs::write(dir.path().join(format!("from/{n}")), "x").unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let mut first = true;
    // The listing says files; then they all are FIFOs, which would block for ever.
    let error = copy_watched(
        &root,
        &name("from"),
        &root,
        &name("to"),
        &CopyOptions::new(),
        &mut |_| {
            if std::mem::take(&mut first) {
                for n in 0..40 {
                    let path = dir.path().join(format!("from/{n}"));
                    fs::remove_file(&path).unwrap();
                    root.mkfifo(format!("from/{n}"), rustix::fs::Mode::RUSR)
                        .unwrap();
                }
            }
            ControlFlow::Continue(())
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAFile);
    assert_eq!(list(dir.path()), ["from"]);
}
