//! Hard links inside a tree that is copied: where the first name of a file went.

use super::chain::{Chain, Identity, READ_DIR, look_at};
use crate::root::Name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileId, Metadata, Mode, OFlags, OwnedFd};
use std::collections::HashMap;

/// A file of the source.
pub(super) type Key = (Option<u64>, FileId);

/// A file of the copy.
struct Link {
    id: Identity,
    /// Its directories from the top of the copy, and its name.
    dirs: Vec<Name>,
    name: Name,
    /// Further names that are still to come.
    missing: u64,
}

/// All files of which further names may come.
#[derive(Default)]
pub(super) struct Links(HashMap<Key, Link>);

impl Links {
    /// What identifies a file that has several names.
    pub(super) fn key(meta: &Metadata) -> Option<Key> {
        (meta.links() > 1).then(|| (meta.mount_id(), meta.id()))
    }

    /// Notes the copy of a file.
    pub(super) fn add(
        &mut self,
        key: Key,
        own: &Metadata,
        dirs: &[Option<Name>],
        name: &Name,
        missing: u64,
    ) {
        let link = Link {
            id: Identity::of(own),
            dirs: dirs.iter().flatten().cloned().collect(),
            name: name.clone(),
            missing,
        };
        self.0.insert(key, link);
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.0.remove(&key);
    }

    /// Makes `name`, in the innermost directory of `to`, a further name of the file's copy; false if it has
    /// none.
    ///
    /// The copy is found again by its names from the top, none of which may be a symlink, and must be the
    /// same file; if it is not, that is `ESTALE`.
    pub(super) fn make<B: AsFd>(
        &mut self,
        key: Key,
        base: BorrowedFd<'_>,
        to: &Chain<B, OwnedFd>,
        name: &Name,
    ) -> Result<bool, (&'static str, Errno)> {
        let Some(link) = self.0.get_mut(&key) else {
            return Ok(false);
        };
        let here = to.names().iter().flatten().eq(&link.dirs);
        let found = if here { None } else { link.open_dir(base)? };
        let old_dir = match &found {
            Some(fd) => fd.as_fd(),
            None if here => to.fd(),
            None => base,
        };
        sys::linkat(old_dir, link.name.as_c_str(), to.fd(), name.as_c_str())
            .map_err(|e| ("linkat", if e == Errno::NOENT { Errno::STALE } else { e }))?;
        let made = look_at(to.fd(), name.as_c_str()).map_err(|e| ("statx", e))?;
        if Identity::of(&made) != link.id {
            sys::unlinkat(to.fd(), name.as_c_str()).map_err(|e| ("unlinkat", e))?;
            return Err(("linkat", Errno::STALE));
        }
        link.missing = link.missing.saturating_sub(1);
        if link.missing == 0 {
            self.0.remove(&key);
        }
        Ok(true)
    }
}

impl Link {
    /// The directory that holds the copy; `None` if that is the base.
    fn open_dir(&self, base: BorrowedFd<'_>) -> Result<Option<OwnedFd>, (&'static str, Errno)> {
        let mut found: Option<OwnedFd> = None;
        for dir in &self.dirs {
            let from = found.as_ref().map_or(base, AsFd::as_fd);
            let flags = READ_DIR | OFlags::PATH;
            let fd = match sys::openat(from, dir.as_c_str(), flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return Err(("linkat", Errno::STALE));
                }
                done => done.map_err(|e| ("openat", e))?,
            };
            found = Some(fd);
        }
        Ok(found)
    }
}
