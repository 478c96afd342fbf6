//! Opening a log: the lock, what is read, and what must be written before it may be believed.

use super::analyse::{Analysis, Head, Standing, analyse};
use super::frame::{FIRST_KIND, LogId};
use super::group::Group;
use super::log::Log;
use super::queue::{LeadIn, Queue, Start};
use super::segment::{self, DEFAULT_LEN, Header, Listing, MAX_LEN, MIN_LEN, NotCreated, Segment};
use super::sync::Mutex;
use crate::root::{Dir, sync_names};
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, LockKind, LockRange, Mode, OFlags, OwnedFd,
};
use crate::{DiskState, Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

const OP: &str = "open log";

/// How a log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LogOptions {
    segment_len: u64,
    further_segment_len: Option<u64>,
    max_segments: u32,
    wait: Option<Duration>,
    create: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_len: DEFAULT_LEN,
            further_segment_len: None,
            max_segments: 64,
            wait: None,
            create: true,
        }
    }
}

impl LogOptions {
    /// Segments of 1 MiB, at most 64, no waiting for room, and a log is created where there is none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Length in bytes of the segments of a log that is created: at least 8 KiB and at most 1 GiB,
    /// rounded up to a multiple of 512. A log that exists keeps its own.
    pub fn segment_len(mut self, bytes: u64) -> Self {
        self.segment_len = bytes.clamp(MIN_LEN, MAX_LEN).next_multiple_of(512);
        self
    }

    /// Length in bytes of the segments that are added to a log, be it new or not, when those that it has are
    /// in use; within the same bounds, and never shorter than the shortest of them. By default as long as
    /// that one. Each that is added costs two syncs: a log that begins short and has long ones added is
    /// created quickly, and seldom has to stop for that.
    ///
    /// The limit of one payload ([`Log::max_payload`]) is that of the shortest segment.
    pub fn further_segment_len(mut self, bytes: u64) -> Self {
        self.further_segment_len = Some(bytes.clamp(MIN_LEN, MAX_LEN).next_multiple_of(512));
        self
    }

    /// How many segments there may be before an append has to wait for a release, or fails. At least 2.
    pub fn max_segments(mut self, number: u32) -> Self {
        self.max_segments = number.max(2);
        self
    }

