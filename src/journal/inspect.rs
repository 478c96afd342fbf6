//! Looking at a log without opening it: read-only, without its lock, also beside a living writer.

use super::analyse::{Analysis, analyse};
use super::damage::Damage;
use super::open::{Entry, read_heads};
use super::queue::show_id;
use super::segment;
use crate::root::Dir;
use crate::sys::{self, Errno, LockKind, LockRange, Mode, OFlags};
use crate::{Error, Result};

const OP: &str = "inspect log";
/// A living writer may take a segment into use while it is being read; then it is read again.
const TRIES: u32 = 32;

/// How a log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum End {
    /// There is no log.
    Empty,
    /// It was closed.
    Clean,
    /// It was not closed: its writer died, or is at work. It goes on at this place.
    Open {
        /// The number of the segment.
        segment: u64,
        /// In bytes.
        offset: u64,
    },
    /// Something that was durable cannot be read.
    Corrupt(Damage),
}

/// One segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SegmentFacts {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The first and last number of the frames in it, if they are part of the log.
    pub frames: Option<(u64, u64)>,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// The log's random id, in hexadecimal digits.
    pub id: String,
    /// Somebody has it open.
    pub live: bool,
    /// How it ends.
    pub end: End,
    /// The records that stand and are not released, in order; up to the damage, if there is any.
    pub records: Vec<Entry>,
    /// Everything up to this number is released.
    pub released: u64,
    /// The last number that stands.
    pub last: u64,
    /// Its segments, in the order of their numbers.
    pub segments: Vec<SegmentFacts>,
}

/// Reads the log in `dir`. Nothing is changed, and no lock is taken.
///
/// Beside a living writer the answer is that of some moment during the call. Records that are shown
/// need not be durable: after a failed sync the kernel may show what the disk does not have. Only
/// opening the log tells.
///
/// # Errors
/// As open(2) and read(2). [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): a later
/// version's format. Damage is no error here, but part of the answer.
pub fn inspect(dir: &Dir) -> Result<Inspection> {
    let mut tries = 0;
    loop {
        tries += 1;
        let live = is_live(dir)?;
        let listing = segment::list(dir, OP)?;
        let found = read_heads(dir, &listing, false, OP).and_then(|heads| analyse(heads, None, OP));
        match found {
            Ok(found) if found.damage.is_none() || !live || tries == TRIES => {
                return Ok(describe(found, live));
            }
            // Set aside by a repair meanwhile.
            Err(error) if error.errno() != Some(Errno::NOENT) || tries == TRIES => {
                return Err(error);
            }
            _ => {}
        }
    }
}

fn describe(found: Analysis, live: bool) -> Inspection {
    let end = match (found.damage.clone(), found.chain.last()) {
        (Some(damage), _) => End::Corrupt(damage),
        (None, _) if found.heads.is_empty() => End::Empty,
        (None, _) if found.clean => End::Clean,
        (None, Some(last)) => End::Open {
            segment: last.number,
            offset: found.tail,
        },
        (None, None) => End::Open {
            segment: found.heads.first().map_or(0, |h| h.file.number),
            offset: found.tail,
        },
    };
    let facts = |number: u64, len: u64| SegmentFacts {
        number,
        len,
        frames: found
            .chain
            .iter()
            .find(|u| u.number == number)
            .map(|u| (u.first, u.last)),
    };
    Inspection {
        id: show_id(found.id),
        live,
        end,
        segments: found
            .heads
            .iter()
            .filter(|h| !found.superseded.contains(&h.file.number))
            .map(|h| facts(h.file.number, h.len()))
            .collect(),
        records: found.frames.into_iter().filter_map(Entry::of).collect(),
        released: found.released,
        last: found.last,
    }
}

/// Whether somebody holds the log's lock. It is asked for, not taken: a test that took it for a
/// moment would turn away somebody who opens the log in that moment.
pub(crate) fn is_live(dir: &Dir) -> Result<bool> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path("lock");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match sys::openat(dir, c"lock", flags, Mode::empty()) {
        Ok(fd) => sys::ofd_would_wait(&fd, LockKind::Exclusive, LockRange::WHOLE)
            .map_err(fail("fcntl(F_OFD_GETLK)")),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(fail("openat")(e)),
    }
}
