//! The two resolvers: the same answers as openat2(2) from both, and no way out of the root.
//!
//! `STEADFAST_LONG=1` makes the generated and the attacked runs long. `STEADFAST_RECORD=1` writes the
//! kernel's answers into `cases.txt` anew.

#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

mod again;
mod attack;
mod automount;
mod blocked;
mod children;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod depth;
mod generated;
mod model;
mod support;
mod table;
