//! Exchanging names and publishing folders in a workspace, with the kernel's exchange and without.

use crate::faults::{check, check_in_doubt, killed};
use crate::tree::{Tree, litter, tree};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use steadfast::publish::{FolderOptions, FolderTarget, SymlinkPolicy};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::workspace::{Receipt, Workspace, WorkspaceOptions};
use steadfast::{DiskState, ErrorKind, Result, Root};

const EXCHANGE: &str = "renameat2(RENAME_EXCHANGE)";
const NO_EXCHANGE: &str = "deny:renameat2(RENAME_EXCHANGE)=EINVAL";
/// More calls than any of them makes.
const BOUND: u64 = 2000;

#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    pub(crate) run: fn(&Workspace) -> Result<Receipt>,
    /// A name that is there before, and must never be missing for good.
    stays: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "folders: swap files",
        run: |w| w.swap("f", "g"),
        stays: &["f", "g"],
    },
    Case {
        name: "folders: swap directories",
        run: |w| w.swap("d", "e"),
        stays: &["d", "e"],
    },
    Case {
        name: "folders: swap across directories",
        run: |w| w.swap("d/in", "e/sub"),
        stays: &["d/in", "e/sub"],
    },
    Case {
        name: "folders: swap a file and a directory",
        run: |w| w.swap("f", "e"),
        stays: &["f", "e"],
    },
    Case {
        name: "folders: swap a symlink and a directory",
        run: |w| w.swap("e/sub", "link"),
        stays: &["e/sub", "link"],
    },
    Case {
        name: "folders: publish over a folder",
        run: |w| w.publish_folder("d", "e", &FolderOptions::new()),
        stays: &["e"],
    },
    Case {
        name: "folders: publish from another directory",
        run: |w| w.publish_folder("e/sub", "d", &FolderOptions::new()),
        stays: &["d"],
    },
    Case {
        name: "folders: publish and keep",
        run: |w| w.publish_folder("d", "e", &FolderOptions::new().keep_old("old")),
        stays: &["e"],
    },
    Case {
        name: "folders: publish a file and keep",
        run: |w| w.publish_folder("d/in", "f", &FolderOptions::new().keep_old("old")),
        stays: &["f"],
    },
    Case {
        name: "folders: publish at a free name",
        run: |w| w.publish_folder("d", "new", &FolderOptions::new()),
        stays: &[],
    },
];

pub(crate) fn case(name: &str) -> Option<Case> {
    CASES.iter().find(|case| case.name == name).copied()
}

impl Case {
    fn swaps(&self) -> bool {
        self.name.contains("swap")
    }
}

fn open(dir: &Path) -> Workspace {
    let options = WorkspaceOptions::new().wait(Duration::ZERO);
    options.open(&Root::open(dir).unwrap()).unwrap()
}

fn prepared(top: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(top).unwrap();
    let d = dir.path();
    fs::write(d.join("f"), "file f").unwrap();
    fs::write(d.join("g"), "file g").unwrap();
    fs::create_dir_all(d.join("d")).unwrap();
    fs::create_dir_all(d.join("e/sub")).unwrap();
    fs::write(d.join("d/in"), "in d").unwrap();
    fs::write(d.join("e/sub/in"), "in e/sub").unwrap();
    symlink("d", d.join("link")).unwrap();
    open(d).close().unwrap();
    dir
}

/// What it does, whichever way it is done.
fn states(top: &Path, case: &Case) -> (Tree, Tree) {
    let dir = prepared(top);
    let old = tree(dir.path());
    let workspace = open(dir.path());
    (case.run)(&workspace).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let new = tree(dir.path());
    assert_ne!(old, new, "{}: it does nothing", case.name);
    assert_eq!(litter(dir.path()), Vec::<std::path::PathBuf>::new());
    (old, new)
}

/// With the kernel's exchange; `None` where there is none.
fn by_kernel<R>(f: impl FnOnce() -> R) -> Option<R> {
    (!hook::denied_by_env(EXCHANGE)).then(f)
}

fn by_journal<R>(f: impl FnOnce() -> R) -> R {
    hook::deny(&[(EXCHANGE, Errno::INVAL)], f)
}

#[test]
fn both_ways_do_the_same_and_only_one_is_a_transaction() {
    let top = crate::dir();
    for case in CASES {
        let run = || {
            let dir = prepared(top.path());
            let number = (case.run)(&open(dir.path())).unwrap().number();
            (tree(dir.path()), number)
        };
        let (journaled, number) = by_journal(run);
        // A free name needs no exchange.
        assert_eq!(number == 0, case.stays.is_empty(), "{}", case.name);
        if let Some((direct, number)) = by_kernel(run) {
            assert_eq!(journaled, direct, "{}", case.name);
            assert_eq!(number, 0, "{}", case.name);
        }
    }
}

