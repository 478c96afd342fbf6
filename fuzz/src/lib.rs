//! What the fuzz targets share: reading the input, places for trees, trees as values, logs byte by byte.

pub mod fixed;
pub mod input;
pub mod log;
pub mod model;
pub mod record;
pub mod tree;

use std::path::PathBuf;

/// Where the trees of all runs are made: in `STEADFAST_FUZZ_DIR`, else in memory where that is possible.
pub fn base() -> PathBuf {
    match std::env::var_os("STEADFAST_FUZZ_DIR") {
        Some(dir) => dir.into(),
        None => match PathBuf::from("/dev/shm") {
            memory if memory.is_dir() => memory,
            _ => std::env::temp_dir(),
        },
    }
}

/// A fresh directory, gone with its value. A run that ends in a crash leaves it for whoever looks.
pub fn fresh() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("steadfast-fuzz-")
        .tempdir_in(base())
        .expect("a directory for the run's trees")
}
