//! What the tests share.

/// A fresh directory on the file system under test.
#[allow(dead_code)] // Not every binary needs both.
pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).unwrap()
}

/// Says that a test, or a part of one, did not run. Past the test harness, which keeps what a test prints to
/// itself unless it fails.
#[allow(dead_code)]
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    use std::io::Write;
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
