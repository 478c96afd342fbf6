//! Files: what is written, what is kept, what is refused.

use crate::{common, names};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use steadfast::publish::{FileOptions, Note, Preserve, Staging, SymlinkPolicy, Target, Version};
use steadfast::sys::Mode;
use steadfast::{DiskState, ErrorKind, Root};

#[test]
fn creates_replaces_and_leaves_no_temporary() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for staging in [Staging::Beside, Staging::Unnamed] {
        let options = FileOptions::new().staging(staging);
        for text in ["one", "two", ""] {
            let receipt = options.write(&root, "f", text).unwrap();
            assert_eq!(fs::read_to_string(tmp.path().join("f")).unwrap(), text);
            assert_eq!(
                fs::metadata(tmp.path().join("f")).unwrap().ino(),
                receipt.id().ino
            );
        }
        assert_eq!(names(tmp.path()), ["f"]);
    }
}

#[test]
fn create_new_refuses_a_taken_name_and_replace_a_free_one() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let new = FileOptions::new().target(Target::CreateNew);
    let old = FileOptions::new().target(Target::Replace);
    assert_eq!(
        old.write(&root, "f", "x").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    new.write(&root, "f", "1").unwrap();
    let error = new.write(&root, "f", "2").unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::AlreadyExists, DiskState::Unchanged)
    );
    assert_eq!(
        new.begin(&root, "f").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    // A symlink, dangling or not, takes the name as well.
    symlink("nowhere", tmp.path().join("l")).unwrap();
    assert_eq!(
        new.write(&root, "l", "2").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    old.write(&root, "f", "3").unwrap();
    assert_eq!(fs::read_to_string(tmp.path().join("f")).unwrap(), "3");
    assert_eq!(names(tmp.path()), ["f", "l"]);
}

#[test]
fn only_if_unchanged() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "a").unwrap();
    let seen = Version::of(&root, "f").unwrap();
    let options = |v: &Version| FileOptions::new().target(Target::IfUnchanged(v.clone()));
    options(&seen).write(&root, "f", "b").unwrap();
    let error = options(&seen).write(&root, "f", "c").unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::Changed, DiskState::Unchanged)
    );
    assert_eq!(fs::read_to_string(&f).unwrap(), "b");

    // Changed while the new content is being written.
    let seen = Version::of(&root, "f").unwrap();
    let mut pending = options(&seen).begin(&root, "f").unwrap();
    pending.write_all(b"mine").unwrap();
    FileOptions::new().write(&root, "f", "theirs").unwrap();
    assert_eq!(pending.commit().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(fs::read_to_string(&f).unwrap(), "theirs");
    assert_eq!(names(tmp.path()), ["f"]);
}

#[test]
fn the_guard_writes_seeks_reads_and_discards() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let mut pending = FileOptions::new().begin(&root, "f").unwrap();
    pending.write_all(b"hello world").unwrap();
    pending.seek(SeekFrom::Start(6)).unwrap();
    pending.write_all(b"W").unwrap();
    pending.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    pending.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello World");
    assert!(!tmp.path().join("f").exists());
    drop(pending);
    assert!(names(tmp.path()).is_empty());
    let mut pending = FileOptions::new().begin(&root, "f").unwrap();
    pending.write_all(b"abc").unwrap();
    pending.set_len(2).unwrap();
    pending.commit().unwrap();
    assert_eq!(fs::read(tmp.path().join("f")).unwrap(), b"ab");
    FileOptions::new()
        .begin(&root, "g")
        .unwrap()
        .discard()
        .unwrap();
    assert_eq!(names(tmp.path()), ["f"]);
}

#[test]
fn length_and_hash_are_checked_before_publication() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let empty_hash = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ];
    let by_len = FileOptions::new().expect_len(3);
    let by_hash = FileOptions::new().expect_sha256(empty_hash);
    for refused in [
        by_len.write(&root, "f", "four"),
        by_hash.write(&root, "f", "x"),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(
            (error.kind(), error.disk_state()),
            (ErrorKind::Mismatch, DiskState::Unchanged)
        );
        assert!(names(tmp.path()).is_empty());
    }
    by_len.write(&root, "f", "abc").unwrap();
    by_hash.write(&root, "f", "").unwrap();
    // The same hash as a condition on the old content.
    let if_empty = FileOptions::new().target(Target::IfUnchanged(Version::sha256(empty_hash)));
    if_empty.write(&root, "f", "x").unwrap();
    assert_eq!(
        if_empty.write(&root, "f", "y").unwrap_err().kind(),
        ErrorKind::Changed
    );
}

