//! getrandom(2).

use super::{Result, retry};
use rustix::rand::GetRandomFlags;

/// getrandom(2), Linux 3.17: fills `buf` with random bytes. One call for up to 256 bytes.
///
/// It waits only in the first moments after boot, until the kernel has gathered enough.
///
/// # Errors
/// `ENOSYS`: a kernel or a filter without it.
pub fn random(buf: &mut [u8]) -> Result<()> {
    #[cfg(feature = "_hook")]
    if super::hook::is_still() {
        return super::call("getrandom", || {
            for part in buf.chunks_mut(8) {
                let number = super::hook::drawn().unwrap_or_default().to_le_bytes();
                part.copy_from_slice(&number[..part.len()]);
            }
            Ok(())
        });
    }
    let mut done = 0;
    while done < buf.len() {
        done += retry("getrandom", || {
            rustix::rand::getrandom(&mut buf[done..], GetRandomFlags::empty())
        })?;
    }
    Ok(())
}
