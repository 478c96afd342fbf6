//! The real binary, from the outside: output, exit codes, signals, names of any bytes.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod apply;
mod common;
mod doctor;
mod faults;
mod golden;
mod help;
mod lookup;
mod publish;
mod recover;
mod run;
mod signals;
mod status;
mod trees;
mod write;
