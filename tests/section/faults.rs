//! Every call of a section fails once, and what a section must not do is not done.

use crate::common::{self, no_child};
use crate::scenes;
use crate::support::{assert_clean, assert_same, furnish, open, tree, write};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::rc::Rc;
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, ErrorKind};

/// More calls than any section makes.
const BOUND: u64 = 5000;

#[test]
fn whichever_call_fails_everything_is_as_before_or_kept() {
    let _alone = no_child();
    let step = crate::step(17) as u64;
    let mut failures = 0;
    for (n, scene) in scenes::all().into_iter().enumerate() {
        for errno in [Errno::IO, Errno::NOSPC] {
            for k in 0.. {
                let at = 1 + k * step + (n as u64 * 3) % step;
                assert!(at < BOUND, "{}: no end", scene.name);
                let context = format!("{}, {errno:?} at {at}", scene.name);
                let dir = crate::dir();
                let top = dir.path();
                let workspace = open(top);
                furnish(top);
                let before = tree(top);
                let plan = Plan {
                    at,
                    action: Action::Fail(errno),
                };
                let commits = k % 2 == 0;
                let (done, seen) = hook::scope(Some(plan), || {
                    let mut section = workspace.section(scene.name)?;
                    (scene.run)(&mut section, top)?;
                    match commits {
                        true => section.commit().map(|_| true),
                        false => section.rollback().map(|()| false),
                    }
                });
                let reached = seen.len() as u64 >= at;
                let left = tree(top);
                // What could not be put back, is by who opens it next.
                drop(workspace);
                let again = open(top);
                let now = tree(top);
                match done {
                    Ok(true) => assert_same(&now, &left, &context),
                    Ok(false) => assert_same(&now, &before, &context),
                    // Only if that was not said to be undone.
                    Err(e) if commits && now == left && now != before => {
                        assert_ne!(e.disk_state(), DiskState::Unchanged, "{context}: {e}");
                    }
                    Err(e) => assert_same(&now, &before, &format!("{context}: {e}")),
                }
                let name = seen.get(at as usize - 1);
                if reached && name == Some(&"syncfs") {
                    // No log is given up before the next mount, nor what it tells of.
                    let error = again.settle().expect_err(&context);
                    assert_eq!(error.kind(), ErrorKind::Poisoned, "{context}: {error}");
                } else {
                    again.close().unwrap();
                    assert_clean(top, &context);
                }
                if !reached {
                    break;
                }
                failures += 1;
            }
        }
    }
    println!("{failures} calls failed");
}

/// Content is neither read nor written, however much it is.
#[test]
fn a_large_file_that_is_removed_or_replaced_costs_nothing() {
    const SIZE: u64 = 4 << 30;
    let _alone = no_child();
    let dir = common::dir();
    let top = dir.path();
    let workspace = open(top);
    write(top.join("other"), "small");
    let inodes = ["removed", "replaced"].map(|name| {
        let file = fs::File::create(top.join(name)).unwrap();
        file.set_len(SIZE).unwrap();
        for at in [0, SIZE / 2, SIZE - 4096] {
            file.write_all_at(&[7; 4096], at).unwrap();
        }
        file.metadata().unwrap().ino()
    });
    let (_, seen) = hook::scope(None, || {
        let mut section = workspace.section("large").unwrap();
        section
            .apply(|tx| {
                tx.remove_file("removed");
                tx.write("replaced", b"small now")
            })
            .unwrap();
        section.rollback().unwrap();
    });
    for call in ["read", "copy_file_range", "ioctl(FICLONE)", "lseek"] {
        assert!(!seen.contains(&call), "{call}");
    }
    // The new content, the log, the ledger.
    let writes = seen
        .iter()
        .filter(|c| c.starts_with("write") || c.starts_with("pwrite"));
    assert!(
        writes.clone().count() < 20,
        "{:?}",
        writes.collect::<Vec<_>>()
    );
    for (name, ino) in ["removed", "replaced"].into_iter().zip(inodes) {
        let meta = fs::metadata(top.join(name)).unwrap();
        assert_eq!((meta.ino(), meta.len()), (ino, SIZE), "{name}");
    }
    workspace.close().unwrap();
    assert_clean(top, "large");
}

/// The names of a section's calls, in order, with what was synced.
fn observed(f: impl FnOnce()) -> Vec<(&'static str, Option<u64>)> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let to = Rc::clone(&seen);
    hook::observe(
        move |name, on| to.borrow_mut().push((name, on.map(|(_, ino)| ino))),
        f,
    );
    seen.take()
}

fn first(calls: &[(&'static str, Option<u64>)], name: &str) -> Option<usize> {
    calls.iter().position(|(call, _)| call.starts_with(name))
}

fn last(calls: &[(&'static str, Option<u64>)], name: &str) -> Option<usize> {
    calls.iter().rposition(|(call, _)| call.starts_with(name))
}

#[test]
fn nothing_is_changed_before_its_undo_is_durable_nor_removed_before_the_end_is() {
    let _alone = no_child();
    let dir = common::dir();
    let top = dir.path();
    let workspace = open(top);
    furnish(top);
    let mut section = workspace.section("order").unwrap();
    let calls = observed(|| {
        section
            .apply(|tx| {
                tx.remove_file("a");
                tx.write("b", b"new")
            })
            .unwrap();
    });
    // The record, then the names; the old things stay.
    let record = first(&calls, "fdatasync").unwrap();
    assert!(first(&calls, "renameat2").unwrap() > record, "{calls:?}");
    // Where nothing can be renamed to a free name only, it is linked there first: then it is not gone.
    let moves = |n: usize| calls[n].0.starts_with("unlinkat") && calls[n - 1].0 == "linkat";
    let removes = |n: &usize| calls[*n].0.starts_with("unlinkat") && !moves(*n);
    assert_eq!((record..calls.len()).find(removes), None, "{calls:?}");
    // No transaction is under it.
    assert_eq!(first(&calls, "syncfs"), None, "{calls:?}");

    let calls = observed(|| section.protect(["d", "c"]).unwrap());
    let copied = last(&calls, "mkdirat").unwrap();
    let images = first(&calls, "syncfs").unwrap();
    let record = first(&calls, "fdatasync").unwrap();
    assert!(copied < images && images < record, "{calls:?}");

    let calls = observed(|| {
        section.commit().unwrap();
    });
    let all = first(&calls, "syncfs").unwrap();
    let end = first(&calls, "fdatasync").unwrap();
    let removed = first(&calls, "unlinkat").unwrap();
    assert!(all < end && end < removed, "{calls:?}");

    let mut tx = workspace.begin();
    tx.write("a", b"once more").unwrap();
    tx.commit().unwrap();
    let mut section = workspace.section("order").unwrap();
    let calls = observed(|| section.apply(|tx| tx.write("a", b"new")).unwrap());
    // What was committed is settled before anything of it is moved, and before that is recorded.
    let settled = first(&calls, "syncfs").unwrap();
    let stepped = last(&calls, "fdatasync").unwrap();
    assert!(settled < stepped, "{calls:?}");
    assert!(first(&calls, "renameat2").unwrap() > stepped, "{calls:?}");

    let calls = observed(|| section.rollback().unwrap());
    let back = last(&calls, "renameat2").unwrap();
    let all = last(&calls, "syncfs").unwrap();
    let end = first(&calls, "fdatasync").unwrap();
    assert!(back < all && all < end, "{calls:?}");
    assert!(first(&calls[end..], "unlinkat").is_some(), "{calls:?}");
    assert_eq!(fs::read(top.join("a")).unwrap(), b"once more");
}
