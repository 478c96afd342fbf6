//! A file that has not been published: created exclusively, removed unless it gets its name.

use super::Note;
use crate::root::{Place, temp_name};
use crate::sys::{self, AsFd, AtFlags, Errno, Metadata, Mode, OFlags, OwnedFd};
use crate::{Error, Name};
use std::path::{Path, PathBuf};

/// How often a temporary's name may turn out to be taken. With 64 random bits, once is one too many.
const TRIES: u32 = 16;

fn facts(fd: &OwnedFd) -> Result<Metadata, Errno> {
    sys::statx(fd, c"", AtFlags::EMPTY_PATH)
}

/// Whether the directory has this name.
pub(super) fn has(dir: impl AsFd, name: &Name) -> bool {
    sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Removes a temporary name whose creation answered an error, and may have been carried out all the same (on
/// network storage). The name was drawn for this creation, and so is nobody else's.
fn undo(dir: impl AsFd, name: &Name, errno: Errno) -> Errno {
    // Mostly there is nothing to remove; else a sweep finds it.
    let _ = sys::unlinkat(dir, name.as_c_str());
    errno
}

/// A temporary file and the directory that it is in.
#[derive(Debug)]
pub(super) struct Staged<'r> {
    pub(super) dir: Place<'r>,
    pub(super) fd: OwnedFd,
    /// Facts about the file when it was made.
    pub(super) born: Metadata,
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
                Ok(fd) => match facts(&fd) {
                    // A sweeper was faster: it saw a file that nobody had open for writing yet.
                    Ok(born) if born.links() == 0 => {}
                    Ok(born) => {
                        return Ok(Self {
                            dir,
                            fd,
                            born,
                            name: Some(name),
                            shown,
                        });
                    }
                    Err(e) => return Err(undo(&dir, &name, e)),
                },
                Err(Errno::EXIST) => {}
                Err(e) => return Err(undo(&dir, &name, e)),
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
                born: facts(&fd)?,
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
                Err(e) => return Err(undo(&self.dir, &name, e)),
            }
        }
        Err(Errno::EXIST)
    }

    /// Renames the temporary to another temporary name.
    pub(super) fn rename(&mut self, to: Name) -> Result<(), Errno> {
        let from = self.name()?;
        let flags = sys::RenameFlags::NOREPLACE;
        let rename =
            |flags| sys::renameat2(&self.dir, from.as_c_str(), &self.dir, to.as_c_str(), flags);
        // The name holds this file's own inode number, and so is nobody else's.
        let done = match rename(flags) {
            Err(Errno::INVAL | Errno::NOSYS) => rename(sys::RenameFlags::empty()),
            done => done,
        };
        // A rename that answers an error may have been carried out all the same.
        if done.is_ok() || has(&self.dir, &to) {
            self.name = Some(to);
        }
        done
    }

    /// The temporary's path for messages.
    pub(super) fn shown(&self) -> Option<PathBuf> {
        self.name.as_ref().map(|name| self.shown.join(name))
    }

    /// The directory's path for messages.
    pub(super) fn folder(&self) -> &Path {
        &self.shown
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
