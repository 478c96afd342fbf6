//! Somebody who takes no claims changes files between a crash and the recovery: theirs is not lost.

use crate::faults::killed;
use crate::tree::litter;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use steadfast::workspace::{Ours, Resolution, Theirs, Workspace, WorkspaceOptions};
use steadfast::{ErrorKind, Root};

/// A workspace in which "five overwritten" was killed right after its commit record.
pub(crate) fn crashed() -> tempfile::TempDir {
    /// The first call at which a kill leaves a commit behind.
    static AT: OnceLock<u64> = OnceLock::new();
    crashed_in("five overwritten", &AT)
}

/// A workspace in which this script was.
fn crashed_in(name: &str, first: &OnceLock<u64>) -> tempfile::TempDir {
    let script = crate::scripts::all()
        .into_iter()
        .find(|s| s.name == name)
        .unwrap();
    let base = crate::base();
    let killed_at = |at: u64| {
        let dir = crate::faults::prepared(&base, &script);
        let plan = format!("stop-before:{at}");
        assert!(killed(script.name, dir.path(), &plan), "no commit");
        dir
    };
    let at = *first.get_or_init(|| {
        let commits = |at: &u64| {
            let dir = killed_at(*at);
            let probe = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
            !probe.recovered().finished().is_empty()
        };
        (1..1000).find(commits).unwrap()
    });
    killed_at(at)
}

