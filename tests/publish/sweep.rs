//! What a kill leaves is removed; nothing else is.

use crate::{common, names};
use std::fs;
use std::io::Write;
use std::path::Path;
use steadfast::Root;
use steadfast::publish::{FileOptions, FolderOptions, Kept, SweepOptions, SweepReport, sweep};
use steadfast::sys::hook;

fn swept(root: &Root) -> SweepReport {
    sweep(root, ".", &SweepOptions::new()).unwrap()
}

/// Leaves what a killed writer would: the guard is forgotten and its descriptor closed.
fn leave_file(dir: &Path) -> String {
    let root = Root::open(dir).unwrap();
    let (_, names_before) = ((), names(dir));
    // Every unlink fails, so that the temporary stays when the guard is dropped.
    hook::deny(&[("unlinkat", steadfast::sys::Errno::IO)], || {
        let mut pending = FileOptions::new().begin(&root, "target").unwrap();
        pending.write_all(b"left").unwrap();
        drop(pending);
    });
    names(dir)
        .into_iter()
        .find(|n| !names_before.contains(n))
        .unwrap()
}

#[test]
fn a_dead_writers_file_goes_and_a_living_ones_stays() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let left = leave_file(tmp.path());
    let mut living = FileOptions::new().begin(&root, "f").unwrap();
    living.write_all(b"x").unwrap();
    let dry = sweep(&root, ".", &SweepOptions::new().dry_run(true)).unwrap();
    assert_eq!(dry.removed(), [Path::new(&left)]);
    assert!(tmp.path().join(&left).exists());
    let report = swept(&root);
    assert_eq!(report.removed(), [Path::new(&left)]);
    assert!(matches!(report.kept(), [(_, Kept::InUse)]), "{report:?}");
    living.commit().unwrap();
    assert_eq!(names(tmp.path()), ["f"]);
}

#[test]
fn a_dead_writers_folder_goes_and_a_living_ones_stays() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let living = FolderOptions::new().begin(&root, "d").unwrap();
    FileOptions::new().write(living.root(), "f", "x").unwrap();
    let report = swept(&root);
    assert!(matches!(report.kept(), [(_, Kept::InUse)]), "{report:?}");
    // A forgotten guard whose descriptors are gone: an exec'd or killed process.
    let name = names(tmp.path()).pop().unwrap();
    let copy = tmp.path().join("moved");
    fs::rename(tmp.path().join(&name), &copy).unwrap();
    fs::create_dir(tmp.path().join(&name)).unwrap();
    fs::write(tmp.path().join(&name).join("part"), "x").unwrap();
    let report = swept(&root);
    assert_eq!(report.removed(), [Path::new(&name)]);
    assert_eq!(names(tmp.path()), ["moved"]);
    drop(living);
}

#[test]
fn users_own_files_are_never_taken() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let left = leave_file(tmp.path());
    let mut own: Vec<String> = [
        ".sf-",
        ".sf-t",
        ".sf-t0123456789abcdef",
        ".sf-notes",
        "sf-t",
    ]
    .map(str::to_owned)
    .to_vec();
    // One digit off, one more, and the right name for another kind.
    let last = left.chars().last().unwrap();
    let wrong = if last == '0' { "1" } else { "0" };
    own.push(format!("{}{wrong}", &left[..left.len() - 1]));
    own.push(format!("{left}0"));
    for name in &own {
        fs::write(tmp.path().join(name), "mine").unwrap();
    }
    fs::remove_file(tmp.path().join(&left)).unwrap();
    fs::create_dir(tmp.path().join(&left)).unwrap();
    let report = swept(&root);
    assert!(report.removed().is_empty());
    assert!(matches!(report.kept(), [(_, Kept::NotOurs)]), "{report:?}");
    own.push(left);
    own.sort();
    assert_eq!(names(tmp.path()), own);
}

#[test]
fn a_directory_that_may_not_be_read_is_reported_and_the_others_are_swept() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for name in ["a", "b"] {
        fs::create_dir(tmp.path().join(name)).unwrap();
    }
    let recursive = SweepOptions::new().recursive(true).dry_run(true);
    leave_file(&tmp.path().join("a"));
    leave_file(&tmp.path().join("b"));
    let mut reported = 0;
    for at in 1.. {
        let denied = hook::Action::Fail(steadfast::sys::Errno::ACCESS);
        let plan = Some(hook::Plan { at, action: denied });
        let (report, calls) = hook::scope(plan, || sweep(&root, ".", &recursive));
        if calls.len() < at as usize {
            break;
        }
        if let Ok(report) = report
            && let [(path, Kept::NotPermitted)] = report.kept()
            && (path == Path::new("a") || path == Path::new("b"))
        {
            assert_eq!(report.removed().len(), 1, "{report:?}");
            assert!(!report.removed()[0].starts_with(path));
            reported += 1;
        }
    }
    // Each of the two, at one call about it or more.
    assert!(reported >= 2, "{reported}");
}

#[test]
fn directories_below_only_if_asked() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir_all(tmp.path().join("a/b")).unwrap();
    leave_file(&tmp.path().join("a/b"));
    assert!(swept(&root).removed().is_empty());
    let report = sweep(&root, "", &SweepOptions::new());
    assert!(report.is_err());
    let report = sweep(&root, ".", &SweepOptions::new().recursive(true)).unwrap();
    assert_eq!(report.removed().len(), 1);
    assert!(report.removed()[0].starts_with("a/b"));
    assert!(names(&tmp.path().join("a/b")).is_empty());
}
