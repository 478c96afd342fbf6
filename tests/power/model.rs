//! What a power cut may leave, from what a run did: a model that is weaker than any one file system.
//!
//! After every system call the whole (small) tree is recorded, and what each sync was about. From that:
//!
//! - The **content** of a file is any of its versions since its last fsync, or of the last of them nothing
//!   (empty), zeros, or a first part. Of a file that was never synced there is no last version to fall back
//!   on but none.
//! - **Names** change by calls. What one call changed in one directory is there as a whole or not at all,
//!   and in any combination with other calls, unless that directory was synced afterwards: then it is
//!   there. What a call changed in two directories may be there in one and not in the other.
//! - Permissions go with the content: any version since the last fsync of the file or directory.
//! - syncfs makes everything durable.
//!
//! No order is assumed between two names, two files, or a name and a file, as long as nothing was synced
//! between. Only calls that name the same file or directory one after the other are there in their order.
//! That is what the btrfs, xfs and ext4 have in common (`docs/durability.md`); fsync of a file is not taken
//! to make its name durable, although all three do that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

type Ino = u64;
type Bytes = Vec<u8>;

/// One file, directory or symlink as it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    mode: u32,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File(Bytes),
    Dir,
    Link(Bytes),
}

/// The tree at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    nodes: BTreeMap<Ino, Node>,
    names: BTreeMap<Ino, BTreeMap<Bytes, Ino>>,
    /// Whose mark in the name of an exchange this is.
    marks: BTreeMap<u64, Ino>,
}

/// What the name of an exchange tells a file by.
fn mark(path: &Path) -> u64 {
    use steadfast::sys::{AtFlags, CWD, statx};
    steadfast::root::temporary_mark(&statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap())
}

impl Snapshot {
    pub(crate) fn of(top: &Path) -> Self {
        let mut all = Self::default();
        all.add(top);
        all
    }

    fn add(&mut self, path: &Path) -> Ino {
        let meta = fs::symlink_metadata(path).unwrap();
        let ino = meta.ino();
        let kind = if meta.is_dir() {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name();
                names.insert(name.as_bytes().to_vec(), self.add(&path.join(&name)));
            }
            self.names.insert(ino, names);
            Kind::Dir
        } else if meta.is_symlink() {
            Kind::Link(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            Kind::File(fs::read(path).unwrap())
        };
        self.marks.insert(mark(path), ino);
        self.nodes.insert(
            ino,
            Node {
                mode: meta.mode() & 0o7777,
                kind,
            },
        );
        ino
    }
}

/// What one call changed in the names of one directory.
#[derive(Clone, Debug)]
struct Change {
    dir: Ino,
    names: Vec<(Bytes, Option<Ino>)>,
    /// Whose names these are or were.
    of: BTreeSet<Ino>,
    /// The number of the call.
    call: usize,
    /// A sync made it durable.
    durable: bool,
}

/// The versions of one inode, the oldest first; all but those since the last sync are dropped.
#[derive(Clone, Debug)]
struct Versions {
    all: Vec<Node>,
    /// The first one is on the disk.
    synced: bool,
}

/// What was recorded up to one moment.
#[derive(Clone, Debug)]
pub(crate) struct History {
    top: Ino,
    first: Snapshot,
    last: Snapshot,
    changes: Vec<Change>,
    versions: BTreeMap<Ino, Versions>,
    /// Every mark there was.
    marks: BTreeMap<u64, Ino>,
    /// The calls, to be shown.
    pub(crate) calls: Vec<&'static str>,
}

