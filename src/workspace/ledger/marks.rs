//! Marks: who is about to write a commit record, or has written one and is not done.
//!
//! An entry is written by whoever holds its byte, and holds it until the entry is zero again. So an entry
//! that is not zero, with a byte that nobody holds, is a dead one's.

use super::{COUNTER, FIRST_MARK, Ledger, MARKS, RecoveryLock, counter};
use crate::claim::{Claim, Extra};
use crate::sys::LockKind;
use crate::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const OP: &str = "mark a transaction";
pub(super) const NUMBER: usize = 256;
pub(super) const LEN: usize = 16;

/// What the marked work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkKind {
    Commit,
    Section,
    /// The entry is damaged: number and log may be anything.
    Unknown,
}

/// A mark that is held. It stays when this is dropped, and is a dead one's when the claim is; only
/// [`Ledger::clear`] takes it back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Mark {
    pub(super) entry: usize,
    alive: Arc<Alive>,
}

/// The entries whose marks this ledger has given out: their writers live, and need not be asked for.
///
/// A mark must end, or be cleared, before the claim that holds its byte.
#[derive(Debug, Default)]
pub(super) struct Alive([AtomicU64; NUMBER / 64]);

impl Alive {
    fn set(&self, entry: usize) {
        self.0[entry / 64].fetch_or(1 << (entry % 64), SeqCst);
    }

    fn unset(&self, entry: usize) {
        self.0[entry / 64].fetch_and(!(1 << (entry % 64)), SeqCst);
    }

    fn has(&self, entry: usize) -> bool {
        self.0[entry / 64].load(SeqCst) >> (entry % 64) & 1 == 1
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // If another mark has the entry by now, it is asked for as those of other processes are.
        self.alive.unset(self.entry);
    }
}

/// A mark that nobody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadMark {
    pub(super) entry: usize,
    content: [u8; LEN],
    pub(crate) number: u64,
    /// The index of the log that has, or has not, the commit record.
    pub(crate) log: u32,
    pub(crate) kind: MarkKind,
}

impl MarkKind {
    fn code(self) -> u16 {
        match self {
            Self::Commit => 1,
            Self::Section => 2,
            Self::Unknown => 0,
        }
    }
}

/// Number, log, kind, and the low half of a CRC-32C of these.
fn encode(number: u64, log: u32, kind: MarkKind) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..8].copy_from_slice(&number.to_le_bytes());
    out[8..12].copy_from_slice(&log.to_le_bytes());
    out[12..14].copy_from_slice(&kind.code().to_le_bytes());
    let check = check(&out);
    out[14..].copy_from_slice(&check);
    out
}

fn check(content: &[u8; LEN]) -> [u8; 2] {
    let [low, high, ..] = crc32c::crc32c(&content[..14]).to_le_bytes();
    [low, high]
}

pub(super) fn decode(entry: usize, content: [u8; LEN]) -> DeadMark {
    let [a, b, c, d, e, f, g, h, i, j, k, l, code, _, ..] = content;
    let kind = match code {
        1 => MarkKind::Commit,
        2 => MarkKind::Section,
        _ => MarkKind::Unknown,
    };
    let (number, log) = (
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u32::from_le_bytes([i, j, k, l]),
    );
    let whole = encode(number, log, kind) == content;
    DeadMark {
        entry,
        content,
        number,
        log,
        kind: if whole { kind } else { MarkKind::Unknown },
    }
}

pub(super) fn byte(entry: usize) -> Extra {
    // An entry is below 256.
    Extra::new(FIRST_MARK + entry as u32)
}

fn offset(entry: usize) -> u64 {
    MARKS + (entry * LEN) as u64
}

impl Ledger {
    /// Draws the number of a transaction, which nobody else gets, and marks it, before its first record is
    /// written. Six calls. Only one thread at a time may do this with a claim.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: no entry is free. [`ErrorKind::Corrupt`]: the counter is damaged, and
    /// [`raise`](Self::raise) was not called since.
    pub(crate) fn begin(&self, claim: &Claim, log: u32, kind: MarkKind) -> Result<(u64, Mark)> {
        const BETWEEN: usize = (MARKS - COUNTER) as usize;
        let _turn = self.turn()?;
        let mut bytes = [0; BETWEEN + LEN * NUMBER];
        self.read(COUNTER, &mut bytes)?;
        let (before, marks) = bytes.split_at(BETWEEN);
        let number = counter::after(before.first_chunk().and_then(counter::get))?;
        let mut drawn = [0; counter::LEN];
        counter::put(&mut drawn, number);
        self.write(COUNTER, &drawn)?;
        let mark = self.mark_in(marks, claim, number, log, kind)?;
        Ok((number, mark))
    }

