//! Power cuts in the middle of transactions, on real file systems.
//!
//! Needs root and loop devices. A row of transactions, each on what the one before has made, is run on a
//! fresh file system, and the power goes at every few calls. What is there after recovery must be the tree
//! after some of the transactions, and at least after all that had been acknowledged by then.

use crate::images::{self, BTRFS, EXT4, Kind, XFS, possible};
use crate::tree::{Tree, difference, litter, tree};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::workspace::{Transaction, Workspace};
use steadfast::{ErrorKind, Root};

/// One transaction of the row.
type Step = fn(&mut Transaction<'_>) -> steadfast::Result<()>;

fn row() -> Vec<Step> {
    vec![
        |tx| {
            tx.create_dir_all("a/b");
            tx.write("a/one", "first")?;
            tx.write("a/two", vec![b'2'; 30_000])?;
            tx.write("top", "top 1")
        },
        |tx| {
            tx.rename("a/one", "a/b/moved");
            tx.write("a/one", "another")?;
            tx.write("top", "top 2")
        },
        |tx| {
            tx.rename("a/b", "c");
            tx.append("c/moved", " and more")?;
            tx.create_dir("a/b");
            tx.write("a/b/new", "in a new one")
        },
        |tx| {
            tx.exchange("a/two", "top");
            tx.remove_file("a/one");
            tx.hard_link("c/moved", "linked");
            tx.symlink("c", "link");
            Ok(())
        },
        |tx| {
            tx.remove_tree("a");
            tx.write("a", "a file now")?;
            tx.write_in_place("linked", "both names")
        },
        |tx| {
            tx.rename("c", "d");
            tx.rename("d/moved", "tmp")
                .rename("top", "d/moved")
                .rename("tmp", "top");
            for n in 0..20 {
                tx.write(format!("d/n{n}"), format!("number {n}"))?;
            }
            Ok(())
        },
        |tx| {
            for n in 0..10 {
                tx.remove_file(format!("d/n{n}"));
            }
            tx.write("d/n15", "once more")?;
            tx.create_dir("e");
            tx.rename("d", "e/d");
            Ok(())
        },
    ]
}

fn cuts(kind: &Kind) {
    let work = |at: &Path, camera: &Rc<images::Camera<usize>>| {
        let states = Rc::new(RefCell::new(vec![tree(at)]));
        let workspace = Workspace::open(&Root::open(at).unwrap()).unwrap();
        workspace.settle().unwrap();
        let observer = {
            let (states, camera) = (states.clone(), camera.clone());
            move |name: &'static str, _| camera.call(name, || states.borrow().len() - 1)
        };
        hook::observe(observer, || {
            for step in row() {
                let mut tx = workspace.begin();
                step(&mut tx).unwrap();
                tx.commit().unwrap();
                states.borrow_mut().push(tree(at));
            }
        });
        // Dropped, not closed: as a crash would.
        states.take()
    };
    let every = if crate::long() { 1 } else { 11 };
    let mut ahead = 0;
    let checked = |at: &Path, states: &Vec<Tree>, acknowledged: &usize, name: &str| {
        ahead += usize::from(check(at, states, *acknowledged, name) > *acknowledged);
    };
    images::cuts(kind, every, ["top", "."], work, checked);
    println!(
        "{}: {ahead} with a transaction that was not acknowledged",
        kind.name
    );
}

/// Recovers, and gives how many of the transactions are there.
fn check(at: &Path, states: &[Tree], acknowledged: usize, name: &str) -> usize {
    let workspace =
        Workspace::open(&Root::open(at).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let found = workspace.conflicts().unwrap();
    assert!(found.is_empty(), "{name}: {found:?}");
    let now = tree(at);
    let Some(number) = states.iter().rposition(|state| *state == now) else {
        panic!(
            "{name}: acknowledged {acknowledged}\n{}\nor\n{}",
            difference(&now, &states[acknowledged]),
            difference(&now, states.get(acknowledged + 1).unwrap_or(&now))
        );
    };
    assert!(
        number >= acknowledged,
        "{name}: {acknowledged} were acknowledged, {number} are there"
    );
    workspace.close().unwrap();
    assert_eq!(litter(at), Vec::<PathBuf>::new(), "{name}");
    number
}

#[test]
fn power_cuts_on_ext4() {
    if possible("power_cuts_on_ext4", &EXT4) {
        cuts(&EXT4);
    }
}

#[test]
fn power_cuts_on_xfs() {
    if possible("power_cuts_on_xfs", &XFS) {
        cuts(&XFS);
    }
}

#[test]
fn power_cuts_on_btrfs() {
    if possible("power_cuts_on_btrfs", &BTRFS) {
        cuts(&BTRFS);
    }
}

#[test]
fn after_a_failed_sync_only_a_new_mount_tells() {
    const TEST: &str = "after_a_failed_sync_only_a_new_mount_tells";
    if !possible(TEST, &EXT4) {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (image, at) = (top.path().join("image"), top.path().join("at"));
    fs::create_dir(&at).unwrap();
    EXT4.make(&image);
    let mounted = EXT4.mount(&image, &at);
    let open = || Workspace::open(&Root::open(&at).unwrap()).unwrap();
    let workspace = open();
    let commit = |workspace: &Workspace, text: &str| {
        let mut tx = workspace.begin();
        tx.write("f", text).unwrap();
        tx.commit().unwrap();
    };
    commit(&workspace, "first");
    let ((), calls) = hook::scope(None, || workspace.settle().unwrap());
    let sync = calls.iter().position(|c| *c == "syncfs").unwrap() as u64 + 1;
    commit(&workspace, "second");
    let plan = Plan {
        at: sync,
        action: Action::Fail(Errno::IO),
    };
    let (failed, _) = hook::scope(Some(plan), || workspace.settle());
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Poisoned);
    // The kernel would say that all is well now, to this process and to others. It is not believed.
    assert_eq!(workspace.settle().unwrap_err().kind(), ErrorKind::Poisoned);
    commit(&workspace, "third");
    drop(workspace);
    let workspace = open();
    assert_eq!(fs::read(at.join("f")).unwrap(), b"third");
    assert_eq!(workspace.settle().unwrap_err().kind(), ErrorKind::Poisoned);
    drop(workspace);
    mounted.end();
    let mounted = EXT4.mount(&image, &at);
    let workspace = open();
    // Two were committed after the last sync that did not fail.
    assert_eq!(workspace.recovered().finished().len(), 2);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"third");
    workspace.close().unwrap();
    assert_eq!(litter(&at), Vec::<PathBuf>::new());
    mounted.end();
}
