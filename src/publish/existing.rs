//! Publishing a folder or file that exists already: moved into place, or copied.

use super::folder::{FolderOptions, FolderTarget};
use super::options::Target;
use super::place::Move;
use super::{FileOptions, Preserve, Receipt};
use crate::root::{Access, Last, Target as Located, resolve_error};
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, FileType, Metadata, Mode, OFlags, OwnedFd,
};
use crate::tree::{self, CopyOptions, Progress, SyncStrategy, Watch};
use crate::{DiskState, Error, ErrorKind, Name, Result, Root};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const PUBLISH: &str = "publish";

impl FolderOptions {
    /// Publishes the folder or file `from` beneath `from_root` at `to` beneath `to_root`, on the same
    /// mount: it is synced whole and moved into place, and what was at `to` is removed afterwards (or kept,
    /// see [`keep_old`](Self::keep_old)). A file replaces a file and a folder a folder.
    ///
    /// The source keeps its own mode, owner and attributes. A kill between the exchange and the removal
    /// leaves the replaced folder or file at `from`.
    ///
    /// # Errors
    /// As [`PendingFolder::commit`](super::PendingFolder::commit); [`ErrorKind::NotFound`]: no `from`.
    pub fn publish(
        &self,
        from_root: &Root,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
    ) -> Result<Receipt> {
        let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
        self.publish_watched(from_root, from, to_root, to, watch)
    }

    /// [`publish`](Self::publish), telling `watch` of what has been synced; it can stop the work until the
    /// rename.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`ErrorKind::Cancelled`].
    pub fn publish_watched(
        &self,
        from_root: &Root,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let (from, to) = (from.as_ref(), to.as_ref());
        operation!("publish existing", from = from, to = to);
        self.move_into_place(from_root, from, to_root, to, watch)
            .map_err(|e| {
                // Errors of the target name it already; both are wanted.
                let e = if e.path() == Some(to) {
                    e.with_path(from)
                } else {
                    e
                };
                e.with_default_path(from).with_other(to)
            })
    }

    fn move_into_place(
        &self,
        from_root: &Root,
        from: &Path,
        to_root: &Root,
        to: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let source = Source::find(from_root, from)?;
        let target = self.find(to_root, to, source.kind())?;
        let keep = self.find_keep(to_root)?;
        let mut synced = Progress::default();
        if self.durability.syncs_content() {
            source
                .sync(self.sync, &mut |now| {
                    synced = *now;
                    watch(now)
                })
                .map_err(|e| e.with_default_path(from))?;
        }
        if watch(&synced).is_break() {
            return Err(Error::of_kind(PUBLISH, ErrorKind::Cancelled));
        }
        let step = Move {
            operation: PUBLISH,
            from_dir: source.dir(),
            from: &source.name,
            to_dir: target.dir.as_fd(),
            to: &target.name,
            id: source.meta.id(),
            is_dir: source.meta.is_dir(),
            from_folder: from.parent().unwrap_or(Path::new("")),
            shown: to,
            same_dir: false,
        };
        let mut notes = Vec::new();
        let replaced = self.place(&step, target.meta.as_ref(), source.kind(), &mut notes)?;
        if self.durability.syncs_names() {
            step.sync().map_err(|e| match replaced {
                // What was replaced has the source's name.
                Some(_) => step.with_left(e),
                None => e,
            })?;
        }
        if let Some(old) = &replaced {
            self.retire(&step, old, keep.as_ref(), &mut notes)?;
        }
        Ok(Receipt {
            id: source.meta.id(),
            replaced,
            notes,
        })
    }

    /// Publishes a copy of the folder or file `from` beneath `from_root` at `to` beneath `to_root`: staged
    /// beside the target with all attributes of the source, made durable, published by one rename or
    /// exchange. The source may be on another file system, and stays. Of a replaced folder or file nothing
    /// is kept but what [`keep_old`](Self::keep_old) says. `watch` hears of every step and can stop it.
    ///
    /// # Errors
    /// As [`publish`](Self::publish) and [`tree::copy`](crate::tree::copy); what was staged is removed.
    pub fn copy(
        &self,
        from_root: &Root,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
        options: &CopyOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let (from, to) = (from.as_ref(), to.as_ref());
        operation!("publish copy", from = from, to = to);
        let source = Source::find(from_root, from)?;
        let done = if source.kind() == FileType::Directory {
            self.copy_folder(&source, to_root, to, options, watch)
        } else {
            self.copy_file(&source, to_root, to, watch)
        };
        done.map_err(|e| {
            // A file inside the source is named, as the one to look at; our own directory there is not.
            let inside = e
                .path()
                .and_then(|p| p.strip_prefix(source.name.as_os_str()).ok())
                .filter(|rest| e.path() != Some(to) && !rest.as_os_str().is_empty())
                .filter(|_| e.kind() != ErrorKind::InvalidInput)
                .map_or_else(|| from.to_owned(), |rest| from.join(rest));
            e.with_operation(PUBLISH).with_path(inside).with_other(to)
        })
    }

