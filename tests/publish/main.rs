//! Publishing files and folders: one module for each promise.

#[path = "../common/mod.rs"]
mod common;

mod file;
