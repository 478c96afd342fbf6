//! The transaction ids in a log's bytes, those that are released among them: what is left of them when
//! whoever kept count has lost it. It only reads.

use super::analyse::analyse;
use super::frame::FIRST_KIND;
use super::open::read_heads;
use super::scan;
use super::segment::{self, START};
use crate::Result;
use crate::root::Dir;
use std::collections::HashMap;

const OP: &str = "read numbers of log";

/// What the frames of a log say of transaction ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The highest of all whole frames, wherever they stand; 0: there is none.
    pub(crate) highest: u64,
    /// The highest of the frames of the kinds that count which were durable, and are released.
    pub(crate) released: u64,
}

/// Reads every whole frame of the log in `dir`, damaged or not. Segments are used again, so that what they
/// hold is only the end of what was released.
pub(crate) fn numbers(dir: &Dir, counts: impl Fn(u16) -> bool) -> Result<Numbers> {
    let listing = segment::list(dir, OP)?;
    let found = analyse(read_heads(dir, &listing, false, OP)?, OP)?;
    let mut out = Numbers::default();
    // A frame of a group that was torn may have its number from another one by now, which was released. What
    // its own writer says later tells that it was synced.
    let mut durable: HashMap<u64, u64> = HashMap::new();
    let mut frames = Vec::new();
    for head in &found.heads {
        for (frame, run) in scan::survivors(&head.bytes(OP)?, START, found.id.seed()) {
            let known = durable.entry(run.nonce).or_default();
            *known = frame.durable.max(*known);
            if frame.kind >= FIRST_KIND {
                out.highest = out.highest.max(frame.transaction);
                frames.push((frame.kind, frame.seq, frame.transaction, run.nonce));
            }
        }
    }
    for (kind, seq, transaction, nonce) in frames {
        let synced = durable.get(&nonce).is_some_and(|known| seq <= *known);
        if counts(kind) && seq <= found.released && synced {
            out.released = out.released.max(transaction);
        }
    }
    Ok(out)
}
