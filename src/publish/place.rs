//! The step that publishes: one rename, link or exchange, and the sync of the directories.
//!
//! What is here knows names and identities only, and serves files and folders alike.

use super::Note;
use super::staged::has;
use crate::root::{rename_error, sync_names};
use crate::sys::{
    self, AtFlags, BorrowedFd, Errno, FileId, LockKind, Metadata, Mode, OFlags, OwnedFd,
    RenameFlags,
};
use crate::{DiskState, Error, ErrorKind, Name};
use std::path::{Path, PathBuf};

/// How often an exchange is taken back before it is left as it is: once for each time that somebody replaces
/// the file between two calls.
const MOST_TURNS: u32 = 100;

/// What became of an exchange.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // One value lives at a time, on the stack.
pub(super) enum Exchanged {
    /// Done; the old thing, of which these are the facts, has the temporary name. `None`: it is gone already.
    Done(Option<Metadata>),
    /// `RENAME_EXCHANGE` is missing here; nothing was changed.
    Unsupported,
}

/// Keeps others away from a directory while an exchange in it may still be taken back: sweepers, who would
/// judge what came out of it, and further writers of that kind, who would take the new file for the one that
/// is there. All of them work under an exclusive flock(2) of the directory. Where it cannot be locked,
/// sweepers cannot judge either.
///
/// The lock is on a descriptor of its own, so that it ends with this value alone.
pub(super) fn hold_others(dir: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = sys::openat(dir, c".", flags, Mode::empty()).ok()?;
    // They hold it for a few calls, which on a busy machine, or behind another's sync, may take a while.
    // Whoever else holds it for long keeps sweepers out as well.
    for _ in 0..1000 {
        match sys::try_flock(&fd, LockKind::Exclusive) {
            Err(Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
            _ => break,
        }
    }
    Some(fd)
}

/// One publication: what stands at (`from_dir`, `from`) gets the name (`to_dir`, `to`).
pub(super) struct Move<'a> {
    pub(super) operation: &'static str,
    pub(super) from_dir: BorrowedFd<'a>,
    pub(super) from: &'a Name,
    pub(super) to_dir: BorrowedFd<'a>,
    pub(super) to: &'a Name,
    /// Of what is published.
    pub(super) id: FileId,
    pub(super) is_dir: bool,
    /// The directory `from_dir` as the caller would write it.
    pub(super) from_folder: &'a Path,
    /// The target as the caller wrote it.
    pub(super) shown: &'a Path,
    /// Both directories are one.
    pub(super) same_dir: bool,
}

