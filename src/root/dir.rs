//! An open directory.

use super::sync::sync_names;
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, DirStream, Errno, Metadata, Mode, OFlags, OwnedFd,
};
use crate::{Error, Result};

/// An open directory: a descriptor that stays on the same directory whatever happens to its name.
///
/// It may be open for reading, or only as a place (`O_PATH`) where the directory may be searched but not
/// read. Paths below it are resolved by a [`Root`](crate::Root), which a `Dir` can be made into.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// A further descriptor for the same directory.
    ///
    /// # Errors
    /// `EMFILE`: too many open files.
    pub fn try_clone(&self) -> Result<Self> {
        // F_DUPFD_CLOEXEC: one call that cannot leave the disk changed.
        self.0
            .try_clone()
            .map(Self)
            .map_err(|e| Error::new("duplicate a descriptor", "fcntl", errno_of(&e)))
    }

    /// Facts about the directory.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn metadata(&self) -> Result<Metadata> {
        sys::statx(&self.0, c"", AtFlags::EMPTY_PATH)
            .map_err(|e| Error::new("look at directory", "statx", e))
    }

    /// Makes the names in this directory durable (fsync(2) of the directory).
    ///
    /// Where the directory may be searched and written but not read, it cannot be opened for fsync; then the
    /// whole file system is synced instead (syncfs(2)), through a file that is made there for a moment.
    /// That reports write errors since Linux 5.8.
    ///
    /// # Errors
    /// As fsync(2). `EACCES`: it may be neither read nor written, and so not be opened. After an error of
    /// fsync the state on the device is unknown; calling again proves nothing.
    pub fn sync(&self) -> Result<()> {
        sync_names(self.as_fd()).map_err(|e| Error::new("sync directory", "fsync", e))
    }

    /// The same directory, open for reading from its start, with an offset of its own.
    pub(crate) fn reopen(&self) -> sys::Result<OwnedFd> {
        sys::openat(
            &self.0,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
    }

    /// Reads the entries.
    ///
    /// # Errors
    /// `EACCES`: it may not be read.
    pub fn read_dir(&self) -> Result<DirStream> {
        self.reopen()
            .map(DirStream::new)
            .map_err(|e| Error::new("read directory", "openat", e))
    }
}

/// The errno of an error from std, which makes them of system calls only.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl From<OwnedFd> for Dir {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
