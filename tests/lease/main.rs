//! Leases: one holder, numbers that only grow, and what becomes of both when processes die, clocks
//! run, calls fail and files are damaged.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod basic;
mod damage;
mod faults;
mod processes;
mod support;
mod time;
