//! Logs written from the description of their format (`docs/journal-format.md`), not by the library.

/// What a disk writes whole.
pub const BLOCK: usize = 512;
const HEADER: usize = 64;
/// First bytes of a frame.
const MAGIC: [u8; 4] = [0xf5, b'S', b'F', 1];

const RELEASE: u16 = 2;
const CLOSE: u16 = 3;

/// A record of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub kind: u16,
    pub transaction: u64,
    pub fence: u64,
    pub payload: Vec<u8>,
}

/// A log under construction.
#[derive(Clone, Debug)]
pub struct Log {
    id: [u8; 16],
    /// The segments' numbers and bytes, in the order of their first use.
    pub segments: Vec<(u64, Vec<u8>)>,
    /// Where the next group begins in the last one.
    at: usize,
    seq: u64,
    epoch: u64,
    nonce: u64,
    durable: u64,
    released: u64,
    records: Vec<Record>,
    /// Nothing was written after a close.
    pub closed: bool,
}

/// A frame whose number and checksum are filled in by [`Log::group`].
struct Frame {
    kind: u16,
    begin: bool,
    transaction: u64,
    fence: u64,
    payload: Vec<u8>,
}

impl Log {
    /// One segment of this length with the beginning of a run.
    pub fn new(id: [u8; 16], len: usize) -> Self {
        let mut log = Self {
            id,
            segments: Vec::new(),
            at: 0,
            seq: 1,
            epoch: 0,
            nonce: 0x0101_0101_0101_0101,
            durable: 0,
            released: 0,
            records: Vec::new(),
            closed: false,
        };
        log.segment(len);
        log
    }

    /// The header of a segment.
    pub fn header(id: [u8; 16], number: u64, len: u64, replaces: [u8; 16]) -> Vec<u8> {
        let mut out = vec![0; BLOCK];
        out[..8].copy_from_slice(b"sflog\r\n\x1a");
        out[8..12].copy_from_slice(&1_u32.to_le_bytes());
        out[12..16].copy_from_slice(&512_u32.to_le_bytes());
        out[16..32].copy_from_slice(&id);
        out[32..40].copy_from_slice(&number.to_le_bytes());
        out[40..48].copy_from_slice(&len.to_le_bytes());
        out[48..64].copy_from_slice(&replaces);
        let crc = crc32c::crc32c(&out[..508]);
        out[508..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// A further segment, with a new run.
    pub fn segment(&mut self, len: usize) {
        let number = self.segments.len() as u64 + 1;
        let mut bytes = Self::header(self.id, number, len as u64, [0; 16]);
        bytes.resize(len, 0);
        self.segments.push((number, bytes));
        self.at = BLOCK;
        self.run();
    }

    /// A new run in the last segment, if there is room; as of a new writer.
    pub fn run(&mut self) {
        self.epoch += 1;
        self.nonce = self.nonce.wrapping_mul(3);
        let released = self.released;
        self.group(vec![Frame {
            kind: RELEASE,
            begin: true,
            transaction: 0,
            fence: 0,
            payload: released.to_le_bytes().to_vec(),
        }]);
    }

    /// Records in one group, if there is room for them. Each: kind, transaction, fence, payload.
    pub fn append(&mut self, records: Vec<(u16, u64, u64, Vec<u8>)>) -> bool {
        let frames = records
            .into_iter()
            .map(|(kind, transaction, fence, payload)| Frame {
                kind,
                begin: false,
                transaction,
                fence,
                payload,
            });
        self.group(frames.collect())
    }

    /// Everything up to this number is released.
    pub fn release(&mut self, seq: u64) {
        let seq = seq.min(self.seq - 1).max(self.released);
        if seq > 0
            && self.group(vec![Frame {
                kind: RELEASE,
                begin: false,
                transaction: 0,
                fence: 0,
                payload: seq.to_le_bytes().to_vec(),
            }])
        {
            self.released = seq;
        }
    }

    /// The writer closes it.
    pub fn close(&mut self) {
        self.closed |= self.group(vec![Frame {
            kind: CLOSE,
            begin: false,
            transaction: 0,
            fence: 0,
            payload: Vec::new(),
        }]);
    }

    /// The last number that was given.
    pub fn last(&self) -> u64 {
        self.seq - 1
    }

    /// The records that stand and are not released.
    pub fn standing(&self) -> Vec<Record> {
        let standing = self.records.iter().filter(|r| r.seq > self.released);
        standing.cloned().collect()
    }

    fn group(&mut self, frames: Vec<Frame>) -> bool {
        let room = |f: &Frame| (HEADER + f.payload.len()).next_multiple_of(8);
        let size: usize = frames.iter().map(room).sum();
        let end = self.at + size.next_multiple_of(BLOCK);
        let Some((_, segment)) = self.segments.last_mut() else {
            return false;
        };
        if frames.is_empty() || end > segment.len() {
            return false;
        }
        let mut at = self.at;
        for frame in frames {
            let out = &mut segment[at..];
            let len = HEADER + frame.payload.len();
            out[..4].copy_from_slice(&MAGIC);
            out[8..12].copy_from_slice(&(len as u32).to_le_bytes());
            out[12..14].copy_from_slice(&frame.kind.to_le_bytes());
            out[14..16].copy_from_slice(&u16::from(frame.begin).to_le_bytes());
            out[16..24].copy_from_slice(&self.seq.to_le_bytes());
            out[24..32].copy_from_slice(&self.epoch.to_le_bytes());
            out[32..40].copy_from_slice(&self.durable.to_le_bytes());
            out[40..48].copy_from_slice(&frame.transaction.to_le_bytes());
            out[48..56].copy_from_slice(&frame.fence.to_le_bytes());
            out[56..64].copy_from_slice(&self.nonce.to_le_bytes());
            out[64..len].copy_from_slice(&frame.payload);
            at += len.next_multiple_of(8);
            if frame.kind >= 16 {
                self.records.push(Record {
                    seq: self.seq,
                    kind: frame.kind,
                    transaction: frame.transaction,
                    fence: frame.fence,
                    payload: frame.payload,
                });
            }
            self.seq += 1;
        }
        self.at = end;
        // Groups are synced one by one.
        self.durable = self.seq - 1;
        self.closed = false;
        mend(segment);
        true
    }
}

/// Puts the right checksums into a segment that was changed: of the header, and of whatever has the first
/// bytes of a frame and a length that is possible.
pub fn mend(segment: &mut [u8]) {
    if segment.len() < BLOCK {
        return;
    }
    let crc = crc32c::crc32c(&segment[..508]);
    segment[508..512].copy_from_slice(&crc.to_le_bytes());
    let seed = crc32c::crc32c(&segment[16..32]);
    let mut at = BLOCK;
    while at + HEADER <= segment.len() {
        let len = |b: &[u8]| u32::from_le_bytes([b[8], b[9], b[10], b[11]]) as usize;
        if segment[at..at + 4] == MAGIC
            && let len = len(&segment[at..])
            && (HEADER..=segment.len() - at).contains(&len)
        {
            let crc = crc32c::crc32c_append(seed, &segment[at + 8..at + len]);
            segment[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
            at += len.next_multiple_of(8);
        } else {
            at += 8;
        }
    }
}
