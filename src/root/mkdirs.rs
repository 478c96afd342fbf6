//! Creating a directory with all that is missing above it.

use super::{Access, Dir, Last, Name, Root, resolve_error, sync_names};
use crate::sys::{self, AsFd, BorrowedFd, Errno, Mode, OFlags, OwnedFd};
use crate::{DiskState, Durability, Error, Result};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OP: &str = "create directories";

/// How many directories wait for their sync at most: each holds a descriptor.
const PENDING: usize = 32;

impl Root {
    /// Creates the directory `path` with every directory that is missing on the way, and opens it. The same
    /// mode is asked for each, and the umask applies. One call if it exists already. Others may create the
    /// same directories at the same time.
    ///
    /// With [`Durability::Full`] every name that was missing has been synced: `Ok` means that it survives a
    /// power cut. What existed before is not synced.
    ///
    /// A `..` behind a directory that is missing is refused with `ENOENT`, as by mkdir(2), and nothing is
    /// created.
    ///
    /// # Errors
    /// As mkdir(2) and open(2). `EEXIST`: the last name is something that is not a directory, or a symlink
    /// that leads nowhere is in the way. With [`DiskState::Indeterminate`] some directories were created;
    /// calling again goes on from there. With [`DiskState::Published`] all were, and a sync failed.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        mode: Mode,
        durability: Durability,
    ) -> Result<Dir> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        match self.open_dir_raw(bytes) {
            Ok(fd) => return Ok(fd.into()),
            Err(Errno::NOENT) if !bytes.is_empty() => {}
            Err(e) => return Err(resolve_error(OP, self.taken(bytes, e), path)),
        }
        let parts = components(bytes);
        let (there, start) = self
            .longest_prefix(bytes, &parts)
            .map_err(|e| resolve_error(OP, e, path))?;
        let missing = &parts[there..];
        if missing.iter().any(|part| &bytes[part.clone()] == b"..") {
            return Err(resolve_error(OP, Errno::NOENT, path));
        }

        let (mut at, mut made) = (start, false);
        let mut unsynced: Vec<Option<OwnedFd>> = Vec::new();
        let fail = |call, e, made, other| {
            let state = if made { other } else { DiskState::Unchanged };
            Error::new(OP, call, e).with_path(path).with_state(state)
        };
        for part in missing {
            if &bytes[part.clone()] == b"." {
                continue;
            }
            let dir = at.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            let next = match make(dir, &bytes[part.clone()], mode) {
                Ok(next) => {
                    made = true;
                    next
                }
                // Somebody else was faster, or there is a symlink: resolving tells what it is good for.
                Err(("mkdirat", Errno::EXIST)) => {
                    self.open_dir_raw(&bytes[..part.end]).map_err(|e| match e {
                        Errno::NOENT | Errno::NOTDIR => {
                            fail("mkdirat", Errno::EXIST, made, DiskState::Indeterminate)
                        }
                        e => {
                            let error = resolve_error(OP, e, path);
                            match made {
                                true => error.with_state(DiskState::Indeterminate),
                                false => error,
                            }
                        }
                    })?
                }
                Err((call, e)) => {
                    made |= call != "mkdirat";
                    return Err(fail(call, e, made, DiskState::Indeterminate));
                }
            };
            let parent = at.replace(next);
            if durability.syncs_names() {
                unsynced.push(parent);
                if unsynced.len() == PENDING {
                    self.sync_all(&mut unsynced)
                        .map_err(|e| fail("fsync", e, made, DiskState::Indeterminate))?;
                }
            }
        }
        // All at the end: the file system then has one thing to write, and finds the rest done.
        self.sync_all(&mut unsynced)
            .map_err(|e| fail("fsync", e, made, DiskState::Published))?;
        match at {
            Some(fd) => Ok(fd.into()),
            // Nothing but dots was missing.
            None => self.dir.try_clone(),
        }
    }

    /// `EEXIST` in place of `ENOTDIR` if it is the last component that is no directory, as mkdir(2) says it.
    fn taken(&self, path: &[u8], errno: Errno) -> Errno {
        if errno != Errno::NOTDIR {
            return errno;
        }
        match self.target(path, Access::Place) {
            Ok(target) if matches!(target.last, Last::Normal(_)) => Errno::EXIST,
            _ => errno,
        }
    }

    /// How many components lead to a directory that exists, at least the root itself (`None`); the whole path
    /// is known not to. Looks near the end first, where the first missing one mostly is.
    fn longest_prefix(
        &self,
        path: &[u8],
        parts: &[Range<usize>],
    ) -> sys::Result<(usize, Option<OwnedFd>)> {
        let (mut low, mut found, mut high) = (0, None, parts.len());
        let mut step = 1;
        while high > low + 1 {
            let at = match found {
                None => parts.len().saturating_sub(step).max(1),
                Some(_) => low + (high - low) / 2,
            };
            match self.open_dir_raw(&path[..parts[at - 1].end]) {
                Ok(fd) => (low, found) = (at, Some(fd)),
                Err(Errno::NOENT) => high = at,
                Err(e) => return Err(e),
            }
            step *= 2;
        }
        Ok((low, found))
    }

    /// Syncs the directories in the order in which they were passed, `None` for the root's own.
    fn sync_all(&self, dirs: &mut Vec<Option<OwnedFd>>) -> sys::Result<()> {
        for dir in dirs.drain(..) {
            sync_names(dir.as_ref().map_or(self.as_fd(), AsFd::as_fd))?;
        }
        Ok(())
    }
}

/// Makes one directory and opens it; an error comes with the call that failed.
fn make(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mode: Mode,
) -> std::result::Result<OwnedFd, (&'static str, Errno)> {
    let name = Name::from_bytes(name).map_err(|e| ("mkdirat", e))?;
    sys::mkdirat(dir, name.as_c_str(), mode).map_err(|e| ("mkdirat", e))?;
    let open = |flags| {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        sys::openat(dir, name.as_c_str(), flags, Mode::empty())
    };
    match open(OFlags::RDONLY) {
        // Made without the right to read it.
        Err(Errno::ACCESS) => open(OFlags::PATH),
        done => done,
    }
    .map_err(|e| ("openat", e))
}

/// Where the components of a path are.
fn components(path: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for part in path.split(|b| *b == b'/') {
        if !part.is_empty() {
            parts.push(start..start + part.len());
        }
        start += part.len() + 1;
    }
    parts
}
