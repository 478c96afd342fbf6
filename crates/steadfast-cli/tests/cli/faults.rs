//! The command stopped, or refused by the kernel, at each of its system calls: the exit code tells the
//! truth about the disk, and what a kill leaves is swept. Needs the test seam in the binary: a build with the
//! library's tests has it, or one with the feature `_hook`.

use crate::common::{Ran, dir, go_on, names, pauses, ran, spawn, steadfast};
use std::fs;
use std::io::Write;
use std::path::Path;

/// More calls than any command here makes.
pub(crate) const MANY: u32 = 2000;

/// Runs with a plan for the test seam. The exit code is -1 if the plan stopped the process.
pub(crate) fn planned(d: &Path, plan: &str, args: &[&str]) -> Ran {
    let plan = format!("arm;{plan}");
    let mut child = spawn(steadfast(d).args(args).env("STEADFAST_HOOK", plan));
    // A process that was stopped reads nothing.
    let _ = child.stdin.take().unwrap().write_all(b"new");
    ran(&child.wait_with_output().unwrap())
}

/// Whether the binary heeds a plan at all.
pub(crate) fn seam(test: &str) -> bool {
    if std::env::var_os("STEADFAST_HOOK").is_some() {
        crate::common::skipped(test, "the environment has a plan of its own");
        return false;
    }
    let dir = dir();
    let stopped = planned(dir.path(), "stop-before:1", &["lookup", "--root", ".", "."]).code == -1;
    if !stopped {
        crate::common::skipped(test, "the command is built without the test seam");
    }
    stopped
}

