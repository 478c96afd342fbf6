//! What transactions do when nothing goes wrong.

use crate::tree::{Entry, litter, tree};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use steadfast::publish::{Note, Version};
use steadfast::sys::{self, Errno, XattrFlags, hook};
use steadfast::workspace::{Transaction, Workspace, WorkspaceOptions};
use steadfast::{DiskState, ErrorKind, Root};

fn open(dir: &Path) -> Workspace {
    Workspace::open(&Root::open(dir).unwrap()).unwrap()
}

#[test]
fn contents_of_any_source_can_be_planned() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    fs::write(dir.path().join("from"), vec![b'f'; 50_000]).unwrap();
    let file = fs::File::open(dir.path().join("from")).unwrap();
    let mut tx = Transaction::to_plan(&root);
    tx.write("bytes", vec![b'b'; 40_000]).unwrap();
    tx.write_from("reader", &vec![b'r'; 30_000][..]).unwrap();
    tx.write_copy("copy", &file).unwrap();
    tx.append("copy", "more").unwrap();
    assert_eq!(tx.read("copy").unwrap().len(), 50_004);
    let told = tx.plan().unwrap().to_string();
    for (name, len) in [("bytes", 40_000), ("reader", 30_000), ("copy", 50_004)] {
        let line = format!("create {name} (file, {len} bytes)");
        assert!(told.lines().any(|l| l == line), "{line}: {told}");
    }
    let error = tx.claim(["bytes"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    struct Fails;
    impl std::io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("no more"))
        }
    }
    let error = tx.write_from("reader", Fails).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{error}");
    drop(tx);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn every_script_gives_what_it_says() {
    let top = crate::dir();
    for script in crate::scripts::all() {
        let dir = tempfile::tempdir_in(top.path()).unwrap();
        (script.before)(dir.path());
        // Planned without a workspace, which changes nothing.
        let root = Root::open(dir.path()).unwrap();
        let before = tree(dir.path());
        let mut tx = Transaction::to_plan(&root);
        (script.run)(&mut tx).unwrap();
        let beforehand = tx.plan().unwrap_or_else(|e| panic!("{}: {e}", script.name));
        let error = tx.commit().unwrap_err();
        let told = (error.kind(), error.disk_state());
        assert_eq!(told, (ErrorKind::Unsupported, DiskState::Unchanged));
        assert!(tree(dir.path()) == before, "{}", script.name);
        assert!(!dir.path().join(".steadfast").exists(), "{}", script.name);
        let workspace = open(dir.path());
        let mut tx = workspace.begin();
        (script.run)(&mut tx).unwrap();
        let planned = tx.plan().unwrap_or_else(|e| panic!("{}: {e}", script.name));
        assert!(!planned.steps.is_empty(), "{}", script.name);
        assert_eq!(planned, beforehand, "{}", script.name);
        let receipt = tx
            .commit()
            .unwrap_or_else(|e| panic!("{}: {e}", script.name));
        assert!(receipt.number() > 0);
        assert_eq!(
            litter(dir.path()),
            Vec::<std::path::PathBuf>::new(),
            "{}",
            script.name
        );
        workspace.close().unwrap();
    }
}

#[test]
fn what_is_written_is_there_after_opening_again() {
    let dir = crate::dir();
    let workspace = open(dir.path());
    let mut tx = workspace.begin();
    tx.create_dir_all("a/b");
    tx.write("a/b/c", "text").unwrap();
    tx.write("long", vec![7; 100_000]).unwrap();
    assert_eq!(tx.read("a/b/c").unwrap(), b"text");
    assert!(tx.exists("a/b").unwrap() && !tx.exists("a/x").unwrap());
    assert!(!dir.path().join("a").exists());
    let first = tx.commit().unwrap().number();
    drop(workspace);
    let workspace = open(dir.path());
    assert_eq!(fs::read(dir.path().join("a/b/c")).unwrap(), b"text");
    assert_eq!(fs::read(dir.path().join("long")).unwrap(), vec![7; 100_000]);
    let mut tx = workspace.begin();
    tx.write("a/b/c", "more").unwrap();
    assert!(tx.commit().unwrap().number() > first);
}

