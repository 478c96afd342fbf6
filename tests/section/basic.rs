//! Sections that end in every way but a kill.

use crate::common::{self, no_child, wait_until};
use crate::scenes;
use crate::support::{assert_clean, assert_same, furnish, open, tree};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a section ends without a commit.
#[derive(Clone, Copy, Debug)]
enum End {
    RolledBack,
    Dropped,
    Panic,
}

#[test]
fn everything_is_as_before() {
    let _alone = no_child();
    for scene in scenes::all() {
        for end in [End::RolledBack, End::Dropped, End::Panic] {
            let context = format!("{}, {end:?}", scene.name);
            let dir = common::dir();
            let top = dir.path();
            let workspace = open(top);
            furnish(top);
            let before = tree(top);
            let mut section = workspace.section(scene.name).unwrap();
            (scene.run)(&mut section, top).unwrap_or_else(|e| panic!("{context}: {e}"));
            match end {
                End::RolledBack => section
                    .rollback()
                    .unwrap_or_else(|e| panic!("{context}: {e}")),
                End::Dropped => drop(section),
                End::Panic => {
                    let panicked = catch_unwind(AssertUnwindSafe(|| {
                        let _section = section;
                        std::panic::resume_unwind(Box::new("on purpose"));
                    }));
                    assert!(panicked.is_err());
                }
            }
            assert_same(&tree(top), &before, &context);
            workspace.close().unwrap();
            assert_clean(top, &context);
        }
    }
}

#[test]
fn a_commit_keeps_everything() {
    let _alone = no_child();
    for scene in scenes::all() {
        let dir = common::dir();
        let top = dir.path();
        furnish(top);
        let workspace = open(top);
        let mut section = workspace.section(scene.name).unwrap();
        (scene.run)(&mut section, top).unwrap();
        let after = tree(top);
        section.commit().unwrap();
        assert_same(&tree(top), &after, scene.name);
        workspace.close().unwrap();
        assert_clean(top, scene.name);
        let again = open(top);
        assert!(again.recovered().is_empty(), "{}", scene.name);
        assert_same(&tree(top), &after, scene.name);
    }
}

#[test]
fn what_nobody_has_changed_is_left_alone() {
    let top = crate::dir();
    let workspace = open(top.path());
    furnish(top.path());
    // Until the file system's clock has gone on: what is as new as the copy counts as changed.
    let changed = |name: &str| {
        let meta = std::fs::symlink_metadata(top.path().join(name)).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    let last = ["a", "d", "d/sub", "d/two", "d/one"].map(changed);
    wait_until("a later time", || {
        std::fs::write(top.path().join("c"), "c old").unwrap();
        last.iter().all(|time| *time < changed("c"))
    });
    let before = tree(top.path());
    let inode = |name: &str| std::fs::metadata(top.path().join(name)).unwrap().ino();
    let inodes = ["a", "d", "d/two"].map(inode);
    let mut section = workspace.section("nothing").unwrap();
    section.protect(["a", "d", "missing"]).unwrap();
    section.rollback().unwrap();
    let now = tree(top.path());
    assert_same(&now, &before, "nothing was changed");
    assert_eq!(["a", "d", "d/two"].map(inode), inodes);
    assert_clean(top.path(), "nothing was changed");
}
