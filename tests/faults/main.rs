//! What becomes of every operation of `publish` when one of its calls fails, or the process dies there.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod defects;
mod errno;
mod interplay;
mod kill;
mod op;
mod ops;
mod races;
mod state;

use common::{long, memory_dir as dir};
