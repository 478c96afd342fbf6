//! A probe tells the truth about each feature, and leaves nothing behind whatever fails.

use crate::common;
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::path::Path;
use steadfast::root::{Capabilities, Capability, Feature};
use steadfast::sys::FsKind;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, ErrorKind};

fn open(dir: &Path) -> File {
    File::open(dir).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// Each feature, the call that stands for it, what a kernel without it answers, and what else goes with it.
const CALLS: &[(Feature, &str, Errno, &[Feature])] = &[
    (Feature::OpenAt2, "openat2", Errno::NOSYS, &[]),
    (Feature::OpenAt2, "openat2", Errno::PERM, &[]),
    (
        Feature::NoReplace,
        "renameat2(RENAME_NOREPLACE)",
        Errno::INVAL,
        &[],
    ),
    (
        Feature::Exchange,
        "renameat2(RENAME_EXCHANGE)",
        Errno::INVAL,
        &[],
    ),
    (Feature::Whiteout, "renameat2", Errno::INVAL, &[]),
    (Feature::TmpFile, "openat(O_TMPFILE)", Errno::OPNOTSUPP, &[]),
    (Feature::TmpFile, "openat(O_TMPFILE)", Errno::ISDIR, &[]),
    (
        Feature::LinkEmptyPath,
        "linkat(AT_EMPTY_PATH)",
        Errno::NOENT,
        &[],
    ),
    (
        Feature::LinkProc,
        "linkat(/proc/self/fd)",
        Errno::NOENT,
        &[],
    ),
    (Feature::HardLink, "linkat", Errno::PERM, &[]),
    (Feature::Reflink, "ioctl(FICLONE)", Errno::OPNOTSUPP, &[]),
    (
        Feature::CopyFileRange,
        "copy_file_range",
        Errno::OPNOTSUPP,
        &[],
    ),
    (Feature::Fallocate, "fallocate", Errno::OPNOTSUPP, &[]),
    (
        Feature::UserXattr,
        "fsetxattr",
        Errno::OPNOTSUPP,
        &[Feature::PosixAcl],
    ),
    (Feature::SyncDirectory, "fsync", Errno::INVAL, &[]),
    (Feature::SyncFs, "syncfs", Errno::NOSYS, &[]),
    (Feature::OfdLock, "fcntl(F_OFD_SETLK)", Errno::NOLCK, &[]),
    (Feature::FlockDirectory, "flock", Errno::BADF, &[]),
    (Feature::WriteLease, "fcntl(F_SETLEASE)", Errno::INVAL, &[]),
];

#[test]
fn everything_is_tried_and_nothing_stays() {
    let tmp = common::dir();
    let can = Capabilities::probe_uncached(open(tmp.path())).unwrap();
    assert!(is_empty(tmp.path()));
    assert!(!can.is_read_only());
    for (feature, answer) in can.iter() {
        assert!(
            !matches!(answer, Capability::Unknown(_)),
            "{}: {answer:?}",
            feature.name()
        );
        assert!(!feature.fallback().is_empty());
    }
    // What no file system of the matrix lacks.
    let denied = |f| {
        CALLS
            .iter()
            .any(|(feature, call, ..)| *feature == f && hook::denied_by_env(call))
    };
    for feature in [
        Feature::SyncDirectory,
        Feature::SyncFs,
        Feature::OfdLock,
        Feature::FlockDirectory,
    ] {
        assert!(can.has(feature), "{feature:?}");
    }
    for feature in [
        Feature::NoReplace,
        Feature::Exchange,
        Feature::TmpFile,
        Feature::HardLink,
        Feature::LinkProc,
        Feature::CopyFileRange,
        Feature::UserXattr,
        Feature::BirthTime,
    ] {
        let known = [FsKind::Ext, FsKind::Xfs, FsKind::Btrfs, FsKind::Tmpfs];
        if known.contains(&can.file_system()) {
            assert_eq!(can.has(feature), !denied(feature), "{feature:?}");
        }
    }
    match can.file_system() {
        FsKind::Btrfs => assert_eq!(can.has(Feature::Reflink), !denied(Feature::Reflink)),
        FsKind::Ext | FsKind::Tmpfs => {
            assert_eq!(can.get(Feature::Reflink), Capability::No(Errno::OPNOTSUPP))
        }
        _ => {}
    }
}

/// The kernel is asked by hand for the two that decide most.
#[test]
fn the_renames_are_as_the_kernel_says() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    let can = Capabilities::probe_uncached(&dir).unwrap();
    for name in ["a", "b"] {
        fs::write(tmp.path().join(name), "").unwrap();
    }
    for (feature, flags, to, call) in [
        (
            Feature::NoReplace,
            RenameFlags::NOREPLACE,
            "c",
            "renameat2(RENAME_NOREPLACE)",
        ),
        (
            Feature::Exchange,
            RenameFlags::EXCHANGE,
            "b",
            "renameat2(RENAME_EXCHANGE)",
        ),
    ] {
        if hook::denied_by_env(call) {
            assert_eq!(can.get(feature), Capability::No(Errno::INVAL));
            continue;
        }
        let want = match rustix::fs::renameat_with(&dir, "a", &dir, to, flags) {
            Ok(()) => Capability::Yes,
            Err(e) => Capability::No(e),
        };
        assert_eq!(can.get(feature), want);
        fs::write(tmp.path().join("a"), "").unwrap();
    }
}

