//! Where logs were closed, in this boot and on this mount.
//!
//! Within it nothing is lost, so that a log that ends there is known to end there: it need not be looked
//! through for something that was durable behind its end. A help only; after a power cut it is of another
//! boot.

use super::{COUNTER, Ledger};
use crate::Result;
use crate::workspace::incarnation::Incarnation;

/// In the counter's block.
const CLOSED: u64 = COUNTER + 2048;
const NUMBER: u32 = 64;
const LEN: usize = 32;

/// Index (4), a CRC-32C (4), number of the last frame (8), boot (16). The checksum is over these, without
/// itself, and the mount. `None`: they are not known.
fn encode(index: u32, last: u64, now: Incarnation) -> Option<[u8; LEN]> {
    let (boot, mount) = (now.boot?, now.mount?);
    let mut out = [0; LEN];
    out[..4].copy_from_slice(&index.to_le_bytes());
    out[8..16].copy_from_slice(&last.to_le_bytes());
    out[16..].copy_from_slice(&boot);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &mount.to_le_bytes());
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    Some(out)
}

/// Logs whose indices are the same but for a multiple of 64 share a place.
fn offset(index: u32) -> u64 {
    CLOSED + u64::from(index % NUMBER) * LEN as u64
}

impl Ledger {
    /// The number at which a log was closed, if nobody has opened it since. One call.
    pub(crate) fn closed(&self, index: u32, now: Incarnation) -> Result<Option<u64>> {
        let mut found = [0; LEN];
        self.read(offset(index), &mut found)?;
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = found;
        let last = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Ok((encode(index, last, now) == Some(found)).then_some(last))
    }

    /// The caller has opened a log that was closed, and may write to it. One call.
    pub(crate) fn reopened(&self, index: u32) -> Result<()> {
        self.write(offset(index), &[0; LEN])
    }

    /// The caller has closed a log, which he still holds. One call.
    pub(crate) fn note_closed(&self, index: u32, last: u64, now: Incarnation) -> Result<()> {
        match encode(index, last, now) {
            Some(note) => self.write(offset(index), &note),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_about_one_log_in_one_mount_of_one_boot() {
        let now = Incarnation {
            boot: Some([1; 16]),
            mount: Some(7),
        };
        let one = encode(3, 9, now);
        assert!(one.is_some());
        let boot = Some([2; 16]);
        let mount = Some(8);
        for other in [
            encode(3 + NUMBER, 9, now),
            encode(3, 10, now),
            encode(3, 9, Incarnation { boot, ..now }),
            encode(3, 9, Incarnation { mount, ..now }),
        ] {
            assert!(other.is_some() && other != one);
        }
        let boot = None;
        assert_eq!(encode(3, 9, Incarnation { boot, ..now }), None);
        // All places lie in the counter's block.
        assert_eq!(offset(NUMBER - 1) + LEN as u64, super::super::MARKS);
    }
}
