//! Power cuts on real file systems: images of a loop device's backing file, taken in the middle of the work,
//! are what the disk would hold if the power went there. Each is mounted, recovered and checked.
//!
//! Needs root and loop devices. A row of transactions, each on what the one before has made, is run on a
//! fresh file system; at every few calls the backing file is copied, now and then after a sync that somebody
//! else might have caused. What a copy holds after recovery must be the tree after some of the transactions,
//! and at least after all that had been acknowledged by then.

use crate::common::Random;
use crate::tree::{Tree, difference, litter, tree};
use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
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

fn run(what: &mut Command) {
    let done = what.output().unwrap();
    assert!(done.status.success(), "{what:?}: {done:?}");
}

fn mount(image: &Path, at: &Path, options: &str) {
    run(Command::new("mount")
        .args(["-o", options])
        .arg(image)
        .arg(at));
}

fn unmount(at: &Path) {
    // A child of another test has this one's descriptors until it begins its program.
    for _ in 0..500 {
        if Command::new("umount")
            .arg(at)
            .output()
            .unwrap()
            .status
            .success()
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    run(Command::new("umount").arg(at));
}

/// A mount that ends with the test, however that ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Somebody may have unmounted it.
        let _ = Command::new("umount")
            .args(["-q", "-l"])
            .arg(self.0)
            .output();
    }
}

struct Image {
    file: PathBuf,
    /// How many transactions were acknowledged, and after which call it was taken.
    acknowledged: usize,
    call: String,
}

fn cuts(kind: &str, make: &[&str], options: &str, size: u64) {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let top = tempfile::tempdir_in(base).unwrap();
    let image = top.path().join("image");
    let at = top.path().join("at");
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(size).unwrap();
    run(Command::new(make[0]).args(&make[1..]).arg(&image));
    mount(&image, &at, options);
    let mounted = Mounted(&at);
    let states = Rc::new(RefCell::new(vec![tree(&at)]));
    let images = Rc::new(RefCell::new(Vec::<Image>::new()));
    let workspace = Workspace::open(&Root::open(&at).unwrap()).unwrap();
    workspace.settle().unwrap();
    let every = if crate::long() { 1 } else { 11 };
    let observer = {
        let (states, images) = (states.clone(), images.clone());
        let (image, at) = (image.clone(), at.clone());
        let mut random = Random(make.len() as u64);
        let mut calls = 0u64;
        move |name: &'static str, _| {
            calls += 1;
            if !calls.is_multiple_of(every) {
                return;
            }
            // What others do makes some of it durable, and not in the order of the work.
            let meanwhile = match random.below(4) {
                0 => {
                    Command::new("sync").arg(at.join("top")).output().unwrap();
                    "sync of a file"
                }
                1 => {
                    Command::new("sync").arg(&at).output().unwrap();
                    "sync of the root"
                }
                2 if random.one_in(4) => {
                    Command::new("sync").arg("-f").arg(&at).output().unwrap();
                    "sync of all"
                }
                _ => "nothing",
            };
            let number = images.borrow().len();
            let file = image.with_file_name(format!("cut-{number}"));
            run(Command::new("cp")
                .args(["--sparse=always", "--"])
                .arg(&image)
                .arg(&file));
            images.borrow_mut().push(Image {
                file,
                acknowledged: states.borrow().len() - 1,
                call: format!("call {calls}, {name}, {meanwhile} meanwhile"),
            });
        }
    };
    hook::observe(observer, || {
        for step in row() {
            let mut tx = workspace.begin();
            step(&mut tx).unwrap();
            tx.commit().unwrap();
            states.borrow_mut().push(tree(&at));
        }
    });
    // As a crash would.
    drop(workspace);
    unmount(&at);
    drop(mounted);
    let states = states.take();
    let images = images.take();
    let (mut behind, mut failed) = (0, 0);
    for image in &images {
        let name = format!("{kind}, {}", image.call);
        mount(&image.file, &at, options);
        let mounted = Mounted(&at);
        let checks = || check(&at, &states, image.acknowledged, &name);
        match catch_unwind(AssertUnwindSafe(checks)) {
            Ok(found) => behind += usize::from(found > image.acknowledged),
            Err(_) => failed += 1,
        }
        unmount(&at);
        drop(mounted);
        fs::remove_file(&image.file).unwrap();
    }
    println!(
        "{kind}: {} power cuts, {behind} with a transaction that was not acknowledged",
        images.len()
    );
    assert_eq!(failed, 0, "{kind}: of {} power cuts", images.len());
    assert!(images.len() > 20);
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

/// Says why it cannot run, if it cannot.
fn possible(test: &str, tool: &str) -> bool {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout == b"0\n");
    if !root {
        crate::common::skipped(test, "it mounts file systems, which needs root");
        return false;
    }
    let there = Command::new(tool).arg("-V").output().is_ok();
    if !there {
        crate::common::skipped(test, format!("{tool} is not installed"));
    }
    there
}

#[test]
fn power_cuts_on_ext4() {
    if possible("power_cuts_on_ext4", "mkfs.ext4") {
        cuts("ext4", &["mkfs.ext4", "-q", "-F"], "loop", 32 << 20);
    }
}

#[test]
fn power_cuts_on_xfs() {
    if possible("power_cuts_on_xfs", "mkfs.xfs") {
        cuts("xfs", &["mkfs.xfs", "-q", "-f"], "loop,nouuid", 320 << 20);
    }
}

#[test]
fn power_cuts_on_btrfs() {
    if possible("power_cuts_on_btrfs", "mkfs.btrfs") {
        cuts("btrfs", &["mkfs.btrfs", "-q", "-f"], "loop", 160 << 20);
    }
}

#[test]
fn after_a_failed_sync_only_a_new_mount_tells() {
    const TEST: &str = "after_a_failed_sync_only_a_new_mount_tells";
    if !possible(TEST, "mkfs.ext4") {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (image, at) = (top.path().join("image"), top.path().join("at"));
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    mount(&image, &at, "loop");
    let mounted = Mounted(&at);
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
    unmount(&at);
    mount(&image, &at, "loop");
    let workspace = open();
    // Two were committed after the last sync that did not fail.
    assert_eq!(workspace.recovered().finished().len(), 2);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"third");
    workspace.close().unwrap();
    assert_eq!(litter(&at), Vec::<PathBuf>::new());
    unmount(&at);
    drop(mounted);
}
