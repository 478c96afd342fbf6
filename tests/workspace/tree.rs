//! Whole trees as values, and what a state folder must not hold any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is another in two trees, shortly.
pub(crate) fn difference(is: &Tree, should: &Tree) -> String {
    let shown = |entry: Option<&Entry>| match entry {
        None => "nothing".to_owned(),
        Some(Entry::File(mode, links, bytes, time)) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
            format!(
                "file {mode:o}, {links} names, {} bytes {start:?}, of {time:?}",
                bytes.len()
            )
        }
        Some(other) => format!("{other:?}"),
    };
    let paths = is.keys().chain(should.keys());
    let mut lines: Vec<_> = paths
        .filter(|path| is.get(*path) != should.get(*path))
        .map(|path| {
            let (is, should) = (shown(is.get(path)), shown(should.get(path)));
            format!("{path:?}: {is}, should be {should}")
        })
        .collect();
    lines.dedup();
    lines.join("\n")
}

/// One entry: mode, and what it is; of a file how many names it has, its content, and its time of
/// modification if somebody has set it, to one long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir(u32),
    File(u32, u64, Vec<u8>, Option<i64>),
    Link(PathBuf),
}

pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Everything below `dir` but the state folder.
pub(crate) fn tree(dir: &Path) -> Tree {
    let mut out = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(at) = todo.pop() {
        for child in fs::read_dir(dir.join(&at)).unwrap().map(Result::unwrap) {
            let path = at.join(child.file_name());
            if path == Path::new(".steadfast") {
                continue;
            }
            let meta = child.metadata().unwrap();
            let mode = meta.mode() & 0o7777;
            let entry = if meta.is_dir() {
                todo.push(path.clone());
                Entry::Dir(mode)
            } else if meta.is_symlink() {
                Entry::Link(fs::read_link(dir.join(&path)).unwrap())
            } else {
                let set = Some(meta.mtime()).filter(|time| *time < 100_000_000);
                Entry::File(mode, meta.nlink(), content(&dir.join(&path), &meta), set)
            };
            out.insert(path, entry);
        }
    }
    out
}

/// By as few calls as it takes: trees are looked at very often.
fn content(path: &Path, meta: &fs::Metadata) -> Vec<u8> {
    let len = usize::try_from(meta.len()).unwrap();
    let mut bytes = vec![0; len + 1];
    let mut file = fs::File::open(path).unwrap();
    if file.read(&mut bytes).unwrap() != len {
        return fs::read(path).unwrap();
    }
    bytes.truncate(len);
    bytes
}

/// What is in the private folders: empty when nothing is open.
pub(crate) fn litter(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for folder in ["staged", "kept", "retired", "conflicts"] {
        let at = dir.join(".steadfast").join(folder);
        let Ok(entries) = fs::read_dir(&at) else {
            continue;
        };
        out.extend(entries.map(|e| Path::new(folder).join(e.unwrap().file_name())));
    }
    out.sort();
    out
}
