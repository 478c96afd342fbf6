//! A held directory on which every path is resolved beneath it.
//!
//! [`Root`] is a directory descriptor with a policy. No path given to it leads outside: no `..`, absolute
//! path, symlink, magic link, mount trick or concurrent rename. The kernel's openat2(2) resolves, or, where
//! that is missing or blocked, a walk of our own with the same answers; [`Backend`] chooses.

mod attributes;
mod capabilities;
mod dir;
mod entries;
mod links;
mod mkdirs;
mod name;
mod open;
mod parent;
mod rename;
mod resolve;
mod sync;
pub(crate) mod temp_name;
mod trial;
mod walk;

pub use capabilities::{Capabilities, Capability, Feature};
pub use dir::Dir;
pub use entries::{Entries, Entry};
pub use name::Name;
#[cfg(feature = "_hook")]
#[doc(hidden)]
pub use resolve::bare;

#[cfg(feature = "_hook")]
#[doc(hidden)]
pub use temp_name::mark as temporary_mark;

pub(crate) use dir::errno_of;
pub(crate) use parent::{Access, Last, PATH_MAX, Place, Target, split};
pub(crate) use rename::{rename_error, rename_targets};
pub(crate) use sync::sync_names;

use crate::sys::{self, AsFd, BorrowedFd, Errno, Mode, OFlags, OwnedFd, ResolveFlags};
use crate::{Error, ErrorKind, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Who resolves paths.
///
/// A container or an old kernel may lack openat2; setting [`Walk`](Self::Walk) shows what happens there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// openat2(2), and the walk where openat2 is missing or blocked, or cannot answer for all the renaming
    /// that goes on.
    #[default]
    Auto,
    /// Only openat2(2): without it every call fails with the kernel's errno (`ENOSYS`, or `EPERM` from a
    /// filter), and `EAGAIN` is possible while others rename.
    Kernel,
    /// Only the walk.
    Walk,
}

/// What an absolute path, an absolute symlink, or `..` at the root means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A refusal (`EXDEV`): `RESOLVE_BENEATH`.
    #[default]
    Beneath,
    /// The root itself, as after chroot(2): `RESOLVE_IN_ROOT`.
    InRoot,
}

/// How paths are resolved beneath a [`Root`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RootOptions {
    scope: Scope,
    backend: Backend,
    no_symlinks: bool,
    no_magic_links: bool,
    no_mount_crossing: bool,
}

impl RootOptions {
    /// Beneath, automatic back end, no further restriction.
    pub fn new() -> Self {
        Self::default()
    }

    /// What leads above the root means: a refusal, or the root.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Who resolves.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Refuse every symlink on the way (`RESOLVE_NO_SYMLINKS`, `ELOOP`).
    pub fn no_symlinks(mut self, on: bool) -> Self {
        self.no_symlinks = on;
        self
    }

    /// Refuse magic links with `ELOOP` (`RESOLVE_NO_MAGICLINKS`); without this they are refused with `EXDEV`.
    pub fn no_magic_links(mut self, on: bool) -> Self {
        self.no_magic_links = on;
        self
    }

    /// Refuse to step onto another mount, bind mounts included (`RESOLVE_NO_XDEV`, `EXDEV`).
    pub fn no_mount_crossing(mut self, on: bool) -> Self {
        self.no_mount_crossing = on;
        self
    }

    pub(crate) fn resolve_flags(self) -> ResolveFlags {
        let mut flags = match self.scope {
            Scope::Beneath => ResolveFlags::BENEATH,
            Scope::InRoot => ResolveFlags::IN_ROOT,
        };
        flags.set(ResolveFlags::NO_SYMLINKS, self.no_symlinks);
        flags.set(ResolveFlags::NO_MAGICLINKS, self.no_magic_links);
        flags.set(ResolveFlags::NO_XDEV, self.no_mount_crossing);
        flags
    }

    /// Opens `path`, which is resolved as any program would, as a root.
    ///
    /// # Errors
    /// As open(2) of a directory.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Root> {
        let path = path.as_ref();
        let open = |flags| sys::openat(sys::CWD, path, flags | OFlags::DIRECTORY, Mode::empty());
        let fd = match open(OFlags::RDONLY) {
            // A directory may be searched without the right to read it.
            Err(Errno::ACCESS) => open(OFlags::PATH),
            done => done,
        };
        fd.map(|fd| self.over(fd.into()))
            .map_err(|e| Error::new("open root", "openat", e).with_path(path))
    }

    /// A root over a directory that is already open.
    #[must_use]
    pub fn over(self, dir: Dir) -> Root {
        Root { dir, options: self }
    }
}

