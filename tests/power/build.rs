//! One state that a power cut may leave: what is where, and the making of it.
//!
//! Everything is made anew, with new inode numbers; the test seam shows the library those of the record, with
//! their times of birth and change. So states can be made on all cores at the same time.

use crate::data::{Data, Window};
use crate::record::{Attributes, Bytes, Kind, Names, Node, Record, Stamp, What};
use crate::rules::{Family, Masks};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, futimens, utimensat};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steadfast::sys::hook::{Likeness, Likenesses};

/// What is lost, and what is not: all that tells one state from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) family: Family,
    /// How many calls were made.
    pub(crate) call: usize,
    pub(crate) masks: Masks,
    /// Of files that are not whole.
    pub(crate) data: BTreeMap<Node, Data>,
}

struct Item {
    attributes: Attributes,
    mtime: Stamp,
    ctime: Stamp,
    content: Arc<Bytes>,
}

/// The state that a choice amounts to.
pub(crate) struct State<'a> {
    record: &'a Record,
    names: Names,
    items: BTreeMap<Node, Item>,
}

fn there<'a>(record: &'a Record, masks: &'a Masks) -> impl Iterator<Item = (usize, &'a What, u8)> {
    let units = record
        .units
        .iter()
        .zip(masks)
        .filter(|(_, mask)| **mask != 0);
    units.map(|(unit, mask)| (unit.call, &unit.what, *mask))
}

/// The names that are there.
pub(crate) fn names(record: &Record, masks: &Masks) -> Names {
    let mut names = record.first.clone();
    for (_, what, mask) in there(record, masks) {
        let What::Names(parts) = what else { continue };
        for (_, part) in parts
            .iter()
            .enumerate()
            .filter(|(at, _)| mask >> at & 1 == 1)
        {
            let dir = names.entry(part.dir).or_default();
            for (name, _, now) in &part.names {
                match now {
                    Some(node) => dir.insert(name.clone(), *node),
                    None => dir.remove(name),
                };
            }
        }
    }
    names
}

/// Everything that has a name. A directory under two names is what no file system shows after its own
/// recovery: the first is kept.
pub(crate) fn reachable(names: &mut Names, record: &Record) -> BTreeSet<Node> {
    let mut seen = BTreeSet::from([Record::TOP]);
    let mut next = vec![Record::TOP];
    while let Some(dir) = next.pop() {
        let Some(children) = names.get_mut(&dir) else {
            continue;
        };
        children.retain(|_, node| {
            let is_dir = record.things[*node].kind == Kind::Dir;
            let is_new = seen.insert(*node);
            if is_dir && is_new {
                next.push(*node);
            }
            is_new || !is_dir
        });
    }
    seen
}

