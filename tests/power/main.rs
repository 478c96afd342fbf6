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

mod bench;
mod build;
mod data;
mod disk;
mod logs;
mod planted;
mod publications;
mod record;
mod recorder;
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
    let rate = |states: usize, micros: u64| states as u64 * 1_000_000 / micros.max(1);
    let seconds = |micros: u64| micros as f64 / 1e6;
    // Of processor time: of all, with the recordings and the tests that plant faults.
    let all = run::clock(rustix::time::ClockId::ProcessCPUTime);
    println!(
        "{name}: {states} states, {:.1} s, {}/s; in all {total} states, {:.1} s, {}/s, {:016x}",
        seconds(own),
        rate(states, own),
        seconds(all),
        rate(total, all),
        run::DIGEST.load(Ordering::Relaxed)
    );
    // Calls that are switched off make other states; one state by itself is one.
    let is_usual = std::env::var_os(hook::ENV).is_none() && std::env::var_os(run::AGAIN).is_none();
    assert!(
        !is_usual || states >= least(name),
        "{name}: {states} states"
    );
}

/// At the most about half of what there are by default. Each run has the same, but another change of the
/// library may make fewer.
fn least(name: &str) -> usize {
    match name {
        "row" | "used again" | "changed again" | "changed and gone" | "made and changed" => 800,
        "batch EachFile" | "batch StartThenEachFile" => 230,
        "everything, kept" => 180,
        "batch Auto" | "batch WholeFileSystem" => 150,
        "log" | "copy" | "write, kept" => 100,
        "five overwritten" | "a directory becomes a file, a file a directory" => 80,
        "deep below what moves" | "published by the log" => 70,
        "others change modes and times" => 60,
        "new folder" | "new folder, each file" | "folder" | "folder, each file" | "keep" => 50,
        "swap by the log" | "a folder into its own successor, kept" | "opening" => 40,
        "move what is fresh" | "fresh, each file" => 20,
        "swap by three renames" | "leases" => 15,
        "replace" | "replace below" | "only replace" | "mode" | "ordered" => 10,
        "staged elsewhere" | "if unchanged" | "move" | "copy a file" => 10,
        "create" | "create new" | "unnamed" | "unnamed and new" | "a fresh file" => 5,
        _ => 2,
    }
}
