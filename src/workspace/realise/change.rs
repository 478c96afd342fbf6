//! Changes of things that stay what they are: set if the value is as before, fine if it is as after, else
//! somebody else's.

use super::super::identity::Ident;
use super::super::mapping::{Change, ObjectIx, Set};
use super::super::place::{self, times};
use super::chain::{Chains, Part};
use super::content::{To, is_content};
use super::state::{At, Pos, Purpose, Work};
use super::{Found, Spot, fail};
use crate::sys::{self, AsFd, Errno, Gid, Metadata, Mode, OFlags, OwnedFd, Uid, XattrFlags};
use crate::tree::{self, acl};
use crate::{Name, Result};
use std::ffi::CString;

/// What became of one change.
pub(super) enum Changed {
    /// It is as it is to be.
    Done,
    /// It is neither as before nor as after; the name in `kept/` of what was to be there.
    Conflict(Option<Name>),
}

impl<'m> Work<'_, '_, 'm> {
    pub(super) fn change_all(&mut self) -> Result<()> {
        let chains = self.chains();
        let is_content = |at: &usize| is_content(&self.mapping.changes[*at].what);
        let (contents, others): (Vec<_>, Vec<_>) = chains.order().into_iter().partition(is_content);
        self.change_each(&chains, &contents)?;
        // Before a mode may close the file, or its directory, to who would have to write it again.
        self.settle_content()?;
        self.change_each(&chains, &others)
    }

    fn change_each(&mut self, chains: &Chains<'m>, order: &[usize]) -> Result<()> {
        let mut open: Option<(ObjectIx, OwnedFd)> = None;
        for &at in order {
            let change = &self.mapping.changes[at];
            if let Some((file, meta)) = self.opened_to_change(change)? {
                let done = self.write_content(chains, at, To::File(file), &meta)?;
                self.note(at, done);
                continue;
            }
            let (fd, seen) = match open.take() {
                Some((object, fd)) if object == change.object => (Some(fd), None),
                _ => self.open_object_to_change(change.object)?.unzip(),
            };
            let done = match &fd {
                Some(fd) => self.change(chains, at, fd, seen)?,
                // It is to be gone at the end, and is.
                None if self.target[change.object].is_none()
                    && (self.purpose == Purpose::Back
                        || self.another_name(change.object).is_none()) =>
                {
                    Changed::Done
                }
                None => Changed::Conflict(self.give_up_content(change)?),
            };
            self.note(at, done);
            open = fd.map(|fd| (change.object, fd));
        }
        Ok(())
    }

    /// A change that was not made is a conflict.
    fn note(&mut self, at: usize, done: Changed) {
        if let Changed::Conflict(kept) = done {
            let pos = self.place_of_change(self.mapping.changes[at].object);
            self.out.conflicts.push(Found {
                at: Spot::Change(at),
                path: pos.map_or(Vec::new(), |pos| self.path(pos).to_vec()),
                found: pos.and_then(|pos| self.at(pos).thing()),
                kept,
            });
        }
    }

    /// A directory in which something is to be put back may have lost the rights that this takes, and may
    /// not have had them before.
    pub(super) fn open_up_changed(&mut self) -> Result<()> {
        for change in &self.mapping.changes {
            let Set::Mode { .. } = change.what else {
                continue;
            };
            let Some((fd, meta)) = self.open_object_to_change(change.object)? else {
                continue;
            };
            if meta.is_dir() && !meta.mode().contains(Mode::RWXU) {
                tree::chmod_place(fd.as_fd(), meta.mode() | Mode::RWXU)
                    .map_err(|(call, e)| fail(call, e, self.path_of(change.object)))?;
            }
        }
        Ok(())
    }

    /// The slot where the object is, or should be.
    fn place_of_change(&self, object: ObjectIx) -> Option<Pos> {
        use super::super::mapping::Object;
        let origin = match self.mapping.objects[object] {
            Object::Existing { slot, .. } => Some(Pos::Slot(slot)),
            Object::New { .. } | Object::Kept { .. } => None,
        };
        self.find_any(object)
            .or(self.target[object].map(Pos::Slot))
            .or_else(|| match self.purpose {
                Purpose::Back => None,
                _ => self.another_name(object),
            })
            .or(origin)
    }