impl<'a> State<'a> {
    pub(crate) fn of(record: &'a Record, choice: &Choice) -> Self {
        let mut names = names(record, &choice.masks);
        let nodes = reachable(&mut names, record);
        let mut items = BTreeMap::new();
        let mut set: HashMap<Node, (usize, &Attributes)> = HashMap::new();
        let mut changed: HashMap<Node, usize> = HashMap::new();
        // When something that shows in its time of change was done to it: it is in the same inode.
        let mut dated: HashMap<Node, usize> = HashMap::new();
        for (call, what, mask) in there(record, &choice.masks) {
            match what {
                What::Attributes(node, attributes) => {
                    set.insert(*node, (call, attributes));
                    dated.insert(*node, call);
                }
                What::Names(parts) => {
                    let parts = parts
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| mask >> at & 1 == 1);
                    for (_, part) in parts {
                        changed.insert(part.dir, call);
                        dated.insert(part.dir, call);
                        let nodes = part.names.iter().flat_map(|(_, was, is)| [*was, *is]);
                        dated.extend(nodes.flatten().map(|node| (node, call)));
                    }
                }
            }
        }
        for node in nodes {
            let thing = &record.things[node];
            let (at, attributes) = set
                .get(&node)
                .map_or((0, &thing.first), |(at, a)| (*at, *a));
            let mut dated = dated.get(&node).copied().unwrap_or(0);
            let (content, written, mut mtime) = match Window::new(record, node, choice.call) {
                Some(window) => {
                    let data = choice.data.get(&node).copied().unwrap_or(window.whole());
                    let (content, mtime) = window.content(data, &[]);
                    dated = dated.max(window.dated(data).unwrap_or(0));
                    let written = (thing.versions.iter())
                        .find(|v| v.mtime == mtime)
                        .map_or(0, |v| v.call);
                    (content, written, mtime)
                }
                None => {
                    let last = changed.get(&node).copied().unwrap_or(0).max(at);
                    (Arc::default(), last, thing.mtime(last))
                }
            };
            if let Some(set) = attributes.mtime
                && at >= written
            {
                mtime = set;
            }
            let attributes = attributes.clone();
            items.insert(
                node,
                Item {
                    attributes,
                    mtime,
                    ctime: thing.ctime(dated),
                    content,
                },
            );
        }
        Self {
            record,
            names,
            items,
        }
    }

    /// What tells it from others of the same record.
    pub(crate) fn key(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for (node, item) in &self.items {
            node.hash(&mut hash);
            self.names.get(node).hash(&mut hash);
            (item.mtime, item.ctime).hash(&mut hash);
            item.attributes.mode.hash(&mut hash);
            item.attributes.owner.hash(&mut hash);
            item.attributes.xattrs.hash(&mut hash);
            // Zeros are what most of a log is.
            let end = item
                .content
                .iter()
                .rposition(|b| *b != 0)
                .map_or(0, |at| at + 1);
            item.content.len().hash(&mut hash);
            item.content[..end].hash(&mut hash);
        }
        hash.finish()
    }

    /// Makes it real in a directory that is empty, and gives for whom the new files are to be taken.
    pub(crate) fn build(&self, top: &Path) -> Likenesses {
        let mut made = Made::default();
        self.fill(Record::TOP, top, &mut made);
        // A new link changes the time of a file.
        for (node, path) in made.linked {
            self.show(node, &path, &mut made.likenesses);
        }
        made.likenesses
    }

    fn fill(&self, dir: Node, path: &Path, made: &mut Made) {
        for (name, node) in self.names.get(&dir).into_iter().flatten() {
            let at = path.join(OsStr::from_bytes(name));
            if let Some(first) = made.first.get(node) {
                fs::hard_link(first, &at).unwrap();
                made.linked.push((*node, at));
                continue;
            }
            made.first.insert(*node, at.clone());
            match &self.record.things[*node].kind {
                Kind::Dir => {
                    fs::create_dir(&at).unwrap();
                    self.fill(*node, &at, made);
                }
                Kind::File => {
                    let file = self.write(*node, &at);
                    self.finish(*node, Which::File(&file, &at), &mut made.likenesses);
                }
                Kind::Link(text) => {
                    symlink(OsStr::from_bytes(text), &at).unwrap();
                    self.finish(*node, Which::Path(&at), &mut made.likenesses);
                }
            }
        }
        // After what is in it: a new name changes its times.
        self.finish(dir, Which::Path(path), &mut made.likenesses);
    }

    /// Blocks of zeros are left out: most of a log is that.
    fn write(&self, node: Node, path: &Path) -> fs::File {
        let item = &self.items[&node];
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        let file = (options.mode(item.attributes.mode & 0o777))
            .open(path)
            .unwrap();
        let bytes: &[u8] = &item.content;
        let mut end = 0;
        for (n, block) in bytes.chunks(4096).enumerate() {
            if block.iter().any(|b| *b != 0) {
                file.write_all_at(block, n as u64 * 4096).unwrap();
                end = n * 4096 + block.len();
            }
        }
        if end < bytes.len() {
            file.set_len(bytes.len() as u64).unwrap();
        }
        file
    }

    fn finish(&self, node: Node, which: Which<'_>, likenesses: &mut Likenesses) {
        let Item {
            attributes, mtime, ..
        } = &self.items[&node];
        let is_link = matches!(self.record.things[node].kind, Kind::Link(_));
        let path = which.path();
        // While everybody may: owner and mode come after.
        for (name, value) in &attributes.xattrs {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(path, name.as_slice(), value, flags).unwrap();
        }
        which.set_mtime(*mtime);
        let meta = self.show(node, path, likenesses);
        let is_owned = (meta.uid(), meta.gid()) == attributes.owner;
        let has_mode = is_link || meta.mode() & 0o7777 == attributes.mode;
        if is_owned && has_mode {
            return;
        }
        if !is_owned {
            let (uid, gid) = attributes.owner;
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
        }
        if !is_link {
            fs::set_permissions(path, fs::Permissions::from_mode(attributes.mode)).unwrap();
        }
        self.show(node, path, likenesses);
    }

    /// Notes for whom a file is to be taken, as it is now.
    fn show(&self, node: Node, path: &Path, likenesses: &mut Likenesses) -> fs::Metadata {
        let thing = &self.record.things[node];
        let meta = fs::symlink_metadata(path).unwrap();
        let made = (meta.ctime(), u32::try_from(meta.ctime_nsec()).unwrap());
        likenesses.insert(
            (meta.dev(), meta.ino()),
            Likeness {
                ino: thing.ino,
                btime: thing.btime,
                ctime: [made, self.items[&node].ctime],
            },
        );
        meta
    }
}