impl History {
    /// Everything that is there at first is durable.
    pub(crate) fn new(top: &Path) -> Self {
        let first = Snapshot::of(top);
        let durable = |node: &Node| Versions {
            all: vec![node.clone()],
            synced: true,
        };
        Self {
            top: fs::metadata(top).unwrap().ino(),
            versions: first
                .nodes
                .iter()
                .map(|(ino, node)| (*ino, durable(node)))
                .collect(),
            marks: first.marks.clone(),
            last: first.clone(),
            first,
            changes: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Notes a call, what the tree is after it, and what it made durable. True if a power cut may leave other
    /// states now than before.
    pub(crate) fn note(&mut self, call: &'static str, now: Snapshot, synced: Option<Ino>) -> bool {
        self.calls.push(call);
        if now == self.last && synced.is_none() {
            return false;
        }
        self.marks.extend(&now.marks);
        for (ino, node) in &now.nodes {
            let versions = self.versions.entry(*ino).or_insert_with(|| Versions {
                all: Vec::new(),
                synced: false,
            });
            if versions.all.last() != Some(node) {
                versions.all.push(node.clone());
            }
        }
        let none = BTreeMap::new();
        let dirs: BTreeSet<Ino> = now
            .names
            .keys()
            .chain(self.last.names.keys())
            .copied()
            .collect();
        for dir in dirs {
            let before = self.last.names.get(&dir).unwrap_or(&none);
            let after = now.names.get(&dir).unwrap_or(&none);
            let touched: BTreeSet<&Bytes> = before.keys().chain(after.keys()).collect();
            let names: Vec<_> = touched
                .into_iter()
                .filter(|name| before.get(*name) != after.get(*name))
                .map(|name| (name.clone(), after.get(name).copied()))
                .collect();
            if !names.is_empty() {
                let was = names
                    .iter()
                    .filter_map(|(name, _)| before.get(name).copied());
                let of = was
                    .chain(names.iter().filter_map(|(_, ino)| *ino))
                    .collect();
                let call = self.calls.len();
                self.changes.push(Change {
                    dir,
                    names,
                    of,
                    call,
                    durable: false,
                });
            }
        }
        self.last = now;
        match (call, synced) {
            ("syncfs", Some(_)) => {
                for change in &mut self.changes {
                    change.durable = true;
                }
                let all: Vec<Ino> = self.versions.keys().copied().collect();
                all.into_iter().for_each(|ino| self.settle(ino));
            }
            (_, Some(ino)) => {
                for change in self.changes.iter_mut().filter(|c| c.dir == ino) {
                    change.durable = true;
                }
                self.settle(ino);
            }
            (_, None) => {}
        }
        true
    }

    fn settle(&mut self, ino: Ino) {
        if let Some(versions) = self.versions.get_mut(&ino) {
            versions.all.drain(..versions.all.len().saturating_sub(1));
            versions.synced = true;
        }
    }

    /// Calls `check` with each state that a power cut may leave now, up to `limit` of them, and gives their
    /// number. Of more than that, a sample is drawn, always with both ends: nothing more than must be, and
    /// everything.
    pub(crate) fn states(&self, limit: usize, mut check: impl FnMut(&State<'_>)) -> usize {
        let open: Vec<usize> = (0..self.changes.len())
            .filter(|i| !self.changes[*i].durable)
            .collect();
        let bits = u32::try_from(open.len()).unwrap().min(20);
        let mut count = 0;
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let combinations = 1_u64 << bits;
        let step = (combinations * 8 / limit as u64).max(1);
        let mut mask = 0;
        while mask < combinations {
            let kept = |i: usize| match open.iter().position(|o| *o == i) {
                None => true,
                Some(bit) => mask >> bit.min(63) & 1 == 1,
            };
            if !self.in_order(&open, &kept) {
                mask += 1;
                continue;
            }
            let names = self.names(kept);
            let files: Vec<Ino> = self.reachable(&names);
            // Each file in turn in each of its states, the others whole; then all of them at their worst.
            let choices: Vec<(Ino, Vec<Node>)> = files
                .iter()
                .map(|ino| (*ino, self.contents(*ino)))
                .filter(|(_, nodes)| nodes.len() > 1)
                .collect();
            let mut run = |pick: &dyn Fn(Ino) -> usize| {
                let nodes = files.iter().map(|ino| {
                    let nodes = self.contents(*ino);
                    let at = pick(*ino).min(nodes.len() - 1);
                    (*ino, nodes[at].clone())
                });
                check(&State {
                    top: self.top,
                    marks: &self.marks,
                    names: &names,
                    nodes: nodes.collect(),
                });
                count += 1;
            };
            run(&|_| 0);
            run(&|_| usize::MAX);
            for (ino, nodes) in &choices {
                for at in 0..nodes.len() {
                    run(&|other| if other == *ino { at } else { 0 });
                }
            }
            if mask + 1 < combinations && step > 1 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                mask = (mask + 1 + random % (2 * step - 1)).min(combinations - 1);
            } else {
                mask += 1;
            }
        }
        count
    }

    /// Whether no change is there without an earlier one of the same file or directory.
    fn in_order(&self, open: &[usize], kept: &impl Fn(usize) -> bool) -> bool {
        let change = |i: &usize| &self.changes[*i];
        open.iter().filter(|i| kept(**i)).all(|i| {
            let earlier = open
                .iter()
                .filter(|j| change(j).call < change(i).call && !kept(**j));
            earlier.map(change).all(|e| e.of.is_disjoint(&change(i).of))
        })
    }

    /// The names that are there if these changes are.
    fn names(&self, kept: impl Fn(usize) -> bool) -> BTreeMap<Ino, BTreeMap<Bytes, Ino>> {
        let mut names = self.first.names.clone();
        for (i, change) in self.changes.iter().enumerate() {
            if kept(i) {
                let dir = names.entry(change.dir).or_default();
                for (name, ino) in &change.names {
                    match ino {
                        Some(ino) => dir.insert(name.clone(), *ino),
                        None => dir.remove(name),
                    };
                }
            }
        }
        names
    }

    fn reachable(&self, names: &BTreeMap<Ino, BTreeMap<Bytes, Ino>>) -> Vec<Ino> {
        let mut seen = BTreeSet::new();
        let mut next = vec![self.top];
        while let Some(ino) = next.pop() {
            if seen.insert(ino) {
                next.extend(names.get(&ino).into_iter().flat_map(|n| n.values()));
            }
        }
        seen.into_iter().collect()
    }

    /// What may be in it: the last version first, the worst last.
    fn contents(&self, ino: Ino) -> Vec<Node> {
        let Some(versions) = self.versions.get(&ino) else {
            return vec![Node {
                mode: 0o600,
                kind: Kind::File(Vec::new()),
            }];
        };
        let mut all: Vec<Node> = versions.all.iter().rev().cloned().collect();
        let durable = versions.synced && versions.all.len() == 1;
        if let (false, Kind::File(bytes)) = (durable, &all[0].kind) {
            let mode = all[0].mode;
            for torn in [
                bytes[..bytes.len() / 2].to_vec(),
                vec![0; bytes.len()],
                Vec::new(),
            ] {
                all.push(Node {
                    mode,
                    kind: Kind::File(torn),
                });
            }
        }
        all
    }
}

/// One state that a power cut may leave.
pub(crate) struct State<'a> {
    top: Ino,
    marks: &'a BTreeMap<u64, Ino>,
    names: &'a BTreeMap<Ino, BTreeMap<Bytes, Ino>>,
    nodes: BTreeMap<Ino, Node>,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (dir, names) in self.names {
            for (name, ino) in names {
                let node = self.nodes.get(ino);
                writeln!(
                    f,
                    "in {dir}: {} is {ino}: {node:?}",
                    String::from_utf8_lossy(name)
                )?;
            }
        }
        Ok(())
    }
}

