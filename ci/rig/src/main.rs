//! Power cuts, block by block: what a real file system makes of each disk that one could leave.
//!
//! A small FUSE server is the backing file of a loop device and records every write, discard and flush.
//! From the record the disks are rebuilt that the power could leave, mounted with the real file system,
//! recovered by the library, and compared with what had been acknowledged. See `docs/crash-testing.md`.

mod backing;
mod device;
mod guard;
mod image;
mod log;
mod play;
mod proc;
mod random;
mod report;
mod server;
mod shake;
mod states;
mod subjects;
mod tree;
mod worker;

use backing::Backing;
use device::Device;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Signal, configure_io_flusher_behavior, set_parent_process_death_signal};
use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use worker::Job;

/// What is told of a failure, from wherever it comes.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Answer<T> = Result<T, Fault>;

fn fault(what: impl Into<String>) -> Fault {
    what.into().into()
}

/// This process is killed when the thread that started it ends.
fn die_with_parent() -> Answer<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// For those that must go on when nobody else does: no page of this process has to be fetched from
/// anywhere, and the kernel does not make it wait for the writeback that it is to make possible.
fn lock_memory() {
    // Some containers allow the one or the other not even to root. It matters only when memory is short.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    let _ = configure_io_flusher_behavior(true);
}

const USAGE: &str = "\
rig run DIR [fs=NAME,NAME] [subject=PART] [seed=N] [rounds=N] [states=N] [seconds=N] [workers=N]
            [skip=CALL,CALL] [starter=PID]
    tests every subject on every file system in DIR, which is to be empty; fs=all has more file systems;
    if so many seconds do not suffice, there are fewer states of each; skip=fsync leaves these calls of
    the library out, which is to be seen; ends with the process PID
rig again DIR IMAGE FS SUBJECT ACKNOWLEDGED BEGUN
    checks one saved disk again";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match *args {
        ["run", dir, ref options @ ..] => run(Path::new(dir), options),
        ["again", dir, image, fs, subject, acknowledged, begun] => {
            again(Path::new(dir), image, fs, subject, acknowledged, begun)
        }
        ["in-namespace", ref rest @ ..] => in_namespace(rest).map(|()| true),
        ["guard", dir, main, starter] => guard::guard(Path::new(dir), main, starter).map(|()| true),
        ["serve", at, name, memory] => {
            server::serve(Path::new(at), name, Path::new(memory)).map(|()| true)
        }
        _ => Err(fault(USAGE)),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug)]
struct Options<'a> {
    fs: Option<&'a str>,
    subject: &'a str,
    seed: u64,
    rounds: usize,
    states: usize,
    seconds: Option<u64>,
    workers: usize,
    skip: &'a str,
    starter: &'a str,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Answer<Self> {
        let mut out = Self {
            fs: None,
            subject: "",
            seed: 1,
            rounds: 3,
            states: 36,
            seconds: None,
            workers: 3,
            skip: "",
            starter: "",
        };
        for word in words {
            match word.split_once('=') {
                Some(("fs", names)) => out.fs = Some(names),
                Some(("subject", part)) => out.subject = part,
                Some(("seed", n)) => out.seed = n.parse()?,
                Some(("rounds", n)) => out.rounds = n.parse()?,
                Some(("states", n)) => out.states = n.parse()?,
                Some(("seconds", n)) => out.seconds = Some(n.parse()?),
                Some(("workers", n)) => out.workers = n.parse()?,
                Some(("skip", calls)) => out.skip = calls,
                Some(("starter", pid)) => out.starter = pid,
                _ => return Err(fault(format!("what is {word}?\n{USAGE}"))),
            }
        }
        Ok(out)
    }

    /// The milliseconds that one of the jobs that are left may take; nothing if it may take any time.
    fn share(&self, gone: Duration, left: usize) -> String {
        let Some(seconds) = self.seconds else {
            return String::new();
        };
        let rest = Duration::from_secs(seconds).saturating_sub(gone);
        let share = rest.as_secs_f64() * self.workers as f64 / (left + self.workers - 1) as f64;
        format!("{:.0}", share * 1000.0)
    }

    fn wants(&self, kind: &device::Kind) -> bool {
        match self.fs {
            None => kind.short,
            Some("all") => true,
            Some(names) => names.split(',').any(|name| name == kind.name),
        }
    }
}

