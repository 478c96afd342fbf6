//! A file while it is written: not visible, gone if it is dropped, published by `commit`.

use super::attributes::{self, Old};
use super::ready::Ready;
use super::staged::Staged;
use super::terms::Terms;
use super::{Note, Receipt};
use crate::root::Place;
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, Mode};
use crate::tree;
use crate::{DiskState, Error, ErrorKind, Name, Result};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

pub(super) const REPLACE: &str = "publish file";

/// A file that is being written and has not been published.
///
/// It is an [`io::Write`], [`io::Read`] and [`io::Seek`] on a temporary that no reader finds. [`commit`]
/// publishes it; dropping or [`discard`]ing it removes it. After a failed write it cannot be committed, so
/// that an ignored error never publishes a file that is cut short.
///
/// [`commit`]: PendingFile::commit
/// [`discard`]: PendingFile::discard
#[derive(Debug)]
#[must_use = "dropping it discards the content; call commit()"]
pub struct PendingFile<'r> {
    pub(super) staged: Staged<'r>,
    pub(super) to: To<'r>,
    pub(super) terms: Terms,
    /// The replaced file's facts and attributes.
    pub(super) old: Option<Box<Old>>,
    pub(super) notes: Vec<Note>,
    /// Bytes that were written through this value.
    pub(super) written: u64,
    poisoned: Option<Errno>,
}

/// Where it will be published.
#[derive(Debug)]
pub(super) struct To<'r> {
    /// `None`: the directory that it is staged in.
    pub(super) dir: Option<Place<'r>>,
    pub(super) name: Name,
    pub(super) shown: PathBuf,
}

impl<'r> PendingFile<'r> {
    pub(super) fn new(
        staged: Staged<'r>,
        to: To<'r>,
        terms: Terms,
        old: Option<Box<Old>>,
        notes: Vec<Note>,
    ) -> Self {
        Self {
            staged,
            to,
            terms,
            old,
            notes,
            written: 0,
            poisoned: None,
        }
    }

    /// Publishes the file: attributes, sync, name, sync of the directory, as the [`FileOptions`] say.
    ///
    /// # Errors
    /// With [`DiskState::Unchanged`](crate::DiskState::Unchanged) the old state is there and the temporary
    /// is gone: a write failed earlier ([`ErrorKind::Poisoned`]), length or hash is not as announced
    /// ([`ErrorKind::Mismatch`]), an attribute could not be set, the disk is full, the name is taken
    /// ([`ErrorKind::AlreadyExists`]), the old file is not what was expected ([`ErrorKind::Changed`],
    /// [`ErrorKind::NotFound`]), the target is a mount point ([`ErrorKind::Busy`]). With
    /// [`DiskState::Published`](crate::DiskState::Published) the new file is visible, but the directory
    /// could not be synced.
    ///
    /// # After a crash
    /// The old file is there or the new one. A temporary that stays is removed by
    /// [`sweep`](crate::publish::sweep).
    ///
    /// [`FileOptions`]: super::FileOptions
    pub fn commit(self) -> Result<Receipt> {
        operation!("publish file", path = self.to.shown);
        let ready = self.prepare()?;
        let synced = ready.sync_content();
        ready.publish_if(synced)
    }

    /// Removes the temporary and its content. Dropping does the same, and cannot say if it failed.
    ///
    /// # Errors
    /// As unlink(2), with the temporary's path in [`Error::left_behind`].
    pub fn discard(mut self) -> Result<()> {
        self.staged.discard().map_err(|e| {
            let error = Error::new("discard file", "unlinkat", e).with_path(&self.to.shown);
            self.staged.abandon(error)
        })
    }

