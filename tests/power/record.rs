//! What a run did to a tree: which names, contents and attributes each of its system calls changed, and
//! which of them made what durable.
//!
//! After every call that may change anything the (small) tree is compared with what it was before. What
//! programs do beside the library is found the same way, at the next call.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use steadfast::sys::hook::{self, Likenesses};

pub(crate) type Bytes = Vec<u8>;
/// A file, directory or symlink: its place in the order of appearance.
pub(crate) type Node = usize;
pub(crate) type Stamp = (i64, u32);
pub(crate) type Names = BTreeMap<Node, BTreeMap<Bytes, Node>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Link(Bytes),
}

/// What changes without a change of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) xattrs: BTreeMap<Bytes, Bytes>,
    /// If somebody has set it.
    pub(crate) mtime: Option<Stamp>,
}

/// The content of a file after one call.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) call: usize,
    pub(crate) bytes: Arc<Bytes>,
    pub(crate) mtime: Stamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) ino: u64,
    pub(crate) btime: Option<Stamp>,
    pub(crate) kind: Kind,
    /// The first attributes.
    pub(crate) first: Attributes,
    /// When the inode was changed, as it shows it, or would if it still had a name.
    pub(crate) ctimes: Vec<(usize, Stamp)>,
    /// Of directories and symlinks; of files they are with the content.
    pub(crate) mtimes: Vec<(usize, Stamp)>,
    pub(crate) versions: Vec<Version>,
    /// Where it is first seen, to be shown.
    pub(crate) name: String,
}

impl Thing {
    /// Its time of change after this call.
    pub(crate) fn ctime(&self, call: usize) -> Stamp {
        let known = self.ctimes.partition_point(|(at, _)| *at <= call);
        self.ctimes[known.max(1) - 1].1
    }

    /// A directory's or symlink's time of modification after this call.
    pub(crate) fn mtime(&self, call: usize) -> Stamp {
        let known = self.mtimes.partition_point(|(at, _)| *at <= call);
        self.mtimes[known.max(1) - 1].1
    }
}

/// What a call changed of one directory's names.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) dir: Node,
    /// Name, what it was, what it is.
    pub(crate) names: Vec<(Bytes, Option<Node>, Option<Node>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One part for each directory.
    Names(Vec<Part>),
    Attributes(Node, Attributes),
}

/// One change of metadata, which a file system makes as a whole unless its rules say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) call: usize,
    pub(crate) what: What,
    /// Whose names these are or were, or whose attributes.
    pub(crate) of: BTreeSet<Node>,
    pub(crate) is_exchange: bool,
}

impl Unit {
    pub(crate) fn parts(&self) -> &[Part] {
        match &self.what {
            What::Names(parts) => parts,
            What::Attributes(..) => &[],
        }
    }

    /// All of its parts, a bit each.
    pub(crate) fn whole(&self) -> u8 {
        match &self.what {
            What::Names(parts) => (1 << parts.len()) - 1,
            What::Attributes(..) => 1,
        }
    }

