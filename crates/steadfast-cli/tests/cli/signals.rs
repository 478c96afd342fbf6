//! Signals: before the publication they leave the old state and no litter, after it the work is finished.

use crate::common::{dir, ended, exchanges, names, run, spawn, steadfast};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

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
    let dir = dir();
    let d = dir.path();
    let mut stopped = false;
    for _ in 0..50 {
        let all: Vec<_> = (0..1000).map(|n| format!("{n}")).collect();
        for name in &all {
            fs::write(d.join(name), "").unwrap();
        }
        let mut child = spawn(watchful(d).args(["rm", "--json"]).args(&all));
        until(&mut child, || names(d).len() < all.len());
        send(&child, Signal::TERM);
        let ran = ended(child);
        let left = names(d).len();
        if left > 0 {
            let error = ran.expect(4).error();
            assert_eq!(error["done"].as_array().unwrap().len(), all.len() - left);
            assert_eq!(error["signal"], "SIGTERM");
            stopped = true;
            break;
        }
        ran.expect(0);
    }
    assert!(stopped, "it was never stopped");
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
    let dir = dir();
    let d = dir.path();
    tree(&d.join("src"), 2000);
    let verbs: [&[&str]; 2] = [
        &["cp", "-r", "src", "dst"],
        &["publish", "--copy", "src", "dst"],
    ];
    for verb in verbs {
        let mut stopped = 0;
        // The copy may be done before the signal comes, on a busy machine; not every time.
        for _ in 0..20 {
            let mut child = spawn(watchful(d).args(verb));
            until(&mut child, || names(d).len() > 1);
            send(&child, Signal::TERM);
            let ran = ended(child);
            if ran.code == 143 {
                assert_eq!(names(d), ["src"], "{ran:?}");
                stopped += 1;
                if stopped == 2 {
                    break;
                }
            } else {
                ran.expect(0);
                run(d, ["rm", "-r", "--durability", "none", "dst"]).expect(0);
            }
        }
        assert!(stopped > 0, "{verb:?} was never stopped");
    }
}

#[test]
fn a_signal_after_the_publication_does_not_stop_the_tidying() {
    let dir = dir();
    let d = dir.path();
    if !exchanges(d) {
        crate::common::skipped(
            "a_signal_after_the_publication_does_not_stop_the_tidying",
            "no exchange here",
        );
        return;
    }
    tree(&d.join("dst"), 1500);
    fs::create_dir(d.join("src")).unwrap();
    fs::write(d.join("src/new"), "new").unwrap();
    let mut child = spawn(watchful(d).args(["publish", "src", "dst"]));
    until(&mut child, || d.join("dst/new").exists());
    // It may be gone already, and then nothing is to be stopped.
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    ended(child).expect(0);
    assert_eq!(names(d), ["dst"]);
    assert_eq!(names(&d.join("dst")), ["new"]);
}

#[test]
fn a_second_interrupt_ends_it_and_does_not_claim_that_nothing_changed() {
    let dir = dir();
    let d = dir.path();
    if !exchanges(d) {
        crate::common::skipped(
            "a_second_interrupt_ends_it_and_does_not_claim_that_nothing_changed",
            "no exchange here",
        );
        return;
    }
    let mut ended_early = false;
    for _ in 0..20 {
        tree(&d.join("dst"), 1500);
        fs::create_dir(d.join("src")).unwrap();
        fs::write(d.join("src/new"), "new").unwrap();
        let mut child = spawn(watchful(d).args(["publish", "src", "dst"]));
        until(&mut child, || d.join("dst/new").exists());
        for _ in 0..2 {
            // It may be gone already.
            let _ = kill_process(Pid::from_child(&child), Signal::INT);
            sleep(Duration::from_millis(1));
        }
        let ran = ended(child);
        assert!(d.join("dst/new").exists());
        run(
            d,
            [
                "rm",
                "-r",
                "--missing-ok",
                "--durability",
                "none",
                "src",
                "dst",
            ],
        )
        .expect(0);
        if ran.code != 0 {
            ran.expect(4);
            ended_early = true;
            break;
        }
    }
    assert!(ended_early, "it was never ended early");
}

#[test]
fn a_signal_stops_the_removal_of_a_tree_and_it_says_so() {
    let dir = dir();
    let d = dir.path();
    let mut stopped = false;
    for _ in 0..20 {
        tree(&d.join("t"), 1500);
        let before = names(&d.join("t")).len();
        let mut command = watchful(d);
        let mut child = spawn(
            command
                .args(["rm", "-r", "--json", "t"])
                .stdin(Stdio::null()),
        );
        until(&mut child, || {
            fs::read_dir(d.join("t")).map_or(0, Iterator::count) < before
        });
        send(&child, Signal::INT);
        let ran = ended(child);
        if ran.code != 0 {
            let error = ran.expect(4).error();
            assert_eq!(error["kind"], "cancelled");
            assert_eq!(error["disk_state"], "indeterminate");
            stopped = true;
            break;
        }
        assert_eq!(names(d), [""; 0]);
    }
    assert!(stopped, "it was never stopped");
}
