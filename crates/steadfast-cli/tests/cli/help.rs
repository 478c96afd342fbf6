//! What the command says about itself: help, usage errors, completions, manual pages.

use crate::common::{dir, names, ran, run, steadfast};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

const COMMANDS: [&str; 21] = [
    "write",
    "swap",
    "publish",
    "rm",
    "cp",
    "sync",
    "sweep",
    "lookup",
    "apply",
    "run",
    "status",
    "log",
    "explain",
    "recover",
    "abandon",
    "repair",
    "prune",
    "resolve-conflict",
    "doctor",
    "completions",
    "man",
];

fn here() -> &'static Path {
    Path::new(".")
}

#[test]
fn every_help_fits_in_80_columns_and_lists_the_exit_codes() {
    let mut all = vec![vec!["--help"], vec!["-h"]];
    for command in COMMANDS {
        all.push(vec![command, "--help"]);
        all.push(vec![command, "-h"]);
    }
    for args in all {
        let help = run(here(), &args).expect(0);
        assert_eq!(help.stderr, "");
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
        let codes = args == ["-h"] || args.ends_with(&["--help"]);
        for line in [
            "\n  3    the new state is visible,",
            "\n  143  interrupted by SIGTERM",
        ] {
            assert_eq!(help.stdout.contains(line), codes, "{args:?}");
        }
        assert!(help.stdout.contains("\nUsage: steadfast"), "{args:?}");
    }
}

#[test]
fn the_main_help_names_every_command() {
    let help = run(here(), ["-h"]).expect(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
    }
    let listed = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .count();
    assert_eq!(listed, COMMANDS.len() + 1, "they and `help`");
}

