//! Sections whose records have a right checksum and make no sense: refused with the record's name, and given
//! up by a repair, which keeps what they had put away.

use crate::support::{BOUND, dir, open, prepare, recover, root, run, step, texts};
use std::fs;
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::journal::{LogOptions, Record};
use steadfast::workspace::{Abandon, PruneOptions, abandon, explain, prune, repair, status};

const ITEM: u16 = 20;
const NAMES: [&str; 4] = ["a", "c", "d", "e"];
/// As the section leaves it.
const WORKED: [&str; 4] = ["worked on", "-", "old c", "-"];

/// The beginning of a record of this section.
fn begin(number: u64) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}

/// What makes no sense behind the records of section `number`.
fn nonsense(number: u64) -> Vec<(&'static str, u16, Vec<u8>)> {
    let with = |more: &[u8]| [&begin(number), more].concat();
    let other = [&begin(number + 1), &[0][..]].concat();
    vec![
        ("a step of no sort", ITEM, with(&[9])),
        (
            "a step of another section",
            ITEM,
            [&other[..], &[0; 17]].concat(),
        ),
        ("a step that ends too soon", ITEM, with(&[0, 1])),
        ("a step in a file that is not there", ITEM, {
            let mut file = begin(number);
            file.extend_from_slice(&4_u32.to_le_bytes());
            file.extend_from_slice(b"gone");
            file.extend_from_slice(&[0; 12]);
            let len = file.len() as u32;
            [&with(&[3])[..], &len.to_le_bytes(), &file].concat()
        }),
        ("a second beginning", 19, with(&[0; 16])),
        ("a phase without a name", 21, with(&[])),
        ("an end of no sort", 22, with(&[7])),
        ("an end of another section", 22, other),
    ]
}

/// A dead process's section, with one more record. Gives its number.
fn with_record(dir: &Path, kind: u16, bytes: impl FnOnce(u64) -> Vec<u8>) -> (u64, Vec<u8>) {
    prepare(dir);
    assert!(!run("section", dir, ""));
    let seen = status(&root(dir)).unwrap();
    let [section] = &seen.sections[..] else {
        panic!("{seen}");
    };
    let bytes = bytes(section.number);
    let log = dir.join(format!(".steadfast/logs/{:08x}", section.writer));
    let (log, _) = LogOptions::new()
        .open(root(&log).dir().try_clone().unwrap())
        .unwrap();
    let record = Record::new(kind, &bytes).transaction(section.number);
    log.append_durable(&[record]).unwrap();
    (section.number, bytes)
}