#[test]
fn what_is_switched_off_is_seen_to_be_missing() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    let full = Capabilities::probe_uncached(&dir).unwrap();
    for (feature, call, errno, with) in CALLS {
        let can = hook::deny(&[(call, *errno)], || Capabilities::probe_uncached(&dir)).unwrap();
        assert!(is_empty(tmp.path()), "{call}");
        for other in Feature::ALL {
            if other == *feature || with.contains(&other) {
                assert_eq!(can.get(other), Capability::No(*errno), "{call}: {other:?}");
            } else {
                assert_eq!(can.get(other), full.get(other), "{call}: {other:?}");
            }
        }
    }
}

/// A fault that says nothing about a feature makes it unknown, not missing.
#[test]
fn a_fault_is_not_taken_for_an_answer() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    for (feature, call, ..) in CALLS {
        if hook::denied_by_env(call) {
            continue;
        }
        let can = hook::deny(&[(call, Errno::IO)], || Capabilities::probe_uncached(&dir)).unwrap();
        assert_eq!(can.get(*feature), Capability::Unknown(Errno::IO), "{call}");
        assert!(is_empty(tmp.path()), "{call}");
    }
}

/// Every single call fails once, before or after it was made: nothing stays in the directory.
#[test]
fn no_failing_call_leaves_anything() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    let (_, calls) = hook::scope(None, || Capabilities::probe_uncached(&dir).unwrap());
    assert!((40..70).contains(&calls.len()), "{}", calls.len());
    for at in 1..=calls.len() as u64 {
        for errno in [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::INVAL] {
            for action in [Action::Fail(errno), Action::FailAfter(errno)] {
                let plan = Some(Plan { at, action });
                // An error or an answer: both are allowed, litter is not.
                let (result, seen) = hook::scope(plan, || Capabilities::probe_uncached(&dir));
                let call = seen[at as usize - 1];
                assert!(is_empty(tmp.path()), "{call} ({at}): {action:?}");
                if let Err(e) = result {
                    assert_eq!(e.errno(), Some(errno), "{call}");
                    assert_eq!(e.disk_state(), DiskState::Unchanged, "{call}");
                }
            }
        }
    }
}

/// If it cannot be removed at all, the error names it.
#[test]
fn what_cannot_be_removed_is_named() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    let deny = [("unlinkat(AT_REMOVEDIR)", Errno::IO)];
    let error = hook::deny(&deny, || Capabilities::probe_uncached(&dir)).unwrap_err();
    let left: Vec<_> = fs::read_dir(tmp.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 1);
    assert_eq!(error.left_behind(), [Path::new(&left[0])]);
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
}

#[test]
fn a_mount_is_probed_once() {
    let tmp = common::dir();
    let dir = open(tmp.path());
    let first = Capabilities::probe(&dir).unwrap();
    let (second, calls) = hook::scope(None, || Capabilities::probe(&dir).unwrap());
    assert_eq!(first, second);
    assert_eq!(calls, ["statx", "fstatfs"]);
}

#[test]
fn only_directories_are_probed() {
    let tmp = common::dir();
    fs::write(tmp.path().join("f"), "").unwrap();
    let error = Capabilities::probe(open(&tmp.path().join("f"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    // A handle without any right will do.
    let place = rustix::fs::open(tmp.path(), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let can = Capabilities::probe_uncached(&place).unwrap();
    assert!(can.has(Feature::SyncDirectory));
}
