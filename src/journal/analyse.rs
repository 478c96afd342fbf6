//! All segments of a log together: which frames stand, where the log ends, and whether it ends
//! there because its writer died or because something is damaged. It only reads.
//!
//! The log ends at its last frame with consecutive numbers. That is a torn tail, and normal, unless
//! something proves that more was durable: each frame carries the highest number that its writer
//! knew to be synced, so any whole frame, wherever it stands, that names a number beyond the end is
//! such a proof. The existence of a later frame alone is none.

use super::damage::{Damage, DamageKind};
use super::frame::{self, ALIGN, BLOCK, LogId, Seed};
use super::scan::{self, Parsed};
use super::segment::{Fault, Header, MAX_LEN, START, Segment, id_at};
use crate::{Error, ErrorKind, Result};

/// One segment file: what its first two blocks say.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) file: Segment,
    /// `Err`: the header is damaged.
    header: Result<Header, ()>,
    /// The id by which its frames are read: the header's, or what the frames themselves confirm.
    id: Option<LogId>,
    /// Epoch and number of the first frame.
    begin: Option<(u64, u64)>,
    /// The block of the first frame is all zeros.
    blank: bool,
    /// Header and first frame.
    start: Vec<u8>,
}

impl Head {
    /// Reads the first two blocks.
    pub(super) fn read(file: Segment, op: &'static str) -> Result<Self> {
        let start = file.read(0, 2 * START as u64, op)?;
        let header = match Header::decode(&start, file.number) {
            Ok(header) => Ok(header),
            Err(Fault::Damaged) => Err(()),
            Err(Fault::Newer(version)) => {
                let error = Error::of_kind(op, ErrorKind::Unsupported).with_advice(format!(
                    "the log has format {version}, of a later version of this library"
                ));
                return Err(match super::segment::name(file.number) {
                    Ok(name) => error.with_path(name),
                    Err(_) => error,
                });
            }
        };
        let block = start.get(START..).unwrap_or_default();
        Ok(Self {
            blank: block.iter().all(|b| *b == 0),
            id: header.ok().map(|h| h.id),
            begin: None,
            header,
            start,
            file,
        })
    }

    /// Looks for the first frame; a damaged header's segment is tried with each id that may be its own.
    fn find_begin(&mut self, ids: &[LogId]) {
        let own = id_at(&self.start, 16);
        let tries: Vec<LogId> = match self.id {
            Some(id) => vec![id],
            None => own.into_iter().chain(ids.iter().copied()).collect(),
        };
        for id in tries.into_iter().filter(|id| *id != LogId::NONE) {
            if let Some(frame) = scan::begin(&self.start, id.seed()) {
                self.id = Some(id);
                self.begin = Some((frame.run.epoch, frame.seq));
                return;
            }
        }
    }

    /// The whole file, as far as it is there and should be.
    pub(super) fn bytes(&self, op: &'static str) -> Result<Vec<u8>> {
        let len = self.header.map_or(MAX_LEN, |h| h.len);
        self.file.read(0, len, op)
    }

    /// Looks through the file from `from` on, a window at a time: nearly always that is all there is to do,
    /// and it costs no memory.
    fn look_through(&self, from: usize, above: u64, op: &'static str) -> Result<Rest> {
        let end = self.len().min(self.file.size);
        let mut at = from.max(START).next_multiple_of(ALIGN) as u64;
        let mut window = vec![0; WINDOW];
        let mut out = Rest {
            suspect: false,
            blank: true,
        };
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
            let n = self.file.read_into(at, &mut window[..room], op)?;
            let bytes = &window[..n];
            out.suspect |= frame::may_hold(bytes, above);
            out.blank &= bytes.iter().fold(0, |all, b| all | b) == 0;
            if n < room || at + n as u64 >= end {
                break;
            }
            // What begins in the last bytes is seen whole in the next window.
            at += (n - OVERLAP) as u64;
        }
        Ok(out)
    }

    /// The segment's length by its header.
    pub(super) fn true_len(&self) -> Option<u64> {
        self.header.ok().map(|h| h.len)
    }

    /// The segment's length by its header, or what there is of it.
    pub(super) fn len(&self) -> u64 {
        self.header.map_or(self.file.size, |h| h.len)
    }
}

/// How much of a segment is read at once.
const WINDOW: usize = 128 << 10;
/// What is looked at of a frame is shorter.
const OVERLAP: usize = BLOCK;

/// What is in a segment behind what stands.
struct Rest {
    /// There may be a frame that proves something.
    suspect: bool,
    /// It is all zeros.
    blank: bool,
}