/// One command, the state before it, and what it may look like after.
struct Case {
    args: &'static [&'static str],
    /// Names that come or go with the change.
    own: &'static [&'static str],
    before: fn(&Path),
    old: fn(&Path) -> bool,
    new: fn(&Path) -> bool,
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// How many calls an undisturbed run makes.
fn calls(case: &Case) -> u32 {
    let survives = |n: u32| {
        let dir = dir();
        (case.before)(dir.path());
        planned(dir.path(), &format!("stop-before:{n}"), case.args).code != -1
    };
    let (mut low, mut high) = (1, MANY);
    while low < high {
        let middle = low.midpoint(high);
        if survives(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    assert!((2..MANY).contains(&low), "{low}");
    low - 1
}

const CASES: &[Case] = &[
    Case {
        args: &["write", "f"],
        own: &["f"],
        before: |d| fs::write(d.join("f"), "old").unwrap(),
        old: |d| content(&d.join("f")) == "old",
        new: |d| content(&d.join("f")) == "new",
    },
    Case {
        args: &["write", "--create-new", "f"],
        own: &["f"],
        before: |_| {},
        old: |d| !d.join("f").exists(),
        new: |d| content(&d.join("f")) == "new",
    },
    Case {
        args: &["swap", "a", "b"],
        own: &[],
        before: |d| {
            fs::write(d.join("a"), "a").unwrap();
            fs::write(d.join("b"), "b").unwrap();
        },
        old: |d| content(&d.join("a")) == "a" && content(&d.join("b")) == "b",
        new: |d| content(&d.join("a")) == "b" && content(&d.join("b")) == "a",
    },
    Case {
        args: &["cp", "-r", "src", "dst"],
        own: &["dst"],
        before: |d| {
            fs::create_dir_all(d.join("src/sub")).unwrap();
            fs::write(d.join("src/sub/f"), "new").unwrap();
        },
        old: |d| !d.join("dst").exists(),
        new: |d| content(&d.join("dst/sub/f")) == "new",
    },
    Case {
        args: &["publish", "--copy", "src", "dst"],
        own: &["dst"],
        before: |d| {
            fs::create_dir(d.join("src")).unwrap();
            fs::write(d.join("src/f"), "new").unwrap();
            fs::create_dir(d.join("dst")).unwrap();
            fs::write(d.join("dst/f"), "old").unwrap();
        },
        old: |d| content(&d.join("dst/f")) == "old",
        new: |d| content(&d.join("dst/f")) == "new",
    },
    Case {
        args: &["publish", "src", "dst"],
        own: &["src"],
        before: |d| {
            fs::create_dir(d.join("src")).unwrap();
            fs::write(d.join("src/f"), "new").unwrap();
            fs::create_dir(d.join("dst")).unwrap();
            fs::write(d.join("dst/f"), "old").unwrap();
        },
        old: |d| content(&d.join("dst/f")) == "old",
        new: |d| content(&d.join("dst/f")) == "new",
    },
    Case {
        args: &["rm", "f"],
        own: &["f"],
        before: |d| fs::write(d.join("f"), "old").unwrap(),
        old: |d| content(&d.join("f")) == "old",
        new: |d| !d.join("f").exists(),
    },
];

#[test]
fn a_kill_at_any_call_leaves_old_or_new_and_nothing_after_a_sweep() {
    if !seam("a_kill_at_any_call_leaves_old_or_new_and_nothing_after_a_sweep") {
        return;
    }
    for case in CASES {
        let mut seen = (0, 0);
        for n in 1..=calls(case) {
            let dir = dir();
            let d = dir.path();
            (case.before)(d);
            let before = names(d);
            let ran = planned(d, &format!("stop-before:{n}"), case.args).expect(-1);
            let (old, new) = ((case.old)(d), (case.new)(d));
            assert!(old != new, "{ran:?} stopped at {n}: old {old}, new {new}");
            seen = (seen.0 + u32::from(old), seen.1 + u32::from(new));
            crate::common::run(d, ["sweep", "."]).expect(0);
            let rest = |names: Vec<std::ffi::OsString>| {
                let own = |n: &std::ffi::OsString| case.own.iter().any(|own| n == own);
                names.into_iter().filter(|n| !own(n)).collect::<Vec<_>>()
            };
            assert_eq!(
                rest(names(d)),
                rest(before),
                "{:?} stopped at {n}",
                case.args
            );
        }
        assert!(seen.0 > 0 && seen.1 > 0, "{:?}: {seen:?}", case.args);
    }
}

#[test]
fn a_failed_sync_is_told_from_a_path_that_is_not_there() {
    if !seam("a_failed_sync_is_told_from_a_path_that_is_not_there") {
        return;
    }
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("t")).unwrap();
    fs::write(d.join("t/f"), "").unwrap();
    for path in ["t/f", "t"] {
        let plan = "deny:fsync=EIO;deny:syncfs=EIO";
        let error = planned(d, plan, &["sync", "--json", path])
            .expect(3)
            .error();
        assert_eq!(error["disk_state"], "published", "{error}");
        assert_eq!(error["errno"], "EIO");
        planned(d, plan, &["sync", "--json", "none"]).expect(5);
    }
}

#[test]
fn an_error_at_any_call_has_the_exit_code_of_its_state() {
    if !seam("an_error_at_any_call_has_the_exit_code_of_its_state") {
        return;
    }
    for case in CASES {
        let mut codes = std::collections::BTreeSet::new();
        for n in 1..=calls(case) {
            let dir = dir();
            let d = dir.path();
            (case.before)(d);
            let before = names(d);
            let mut args = case.args.to_vec();
            args.push("--json");
            let ran = planned(d, &format!("fail:{n}=EIO"), &args);
            let (old, new) = ((case.old)(d), (case.new)(d));
            codes.insert(ran.code);
            match ran.code {
                0 => assert!(new, "{args:?} refused at {n}: {ran:?}"),
                1 => {
                    assert!(old, "{args:?} refused at {n}: {ran:?}");
                    assert_eq!(ran.error()["disk_state"], "unchanged");
                    let left = ran.error()["left_behind"].as_array().unwrap().len();
                    let litter = names(d).len() - before.len();
                    assert_eq!(
                        litter,
                        left,
                        "{args:?} refused at {n}: {:?}: {ran:?}",
                        names(d)
                    );
                }
                3 => {
                    assert!(new, "{args:?} refused at {n}: {ran:?}");
                    assert_eq!(ran.error()["disk_state"], "published");
                }
                4 => assert_eq!(ran.error()["disk_state"], "indeterminate"),
                6 => assert!(old, "{args:?} refused at {n}: {ran:?}"),
                other => panic!("exit code {other}: {args:?} refused at {n}: {ran:?}"),
            }
        }
        assert!(
            codes.contains(&1) && codes.contains(&3),
            "{:?}: {codes:?}",
            case.args
        );
    }
}

#[test]
fn a_folder_that_others_published_meanwhile_is_swept_too() {
    const TEST: &str = "a_folder_that_others_published_meanwhile_is_swept_too";
    if !seam(TEST) {
        return;
    }
    let make = |path: std::path::PathBuf, files: u32, text: &str| {
        fs::create_dir(&path).unwrap();
        for n in 0..files {
            fs::write(path.join(format!("{n}")), text).unwrap();
        }
    };
    let first = |d: &Path| content(&d.join("dst/0"));
    let before = |d: &Path| {
        make(d.join("src"), 100, "new");
        make(d.join("dst"), 1, "old");
    };
    let args = ["publish", "--copy", "src", "dst"];
    // The first call that comes after the exchange.
    let published = |n: u32| {
        let dir = dir();
        before(dir.path());
        planned(dir.path(), &format!("stop-before:{n}"), &args);
        first(dir.path()) == "new"
    };
    let (mut low, mut high) = (1, 20 * MANY);
    while low < high {
        let middle = low.midpoint(high);
        if published(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let dir = dir();
    let d = dir.path();
    before(d);
    // In the middle of the copy, and then killed where it is published.
    let plan = format!("arm;pause-before:{};stop-before:{low}", low / 2);
    let child = spawn(steadfast(d).args(args).env("STEADFAST_HOOK", plan));
    assert!(pauses(&child));
    assert_eq!(first(d), "old");
    assert_eq!(names(d).len(), 3, "it copies");
    make(d.join("other"), 1, "other");
    crate::common::run(d, ["publish", "other", "dst"]).expect(0);
    assert_eq!(first(d), "other");
    go_on(&child);
    crate::common::ended(child).expect(-1);
    assert_eq!(first(d), "new");
    crate::common::run(d, ["sweep", "."]).expect(0);
    assert_eq!(names(d), ["dst", "src"]);
}
