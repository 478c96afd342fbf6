//! Frames on their way to the disk: where each will stand, which segments are in use, and which are free
//! again. No I/O.
//!
//! A frame is given its place when it is added, and only if there is one: what was added can fail for no
//! reason but the disk's.

use super::frame::{self, Content, LogId, RELEASE_LEN, Run, Seed, next_block, release, room, seal};
use super::group::Work;
use super::segment::{START, Segment};
use std::collections::VecDeque;
use std::sync::Arc;

/// Room at a segment's end that only the log's own frames may take: however full a log is, the release that
/// makes room in it finds a place.
fn reserve(len: u64) -> u64 {
    (len / 16).clamp(1024, 4096)
}

/// The longest payload in segments of this length.
pub(super) fn max_payload(len: u64) -> u64 {
    let taken = START as u64 + reserve(len) + RELEASE_LEN as u64 + frame::HEADER as u64;
    len.saturating_sub(taken) / 8 * 8
}

/// One group: what is written with one call and synced with one.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) segment: Arc<Segment>,
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) last: u64,
    run: Run,
    /// How far frames may reach in this segment.
    limit: u64,
    /// The run has its first frame, in this group or an earlier one.
    begun: bool,
}

impl Batch {
    fn new(segment: Arc<Segment>, start: u64, limit: u64, run: Run) -> Self {
        Self {
            segment,
            start,
            bytes: Vec::new(),
            last: 0,
            run,
            limit,
            begun: false,
        }
    }

    /// Where the next frame of the caller stands.
    fn position(&self) -> u64 {
        let begin = if self.begun { 0 } else { RELEASE_LEN };
        self.start + (self.bytes.len() + begin) as u64
    }

    fn fits(&self, size: usize, own: bool) -> bool {
        let kept = if own { 0 } else { reserve(self.limit) };
        self.position() + size as u64 + kept <= self.limit
    }

    /// Fills in what is known only now: run, checksum, and what is durable.
    pub(super) fn finish(&mut self, seed: Seed, durable: u64) {
        seal(&mut self.bytes, seed, self.run, durable);
    }
}

/// What stood before, and must be written again with, or before, the first group: it was seen, but perhaps
/// only in memory.
#[derive(Debug)]
pub(super) struct LeadIn {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) last: u64,
}

/// A segment with frames that are not released, or not known to be.
#[derive(Clone, Copy, Debug)]
struct Use {
    number: u64,
    last: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    /// Length of the shortest segment that may be taken into use.
    len: u64,
    nonce: u64,
    epoch: u64,
    next: u64,
    durable: u64,
    /// Released as of a frame that was added; as of one that is durable.
    asked: u64,
    released: u64,
    /// Numbers of release frames that are not durable yet, and what they release.
    releases: VecDeque<(u64, u64)>,
    last_release: u64,
    tail: Option<Batch>,
    sealed: Vec<Batch>,
    lead_in: Option<LeadIn>,
    ready: VecDeque<Arc<Segment>>,
    uses: VecDeque<Use>,
    free: VecDeque<u64>,
    total: u32,
    next_number: u64,
}

/// What a log that was read goes on from.
pub(super) struct Start {
    pub(super) len: u64,
    pub(super) nonce: u64,
    pub(super) epoch: u64,
    pub(super) last: u64,
    pub(super) durable: u64,
    pub(super) released: u64,
    /// Segments in use and the last number in each, in order.
    pub(super) uses: Vec<(u64, u64)>,
    pub(super) free: Vec<u64>,
    pub(super) total: u32,
    pub(super) next_number: u64,
    /// The segment where the log ends, and where in it.
    pub(super) tail: Option<(Arc<Segment>, u64)>,
    pub(super) lead_in: Option<LeadIn>,
}

/// What a leader writes.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) batches: Vec<Batch>,
    pub(super) lead_in: Option<LeadIn>,
    pub(super) durable: u64,
}

impl Queue {
    pub(super) fn new(start: Start) -> Self {
        let run = Run {
            epoch: 0,
            nonce: start.nonce,
        };
        Self {
            len: start.len,
            nonce: start.nonce,
            epoch: start.epoch,
            next: start.last + 1,
            durable: start.durable,
            asked: start.released,
            released: start.released,
            releases: VecDeque::new(),
            last_release: 0,
            tail: start.tail.map(|(segment, offset)| {
                let limit = segment.size;
                Batch::new(segment, offset, limit, run)
            }),
            sealed: Vec::new(),
            lead_in: start.lead_in,
            ready: VecDeque::new(),
            uses: start
                .uses
                .into_iter()
                .map(|(number, last)| Use { number, last })
                .collect(),
            free: start.free.into(),
            total: start.total,
            next_number: start.next_number,
        }
    }

    /// Whether this many frames more, and those that begin their runs, would have numbers that none can have.
    pub(super) fn lacks_numbers(&self, frames: usize) -> bool {
        let needed = 2 * frames as u64 + 2;
        self.next.max(self.epoch) > frame::NUMBER_LIMIT - needed
    }

