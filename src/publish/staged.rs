//! A file that has not been published: created exclusively, removed unless it gets its name.

use super::Note;
use crate::root::{Place, temp_name};
use crate::sys::{self, Errno, Mode, OFlags, OwnedFd};
use crate::{Error, Name};
use std::path::PathBuf;

/// How often a temporary's name may turn out to be taken. With 64 random bits, once is one too many.
const TRIES: u32 = 16;

/// A temporary file and the directory that it is in.
#[derive(Debug)]
pub(super) struct Staged<'r> {
    pub(super) dir: Place<'r>,
    pub(super) fd: OwnedFd,
    /// `None` while the file has no name (`O_TMPFILE`), and once it has its final one.
    name: Option<Name>,
    /// The directory as the caller would write it, for messages.
    shown: PathBuf,
}

impl<'r> Staged<'r> {
    /// Makes a file that has a temporary name from the start.
    ///
    /// `mode` is what open(2) is given, so that the umask applies to it; the writer keeps the descriptor
    /// open for writing until the end, which is what tells a sweeper that it lives.
    pub(super) fn named(dir: Place<'r>, shown: PathBuf, mode: Mode) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        for _ in 0..TRIES {
            let name = temp_name::fresh(b't')?;
            match sys::openat(&dir, name.as_c_str(), flags, mode) {
                Ok(fd) => {
                    return Ok(Self {
                        dir,
                        fd,
                        name: Some(name),
                        shown,
                    });
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Errno::EXIST)
    }

    /// Makes a file without a name, or where that is missing, with one.
    pub(super) fn unnamed(
        dir: Place<'r>,
        shown: PathBuf,
        mode: Mode,
        notes: &mut Vec<Note>,
    ) -> Result<Self, Errno> {
        match sys::open_tmpfile(&dir, mode) {
            Ok(fd) => Ok(Self {
                dir,
                fd,
                name: None,
                shown,
            }),
            // EISDIR and ENOENT are the answers of kernels and sandboxes that do not know the flag.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                notes.push(Note::StagedByName);
                Self::named(dir, shown, mode)
            }
            Err(e) => Err(e),
        }
    }

    /// The temporary name, which an unnamed file gets now. `EOPNOTSUPP`: it cannot get one here.
    pub(super) fn name(&mut self) -> Result<Name, Errno> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        for _ in 0..TRIES {
            let name = temp_name::fresh(b't')?;
            match sys::link_descriptor(&self.fd, &self.dir, name.as_c_str()) {
                Ok(()) => {
                    self.name = Some(name.clone());
                    return Ok(name);
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Errno::EXIST)
    }

    /// Renames the temporary to another temporary name.
    pub(super) fn rename(&mut self, to: Name) -> Result<(), Errno> {
        let from = self.name()?;
        let flags = sys::RenameFlags::NOREPLACE;
        let done = sys::renameat2(&self.dir, from.as_c_str(), &self.dir, to.as_c_str(), flags);
        match done {
            // No NOREPLACE here: the name holds this file's own inode number, and so is nobody else's.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let none = sys::RenameFlags::empty();
                sys::renameat2(&self.dir, from.as_c_str(), &self.dir, to.as_c_str(), none)?;
            }
            done => done?,
        }
        self.name = Some(to);
        Ok(())
    }

    /// The temporary's path for messages.
    pub(super) fn shown(&self) -> Option<PathBuf> {
        self.name.as_ref().map(|name| self.shown.join(name))
    }

    /// The directory's path for messages.
    pub(super) fn folder(&self) -> PathBuf {
        self.shown.clone()
    }

    /// It has its final name, or is somebody else's to remove: nothing is left to discard.
    pub(super) fn release(&mut self) {
        self.name = None;
    }

    /// Removes the temporary name. Already gone is as good.
    pub(super) fn discard(&mut self) -> Result<(), Errno> {
        match self.name.take() {
            Some(name) => match sys::unlinkat(&self.dir, name.as_c_str()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(e) => {
                    self.name = Some(name);
                    Err(e)
                }
            },
            None => Ok(()),
        }
    }

    /// Removes the temporary after a failure; if that fails too, the error says where it is.
    pub(super) fn abandon(&mut self, error: Error) -> Error {
        match self.discard() {
            Ok(()) => error,
            Err(_) => {
                let shown = self.shown();
                self.release();
                match shown {
                    Some(path) => error.with_left(path),
                    None => error,
                }
            }
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell; `PendingFile::discard` is there for callers who want to know.
        let _ = self.discard();
    }
}
