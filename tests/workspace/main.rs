//! Transactions: what they do, and what is left of them after a kill or an error at any call.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/images.rs"]
mod images;

mod basic;
mod cost;
mod cut;
mod faults;
mod folders;
mod foreign;
mod fuse;
mod many;
mod mounts;
mod places;
mod random;
mod refused;
mod scripts;
mod soak;
mod tree;

use common::{long, step};

/// Where fresh directories are made: on the file system under test. If none is named, in memory: thousands of
/// runs sync what they wrote, and what fails where is the same on every file system.
fn base() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    match std::env::var_os("STEADFAST_TEST_DIR") {
        Some(dir) => dir.into(),
        None if tempfile::tempdir_in(memory).is_ok() => memory.into(),
        None => std::env::temp_dir(),
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(base()).unwrap()
}