/// A frame that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) kind: u16,
    pub(super) seq: u64,
    pub(super) transaction: u64,
    pub(super) fence: u64,
    pub(super) payload: Vec<u8>,
}

/// A segment that holds frames that are not released.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What frames above the highest number that is proved to be durable look like, for writing them again.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// What a log's segments hold.
#[derive(Debug)]
pub(super) struct Analysis {
    pub(super) heads: Vec<Head>,
    pub(super) id: LogId,
    /// In order; the last is where the log ends.
    pub(super) chain: Vec<Use>,
    /// Segments of this log outside the chain.
    pub(super) free: Vec<u64>,
    /// Segments of a log that this one is the repaired form of.
    pub(super) superseded: Vec<u64>,
    /// Frames that stand and are not released, the log's own kinds among them.
    pub(super) frames: Vec<Standing>,
    pub(super) released: u64,
    /// The last frame that stands.
    pub(super) last: u64,
    /// The highest number that those frames prove to be durable.
    pub(super) durable: u64,
    pub(super) epoch: u64,
    /// Where in the last segment of the chain its last frame ends, and where the next group begins.
    pub(super) end: u64,
    pub(super) tail: u64,
    pub(super) clean: bool,
    pub(super) unsynced: Option<Unsynced>,
    /// A number beyond the last that the rest of the last segment proves to have been durable.
    beyond: Option<u64>,
    pub(super) damage: Option<Damage>,
}

impl Analysis {
    pub(super) fn head(&self, number: u64) -> Option<&Head> {
        self.heads.iter().find(|h| h.file.number == number)
    }

    /// Whether a segment is of the current log, as far as can be told.
    fn is_mine(&self, head: &Head) -> bool {
        head.id.is_none_or(|id| id == self.id) && !self.superseded.contains(&head.file.number)
    }
}

/// Reads what `heads`, in the order of their numbers, hold.
/// A log that was closed with the frame `known_end` is not looked through behind it.
pub(super) fn analyse(
    mut heads: Vec<Head>,
    known_end: Option<u64>,
    op: &'static str,
) -> Result<Analysis> {
    let (id, replaced, mut damage) = which_log(&heads);
    let ids: Vec<LogId> = heads.iter().filter_map(|h| h.id).collect();
    for head in &mut heads {
        head.find_begin(&ids);
    }
    // With no header left, the frames may still say which log it is.
    let id = id
        .or_else(|| heads.iter().find_map(|h| h.id))
        .unwrap_or(LogId::NONE);
    let mut out = Analysis {
        superseded: heads
            .iter()
            .filter(|h| h.id.is_some_and(|id| replaced.contains(&id)))
            .map(|h| h.file.number)
            .collect(),
        heads,
        id,
        chain: Vec::new(),
        free: Vec::new(),
        frames: Vec::new(),
        released: 0,
        last: 0,
        durable: 0,
        epoch: 0,
        end: START as u64,
        tail: START as u64,
        clean: false,
        unsynced: None,
        beyond: None,
        damage: None,
    };
    damage = out.read_chain(known_end, op)?.or(damage);
    let chain: Vec<u64> = out.chain.iter().map(|u| u.number).collect();
    out.free = out
        .heads
        .iter()
        .filter(|h| out.is_mine(h) && !chain.contains(&h.file.number))
        .map(|h| h.file.number)
        .collect();
    if damage.is_none() {
        damage = out.stranger();
    }
    if damage.is_none() {
        damage = out.look_for_proof(op)?;
    }
    let files = out.file_damage();
    out.damage = match (damage, files) {
        // The file is why the frame cannot be read.
        (Some(frame), Some(file)) if frame.segment == file.segment => Some(Damage {
            expected: frame.expected,
            durable: frame.durable,
            ..file
        }),
        (frame, file) => frame.or(file),
    };
    Ok(out)
}

/// The log that the headers are of: the one that no other replaces, and those that are replaced.
fn which_log(heads: &[Head]) -> (Option<LogId>, Vec<LogId>, Option<Damage>) {
    let headers = || heads.iter().filter_map(|h| h.header.ok());
    let mut replaced: Vec<LogId> = headers()
        .map(|h| h.replaces)
        .filter(|id| *id != LogId::NONE)
        .collect();
    if headers().all(|h| replaced.contains(&h.id)) {
        // No repair leaves a circle. None of them is the one that stands.
        replaced.clear();
    }
    let mut id = None;
    for header in headers().filter(|h| !replaced.contains(&h.id)) {
        match id {
            None => id = Some(header.id),
            Some(id) if id == header.id => {}
            Some(_) => {
                let damage = Damage {
                    kind: DamageKind::Foreign,
                    segment: header.number,
                    offset: 0,
                    expected: 0,
                    durable: 0,
                };
                return (id, replaced, Some(damage));
            }
        }
    }
    (id, replaced, None)
}

