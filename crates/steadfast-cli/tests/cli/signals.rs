//! Signals: before the publication they leave the old state and no litter, after it the work is finished.

use crate::common::{
    dir, ended, exchanges, go_on, names, paused, pauses, run, send, spawn, steadfast,
};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

/// The command with every signal at its default: a shell in the background ignores SIGINT, and all that it
/// starts would too.
fn watchful(d: &Path) -> Command {
    let env = ["--default-signal=INT,TERM,HUP"];
    let works = Command::new("env").args(env).arg("true").status();
    if !works.is_ok_and(|s| s.success()) {
        return steadfast(d);
    }
    let mut command = Command::new("env");
    command
        .args(env)
        .arg(env!("CARGO_BIN_EXE_steadfast"))
        .current_dir(d);
    command
}

/// What stops, and the exit code that says so.
const STOPS: [(Signal, i32, &str); 3] = [
    (Signal::INT, 130, "SIGINT"),
    (Signal::TERM, 143, "SIGTERM"),
    (Signal::HUP, 129, "SIGHUP"),
];

/// Waits until something holds, or until the child has ended.
fn until(child: &mut Child, mut holds: impl FnMut() -> bool) {
    while !holds() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
}

/// Feeds more than a pipe holds, so that most of it has been read when this returns.
fn feed(child: &mut Child) {
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&[b'x'; 1 << 20])
        .unwrap();
}

#[test]
fn a_signal_while_stdin_is_read_leaves_the_old_file() {
    let dir = dir();
    let d = dir.path();
    for (signal, code, name) in STOPS {
        for json in [false, true] {
            fs::write(d.join("f"), "old").unwrap();
            let mut command = watchful(d);
            command.args(["write", "f"]).args(json.then_some("--json"));
            let mut child = spawn(&mut command);
            feed(&mut child);
            send(&child, signal);
            // Stdin stays open: the signal alone must end it.
            let stdin = child.stdin.take();
            let ran = ended(child).expect(code);
            drop(stdin);
            if json {
                let error = ran.error();
                assert_eq!(error["signal"], name);
                assert_eq!(error["disk_state"], "unchanged");
            } else {
                assert!(
                    ran.stderr.contains(&format!("interrupted by {name}")),
                    "{ran:?}"
                );
            }
            assert_eq!(fs::read(d.join("f")).unwrap(), b"old");
            assert_eq!(names(d), ["f"]);
        }
    }
}

#[test]
fn a_signal_before_the_first_byte_ends_the_wait() {
    let dir = dir();
    let d = dir.path();
    let mut child = spawn(watchful(d).args(["write", "f"]));
    // Its temporary file shows that it watches for signals by now.
    until(&mut child, || !names(d).is_empty());
    send(&child, Signal::TERM);
    let stdin = child.stdin.take();
    ended(child).expect(143);
    drop(stdin);
    assert_eq!(names(d), [""; 0]);
}

#[test]
fn nohup_is_respected() {
    let dir = dir();
    let d = dir.path();
    let script = format!(
        "trap '' HUP; exec '{}' write f",
        env!("CARGO_BIN_EXE_steadfast")
    );
    let mut child = spawn(Command::new("sh").current_dir(d).args(["-c", &script]));
    feed(&mut child);
    send(&child, Signal::HUP);
    feed(&mut child);
    ended(child).expect(0);
    assert_eq!(fs::metadata(d.join("f")).unwrap().len(), 2 << 20);
}

#[test]
fn a_signal_before_a_path_has_its_turn_is_not_success() {
    const TEST: &str = "a_signal_before_a_path_has_its_turn_is_not_success";
    let dir = dir();
    let d = dir.path();
    let all: Vec<_> = (0..200).map(|n| format!("{n}")).collect();
    for name in &all {
        fs::write(d.join(name), "").unwrap();
    }
    let mut command = watchful(d);
    // Each takes a call at least.
    let Some(child) = paused(TEST, command.args(["rm", "--json"]).args(&all), &[150]) else {
        return;
    };
    assert!(names(d).len() < all.len());
    send(&child, Signal::TERM);
    go_on(&child);
    let error = ended(child).expect(4).error();
    let left = names(d).len();
    assert!(left > 0);
    assert_eq!(error["done"].as_array().unwrap().len(), all.len() - left);
    assert_eq!(error["signal"], "SIGTERM");
}

