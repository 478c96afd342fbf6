//! Measures steadfast side by side with the same work by hand and by other libraries.
//!
//! `run.sh` beside this package makes the file systems and calls the steps of this program.
#![allow(clippy::print_stdout)]

mod compare;
mod count;
mod filter;
mod harness;
mod machine;
mod peers;
mod report;
mod result;
mod sqlite;
mod stats;
mod subjects;
mod svg;
mod targets;

use harness::{Case, Done, Settings};
use result::{CaseResult, FileSystem, Run};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

const USAGE: &str = "usage:
  measure FS DIRECTORY DEVICE RESULT [FILTER]   all cases on one mounted file system, added to a result file
  report RESULT FOLDER                          tables and plots from it
  compare OLD NEW                               what became slower beyond the noise";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["measure", fs, dir, device, file] => measure(fs, dir, device, file, ""),
        ["measure", fs, dir, device, file, filter] => measure(fs, dir, device, file, filter),
        ["report", file, folder] => report::write(Path::new(file), Path::new(folder)),
        ["compare", old, new] => match compare::files(Path::new(old), Path::new(new)) {
            Ok(0) => Ok(()),
            Ok(_) => return ExitCode::from(1),
            Err(e) => Err(e),
        },
        // The rest are this program's own calls of itself.
        ["once", case, contender, dir] => once(case, contender, dir),
        ["walks", dir, device, filter] => walks(dir, device, filter),
        ["worker", who, dir, number, commits] => worker(who, dir, number, commits),
        ["pending", dir] => subjects::pending(Path::new(dir)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn long() -> bool {
    std::env::var_os("STEADFAST_LONG").is_some_and(|v| !v.is_empty())
}

/// Short, long, or once to see that it works (`STEADFAST_SMOKE=1`).
fn settings(dir: &str, device: &str) -> Settings {
    let smoke = std::env::var_os("STEADFAST_SMOKE").is_some_and(|v| !v.is_empty());
    let (budget, fewest, most) = match (smoke, long()) {
        (true, _) => (0, 1, 1),
        (_, true) => (20_000, 15, 400),
        _ => (4000, 5, 100),
    };
    // Less for whoever is in a hurry, more for whoever wants to know.
    let given = std::env::var("BENCH_MILLIS")
        .ok()
        .and_then(|n| n.parse().ok());
    let (budget, fewest) = given.map_or((budget, fewest), |n| (n, fewest.min(3)));
    let end = std::env::var("BENCH_END")
        .ok()
        .and_then(|n| n.parse().ok())
        .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    Settings {
        dir: dir.into(),
        device: Some(device.to_owned()).filter(|name| !name.is_empty()),
        budget: Duration::from_millis(budget),
        fewest,
        most,
        end,
    }
}

fn measure(name: &str, dir: &str, device: &str, file: &str, filter: &str) -> Done {
    let file = Path::new(file);
    let mut run: Run = if file.exists() {
        serde_json::from_str(&fs::read_to_string(file)?)?
    } else {
        let disk = std::env::var("BENCH_DISK").unwrap_or_default();
        Run {
            machine: machine::describe(disk),
            ..Run::default()
        }
    };
    let settings = settings(dir, device);
    let begin = Instant::now();
    let mut system = FileSystem {
        name: name.to_owned(),
        mounted: mounted(dir),
        ..FileSystem::default()
    };
    let load = machine::load();
    let asked = |openat2| {
        let all = subjects::all(long(), openat2).into_iter();
        all.filter(|case| wanted(&case.id, filter))
            .collect::<Vec<_>>()
    };
    let (cases, walks) = (asked(true), asked(false).len());
    for (at, case) in cases.iter().enumerate() {
        let others = cases.len() + walks - at - 1;
        system.cases.push(told(name, case, &settings, others)?);
    }
    // Whether there is openat2 is remembered by everybody: it takes a process of its own.
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["walks", dir, device, filter]);
    let output = child.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the part without openat2 failed".into());
    }
    let walks: FileSystem = serde_json::from_slice(&output.stdout)?;
    system.cases.extend(walks.cases);
    system.load = [load, machine::load()];
    system.seconds = begin.elapsed().as_secs_f64().round();
    run.file_systems.retain(|other| other.name != name);
    run.file_systems.push(system);
    fs::write(file, serde_json::to_string_pretty(&run)? + "\n")?;
    Ok(())
}

/// Runs a case, and says how long that has taken.
fn told(name: &str, case: &Case, settings: &Settings, others: usize) -> Done<CaseResult> {
    let begin = Instant::now();
    let result = harness::run(case, settings, others)?;
    let samples = result.contenders.first().map_or(0, |c| c.samples);
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{name}: {}: {samples} samples, {seconds:.1} s", case.id);
    Ok(result)
}

/// Whether a case is asked for: the filter is parts of names, with commas between.
fn wanted(id: &str, filter: &str) -> bool {
    filter.split(',').any(|part| id.contains(part))
}

fn mounted(dir: &str) -> String {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holds = |line: &&str| {
        let at = line.split(' ').nth(1).unwrap_or("");
        at != "/" && Path::new(dir).starts_with(at)
    };
    let line = text.lines().rfind(holds).unwrap_or("");
    line.split(' ')
        .skip(2)
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

fn walks(dir: &str, device: &str, filter: &str) -> Done {
    filter::without_openat2()?;
    let settings = settings(dir, device);
    let mut system = FileSystem::default();
    let mut cases = subjects::all(long(), false);
    cases.retain(|case| wanted(&case.id, filter));
    for (at, case) in cases.iter().enumerate() {
        let others = cases.len() - at - 1;
        system
            .cases
            .push(told("no openat2", case, &settings, others)?);
    }
    println!("{}", serde_json::to_string(&system)?);
    Ok(())
}

fn once(case: &str, contender: &str, dir: &str) -> Done {
    let all = subjects::all(long(), true);
    let case = all.iter().find(|c| c.id == case).ok_or("no such case")?;
    println!("{}", harness::once(case, contender, Path::new(dir))?);
    Ok(())
}

fn worker(who: &str, dir: &str, number: &str, commits: &str) -> Done {
    subjects::worker(who, Path::new(dir), number.parse()?, commits.parse()?)
}