    /// Sets the length, as ftruncate(2).
    ///
    /// # Errors
    /// As ftruncate(2); the file cannot be committed then.
    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        let done = sys::ftruncate(&self.staged.fd, len);
        self.note_write(done)
    }

    /// Discards because of an error, which learns of a temporary that stays.
    pub(super) fn abandon(mut self, error: Error) -> Error {
        self.staged.abandon(error.with_default_path(&self.to.shown))
    }

    /// After the caller's own code has written: goes on, or discards and says why.
    pub(crate) fn filled(self, done: io::Result<()>) -> Result<Self> {
        let Err(error) = done else {
            return Ok(self);
        };
        let error = match self.poisoned {
            Some(errno) => Error::new(REPLACE, "write", errno),
            None => Error::of_kind(REPLACE, ErrorKind::Source).with_source(error),
        };
        Err(self.abandon(error))
    }

    /// The length so far.
    pub(super) fn len(&self) -> Result<u64> {
        let meta = sys::statx(&self.staged.fd, c"", AtFlags::EMPTY_PATH);
        meta.map(|m| m.len())
            .map_err(|e| Error::new(REPLACE, "statx", e))
    }

    /// Checks the content and sets the attributes: what is left is syncing and the name.
    pub(super) fn prepare(mut self) -> Result<Ready<'r>> {
        match self.finish() {
            Ok(()) => Ok(Ready { file: self }),
            Err(error) => Err(self.abandon(error)),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let fail = |call, e| Error::new(REPLACE, call, e);
        if let Some(errno) = self.poisoned {
            return Err(fail("write", errno)
                .with_kind(ErrorKind::Poisoned)
                .with_advice("a write to this file failed before: begin again"));
        }
        self.check_content()?;
        let (old, preserve) = (self.old.as_deref(), self.terms.preserve);
        let (fd, explicit) = (self.staged.fd.as_fd(), self.terms.explicit());
        let new = self.staged.born.rights;
        attributes::apply(fd, new, old, preserve, explicit, &mut self.notes)
            .map_err(|(call, e)| fail(call, e))?;
        // A name first, if it has none: syncing a file without one can cost an ext4 with fast_commit its
        // journal (`docs/durability.md`).
        match self.staged.link() {
            // ENOENT: a refusal that cannot be told from a removed directory, in which nothing can be made.
            Err(Errno::OPNOTSUPP | Errno::NOENT) => self.restage(),
            done => done.map_err(|e| fail("linkat", e)),
        }
    }

    fn check_content(&self) -> Result<()> {
        let mismatch =
            |text: String| Error::of_kind(REPLACE, ErrorKind::Mismatch).with_detail(text);
        if let Some(want) = self.terms.expect_len() {
            let found = self.len()?;
            if found != want {
                return Err(mismatch(format!("{found} bytes instead of {want}")));
            }
        }
        #[cfg(feature = "sha256")]
        if let Some(want) = self.terms.expect_sha256() {
            let found = super::file::sha256_of(&self.staged.fd)
                .map_err(|e| Error::new(REPLACE, "pread64", e))?;
            if found != want {
                return Err(mismatch("its SHA-256 differs".to_owned()));
            }
        }
        Ok(())
    }

    /// Copies an unnamed file that cannot get a name here (no `AT_EMPTY_PATH`, no procfs) into a named one,
    /// content and attributes.
    fn restage(&mut self) -> Result<()> {
        let fail = |call, e| Error::new(REPLACE, call, e);
        let dir = self.staged.dir.as_fd().try_clone_to_owned();
        let dir = dir.map_err(|e| fail("fcntl", crate::root::errno_of(&e)))?;
        let named = Staged::named(
            Place::Below(dir),
            self.staged.folder().to_owned(),
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|e| fail("openat", e))?;
        sys::seek(&self.staged.fd, SeekFrom::Start(0)).map_err(|e| fail("lseek", e))?;
        let preserve = tree::Preserve {
            times: self.terms.sets_times(),
            ..Default::default()
        };
        let (from, to) = (self.staged.fd.as_fd(), named.fd.as_fd());
        let watch: &mut tree::Watch<'_> = &mut |_| ControlFlow::Continue(());
        let copied = tree::copy_file(from, to, preserve, watch);
        let copied =
            copied.map_err(|e| e.with_operation(REPLACE).with_state(DiskState::Unchanged))?;
        self.notes.extend(Note::of_copy(&copied));
        self.notes.push(Note::StagedByName);
        self.staged = named;
        Ok(())
    }

    /// The content of another file.
    pub(super) fn take_content(&mut self, from: BorrowedFd<'_>) -> Result<()> {
        let watch: &mut tree::Watch<'_> = &mut |_| ControlFlow::Continue(());
        let copied = tree::copy_content(from, self.staged.fd.as_fd(), watch);
        let copied = copied.map_err(|e| e.with_operation(REPLACE))?;
        self.notes.extend(Note::of_copy(&copied));
        Ok(())
    }

    /// Content and attributes of another file.
    pub(super) fn take_all(
        &mut self,
        from: BorrowedFd<'_>,
        watch: &mut tree::Watch<'_>,
    ) -> Result<()> {
        let (to, preserve) = (self.staged.fd.as_fd(), tree::Preserve::default());
        let copied = tree::copy_file(from, to, preserve, watch);
        let copied = copied.map_err(|e| e.with_operation(REPLACE))?;
        self.notes.extend(Note::of_copy(&copied));
        Ok(())
    }

    fn note_write<T>(&mut self, done: std::result::Result<T, Errno>) -> io::Result<T> {
        done.map_err(|e| {
            self.poisoned.get_or_insert(e);
            e.into()
        })
    }
}

impl Write for PendingFile<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let done = sys::write(&self.staged.fd, buf);
        let len = self.note_write(done)?;
        self.written = self.written.saturating_add(len as u64);
        Ok(len)
    }

    /// Does nothing: there is no buffer in this process.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PendingFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(sys::read(&self.staged.fd, buf)?)
    }
}

impl Seek for PendingFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        Ok(sys::seek(&self.staged.fd, to)?)
    }
}

impl AsFd for PendingFile<'_> {
    /// The temporary's descriptor. What is written through it directly is not seen by the check for failed
    /// writes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.staged.fd.as_fd()
    }
}
