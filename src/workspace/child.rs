//! For tests: jobs that run in other processes, which are this test binary again.

use super::ledger::MarkKind;
use super::state::State;
use super::writers::{self, WriterOptions};
use crate::Root;
use crate::claim::{ClaimPath, Extra, Want};
use crate::sys::{LockKind, hook};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

const JOB: &str = "STEADFAST_TEST_JOB";
const DIR: &str = "STEADFAST_TEST_JOB_DIR";

/// A fresh directory on the file system under test. If none is named, in memory: thousands of runs sync what
/// they wrote, and what fails where is the same on every file system.
pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map(Into::into);
    if base.is_none()
        && let Ok(dir) = tempfile::tempdir_in("/dev/shm")
    {
        return dir;
    }
    tempfile::tempdir_in(base.unwrap_or_else(std::env::temp_dir)).unwrap()
}

/// Small logs, for tests.
pub(crate) fn options() -> WriterOptions {
    WriterOptions {
        segment_len: 8 << 10,
        further_segment_len: 16 << 10,
        max_segments: 4,
    }
}

/// Whether to take the time for everything.
pub(crate) fn long() -> bool {
    std::env::var_os("STEADFAST_LONG").is_some()
}

/// Whether this is one of many runs, each on another file system or with other system calls switched off: a
/// random test may be shorter.
pub(crate) fn one_of_many() -> bool {
    std::env::var_os("STEADFAST_TEST_DIR").is_some()
        || std::env::var(hook::ENV).is_ok_and(|plan| plan.contains("deny:"))
}

/// Which calls something is tried at: each in the long form; else every so many, from another one for each
/// `of`, and fewer where this is one of many runs.
pub(crate) fn some(usually: u64, of: usize) -> impl Iterator<Item = u64> {
    let step = match (long(), one_of_many()) {
        (true, _) => 1,
        (false, false) => usually,
        (false, true) => usually * 5,
    };
    (0..).map(move |n| 1 + of as u64 % step + n * step)
}

/// Says that a test did not run, past the harness, which keeps what a test prints to itself.
pub(crate) fn skipped(test: &str, why: &str) {
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// The process that does `job` on the workspace in `dir`, with the disturbances of `plan` (see
/// [`hook`]) in addition to those of this process.
pub(crate) fn command(job: &str, dir: &Path, plan: &str) -> Command {
    let inherited = std::env::var(hook::ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "workspace::child::works_for_another_test"])
        .args(["--nocapture", "--quiet"])
        .env(JOB, job)
        .env(DIR, dir)
        .env(hook::ENV, format!("{inherited};{plan}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// What a job says, up to the word, with which it goes on until its standard input ends.
pub(crate) fn wait_for(word: &str, child: &mut Child) -> String {
    let mut said = String::new();
    let out = child.stdout.as_mut().unwrap();
    let mut byte = [0];
    while !said.contains(word) {
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{said}");
        said.push(byte[0].into());
    }
    said
}

/// Between fork and exec a child has the descriptors of all threads of its parent, and with them their locks.
static CHILDREN: RwLock<()> = RwLock::new(());

/// As long as this lives, no test of this process starts a child: what is closed is closed.
pub(crate) fn no_child() -> RwLockReadGuard<'static, ()> {
    CHILDREN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child. Not to be called while holding [`no_child`].
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _alone = CHILDREN.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// All that a job says.
pub(crate) fn output(mut command: Command) -> String {
    let out = spawn(&mut command).wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    text
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn works_for_another_test() {
    let (Ok(job), Some(dir)) = (std::env::var(JOB), std::env::var_os(DIR)) else {
        return;
    };
    let root = Root::open(&dir).unwrap();
    match job.as_str() {
        "create" => {
            hook::arm_from_env();
            let state = State::open(&root, true).unwrap();
            say(&format!("id {:032x} .", u128::from_be_bytes(state.id)));
        }
        // The umask is a process's, so that this needs one of its own.
        "create under umask 0777" => {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
            State::open(&root, true).unwrap();
        }
        "draw" => {
            let state = State::open(&root, false).unwrap();
            let ledger = &state.ledger;
            let draw = || {
                let claim = state.claims.try_claim(&[]).unwrap();
                let one = |_| {
                    let (number, mark) = ledger.begin(&claim, 1, MarkKind::Commit).unwrap();
                    ledger.clear(mark, &claim).unwrap();
                    number
                };
                (0..250).map(one).collect()
            };
            let all: Vec<Vec<u64>> = std::thread::scope(|s| {
                let threads: Vec<_> = (0..4).map(|_| s.spawn(draw)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            for of_thread in all {
                let text: Vec<String> = of_thread.iter().map(u64::to_string).collect();
                say(&format!("drawn {};", text.join(" ")));
            }
        }
        "hold" => {
            let state = State::open(&root, false).unwrap();
            let path = Want::exclusive(ClaimPath::new("a").unwrap());
            let wait = Duration::from_secs(600);
            // Locks that are freed one by one between what is opened before and after them: if the mark were
            // not on the claim's own description, that would show.
            let _between = [(); 30].map(|()| {
                let other = state.claims.try_claim(&[]).unwrap();
                assert!(other.try_extra(LockKind::Shared, Extra::new(4)).unwrap());
                other
            });
            let claim = state.claims.claim(&[path], wait).unwrap();
            state.ledger.enter(&claim, wait).unwrap();
            let number = state.ledger.draw().unwrap();
            let _mark = state.ledger.mark(&claim, number, 1, MarkKind::Commit);
            say("held");
            // Until it is killed, or its parent is gone.
            let _ = std::io::stdin().read(&mut [0]);
        }
        "own" => {
            let state = State::open(&root, false).unwrap();
            hook::arm_from_env();
            let (writer, _) = writers::open_own(&state, options()).unwrap();
            say(&format!("index {} .", writer.index));
            let _ = std::io::stdin().read(&mut [0]);
        }
        other => panic!("no such job: {other}"),
    }
}