    /// Whether both are about one name in one directory.
    pub(crate) fn shares_a_name_with(&self, other: &Self) -> bool {
        let all = |unit: &'_ Self| -> BTreeSet<(Node, Bytes)> {
            let parts = unit.parts().iter();
            let names = parts.flat_map(|p| p.names.iter().map(|(name, ..)| (p.dir, name.clone())));
            names.collect()
        };
        !all(self).is_disjoint(&all(other))
    }

    /// Whether something gets a name by it.
    pub(crate) fn names(&self, node: Node) -> bool {
        let gained = |part: &Part| part.names.iter().any(|(_, _, now)| *now == Some(node));
        self.parts().iter().any(gained)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synced {
    /// fsync(2).
    Node(Node),
    /// fdatasync(2).
    Data(Node),
    /// syncfs(2).
    All,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sync {
    pub(crate) call: usize,
    pub(crate) what: Synced,
}

/// A moment at which the power may go, and what is known then.
#[derive(Clone, Debug)]
pub(crate) struct Cut<M> {
    /// How many calls were made.
    pub(crate) call: usize,
    pub(crate) known: M,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) things: Vec<Thing>,
    /// Everything that is there at first is durable.
    pub(crate) first: Names,
    pub(crate) units: Vec<Unit>,
    pub(crate) syncs: Vec<Sync>,
    pub(crate) calls: Vec<&'static str>,
}

impl Record {
    /// The directory that everything is in.
    pub(crate) const TOP: Node = 0;
}

/// Calls that change nothing that a power cut could lose.
const HARMLESS: [&str; 20] = [
    "clock_gettime",
    "dup",
    "faccessat2",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fstatfs",
    "getdents64",
    "getrandom",
    "getxattr",
    "lseek",
    "lseek(SEEK_DATA)",
    "lseek(SEEK_HOLE)",
    "name_to_handle_at",
    "openat2(NULL)",
    "pread64",
    "read",
    "readlinkat",
    "statx",
    "sync_file_range",
];

/// Calls that change the content of a file that is there.
const WRITES: [&str; 6] = [
    "copy_file_range",
    "fallocate",
    "ftruncate",
    "ioctl(FICLONE)",
    "pwrite64",
    "write",
];

struct Seen {
    ctime: Stamp,
    mtime: Stamp,
    attributes: Attributes,
}

struct Inner<M> {
    record: Record,
    top: std::path::PathBuf,
    nodes: HashMap<u64, Node>,
    seen: HashMap<Node, Seen>,
    /// Those that have a name, as of the last look.
    named: HashSet<Node>,
    names: Names,
    likenesses: Likenesses,
    known: M,
    cuts: Vec<Cut<M>>,
    /// Something changed since the last cut.
    is_open: bool,
}

/// Records a run. Clones are the same recorder.
pub(crate) struct Recorder<M>(Rc<RefCell<Inner<M>>>);

impl<M> Clone for Recorder<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Clone + 'static> Recorder<M> {
    /// Everything that is in `top` now is durable. `likenesses` are for whom the files there are taken.
    pub(crate) fn new(top: &Path, known: M, likenesses: Likenesses) -> Self {
        let record = Record {
            things: Vec::new(),
            first: Names::new(),
            units: Vec::new(),
            syncs: Vec::new(),
            calls: Vec::new(),
        };
        let mut inner = Inner {
            record,
            top: top.to_owned(),
            nodes: HashMap::new(),
            seen: HashMap::new(),
            named: HashSet::new(),
            names: Names::new(),
            likenesses,
            known,
            cuts: Vec::new(),
            is_open: true,
        };
        inner.look("", true);
        inner.record.units.clear();
        inner.record.first = inner.names.clone();
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Runs what is to be recorded.
    pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let inner = self.0.clone();
        let observer = move |call: &'static str, synced: Option<(u64, u64)>| {
            inner.borrow_mut().note(call, synced.map(|(_, ino)| ino));
        };
        let value = hook::observe(observer, f);
        let mut inner = self.0.borrow_mut();
        inner.look("", true);
        inner.cut();
        value
    }

    /// From now on this is known.
    pub(crate) fn know(&self, known: M) {
        let mut inner = self.0.borrow_mut();
        inner.look("", true);
        inner.cut();
        inner.known = known;
        inner.is_open = true;
    }

    pub(crate) fn take(self) -> (Record, Vec<Cut<M>>) {
        let inner = self.0.borrow();
        (inner.record.clone(), inner.cuts.clone())
    }
}

fn stamp(sec: i64, nsec: i64) -> Stamp {
    (sec, u32::try_from(nsec).unwrap())
}

fn btime(path: &Path) -> Option<Stamp> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let stx = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).unwrap();
    let known = stx.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec))
}

