//! An error's text says all that the library knows, once; what the caller's code gave is its source.

use crate::common;
use std::error::Error as _;
use std::{fmt, io};
use steadfast::publish::{FileOptions, PendingFile};
use steadfast::sys::{Errno, hook};
use steadfast::{DiskState, Error, ErrorKind, Root};

/// An error of the caller's own, with one behind it.
#[derive(Debug)]
struct Ours(io::Error);

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("row 7 is bad")
    }
}

impl std::error::Error for Ours {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// As a reporter prints it that goes through the sources, such as `{:#}` of anyhow.
fn report(error: &dyn std::error::Error) -> String {
    let mut next = Some(error);
    let mut parts = Vec::new();
    while let Some(error) = next {
        parts.push(error.to_string());
        next = error.source();
    }
    parts.join(": ")
}

fn once(text: &str, part: &str) {
    assert_eq!(text.matches(part).count(), 1, "{part:?} in {text:?}");
}

#[test]
fn an_error_of_the_callers_code_is_the_source() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let fails = |_: &mut PendingFile<'_>| {
        let behind = io::Error::other("the line is dead");
        Err(io::Error::other(Ours(behind)))
    };
    let failed = FileOptions::new().write_with(&root, "x", fails);
    let error = failed.unwrap_err();
    let told = (error.kind(), error.disk_state());
    assert_eq!(told, (ErrorKind::Source, DiskState::Unchanged));
    assert!(error.detail().is_none());
    assert!(!error.to_string().contains("row 7"), "{error}");
    // What they gave, whose own text and source it passes on.
    let given = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert!(given.get_ref().unwrap().is::<Ours>());
    let check = |text: &str| {
        for part in ["cannot publish file", "row 7 is bad", "the line is dead"] {
            once(text, part);
        }
    };
    check(&report(&error));
    // By way of std both stay within reach.
    let error = io::Error::from(error);
    check(&report(&error));
    assert_eq!(Error::of(&error).unwrap().kind(), ErrorKind::Source);
    assert!(error.source().unwrap().is::<io::Error>());
}

#[test]
fn what_the_library_knows_is_in_the_text() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    // By errno, by a detail, and by both the kind and the errno.
    let missing = root.remove_file("nowhere").unwrap_err();
    once(&missing.to_string(), "ENOENT");
    let short = FileOptions::new().expect_len(3).write(&root, "x", b"");
    let short = short.unwrap_err();
    once(&short.to_string(), &short.detail().unwrap().to_string());
    let poisoned = hook::deny(&[("write", Errno::IO)], || {
        let mut file = FileOptions::new().begin(&root, "y").unwrap();
        io::Write::write_all(&mut file, b"lost").unwrap_err();
        file.commit().unwrap_err()
    });
    assert_eq!(poisoned.kind(), ErrorKind::Poisoned);
    once(&poisoned.to_string(), "EIO from write");
    for error in [missing, short, poisoned] {
        assert!(error.source().is_none(), "{error:?}");
        let text = error.to_string();
        let error = io::Error::from(error);
        assert!(error.source().is_none(), "{error:?}");
        assert_eq!(error.to_string(), text);
    }
}
