//! Changes of things that stay what they are: what each attribute was, and what it is to be.

use super::content::read_all;
use super::make::last_of_each;
use super::sync::Fd;
use super::{INLINE, Work, fail};
use crate::sys::{self, AsFd, Errno, Metadata, Mode, OFlags};
use crate::tree::{self, acl};
use crate::workspace::draft::{AttrRequest, DraftChange, DraftSet, Piece, Source};
use crate::workspace::identity::{Ident, Stamp, now};
use crate::workspace::mapping::{self, Change, ObjectIx, Set};
use crate::workspace::place;
use crate::{Name, Result};
use std::ffi::CString;
use std::ops::ControlFlow;

impl Work<'_, '_> {
    /// All of one thing together, in the order content, owner, mode, attributes, times: recovery tells by it
    /// what two transactions have changed.
    pub(super) fn change_all(&mut self) -> Result<()> {
        let mut all = self.draft.changes.iter().peekable();
        while let Some(DraftChange { object, what }) = all.next() {
            match what {
                DraftSet::Attributes(attr) => self.change_attributes(*object, attr)?,
                DraftSet::Content(source) => {
                    self.change_content(*object, source)?;
                    if all.peek().is_none_or(|next| next.object != *object) {
                        self.change_attributes(*object, &AttrRequest::default())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn change_attributes(&mut self, object: ObjectIx, attr: &AttrRequest) -> Result<()> {
        let meta = self.facts(object)?;
        let content = match self.changes.last() {
            Some(change) if change.object == object => match &change.what {
                Set::Content { after, .. } => Some(self.mtime_of_staged(after)?),
                Set::Logged { time, .. } => Some(*time),
                _ => None,
            },
            _ => None,
        };
        let before = (meta.uid().as_raw(), meta.gid().as_raw());
        let after = (attr.uid.unwrap_or(before.0), attr.gid.unwrap_or(before.1));
        let mut sets = Vec::new();
        if after != before {
            sets.push(Set::Owner { before, after });
        }
        let is_another = content.is_some() || !sets.is_empty();
        let before = meta.mode().as_raw_mode();
        let after = mode_after(before, attr, is_another && !meta.is_dir());
        if attr.mode.is_some() || after != before {
            sets.push(Set::Mode { before, after });
        }
        let (_, slot) = self.existing(object)?;
        let mut opened = None;
        if !attr.xattrs.is_empty() {
            let fd = opened.insert(self.open_any(object)?);
            for (name, after) in last_of_each(&attr.xattrs) {
                let c_name = CString::new(name)
                    .ok()
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| fail("fsetxattr", Errno::INVAL, &slot.path))?;
                let before = sys::fgetxattr(&*fd, c_name.as_c_str())
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
            // The time that comes with the new content, if there is one.
            let before = content.unwrap_or(Ident::of(&meta).mtime);
            sets.push(Set::Times {
                before,
                after: attr.mtime.unwrap_or(before),
                atime: attr.atime,
            });
        }
        let opened = opened.as_ref().map(AsFd::as_fd);
        self.try_out(&mut sets, &meta, opened, &slot.path)?;
        let sets = sets.into_iter().map(|what| Change { object, what });
        self.changes.extend(sets);
        Ok(())
    }

    fn mtime_of_staged(&self, name: &Name) -> Result<Stamp> {
        let found = place::ident_at(self.ctx.staged, name.as_c_str());
        match found.and_then(|found| found.ok_or(Errno::NOENT)) {
            Ok(found) => Ok(found.mtime),
            Err(e) => Err(fail("statx", e, name.as_bytes())),
        }
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
        let (file, meta) = self.open_existing(object, OFlags::RDWR)?;
        // Owner and mode that are recorded are those of the file that is written.
        self.facts[object] = Some(meta);
        if let Some(what) = self.log_content(&file, &meta, source, path)? {
            self.changes.push(Change { object, what });
            self.out.opened.keep(object, file, &meta);
            return Ok(());
        }
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

    /// Contents that are short enough for the record: then nothing has to be synced but that, and the file
    /// itself with the next checkpoint. What a sync of the private folders' file system does not reach is not
    /// among them.
    fn log_content(
        &mut self,
        file: &sys::OwnedFd,
        meta: &Metadata,
        source: &Source,
        path: &[u8],
    ) -> Result<Option<Set>> {
        let (true, Source::Bytes(after)) = (self.ctx.logs_contents, source) else {
            return Ok(None);
        };
        let len = usize::try_from(meta.len()).unwrap_or(usize::MAX);
        let both = len.saturating_add(after.len());
        if len.max(after.len()) > INLINE || both > self.room_in_place {
            return Ok(None);
        }
        let reaches = self.ctx.reaches(meta);
        if !reaches.map_err(|e| fail("statx", e, path))? {
            return Ok(None);
        }
        self.room_in_place -= both;
        let before = read_all(file, len, path)?;
        Ok(Some(Set::Logged {
            name: (self.ctx.names)()?,
            before,
            after: after.clone(),
            time: now(),
        }))
    }
}

/// The mode in the end. What the kernel does to it with other changes is part of the transaction: recovery
/// would take it for somebody else's work.
fn mode_after(before: u32, attr: &AttrRequest, clears: bool) -> u32 {
    let mode = match attr.mode {
        Some(mode) => mode,
        // As chown(2) and write(2) do.
        None if clears => mapping::unprivileged(before),
        None => before,
    };
    let lists = last_of_each(&attr.xattrs);
    let list = lists
        .into_iter()
        .find(|(name, _)| *name == acl::ACCESS.to_bytes());
    list.and_then(|(_, list)| acl::mode_of(list?, mode))
        .unwrap_or(mode)
}
