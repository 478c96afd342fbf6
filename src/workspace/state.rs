//! The state folder of a workspace: what is in it, and whether it may be trusted.
//!
//! It is made once, durably (`setup`), and checked each time it is opened.

use super::conflict;
use super::ctx::Ctx;
use super::displaced::{Displaced, Later};
use super::format::{FolderId, Format};
use super::incarnation::Incarnation;
use super::ledger::Ledger;
use super::{setup, writers};
use crate::claim::Claims;
use crate::root::{Dir, sync_names};
use crate::sys::{self, AsFd, AtFlags, Errno, FsKind, Metadata, Mode, OFlags};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::cell::OnceCell;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::Duration;

pub(super) const OP: &str = "open workspace";
/// Its name beneath the root.
pub(crate) const FOLDER: &CStr = c".steadfast";

/// How long [`State::adopt`] waits for others.
const ADOPT_WAIT: Duration = Duration::from_secs(10);

/// The folder's name in messages.
pub(super) fn shown() -> &'static str {
    FOLDER.to_str().unwrap_or_default()
}

/// The folders inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sub {
    Logs,
    Staged,
    Kept,
    Retired,
    Keys,
    Conflicts,
}

impl Sub {
    pub(super) const ALL: [Self; 6] = [
        Self::Logs,
        Self::Staged,
        Self::Kept,
        Self::Retired,
        Self::Keys,
        Self::Conflicts,
    ];

    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::Logs => c"logs",
            Self::Staged => c"staged",
            Self::Kept => c"kept",
            Self::Retired => c"retired",
            Self::Keys => c"keys",
            Self::Conflicts => c"conflicts",
        }
    }

    pub(crate) fn path(self) -> String {
        format!("{}/{}", shown(), self.name().to_string_lossy())
    }
}

/// An open state folder.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) dir: Dir,
    /// One folder for each log.
    pub(crate) logs: Dir,
    /// New things, before they get their names.
    pub(crate) staged: Dir,
    /// Old things that may be put back, and those of ours that gave way in a conflict.
    pub(crate) kept: Dir,
    /// Old things on their way out.
    pub(crate) retired: Dir,
    /// Idempotency keys.
    pub(crate) keys: Dir,
    /// Conflicts that nobody has resolved yet.
    pub(crate) conflicts: Dir,
    /// What was found there last.
    pub(super) known: conflict::Known,
    /// What commits have left in `staged` to be removed.
    pub(super) displaced: Displaced,
    pub(crate) claims: Arc<Claims>,
    pub(crate) ledger: Ledger,
    /// Random, for each workspace another one.
    pub(crate) id: [u8; 16],
    incarnation: Incarnation,
    folder: FolderId,
    copy: bool,
    /// syncfs(2) does not have a FUSE server sync what it was given.
    each: bool,
}