impl Analysis {
    fn seed(&self) -> Seed {
        self.id.seed()
    }

    /// Follows the frames from the first that is not released to the last.
    fn read_chain(&mut self, known_end: Option<u64>, op: &'static str) -> Result<Option<Damage>> {
        // Epoch and number of each use's first frame, and where its head is.
        let mut uses: Vec<(u64, u64, usize)> = Vec::new();
        for (n, head) in self.heads.iter().enumerate() {
            // One that has a first frame has an id.
            if self.is_mine(head) {
                uses.extend(head.begin.map(|(epoch, seq)| (epoch, seq, n)));
            }
        }
        uses.sort_unstable();
        let disordered = |w: &&[(u64, u64, usize)]| w[0].0 == w[1].0 || w[0].1 >= w[1].1;
        if let Some(pair) = uses.windows(2).find(disordered) {
            let segment = self.heads[pair[1].2].file.number;
            return Ok(Some(self.damage(
                DamageKind::Foreign,
                segment,
                START as u64,
            )));
        }
        let Some((newest, older)) = uses.split_last() else {
            return Ok(None);
        };
        // The newest use says what is released, and so where to begin.
        let Some((mut bytes, mut parsed)) = self.parse(newest.2, op)? else {
            return Ok(None);
        };
        let head = &self.heads[newest.2];
        let known = parsed.closed() && known_end == Some(parsed.last());
        let suspect = !known && head.look_through(parsed.end, parsed.last(), op)?.suspect;
        if suspect {
            // At one moment, or what a living writer has appended since would seem to prove something.
            bytes = head.bytes(op)?;
            match scan::parse(&bytes, self.seed()) {
                Some(again) => parsed = again,
                None => return Ok(None),
            }
        }
        self.released = parsed.released;
        let (durable, epoch) = (parsed.durable, parsed.run.epoch);
        let mut reached = self.released;
        if parsed.first() > self.released + 1 {
            let holds_first = |u: &(u64, u64, usize)| u.1 <= self.released + 1;
            let from = older.iter().rposition(holds_first).unwrap_or(0);
            for &(_, first, n) in &older[from..] {
                if first > reached + 1 {
                    return Ok(Some(self.broken(n, reached, durable)));
                }
                // A living writer may have taken it into use again since its beginning was read.
                match self.parse(n, op)? {
                    Some((bytes, parsed)) if parsed.first() == first => {
                        reached = parsed.last();
                        self.take(n, &bytes, &parsed);
                    }
                    _ => return Ok(Some(self.broken(n, reached, durable))),
                }
            }
        }
        if parsed.first() > reached + 1 || parsed.first() != newest.1 {
            return Ok(Some(self.broken(newest.2, reached, durable)));
        }
        self.take(newest.2, &bytes, &parsed);
        self.epoch = epoch;
        self.clean = parsed.closed();
        if suspect {
            self.beyond = scan::proof(&bytes, parsed.end, self.seed(), self.last);
        }
        self.unsynced = parsed.unsynced().map(|offset| {
            // Behind the last frame is the rest of its block, which is nobody's.
            // A file that was cut may end in it.
            let end = parsed.end.min(bytes.len());
            let mut bytes = bytes.get(offset..end).unwrap_or_default().to_vec();
            bytes.resize(parsed.tail() - offset, 0);
            Unsynced {
                offset: offset as u64,
                bytes,
            }
        });
        Ok(None)
    }

    /// Reads no more of the segment than is in use.
    fn parse(&self, head: usize, op: &'static str) -> Result<Option<(Vec<u8>, Parsed)>> {
        let head = &self.heads[head];
        let mut len = WINDOW as u64 / 4;
        loop {
            let bytes = head.file.read(0, len.min(head.len()), op)?;
            let whole = len >= head.len().min(head.file.size);
            match scan::parse(&bytes, self.seed()) {
                Some(parsed) if !whole && scan::is_cut(&bytes, &parsed) => len *= 8,
                parsed => return Ok(parsed.map(|parsed| (bytes, parsed))),
            }
        }
    }