/// Those that anybody may set. Not every file system has them.
fn xattrs(path: &Path) -> BTreeMap<Bytes, Bytes> {
    let mut names = [0; 4096];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    let mut value = [0; 4096];
    names[..len]
        .split(|b| *b == 0)
        .filter(|name| name.starts_with(b"user."))
        .map(|name| {
            let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}

impl<M: Clone> Inner<M> {
    fn note(&mut self, call: &'static str, synced: Option<u64>) {
        if synced.is_some() {
            // What the sync makes durable could be lost until now.
            self.cut();
        }
        self.record.calls.push(call);
        if !HARMLESS.contains(&call) && !call.starts_with("fcntl") {
            self.look(call, WRITES.contains(&call));
        }
        let Some(ino) = synced else { return };
        let what = match (call, self.nodes.get(&ino)) {
            ("syncfs", _) => Synced::All,
            ("fdatasync", Some(node)) => Synced::Data(*node),
            (_, Some(node)) => Synced::Node(*node),
            // It has no name yet.
            (_, None) => return,
        };
        let call = self.record.calls.len();
        self.record.syncs.push(Sync { call, what });
        self.is_open = true;
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.cuts.push(Cut {
                call: self.record.calls.len(),
                known: self.known.clone(),
            });
        }
    }

    /// Finds what is not as it was. `everywhere`: also in files whose times are as they were.
    fn look(&mut self, call: &str, everywhere: bool) {
        let mut now = Names::new();
        let top = self.top.clone();
        self.named.clear();
        self.look_at(&top, b".", call, everywhere, &mut now);
        let none = BTreeMap::new();
        let mut parts = Vec::new();
        let dirs: BTreeSet<Node> = now.keys().chain(self.names.keys()).copied().collect();
        for dir in dirs {
            let before = self.names.get(&dir).unwrap_or(&none);
            let after = now.get(&dir).unwrap_or(&none);
            let touched: BTreeSet<&Bytes> = before.keys().chain(after.keys()).collect();
            let change = |name: &&Bytes| (before.get(*name).copied(), after.get(*name).copied());
            let names: Vec<_> = touched
                .into_iter()
                .map(|name| (name, change(&name)))
                .filter(|(_, (was, is))| was != is)
                .map(|(name, (was, is))| (name.clone(), was, is))
                .collect();
            if !names.is_empty() {
                parts.push(Part { dir, names });
            }
        }
        self.names = now;
        if parts.is_empty() {
            return;
        }
        self.date_the_nameless(&parts);
        if call.starts_with("renameat") {
            self.unit(What::Names(parts), call.contains("EXCHANGE"));
            return;
        }
        // Anything else changes one name each.
        for part in parts {
            for name in part.names {
                let (dir, names) = (part.dir, vec![name]);
                self.unit(What::Names(vec![Part { dir, names }]), false);
            }
        }
    }

    /// What lost all its names since the last look was changed by that, and cannot be looked at any more: its
    /// times are those of the directories that have lost it. In a state in which only a part of that
    /// happened it still has a name, and shows them.
    fn date_the_nameless(&mut self, parts: &[Part]) {
        let at = self.record.calls.len();
        let dirs: BTreeSet<Node> = parts.iter().map(|part| part.dir).collect();
        let latest = (dirs.iter().filter(|dir| self.named.contains(dir)))
            .map(|dir| self.seen[dir].ctime)
            .max();
        let Some(latest) = latest else { return };
        let names = parts.iter().flat_map(|part| &part.names);
        let lost = names.filter_map(|(_, was, _)| *was);
        let touched: BTreeSet<Node> = dirs.iter().copied().chain(lost).collect();
        for node in touched {
            if !self.named.contains(&node) {
                let thing = &mut self.record.things[node];
                thing.ctimes.push((at, latest));
                if dirs.contains(&node) {
                    thing.mtimes.push((at, latest));
                }
            }
        }
    }

    fn unit(&mut self, what: What, is_exchange: bool) {
        let of = match &what {
            What::Names(parts) => (parts.iter().flat_map(|part| &part.names))
                .flat_map(|(_, was, is)| [*was, *is])
                .flatten()
                .collect(),
            What::Attributes(node, _) => [*node].into(),
        };
        self.record.units.push(Unit {
            call: self.record.calls.len(),
            what,
            of,
            is_exchange,
        });
        self.is_open = true;
    }

    fn look_at(
        &mut self,
        path: &Path,
        name: &[u8],
        call: &str,
        everywhere: bool,
        now: &mut Names,
    ) -> Node {
        let meta = fs::symlink_metadata(path).unwrap();
        let (mtime, ctime) = (
            stamp(meta.mtime(), meta.mtime_nsec()),
            stamp(meta.ctime(), meta.ctime_nsec()),
        );
        let at = self.record.calls.len();
        let node = match self.nodes.get(&meta.ino()) {
            Some(node) => *node,
            None => self.add(path, name, &meta),
        };
        self.named.insert(node);
        if meta.is_dir() && !now.contains_key(&node) {
            let mut names = BTreeMap::new();
            let mut all: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap()).collect();
            all.sort_by_key(std::fs::DirEntry::file_name);
            for entry in all {
                let name = entry.file_name();
                let name = name.as_bytes();
                let below = self.look_at(&entry.path(), name, call, everywhere, now);
                names.insert(name.to_vec(), below);
            }
            now.insert(node, names);
        }
        let is_file = meta.is_file();
        let mut is_written = false;
        let Some(seen) = self.seen.get_mut(&node) else {
            let attributes = self.record.things[node].first.clone();
            let seen = Seen {
                ctime,
                mtime,
                attributes,
            };
            self.seen.insert(node, seen);
            return node;
        };
        let thing = &mut self.record.things[node];
        if is_file && (everywhere || seen.mtime != mtime || seen.ctime != ctime) {
            let bytes = fs::read(path).unwrap();
            let last = thing.versions.last().unwrap();
            if *last.bytes != bytes {
                thing.versions.push(Version {
                    call: at,
                    bytes: Arc::new(bytes),
                    mtime,
                });
                is_written = true;
                self.is_open = true;
            }
        }
        if seen.ctime == ctime && seen.mtime == mtime {
            return node;
        }
        thing.ctimes.push((at, ctime));
        if !is_file {
            thing.mtimes.push((at, mtime));
        }
        let is_set = match is_file {
            true => !is_written,
            false => call.contains("utimens"),
        };
        let attributes = Attributes {
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            xattrs: xattrs(path),
            mtime: match is_set && seen.mtime != mtime {
                true => Some(mtime),
                false => seen.attributes.mtime,
            },
        };
        (seen.ctime, seen.mtime) = (ctime, mtime);
        if seen.attributes != attributes {
            seen.attributes = attributes.clone();
            self.unit(What::Attributes(node, attributes), false);
        }
        node
    }

    fn add(&mut self, path: &Path, name: &[u8], meta: &fs::Metadata) -> Node {
        let node = self.record.things.len();
        let at = self.record.calls.len();
        let mtime = stamp(meta.mtime(), meta.mtime_nsec());
        let ctime = stamp(meta.ctime(), meta.ctime_nsec());
        let mut versions = Vec::new();
        let kind = if meta.is_dir() {
            Kind::Dir
        } else if meta.is_symlink() {
            Kind::Link(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            assert!(meta.is_file(), "{path:?}");
            versions.push(Version {
                call: at,
                bytes: Arc::new(fs::read(path).unwrap()),
                mtime,
            });
            Kind::File
        };
        // In a copy of a tree, whom it stands for.
        let like = self.likenesses.get(&(meta.dev(), meta.ino()));
        let own = (meta.ino(), btime(path));
        let (ino, btime) = like.map_or(own, |like| (like.ino, like.btime));
        self.record.things.push(Thing {
            ino,
            btime,
            kind,
            first: Attributes {
                mode: meta.mode() & 0o7777,
                owner: (meta.uid(), meta.gid()),
                xattrs: xattrs(path),
                mtime: None,
            },
            ctimes: vec![(at, like.map_or(ctime, |like| like.ctime[1]))],
            mtimes: vec![(at, mtime)],
            versions,
            name: String::from_utf8_lossy(name).into_owned(),
        });
        self.nodes.insert(meta.ino(), node);
        node
    }
}