/// Runs everything that the options ask for; whether all is as it must be.
fn run(dir: &Path, options: &[&str]) -> Answer<bool> {
    let options = Options::parse(options)?;
    let start = Instant::now();
    prepare(dir, options.starter)?;
    let subjects = subjects::all();
    let wanted: Vec<_> = device::KINDS
        .iter()
        .filter(|kind| options.wants(kind))
        .flat_map(|kind| subjects.iter().map(move |subject| (kind, subject)))
        .filter(|(_, subject)| subject.name.contains(options.subject))
        .collect();
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..wanted.len()).collect());
    let results = Mutex::new(vec![None; wanted.len()]);
    std::thread::scope(|scope| {
        for _ in 0..options.workers {
            scope.spawn(|| {
                while let Some((n, left)) = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.pop_front().map(|n| (n, queue.len() + 1))
                } {
                    let (kind, subject) = wanted[n];
                    let name = job_name(dir, n);
                    let mut words = vec!["work", kind.name, subject.name];
                    let numbers = [
                        options.seed.to_string(),
                        options.rounds.to_string(),
                        options.states.to_string(),
                        options.share(start.elapsed(), left),
                    ];
                    words.extend(numbers.iter().map(String::as_str));
                    words.push(options.skip);
                    let told = in_new_namespace(dir, &name, kind, &words);
                    report::tell(kind, subject, &told);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(told);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report::table(
        &wanted,
        &results,
        start.elapsed().as_secs_f64(),
    ))
}

/// Makes what a run needs, and starts its guardian.
fn prepare(dir: &Path, starter: &str) -> Answer<()> {
    for name in ["at", "fuse"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let own = std::process::id().to_string();
    let starter = if starter.is_empty() { &own } else { starter };
    let mut guardian = guard::start(dir, starter)?;
    let (dir, starter) = (dir.to_owned(), starter.to_owned());
    std::thread::spawn(move || {
        let ended = guardian.wait();
        eprintln!("the guardian of the rig is gone: {ended:?}");
        // The workers and servers end with this process, and another guardian sees to what they leave.
        let _ = guard::start(&dir, &starter);
        std::process::exit(2);
    });
    Ok(())
}

/// What the loop device of a job is found by.
fn job_name(dir: &Path, number: usize) -> String {
    let tag = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{tag}-job-{number}")
}

/// Runs a job in a mount namespace and a process of its own, on a device of its own; what it has printed.
fn in_new_namespace(
    dir: &Path,
    name: &str,
    kind: &device::Kind,
    words: &[&str],
) -> Result<String, String> {
    let start = || -> Answer<String> {
        let (backing, server) = Backing::new(dir, &format!("{name}-disk"), kind.size)?;
        let done = Command::new("unshare")
            .env(guard::MARK, dir)
            .args(["--mount", "--propagation", "slave"])
            .arg(std::env::current_exe()?)
            .arg("in-namespace")
            .arg(dir)
            .arg(name)
            .args(&backing.nodes)
            .args(words)
            .stdin(OwnedFd::from(server))
            .stderr(Stdio::inherit())
            .output()?;
        if !done.status.success() {
            return Err(fault(format!("{name} ended: {}", done.status)));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    start().map_err(|e| e.to_string())
}

fn in_namespace(words: &[&str]) -> Answer<()> {
    die_with_parent()?;
    let [dir, name, recorded, memory, what, fs, subject, rest @ ..] = words else {
        return Err(fault(USAGE));
    };
    let subjects = subjects::all();
    let subject = subjects.iter().find(|s| s.name == *subject);
    let subject = subject.ok_or("no such subject")?;
    let dir = PathBuf::from(dir);
    // The loop device keeps the file that it has; nothing served is reached from here.
    for mount in proc::mounted(&dir.join("fuse"))? {
        unmount(&mount.at, UnmountFlags::DETACH)?;
    }
    let server = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let kind = device::kind(fs)?;
    let device = Device::new(kind, &dir, [recorded, memory], server)?;
    let mut job = Job {
        dir,
        name: (*name).to_owned(),
        kind,
        seed: 1,
        rounds: 1,
        states: 1,
        limit: None,
        skip: Vec::new(),
    };
    match (*what, rest) {
        ("work", [seed, rounds, states, limit, skip]) => {
            job.seed = seed.parse()?;
            job.rounds = rounds.parse()?;
            job.states = states.parse()?;
            job.limit = limit.parse().ok().map(Duration::from_millis);
            job.skip = skip.split(',').filter(|call| !call.is_empty()).collect();
            print!("{}", report::line(&worker::work(&job, device, subject)?));
        }
        ("again", [image, acknowledged, begun]) => {
            let known = (acknowledged.parse()?, begun.parse()?);
            let verdict = worker::again(&job, device, subject, Path::new(image), known)?;
            println!("{verdict:?}");
        }
        _ => return Err(fault(USAGE)),
    }
    Ok(())
}

/// Whether that state is as it must be.
fn again(
    dir: &Path,
    image: &str,
    fs: &str,
    subject: &str,
    acknowledged: &str,
    begun: &str,
) -> Answer<bool> {
    prepare(dir, "")?;
    let name = job_name(dir, 0);
    let words = ["again", fs, subject, image, acknowledged, begun];
    let told = in_new_namespace(dir, &name, device::kind(fs)?, &words)?;
    print!("{told}");
    Ok(told.trim() == "Clean")
}
