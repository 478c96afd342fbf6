//! The file `format`: that this is a workspace, of which version, and whose folder it was written for.
//!
//! 64 bytes, numbers in little endian: magic (8), version (4), length of all this (4), id (16), inode number
//! (8), seconds (8) and nanoseconds (4, all ones: none is kept) of the birth time of the state folder, zeros
//! (8), CRC-32C of all before (4). Later versions keep magic, version, length, and the checksum at the end.

use super::identity::Stamp;
use crate::root::Dir;
use crate::sys::{self, Errno, Metadata, Mode, OFlags};
use crate::{Error, ErrorKind, Result};

const OP: &str = super::state::OP;
const FILE: &std::ffi::CStr = c"format";
const MAGIC: [u8; 8] = *b"sfspace\x1a";
pub(super) const VERSION: u32 = 1;
const LEN: usize = 64;
/// No later version is longer.
const MAX_LEN: usize = 4096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) id: [u8; 16],
    pub(crate) folder: FolderId,
}

/// What tells the state folder from a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FolderId {
    ino: u64,
    btime: Option<Stamp>,
}

impl FolderId {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let id = meta.id();
        Self {
            ino: id.ino,
            btime: id.btime,
        }
    }
}

impl Format {
    /// With a fresh id.
    pub(crate) fn fresh(folder: FolderId) -> Result<Self> {
        let mut id = [0; 16];
        sys::random(&mut id).map_err(|e| Error::new(OP, "getrandom", e))?;
        Ok(Self { id, folder })
    }

    pub(super) fn encode(&self) -> [u8; LEN] {
        let (seconds, nanos) = self.folder.btime.unwrap_or((0, u32::MAX));
        let mut out = [0; LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(LEN as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.id);
        out[32..40].copy_from_slice(&self.folder.ino.to_le_bytes());
        out[40..48].copy_from_slice(&seconds.to_le_bytes());
        out[48..52].copy_from_slice(&nanos.to_le_bytes());
        let crc = crc32c::crc32c(&out[..LEN - 4]);
        out[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).unwrap_or_else(|| {
            Err(Error::of_kind(OP, ErrorKind::Corrupt)
                .with_path("format")
                .with_advice("restore the file: it is written once and the same ever after"))
        })
    }

    /// `None`: damaged.
    fn parse(bytes: &[u8]) -> Option<Result<Self>> {
        let four = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let eight = |at: usize| Some(*bytes.get(at..)?.first_chunk::<8>()?);
        let (version, len) = (four(8)?, four(12)? as usize);
        let whole = bytes.starts_with(&MAGIC) && len == bytes.len() && len >= LEN;
        let end = bytes.len().checked_sub(4)?;
        if !whole || four(end)? != crc32c::crc32c(&bytes[..end]) {
            return None;
        }
        if version > VERSION {
            let error = Error::of_kind(OP, ErrorKind::Unsupported).with_path("format");
            return Some(Err(error.with_advice(format!(
                "the workspace has format {version}, of a later version of this library: use that"
            ))));
        }
        let nanos = four(48)?;
        let seconds = i64::from_le_bytes(eight(40)?);
        (version == VERSION && len == LEN).then_some(Ok(Self {
            id: *bytes.get(16..)?.first_chunk()?,
            folder: FolderId {
                ino: u64::from_le_bytes(eight(32)?),
                btime: (nanos != u32::MAX).then_some((seconds, nanos)),
            },
        }))
    }

    /// Reads it; `None` if there is none yet.
    pub(crate) fn read(dir: &Dir) -> Result<Option<Self>> {
        let fail = |call| move |e| Error::new(OP, call, e).with_path("format");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match sys::openat(dir, FILE, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            done => done.map_err(fail("openat"))?,
        };
        let mut bytes = [0; MAX_LEN];
        let len = sys::pread(&fd, &mut bytes, 0).map_err(fail("pread64"))?;
        Self::decode(bytes.get(..len).unwrap_or_default()).map(Some)
    }

    /// Writes it, and replaces the one before if there is one. The name is not synced.
    pub(crate) fn write(&self, dir: &Dir) -> Result<()> {
        super::setup::put(dir, FILE, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Format {
        Format {
            id: *b"0123456789abcdef",
            folder: FolderId {
                ino: 12,
                btime: Some((-5, 999_999_999)),
            },
        }
    }

    #[test]
    fn says_what_it_was_given() {
        for btime in [None, Some((0, 0)), Some((i64::MIN, 7))] {
            let mut format = example();
            format.folder.btime = btime;
            assert_eq!(Format::decode(&format.encode()).unwrap(), format);
        }
    }

    /// The form is what is on disks, so it is fixed here by value.
    #[test]
    fn the_form_is_fixed() {
        let bytes = example().encode();
        assert_eq!(&bytes[..16], b"sfspace\x1a\x01\0\0\0\x40\0\0\0");
        assert_eq!(&bytes[16..32], b"0123456789abcdef");
        assert_eq!(bytes[32..40], 12_u64.to_le_bytes());
        assert_eq!(bytes[40..48], (-5_i64).to_le_bytes());
        assert_eq!(bytes[48..52], 999_999_999_u32.to_le_bytes());
    }

    #[test]
    fn every_change_of_a_bit_is_damage() {
        let bytes = example().encode();
        for bit in 0..LEN * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            let error = Format::decode(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bit}");
        }
        for len in 0..LEN {
            assert!(Format::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_later_version_is_not_damage() {
        let mut bytes = example().encode().to_vec();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        bytes.splice(LEN - 4.., [9; 20]);
        let len = bytes.len() as u32 + 4;
        bytes[12..16].copy_from_slice(&len.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let error = Format::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.advice().unwrap().contains("format 2"));
    }
}
