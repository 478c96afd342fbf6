//! A directory that has not been published: private, locked, removed unless it gets its name.

use super::attributes::Failed;
use super::staged::has;
use crate::root::{Place, temp_name};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, LockKind, Mode, OFlags, OwnedFd};
use crate::tree;
use crate::{Error, Name, Result, Root, RootOptions};
use std::path::{Path, PathBuf};

/// A private directory beside the target, locked so that a sweeper sees that its maker lives.
#[derive(Debug)]
pub(super) struct StagedFolder<'r> {
    pub(super) dir: Place<'r>,
    pub(super) name: Name,
    /// Holds the lock.
    pub(super) inside: Root,
    /// What mkdir(2) made of 0777 under the umask and the parent's default list.
    pub(super) born_mode: Mode,
    /// The directory that it is in, as the caller would write it.
    pub(super) folder: PathBuf,
    /// The target's path.
    pub(super) shown: PathBuf,
    live: bool,
}

impl<'r> StagedFolder<'r> {
    pub(super) fn make(
        dir: Place<'r>,
        folder: &Path,
        shown: &Path,
        options: RootOptions,
    ) -> std::result::Result<Self, Failed> {
        const TRIES: u32 = 16;
        let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        for _ in 0..TRIES {
            let name = temp_name::fresh(b'd').map_err(|e| ("getrandom", e))?;
            match sys::mkdirat(&dir, name.as_c_str(), all) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(e) => {
                    // Perhaps made all the same (on network storage); the name is nobody else's.
                    let _ = sys::rmdirat(&dir, name.as_c_str());
                    return Err(("mkdirat", e));
                }
            }
            match Self::take(dir.as_fd(), &name) {
                Ok(Some((fd, born_mode))) => {
                    let inside = options.over(fd.into());
                    let shown = shown.to_owned();
                    return Ok(Self {
                        dir,
                        name,
                        inside,
                        born_mode,
                        folder: folder.to_owned(),
                        shown,
                        live: true,
                    });
                }
                // A sweeper was faster: it saw a directory that nobody had locked. It is removing it, or
                // only reports it.
                Ok(None) => {
                    let _ = sys::rmdirat(&dir, name.as_c_str());
                }
                Err(failed) => {
                    // It is empty; if it cannot even be removed, a sweep finds it by its name.
                    let _ = sys::rmdirat(&dir, name.as_c_str());
                    return Err(failed);
                }
            }
        }
        Err(("mkdirat", Errno::EXIST))
    }

    /// Opens, locks and closes off the new directory; `None` if it was swept away meanwhile.
    fn take(
        dir: BorrowedFd<'_>,
        name: &Name,
    ) -> std::result::Result<Option<(OwnedFd, Mode)>, Failed> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match sys::openat(dir, name.as_c_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            fd => fd.map_err(|e| ("openat", e))?,
        };
        // Any other refusal means that there are no locks here; then no sweeper can prove anything either.
        if sys::try_flock(&fd, LockKind::Shared) == Err(Errno::AGAIN) {
            return Ok(None);
        }
        let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| ("statx", e))?;
        if meta.links() == 0 {
            return Ok(None);
        }
        sys::fchmod(&fd, Mode::RWXU).map_err(|e| ("fchmod", e))?;
        Ok(Some((fd, meta.mode())))
    }

    pub(super) fn rename(&mut self, to: Name) -> std::result::Result<(), Errno> {
        let (from, none) = (self.name.as_c_str(), sys::RenameFlags::empty());
        // The name holds this directory's own inode number: it is nobody else's.
        let done = sys::renameat2(&self.dir, from, &self.dir, to.as_c_str(), none);
        // A rename that answers an error may have been carried out all the same.
        if done.is_ok() || has(&self.dir, &to) {
            self.name = to;
        }
        done
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    pub(super) fn release(&mut self) {
        self.live = false;
    }

    pub(super) fn discard(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.live) {
            return Ok(());
        }
        let options = tree::RemoveOptions::new().missing_ok(true);
        tree::remove(&self.dir, &self.name, &options).map(drop)
    }

    pub(super) fn abandon(&mut self, error: Error) -> Error {
        let shown = self.temporary();
        match self.discard() {
            Ok(()) => error,
            Err(_) => error.with_left(shown),
        }
    }
}

impl Drop for StagedFolder<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell; `PendingFolder::discard` is there for callers who want to know.
        let _ = self.discard();
    }
}
