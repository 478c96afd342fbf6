//! What goes wrong in other writers of whole files and folders, each as a test of its own.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod content;
mod links;
mod mounts;
mod names;
mod others;
mod places;
mod rights;
mod support;
