//! Sections that end in every way but a kill.

use crate::common::{self, no_child};
use crate::scenes;
use crate::support::{assert_clean, assert_same, furnish, open, tree};
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
