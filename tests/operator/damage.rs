//! A log with 50 transactions, with each bit flipped and cut at each length: what was committed before the
//! damage is kept, the damage is told with its offset, and repair says what it gives up.

use crate::common::Random;
use crate::support::{content, dir, long, open, rebooted, root, run, segments, step};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use steadfast::ErrorKind;
use steadfast::workspace::{records, repair, status};

const NUMBER: u64 = 50;

/// A workspace as a power cut leaves it that takes every name that was not synced: the log is all there is.
struct Cut {
    tmp: tempfile::TempDir,
    segments: BTreeMap<PathBuf, Vec<u8>>,
    ledger: Vec<u8>,
    format: Vec<u8>,
}

/// What is done to one segment.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip(usize),
    Cut(usize),
}

impl Cut {
    fn new() -> Self {
        let tmp = dir();
        assert!(!run("many", tmp.path(), ""));
        let read = |name: &str| fs::read(tmp.path().join(".steadfast").join(name)).unwrap();
        let all = segments(tmp.path()).into_iter();
        Self {
            segments: all.map(|p| (p.clone(), fs::read(p).unwrap())).collect(),
            ledger: read("ledger"),
            format: read("format"),
            tmp,
        }
    }

    /// All as it was, with this one thing harmed.
    fn harmed(&self, segment: &Path, harm: Harm) {
        let top = self.tmp.path();
        let state = top.join(".steadfast");
        for n in 1..=NUMBER {
            let _ = fs::remove_file(top.join(format!("f{n}")));
        }
        for folder in [
            "logs",
            "staged",
            "kept",
            "retired",
            "conflicts",
            "abandoned",
        ] {
            let Ok(entries) = fs::read_dir(state.join(folder)) else {
                continue;
            };
            for entry in entries.map(Result::unwrap) {
                if folder != "logs" {
                    fs::remove_file(entry.path()).unwrap();
                    continue;
                }
                for file in fs::read_dir(entry.path()).unwrap().map(Result::unwrap) {
                    if file.file_name() != "lock" {
                        fs::remove_file(file.path()).unwrap();
                    }
                }
            }
        }
        for (path, bytes) in &self.segments {
            let mut bytes = bytes.clone();
            if path == segment {
                match harm {
                    Harm::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
                    Harm::Cut(len) => bytes.truncate(len),
                }
            }
            fs::write(path, bytes).unwrap();
        }
        fs::write(state.join("ledger"), &self.ledger).unwrap();
        fs::write(state.join("format"), &self.format).unwrap();
    }

    /// How many transactions, from the first, are in place.
    fn in_place(&self, context: &str) -> u64 {
        let read = |n: u64| fs::read(self.tmp.path().join(format!("f{n}"))).ok();
        let all: Vec<_> = (1..=NUMBER).map(|n| (n, read(n))).collect();
        let count = all.iter().take_while(|(_, text)| text.is_some()).count() as u64;
        for (n, text) in all {
            match text {
                Some(text) => {
                    assert!(n <= count, "{context}: {n} without those before it");
                    assert_eq!(text, content(n), "{context}");
                }
                None => assert!(n > count, "{context}"),
            }
        }
        count
    }
}

