//! A file that lacks nothing but the sync of its content and its name.

use super::pending::{PendingFile, REPLACE};
use super::place::{Exchanged, Move, hold_others};
use super::terms::Wanted;
use super::{Note, Receipt};
use crate::root::temp_name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileId};
use crate::{DiskState, Error, Result};
use std::path::Path;

/// Content and attributes are written, and it has a temporary name.
#[derive(Debug)]
pub(super) struct Ready<'r> {
    pub(super) file: PendingFile<'r>,
}

impl Ready<'_> {
    pub(super) fn shown(&self) -> &Path {
        &self.file.to.shown
    }

    pub(super) fn id(&self) -> FileId {
        self.file.staged.born.id
    }

    pub(super) fn syncs_content(&self) -> bool {
        self.file.terms.durability.syncs_content()
    }

    pub(super) fn syncs_names(&self) -> bool {
        self.file.terms.durability.syncs_names()
    }

    /// The directories whose names a publication changes, in the order in which they are to be synced.
    pub(super) fn dirs(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [
            Some(self.file.staged.dir.as_fd()),
            self.file.to.dir.as_ref().map(AsFd::as_fd),
        ]
    }

    /// fsync of the file, as far as the durability asks for it.
    pub(super) fn sync_content(&self) -> Result<()> {
        if !self.syncs_content() {
            return Ok(());
        }
        sys::fsync(&self.file.staged.fd).map_err(|e| {
            Error::new(REPLACE, "fsync", e)
                .with_advice("the content may not be on the device: begin again")
        })
    }

    /// Publishes and syncs the directories, or discards if something before that failed.
    pub(super) fn publish_if(mut self, before: Result<()>) -> Result<Receipt> {
        let done = before.and_then(|()| self.place()).and_then(|()| {
            if self.syncs_names() {
                self.step().sync()
            } else {
                Ok(())
            }
        });
        self.conclude(done)
    }

    /// Publishes; the caller syncs the directories.
    pub(super) fn publish(mut self) -> Result<Receipt> {
        let done = self.place();
        self.conclude(done)
    }

    fn step(&self) -> Move<'_> {
        let (staged, to) = (self.file.staged.dir.as_fd(), &self.file.to);
        Move {
            operation: REPLACE,
            from_dir: staged,
            from: self.file.staged.name(),
            to_dir: to.dir.as_ref().map_or(staged, AsFd::as_fd),
            to: &to.name,
            id: self.id(),
            is_dir: false,
            from_folder: self.file.staged.folder(),
            shown: &to.shown,
            same_dir: to.dir.is_none(),
        }
    }

    /// The publication itself.
    fn place(&mut self) -> Result<()> {
        if let Wanted::IfUnchanged(expected) = &self.file.terms.target {
            let fail = |call, e| Error::new(REPLACE, call, e);
            let name = temp_name::exchange(self.id().ino, expected.mark(), false)
                .map_err(|e| fail("getrandom", e))?;
            let renamed = self.file.staged.rename(name);
            renamed.map_err(|e| fail("renameat2", e))?;
        }
        let mut notes = std::mem::take(&mut self.file.notes);
        let placed = self.place_by_target(&mut notes);
        self.file.notes = notes;
        placed
    }

    fn place_by_target(&self, notes: &mut Vec<Note>) -> Result<()> {
        let step = self.step();
        match &self.file.terms.target {
            Wanted::CreateOrReplace => step.replace(),
            Wanted::CreateNew => step.create_new(notes),
            Wanted::Replace { links } => step
                .exchange_if(|found| found.is_file() || *links && found.is_symlink())
                .and_then(|found| retire_file(&step, found, notes)),
            Wanted::IfUnchanged(expected) => {
                let _held = hold_others(step.from_dir);
                let _target = (!step.same_dir).then(|| hold_others(step.to_dir));
                step.exchange_if(|found| expected.same_content(found))
                    .and_then(|found| retire_file(&step, found, notes))
            }
        }
    }

    fn conclude(mut self, done: Result<()>) -> Result<Receipt> {
        match done {
            Ok(()) => {
                self.file.staged.release();
                Ok(Receipt {
                    id: self.id(),
                    replaced: self.file.old.as_ref().map(|old| old.meta),
                    notes: std::mem::take(&mut self.file.notes),
                })
            }
            Err(error) => {
                // Else the temporary name is gone, or holds what must not be removed.
                if error.disk_state() != DiskState::Unchanged || !error.left_behind().is_empty() {
                    self.file.staged.release();
                }
                Err(self.file.abandon(error))
            }
        }
    }
}

impl AsFd for Ready<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.staged.fd.as_fd()
    }
}

/// Removes the replaced file, which stands at the temporary name if it was exchanged. Without an exchange
/// it is replaced here.
fn retire_file(step: &Move<'_>, found: Exchanged, notes: &mut Vec<Note>) -> Result<()> {
    if matches!(found, Exchanged::Unsupported) {
        notes.push(Note::CheckedNotExchanged);
        return step.replace();
    }
    match sys::unlinkat(step.from_dir, step.from.as_c_str()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(_) => notes.push(Note::Left(step.source_shown())),
    }
    Ok(())
}