    /// How long an append waits for a release when all segments are in use. By default it fails at
    /// once, with [`ErrorKind::WouldBlock`].
    pub fn wait_for_release(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    /// Whether a log is created in a directory that has none.
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Opens the log in `dir`, a directory of its own that should have mode 0700, and gives the
    /// records that are not released.
    ///
    /// The log is locked (an open-file-description lock on its file `lock`) for as long as it is
    /// open; the kernel frees the lock with its holder. A log that was not closed is first made
    /// safe: what stands beyond the last number that is known to be durable is written again in the
    /// same bytes and synced, because after a failed sync of the dead writer the page cache may
    /// show what the disk does not have.
    ///
    /// A clean log: 8 calls, 3 for each segment, and one for each 128 KiB of the last one, whatever they
    /// hold.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: it is open. [`ErrorKind::Corrupt`]: something that was durable cannot
    /// be read; nothing was changed, the error's detail is a [`Damage`](super::Damage), and
    /// [`inspect`](super::inspect) and [`repair`](super::repair) go on from there.
    /// [`ErrorKind::Unsupported`]: a later version's format. [`ErrorKind::NotFound`]: there is
    /// none, and none is to be created. Those of open(2), read(2), write(2) and fdatasync(2); if
    /// the sync fails the log is not opened, and what was not durable before may be there or not.
    ///
    /// Needs open-file-description locks (Linux 3.15).
    pub fn open(self, dir: Dir) -> Result<(Log, Recovered)> {
        self.open_knowing(dir, || Ok(None))
    }

    /// [`open`](Self::open) by a caller who may know, once nobody else can have it open, that the log was
    /// closed with the frame of this number: in this boot and mount, in which nothing is lost. It is not
    /// looked through then for what was durable behind its end.
    pub(crate) fn open_knowing(
        self,
        dir: Dir,
        end: impl FnOnce() -> Result<Option<u64>>,
    ) -> Result<(Log, Recovered)> {
        operation!("open log");
        let lock = lock(&dir, OP)?;
        let listing = segment::list(&dir, OP)?;
        let heads = read_heads(&dir, &listing, true, OP)?;
        if heads.is_empty() {
            remove_unfinished(&dir, &listing)?;
            return self.create_log(dir, lock);
        }
        let mut found = analyse(heads, end()?, OP)?;
        if let Some(damage) = found.damage.take() {
            return Err(damage.error(OP));
        }
        remove_unfinished(&dir, &listing)?;
        let frames = std::mem::take(&mut found.frames);
        let recovered = Recovered {
            records: frames.into_iter().filter_map(Entry::of).collect(),
            released: found.released,
            last: found.last,
            clean: found.clean,
        };
        let (id, clean, last) = (found.id, found.clean, found.last);
        let max = found.heads.iter().map(|h| h.file.number).max().unwrap_or(0);
        let len = mine(&found).map(|(_, len)| len).min().unwrap_or(MIN_LEN);
        let uses = found.chain.iter().map(|u| (u.number, u.last)).collect();
        let free = found.free.clone();
        let total = mine(&found).count() as u32;
        let (durable, epoch, released) = (found.durable, found.epoch, found.released);
        let (tail, unsynced) = take_tail(found)?;
        let mut lead_in = None;
        if let (Some((segment, _)), Some((offset, bytes))) = (&tail, unsynced) {
            if clean {
                // Only the closing frame: it goes along with the first group.
                lead_in = Some(LeadIn {
                    segment: segment.clone(),
                    offset,
                    bytes,
                    last,
                });
            } else {
                rewrite(segment, offset, &bytes)?;
            }
        }
        if !clean || last == 0 {
            // A new segment's name, too, may have been seen in memory only: nothing was written since that
            // would prove more.
            sync_names(dir.as_fd())
                .map_err(|e| Error::new(OP, "fsync", e).with_state(DiskState::Indeterminate))?;
        }
        let queue = Queue::new(Start {
            len,
            nonce: nonce()?,
            epoch,
            last,
            durable: if clean { durable } else { last },
            released,
            uses,
            free,
            total,
            next_number: max + 1,
            tail,
            lead_in,
        });
        let log = self.log(dir, lock, queue, id, len, last, clean);
        Ok((log, recovered))
    }

    fn create_log(self, dir: Dir, lock: Held) -> Result<(Log, Recovered)> {
        if !self.create {
            return Err(Error::of_kind(OP, ErrorKind::NotFound)
                .with_advice("the directory holds no segment of a log"));
        }
        let id = LogId::random().map_err(|e| Error::new(OP, "getrandom", e))?;
        let header = Header {
            id,
            number: 1,
            len: self.segment_len,
            replaces: LogId::NONE,
        };
        let first = segment::create(&dir, &header, &[], OP).map_err(|e| match e {
            NotCreated::Clean(error) | NotCreated::Unsynced(error) => error,
            NotCreated::Taken => Error::of_kind(OP, ErrorKind::AlreadyExists),
        })?;
        let mut queue = Queue::new(Start {
            len: self.segment_len,
            nonce: nonce()?,
            epoch: 0,
            last: 0,
            durable: 0,
            released: 0,
            uses: Vec::new(),
            free: Vec::new(),
            total: 1,
            next_number: 2,
            tail: None,
            lead_in: None,
        });
        queue.push_ready(first);
        let recovered = Recovered {
            records: Vec::new(),
            released: 0,
            last: 0,
            clean: true,
        };
        Ok((
            self.log(dir, lock, queue, id, self.segment_len, 0, true),
            recovered,
        ))
    }

    #[allow(clippy::too_many_arguments)] // Each is a field of what is made.
    fn log(
        self,
        dir: Dir,
        lock: Held,
        queue: Queue,
        id: LogId,
        len: u64,
        found: u64,
        closed_before: bool,
    ) -> Log {
        Log {
            dir,
            lock,
            group: Group::new(queue, found),
            supply: Mutex::new(()),
            id,
            len,
            further_len: self.further_segment_len.unwrap_or(len).max(len),
            max_segments: self.max_segments,
            wait: self.wait,
            found,
            closed_before,
        }
    }
}

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Recovered {
    /// The records that are durable and not released, in order.
    pub records: Vec<Entry>,
    /// Everything up to this number is released.
    pub released: u64,
    /// The last number of the log.
    pub last: u64,
    /// The log had been closed, or is new.
    pub clean: bool,
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Entry {
    /// Its sequence number.
    pub seq: u64,
    /// Its kind.
    pub kind: u16,
    /// Its transaction id.
    pub transaction: u64,
    /// Its fencing number.
    pub fence: u64,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Entry {
    /// A frame that is the caller's.
    pub(super) fn of(frame: Standing) -> Option<Self> {
        (frame.kind >= FIRST_KIND).then_some(Self {
            seq: frame.seq,
            kind: frame.kind,
            transaction: frame.transaction,
            fence: frame.fence,
            payload: frame.payload,
        })
    }
}

/// Segments of the current log, and their lengths.
fn mine(found: &Analysis) -> impl Iterator<Item = (u64, u64)> {
    let all = found.chain.iter().map(|u| u.number);
    all.chain(found.free.iter().copied())
        .filter_map(|number| found.head(number).map(|head| (number, head.len())))
}

/// The segment where the log ends, where in it, and what there must be written again.
type Tail = (Option<(Arc<Segment>, u64)>, Option<(u64, Vec<u8>)>);

fn take_tail(found: Analysis) -> Result<Tail> {
    let Some(last) = found.chain.last() else {
        return Ok((None, None));
    };
    let unsynced = found.unsynced.map(|u| (u.offset, u.bytes));
    let head = found
        .heads
        .into_iter()
        .find(|h| h.file.number == last.number);
    Ok((head.map(|head| (Arc::new(head.file), found.tail)), unsynced))
}

/// Writes what was read once more, and syncs it: now it is on the disk, or this fails.
fn rewrite(segment: &Segment, offset: u64, bytes: &[u8]) -> Result<()> {
    let fail = |call| {
        move |e| {
            let error = segment.error(OP, call, e);
            error.with_state(DiskState::Indeterminate)
        }
    };
    segment.write(offset, bytes).map_err(fail("pwrite64"))?;
    sys::fdatasync(&segment.fd).map_err(fail("fdatasync"))
}

fn nonce() -> Result<u64> {
    let mut nonce = [0; 8];
    sys::random(&mut nonce).map_err(|e| Error::new(OP, "getrandom", e))?;
    Ok(u64::from_le_bytes(nonce))
}

/// The log's lock, held.
#[derive(Debug)]
pub(super) struct Held {
    fd: OwnedFd,
    process: u32,
}

impl Held {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child of another thread that is between fork and
        // exec. But a child that goes on with this value must not free its parent's lock.
        if self.process == sys::process_id() {
            // It ends with the descriptor at the latest.
            let _ = sys::ofd_unlock(&self.fd, LockRange::WHOLE);
        }
    }
}

/// Takes the log's lock, or fails at once.
pub(super) fn lock(dir: &Dir, op: &'static str) -> Result<Held> {
    let fail = |call| move |e| Error::new(op, call, e).with_path("lock");
    let fd = open_lock(dir).map_err(|(call, e)| fail(call)(e))?;
    let busy = |advice| {
        let error = Error::of_kind(op, ErrorKind::Busy).with_path("lock");
        Err(error.with_advice(advice))
    };
    match sys::ofd_try_lock(&fd, LockKind::Exclusive, LockRange::WHOLE) {
        Err(Errno::AGAIN | Errno::ACCESS) => return busy("somebody has the log open"),
        done => done.map_err(fail("fcntl(F_OFD_SETLK)"))?,
    }
    let held = Held {
        fd,
        process: sys::process_id(),
    };
    // A lock on a file that is no longer there keeps nobody out.
    let facts = sys::statx(&held.fd, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    if facts.links() == 0 {
        return busy("the lock file was removed meanwhile");
    }
    Ok(held)
}

/// Opens the lock file, which is made if it is missing, with mode 0600 whatever the umask.
fn open_lock(dir: &Dir) -> Result<OwnedFd, (&'static str, Errno)> {
    const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = |more| sys::openat(dir, c"lock", flags | more, MODE);
    match open(OFlags::empty()) {
        Err(Errno::NOENT) => match open(OFlags::CREATE | OFlags::EXCL) {
            Ok(fd) => {
                sys::fchmod(&fd, MODE).map_err(|e| ("fchmod", e))?;
                return Ok(fd);
            }
            // Somebody was faster.
            Err(Errno::EXIST) => {}
            Err(e) => return Err(("openat", e)),
        },
        // Whoever made it has not set its mode yet, or died before; if it is somebody else's, it stays shut.
        Err(Errno::ACCESS) if sys::fchmodat(dir, c"lock", MODE).is_ok() => {}
        done => return done.map_err(|e| ("openat", e)),
    }
    match open(OFlags::empty()) {
        Err(Errno::ACCESS) if sys::fchmodat(dir, c"lock", MODE).is_ok() => open(OFlags::empty()),
        done => done,
    }
    .map_err(|e| ("openat", e))
}

/// Opens all segments and reads how they begin.
pub(super) fn read_heads(
    dir: &Dir,
    listing: &Listing,
    write: bool,
    op: &'static str,
) -> Result<Vec<Head>> {
    let open = |number: &u64| Head::read(Segment::open(dir, *number, write, op)?, op);
    listing.segments.iter().map(open).collect()
}

/// Removes segments that a writer, who is dead as the lock is ours, never gave their name.
pub(super) fn remove_unfinished(dir: &Dir, listing: &Listing) -> Result<()> {
    for name in &listing.unfinished {
        match sys::unlinkat(dir, name.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::new(OP, "unlinkat", e).with_path(name)),
        }
    }
    Ok(())
}
