//! The attributes that a caller can ask for.

use super::draft::AttrRequest;
use super::identity::Stamp;
use crate::sys::{Gid, Mode, Uid};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Mode, owner, times and extended attributes, as far as they are to be set. What is not said is as it
/// comes: that of the replaced file, or of a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Attributes(pub(super) AttrRequest);

impl Attributes {
    /// None of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Permission bits, set-user-id, set-group-id and sticky bit: exactly these, whatever the umask. If an
    /// access list is set as well (`system.posix_acl_access`), it has the permission bits: acl(5).
    pub fn mode(mut self, mode: Mode) -> Self {
        self.0.mode = Some(mode.bits() & 0o7777);
        self
    }

    /// The owner. Needs `CAP_CHOWN` for any but oneself. As with chown(2), a file that gets another owner or
    /// group loses set-user-id, and set-group-id if its group may execute it, unless a mode is set as well.
    pub fn uid(mut self, uid: Uid) -> Self {
        self.0.uid = Some(uid.as_raw());
        self
    }

    /// The group. Needs `CAP_CHOWN` for one that the process is not in.
    pub fn gid(mut self, gid: Gid) -> Self {
        self.0.gid = Some(gid.as_raw());
        self
    }

    /// Time of the last change of content.
    pub fn modified(mut self, time: SystemTime) -> Self {
        self.0.mtime = Some(stamp(time));
        self
    }

    /// Time of the last access.
    pub fn accessed(mut self, time: SystemTime) -> Self {
        self.0.atime = Some(stamp(time));
        self
    }

    /// Sets an extended attribute, by its whole name (`user.origin`). See xattr(7).
    pub fn xattr(mut self, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref().as_bytes().to_vec();
        self.0.xattrs.push((name, Some(value.as_ref().to_vec())));
        self
    }

    /// Removes an extended attribute. There need not be one.
    pub fn without_xattr(mut self, name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref().as_bytes().to_vec();
        self.0.xattrs.push((name, None));
        self
    }
}

/// A time as file systems keep it; one before the epoch has negative seconds and positive nanoseconds.
fn stamp(time: SystemTime) -> Stamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(e) => {
            let before = e.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_before_the_epoch_have_positive_nanoseconds() {
        assert_eq!(
            stamp(UNIX_EPOCH + Duration::from_millis(1500)),
            (1, 500_000_000)
        );
        assert_eq!(
            stamp(UNIX_EPOCH - Duration::from_millis(1500)),
            (-2, 500_000_000)
        );
        assert_eq!(stamp(UNIX_EPOCH - Duration::from_secs(2)), (-2, 0));
    }
}