#[test]
fn a_failing_condition_changes_nothing() {
    let dir = crate::dir();
    fs::write(dir.path().join("f"), "old").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    let version = Version::of(&root, "f").unwrap();
    let old = tree(dir.path());
    let mut tx = workspace.begin();
    tx.expect_absent("f");
    tx.write("g", "new").unwrap();
    let e = tx.commit().unwrap_err();
    assert_eq!(
        (e.kind(), e.disk_state()),
        (ErrorKind::Changed, DiskState::Unchanged),
        "{e}"
    );
    let mut tx = workspace.begin();
    tx.expect_present("missing");
    tx.write("g", "new").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(tree(dir.path()), old);
    let mut tx = workspace.begin();
    tx.expect_version("f", version.clone());
    tx.write("f", "new").unwrap();
    tx.commit().unwrap();
    let mut tx = workspace.begin();
    tx.expect_version("f", version);
    tx.write("f", "newer").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
}

/// Of a folder that has another one's place, with a symlink to what was there.
#[test]
fn a_symlink_to_a_file_is_no_version_of_it() {
    let dir = crate::dir();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "text").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    let version = Version::of(&root, "d/f").unwrap();
    fs::rename(at("d"), at("was")).unwrap();
    fs::create_dir(at("d")).unwrap();
    symlink("../was/f", at("d/f")).unwrap();
    let mut tx = workspace.begin();
    tx.expect_version("d/f", version);
    tx.write("g", "new").unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Changed);
    assert!(!at("g").exists());
}

#[test]
fn what_was_read_and_then_changed_stops_the_commit() {
    let dir = crate::dir();
    fs::write(dir.path().join("n"), "1").unwrap();
    let workspace = open(dir.path());
    let mut tx = workspace.begin();
    assert_eq!(tx.read("n").unwrap(), b"1");
    tx.write("n", "2").unwrap();
    let mut other = workspace.begin();
    other.write("n", "5").unwrap();
    other.commit().unwrap();
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(fs::read(dir.path().join("n")).unwrap(), b"5");
}

#[test]
fn a_name_that_comes_into_a_directory_that_was_listed_stops_the_commit() {
    let dir = crate::dir();
    fs::create_dir(dir.path().join("d")).unwrap();
    let workspace = open(dir.path());
    let mut only_looked = workspace.begin();
    assert!(only_looked.exists("d").unwrap());
    only_looked.write("looked", "").unwrap();
    let mut listed = workspace.begin();
    assert!(listed.exists("d").unwrap());
    assert!(listed.list("d").unwrap().is_empty());
    listed.write("empty", "").unwrap();
    // A tick of the clock, where the kernel's times are that coarse.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut other = workspace.begin();
    other.write("d/new", "").unwrap();
    other.commit().unwrap();
    only_looked.commit().unwrap();
    assert_eq!(listed.commit().unwrap_err().kind(), ErrorKind::Changed);
}

#[test]
fn savepoints_forget_what_came_after() {
    let dir = crate::dir();
    let workspace = open(dir.path());
    let mut tx = workspace.begin();
    tx.write("a", "1").unwrap();
    let point = tx.savepoint();
    tx.write("a", "2").unwrap();
    tx.write("b", "2").unwrap();
    assert_eq!(tx.read("a").unwrap(), b"2");
    tx.rollback_to(point);
    assert_eq!(tx.read("a").unwrap(), b"1");
    assert!(!tx.exists("b").unwrap());
    tx.commit().unwrap();
    assert!(!dir.path().join("b").exists());
    assert!(matches!(&tree(dir.path())[Path::new("a")], Entry::File(_, _, c, _) if c == b"1"));
}

#[test]
fn what_could_not_be_kept_of_a_replaced_file_is_told() {
    const TEST: &str = "what_could_not_be_kept_of_a_replaced_file_is_told";
    let dir = crate::dir();
    let file = fs::File::create(dir.path().join("a")).unwrap();
    if let Err(e) = sys::fsetxattr(&file, c"user.origin", b"here", XattrFlags::empty()) {
        return crate::common::skipped(TEST, format!("no extended attributes: {e}"));
    }
    let workspace = open(dir.path());
    let note = [Note::AttributeNotKept("user.origin".into())];
    let mut section = workspace.section("notes").unwrap();
    let of_section = hook::deny(&[("fsetxattr", Errno::PERM)], || {
        section.apply(|tx| tx.write("a", "of the section")).unwrap();
        section.commit().unwrap()
    });
    assert_eq!(of_section.notes(), note);
    let file = fs::File::open(dir.path().join("a")).unwrap();
    sys::fsetxattr(&file, c"user.origin", b"here", XattrFlags::empty()).unwrap();
    let of_transaction = hook::deny(&[("fsetxattr", Errno::PERM)], || {
        let mut tx = workspace.begin();
        tx.write("a", "of the transaction").unwrap();
        tx.write("c", "nothing to keep").unwrap();
        tx.commit().unwrap()
    });
    assert_eq!(of_transaction.notes(), note);
}

