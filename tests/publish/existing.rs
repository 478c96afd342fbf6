//! Copies that are published, and what they take along.

use crate::{common, names, no_exchange};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use steadfast::publish::{FileOptions, FolderOptions, FolderTarget, Note, Staging};
use steadfast::sys::{Errno, hook};
use steadfast::tree::{CopyOptions, Progress, RemoveOptions, Watch};
use steadfast::{DiskState, Durability, ErrorKind, Root};

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_copy_is_published_and_the_source_stays() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir_all(at("src/sub")).unwrap();
    fs::write(at("src/sub/f"), "text").unwrap();
    fs::hard_link(at("src/sub/f"), at("src/g")).unwrap();
    symlink("sub/f", at("src/l")).unwrap();
    fs::set_permissions(at("src"), fs::Permissions::from_mode(0o2711)).unwrap();
    let copy = |from, to| {
        let options = CopyOptions::new();
        FolderOptions::new().copy(&root, from, &root, to, &options, &mut go_on)
    };
    copy("src", "dst").unwrap();
    // Over an existing one, with another mode.
    fs::set_permissions(at("dst"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at("dst/stale"), "").unwrap();
    if !no_exchange() {
        copy("src", "dst").unwrap();
        assert_eq!(names(&at("dst")), ["g", "l", "sub"]);
        assert_eq!(fs::metadata(at("dst")).unwrap().mode() & 0o7777, 0o2711);
        assert_eq!(fs::metadata(at("dst/g")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(at("dst/l")).unwrap().to_str(), Some("sub/f"));
    }
    assert_eq!(names(tmp.path()), ["dst", "src"]);

    fs::write(at("a"), "secret").unwrap();
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o4751)).unwrap();
    for _ in 0..2 {
        copy("a", "b").unwrap();
        assert_eq!(fs::read_to_string(at("b")).unwrap(), "secret");
        assert_eq!(fs::metadata(at("b")).unwrap().mode() & 0o7777, 0o4751);
    }
    assert_eq!(names(tmp.path()), ["a", "b", "dst", "src"]);
}

#[test]
fn a_cancelled_copy_leaves_nothing() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("src")).unwrap();
    for n in 0..10 {
        fs::write(tmp.path().join(format!("src/{n}")), "x").unwrap();
    }
    let stop = &mut |p: &Progress| {
        if p.files < 5 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let error = FolderOptions::new()
        .copy(&root, "src", &root, "dst", &CopyOptions::new(), stop)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::Cancelled, DiskState::Unchanged)
    );
    let stop = &mut |_: &Progress| ControlFlow::Break(());
    let error = FolderOptions::new()
        .copy(&root, "src/1", &root, "dst", &CopyOptions::new(), stop)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::Cancelled, DiskState::Unchanged)
    );
    assert_eq!(names(tmp.path()), ["src"]);
}

#[test]
fn the_content_of_an_open_file_with_attributes_of_its_own() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("a"), vec![7; 300_000]).unwrap();
    fs::set_permissions(tmp.path().join("a"), fs::Permissions::from_mode(0o777)).unwrap();
    let file = fs::File::open(tmp.path().join("a")).unwrap();
    let options = FileOptions::new().mode(steadfast::sys::Mode::from_raw_mode(0o640));
    options.copy_from(&root, "b", &file).unwrap();
    assert_eq!(fs::read(tmp.path().join("b")).unwrap(), vec![7; 300_000]);
    assert_eq!(
        fs::metadata(tmp.path().join("b")).unwrap().mode() & 0o7777,
        0o640
    );
    let dir = fs::File::open(tmp.path()).unwrap();
    let error = options.copy_from(&root, "c", &dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
    assert_eq!(names(tmp.path()), ["a", "b"]);
}

