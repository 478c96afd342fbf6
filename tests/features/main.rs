//! What the optional features add.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod asynchronous;
mod serialized;
