//! The horizon: work with this number or a lower one is durable in place, and is never looked at again.
//!
//! It is kept in two copies, written in turn. A crash damages the one that is being written at most, and the
//! higher one of those that are whole counts. So the copy that counts must be durable before the other one
//! is written over; of a copy that somebody else wrote, that is known only after it was written again in the
//! same bytes and synced (he may have died before his sync, or it may have failed).

use super::{BLOCK, HORIZON_BYTE, Ledger, OP, fail, shown};
use crate::sys;
use crate::{DiskState, Error, ErrorKind, Result};
use std::sync::PoisonError;

const MAGIC: [u8; 8] = *b"sfhorizn";
/// Magic, number, CRC-32C of both.
const LEN: usize = 20;
pub(super) const ADVICE: &str = "restore the file; if it is lost for good, move the state folder out of \
     the way and look over what it holds";

/// What this process knows of the copies.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// This number was synced by this process.
    durable: Option<u64>,
    /// A sync failed: nothing can be promised any more.
    poisoned: bool,
}

pub(super) fn put(to: &mut [u8], number: u64) {
    to[..8].copy_from_slice(&MAGIC);
    to[8..16].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&to[..16]);
    to[16..LEN].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn get(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(..LEN)?;
    let crc = u32::from_le_bytes(*bytes.last_chunk()?);
    let whole = bytes.starts_with(&MAGIC) && crc == crc32c::crc32c(&bytes[..16]);
    whole.then(|| Some(u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?)))?
}

impl Ledger {
    /// The horizon. One call. It may be one that is not durable yet: that is no reason to do its work again,
    /// but none to release a record either ([`set_horizon`](Self::set_horizon)).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: both copies are damaged.
    pub(crate) fn horizon(&self) -> Result<u64> {
        match self.newest()? {
            Some((_, number)) => Ok(number),
            None => {
                // Both may have been written while they were being read.
                let _thread = self.horizon.lock().unwrap_or_else(PoisonError::into_inner);
                let _process = self.moment(HORIZON_BYTE)?;
                self.newest()?.map(|(_, number)| number).ok_or_else(damaged)
            }
        }
    }

    /// Makes the horizon at least this high, durably; it never goes down. When this returns, records up to
    /// this number may be released.
    ///
    /// # Errors
    /// As fdatasync(2), which is never tried again: afterwards [`ErrorKind::Poisoned`].
    pub(crate) fn set_horizon(&self, number: u64) -> Result<()> {
        let mut known = self.horizon.lock().unwrap_or_else(PoisonError::into_inner);
        let _process = self.moment(HORIZON_BYTE)?;
        if known.poisoned {
            return Err(Error::of_kind("set the horizon", ErrorKind::Poisoned)
                .with_path(shown())
                .with_advice("open the workspace anew"));
        }
        let (copy, newest) = self.newest()?.ok_or_else(damaged)?;
        if known.durable != Some(newest) {
            self.write_copy(copy, newest, &mut known)?;
        }
        if newest < number {
            self.write_copy(1 - copy, number, &mut known)?;
        }
        Ok(())
    }

    fn write_copy(&self, copy: usize, number: u64, known: &mut Known) -> Result<()> {
        let mut bytes = [0; LEN];
        put(&mut bytes, number);
        let done = self
            .write((copy * BLOCK) as u64, &bytes)
            .and_then(|()| sys::fdatasync(&self.file).map_err(|e| fail("fdatasync", e)));
        match &done {
            Ok(()) => known.durable = Some(number),
            Err(_) => known.poisoned = true,
        }
        done.map_err(|e| e.with_state(DiskState::Indeterminate))
    }

    /// Which copy counts, and what it says.
    fn newest(&self) -> Result<Option<(usize, u64)>> {
        let mut bytes = [0; BLOCK + LEN];
        self.read(0, &mut bytes)?;
        let copies = [get(&bytes), get(&bytes[BLOCK..])];
        Ok(match copies {
            [Some(a), Some(b)] if b > a => Some((1, b)),
            [Some(a), _] => Some((0, a)),
            [None, Some(b)] => Some((1, b)),
            [None, None] => None,
        })
    }
}

#[cold]
fn damaged() -> Error {
    Error::of_kind(OP, ErrorKind::Corrupt)
        .with_path(shown())
        .with_detail("both copies of the horizon are damaged")
        .with_advice(ADVICE)
}