#[test]
fn an_unnamed_file_that_cannot_get_a_name_is_copied_into_a_named_one() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    fs::set_permissions(tmp.path().join("f"), fs::Permissions::from_mode(0o4750)).unwrap();
    let off = [
        ("linkat(AT_EMPTY_PATH)", Errno::NOENT),
        ("linkat(/proc/self/fd)", Errno::NOENT),
    ];
    let off = [&off[..], &[("fstatfs", Errno::NOSYS)]].concat();
    hook::deny(&off, || {
        let options = FileOptions::new().staging(Staging::Unnamed);
        let receipt = options.write(&root, "f", "new").unwrap();
        assert!(receipt.notes().contains(&Note::StagedByName), "{receipt:?}");
        // It is told by the copy, not by the unnamed file, which is gone.
        let ino = fs::metadata(tmp.path().join("f")).unwrap().ino();
        assert_eq!(receipt.id().ino, ino);
    });
    assert_eq!(fs::read_to_string(tmp.path().join("f")).unwrap(), "new");
    assert_eq!(
        fs::metadata(tmp.path().join("f")).unwrap().mode() & 0o7777,
        0o4750
    );
    assert_eq!(names(tmp.path()), ["f"]);
}

#[test]
fn an_error_at_any_call_says_what_is_published() {
    type Publish = fn(&Root) -> steadfast::Result<steadfast::publish::Receipt>;
    let ways: [Publish; 2] = [
        |root| FolderOptions::new().publish(root, "src", root, "dst"),
        |root| {
            let options = CopyOptions::new();
            FolderOptions::new().copy(root, "src", root, "dst", &options, &mut go_on)
        },
    ];
    for publish in ways {
        let mut states = Vec::new();
        for at in 1.. {
            let tmp = common::dir();
            let root = Root::open(tmp.path()).unwrap();
            for (name, text) in [("src", "new"), ("dst", "old")] {
                fs::create_dir(tmp.path().join(name)).unwrap();
                fs::write(tmp.path().join(name).join("f"), text).unwrap();
            }
            let plan = hook::Plan {
                at,
                action: hook::Action::Fail(Errno::IO),
            };
            let (done, seen) = hook::scope(Some(plan), || publish(&root));
            if (seen.len() as u64) < at {
                break;
            }
            let now = fs::read_to_string(tmp.path().join("dst/f")).unwrap();
            let state = done.as_ref().err().map(steadfast::Error::disk_state);
            states.extend(state);
            match state {
                Some(DiskState::Unchanged) => assert_eq!(now, "old", "{at} of {seen:?}: {done:?}"),
                Some(DiskState::Published) | None => {
                    assert_eq!(now, "new", "{at} of {seen:?}: {done:?}");
                }
                Some(_) => {}
            }
        }
        assert!(states.contains(&DiskState::Unchanged) || no_exchange());
        assert!(states.contains(&DiskState::Published) || no_exchange());
    }
}

/// A symlink is no source, whatever it leads to and whether or not that would be opened.
#[test]
fn a_symlink_is_not_published() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "text").unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    for durability in [Durability::Full, Durability::None] {
        for to in ["f", "d"] {
            symlink(to, tmp.path().join("link")).unwrap();
            let options = FolderOptions::new().durability(durability);
            let error = options.publish(&root, "link", &root, "new").unwrap_err();
            let state = (error.kind(), error.disk_state());
            assert_eq!(state, (ErrorKind::NotAFile, DiskState::Unchanged));
            assert_eq!(names(tmp.path()), ["d", "f", "link"]);
            fs::remove_file(tmp.path().join("link")).unwrap();
        }
    }
}

