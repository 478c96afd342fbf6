//! The disk as the view looks at it: directories by descriptor, beneath the root, checked by identity.

use super::stop::{Done, Stop};
use super::{InodeIx, Origin, ROOT};
use crate::Root;
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, Metadata, Mode, OFlags, OwnedFd};
use crate::workspace::identity::Ident;
use std::ffi::CStr;

/// Descriptors of directories that are kept.
const WINDOW: usize = 16;

#[derive(Debug)]
pub(super) struct Disk<'r> {
    root: &'r Root,
    top: Metadata,
    /// The last used last.
    open: Vec<(InodeIx, OwnedFd)>,
}

/// A directory to go through: no link, and no right to read it needed.
const THROUGH: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

impl<'r> Disk<'r> {
    pub(super) fn new(root: &'r Root, top: Metadata) -> Self {
        Self {
            root,
            top,
            open: Vec::new(),
        }
    }

    pub(super) fn root(&self) -> &'r Root {
        self.root
    }

    /// Whether something is on another mount than the root, or a directory in another subvolume.
    pub(super) fn is_foreign(&self, meta: &Metadata) -> bool {
        other_mount(meta, &self.top) || meta.is_dir() && meta.id().dev != self.top.id().dev
    }

    /// A descriptor for a directory that was looked at.
    pub(super) fn dir(&mut self, dir: InodeIx, origin: &Origin) -> Done<BorrowedFd<'_>> {
        if dir == ROOT {
            return Ok(self.root.as_fd());
        }
        if let Some(at) = self.open.iter().position(|(ix, _)| *ix == dir) {
            let found = self.open.remove(at);
            self.open.push(found);
        } else {
            let open = self.root.open_raw(&origin.path, THROUGH, Mode::empty());
            let fd = match open {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(Stop::Changed),
                done => done.map_err(Stop::Path)?,
            };
            let meta = facts(fd.as_fd())?;
            if !Ident::of(&meta).is(&origin.ident) {
                return Err(Stop::Changed);
            }
            self.keep(dir, fd);
        }
        match self.open.last() {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Stop::Changed),
        }
    }

    /// Keeps a descriptor for a directory.
    pub(super) fn keep(&mut self, dir: InodeIx, fd: OwnedFd) {
        if self.open.len() >= WINDOW {
            self.open.remove(0);
        }
        self.open.push((dir, fd));
    }
}

/// Whether two things are on different mounts, as far as the kernel tells.
pub(super) fn other_mount(a: &Metadata, b: &Metadata) -> bool {
    match (a.mount_id(), b.mount_id()) {
        (Some(a), Some(b)) => a != b,
        // Files on an overlay may show the device of the layer that they are in.
        _ => a.is_dir() && a.id().dev != b.id().dev,
    }
}

/// What a name stands for; `None` if nothing.
pub(super) fn look(dir: BorrowedFd<'_>, name: &CStr) -> Done<Option<Metadata>> {
    match sys::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(meta) => Ok(Some(meta)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Stop::Path(e)),
    }
}

/// Opens a name as a directory to go through; `None` if it is none, or not there.
pub(super) fn enter(dir: BorrowedFd<'_>, name: &CStr) -> Done<Option<(OwnedFd, Metadata)>> {
    match sys::openat(dir, name, THROUGH, Mode::empty()) {
        Ok(fd) => {
            let meta = facts(fd.as_fd())?;
            Ok(Some((fd, meta)))
        }
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(None),
        Err(e) => Err(Stop::Path(e)),
    }
}

fn facts(fd: BorrowedFd<'_>) -> Done<Metadata> {
    sys::statx(fd, c"", AtFlags::EMPTY_PATH).map_err(Stop::Path)
}
