//! Many writers, killed at random: what each of them was told is true, and all of it fits one order.
//!
//! Every file carries the name of the transaction that wrote it and, for each of them, of the one before. So
//! from what is there at the end one can walk back, file by file: nothing that was acknowledged may be
//! missing, and nothing may be half there.

use crate::common::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use steadfast::workspace::{Workspace, WorkspaceOptions};
use steadfast::{DiskState, ErrorKind, Root};

const DIR: &str = "STEADFAST_WORKSPACE_MANY";
const NAME: &str = "STEADFAST_WORKSPACE_NAME";
const PROCESSES: u64 = 4;
const THREADS: u64 = 8;
pub(crate) const FILES: usize = 24;

pub(crate) fn file(n: usize) -> String {
    format!("d{}/e{}/f{n}", n % 3, n % 2)
}

/// What the children are: this binary with two variables set. On its own it does nothing.
#[test]
fn child() {
    let (Some(dir), Ok(name)) = (std::env::var_os(DIR), std::env::var(NAME)) else {
        return;
    };
    let root = Root::open(Path::new(&dir).join("root")).unwrap();
    // Small enough for checkpoints to happen all the time.
    let options = WorkspaceOptions::new()
        .log(64 << 10, 8)
        .checkpoint_bytes(64 << 10)
        .remove_later_from(1)
        .wait(Duration::from_secs(60));
    let workspace = options.open(&root).unwrap();
    let log = |kind: &str, thread: u64| {
        let path = Path::new(&dir).join(format!("{kind}-{name}-{thread}"));
        fs::File::options()
            .create_new(true)
            .append(true)
            .open(path)
            .unwrap()
    };
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (mut intents, mut acks) = (log("intent", thread), log("ack", thread));
            let (workspace, name) = (&workspace, &name);
            threads.spawn(move || {
                let seed = name.bytes().fold(thread, |n, b| n * 131 + u64::from(b));
                let mut random = Random(seed);
                for turn in 0u64.. {
                    let id = format!("{name}-{thread}-{turn}");
                    write(workspace, &id, &mut random, &mut intents, &mut acks);
                }
            });
        }
    });
}

/// One transaction on some files: each gets the new name, and that of the one before.
fn write(
    workspace: &Workspace,
    id: &str,
    random: &mut Random,
    intents: &mut fs::File,
    acks: &mut fs::File,
) {
    let mut files = BTreeSet::new();
    for _ in 0..1 + random.below(5) {
        files.insert(random.below(FILES));
    }
    let mut tx = workspace.begin();
    tx.claim(files.iter().map(|n| file(*n))).unwrap();
    let mut intent = id.to_owned();
    // Now and then too long to travel in the record.
    let filler = if random.one_in(20) {
        30_000
    } else {
        random.below(200)
    };
    for n in &files {
        let old = String::from_utf8(tx.read(file(*n)).unwrap()).unwrap();
        let before = old.lines().next().unwrap();
        intent += &format!(" {n}={before}");
        // A rename on the way, at times.
        if random.one_in(6) {
            let aside = format!("{}-{id}", file(*n));
            tx.rename(file(*n), &aside).remove_file(&aside);
        }
        tx.write(file(*n), format!("{id}\n{before}\n{}", "x".repeat(filler)))
            .unwrap();
    }
    writeln!(intents, "{intent}").unwrap();
    match tx.commit() {
        Ok(receipt) => writeln!(acks, "{id} {}", receipt.number()).unwrap(),
        Err(e) => assert!(
            e.disk_state() == DiskState::Unchanged && e.kind() == ErrorKind::Busy,
            "{e}"
        ),
    }
}

fn spawn(dir: &Path, name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "many::child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    crate::common::spawn(&mut command)
}

#[test]
fn many_writers_killed_at_random() {
    let dir = crate::common::dir();
    let root = dir.path().join("root");
    for n in 0..FILES {
        let path = root.join(file(n));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "initial\n\n").unwrap();
    }
    let time = Duration::from_secs(if crate::long() { 60 } else { 4 });
    let start = Instant::now();
    let mut random = Random(7);
    let mut spawned = 0..;
    let mut next = || spawn(dir.path(), &format!("p{}", spawned.next().unwrap()));
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| next()).collect();
    let mut kills = 0;
    while start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(50 + random.next() % 300));
        let victim = random.below(children.len());
        // One that has ended by itself has found something wrong.
        let ended = children[victim].try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}");
        children[victim].kill().unwrap();
        children[victim].wait().unwrap();
        children[victim] = next();
        kills += 1;
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let workspace = Workspace::open(&Root::open(&root).unwrap()).unwrap();
    assert!(workspace.conflicts().unwrap().is_empty());
    workspace.close().unwrap();
    assert_eq!(crate::tree::litter(&root), Vec::<PathBuf>::new());
    let (acked, all) = check(dir.path(), &root);
    println!("{kills} kills, {acked} transactions acknowledged, {all} in the files' histories");
}

