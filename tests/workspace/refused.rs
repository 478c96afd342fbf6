//! What stands against a transaction is found before it is decided: a full disk, missing rights, mounts.

use crate::common::output;
use crate::tree::{litter, tree};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast::sys::{self, Errno, Mode, XattrFlags};
use steadfast::workspace::{Attributes, Workspace};
use steadfast::{DiskState, ErrorKind, Root};

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|o| o.stdout == b"0\n")
}

fn open(dir: &Path) -> Workspace {
    Workspace::open(&Root::open(dir).unwrap()).unwrap()
}

/// A mount that ends with the test, however that ends.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(args: &[&str], from: &Path, at: &'a Path) -> Self {
        let done = output(Command::new("mount").args(args).arg(from).arg(at)).unwrap();
        assert!(done.status.success(), "{done:?}");
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A child of another test may have its descriptors for a moment.
        let _ = output(Command::new("umount").arg("-l").arg(self.0));
    }
}

#[test]
fn a_full_disk_changes_nothing_and_leaves_room_again() {
    const TEST: &str = "a_full_disk_changes_nothing_and_leaves_room_again";
    if !is_root() {
        return crate::common::skipped(TEST, "it mounts a small file system, which needs root");
    }
    let top = tempfile::tempdir().unwrap();
    let _mounted = Mounted::new(
        &["-t", "tmpfs", "-o", "size=4m"],
        Path::new("small"),
        top.path(),
    );
    let dir = top.path();
    let workspace = open(dir);
    let mut tx = workspace.begin();
    tx.write("old", vec![1; 500_000]).unwrap();
    tx.commit().unwrap();
    let before = tree(dir);
    // Found while it is collected, and found at the commit.
    let mut tx = workspace.begin();
    let e = tx.write("large", vec![2; 8 << 20]).unwrap_err();
    assert_eq!(
        (e.kind(), e.disk_state()),
        (ErrorKind::StorageFull, DiskState::Unchanged),
        "{e}"
    );
    drop(tx);
    let mut tx = workspace.begin();
    for n in 0..1000 {
        tx.write(format!("f{n}"), vec![3; 10_000]).unwrap();
    }
    tx.write("old", "new").unwrap();
    let e = tx.commit().unwrap_err();
    assert_eq!(
        (e.kind(), e.disk_state()),
        (ErrorKind::StorageFull, DiskState::Unchanged),
        "{e}"
    );
    assert_eq!(tree(dir), before);
    assert_eq!(litter(dir), Vec::<std::path::PathBuf>::new());
    let mut tx = workspace.begin();
    tx.write("old", "there is room again").unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_file_that_may_not_be_changed_is_found_before_anything_is() {
    const TEST: &str = "a_file_that_may_not_be_changed_is_found_before_anything_is";
    let dir = crate::dir();
    let d = dir.path();
    fs::write(d.join("fixed"), "fixed").unwrap();
    fs::write(d.join("free"), "free").unwrap();
    let chattr = |flag: &str| {
        let done = output(Command::new("chattr").arg(flag).arg(d.join("fixed")));
        done.is_ok_and(|o| o.status.success())
    };
    if !chattr("+i") {
        return crate::common::skipped(TEST, "chattr +i is not possible here");
    }
    let workspace = open(d);
    for change in ["replace", "remove", "rename"] {
        let mut tx = workspace.begin();
        tx.write("free", "changed").unwrap();
        match change {
            "replace" => tx.write("fixed", "changed").unwrap(),
            "remove" => drop(tx.remove_file("fixed")),
            _ => drop(tx.rename("fixed", "elsewhere")),
        }
        let e = tx.commit().unwrap_err();
        assert_eq!(
            (e.kind(), e.disk_state()),
            (ErrorKind::PermissionDenied, DiskState::Unchanged),
            "{change}: {e}"
        );
        assert_eq!(fs::read(d.join("free")).unwrap(), b"free", "{change}");
    }
    assert!(chattr("-i"));
    workspace.close().unwrap();
    assert_eq!(litter(d), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_directory_that_may_not_be_written_is_found_before_anything_is() {
    const TEST: &str = "a_directory_that_may_not_be_written_is_found_before_anything_is";
    if is_root() {
        return crate::common::skipped(TEST, "nothing is forbidden to root");
    }
    let dir = crate::dir();
    let d = dir.path();
    fs::create_dir(d.join("closed")).unwrap();
    fs::write(d.join("closed/f"), "old").unwrap();
    fs::set_permissions(d.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let workspace = open(d);
    let mut tx = workspace.begin();
    tx.write("free", "new").unwrap();
    tx.write("closed/f", "new").unwrap();
    let e = tx.commit().unwrap_err();
    assert_eq!(
        (e.kind(), e.disk_state()),
        (ErrorKind::PermissionDenied, DiskState::Unchanged),
        "{e}"
    );
    assert!(!d.join("free").exists());
    assert_eq!(litter(d), Vec::<std::path::PathBuf>::new());
    fs::set_permissions(d.join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_mounted_file_is_refused_and_can_be_written_in_place() {
    const TEST: &str = "a_mounted_file_is_refused_and_can_be_written_in_place";
    if !is_root() {
        return crate::common::skipped(TEST, "it mounts, which needs root");
    }
    let dir = crate::dir();
    let d = dir.path();
    let outside = crate::dir();
    let source = outside.path().join("source");
    fs::write(&source, "old").unwrap();
    let target = d.join("hosts");
    fs::write(&target, "covered").unwrap();
    let _mounted = Mounted::new(&["--bind"], &source, &target);
    let workspace = open(d);
    let mut tx = workspace.begin();
    tx.write("free", "new").unwrap();
    tx.write("hosts", "new").unwrap();
    let e = tx.commit().unwrap_err();
    assert_eq!(e.disk_state(), DiskState::Unchanged, "{e}");
    assert!(
        matches!(e.kind(), ErrorKind::Busy | ErrorKind::CrossDevice),
        "{e}"
    );
    assert!(!d.join("free").exists());
    let mut tx = workspace.begin();
    tx.write("free", "new").unwrap();
    tx.write_in_place("hosts", "written in place").unwrap();
    tx.commit().unwrap();
    assert_eq!(fs::read(&source).unwrap(), b"written in place");
    assert_eq!(fs::read(d.join("free")).unwrap(), b"new");
    workspace.close().unwrap();
    assert_eq!(litter(d), Vec::<std::path::PathBuf>::new());
}

#[test]
fn threads_may_share_a_workspace() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Workspace>();
    shared::<steadfast::workspace::Conflict>();
    sent::<steadfast::workspace::Transaction<'_>>();
}

/// After the commit there is no way back: what the kernel refuses to change is known before it.
#[test]
fn attributes_that_cannot_be_set_are_refused_before_the_commit() {
    let list = "system.posix_acl_access";
    let any = u32::MAX.to_le_bytes();
    let entries = [0x01, 0x04, 0x20].map(|tag| [&[tag, 0, 4, 0][..], &any].concat());
    let rights = [&[2, 0, 0, 0][..], &entries.concat()].concat();
    let cases: [(&str, &str, Vec<u8>, bool); 9] = [
        ("f", list, b"no list".to_vec(), true),
        // Only a directory has one.
        ("f", "system.posix_acl_default", rights, true),
        ("f", "security.capability", b"no capability".to_vec(), true),
        ("f", "user.big", vec![7; 70_000], true),
        ("f", "user.", b"no name".to_vec(), true),
        ("d", list, b"no list".to_vec(), true),
        ("d", "system.posix_acl_default", b"no list".to_vec(), true),
        // As the file system, and the user, will have it.
        ("f", "user.big", vec![7; 10_000], false),
        ("f", "trusted.of", b"root".to_vec(), false),
    ];
    for (path, name, value, never) in cases {
        let dir = crate::dir();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("f"), "old").unwrap();
        fs::create_dir(at("d")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        let mut tx = workspace.begin();
        tx.write("other", "text").unwrap();
        tx.set_attributes(path, Attributes::new().xattr(name, &value));
        let what = format!("{path} {name} {}", value.len());
        match tx.commit() {
            Ok(_) => {
                assert!(!never, "{what}");
                let file = fs::File::open(at(path)).unwrap();
                let found = sys::fgetxattr(&file, &*CString::new(name).unwrap()).unwrap();
                assert_eq!(found, Some(value), "{what}");
            }
            Err(e) => {
                assert_eq!(e.disk_state(), DiskState::Unchanged, "{what}: {e}");
                assert!(!at("other").exists(), "{what}");
                assert_eq!(litter(dir.path()), Vec::<PathBuf>::new(), "{what}");
            }
        }
        workspace.close().unwrap();
    }
}

/// An attribute of class `user` takes the right to write to the file when it is set.
#[test]
fn attributes_of_what_may_not_be_written_are_refused_before_the_commit() {
    let dir = crate::dir();
    let path = dir.path().join("f");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    let commit = |attributes: Attributes, value: &str| {
        let mut tx = workspace.begin();
        tx.write("other", "text").unwrap();
        tx.set_attributes("f", attributes.xattr("user.of", value));
        tx.commit()
    };
    let by_hand = {
        let file = fs::File::open(&path).unwrap();
        let set = sys::fsetxattr(&file, c"user.by", b"hand", XattrFlags::empty());
        set.err().map(|e| e.raw_os_error())
    };
    match commit(Attributes::new(), "one") {
        Ok(_) => assert_eq!(by_hand, None),
        Err(e) => {
            assert_eq!(
                (e.raw_os_error(), e.disk_state()),
                (by_hand, DiskState::Unchanged)
            );
            assert!(!dir.path().join("other").exists());
        }
    }
    // Made writable, and no longer, by the same transaction.
    if by_hand != Some(Errno::OPNOTSUPP.raw_os_error()) {
        commit(Attributes::new().mode(Mode::from_bits_retain(0o600)), "two").unwrap();
        commit(
            Attributes::new().mode(Mode::from_bits_retain(0o400)),
            "three",
        )
        .unwrap();
    }
    workspace.close().unwrap();
}
