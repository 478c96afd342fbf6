//! Writers on a small file system of their own that are killed and stopped, while the disk fills up and
//! becomes read-only and writable again. What each was told is true, errors too, and all of it fits one
//! order.
//! `ci/soak.sh` runs it.

use crate::common::{FOREVER, Random, output, skipped, spawn};
use crate::many::{FILES, check, file, lines};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use steadfast::workspace::{Workspace, WorkspaceOptions};
use steadfast::{DiskState, Error, ErrorKind, Root};

/// Seconds, and the file system.
const TIME: &str = "STEADFAST_SOAK";
const DISK: &str = "STEADFAST_SOAK_DISK";
/// Of children: where they keep their logs, and who they are.
const LOGS: &str = "STEADFAST_SOAK_LOGS";
const NAME: &str = "STEADFAST_SOAK_NAME";
const WRITERS: usize = 3;
const THREADS: u64 = 4;
/// What a writer ends with that was told to open the workspace again.
const AGAIN: i32 = 7;
const HELD: &str = "held";

fn open(disk: &Path, wait: Duration) -> steadfast::Result<Workspace> {
    WorkspaceOptions::new()
        .log(64 << 10, 8)
        .checkpoint_bytes(64 << 10)
        .remove_later_from(1)
        .wait(wait)
        .open(&Root::open(disk.join("root"))?)
}

