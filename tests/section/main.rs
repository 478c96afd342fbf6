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

use common::{long, memory_dir as dir, step};
