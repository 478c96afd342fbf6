//! Reading, making and removing directory entries beneath a root.

use super::parent::{Last, Target};
use super::{Access, Name, Root, resolve_error};
use crate::sys::{self, AsFd, DirStream, Errno, FileType, Mode, OFlags};
use crate::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl Root {
    /// Reads the entries of the directory `path`, in no order, without `.` and `..`. What is added or removed
    /// meanwhile may or may not be seen.
    ///
    /// # Errors
    /// As open(2). `ENOTDIR`: it is no directory. `EACCES`: it may not be read.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Entries> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self
            .open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
            .map_err(|e| resolve_error("read directory", e, path))?;
        Ok(Entries {
            stream: DirStream::new(fd),
            path: path.to_owned(),
            done: false,
        })
    }

    /// Creates the directory `path`. The umask applies.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of its parent.
    ///
    /// # Errors
    /// As mkdir(2). `EEXIST`: the name is taken.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
        self.change("create directory", "mkdirat", path.as_ref(), |at| {
            sys::mkdirat(&at.dir, at.last.for_change(), mode)
        })
    }

    /// Creates the FIFO `path`. The umask applies.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of its parent.
    ///
    /// # Errors
    /// As mkfifo(3). `EEXIST`: the name is taken. `EPERM`: no FIFOs on this file system.
    pub fn mkfifo(&self, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
        self.change("create FIFO", "mknodat", path.as_ref(), |at| {
            at.vacant()?;
            sys::mkfifoat(&at.dir, at.last.for_change(), mode)
        })
    }

    /// Removes the name `path` of anything but a directory; a symlink itself, not what it leads to.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of its parent.
    ///
    /// # Errors
    /// As unlink(2). `EISDIR`: a directory. `ENOTDIR`: a slash follows the name of something else.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        self.change("remove file", "unlinkat", path.as_ref(), |at| {
            at.refuse_slash()?;
            sys::unlinkat(&at.dir, at.last.for_change())
        })
    }

    /// Removes the empty directory `path`.
    ///
    /// Durable after [`sync_dir`](Self::sync_dir) of its parent.
    ///
    /// # Errors
    /// As rmdir(2). `ENOTEMPTY` (`EEXIST` on some file systems): it is not empty. `ENOTDIR`: not a directory,
    /// if a symlink to one. `EBUSY`: a mount point.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        const CALL: &str = "unlinkat(AT_REMOVEDIR)";
        self.change("remove directory", CALL, path.as_ref(), |at| {
            match (sys::rmdirat(&at.dir, at.last.for_change()), &at.last) {
                // It was asked about `.` in their place.
                (Err(Errno::INVAL), Last::DotDot) => Err(Errno::NOTEMPTY),
                (Err(Errno::INVAL), Last::Root) => Err(Errno::BUSY),
                (done, _) => done,
            }
        })
    }

    /// One change of one entry, by its parent's descriptor.
    fn change(
        &self,
        operation: &'static str,
        call: &'static str,
        path: &Path,
        f: impl FnOnce(&Target<'_>) -> sys::Result<()>,
    ) -> Result<()> {
        let at = self
            .target(path.as_os_str().as_bytes(), Access::Place)
            .map_err(|e| resolve_error(operation, e, path))?;
        f(&at).map_err(|e| Error::new(operation, call, e).with_path(path))
    }
}

impl Target<'_> {
    /// Refuses a name with a slash behind it, as unlink(2) does: no directory may be removed so, and nothing
    /// else is called so.
    fn refuse_slash(&self) -> sys::Result<()> {
        match &self.last {
            Last::Normal(_) if self.slash => {
                if sys::is_read_only(&self.dir)? {
                    return Err(Errno::ROFS);
                }
                Err(match self.kind()? {
                    FileType::Directory => Errno::ISDIR,
                    _ => Errno::NOTDIR,
                })
            }
            _ => Ok(()),
        }
    }
}

/// The entries of a directory, from [`Root::read_dir`]. After an error it ends.
#[derive(Debug)]
pub struct Entries {
    stream: DirStream,
    path: PathBuf,
    done: bool,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: Name,
    kind: FileType,
    ino: u64,
}

impl Entry {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The type as the directory records it: a hint, [`FileType::Unknown`] on some file systems, and out of
    /// date as soon as somebody renames.
    #[must_use]
    pub fn kind_hint(&self) -> FileType {
        self.kind
    }

    /// The inode number as the directory records it (that of the directory below, on a mount point).
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let entry = self.stream.next().and_then(|entry| {
            entry
                .map(|entry| {
                    Ok(Entry {
                        name: Name::from_entry(entry.name())?,
                        kind: entry.kind_hint(),
                        ino: entry.ino(),
                    })
                })
                .transpose()
        });
        self.done = !matches!(entry, Ok(Some(_)));
        entry
            .map_err(|e| Error::new("read directory", "getdents64", e).with_path(&self.path))
            .transpose()
    }
}

impl AsFd for Entries {
    fn as_fd(&self) -> sys::BorrowedFd<'_> {
        self.stream.fd().as_fd()
    }
}