impl Move<'_> {
    /// Renames over whatever file is there.
    pub(super) fn replace(&self) -> Result<(), Error> {
        let done = self.rename(RenameFlags::empty());
        done.map_err(|e| self.rename_error(e, RenameFlags::empty()))
    }

    /// Gives the name if it is free.
    ///
    /// Where `RENAME_NOREPLACE` is missing: for a file link(2), which refuses a taken name, then unlink(2)
    /// of the temporary name; for a directory mkdir(2) of the name as the exclusive claim, then rename(2)
    /// over that empty directory.
    pub(super) fn create_new(&self, notes: &mut Vec<Note>) -> Result<(), Error> {
        match self.rename(RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => {
                return done.map_err(|e| self.rename_error(e, RenameFlags::NOREPLACE));
            }
        }
        notes.push(Note::NoReplaceByLink);
        if self.is_dir {
            self.claim_then_replace()
        } else {
            self.link_then_unlink(notes)
        }
    }

    fn link_then_unlink(&self, notes: &mut Vec<Note>) -> Result<(), Error> {
        let (from, to) = (self.from.as_c_str(), self.to.as_c_str());
        sys::linkat(self.from_dir, from, self.to_dir, to).map_err(|e| {
            let error = self.error(Error::new(self.operation, "linkat", e));
            if error.disk_state() == DiskState::Published {
                return self.with_left(error);
            }
            match e {
                Errno::PERM | Errno::OPNOTSUPP => error.with_kind(ErrorKind::Unsupported).with_advice(
                    "this file system has neither RENAME_NOREPLACE nor hard links: nothing here \
                     can create a name without perhaps replacing one",
                ),
                _ => error,
            }
        })?;
        if sys::unlinkat(self.from_dir, from).is_err() {
            // Published under its name; the second one is litter that a sweep finds.
            notes.push(Note::Left(self.source_shown()));
        }
        Ok(())
    }

    fn claim_then_replace(&self) -> Result<(), Error> {
        sys::mkdirat(self.to_dir, self.to.as_c_str(), Mode::RWXU).map_err(|e| {
            let error = self.error(Error::new(self.operation, "mkdirat", e));
            // Perhaps made all the same, or somebody else's: not ours to remove.
            match e {
                Errno::EXIST => error,
                _ if has(self.to_dir, self.to) => {
                    self.with_left(error).with_state(DiskState::Indeterminate)
                }
                _ => error,
            }
        })?;
        self.rename(RenameFlags::empty()).map_err(|e| {
            let error = self.rename_error(e, RenameFlags::empty());
            // It was carried out all the same: what has the name is no claim, even if it is empty.
            if error.disk_state() == DiskState::Published {
                return error;
            }
            // The claim is an empty directory, or somebody has put something in it, and then it stays theirs.
            match sys::rmdirat(self.to_dir, self.to.as_c_str()) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => error,
                Err(_) => error
                    .with_state(DiskState::Indeterminate)
                    .with_left(self.shown),
            }
        })
    }

    /// Exchanges with what is there, if that may be replaced: looks at it before, so that a refusal
    /// is not seen by anybody, and at what came out of the exchange, which decides; then the exchange stays
    /// or is taken back. Afterwards the old thing stands at (`from_dir`, `from`).
    pub(super) fn exchange_if(
        &self,
        may_replace: impl Fn(&Metadata) -> bool,
    ) -> Result<Exchanged, Error> {
        match sys::statx(self.to_dir, self.to.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            // An exchange of a thing with itself does nothing, and what was replaced would be the new one.
            Ok(meta) if meta.id() == self.id => {
                return Err(Error::of_kind(self.operation, ErrorKind::InvalidInput)
                    .with_path(self.shown)
                    .with_advice("the source and the target are one"));
            }
            Ok(meta) if may_replace(&meta) => {}
            Ok(_) => return Err(self.changed()),
            Err(e) => return Err(Error::new(self.operation, "statx", e).with_path(self.shown)),
        }
        match self.rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS) => return Ok(Exchanged::Unsupported),
            Err(e) => {
                let error = self.rename_error(e, RenameFlags::EXCHANGE);
                return Err(match error.disk_state() {
                    DiskState::Unchanged => error,
                    _ => self.with_left(error),
                });
            }
        }
        match sys::statx(
            self.from_dir,
            self.from.as_c_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(displaced) if may_replace(&displaced) => Ok(Exchanged::Done(Some(displaced))),
            // A sweeper may have removed it already: it was to go.
            Err(Errno::NOENT) => Ok(Exchanged::Done(None)),
            Ok(_) => Err(self.exchange_back()),
            Err(e) => Err(self.with_left(
                Error::new(self.operation, "statx", e)
                    .with_path(self.shown)
                    .with_state(DiskState::Published)
                    .with_advice("what was there before has the temporary name"),
            )),
        }
    }

    /// The error where an exchange that is needed is not to be had.
    pub(super) fn unsupported(&self) -> Error {
        self.rename_error(Errno::INVAL, RenameFlags::EXCHANGE)
            .with_state(DiskState::Unchanged)
    }

    fn changed(&self) -> Error {
        Error::of_kind(self.operation, ErrorKind::Changed)
            .with_path(self.shown)
            .with_advice("somebody changed it meanwhile: read it again and decide anew")
    }

    /// Takes an exchange back, because what came out is not what was to be replaced.
    ///
    /// If meanwhile somebody replaced ours as well, theirs is put back in its place, and so on until nobody
    /// was in between. What came out before that stays under the temporary name, for a person to look at.
    fn exchange_back(&self) -> Error {
        let stuck = |call, e: Errno| {
            let error = match call {
                Some(call) => Error::new(self.operation, call, e).with_path(self.shown),
                None => self.rename_error(e, RenameFlags::EXCHANGE),
            };
            self.with_left(error)
                .with_state(DiskState::Indeterminate)
                .with_advice("what was there before has the temporary name")
        };
        // Held, so that no other thing can get its number while we compare.
        let at_temporary = || -> Result<_, (&'static str, Errno)> {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let fd = sys::openat(self.from_dir, self.from.as_c_str(), flags, Mode::empty())
                .map_err(|e| ("openat", e))?;
            let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| ("statx", e))?;
            Ok((meta.id(), fd))
        };
        // What we have put there, and what we shall put there.
        let mut put = None;
        let mut next = match at_temporary() {
            Ok(found) => found,
            Err((call, e)) => return stuck(Some(call), e),
        };
        for _ in 0..MOST_TURNS {
            if let Err(e) = self.rename(RenameFlags::EXCHANGE) {
                return stuck(None, e);
            }
            let came = match at_temporary() {
                Ok(found) => found,
                Err((call, e)) => return stuck(Some(call), e),
            };
            match &put {
                None if came.0 == self.id => return self.changed(),
                Some((id, _)) if came.0 == *id => return self.with_left(self.changed()),
                _ => put = Some(std::mem::replace(&mut next, came)),
            }
        }
        stuck(None, Errno::BUSY)
    }

    /// The error, naming the temporary as left behind.
    pub(super) fn with_left(&self, error: Error) -> Error {
        error.with_left(self.source_shown())
    }

    /// Where the temporary, or what came out of an exchange, is.
    pub(super) fn source_shown(&self) -> PathBuf {
        self.from_folder.join(self.from)
    }

    fn rename(&self, flags: RenameFlags) -> Result<(), Errno> {
        let (from, to) = (self.from.as_c_str(), self.to.as_c_str());
        sys::renameat2(self.from_dir, from, self.to_dir, to, flags)
    }

    /// Makes the names durable: of a move between two directories the source first, or a crash could show the
    /// file under both names (`docs/durability.md`).
    pub(super) fn sync(&self) -> Result<(), Error> {
        if !self.same_dir {
            sync_dir(self.operation, self.from_dir).map_err(|e| e.with_path(self.shown))?;
        }
        sync_dir(self.operation, self.to_dir).map_err(|e| e.with_path(self.shown))
    }

    fn rename_error(&self, errno: Errno, flags: RenameFlags) -> Error {
        let (from, to) = (self.from.as_c_str(), self.to.as_c_str());
        let (from_dir, to_dir) = (self.from_dir, self.to_dir);
        self.error(rename_error(
            self.operation,
            errno,
            from_dir,
            from,
            to_dir,
            to,
            flags,
        ))
    }

    /// The error of a rename or link, with the state that the disk is really in: a call that answers an error
    /// may have been carried out all the same (on network storage), so that is looked up.
    fn error(&self, error: Error) -> Error {
        let error = error.with_path(self.shown).with_state(self.state());
        match error.errno() {
            Some(Errno::EXIST | Errno::NOTEMPTY) => error.with_kind(ErrorKind::AlreadyExists),
            _ => advise(error),
        }
    }

    fn state(&self) -> DiskState {
        let look = |dir, name: &Name| sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let is_new = |found: Result<Metadata, Errno>| match found {
            Ok(meta) => Some(meta.id() == self.id),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Some(false),
            Err(_) => None,
        };
        match (
            is_new(look(self.to_dir, self.to)),
            is_new(look(self.from_dir, self.from)),
        ) {
            (Some(true), _) => DiskState::Published,
            (Some(false), Some(true)) => DiskState::Unchanged,
            _ => DiskState::Indeterminate,
        }
    }
}

