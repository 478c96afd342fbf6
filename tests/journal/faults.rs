//! Every call fails in turn, and the process is killed before and after every call: what was
//! acknowledged is there, what was refused as unchanged is not, and a failed sync is final.

use crate::common::{self, no_child, spawn};
use crate::support::{Image, count, dir, image, long, materialise, numbers, open, payload, record};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use steadfast::journal::{End, Entry, inspect, repair};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, ErrorKind};

/// The variable that makes a test the child of another: the directory of the log.
const CHILD: &str = "STEADFAST_TEST_LOG";

/// What the work so far has come to.
#[derive(Debug, Default)]
struct Told {
    tried: Vec<u64>,
    /// Acknowledged as durable.
    durable: Vec<u64>,
    /// Refused with the disk unchanged.
    refused: Vec<u64>,
    /// Up to here a release was asked for.
    released: u64,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let Some((what, n)) = line.split_once(' ').filter(|_| line.starts_with('@')) else {
            return;
        };
        let n = n.parse().unwrap();
        match what {
            "@try" => self.tried.push(n),
            "@durable" => self.durable.push(n),
            "@refused" => self.refused.push(n),
            "@release" => self.released = n,
            _ => {}
        }
    }

    /// Opens the log and compares.
    fn check(&self, path: &Path, why: &str) {
        let (log, found) = open(path).unwrap_or_else(|e| panic!("{why}: {e}"));
        let found = numbers(&found.records);
        assert!(found.is_sorted(), "{why}: {found:?}");
        for n in &self.durable {
            let held = found.binary_search(n).is_ok();
            assert!(
                held || *n <= self.released,
                "{why}: {n} is lost: {found:?} {self:?}"
            );
        }
        for n in &found {
            assert!(self.tried.contains(n), "{why}: {n} was never appended");
            assert!(
                !self.refused.contains(n),
                "{why}: {n} was refused: {self:?}"
            );
        }
        // And it goes on.
        let done = log.append_durable(&[record(&payload(1 << 40, 900))]);
        assert!(done.is_ok() || done.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
        log.close().unwrap();
    }
}

/// Opens, appends, fills segments, releases, uses segments again, closes, opens again: each kind of
/// call is made. It stops when the log is poisoned, and goes on where nothing was changed.
fn work(path: &Path, tell: &mut dyn FnMut(String)) -> steadfast::Result<()> {
    let mut n = 0;
    for _ in 0..2 {
        // A fault comes once: the second attempt finds the log as it was.
        let (log, _) = open(path).or_else(|_| open(path))?;
        let mut failed = None;
        for _ in 0..10 {
            n += 1;
            tell(format!("@try {n}"));
            let last = match log.append_durable(&[record(&payload(n, 900))]) {
                Ok(appended) => {
                    tell(format!("@durable {n}"));
                    appended.last
                }
                Err(e) => {
                    assert_ne!(e.disk_state(), DiskState::Published);
                    if e.disk_state() == DiskState::Unchanged {
                        tell(format!("@refused {n}"));
                    }
                    assert!(failed.is_none() || e.kind() == ErrorKind::Poisoned, "{e}");
                    // What leaves it open whether the record is there has poisoned the log.
                    if e.disk_state() == DiskState::Indeterminate || failed.is_some() {
                        failed = Some(e);
                    }
                    continue;
                }
            };
            assert!(
                failed.is_none(),
                "a poisoned log has acknowledged something"
            );
            if n % 5 == 0 {
                tell(format!("@release {n}"));
                // A failure here leaves it unreleased, or poisons.
                let _ = log.release(last);
            }
        }
        if let Some(failed) = failed {
            assert_eq!(log.close().unwrap_err().kind(), ErrorKind::Poisoned);
            return Err(failed);
        }
        log.close()?;
    }
    Ok(())
}

#[test]
fn every_call_fails_in_turn() {
    let _no_child = no_child();
    let mut actions = vec![Action::Fail(Errno::NOSPC), Action::FailAfter(Errno::IO)];
    if long() {
        actions.extend([Action::FailAfter(Errno::NOSPC), Action::Fail(Errno::IO)]);
    }
    for action in actions {
        let (mut at, mut poisoned) = (0, 0);
        loop {
            at += 1;
            let tmp = common::dir();
            let mut told = Told::default();
            let plan = Some(Plan { at, action });
            let (done, seen) = hook::scope(plan, || work(tmp.path(), &mut |line| told.hear(&line)));
            poisoned += usize::from(done.is_err());
            let failed = seen.get(at as usize - 1).copied();
            told.check(
                tmp.path(),
                &format!("{action:?} at {at}, {failed:?}: {done:?}"),
            );
            if let Some(call @ ("fdatasync" | "pwrite64")) = failed
                && done.is_err()
            {
                // Nothing is synced again after that: what follows is the refusal only.
                let after = &seen[at as usize..];
                assert_eq!(count(after, "fdatasync"), 0, "{call} at {at}: {after:?}");
            }
            if failed.is_none() {
                done.unwrap();
                break;
            }
        }
        eprintln!("{action:?}: {at} calls, {poisoned} runs ended by it");
        assert!(at > 50 && poisoned > 20, "{at} {poisoned}");
    }
}

