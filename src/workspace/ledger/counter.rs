//! The numbers of transactions: each is given out once, and they rise.

use super::{COUNTER, Ledger, shown};
use crate::{Error, ErrorKind, Result};

/// The number and its CRC-32C: after a power cut there may be anything.
pub(super) const LEN: usize = 12;

pub(super) fn put(to: &mut [u8], number: u64) {
    let bytes = number.to_le_bytes();
    to[..8].copy_from_slice(&bytes);
    to[8..LEN].copy_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
}

pub(super) fn get(bytes: &[u8; LEN]) -> Option<u64> {
    let (number, crc) = (bytes.first_chunk::<8>()?, bytes.last_chunk::<4>()?);
    (crc32c::crc32c(number) == u32::from_le_bytes(*crc)).then(|| u64::from_le_bytes(*number))
}

/// The number after the one that was given out last.
pub(super) fn after(last: Option<u64>) -> Result<u64> {
    match last.map(|n| n.checked_add(1)) {
        Some(Some(next)) => Ok(next),
        Some(None) => Err(Error::of_kind("draw a number", ErrorKind::Unsupported)
            .with_detail("all numbers have been given out")),
        None => Err(damaged()),
    }
}

impl Ledger {
    /// The next number; nobody else gets the same. [`begin`](Self::begin) draws one as well.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the counter is damaged, and [`raise`](Self::raise) was not called since.
    #[cfg(test)]
    pub(crate) fn draw(&self) -> Result<u64> {
        self.count(after)
    }

    /// The last number that was drawn.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(crate) fn last(&self) -> Result<u64> {
        self.count(|now| now.ok_or_else(damaged))
    }

    /// Makes sure that numbers drawn from now on are above this one, and above the horizon. A damaged
    /// counter is made good.
    pub(crate) fn raise(&self, at_least: u64) -> Result<()> {
        let floor = self.horizon()?.max(at_least);
        self.count(|now| Ok(now.unwrap_or(0).max(floor))).map(drop)
    }

    fn count(&self, next: impl FnOnce(Option<u64>) -> Result<u64>) -> Result<u64> {
        let _turn = self.turn()?;
        let mut bytes = [0; LEN];
        self.read(COUNTER, &mut bytes)?;
        let number = next(get(&bytes))?;
        put(&mut bytes, number);
        self.write(COUNTER, &bytes)?;
        Ok(number)
    }
}

#[cold]
fn damaged() -> Error {
    Error::of_kind("draw a number", ErrorKind::Corrupt)
        .with_path(shown())
        .with_detail("the counter is damaged")
        .with_advice("open the workspace anew, when nobody else has it open")
}
