//! Sections that end in every way but a kill.

use crate::common::{self, no_child, wait_until};
use crate::scenes;
use crate::support::{assert_clean, assert_same, furnish, open, tree};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Likeness, Likenesses, Plan};

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

/// A protected path that nobody has changed is the same inode afterwards; one that was changed is the image.
#[test]
fn only_what_was_changed_is_replaced() {
    let _alone = no_child();
    let dir = common::dir();
    let top = dir.path();
    let workspace = open(top);
    furnish(top);
    // The clock of the file system has to be past what was made just now.
    let ctime = |path: &str| {
        let meta = fs::symlink_metadata(top.join(path)).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    common::wait_until("the next tick", || {
        fs::write(top.join("tick"), "").unwrap();
        ctime("tick") > ctime("s") && ctime("tick") > ctime("d/sub")
    });
    let inode = |path: &str| fs::symlink_metadata(top.join(path)).unwrap().ino();
    let paths = ["a", "b", "d", "d/one", "d/sub", "s"];
    let before = paths.map(inode);
    let mut section = workspace.section("alone").unwrap();
    section.protect(["a", "b", "d", "s"]).unwrap();
    fs::write(top.join("b"), "changed").unwrap();
    section.rollback().unwrap();
    let after = paths.map(inode);
    for ((path, before), after) in paths.into_iter().zip(before).zip(after) {
        assert_eq!(before == after, path != "b", "{path}");
    }
}

/// After a power cut what others have written over in place may be there, and the inode as it was before: its
/// times then tell nothing.
#[test]
fn what_was_written_in_place_without_its_times_is_taken_back() {
    let dir = common::dir();
    let top = dir.path();
    let workspace = open(top);
    furnish(top);
    let meta = |path: &str| fs::symlink_metadata(top.join(path)).unwrap();
    let ctime = |path: &str| (meta(path).ctime(), meta(path).ctime_nsec());
    common::wait_until("the next tick", || {
        fs::write(top.join("tick"), "").unwrap();
        ctime("tick") > ctime("s") && ctime("tick") > ctime("d/sub")
    });
    let before = tree(top);
    let written = ["a", "d/two"];
    let (times, inode) = (written.map(ctime), meta("b").ino());
    let mut section = workspace.section("in place").unwrap();
    section.protect(["a", "b", "d"]).unwrap();
    let mut likenesses = Likenesses::new();
    for (path, (sec, nsec)) in written.into_iter().zip(times) {
        let modified = meta(path).modified().unwrap();
        let file = fs::File::options().write(true).open(top.join(path));
        let file = file.unwrap();
        file.write_all_at(b"X", 0).unwrap();
        file.set_modified(modified).unwrap();
        let stamp = |(sec, nsec): (i64, i64)| (sec, u32::try_from(nsec).unwrap());
        let like = Likeness {
            ino: meta(path).ino(),
            btime: None,
            ctime: [stamp(ctime(path)), stamp((sec, nsec))],
            mtime: [(0, 0); 2],
        };
        likenesses.insert((meta(path).dev(), meta(path).ino()), like);
    }
    // As if its process had died.
    let plan = Plan {
        at: 1,
        action: Action::FailFrom(Errno::IO),
    };
    hook::scope(Some(plan), || drop(section));
    drop(workspace);
    hook::set_likenesses(likenesses);
    let again = open(top);
    hook::set_likenesses(Likenesses::new());
    assert_eq!(again.recovered().taken_back().len(), 1);
    assert_same(&tree(top), &before, "in place");
    assert_eq!(meta("b").ino(), inode, "which nobody has changed");
    assert_clean(top, "in place");
}

/// Also if they are at work in the moment of its begin: files are stamped by a clock that is behind.
#[test]
fn the_work_of_others_shows_from_the_begin_on() {
    let _alone = no_child();
    for n in 0..10 {
        let dir = common::dir();
        let top = dir.path();
        let workspace = open(top);
        furnish(top);
        let before = tree(top);
        let mut section = workspace.section("others").unwrap();
        fs::write(top.join("d/theirs"), "theirs").unwrap();
        section.apply(|tx| tx.write("d/one", b"new")).unwrap();
        section.rollback().unwrap();
        let now = tree(top);
        assert_ne!(now[Path::new("./d")], before[Path::new("./d")], "{n}");
        assert_eq!(now[Path::new("./e")], before[Path::new("./e")], "{n}");
    }
}

/// The time of a directory in which others have been at work is theirs.
#[test]
fn the_work_of_others_shows() {
    let _alone = no_child();
    let dir = common::dir();
    let top = dir.path();
    let workspace = open(top);
    furnish(top);
    let before = tree(top);
    let mut section = workspace.section("others").unwrap();
    section
        .apply(|tx| {
            tx.write("d/one", b"new")?;
            tx.write("e/new", b"new")
        })
        .unwrap();
    fs::write(top.join("d/theirs"), "theirs").unwrap();
    section.rollback().unwrap();
    let now = tree(top);
    assert_eq!(fs::read(top.join("d/theirs")).unwrap(), b"theirs");
    assert_ne!(now[Path::new("./d")], before[Path::new("./d")]);
    assert_eq!(now[Path::new("./e")], before[Path::new("./e")]);
    assert_eq!(now[Path::new("./d/one")], before[Path::new("./d/one")]);
}
