//! Sweepers run all the while that writers publish and are killed: nothing of a living writer goes, and
//! nothing that is to be kept.

use crate::common::Random;
use crate::common::{FOREVER, spawn, wait_until};
use crate::state::sweep_all;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use steadfast::publish::{
    Batch, FileOptions, FolderOptions, Kept, Staging, SweepOptions, Target, Version, sweep,
};
use steadfast::sys::{AtFlags, hook};
use steadfast::{Durability, Error, ErrorKind, Root};

const DIR: &str = "STEADFAST_FAULTS_WRITER";
const SEED: &str = "STEADFAST_FAULTS_SEED";
const FILES: usize = 5;

fn no_exchange() -> bool {
    hook::denied_by_env("renameat2(RENAME_EXCHANGE)")
}

/// A writer that publishes until it is killed or told to stop. What is done is written down after it is done.
struct Writer {
    root: Root,
    dir: PathBuf,
    log: File,
    random: Random,
    name: String,
}

impl Writer {
    fn done(&mut self, what: &str, id: &str) {
        self.log
            .write_all(format!("{what} {id}\n").as_bytes())
            .unwrap();
    }

    /// Adds a line to the file `n`, if that is what was read.
    fn add_line(&mut self, id: &str, options: FileOptions) -> steadfast::Result<()> {
        let mut file = File::open(self.dir.join("n")).unwrap();
        let seen = steadfast::sys::statx(&file, c"", AtFlags::EMPTY_PATH).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        let seen = Target::IfUnchanged(Version::of_metadata(&seen));
        options
            .target(seen)
            .write(&self.root, "n", format!("{text}{id}\n"))?;
        self.done("line", id);
        Ok(())
    }

    /// Replaces the folder and keeps the old one.
    fn folder(&mut self, id: &str) -> steadfast::Result<()> {
        let options = FolderOptions::new()
            .durability(Durability::None)
            .keep_old(format!("old/kept-{id}"));
        let folder = options.begin(&self.root, "live")?;
        let inside = FileOptions::new().durability(Durability::None);
        for name in ["id", "a", "b"] {
            inside.write(folder.root(), name, id)?;
        }
        folder.commit()?;
        self.done("folder", id);
        Ok(())
    }

    fn batch(&mut self, id: &str, options: &FileOptions) -> steadfast::Result<()> {
        let mut batch = Batch::new(&self.root)?;
        for n in 0..FILES {
            batch.write(format!("b{n}"), content(id), options)?;
        }
        batch.commit().map(drop)
    }

    fn once(&mut self, number: u64) -> steadfast::Result<()> {
        let id = format!("{}-{number}", self.name);
        let options = FileOptions::new().durability(Durability::None);
        let options = match self.random.below(3) {
            0 => options,
            1 => options.staging(Staging::Unnamed),
            _ => options.staging(Staging::In("stage".into())),
        };
        match self.random.below(4) {
            0 | 1 => self.add_line(&id, options),
            2 => self.folder(&id),
            _ => self.batch(&id, &options),
        }
    }
}

/// A content of several writes' length that says its id all over.
fn content(id: &str) -> String {
    format!("{id}\n").repeat(500)
}

fn may_be(error: &Error) -> bool {
    match error.kind() {
        // Another writer was faster.
        ErrorKind::Changed => true,
        ErrorKind::Unsupported => no_exchange(),
        _ => false,
    }
}

/// A writing process. On its own it does nothing.
#[test]
fn writer() {
    let (Some(dir), Ok(seed)) = (std::env::var_os(DIR), std::env::var(SEED)) else {
        return;
    };
    let top = PathBuf::from(dir);
    let dir = top.join("dir");
    let log = OpenOptions::new()
        .append(true)
        .open(top.join("log"))
        .unwrap();
    let random = Random(seed.parse().unwrap());
    let root = Root::open(&dir).unwrap();
    let mut writer = Writer {
        root,
        dir,
        log,
        random,
        name: seed,
    };
    for number in 0.. {
        if top.join("stop").exists() {
            return;
        }
        if let Err(error) = writer.once(number) {
            assert!(
                may_be(&error),
                "a living writer's work was disturbed: {error}"
            );
        }
    }
}

fn start(top: &Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "interplay::writer",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, top)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawn(&mut command)
}

/// How many updates and folders were acknowledged so far.
fn acknowledged(top: &Path) -> u64 {
    fs::read_to_string(top.join("log")).unwrap().lines().count() as u64
}

