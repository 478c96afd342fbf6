//! Symlinks and hard links beneath a root.

use super::parent::{Last, Target};
use super::{Access, Root, resolve_error};
use crate::sys::{self, AsFd, Errno, Mode, OFlags};
use crate::{Error, Result};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

impl Root {
    /// The text of a symlink, which may name anything.
    ///
    /// # Errors
    /// As readlink(2). `EINVAL`: not a symlink.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        const OP: &str = "read symlink";
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let link = self
            .open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
            .map_err(|e| resolve_error(OP, e, path))?;
        match sys::readlinkat(&link, c"") {
            Ok(text) => Ok(OsString::from_vec(text.into_bytes()).into()),
            Err(e) => {
                // So says the kernel of an open file that is no symlink.
                let e = if e == Errno::NOENT { Errno::INVAL } else { e };
                Err(Error::new(OP, "readlinkat", e).with_path(path))
            }
        }
    }

    /// Creates a symlink `path` with the text `target`, which is stored as it is and not looked at. Whoever
    /// follows it from this root stays beneath it; other programs need not.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of its directory.
    ///
    /// # Errors
    /// As symlink(2). `EEXIST`: the name is taken. `ENOENT`: an empty text. `EPERM`: no symlinks here.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        const OP: &str = "create symlink";
        let (text, path) = (target.as_ref().as_os_str().as_bytes(), path.as_ref());
        let at = self
            .target(path.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, path))?;
        // The kernel looks at the text before the path.
        let done = if text.is_empty() {
            Err(Errno::NOENT)
        } else {
            at.vacant()
                .and_then(|()| sys::symlinkat(text, &at.dir, at.last.for_change()))
        };
        done.map_err(|e| Error::new(OP, "symlinkat", e).with_path(path))
    }

    /// Creates a further name `to` beneath `to_root` for the file `from` beneath this root. A symlink itself
    /// is linked, not what it leads to.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of the new name's directory.
    ///
    /// # Errors
    /// As linkat(2). `EEXIST`: the name is taken. `EXDEV` ([`CrossDevice`](crate::ErrorKind::CrossDevice)):
    /// not on one file system, mount or subvolume. `EPERM`: a directory, no hard links on this file system, or
    /// (fs.protected_hardlinks) a file of others. `EMLINK`: too many names.
    pub fn hard_link(
        &self,
        from: impl AsRef<Path>,
        to_root: &Self,
        to: impl AsRef<Path>,
    ) -> Result<()> {
        const OP: &str = "create hard link";
        let (from, to) = (from.as_ref(), to.as_ref());
        let old = self
            .target(from.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, from))?;
        let fail = |e| Error::new(OP, "linkat", e).with_path(from).with_other(to);
        // A slash follows symlinks and wants a directory, as `.` and the like are directories. None can be
        // linked, but the errors in the way of saying so are the kernel's to find.
        let directory = match &old.last {
            Last::Normal(_) if !old.slash => {
                // The kernel looks for the old name before the new one's directory.
                None
            }
            _ => Some(
                self.open_raw(
                    from.as_os_str().as_bytes(),
                    OFlags::PATH | OFlags::DIRECTORY,
                    Mode::empty(),
                )
                .map_err(|e| resolve_error(OP, e, from))?,
            ),
        };
        let new = match to_root.target(to.as_os_str().as_bytes(), Access::Place) {
            Ok(new) => new,
            Err(e) => {
                if directory.is_none() {
                    old.kind().map_err(fail)?;
                }
                return Err(resolve_error(OP, e, to));
            }
        };
        if let Err(e) = new.vacant() {
            if directory.is_none() {
                old.kind().map_err(fail)?;
            }
            return Err(fail(e));
        }
        match &directory {
            Some(dir) => sys::linkat(dir, c".", &new.dir, new.last.for_change()),
            None => sys::linkat(
                &old.dir,
                old.last.for_change(),
                &new.dir,
                new.last.for_change(),
            ),
        }
        .map_err(fail)
    }

    /// Gives the open file `fd` the name `path`: a file from [`tmpfile`](Self::tmpfile), or any file that has
    /// a name. The name appears with all that was written; nothing is replaced.
    ///
    /// Durable after an fsync of the file **before**, and [`sync_dir`](Self::sync_dir) of the directory after.
    ///
    /// # Errors
    /// As linkat(2). `EEXIST`: the name is taken. `ENOENT`: the file has lost its last name, or was opened
    /// with `O_TMPFILE | O_EXCL`. [`Unsupported`](crate::ErrorKind::Unsupported): the kernel (before 6.10, or
    /// for a file that was opened with other credentials) does not let this process link an open file, and
    /// there is no procfs at `/proc`.
    pub fn hard_link_from(&self, fd: impl AsFd, path: impl AsRef<Path>) -> Result<()> {
        const OP: &str = "give an open file the name";
        let path = path.as_ref();
        let new = self
            .target(path.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, path))?;
        new.vacant()
            .and_then(|()| sys::link_descriptor(fd, &new.dir, new.last.for_change()))
            .map_err(|e| Error::new(OP, "linkat", e).with_path(path))
    }
}

impl Target<'_> {
    /// Lets a new name pass that is not going to be a directory's: one with a slash behind it never does.
    pub(super) fn vacant(&self) -> sys::Result<()> {
        match &self.last {
            Last::Normal(_) if self.slash => match self.kind() {
                Ok(_) => Err(Errno::EXIST),
                Err(e) => Err(e),
            },
            _ => Ok(()),
        }
    }
}
