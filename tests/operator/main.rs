//! What a person sees of a workspace, and can do about it: after kills, with damage, without rights.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod abandon;
mod damage;
mod prune;
mod repair;
mod sections;
mod status;
mod support;
