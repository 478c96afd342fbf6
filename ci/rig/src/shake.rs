//! What happens beside the work: commits and writeback between two calls, which in real life timers cause.

use crate::device::{Device, Kind, Through, run};
use crate::random::Random;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};
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
    random: Mutex<Random>,
    commits: AtomicUsize,
    /// Where btrfs tells how many commits there have been.
    counter: Option<PathBuf>,
}

impl Shake {
    /// For what is mounted at `at`, which has no more than it was made with.
    pub(crate) fn new(device: &Device, pace: Pace, seed: u64) -> crate::Answer<Self> {
        let (kind, at) = (device.kind, device.at.clone());
        if kind.fs == "btrfs" {
            for dir in ["even", "odd"] {
                fs::create_dir(at.join(dir))?;
            }
            fs::write(at.join("even/file"), "")?;
        } else {
            fs::write(at.join("other"), "")?;
            // With nothing of its own to be written.
            File::open(at.join("other"))?.sync_all()?;
        }
        Ok(Self {
            kind,
            at,
            pace,
            random: Mutex::new(Random(seed)),
            commits: AtomicUsize::new(0),
            counter: counter(device.node(Through::Recorded)),
        })
    }

    /// Between two calls of the work, unless something happens already. That something cannot be done to a
    /// file which the work has just taken away is no matter.
    pub(crate) fn call(&self) {
        // Of its own calls it hears as well.
        let Ok(mut random) = self.random.try_lock() else {
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

    /// Does work between whose calls nobody can be put: all happens beside it, at any moment.
    pub(crate) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.pace.commit.is_none() && self.pace.write_back.is_none() {
            return work();
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    self.call();
                    let pause = self
                        .random
                        .lock()
                        .map_or(0, |mut random| random.below(1000));
                    std::thread::sleep(Duration::from_micros(pause as u64));
                }
            });
            let _done = End(&done);
            work()
        })
    }

    /// The file system commits what it has of names and sizes, without the data of the files.
    fn commit(&self) -> crate::Answer<()> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        if self.kind.fs != "btrfs" {
            // A time and no data, which would have to wait for its turn behind that of the work.
            let other = File::options().write(true).open(self.at.join("other"))?;
            other.set_modified(UNIX_EPOCH + Duration::from_secs(number as u64))?;
            return Ok(other.sync_all()?);
        }
        let before = self.counted();
        // It cannot log a directory that a file has just been moved out of, and commits everything.
        let [from, to] = if number.is_multiple_of(2) {
            ["even", "odd"]
        } else {
            ["odd", "even"]
        };
        let [from, to] = [from, to].map(|dir| self.at.join(dir));
        fs::rename(from.join("file"), to.join("file"))?;
        File::open(&from)?.sync_all()?;
        if before.is_none() || self.counted() == before {
            // The slow way, where that is not so.
            let label = format!("commit {number}");
            run(Command::new("btrfs")
                .args(["filesystem", "label"])
                .arg(&self.at)
                .arg(label))?;
        }
        Ok(())
    }

    /// The line of the counter that counts.
    fn counted(&self) -> Option<String> {
        let text = fs::read_to_string(self.counter.as_ref()?).ok()?;
        text.lines().next().map(str::to_owned)
    }
}

/// Says that the work is done, however it ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn counter(node: &Path) -> Option<PathBuf> {
    let name = node.file_name()?;
    let all = fs::read_dir("/sys/fs/btrfs").ok()?;
    let mut all = all.filter_map(|entry| Some(entry.ok()?.path()));
    let own = all.find(|dir| dir.join("devices").join(name).exists())?;
    Some(own.join("commit_stats")).filter(|file| file.exists())
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
