//! Protected sections: everything is as before after error, panic, drop, kill and power cut, or all of it
//! stays after the commit.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/images.rs"]
mod images;

mod basic;
mod cut;
mod faults;
mod hooks;
mod kill;
mod random;
mod scenes;
mod support;

/// A fresh directory on the file system under test. If none is named, in memory: thousands of runs sync what
/// they wrote, and what a kill leaves is the same on every file system.
fn dir() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if std::env::var_os("STEADFAST_TEST_DIR").is_none()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    common::dir()
}

/// Whether to take the time for everything.
fn long() -> bool {
    std::env::var_os("STEADFAST_LONG").is_some()
}

/// Every how many calls something is tried: each in the long form, fewer where this is one of many runs.
fn step(usually: u64) -> u64 {
    match std::env::var_os("STEADFAST_TEST_DIR") {
        _ if long() => 1,
        Some(_) => usually * 5,
        None => usually,
    }
}
