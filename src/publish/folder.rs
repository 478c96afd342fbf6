//! Folders: a whole directory is staged, made durable, and published by one rename or exchange.

use super::attributes::{self, Explicit, Old};
use super::options::{Found, find_target};
use super::place::{Exchanged, Move, hold_others, sync_dir};
use super::retire::{self, Freed};
use super::staged_folder::StagedFolder;
use super::{Note, Preserve, Receipt, SymlinkPolicy};
use crate::root::{Access, Last, Place, resolve_error, temp_name};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FileType, Metadata, Mode};
use crate::tree::{self, CopyOptions, SyncStrategy, Watch};
use crate::{DiskState, Durability, Error, ErrorKind, Name, Result, Root};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) const FOLDER: &str = "publish folder";

/// What must be at the name for a folder to be published there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FolderTarget {
    /// Nothing, or a folder, which is replaced.
    #[default]
    CreateOrReplace,
    /// Nothing: a taken name is [`ErrorKind::AlreadyExists`].
    CreateNew,
    /// A folder, which is replaced; a free name is [`ErrorKind::NotFound`].
    Replace,
}

/// How to publish a folder. One value serves any number of folders.
///
/// ```
/// use steadfast::{Root, publish::{FileOptions, FolderOptions}};
/// # let tmp = tempfile::tempdir()?;
/// let root = Root::open(tmp.path())?;
/// let site = FolderOptions::new().begin(&root, "site")?;
/// FileOptions::new()
///     .durability(steadfast::Durability::None) // commit() syncs the whole tree
///     .write(site.root(), "index.html", "<h1>hello</h1>")?;
/// site.commit()?;
/// # assert!(tmp.path().join("site/index.html").is_file());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct FolderOptions {
    pub(crate) target: FolderTarget,
    pub(super) durability: Durability,
    pub(crate) symlink: SymlinkPolicy,
    pub(super) preserve: Preserve,
    pub(super) explicit: Explicit,
    pub(crate) keep_old: Option<PathBuf>,
    pub(super) sync: SyncStrategy,
}

impl FolderOptions {
    /// Create or replace, fully durable, refusing a symlink at the target; a replaced folder's mode, owner,
    /// access lists and extended attributes are kept, and what was in it is removed.
    pub fn new() -> Self {
        Self::default()
    }

    /// What must be at the name.
    pub fn target(mut self, target: FolderTarget) -> Self {
        self.target = target;
        self
    }

    /// What a power cut may take back.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What a symlink at the target means.
    pub fn symlink(mut self, policy: SymlinkPolicy) -> Self {
        self.symlink = policy;
        self
    }

    /// What the new folder itself takes over from the replaced one.
    pub fn preserve(mut self, preserve: Preserve) -> Self {
        self.preserve = preserve;
        self
    }

