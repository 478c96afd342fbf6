//! Any sequence of operations against a plain model of what it should do. What fails is shrunk to
//! the shortest sequence that fails. Claims have theirs in tests/claim.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;
mod publishing;
mod recovery;
mod script;
mod transactions;
#[path = "../workspace/tree.rs"]
mod tree;
mod trees;

use proptest::test_runner::{Config, RngSeed};

/// The same cases in each run, fewer where this is one of many runs, unless there is time for others:
/// `STEADFAST_LONG`, or `PROPTEST_CASES` for as many.
fn config(cases: u32) -> Config {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
        if std::env::var_os("STEADFAST_TEST_DIR").is_some() {
            config.cases = cases / 4;
        }
        if common::long() {
            config.cases *= 50;
        } else {
            config.rng_seed = RngSeed::Fixed(1);
        }
    }
    config
}