/// What was made of a state so far.
#[derive(Default)]
struct Made {
    first: HashMap<Node, PathBuf>,
    /// Further names of files.
    linked: Vec<(Node, PathBuf)>,
    likenesses: Likenesses,
}

enum Which<'a> {
    File(&'a fs::File, &'a Path),
    Path(&'a Path),
}

impl Which<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::File(_, path) | Self::Path(path) => path,
        }
    }

    fn set_mtime(&self, (sec, nsec): Stamp) {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: sec,
                tv_nsec: nsec.into(),
            },
        };
        match self {
            Self::File(file, _) => futimens(file, &times),
            Self::Path(path) => utimensat(CWD, *path, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
        .unwrap();
    }
}

/// What was chosen, for a person.
pub(crate) fn shown(record: &Record, choice: &Choice) -> String {
    let mut out = format!("{:?}, cut after {} calls:\n", choice.family, choice.call);
    let name = |node: Node| format!("{} ({node})", record.things[node].name);
    for (n, call) in record.calls[..choice.call].iter().enumerate() {
        let units = record
            .units
            .iter()
            .enumerate()
            .filter(|(_, u)| u.call == n + 1);
        let mut notes = Vec::new();
        for (i, unit) in units {
            let mask = choice.masks.get(i).copied().unwrap_or(0);
            let fate = match mask {
                0 => "LOST",
                mask if mask == unit.whole() => "there",
                _ => "IN PART",
            };
            let what = match &unit.what {
                What::Attributes(node, attributes) => {
                    format!("mode {:o} of {}", attributes.mode, name(*node))
                }
                What::Names(parts) => {
                    let change =
                        |dir: Node, (at, was, now): &(Bytes, Option<Node>, Option<Node>)| {
                            let show = |node: &Option<Node>| node.map_or("nothing".into(), name);
                            let at = String::from_utf8_lossy(at);
                            format!("{}/{at}: {} -> {}", name(dir), show(was), show(now))
                        };
                    let all = parts.iter().flat_map(|part| {
                        part.names.iter().map(move |names| change(part.dir, names))
                    });
                    all.collect::<Vec<_>>().join(", ")
                }
            };
            notes.push(format!("{fate}: {what}"));
        }
        for (node, thing) in record.things.iter().enumerate() {
            if let Some(at) = thing.versions.iter().position(|v| v.call == n + 1) {
                let len = thing.versions[at].bytes.len();
                notes.push(format!("content v{at} of {}: {len} bytes", name(node)));
            }
        }
        let synced = record.syncs.iter().filter(|s| s.call == n + 1);
        notes.extend(synced.map(|s| format!("{:?}", s.what)));
        if !notes.is_empty() {
            out += &format!("{:5} {call}: {}\n", n + 1, notes.join("; "));
        }
    }
    for (node, data) in &choice.data {
        out += &format!("content of {}: {data}\n", name(*node));
    }
    out
}
