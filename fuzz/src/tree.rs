//! Whole trees as values, so that two moments can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a name stands for: type and mode, and content or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    pub mode: u32,
    /// Names of this file.
    pub links: u64,
    pub content: Vec<u8>,
}

pub type Tree = BTreeMap<PathBuf, Thing>;

/// Goes through everything below `top` but what `skip` names there.
fn walk(top: &Path, skip: &str, see: &mut dyn FnMut(PathBuf, &Path, &fs::Metadata)) {
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(top.join(&at)).unwrap().map(Result::unwrap) {
            let path = at.join(entry.file_name());
            if path == Path::new(skip) {
                continue;
            }
            let full = entry.path();
            let meta = fs::symlink_metadata(&full).unwrap();
            if meta.is_dir() {
                open.push(path.clone());
            }
            see(path, &full, &meta);
        }
    }
}

/// What is read of a thing.
fn content(full: &Path, meta: &fs::Metadata) -> Vec<u8> {
    if meta.is_symlink() {
        fs::read_link(full)
            .unwrap()
            .into_os_string()
            .into_encoded_bytes()
    } else if meta.is_file() {
        fs::read(full).unwrap()
    } else {
        Vec::new()
    }
}

/// The tree below `top`, without `skip`.
pub fn tree(top: &Path, skip: &str) -> Tree {
    let mut out = Tree::new();
    walk(top, skip, &mut |path, full, meta| {
        let thing = Thing {
            mode: meta.mode(),
            links: if meta.is_dir() { 0 } else { meta.nlink() },
            content: content(full, meta),
        };
        out.insert(path, thing);
    });
    out
}

/// Everything that can be told of a tree, times of change included: equal only if nothing was touched.
pub type Exact = BTreeMap<PathBuf, (u64, u32, [i64; 4], Vec<u8>)>;

/// The tree below `top`, without `skip`, exactly.
pub fn exact(top: &Path, skip: &str) -> Exact {
    let mut out = Exact::new();
    walk(top, skip, &mut |path, full, meta| {
        let times = [
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ];
        out.insert(path, (meta.ino(), meta.mode(), times, content(full, meta)));
    });
    out
}

/// The paths at which two trees differ, with what is there.
pub fn difference<T: PartialEq + std::fmt::Debug>(
    is: &BTreeMap<PathBuf, T>,
    should: &BTreeMap<PathBuf, T>,
) -> String {
    let mut paths: Vec<_> = is.keys().chain(should.keys()).collect();
    paths.sort();
    paths.dedup();
    let lines = paths.iter().filter(|p| is.get(**p) != should.get(**p));
    lines
        .map(|p| format!("{p:?}: {:?}, should be {:?}\n", is.get(*p), should.get(*p)))
        .collect()
}