    /// Exactly these permission bits for the folder itself.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.explicit.mode = Some(mode);
        self
    }

    /// Keeps the replaced folder at this path (beneath the target's root, on the same mount, and free),
    /// instead of removing it.
    pub fn keep_old(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep_old = Some(path.into());
        self
    }

    /// How the staged tree is made durable.
    pub fn sync_strategy(mut self, strategy: SyncStrategy) -> Self {
        self.sync = strategy;
        self
    }

    /// Begins to publish a folder at `path` beneath `root`: an empty private directory (mode 0700) beside
    /// it, to be filled through [`PendingFolder::root`], then committed.
    ///
    /// # Errors
    /// Nothing was changed. As [`FileOptions::begin`](super::FileOptions::begin), with
    /// [`ErrorKind::NotADirectory`] for a target that is no folder.
    pub fn begin<'r>(&self, root: &'r Root, path: impl AsRef<Path>) -> Result<PendingFolder<'r>> {
        let path = path.as_ref();
        let at = self.find(root, path, FileType::Directory)?;
        let keep = self.find_keep(root)?;
        let mut notes = Vec::new();
        let fail = |call, e| Error::new(FOLDER, call, e).with_path(path);
        let old = at
            .meta
            .filter(Metadata::is_dir)
            .map(|meta| Old::read(&at.dir, &at.name, meta, self.preserve, &mut notes))
            .transpose();
        let old = match old {
            // Removed meanwhile.
            Err((_, Errno::NOENT)) if self.target == FolderTarget::CreateOrReplace => None,
            old => old.map_err(|(call, e)| fail(call, e))?,
        };
        let found = at.meta;
        let staged = StagedFolder::make(at.dir, &at.folder, path, root.options())
            .map_err(|(call, e)| fail(call, e))?;
        let options = self.clone();
        Ok(PendingFolder {
            staged,
            name: at.name,
            found,
            old,
            keep,
            options,
            notes,
        })
    }

    /// Finds where something of this kind goes, and what is there.
    pub(super) fn find<'r>(
        &self,
        root: &'r Root,
        path: &Path,
        kind: FileType,
    ) -> Result<Found<'r>> {
        let fail = |e| resolve_error(FOLDER, e, path);
        let create_new = self.target == FolderTarget::CreateNew;
        // A link takes the name, whatever the policy.
        let symlink = if create_new {
            SymlinkPolicy::Replace
        } else {
            self.symlink
        };
        let found = find_target(FOLDER, root, path, symlink, true)?;
        if found.slash && kind != FileType::Directory {
            return Err(fail(Errno::NOTDIR));
        }
        match (&found.meta, self.target) {
            (Some(_), FolderTarget::CreateNew) => return Err(fail(Errno::EXIST)),
            (None, FolderTarget::Replace) => return Err(fail(Errno::NOENT)),
            (Some(meta), _) if meta.kind() != kind && !meta.is_symlink() => {
                let errno = match kind {
                    FileType::Directory => Errno::NOTDIR,
                    _ if meta.is_dir() => Errno::ISDIR,
                    _ => return Err(Error::of_kind(FOLDER, ErrorKind::NotAFile).with_path(path)),
                };
                return Err(fail(errno).with_advice(
                    "a folder replaces a folder, and a file a file; remove it first",
                ));
            }
            _ => {}
        }
        Ok(found)
    }

    /// Finds where the replaced folder is to be kept, and refuses early if that is taken; the rename decides.
    pub(super) fn find_keep<'r>(&self, root: &'r Root) -> Result<Option<Keep<'r>>> {
        let Some(path) = &self.keep_old else {
            return Ok(None);
        };
        let fail = |e| resolve_error("keep the replaced folder at", e, path);
        let target = root
            .target(path.as_os_str().as_bytes(), Access::Sync)
            .map_err(fail)?;
        let Last::Normal(name) = target.last else {
            return Err(fail(Errno::EXIST));
        };
        match sys::statx(&target.dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Ok(_) => return Err(fail(Errno::EXIST)),
            Err(e) => return Err(fail(e)),
        }
        Ok(Some(Keep {
            dir: target.dir,
            name,
            shown: path.clone(),
        }))
    }

    /// The publication: a rename to a free name, or an exchange. Gives what was there and has the source's
    /// name now.
    pub(super) fn place(
        &self,
        step: &Move<'_>,
        found: Option<&Metadata>,
        kind: FileType,
        notes: &mut Vec<Note>,
    ) -> Result<Option<Metadata>> {
        /// Somebody else may create and remove the name in turn; this often we go along.
        const TURNS: u32 = 8;
        let mut exists = found.is_some();
        let links = self.symlink == SymlinkPolicy::Replace;
        for turn in 0..TURNS {
            let last = turn + 1 == TURNS;
            if !exists {
                match step.create_new(notes) {
                    Ok(()) => return Ok(None),
                    Err(e)
                        if e.kind() == ErrorKind::AlreadyExists
                            && self.target == FolderTarget::CreateOrReplace
                            && !last =>
                    {
                        exists = true;
                    }
                    Err(e) => return Err(e),
                }
                continue;
            }
            let may_replace = |m: &Metadata| m.kind() == kind || links && m.is_symlink();
            match step.exchange_if(may_replace) {
                Ok(Exchanged::Done(old)) => return Ok(old),
                // A file can be renamed over, unless it is to be kept; a folder only if it is empty, which is
                // no replacement.
                Ok(Exchanged::Unsupported)
                    if kind == FileType::RegularFile && self.keep_old.is_none() =>
                {
                    notes.push(Note::CheckedNotExchanged);
                    return step.replace().map(|()| None);
                }
                Ok(Exchanged::Unsupported) => return Err(step.unsupported()),
                Err(e)
                    if e.kind() == ErrorKind::NotFound
                        && self.target == FolderTarget::CreateOrReplace
                        && !last =>
                {
                    exists = false;
                }
                Err(e) => return Err(e),
            }
        }
        // The last turn returns; this is its shape for the compiler.
        Err(Error::new(step.operation, "renameat2", Errno::AGAIN).with_path(step.shown))
    }

    /// Removes what was replaced. If it has the source's name, that name is freed first, durably: else it
    /// could be taken for the source after a power cut, and be published again.
    fn remove_old(&self, step: &Move<'_>, old: &Metadata, notes: &mut Vec<Note>) -> Result<()> {
        let (dir, left) = (step.from_dir, |name: &Name| step.from_folder.join(name));
        let name = match retire::free(dir, step.from, old.id()) {
            Ok(Freed::Gone) => return Ok(()),
            Ok(Freed::Temporary(name)) => name,
            Ok(Freed::Aside(name)) => {
                if self.durability.syncs_names() {
                    sync_dir(step.operation, dir)
                        .map_err(|e| e.with_path(step.shown).with_left(left(&name)))?;
                }
                name
            }
            Err(name) => {
                notes.push(Note::Left(left(&name)));
                return Ok(());
            }
        };
        if !retire::remove(dir, &name) {
            notes.push(Note::Left(left(&name)));
        }
        Ok(())
    }

    /// Removes what was replaced, which has the source's name now, or moves it to where it is to be kept.
    pub(super) fn retire(
        &self,
        step: &Move<'_>,
        old: &Metadata,
        keep: Option<&Keep<'_>>,
        notes: &mut Vec<Note>,
    ) -> Result<()> {
        let Some(keep) = keep else {
            return self.remove_old(step, old, notes);
        };
        let to_kept = Move {
            operation: "keep the replaced folder at",
            to_dir: keep.dir.as_fd(),
            to: &keep.name,
            id: old.id(),
            is_dir: old.is_dir(),
            shown: &keep.shown,
            same_dir: false,
            ..*step
        };
        let moved = to_kept.create_new(notes).and_then(|()| {
            if self.durability.syncs_names() {
                to_kept.sync()
            } else {
                Ok(())
            }
        });
        moved.map_err(|e| {
            e.with_state(DiskState::Published)
                .with_left(step.source_shown())
                .with_advice("the new folder is in place; the old one has the name left behind")
        })
    }
}

