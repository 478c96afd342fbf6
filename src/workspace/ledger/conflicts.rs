//! Whether conflicts were recorded since somebody looked at all of them.
//!
//! A number that is drawn anew, by lot, when one was recorded: before its transaction's mark ends, so that
//! whoever gets a claim on its path, and has finished the work of the dead, reads another number than those
//! before. What it is does not matter, and nobody needs to know the one before. In a file that is new, or was
//! made before there was this number, there are zeros.

use super::{COUNTER, Ledger, counter};
use crate::sys;
use crate::{Error, Result};

/// In the counter's block.
const RECORDED: u64 = COUNTER + 1536;

/// The number, which stays until a conflict is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded(u64);

impl Ledger {
    /// The number now. `None`: it is damaged, or just being written. One call.
    pub(crate) fn recorded(&self) -> Result<Option<Recorded>> {
        let mut bytes = [0; counter::LEN];
        self.read(RECORDED, &mut bytes)?;
        let number = match bytes {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(0),
            bytes => counter::get(&bytes),
        };
        Ok(number.map(Recorded))
    }

    /// A conflict was recorded, and whoever lists them finds it. Two calls; others may do it at once.
    pub(crate) fn note_recorded(&self) -> Result<()> {
        let mut number = [0; 8];
        let drawn = sys::random(&mut number);
        drawn.map_err(|e| Error::new("record conflict", "getrandom", e))?;
        let mut bytes = [0; counter::LEN];
        counter::put(&mut bytes, u64::from_le_bytes(number));
        self.write(RECORDED, &bytes)
    }
}