#[test]
fn the_version_is_that_of_the_package() {
    let want = format!("steadfast {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(here(), ["--version"]).expect(0).stdout, want);
}

#[test]
fn a_wrong_command_line_is_2_in_text_and_json() {
    let wrong: &[&[&str]] = &[
        &["write"],
        &["nonsense"],
        &["swap", "a"],
        &["write", "--create-new", "--replace-only", "f"],
        &["write", "--mode", "999", "f"],
        &["write", "--if-unchanged", "abc", "f"],
        &["lookup", "a"],
        &["publish", "--no-replace", "--keep-old", "o", "s", "d"],
        &["publish", "--journal", ".", "--copy", "s", "d"],
        &["publish", "--journal", ".", "--parents", "s", "d"],
        &["publish", "--journal", ".", "--symlink", "follow", "s", "d"],
        &["swap", "--journal", ".", "--root", ".", "a", "b"],
        &["swap", "--journal", ".", "--durability", "none", "a", "b"],
        &["rm"],
        &["-q", "-v", "sync", "."],
        &["completions", "no-such-shell"],
        &["man", "no-such-command"],
    ];
    let dir = dir();
    for args in wrong {
        let text = run(dir.path(), *args).expect(2);
        assert_eq!(text.stdout, "");
        assert!(!text.stderr.is_empty());
        let json = run(dir.path(), args.iter().chain(&["--json"])).expect(2);
        let error = json.error();
        assert_eq!(error["kind"], "usage", "{args:?}");
        assert_eq!(error["disk_state"], "unchanged");
        let sentence = error["error"].as_str().unwrap();
        assert!(
            !sentence.is_empty() && !sentence.contains('\n'),
            "{args:?}: {sentence}"
        );
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn json_after_two_dashes_is_an_operand() {
    let text = run(here(), ["swap", "--", "--json"]).expect(2);
    assert!(text.stderr.starts_with("error: "), "{text:?}");
}

#[test]
fn colours_are_for_terminals_or_on_request() {
    let plain = run(here(), ["--help"]).expect(0).stdout;
    assert!(!plain.contains('\x1b'));
    let colored = run(here(), ["--color", "always", "--help"])
        .expect(0)
        .stdout;
    assert!(colored.contains('\x1b'));
    let dir = dir();
    let args = ["rm", "nothing-here"];
    let plain = run(dir.path(), args).expect(5).stderr;
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let colored = run(dir.path(), args.iter().chain(&["--color=always"])).expect(5);
    assert!(colored.stderr.contains('\x1b'), "{colored:?}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(here(), ["completions", shell]).expect(0);
        for command in COMMANDS {
            assert!(script.stdout.contains(command), "{shell}: {command}");
        }
        let json = run(here(), ["--json", "completions", shell])
            .expect(0)
            .json();
        assert_eq!(json["script"], script.stdout);
    }
}

#[test]
fn shells_accept_their_completions() {
    for (shell, flag) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        if Command::new(shell).arg("--version").output().is_err() {
            crate::common::skipped(
                "shells_accept_their_completions",
                format_args!("no {shell} here"),
            );
            continue;
        }
        let dir = dir();
        let path = dir.path().join("script");
        std::fs::write(&path, run(here(), ["completions", shell]).expect(0).stdout).unwrap();
        let checked = Command::new(shell).arg(flag).arg(&path).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn manual_pages_are_written_and_render() {
    let dir = dir();
    let args = [
        OsStr::new("man"),
        "--json".as_ref(),
        "--dir".as_ref(),
        dir.path().as_ref(),
    ];
    let json = run(here(), args).expect(0).json();
    assert_eq!(json["pages"].as_array().unwrap().len(), COMMANDS.len() + 1);
    let files = names(dir.path());
    assert_eq!(files.len(), COMMANDS.len() + 1, "{files:?}");
    for command in COMMANDS {
        let file = dir.path().join(format!("steadfast-{command}.1"));
        let page = std::fs::read_to_string(&file).unwrap();
        assert_eq!(run(here(), ["man", command]).expect(0).stdout, page);
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "SEE ALSO",
        ] {
            let plain = page.contains(&format!(".SH {section}\n"));
            assert!(
                plain || page.contains(&format!(".SH \"{section}\"\n")),
                "{section}: {page}"
            );
        }
        render(&file, command);
    }
    let main = std::fs::read_to_string(dir.path().join("steadfast.1")).unwrap();
    assert_eq!(run(here(), ["man"]).expect(0).stdout, main);
    let error = run(here(), ["rm", "--json", "none", "none"])
        .expect(5)
        .error();
    for field in error.as_object().unwrap().keys() {
        assert!(
            main.contains(&format!("\\fB{field}\\fR\n")),
            "{field} is documented"
        );
    }
}

/// Formats a page as a reader would see it, and wants no warning about it.
fn render(file: &Path, command: &str) {
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-rLL=78n", "-P-c"])
        .arg(file)
        .output();
    let Ok(output) = groff else {
        crate::common::skipped(
            "rendering in manual_pages_are_written_and_render",
            "no groff here",
        );
        return;
    };
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{command}");
    let page = String::from_utf8(output.stdout).unwrap();
    // Bold is a letter over itself.
    let mut plain = String::new();
    for c in page.chars() {
        if c == '\u{8}' {
            plain.pop();
        } else {
            plain.push(c);
        }
    }
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = format!(" NAME steadfast-{command} - ");
    for part in [&name, " 143 interrupted by SIGTERM"] {
        assert!(words.contains(part), "{part:?}: {plain}");
    }
}

#[test]
fn a_closed_stdout_is_nobodys_error() {
    for args in [&["completions", "bash"][..], &["--help"], &["man"]] {
        let mut child = steadfast(here())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ran = ran(&child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stderr, "", "{args:?}");
    }
}

#[test]
fn a_change_is_made_whatever_becomes_of_its_report() {
    let dir = dir();
    let d = dir.path();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for json in [None, Some("--json")] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let nobody = Stdio::from(std::os::fd::OwnedFd::from(writer));
        for stdout in [nobody, full().into()] {
            std::fs::write(d.join("f"), "").unwrap();
            let mut command = steadfast(d);
            command.args(["rm", "-v", "f"]).args(json).stdout(stdout);
            ran(&command.output().unwrap()).expect(0);
            assert_eq!(names(d), [""; 0]);
        }
    }
    let mut command = steadfast(d);
    command.args(["rm", "none"]).stderr(full());
    ran(&command.output().unwrap()).expect(5);
}

#[test]
fn a_full_stdout_is_an_error_of_an_answer() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = steadfast(here())
        .args(["completions", "bash"])
        .stdout(full)
        .output()
        .unwrap();
    let ran = ran(&output).expect(1);
    assert!(ran.stderr.contains("No space left"), "{ran:?}");
}
