//! Records a run: after every call that may change anything the (small) tree is compared with what it was
//! before. What programs do beside the library is found the same way, at the next call.

use crate::build::Digest;
use crate::disk::{Ticker, set_mtime, stamp, xattrs};
use crate::record::{
    Attributes, Bytes, Cut, KERNEL, Kind, Names, Node, Part, Record, Stamp, Sync, Synced, Thing,
    Unit, Version, What,
};
use rustix::fs::CWD;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use steadfast::sys::hook::{self, Likeness};

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

/// Its time of modification, and for whom it is taken. The time that is shown becomes its own, so that the
/// tests find it too.
fn seen_as(path: &Path, meta: &fs::Metadata) -> (Stamp, Likeness) {
    let id = (meta.dev(), meta.ino());
    let mtime = stamp(meta.mtime(), meta.mtime_nsec());
    let like = hook::likeness(id, stamp(meta.ctime(), meta.ctime_nsec()), mtime).unwrap();
    if mtime.0 < KERNEL {
        return (mtime, like);
    }
    set_mtime(CWD, path.as_os_str().as_bytes(), like.mtime[1]);
    let meta = fs::symlink_metadata(path).unwrap();
    let made = stamp(meta.ctime(), meta.ctime_nsec());
    hook::set_made(id, made);
    let ctime = [made, like.ctime[1]];
    (like.mtime[1], Likeness { ctime, ..like })
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