fn open(dir: &Path) -> Workspace {
    Workspace::open(&Root::open(dir).unwrap()).unwrap()
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn an_edit_in_place_stays_and_keep_theirs_ends_it() {
    let dir = crashed();
    let d = dir.path();
    fs::write(d.join("f2"), "somebody's").unwrap();
    let workspace = open(d);
    for n in [0, 1, 3, 4] {
        assert_eq!(text(d, &format!("f{n}")), format!("new {n}"));
    }
    assert_eq!(text(d, "f2"), "somebody's");
    let conflicts = workspace.conflicts().unwrap();
    let [conflict] = &conflicts[..] else {
        panic!("{conflicts:?}")
    };
    assert_eq!(conflict.path(), Path::new("f2"));
    assert_eq!(conflict.theirs(), Theirs::File(10));
    let Ours::Kept(kept) = conflict.ours() else {
        panic!("{conflict:?}")
    };
    assert_eq!(fs::read_to_string(d.join(kept)).unwrap(), "new 2");
    // What overlaps is closed, and nothing else.
    let mut tx = workspace.begin();
    tx.write("f2", "newer").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let mut tx = workspace.begin();
    tx.write("f1", "newer").unwrap();
    tx.commit().unwrap();
    // It is there after another open as well.
    drop(workspace);
    let workspace = open(d);
    let id = workspace.conflicts().unwrap()[0].id();
    assert_eq!(
        id.to_string()
            .parse::<steadfast::workspace::ConflictId>()
            .unwrap(),
        id
    );
    workspace.resolve(id, &Resolution::KeepTheirs).unwrap();
    assert!(workspace.conflicts().unwrap().is_empty());
    assert_eq!(text(d, "f2"), "somebody's");
    let mut tx = workspace.begin();
    tx.write("f2", "newer").unwrap();
    tx.commit().unwrap();
    workspace.close().unwrap();
    assert!(litter(d).is_empty());
}

#[test]
fn keep_ours_puts_ours_in_place() {
    let dir = crashed();
    let d = dir.path();
    fs::rename(d.join("f2"), d.join("elsewhere")).unwrap();
    fs::write(d.join("f2"), "somebody's").unwrap();
    let workspace = open(d);
    assert_eq!(text(d, "f2"), "somebody's");
    let id = workspace.conflicts().unwrap()[0].id();
    workspace.resolve(id, &Resolution::KeepOurs).unwrap();
    assert_eq!(text(d, "f2"), "new 2");
    assert!(workspace.conflicts().unwrap().is_empty());
    assert_eq!(
        workspace
            .resolve(id, &Resolution::KeepOurs)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    workspace.close().unwrap();
    assert!(litter(d).is_empty());
}

#[test]
fn set_aside_keeps_both() {
    let dir = crashed();
    let d = dir.path();
    fs::write(d.join("f2"), "somebody's").unwrap();
    let workspace = open(d);
    let id = workspace.conflicts().unwrap()[0].id();
    let taken = workspace
        .resolve(id, &Resolution::SetAside("f1".into()))
        .unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");
    workspace
        .resolve(id, &Resolution::SetAside("d/theirs".into()))
        .unwrap();
    assert_eq!(text(d, "f2"), "new 2");
    assert_eq!(text(d, "d/theirs"), "somebody's");
    assert!(workspace.conflicts().unwrap().is_empty());
}

#[test]
fn a_removed_file_and_a_directory_in_its_place_stay() {
    let dir = crashed();
    let d = dir.path();
    fs::remove_file(d.join("f2")).unwrap();
    fs::remove_file(d.join("f3")).unwrap();
    fs::create_dir(d.join("f3")).unwrap();
    fs::write(d.join("f3/in"), "theirs").unwrap();
    let workspace = open(d);
    assert!(!d.join("f2").exists());
    assert_eq!(text(d, "f3/in"), "theirs");
    let conflicts = workspace.conflicts().unwrap();
    let theirs: Vec<_> = conflicts.iter().map(|c| c.theirs()).collect();
    assert_eq!(theirs, [Theirs::Nothing, Theirs::Dir]);
    for conflict in conflicts {
        workspace
            .resolve(conflict.id(), &Resolution::KeepOurs)
            .unwrap();
    }
    assert_eq!(
        (text(d, "f2"), text(d, "f3")),
        ("new 2".into(), "new 3".into())
    );
    workspace.close().unwrap();
    assert!(litter(d).is_empty());
}

#[test]
fn an_edit_of_what_was_already_published_stays() {
    let dir = crate::dir();
    let d = dir.path();
    let workspace = open(d);
    let mut tx = workspace.begin();
    tx.write("f", "ours").unwrap();
    tx.commit().unwrap();
    fs::write(d.join("f"), "edited").unwrap();
    drop(workspace);
    let workspace = open(d);
    assert_eq!(text(d, "f"), "edited");
    assert!(workspace.conflicts().unwrap().is_empty());
}

#[test]
fn a_change_that_cannot_be_made_yet_stays_a_conflict() {
    let dir = crashed_in("links, attributes, append", &OnceLock::new());
    let d = dir.path();
    fs::remove_file(d.join("f1")).unwrap();
    fs::write(d.join("f1"), "somebody's").unwrap();
    fs::set_permissions(d.join("f1"), fs::Permissions::from_mode(0o604)).unwrap();
    let options = WorkspaceOptions::new().wait(Duration::ZERO);
    let workspace = options.open(&Root::open(d).unwrap()).unwrap();
    let conflicts = workspace.conflicts().unwrap();
    let [conflict] = &conflicts[..] else {
        panic!("{conflicts:?}")
    };
    assert_eq!(conflict.path(), Path::new("f1"));
    assert_eq!(conflict.ours(), Ours::Change);
    let keep_ours = || workspace.resolve(conflict.id(), &Resolution::KeepOurs);
    let mode = || fs::metadata(d.join("f1")).unwrap().permissions().mode() & 0o777;
    let mut other = workspace.begin();
    other.claim(["f1"]).unwrap();
    assert_eq!(keep_ours().unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(workspace.conflicts().unwrap(), conflicts);
    assert_eq!(mode(), 0o604);
    // It stands against all but its own resolution.
    drop(other);
    let mut tx = workspace.begin();
    tx.write("f1", "newer").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(keep_ours().unwrap() > 0);
    assert_eq!(mode(), 0o640);
    assert_eq!(text(d, "f1"), "somebody's");
    assert!(workspace.conflicts().unwrap().is_empty());
}