#[test]
fn what_makes_no_sense_is_named_and_given_up() {
    for at in 0..nonsense(0).len() {
        let tmp = dir();
        let (context, kind, _) = nonsense(0).swap_remove(at);
        let (number, bytes) = with_record(tmp.path(), kind, |number| {
            nonsense(number).swap_remove(at).2
        });
        let missing = context == "a step in a file that is not there";
        let check = |error: steadfast::Error| {
            let text = error.to_string();
            let wanted = if missing {
                ErrorKind::NotFound
            } else {
                ErrorKind::Corrupt
            };
            assert_eq!(error.kind(), wanted, "{context}: {text}");
            let named = ["record ", &format!(", section {number}")];
            assert!(named.iter().all(|n| text.contains(n)), "{context}: {text}");
            assert!(
                error.advice().unwrap().contains("repair"),
                "{context}: {text}"
            );
        };
        check(open(tmp.path()).unwrap_err());
        // Without a step's file it can be given up as any other.
        if !missing {
            check(abandon(&root(tmp.path()), number, Abandon::KeepOurs).unwrap_err());
        }
        assert_eq!(texts(tmp.path(), &NAMES), WORKED, "{context}");
        let seen = status(&root(tmp.path())).unwrap();
        let told = seen.problems.iter().any(|p| p.what.contains("record "));
        assert!(told, "{context}: {seen}");

        let done = repair(&root(tmp.path())).unwrap();
        assert_eq!(done.unreadable, [number], "{context}: {done}");
        let text = done.to_string();
        assert!(text.contains(&number.to_string()), "{context}: {text}");
        check_evidence(tmp.path(), &done, number, &bytes, context);
        assert!(repair(&root(tmp.path())).unwrap().is_empty(), "{context}");
        let seen = status(&root(tmp.path())).unwrap();
        assert!(seen.problems.is_empty(), "{context}: {seen}");
        assert!(seen.sections.is_empty(), "{context}: {seen}");

        assert!(recover(tmp.path()).sections().is_empty(), "{context}");
        // What was there when it was given up stays, and is open to everybody.
        assert_eq!(texts(tmp.path(), &NAMES), WORKED, "{context}");
        let workspace = open(tmp.path()).unwrap();
        let mut tx = workspace.begin();
        tx.write("a", "newer").unwrap();
        tx.rename("d", "c");
        tx.commit().unwrap();
        workspace.close().unwrap();
        check_evidence(tmp.path(), &done, number, &bytes, context);
        let error = explain(&root(tmp.path()), number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{context}: {error}");
        let left = fs::read_dir(tmp.path().join(".steadfast/abandoned")).unwrap();
        assert_eq!(left.count(), 0, "{context}");
    }
}

/// Everything that was set aside is there: the records, what was protected, and what was removed.
fn check_evidence(
    dir: &Path,
    done: &steadfast::workspace::Repaired,
    number: u64,
    bytes: &[u8],
    context: &str,
) {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for path in &done.set_aside {
        all.push(fs::read(dir.join(path)).unwrap());
    }
    for wanted in ["old a", "old e"] {
        let is = |text: &Vec<u8>| text == wanted.as_bytes();
        assert!(all.iter().any(is), "{context}: {wanted}: {done}");
    }
    let records = format!(".steadfast/damaged-section-{number}");
    assert!(
        done.set_aside.contains(&records.clone().into()),
        "{context}: {done}"
    );
    let records = fs::read(dir.join(records)).unwrap();
    assert!(records.ends_with(bytes), "{context}");
}

/// Whatever is done when it is killed, the next repair goes on, and nothing that was put away is lost.
#[test]
fn giving_up_is_killed_at_every_call() {
    for call in (1..BOUND).step_by(step(12)) {
        let tmp = dir();
        let (number, _) = with_record(tmp.path(), ITEM, |number| {
            [&begin(number)[..], &[9]].concat()
        });
        let killed = run("repair", tmp.path(), &format!("stop-before:{call}"));
        let _ = repair(&root(tmp.path())).unwrap();
        assert!(repair(&root(tmp.path())).unwrap().is_empty(), "{call}");
        let _ = recover(tmp.path());
        assert_eq!(texts(tmp.path(), &NAMES), WORKED, "{call}");
        let state = tmp.path().join(".steadfast");
        let mut aside = Vec::new();
        for folder in ["kept", "retired", "staged"] {
            for entry in fs::read_dir(state.join(folder)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name();
                assert!(
                    name.to_string_lossy().starts_with("damaged-"),
                    "{call}: {name:?}"
                );
                aside.push(fs::read_to_string(entry.path()).unwrap());
            }
        }
        aside.sort();
        assert_eq!(aside, ["old a", "old e"], "{call}");
        assert!(
            state.join(format!("damaged-section-{number}")).exists(),
            "{call}"
        );
        if !killed {
            break;
        }
    }
}

/// What a section has removed or replaced is what was there before, as much as what it protected.
#[test]
fn what_a_section_removed_is_kept_when_it_is_given_up() {
    let tmp = dir();
    prepare(tmp.path());
    assert!(!run("section", tmp.path(), ""));
    let number = status(&root(tmp.path())).unwrap().sections[0].number;
    let gone = abandon(&root(tmp.path()), number, Abandon::KeepOurs).unwrap();
    let _ = recover(tmp.path());
    let read = |step: &steadfast::workspace::AbandonedStep| {
        fs::read_to_string(tmp.path().join(&step.path)).unwrap()
    };
    let mut kept: Vec<_> = gone.given_up.iter().map(read).collect();
    kept.sort();
    assert_eq!(kept, ["old a", "old e"], "{gone}");
    assert_eq!(texts(tmp.path(), &NAMES), WORKED);
}

/// What is kept of a section is removed when that is asked for, and not before the section is given up.
#[test]
fn what_is_kept_of_it_can_be_pruned() {
    let tmp = dir();
    prepare(tmp.path());
    assert!(!run("section", tmp.path(), ""));
    let at = root(tmp.path());
    let number = status(&at).unwrap().sections[0].number;
    let everything = PruneOptions::new().set_aside(true);
    let would = || prune(&at, &everything.clone().dry_run(true)).unwrap();
    // As who gives it up leaves it, killed in the middle: a name is changed, and the section is not over.
    let kept = tmp.path().join(".steadfast/kept");
    let image = fs::read_dir(&kept).unwrap().next().unwrap().unwrap();
    let name = image.file_name().into_string().unwrap();
    let renamed = kept.join(format!("given-up-{number}-{name}"));
    fs::rename(image.path(), &renamed).unwrap();
    // Of no section, and of no sort.
    let others = ["given-up-x", "given-up-7-mine"].map(|name| kept.join(name));
    others.iter().for_each(|path| fs::write(path, "").unwrap());
    assert!(would().set_aside.is_empty(), "{}", would());
    assert!(renamed.exists());

    let gone = abandon(&at, number, Abandon::KeepOurs).unwrap();
    let mut all: Vec<_> = gone.given_up.iter().map(|step| step.path.clone()).collect();
    all.sort();
    assert_eq!(all.len(), 2, "{gone}");
    let mut listed = would().set_aside;
    listed.sort();
    assert_eq!(listed, all);
    // Not without being asked for.
    let done = prune(&at, &PruneOptions::new()).unwrap();
    assert!(done.set_aside.is_empty(), "{done}");
    assert!(all.iter().all(|path| tmp.path().join(path).exists()));
    let done = prune(&at, &everything).unwrap();
    assert_eq!(done.set_aside.len(), 2, "{done}");
    assert!(all.iter().all(|path| !tmp.path().join(path).exists()));
    assert!(others.iter().all(|path| path.exists()));
    assert!(prune(&at, &everything).unwrap().is_empty());
}