#[test]
fn a_key_is_taken_once_and_found_again() {
    let dir = crate::dir();
    let workspace = open(dir.path());
    assert_eq!(workspace.key("job").unwrap(), None);
    let mut tx = workspace.begin();
    tx.write("a", "1").unwrap();
    tx.key("job", "result");
    tx.commit().unwrap();
    let mut tx = workspace.begin();
    tx.write("a", "2").unwrap();
    tx.key("job", "other");
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
    drop(workspace);
    assert_eq!(
        open(dir.path()).key("job").unwrap().as_deref(),
        Some(&b"result"[..])
    );
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"1");
}

#[test]
fn the_state_folder_is_nobodys_to_change() {
    let dir = crate::dir();
    let workspace = open(dir.path());
    for path in [".steadfast", ".steadfast/format", "x/../.steadfast/ledger"] {
        let mut tx = workspace.begin();
        tx.create_dir_all("x");
        tx.write(path, "mine").unwrap();
        let e = tx.commit().unwrap_err();
        assert_eq!(e.disk_state(), DiskState::Unchanged, "{e}");
    }
    let mut tx = workspace.begin();
    tx.rename(".steadfast", "away");
    tx.commit().unwrap_err();
    assert!(!dir.path().join("x").exists());
}

#[test]
fn nobody_else_may_look_into_it() {
    use std::os::unix::fs::MetadataExt;
    let dir = crate::dir();
    let workspace = open(dir.path());
    let mut tx = workspace.begin();
    tx.write("secret", vec![1; 50_000]).unwrap();
    let mut todo = vec![dir.path().join(".steadfast")];
    while let Some(at) = todo.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let mode = meta.mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{at:?} {mode:o}");
        if meta.is_dir() {
            todo.extend(fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()));
        }
    }
}

#[test]
fn a_workspace_is_not_made_where_none_is_wanted() {
    let dir = crate::dir();
    let root = Root::open(dir.path()).unwrap();
    let e = WorkspaceOptions::new()
        .create(false)
        .open(&root)
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    assert!(!dir.path().join(".steadfast").exists());
}

#[test]
fn new_directories_obey_the_umask() {
    let top = crate::dir();
    fs::create_dir(top.path().join("plain")).unwrap();
    let workspace = Workspace::open(&Root::open(top.path()).unwrap()).unwrap();
    let mut tx = workspace.begin();
    tx.create_dir("one").create_dir_all("two/three");
    tx.create_dir_with("four", sys::Mode::from_raw_mode(0o777));
    tx.commit().unwrap();
    let mode = |path: &str| fs::metadata(top.path().join(path)).unwrap().mode() & 0o7777;
    for path in ["one", "two", "two/three"] {
        assert_eq!(mode(path), mode("plain"), "{path}");
    }
    assert_eq!(mode("four"), 0o777);
}

/// By the record, and by copies on the side.
#[test]
fn a_commit_in_place_leaves_the_time_of_last_access() {
    let top = crate::dir();
    let at = |name: &str| top.path().join(name);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77);
    let accessed = |name: &str| fs::metadata(at(name)).unwrap().accessed().unwrap();
    for (name, len) in [("read", 9), ("short", 9), ("long", 50_000)] {
        fs::write(at(name), vec![1; len]).unwrap();
        let file = fs::File::options().write(true).open(at(name)).unwrap();
        let times = fs::FileTimes::new().set_accessed(long_ago);
        file.set_times(times).unwrap();
    }
    assert_eq!(fs::read(at("read")).unwrap(), [1; 9]);
    if accessed("read") == long_ago {
        let test = "a_commit_in_place_leaves_the_time_of_last_access";
        crate::common::skipped(test, "this mount keeps no times of last access");
    }
    let workspace = open(top.path());
    for name in ["short", "long"] {
        let mut tx = workspace.begin();
        tx.write_in_place(name, "new").unwrap();
        tx.commit().unwrap();
        assert_eq!(accessed(name), long_ago, "{name}");
    }
    workspace.close().unwrap();
    for name in ["short", "long"] {
        assert_eq!(accessed(name), long_ago, "{name}");
        assert_eq!(fs::read(at(name)).unwrap(), b"new", "{name}");
    }
}
