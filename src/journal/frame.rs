//! Frames as bytes: encoding, checking, finding. No I/O, and no panic on any bytes.
//!
//! The layout is written down in `docs/journal-format.md`.

use crate::sys;

/// Groups, and the segment header, begin at multiples of this: what a disk writes whole or not at all.
pub(super) const BLOCK: usize = 512;
/// Length of a frame's header.
pub(super) const HEADER: usize = 64;
/// Frames within a group begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Where in its header a frame says what was durable.
pub(super) const DURABLE: usize = 32;
/// First bytes of a frame: not a number that text or zeros hold.
const MAGIC: u32 = u32::from_le_bytes([0xf5, b'S', b'F', 0x01]);

/// The log's own kind: everything up to the number in the payload is finished.
pub(super) const KIND_RELEASE: u16 = 2;
/// The log's own kind: the writer closed the log.
pub(super) const KIND_CLOSE: u16 = 3;
/// Kinds from here on are the caller's.
pub(super) const FIRST_KIND: u16 = 16;
/// On a release frame: the first frame of a run.
const FLAG_BEGIN: u16 = 1;

/// Length of a release frame, which is also how each run begins.
pub(super) const RELEASE_LEN: usize = HEADER + 8;

/// Sequence numbers, epochs and numbers of segments stay below this, so that no sum of theirs overflows.
pub(super) const NUMBER_LIMIT: u64 = 1 << 62;

/// The random number that all segments of one log carry, and that seeds every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogId(pub(super) [u8; 16]);

impl LogId {
    pub(super) const NONE: Self = Self([0; 16]);

    pub(super) fn random() -> sys::Result<Self> {
        let mut id = [0; 16];
        sys::random(&mut id)?;
        // All zeros means "none".
        id[0] |= 1;
        Ok(Self(id))
    }

    pub(super) fn seed(self) -> Seed {
        Seed(crc32c::crc32c(&self.0))
    }
}

/// The checksum of a log's id: where the checksum of each of its frames starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

/// One run of frames: which one in order, and the random number of the writer that made it.
///
/// The epoch orders runs. The nonce tells apart two runs of one epoch, of which the first was lost with its
/// writer before anybody had seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) epoch: u64,
    pub(super) nonce: u64,
}

/// A frame that was read and found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) begin: bool,
    pub(super) seq: u64,
    pub(super) run: Run,
    pub(super) durable: u64,
    pub(super) transaction: u64,
    pub(super) fence: u64,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes that the frame takes in its group.
    pub(super) fn room(&self) -> usize {
        room(self.payload.len())
    }

    /// What a release frame releases; 0 for all others.
    pub(super) fn released(&self) -> u64 {
        match self.kind {
            KIND_RELEASE => le64(self.payload, 0).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Bytes that a frame with this payload takes in its group.
pub(super) fn room(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(ALIGN)
}

/// The next block boundary at or after `offset`.
pub(super) fn next_block(offset: usize) -> usize {
    offset.next_multiple_of(BLOCK)
}

/// What a frame says, before it is known in which run it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) kind: u16,
    pub(super) transaction: u64,
    pub(super) fence: u64,
    pub(super) payload: Payload<'a>,
}

/// A payload: these bytes, and then those of the others, which so need not be copied together before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload<'a> {
    pub(super) first: &'a [u8],
    pub(super) others: &'a [&'a [u8]],
}

impl<'a> Payload<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            first: bytes,
            others: &[],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.others.iter().map(|part| part.len()).sum::<usize>()
    }
}

/// The content of a release frame.
pub(super) fn release(payload: &[u8; 8]) -> Content<'_> {
    Content {
        kind: KIND_RELEASE,
        transaction: 0,
        fence: 0,
        payload: Payload::new(payload),
    }
}

/// Appends a frame with all but what [`seal`] fills in.
pub(super) fn push(to: &mut Vec<u8>, seq: u64, begin: bool, content: Content<'_>) {
    let len = HEADER + content.payload.len();
    let end = to.len() + len.next_multiple_of(ALIGN);
    to.reserve(end - to.len());
    to.extend_from_slice(&MAGIC.to_le_bytes());
    to.extend_from_slice(&[0; 4]);
    // A frame is no longer than a segment, which is limited to 1 GiB.
    to.extend_from_slice(&(len as u32).to_le_bytes());
    to.extend_from_slice(&content.kind.to_le_bytes());
    to.extend_from_slice(&(if begin { FLAG_BEGIN } else { 0 }).to_le_bytes());
    to.extend_from_slice(&seq.to_le_bytes());
    to.extend_from_slice(&[0; 16]);
    to.extend_from_slice(&content.transaction.to_le_bytes());
    to.extend_from_slice(&content.fence.to_le_bytes());
    to.extend_from_slice(&[0; 8]);
    to.extend_from_slice(content.payload.first);
    for part in content.payload.others {
        to.extend_from_slice(part);
    }
    to.resize(end, 0);
}