/// Keeps three writers running and kills one after the other, until that is enough kills. Gives their number.
fn kill_along(top: &Path, enough: impl Fn(u64) -> bool) -> u64 {
    let mut random = Random(4711);
    let mut seed = 0;
    let mut writers: Vec<Child> = Vec::new();
    let mut kills = 0;
    loop {
        while writers.len() < 3 {
            seed += 1;
            writers.push(start(top, seed));
        }
        std::thread::sleep(Duration::from_millis(random.next() % 60));
        // On a busy machine a writer needs longer to begin, and none would come to anything.
        wait_until("an update", || acknowledged(top) > 2 * kills);
        let mut victim = writers.swap_remove(random.below(writers.len()));
        if let Some(status) = victim.try_wait().unwrap() {
            let output = victim.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("a writer ended, {status}: {text}");
        }
        if enough(kills) {
            writers.push(victim);
            break;
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        kills += 1;
    }
    File::create(top.join("stop")).unwrap();
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "a writer failed: {text}");
    }
    kills
}

#[test]
fn nothing_of_the_living_and_nothing_kept_is_swept() {
    let top = crate::dir();
    let dir = top.path().join("dir");
    for name in ["live", "stage", "old"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("live/id"), "first").unwrap();
    fs::write(dir.join("n"), "").unwrap();
    File::create(top.path().join("log")).unwrap();
    let root = Root::open(&dir).unwrap();
    let stop = AtomicBool::new(false);
    let swept = AtomicUsize::new(0);
    let start = Instant::now();
    let time = Duration::from_secs(if crate::long() { 60 } else { 5 });
    let (kills, in_use) = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let mut in_use = 0;
            // Where writers work, and not what they have kept: a short round meets more of them.
            let options = SweepOptions::new();
            while !stop.load(Ordering::Relaxed) {
                for place in [".", "stage"] {
                    let report = sweep(&root, place, &options).unwrap();
                    swept.fetch_add(report.removed().len(), Ordering::Relaxed);
                    let kept = report.kept().iter();
                    in_use += kept.filter(|(_, k)| *k == Kept::InUse).count();
                }
            }
            in_use
        });
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = Stop(&stop);
        // Something was met of everything, however long that takes here.
        let enough = |kills| {
            let met = kills > 20 && acknowledged(top.path()) > 50;
            let met = met && swept.load(Ordering::Relaxed) > 0 && start.elapsed() > time;
            assert!(met || start.elapsed() < time + FOREVER, "{kills} kills");
            met || sweeper.is_finished()
        };
        let kills = kill_along(top.path(), enough);
        drop(stop);
        (kills, sweeper.join().unwrap())
    });
    let swept = swept.into_inner();
    sweep_all(&dir, true, "at the end");

    // Everything that was acknowledged is found: in its place, kept, or displaced for a person to look at.
    let (mut lines, mut folders) = (BTreeSet::new(), BTreeSet::new());
    let places = ["", "stage", "old"].map(|place| fs::read_dir(dir.join(place)).unwrap());
    for entry in places.into_iter().flatten() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        let name = name.to_str().unwrap();
        if path.is_dir() {
            // Where a free name cannot be asked for, a kill may leave the empty folder that claimed it.
            let claims = hook::denied_by_env("renameat2(RENAME_NOREPLACE)");
            let claim = claims && fs::read_dir(&path).unwrap().next().is_none();
            if name != "stage" && name != "old" && !claim {
                folders.insert(fs::read_to_string(path.join("id")).unwrap());
            }
        } else if name == "n" || name.starts_with(".sf-") {
            let text = fs::read_to_string(&path).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let id = text.lines().next().unwrap_or("");
            assert_eq!(text, content(id), "{path:?} is not whole");
        }
    }
    let log = fs::read_to_string(top.path().join("log")).unwrap();
    let (mut acknowledged, mut lost) = (0, Vec::new());
    for line in log.lines() {
        let (what, id) = line.split_once(' ').unwrap();
        acknowledged += 1;
        // Without the exchange the condition is looked at before, and the last writer wins.
        let found = if what == "line" {
            lines.contains(id) || no_exchange()
        } else {
            folders.contains(id)
        };
        if !found {
            lost.push(line);
        }
    }
    println!(
        "{kills} writers killed, {acknowledged} updates and folders acknowledged, {swept} temporaries swept, \
         {in_use} times one in use left alone"
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(folders.contains("first"), "what was there at first is lost");
}
