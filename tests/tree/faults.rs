//! Every call fails once: what the error says is true.

use crate::common;
use crate::support::{acl, chmod, list, name, set_xattr, snapshot};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan, scope};
use steadfast::tree::{CopyOptions, RemoveOptions, Special, copy, remove};
use steadfast::{DiskState, Error, Root};

const ERRNOS: [Errno; 4] = [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::MFILE];

/// A bit of everything, in few entries.
fn build(dir: &Path) -> Root {
    let top = dir.join("t");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/file"), vec![1; 10_000]).unwrap();
    fs::hard_link(top.join("a/file"), top.join("link")).unwrap();
    let holes = fs::File::create(top.join("a/b/holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, b"x", 500_000).unwrap();
    symlink("nowhere", top.join("symlink")).unwrap();
    set_xattr(&top.join("a/file"), "user.a", b"v");
    set_xattr(
        &top.join("a/file"),
        "system.posix_acl_access",
        &acl(6, (7, 6), 4, 6, 0),
    );
    chmod(&top.join("a/b"), 0o750);
    let root = Root::open(dir).unwrap();
    root.mkfifo("t/fifo", rustix::fs::Mode::RUSR).unwrap();
    root
}

/// Each call of `run` fails in each way; `run` gets the number of the call, and says what it gave.
fn sweep(calls: usize, mut run: impl FnMut(Plan)) {
    for at in 1..=calls as u64 {
        for (n, errno) in (0..).zip(ERRNOS) {
            // EIO for every call, and one of the others.
            if n == 0 || n == 1 + at % 3 || std::env::var_os("STEADFAST_LONG").is_some() {
                let action = Action::Fail(errno);
                run(Plan { at, action });
            }
        }
        run(Plan {
            at,
            action: Action::FailAfter(Errno::IO),
        });
    }
}

#[test]
fn a_copy_is_whole_or_not_there() {
    let dir = common::dir();
    let root = build(dir.path());
    let options = CopyOptions::new().special(Special::Recreate);
    let run = || copy(&root, &name("t"), &root, &name("copy"), &options);
    let (done, calls) = scope(None, run);
    done.unwrap();
    let whole = snapshot(&dir.path().join("copy"));
    let source = snapshot(&dir.path().join("t"));
    remove(&root, &name("copy"), &RemoveOptions::new()).unwrap();
    assert!(calls.len() > 60, "{calls:?}");
    let (mut failed, mut worked) = (0, 0);
    sweep(calls.len(), |plan| {
        let call = calls[plan.at as usize - 1];
        match scope(Some(plan), run).0 {
            Ok(done) => {
                worked += 1;
                let copy = snapshot(&dir.path().join("copy"));
                assert!(copy.keys().eq(whole.keys()), "{plan:?} {call}");
                for (path, seen) in &whole {
                    assert!(
                        copy[path].content == seen.content,
                        "{plan:?} {call} {path:?}"
                    );
                }
                let missed = done.owners_missed + done.xattrs_missed + done.links_missed;
                if missed == 0 && done.changed == 0 {
                    crate::support::assert_same(&whole, &copy);
                }
                remove(&root, &name("copy"), &RemoveOptions::new()).unwrap();
            }
            Err(error) => {
                failed += 1;
                check_copy_error(&error, dir.path(), plan, call);
                remove(&root, &name("copy"), &RemoveOptions::new().missing_ok(true)).unwrap();
            }
        }
        assert_eq!(snapshot(&dir.path().join("t")).len(), source.len());
    });
    crate::support::assert_same(&snapshot(&dir.path().join("t")), &source);
    assert!(failed > 200 && worked > 20, "{failed} {worked}");
}

fn check_copy_error(error: &Error, dir: &Path, plan: Plan, call: &str) {
    let text = format!("{plan:?} {call}: {error}");
    let Action::Fail(errno) = plan.action else {
        // Done, but answered with an error: of the first creation nobody knows.
        assert!(
            list(dir) == ["t"] || error.disk_state() == DiskState::Indeterminate,
            "{text}"
        );
        return;
    };
    // Where procfs takes the place of a call, its errors are that it cannot.
    if !hook::denied_by_env("fchmodat2") {
        assert_eq!(error.errno(), Some(errno), "{text}");
    }
    assert_eq!(error.operation(), "copy tree", "{text}");
    assert!(error.path().is_some(), "{text}");
    assert!(error.left_behind().is_empty(), "{text}");
    assert_eq!(list(dir), ["t"], "{text}");
    let creating = ["mkdirat"].contains(&call) && errno == Errno::IO;
    if !creating {
        assert_eq!(error.disk_state(), DiskState::Unchanged, "{text}");
    }
}

#[test]
fn a_removal_says_whether_anything_is_gone() {
    let dir = common::dir();
    let build_deep = || {
        let top = dir.path().join("t");
        let mut deep = top.join("deep");
        // Beyond the levels that stay open.
        deep.extend((0..18).map(|n| n.to_string()));
        fs::create_dir_all(&deep).unwrap();
        fs::write(top.join("deep/file"), "x").unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        symlink("nowhere", top.join("symlink")).unwrap();
    };
    let root = Root::open(dir.path()).unwrap();
    build_deep();
    let before: Vec<_> = snapshot(&dir.path().join("t")).into_keys().collect();
    let run = || remove(&root, &name("t"), &RemoveOptions::new());
    let (done, calls) = scope(None, run);
    done.unwrap();
    let (mut failed, mut untouched) = (0, 0);
    sweep(calls.len(), |plan| {
        let call = calls[plan.at as usize - 1];
        build_deep();
        let done = scope(Some(plan), run).0;
        match done {
            Ok(_) => assert_eq!(list(dir.path()), [""; 0], "{plan:?} {call}"),
            Err(error) => {
                let text = format!("{plan:?} {call}: {error}");
                failed += 1;
                let after: Vec<_> = match dir.path().join("t").exists() {
                    true => snapshot(&dir.path().join("t")).into_keys().collect(),
                    false => Vec::new(),
                };
                if error.disk_state() == DiskState::Unchanged {
                    untouched += 1;
                    assert_eq!(after, before, "{text}");
                } else {
                    assert_eq!(error.disk_state(), DiskState::Indeterminate, "{text}");
                }
                assert!(error.path().is_some(), "{text}");
                assert_eq!(error.operation(), "remove tree", "{text}");
                remove(&root, &name("t"), &RemoveOptions::new().missing_ok(true)).unwrap();
            }
        }
    });
    assert!(failed > 100 && untouched > 5, "{failed} {untouched}");
}

#[test]
fn when_cleaning_up_fails_too_the_error_says_what_is_left() {
    let dir = common::dir();
    let root = build(dir.path());
    let run = || copy(&root, &name("t"), &root, &name("copy"), &CopyOptions::new());
    // The FIFO is refused, and then nothing can be removed.
    let stuck = [
        ("unlinkat", Errno::IO),
        ("unlinkat(AT_REMOVEDIR)", Errno::IO),
    ];
    let error = steadfast::sys::hook::deny(&stuck, run).unwrap_err();
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
    assert_eq!(error.left_behind(), [Path::new("copy")]);
    assert_eq!(list(dir.path()), ["copy", "t"]);
}
