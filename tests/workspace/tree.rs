//! Whole trees as values, and what a state folder must not hold any more.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
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
    let top = open(CWD, dir.as_os_str(), OFlags::DIRECTORY).unwrap();
    let mut out = Tree::new();
    add(&top, Path::new(""), &mut out);
    out
}

fn add(dir: &OwnedFd, at: &Path, out: &mut Tree) {
    for name in names(dir) {
        if at.as_os_str().is_empty() && name == ".steadfast" {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let meta = rustix::fs::statx(dir, &name, flags, StatxFlags::BASIC_STATS).unwrap();
        let mode = u32::from(meta.stx_mode) & 0o7777;
        let path = at.join(&name);
        let entry = match FileType::from_raw_mode(meta.stx_mode.into()) {
            FileType::Directory => {
                let below = open(dir, &name, OFlags::DIRECTORY).unwrap();
                add(&below, &path, out);
                Entry::Dir(mode)
            }
            FileType::Symlink => {
                let to = rustix::fs::readlinkat(dir, &name, Vec::new()).unwrap();
                Entry::Link(OsString::from_vec(to.into_bytes()).into())
            }
            _ => {
                let set = Some(meta.stx_mtime.tv_sec).filter(|time| *time < 100_000_000);
                let bytes = content(open(dir, &name, OFlags::empty()).unwrap(), meta.stx_size);
                Entry::File(mode, meta.stx_nlink.into(), bytes, set)
            }
        };
        out.insert(path, entry);
    }
}

// By as few calls as it takes: trees are looked at very often.

fn open(dir: impl AsFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn names(dir: &OwnedFd) -> Vec<OsString> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut all = Vec::new();
    while let Some(entry) = entries.next() {
        match entry.unwrap().file_name().to_bytes() {
            b"." | b".." => {}
            name => all.push(OsString::from_vec(name.to_vec())),
        }
    }
    all
}

fn content(fd: OwnedFd, len: u64) -> Vec<u8> {
    let mut file = File::from(fd);
    let len = usize::try_from(len).unwrap();
    let mut bytes = vec![0; len + 1];
    let n = file.read(&mut bytes).unwrap();
    bytes.truncate(n);
    if n != len {
        file.read_to_end(&mut bytes).unwrap();
    }
    bytes
}

/// What is in the private folders: empty when nothing is open.
pub(crate) fn litter(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let Ok(state) = open(CWD, dir.join(".steadfast").as_os_str(), OFlags::DIRECTORY) else {
        return out;
    };
    for folder in ["staged", "kept", "retired", "conflicts"] {
        if let Ok(within) = open(&state, OsStr::new(folder), OFlags::DIRECTORY) {
            let names = names(&within).into_iter();
            out.extend(names.map(|name| Path::new(folder).join(name)));
        }
    }
    out.sort();
    out
}
