//! A transaction's own view of the tree: its operations, carried out in memory.
//!
//! The tree on the disk is looked at only where an operation goes, each name at most once, and the first
//! answer is kept. So what the operations give is one snapshot (the caller holds claims on it) with the
//! changes so far on top, and every operation is answered as the kernel would answer it then. In the end
//! only what differs from the disk is left: a [`Draft`](super::draft::Draft).
//!
//! The view knows inodes and names. All names of one inode that were seen are interchangeable: whether a
//! file was renamed, or linked and then unlinked, is the same in the end.

mod attributes;
mod disk;
mod draft_of;
mod lookup;
mod ops;
mod read;
mod rename;
mod stop;
#[cfg(test)]
mod tests;
mod wants;

pub(crate) use ops::key_name;
pub(crate) use read::Content;

use super::draft::{AttrRequest, Source};
use super::identity::{Ident, Kind};
use crate::sys::{FileId, Metadata};
use crate::{Name, Result, Root};
use disk::Disk;
use std::collections::{BTreeMap, HashMap};

/// The folder that no transaction touches.
const STATE: &[u8] = b".steadfast";

/// Index of an [`Inode`].
type InodeIx = usize;

/// The root's own.
const ROOT: InodeIx = 0;

/// The tree beneath a root as a transaction sees it.
#[derive(Debug)]
pub(crate) struct View<'r> {
    disk: Disk<'r>,
    inodes: Vec<Inode>,
    /// Files of several names, so that each is one inode here too.
    known: HashMap<FileId, InodeIx>,
    keys: BTreeMap<Name, InodeIx>,
    reads: BTreeMap<Vec<u8>, Read>,
}

/// What was read of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// What was there.
    pub(crate) found: Option<Ident>,
    /// It is a directory, and its names were read.
    listed: bool,
}

impl Read {
    /// Whether it tells more of the same directory.
    pub(crate) fn is_more_than(&self, other: &Self) -> bool {
        self.listed && !other.listed && other.is_still(self.found.as_ref())
    }

    /// Whether what is there now is what was read.
    pub(crate) fn is_still(&self, now: Option<&Ident>) -> bool {
        match (&self.found, now) {
            (None, None) => true,
            // A name that comes or goes moves the time of the directory.
            (Some(seen), Some(now)) => {
                seen.is_unchanged(now) && (!self.listed || seen.mtime == now.mtime)
            }
            _ => false,
        }
    }
}

/// Something that names stand for.
#[derive(Debug)]
struct Inode {
    kind: Kind,
    /// `None` for what the transaction makes.
    origin: Option<Origin>,
    /// Of a directory: where it is now. `None` for the root, and for what was removed.
    at: Option<(InodeIx, Name)>,
    /// Of a directory: the names that were looked at.
    entries: BTreeMap<Name, Entry>,
    /// Of a directory on the disk: all its names there, once they were read, with their kinds as far as the
    /// directory tells.
    listing: Option<BTreeMap<Name, Option<Kind>>>,
    /// Of a new file.
    parts: Vec<Part>,
    /// Of a symlink; of one on the disk once it was read.
    text: Option<Vec<u8>>,
    /// Of a new file: the file on the disk whose attributes it keeps.
    like: Option<InodeIx>,
    /// What was asked for.
    attr: AttrRequest,
    /// Of a file on the disk: content that is written over its own.
    in_place: Option<Source>,
}

impl Inode {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            origin: None,
            at: None,
            entries: BTreeMap::new(),
            listing: None,
            parts: Vec::new(),
            text: None,
            like: None,
            attr: AttrRequest::default(),
            in_place: None,
        }
    }
}

/// What an inode is on the disk.
#[derive(Debug)]
struct Origin {
    /// One of its names there.
    dir: InodeIx,
    /// `None` for the root.
    name: Option<Name>,
    /// By that name, from the root, without links.
    path: Vec<u8>,
    meta: Metadata,
    ident: Ident,
    /// It is not on the mount (or subvolume) of the root.
    foreign: bool,
}

/// A name that was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// What it stands for on the disk.
    before: Option<InodeIx>,
    /// What it stands for in the view.
    now: Option<InodeIx>,
    /// On the disk it is a mount point.
    mounted: bool,
    /// An operation was about it.
    used: bool,
}

/// A part of a new file's content.
#[derive(Clone, Debug)]
enum Part {
    Given(Source),
    /// The content that a file has on the disk.
    Existing(InodeIx),
}

impl<'r> View<'r> {
    /// The tree as it is, without any change.
    ///
    /// # Errors
    /// As statx(2) of the root.
    pub(crate) fn new(root: &'r Root) -> Result<Self> {
        let meta = root.dir().metadata()?;
        let mut top = Inode::new(Kind::Dir);
        top.origin = Some(Origin {
            dir: ROOT,
            name: None,
            path: Vec::new(),
            meta,
            ident: Ident::of(&meta),
            foreign: false,
        });
        Ok(Self {
            disk: Disk::new(root, meta),
            inodes: vec![top],
            known: HashMap::new(),
            keys: BTreeMap::new(),
            reads: BTreeMap::new(),
        })
    }

    /// What was read from the disk to be seen by the caller, or was followed on the way, by the path from the
    /// root.
    pub(crate) fn reads(&self) -> &BTreeMap<Vec<u8>, Read> {
        &self.reads
    }

    fn note_read(&mut self, path: Vec<u8>, found: Option<Ident>) {
        let listed = false;
        self.reads.entry(path).or_insert(Read { found, listed });
    }

    /// The names in a directory were read.
    fn note_list(&mut self, path: Vec<u8>, found: Ident) {
        let read = Read {
            found: Some(found),
            listed: true,
        };
        self.reads.insert(path, read);
    }

    fn add(&mut self, inode: Inode) -> InodeIx {
        self.inodes.push(inode);
        self.inodes.len() - 1
    }

    /// Whether a directory is somewhere below the root still.
    fn is_reachable(&self, dir: InodeIx) -> bool {
        let mut here = dir;
        while here != ROOT {
            match &self.inodes[here].at {
                Some((parent, _)) => here = *parent,
                None => return false,
            }
        }
        true
    }

    /// Whether a directory is this one or somewhere in it.
    fn is_within(&self, dir: InodeIx, top: InodeIx) -> bool {
        let mut here = dir;
        loop {
            if here == top {
                return true;
            }
            match &self.inodes[here].at {
                Some((parent, _)) => here = *parent,
                None => return false,
            }
        }
    }

    /// The path of a directory as the view has it now; where it was removed, that which it had.
    fn path_now(&self, dir: InodeIx) -> Vec<u8> {
        match (&self.inodes[dir].at, &self.inodes[dir].origin) {
            (Some((parent, name)), _) => join(&self.path_now(*parent), name),
            (None, Some(origin)) => origin.path.clone(),
            (None, None) => Vec::new(),
        }
    }

    /// The path on the disk of a name in a directory; `None` if the directory is new.
    fn disk_path(&self, dir: InodeIx, name: &Name) -> Option<Vec<u8>> {
        let origin = self.inodes[dir].origin.as_ref()?;
        Some(join(&origin.path, name))
    }
}

/// A path and a name in it.
fn join(dir: &[u8], name: &Name) -> Vec<u8> {
    match dir {
        b"" => name.as_bytes().to_vec(),
        dir => [dir, b"/", name.as_bytes()].concat(),
    }
}