impl State {
    /// Opens the state folder beneath `root`; with `create` it is made if it is missing or unfinished. When
    /// this returns, the folder and what is in it survive a power cut.
    ///
    /// Of one that exists: 21 calls, 3 of them for the boot id, and no sync.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is none, or an unfinished one, and none is to be made.
    /// [`ErrorKind::NotADirectory`]: the name is something else's, such as a symlink's.
    /// [`ErrorKind::PermissionDenied`]: others own it, or may change names in it.
    /// [`ErrorKind::CrossDevice`]: it is on another mount than the root. [`ErrorKind::Unsupported`]: of a
    /// later version. [`ErrorKind::Corrupt`]: a file in it is damaged or missing.
    /// [`ErrorKind::AlreadyExists`]: it was no workspace's, and holds other things. Else as open(2),
    /// mkdir(2), write(2), fsync(2).
    pub(crate) fn open(root: &Root, create: bool) -> Result<Self> {
        let missing = || {
            Error::of_kind(OP, ErrorKind::NotFound)
                .with_path(shown())
                .with_advice("there is no workspace here, or none that was finished: create it")
        };
        let dir = match open_folder(root) {
            Err(Errno::NOENT | Errno::ACCESS) if create => setup::folder(root)?,
            Err(Errno::NOENT) => return Err(missing()),
            done => done.map_err(|e| refusal("openat", e))?,
        };
        let facts = check(root, &dir)?;
        let format = match Format::read(&dir)? {
            Some(format) => format,
            None if create => {
                setup::fill(root, &dir)?;
                Format::read(&dir)?.ok_or_else(missing)?
            }
            None => return Err(missing()),
        };
        let claims = Arc::new(Claims::open(&dir)?);
        let ledger = Ledger::open(&dir, &claims)?;
        let folder = FolderId::of(&facts);
        let state = Self {
            logs: open_sub(&dir, Sub::Logs)?,
            staged: open_sub(&dir, Sub::Staged)?,
            kept: open_sub(&dir, Sub::Kept)?,
            retired: open_sub(&dir, Sub::Retired)?,
            keys: open_sub(&dir, Sub::Keys)?,
            conflicts: open_sub(&dir, Sub::Conflicts)?,
            known: conflict::Known::default(),
            displaced: Displaced::default(),
            incarnation: Incarnation::of(&facts)?,
            copy: format.folder != folder,
            each: sys::fs_kind(&dir).map_err(|e| Error::new(OP, "fstatfs", e))? == FsKind::Fuse,
            id: format.id,
            dir,
            claims,
            ledger,
            folder,
        };
        // Whoever gave the folder or its format a name may have died before the sync.
        if state.ledger.settled()? != state.id {
            state.sync_names()?;
            sync_names(root.as_fd()).map_err(|e| Error::new(OP, "fsync", e).with_path("."))?;
            state.ledger.settle(state.id)?;
        }
        Ok(state)
    }

    /// A sync has failed: nothing is taken for durable in place until the next mount.
    pub(crate) fn doubt(&self) -> Result<()> {
        self.ledger.doubt(self.incarnation)
    }

    /// Makes everything on the file system durable.
    ///
    /// # Errors
    /// If it fails, everybody who would rely on a later one is told as well: the kernel tells each open file
    /// of an error once, and nobody who opens one afterwards.
    pub(crate) fn syncfs(&self, fd: impl AsFd) -> sys::Result<()> {
        sys::syncfs(fd).inspect_err(|_| {
            // What is returned says the same to who asked.
            let _ = self.doubt();
        })
    }

    /// Removes what commits have left to be removed: how many files.
    pub(super) fn purge(&self) -> usize {
        self.displaced.purge(&self.staged)
    }

    /// Where work on a transaction goes on.
    pub(crate) fn ctx<'a>(
        &'a self,
        root: &'a Root,
        names: &'a mut dyn FnMut() -> Result<Name>,
    ) -> Ctx<'a> {
        Ctx {
            root,
            staged: &self.staged,
            kept: &self.kept,
            retired: &self.retired,
            keys: &self.keys,
            state: Some(self),
            each: self.each,
            // By itself a file could not be synced that may be neither read nor written.
            logs_contents: !self.each,
            later: Later::NEVER,
            device: OnceCell::new(),
            names,
        }
    }

    /// The mount and boot that it was opened in.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the folder is a copy of the one that was made, as by `cp -a` or from a backup. What its logs
    /// say of inodes is true of the original only. A root that was renamed or moved is no copy.
    pub(crate) fn is_copy(&self) -> bool {
        self.copy
    }

    /// Makes a copy a workspace of its own, with a fresh id.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`]: its logs hold work that is not finished, which belongs to the original.
    pub(crate) fn adopt(&mut self) -> Result<()> {
        let _alone = self.ledger.recovery_lock(ADOPT_WAIT)?;
        let _gate = self.ledger.close_gate(ADOPT_WAIT)?;
        let now = Format::read(&self.dir)?;
        // Perhaps somebody else has just done it.
        let format = match now.filter(|f| f.folder == self.folder) {
            Some(format) => format,
            None => {
                if let Some(index) = writers::first_with_open_work(self)? {
                    let path = format!("{}/{index:08x}", Sub::Logs.path());
                    return Err(Error::of_kind(OP, ErrorKind::Changed)
                        .with_path(path)
                        .with_detail("this is a copy of a workspace that had unfinished work")
                        .with_advice(
                            "open the original, which finishes it, and copy again; or remove the \
                             copy's state folder, and look over what it holds",
                        ));
                }
                let format = Format::fresh(self.folder)?;
                format.write(&self.dir)?;
                format
            }
        };
        self.sync_names()?;
        self.ledger.settle(format.id)?;
        self.id = format.id;
        self.copy = false;
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        sync_names(self.dir.as_fd()).map_err(|e| Error::new(OP, "fsync", e).with_path(shown()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.purge();
    }
}

pub(super) fn open_folder(root: &Root) -> sys::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    sys::openat(root, FOLDER, flags, Mode::empty()).map(Dir::from)
}

