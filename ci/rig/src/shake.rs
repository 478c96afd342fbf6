//! What happens beside the work: commits and writeback between two calls, which in real life timers cause.

use crate::device::{Kind, run};
use crate::random::Random;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast::sys::{SyncRange, sync_file_range};

/// How often something happens: at one of this many calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) commit: Option<usize>,
    pub(crate) write_back: Option<usize>,
}

impl Pace {
    /// Round 0 is left alone, round 1 has many commits, the later ones have some of everything.
    pub(crate) fn of(round: usize) -> Self {
        let (commit, write_back) = match round {
            0 => (None, None),
            1 => (Some(2), None),
            2 => (Some(6), Some(6)),
            _ => (Some(12), Some(4)),
        };
        Self { commit, write_back }
    }
}

#[derive(Debug)]
pub(crate) struct Shake {
    kind: &'static Kind,
    at: PathBuf,
    pace: Pace,
    random: RefCell<Random>,
    commits: Cell<u64>,
}

impl Shake {
    pub(crate) fn new(kind: &'static Kind, at: &Path, pace: Pace, seed: u64) -> Self {
        Self {
            kind,
            at: at.to_owned(),
            pace,
            random: RefCell::new(Random(seed)),
            commits: Cell::new(0),
        }
    }

    /// Between two calls of the work. That something cannot be done to a file which the work has just taken
    /// away is no matter.
    pub(crate) fn call(&self) {
        // Of its own calls it hears as well.
        let Ok(mut random) = self.random.try_borrow_mut() else {
            return;
        };
        if self.pace.commit.is_some_and(|n| random.one_in(n)) {
            let _ = self.commit();
        }
        if self.pace.write_back.is_some_and(|n| random.one_in(n)) {
            let mut files = Vec::new();
            let _ = find(&self.at.join("t"), &mut files);
            if let Some(file) = random.of(&files).and_then(|path| File::open(path).ok()) {
                let _ = sync_file_range(&file, 0, 0, SyncRange::WriteAndWait);
            }
        }
    }

    /// The file system commits what it has of names and sizes, without the data of the files.
    fn commit(&self) -> crate::Answer<()> {
        let number = self.commits.replace(self.commits.get() + 1);
        if self.kind.fs == "btrfs" {
            let label = format!("commit {number}");
            run(Command::new("btrfs")
                .args(["filesystem", "label"])
                .arg(&self.at)
                .arg(label))?;
        } else {
            let mut other = File::options().append(true).open(self.at.join("other"))?;
            other.write_all(b".")?;
            other.sync_all()?;
        }
        Ok(())
    }
}

fn find(dir: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find(&entry.path(), out)?;
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
    Ok(())
}
