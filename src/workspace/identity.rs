//! What tells a file again after a crash, a reboot, or a move of the whole root.
//!
//! The device number does not: it may change over a reboot. Inode number and birth time stay, and the length
//! and time of modification tell whether the content is still the one that was seen.

use crate::sys::{self, FileType, Metadata};

/// A point in time as file systems keep it: seconds since the epoch, and nanoseconds.
pub(crate) type Stamp = (i64, u32);

/// The time of day.
pub(super) fn now() -> Stamp {
    stamp(sys::realtime())
}

/// As a file system would keep it.
pub(super) fn stamp(since: std::time::Duration) -> Stamp {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    (seconds, since.subsec_nanos())
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    /// A FIFO, socket or device: it can be moved and removed, and not be made.
    Special,
}

impl Kind {
    pub(crate) fn of(meta: &Metadata) -> Self {
        match meta.kind() {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// The identity of one thing that a name stands for, and of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ident {
    pub(crate) kind: Kind,
    pub(crate) ino: u64,
    /// `None` where the file system keeps none.
    pub(crate) btime: Option<Stamp>,
    pub(crate) len: u64,
    pub(crate) mtime: Stamp,
}

impl Ident {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let id = meta.id();
        let mtime = meta.mtime();
        Self {
            kind: Kind::of(meta),
            ino: id.ino,
            btime: id.btime,
            len: meta.len(),
            mtime: (
                mtime.tv_sec,
                u32::try_from(mtime.tv_nsec).unwrap_or_default(),
            ),
        }
    }

    /// The same inode, whatever is in it now.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.kind == other.kind && self.ino == other.ino && self.btime == other.btime
    }

    /// The same inode with the same content, as far as length and time tell. A directory is told by its
    /// inode alone: what is in it has an identity of its own.
    pub(crate) fn is_unchanged(&self, other: &Self) -> bool {
        self.is(other)
            && (self.kind == Kind::Dir || (self.len == other.len && self.mtime == other.mtime))
    }
}