/// Where the kernel cannot refuse a taken name, an empty folder claims it, which a kill leaves behind.
fn leaves_a_claim(case: &Case) -> bool {
    let leaves = case.stays.is_empty() && hook::denied_by_env("renameat2(RENAME_NOREPLACE)");
    if leaves {
        crate::common::skipped(case.name, "without RENAME_NOREPLACE its claim may stay");
    }
    leaves
}

#[test]
fn without_exchange_a_kill_at_any_call_leaves_old_or_new() {
    let top = crate::dir();
    let (mut runs, mut new_ones) = (0, 0);
    for (first, case) in (1..).zip(CASES) {
        if leaves_a_claim(case) {
            continue;
        }
        let (old, new) = states(top.path(), case);
        for side in ["before", "after"] {
            // Others of the calls in each case.
            for at in (if crate::long() { 1 } else { first % 7 + 1 }..).step_by(crate::step(7)) {
                assert!(at < BOUND, "{}: no end", case.name);
                let dir = prepared(top.path());
                let plan = format!("{NO_EXCHANGE};stop-{side}:{at}");
                if !killed(case.name, dir.path(), &plan) {
                    break;
                }
                let context = format!("{}, {plan}", case.name);
                runs += 1;
                // Recovery has no exchange either.
                new_ones += u32::from(by_journal(|| check(dir.path(), &old, &new, &context)));
            }
        }
    }
    println!("{runs} kills, {new_ones} of them new afterwards");
    assert!(new_ones > 0 && new_ones < runs);
}

#[test]
fn with_exchange_no_name_is_ever_missing() {
    let top = crate::dir();
    if by_kernel(|| ()).is_none() {
        return crate::common::skipped("with_exchange_no_name_is_ever_missing", "no exchange");
    }
    for case in CASES {
        if leaves_a_claim(case) {
            continue;
        }
        let (old, new) = states(top.path(), case);
        for at in (1..).step_by(crate::step(5)) {
            assert!(at < BOUND, "{}: no end", case.name);
            let dir = prepared(top.path());
            let plan = format!("stop-before:{at}");
            if !killed(case.name, dir.path(), &plan) {
                break;
            }
            let context = format!("{}, {plan}", case.name);
            for name in case.stays {
                // Nobody has opened the workspace.
                let there = dir.path().join(name).symlink_metadata();
                assert!(there.is_ok(), "{context}: {name}");
            }
            if case.swaps() {
                check(dir.path(), &old, &new, &context);
            }
        }
    }
}

#[test]
fn an_error_at_any_call_leaves_what_it_says() {
    let top = crate::dir();
    let cases = CASES.iter().filter(|case| !case.stays.is_empty());
    for (first, case) in (1..).zip(cases) {
        let (old, new) = states(top.path(), case);
        // Others of the calls in each case.
        for at in (if crate::long() { 1 } else { first }..).step_by(crate::step(11)) {
            assert!(at < BOUND, "{}: no end", case.name);
            let mut reached = false;
            for action in [Action::Fail(Errno::IO), Action::FailAfter(Errno::NOSPC)] {
                let dir = prepared(top.path());
                let workspace = open(dir.path());
                let plan = Plan { at, action };
                let run = || hook::scope(Some(plan), || (case.run)(&workspace));
                let (done, calls) = by_journal(run);
                reached |= calls.len() as u64 >= at;
                let context = format!("{}, {action:?} at {at}: {done:?}", case.name);
                drop(workspace);
                let now = tree(dir.path());
                let state = done.as_ref().err().map(|e| e.disk_state());
                match state {
                    None => assert_eq!(now, new, "{context}"),
                    Some(DiskState::Unchanged) => assert_eq!(now, old, "{context}"),
                    // The denied exchange itself fails after all: the kernel has exchanged.
                    Some(_) => {}
                }
                let call = calls.get(usize::try_from(at).unwrap() - 1);
                let in_doubt = call == Some(&"syncfs");
                let is_new =
                    by_journal(|| check_in_doubt(dir.path(), &old, &new, &context, in_doubt));
                match state {
                    None | Some(DiskState::Committed) => assert!(is_new, "{context}"),
                    Some(DiskState::Unchanged) => assert!(!is_new, "{context}"),
                    Some(_) => {}
                }
            }
            if !reached {
                break;
            }
        }
    }
}

