//! Which mount of which boot: while it lasts, nothing that was written is lost.

use crate::Result;
use crate::error::Error;
use crate::sys::{self, Metadata};

/// One mount of a file system, in one boot. Within it the page cache has everything that was written, synced
/// or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incarnation {
    /// `None` where procfs does not tell.
    pub(crate) boot: Option<[u8; 16]>,
    /// `None` where the kernel (before 6.8) has no number that it does not use again in this boot.
    pub(crate) mount: Option<u64>,
}

impl Incarnation {
    /// The one that a directory is reached in, by its facts.
    pub(crate) fn of(meta: &Metadata) -> Result<Self> {
        let boot =
            sys::boot_id().map_err(|e| Error::new("find out which boot this is", "openat", e))?;
        let unique = meta.mount_id_is_unique();
        Ok(Self {
            boot,
            mount: meta.mount_id().filter(|_| unique),
        })
    }

    /// As a record has it.
    pub(crate) fn parts(&self) -> (Option<[u8; 16]>, Option<u64>) {
        (self.boot, self.mount)
    }

    pub(crate) fn from_parts((boot, mount): (Option<[u8; 16]>, Option<u64>)) -> Self {
        Self { boot, mount }
    }

    /// Whether both are known, and the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let both = self.boot.is_some() && self.mount.is_some();
        both && self == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_the_same() {
        let known = Incarnation {
            boot: Some([1; 16]),
            mount: Some(7),
        };
        assert!(known.is_same(&known));
        let others = [
            (None, Some(7)),
            (Some([1; 16]), None),
            (Some([2; 16]), Some(7)),
            (Some([1; 16]), Some(8)),
        ];
        for (boot, mount) in others {
            let other = Incarnation { boot, mount };
            assert!(!known.is_same(&other), "{other:?}");
            assert!(!other.is_same(&known), "{other:?}");
            let known_in_full = boot.is_some() && mount.is_some();
            assert_eq!(other.is_same(&other), known_in_full, "{other:?}");
        }
    }
}
