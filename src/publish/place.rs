//! The step that publishes: one rename, link or exchange, and the sync of the directories.
//!
//! What is here knows names and identities only, and serves files and folders alike.

use super::Note;
use crate::root::sync_names;
use crate::sys::{self, AtFlags, BorrowedFd, Errno, FileId, FsKind, Metadata, Mode, RenameFlags};
use crate::{DiskState, Error, ErrorKind, Name};
use std::path::Path;

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
    /// The target as the caller wrote it.
    pub(super) shown: &'a Path,
    /// Both directories are one.
    pub(super) same_dir: bool,
}

impl Move<'_> {
    /// Renames over whatever file is there.
    pub(super) fn replace(&self) -> Result<(), Error> {
        let done = self.rename(RenameFlags::empty());
        done.map_err(|e| self.error("renameat", e))
    }

    /// Gives the name if it is free.
    ///
    /// Where `RENAME_NOREPLACE` is missing: for a file link(2), which refuses a taken name, then unlink(2) of the
    /// temporary name; for a directory mkdir(2) of the name as the exclusive claim, then rename(2) over that
    /// empty directory.
    pub(super) fn create_new(&self, notes: &mut Vec<Note>) -> Result<(), Error> {
        match self.rename(RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {}
            done => return done.map_err(|e| self.error("renameat2", e)),
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
            let error = self.error("linkat", e);
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
            notes.push(Note::Left(self.shown.with_file_name(self.from)));
        }
        Ok(())
    }

    fn claim_then_replace(&self) -> Result<(), Error> {
        sys::mkdirat(self.to_dir, self.to.as_c_str(), Mode::RWXU)
            .map_err(|e| self.error("mkdirat", e))?;
        self.rename(RenameFlags::empty()).map_err(|e| {
            let error = self.error("renameat", e);
            // The claim is an empty directory, or somebody has put something in it, and then it stays theirs.
            match sys::rmdirat(self.to_dir, self.to.as_c_str()) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => error,
                Err(_) => error
                    .with_state(DiskState::Indeterminate)
                    .with_left(self.shown),
            }
        })
    }

    /// Exchanges with what is there. Afterwards that stands at (`from_dir`, `from`).
    ///
    /// `Ok(false)`: the kernel or file system has no `RENAME_EXCHANGE`, and nothing was changed.
    pub(super) fn exchange(&self) -> Result<bool, Error> {
        match self.rename(RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS) => Ok(false),
            Err(e) => {
                let error = self.error("renameat2", e);
                match error.disk_state() {
                    DiskState::Unchanged => Err(error),
                    _ => Err(self.with_left(error)),
                }
            }
        }
    }

    /// The error, naming the temporary as left behind.
    fn with_left(&self, error: Error) -> Error {
        error.with_left(self.shown.with_file_name(self.from))
    }

    /// What stands at the temporary's name.
    pub(super) fn displaced(&self) -> Result<Metadata, Errno> {
        sys::statx(
            self.from_dir,
            self.from.as_c_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// Takes an exchange back, because what came out is not what was to be replaced.
    ///
    /// If meanwhile somebody replaced our file as well, theirs is put back in its place, and what came out
    /// first stays under the temporary name, for a person to look at.
    pub(super) fn exchange_back(&self) -> Result<(), Error> {
        let changed = || {
            Error::of_kind(self.operation, ErrorKind::Changed)
                .with_path(self.shown)
                .with_advice("somebody changed it meanwhile: read it again and decide anew")
        };
        let stuck = |e: Errno| {
            self.error("renameat2", e)
                .with_state(DiskState::Indeterminate)
                .with_left(self.shown.with_file_name(self.from))
                .with_advice("the file that was there before has the temporary name")
        };
        self.rename(RenameFlags::EXCHANGE).map_err(stuck)?;
        if self.displaced().map_err(stuck)?.id() == self.id {
            return Err(changed());
        }
        self.rename(RenameFlags::EXCHANGE).map_err(stuck)?;
        Err(self.with_left(changed()))
    }

    fn rename(&self, flags: RenameFlags) -> Result<(), Errno> {
        let (from, to) = (self.from.as_c_str(), self.to.as_c_str());
        sys::renameat2(self.from_dir, from, self.to_dir, to, flags)
    }

    /// Makes the names durable: of a move between two directories the source first, or a crash could show the
    /// file under both names (`docs/durability.md`).
    pub(super) fn sync(&self) -> Result<(), Error> {
        let sync = |dir| {
            sync_names(dir).map_err(|e| {
                Error::new(self.operation, "fsync", e)
                    .with_path(self.shown)
                    .with_state(DiskState::Published)
                    .with_advice(
                        "syncing the directory failed: the new state may be lost in a power cut; \
                         check the device, then publish again",
                    )
            })
        };
        if !self.same_dir {
            sync(self.from_dir)?;
        }
        sync(self.to_dir)
    }

    /// The error of a rename or link, with the state that the disk is really in: a call that answers an error may
    /// have been carried out all the same (on network storage), so that is looked up.
    fn error(&self, call: &'static str, errno: Errno) -> Error {
        let error = rename_error(self.operation, call, errno, self.to_dir, self.is_dir)
            .with_path(self.shown)
            .with_state(self.state());
        match errno {
            Errno::EXIST | Errno::NOTEMPTY => error.with_kind(ErrorKind::AlreadyExists),
            _ => error,
        }
    }

    fn state(&self) -> DiskState {
        let look = |dir, name: &Name| sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
        let is_new = |found: Result<Metadata, Errno>| match found {
            Ok(meta) => Some(meta.id() == self.id),
            Err(Errno::NOENT) => Some(false),
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

/// The error of a failed rename, with what its errno means for a publication.
pub(super) fn rename_error(
    operation: &'static str,
    call: &'static str,
    errno: Errno,
    dir: BorrowedFd<'_>,
    is_dir: bool,
) -> Error {
    let error = Error::new(operation, call, errno);
    match errno {
        Errno::BUSY => error.with_advice(
            "the target is a mount point, such as a bind-mounted file or folder, and cannot be \
             renamed over: change it where it was mounted from",
        ),
        Errno::XDEV if is_dir && sys::fs_kind(dir) == Ok(FsKind::Overlay) => {
            error.with_kind(ErrorKind::LowerLayer).with_advice(
                "overlayfs cannot rename a folder of a lower layer (redirect_dir is off): copy \
                 it into a new folder first, or publish by a symlink",
            )
        }
        Errno::XDEV => error.with_advice(
            "the two names are on different mounts, subvolumes or projects: stage beside the \
             target, or copy",
        ),
        Errno::PERM | Errno::ACCESS => error.with_advice(
            "needed: write and search permission on the directory; in a sticky directory the \
             replaced file must be yours; an immutable or append-only file cannot be replaced",
        ),
        _ => error,
    }
}
