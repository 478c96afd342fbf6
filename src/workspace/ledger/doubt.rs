//! Doubt: a sync of the whole file system has failed, in this boot and on this mount.
//!
//! The kernel tells each open file once, and counts what it could not write as written. So a sync that
//! succeeds later proves nothing, whoever calls it, until the file system has been mounted anew: then what
//! is on the disk is what is read, and recovery makes good what is missing, from logs that nobody has
//! released.

use super::{COUNTER, Ledger};
use crate::Result;
use crate::workspace::incarnation::Incarnation;

/// In the counter's block.
const DOUBT: u64 = COUNTER + 1024;
/// Boot, mount, and a CRC-32C of both: after a power cut there may be anything.
const LEN: usize = 28;

fn encode(now: Incarnation) -> [u8; LEN] {
    let mut out = [0; LEN];
    out[..16].copy_from_slice(&now.boot.unwrap_or_default());
    out[16..24].copy_from_slice(&now.mount.unwrap_or_default().to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..].copy_from_slice(&crc.to_le_bytes());
    out
}

impl Ledger {
    /// Whether a sync has failed on this mount. Where neither boot nor mount is known, any failure counts
    /// until the ledger is made anew.
    pub(crate) fn is_in_doubt(&self, now: Incarnation) -> Result<bool> {
        let mut found = [0; LEN];
        self.read(DOUBT, &mut found)?;
        Ok(found == encode(now))
    }

    /// Says so to all processes.
    pub(crate) fn doubt(&self, now: Incarnation) -> Result<()> {
        self.write(DOUBT, &encode(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_about_one_mount_of_one_boot() {
        let one = Incarnation {
            boot: Some([1; 16]),
            mount: Some(7),
        };
        assert_ne!(encode(one), [0; LEN]);
        assert_ne!(encode(Incarnation::default()), [0; LEN]);
        for other in [
            Incarnation {
                boot: Some([2; 16]),
                ..one
            },
            Incarnation {
                mount: Some(8),
                ..one
            },
        ] {
            assert_ne!(encode(one), encode(other));
        }
    }
}