#[test]
fn the_limit_of_file_size_is_an_error_and_not_the_end() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("f"), "old").unwrap();
    let binary = env!("CARGO_BIN_EXE_steadfast");
    let script = format!("ulimit -f 64; exec '{binary}' write --json f");
    let mut child = spawn(Command::new("sh").current_dir(d).args(["-c", &script]));
    // It stops reading where the limit is.
    let _ = child.stdin.take().unwrap().write_all(&[b'x'; 1 << 20]);
    let error = ended(child).expect(1).error();
    assert_eq!(
        (&error["errno"], &error["disk_state"]),
        (&"EFBIG".into(), &"unchanged".into())
    );
    assert_eq!(fs::read(d.join("f")).unwrap(), b"old");
    assert_eq!(names(d), ["f"]);
}

/// A tree that takes a while to copy.
fn tree(top: &Path, files: u32) {
    for n in 0..files {
        let sub = top.join(format!("{}", n % 37));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("{n}")), format!("{n}")).unwrap();
    }
}

#[test]
fn a_signal_during_a_long_copy_leaves_nothing() {
    const TEST: &str = "a_signal_during_a_long_copy_leaves_nothing";
    let dir = dir();
    let d = dir.path();
    tree(&d.join("src"), 200);
    let verbs: [&[&str]; 2] = [
        &["cp", "-r", "src", "dst"],
        &["publish", "--copy", "src", "dst"],
    ];
    for verb in verbs {
        for at in [150, 300] {
            let Some(child) = paused(TEST, watchful(d).args(verb), &[at]) else {
                return;
            };
            assert_eq!(names(d).len(), 2, "it copies");
            send(&child, Signal::TERM);
            go_on(&child);
            let ran = ended(child).expect(143);
            assert_eq!(names(d), ["src"], "{ran:?}");
        }
    }
}

/// A folder that takes a while to remove, and one to take its place.
fn two(d: &Path) {
    tree(&d.join("dst"), 200);
    fs::create_dir(d.join("src")).unwrap();
    fs::write(d.join("src/new"), "new").unwrap();
}

/// After the exchange, which is one of the first calls of [`two`]'s publication, and before the last.
const TIDYING: [u32; 2] = [150, 160];

#[test]
fn a_signal_after_the_publication_does_not_stop_the_tidying() {
    const TEST: &str = "a_signal_after_the_publication_does_not_stop_the_tidying";
    let dir = dir();
    let d = dir.path();
    if !exchanges(d) {
        crate::common::skipped(TEST, "no exchange here");
        return;
    }
    two(d);
    let mut command = watchful(d);
    let Some(child) = paused(TEST, command.args(["publish", "src", "dst"]), &TIDYING[..1]) else {
        return;
    };
    assert!(d.join("dst/new").exists());
    assert_eq!(names(d).len(), 2, "the old folder is not gone yet");
    send(&child, Signal::TERM);
    go_on(&child);
    ended(child).expect(0);
    assert_eq!(names(d), ["dst"]);
    assert_eq!(names(&d.join("dst")), ["new"]);
}

#[test]
fn a_second_interrupt_ends_it_and_does_not_claim_that_nothing_changed() {
    const TEST: &str = "a_second_interrupt_ends_it_and_does_not_claim_that_nothing_changed";
    let dir = dir();
    let d = dir.path();
    if !exchanges(d) {
        crate::common::skipped(TEST, "no exchange here");
        return;
    }
    two(d);
    let mut command = watchful(d);
    let Some(child) = paused(TEST, command.args(["publish", "src", "dst"]), &TIDYING) else {
        return;
    };
    // The first was taken when it pauses again.
    for pause in 0..2 {
        assert!(pause == 0 || pauses(&child));
        assert!(d.join("dst/new").exists());
        send(&child, Signal::INT);
        go_on(&child);
    }
    ended(child).expect(4);
    assert_eq!(names(&d.join("dst")), ["new"]);
    run(d, ["sweep", "."]).expect(0);
    assert_eq!(names(d), ["dst"]);
}

#[test]
fn a_signal_stops_the_removal_of_a_tree_and_it_says_so() {
    const TEST: &str = "a_signal_stops_the_removal_of_a_tree_and_it_says_so";
    let dir = dir();
    let d = dir.path();
    tree(&d.join("t"), 200);
    let before = names(&d.join("t")).len();
    let mut command = watchful(d);
    let Some(child) = paused(TEST, command.args(["rm", "-r", "--json", "t"]), &[150]) else {
        return;
    };
    assert!(names(&d.join("t")).len() < before, "it removes");
    send(&child, Signal::INT);
    go_on(&child);
    let error = ended(child).expect(4).error();
    assert_eq!(error["kind"], "cancelled");
    assert_eq!(error["disk_state"], "indeterminate");
    assert!(!names(d).is_empty());
}
