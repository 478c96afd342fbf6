//! Names of every length and of any bytes.

use crate::common;
use crate::support::{names, refused, replacing};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use steadfast::publish::{FileOptions, FolderOptions, Staging, Target};
use steadfast::{ErrorKind, Root};

/// A temporary name that is the target's with something added is too long for the longest ones.
#[test]
fn names_may_be_as_long_as_the_file_system_takes() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for len in 240..=255 {
        let name = "n".repeat(len);
        let new = FileOptions::new().target(Target::CreateNew);
        new.staging(Staging::Unnamed)
            .write(&root, &name, "1")
            .unwrap();
        for options in replacing(&root, &name) {
            options.write(&root, &name, "2").unwrap();
            assert_eq!(fs::read_to_string(tmp.path().join(&name)).unwrap(), "2");
        }
        fs::remove_file(tmp.path().join(&name)).unwrap();
        FolderOptions::new()
            .begin(&root, &name)
            .unwrap()
            .commit()
            .unwrap();
        fs::remove_dir(tmp.path().join(&name)).unwrap();
    }
    let long = "n".repeat(256);
    for options in replacing(&root, &long) {
        refused(options.write(&root, &long, "x"), ErrorKind::NameTooLong);
    }
    let new = FileOptions::new().target(Target::CreateNew);
    refused(new.write(&root, &long, "x"), ErrorKind::NameTooLong);
    assert_eq!(names(tmp.path()), [""; 0]);
}

#[test]
fn names_need_not_be_text() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for bytes in [
        &b"\xff\xfe"[..],
        b"a\xc3",
        b"new\nline",
        b" ",
        b"-",
        b"\x01",
        b"\\",
    ] {
        let name = OsStr::from_bytes(bytes);
        FileOptions::new().write(&root, name, "1").unwrap();
        FileOptions::new().write(&root, name, "2").unwrap();
        assert_eq!(fs::read(tmp.path().join(name)).unwrap(), b"2");
        fs::remove_file(tmp.path().join(name)).unwrap();
    }
    assert_eq!(names(tmp.path()), [""; 0]);
}

/// Elsewhere the name is cut at the NUL, and another file is replaced.
#[test]
fn a_name_with_a_nul_byte_is_refused() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("a"), "old").unwrap();
    let name = Path::new("a\0b");
    for target in [Target::CreateOrReplace, Target::CreateNew, Target::Replace] {
        let options = FileOptions::new().target(target);
        refused(options.write(&root, name, "new"), ErrorKind::InvalidInput);
    }
    refused(
        FolderOptions::new().begin(&root, name),
        ErrorKind::InvalidInput,
    );
    refused(
        FileOptions::new().write(&root, "x\0/a", "new"),
        ErrorKind::InvalidInput,
    );
    let keep = FolderOptions::new().keep_old(name);
    refused(
        keep.publish(&root, "a", &root, "c"),
        ErrorKind::InvalidInput,
    );
    let attribute = FileOptions::new().xattr("user.a\0b", "value");
    refused(attribute.write(&root, "c", "new"), ErrorKind::InvalidInput);
    assert_eq!(names(tmp.path()), ["a"]);
    assert_eq!(fs::read(tmp.path().join("a")).unwrap(), b"old");
}

#[test]
fn paths_without_a_name_are_refused() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for path in ["", ".", "..", "/", "a/", "a/."] {
        let error = FileOptions::new().write(&root, path, "new").unwrap_err();
        assert_eq!(
            error.disk_state(),
            steadfast::DiskState::Unchanged,
            "{path}: {error}"
        );
    }
    assert_eq!(names(tmp.path()), [""; 0]);
}
