//! A store of settings that several processes change at the same time, by compare and swap.
//!
//! Nobody waits while he thinks: a change is made from what was read, and is refused if that is not the state
//! any more. Then it is made again from the new state. The example starts itself several times.

use std::error::Error;
use std::process::Command;
use std::time::Duration;
use steadfast::workspace::{Workspace, WorkspaceOptions};
use steadfast::{DiskState, ErrorKind, Root};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PROCESSES: u64 = 4;
const CHANGES: u64 = 12;

/// The settings: one file for each, and a file with the number of changes.
struct Store {
    workspace: Workspace,
}

impl Store {
    fn open(path: &str) -> Result<Self> {
        // A busy machine is no reason to give up.
        let options = WorkspaceOptions::new().wait(Duration::from_secs(300));
        let workspace = options.open(&Root::open(path)?)?;
        Ok(Self { workspace })
    }

    fn get(&self, key: &str) -> Result<Option<String>> {
        let mut tx = self.workspace.begin();
        if !tx.exists(key)? {
            return Ok(None);
        }
        Ok(Some(String::from_utf8(tx.read(key)?)?))
    }

    /// One attempt: `change` is given what is there, and its answer is written only if that is still there.
    fn attempt(&self, key: &str, change: impl Fn(u64) -> u64) -> steadfast::Result<()> {
        let number = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0);
        let mut tx = self.workspace.begin();
        // What is read here, and that there is none, must hold when this commits.
        let old = match tx.exists(key)? {
            true => number(tx.read(key)?),
            false => 0,
        };
        let changes = number(tx.read("changes")?);
        tx.write(key, format!("{}\n", change(old)))?;
        tx.write("changes", format!("{}\n", changes + 1))?;
        tx.commit()?;
        Ok(())
    }

    /// Attempts until one succeeds, and says how many it took.
    fn update(&self, key: &str, change: impl Fn(u64) -> u64) -> Result<u64> {
        for attempts in 1.. {
            match self.attempt(key, &change) {
                // Somebody was faster, and nothing has changed. So each round somebody gets on.
                Err(e) if e.kind() == ErrorKind::Changed => {
                    assert_eq!(e.disk_state(), DiskState::Unchanged);
                }
                done => return Ok(done.map(|()| attempts)?),
            }
        }
        Err("never".into())
    }
}

/// One of the processes: counts in a setting that all of them share, and in one of its own.
fn work(path: &str, own: &str) -> Result<()> {
    let store = Store::open(path)?;
    let mut attempts = 0;
    for _ in 0..CHANGES {
        attempts += store.update("shared", |n| n + 1)?;
        attempts += store.update(own, |n| n + 1)?;
    }
    println!("{own}: {} changes in {attempts} attempts", 2 * CHANGES);
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, path, own] = &args[..] {
        return work(path, own);
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_str().ok_or("not a text")?;
    let store = Store::open(path)?;
    let mut tx = store.workspace.begin();
    tx.write("changes", "0\n")?;
    tx.commit()?;

    let mut children = Vec::new();
    for n in 0..PROCESSES {
        let me = std::env::current_exe()?;
        children.push(Command::new(me).args([path, &format!("own-{n}")]).spawn()?);
    }
    for mut child in children {
        assert!(child.wait()?.success());
    }

    // No change is lost, whoever came between, and the two files of each were changed as one.
    let number = |key: &str| -> Result<u64> {
        let text = store.get(key)?.ok_or("it is not there")?;
        Ok(text.trim().parse()?)
    };
    assert_eq!(number("shared")?, PROCESSES * CHANGES);
    for n in 0..PROCESSES {
        assert_eq!(number(&format!("own-{n}"))?, CHANGES);
    }
    assert_eq!(number("changes")?, 2 * PROCESSES * CHANGES);
    println!("all {} changes are there", number("changes")?);

    // And what was refused has changed nothing: here somebody comes between, for certain.
    let mut late = store.workspace.begin();
    late.read("shared")?;
    late.write("shared", "0\n")?;
    store.update("shared", |n| n + 1)?;
    match late.commit() {
        Err(e) if e.kind() == ErrorKind::Changed => println!("refused: {e}"),
        other => return Err(format!("not refused: {other:?}").into()),
    }
    assert_eq!(number("shared")?, PROCESSES * CHANGES + 1);
    store.workspace.close()?;
    Ok(())
}
