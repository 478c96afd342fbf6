//! Files that staging has opened in order to write over them, kept for who then does it.
//!
//! That it is open says nothing about its name: somebody may have put another file there meanwhile. But as
//! long as it is open nobody else is given its inode number, so that one look at the name tells.

use super::mapping::ObjectIx;
use crate::sys::{self, AsRawFd, FileId, Metadata, OwnedFd};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: BTreeMap<ObjectIx, (OwnedFd, FileId)>,
    /// Descriptors with this number, and above it, are not kept.
    limit: Option<u64>,
}

impl OpenFiles {
    /// Keeps a file, of which `meta` was seen by its descriptor; unless this process has many open.
    pub(super) fn keep(&mut self, object: ObjectIx, file: OwnedFd, meta: &Metadata) {
        // The kernel gives the lowest number that is free: of as many as there may be, half are left to
        // others, however many threads commit at once.
        let half = || sys::descriptor_limit().unwrap_or(0) / 2;
        let limit = *self.limit.get_or_insert_with(half);
        if u64::try_from(file.as_raw_fd()).is_ok_and(|number| number < limit) {
            self.files.insert(object, (file, meta.id()));
        }
    }

    /// The file that was kept of an object, with what it is.
    pub(super) fn take(&mut self, object: ObjectIx) -> Option<(OwnedFd, FileId)> {
        self.files.remove(&object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::place;

    #[test]
    fn half_of_the_descriptors_are_left_to_others() {
        let dir = tempfile::tempfile().unwrap();
        let meta = place::facts(&dir).unwrap();
        let fresh = || OwnedFd::from(dir.try_clone().unwrap());
        let mut opened = OpenFiles::default();
        opened.keep(3, fresh(), &meta);
        assert_eq!(opened.take(3).map(|(_, id)| id), Some(meta.id()));
        assert!(opened.take(3).is_none());
        assert_eq!(opened.limit, Some(sys::descriptor_limit().unwrap() / 2));
        let file = fresh();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        opened.limit = Some(number + 1);
        opened.keep(4, file, &meta);
        let (file, _) = opened.take(4).unwrap();
        opened.limit = Some(number);
        opened.keep(4, file, &meta);
        assert!(opened.take(4).is_none());
    }
}
