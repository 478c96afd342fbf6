//! The log itself: adding records, syncing them together, releasing and closing.

use super::damage::{Damage, DamageKind};
use super::frame::{Content, FIRST_KIND, KIND_CLOSE, LogId, NUMBER_LIMIT, Payload};
use super::group::{Failure, Group, Outcome, Refused, Work};
use super::open::Held;
use super::queue::{Queue, Taken, max_payload};
use super::segment::{self, Header, NotCreated, START, Segment};
use super::sync::Mutex;
use crate::root::Dir;
use crate::sys::{self, BorrowedFd};
use crate::{DiskState, Error, ErrorKind, Result};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Bytes that may wait in memory for somebody to sync them; who adds more syncs them first.
const BUFFER: usize = 8 << 20;

/// A record to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Record<'a> {
    kind: u16,
    transaction: u64,
    fence: u64,
    payload: Payload<'a>,
}

impl<'a> Record<'a> {
    /// A record of this kind, which is the caller's to choose, from [`Record::FIRST_KIND`] up.
    pub const fn new(kind: u16, payload: &'a [u8]) -> Self {
        Self {
            kind,
            transaction: 0,
            fence: 0,
            payload: Payload::new(payload),
        }
    }

    /// With more payload behind what it has, in parts that need not stand together.
    pub(crate) const fn and(mut self, others: &'a [&'a [u8]]) -> Self {
        self.payload.others = others;
        self
    }

    /// The first kind that is the caller's; those below are the log's own.
    pub const FIRST_KIND: u16 = FIRST_KIND;

    /// With a transaction id: any number; the log only keeps it.
    pub const fn transaction(mut self, id: u64) -> Self {
        self.transaction = id;
        self
    }

    /// With a fencing number: any number; the log only keeps it.
    pub const fn fence(mut self, number: u64) -> Self {
        self.fence = number;
        self
    }

    fn content(&self) -> Content<'a> {
        Content {
            kind: self.kind,
            transaction: self.transaction,
            fence: self.fence,
            payload: self.payload,
        }
    }
}

/// The sequence numbers of appended records: the first, the last, and those between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Appended {
    /// Of the first record.
    pub first: u64,
    /// Of the last record: what to [`sync`](Log::sync), and to [`release`](Log::release) when it is
    /// done with.
    pub last: u64,
}

/// A log that is open for appending. See the [module](super).
///
/// Many threads may use it at once. Dropping it is like a crash, which does no harm: what was
/// synced is there at the next open; [`close`](Self::close) makes that open cheaper, and damage
/// easier to tell.
#[derive(Debug)]
pub struct Log {
    pub(super) dir: Dir,
    /// Held locked for as long as the log is open.
    pub(super) lock: Held,
    pub(super) group: Group<Queue>,
    /// Held while segments are opened or created.
    pub(super) supply: Mutex<()>,
    pub(super) id: LogId,
    /// Length of its shortest segment.
    pub(super) len: u64,
    /// Length of segments that are created.
    pub(super) further_len: u64,
    pub(super) max_segments: u32,
    pub(super) wait: Option<Duration>,
    /// The last number found when the log was opened, all up to which is durable.
    pub(super) found: u64,
    /// Closing writes nothing if nothing else was written.
    pub(super) closed_before: bool,
}

