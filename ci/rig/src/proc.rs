//! What `/proc` tells of processes and mounts.

use crate::Answer;
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// A mounted file system of this process's mount namespace.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// The minor part of its device number, which names a FUSE connection.
    pub(crate) minor: String,
    pub(crate) at: PathBuf,
    pub(crate) fs: String,
}

/// What is mounted below `dir`, the newest first.
pub(crate) fn mounted(dir: &Path) -> Answer<Vec<Mounted>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut out: Vec<_> = text.lines().filter_map(mount_of).collect();
    out.retain(|mount| mount.at.starts_with(dir));
    out.reverse();
    Ok(out)
}

/// See proc_pid_mountinfo(5).
fn mount_of(line: &str) -> Option<Mounted> {
    let (start, end) = line.split_once(" - ")?;
    let mut words = start.split(' ').skip(2);
    let (_, minor) = words.next()?.split_once(':')?;
    let at = words.nth(1)?;
    Some(Mounted {
        minor: minor.to_owned(),
        at: PathBuf::from(at),
        fs: end.split(' ').next()?.to_owned(),
    })
}

/// The processes whose words in this file, arguments or environment, pass; not those that have ended and
/// are not waited for yet.
pub(crate) fn processes(file: &str, pass: impl Fn(&[&str]) -> bool) -> Answer<Vec<Pid>> {
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        // Not a process, or gone meanwhile.
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(text) = fs::read(entry.path().join(file)) else {
            continue;
        };
        let text = String::from_utf8_lossy(&text);
        let words: Vec<_> = text.split_terminator('\0').collect();
        if pass(&words) {
            out.push(pid);
        }
    }
    Ok(out)
}

/// The processor time that a process has had, in ticks.
pub(crate) fn ticks(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut words = rest.split(' ').skip(11);
    Some(words.next()?.parse::<u64>().ok()? + words.next()?.parse::<u64>().ok()?)
}