    /// What a release frame that is durable releases.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// What is asked to be released, and the number of the frame that asks for it.
    pub(super) fn asked(&self) -> (u64, u64) {
        (self.asked, self.last_release)
    }

    /// Bytes that were added and not taken.
    pub(super) fn buffered(&self) -> usize {
        self.sealed
            .iter()
            .chain(&self.tail)
            .map(|b| b.bytes.len())
            .sum()
    }

    /// How many segments are lacking for frames with payloads of these lengths; `own`: the log's own.
    pub(super) fn lacks(&self, payloads: impl Iterator<Item = usize>, own: bool) -> usize {
        // Those that are not ready yet are no shorter.
        let mut fresh =
            (self.ready.iter().map(|segment| segment.size)).chain(std::iter::repeat(self.len));
        let mut needed: usize = 0;
        // Behind the current segment: the room left in the last one that is needed.
        let mut left: Option<u64> = None;
        let mut ahead = 0;
        for payload in payloads {
            let size = room(payload);
            match &mut left {
                None if self
                    .tail
                    .as_ref()
                    .is_some_and(|b| b.fits(ahead + size, own)) =>
                {
                    ahead += size;
                }
                Some(left) if *left >= size as u64 => *left -= size as u64,
                _ => {
                    needed += 1;
                    let len = fresh.next().unwrap_or(self.len);
                    let kept = if own { 0 } else { reserve(len) };
                    let taken = START as u64 + RELEASE_LEN as u64 + kept + size as u64;
                    left = Some(len.saturating_sub(taken));
                }
            }
        }
        needed.saturating_sub(self.ready.len())
    }

    /// Adds a frame, for which [`lacks`](Self::lacks) found room, and gives its number.
    pub(super) fn place(&mut self, content: Content<'_>, own: bool) -> Option<u64> {
        if !self
            .tail
            .as_ref()
            .is_some_and(|b| b.fits(room(content.payload.len()), own))
        {
            self.turn()?;
        }
        let tail = self.tail.as_mut()?;
        if !tail.begun {
            tail.begun = true;
            self.epoch += 1;
            tail.run = Run {
                epoch: self.epoch,
                nonce: self.nonce,
            };
            let seq = self.next;
            self.next += 1;
            let payload = self.asked.to_le_bytes();
            frame::push(&mut tail.bytes, seq, true, release(&payload));
            self.releases.push_back((seq, self.asked));
        }
        let seq = self.next;
        self.next += 1;
        frame::push(&mut tail.bytes, seq, false, content);
        tail.last = seq;
        Some(seq)
    }

    /// Adds a release frame.
    pub(super) fn place_release(&mut self, released: u64) -> Option<u64> {
        let payload = released.to_le_bytes();
        let seq = self.place(release(&payload), true)?;
        self.asked = self.asked.max(released);
        self.last_release = seq;
        self.releases.push_back((seq, released));
        Some(seq)
    }

    /// Goes on in the next segment.
    fn turn(&mut self) -> Option<()> {
        let segment = self.ready.pop_front()?;
        if let Some(last) = self.uses.back_mut() {
            last.last = self.next - 1;
        }
        self.uses.push_back(Use {
            number: segment.number,
            last: u64::MAX,
        });
        let run = Run {
            epoch: 0,
            nonce: self.nonce,
        };
        let limit = segment.size;
        let next = Batch::new(segment, START as u64, limit, run);
        self.sealed
            .extend(self.tail.replace(next).filter(|b| !b.bytes.is_empty()));
        Some(())
    }

    /// A segment that may be taken into use again.
    pub(super) fn pop_free(&mut self) -> Option<u64> {
        self.free.pop_front()
    }

    pub(super) fn push_free(&mut self, number: u64) {
        self.free.push_front(number);
    }

    pub(super) fn push_ready(&mut self, segment: Segment) {
        self.ready.push_back(Arc::new(segment));
    }

    /// Files of this log, and the number of the next.
    pub(super) fn files(&self) -> (u32, u64) {
        (self.total, self.next_number)
    }

    /// A file with this number stands now; `ours` or not.
    pub(super) fn file_created(&mut self, number: u64, ours: bool) {
        self.next_number = self.next_number.max(number + 1);
        self.total += u32::from(ours);
    }

    /// Whether a segment is free, or a release under way may free one: the number to sync for that.
    pub(super) fn hope(&self) -> (bool, Option<u64>) {
        let under_way = self
            .releases
            .iter()
            .rev()
            .find(|(_, released)| *released > self.released);
        (!self.free.is_empty(), under_way.map(|(seq, _)| *seq))
    }
}

impl Work for Queue {
    type Taken = Taken;

    fn take(&mut self) -> Taken {
        let mut batches = std::mem::take(&mut self.sealed);
        if let Some(tail) = self.tail.as_mut().filter(|b| !b.bytes.is_empty()) {
            let end = next_block(tail.bytes.len()) as u64 + tail.start;
            let mut next = Batch::new(tail.segment.clone(), end, tail.limit, tail.run);
            next.begun = true;
            batches.push(std::mem::replace(tail, next));
        }
        Taken {
            lead_in: if batches.is_empty() {
                None
            } else {
                self.lead_in.take()
            },
            batches,
            durable: self.durable,
        }
    }