impl Log {
    /// The descriptor on which its lock is.
    pub(crate) fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.fd()
    }

    /// Adds records, in this order and with nothing of other threads between them. They are durable
    /// once [`sync`](Self::sync) of the last number has returned; a crash before may leave any
    /// number of them, from the first on, but never one without those before it.
    ///
    /// No system call, unless the segment is full: then the next one is opened or created first.
    /// Numbers rise, but the log's own frames have numbers too, so the first of one call need not
    /// follow the last of another; within one call they may have gaps as well.
    ///
    /// # Errors
    /// All but the last with nothing changed, and the log as usable as before.
    /// [`ErrorKind::InvalidInput`]: no record, a kind below [`Record::FIRST_KIND`], or a payload
    /// longer than [`max_payload`](Self::max_payload). [`ErrorKind::WouldBlock`]: `max_segments`
    /// are in use, and none was released in time. [`ErrorKind::StorageFull`],
    /// [`ErrorKind::QuotaExceeded`] and others of open(2) and write(2): no further segment could be
    /// created. [`ErrorKind::Poisoned`]: an earlier write or sync failed.
    pub fn append(&self, records: &[Record<'_>]) -> Result<Appended> {
        const OP: &str = "append to log";
        self.check(records, OP)?;
        loop {
            let full = {
                let mut inner = self.group.lock();
                if let Some(refused) = inner.refused() {
                    return Err(refusal(refused, OP));
                }
                if inner.work.lacks_numbers(records.len()) {
                    return Err(used_up(OP));
                }
                let payloads = records.iter().map(|r| r.payload.len());
                if inner.work.buffered() > BUFFER {
                    Some(inner.work.last())
                } else if inner.work.lacks(payloads, false) == 0 {
                    let mut numbers = records.iter().map(|r| inner.work.place(r.content(), false));
                    let first = numbers.next().flatten();
                    let last = numbers.last().flatten().or(first);
                    return match (first, last) {
                        (Some(first), Some(last)) => Ok(Appended { first, last }),
                        _ => Err(Error::of_kind(OP, ErrorKind::WouldBlock)),
                    };
                } else {
                    None
                }
            };
            match full {
                Some(last) => self.commit(last, OP)?,
                None => {
                    let payloads = || records.iter().map(|r| r.payload.len());
                    self.supply(OP, false, |q| q.lacks(payloads(), false))?;
                }
            }
        }
    }

    fn check(&self, records: &[Record<'_>], op: &'static str) -> Result<()> {
        let invalid =
            |advice: String| Err(Error::of_kind(op, ErrorKind::InvalidInput).with_advice(advice));
        if records.is_empty() {
            return invalid("there is no record to append".to_owned());
        }
        let limit = self.max_payload();
        for record in records {
            if record.kind < FIRST_KIND {
                return invalid(format!("kinds below {FIRST_KIND} are the log's own"));
            }
            if record.payload.len() as u64 > limit {
                let len = record.payload.len();
                return invalid(format!(
                    "a payload of {len} bytes is above the limit of {limit}"
                ));
            }
        }
        Ok(())
    }

    /// Returns once everything up to the number `seq` is durable, together with what other threads
    /// have appended: one write and one fdatasync(2) for all that is waiting.
    ///
    /// # Errors
    /// As write(2) and fdatasync(2); the log is then poisoned, and every thread that waits is told.
    /// The state is [`DiskState::Indeterminate`] for what was being written (the next open finds it
    /// or not, and says which), [`DiskState::Unchanged`] for what was not. The sync is never tried
    /// again: after a failure the kernel may answer 0 for data that is lost.
    /// [`ErrorKind::Poisoned`]: it failed before. [`ErrorKind::InvalidInput`]: no such number was
    /// given out.
    pub fn sync(&self, seq: u64) -> Result<()> {
        operation!("sync log", seq = seq);
        const OP: &str = "sync log";
        if seq > self.group.lock().work.last() {
            return Err(Error::of_kind(OP, ErrorKind::InvalidInput)
                .with_advice(format!("no record has the number {seq}")));
        }
        self.commit(seq, OP)
    }

    /// [`append`](Self::append), then [`sync`](Self::sync): once it returns, the records survive a
    /// power cut.
    ///
    /// # Errors
    /// Those of both.
    pub fn append_durable(&self, records: &[Record<'_>]) -> Result<Appended> {
        operation!("append to log", records = records.len());
        let appended = self.append(records)?;
        self.commit(appended.last, "append to log")?;
        Ok(appended)
    }

    /// Declares everything up to the number `seq` finished: its effects are durable elsewhere. It
    /// is not shown again, and segments that hold nothing else are taken into use again, once the
    /// release is itself durable: with the next sync, or with [`sync`](Self::sync) of the number
    /// that this gives.
    ///
    /// The log never becomes too full for a release.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: no such number was given out. [`ErrorKind::Poisoned`]: an
    /// earlier write or sync failed. Those of creating a segment, in the rare case that many
    /// releases have freed none.
    pub fn release(&self, seq: u64) -> Result<u64> {
        const OP: &str = "release log records";
        loop {
            {
                let mut inner = self.group.lock();
                if let Some(refused) = inner.refused() {
                    return Err(refusal(refused, OP));
                }
                if seq > inner.work.last() {
                    return Err(Error::of_kind(OP, ErrorKind::InvalidInput)
                        .with_advice(format!("no record has the number {seq}")));
                }
                let (asked, by) = inner.work.asked();
                if seq <= asked {
                    return Ok(by);
                }
                if inner.work.lacks_numbers(1) {
                    return Err(used_up(OP));
                }
                if inner.work.lacks([8].into_iter(), true) == 0
                    && let Some(number) = inner.work.place_release(seq)
                {
                    drop(inner);
                    // Somebody may be waiting for room.
                    self.group.wake();
                    return Ok(number);
                }
            }
            self.supply(OP, true, |q| q.lacks([8].into_iter(), true))?;
        }
    }

    /// Syncs everything and marks the log as closed, so that the next open reads little, and so that damage
    /// anywhere in it is told from a crash.
    ///
    /// # Errors
    /// Those of [`sync`](Self::sync). The records that were durable before remain so.
    pub fn close(self) -> Result<()> {
        self.close_and(|_| ())
    }

    /// [`close`](Self::close), and does something while nobody else can have it open yet: with the number of
    /// its last frame, which says that it is closed.
    pub(crate) fn close_and(self, then: impl FnOnce(u64)) -> Result<()> {
        operation!("close log");
        const OP: &str = "close log";
        let last = self.group.lock().work.last();
        if self.closed_before && last == self.found {
            then(last);
            return Ok(());
        }
        self.commit(last, OP)?;
        let close = Content {
            kind: KIND_CLOSE,
            transaction: 0,
            fence: 0,
            payload: Payload::new(&[]),
        };
        loop {
            let placed = {
                // Of a failure both ways on tell.
                let mut inner = self.group.lock();
                if inner.work.lacks_numbers(1) {
                    return Err(used_up(OP));
                }
                match inner.work.lacks([0].into_iter(), true) {
                    0 => inner.work.place(close, true),
                    _ => None,
                }
            };
            match placed {
                Some(seq) => return self.commit(seq, OP).map(|()| then(seq)),
                None => self.supply(OP, true, |q| q.lacks([0].into_iter(), true))?,
            }
        }
    }

    /// Everything up to this number is durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.group.lock().durable().max(self.found)
    }

    /// The last number that was given out, to a record or to a frame of the log's own; 0 if none was.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.group.lock().work.last()
    }

    /// Everything up to this number is released, durably.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.group.lock().work.released()
    }

    /// The longest payload of one record, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> u64 {
        max_payload(self.len)
    }

    fn commit(&self, seq: u64, op: &'static str) -> Result<()> {
        if seq <= self.found {
            return Ok(());
        }
        self.group
            .commit(seq, |taken| self.write(taken))
            .map_err(|refused| refusal(refused, op))
    }

    /// Writes groups one after the other, each synced before the next is written: a frame that says
    /// what was durable says so truly.
    fn write(&self, taken: Taken) -> Outcome {
        let mut out = Outcome {
            durable: taken.durable,
            written: taken.durable,
            failure: None,
        };
        let done = self.write_groups(taken, &mut out);
        out.failure = done.err();
        out
    }

    fn write_groups(&self, taken: Taken, out: &mut Outcome) -> Result<(), Failure> {
        let failed = |call| move |errno| Failure { call, errno };
        let put = |segment: &Segment, offset, bytes: &[u8]| {
            segment.write(offset, bytes).map_err(failed("pwrite64"))?;
            sys::fdatasync(&segment.fd).map_err(failed("fdatasync"))
        };
        let mut lead_in = taken.lead_in;
        for mut batch in taken.batches {
            // What was found at open goes with the first group if that follows it, else before.
            let together = lead_in.take_if(|l| {
                l.segment.number == batch.segment.number
                    && l.offset + l.bytes.len() as u64 == batch.start
            });
            if let Some(before) = lead_in.take() {
                put(&before.segment, before.offset, &before.bytes)?;
                out.durable = before.last;
            }
            batch.finish(self.id.seed(), out.durable);
            out.written = batch.last;
            match together {
                Some(mut before) => {
                    before.bytes.extend_from_slice(&batch.bytes);
                    put(&batch.segment, before.offset, &before.bytes)?;
                }
                None => put(&batch.segment, batch.start, &batch.bytes)?,
            }
            out.durable = batch.last;
        }
        Ok(())
    }

    /// Makes a segment ready to be used next, until `lacking` none.
    fn supply(&self, op: &'static str, own: bool, lacking: impl Fn(&Queue) -> usize) -> Result<()> {
        let until = self.wait.map(|wait| Instant::now() + wait);
        loop {
            if self.supply_one(op, own, &lacking)? {
                return Ok(());
            }
            // As many as allowed are in use. A release that is not durable yet may be what is missing.
            let mut inner = self.group.lock();
            let (mut now, until) = (true, until.unwrap_or_else(Instant::now));
            loop {
                if let Some(refused) = inner.refused() {
                    return Err(refusal(refused, op));
                }
                match inner.work.hope() {
                    (true, _) => break,
                    (false, Some(seq)) => {
                        drop(inner);
                        self.commit(seq, op)?;
                        break;
                    }
                    (false, None) if now => (inner, now) = self.group.wait(inner, until),
                    (false, None) => return Err(self.full(op)),
                }
            }
        }
    }

    #[cold]
    fn full(&self, op: &'static str) -> Error {
        Error::of_kind(op, ErrorKind::WouldBlock).with_advice(format!(
            "all {} segments are in use: release records that are finished",
            self.max_segments
        ))
    }

    /// Opens free segments and creates new ones, as many as lack; false if there may be no more.
    fn supply_one(
        &self,
        op: &'static str,
        own: bool,
        lacking: impl Fn(&Queue) -> usize,
    ) -> Result<bool> {
        let _one = self.supply.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut inner = self.group.lock();
            if let Some(refused) = inner.refused() {
                return Err(refusal(refused, op));
            }
            if lacking(&inner.work) == 0 {
                return Ok(true);
            }
            let (files, number) = inner.work.files();
            if let Some(free) = inner.work.pop_free() {
                drop(inner);
                match self.reopen(free, op) {
                    Ok(segment) => self.group.lock().work.push_ready(segment),
                    Err(error) => {
                        self.group.lock().work.push_free(free);
                        // Who waits for room has not seen it while it was tried.
                        self.group.wake();
                        return Err(error);
                    }
                }
            } else if own || files < self.max_segments {
                drop(inner);
                self.create(number, op)?;
            } else {
                return Ok(false);
            }
        }
    }

    fn reopen(&self, number: u64, op: &'static str) -> Result<Segment> {
        let segment = Segment::open(&self.dir, number, true, op)?;
        let damaged = |kind, offset| {
            let damage = Damage {
                kind,
                segment: number,
                offset,
                expected: 0,
                durable: 0,
            };
            Err(damage.error(op))
        };
        match Header::decode(&segment.read(0, START as u64, op)?, number) {
            Ok(header) if header.id != self.id => damaged(DamageKind::Foreign, 0),
            Ok(header) if header.len != segment.size => damaged(DamageKind::Length, segment.size),
            Ok(_) => Ok(segment),
            Err(_) => damaged(DamageKind::Header, 0),
        }
    }

    fn create(&self, number: u64, op: &'static str) -> Result<()> {
        if number >= NUMBER_LIMIT {
            return Err(used_up(op));
        }
        let header = Header {
            id: self.id,
            number,
            len: self.further_len,
            replaces: LogId::NONE,
        };
        match segment::create(&self.dir, &header, &[], op) {
            Ok(segment) => {
                let mut inner = self.group.lock();
                inner.work.file_created(number, true);
                inner.work.push_ready(segment);
                Ok(())
            }
            Err(NotCreated::Clean(error)) => Err(error),
            // Created by an attempt that was told otherwise.
            Err(NotCreated::Taken) => {
                self.group.lock().work.file_created(number, false);
                Ok(())
            }
            Err(NotCreated::Unsynced(error)) => {
                self.group.fail(Failure {
                    call: "fsync",
                    errno: error.errno().unwrap_or(sys::Errno::IO),
                });
                Err(error)
            }
        }
    }
}

/// No honest log comes there: what would be written could not be read again.
#[cold]
fn used_up(op: &'static str) -> Error {
    Error::of_kind(op, ErrorKind::StorageFull).with_advice("the log has used up its numbers")
}

#[cold]
pub(super) fn refusal(refused: Refused, op: &'static str) -> Error {
    let Refused {
        failure,
        earlier,
        written,
    } = refused;
    let state = if written {
        DiskState::Indeterminate
    } else {
        DiskState::Unchanged
    };
    let error = Error::new(op, failure.call, failure.errno);
    let error = if earlier {
        error.with_kind(ErrorKind::Poisoned)
    } else {
        error
    };
    error
        .with_state(state)
        .with_advice("drop the log and open it again: that tells what is durable")
}
