//! What a file looked like, for "only if unchanged".

use crate::root::{resolve_error, temp_name};
use crate::sys::{self, AsFd, AtFlags, FileId, Metadata, Mode, OFlags, Timespec};
use crate::{Error, ErrorKind, Result, Root};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A version of a file's content: by identity (inode, size, times), or by hash.
///
/// Times tell every change since Linux 6.13 (multigrain timestamps); before, two changes within one tick of
/// the clock (some milliseconds) to the same inode and size look alike. A hash has no such gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub(super) Seen);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Identity(Identity),
    #[cfg(feature = "sha256")]
    Sha256([u8; 32]),
}

/// The facts that a change of content moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    id: FileId,
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Self {
        let pair = |t: Timespec| (t.tv_sec, t.tv_nsec);
        Self {
            id: meta.id(),
            len: meta.len(),
            mtime: pair(meta.mtime()),
            ctime: pair(meta.ctime()),
        }
    }

    /// The mark by which a sweeper knows the file.
    pub(super) fn mark(&self) -> u64 {
        temp_name::mark_of_file(self.id.ino, self.len, self.mtime)
    }

    /// The same content, of a file that was renamed meanwhile: a rename moves the ctime.
    pub(super) fn same_content(&self, meta: &Metadata) -> bool {
        Self {
            ctime: self.ctime,
            ..Self::of(meta)
        } == *self
    }
}

impl Version {
    /// The version that is at `path` now (a symlink is followed, beneath the root).
    ///
    /// # Errors
    /// As stat(2); [`ErrorKind::NotAFile`] for anything but a regular file.
    pub fn of(root: &Root, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |e| resolve_error("look at file", e, path);
        let fd = root
            .open_raw(path.as_os_str().as_bytes(), OFlags::PATH, Mode::empty())
            .map_err(fail)?;
        let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(fail)?;
        if !meta.is_file() {
            return Err(Error::of_kind("look at file", ErrorKind::NotAFile).with_path(path));
        }
        Ok(Self::of_metadata(&meta))
    }

    /// The version that these facts describe, such as those of the descriptor that it was read through.
    #[must_use]
    pub fn of_metadata(meta: &Metadata) -> Self {
        Self(Seen::Identity(Identity::of(meta)))
    }

    /// Any file whose content has this SHA-256.
    #[cfg(feature = "sha256")]
    #[must_use]
    pub fn sha256(hash: [u8; 32]) -> Self {
        Self(Seen::Sha256(hash))
    }

    /// Whether the file `path`, a symlink itself, is this version now.
    ///
    /// # Errors
    /// As open(2) and read(2).
    pub(crate) fn is_current(&self, root: &Root, path: &Path) -> Result<bool> {
        let (dir, name) = root.split(path)?;
        let fail = |e| resolve_error("look at file", e, path);
        let meta = sys::statx(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        Ok(self.check(&dir, &name, &meta).map_err(fail)?.is_some())
    }

    /// Whether `name` in `dir`, which these facts describe, is this version; if so, the identity to hold it
    /// to from now on.
    // Only a hash needs the file itself.
    #[cfg_attr(not(feature = "sha256"), expect(unused_variables))]
    pub(super) fn check(
        &self,
        dir: impl AsFd,
        name: &crate::Name,
        meta: &Metadata,
    ) -> sys::Result<Option<Identity>> {
        let now = Identity::of(meta);
        match &self.0 {
            Seen::Identity(seen) => Ok((*seen == now).then_some(now)),
            #[cfg(feature = "sha256")]
            Seen::Sha256(hash) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let fd = match sys::openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty()) {
                    Err(sys::Errno::NOENT | sys::Errno::LOOP) => return Ok(None),
                    fd => fd?,
                };
                let before = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
                let found = super::file::sha256_of(&fd)?;
                let after = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
                // A file that changes while it is read is no version at all.
                let steady =
                    Identity::of(&before) == Identity::of(&after) && Identity::of(&before) == now;
                Ok((steady && found == *hash).then_some(now))
            }
        }
    }
}
