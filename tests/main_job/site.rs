//! A tree of the size of a web site, made from a seed: what is in it, and whether a directory holds it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use steadfast::Root;
use steadfast::sys::{Mode, OFlags};

pub(crate) use crate::common::Random;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Dir,
    /// So many bytes, from the version and this number.
    File(u64, usize),
    Link(PathBuf),
    /// A further name of this file.
    Hard(PathBuf),
}

/// What a site holds, parents before what is in them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) items: BTreeMap<PathBuf, Item>,
    /// The files, to draw from.
    pub(crate) files: Vec<(PathBuf, u64, usize)>,
}

/// The file that says which version a tree is.
pub(crate) const VERSION: &str = "VERSION";

impl Site {
    pub(crate) fn new(seed: u64, files: usize) -> Self {
        let mut random = Random(seed);
        let mut items = BTreeMap::new();
        let mut dirs = vec![PathBuf::new()];
        let mut list: Vec<(PathBuf, u64, usize)> = Vec::new();
        while list.len() < files {
            let number = random.next();
            let dir = &dirs[random.below(dirs.len())];
            let path = dir.join(name(&mut random));
            if items.contains_key(&path) {
                continue;
            }
            let item = match random.below(20) {
                0 | 1 if dir.components().count() < 12 => {
                    dirs.push(path.clone());
                    Item::Dir
                }
                2 => Item::Link(match list.len() {
                    0 => PathBuf::from("nowhere"),
                    n => up(dir).join(&list[random.below(n)].0),
                }),
                3 if !list.is_empty() => Item::Hard(list[random.below(list.len())].0.clone()),
                _ => {
                    // Mostly small, and some that do not fit into one block.
                    let most = if random.below(50) == 0 { 60_000 } else { 3000 };
                    let len = 16 + random.below(most);
                    list.push((path.clone(), number, len));
                    Item::File(number, len)
                }
            };
            items.insert(path, item);
        }
        // A chain of directories, deeper than the rest.
        let mut deep = PathBuf::from("deep");
        for n in 0..30 {
            items.insert(deep.clone(), Item::Dir);
            deep.push(format!("level-{n}"));
        }
        items.insert(deep.clone(), Item::File(1, 100));
        list.push((deep, 1, 100));
        items.insert(VERSION.into(), Item::File(0, 16));
        Self { items, files: list }
    }

    /// Makes the tree in an empty directory.
    pub(crate) fn fill(&self, root: &Root, version: u64) -> steadfast::Result<()> {
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let mut hard = Vec::new();
        for (path, item) in &self.items {
            match item {
                Item::Dir => root.create_dir(path, Mode::from_raw_mode(0o755))?,
                Item::File(number, len) => {
                    let fd = root.open_with(path, create, Mode::from_raw_mode(0o644))?;
                    let bytes = content(version, *number, *len);
                    File::from(fd).write_all(&bytes).unwrap();
                }
                Item::Link(text) => root.symlink(text, path)?,
                Item::Hard(of) => hard.push((of, path)),
            }
        }
        for (of, path) in hard {
            root.hard_link(of, root, path)?;
        }
        Ok(())
    }

    /// Whether `dir` holds this version and nothing else, byte for byte.
    pub(crate) fn check(&self, dir: &Path, version: u64) {
        let mut found = 0;
        let mut open = vec![PathBuf::new()];
        while let Some(below) = open.pop() {
            for entry in fs::read_dir(dir.join(&below)).unwrap().map(Result::unwrap) {
                let path = below.join(entry.file_name());
                let at = entry.path();
                found += 1;
                match self.items.get(&path) {
                    Some(Item::Dir) => open.push(path),
                    Some(Item::File(number, len)) => {
                        let bytes = fs::read(&at).unwrap();
                        assert!(bytes == content(version, *number, *len), "{path:?}");
                    }
                    Some(Item::Link(text)) => assert_eq!(&fs::read_link(&at).unwrap(), text),
                    Some(Item::Hard(of)) => {
                        let ino = |at: &Path| fs::symlink_metadata(at).unwrap().ino();
                        assert_eq!(ino(&at), ino(&dir.join(of)), "{path:?}");
                    }
                    None => panic!("{path:?} is not of this tree"),
                }
            }
        }
        assert_eq!(found, self.items.len(), "something is missing");
    }
}

/// A name of one to some forty bytes, of any kind.
fn name(random: &mut Random) -> OsString {
    let number = random.next() % 100_000;
    match random.below(12) {
        0 => OsString::from_vec([&b"\xff\xc3"[..], number.to_string().as_bytes()].concat()),
        1 => format!("with blank {number}").into(),
        2 => format!("-dash\nline {number}").into(),
        3 => format!(".hidden-{number}").into(),
        4 => format!(".sf-mine-{number}").into(),
        5 => format!("{number}-{}", "long".repeat(9)).into(),
        _ => format!("page-{number}.html").into(),
    }
}

/// The way from a directory to the top.
fn up(dir: &Path) -> PathBuf {
    dir.components().map(|_| "..").collect()
}

/// Every block of sixteen bytes says the version.
pub(crate) fn content(version: u64, number: u64, len: usize) -> Vec<u8> {
    let block = format!("{version:08x}{:08x}", number & 0xffff_ffff);
    let mut bytes = block.repeat(len / block.len() + 1).into_bytes();
    bytes.truncate(len);
    bytes
}

/// The version that a file's content says.
pub(crate) fn version_of(bytes: &[u8]) -> u64 {
    u64::from_str_radix(std::str::from_utf8(&bytes[..8]).unwrap(), 16).unwrap()
}

/// Whether any name of a temporary's form is below a directory.
pub(crate) fn temporaries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            let ours = name.as_bytes().strip_prefix(b".sf-");
            if ours.is_some_and(|rest| rest.first().is_some_and(|c| b"tdxk".contains(c))) {
                found.push(entry.path());
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}
