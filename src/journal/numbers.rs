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
    let found = analyse(read_heads(dir, &listing, false, OP)?, None, OP)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Log, LogOptions, Record};
    use crate::sys::OwnedFd;
    use std::fs::{self, File};
    use std::path::Path;

    const KIND: u16 = 16;
    const BLOCK: usize = 512;

    fn open(path: &Path) -> (Dir, Log) {
        let dir = || Dir::from(OwnedFd::from(File::open(path).unwrap()));
        let (log, _) = LogOptions::new().segment_len(8192).open(dir()).unwrap();
        (dir(), log)
    }

    /// What is left of a torn group has by now the number of a record that was released. Nothing says that
    /// its own transaction was.
    #[test]
    fn what_is_left_of_a_torn_group_is_not_released() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, log) = open(tmp.path());
        let record = |n, payload| Record::new(KIND, payload).transaction(n);
        log.append_durable(&[record(1, b"stays")]).unwrap();
        let segment = tmp.path().join("0000000000000001.seg");
        let before = fs::read(&segment).unwrap();
        let fills = [0; 6 * BLOCK];
        let group = [record(2, &[]), record(3, &fills), record(99, b"left")];
        let torn = log.append_durable(&group).unwrap();
        drop(log);
        // All of the group but its last block is lost in a power cut.
        let mut bytes = fs::read(&segment).unwrap();
        let last = bytes.windows(4).rposition(|w| w == b"left").unwrap() / BLOCK * BLOCK;
        bytes[..last].copy_from_slice(&before[..last]);
        fs::write(&segment, &bytes).unwrap();
        let (_, log) = open(tmp.path());
        let mut seq = 0;
        for n in 4..7 {
            seq = log.append_durable(&[record(n, b"new")]).unwrap().last;
        }
        assert!(seq > torn.last);
        log.release(seq).unwrap();
        log.close().unwrap();
        let now = fs::read(&segment).unwrap();
        assert_eq!(
            now[last..last + BLOCK],
            bytes[last..last + BLOCK],
            "nothing is left"
        );
        let want = Numbers {
            highest: 99,
            released: 6,
        };
        assert_eq!(numbers(&dir, |kind| kind == KIND).unwrap(), want);
    }
}
