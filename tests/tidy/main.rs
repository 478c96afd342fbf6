//! House rules that the compiler does not know, checked on the tree itself.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

mod interface;
mod numbers;

use std::fs;
use std::path::{Path, PathBuf};

/// Longest line of Rust source, in bytes. rustfmt keeps code at 100; this bounds comments and strings too.
const COLUMNS: usize = 110;
/// Longest file of library or command source, in lines: beyond this it has more than one job.
const LINES: usize = 600;
/// The one file that may say `unsafe`.
const UNSAFE_ROOM: &str = "src/sys/raw.rs";

/// Words that say a thing is unfinished. Split, so that this file does not contain them.
const UNFINISHED: [&str; 7] = [
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("db", "g!"),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X:"),
    concat!("#[ign", "ore"),
];
/// First components of paths that exist on one person's machine only.
const PRIVATE: [&str; 5] = ["home", "root", "work", "Users", "farm"];

/// What is wrong with one file, a sentence for each fault.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |line: usize, what: &str| out.push(format!("{path}:{line}: {what}"));
    let rust = path.ends_with(".rs");
    let shell = path.ends_with(".sh") || path == ".ci/run";
    let product = rust && (path.starts_with("src/") || path.contains("/src/"));

    if product && !text.starts_with("//!") {
        say(1, "does not begin by saying what the module is for (`//!`)");
    }
    if product && text.lines().count() > LINES {
        say(LINES + 1, "the file is too long for one job");
    }
    if !text.is_empty() && !text.ends_with('\n') {
        say(text.lines().count(), "the last line has no newline");
    }
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)) {
        if (rust || shell || path.ends_with(".toml")) && !line.is_ascii() {
            say(n, "not ASCII");
        }
        if rust && line.len() > COLUMNS {
            say(n, "the line is too long");
        }
        if rust && path != UNSAFE_ROOM && says_unsafe(line) {
            say(n, "unchecked code outside its one room");
        }
        if line.ends_with([' ', '\t']) {
            say(n, "blanks at the end of the line");
        }
        for word in UNFINISHED {
            if (rust || shell) && line.contains(word) {
                say(n, "says that it is unfinished");
            }
        }
        if names_a_machine(line) {
            say(n, "a path of one machine");
        }
        if path.ends_with(".md") {
            for target in local_links(line) {
                let file = Path::new(path).parent().unwrap_or(Path::new(""));
                if !top().join(file).join(target).exists() {
                    say(n, &format!("links to {target}, which is not there"));
                }
            }
        }
    }
    out
}

/// Whether code on this line has the keyword. Comments and lint names may.
fn says_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == concat!("un", "safe"))
}

/// Whether the line has an absolute path below one of [`PRIVATE`].
fn names_a_machine(line: &str) -> bool {
    PRIVATE.iter().any(|first| {
        let start = format!("/{first}/");
        line.match_indices(&start).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/)".contains(c))
        })
    })
}

/// Targets of Markdown links that are files of this repository.
fn local_links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|target| !target.is_empty() && !target.contains(':'))
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the project, by its path from the top.
fn files() -> Vec<String> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_file() {
                out.push(path);
            } else if kind.is_dir() && !["target", "corpus"].iter().any(|skip| path.ends_with(skip))
            {
                walk(&path, out);
            }
        }
    }
    let mut out = Vec::new();
    for entry in fs::read_dir(top()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            out.push(entry.path());
        }
    }
    let rooms = [
        "src", "tests", "crates", "benches", "examples", "fuzz", "docs", "ci", ".ci", ".github",
    ];
    for room in rooms.map(|room| top().join(room)) {
        if room.is_dir() {
            walk(&room, &mut out);
        }
    }
    let mut names: Vec<_> = out
        .iter()
        .map(|path| {
            path.strip_prefix(top())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .filter(|name| {
            name == ".ci/run"
                || [".rs", ".toml", ".sh", ".md", ".yml"]
                    .iter()
                    .any(|end| name.ends_with(end))
        })
        .collect();
    names.sort();
    names
}

#[test]
fn the_tree_is_tidy() {
    let files = files();
    assert!(files.iter().any(|f| f == "src/lib.rs") && files.iter().any(|f| f == ".ci/run"));
    let faults: Vec<_> = files
        .iter()
        .flat_map(|path| faults(path, &fs::read_to_string(top().join(path)).unwrap()))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn each_rule_finds_its_fault() {
    let long = format!("//! {}\n", "x".repeat(COLUMNS));
    let many = "//! a\n".repeat(LINES + 1);
    let unfinished = format!("//! a\n// {}\n", UNFINISHED[3]);
    let private = format!("see \"/{}/me/x\"\n", PRIVATE[0]);
    let keyword = format!("//! a\nlet a = {} {{ b() }};\n", concat!("un", "safe"));
    let bad: [(&str, &str); 10] = [
        ("src/a.rs", "fn f() {}\n"),
        ("src/a.rs", &long),
        ("crates/x/src/a.rs", &many),
        ("src/a.rs", &keyword),
        ("tests/a.rs", &unfinished),
        ("Cargo.toml", "a = \"\u{e9}\"\n"),
        ("docs/a.md", &private),
        ("docs/a.md", "[a](nowhere.md)\n"),
        ("ci/a.sh", "true \n"),
        ("ci/a.sh", "true"),
    ];
    for (path, text) in bad {
        assert_eq!(faults(path, text).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/a.rs", "//! a\n#![deny(unsafe_code)] // no unsafe\n"),
        (
            "docs/a.md",
            "[a](../Cargo.toml#b) [c](https://example.org) src/root/a target/Users/x\n",
        ),
        (UNSAFE_ROOM, &keyword),
    ];
    for (path, text) in good {
        assert_eq!(faults(path, text), [""; 0]);
    }
}
