//! The guardian: a process that outlives all others of a run, and leaves nothing of it.
//!
//! While a file system is mounted whose device no longer answers, every sync(2) on the machine may wait
//! for it. So this process is in a session of its own, holds no file of any other, and waits for the end
//! of the run or of whoever started it, however that comes. Then it aborts the FUSE connections, which
//! wakes all who wait for the device, kills what is left, detaches the loop devices and unmounts. It
//! does the same if a server no longer answers.

use crate::proc::{Mounted, mounted, processes, ticks};
use crate::{Answer, device, fault, lock_memory};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, setsid,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// So many seconds in a row a server has requests and no processor time before it is taken for dead.
const STUCK: u32 = 60;
/// Within this time everything has ended once the connections are aborted.
const LIMIT: Duration = Duration::from_secs(120);

/// The environment variable by which all that belongs to a run is known: its directory.
pub(crate) const MARK: &str = "STEADFAST_RIG";
/// What holds a lock for as long as the guardian lives; whoever waits for it takes the lock.
const LOCK: &str = "guarded";

/// Starts the guardian of the directory; `starter` is a process beside this one without which the run is
/// to end.
pub(crate) fn start(dir: &Path, starter: &str) -> Answer<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("guard")
        .arg(dir)
        .args([&std::process::id().to_string(), starter])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    let output = child.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut ready)?;
    if ready.is_empty() {
        return Err(fault("no guardian"));
    }
    Ok(child)
}

/// The process itself.
pub(crate) fn guard(dir: &Path, main: &str, starter: &str) -> Answer<()> {
    setsid()?;
    lock_memory();
    let lock = File::create(dir.join(LOCK))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let control = mounted(Path::new(CONNECTIONS))?;
    if !control.iter().any(|mount| mount.fs == "fusectl") {
        mount(c"none", CONNECTIONS, c"fusectl", MountFlags::empty(), None)?;
    }
    let is_script = main != starter;
    let (main, starter) = (open(main)?, open(starter)?);
    let (Some(main), Some(starter)) = (main, starter) else {
        return Ok(());
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()?;
    let mut stuck = HashMap::new();
    while !ended(&[&main, &starter], 1)? {
        if let Some(name) = is_stuck(dir, &mut stuck)? {
            eprintln!("the guardian of the rig: {name} does not answer any more");
            break;
        }
    }
    let done = end(dir, &main);
    // The script removes the directory, unless it is gone.
    if is_script && ended(&[&starter], 0)? && !dir.join("failed").exists() {
        fs::remove_dir_all(dir)?;
    }
    done
}

/// Nothing if it is gone already.
fn open(pid: &str) -> Answer<Option<OwnedFd>> {
    let pid = Pid::from_raw(pid.parse()?).ok_or("no process")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => Ok(None),
        fd => Ok(Some(fd?)),
    }
}

/// Waits so many seconds for one of them to end.
fn ended(processes: &[&OwnedFd], seconds: i64) -> Answer<bool> {
    let mut fds: Vec<_> = processes
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::IN))
        .collect();
    let limit = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&limit)) {
        Err(Errno::INTR) => Ok(false),
        number => Ok(number? > 0),
    }
}

/// The FUSE mounts of this run. While they are there, their numbers are nobody else's.
fn served(dir: &Path) -> Answer<Vec<Mounted>> {
    let mut all = mounted(&dir.join("fuse"))?;
    all.retain(|mount| mount.fs == "fuse");
    Ok(all)
}

/// The server that has had requests for long, and done nothing.
fn is_stuck(dir: &Path, seen: &mut HashMap<String, (u64, u32)>) -> Answer<Option<String>> {
    for mount in served(dir)? {
        let name = mount.at.to_string_lossy().into_owned();
        let waiting = Path::new(CONNECTIONS).join(&mount.minor).join("waiting");
        // It may end at any moment.
        let waiting = fs::read_to_string(waiting).unwrap_or_default();
        let is_it = |words: &[&str]| words.windows(2).any(|pair| pair == ["serve", &name]);
        let time = processes("cmdline", is_it)?
            .first()
            .and_then(|pid| ticks(*pid));
        let entry = seen.entry(name.clone()).or_default();
        let now = time.unwrap_or(0);
        if matches!(waiting.trim(), "" | "0") || time.is_none() || entry.0 != now {
            *entry = (now, 0);
        } else {
            entry.1 += 1;
            if entry.1 >= STUCK {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

/// Ends everything. What cannot be done now may be possible a moment later.
fn end(dir: &Path, main: &OwnedFd) -> Answer<()> {
    // It may have ended already.
    let _ = pidfd_send_signal(main, Signal::KILL);
    let tag = format!("{}-", dir.file_name().unwrap_or_default().to_string_lossy());
    let start = Instant::now();
    let mut quiet = 0;
    loop {
        let left = once(dir, &tag);
        match left {
            // One that was just being started may come to light a moment later.
            Ok(0) if quiet == 5 => return Ok(()),
            Ok(0) => {
                quiet += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(n) if start.elapsed() > LIMIT => {
                return Err(fault(format!(
                    "the guardian of the rig: {n} things are left"
                )));
            }
            Err(e) if start.elapsed() > LIMIT => return Err(e),
            _ => {
                quiet = 0;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Does what can be done, and says how much there still was.
fn once(dir: &Path, tag: &str) -> Answer<usize> {
    // First, because everything else may wait for these.
    for mount in served(dir)? {
        let abort = Path::new(CONNECTIONS).join(mount.minor).join("abort");
        // It is gone with its server.
        let _ = fs::write(abort, "1");
    }
    let mark = format!("{MARK}={}", dir.display());
    let alive = processes("environ", |words| words.contains(&&*mark))?;
    for pid in &alive {
        // It may have ended meanwhile.
        let _ = kill_process(*pid, Signal::KILL);
    }
    if !alive.is_empty() {
        return Ok(alive.len());
    }
    let mut left = device::detach(tag)?.len();
    for mount in mounted(dir)? {
        unmount(&mount.at, UnmountFlags::DETACH)?;
        left += 1;
    }
    Ok(left)
}