/// Makes the names in a directory durable, in which something was published.
pub(super) fn sync_dir(operation: &'static str, dir: BorrowedFd<'_>) -> Result<(), Error> {
    sync_names(dir).map_err(|e| {
        Error::new(operation, "fsync", e)
            .with_state(DiskState::Published)
            .with_advice(
                "syncing the directory failed: the new state may be lost in a power cut; check the \
             device, then publish again",
            )
    })
}

/// Adds to the error of a failed rename what a publisher can do about it.
pub(super) fn advise(error: Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::Busy => {
            "the target is a mount point, such as a bind-mounted file or folder, and cannot be \
             renamed over: change it where it was mounted from"
        }
        ErrorKind::LowerLayer => {
            "overlayfs cannot rename a folder of a lower layer (redirect_dir is off): copy it \
             into a new folder first, or publish by a symlink"
        }
        ErrorKind::CrossDevice => {
            "the two names are on different mounts, subvolumes or projects: stage beside the \
             target, or copy"
        }
        ErrorKind::PermissionDenied => {
            "needed: write and search permission on the directory; in a sticky directory the \
             replaced file must be yours; an immutable or append-only file cannot be replaced"
        }
        ErrorKind::Unsupported => {
            "this kernel or file system lacks the call; `steadfast doctor` shows what it can"
        }
        ErrorKind::InvalidInput => "one of the two names is inside the other",
        _ => return error,
    };
    error.with_advice(advice)
}
