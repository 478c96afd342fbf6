//! What a lease file holds, byte by byte: `docs/lease-format.md`.
//!
//! Two slots, each with a number, who got it and how. A number's slot is its parity, so that the
//! newest number is never written over by the next one, and a holder that is late writes over its
//! own record only.

use super::name::MAX_NAME;

/// Distance of the slots: a page, which no client of a network file system writes back in part by
/// mistake.
const STRIDE: usize = 4096;
/// Length of a record.
pub(super) const RECORD: usize = 512;
/// Length of the file.
pub(super) const FILE: usize = 2 * STRIDE;

/// The highest number of a file that nobody has held yet.
pub(super) const FIRST: u64 = 1;
/// Numbers are below this: those that the log's frames have room for.
const LIMIT: u64 = 1 << 62;

/// The longest label in bytes.
pub const MAX_LABEL: usize = 256;

const MAGIC: &[u8; 8] = b"sflse\r\n\x1a";
const VERSION: u32 = 1;
const NO_NAMESPACE: u64 = u64::MAX;

/// How a number is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// By nobody, ever.
    #[default]
    Never,
    /// As long as the kernel's lock is.
    Kernel,
    /// Until its time is up.
    Ttl,
    /// It was given back before its time was up.
    Released,
}

/// One number, who got it and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fence: u64,
    /// One more with each writing of this number.
    pub(super) renewals: u64,
    pub(super) state: State,
    pub(super) pid: u32,
    /// Whose clock `expiry` is on; `None` if its holder could not tell.
    pub(super) boot: Option<[u8; 16]>,
    pub(super) namespace: Option<u64>,
    /// Nanoseconds.
    pub(super) ttl: u64,
    /// Nanoseconds on the holder's clock.
    pub(super) expiry: u64,
    /// Seconds since 1970, for people.
    pub(super) since: u64,
    /// Drawn by the holder, so that it knows its record from somebody else's with the same number.
    pub(super) token: [u8; 16],
    pub(super) label: Vec<u8>,
}

/// Why there is no record in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Damaged, or written in part.
    Damaged,
    /// Whole, of a version that is not known.
    Version(u32),
}

impl Record {
    /// The number's slot.
    pub(super) fn offset(&self) -> u64 {
        (self.fence % 2) * STRIDE as u64
    }

    /// The same number, given back.
    pub(super) fn released(&self) -> Self {
        Self {
            state: State::Released,
            renewals: self.renewals.wrapping_add(1),
            ..self.clone()
        }
    }

    /// The bytes of the record, for the lease `name`.
    pub(super) fn encode(&self, name: &[u8]) -> [u8; RECORD] {
        let mut out = Vec::with_capacity(RECORD);
        let state: u32 = match self.state {
            State::Never => 0,
            State::Kernel => 1,
            State::Ttl => 2,
            State::Released => 3,
        };
        out.extend_from_slice(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(state.to_le_bytes());
        out.extend(self.fence.to_le_bytes());
        out.extend(self.renewals.to_le_bytes());
        out.extend(self.boot.unwrap_or_default());
        out.extend(self.namespace.unwrap_or(NO_NAMESPACE).to_le_bytes());
        out.extend(self.ttl.to_le_bytes());
        out.extend(self.expiry.to_le_bytes());
        out.extend(self.since.to_le_bytes());
        out.extend(self.token);
        out.extend(self.pid.to_le_bytes());
        out.extend(length(&self.label).to_le_bytes());
        out.extend(length(name).to_le_bytes());
        out.extend_from_slice(&self.label);
        out.resize(NAME, 0);
        out.extend_from_slice(name);
        let mut bytes = [0; RECORD];
        for (to, from) in bytes.iter_mut().zip(out) {
            *to = from;
        }
        let crc = crc32c::crc32c(&bytes[..CRC]);
        bytes[CRC..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The record in these bytes, of the lease `name`.
    pub(super) fn decode(bytes: &[u8], name: &[u8]) -> Result<Self, Bad> {
        let (body, crc) = bytes.split_at_checked(CRC).ok_or(Bad::Damaged)?;
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return Err(Bad::Damaged);
        }
        let mut at = Fields(body);
        if at.take::<8>()? != *MAGIC {
            return Err(Bad::Damaged);
        }
        let version = at.u32()?;
        if version != VERSION {
            return Err(Bad::Version(version));
        }
        let state = match at.u32()? {
            0 => State::Never,
            1 => State::Kernel,
            2 => State::Ttl,
            3 => State::Released,
            _ => return Err(Bad::Damaged),
        };
        let mut record = Self {
            state,
            fence: at.u64()?,
            renewals: at.u64()?,
            boot: Some(at.take()?).filter(|id| *id != [0; 16]),
            namespace: Some(at.u64()?).filter(|n| *n != NO_NAMESPACE),
            ttl: at.u64()?,
            expiry: at.u64()?,
            since: at.u64()?,
            token: at.take()?,
            pid: at.u32()?,
            label: Vec::new(),
        };
        let (label, named) = (at.u32()? as usize, at.u32()? as usize);
        let label = at.0.get(..label).filter(|l| l.len() <= MAX_LABEL);
        record.label = label.ok_or(Bad::Damaged)?.to_vec();
        let whose = body.get(NAME..).and_then(|b| b.get(..named));
        if whose != Some(name) || record.fence >= LIMIT {
            return Err(Bad::Damaged);
        }
        Ok(record)
    }
}

/// Where the lease's name is, and the checksum.
const NAME: usize = 112 + MAX_LABEL;
const CRC: usize = RECORD - 4;
const _: () = assert!(NAME + MAX_NAME <= CRC);

/// The length of a label or name, which are short.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Numbers one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (now, rest) = self.0.split_first_chunk().ok_or(Bad::Damaged)?;
        self.0 = rest;
        Ok(*now)
    }

