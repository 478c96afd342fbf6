//! What becomes of every operation of `publish` when one of its calls fails, or the process dies there.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod defects;
mod errno;
mod interplay;
mod kill;
mod ops;
mod state;

/// A fresh directory on the file system under test. If none is named, in memory: thousands of runs sync what
/// they wrote, and what fails where is the same on every file system.
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
