//! What a run did to a tree: which names, contents and attributes each of its system calls changed, and
//! which of them made what durable.
//!
//! After every call that may change anything the (small) tree is compared with what it was before. What
//! programs do beside the library is found the same way, at the next call.

use crate::build::Digest;
use rustix::fd::BorrowedFd;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use steadfast::sys::hook::{self, Likeness};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Of the bytes.
    pub(crate) digest: u64,
    /// What is on the disk behind them, up to the end of the sector.
    pub(crate) beyond: Bytes,
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

/// Times from this second on (in 2025) are the kernel's: no test sets one, and no recorded clock comes near.
pub(crate) const KERNEL: i64 = 1_750_000_000;

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
    /// The names of directories whose times of change are these.
    listed: HashMap<Node, (Stamp, Vec<std::ffi::OsString>)>,
    ticker: Ticker,
    /// The latest time of change, as the kernel gave it.
    latest: Stamp,
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
    /// Everything that is in `top` now is durable. To be made in a world without chance.
    pub(crate) fn new(top: &Path, known: M) -> Self {
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
            listed: HashMap::new(),
            ticker: Ticker::new(top.parent().unwrap()),
            latest: (0, 0),
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

    /// Nothing that the tests did shows the kernel's times any more.
    pub(crate) fn look(&self) {
        self.0.borrow_mut().look("", true);
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

/// Its time of modification, and for whom it is taken. The time that is shown becomes its own, so that the
/// tests find it too.
fn seen_as(path: &Path, meta: &fs::Metadata) -> (Stamp, Likeness) {
    let id = (meta.dev(), meta.ino());
    let mtime = stamp(meta.mtime(), meta.mtime_nsec());
    let like = hook::likeness(id, stamp(meta.ctime(), meta.ctime_nsec()), mtime).unwrap();
    if mtime.0 < KERNEL {
        return (mtime, like);
    }
    set_mtime(path, like.mtime[1]);
    let meta = fs::symlink_metadata(path).unwrap();
    let made = stamp(meta.ctime(), meta.ctime_nsec());
    hook::set_made(id, made);
    let ctime = [made, like.ctime[1]];
    (like.mtime[1], Likeness { ctime, ..like })
}

fn set_mtime(path: &Path, (sec, nsec): Stamp) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(sec, nsec.into()),
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Lets the file system's clock go on: a change after that shows in a file's time of change. Since Linux 6.13
/// a call or two does it, where times are kept so; before, it takes the next tick.
pub(crate) struct Ticker(fs::File);

impl Ticker {
    /// Of the file system that this directory is in.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(tempfile::tempfile_in(dir).unwrap())
    }

    /// Until it is later than this.
    pub(crate) fn pass(&self, latest: Stamp) {
        use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat, futimens};
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: time(UTIME_OMIT),
            last_modification: time(UTIME_NOW),
        };
        loop {
            futimens(&self.0, &times).unwrap();
            let now = fstat(&self.0).unwrap();
            if stamp(now.st_ctime, now.st_ctime_nsec as i64) > latest {
                break;
            }
        }
    }
}

/// Those that anybody may set. Not every file system has them.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<Bytes, Bytes> {
    let get = |name: &[u8], value: &mut [u8]| rustix::fs::lgetxattr(path, name, value);
    values(|names| rustix::fs::llistxattr(path, names), get)
}

/// The same of an open file.
pub(crate) fn xattrs_of(fd: BorrowedFd<'_>) -> BTreeMap<Bytes, Bytes> {
    let get = |name: &[u8], value: &mut [u8]| rustix::fs::fgetxattr(fd, name, value);
    values(|names| rustix::fs::flistxattr(fd, names), get)
}

fn values(
    list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> BTreeMap<Bytes, Bytes> {
    let mut names = [0; 4096];
    let Ok(len) = list(&mut names) else {
        return BTreeMap::new();
    };
    let mut value = [0; 4096];
    names[..len]
        .split(|b| *b == 0)
        .filter(|name| name.starts_with(b"user."))
        .map(|name| {
            let len = get(name, &mut value).unwrap();
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
        hook::tick();
        let mut now = Names::new();
        let top = self.top.clone();
        self.named.clear();
        self.look_at(&top, b".", call, everywhere, &mut now);
        self.ticker.pass(self.latest);
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
        let (mtime, like) = seen_as(path, &meta);
        self.latest = self.latest.max(like.ctime[0]);
        let ctime = like.ctime[1];
        let at = self.record.calls.len();
        let node = match self.nodes.get(&meta.ino()) {
            Some(node) => *node,
            None => self.add(path, name, &meta, mtime, &like),
        };
        self.named.insert(node);
        if meta.is_dir() && !now.contains_key(&node) {
            let mut names = BTreeMap::new();
            let all = match self.listed.remove(&node) {
                Some((at, all)) if at == ctime => all,
                _ => {
                    let entries = fs::read_dir(path).unwrap();
                    let mut all: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
                    all.sort();
                    all
                }
            };
            for name in &all {
                let path = path.join(name);
                let name = name.as_bytes();
                let below = self.look_at(&path, name, call, everywhere, now);
                names.insert(name.to_vec(), below);
            }
            self.listed.insert(node, (ctime, all));
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
                    digest: Digest::of(&bytes),
                    beyond: Bytes::new(),
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

    fn add(
        &mut self,
        path: &Path,
        name: &[u8],
        meta: &fs::Metadata,
        mtime: Stamp,
        like: &Likeness,
    ) -> Node {
        let node = self.record.things.len();
        let at = self.record.calls.len();
        let mut versions = Vec::new();
        let kind = if meta.is_dir() {
            Kind::Dir
        } else if meta.is_symlink() {
            Kind::Link(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            assert!(meta.is_file(), "{path:?}");
            let bytes = fs::read(path).unwrap();
            versions.push(Version {
                call: at,
                digest: Digest::of(&bytes),
                beyond: Bytes::new(),
                bytes: Arc::new(bytes),
                mtime,
            });
            Kind::File
        };
        self.record.things.push(Thing {
            ino: like.ino,
            btime: like.btime,
            kind,
            first: Attributes {
                mode: meta.mode() & 0o7777,
                owner: (meta.uid(), meta.gid()),
                xattrs: xattrs(path),
                mtime: None,
            },
            ctimes: vec![(at, like.ctime[1])],
            mtimes: vec![(at, mtime)],
            versions,
            name: String::from_utf8_lossy(name).into_owned(),
        });
        self.nodes.insert(meta.ino(), node);
        node
    }
}