/// `true`: it was damage, and not the end that a crash leaves.
fn check(cut: &Cut, segment: &Path, harm: Harm) -> bool {
    cut.harmed(segment, harm);
    let name = segment.file_name().unwrap().to_string_lossy();
    let context = format!("{name}, {harm:?}");
    let at = root(cut.tmp.path());
    let seen = status(&at).unwrap();
    let told = records(&at, None).unwrap();
    let stands = told.iter().flat_map(|l| &l.records);
    let stands: Vec<u64> = stands
        .filter(|r| r.kind == "commit")
        .map(|r| r.number)
        .collect();
    let first = stands.first().copied().unwrap_or(1);
    let damage = seen.writers.iter().find_map(|w| w.damage.clone());
    let damaged = damage.is_some();
    let opened = rebooted(|| open(cut.tmp.path()));
    let Some(damage) = damage else {
        let workspace = opened.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(repair(&at).unwrap().is_empty(), "{context}");
        workspace.close().unwrap();
        let count = cut.in_place(&context);
        // The last one alone may look as if it had never been acknowledged.
        assert!(count >= NUMBER - 1, "{context}: {count}");
        return false;
    };
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
    assert_eq!(cut.in_place(&context), 0, "{context}: it was not opened");
    let path = format!("{:016x}.seg", damage.segment);
    let len = cut
        .segments
        .iter()
        .find(|(p, _)| p.ends_with(&path))
        .map(|(_, b)| b.len());
    assert!(
        len.is_some_and(|len| damage.offset <= len as u64),
        "{context}: {damage}"
    );
    let done = repair(&at).unwrap();
    let [log] = &done.logs[..] else {
        panic!("{context}: {done}");
    };
    assert_eq!(log.damage, damage, "{context}");
    assert!(!done.set_aside.is_empty(), "{context}");
    for path in &done.set_aside {
        assert!(cut.tmp.path().join(path).exists(), "{context}: {path:?}");
    }
    let text = done.to_string();
    assert!(text.contains(&damage.to_string()), "{context}: {text}");
    assert!(repair(&at).unwrap().is_empty(), "{context}");
    rebooted(|| open(cut.tmp.path()).unwrap().close().unwrap());
    let count = cut.in_place(&context);
    assert_eq!(count, stands.len() as u64, "{context}: {text}");
    // What is not kept is named, or counted.
    let lost: Vec<u64> = (first + count..first + NUMBER).collect();
    let named = lost.iter().filter(|n| log.given_up.contains(n)).count() as u64;
    assert_eq!(named, log.given_up.len() as u64, "{context}: {text}");
    let missing = lost.len() as u64 - named;
    // Without its id no frame of a log can be told from noise.
    assert_eq!(
        log.everything,
        count == 0 && log.given_up.is_empty(),
        "{context}: {text}"
    );
    if log.everything {
        return damaged;
    }
    // The last one is the one of which nobody can know. What was cut off leaves no trace at all.
    let whole = matches!(harm, Harm::Flip(_));
    assert!(!whole || missing <= log.unreadable + 1, "{context}: {text}");
    damaged
}

/// What is harmed: everything in the long form, else some of it, most of it where something is.
fn harms(cut: &Cut, number: usize, cuts: bool) -> Vec<(PathBuf, Harm)> {
    let mut all = Vec::new();
    let mut random = Random(50);
    for (path, bytes) in &cut.segments {
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        let places = if cuts { bytes.len() } else { bytes.len() * 8 };
        let used = if cuts { used } else { used * 8 };
        let harm = |at| match cuts {
            true => Harm::Cut(at),
            false => Harm::Flip(at),
        };
        if long() {
            all.extend((0..places).map(|at| (path.clone(), harm(at))));
            continue;
        }
        for n in 0..number / step(1) / cut.segments.len() {
            let at = match n % 16 {
                0 => random.below(places),
                1 => random.below(512 * if cuts { 1 } else { 8 }),
                _ => random.below(used.max(1)),
            };
            all.push((path.clone(), harm(at)));
        }
    }
    all
}

#[test]
fn every_flipped_bit() {
    let cut = Cut::new();
    let all = harms(&cut, 1200, false);
    let damaged = all
        .iter()
        .filter(|(path, harm)| check(&cut, path, *harm))
        .count();
    assert!(
        damaged > all.len() / 100 && damaged < all.len(),
        "{damaged} of {}",
        all.len()
    );
}

#[test]
fn every_length() {
    let cut = Cut::new();
    let all = harms(&cut, 200, true);
    let damaged = all
        .iter()
        .filter(|(path, harm)| check(&cut, path, *harm))
        .count();
    assert!(damaged > all.len() / 2, "{damaged} of {}", all.len());
}
