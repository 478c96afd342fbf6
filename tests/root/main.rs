//! What a `Root` does with the paths it is given: one module for each promise.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod capabilities;
mod differential;
mod handles;
mod mkdirs;
mod support;
mod unprivileged;