/// Why the name cannot be opened as a directory.
#[cold]
pub(super) fn refusal(call: &'static str, errno: Errno) -> Error {
    let error = Error::new(OP, call, errno).with_path(shown());
    match errno {
        // With O_DIRECTORY the kernel says ENOTDIR of a symlink.
        Errno::NOTDIR | Errno::LOOP => {
            error.with_advice("it must be a folder, not a link or a file: move it out of the way")
        }
        _ => error,
    }
}

/// Whether nobody else can change what is in the folder, and whether names can be moved between it and the
/// root.
pub(super) fn check(root: &Root, dir: &Dir) -> Result<Metadata> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(shown());
    let refuse = |kind, why: &'static str, advice: &'static str| {
        let error = Error::of_kind(OP, kind).with_path(shown());
        Err(error.with_detail(why).with_advice(advice))
    };
    let facts = sys::statx(dir, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    let above = sys::statx(root, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    if facts.uid() != sys::fsuid().map_err(fail("setfsuid"))? {
        return refuse(
            ErrorKind::PermissionDenied,
            "it belongs to another user",
            "open it as its owner, or give it to this user with all that is in it",
        );
    }
    if facts.mode().intersects(Mode::WGRP | Mode::WOTH) {
        return refuse(
            ErrorKind::PermissionDenied,
            "others may change what is in it",
            "look whether somebody did, then set its mode to 0700",
        );
    }
    let same_mount = match (facts.mount_id(), above.mount_id()) {
        (Some(own), Some(above)) => own == above,
        // Before Linux 5.8. A bind mount of the same device shows when a name is moved.
        _ => facts.id().dev == above.id().dev,
    };
    if !same_mount {
        return refuse(
            ErrorKind::CrossDevice,
            "it is on another mount than the root",
            "unmount it: new files are moved from it into the tree, which cannot cross mounts",
        );
    }
    Ok(facts)
}

/// Opens a folder inside. An empty one may have been lost, as copies and cleaners do: it is made again. But
/// without the logs nobody knows what was promised.
fn open_sub(dir: &Dir, sub: Sub) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    match sys::openat(dir, sub.name(), flags, Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(Errno::NOENT) if sub != Sub::Logs => {
            let made = setup::make_sub(dir, sub)?;
            sync_names(dir.as_fd()).map_err(|e| Error::new(OP, "fsync", e).with_path(shown()))?;
            Ok(made)
        }
        Err(e) => {
            let error = Error::new(OP, "openat", e).with_path(sub.path());
            Err(match e {
                Errno::NOENT => error.with_kind(ErrorKind::Corrupt).with_advice(
                    "restore it; if it is lost for good, move the state folder out of the way and \
                     look over what it holds",
                ),
                _ => error,
            })
        }
    }
}

#[cfg(test)]
mod tests;
