//! Workspaces made by children that are killed, and trees as values.

use crate::common::spawn;
pub(crate) use crate::common::{long, memory_dir as dir, step};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use steadfast::sys::hook::{self, ENV, Machine};
use steadfast::workspace::{Abandon, PruneOptions, Workspace, WorkspaceOptions};
use steadfast::workspace::{abandon, prune, repair};
use steadfast::{Result, Root};

const JOB: &str = "STEADFAST_OPERATOR_JOB";
const DIR: &str = "STEADFAST_OPERATOR_DIR";
const SIGKILL: i32 = 9;
pub(crate) const NOBODY: u32 = 65534;
/// More calls than any job makes.
pub(crate) const BOUND: u64 = 3000;

pub(crate) fn root(dir: &Path) -> Root {
    Root::open(dir).unwrap()
}

pub(crate) fn open(dir: &Path) -> Result<Workspace> {
    WorkspaceOptions::new().create(false).open(&root(dir))
}

/// Opens and closes it, as the next program does.
pub(crate) fn recover(dir: &Path) -> steadfast::workspace::Recovery {
    let workspace = open(dir).unwrap();
    let out = workspace.recovered().clone();
    workspace.close().unwrap();
    out
}

/// What `f` gives, and the device and inode of each thing that it made durable by itself.
pub(crate) fn synced<R>(f: impl FnOnce() -> R) -> (R, BTreeSet<(u64, u64)>) {
    let synced = Rc::new(RefCell::new(BTreeSet::new()));
    let observer = {
        let synced = Rc::clone(&synced);
        move |call: &'static str, what: Option<(u64, u64)>| {
            if call == "fsync" {
                synced.borrow_mut().extend(what);
            }
        }
    };
    let done = hook::observe(observer, f);
    (done, synced.take())
}

/// As [`synced`] tells it.
pub(crate) fn identity(path: &Path) -> (u64, u64) {
    let meta = fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}

/// Runs `f` after a reboot.
pub(crate) fn rebooted<R>(f: impl FnOnce() -> R) -> R {
    struct Back(Option<Machine>);
    impl Drop for Back {
        fn drop(&mut self) {
            hook::set_machine(self.0);
        }
    }
    let machine = Machine {
        boot_id: Some([7; 16]),
        time_namespace: Some(7),
        boottime: Duration::from_secs(5),
    };
    let _back = Back(hook::set_machine(Some(machine)));
    f()
}