/// Which of these calls were made, in order.
fn among(calls: &[&'static str], of: &[&str]) -> Vec<&'static str> {
    let mut out: Vec<_> = calls.iter().copied().filter(|c| of.contains(c)).collect();
    out.dedup();
    out
}

#[test]
fn what_is_returned_is_durable_in_place() {
    let top = crate::dir();
    for case in CASES.iter().filter(|case| !case.stays.is_empty()) {
        let dir = prepared(top.path());
        let workspace = open(dir.path());
        let run = || hook::scope(None, || (case.run)(&workspace).unwrap());
        let (_, calls) = by_journal(run);
        let last = |of: &str| calls.iter().rposition(|call| call.starts_with(of));
        assert!(
            last("syncfs") > last("renameat2"),
            "{}: {calls:?}",
            case.name
        );
    }
}

#[test]
fn what_is_in_the_log_is_settled_before_the_kernel_exchanges() {
    let top = crate::dir();
    let dir = prepared(top.path());
    let workspace = open(dir.path());
    let calls = |run: fn(&Workspace) -> Result<Receipt>| {
        let (done, calls) = hook::scope(None, || run(&workspace));
        done.unwrap();
        among(&calls, &["syncfs", "fsync", EXCHANGE])
    };
    let swap: fn(&Workspace) -> Result<Receipt> = |w| w.swap("f", "g");
    if by_kernel(|| ()).is_none() {
        return;
    }
    assert_eq!(calls(swap), [EXCHANGE, "fsync"]);
    let mut tx = workspace.begin();
    tx.write("f", "newer").unwrap();
    tx.commit().unwrap();
    assert_eq!(calls(swap), ["syncfs", EXCHANGE, "fsync"]);
    assert_eq!(calls(swap), [EXCHANGE, "fsync"]);
}

#[test]
fn claims_of_others_keep_it_away_both_ways() {
    let top = crate::dir();
    for case in CASES.iter().filter(|case| !case.stays.is_empty()) {
        let run = || {
            let dir = prepared(top.path());
            let (workspace, other) = (open(dir.path()), open(dir.path()));
            let old = tree(dir.path());
            let mut tx = other.begin();
            // Of a directory also what is in it.
            tx.claim([Path::new(case.stays[0]).join("in")]).unwrap();
            let error = (case.run)(&workspace).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{}: {error}", case.name);
            assert_eq!(error.disk_state(), DiskState::Unchanged);
            assert_eq!(tree(dir.path()), old);
            drop(tx);
            (case.run)(&workspace).unwrap();
        };
        by_journal(run);
        by_kernel(run);
    }
}

#[test]
fn what_cannot_be_done_is_refused_alike() {
    type Run = fn(&Workspace) -> Result<Receipt>;
    let cases: &[(Run, ErrorKind)] = &[
        (|w| w.swap("f", "none"), ErrorKind::NotFound),
        (|w| w.swap("none", "f"), ErrorKind::NotFound),
        (|w| w.swap("e", "e/sub"), ErrorKind::InvalidInput),
        (|w| w.swap("f", "../f"), ErrorKind::Escape),
        (
            |w| w.publish_folder("none", "e", &FolderOptions::new()),
            ErrorKind::NotFound,
        ),
        (
            |w| w.publish_folder("d", "f", &FolderOptions::new()),
            ErrorKind::NotADirectory,
        ),
        (
            |w| w.publish_folder("f", "d", &FolderOptions::new()),
            ErrorKind::IsADirectory,
        ),
        (
            |w| w.publish_folder("e/sub", "e", &FolderOptions::new()),
            ErrorKind::InvalidInput,
        ),
        (
            |w| w.publish_folder("d", "d", &FolderOptions::new()),
            ErrorKind::InvalidInput,
        ),
        (
            |w| w.publish_folder("d", "link/../d", &FolderOptions::new()),
            ErrorKind::InvalidInput,
        ),
        (
            |w| w.publish_folder("d", "d", &FolderOptions::new().keep_old("old")),
            ErrorKind::InvalidInput,
        ),
        (
            |w| w.publish_folder("d", "e", &FolderOptions::new().keep_old("f")),
            ErrorKind::AlreadyExists,
        ),
        (
            |w| w.publish_folder("e", "link", &FolderOptions::new()),
            ErrorKind::SymlinkLoop,
        ),
        (
            |w| {
                let follow = FolderOptions::new().symlink(SymlinkPolicy::Follow);
                w.publish_folder("e", "link", &follow)
            },
            ErrorKind::InvalidInput,
        ),
        (
            |w| {
                let create_new = FolderOptions::new().target(FolderTarget::CreateNew);
                w.publish_folder("d", "e", &create_new)
            },
            ErrorKind::AlreadyExists,
        ),
        (
            |w| {
                let replace = FolderOptions::new().target(FolderTarget::Replace);
                w.publish_folder("d", "none", &replace)
            },
            ErrorKind::NotFound,
        ),
    ];
    let top = crate::dir();
    let dir = prepared(top.path());
    let workspace = open(dir.path());
    let old = tree(dir.path());
    for (at, (run, kind)) in cases.iter().enumerate() {
        let refused = || {
            let error = run(&workspace).unwrap_err();
            assert_eq!(error.kind(), *kind, "{at}: {error}");
            assert_eq!(error.disk_state(), DiskState::Unchanged, "{at}: {error}");
            assert_eq!(tree(dir.path()), old, "{at}");
        };
        by_journal(refused);
        by_kernel(refused);
    }
    // A name with itself is as it was.
    assert_eq!(workspace.swap("f", "./f").unwrap().number(), 0);
    assert_eq!(tree(dir.path()), old);
}
