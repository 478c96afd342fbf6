//! Sections of random steps.

use crate::common::{Random, no_child};
use crate::support::{assert_clean, assert_same, furnish, open, tree};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Section, Transaction};

const TOP: [&str; 10] = ["a", "b", "c", "c2", "d", "e", "s", "x", "y", "z"];
const BELOW: [&str; 6] = ["one", "two", "sub", "empty", "x", "a"];

fn path(random: &mut Random) -> String {
    let mut path = (*random.of(&TOP)).to_owned();
    while random.one_in(2) && path.matches('/').count() < 3 {
        path.push('/');
        path += *random.of(&BELOW);
    }
    path
}

/// Mostly something that is there.
fn found(random: &mut Random, top: &Path) -> String {
    let all: Vec<_> = tree(top).into_keys().collect();
    let known = random.of(&all).strip_prefix(".").unwrap();
    match known.to_str() {
        Some(known) if !known.is_empty() && !random.one_in(6) => known.to_owned(),
        _ => path(random),
    }
}

/// Mostly a name that is free, in a directory that is there.
fn free(random: &mut Random, top: &Path) -> String {
    let above = found(random, top);
    match random.below(5) {
        0 => above,
        _ if top.join(&above).is_dir() => format!("{above}/{}", random.of(&BELOW)),
        _ => format!("{}{}", random.of(&TOP), random.below(3)),
    }
}

fn operation(random: &mut Random, top: &Path, tx: &mut Transaction<'_>) -> String {
    let (p, q) = (found(random, top), free(random, top));
    match random.below(9) {
        0 | 1 => {
            let p = if random.one_in(2) { p } else { q };
            tx.write(&p, b"new").unwrap();
            format!("write {p}")
        }
        2 => {
            tx.remove_tree(&p);
            format!("remove {p}")
        }
        3 | 4 => {
            tx.rename(&p, &q);
            format!("rename {p} {q}")
        }
        5 => {
            let q = found(random, top);
            tx.exchange(&p, &q);
            format!("exchange {p} {q}")
        }
        6 => {
            tx.create_dir_all(&q);
            format!("mkdir {q}")
        }
        7 => {
            tx.hard_link(&p, &q);
            format!("link {p} {q}")
        }
        _ => {
            let mode = Mode::from_raw_mode(0o500 + u32::try_from(random.below(64)).unwrap());
            let attributes = Attributes::new().mode(mode).xattr("user.new", "1");
            tx.set_attributes(&p, attributes.modified(std::time::UNIX_EPOCH));
            format!("attributes {p}")
        }
    }
}

/// What another program may do to what is protected; most of it fails.
fn outsider(random: &mut Random, top: &Path) -> String {
    let p = found(random, top);
    let full = top.join(&p);
    let done = match random.below(5) {
        0 => fs::write(&full, "theirs"),
        1 => fs::remove_dir_all(&full).or_else(|_| fs::remove_file(&full)),
        2 => fs::rename(&full, top.join(free(random, top))),
        3 => fs::create_dir_all(&full),
        _ => fs::set_permissions(&full, fs::Permissions::from_mode(0o711)),
    };
    format!("theirs {p} {}", done.is_ok())
}

fn run(section: &mut Section<'_>, random: &mut Random, top: &Path, said: &mut Vec<String>) {
    match random.below(4) {
        0 => {
            section.protect(["."]).unwrap();
            said.push("protect all".to_owned());
            for _ in 0..random.below(6) {
                said.push(outsider(random, top));
            }
        }
        1 => {
            section.protect(["d", "a", "x", "c", "c2"]).unwrap();
            said.push("protect some".to_owned());
        }
        _ => {}
    }
    for _ in 0..1 + random.below(6) {
        let mut step = Vec::new();
        let done = section.apply(|tx| {
            for _ in 0..1 + random.below(2) {
                step.push(operation(random, top, tx));
            }
            Ok(())
        });
        said.push(format!(
            "{step:?}: {:?}",
            done.as_ref().map_err(|e| e.kind())
        ));
        if section.phase("step").is_err() {
            break;
        }
    }
}

#[test]
fn random_steps_are_taken_back() {
    let _alone = no_child();
    let (mut done, mut refused) = (0, 0);
    for seed in 0..if crate::long() { 20_000 } else { 250 } {
        let mut random = Random(seed);
        let dir = crate::dir();
        let top = dir.path();
        let workspace = open(top);
        furnish(top);
        let before = tree(top);
        let mut said = Vec::new();
        let mut section = workspace.section("random").unwrap();
        run(&mut section, &mut random, top, &mut said);
        done += said.iter().filter(|s| s.ends_with("Ok(())")).count();
        refused += said.iter().filter(|s| s.contains(": Err")).count();
        let context = format!("seed {seed}: {said:#?}");
        section
            .rollback()
            .unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_same(&tree(top), &before, &context);
        workspace.close().unwrap();
        assert_clean(top, &context);
    }
    println!("{done} steps done, {refused} refused");
    assert!(done > refused / 4);
}
