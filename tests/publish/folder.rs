//! Folders and exchanges.

use crate::{common, names, no_exchange};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use steadfast::publish::{FileOptions, FolderOptions, FolderTarget, Note, SymlinkPolicy, swap};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, Durability, ErrorKind, Root};

fn fill(dir: &Path, text: &str) {
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("a"), text).unwrap();
    fs::write(dir.join("sub/b"), text).unwrap();
}

fn read(dir: &Path) -> String {
    let (a, b) = (
        fs::read_to_string(dir.join("a")),
        fs::read_to_string(dir.join("sub/b")),
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a, b);
    a
}

#[test]
fn a_folder_is_created_and_replaced_whole() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let site = tmp.path().join("site");
    for text in ["one", "two"] {
        let replacing = site.exists();
        if replacing {
            fs::set_permissions(&site, fs::Permissions::from_mode(0o2750)).unwrap();
        }
        let pending = FolderOptions::new().begin(&root, "site").unwrap();
        assert_eq!(
            fs::metadata(tmp.path().join(only_temporary(tmp.path())))
                .unwrap()
                .mode()
                & 0o777,
            0o700
        );
        pending
            .root()
            .create_dir("sub", steadfast::sys::Mode::RWXU)
            .unwrap();
        let options = FileOptions::new().durability(Durability::None);
        options.write(pending.root(), "a", text).unwrap();
        options.write(pending.root(), "sub/b", text).unwrap();
        let done = pending.commit();
        if replacing && no_exchange() {
            let error = done.unwrap_err();
            let state = (error.kind(), error.disk_state());
            assert_eq!(state, (ErrorKind::Unsupported, DiskState::Unchanged));
            assert_eq!(
                (read(&site).as_str(), names(tmp.path())),
                ("one", vec!["site".to_owned()])
            );
            return;
        }
        let receipt = done.unwrap();
        assert_eq!(receipt.replaced().is_some(), replacing);
        assert_eq!(read(&site), text);
        let mode = fs::metadata(&site).unwrap().mode() & 0o7777;
        // A new folder as mkdir(2) makes it, a replacing one like the one before.
        assert_eq!(
            mode,
            if replacing { 0o2750 } else { 0o777 & !umask() },
            "{mode:o}"
        );
        assert_eq!(names(tmp.path()), ["site"]);
    }
}

fn only_temporary(dir: &Path) -> String {
    names(dir)
        .into_iter()
        .find(|n| n.starts_with(".sf-"))
        .unwrap()
}

/// The umask, read off a new directory.
fn umask() -> u32 {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    0o777 & !fs::metadata(tmp.path().join("d")).unwrap().mode()
}

#[test]
fn what_must_be_at_the_name() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let new = FolderOptions::new().target(FolderTarget::CreateNew);
    let old = FolderOptions::new().target(FolderTarget::Replace);
    assert_eq!(
        old.begin(&root, "d").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    new.begin(&root, "d").unwrap().commit().unwrap();
    assert_eq!(
        new.begin(&root, "d").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    fs::write(tmp.path().join("f"), "").unwrap();
    symlink("d", tmp.path().join("l")).unwrap();
    let any = FolderOptions::new();
    assert_eq!(
        any.begin(&root, "f").unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        any.begin(&root, "l").unwrap_err().kind(),
        ErrorKind::SymlinkLoop
    );
    assert_eq!(
        any.begin(&root, "../x").unwrap_err().kind(),
        ErrorKind::Escape
    );
    assert_eq!(
        any.begin(&root, "no/x").unwrap_err().kind(),
        ErrorKind::NotFound
    );

    // Taken while it was staged: the kernel decides.
    let pending = new.begin(&root, "e").unwrap();
    fs::create_dir(tmp.path().join("e")).unwrap();
    fs::write(tmp.path().join("e/theirs"), "").unwrap();
    let error = pending.commit().unwrap_err();
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::AlreadyExists, DiskState::Unchanged));
    assert!(tmp.path().join("e/theirs").exists());
    assert_eq!(names(tmp.path()), ["d", "e", "f", "l"]);
}