    /// Marks a transaction that has its number.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: no entry is free.
    pub(crate) fn mark(
        &self,
        claim: &Claim,
        number: u64,
        log: u32,
        kind: MarkKind,
    ) -> Result<Mark> {
        let _turn = self.turn()?;
        self.mark_in(&self.table()?, claim, number, log, kind)
    }

    /// Takes an entry. One at a time, so that an entry that is seen as free still is: nobody may hold, not
    /// even for a moment, the byte of one that a dead writer has left, or that one would be taken for alive.
    fn mark_in(
        &self,
        table: &[u8],
        claim: &Claim,
        number: u64,
        log: u32,
        kind: MarkKind,
    ) -> Result<Mark> {
        let content = encode(number, log, kind);
        // Not all begin at the same place.
        let first = (number % NUMBER as u64) as usize;
        for entry in (first..NUMBER).chain(0..first) {
            // One that is taken may be this claim's own, whose byte must not be touched.
            if !is_free(table, entry) || !claim.try_extra(LockKind::Exclusive, byte(entry))? {
                continue;
            }
            self.write(offset(entry), &content)?;
            self.alive.set(entry);
            let alive = Arc::clone(&self.alive);
            return Ok(Mark { entry, alive });
        }
        Err(Error::of_kind(OP, ErrorKind::Busy)
            .with_detail("256 transactions are under way, or were left half done")
            .with_advice("try again; if nobody else is at work, open the workspace anew"))
    }

    /// Takes a mark back, when the work is done or will never be. Two calls. After an error it may stay, and
    /// be a dead one's when the claim ends, which does no harm.
    pub(crate) fn clear(&self, mark: Mark, claim: &Claim) -> Result<()> {
        let entry = mark.entry;
        self.end(mark)?;
        claim.unlock_extra(byte(entry))
    }

    /// [`clear`](Self::clear) for a claim that ends right after, and with it the byte. One call.
    pub(crate) fn end(&self, mark: Mark) -> Result<()> {
        self.write(offset(mark.entry), &[0; LEN])?;
        // Once the byte is free it may be another process's.
        self.alive.unset(mark.entry);
        Ok(())
    }

    /// The marks that nobody holds, in the order of their numbers. One call, one more for each mark of
    /// somebody alive who does not use this ledger, and two for each of somebody dead.
    ///
    /// After getting a claim, this finds every transaction that held a conflicting claim when it died, if it
    /// may have written its commit record.
    pub(crate) fn dead(&self) -> Result<Vec<DeadMark>> {
        let mut out = Vec::new();
        // A child that was forked does not know what its parent has done since.
        let known = |entry| self.alive.has(entry) && self.process == std::process::id();
        let table = self.table()?;
        for (entry, content) in table.chunks_exact(LEN).enumerate() {
            let Some(content) = content.first_chunk().filter(|c| **c != [0; LEN]) else {
                continue;
            };
            if known(entry) {
                continue;
            }
            if self
                .watch()?
                .extra_would_wait(LockKind::Exclusive, byte(entry))?
            {
                continue;
            }
            // Its owner may have been done between the two. If the entry stood before and after a moment
            // in which nobody held it, its owner was dead in that moment.
            let now = self.entry(entry)?;
            if now == *content {
                out.push(decode(entry, now));
            }
        }
        out.sort_by_key(|mark| mark.number);
        Ok(out)
    }

    /// Removes a mark that nobody holds, when its work is finished.
    pub(crate) fn clear_dead(&self, mark: &DeadMark, _alone: &RecoveryLock) -> Result<()> {
        if self.entry(mark.entry)? != mark.content {
            return Ok(());
        }
        // Nobody takes an entry that is not zero.
        self.write(offset(mark.entry), &[0; LEN])
    }

    fn entry(&self, entry: usize) -> Result<[u8; LEN]> {
        let mut content = [0; LEN];
        self.read(offset(entry), &mut content)?;
        Ok(content)
    }

    /// All entries, one behind the other.
    fn table(&self) -> Result<[u8; LEN * NUMBER]> {
        let mut bytes = [0; LEN * NUMBER];
        self.read(MARKS, &mut bytes)?;
        Ok(bytes)
    }
}

/// Whether an entry of the table is zero.
fn is_free(table: &[u8], entry: usize) -> bool {
    let content = table.get(entry * LEN..).and_then(<[u8]>::first_chunk);
    content == Some(&[0; LEN])
}
