//! A file that has not been published: created exclusively, removed unless it gets its name.

use super::Note;
use crate::root::{Place, temp_name};
use crate::sys::{self, AsFd, AtFlags, Born, Errno, Mode, OFlags, OwnedFd};
use crate::{Error, Name};
use std::path::{Path, PathBuf};

/// How often a temporary's name may turn out to be taken. With 64 random bits, once is one too many.
const TRIES: u32 = 16;

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
    pub(super) born: Born,
    /// The temporary name.
    name: Name,
    /// It has that name: not while it has none at all (`O_TMPFILE`), nor once it has its final one.
    stands: bool,
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
                Ok(fd) => match sys::born(&fd) {
                    // A sweeper was faster: it saw a file that nobody had open for writing yet.
                    Ok(born) if born.links == 0 => {}
                    Ok(born) => {
                        return Ok(Self {
                            dir,
                            fd,
                            born,
                            name,
                            stands: true,
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
                born: sys::born(&fd)?,
                dir,
                fd,
                name: temp_name::fresh(b't')?,
                stands: false,
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

    /// Gives the temporary name to a file that has none. `EOPNOTSUPP`: it cannot get one here.
    pub(super) fn link(&mut self) -> Result<(), Errno> {
        if self.stands {
            return Ok(());
        }
        for _ in 0..TRIES {
            match sys::link_descriptor(&self.fd, &self.dir, self.name.as_c_str()) {
                Ok(()) => {
                    self.stands = true;
                    return Ok(());
                }
                Err(Errno::EXIST) => self.name = temp_name::fresh(b't')?,
                Err(e) => return Err(undo(&self.dir, &self.name, e)),
            }
        }
        Err(Errno::EXIST)
    }

    /// The temporary name.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Renames the temporary to another temporary name.
    pub(super) fn rename(&mut self, to: Name) -> Result<(), Errno> {
        self.link()?;
        let from = &self.name;
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
            self.name = to;
        }
        done
    }

    /// The directory's path for messages.
    pub(super) fn folder(&self) -> &Path {
        &self.shown
    }

    /// It has its final name, or is somebody else's to remove: nothing is left to discard.
    pub(super) fn release(&mut self) {
        self.stands = false;
    }

    /// Removes the temporary name. Already gone is as good.
    pub(super) fn discard(&mut self) -> Result<(), Errno> {
        if !self.stands {
            return Ok(());
        }
        match sys::unlinkat(&self.dir, self.name.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.stands = false;
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Removes the temporary after a failure; if that fails too, the error says where it is.
    pub(super) fn abandon(&mut self, error: Error) -> Error {
        match self.discard() {
            Ok(()) => error,
            Err(_) => {
                self.release();
                error.with_left(self.shown.join(&self.name))
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
