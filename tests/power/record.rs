//! What a run did to a tree: which names, contents and attributes each of its system calls changed, and
//! which of them made what durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// Times from this second on (in 2025) are the kernel's: no test sets one, and no recorded clock comes near.
pub(crate) const KERNEL: i64 = 1_750_000_000;
