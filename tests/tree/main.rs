//! Whole trees: walk, copy, remove, sync.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod attacker;
mod copy;
mod copy_content;
mod copy_rights;
mod deep;
mod faults;
mod mounts;
mod remove;
mod support;
mod sync;
mod walk;
