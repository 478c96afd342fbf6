//! Processes that commit one transaction after the other, killed at any moment.

use crate::common::{Random, spawn};
use crate::faults::usable;
use crate::scripts::{self, Script, five};
use crate::tree::{Entry, Tree, difference, tree};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use steadfast::Root;
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Transaction, Workspace};

const DIR: &str = "STEADFAST_WORKSPACE_RANDOM";
const COUNT: &str = "count";
const DONE: &str = "done ";

/// Those that can be done more than once: a key is for one time.
fn steps() -> Vec<Script> {
    let mut all = scripts::all();
    all.retain(|script| !script.name.starts_with("a tree moved"));
    all
}

/// Which of the scripts the n-th transaction is; every other one puts back the tree before.
fn step(n: u64, of: usize) -> Option<usize> {
    let mut random = Random(n);
    (n % 2 == 1).then(|| random.below(of))
}

/// What [`five`] makes, in place of all that is there.
fn put_back(dir: &Path, tx: &mut Transaction<'_>) -> steadfast::Result<()> {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_name() == ".steadfast" || entry.file_name() == COUNT {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            tx.remove_tree(entry.file_name());
        } else {
            tx.remove_file(entry.file_name());
        }
    }
    tx.create_dir_all("d/e");
    for n in 0..5 {
        tx.create_new(format!("f{n}"), format!("old {n}"))?;
    }
    tx.set_attributes("f1", Attributes::new().mode(Mode::from_bits_retain(0o600)));
    tx.write("d/x", "old x")?;
    tx.write("d/e/y", "old y")?;
    tx.symlink("f0", "link");
    Ok(())
}

fn done(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(COUNT))
        .unwrap()
        .parse()
        .unwrap()
}

fn transact(workspace: &Workspace, steps: &[Script], dir: &Path, n: u64) {
    let mut tx = workspace.begin();
    match step(n, steps.len()) {
        Some(script) => (steps[script].run)(&mut tx).unwrap(),
        None => put_back(dir, &mut tx).unwrap(),
    }
    tx.write(COUNT, n.to_string()).unwrap();
    tx.commit().unwrap();
}

/// What the children are: this binary with a variable set. On its own it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let workspace = Workspace::open(&Root::open(dir).unwrap()).unwrap();
    let steps = steps();
    println!("{DONE}{}", done(dir));
    for n in done(dir) + 1.. {
        transact(&workspace, &steps, dir, n);
        println!("{DONE}{n}");
    }
}

/// The tree without the count, after each script and (`None`) where it is put back.
fn model(steps: &[Script]) -> BTreeMap<Option<usize>, Tree> {
    let mut out = BTreeMap::new();
    for script in (0..steps.len()).map(Some).chain([None]) {
        let top = crate::dir();
        five(top.path());
        let workspace = Workspace::open(&Root::open(top.path()).unwrap()).unwrap();
        let mut tx = workspace.begin();
        if let Some(script) = script {
            (steps[script].run)(&mut tx).unwrap();
        }
        tx.commit().unwrap();
        out.insert(script, tree(top.path()));
    }
    out
}

/// Starts a child and kills it after a random time. The last that it said was done.
fn killed(dir: &Path, random: &mut Random) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "random::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut said = child.stdout.take().unwrap();
    // Often while it begins, more often when it is at work.
    if !random.one_in(8) {
        let mut first = Vec::new();
        let mut byte = [0];
        while !first.ends_with(DONE.as_bytes()) {
            assert_eq!(said.read(&mut byte).unwrap(), 1, "it ended by itself");
            first.push(byte[0]);
        }
    }
    std::thread::sleep(Duration::from_micros(random.next() % 20_000));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    // The last line may be half written.
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    let last = whole.lines().last().unwrap_or_default();
    let number = last.rsplit(DONE).next().unwrap_or_default();
    number.parse().unwrap_or_default()
}

#[test]
fn killed_at_any_moment() {
    let kills = match std::env::var_os("STEADFAST_TEST_DIR") {
        Some(_) if !crate::long() => 50,
        _ => 1000,
    };
    let steps = steps();
    let model = model(&steps);
    let mut random = Random(u64::from(std::process::id()));
    let seed = random.0;
    let mut behind = 0;
    let mut top = None;
    let mut before = 0;
    for kill in 0..kills {
        if kill % 50 == 0 {
            top = None;
            before = 0;
        }
        let top = top.get_or_insert_with(|| {
            let top = crate::dir();
            five(top.path());
            fs::write(top.path().join(COUNT), "0").unwrap();
            let root = Root::open(top.path()).unwrap();
            Workspace::open(&root).unwrap().close().unwrap();
            top
        });
        let dir = top.path();
        let acknowledged = killed(dir, &mut random).max(before);
        let context = format!("seed {seed}, kill {kill}, {acknowledged} acknowledged");
        usable(dir, &context);
        let now = done(dir);
        assert!(
            now == acknowledged || now == acknowledged + 1,
            "{context}: {now}"
        );
        behind += u64::from(now > acknowledged);
        let mut tree = tree(dir);
        let count = tree.remove(Path::new(COUNT));
        assert!(
            matches!(count, Some(Entry::File(..))),
            "{context}: {count:?}"
        );
        let expected = &model[&step(now, steps.len())];
        assert!(
            tree == *expected,
            "{context}: {now}\n{}",
            difference(&tree, expected)
        );
        before = now;
    }
    println!("{kills} kills, {behind} after a commit that was not acknowledged");
}