#[test]
fn a_symlink_is_followed_or_replaced_on_request() {
    if no_exchange() {
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("deep")).unwrap();
    fill(&at("deep/real"), "old");
    symlink("deep/real", at("current")).unwrap();
    let follow = FolderOptions::new().symlink(SymlinkPolicy::Follow);
    follow.begin(&root, "current").unwrap().commit().unwrap();
    assert!(at("current").is_symlink());
    assert!(names(&at("deep/real")).is_empty());
    assert_eq!(names(&at("deep")), ["real"]);
    let replace = FolderOptions::new().symlink(SymlinkPolicy::Replace);
    replace.begin(&root, "current").unwrap().commit().unwrap();
    assert!(fs::symlink_metadata(at("current")).unwrap().is_dir());
    assert_eq!(names(tmp.path()), ["current", "deep"]);
}

#[test]
fn the_old_folder_is_kept_where_asked() {
    if no_exchange() {
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fill(&tmp.path().join("live"), "old");
    fill(&tmp.path().join("next"), "new");
    let keep = FolderOptions::new().keep_old("old");
    keep.publish(&root, "next", &root, "live").unwrap();
    assert_eq!(read(&tmp.path().join("live")), "new");
    assert_eq!(read(&tmp.path().join("old")), "old");
    assert_eq!(names(tmp.path()), ["live", "old"]);
    // The place is taken now.
    fill(&tmp.path().join("next"), "newer");
    let error = keep.publish(&root, "next", &root, "live").unwrap_err();
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::AlreadyExists, DiskState::Unchanged));
    // Also by a symlink that leads to nothing.
    symlink("nothing", tmp.path().join("link")).unwrap();
    let keep = FolderOptions::new().keep_old("link");
    let error = keep.publish(&root, "next", &root, "live").unwrap_err();
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::AlreadyExists, DiskState::Unchanged));
    fs::remove_file(tmp.path().join("link")).unwrap();
    let staged = FolderOptions::new()
        .keep_old("older")
        .begin(&root, "live")
        .unwrap();
    staged.commit().unwrap();
    assert_eq!(read(&tmp.path().join("older")), "new");
    assert_eq!(names(tmp.path()), ["live", "next", "old", "older"]);
}

#[test]
fn a_folder_or_file_is_moved_into_place() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("in")).unwrap();
    fill(&at("in/next"), "new");
    let inode = fs::metadata(at("in/next")).unwrap().ino();
    let publish = FolderOptions::new();
    publish.publish(&root, "in/next", &root, "live").unwrap();
    assert_eq!(fs::metadata(at("live")).unwrap().ino(), inode);
    fill(&at("in/next"), "newer");
    let done = publish.publish(&root, "in/next", &root, "live");
    if no_exchange() {
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Unsupported);
    } else {
        let receipt = done.unwrap();
        assert_eq!(receipt.replaced().unwrap().id().ino, inode);
        assert_eq!(read(&at("live")), "newer");
        assert!(names(&at("in")).is_empty());
    }
    fs::write(at("f"), "1").unwrap();
    publish.publish(&root, "f", &root, "g").unwrap();
    fs::write(at("f"), "2").unwrap();
    publish.publish(&root, "f", &root, "g").unwrap();
    assert_eq!(fs::read_to_string(at("g")).unwrap(), "2");
    assert_eq!(names(tmp.path()), ["g", "in", "live"]);
    // Not a file over a folder or the other way round.
    for (from, to) in [("g", "live"), ("live", "g")] {
        let error = publish.publish(&root, from, &root, to).unwrap_err();
        assert_eq!(error.disk_state(), DiskState::Unchanged);
    }
    assert_eq!(
        publish
            .publish(&root, "none", &root, "g")
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn any_two_names_are_swapped() {
    if no_exchange() {
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fill(&at("d"), "text");
    fs::write(at("f"), "file").unwrap();
    symlink("f", at("l")).unwrap();
    swap(&root, "d", &root, "f", Durability::Full).unwrap();
    assert_eq!(
        (
            read(&at("f")).as_str(),
            fs::read_to_string(at("d")).unwrap().as_str()
        ),
        ("text", "file")
    );
    // Across directories, and a symlink as itself.
    swap(&root, "l", &root, "f/sub", Durability::Full).unwrap();
    assert!(at("f/sub").is_symlink() && at("l/b").exists());
    swap(&root, "l/", &root, "f/sub", Durability::None).unwrap();
    let kind = |a, b| {
        swap(&root, a, &root, b, Durability::Full)
            .unwrap_err()
            .kind()
    };
    assert_eq!(kind("d", "none"), ErrorKind::NotFound);
    assert_eq!(kind("f", "f/sub"), ErrorKind::InvalidInput);
    assert_eq!(kind("f", ".."), ErrorKind::Busy);
    assert_eq!(kind("d/", "f"), ErrorKind::NotADirectory);
    assert_eq!(kind("d", "../f"), ErrorKind::Escape);
}

#[test]
fn a_swap_right_beneath_the_root_takes_two_calls() {
    if no_exchange() {
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("a"), "a").unwrap();
    fs::write(tmp.path().join("b"), "b").unwrap();
    let both = || swap(&root, "a", &root, "b", Durability::Full).unwrap();
    let (_, calls) = steadfast::sys::hook::scope(None, both);
    assert_eq!(calls, ["renameat2(RENAME_EXCHANGE)", "fsync"]);
}

#[test]
fn without_exchange_a_swap_is_refused_and_says_so() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("a"), "a").unwrap();
    fs::write(tmp.path().join("b"), "b").unwrap();
    let off = [("renameat2(RENAME_EXCHANGE)", steadfast::sys::Errno::INVAL)];
    steadfast::sys::hook::deny(&off, || {
        let error = swap(&root, "a", &root, "b", Durability::Full).unwrap_err();
        let state = (error.kind(), error.disk_state());
        assert_eq!(state, (ErrorKind::Unsupported, DiskState::Unchanged));
        assert!(error.to_string().contains("RENAME_EXCHANGE"), "{error}");
        // What can be done in another way is.
        let receipt = FileOptions::new()
            .target(steadfast::publish::Target::Replace)
            .write(&root, "a", "new")
            .unwrap();
        assert!(receipt.notes().contains(&Note::CheckedNotExchanged));
    });
    assert_eq!(names(tmp.path()), ["a", "b"]);
}

