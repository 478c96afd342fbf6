//! getdents64(2): the entries of a directory.

use super::{FileType, OwnedFd, Result, retry};
use rustix::fs::{RawDir, RawDirEntry};
use std::ffi::CStr;

/// Size of one read: 32 KiB holds about a thousand short names.
const BUFFER: usize = 32 * 1024;

/// One entry of a directory, borrowed from the stream.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    name: &'a CStr,
    kind: FileType,
    ino: u64,
}

impl<'a> DirEntry<'a> {
    /// The name, never `.` or `..`.
    #[must_use]
    pub fn name(&self) -> &'a CStr {
        self.name
    }

    /// The type as the directory records it: a hint, [`FileType::Unknown`] on some file systems, and
    /// already out of date if somebody renames.
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

/// Reads a directory's entries through its descriptor.
///
/// It moves the descriptor's own offset: give it a descriptor that nobody else reads from.
#[derive(Debug)]
pub struct DirStream {
    fd: OwnedFd,
    /// Only room: the kernel fills it.
    buf: Vec<u8>,
    /// Names of the entries read by the last call, each with its NUL.
    names: Vec<u8>,
    entries: Vec<(usize, FileType, u64)>,
    at: usize,
}

impl DirStream {
    /// Over a directory that is open for reading.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            buf: Vec::new(),
            names: Vec::new(),
            entries: Vec::new(),
            at: 0,
        }
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Gives the descriptor back.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Starts again from the first entry.
    ///
    /// # Errors
    /// As lseek(2).
    pub fn rewind(&mut self) -> Result<()> {
        self.entries.clear();
        self.at = 0;
        retry("lseek", || {
            rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))
        })
        .map(drop)
    }

    /// The next entry, or `None` at the end. `.` and `..` are left out.
    ///
    /// # Errors
    /// As getdents(2). `ENOENT`: the directory was removed.
    #[allow(clippy::should_implement_trait)] // The entry borrows from the stream.
    pub fn next(&mut self) -> Result<Option<DirEntry<'_>>> {
        while self.at >= self.entries.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        let (start, kind, ino) = self.entries[self.at];
        self.at += 1;
        let name = CStr::from_bytes_until_nul(&self.names[start..]).unwrap_or_default();
        Ok(Some(DirEntry { name, kind, ino }))
    }

    /// One getdents64; false at the end.
    fn fill(&mut self) -> Result<bool> {
        self.buf.reserve_exact(BUFFER);
        self.names.clear();
        self.entries.clear();
        self.at = 0;
        let mut raw = RawDir::new(&self.fd, self.buf.spare_capacity_mut());
        let (names, entries) = (&mut self.names, &mut self.entries);
        let mut keep = |entry: &RawDirEntry<'_>| {
            let name = entry.file_name().to_bytes_with_nul();
            if name != b".\0" && name != b"..\0" {
                entries.push((names.len(), entry.file_type(), entry.ino()));
                names.extend_from_slice(name);
            }
        };
        // Only the first `next` calls the kernel; the others take its answer apart.
        let more = retry("getdents64", || match raw.next() {
            Some(entry) => entry.map(|e| keep(&e)).map(|()| true),
            None => Ok(false),
        })?;
        while more && !raw.is_buffer_empty() {
            if let Some(entry) = raw.next() {
                keep(&entry?);
            }
        }
        #[cfg(feature = "_hook")]
        if super::hook::is_still() {
            let name = |at: &usize| CStr::from_bytes_until_nul(&names[*at..]);
            entries.sort_by(|(a, ..), (b, ..)| name(a).ok().cmp(&name(b).ok()));
        }
        Ok(more)
    }
}