/// Lines of all logs of a kind. The last of each may be cut off.
pub(crate) fn lines(dir: &Path, kind: &str) -> Vec<String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with(kind) {
            let text = fs::read_to_string(entry.path()).unwrap();
            out.extend(
                text.split_inclusive('\n')
                    .filter_map(|l| l.strip_suffix('\n'))
                    .map(String::from),
            );
        }
    }
    out
}

/// Walks back from what is there. Gives how many transactions were acknowledged, and how many were found.
pub(crate) fn check(dir: &Path, root: &Path) -> (usize, usize) {
    let mut intents: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    for line in lines(dir, "intent-") {
        let mut words = line.split(' ');
        let id = words.next().unwrap().to_owned();
        let before = words.map(|w| {
            let (n, before) = w.split_once('=').unwrap();
            (n.parse().unwrap(), before.to_owned())
        });
        intents.insert(id, before.collect());
    }
    let acks: BTreeMap<String, u64> = lines(dir, "ack-")
        .iter()
        .map(|line| {
            let (id, number) = line.split_once(' ').unwrap();
            (id.to_owned(), number.parse().unwrap())
        })
        .collect();
    let mut histories: Vec<Vec<String>> = Vec::new();
    for n in 0..FILES {
        let text = fs::read_to_string(root.join(file(n))).unwrap();
        let mut id = text.lines().next().unwrap().to_owned();
        let mut history = Vec::new();
        while id != "initial" {
            assert!(!history.contains(&id) || history.len() < 1_000_000);
            let before = intents
                .get(&id)
                .unwrap_or_else(|| panic!("{id}: nobody wrote that"));
            let before = before
                .get(&n)
                .unwrap_or_else(|| panic!("{id}: not in file {n}"));
            history.push(std::mem::replace(&mut id, before.clone()));
        }
        history.reverse();
        histories.push(history);
    }
    let found: Vec<BTreeSet<&String>> = histories.iter().map(|h| h.iter().collect()).collect();
    for (id, files) in &intents {
        let there = files.keys().filter(|n| found[**n].contains(id)).count();
        assert!(
            there == 0 || there == files.len(),
            "{id}: half of it is there, number {:?}: {files:?}, in {:?}",
            acks.get(id),
            files
                .keys()
                .filter(|n| found[**n].contains(id))
                .collect::<Vec<_>>()
        );
        assert!(
            there > 0 || !acks.contains_key(id),
            "{id}: acknowledged and lost"
        );
    }
    for id in lines(dir, "refused-") {
        let none = found.iter().all(|history| !history.contains(&id));
        assert!(none, "{id}: refused, nothing changed, and there");
    }
    for id in lines(dir, "promised-") {
        let some = found.iter().any(|history| history.contains(&id));
        assert!(some, "{id}: not finished, but promised, and lost");
    }
    // One order for all: that of the numbers where they are known, and no circle where not.
    let mut after: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    let mut waits: BTreeMap<&String, usize> = BTreeMap::new();
    for history in &histories {
        let numbers: Vec<u64> = history
            .iter()
            .filter_map(|id| acks.get(id))
            .copied()
            .collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "numbers against the order: {numbers:?}"
        );
        for id in history {
            waits.entry(id).or_default();
        }
        for pair in history.windows(2) {
            if after.entry(&pair[0]).or_default().insert(&pair[1]) {
                *waits.entry(&pair[1]).or_default() += 1;
            }
        }
    }
    let all = waits.len();
    let mut free: Vec<&String> = Vec::new();
    waits.retain(|id, n| {
        if *n == 0 {
            free.push(id);
        }
        *n > 0
    });
    while let Some(id) = free.pop() {
        for next in after.remove(id).unwrap_or_default() {
            if let Some(n) = waits.get_mut(next) {
                *n -= 1;
                if *n == 0 {
                    waits.remove(next);
                    free.push(next);
                }
            }
        }
    }
    assert!(waits.is_empty(), "no order fits: {waits:?}");
    (acks.len(), all)
}
