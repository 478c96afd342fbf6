//! Publishing files and folders: one module for each promise.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod errors;
mod existing;
mod file;
mod folder;
mod sweep;

/// Every entry of a directory, sorted.
fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether `RENAME_EXCHANGE` is switched off for this run.
fn no_exchange() -> bool {
    steadfast::sys::hook::denied_by_env("renameat2(RENAME_EXCHANGE)")
}