#[test]
fn a_copy_that_fails_inside_names_the_file_there() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir_all(tmp.path().join("a/src/sub")).unwrap();
    root.mkfifo("a/src/sub/fifo", steadfast::sys::Mode::RUSR)
        .unwrap();
    let error = FolderOptions::new()
        .copy(
            &root,
            "a/src",
            &root,
            "dst",
            &CopyOptions::new(),
            &mut go_on,
        )
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAFile);
    assert_eq!(error.path().unwrap().to_str(), Some("a/src/sub/fifo"));
    assert_eq!(error.other_path().unwrap().to_str(), Some("dst"));
    assert_eq!(names(tmp.path()), ["a"]);

    fs::remove_file(tmp.path().join("a/src/sub/fifo")).unwrap();
    // Into itself, and onto a taken name: both names as they were given.
    let once = FolderOptions::new().target(FolderTarget::CreateNew);
    let inside = once.copy(&root, "a", &root, "a/new", &CopyOptions::new(), &mut go_on);
    fs::create_dir(tmp.path().join("b")).unwrap();
    let taken = once.publish(&root, "a", &root, "b");
    for (done, to) in [(inside, "a/new"), (taken, "b")] {
        let error = done.unwrap_err();
        assert_eq!(error.path().unwrap().to_str(), Some("a"), "{error}");
        assert_eq!(error.other_path().unwrap().to_str(), Some(to), "{error}");
    }
}

#[test]
fn what_a_copy_does_not_keep_is_noted() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("src")).unwrap();
    fs::write(tmp.path().join("src/a"), "").unwrap();
    fs::hard_link(tmp.path().join("src/a"), tmp.path().join("src/b")).unwrap();
    fs::write(tmp.path().join("file"), "text").unwrap();
    let copy = |from: &str, watch: &mut Watch<'_>| {
        let options = CopyOptions::new();
        let done = FolderOptions::new().copy(&root, from, &root, "dst", &options, watch);
        let notes = done.unwrap().notes().to_vec();
        root.remove_tree("dst", &RemoveOptions::new()).unwrap();
        notes
    };
    let links = |notes: Vec<Note>| -> Vec<Note> {
        let kept = |n: &Note| matches!(n, Note::LinksNotCopied(_) | Note::SourceChanged(_));
        notes.into_iter().filter(kept).collect()
    };
    assert_eq!(links(copy("src", &mut go_on)), []);
    hook::deny(&[("linkat", Errno::MLINK)], || {
        assert_eq!(links(copy("src", &mut go_on)), [Note::LinksNotCopied(1)]);
    });
    let grow = &mut |_: &Progress| {
        fs::write(tmp.path().join("file"), "more text").unwrap();
        ControlFlow::Continue(())
    };
    // A reflink takes the whole file at once: there is no meanwhile.
    hook::deny(&[("ioctl(FICLONE)", Errno::OPNOTSUPP)], || {
        assert_eq!(links(copy("file", grow)), [Note::SourceChanged(1)]);
    });
}

#[test]
fn a_watch_can_stop_a_publication_until_the_rename() {
    type Publish = fn(&Root, &mut Watch<'_>) -> steadfast::Result<steadfast::publish::Receipt>;
    let ways: [Publish; 2] = [
        |root, watch| FolderOptions::new().publish_watched(root, "src", root, "dst", watch),
        |root, watch| {
            FolderOptions::new().copy(root, "src", root, "dst", &CopyOptions::new(), watch)
        },
    ];
    for publish in ways {
        let mut synced = false;
        for at in 1.. {
            let tmp = common::dir();
            let root = Root::open(tmp.path()).unwrap();
            fs::create_dir(tmp.path().join("src")).unwrap();
            fs::write(tmp.path().join("src/f"), "new").unwrap();
            let mut asked = 0;
            let (done, seen) = hook::scope(None, || {
                publish(&root, &mut |_| {
                    asked += 1;
                    if asked == at {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            });
            if asked < at {
                done.unwrap();
                assert_eq!(asked + 1, at, "it is not asked after the rename");
                break;
            }
            let error = done.unwrap_err();
            assert_eq!(
                (error.kind(), error.disk_state()),
                (ErrorKind::Cancelled, DiskState::Unchanged)
            );
            assert_eq!(names(tmp.path()), ["src"], "{at} of {seen:?}");
            synced = seen
                .iter()
                .any(|call| *call == "fsync" || *call == "syncfs");
        }
        assert!(synced, "the last question comes after the sync");
    }
}
