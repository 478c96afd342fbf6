//! Opening and creating files beneath a root, and opening again what is open already.

use super::resolve::{self, Request};
use super::{Dir, Root, resolve_error};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FileType, Mode, OFlags, OwnedFd};
use crate::sys::{Metadata, ResolveFlags};
use crate::{Backend, Error, ErrorKind, Result};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Permissions of a new file before the umask, as every program gives.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

impl Root {
    /// Opens `path` with all that openat2(2) offers: `O_CREAT` (also through symlinks that stay beneath the
    /// root), `O_EXCL`, `O_PATH`, `O_TMPFILE` and the rest. `O_CLOEXEC` is always set.
    ///
    /// With neither `O_CREAT` nor `O_TMPFILE`, `mode` must be empty. A file that is created here is durable
    /// after an fsync of it and of its directory, not before.
    ///
    /// # Errors
    /// As open(2) and openat2(2). `EXDEV` ([`ErrorKind::Escape`]): the path leads out of the root. `EINVAL`:
    /// a NUL byte in the path, or flags or a mode that openat2 refuses.
    ///
    /// Source: openat2(2). Works without openat2 as well (see [`Backend`]).
    pub fn open_with(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.open_raw(path.as_os_str().as_bytes(), flags, mode)
            .map_err(|e| resolve_error("open", e, path))
    }

    /// Opens a file for reading. As open(2) it waits for a writer if that file is a FIFO.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::write(dir.path().join("name"), "content")?;
    /// use steadfast::{ErrorKind, Root};
    /// let root = Root::open(dir.path())?;
    /// assert_eq!(std::io::read_to_string(root.open_file("name")?)?, "content");
    /// assert_eq!(root.open_file("../name").unwrap_err().kind(), ErrorKind::Escape);
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_with(path, OFlags::RDONLY, Mode::empty())
            .map(File::from)
    }

    /// Opens a directory: for reading, or, where it may be searched but not read, as a place to work in.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with). `ENOTDIR`: it is no directory.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Dir> {
        let path = path.as_ref();
        self.open_dir_raw(path.as_os_str().as_bytes())
            .map(Dir::from)
            .map_err(|e| resolve_error("open directory", e, path))
    }

    pub(super) fn open_dir_raw(&self, path: &[u8]) -> sys::Result<OwnedFd> {
        let open = |flags| self.open_raw(path, flags | OFlags::DIRECTORY, Mode::empty());
        match open(OFlags::RDONLY) {
            // A directory may be searched without the right to read it.
            Err(Errno::ACCESS) => open(OFlags::PATH),
            done => done,
        }
    }

    /// Opens a file for writing: creates it, or makes an existing one empty **in place**, at once. To replace
    /// a file so that nobody sees it half-written, use [`publish`](crate::publish).
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        self.open_raw(path.as_os_str().as_bytes(), flags, NEW_FILE)
            .map(File::from)
            .map_err(|e| resolve_error("create file", e, path))
    }

    /// Creates a file that did not exist, open for reading and writing. Of several processes that try, one
    /// succeeds.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with). `EEXIST`: the name is taken, if only by a symlink.
    pub fn create_new(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_raw(path.as_os_str().as_bytes(), flags, NEW_FILE)
            .map(File::from)
            .map_err(|e| resolve_error("create file", e, path))
    }

    /// An unnamed file on the file system of the directory `dir`, mode 0600, open for reading and writing. It
    /// vanishes when closed, or when the process is killed, unless
    /// [`hard_link_from`](Self::hard_link_from) gives it a name.
    ///
    /// # Errors
    /// As open(2). [`ErrorKind::Unsupported`] (`EOPNOTSUPP`; `EISDIR` from old kernels): the file system has
    /// no such files. There is no other way that a kill would not leave behind.
    pub fn tmpfile(&self, dir: impl AsRef<Path>) -> Result<File> {
        const OP: &str = "make an unnamed file in";
        let path = dir.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = self
            .open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
            .map_err(|e| resolve_error(OP, e, path))?;
        match sys::open_tmpfile(&dir, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(fd.into()),
            Err(e) => {
                let error = Error::new(OP, "openat(O_TMPFILE)", e).with_path(path);
                Err(match e {
                    // What a kernel without the flag says to a directory opened for writing.
                    Errno::ISDIR => error.with_kind(ErrorKind::Unsupported),
                    _ => error,
                })
            }
        }
    }

    /// Opens `path` if that needs no disk and no waiting (`RESOLVE_CACHED`): for threads that must not wait,
    /// which hand the rest to one that may.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] (`EAGAIN`): not answered from memory, or the kernel (before 5.12), a filter
    /// or [`Backend::Walk`] rules that out. Call [`open_with`](Self::open_with) where waiting is allowed.
    /// Else as there.
    pub fn try_open_cached(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path = path.as_ref();
        let request = Request {
            root: self.as_fd(),
            path: path.as_os_str().as_bytes(),
            flags: flags | OFlags::CLOEXEC,
            mode: Mode::empty(),
            resolve: self.options.resolve_flags() | ResolveFlags::CACHED,
        };
        let answer = match self.options.backend {
            Backend::Walk => Err(Errno::AGAIN),
            _ => resolve::ask_kernel(&request),
        };
        let answer = match answer {
            // A kernel that has not the flag. Flags that are wrong in themselves are told by the open that
            // the caller makes next.
            Err(Errno::INVAL) if !request.path.contains(&0) => Err(Errno::AGAIN),
            Err(Errno::NOSYS | Errno::PERM) if sys::openat2_blocked() => Err(Errno::AGAIN),
            done => done,
        };
        answer.map_err(|e| resolve_error("open from memory", e, path))
    }

    /// Opens once more what `fd` is open on, with other flags: an `O_PATH` handle for reading, say, or for an
    /// offset of its own. No path is resolved, so nobody can put something else in its place.
    ///
    /// A directory is opened through itself. Anything else needs a procfs at `/proc`; that it is one, and
    /// that the file opened is the same, is checked.
    ///
    /// # Errors
    /// As open(2). [`ErrorKind::Unsupported`]: not a directory, and no procfs. `EINVAL`: flags that name,
    /// create or cut (`O_CREAT`, `O_EXCL`, `O_TMPFILE`, `O_NOFOLLOW`, `O_TRUNC`).
    pub fn reopen(fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        reopen(fd.as_fd(), flags).map_err(|e| {
            let error = Error::new("open a descriptor again", "openat", e);
            match e {
                Errno::OPNOTSUPP => error.with_advice("mount procfs at /proc"),
                _ => error,
            }
        })
    }
}

/// [`Root::reopen`], by errno.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> sys::Result<OwnedFd> {
    let refused = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::TRUNC;
    // O_TMPFILE holds the bit of O_DIRECTORY, which is allowed.
    if flags.intersects(refused | (OFlags::TMPFILE - OFlags::DIRECTORY)) {
        return Err(Errno::INVAL);
    }
    let before = facts(fd)?;
    if before.kind() == FileType::Directory {
        return sys::openat(fd, c".", flags, Mode::empty());
    }
    let (proc, number) = sys::descriptor_link(fd)?;
    let again = sys::openat(&proc, number.as_c_str(), flags, Mode::empty())?;
    if facts(again.as_fd())?.id() == before.id() {
        Ok(again)
    } else {
        // Something is mounted over this thread's part of procfs.
        Err(Errno::OPNOTSUPP)
    }
}

pub(super) fn facts(fd: BorrowedFd<'_>) -> sys::Result<Metadata> {
    sys::statx(fd, c"", AtFlags::EMPTY_PATH)
}
