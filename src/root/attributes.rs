//! Looking at files beneath a root, and changing mode, owner, times and extended attributes.
//!
//! A path is resolved once, to a handle; what follows works on the handle. A name that is exchanged in the
//! meantime, or a symlink put in its place, changes nothing about which file is meant.

use super::open::facts;
use super::{Root, resolve_error};
use crate::sys::XattrFlags;
use crate::sys::{self, AsFd, Errno, Gid, Metadata, Mode, OFlags, OwnedFd, Timestamps, Uid};
use crate::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Whether a symlink at the end of the path is followed.
#[derive(Clone, Copy)]
enum Links {
    Follow,
    Stay,
}

impl Root {
    /// Facts about `path`; symlinks are followed.
    ///
    /// # Errors
    /// As stat(2). `EXDEV` ([`Escape`](crate::ErrorKind::Escape)): the path leads out of the root.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.look(path.as_ref(), Links::Follow)
    }

    /// Facts about `path`; a symlink at its end is not followed. One with a slash behind it is.
    ///
    /// # Errors
    /// As lstat(2), and as [`metadata`](Self::metadata).
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.look(path.as_ref(), Links::Stay)
    }

    fn look(&self, path: &Path, links: Links) -> Result<Metadata> {
        const OP: &str = "look at";
        let fd = self.handle(OP, path, links)?;
        facts(fd.as_fd()).map_err(|e| Error::new(OP, "statx", e).with_path(path))
    }

    /// Whether `path` exists; symlinks are followed, so that one that leads nowhere does not.
    ///
    /// # Errors
    /// Whatever keeps it from being known, as in [`metadata`](Self::metadata).
    pub fn try_exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        match self.handle("look for", path.as_ref(), Links::Follow) {
            Ok(_) => Ok(true),
            Err(e) if e.errno() == Some(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether `path` can be seen to exist: [`try_exists`](Self::try_exists) with every error taken for no.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.try_exists(path).unwrap_or(false)
    }

    /// Sets the permission bits of `path`; symlinks are followed (Linux gives them no mode of their own).
    ///
    /// Durable after [`sync`](Self::sync) of the path.
    ///
    /// # Errors
    /// As fchmodat(2). [`Unsupported`](crate::ErrorKind::Unsupported): a kernel before 6.6 (fchmodat2)
    /// without a procfs at `/proc`.
    pub fn set_permissions(&self, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
        const OP: &str = "set the permissions of";
        let path = path.as_ref();
        let fd = self.handle(OP, path, Links::Follow)?;
        let done = match sys::fchmod_empty_path(&fd, mode) {
            // An older kernel, or a filter that does not know the call. Where the refusal is genuine the
            // other way gives it again.
            Err(Errno::NOSYS | Errno::PERM) => {
                sys::descriptor_link(&fd).and_then(|(proc, n)| sys::fchmodat(&proc, n, mode))
            }
            done => done,
        };
        done.map_err(|e| Error::new(OP, "fchmodat2", e).with_path(path))
    }

    /// Sets owner and group of `path`; symlinks are followed; `None` leaves as it is. The kernel clears the
    /// set-user-id and set-group-id bits of a file: set permissions after the owner.
    ///
    /// Durable after [`sync`](Self::sync) of the path.
    ///
    /// # Errors
    /// As fchownat(2). `EPERM`: only a privileged process may give files away.
    pub fn set_owner(
        &self,
        path: impl AsRef<Path>,
        owner: Option<Uid>,
        group: Option<Gid>,
    ) -> Result<()> {
        self.chown(path.as_ref(), owner, group, Links::Follow)
    }

    /// [`set_owner`](Self::set_owner) of a symlink itself, where the path ends in one.
    ///
    /// # Errors
    /// As there.
    pub fn set_symlink_owner(
        &self,
        path: impl AsRef<Path>,
        owner: Option<Uid>,
        group: Option<Gid>,
    ) -> Result<()> {
        self.chown(path.as_ref(), owner, group, Links::Stay)
    }

    fn chown(
        &self,
        path: &Path,
        owner: Option<Uid>,
        group: Option<Gid>,
        links: Links,
    ) -> Result<()> {
        const OP: &str = "set the owner of";
        let fd = self.handle(OP, path, links)?;
        sys::fchownat(&fd, c"", owner, group)
            .map_err(|e| Error::new(OP, "fchownat", e).with_path(path))
    }

    /// Sets access and modification time of `path`; symlinks are followed. `UTIME_NOW` and `UTIME_OMIT` work
    /// as in utimensat(2).
    ///
    /// Durable after [`sync`](Self::sync) of the path.
    ///
    /// # Errors
    /// As utimensat(2). [`Unsupported`](crate::ErrorKind::Unsupported): a kernel before 5.8 without a procfs
    /// at `/proc`.
    pub fn set_times(&self, path: impl AsRef<Path>, times: &Timestamps) -> Result<()> {
        self.utimens(path.as_ref(), times, Links::Follow)
    }

    /// [`set_times`](Self::set_times) of a symlink itself, where the path ends in one.
    ///
    /// # Errors
    /// As there.
    pub fn set_symlink_times(&self, path: impl AsRef<Path>, times: &Timestamps) -> Result<()> {
        self.utimens(path.as_ref(), times, Links::Stay)
    }

    fn utimens(&self, path: &Path, times: &Timestamps, links: Links) -> Result<()> {
        const OP: &str = "set the times of";
        let fd = self.handle(OP, path, links)?;
        let done = match sys::utimensat(&fd, c"", times) {
            // An older kernel, unless the times make no sense, which the other way says again.
            Err(Errno::INVAL) => sys::descriptor_link(&fd)
                .and_then(|(proc, n)| sys::utimensat_follow(&proc, n, times)),
            done => done,
        };
        done.map_err(|e| Error::new(OP, "utimensat", e).with_path(path))
    }

    /// The value of the extended attribute `name` of `path`; `None` if it has none of that name. Symlinks are
    /// followed, and the file is opened: for reading, or for writing where only that is allowed.
    ///
    /// # Errors
    /// As getxattr(2) and open(2). `EOPNOTSUPP`: no such attributes on this file system.
    pub fn get_xattr(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
    ) -> Result<Option<Vec<u8>>> {
        let (path, name) = (path.as_ref(), name.as_ref().as_bytes());
        self.with_xattr("read an attribute of", "fgetxattr", path, |fd| {
            sys::fgetxattr(fd, name)
        })
    }

    /// Sets the extended attribute `name` of `path`, as [`get_xattr`](Self::get_xattr) opens it. `flags` may
    /// ask for one that is new, or one that exists.
    ///
    /// Durable after [`sync`](Self::sync) of the path (fdatasync(2) is not enough).
    ///
    /// # Errors
    /// As setxattr(2) and open(2). `ENOSPC`, `E2BIG`, `EFBIG`: too large for this file system.
    pub fn set_xattr(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let (path, name) = (path.as_ref(), name.as_ref().as_bytes());
        self.with_xattr("set an attribute of", "fsetxattr", path, |fd| {
            sys::fsetxattr(fd, name, value, flags)
        })
    }

    /// Removes the extended attribute `name` of `path`, as [`get_xattr`](Self::get_xattr) opens it.
    ///
    /// # Errors
    /// As removexattr(2) and open(2). `ENODATA`: there is none of that name.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> Result<()> {
        let (path, name) = (path.as_ref(), name.as_ref().as_bytes());
        self.with_xattr("remove an attribute of", "fremovexattr", path, |fd| {
            sys::fremovexattr(fd, name)
        })
    }

    /// The names of the extended attributes of `path`, as [`get_xattr`](Self::get_xattr) opens it.
    ///
    /// # Errors
    /// As listxattr(2) and open(2).
    pub fn list_xattr(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
        let names = self.with_xattr(
            "list the attributes of",
            "flistxattr",
            path.as_ref(),
            |fd| sys::flistxattr(fd),
        )?;
        Ok(names
            .into_iter()
            .map(|name| OsString::from_vec(name.into_bytes()))
            .collect())
    }

    fn with_xattr<T>(
        &self,
        operation: &'static str,
        call: &'static str,
        path: &Path,
        f: impl FnOnce(&OwnedFd) -> sys::Result<T>,
    ) -> Result<T> {
        let fd = self
            .open_quietly(path.as_os_str().as_bytes())
            .map_err(|e| resolve_error(operation, e, path))?;
        f(&fd).map_err(|e| Error::new(operation, call, e).with_path(path))
    }

    /// A descriptor for what `path` is, with no right but to name it.
    fn handle(&self, operation: &'static str, path: &Path, links: Links) -> Result<OwnedFd> {
        let flags = match links {
            Links::Follow => OFlags::PATH,
            Links::Stay => OFlags::PATH | OFlags::NOFOLLOW,
        };
        self.open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
            .map_err(|e| resolve_error(operation, e, path))
    }

    /// Opens for reading, or else for writing, without waiting for anybody and without becoming the owner of
    /// a terminal.
    pub(super) fn open_quietly(&self, path: &[u8]) -> sys::Result<OwnedFd> {
        let quiet = OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |flags| self.open_raw(path, flags | quiet, Mode::empty());
        match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => match open(OFlags::WRONLY) {
                // A directory that may not be read.
                Err(Errno::ISDIR) => Err(Errno::ACCESS),
                done => done,
            },
            done => done,
        }
    }
}