/// Where the replaced folder is kept.
#[derive(Debug)]
pub(super) struct Keep<'r> {
    dir: Place<'r>,
    name: Name,
    shown: PathBuf,
}

/// A folder that is being filled and has not been published. Dropping it removes it.
#[derive(Debug)]
#[must_use = "dropping it removes what was staged; call commit()"]
pub struct PendingFolder<'r> {
    staged: StagedFolder<'r>,
    name: Name,
    /// What was at the target.
    found: Option<Metadata>,
    /// Its attributes, if it was a folder.
    old: Option<Old>,
    keep: Option<Keep<'r>>,
    options: FolderOptions,
    notes: Vec<Note>,
}

impl PendingFolder<'_> {
    /// The staged directory as a root, to fill it by paths. Its options are those of the target's root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.staged.inside
    }

    /// Publishes the folder: every file and directory in it is synced, the folder gets its mode and
    /// attributes, then its name, the parent is synced, and what was replaced is removed.
    ///
    /// # Errors
    /// With [`DiskState::Unchanged`] the old state is there, and what was staged is removed:
    /// [`ErrorKind::AlreadyExists`], [`ErrorKind::NotFound`], [`ErrorKind::Changed`] as the target says;
    /// [`ErrorKind::Unsupported`]: a folder is to be replaced, and there is no `RENAME_EXCHANGE` here;
    /// [`ErrorKind::Busy`]: a mount point; [`ErrorKind::LowerLayer`]: an overlayfs folder of a lower layer;
    /// a failed sync. With [`DiskState::Published`] the new folder is visible: the parent could not be
    /// synced, or the old folder could not be moved to where it was to be kept. A replaced folder that
    /// cannot be removed is no error, but [`Note::Left`].
    ///
    /// # After a crash
    /// The old folder is there or the new one, whole. What was staged, or was being removed, and stays, is
    /// removed by [`sweep`](crate::publish::sweep).
    pub fn commit(self) -> Result<Receipt> {
        self.commit_unless(&mut || ControlFlow::Continue(()))
    }

    /// [`commit`](Self::commit), unless `stop` calls it off before the publication.
    pub(super) fn commit_unless(
        mut self,
        stop: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Receipt> {
        operation!("publish folder", path = self.staged.shown);
        match self.try_commit(stop) {
            Ok(receipt) => Ok(receipt),
            Err(error) => {
                let error = error.with_default_path(&self.staged.shown);
                Err(self.staged.abandon(error))
            }
        }
    }

    /// Removes what was staged. Dropping does the same, and cannot say if it failed.
    ///
    /// # Errors
    /// As [`tree::remove`](crate::tree::remove).
    pub fn discard(mut self) -> Result<()> {
        self.staged.discard()
    }

    /// Fills the empty folder with a copy of another, and takes over all its attributes.
    pub(super) fn fill_from(
        &mut self,
        from: BorrowedFd<'_>,
        name: &Name,
        options: &CopyOptions,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let (dir, to) = (self.staged.dir.as_fd(), &self.staged.name);
        let copied = tree::copy_into(from, name, dir, to, options, watch)?;
        self.notes.extend(Note::of_copy(&copied));
        let meta = sys::statx(&self.staged.inside, c"", AtFlags::EMPTY_PATH);
        let meta = meta.map_err(|e| Error::new(FOLDER, "statx", e))?;
        self.staged.born_mode = meta.mode();
        Ok(())
    }

    pub(super) fn abandon(mut self, error: Error) -> Error {
        self.staged.abandon(error)
    }

    fn try_commit(&mut self, stop: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Receipt> {
        let fail = |call, e| Error::new(FOLDER, call, e);
        let fd = self.staged.inside.as_fd();
        if self.options.durability.syncs_content() {
            // Not durable, but not published either.
            tree::sync_watched(fd, self.options.sync, &mut |_| stop())
                .map_err(|e| e.with_operation(FOLDER).with_state(DiskState::Unchanged))?;
        }
        let new = sys::statx(fd, c"", AtFlags::EMPTY_PATH).map_err(|e| fail("statx", e))?;
        // The mode that mkdir(2) gave, if nothing else says which.
        let mut explicit = self.options.explicit.clone();
        if explicit.mode.is_none() && (self.old.is_none() || !self.options.preserve.mode) {
            explicit.mode = Some(self.staged.born_mode);
        }
        let (old, preserve) = (self.old.as_ref(), self.options.preserve);
        attributes::apply(fd, new.rights(), old, preserve, &explicit, &mut self.notes)
            .map_err(|(call, e)| fail(call, e))?;
        if self.options.durability.syncs_content() {
            sys::fsync(fd).map_err(|e| fail("fsync", e))?;
        }
        if stop().is_break() {
            return Err(Error::of_kind(FOLDER, ErrorKind::Cancelled));
        }
        let mut held = None;
        if self.found.is_some() || self.keep.is_some() {
            // What is there now: filling the folder takes time, and others publish too.
            let now = sys::statx(
                self.staged.dir.as_fd(),
                self.name.as_c_str(),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            let old = now
                .ok()
                .or(self.found)
                .map_or(0, |old| temp_name::mark(&old));
            let name = temp_name::exchange(new.id().ino, old, self.keep.is_some());
            let name = name.map_err(|e| fail("getrandom", e))?;
            self.staged.rename(name).map_err(|e| fail("renameat2", e))?;
            held = hold_others(self.staged.dir.as_fd());
        }
        let step = Move {
            operation: FOLDER,
            from_dir: self.staged.dir.as_fd(),
            from: &self.staged.name,
            to_dir: self.staged.dir.as_fd(),
            to: &self.name,
            id: new.id(),
            is_dir: true,
            from_folder: &self.staged.folder,
            shown: &self.staged.shown,
            same_dir: true,
        };
        let (options, notes) = (&self.options, &mut self.notes);
        let placed = options.place(&step, self.found.as_ref(), FileType::Directory, notes);
        drop(held);
        let synced = placed.and_then(|replaced| {
            if options.durability.syncs_names() {
                step.sync().map_err(|e| match replaced {
                    Some(_) => step.with_left(e),
                    None => e,
                })?;
            }
            Ok(replaced)
        });
        match synced {
            Ok(replaced) => {
                let retired = replaced.as_ref().map_or(Ok(()), |old| {
                    options.retire(&step, old, self.keep.as_ref(), notes)
                });
                self.staged.release();
                retired?;
                Ok(Receipt {
                    id: new.id(),
                    replaced,
                    notes: std::mem::take(&mut self.notes),
                })
            }
            Err(error) => {
                // Else the temporary name holds what was replaced, or what must not be removed.
                if error.disk_state() != DiskState::Unchanged || !error.left_behind().is_empty() {
                    self.staged.release();
                }
                Err(error)
            }
        }
    }
}

impl AsFd for PendingFolder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.staged.inside.as_fd()
    }
}
