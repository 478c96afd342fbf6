//! Power cuts, block by block: what a real file system makes of each disk that one could leave.
//!
//! A small FUSE server is the backing file of a loop device and records every write, discard and flush. From
//! the record the disks are rebuilt that the power could leave, mounted with the real file system, recovered
//! by the library, and compared with what had been acknowledged. See `docs/crash-testing.md`.

mod device;
mod image;
mod log;
mod play;
mod random;
mod report;
mod server;
mod shake;
mod states;
mod subjects;
mod tree;
mod worker;

use rustix::process::{Signal, set_parent_process_death_signal};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
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

const USAGE: &str = "\
rig run DIR [fs=NAME,NAME] [subject=PART] [seed=N] [rounds=N] [states=N] [workers=N]
    tests every subject on every file system in DIR, which is to be empty; fs=all has more file systems
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
        ["serve", at, name] => server::serve(Path::new(at), name).map(|()| true),
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
    workers: usize,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Answer<Self> {
        let mut out = Self {
            fs: None,
            subject: "",
            seed: 1,
            rounds: 3,
            states: 60,
            workers: 2,
        };
        for word in words {
            match word.split_once('=') {
                Some(("fs", names)) => out.fs = Some(names),
                Some(("subject", part)) => out.subject = part,
                Some(("seed", n)) => out.seed = n.parse()?,
                Some(("rounds", n)) => out.rounds = n.parse()?,
                Some(("states", n)) => out.states = n.parse()?,
                Some(("workers", n)) => out.workers = n.parse()?,
                _ => return Err(fault(format!("what is {word}?\n{USAGE}"))),
            }
        }
        Ok(out)
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
    prepare(dir)?;
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
                while let Some(n) = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.pop_front()
                } {
                    let (kind, subject) = wanted[n];
                    let name = job_name(dir, n);
                    let numbers = [
                        options.seed.wrapping_mul(1000) + n as u64,
                        options.rounds as u64,
                        options.states as u64,
                    ];
                    let mut words = vec!["work", kind.name, subject.name];
                    let numbers = numbers.map(|number| number.to_string());
                    words.extend(numbers.iter().map(String::as_str));
                    let told = in_new_namespace(dir, &name, &words);
                    report::tell(kind, subject, &told);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(told);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report::table(&wanted, &results))
}

fn prepare(dir: &Path) -> Answer<()> {
    for name in ["at", "fuse"] {
        fs::create_dir_all(dir.join(name))?;
    }
    Ok(())
}

/// What the loop device of a job is found by.
fn job_name(dir: &Path, number: usize) -> String {
    let tag = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("{tag}-job-{number}")
}

/// Runs a job in a mount namespace and a process of its own; what it has printed.
fn in_new_namespace(dir: &Path, name: &str, words: &[&str]) -> Result<String, String> {
    let start = || -> Answer<String> {
        let done = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(std::env::current_exe()?)
            .arg("in-namespace")
            .arg(dir)
            .arg(name)
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        // What it could not detach itself, if it was killed.
        device::detach(&format!("{name}-"))?;
        if !done.status.success() {
            return Err(fault(format!("{name} ended: {}", done.status)));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    start().map_err(|e| e.to_string())
}

fn in_namespace(words: &[&str]) -> Answer<()> {
    die_with_parent()?;
    let [dir, name, what, fs, subject, rest @ ..] = words else {
        return Err(fault(USAGE));
    };
    let subjects = subjects::all();
    let subject = subjects.iter().find(|s| s.name == *subject);
    let subject = subject.ok_or("no such subject")?;
    let mut job = Job {
        dir: PathBuf::from(dir),
        name: format!("{name}-disk"),
        kind: device::kind(fs)?,
        seed: 1,
        rounds: 1,
        states: 1,
    };
    match (*what, rest) {
        ("work", [seed, rounds, states]) => {
            job.seed = seed.parse()?;
            job.rounds = rounds.parse()?;
            job.states = states.parse()?;
            print!("{}", report::line(&worker::work(&job, subject)?));
        }
        ("again", [image, acknowledged, begun]) => {
            let (acknowledged, begun) = (acknowledged.parse()?, begun.parse()?);
            let verdict = worker::again(&job, subject, Path::new(image), acknowledged, begun)?;
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
    prepare(dir)?;
    let name = job_name(dir, 0);
    let words = ["again", fs, subject, image, acknowledged, begun];
    let told = in_new_namespace(dir, &name, &words)?;
    print!("{told}");
    Ok(told.trim() == "Clean")
}
