//! What the tests share.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use steadfast::sys::hook;

/// Longer than anything takes, even on a busy machine: what is not there by then never comes. No test passes
/// or fails by being faster than this.
#[allow(dead_code)] // Not every binary needs everything.
pub(crate) const FOREVER: Duration = Duration::from_secs(600);

/// Waits until something holds; fails if it never does.
#[allow(dead_code)]
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FOREVER, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Between fork and exec a child has the descriptors of all threads of its parent, and with them their locks,
/// and files that are open for writing.
static CHILDREN: RwLock<()> = RwLock::new(());

/// As long as this lives, no test of this process starts a child: what is closed is closed.
#[allow(dead_code)]
pub(crate) fn no_child() -> RwLockReadGuard<'static, ()> {
    CHILDREN.read().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child; it is past exec when this returns. Not to be called while holding [`no_child`].
#[allow(dead_code)]
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _alone = CHILDREN.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// What a child says until it ends. As [`spawn`], but where there is no such program that is an answer.
#[allow(dead_code)]
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let alone = CHILDREN.write().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    drop(alone);
    child.wait_with_output()
}

/// A fresh directory on the file system under test.
#[allow(dead_code)]
pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).unwrap()
}

/// As [`dir`], but if none is named, in memory: thousands of runs sync what they wrote, and what fails or is
/// left is the same on every file system.
#[allow(dead_code)]
pub(crate) fn memory_dir() -> tempfile::TempDir {
    if std::env::var_os("STEADFAST_TEST_DIR").is_none()
        && let Ok(dir) = tempfile::tempdir_in("/dev/shm")
    {
        return dir;
    }
    dir()
}

/// Whether to take the time for everything.
#[allow(dead_code)]
pub(crate) fn long() -> bool {
    std::env::var_os("STEADFAST_LONG").is_some()
}

/// Whether this is one of many runs, each on another file system or with other system calls switched off.
#[allow(dead_code)]
pub(crate) fn one_of_many() -> bool {
    std::env::var_os("STEADFAST_TEST_DIR").is_some()
}

/// Every how many calls something is tried: each in the long form, fewer where this is one of many runs.
#[allow(dead_code)]
pub(crate) fn step(usually: usize) -> usize {
    match (long(), one_of_many()) {
        (true, _) => 1,
        (false, true) => usually * 5,
        (false, false) => usually,
    }
}

/// Whether the environment switches system calls off (see `steadfast::sys::hook`).
#[allow(dead_code)]
pub(crate) fn switched_off() -> bool {
    std::env::var(hook::ENV).is_ok_and(|plan| plan.contains("deny:"))
}

/// Whether an operation that makes these calls is to be put to every test. Where calls are switched off and
/// it gets to none of them, it does what it does without that, and was put to every test there.
#[allow(dead_code)]
pub(crate) fn concerned(calls: &[&str]) -> bool {
    // That openat2 is not to be had is remembered, so that it is not among the calls of a walk.
    let walks = hook::denied_by_env("openat2");
    long() || !switched_off() || walks || calls.iter().any(|call| hook::denied_by_env(call))
}

/// Says that a test, or a part of one, did not run. Past the test harness, which keeps what a test prints to
/// itself unless it fails.
#[allow(dead_code)]
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    use std::io::Write;
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A sequence of numbers that one seed fixes (SplitMix64).
#[derive(Clone, Debug)]
#[allow(dead_code)]
pub(crate) struct Random(pub(crate) u64);

#[allow(dead_code)]
impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