    /// Takes over what stands in one use.
    fn take(&mut self, head: usize, bytes: &[u8], parsed: &Parsed) {
        self.chain.push(Use {
            number: self.heads[head].file.number,
            first: parsed.first(),
            last: parsed.last(),
        });
        let wanted = parsed.frames.iter().filter(|f| f.seq > self.released);
        self.frames.extend(wanted.map(|f| Standing {
            kind: f.kind,
            seq: f.seq,
            transaction: f.transaction,
            fence: f.fence,
            payload: bytes[f.payload.clone()].to_vec(),
        }));
        self.last = parsed.last();
        self.durable = self.durable.max(parsed.durable);
        self.epoch = parsed.run.epoch;
        self.end = parsed.end as u64;
        self.tail = parsed.tail() as u64;
    }

    /// The damage of a chain that breaks off after `reached`, before the use in `next`.
    fn broken(&mut self, next: usize, reached: u64, durable: u64) -> Damage {
        self.last = self.last.max(self.released);
        let next = self.heads[next].file.number;
        let unread = |h: &&Head| self.is_mine(h) && h.begin.is_none();
        let unread = || self.heads.iter().filter(unread);
        let (kind, segment, offset) = match self.chain.last() {
            Some(u) => (DamageKind::Frame, u.number, self.end),
            // Where the first frame should be: most likely what does not begin with one, else a
            // missing file.
            None => match unread().find(|h| !h.blank).or(unread().next()) {
                Some(head) => (DamageKind::Frame, head.file.number, START as u64),
                None => (DamageKind::Missing, next.saturating_sub(1), 0),
            },
        };
        Damage {
            kind,
            segment,
            offset,
            expected: reached + 1,
            durable,
        }
    }

    /// Whether any frame anywhere proves that more was durable than stands.
    ///
    /// After a clean end, segments outside the chain are searched only if their first frame is
    /// damaged: then one of them may be what follows.
    ///
    /// A log without a frame in which there is nothing else either is a new one: as good as closed.
    fn look_for_proof(&mut self, op: &'static str) -> Result<Option<Damage>> {
        let (mut best, mut blank) = (self.beyond, true);
        for head in self.heads.iter().filter(|h| self.is_mine(h)) {
            let in_chain = self.chain.iter().any(|u| u.number == head.file.number);
            let suspect = head.begin.is_none() && !head.blank;
            if in_chain || (self.clean && !suspect) {
                continue;
            }
            let above = best.unwrap_or(self.last);
            let rest = head.look_through(START, above, op)?;
            blank &= rest.blank;
            if rest.suspect {
                best = scan::proof(&head.bytes(op)?, START, self.seed(), above).or(best);
            }
        }
        self.clean |= self.chain.is_empty() && blank;
        Ok(best.map(|durable| {
            let (segment, offset) = match (self.chain.last(), self.heads.first()) {
                (Some(u), _) => (u.number, self.end),
                (None, Some(head)) => (head.file.number, START as u64),
                (None, None) => (0, 0),
            };
            Damage {
                kind: DamageKind::Frame,
                segment,
                offset,
                expected: self.last + 1,
                durable,
            }
        }))
    }

    /// A segment of no log that can stand here, or one behind the log that has replaced its own.
    ///
    /// Whoever passed over it would give the next segment a number behind it, and leave a gap.
    fn stranger(&self) -> Option<Damage> {
        let first = self.heads.iter().find(|h| self.is_mine(h))?.file.number;
        let odd = |h: &&Head| match self.superseded.contains(&h.file.number) {
            true => h.file.number > first,
            false => !self.is_mine(h),
        };
        let head = self.heads.iter().find(odd)?;
        Some(self.damage(DamageKind::Foreign, head.file.number, 0))
    }

    /// What is wrong with the files themselves.
    fn file_damage(&self) -> Option<Damage> {
        let mut before: Option<u64> = None;
        for head in self.heads.iter().filter(|h| self.is_mine(h)) {
            let number = head.file.number;
            if let Some(before) = before
                && number > before + 1
            {
                return Some(self.damage(DamageKind::Missing, before + 1, 0));
            }
            before = Some(number);
            match head.header {
                Err(()) => return Some(self.damage(DamageKind::Header, number, 0)),
                Ok(header) if header.len != head.file.size => {
                    return Some(self.damage(DamageKind::Length, number, head.file.size));
                }
                Ok(_) => {}
            }
        }
        None
    }

    fn damage(&self, kind: DamageKind, segment: u64, offset: u64) -> Damage {
        Damage {
            kind,
            segment,
            offset,
            expected: self.last + 1,
            durable: 0,
        }
    }
}