#[test]
fn symlink_at_the_target_by_policy() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/real"), "old").unwrap();
    fs::set_permissions(at("d/real"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("d/real", at("link")).unwrap();
    symlink("../link", at("d/chain")).unwrap();
    symlink("../outside", at("out")).unwrap();
    symlink("new", at("d/dangling")).unwrap();
    let refuse = FileOptions::new();
    let follow = FileOptions::new().symlink(SymlinkPolicy::Follow);
    let replace = FileOptions::new().symlink(SymlinkPolicy::Replace);

    assert_eq!(
        refuse.write(&root, "link", "x").unwrap_err().kind(),
        ErrorKind::SymlinkLoop
    );
    assert_eq!(fs::read_to_string(at("d/real")).unwrap(), "old");

    follow.write(&root, "d/chain", "followed").unwrap();
    assert_eq!(fs::read_to_string(at("d/real")).unwrap(), "followed");
    assert_eq!(fs::metadata(at("d/real")).unwrap().mode() & 0o7777, 0o640);
    assert!(at("link").is_symlink() && at("d/chain").is_symlink());
    follow.write(&root, "d/dangling", "made").unwrap();
    assert_eq!(fs::read_to_string(at("d/new")).unwrap(), "made");
    assert_eq!(
        follow.write(&root, "out", "x").unwrap_err().kind(),
        ErrorKind::Escape
    );

    replace.write(&root, "link", "plain").unwrap();
    let meta = fs::symlink_metadata(at("link")).unwrap();
    assert!(meta.is_file());
    // Never the link's own 0777.
    assert_eq!(meta.mode() & 0o002, 0);
    assert_eq!(fs::read_to_string(at("d/real")).unwrap(), "followed");
    assert_eq!(names(tmp.path()), ["d", "link", "out"]);
}

#[test]
fn mode_and_times_are_kept_or_set() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    let mode = || fs::metadata(&f).unwrap().mode() & 0o7777;
    FileOptions::new()
        .mode(Mode::from_raw_mode(0o604))
        .write(&root, "f", "")
        .unwrap();
    assert_eq!(mode(), 0o604);
    for kept in [0o600, 0o640, 0o4755, 0o2711, 0o400, 0o777] {
        fs::set_permissions(&f, fs::Permissions::from_mode(kept)).unwrap();
        FileOptions::new().write(&root, "f", "x").unwrap();
        assert_eq!(mode(), kept, "{kept:o}");
    }
    let before = fs::metadata(&f).unwrap();
    let times = FileOptions::new().preserve(Preserve::default().times(true));
    times.write(&root, "f", "y").unwrap();
    let after = fs::metadata(&f).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
    assert_ne!(before.ino(), after.ino());
}

#[test]
fn hard_links_are_cut_and_noted() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    fs::hard_link(tmp.path().join("f"), tmp.path().join("g")).unwrap();
    let receipt = FileOptions::new().write(&root, "f", "new").unwrap();
    assert!(receipt.notes().contains(&Note::LinksCut(1)));
    assert_eq!(fs::read_to_string(tmp.path().join("g")).unwrap(), "old");
}

#[test]
fn only_a_file_has_a_version() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::create_dir(tmp.path().join("d")).unwrap();
    root.mkfifo("p", Mode::RUSR).unwrap();
    symlink("d", tmp.path().join("link")).unwrap();
    for other in ["d", "p", "link"] {
        let error = Version::of(&root, other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAFile, "{other}");
    }
}

/// A change that leaves inode, length and modification time as they were.
#[test]
fn a_version_tells_what_the_modification_time_does_not() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let path = tmp.path().join("f");
    fs::write(&path, "old").unwrap();
    let seen = Version::of(&root, "f").unwrap();
    let before = fs::metadata(&path).unwrap();
    let ctime = |meta: &fs::Metadata| (meta.ctime(), meta.ctime_nsec());
    // The clock of an older kernel has ticks.
    common::wait_until("another change time", || {
        fs::write(&path, "OLD").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        ctime(&fs::metadata(&path).unwrap()) != ctime(&before)
    });
    let options = FileOptions::new().target(Target::IfUnchanged(seen));
    let error = options.write(&root, "f", "new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_eq!(fs::read_to_string(&path).unwrap(), "OLD");
}
