//! Any text is a manifest or is refused with words; nothing makes the reader fall over.
//!
//! The first byte chooses between TOML and JSON.

#![no_main]
#![allow(dead_code, unused_imports)] // The command uses all of it.

#[path = "../../crates/steadfast-cli/src/manifest/mod.rs"]
mod manifest;

use libfuzzer_sys::fuzz_target;
use manifest::{Format, parse};

fn run(data: &[u8]) {
    let Some((first, text)) = data.split_first() else {
        return;
    };
    let format = if first % 2 == 0 {
        Format::Toml
    } else {
        Format::Json
    };
    match parse(text, format) {
        Ok(manifest) => {
            for operation in &manifest.operations {
                assert!(operation.line >= 1 && operation.line <= text.len() as u64 + 1);
                for path in operation.change.paths() {
                    assert!(path.is_relative() && !path.as_os_str().is_empty());
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(
    init: steadfast_fuzz::fixed::write_if_asked(),
    |data: &[u8]| run(data)
);
