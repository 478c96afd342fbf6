//! What the command says, as a whole: a session with every subcommand, in text and in JSON, next to the words
//! that it had when somebody last read them.
//!
//! After a change on purpose run the test with `GOLDEN=write`, and read the difference.

use crate::common::{dir, run_with, skipped};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// The session: what is on stdin, and the words of the command line.
const SESSION: &[(&str, &str)] = &[
    ("hello\n", "write greeting -v"),
    ("hello again\n", "write greeting --json"),
    ("", "write greeting --create-new"),
    ("", "write greeting --create-new --json"),
    ("", "write none --replace-only"),
    ("", "write greeting --expect-len 5"),
    ("", "write no/such/folder"),
    ("deep\n", "write no/such/folder --parents --mode 600 -v"),
    ("", "write no"),
    ("", "write --root no ../greeting"),
    ("", "write --root no ../greeting --json"),
    ("", "swap greeting no -v"),
    ("", "swap greeting no --json"),
    ("", "swap greeting nothing"),
    ("", "cp greeting copy -v"),
    ("", "cp no copies"),
    ("", "cp -r no copies -v"),
    ("", "cp -r no copies"),
    ("", "cp -r no more --json"),
    ("", "publish copies site -v"),
    ("", "publish more site --keep-old before --json"),
    ("", "publish --copy before site -v"),
    ("", "publish before site --no-replace"),
    ("", "publish nothing site"),
    ("", "publish copy site"),
    ("", "rm copy -v"),
    ("", "rm copy"),
    ("", "rm before site"),
    ("", "rm -r before -v"),
    ("", "rm / --json"),
    ("", "sync . -v"),
    ("", "sync site greeting --json"),
    ("", "sync nowhere"),
    ("", "sweep . -v"),
    ("", "sweep . --json"),
    ("", "sweep greeting"),
    ("", "lookup --root . greeting"),
    ("", "lookup --root . greeting --json"),
    ("", "lookup --root site ../greeting"),
    ("", "status"),
    ("", "status --json"),
    (
        "",
        "run --root . --protect site -- sh -c 'rm -r site; exit 3'",
    ),
    (
        "",
        "run --root . --protect site --quiet -- sh -c 'rm -r site; exit 3'",
    ),
    (
        "",
        "run --root . --protect site -v -- sh -c 'echo 1 >site/one'",
    ),
    ("", "run --root . --protect site --json -- true"),
    ("", "run --root . --protect site -- ./nothing"),
    ("", "run --root . --protect ../site -- true"),
    ("", "apply --root . broken.toml"),
    ("", "apply --root . broken.toml --json"),
    ("", "apply --root . release.toml --dry-run"),
    ("", "apply --root . release.toml -v"),
    ("", "apply --root . release.toml"),
    ("", "apply --root . release.toml --json"),
    ("", "status"),
    ("", "status --json"),
    ("", "log"),
    ("", "log --json"),
    ("", "explain 1000"),
    ("", "explain 1000 --json"),
    ("", "recover -v"),
    ("", "recover --json"),
    ("", "abandon 1000"),
    ("", "repair"),
    ("", "repair --json"),
    ("", "prune -v"),
    ("", "prune --json"),
    ("", "resolve-conflict 1-1 --theirs"),
    ("", "doctor nowhere"),
    ("", "nonsense"),
    ("", "nonsense --json"),
    ("", "swap one"),
];

const RELEASE: &str = r#"
format = 1
label = "release 1"

[[conditions]]
path = "release"
expect = "absent"

[[operations]]
op = "create_dir"
path = "release"

[[operations]]
op = "write"
path = "release/one"
content = "1\n"

[[operations]]
op = "rename"
path = "greeting"
to = "release/greeting"
"#;

/// The words of a command line; those between quotes are one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, part) in line.split('\'').enumerate() {
        if n % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// What is another number on each machine or in each run.
const VARYING: [&str; 9] = [
    "device",
    "device_major",
    "device_minor",
    "inode",
    "id",
    "number",
    "last_number",
    "horizon",
    "time",
];

fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if VARYING.contains(&name.as_str()) && !value.is_null() {
                    *value = "*".into();
                } else {
                    forget(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(forget),
        _ => {}
    }
}

/// A line without what varies. JSON gets a line for each field.
fn settled(line: &str) -> String {
    if let Ok(mut value) = serde_json::from_str::<Value>(line)
        && value.is_object()
    {
        forget(&mut value);
        return serde_json::to_string_pretty(&value).unwrap();
    }
    let mut out = Vec::new();
    let (mut before, mut first) = ("", "");
    for (n, word) in line.split(' ').enumerate() {
        let bare = word.trim_end_matches([',', ':']);
        let number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit() || b == b':');
        let hex = bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        let varies = before == "transaction" || ["device", "inode"].contains(&first);
        if hex || (number && varies) {
            out.push(word.replace(bare, "*"));
        } else {
            out.push(word.to_owned());
        }
        if n == 0 {
            first = word;
        }
        before = word;
    }
    out.join(" ")
}

fn session(d: &Path) -> String {
    std::fs::write(d.join("release.toml"), RELEASE).unwrap();
    std::fs::write(
        d.join("broken.toml"),
        "format = 1\n\n[[operations]]\nop = \"wrte\"\n",
    )
    .unwrap();
    let mut out = String::new();
    for (stdin, line) in SESSION {
        let ran = run_with(d, words(line), stdin.as_bytes());
        writeln!(out, "$ steadfast {line}").unwrap();
        for line in ran.stdout.lines().chain(ran.stderr.lines()) {
            let line = settled(line);
            writeln!(out, "{}", line.trim_end()).unwrap();
        }
        writeln!(out, "[{}]\n", ran.code).unwrap();
    }
    out
}

#[test]
fn a_session_is_as_it_was_read() {
    if std::env::var_os("STEADFAST_HOOK").is_some_and(|plan| !plan.is_empty()) {
        skipped(
            "a_session_is_as_it_was_read",
            "a feature is switched off, and some answers are others",
        );
        return;
    }
    let dir = dir();
    let found = session(dir.path());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden.txt");
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&file, &found).unwrap();
        return;
    }
    let wanted = include_str!("golden.txt");
    // Step by step, so that a failure shows the one that is another.
    let steps = |text: &str| text.split("\n$ ").map(str::to_owned).collect::<Vec<_>>();
    for (found, wanted) in steps(&found).iter().zip(steps(wanted)) {
        assert_eq!(*found, wanted, "GOLDEN=write takes it over");
    }
    assert_eq!(found, wanted);
}