    /// A file that staging has opened to write it over, if it stands at its name still. If not, whoever
    /// looks for it finds out what that means.
    fn opened_to_change(&mut self, change: &Change) -> Result<Option<(OwnedFd, Metadata)>> {
        let object = change.object;
        let kept = match is_content(&change.what) {
            true => self.opened.take(object),
            false => None,
        };
        let (Some((file, id)), Some(pos)) = (kept, self.place_of_change(object)) else {
            return Ok(None);
        };
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(None);
        };
        let meta = match place::look(dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            done => done.map_err(|e| fail("statx", e, self.path(pos)))?,
        };
        let found = Ident::of(&meta);
        if meta.id() != id || !self.is(object, &found) {
            return Ok(None);
        }
        self.set(pos, At::Thing(found));
        Ok(Some((file, meta)))
    }

    /// A descriptor for the object as a place, which opens nothing, and what it is; `None` if it is gone.
    fn open_object_to_change(&mut self, object: ObjectIx) -> Result<Option<(OwnedFd, Metadata)>> {
        let Some(pos) = self.place_of_change(object) else {
            return Ok(None);
        };
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(None);
        };
        let path = self.path(pos);
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = match sys::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                self.set(pos, At::Empty);
                return Ok(None);
            }
            done => done.map_err(|e| fail("openat", e, path))?,
        };
        let meta = place::facts(&fd).map_err(|e| fail("statx", e, path))?;
        let found = Ident::of(&meta);
        self.set(pos, At::Thing(found));
        Ok(self.is(object, &found).then_some((fd, meta)))
    }

    /// Makes a change, which is the last of a chain: any value of those before it may be there. `seen`: what
    /// it is, if that was looked at just now.
    fn change(
        &mut self,
        chains: &Chains<'m>,
        at: usize,
        fd: &OwnedFd,
        seen: Option<Metadata>,
    ) -> Result<Changed> {
        let Change { object, ref what } = self.mapping.changes[at];
        let mut chain = chains.up_to(at).map(|change| &change.what);
        let path = self
            .place_of_change(object)
            .map_or(&b""[..], |pos| self.path(pos));
        let meta = match seen {
            Some(meta) => meta,
            None => place::facts(fd).map_err(|e| fail("statx", e, path))?,
        };
        // What a section has changed may be in any state by now.
        let forced = self.purpose == Purpose::Back;
        match what {
            Set::Mode { after, .. } => {
                let found = meta.mode().as_raw_mode();
                if found == *after {
                    return Ok(Changed::Done);
                }
                // What changes with them clears these bits, and the mode comes after it.
                let clears = [Part::Content, Part::Owner];
                let cleared = clears.into_iter().any(|part| chains.has(at, part));
                let ignored = if cleared { 0o6000 } else { 0 };
                let like = |other: u32| found & !ignored == other & !ignored;
                let known = chain.any(
                    |set| matches!(set, Set::Mode { before, after } if like(*before) || like(*after)),
                );
                if !known && !forced {
                    return Ok(Changed::Conflict(None));
                }
                tree::chmod_place(fd.as_fd(), Mode::from_raw_mode(*after))
                    .map_err(|(call, e)| fail(call, e, path))?;
            }
            Set::Owner { after, .. } => {
                let found = (meta.uid().as_raw(), meta.gid().as_raw());
                if found == *after {
                    return Ok(Changed::Done);
                }
                let known = chain.any(
                    |set| matches!(set, Set::Owner { before, after } if found == *before || found == *after),
                );
                if !known && !forced {
                    return Ok(Changed::Conflict(None));
                }
                let (uid, gid) = (Uid::from_raw(after.0), Gid::from_raw(after.1));
                sys::fchownat(fd, c"", Some(uid), Some(gid))
                    .map_err(|e| fail("fchownat", e, path))?;
            }
            Set::Times { after, .. } => {
                let access = |set: &Set| match set {
                    Set::Times { atime, .. } => *atime,
                    _ => None,
                };
                let atime = chain.clone().filter_map(access).last();
                let found = Ident::of(&meta).mtime;
                // A later content has come with its time.
                let after = match chains.later(at, Part::Content) {
                    Some(_) => found,
                    None => *after,
                };
                if found == after && atime.is_none() {
                    return Ok(Changed::Done);
                }
                let known = self.filled.contains(&chains.thing(at))
                    || self.is_of_making(object, found)
                    || chain.any(|set| {
                        matches!(set, Set::Times { before, after, .. } if found == *before || found == *after)
                    });
                // Of a directory the transaction itself may have changed it.
                if !known && found != after && !meta.is_dir() && !forced {
                    return Ok(Changed::Conflict(None));
                }
                self.set_times(object, fd, &times(atime, Some(after)))?;
            }
            Set::Xattr { name, after, .. } => {
                return self.change_xattr(fd, &meta, (name, after), (chains, at), path);
            }
            Set::Content { .. } | Set::Logged { .. } => {
                return self.write_content(chains, at, To::Place(fd), &meta);
            }
        }
        Ok(Changed::Done)
    }

    fn write_content(
        &mut self,
        chains: &Chains<'m>,
        at: usize,
        to: To<'_>,
        meta: &Metadata,
    ) -> Result<Changed> {
        let chain: Vec<&'m Change> = chains.up_to(at).collect();
        let done = self.change_content(to, meta, &self.mapping.changes[at], &chain)?;
        if let Changed::Done = done {
            self.filled.push(chains.thing(at));
        }
        Ok(done)
    }

    pub(super) fn set_times(
        &self,
        object: ObjectIx,
        fd: &OwnedFd,
        times: &sys::Timestamps,
    ) -> Result<()> {
        let pos = self.place_of_change(object);
        let path = pos.map_or(&b""[..], |pos| self.path(pos));
        match sys::utimensat(fd, c"", times) {
            // Before Linux 5.8: by its name, which was found to be this thing's.
            Err(Errno::INVAL | Errno::NOENT) => match pos.and_then(|pos| self.name_at(pos)) {
                Some((dir, name)) => sys::utimensat(dir, name, times),
                None => Err(Errno::NOENT),
            },
            done => done,
        }
        .map_err(|e| fail("utimensat", e, path))
    }

    fn change_xattr(
        &self,
        place: &OwnedFd,
        meta: &Metadata,
        (name, after): (&[u8], &Option<Vec<u8>>),
        (chains, at): (&Chains<'_>, usize),
        path: &[u8],
    ) -> Result<Changed> {
        let Some(fd) = reopen(place, meta, OFlags::RDONLY, path)? else {
            return Ok(Changed::Conflict(None));
        };
        let name = CString::new(name).map_err(|_| fail("fsetxattr", Errno::INVAL, path))?;
        let found = sys::fgetxattr(&fd, name.as_c_str()).map_err(|e| fail("fgetxattr", e, path))?;
        // A change of the mode shows in the access list.
        let is_list = name.as_c_str() == acl::ACCESS;
        let mode = chains.later(at, Part::Mode).filter(|_| is_list);
        let after = match (after, mode.map(|change| &change.what)) {
            (Some(list), Some(Set::Mode { after: mode, .. })) => &Some(acl::with_mode(list, *mode)),
            _ => after,
        };
        if found == *after {
            return Ok(Changed::Done);
        }
        let known = chains.up_to(at).any(|change| {
            matches!(&change.what, Set::Xattr { before, after, .. } if found == *before || found == *after)
        });
        if !known && !is_list && self.purpose != Purpose::Back {
            return Ok(Changed::Conflict(None));
        }
        match after {
            Some(value) => sys::fsetxattr(&fd, name.as_c_str(), value, XattrFlags::empty())
                .map_err(|e| fail("fsetxattr", e, path))?,
            None => match sys::fremovexattr(&fd, name.as_c_str()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(e) => return Err(fail("fremovexattr", e, path)),
            },
        }
        Ok(Changed::Done)
    }
}

/// Opens what a descriptor is a place of, if it is a file or directory.
///
/// Through procfs, so that nothing that was put at its name meanwhile is opened.
pub(super) fn reopen(
    place: &OwnedFd,
    meta: &Metadata,
    flags: OFlags,
    path: &[u8],
) -> Result<Option<OwnedFd>> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    if meta.is_dir() {
        return sys::openat(place, c".", flags, Mode::empty())
            .map(Some)
            .map_err(|e| fail("openat", e, path));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let (proc, number) =
        sys::descriptor_link(place.as_fd()).map_err(|e| fail("openat", e, path))?;
    sys::openat(&proc, number.as_c_str(), flags, Mode::empty())
        .map(Some)
        .map_err(|e| fail("openat", e, path))
}