/// The child's part: works until it is killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    hook::arm_from_env();
    work(path.as_ref(), &mut |line| println!("{line}")).unwrap();
    println!("@end 0");
}

/// Runs the work in a process of its own.
fn run(part: &str, path: &Path, plan: &str) -> (Told, bool) {
    let mut hooks = std::env::var(hook::ENV).unwrap_or_default();
    hooks.push(';');
    hooks.push_str(plan);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            &format!("faults::{part}"),
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, path)
        .env(hook::ENV, hooks)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawn(&mut command);
    let mut told = Told::default();
    let mut ended = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The harness writes its own words in front of the first line.
        let line = &line[line.find('@').unwrap_or(0)..];
        ended |= line.starts_with("@end");
        told.hear(line);
    }
    let status = child.wait().unwrap();
    assert_eq!(ended, status.success(), "{plan}: {status}");
    (told, ended)
}

#[test]
fn the_process_is_killed_at_every_call() {
    let stride = if long() { 1 } else { 3 };
    let mut kills = 0;
    for plan in ["stop-before", "stop-after"] {
        for at in (1..).step_by(stride) {
            let tmp = common::dir();
            let (told, ended) = run("child", tmp.path(), &format!("{plan}:{at}"));
            if ended {
                assert!(at > 50, "{at}");
                break;
            }
            kills += 1;
            told.check(tmp.path(), &format!("{plan}:{at}"));
        }
    }
    eprintln!("{kills} kills");
}

/// A log with a damaged frame in its middle, and the records before that.
fn damaged() -> (Image, Vec<Entry>) {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    for n in 0..14 {
        log.append_durable(&[record(&payload(n, 900))]).unwrap();
    }
    log.close().unwrap();
    let mut damaged = image(tmp.path());
    damaged.get_mut("0000000000000002.seg").unwrap()[2148] ^= 1;
    let kept = inspect(&dir(materialise(&damaged).path())).unwrap().records;
    assert!(!kept.is_empty() && kept.len() < 14);
    (damaged, kept)
}

/// A repair that fails at any call can be repeated, and until it is done the old log or the new one
/// is there.
#[test]
fn a_repair_that_fails_anywhere_is_repeated() {
    let _no_child = no_child();
    let (damaged, kept) = damaged();
    for action in [
        Action::Fail(Errno::NOSPC),
        Action::Fail(Errno::IO),
        Action::FailAfter(Errno::IO),
    ] {
        for at in 1.. {
            let tmp = materialise(&damaged);
            let at_dir = dir(tmp.path());
            let (done, seen) = hook::scope(Some(Plan { at, action }), || repair(&at_dir));
            let reached = seen.len() as u64 >= at;
            // In between: the damaged log, or the repaired one.
            let between = inspect(&at_dir).unwrap();
            assert_eq!(between.records, kept, "{action:?} at {at}: {done:?}");
            if let Err(error) = &done
                && error.disk_state() == DiskState::Unchanged
            {
                assert!(
                    matches!(between.end, End::Corrupt(_))
                        || matches!(action, Action::FailAfter(_))
                );
            }
            if done.is_err() {
                repair(&at_dir).unwrap();
            }
            let (log, found) = open(tmp.path()).unwrap();
            assert_eq!(found.records, kept, "{action:?} at {at}");
            log.append_durable(&[record(&payload(99, 10))]).unwrap();
            drop(log);
            let aside = std::fs::read_dir(tmp.path()).unwrap().filter(|e| {
                let name = e.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with("damaged-")
            });
            assert!(aside.count() >= damaged.len());
            if !reached {
                break;
            }
        }
    }
}

/// If the sync fails when an unclean log is made safe, it is not opened; and later it is, with a
/// consistent answer.
#[test]
fn a_log_whose_end_cannot_be_made_safe_is_not_opened() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 10))]).unwrap();
    // Its sync fails: the record is in memory, perhaps not on the disk.
    let no_sync = [("fdatasync", Errno::IO)];
    let error =
        hook::deny(&no_sync, || log.append_durable(&[record(&payload(2, 10))])).unwrap_err();
    assert_eq!(
        (error.kind(), error.disk_state()),
        (ErrorKind::Io, DiskState::Indeterminate)
    );
    drop(log);
    let error = hook::deny(&no_sync, || open(tmp.path())).unwrap_err();
    assert_eq!(error.system_call(), Some("fdatasync"), "{error}");
    // What is shown was written again and synced.
    let (opened, seen) = hook::scope(None, || open(tmp.path()).unwrap());
    assert!(
        count(&seen, "pwrite64") == 1 && count(&seen, "fdatasync") == 1,
        "{seen:?}"
    );
    assert_eq!(numbers(&opened.1.records), [1, 2]);
}

