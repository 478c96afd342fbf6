//! Whole trees as values, temporaries apart, so that "old", "new" and "nothing left" can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use steadfast::Root;
use steadfast::publish::{Kept, SweepOptions, sweep};

/// One entry: what it is, and its content or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Dir(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
}

/// Everything below a name, by path relative to it; the entry itself is at the empty path.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// A directory: its entries by name, and the temporaries anywhere below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) names: BTreeMap<PathBuf, Tree>,
    pub(crate) temps: BTreeMap<PathBuf, Tree>,
}

/// A temporary name of the library's form (see `root::temp_name`).
pub(crate) fn temp_name(class: char, numbers: &[u64]) -> String {
    let digits: String = numbers.iter().map(|n| format!("{n:016x}")).collect();
    let name = format!(".sf-{class}{digits}");
    let check = crc32c::crc32c(name.as_bytes());
    format!("{name}{check:08x}")
}

fn is_temp(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b".sf-"))
}

fn entry(path: &Path) -> Entry {
    let meta = fs::symlink_metadata(path).unwrap();
    let mode = meta.mode() & 0o7777;
    if meta.is_dir() {
        Entry::Dir(mode)
    } else if meta.is_symlink() {
        Entry::Link(fs::read_link(path).unwrap())
    } else {
        Entry::File(mode, fs::read(path).unwrap())
    }
}

/// Reads everything below `at`, which has the path `shown`; temporaries go to `temps`.
fn read(at: &Path, shown: &Path, temps: &mut BTreeMap<PathBuf, Tree>) -> Tree {
    let found = entry(at);
    let mut tree = Tree::new();
    if let Entry::Dir(_) = found {
        for child in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let name = PathBuf::from(child.file_name());
            let shown = shown.join(&name);
            let below = read(&child.path(), &shown, temps);
            if is_temp(&name) {
                temps.insert(shown, below);
                continue;
            }
            for (path, entry) in below {
                tree.insert(join(&name, &path), entry);
            }
        }
    }
    tree.insert(PathBuf::new(), found);
    tree
}

fn join(a: &Path, b: &Path) -> PathBuf {
    if b.as_os_str().is_empty() {
        a.to_owned()
    } else {
        a.join(b)
    }
}

pub(crate) fn state(dir: &Path) -> State {
    let mut state = State::default();
    for child in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = PathBuf::from(child.file_name());
        let tree = read(&child.path(), &name, &mut state.temps);
        if is_temp(&name) {
            state.temps.insert(name, tree);
        } else {
            state.names.insert(name, tree);
        }
    }
    state
}

impl State {
    /// Without directories that hold nothing but directories: parents that were made and stay.
    pub(crate) fn without_empty_dirs(mut self) -> Self {
        self.names
            .retain(|_, tree| tree.values().any(|e| !matches!(e, Entry::Dir(_))));
        self
    }

    pub(crate) fn tree(&self, name: &str) -> Option<&Tree> {
        self.names.get(Path::new(name))
    }

    /// Whether this content stands anywhere, under whatever name.
    pub(crate) fn holds(&self, tree: &Tree) -> bool {
        let whole = self.names.values().chain(self.temps.values());
        whole.into_iter().any(|t| {
            t.keys().any(|path| {
                let below = t.iter().filter_map(|(p, entry)| {
                    let p = p.strip_prefix(path).ok()?.to_owned();
                    Some((p, entry.clone()))
                });
                same_content(&below.collect(), tree)
            })
        })
    }
}

/// The same but for modes.
pub(crate) fn same_content(a: &Tree, b: &Tree) -> bool {
    let bare = |tree: &Tree| -> Tree {
        let entries = tree.iter().map(|(path, entry)| match entry {
            Entry::Dir(_) => (path.clone(), Entry::Dir(0)),
            Entry::File(_, bytes) => (path.clone(), Entry::File(0, bytes.clone())),
            link => (path.clone(), link.clone()),
        });
        entries.collect()
    };
    bare(a) == bare(b)
}

/// Sweeps as a later run would; afterwards no temporary is there, except what was to be kept.
pub(crate) fn sweep_all(dir: &Path, may_keep: bool, context: &str) {
    let before = state(dir);
    let root = Root::open(dir).unwrap();
    let options = SweepOptions::new().recursive(true);
    // A child that another test starts would hold, until its exec, what was open here at its fork.
    let _no_child = crate::common::no_child();
    let report = sweep(&root, ".", &options).unwrap();
    for (path, kept) in report.kept() {
        assert!(
            may_keep && *kept == Kept::Displaced,
            "{context}: {path:?} {kept:?}"
        );
    }
    let after = state(dir);
    let mut kept: Vec<_> = report.kept().iter().map(|(path, _)| path).collect();
    kept.sort();
    let there: Vec<_> = after.temps.keys().collect();
    assert_eq!(there, kept, "{context}: left after a sweep");
    assert_eq!(before.names, after.names, "{context}: changed by a sweep");
}