    /// The last number that was given out.
    fn last(&self) -> u64 {
        self.next - 1
    }

    fn settle(&mut self, durable: u64) {
        self.durable = durable;
        while let Some((_, released)) = self.releases.front().filter(|(seq, _)| *seq <= durable) {
            self.released = self.released.max(*released);
            self.releases.pop_front();
        }
        // The last is where frames are added.
        while self.uses.len() > 1 && self.uses[0].last <= self.released {
            self.free.extend(self.uses.pop_front().map(|u| u.number));
        }
    }
}

/// The id of a log as a user sees it.
pub(super) fn show_id(id: LogId) -> String {
    id.0.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 8192;

    fn queue(segments: u64) -> Queue {
        let mut queue = Queue::new(Start {
            len: LEN,
            nonce: 1,
            epoch: 0,
            last: 0,
            durable: 0,
            released: 0,
            uses: Vec::new(),
            free: Vec::new(),
            total: 1,
            next_number: 1,
            tail: None,
            lead_in: None,
        });
        for number in 1..=segments {
            queue.push_ready(segment(number, LEN));
        }
        queue
    }

    fn segment(number: u64, size: u64) -> Segment {
        Segment {
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            number,
            size,
        }
    }

    fn add(queue: &mut Queue, len: usize) -> u64 {
        let payload = vec![1; len];
        let content = Content {
            kind: 16,
            transaction: 0,
            fence: 0,
            payload: frame::Payload::new(&payload),
        };
        queue.place(content, false).unwrap()
    }

    /// A sync that was under way when the release was added says nothing about the release.
    #[test]
    fn a_segment_is_free_when_its_release_is_durable_and_no_earlier() {
        let mut queue = queue(2);
        let first = add(&mut queue, 6000);
        let second = add(&mut queue, 6000);
        queue.take();
        let release = queue.place_release(first).unwrap();
        queue.settle(second);
        assert_eq!((queue.released(), queue.pop_free()), (0, None));
        assert_eq!(queue.hope(), (false, Some(release)));
        queue.settle(release);
        assert_eq!((queue.released(), queue.pop_free()), (first, Some(1)));
        // The segment that is being filled is never free, whatever is released.
        let release = queue.place_release(release).unwrap();
        queue.settle(release);
        assert_eq!(queue.pop_free(), None);
    }

    /// Nor after an open, when all that it holds is released.
    #[test]
    fn the_segment_where_the_log_goes_on_is_never_free() {
        let segment = Arc::new(segment(1, LEN));
        let mut queue = Queue::new(Start {
            len: LEN,
            nonce: 1,
            epoch: 1,
            last: 5,
            durable: 5,
            released: 0,
            uses: vec![(1, 5)],
            free: Vec::new(),
            total: 1,
            next_number: 2,
            tail: Some((segment, 1024)),
            lead_in: None,
        });
        let release = queue.place_release(5).unwrap();
        queue.settle(release);
        assert_eq!((queue.released(), queue.pop_free()), (5, None));
    }

    /// What is said to fit is placed: the same in both, for records of any lengths.
    #[test]
    fn what_fits_is_placed() {
        for step in 1..60 {
            let mut queue = queue(20);
            for number in 21..=40 {
                // The shortest has a smaller reserve than the others.
                queue.push_ready(segment(number, LEN + number % 3 * 8 * LEN));
            }
            for round in 0..20 {
                let lens: Vec<usize> = (0..4)
                    .map(|n| (round * 977 + n * step * 131) % max_payload(LEN) as usize)
                    .collect();
                if queue.lacks(lens.iter().copied(), false) > 0 {
                    break;
                }
                for len in lens {
                    add(&mut queue, len);
                }
                if round % 3 == 0 {
                    for batch in queue.take().batches {
                        let end = batch.start + next_block(batch.bytes.len()) as u64;
                        assert!(end <= batch.segment.size, "{end}");
                        assert!(batch.start.is_multiple_of(512));
                    }
                }
            }
        }
        let mut queue = queue(0);
        let limit = max_payload(LEN) as usize;
        // Nobody knows yet how long those are that will be ready: no shorter than the shortest.
        assert_eq!(queue.lacks([limit; 3].into_iter(), false), 3);
        queue.push_ready(segment(7, 4 * LEN));
        assert_eq!(queue.lacks([limit; 3].into_iter(), false), 0);
        assert_eq!(queue.lacks([limit; 5].into_iter(), false), 1);
        let mut queue = self::queue(1);
        assert_eq!(queue.lacks([limit].into_iter(), false), 0);
        assert_eq!(queue.lacks([limit, 0].into_iter(), false), 1);
        add(&mut queue, limit);
        assert_eq!(queue.lacks([0].into_iter(), false), 1);
        assert_eq!(queue.lacks([8].into_iter(), true), 0);
    }
}