/// A closing frame that is seen may be in memory only, if the sync of the close had failed. It is
/// written again with the first group, whether that follows it or goes into the next segment: what
/// comes after says that it is durable.
#[test]
fn a_closing_frame_is_written_again_before_anything_relies_on_it() {
    for n in 1..16 {
        let tmp = common::dir();
        let (log, _) = open(tmp.path()).unwrap();
        for n in 0..n {
            log.append_durable(&[record(&payload(n, 900))]).unwrap();
        }
        let before = image(tmp.path());
        log.close().unwrap();
        let closed = image(tmp.path());
        let (log, found) = open(tmp.path()).unwrap();
        assert!(found.clean);
        // Now the disk shows what it really has.
        for (name, bytes) in &closed {
            let old = before.get(name).unwrap_or(bytes);
            let path = tmp.path().join(name);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            for at in (0..bytes.len()).step_by(512) {
                if old[at..at + 512] != bytes[at..at + 512] {
                    file.write_all_at(&old[at..at + 512], at as u64).unwrap();
                }
            }
        }
        let append = || log.append_durable(&[record(&payload(n, 900))]).unwrap();
        let (_, seen) = hook::scope(None, append);
        let io = |c: &&&str| ["pwrite64", "fdatasync"].contains(c);
        assert!(
            seen.iter().filter(io).count() == 2 || seen.contains(&"openat"),
            "{seen:?}"
        );
        log.append_durable(&[record(&payload(n + 1, 9))]).unwrap();
        drop(log);
        let (_, found) = open(tmp.path()).unwrap();
        assert_eq!(numbers(&found.records), (0..=n + 1).collect::<Vec<_>>());
    }
}

/// A segment is whole and on the disk before it has its name, and its name is before anything is
/// written to it.
#[test]
fn a_segment_is_created_in_this_order() {
    let tmp = common::dir();
    let (opened, seen) = hook::scope(None, || open(tmp.path()).unwrap());
    let check = |seen: &[&'static str]| {
        let named = |c: &str| c.starts_with("rename") || c.starts_with("linkat");
        let steps: Vec<_> = seen
            .iter()
            .map(|c| if named(c) { "name" } else { c })
            .filter(|c| ["pwrite64", "fsync", "fdatasync", "name"].contains(c))
            .collect();
        let mut at = 0;
        for step in ["pwrite64", "fsync", "name", "fsync"] {
            let found = steps[at..].iter().position(|s| *s == step);
            at += 1 + found.unwrap_or_else(|| panic!("{step}: {seen:?}"));
        }
        steps[at..].to_vec()
    };
    assert!(check(&seen).is_empty(), "{seen:?}");
    let log = opened.0;
    for n in 0.. {
        let append = || log.append_durable(&[record(&payload(n, 900))]).unwrap();
        let (_, seen) = hook::scope(None, append);
        if seen.contains(&"openat") {
            assert_eq!(check(&seen), ["pwrite64", "fdatasync"], "{seen:?}");
            break;
        }
    }
}

/// The child's part: repairs until it is killed.
#[test]
fn child_that_repairs() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let at = dir(path.as_ref());
    hook::arm_from_env();
    repair(&at).unwrap();
    println!("@end 0");
}

#[test]
fn a_repair_is_killed_at_every_call() {
    let (damaged, kept) = damaged();
    for plan in ["stop-before", "stop-after"] {
        for at in 1.. {
            let tmp = materialise(&damaged);
            let (_, ended) = run("child_that_repairs", tmp.path(), &format!("{plan}:{at}"));
            let at_dir = dir(tmp.path());
            assert_eq!(inspect(&at_dir).unwrap().records, kept, "{plan}:{at}");
            repair(&at_dir).unwrap();
            let (log, found) = open(tmp.path()).unwrap();
            assert!(found.records == kept && found.clean, "{plan}:{at}");
            log.append_durable(&[record(&payload(99, 10))]).unwrap();
            drop(log);
            for entry in std::fs::read_dir(tmp.path()).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with(".sf-"), "{plan}:{at}: {name} is left");
            }
            if ended {
                assert!(at > 10);
                break;
            }
        }
    }
}