impl State<'_> {
    /// Makes it real in an empty directory. Inode numbers in names are those of the new files, as a real
    /// power cut leaves inode numbers alone.
    pub(crate) fn build(&self, top: &Path) {
        let mut made = BTreeMap::new();
        self.fill(self.top, top, &mut made);
        let now = made
            .iter()
            .map(|(ino, (now, path))| (*ino, (*now, mark(path))))
            .collect();
        self.rename_exchanges(top, &now);
    }

    fn fill(&self, dir: Ino, path: &Path, made: &mut BTreeMap<Ino, (Ino, std::path::PathBuf)>) {
        for (name, ino) in self.names.get(&dir).into_iter().flatten() {
            let at = path.join(std::ffi::OsStr::from_bytes(name));
            let Some(node) = self.nodes.get(ino) else {
                continue;
            };
            match &node.kind {
                Kind::Dir => {
                    // A directory under two names is what no file system shows after its own recovery: one
                    // is kept.
                    if made.contains_key(ino) {
                        continue;
                    }
                    fs::create_dir(&at).unwrap();
                }
                _ if made.contains_key(ino) => {
                    fs::hard_link(&made[ino].1, &at).unwrap();
                    continue;
                }
                Kind::File(bytes) => fs::write(&at, bytes).unwrap(),
                Kind::Link(text) => symlink(std::ffi::OsStr::from_bytes(text), &at).unwrap(),
            }
            made.insert(*ino, (fs::symlink_metadata(&at).unwrap().ino(), at.clone()));
            if matches!(node.kind, Kind::Dir) {
                self.fill(*ino, &at, made);
            }
            if !matches!(node.kind, Kind::Link(_)) {
                fs::set_permissions(&at, fs::Permissions::from_mode(node.mode)).unwrap();
            }
        }
    }

    /// Puts the new inode numbers and marks into the names of exchanges that hold the recorded ones.
    fn rename_exchanges(&self, dir: &Path, made: &BTreeMap<Ino, (Ino, u64)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap_or_default()
                .to_owned();
            if name.len() == 45 && (name.starts_with(".sf-x") || name.starts_with(".sf-k")) {
                let number = |at: usize| u64::from_str_radix(&name[at..at + 16], 16).unwrap();
                let new = made.get(&number(5));
                let old = self.marks.get(&number(21)).and_then(|ino| made.get(ino));
                // One that is nowhere any more must not be taken for another.
                let new = new.map_or(Ino::MAX, |(ino, _)| *ino);
                let old = old.map_or(u64::MAX, |(_, mark)| *mark);
                let checked = format!("{}{new:016x}{old:016x}", &name[..5]);
                let check = crc32c::crc32c(checked.as_bytes());
                fs::rename(&path, dir.join(format!("{checked}{check:08x}"))).unwrap();
            } else if path.is_dir() && !path.is_symlink() {
                self.rename_exchanges(&path, made);
            }
        }
    }
}