#[test]
fn dropping_a_staged_folder_removes_it() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let pending = FolderOptions::new().begin(&root, "d").unwrap();
    FileOptions::new().write(pending.root(), "f", "x").unwrap();
    assert_eq!(names(tmp.path()).len(), 1);
    drop(pending);
    assert!(names(tmp.path()).is_empty());
    FolderOptions::new()
        .begin(&root, "d")
        .unwrap()
        .discard()
        .unwrap();
    assert!(names(tmp.path()).is_empty());
}

/// Without `RENAME_NOREPLACE` an empty folder is made to claim the name. If the rename over it fails, it
/// goes.
#[test]
fn a_claim_that_came_to_nothing_is_taken_back() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fill(&tmp.path().join("next"), "new");
    let off = [
        ("renameat2(RENAME_NOREPLACE)", Errno::INVAL),
        ("renameat", Errno::IO),
    ];
    let (done, calls) = hook::scope(None, || {
        hook::deny(&off, || {
            FolderOptions::new().publish(&root, "next", &root, "live")
        })
    });
    let error = done.unwrap_err();
    assert_eq!(
        (error.errno(), error.disk_state()),
        (Some(Errno::IO), DiskState::Unchanged)
    );
    assert!(calls.contains(&"mkdirat"), "{calls:?}");
    assert!(error.left_behind().is_empty(), "{error:?}");
    assert_eq!(names(tmp.path()), ["next"]);
    assert_eq!(read(&tmp.path().join("next")), "new");
}

/// A rename over the claim that was carried out and answers an error all the same, as on network storage.
#[test]
fn an_empty_folder_is_not_taken_for_a_claim() {
    let off = [("renameat2(RENAME_NOREPLACE)", Errno::INVAL)];
    let run = |plan| {
        let tmp = common::dir();
        let root = Root::open(tmp.path()).unwrap();
        fs::create_dir(tmp.path().join("next")).unwrap();
        let (done, calls) = hook::scope(plan, || {
            hook::deny(&off, || {
                FolderOptions::new().publish(&root, "next", &root, "live")
            })
        });
        (names(tmp.path()), done, calls)
    };
    let (found, done, calls) = run(None);
    done.unwrap();
    assert_eq!(found, ["live"]);
    let at = calls.iter().position(|c| *c == "renameat").unwrap() as u64 + 1;
    let action = Action::FailAfter(Errno::IO);
    let (found, done, _) = run(Some(Plan { at, action }));
    assert_eq!(done.unwrap_err().disk_state(), DiskState::Published);
    assert_eq!(found, ["live"], "it was removed");
}
