//! The log: one module for each promise.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod basic;
mod crash;
mod damage;
mod faults;
mod poison;
mod recycle;
mod strangers;
mod support;
mod threads;
