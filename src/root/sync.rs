//! Making what is beneath a root durable.

use super::{Root, resolve_error, temp_name};
use crate::sys::{self, AsFd, BorrowedFd, Errno, Mode, OFlags, OwnedFd};
use crate::{Error, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Root {
    /// Makes content and metadata of a file durable, or the names in a directory (fsync(2)). Symlinks are
    /// followed. A new file is found again after a power cut only when its directory is synced as well:
    /// [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// As fsync(2) and open(2). `EINVAL`: a FIFO, socket or device. After an error of fsync the state on the
    /// device is unknown; calling again proves nothing.
    pub fn sync(&self, path: impl AsRef<Path>) -> Result<()> {
        const OP: &str = "sync";
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let fd = match self.open_quietly(bytes) {
            // Perhaps a directory that may be searched but not read.
            Err(Errno::ACCESS) => {
                self.open_raw(bytes, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                    // A file that may be neither read nor written.
                    .map_err(|e| if e == Errno::NOTDIR { Errno::ACCESS } else { e })
            }
            done => done,
        }
        .map_err(|e| resolve_error(OP, e, path))?;
        sync_names(fd.as_fd()).map_err(|e| Error::new(OP, "fsync", e).with_path(path))
    }

    /// Makes the names in the directory `path` durable: what was created, renamed or removed there.
    ///
    /// # Errors
    /// As [`sync`](Self::sync). `ENOTDIR`: it is no directory.
    pub fn sync_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.open_dir(path)?
            .sync()
            .map_err(|error| error.with_path(path))
    }
}

/// fsync of a directory through any descriptor for it.
///
/// Where it may not be read it cannot be opened for fsync, and the whole file system is synced in its place.
///
/// # Errors
/// As fsync(2). `EACCES`: it may be neither read nor written.
pub(crate) fn sync_names(dir: BorrowedFd<'_>) -> sys::Result<()> {
    match sys::fsync(dir) {
        // An O_PATH descriptor: open the directory for reading.
        Err(Errno::BADF) => {}
        done => return done,
    }
    match sys::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Ok(readable) => sys::fsync(&readable),
        Err(Errno::ACCESS) => sys::syncfs(file_in(dir)?),
        Err(e) => Err(e),
    }
}

/// A file without a name on the file system of `dir`, which syncfs can be asked through.
fn file_in(dir: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
    match sys::open_tmpfile(dir, Mode::RUSR) {
        // No unnamed files here (ENOENT and EINVAL: some sandboxes; EISDIR: old kernels).
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {}
        done => return done,
    }
    let name = temp_name::fresh(b't')?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = sys::openat(dir, name.as_c_str(), flags, Mode::RUSR)?;
    // Open for writing until it is gone, it is not swept away by others as a dead process's.
    sys::unlinkat(dir, name.as_c_str())?;
    Ok(file)
}
