//! One state that a power cut may leave: what is where.
//!
//! Where it is made ([`crate::bench`]) the inode numbers are others; the test seam shows the library those of
//! the record, with their times of birth and change. So states can be made on all cores at the same time.

use crate::data::{Data, Window};
use crate::disk::xattrs;
use crate::record::{Attributes, Bytes, Kind, Names, Node, Record, Stamp, What};
use crate::rules::{Family, Masks};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use steadfast::sys::hook::Likenesses;

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

/// A fast hash that is the same everywhere.
#[derive(Default)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut digest = Self::default();
        digest.write(bytes);
        digest.finish()
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let mut add = |word: u64| {
            let product = u128::from(self.0.rotate_left(23) ^ word) * 0x9e37_79b9_7f4a_7c15;
            self.0 = (product >> 64) as u64 ^ product as u64;
        };
        add(bytes.len() as u64 ^ 0x51_7cc1_b727_220a);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            add(u64::from_le_bytes(word.try_into().unwrap()).wrapping_add(0xd6e8_feb8_6659_fd93));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        add(u64::from_le_bytes(last));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Item<'a> {
    attributes: &'a Attributes,
    mtime: Stamp,
    ctime: Stamp,
    content: Arc<Bytes>,
    /// Of the content.
    digest: u64,
}

/// The state that a choice amounts to.
pub(crate) struct State<'a> {
    record: &'a Record,
    names: Names,
    items: BTreeMap<Node, Item<'a>>,
}

fn there<'r, 'm>(
    record: &'r Record,
    masks: &'m Masks,
) -> impl Iterator<Item = (usize, &'r What, u8)> + use<'r, 'm> {
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
            let mut digest = 0;
            let (content, written, mut mtime) = match Window::new(record, node, choice.call) {
                Some(window) => {
                    let data = choice.data.get(&node).copied().unwrap_or(window.whole());
                    let (content, mtime) = window.content(data, &[]);
                    digest = window.digest(data).unwrap_or_else(|| Digest::of(&content));
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
            items.insert(
                node,
                Item {
                    attributes,
                    mtime,
                    ctime: thing.ctime(dated),
                    content,
                    digest,
                },
            );
        }
        Self {
            record,
            names,
            items,
        }
    }

    /// What tells it from others, whatever they were recorded in.
    pub(crate) fn key(&self) -> u64 {
        let mut hash = Digest::default();
        self.digest(Record::TOP, &mut hash);
        hash.finish()
    }

    fn digest(&self, node: Node, hash: &mut Digest) {
        let item = &self.items[&node];
        self.identity(node).hash(hash);
        (item.mtime, item.ctime).hash(hash);
        let Attributes {
            mode,
            owner,
            xattrs,
            ..
        } = item.attributes;
        (mode, owner, xattrs).hash(hash);
        match self.kind(node) {
            Kind::Dir => {
                for (name, child) in self.children(node) {
                    name.hash(hash);
                    self.digest(*child, hash);
                }
                0_usize.hash(hash);
            }
            Kind::File => item.digest.hash(hash),
            Kind::Link(text) => text.hash(hash),
        }
    }

    pub(crate) fn children(&self, dir: Node) -> impl Iterator<Item = (&Bytes, &Node)> {
        self.names.get(&dir).into_iter().flatten()
    }

    pub(crate) fn child(&self, dir: Node, name: &Bytes) -> Option<Node> {
        self.names.get(&dir)?.get(name).copied()
    }

    /// Whether anything has more than one name.
    pub(crate) fn has_links(&self) -> bool {
        let dirs = self.items.keys().filter_map(|node| self.names.get(node));
        dirs.map(BTreeMap::len).sum::<usize>() + 1 != self.items.len()
    }

    pub(crate) fn kind(&self, node: Node) -> &'a Kind {
        &self.record.things[node].kind
    }

    /// Its inode number and time of birth.
    pub(crate) fn identity(&self, node: Node) -> (u64, Option<Stamp>) {
        let thing = &self.record.things[node];
        (thing.ino, thing.btime)
    }

    pub(crate) fn attributes(&self, node: Node) -> &'a Attributes {
        self.items[&node].attributes
    }

    pub(crate) fn content(&self, node: Node) -> &Arc<Bytes> {
        &self.items[&node].content
    }

    pub(crate) fn mtime(&self, node: Node) -> Stamp {
        self.items[&node].mtime
    }

    pub(crate) fn ctime(&self, node: Node) -> Stamp {
        self.items[&node].ctime
    }

    /// Fails if this is not what is in a directory.
    pub(crate) fn verify(&self, top: &Path, shown: &Likenesses) {
        let mut inodes = HashMap::new();
        self.verify_below(Record::TOP, top, shown, &mut inodes);
    }

    fn verify_below(
        &self,
        node: Node,
        path: &Path,
        shown: &Likenesses,
        inodes: &mut HashMap<Node, u64>,
    ) {
        let meta = fs::symlink_metadata(path).unwrap();
        let stamp = |sec, nsec: i64| (sec, u32::try_from(nsec).unwrap());
        let ino = inodes.entry(node).or_insert(meta.ino());
        assert_eq!(*ino, meta.ino(), "{path:?}");
        let like = shown[&(meta.dev(), meta.ino())];
        assert_eq!((like.ino, like.btime), self.identity(node), "{path:?}");
        let made = stamp(meta.ctime(), meta.ctime_nsec());
        assert_eq!(like.ctime, [made, self.ctime(node)], "{path:?}");
        let mtime = stamp(meta.mtime(), meta.mtime_nsec());
        assert_eq!(mtime, self.mtime(node), "{path:?}");
        let should = self.attributes(node);
        assert_eq!((meta.uid(), meta.gid()), should.owner, "{path:?}");
        assert_eq!(xattrs(path), should.xattrs, "{path:?}");
        let is_link = matches!(self.kind(node), Kind::Link(_));
        assert!(
            is_link || meta.mode() & 0o7777 == should.mode,
            "{path:?}: {:o} for {:o}",
            meta.mode(),
            should.mode
        );
        match self.kind(node) {
            Kind::File => assert!(fs::read(path).unwrap() == **self.content(node), "{path:?}"),
            Kind::Link(text) => {
                assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), *text);
            }
            Kind::Dir => {
                let entries = fs::read_dir(path).unwrap();
                let mut there: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
                there.sort();
                let should = self.children(node).map(|(name, _)| OsStr::from_bytes(name));
                assert!(there.iter().eq(should), "{path:?}: {there:?}");
                for (name, child) in self.children(node) {
                    let path = path.join(OsStr::from_bytes(name));
                    self.verify_below(*child, &path, shown, inodes);
                }
            }
        }
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
