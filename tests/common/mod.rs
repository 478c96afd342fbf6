//! What the tests share.

/// A fresh directory on the file system under test.
pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).unwrap()
}
