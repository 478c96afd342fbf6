//! The power goes at any call: what a model of file systems says may be there then is made real, recovered
//! by the real code, and checked.
//!
//! A run is recorded ([`record`]); the rules of a family of file systems say what of its changes may be
//! missing ([`rules`], [`data`]); each such state is made ([`build`]) and put to a check ([`run`]). What the
//! families are and why is in `docs/crash-testing.md`. This says nothing about what a real file system does
//! with its own structures.
//!
//! `STEADFAST_STATES=N` tries about N times as much, `STEADFAST_SEED` takes another sample, `STEADFAST_LONG`
//! takes its time, and `STEADFAST_POWER` runs one state again: a failure prints it.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;
#[path = "../workspace/scripts.rs"]
mod scripts;
#[path = "../workspace/tree.rs"]
mod tree;

#[path = "../section/scenes.rs"]
mod scenes;
#[path = "../section/support.rs"]
#[allow(dead_code)] // The sections' own tests need more of it.
mod support;

mod build;
mod data;
mod planted;
mod publications;
mod record;
mod rules;
mod run;
mod sections;
mod transactions;

/// Tells how many states there were, and how many of all tests by now.
fn count(name: &str, states: usize) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;
    static TOTAL: AtomicUsize = AtomicUsize::new(0);
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    let total = TOTAL.fetch_add(states, Ordering::Relaxed) + states;
    let seconds = start.elapsed().as_secs();
    println!("{name}: {states} states; in all {total} in {seconds} s");
}
