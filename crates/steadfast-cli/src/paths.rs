//! Paths and numbers as words: in text as they are or quoted, in JSON with their bytes where needed.

use serde_json::{Map, Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path as a JSON string where it is UTF-8, else an object with the lossy text and all bytes in hex.
pub(crate) fn path_value(path: &Path) -> Value {
    match path.to_str() {
        Some(text) => text.into(),
        None => json!({"path": path.to_string_lossy(), "path_bytes_hex": hex(path)}),
    }
}

/// A path under `key`; beside it `key_bytes_hex` where it is not UTF-8.
pub(crate) fn insert_path(object: &mut Map<String, Value>, key: &str, path: &Path) {
    object.insert(key.into(), path.to_string_lossy().into());
    if path.to_str().is_none() {
        object.insert(format!("{key}_bytes_hex"), hex(path).into());
    }
}

fn hex(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A path for a line of text: as it is, or quoted and escaped where that could mislead.
pub(crate) fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.is_empty() && !text.chars().any(needs_quotes) => text.to_owned(),
        _ => format!("{path:?}"),
    }
}

/// A number of things.
pub(crate) fn count(n: u64, thing: &str) -> String {
    match (n, thing.strip_suffix('y')) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        _ => format!("{n} {thing}s"),
    }
}

fn needs_quotes(c: char) -> bool {
    c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\')
}

/// Paths for the JSON object.
pub(crate) fn path_values<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Value> {
    paths.into_iter().map(|p| path_value(p)).collect()
}