/// The tree that the jobs begin with.
pub(crate) fn prepare(dir: &Path) {
    fs::create_dir(dir.join("sub")).unwrap();
    for (name, text) in [
        ("a", "old a"),
        ("c", "old c"),
        ("e", "old e"),
        ("sub/f", "old f"),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    Workspace::open(&root(dir)).unwrap().close().unwrap();
}

/// A transaction that does some of everything.
pub(crate) fn mixed(workspace: &Workspace) -> Result<u64> {
    let mut tx = workspace.begin();
    tx.label("mixed");
    tx.write("a", b"new a")?;
    tx.write("b", b"new b")?;
    tx.rename("c", "d");
    tx.remove_file("e");
    tx.write("sub/f", b"new f")?;
    tx.create_dir("n");
    tx.write("n/x", b"new x")?;
    Ok(tx.commit()?.number())
}

/// What the children are: this binary with two variables set. On its own it does nothing.
#[test]
fn child() {
    let (Ok(job), Some(dir)) = (std::env::var(JOB), std::env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let root = root(&dir);
    match job.as_str() {
        "mixed" => {
            let workspace = Workspace::open(&root).unwrap();
            hook::arm_from_env();
            mixed(&workspace).unwrap();
            // As if it were killed.
            std::process::exit(0);
        }
        "many" => {
            let options = WorkspaceOptions::new().log(16 << 10, 64);
            let workspace = options.checkpoint_every(Duration::MAX).open(&root).unwrap();
            for n in 1..=50 {
                let mut tx = workspace.begin();
                tx.write(format!("f{n}"), content(n)).unwrap();
                tx.commit().unwrap();
            }
            std::process::exit(0);
        }
        "long record" => {
            let options = WorkspaceOptions::new().log(8 << 10, 64);
            let workspace = options.open(&root).unwrap();
            let mut tx = workspace.begin();
            for n in 0..60 {
                tx.write(format!("long{n}"), vec![b'x'; 300]).unwrap();
            }
            hook::arm_from_env();
            tx.commit().unwrap();
            std::process::exit(0);
        }
        "umask" => {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
            let workspace = Workspace::open(&root).unwrap();
            let mut tx = workspace.begin();
            tx.write("under", b"umask").unwrap();
            tx.commit().unwrap();
            // Its log is left as after a kill.
            std::process::exit(0);
        }
        "section" => {
            let workspace = Workspace::open(&root).unwrap();
            let mut section = workspace.section("work").unwrap();
            section.protect(["a"]).unwrap();
            std::fs::write(dir.join("a"), "worked on").unwrap();
            let change = |tx: &mut steadfast::workspace::Transaction<'_>| {
                tx.rename("c", "d");
                tx.remove_file("e");
                Ok(())
            };
            section.apply(change).unwrap();
            // As if it were killed.
            std::process::exit(0);
        }
        "open" => {
            open(&dir).unwrap().close().unwrap();
        }
        "repair" => {
            hook::arm_from_env();
            repair(&root).unwrap();
        }
        "prune" => {
            hook::arm_from_env();
            let options = PruneOptions::new()
                .keep_logs(0)
                .keys_older_than(Duration::ZERO)
                .set_aside(true);
            prune(&root, &options).unwrap();
        }
        other => {
            let (how, number) = other.split_once(' ').unwrap();
            let how = match how {
                "keep" => Abandon::KeepOurs,
                "drop" => Abandon::Drop,
                _ => panic!("no such job: {other}"),
            };
            hook::arm_from_env();
            abandon(&root, number.parse().unwrap(), how).unwrap();
        }
    }
}

pub(crate) fn content(n: u64) -> Vec<u8> {
    format!("content of file {n}").into_bytes()
}

/// Runs a job in a child. `true`: it was killed at the call that the plan names.
pub(crate) fn run(job: &str, dir: &Path, plan: &str) -> bool {
    run_as(None, job, dir, plan)
}

pub(crate) fn run_as(user: Option<u32>, job: &str, dir: &Path, plan: &str) -> bool {
    // What the whole run is denied stays denied.
    let inherited = std::env::var(ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "support::child", "--nocapture"])
        .arg("--test-threads=1")
        .env(ENV, format!("{inherited};{plan}"))
        .env(JOB, job)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let child = spawn(&mut command).wait_with_output().unwrap();
    if child.status.signal() == Some(SIGKILL) {
        return true;
    }
    assert!(child.status.success(), "{job}, {plan}: {child:?}");
    false
}

/// The contents of these files, or `-`.
pub(crate) fn texts(dir: &Path, names: &[&str]) -> Vec<String> {
    let read = |name: &&str| fs::read_to_string(dir.join(name)).unwrap_or_else(|_| "-".to_owned());
    names.iter().map(read).collect()
}

/// Every file below a directory, with content, inode and times of change.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for child in fs::read_dir(&at).unwrap().map(std::result::Result::unwrap) {
            let meta = child.metadata().unwrap();
            let bytes = if meta.is_dir() {
                open.push(child.path());
                Vec::new()
            } else {
                fs::read(child.path()).unwrap()
            };
            let facts = (meta.ino(), meta.ctime(), meta.ctime_nsec(), bytes);
            out.insert(child.path(), facts);
        }
    }
    out
}

/// Opens the segment files of all logs.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for log in fs::read_dir(dir.join(".steadfast/logs")).unwrap() {
        for file in fs::read_dir(log.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "seg") {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}
