//! `run`: a command whose changes are kept or taken back.

use crate::common::{dir, ended, names, run, skipped, spawn, steadfast};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

/// `run --protect f --protect d -- sh -c SCRIPT`.
fn script(script: &str) -> [&str; 9] {
    [
        "run",
        "--protect",
        "f",
        "--protect",
        "d",
        "--",
        "sh",
        "-c",
        script,
    ]
}

/// A file and a folder to protect.
fn prepare(d: &Path) {
    fs::write(d.join("f"), "old").unwrap();
    fs::set_permissions(d.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(d.join("d")).unwrap();
    fs::write(d.join("d/in"), "old").unwrap();
    symlink("in", d.join("d/link")).unwrap();
}

/// What is there, as one line for each name.
fn picture(d: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for path in [d.join("f"), d.join("d")] {
        look(d, &path, &mut out);
    }
    out
}

fn look(top: &Path, path: &Path, out: &mut Vec<String>) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    let name = path.strip_prefix(top).unwrap().display();
    let (mode, time) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
    let what = if meta.is_dir() {
        String::new()
    } else if meta.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else {
        fs::read_to_string(path).unwrap()
    };
    out.push(format!("{name} {mode:o} {time:?} {what}"));
    if meta.is_dir() {
        for inner in names(path) {
            look(top, &path.join(inner), out);
        }
    }
}

/// Changes of every kind to what is protected.
const HAVOC: &str = "echo more >> f; chmod 600 f; echo other > d/new; rm d/in; ln -sf nowhere d/link; \
    mkdir d/sub; mv f d/sub/f; echo fresh > f";

#[test]
fn what_a_command_does_is_kept_if_it_succeeds() {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    let ran = run(d, script(&format!("{HAVOC}; echo said; echo warned >&2"))).expect(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("said\n", "warned\n")
    );
    assert_eq!(fs::read_to_string(d.join("f")).unwrap(), "fresh\n");
    assert_eq!(names(&d.join("d")), ["link", "new", "sub"]);
}

#[test]
fn what_it_does_is_put_back_if_it_fails_and_its_code_is_passed_on() {
    for (end, code) in [
        ("exit 1", 1),
        ("exit 42", 42),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let dir = dir();
        let d = dir.path();
        prepare(d);
        let before = picture(d);
        run(d, script(&format!("{HAVOC}; {end}"))).expect(code);
        assert_eq!(picture(d), before, "{end}");
    }
}

#[test]
fn it_has_the_terminal_and_the_place_of_its_parent() {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    let args = script("cat > f; pwd; echo $0-$#");
    let ran = crate::common::run_with(d, args, b"from stdin").expect(0);
    assert_eq!(fs::read_to_string(d.join("f")).unwrap(), "from stdin");
    let here = fs::canonicalize(d).unwrap();
    assert_eq!(ran.stdout, format!("{}\nsh-0\n", here.display()));
    // Words are passed as they are.
    let ran = run(
        d,
        [
            "run",
            "--protect",
            "f",
            "--",
            "printf",
            "%s|",
            "--json",
            "-v",
            "",
        ],
    )
    .expect(0);
    assert_eq!(ran.stdout, "--json|-v||");
}

#[test]
fn its_own_failures_have_codes_of_their_own() {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    fs::write(d.join("text"), "").unwrap();
    let before = picture(d);
    let cases: [(&[&str], i32, &str); 6] = [
        (&["run", "--", "true"], 125, "--protect"),
        (&["run", "--protect", "f"], 125, "COMMAND"),
        (&["run", "--protect", "../f", "--", "true"], 125, "root"),
        (
            &["run", "--root", "none", "--protect", "f", "--", "true"],
            125,
            "none",
        ),
        (
            // Not by PATH, of which not everybody may search everything.
            &["run", "--protect", "f", "--", "./no-such-command"],
            127,
            "no-such-command",
        ),
        (&["run", "--protect", "f", "--", "./text"], 126, "./text"),
    ];
    for (args, code, word) in cases {
        let ran = run(d, args).expect(code);
        assert!(ran.stderr.contains(word), "{ran:?}");
        assert_eq!(ran.stdout, "");
        assert_eq!(picture(d), before);
    }
}

/// Starts a command that changes what is protected, does something first, says "ready", and goes on.
fn started(d: &Path, first: &str, then: &str) -> Child {
    prepare(d);
    let text = format!("echo changed > f; {first}; touch ready; {then}");
    let mut child = spawn(steadfast(d).args(script(&text)));
    while !d.join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(2));
    }
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn content(d: &Path) -> String {
    fs::read_to_string(d.join("f")).unwrap()
}

