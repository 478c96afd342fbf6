//! What a sample does: system calls by strace, flushes by the device's own count, memory by the kernel's.

use crate::harness::Done;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A block device's counters.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// By the name that the kernel gives it, as `loop0`.
    pub(crate) fn new(name: &str) -> Self {
        Self(Path::new("/sys/block").join(name).join("stat"))
    }

    /// How often it was told to flush, since it is there.
    pub(crate) fn flushes(&self) -> Done<u64> {
        // The 16th number, since Linux 5.5.
        let text = fs::read_to_string(&self.0)?;
        Ok(text.split_whitespace().nth(15).unwrap_or("0").parse()?)
    }
}

/// A system call that nobody else makes.
pub(crate) fn mark() {
    std::hint::black_box(parent_id());
}

/// Lets the peak begin again, and answers the memory in use now, in KiB.
pub(crate) fn reset_peak() -> Done<u64> {
    fs::write("/proc/self/clear_refs", "5")?;
    status("VmRSS:")
}

/// The most memory in use since then, in KiB.
pub(crate) fn peak() -> Done<u64> {
    status("VmHWM:")
}

fn status(key: &str) -> Done<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or("the kernel does not tell")?.parse()?)
}

/// What one sample was seen to do.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) calls: u64,
    pub(crate) syncs: u64,
    pub(crate) memory_kib: Option<u64>,
    pub(crate) by_name: BTreeMap<String, u64>,
}

/// Runs one contender in a process of its own, under strace, and counts the second sample's calls.
pub(crate) fn strace(case: &str, contender: &str, dir: &Path, log: &Path) -> Done<Counted> {
    let mut child = Command::new("strace");
    child
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(log);
    child.arg(std::env::current_exe()?);
    child.args(["once", case, contender]).arg(dir);
    let output = child.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("under strace: {}", output.status).into());
    }
    let mut counted = Counted {
        memory_kib: String::from_utf8_lossy(&output.stdout).trim().parse().ok(),
        ..Counted::default()
    };
    let mut marks = 0;
    for line in fs::read_to_string(log)?.lines() {
        // "PID name(..." or "PID <... name resumed>...", which was counted when it began.
        let Some((_, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, _)) = call.trim_start().split_once('(') else {
            continue;
        };
        if name.contains('<') {
            continue;
        }
        if name == "getppid" {
            marks += 1;
        } else if marks == 1 {
            *counted.by_name.entry(name.to_owned()).or_default() += 1;
            counted.calls += 1;
            if ["fsync", "fdatasync", "syncfs", "sync"].contains(&name) {
                counted.syncs += 1;
            }
        }
    }
    if marks != 2 {
        return Err(format!("{marks} marks in place of 2").into());
    }
    Ok(counted)
}