/// Whether it is about room. What a removed file had is free only when the file system has written that down.
fn no_room(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// Opens it, once there is room and nobody else is recovering.
fn open_at_last(disk: &Path, wait: Duration) -> Workspace {
    let start = Instant::now();
    loop {
        match open(disk, wait) {
            Err(e) if no_room(&e) || e.kind() == ErrorKind::Busy => {
                assert!(start.elapsed() < FOREVER, "{e:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done.unwrap(),
        }
    }
}

/// Closes it; again, if there was no room for what that writes.
fn close_at_last(workspace: Workspace, disk: &Path) {
    let start = Instant::now();
    let mut done = workspace.close();
    while let Err(error) = done {
        expected(&error);
        assert!(start.elapsed() < FOREVER, "{error:?}");
        done = open_at_last(disk, FOREVER).close();
    }
}

/// That an error is one of a disk like this.
fn expected(error: &Error) {
    use ErrorKind::{Busy, Poisoned, QuotaExceeded, ReadOnly, StorageFull, WouldBlock};
    let kinds = [
        Busy,
        Poisoned,
        QuotaExceeded,
        ReadOnly,
        StorageFull,
        WouldBlock,
    ];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

struct Logs(PathBuf, String);

impl Logs {
    fn say(&self, kind: &str, line: &str) {
        let mut log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.0.join(format!("{kind}-{}", self.1)))
            .unwrap();
        // In one call, so that a kill leaves a whole line or none, or one that is cut off.
        log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// What the writers are: this binary with variables set. On its own it does nothing.
#[test]
fn child() {
    let (Some(logs), Ok(name)) = (std::env::var_os(LOGS), std::env::var(NAME)) else {
        return;
    };
    let disk = PathBuf::from(std::env::var_os(DISK).unwrap());
    let workspace = open(&disk, FOREVER).unwrap_or_else(|error| {
        expected(&error);
        let logs = Logs(logs.clone().into(), name.clone());
        logs.say("error", &format!("{:?} on opening", error.kind()));
        std::process::exit(AGAIN)
    });
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let logs = Logs(logs.clone().into(), format!("{name}-{thread}"));
            let workspace = &workspace;
            threads.spawn(move || {
                let mut random = Random(logs.1.bytes().fold(9, |n, b| n * 131 + u64::from(b)));
                for turn in 0_u64.. {
                    let id = format!("{}-{turn}", logs.1);
                    if let Err(error) = write(workspace, &id, &mut random, &logs) {
                        expected(&error);
                        logs.say("error", &format!("{:?}", error.kind()));
                        if error.disk_state() != DiskState::Unchanged
                            || error.kind() == ErrorKind::Poisoned
                        {
                            std::process::exit(AGAIN);
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
    });
}

fn write(
    workspace: &Workspace,
    id: &str,
    random: &mut Random,
    logs: &Logs,
) -> steadfast::Result<()> {
    let files: BTreeSet<usize> = (0..1 + random.below(4))
        .map(|_| random.below(FILES))
        .collect();
    let mut tx = workspace.begin();
    tx.claim(files.iter().map(|n| file(*n)))?;
    let mut intent = id.to_owned();
    let len = if random.one_in(20) {
        30_000
    } else {
        random.below(200)
    };
    for n in &files {
        let old = String::from_utf8(tx.read(file(*n))?).unwrap();
        let before = old.lines().next().unwrap();
        intent += &format!(" {n}={before}");
        tx.write(file(*n), format!("{id}\n{before}\n{}", "x".repeat(len)))?;
    }
    logs.say("intent", &intent);
    let done = tx.commit();
    match &done {
        Ok(receipt) => logs.say("ack", &format!("{id} {}", receipt.number())),
        Err(error) => match error.disk_state() {
            DiskState::Unchanged => logs.say("refused", id),
            DiskState::Committed => logs.say("promised", id),
            _ => {}
        },
    }
    done.map(drop)
}

/// Holds a claim until it is told to go on, and then commits.
#[test]
fn holder() {
    if std::env::var_os(LOGS).is_none() || std::env::var_os(NAME).is_some() {
        return;
    }
    let disk = PathBuf::from(std::env::var_os(DISK).unwrap());
    let workspace = open_at_last(&disk, FOREVER);
    let mut tx = workspace.begin();
    tx.claim([HELD]).unwrap();
    println!("\nholding");
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let before = number(tx.read(HELD).unwrap());
    let done = tx.write(HELD, (before + 1).to_string());
    let mut done = done.and_then(|()| tx.commit().map(drop));
    let mut workspace = workspace;
    // The disk was full a moment ago: it is done again, unless it is done.
    while let Err(error) = done {
        expected(&error);
        std::thread::sleep(Duration::from_millis(50));
        drop(workspace);
        workspace = open_at_last(&disk, FOREVER);
        let mut tx = workspace.begin();
        tx.claim([HELD]).unwrap();
        done = match number(tx.read(HELD).unwrap()) {
            now if now == before => {
                let done = tx.write(HELD, (before + 1).to_string());
                done.and_then(|()| tx.commit().map(drop))
            }
            now => {
                assert_eq!(now, before + 1);
                Ok(())
            }
        };
    }
    close_at_last(workspace, &disk);
}

fn number(text: Vec<u8>) -> u64 {
    String::from_utf8(text).unwrap().parse().unwrap()
}

/// For what a file system may refuse on a full disk, and not for long.
fn until_there_is_room<T>(mut f: impl FnMut() -> std::io::Result<T>) -> T {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let start = Instant::now();
    loop {
        match f() {
            Err(e) if matches!(e.kind(), StorageFull | QuotaExceeded) => {
                assert!(start.elapsed() < FOREVER, "{e:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done.unwrap(),
        }
    }
}

struct Soak {
    disk: PathBuf,
    logs: PathBuf,
    started: u64,
    writers: Vec<Child>,
}

impl Soak {
    fn child(&self, test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(DISK, &self.disk)
            .env(LOGS, &self.logs)
            .env_remove(TIME);
        command
    }

    fn start(&mut self) -> Child {
        self.started += 1;
        let mut command = self.child("soak::child");
        command
            .env(NAME, format!("w{}", self.started))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        spawn(&mut command)
    }

    fn start_all(&mut self) {
        while self.writers.len() < WRITERS {
            let next = self.start();
            self.writers.push(next);
        }
    }

    fn kill_all(&mut self) {
        for mut child in self.writers.drain(..) {
            // It may have ended by itself.
            let _ = child.kill();
            let status = child.wait().unwrap();
            assert!(status.code().is_none_or(|code| code == AGAIN), "{status}");
        }
    }

    /// Writers that were told to open the workspace again do. One that ended otherwise has found something
    /// wrong.
    fn look_after(&mut self) {
        for n in 0..self.writers.len() {
            if let Some(status) = self.writers[n].try_wait().unwrap() {
                assert_eq!(status.code(), Some(AGAIN), "{status}");
                self.writers[n] = self.start();
            }
        }
    }

    fn pause(&mut self, random: &mut Random) {
        let until = Instant::now() + Duration::from_millis(100 + random.next() % 400);
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            self.look_after();
        }
    }

    fn signal(child: &Child, signal: Signal) {
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// While a holder is stopped nobody has what it holds, however long that lasts; then it goes on.
    fn stopped_holder(&mut self, random: &mut Random) {
        let before = fs::read_to_string(self.disk.join("root").join(HELD)).unwrap();
        let mut command = self.child("soak::holder");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = spawn(&mut command);
        let said = BufReader::new(holder.stdout.take().unwrap());
        let mut said = said.lines().map_while(Result::ok);
        assert!(
            said.any(|line| line.contains("holding")),
            "it holds nothing"
        );
        Self::signal(&holder, Signal::STOP);
        self.pause(random);
        // It does not wait for what is claimed.
        let other = open_at_last(&self.disk, Duration::ZERO);
        let error = other.begin().claim([HELD]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        holder.stdin.take().unwrap().write_all(b"x").unwrap();
        Self::signal(&holder, Signal::CONT);
        let status = holder.wait().unwrap();
        assert!(status.success(), "{status}: {:?}", said.collect::<Vec<_>>());
        close_at_last(other, &self.disk);
        let late = open_at_last(&self.disk, FOREVER);
        late.begin().claim([HELD]).unwrap();
        close_at_last(late, &self.disk);
        let after = fs::read_to_string(self.disk.join("root").join(HELD)).unwrap();
        assert_eq!(after, (before.parse::<u64>().unwrap() + 1).to_string());
    }

    /// Everything that is left of the disk is taken, for a while.
    fn full_disk(&mut self, random: &mut Random) {
        let path = self.disk.join("filler");
        let mut filler = until_there_is_room(|| fs::File::create(&path));
        for len in [1 << 20, 4096, 512] {
            while filler
                .write_all(&vec![1; len])
                .and_then(|()| filler.sync_data())
                .is_ok()
            {}
        }
        self.pause(random);
        drop(filler);
        until_there_is_room(|| fs::remove_file(&path));
    }

    /// Nobody can begin on a disk that is read-only, and nothing is lost when it is writable again.
    fn read_only(&mut self) {
        self.kill_all();
        let remount = |how: &str| {
            let mut mount = Command::new("mount");
            mount
                .args(["-o", &format!("remount,{how}")])
                .arg(&self.disk);
            let start = Instant::now();
            loop {
                let done = output(&mut mount).unwrap();
                if done.status.success() {
                    break;
                }
                // Somebody may be looking at it.
                assert!(start.elapsed() < FOREVER, "{how}: {done:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        remount("ro");
        let acknowledged = lines(&self.logs, "ack-").len();
        let error = open(&self.disk, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert_eq!(error.disk_state(), DiskState::Unchanged, "{error}");
        assert_eq!(lines(&self.logs, "ack-").len(), acknowledged);
        remount("rw");
        self.start_all();
    }
}

#[test]
fn soak() {
    let (Ok(time), Some(disk)) = (std::env::var(TIME), std::env::var_os(DISK)) else {
        skipped("soak", "it needs a disk of its own: ci/soak.sh runs it");
        return;
    };
    if std::env::var_os(LOGS).is_some() {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let (disk, time) = (
        PathBuf::from(disk),
        Duration::from_secs(time.parse().unwrap()),
    );
    let root = disk.join("root");
    for n in 0..FILES {
        let path = root.join(file(n));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "initial\n\n").unwrap();
    }
    fs::write(root.join(HELD), "0").unwrap();
    let mut soak = Soak {
        disk,
        logs: logs.path().to_owned(),
        started: 0,
        writers: Vec::new(),
    };
    soak.start_all();
    let mut random = Random(u64::from(std::process::id()));
    println!("seed {}", random.0);
    let (start, mut did) = (Instant::now(), [0_u32; 5]);
    // Each at least once, however slow the machine is.
    let idle = |logs: &Path| lines(logs, "ack-").is_empty();
    while start.elapsed() < time || did.contains(&0) || idle(logs.path()) {
        soak.pause(&mut random);
        let what = if start.elapsed() < time {
            random.below(5)
        } else {
            did.iter().position(|n| *n == 0).unwrap_or(1)
        };
        did[what] += 1;
        let victim = random.below(WRITERS);
        match what {
            0 => {
                // It may have ended by itself.
                let _ = soak.writers[victim].kill();
                let status = soak.writers[victim].wait().unwrap();
                assert!(status.code().is_none_or(|code| code == AGAIN), "{status}");
                soak.writers[victim] = soak.start();
            }
            1 => {
                Soak::signal(&soak.writers[victim], Signal::STOP);
                soak.pause(&mut random);
                Soak::signal(&soak.writers[victim], Signal::CONT);
            }
            2 => soak.stopped_holder(&mut random),
            3 => soak.full_disk(&mut random),
            _ => soak.read_only(),
        }
    }
    soak.kill_all();
    let workspace = open_at_last(&soak.disk, FOREVER);
    let conflicts = workspace.conflicts().unwrap();
    assert!(conflicts.is_empty(), "{conflicts:#?}");
    close_at_last(workspace, &soak.disk);
    assert_eq!(crate::tree::litter(&root), Vec::<PathBuf>::new());
    let (acked, all) = check(logs.path(), &root);
    let mut errors = BTreeMap::<String, usize>::new();
    for kind in lines(logs.path(), "error-") {
        *errors.entry(kind).or_default() += 1;
    }
    println!(
        "killed {}, stopped {}, stopped as holder {}, disk full {}, read-only {} times: {acked} transactions \
         acknowledged, {all} in the files' histories; errors {errors:?}",
        did[0], did[1], did[2], did[3], did[4],
    );
    assert!(acked > 0);
}
