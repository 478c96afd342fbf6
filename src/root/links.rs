//! Symlinks and hard links beneath a root.

use super::parent::{Last, PATH_MAX, Target};
use super::resolve::Request;
use super::{Access, Root, resolve_error, walk};
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

    /// The path of `path` beneath the root without symlinks, `.`, `..` and needless slashes; `.` for the root
    /// itself. It was true at one moment: to work on what is there, open that.
    ///
    /// Answered by the userspace walk whichever the [`Backend`](crate::Backend), as no system call gives it.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn canonicalize(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        let request = Request {
            root: self.as_fd(),
            path: path.as_os_str().as_bytes(),
            flags: OFlags::PATH | OFlags::CLOEXEC,
            mode: Mode::empty(),
            resolve: self.options.resolve_flags(),
        };
        if request.path.contains(&0) {
            return Err(resolve_error("resolve", Errno::INVAL, path));
        }
        match walk::canonical(&request) {
            Ok((_, found)) if found.is_empty() => Ok(".".into()),
            Ok((_, found)) => Ok(OsString::from_vec(found).into()),
            Err(e) => Err(resolve_error("resolve", e, path)),
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
        let fail = |e| Error::new(OP, "symlinkat", e).with_path(path);
        // The kernel looks at the text before the path.
        match text.len() {
            0 => return Err(fail(Errno::NOENT)),
            PATH_MAX.. => return Err(fail(Errno::NAMETOOLONG)),
            _ => {}
        }
        let at = self
            .target(path.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, path))?;
        at.vacant()
            .and_then(|()| sys::symlinkat(text, &at.dir, at.last.for_change()))
            .map_err(fail)
    }

    /// Creates a further name `to` beneath `to_root` for the file `from` beneath this root. A symlink itself
    /// is linked, not what it leads to.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of the new name's directory.
    ///
    /// # Errors
    /// As linkat(2). `EEXIST`: the name is taken. `EXDEV` ([`CrossDevice`](crate::ErrorKind::CrossDevice)):
    /// not on one file system, mount or subvolume. `EPERM`: a directory, no hard links on this file system,
    /// or (fs.protected_hardlinks) a file of others. `EMLINK`: too many names.
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
        // A slash follows symlinks and wants a directory, and `.` and the like are directories. None can be
        // linked, but what stands in the way of saying so is the kernel's to find.
        let directory = match &old.last {
            Last::Normal(_) if !old.slash => None,
            _ => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = self.open_raw(from.as_os_str().as_bytes(), flags, Mode::empty());
                Some(dir.map_err(|e| resolve_error(OP, e, from))?)
            }
        };
        let new = to_root
            .target(to.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OP, e, to))
            .and_then(|new| match new.vacant() {
                Ok(()) => Ok(new),
                Err(e) => Err(fail(e)),
            });
        let new = match new {
            Ok(new) => new,
            Err(e) => {
                // The kernel looks for the old name before the new one.
                if directory.is_none() {
                    old.kind().map_err(fail)?;
                }
                return Err(e);
            }
        };
        let new_name = new.last.for_change();
        match &directory {
            Some(dir) => sys::linkat(dir, c".", &new.dir, new_name),
            None => sys::linkat(&old.dir, old.last.for_change(), &new.dir, new_name),
        }
        .map_err(fail)
    }

    /// Gives the open file `fd` the name `path`: a file from [`tmpfile`](Self::tmpfile), or any file that has
    /// a name. The name appears with all that was written; nothing is replaced.
    ///
    /// Durable after an fsync of the file **before**, and [`sync_dir`](Self::sync_dir) of the directory
    /// after.
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