/// Fills in run, durable number and checksum of all frames in `group`, which [`push`] has put
/// there, and pads it with zeros to whole blocks.
pub(super) fn seal(group: &mut Vec<u8>, seed: Seed, run: Run, durable: u64) {
    let mut at = 0;
    while let Some(len) = le32(group, at + 8) {
        let len = len as usize;
        let Some(frame) = group.get_mut(at..at + len).filter(|_| len >= HEADER) else {
            break;
        };
        frame[24..32].copy_from_slice(&run.epoch.to_le_bytes());
        frame[32..40].copy_from_slice(&durable.to_le_bytes());
        frame[56..64].copy_from_slice(&run.nonce.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.0, &frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        at += len.next_multiple_of(ALIGN);
    }
    group.resize(next_block(group.len()), 0);
}

/// The frame at the start of `bytes`, if one stands there whole and makes sense.
pub(super) fn decode(bytes: &[u8], seed: Seed) -> Option<Frame<'_>> {
    if le32(bytes, 0)? != MAGIC {
        return None;
    }
    let len = le32(bytes, 8)? as usize;
    let frame = bytes.get(..len).filter(|_| len >= HEADER)?;
    if le32(frame, 4)? != crc32c::crc32c_append(seed.0, &frame[8..]) {
        return None;
    }
    let flags = le16(frame, 14)?;
    let decoded = Frame {
        kind: le16(frame, 12)?,
        begin: flags == FLAG_BEGIN,
        seq: le64(frame, 16)?,
        run: Run {
            epoch: le64(frame, 24)?,
            nonce: le64(frame, 56)?,
        },
        durable: le64(frame, DURABLE)?,
        transaction: le64(frame, 40)?,
        fence: le64(frame, 48)?,
        payload: &frame[HEADER..],
    };
    let numbers = decoded.durable < decoded.seq
        && decoded.seq < NUMBER_LIMIT
        && decoded.run.epoch < NUMBER_LIMIT;
    let known = match decoded.kind {
        KIND_RELEASE => {
            flags <= FLAG_BEGIN
                && decoded.payload.len() == 8
                // A repaired log begins with the number that it says is released.
                && (decoded.released() < decoded.seq || decoded.begin)
                && decoded.released() <= decoded.seq
        }
        KIND_CLOSE => flags == 0 && decoded.payload.is_empty(),
        kind => flags == 0 && kind >= FIRST_KIND,
    };
    (numbers && known).then_some(decoded)
}

/// The first whole frame at or after `from` whose writer knew more than `durable` to be synced.
pub(super) fn find(
    bytes: &[u8],
    from: usize,
    seed: Seed,
    durable: Option<u64>,
) -> Option<(usize, Frame<'_>)> {
    let first = from.next_multiple_of(ALIGN);
    let magic = MAGIC.to_le_bytes();
    for (n, word) in bytes.get(first..)?.chunks_exact(ALIGN).enumerate() {
        if word[..4] != magic {
            continue;
        }
        let at = first + n * ALIGN;
        // The checksum only where the answer matters.
        if durable.is_some_and(|d| le64(bytes, at + DURABLE).is_none_or(|found| found <= d)) {
            continue;
        }
        if let Some(frame) = decode(&bytes[at..], seed) {
            return Some((at, frame));
        }
    }
    None
}

/// Whether [`find`] may find a frame in these bytes, of which the last 32 are not looked at for a beginning:
/// as it, but without the checksum.
pub(super) fn may_hold(bytes: &[u8], durable: u64) -> bool {
    let magic = |word: &[u8]| le32(word, 0) == Some(MAGIC);
    bytes.chunks(BLOCK).enumerate().any(|(n, block)| {
        // All of a block at once: nearly none has any.
        let any = block
            .chunks_exact(ALIGN)
            .fold(false, |any, word| any | magic(word));
        any && (block.chunks_exact(ALIGN).enumerate())
            .filter(|(_, word)| magic(word))
            .any(|(m, _)| {
                let at = n * BLOCK + m * ALIGN;
                le64(bytes, at + DURABLE).is_some_and(|found| found > durable)
            })
    })
}

/// Whether the frame that begins here, if one does, goes on behind these bytes.
pub(super) fn is_cut(bytes: &[u8], at: usize) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    match le32(rest, 0) {
        Some(MAGIC) => le32(rest, 8).is_none_or(|len| len as usize > rest.len()),
        Some(_) => false,
        None => true,
    }
}

