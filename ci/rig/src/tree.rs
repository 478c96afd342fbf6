//! A tree of files as a value, to compare what is there with what should be.

use crate::Answer;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What one name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir(u32),
    /// Mode, number of names, content.
    File(u32, u64, Vec<u8>),
    Link(PathBuf),
}

pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Everything below `top` but the workspace's state folder.
pub(crate) fn tree(top: &Path) -> Answer<Tree> {
    let mut out = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for child in fs::read_dir(top.join(&at))? {
            let child = child?;
            let path = at.join(child.file_name());
            if path == Path::new(".steadfast") {
                continue;
            }
            let meta = child.metadata()?;
            let mode = meta.mode() & 0o7777;
            let entry = if meta.is_dir() {
                open.push(path.clone());
                Entry::Dir(mode)
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(top.join(&path))?)
            } else {
                Entry::File(mode, meta.nlink(), fs::read(top.join(&path))?)
            };
            out.insert(path, entry);
        }
    }
    Ok(out)
}

/// A value that is no tree, as one.
pub(crate) fn value(text: impl Into<Vec<u8>>) -> Tree {
    Tree::from([(PathBuf::from("value"), Entry::File(0, 0, text.into()))])
}

/// What the private folders of a workspace hold, and names of temporaries anywhere else.
pub(crate) fn litter(top: &Path, tree: &Tree) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = tree
        .keys()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(".sf-")
        })
        .cloned()
        .collect();
    for folder in ["staged", "kept", "retired", "conflicts"] {
        if let Ok(entries) = fs::read_dir(top.join(".steadfast").join(folder)) {
            out.extend(
                entries
                    .flatten()
                    .map(|e| Path::new(folder).join(e.file_name())),
            );
        }
    }
    out
}

/// What differs, shortly.
pub(crate) fn difference(is: &Tree, should: &Tree) -> String {
    let shown = |entry: Option<&Entry>| match entry {
        None => "nothing".to_owned(),
        Some(Entry::File(mode, links, bytes)) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
            format!(
                "file {mode:o}, {links} names, {} bytes {start:?}",
                bytes.len()
            )
        }
        Some(other) => format!("{other:?}"),
    };
    let mut paths: Vec<_> = is.keys().chain(should.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| is.get(*path) != should.get(*path));
    let lines: Vec<_> = paths
        .iter()
        .take(6)
        .map(|path| {
            format!(
                "{}: {}, not {}",
                path.display(),
                shown(is.get(*path)),
                shown(should.get(*path))
            )
        })
        .collect();
    lines.join("; ")
}