/// A directory that no path given to it leaves.
///
/// It holds a descriptor: renaming the directory, changing the working directory, or mounting something over
/// its name does no harm.
#[derive(Debug)]
pub struct Root {
    dir: Dir,
    options: RootOptions,
}

impl Root {
    /// Opens `path`, which is resolved as any program would, with the default [`RootOptions`].
    ///
    /// # Errors
    /// As open(2) of a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        RootOptions::new().open(path)
    }

    /// The options.
    pub fn options(&self) -> RootOptions {
        self.options
    }

    /// The same directory with other options.
    ///
    /// # Errors
    /// `EMFILE`: too many open files.
    pub fn with_options(&self, options: RootOptions) -> Result<Self> {
        Ok(options.over(self.dir.try_clone()?))
    }

    /// A further handle on the same directory, with the same options.
    ///
    /// # Errors
    /// `EMFILE`: too many open files.
    pub fn try_clone(&self) -> Result<Self> {
        self.with_options(self.options)
    }

    /// Opens the directory that holds `path`, which is resolved as any program would, as a root, and gives
    /// the last component of `path`: for callers who start with an ordinary path.
    ///
    /// # Errors
    /// As open(2) of the parent; `EINVAL` if the last component is `.`, `..` or missing, or a slash follows
    /// it.
    pub fn around(path: impl AsRef<Path>) -> Result<(Self, Name)> {
        let path = path.as_ref();
        let (parent, last, slash) = parent::split(path.as_os_str().as_bytes());
        let name = if slash {
            Err(Errno::INVAL)
        } else {
            Name::from_bytes(last)
        };
        let name =
            name.map_err(|e| Error::new("find the parent of", "openat", e).with_path(path))?;
        let parent = if parent.is_empty() { b"." } else { parent };
        Ok((Self::open(std::ffi::OsStr::from_bytes(parent))?, name))
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens beneath the root: openat2's answer, as an errno.
    pub(crate) fn open_raw(&self, path: &[u8], flags: OFlags, mode: Mode) -> sys::Result<OwnedFd> {
        let request = resolve::Request {
            root: self.dir.as_fd(),
            path,
            flags: flags | OFlags::CLOEXEC,
            mode,
            resolve: self.options.resolve_flags(),
        };
        resolve::open(self.options.backend, &request)
    }

    /// Opens the directory that holds `path`, and gives its last component: what to work on by descriptor.
    ///
    /// The descriptor is open for reading where that is allowed, so that it can be synced.
    ///
    /// # Errors
    /// As open(2) for the parent; `EINVAL` if the last component is `.`, `..` or missing.
    pub fn split(&self, path: impl AsRef<Path>) -> Result<(Dir, Name)> {
        let path = path.as_ref();
        let fail = |e| resolve_error("find the parent of", e, path);
        let target = self
            .target(path.as_os_str().as_bytes(), Access::Sync)
            .map_err(fail)?;
        let Last::Normal(name) = target.last else {
            return Err(fail(Errno::INVAL));
        };
        let dir = match target.dir {
            Place::Root(_) => self.dir.try_clone()?,
            Place::Below(fd) => fd.into(),
        };
        Ok((dir, name))
    }
}

/// An error of path resolution, where `EXDEV` means that the path leaves the root.
#[cold]
pub(crate) fn resolve_error(operation: &'static str, errno: Errno, path: &Path) -> Error {
    let error = Error::new(operation, "openat2", errno).with_path(path);
    match errno {
        Errno::XDEV => error.with_kind(ErrorKind::Escape),
        _ => error,
    }
}

/// A directory that was opened elsewhere, such as by [`std::fs::File`] or `cap_std::fs::Dir`. What is no
/// directory is told by the first call that uses it (`ENOTDIR`).
impl From<OwnedFd> for Root {
    fn from(fd: OwnedFd) -> Self {
        Self::from(Dir::from(fd))
    }
}

impl From<Dir> for Root {
    fn from(dir: Dir) -> Self {
        RootOptions::new().over(dir)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}
