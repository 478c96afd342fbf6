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
mod logs;
mod planted;
mod publications;
mod record;
mod rules;
mod run;
mod sections;
mod transactions;

use std::sync::atomic::AtomicU64;
use steadfast::sys::hook;

/// Tells how many states there were, of this subject and of all by now, and that they are not too few.
#[track_caller]
fn count(name: &str, states: usize) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static TOTAL: AtomicUsize = AtomicUsize::new(0);
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    let total = TOTAL.fetch_add(states, Ordering::Relaxed) + states;
    let spent = run::SPENT.load(Ordering::Relaxed);
    // With one test at a time, this subject's.
    let own = spent - BEFORE.swap(spent, Ordering::Relaxed).min(spent);
    let rate = states as u64 * 1_000_000 / own.max(1);
    let seconds = |micros: u64| micros as f64 / 1e6;
    println!(
        "{name}: {states} states, {:.1} s, {rate}/s; in all {total} states, {:.0} s",
        seconds(own),
        seconds(spent)
    );
    // Calls that are switched off make other states; one state by itself is one.
    let is_usual = std::env::var_os(hook::ENV).is_none() && std::env::var_os(run::AGAIN).is_none();
    assert!(
        !is_usual || states >= least(name),
        "{name}: {states} states"
    );
}

/// A quarter of what there are by default, or less: equal times make some states equal, and which states
/// are cut again in their recovery is up to chance.
fn least(name: &str) -> usize {
    match name {
        "row" | "used again" => 500,
        "everything, kept" => 150,
        "log" | "batch Auto" | "batch WholeFileSystem" => 75,
        "batch EachFile" | "batch StartThenEachFile" => 100,
        "new folder" | "new folder, each file" | "folder" | "folder, each file" | "keep" => 25,
        "copy" => 45,
        "write, kept" | "deep below what moves" | "five overwritten" => 35,
        "others change modes and times" => 30,
        "a folder into its own successor, kept" => 20,
        "a directory becomes a file, a file a directory" => 20,
        "swap by the log" | "published by the log" => 20,
        "move what is fresh" | "fresh, each file" => 10,
        "leases" | "opening" | "swap by three renames" => 7,
        _ => 2,
    }
}