pub(super) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: Seed = Seed(0x1234_5678);
    const RUN: Run = Run { epoch: 3, nonce: 9 };

    fn group(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (seq, payload) in (7..).zip(payloads) {
            let content = Content {
                kind: FIRST_KIND,
                transaction: seq + 1,
                fence: u64::MAX,
                payload: Payload::new(payload),
            };
            push(&mut out, seq, false, content);
        }
        seal(&mut out, SEED, RUN, 6);
        out
    }

    /// The layout is what older versions left on disks, so it is fixed here by value.
    #[test]
    fn the_form_is_fixed() {
        let bytes = group(&[b"abc".to_vec()]);
        assert_eq!(bytes.len(), BLOCK);
        let mut want = vec![0xf5, b'S', b'F', 1, 0, 0, 0, 0, 67, 0, 0, 0, 16, 0, 0, 0];
        for number in [7, 3, 6, 8, u64::MAX, 9] {
            want.extend(u64::to_le_bytes(number));
        }
        want.extend(b"abc");
        let crc = crc32c::crc32c_append(0x1234_5678, &want[8..]);
        want[4..8].copy_from_slice(&crc.to_le_bytes());
        want.resize(BLOCK, 0);
        assert_eq!(bytes, want);
        assert_eq!(
            LogId(*b"0123456789abcdef").seed().0,
            crc32c::crc32c(b"0123456789abcdef")
        );
    }

    #[test]
    fn only_what_makes_sense_is_a_frame() {
        let frame = |kind, flags: u16, seq, payload: &[u8], durable| {
            let mut out = Vec::new();
            let content = Content {
                kind,
                transaction: 0,
                fence: 0,
                payload: Payload::new(payload),
            };
            push(&mut out, seq, false, content);
            out[14..16].copy_from_slice(&flags.to_le_bytes());
            seal(&mut out, SEED, RUN, durable);
            decode(&out, SEED).is_some()
        };
        let eight = 4_u64.to_le_bytes();
        assert!(frame(16, 0, 1, b"", 0) && frame(u16::MAX, 0, 5, b"x", 4));
        assert!(frame(KIND_RELEASE, 0, 5, &eight, 0) && frame(KIND_CLOSE, 0, 1, b"", 0));
        assert!(frame(KIND_RELEASE, 1, 4, &eight, 3));
        for (kind, flags, seq, payload, durable) in [
            (0, 0, 1, &b""[..], 0),
            (1, 0, 1, b"", 0),
            (15, 0, 1, b"", 0),
            (16, 1, 1, b"", 0),
            (16, 2, 1, b"", 0),
            (16, 0, 0, b"", 0),
            (16, 0, 5, b"", 5),
            (16, 0, NUMBER_LIMIT, b"", 0),
            (KIND_RELEASE, 0, 9, b"1234567", 0),
            (KIND_RELEASE, 0, 4, &eight, 3),
            (KIND_RELEASE, 1, 3, &eight, 2),
            (KIND_CLOSE, 0, 9, b"x", 0),
        ] {
            assert!(
                !frame(kind, flags, seq, payload, durable),
                "{kind} {flags} {seq}"
            );
        }
    }

    /// With a checksum that is right for what is there.
    #[test]
    fn neither_length_nor_numbers_can_overflow() {
        let whole = group(&[b"abc".to_vec()]);
        let with = |at: usize, number: u64, len: u32| {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            bytes[8..12].copy_from_slice(&len.to_le_bytes());
            let end = (len as usize).clamp(8, bytes.len());
            let crc = crc32c::crc32c_append(SEED.0, &bytes[8..end]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            decode(&bytes, SEED).is_some()
        };
        assert!(with(24, NUMBER_LIMIT - 1, 67) && with(16, NUMBER_LIMIT - 1, 67));
        assert!(!with(24, NUMBER_LIMIT, 67) && !with(16, NUMBER_LIMIT, 67));
        for len in (0..HEADER as u32).chain([BLOCK as u32 + 1, u32::MAX]) {
            assert!(!with(16, 7, len), "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_found(payloads in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
            let bytes = group(&payloads);
            let (mut at, mut seq) = (0, 7);
            for payload in &payloads {
                let (found, frame) = find(&bytes, at, SEED, Some(5)).unwrap();
                prop_assert_eq!((found, frame.payload), (at, &payload[..]));
                prop_assert_eq!((frame.seq, frame.run, frame.durable), (seq, RUN, 6));
                at += frame.room();
                seq += 1;
            }
            prop_assert!(find(&bytes, 0, SEED, Some(6)).is_none());
            prop_assert!(find(&bytes, 0, Seed(1), None).is_none());
        }

        #[test]
        fn a_changed_bit_is_no_frame(payload in prop::collection::vec(any::<u8>(), 0..100),
            bit in any::<prop::sample::Index>()) {
            let mut bytes = group(&[payload]);
            let len = le32(&bytes, 8).unwrap() as usize;
            let bit = bit.index(len * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, SEED).is_none());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
            at in any::<prop::sample::Index>(), len in 0_u32..2100) {
            decode(&bytes, SEED);
            // With a beginning and a checksum that are right.
            let start = at.index(bytes.len() + 1) / 8 * 8;
            if let Some(frame) = bytes.get_mut(start..).filter(|b| b.len() >= HEADER) {
                frame[..4].copy_from_slice(&MAGIC.to_le_bytes());
                frame[8..12].copy_from_slice(&len.to_le_bytes());
                if let Some(whole) = frame.get_mut(..len as usize).filter(|w| w.len() >= 8) {
                    let crc = crc32c::crc32c_append(SEED.0, &whole[8..]);
                    whole[4..8].copy_from_slice(&crc.to_le_bytes());
                }
                decode(frame, SEED);
            }
            crate::journal::scan::parse(&bytes, SEED);
            crate::journal::scan::survivors(&bytes, 0, SEED);
            crate::journal::scan::proof(&bytes, 0, SEED, 0);
        }
    }
}