    fn u32(&mut self) -> Result<u32, Bad> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Bad> {
        self.take().map(u64::from_le_bytes)
    }
}

/// What a whole file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The record of the highest number that can be read.
    pub(super) newest: Record,
    /// The other slot holds no record: it may have been that of the next number. A checksum of what
    /// is there.
    pub(super) lost: Option<u32>,
}

impl Content {
    /// Of a file that nobody has held yet.
    pub(super) fn first(name: &[u8]) -> Vec<u8> {
        let mut file = vec![0; FILE];
        for fence in [FIRST - 1, FIRST] {
            let record = Record {
                fence,
                ..Record::default()
            };
            let at = record.offset() as usize;
            file[at..at + RECORD].copy_from_slice(&record.encode(name));
        }
        file
    }

    pub(super) fn parse(file: &[u8], name: &[u8]) -> Result<Self, Bad> {
        let slot = |slot: u64| {
            let at = slot as usize * STRIDE;
            let bytes = file.get(at..at + RECORD).unwrap_or_default();
            match Record::decode(bytes, name) {
                Ok(record) if record.fence % 2 == slot => Ok(record),
                Err(e @ Bad::Version(_)) => Err((e, 0)),
                _ => Err((Bad::Damaged, crc32c::crc32c(bytes))),
            }
        };
        match (slot(0), slot(1)) {
            // A later version may count on.
            (Err((e @ Bad::Version(_), _)), _) | (_, Err((e @ Bad::Version(_), _))) => Err(e),
            (Ok(a), Ok(b)) => Ok(Self {
                newest: if a.fence > b.fence { a } else { b },
                lost: None,
            }),
            (Ok(newest), Err((_, crc))) | (Err((_, crc)), Ok(newest)) => Ok(Self {
                newest,
                lost: Some(crc),
            }),
            (Err((e, _)), Err(_)) => Err(e),
        }
    }

    /// The highest number that anybody can have. A slot that cannot be read held at most the one
    /// after the newest: numbers are given one by one, and the one before is durable then.
    pub(super) fn highest(&self) -> u64 {
        self.newest.fence + u64::from(self.lost.is_some())
    }

    /// The number after the highest; `None` when they are used up.
    pub(super) fn next(&self) -> Option<u64> {
        Some(self.highest() + 1).filter(|n| *n < LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fence: u64) -> Record {
        Record {
            fence,
            renewals: 7,
            state: State::Ttl,
            pid: 42,
            boot: Some([9; 16]),
            namespace: Some(5),
            ttl: 1,
            expiry: 2,
            since: 3,
            token: [8; 16],
            label: vec![b'l'; MAX_LABEL],
        }
    }

    #[test]
    fn a_record_comes_back_and_no_flipped_bit_does() {
        let name = [0xff; MAX_NAME];
        let bytes = record(10).encode(&name);
        assert_eq!(Record::decode(&bytes, &name), Ok(record(10)));
        assert_eq!(Record::decode(&bytes, b"other"), Err(Bad::Damaged));
        for bit in 0..RECORD * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bad, &name), Err(Bad::Damaged), "{bit}");
        }
        for len in 0..RECORD {
            assert_eq!(Record::decode(&bytes[..len], &name), Err(Bad::Damaged));
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut bytes = record(10).encode(b"a");
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC]);
        bytes[CRC..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Record::decode(&bytes, b"a"), Err(Bad::Version(2)));
        let mut file = Content::first(b"a");
        file[..RECORD].copy_from_slice(&bytes);
        assert_eq!(Content::parse(&file, b"a"), Err(Bad::Version(2)));
    }

    #[test]
    fn no_loss_of_one_slot_gives_a_number_twice() {
        let mut file = Content::first(b"a");
        assert_eq!(Content::parse(&file, b"a").unwrap().highest(), FIRST);
        for fence in 2..20 {
            let record = record(fence);
            let at = record.offset() as usize;
            file[at..at + RECORD].copy_from_slice(&record.encode(b"a"));
            assert_eq!(Content::parse(&file, b"a").unwrap().newest, record);
            for slot in 0..2 {
                let mut torn = file.clone();
                torn[slot * STRIDE + 100..][..8].fill(0xaa);
                let found = Content::parse(&torn, b"a").unwrap();
                assert!(found.next().unwrap() > fence && found.lost.is_some());
            }
            let mut gone = file.clone();
            gone.truncate(100);
            assert_eq!(Content::parse(&gone, b"a"), Err(Bad::Damaged));
        }
    }
}
