//! Protected sections: all as before, or, once the commit is recorded, as it was left; leases, whose numbers
//! grow.

use crate::common;
use crate::recorder::Recorder;
use crate::rules::REAL;
use crate::run::{Budget, Subject, record, scale};
use crate::scenes;
use crate::support::{Tree, assert_clean, furnish, tree, without_times_of_dirs};
use crate::transactions::open;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use steadfast::lease::Leases;
use steadfast::{Dir, Root};

#[derive(Clone, Copy, Debug)]
struct Known {
    /// How much is acknowledged.
    done: usize,
    /// The commit is under way.
    ending: bool,
}

fn budget() -> Budget {
    Budget {
        masks: 1 + scale() / 2,
        torn: scale() as u64 / 8,
        mixed: scale() / 8,
        nested: 80,
    }
}

fn check(at: &Path, states: &[Tree], known: Known) -> Result<(), String> {
    let workspace = open(at)?;
    let found = workspace.conflicts().map_err(|e| e.to_string())?;
    if !found.is_empty() {
        return Err(format!("{found:?}"));
    }
    let sections = workspace.recovered().sections();
    if let Some(open) = sections.iter().find_map(|s| s.still_open()) {
        return Err(format!("still open: {open:?}"));
    }
    let now = without_times_of_dirs(tree(at));
    let next = known.ending.then_some(known.done + 1);
    if now != states[known.done] && next.is_none_or(|next| now != states[next]) {
        let paths = now.keys().chain(states[known.done].keys());
        let other: Vec<_> = paths
            .filter(|path| now.get(*path) != states[known.done].get(*path))
            .map(|path| (path, now.get(path), states[known.done].get(path)))
            .collect();
        return Err(format!("not as before: {other:#?}"));
    }
    workspace.close().map_err(|e| e.to_string())?;
    assert_clean(at, "after recovery");
    Ok(())
}

fn prove(scene: &scenes::Scene, commit: bool) {
    let name = format!("{}{}", scene.name, if commit { ", kept" } else { "" });
    let ready = |top: &Path| {
        furnish(top);
        open(top).unwrap().close().unwrap();
    };
    let known = Known {
        done: 0,
        ending: false,
    };
    let run = |top: &Path, recorder: &Recorder<Known>| {
        let looked = || {
            recorder.look();
            without_times_of_dirs(tree(top))
        };
        let states = Rc::new(RefCell::new(vec![looked()]));
        let workspace = open(top).unwrap();
        let mut section = workspace.section(scene.name).unwrap();
        (scene.run)(&mut section, top).unwrap();
        if commit {
            states.borrow_mut().push(looked());
            recorder.know(Known {
                ending: true,
                ..known
            });
            section.commit().unwrap();
            recorder.know(Known {
                done: 1,
                ending: false,
            });
        } else {
            section.rollback().unwrap();
        }
        states.take()
    };
    let (record, cuts, states, _work) = record(known, ready, run);
    let checked = |at: &Path, known: &Known| check(at, &states, *known);
    let subject = Subject {
        name: &name,
        families: &REAL,
        record,
        cuts,
        budget: budget(),
        check: &checked,
    };
    crate::count(&name, subject.prove());
}

#[test]
fn sections() {
    // What they do without a system call is the business of their own tests.
    if common::switched_off() {
        return;
    }
    // Some of them by default.
    let every = if scale() > 1 { 1 } else { 5 };
    for (n, scene) in scenes::all().iter().enumerate() {
        if n % every == 0 {
            prove(scene, n % 2 == 0);
        }
    }
}

#[test]
fn numbers_of_leases_only_grow() {
    if common::switched_off() {
        return;
    }
    let opened = |at: &Path| -> steadfast::Result<Leases> {
        let root = Root::open(at)?;
        let dir: &Dir = root.dir();
        Leases::open(dir)
    };
    let run = |top: &Path, recorder: &Recorder<u64>| {
        let leases = opened(top).unwrap();
        for release in [true, false, true] {
            let lease = leases.try_acquire("a").unwrap();
            recorder.know(lease.fence().get());
            if release {
                lease.release().unwrap();
            }
        }
    };
    let (record, cuts, (), _work) = record(0, |_| (), run);
    let check = |at: &Path, known: &u64| {
        let leases = opened(at).map_err(|e| e.to_string())?;
        let lease = leases.try_acquire("a").map_err(|e| e.to_string())?;
        match lease.fence().get() > *known {
            true => Ok(()),
            false => Err(format!("{} after {known}", lease.fence().get())),
        }
    };
    let subject = Subject {
        name: "leases",
        families: &REAL,
        record,
        cuts,
        budget: Budget {
            masks: 12 * scale(),
            torn: 4,
            mixed: 2,
            nested: 20,
        },
        check: &check,
    };
    crate::count("leases", subject.prove());
}
