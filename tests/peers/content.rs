//! The content: never cut short, and said what became of it.

use crate::common;
use crate::support::{names, read, refused};
use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use steadfast::publish::{Batch, FileOptions, Staging};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, Error, ErrorKind, Root};

/// Elsewhere an error of a write that nobody looked at is forgotten, and a file that was cut short published.
#[test]
fn an_ignored_write_error_cannot_be_committed() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    for (call, errno) in [("write", Errno::NOSPC), ("ftruncate", Errno::IO)] {
        let mut pending = FileOptions::new().begin(&root, "f").unwrap();
        hook::deny(&[(call, errno)], || {
            let _ = pending.write_all(b"0123456789");
            let _ = pending.set_len(5);
        });
        // Later ones go well.
        pending.write_all(b"the rest").unwrap();
        let error = refused(pending.commit(), ErrorKind::Poisoned);
        assert_eq!(error.errno(), Some(errno));
    }
    // The same inside a closure that says that all is well, and in a batch.
    let careless = |pending: &mut steadfast::publish::PendingFile<'_>| {
        hook::deny(&[("write", Errno::DQUOT)], || {
            let _ = pending.write_all(b"lost");
        });
        Ok(())
    };
    let options = FileOptions::new();
    refused(
        options.write_with(&root, "f", careless),
        ErrorKind::Poisoned,
    );
    let mut batch = Batch::new(&root).unwrap();
    batch.write_with("f", &options, careless).unwrap();
    refused(batch.commit(), ErrorKind::Poisoned);
    assert_eq!(names(tmp.path()), ["f"]);
    assert_eq!(read(&tmp.path().join("f")), "old");
}

/// Elsewhere the same plain error stands for the old file and for the new one.
#[test]
fn a_failed_sync_of_the_directory_says_that_the_file_is_new() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    let write = |text: &str| FileOptions::new().write(&root, "f", text);
    // The first of a process draws random numbers as well.
    write("0").unwrap();
    let (_, calls) = hook::scope(None, || write("1"));
    let syncs: Vec<_> = (1..).zip(&calls).filter(|(_, c)| **c == "fsync").collect();
    let [(content, _), (names_sync, _)] = syncs[..] else {
        panic!("{calls:?}");
    };
    for (at, state, text) in [
        (content, DiskState::Unchanged, "1"),
        (names_sync, DiskState::Published, "2"),
    ] {
        let plan = Plan {
            at,
            action: Action::Fail(Errno::IO),
        };
        let (done, _) = hook::scope(Some(plan), || write("2"));
        let error = done.unwrap_err();
        assert_eq!(error.disk_state(), state, "{error}");
        assert_eq!(
            (error.errno(), error.raw_os_error()),
            (Some(Errno::IO), Some(5))
        );
        assert_eq!(error.system_call(), Some("fsync"));
        assert!(error.to_string().contains("EIO"), "{error}");
        // Also after the way through std's error.
        let error = io::Error::from(error);
        assert_eq!(
            Error::of(&error).map(|e| (e.disk_state(), e.errno())),
            Some((state, Some(Errno::IO)))
        );
        assert_eq!(read(&tmp.path().join("f")), text);
        assert_eq!(names(tmp.path()), ["f"]);
    }
}

/// Elsewhere the temporary stays when the last step fails, as it is marked finished before.
#[test]
fn a_failed_commit_leaves_nothing() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for staging in [Staging::Beside, Staging::Unnamed] {
        let mut pending = FileOptions::new()
            .staging(staging)
            .begin(&root, "f")
            .unwrap();
        pending.write_all(b"new").unwrap();
        fs::create_dir(tmp.path().join("f")).unwrap();
        let error = pending.commit().unwrap_err();
        assert_eq!(error.disk_state(), DiskState::Unchanged, "{error}");
        assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
        assert_eq!(names(tmp.path()), ["f"]);
        fs::remove_dir(tmp.path().join("f")).unwrap();
    }
}

struct Failing(u32);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0 -= 1;
        match self.0 {
            0 => Err(io::Error::other("the source is gone")),
            n if n % 3 == 0 => Err(io::ErrorKind::Interrupted.into()),
            _ => {
                buf.fill(b'x');
                Ok(buf.len())
            }
        }
    }
}

#[test]
fn a_source_that_fails_publishes_nothing() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    let options = FileOptions::new();
    let error = refused(
        options.write_from(&root, "f", Failing(8)),
        ErrorKind::Source,
    );
    assert_eq!(error.source().unwrap().to_string(), "the source is gone");
    let failing = |_: &mut steadfast::publish::PendingFile<'_>| Err(io::Error::other("no"));
    refused(options.write_with(&root, "f", failing), ErrorKind::Source);
    // A panic in the middle, too.
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        options.write_with(&root, "f", |pending| {
            pending.write_all(b"half")?;
            panic!("a defect of the caller");
        })
    }));
    assert!(panics.is_err());
    assert_eq!(names(tmp.path()), ["f"]);
    assert_eq!(read(&tmp.path().join("f")), "old");
}