    fn copy_folder(
        &self,
        source: &Source<'_>,
        to_root: &Root,
        to: &Path,
        options: &CopyOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let like_source = Self {
            preserve: Preserve::NOTHING,
            ..self.clone()
        };
        let mut pending = like_source.begin(to_root, to)?;
        let mut copied = Progress::default();
        let step = &mut |now: &Progress| {
            copied = *now;
            watch(now)
        };
        match pending.fill_from(source.dir(), &source.name, options, step) {
            Ok(()) => pending.commit_unless(&mut || watch(&copied)),
            Err(error) => Err(pending.abandon(error)),
        }
    }

    fn copy_file(
        &self,
        source: &Source<'_>,
        to_root: &Root,
        to: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Receipt> {
        let target = match self.target {
            FolderTarget::CreateOrReplace => Target::CreateOrReplace,
            FolderTarget::CreateNew => Target::CreateNew,
            FolderTarget::Replace => Target::Replace,
        };
        if self.keep_old.is_some() {
            return Err(Error::of_kind(PUBLISH, ErrorKind::Unsupported)
                .with_advice("a copied file cannot keep the old one: move it into place instead"));
        }
        let mut options = FileOptions::new()
            .target(target)
            .durability(self.durability)
            .symlink(self.symlink)
            .preserve(Preserve::NOTHING);
        options.private = true;
        let fd = source.open(OFlags::empty())?;
        let mut pending = options.begin(to_root, to)?;
        match pending.take_all(fd.as_fd(), watch) {
            Ok(()) => pending.commit(),
            Err(error) => Err(pending.abandon(error)),
        }
    }
}

/// What is to be published.
struct Source<'r> {
    at: Located<'r>,
    name: Name,
    meta: Metadata,
}

impl<'r> Source<'r> {
    fn find(root: &'r Root, path: &Path) -> Result<Self> {
        let fail = |e| resolve_error(PUBLISH, e, path);
        let at = root
            .target(path.as_os_str().as_bytes(), Access::Sync)
            .map_err(fail)?;
        let Last::Normal(name) = at.last.clone() else {
            return Err(fail(Errno::BUSY));
        };
        let meta = sys::statx(&at.dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::new(PUBLISH, "statx", e).with_path(path))?;
        match meta.kind() {
            FileType::Directory => {}
            _ if at.slash => return Err(fail(Errno::NOTDIR)),
            FileType::RegularFile => {}
            _ => return Err(Error::of_kind(PUBLISH, ErrorKind::NotAFile).with_path(path)),
        }
        Ok(Self { at, name, meta })
    }

    fn kind(&self) -> FileType {
        self.meta.kind()
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.at.dir.as_fd()
    }

    /// Makes all of it durable.
    fn sync(&self, strategy: SyncStrategy, watch: &mut Watch<'_>) -> Result<()> {
        if self.meta.is_dir() {
            // Not durable, but not published either.
            return tree::sync_watched(self.open(OFlags::DIRECTORY)?, strategy, watch)
                .map(drop)
                .map_err(|e| e.with_operation(PUBLISH).with_state(DiskState::Unchanged));
        }
        let fd = self.open(OFlags::empty())?;
        sys::fsync(&fd).map_err(|e| Error::new(PUBLISH, "fsync", e))
    }

    /// Opens it for reading; it must still be what was found.
    fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        let fail = |call, e| Error::new(PUBLISH, call, e);
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = sys::openat(self.dir(), self.name.as_c_str(), flags, Mode::empty())
            .map_err(|e| fail("openat", e))?;
        let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| fail("statx", e))?;
        if meta.id() != self.meta.id() {
            return Err(Error::of_kind(PUBLISH, ErrorKind::Changed));
        }
        Ok(fd)
    }
}
