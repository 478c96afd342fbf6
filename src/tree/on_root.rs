//! The same by paths beneath a [`Root`].

use super::copy::copy_dir;
use super::remove::remove_at;
use super::{
    Copied, CopyOptions, RemoveOptions, Removed, SyncStrategy, Synced, Walk, Watch, copy_watched,
    sync_watched,
};
use crate::root::{Access, Dir, Last, Place, Root, resolve_error};
use crate::sys::{AsFd, Errno, Mode, OFlags};
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Root {
    /// Removes the tree at `path`: [`tree::remove`](super::remove) beneath the root.
    ///
    /// ```
    /// use steadfast::{Root, tree::RemoveOptions};
    /// let dir = tempfile::tempdir()?;
    /// std::fs::create_dir_all(dir.path().join("old/deep"))?;
    /// let root = Root::open(dir.path())?;
    /// assert_eq!(root.remove_tree("old", &RemoveOptions::new())?.dirs, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`tree::remove`](super::remove), and those of resolving the path. The root itself is never removed:
    /// `EBUSY` for `/`, `EINVAL` for a last component `.`, `ENOTEMPTY` for `..`, before anything is touched.
    /// With a trailing slash, `ENOTDIR` for anything but a directory.
    pub fn remove_tree(&self, path: impl AsRef<Path>, options: &RemoveOptions) -> Result<Removed> {
        self.remove_tree_watched(path, options, &mut |_| ControlFlow::Continue(()))
    }

    /// [`remove_tree`](Self::remove_tree), telling `watch` after each entry.
    ///
    /// # Errors
    /// As [`remove_tree`](Self::remove_tree), and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn remove_tree_watched(
        &self,
        path: impl AsRef<Path>,
        options: &RemoveOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Removed> {
        const OPERATION: &str = "remove tree";
        let path = path.as_ref();
        let target = match self.target(path.as_os_str().as_bytes(), Access::Place) {
            Err(Errno::NOENT) if options.accepts_missing() && !path.as_os_str().is_empty() => {
                return Ok(Removed::default());
            }
            done => done.map_err(|e| resolve_error(OPERATION, e, path))?,
        };
        let name = match &target.last {
            Last::Normal(name) => name,
            other => {
                // What rmdir(2) says.
                let errno = match other {
                    Last::Dot => Errno::INVAL,
                    Last::DotDot => Errno::NOTEMPTY,
                    _ => Errno::BUSY,
                };
                return Err(Error::new(OPERATION, "unlinkat(AT_REMOVEDIR)", errno).with_path(path));
            }
        };
        remove_at(target.dir.as_fd(), name, target.slash, options, watch)
            .map_err(|e| under(e, path))
    }

    /// Copies the tree at `from` to the path `to` beneath `to_root`, which may be this root:
    /// [`tree::copy`](super::copy).
    ///
    /// ```
    /// use steadfast::{Root, tree::CopyOptions};
    /// let dir = tempfile::tempdir()?;
    /// std::fs::create_dir(dir.path().join("a"))?;
    /// std::fs::write(dir.path().join("a/file"), "content")?;
    /// let root = Root::open(dir.path())?;
    /// let copied = root.copy_tree("a", &root, "b", &CopyOptions::new())?;
    /// assert_eq!((copied.dirs, copied.files, copied.bytes), (1, 1, 7));
    /// assert_eq!(std::fs::read(dir.path().join("b/file"))?, b"content");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`tree::copy`](super::copy), and those of resolving the paths. `from` may be `.`, or end with a
    /// slash, and then must be a directory (`ENOTDIR`), a symlink to one included. `to` must have a name
    /// (`EEXIST` for `.`, `..` and `/`); with a trailing slash only a directory can be copied there.
    pub fn copy_tree(
        &self,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
        options: &CopyOptions,
    ) -> Result<Copied> {
        let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
        self.copy_tree_watched(from, to_root, to, options, watch)
    }

    /// [`copy_tree`](Self::copy_tree), telling `watch` after each entry and piece of a large file.
    ///
    /// # Errors
    /// As [`copy_tree`](Self::copy_tree), and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn copy_tree_watched(
        &self,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
        options: &CopyOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Copied> {
        const OPERATION: &str = "copy tree";
        let (from, to) = (from.as_ref(), to.as_ref());
        let target = to_root
            .target(to.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OPERATION, e, to))?;
        let Last::Normal(to_name) = &target.last else {
            return Err(Error::new(OPERATION, "mkdirat", Errno::EXIST).with_path(to));
        };
        let source = self
            .target(from.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(OPERATION, e, from))?;
        let done = match &source.last {
            // With a slash only a directory can be meant: it is opened so, and fails if it is none.
            Last::Normal(name) if !source.slash && !target.slash => {
                copy_watched(&source.dir, name, &target.dir, to_name, options, watch)
            }
            last => {
                let mut flags = OFlags::RDONLY | OFlags::DIRECTORY;
                if matches!(last, Last::Normal(_)) && !source.slash {
                    flags |= OFlags::NOFOLLOW;
                }
                let dir = self
                    .open_raw(from.as_os_str().as_bytes(), flags, Mode::empty())
                    .map_err(|e| resolve_error(OPERATION, e, from))?;
                copy_dir(dir.as_fd(), target.dir.as_fd(), to_name, options, watch)
            }
        };
        done.map_err(|e| {
            let to = match e.other_path() {
                Some(below) => beneath(to, below),
                None => to.to_owned(),
            };
            under(e, from).with_other(to)
        })
    }

    /// Goes through the tree at `path`: [`Walk`]. Over a directory named by `.`, `/` or with a trailing slash
    /// it goes through the contents alone.
    ///
    /// # Errors
    /// Those of resolving the path.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk<Dir>> {
        const OPERATION: &str = "walk tree";
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let fail = |e| resolve_error(OPERATION, e, path);
        let target = self.target(bytes, Access::Place).map_err(fail)?;
        match &target.last {
            Last::Normal(name) if !target.slash => {
                let dir = match target.dir {
                    Place::Root(_) => self.dir().try_clone()?,
                    Place::Below(fd) => fd.into(),
                };
                Walk::new(dir, name)
            }
            _ => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let dir = self.open_raw(bytes, flags, Mode::empty()).map_err(fail)?;
                Walk::over(dir.into()).map_err(|e| e.with_path(path))
            }
        }
    }

    /// Makes the directory at `path` and all that is in it durable: [`tree::sync`](super::sync).
    ///
    /// # Errors
    /// As [`tree::sync`](super::sync), and those of resolving the path. `ENOTDIR`: not a directory.
    pub fn sync_tree(&self, path: impl AsRef<Path>, strategy: SyncStrategy) -> Result<Synced> {
        self.sync_tree_watched(path, strategy, &mut |_| ControlFlow::Continue(()))
    }

    /// [`sync_tree`](Self::sync_tree), telling `watch` after each file and directory.
    ///
    /// # Errors
    /// As [`sync_tree`](Self::sync_tree), and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn sync_tree_watched(
        &self,
        path: impl AsRef<Path>,
        strategy: SyncStrategy,
        watch: &mut Watch<'_>,
    ) -> Result<Synced> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let open = |flags| self.open_raw(bytes, flags | OFlags::DIRECTORY, Mode::empty());
        let dir = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => open(OFlags::PATH),
            done => done,
        };
        let dir = dir.map_err(|e| resolve_error("sync tree", e, path))?;
        sync_watched(&dir, strategy, watch).map_err(|e| {
            let full = e.path().map_or(path.to_owned(), |below| path.join(below));
            e.with_path(full)
        })
    }
}

/// The error with the caller's path in place of the tree's own name.
fn under(error: Error, path: &Path) -> Error {
    let full = match error.path() {
        Some(below) => beneath(path, below),
        None => path.to_owned(),
    };
    error.with_path(full)
}

/// `path`, and what follows the first component of `below`.
fn beneath(path: &Path, below: &Path) -> std::path::PathBuf {
    let mut parts = below.components();
    parts.next();
    match parts.as_path() {
        rest if rest.as_os_str().is_empty() => path.to_owned(),
        rest => path.join(rest),
    }
}