#[test]
fn a_signal_is_passed_on_waited_for_and_then_all_is_put_back() {
    let ends = [
        (Signal::INT, "INT", 130),
        (Signal::TERM, "TERM", 143),
        (Signal::HUP, "HUP", 129),
        (Signal::QUIT, "QUIT", 131),
    ];
    for (signal, name, code) in ends {
        // It dies of it.
        let dir = dir();
        let d = dir.path();
        let child = started(d, ":", "exec sleep 100");
        send(&child, signal);
        ended(child).expect(code);
        assert_eq!(content(d), "old", "{signal:?}");
        // It has something to do first.
        let dir = crate::common::dir();
        let d = dir.path();
        let trap = format!("trap 'sleep 0.2; echo late >> f; touch trapped; exit 7' {name}");
        let child = started(d, &trap, "while :; do sleep 0.01; done");
        send(&child, signal);
        ended(child).expect(7);
        assert!(d.join("trapped").exists());
        assert_eq!(content(d), "old", "{signal:?}");
        // It takes no notice and succeeds: whoever sent the signal did not want it to.
        let dir = crate::common::dir();
        let d = dir.path();
        let trap = format!("trap 'touch noticed' {name}");
        let then = "while [ ! -e noticed ]; do sleep 0.01; done; exit 0";
        let child = started(d, &trap, then);
        send(&child, signal);
        ended(child).expect(code);
        assert_eq!(content(d), "old", "{signal:?}");
    }
}

#[test]
fn a_key_of_the_terminal_reaches_the_command_once_and_it_decides() {
    let test = "a_key_of_the_terminal_reaches_the_command_once_and_it_decides";
    let works = std::process::Command::new("script")
        .arg("--version")
        .output();
    if !works.is_ok_and(|o| o.status.success()) {
        skipped(test, "no script(1) here");
        return;
    }
    let dir = dir();
    let d = dir.path();
    prepare(d);
    fs::write(
        d.join("job"),
        "trap 'echo x >> seen' INT; echo new > f; touch ready; \
         while [ ! -e seen ]; do sleep 0.01; done; n=0; \
         while [ $n -lt 20 ]; do sleep 0.01; n=$((n+1)); done; exit 0",
    )
    .unwrap();
    let binary = env!("CARGO_BIN_EXE_steadfast");
    // script(1) gives it to a shell, which would take the key for itself if it stayed in between.
    let line = format!("exec '{binary}' run --protect f -- sh job");
    let mut script = std::process::Command::new("script");
    script.current_dir(d).env("SHELL", "/bin/sh");
    script.args(["-qec", &line, "/dev/null"]);
    let mut child = spawn(&mut script);
    while !d.join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        sleep(Duration::from_millis(2));
    }
    use std::io::Write;
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    ended(child).expect(0);
    assert_eq!(fs::read_to_string(d.join("seen")).unwrap(), "x\n");
    assert_eq!(content(d), "new\n");
}

#[test]
fn killed_itself_it_takes_the_command_along_and_the_next_puts_back() {
    let dir = dir();
    let d = dir.path();
    let child = started(d, "echo $$ > pid", "exec sleep 100");
    let pid: i32 = fs::read_to_string(d.join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    send(&child, Signal::KILL);
    // Its pipes close when the command is gone too.
    assert_eq!(ended(child).code, -1);
    let gone = || rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
    while !gone() {
        sleep(Duration::from_millis(2));
    }
    // A dry run leaves that alone, and says so.
    fs::write(
        d.join("more.toml"),
        "[[operations]]\nop = 'create_dir'\npath = 'more'",
    )
    .unwrap();
    let planned = run(d, ["apply", "--dry-run", "more.toml"]).expect(0);
    assert!(planned.stdout.contains("create more"), "{planned:?}");
    assert!(planned.stderr.contains("steadfast status"), "{planned:?}");
    assert_eq!(content(d), "changed\n");
    let text = run(d, ["recover"]).expect(0).stdout;
    assert!(text.starts_with("took back section "), "{text}");
    assert_eq!(content(d), "old");
    let planned = run(d, ["apply", "--dry-run", "more.toml"]).expect(0);
    assert_eq!(planned.stderr, "");
}

#[test]
fn what_the_command_started_is_waited_for_when_both_are_killed() {
    let dir = dir();
    let d = dir.path();
    // A process that nobody tells, with its own output, so that the pipes of the test close.
    let late = "{ while [ ! -e go ]; do sleep 0.01; done; echo late > f; } \
        >/dev/null 2>&1 </dev/null & :";
    let mut child = started(d, late, "exec sleep 100");
    send(&child, Signal::KILL);
    child.wait().unwrap();
    // It still works there: nothing is put back beneath it.
    run(d, ["recover", "--wait", "0.1"]);
    assert_eq!(content(d), "changed\n");
    fs::write(d.join("go"), "").unwrap();
    let mut tries = 0;
    while content(d) != "old" {
        run(d, ["recover"]);
        tries += 1;
        assert!(tries < 1000, "it is never put back");
    }
}

#[test]
fn two_do_not_work_on_one_path_at_once() {
    let dir = dir();
    let d = dir.path();
    let child = started(
        d,
        ":",
        "while [ ! -e go ]; do sleep 0.01; done; echo first > f",
    );
    let second = [
        "run",
        "--protect",
        "f",
        "--wait",
        "0.05",
        "--json",
        "--",
        "true",
    ];
    let ran = run(d, second).expect(125);
    let error: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!(
        (&error["kind"], &error["disk_state"]),
        (&"busy".into(), &"unchanged".into())
    );
    fs::write(d.join("go"), "").unwrap();
    ended(child).expect(0);
    assert_eq!(content(d), "first\n");
    run(d, second).expect(0);
}
