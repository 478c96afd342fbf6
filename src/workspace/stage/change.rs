//! Changes of things that stay what they are: what each attribute was, and what it is to be.

use super::make::last_of_each;
use super::sync::Fd;
use super::{Work, fail};
use crate::Result;
use crate::sys::{self, AsFd, Errno, Mode, OFlags};
use crate::tree;
use crate::workspace::draft::{AttrRequest, DraftChange, DraftSet, Piece, Source};
use crate::workspace::identity::Ident;
use crate::workspace::mapping::{Change, ObjectIx, Set};
use std::ffi::CString;
use std::ops::ControlFlow;

impl Work<'_, '_> {
    pub(super) fn change(&mut self, change: &DraftChange) -> Result<()> {
        match &change.what {
            DraftSet::Attributes(attr) => self.change_attributes(change.object, attr),
            DraftSet::Content(source) => self.change_content(change.object, source),
        }
    }

    /// In the order in which they are to be made: a change of owner clears set-user-id, and an access list
    /// comes with the group's bits of the mode.
    fn change_attributes(&mut self, object: ObjectIx, attr: &AttrRequest) -> Result<()> {
        let meta = self.facts(object)?;
        let before = (meta.uid().as_raw(), meta.gid().as_raw());
        let after = (attr.uid.unwrap_or(before.0), attr.gid.unwrap_or(before.1));
        let mut sets = Vec::new();
        if after != before {
            sets.push(Set::Owner { before, after });
        }
        if let Some(after) = attr.mode {
            let before = meta.mode().as_raw_mode();
            sets.push(Set::Mode { before, after });
        }
        if !attr.xattrs.is_empty() {
            let (_, slot) = self.existing(object)?;
            let fd = self.open_any(object)?;
            for (name, after) in last_of_each(&attr.xattrs) {
                let c_name = CString::new(name)
                    .ok()
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| fail("fsetxattr", Errno::INVAL, &slot.path))?;
                let before = sys::fgetxattr(&fd, c_name.as_c_str())
                    .map_err(|e| fail("fgetxattr", e, &slot.path))?;
                if before.as_deref() != after {
                    sets.push(Set::Xattr {
                        name: name.to_vec(),
                        before,
                        after: after.map(<[u8]>::to_vec),
                    });
                }
            }
        }
        if attr.mtime.is_some() || attr.atime.is_some() {
            let before = Ident::of(&meta).mtime;
            sets.push(Set::Times {
                before,
                after: attr.mtime.unwrap_or(before),
                atime: attr.atime,
            });
        }
        let sets = sets.into_iter().map(|what| Change { object, what });
        self.changes.extend(sets);
        Ok(())
    }

    /// Opens a file or directory for its attributes.
    fn open_any(&self, object: ObjectIx) -> Result<sys::OwnedFd> {
        let (dir, slot) = self.existing(object)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        sys::openat(dir, slot.name.as_c_str(), flags, Mode::empty())
            .map_err(|e| fail("openat", e, &slot.path))
    }

    fn change_content(&mut self, object: ObjectIx, source: &Source) -> Result<()> {
        let (_, slot) = self.existing(object)?;
        let path = slot.path.as_slice();
        // For writing, so that a running program and a missing right show now.
        let file = self.open_existing(object, OFlags::RDWR)?;
        let private = Mode::RUSR | Mode::WUSR;
        let (before, copy) = self.create_file(self.ctx.kept, private, path)?;
        tree::copy_content(file.as_fd(), copy.as_fd(), &mut |_| {
            ControlFlow::Continue(())
        })
        .map_err(|e| e.with_operation(super::OPERATION))?;
        self.sync.kept(Fd::Own(copy));
        let pieces = [Piece::Given(source.clone())];
        let after = match self.adopt(&pieces) {
            Some(given) => {
                let name = given.name.clone();
                self.sync.staged(Fd::Given(given));
                name
            }
            None => {
                let (name, fd) = self.create_file(self.ctx.staged, private, path)?;
                self.fill(fd.as_fd(), &pieces, path)?;
                self.sync.staged(Fd::Own(fd));
                name
            }
        };
        let what = Set::Content { before, after };
        self.changes.push(Change { object, what });
        Ok(())
    }
}
