//! Reading a segment's frames, and finding frames that prove what was durable. On bytes in memory only.

use super::frame::{self, BLOCK, Frame, KIND_CLOSE, Run, Seed};
use super::segment::START;

/// The frames of one use of a segment, in order, up to the first that does not belong to it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) frames: Vec<Placed>,
    /// Where the last frame ends.
    pub(super) end: usize,
    /// The last run in it.
    pub(super) run: Run,
    /// The highest number that a release frame in it names.
    pub(super) released: u64,
    /// The highest number that its frames say was synced.
    pub(super) durable: u64,
}

/// A frame and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) offset: usize,
    pub(super) kind: u16,
    pub(super) seq: u64,
    pub(super) durable: u64,
    pub(super) transaction: u64,
    pub(super) fence: u64,
    /// Where the payload stands.
    pub(super) payload: std::ops::Range<usize>,
}

impl Placed {
    fn new(offset: usize, frame: &Frame<'_>) -> Self {
        let start = offset + frame::HEADER;
        Self {
            offset,
            kind: frame.kind,
            seq: frame.seq,
            durable: frame.durable,
            transaction: frame.transaction,
            fence: frame.fence,
            payload: start..start + frame.payload.len(),
        }
    }
}

impl Parsed {
    pub(super) fn first(&self) -> u64 {
        self.frames.first().map_or(0, |f| f.seq)
    }

    pub(super) fn last(&self) -> u64 {
        self.frames.last().map_or(0, |f| f.seq)
    }

    /// Whether the last thing that happened was that the writer closed the log.
    pub(super) fn closed(&self) -> bool {
        self.frames.last().is_some_and(|f| f.kind == KIND_CLOSE)
    }

    /// Where a new group may begin.
    pub(super) fn tail(&self) -> usize {
        frame::next_block(self.end)
    }

    /// Where the first frame is that this segment does not prove to have been synced.
    pub(super) fn unsynced(&self) -> Option<usize> {
        let first = self.frames.iter().find(|f| f.seq > self.durable)?;
        Some(first.offset / BLOCK * BLOCK)
    }
}

/// The first frame of a segment's use, if the block behind the header holds one.
pub(super) fn begin(bytes: &[u8], seed: Seed) -> Option<Frame<'_>> {
    frame::decode(bytes.get(START..)?, seed).filter(|f| f.begin)
}

/// Reads one use of a segment from its start. `None`: the segment was never used.
///
/// The next frame is the one behind the last, or the one at the next block, where each group
/// begins: with the next number, of the same run, or beginning a later one. Whatever else is found
/// there ends the use.
pub(super) fn parse(bytes: &[u8], seed: Seed) -> Option<Parsed> {
    let first = begin(bytes, seed)?;
    let mut out = Parsed {
        frames: vec![Placed::new(START, &first)],
        end: START + first.room(),
        run: first.run,
        released: first.released(),
        durable: first.durable,
    };
    let mut next = first.seq + 1;
    loop {
        let fits = |at: &usize| {
            let frame = frame::decode(bytes.get(*at..)?, seed)?;
            let same = frame.run == out.run && !frame.begin;
            let later = frame.begin && frame.run.epoch > out.run.epoch && at.is_multiple_of(BLOCK);
            (frame.seq == next && (same || later)).then_some((*at, frame))
        };
        let Some((at, frame)) = [out.end, out.tail()].iter().find_map(fits) else {
            return Some(out);
        };
        out.frames.push(Placed::new(at, &frame));
        out.end = at + frame.room();
        out.run = frame.run;
        out.released = out.released.max(frame.released());
        out.durable = out.durable.max(frame.durable);
        next += 1;
    }
}

/// Whether these bytes, the beginning of a segment, may end in the middle of a use that goes on.
pub(super) fn is_cut(bytes: &[u8], parsed: &Parsed) -> bool {
    [parsed.end, parsed.tail()]
        .iter()
        .any(|at| frame::is_cut(bytes, *at))
}

/// Every whole frame of a segment from `from` on, whatever run it is of.
pub(super) fn survivors(bytes: &[u8], from: usize, seed: Seed) -> Vec<(Placed, Run)> {
    let mut out = Vec::new();
    let mut at = from.max(START);
    while let Some((offset, found)) = frame::find(bytes, at, seed, None) {
        out.push((Placed::new(offset, &found), found.run));
        at = offset + found.room();
    }
    out
}

/// The highest number above `durable` that a frame at or after `from` proves to have been synced.
pub(super) fn proof(bytes: &[u8], from: usize, seed: Seed, durable: u64) -> Option<u64> {
    let mut best = None;
    let mut at = from.max(START);
    while let Some((offset, found)) = frame::find(bytes, at, seed, best.or(Some(durable))) {
        best = Some(found.durable);
        at = offset + found.room();
    }
    best
}
