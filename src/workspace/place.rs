//! Directories in which a transaction changes names, open.

use super::identity::{Ident, Stamp};
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, Metadata, Mode, OFlags, OwnedFd, RenameFlags, Timespec,
    Timestamps, UTIME_OMIT,
};
use crate::{Dir, Root};
use std::ffi::CStr;

/// A directory's descriptor: one that somebody else holds, or one of its own.
#[derive(Debug)]
pub(super) enum Held<'a> {
    Borrowed(BorrowedFd<'a>),
    Own(OwnedFd),
}

impl AsFd for Held<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// Opens the directory with this path beneath the root, and says what it is.
pub(super) fn open<'a>(root: &'a Root, path: &[u8]) -> sys::Result<(Held<'a>, Metadata)> {
    let held = if path.is_empty() {
        Held::Borrowed(root.as_fd())
    } else {
        let open = |flags| root.open_raw(path, flags | OFlags::DIRECTORY, Mode::empty());
        Held::Own(match open(OFlags::RDONLY) {
            // Names can be changed where they may not be read.
            Err(Errno::ACCESS) => open(OFlags::PATH)?,
            done => done?,
        })
    };
    let meta = facts(&held)?;
    Ok((held, meta))
}

/// Opens the directory of this name, which is not followed.
pub(super) fn open_in(dir: impl AsFd, name: &CStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let open = |more| sys::openat(dir.as_fd(), name, flags | more, Mode::empty());
    match open(OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(OFlags::PATH),
        done => done,
    }
}

/// Facts about an open file.
pub(super) fn facts(fd: impl AsFd) -> sys::Result<Metadata> {
    sys::statx(fd, c"", AtFlags::EMPTY_PATH)
}

/// Facts about a name, which is not followed.
pub(super) fn look(dir: impl AsFd, name: &CStr) -> sys::Result<Metadata> {
    sys::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// What a name stands for; `None`: nothing.
pub(super) fn ident_at(dir: impl AsFd, name: &CStr) -> sys::Result<Option<Ident>> {
    match look(dir, name) {
        Ok(meta) => Ok(Some(Ident::of(&meta))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn timespec((seconds, nanos): Stamp) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    }
}

/// Times to set; what is `None` stays.
pub(super) fn times(atime: Option<Stamp>, mtime: Option<Stamp>) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: atime.map_or(omit, timespec),
        last_modification: mtime.map_or(omit, timespec),
    }
}

/// Writes all of `bytes` at the descriptor's offset.
pub(super) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> sys::Result<()> {
    while !bytes.is_empty() {
        match sys::write(fd.as_fd(), bytes)? {
            // A file that takes nothing and says no error has no room.
            0 => return Err(Errno::NOSPC),
            n => bytes = bytes.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Bytes as a private file in `to`, durable: whole under its name there, or not at all. Made in `by`
/// under the same name, where an earlier attempt may have left a part. An error comes with its call.
pub(super) fn keep_bytes(
    by: &Dir,
    to: &Dir,
    name: &CStr,
    bytes: &[u8],
) -> std::result::Result<(), (&'static str, Errno)> {
    if ident_at(to, name).map_err(|e| ("statx", e))?.is_some() {
        return Ok(());
    }
    match sys::unlinkat(by, name) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(("unlinkat", e)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = sys::openat(by, name, flags, mode).map_err(|e| ("openat", e))?;
    write_all(&file, bytes).map_err(|e| ("write", e))?;
    sys::fsync(&file).map_err(|e| ("fsync", e))?;
    sys::renameat2(by, name, to, name, RenameFlags::empty()).map_err(|e| ("renameat", e))
}

/// Reads from `at` until the buffer is full or the file ends; the number of bytes.
pub(super) fn read_at(fd: impl AsFd, buf: &mut [u8], at: u64) -> sys::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match sys::pread(fd.as_fd(), rest, at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}
