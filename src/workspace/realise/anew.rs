//! In recovery: what a crash has left incomplete, or lost, is made anew from the record.
//!
//! A file that has the recorded identity but not the recorded content, and was not modified since, is ours
//! and torn. One that was modified later is somebody's work since, and stays. A file with another identity
//! but the recorded length, time and content was made by an earlier recovery; so was one whose content is on
//! the way to what the transaction then writes over it.

use super::super::identity::{Ident, Kind, Stamp};
use super::super::mapping::{Attributes, Body, Object, ObjectIx, Place, Set, SlotIx};
use super::super::place::{self, read_at, times, write_all};
use super::state::{Aside, At, Folder, Pos, Work};
use super::{Mode, fail};
use crate::root::sync_names;
use crate::sys::{
    self, AsFd, BorrowedFd, Errno, Gid, Mode as FileMode, OFlags, OwnedFd, Uid, XattrFlags,
};
use crate::tree::acl;
use crate::{Name, Result};
use std::ffi::CString;

/// How the content of a file compares with the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Whole,
    /// Parts are missing or zero, and nothing else is there.
    Torn,
    Other,
}

impl Work<'_, '_, '_> {
    /// Sees to it that every new object is somewhere, and whole.
    pub(super) fn mend(&mut self) -> Result<()> {
        let is_strange =
            |slot: &SlotIx| self.slots[*slot].thing().is_some() && !self.is_satisfied(*slot);
        self.strange = (0..self.slots.len()).filter(is_strange).collect();
        // Links come last: what they are names of must be there.
        for links in [false, true] {
            for object in 0..self.ids.len() {
                let Object::New { body, .. } = &self.mapping.objects[object] else {
                    continue;
                };
                if self.is_link(object) != links || *body == Body::Staged {
                    continue;
                }
                match self.target[object] {
                    Some(slot) => self.mend_one(object, slot)?,
                    // Something may be changed by it all the same.
                    None => self.follow_target(object, None)?,
                }
            }
        }
        // Before any of them takes its name: who finds it there must not take it for whole when it is not.
        self.sync_unsynced()
    }

    fn mend_one(&mut self, object: ObjectIx, slot: SlotIx) -> Result<()> {
        self.follow_target(object, Some(slot))?;
        if self.is_satisfied(slot) {
            if self.is_torn(object, Pos::Slot(slot))? {
                self.torn.add(self.slots[slot].thing());
                self.clear_unfinished(object)?;
                return self.remake(object);
            }
            return Ok(());
        }
        self.clear_unfinished(object)?;
        if let Some(pos) = self.find_thoroughly(object)? {
            let torn = self.at(pos).thing();
            if !self.is_torn(object, pos)? {
                if matches!(pos, Pos::Slot(_)) && self.has_stand_in(object, slot)? {
                    self.torn.add(torn);
                    return Ok(());
                }
                return self.dress_private(object, pos);
            }
            // An earlier recovery has taken it from its name: it had replaced what was there before.
            let was_in_place = matches!(pos, Pos::Aside(aside)
                if self.asides[aside].folder == Folder::Retired);
            // It may stand at other names as well.
            self.torn.add(torn);
            // Nobody else has a private name.
            if let (false, Some((dir, name))) = (matches!(pos, Pos::Slot(_)), self.name_at(pos)) {
                sys::unlinkat(dir, name).map_err(|e| fail("unlinkat", e, self.path_of(object)))?;
                self.set(pos, At::Empty);
            }
            // An earlier recovery may have put a whole one in its place, and not come to this.
            if self.adopt(object, slot)? {
                return Ok(());
            }
            self.remake(object)?;
            // Else it was not lost: what it is to replace must be somewhere.
            self.remade[object] = was_in_place;
            return Ok(());
        }
        if self.adopt(object, slot)? {
            return Ok(());
        }
        self.remake(object)
    }

    /// Removes what an earlier recovery had begun to make under the private name.
    fn clear_unfinished(&mut self, object: ObjectIx) -> Result<()> {
        let home = Pos::Home(object);
        if let (true, Some((dir, name))) = (self.is_begun(object)?, self.name_at(home)) {
            sys::unlinkat(dir, name).map_err(|e| fail("unlinkat", e, self.path_of(object)))?;
            self.set(home, At::Empty);
        }
        Ok(())
    }

    /// Whether an earlier recovery found the object torn where it stands, and had begun to make it anew
    /// under the private name.
    pub(super) fn is_being_remade(&self, object: ObjectIx, slot: SlotIx) -> Result<bool> {
        let content = self.made_as(object);
        Ok(self.is_torn(content, Pos::Slot(slot))? && self.is_begun(object)?)
    }

    /// The object whose further name this is, or itself.
    pub(super) fn made_as(&self, object: ObjectIx) -> ObjectIx {
        match &self.mapping.objects[object] {
            Object::New {
                body: Body::Link(of),
                ..
            } => *of,
            _ => object,
        }
    }

    /// Whether what is under the private name looks like what an earlier recovery had begun to make.
    fn is_begun(&self, object: ObjectIx) -> Result<bool> {
        let home = Pos::Home(object);
        let (At::Thing(found), Object::New { body, .. }) =
            (self.at(home), &self.mapping.objects[object])
        else {
            return Ok(false);
        };
        if self.is_ours(&found) {
            return Ok(false);
        }
        // A further name of one that was made anew is one of that.
        let body = match body {
            Body::Link(of) => match &self.mapping.objects[*of] {
                Object::New { body, .. } => body,
                _ => return Ok(false),
            },
            body => body,
        };
        Ok(match (body, found.kind) {
            (Body::Inline(content), Kind::File) => self.compare(home, content)? != Content::Other,
            (Body::Symlink(target), Kind::Symlink) => self.has_text(home, target)?,
            _ => false,
        })
    }

    /// Gives a directory under a private name the attributes that a crash may have taken from it.
    fn dress_private(&self, object: ObjectIx, pos: Pos) -> Result<()> {
        let Object::New {
            body: Body::Dir,
            attr,
            ..
        } = &self.mapping.objects[object]
        else {
            return Ok(());
        };
        let (false, Some((dir, name))) = (matches!(pos, Pos::Slot(_)), self.name_at(pos)) else {
            return Ok(());
        };
        let path = self.path_of(object);
        let fd = place::open_in(dir, name).map_err(|e| fail("openat", e, path))?;
        dress(&fd, attr, attr.mode | 0o700).map_err(|(call, e)| fail(call, e, path))
    }

    /// A link to what was made anew is to be one of that.
    fn follow_target(&mut self, object: ObjectIx, slot: Option<SlotIx>) -> Result<()> {
        let Object::New {
            body: Body::Link(to),
            ..
        } = &self.mapping.objects[object]
        else {
            return Ok(());
        };
        let now = self.ids[*to];
        if self.is(object, &now) {
            return Ok(());
        }
        let holds_old = |work: &Self, pos| {
            let found = work.at(pos).thing();
            found.filter(|found| work.is(object, found))
        };
        self.torn
            .add(slot.and_then(|slot| holds_old(self, Pos::Slot(slot))));
        let home = Pos::Home(object);
        if holds_old(self, home).is_some()
            && let Some((dir, name)) = self.name_at(home)
        {
            sys::unlinkat(dir, name).map_err(|e| fail("unlinkat", e, self.path_of(object)))?;
            self.set(home, At::Empty);
        }
        self.ids.set(object, now);
        Ok(())
    }

    /// New directories that are nowhere: found where an earlier recovery has put them, or made anew. False
    /// if there was nothing to do.
    pub(super) fn remake_dirs(&mut self) -> Result<bool> {
        if self.mode == Mode::First {
            return Ok(false);
        }
        let mut any = false;
        for object in 0..self.ids.len() {
            let Object::New {
                body: Body::Dir, ..
            } = self.mapping.objects[object]
            else {
                continue;
            };
            let Some(slot) = self.target[object] else {
                continue;
            };
            if self.find_any(object).is_some() {
                continue;
            }
            let place = self.mapping.slots[slot].place;
            if self.places[place].is_none() && matches!(self.mapping.places[place], Place::New(_)) {
                // The directory above comes first.
                continue;
            }
            if !self.adopt(object, slot)? {
                self.remake(object)?;
            }
            any = true;
        }
        Ok(any)
    }

    /// Takes what stands at the slot for the object, if an earlier recovery has made it. That may have moved
    /// a file on to another name, to make room.
    fn adopt(&mut self, object: ObjectIx, slot: SlotIx) -> Result<bool> {
        if self.adopt_at(object, slot)? {
            return Ok(true);
        }
        if !matches!(
            &self.mapping.objects[object],
            Object::New {
                body: Body::Inline(_),
                ..
            }
        ) {
            return Ok(false);
        }
        for nth in 0..self.strange.len() {
            let other = self.strange[nth];
            if other != slot
                && !self.is_satisfied(other)
                && !self.is_at_home(object, other)?
                && self.adopt_at(object, other)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an earlier recovery, which did not find a file whole, has put another in its place already.
    fn has_stand_in(&mut self, object: ObjectIx, slot: SlotIx) -> Result<bool> {
        let is_file = matches!(
            &self.mapping.objects[object],
            Object::New {
                body: Body::Inline(_),
                ..
            }
        );
        // An empty one looks like any.
        let found = self.slots[slot].thing().filter(|found| found.len > 0);
        Ok(is_file && found.is_some() && self.adopt_at(object, slot)?)
    }

    /// Whether what stands at the slot may be what is to stand there, and not `object`: many files have the
    /// same content.
    fn is_at_home(&self, object: ObjectIx, slot: SlotIx) -> Result<bool> {
        match self.mapping.slots[slot].after.map(|own| self.made_as(own)) {
            Some(own) if own != object && !self.has_arrived(own) => {
                Ok(self.likeness(own, slot)? == Some(Content::Whole))
            }
            _ => Ok(false),
        }
    }

    fn adopt_at(&mut self, object: ObjectIx, slot: SlotIx) -> Result<bool> {
        let Some(found) = self.slots[slot].thing() else {
            return Ok(false);
        };
        match self.likeness(object, slot)? {
            Some(Content::Whole) => {
                self.ids.set(object, found);
                return Ok(true);
            }
            Some(Content::Torn) if self.target[object] == Some(slot) => self.torn.add(Some(found)),
            _ => {}
        }
        Ok(false)
    }

    /// How far what stands at the slot looks like a new object that an earlier recovery has made; `None`: not
    /// at all.
    fn likeness(&self, object: ObjectIx, slot: SlotIx) -> Result<Option<Content>> {
        let here = Pos::Slot(slot);
        let (At::Thing(found), Object::New { body, attr, .. }) =
            (self.at(here), &self.mapping.objects[object])
        else {
            return Ok(None);
        };
        if self.is_ours(&found) {
            return Ok(None);
        }
        let ours = match (body, found.kind) {
            (Body::Inline(content), Kind::File) => {
                let same = found.len == content.len() as u64
                    && (found.mtime == attr.mtime || self.was_set(object, found.mtime));
                let like = match same {
                    true => self.compare(here, content)?,
                    false => Content::Other,
                };
                if like != Content::Whole && self.is_written_over(object, here)? {
                    Content::Whole
                } else {
                    like
                }
            }
            (Body::Symlink(target), Kind::Symlink) if self.has_text(here, target)? => {
                Content::Whole
            }
            (Body::Dir, Kind::Dir) if self.has_rights(here, attr)? => Content::Whole,
            _ => Content::Other,
        };
        Ok(Some(ours))
    }

    fn is_torn(&self, object: ObjectIx, pos: Pos) -> Result<bool> {
        let (At::Thing(found), Object::New { body, attr, .. }) =
            (self.at(pos), &self.mapping.objects[object])
        else {
            return Ok(false);
        };
        match body {
            // Its content is looked at all the same: pages that could not be written out are dropped.
            Body::Inline(content)
                if matches!(pos, Pos::Home(_)) && self.is_intact(object, &found) =>
            {
                Ok(self.compare(pos, content)? != Content::Whole)
            }
            // What a crash left under a private name is the inode of any moment of its making: its attributes
            // may be missing where its content is not.
            Body::Inline(_) | Body::Symlink(_) if !matches!(pos, Pos::Slot(_)) => Ok(true),
            Body::Inline(content) => Ok(self.compare(pos, content)? == Content::Torn
                && (found.mtime <= self.last_own(object, attr.mtime)
                    || self.was_set(object, found.mtime))),
            _ => Ok(false),
        }
    }

    /// Whether it is the object as it was recorded, with nothing lost since.
    fn is_intact(&self, object: ObjectIx, found: &Ident) -> bool {
        let recorded = super::state::ident_of(&self.mapping.objects[object]);
        self.intact && recorded.is_unchanged(found)
    }

    /// Whether a new file shows a time of its making: a crash may have left an earlier one than was recorded.
    pub(super) fn is_of_making(&self, object: ObjectIx, time: Stamp) -> bool {
        match &self.mapping.objects[self.made_as(object)] {
            Object::New {
                body: Body::Inline(_),
                attr,
                ..
            } => time <= self.last_own(self.made_as(object), attr.mtime),
            _ => false,
        }
    }

    /// The latest time of modification that our own making of a file can have left. One that was set to an
    /// earlier time had that of its making before.
    fn last_own(&self, object: ObjectIx, set: Stamp) -> Stamp {
        const MAKING: i64 = 2;
        match super::state::ident_of(&self.mapping.objects[object]).btime {
            Some((seconds, nanos)) if set < (seconds, nanos) => {
                (seconds.saturating_add(MAKING), nanos)
            }
            _ => set,
        }
    }

    /// Whether a later transaction has given a new file this time.
    fn was_set(&self, object: ObjectIx, time: Stamp) -> bool {
        self.mapping.changes.iter().any(|change| {
            matches!(change.what, Set::Times { after, .. } if after == time)
                && self.made_as(change.object) == object
        })
    }

    fn compare(&self, pos: Pos, content: &[u8]) -> Result<Content> {
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(Content::Other);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match sys::openat(dir, name, flags, FileMode::empty()) {
            // It cannot be read: what is not known to be torn counts as whole.
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Content::Whole),
            done => done.map_err(|e| fail("openat", e, self.path(pos)))?,
        };
        let mut found = vec![0; content.len() + 1];
        let len = read_at(&fd, &mut found, 0).map_err(|e| fail("pread64", e, self.path(pos)))?;
        found.truncate(len);
        Ok(if found == content {
            Content::Whole
        } else if len <= content.len()
            && found
                .iter()
                .zip(content)
                .all(|(is, was)| is == was || *is == 0)
        {
            Content::Torn
        } else {
            Content::Other
        })
    }

    fn has_text(&self, pos: Pos, target: &[u8]) -> Result<bool> {
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(false);
        };
        let text = sys::readlinkat(dir, name).map_err(|e| fail("readlinkat", e, self.path(pos)))?;
        Ok(text.as_bytes() == target)
    }

    fn has_rights(&self, pos: Pos, attr: &Attributes) -> Result<bool> {
        let Some((dir, name)) = self.name_at(pos) else {
            return Ok(false);
        };
        let meta = place::look(dir, name).map_err(|e| fail("statx", e, self.path(pos)))?;
        // Until it is filled its owner may do everything.
        let mode = meta.mode().as_raw_mode();
        Ok((mode == attr.mode || mode == attr.mode | 0o700)
            && meta.uid().as_raw() == attr.uid
            && meta.gid().as_raw() == attr.gid)
    }

    /// Makes an object anew under its private name, durable before it gets another; under a fresh
    /// one if that holds what was displaced, or may be taken for it after a crash, because a torn
    /// one stands at its name. Nobody knows again then what has been made of it: a change may have
    /// been written into it already, when the exchange is lost.
    fn remake(&mut self, object: ObjectIx) -> Result<()> {
        let Object::New {
            staged, body, attr, ..
        } = &self.mapping.objects[object]
        else {
            return Ok(());
        };
        let slot = self.target[object].and_then(|slot| self.slots[slot].thing());
        let torn = |it: &Ident| self.torn.candidates(it).iter().any(|torn| torn.is(it));
        let replaces_torn = slot.as_ref().is_some_and(torn);
        let pos = if self.homes[object] == At::Empty && !replaces_torn {
            Pos::Home(object)
        } else {
            let name = (self.ctx.names)()?;
            self.asides.push(Aside {
                folder: Folder::Staged,
                name,
                at: At::Empty,
                of: Some(object),
                drop: false,
            });
            Pos::Aside(self.asides.len() - 1)
        };
        let name = match pos {
            Pos::Aside(aside) => self.asides[aside].name.clone(),
            Pos::Home(_) | Pos::Slot(_) => staged.clone(),
        };
        if let Body::Link(to) = body {
            let Some((dir, from)) = self.find_any(*to).and_then(|pos| self.name_at(pos)) else {
                // What it is a name of is gone: a conflict, when its own name is due.
                return Ok(());
            };
            sys::linkat(dir, from, self.ctx.staged, name.as_c_str())
                .map_err(|e| fail("linkat", e, self.path_of(object)))?;
        } else {
            let path = self.path_of(object);
            let made = make(self.ctx.staged.as_fd(), &name, body, attr)
                .map_err(|(call, e)| fail(call, e, path))?;
            if let Some(file) = made {
                self.sync_later(file, path)?;
            }
        }
        self.set(pos, At::Unknown);
        let At::Thing(ident) = self.look(pos)? else {
            return Err(fail("statx", Errno::NOENT, self.path_of(object)));
        };
        self.ids.set(object, ident);
        self.remade[object] = true;
        Ok(())
    }
}

type Failed = (&'static str, Errno);

/// Makes a thing that is no link. A file is to be synced.
fn make(
    dir: BorrowedFd<'_>,
    name: &Name,
    body: &Body,
    attr: &Attributes,
) -> std::result::Result<Option<OwnedFd>, Failed> {
    let name = name.as_c_str();
    match body {
        Body::Inline(content) => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = FileMode::RUSR | FileMode::WUSR;
            let fd = sys::openat(dir, name, flags, mode).map_err(|e| ("openat", e))?;
            // Not complete until it is synced; who finds it before sees that by its time.
            write_all(&fd, content).map_err(|e| ("write", e))?;
            dress(&fd, attr, attr.mode)?;
            sys::futimens(&fd, &times(attr.atime, Some(attr.mtime)))
                .map_err(|e| ("futimens", e))?;
            return Ok(Some(fd));
        }
        Body::Dir => {
            sys::mkdirat(dir, name, FileMode::RWXU).map_err(|e| ("mkdirat", e))?;
            let fd = place::open_in(dir, name).map_err(|e| ("openat", e))?;
            dress(&fd, attr, attr.mode | 0o700)?;
            // What exists may be moved into it, and has no other name then.
            sync_names(fd.as_fd()).map_err(|e| ("fsync", e))?;
            sync_names(dir).map_err(|e| ("fsync", e))?;
        }
        Body::Symlink(target) => {
            let target =
                CString::new(target.as_slice()).map_err(|_| ("symlinkat", Errno::INVAL))?;
            sys::symlinkat(target.as_c_str(), dir, name).map_err(|e| ("symlinkat", e))?;
            let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
            match sys::fchownat(dir, name, Some(uid), Some(gid)) {
                // It means the same whoever owns it.
                Ok(()) | Err(Errno::PERM) => {}
                Err(e) => return Err(("fchownat", e)),
            }
            sys::utimensat(dir, name, &times(attr.atime, Some(attr.mtime)))
                .map_err(|e| ("utimensat", e))?;
        }
        Body::Staged | Body::Link(_) => {}
    }
    Ok(None)
}

/// Owner, mode and extended attributes. Who recovers may have fewer rights than who committed: then what was
/// meant for another owner or group does not fall to ours.
fn dress(fd: &OwnedFd, attr: &Attributes, mode: u32) -> std::result::Result<(), Failed> {
    let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
    let born = place::facts(fd).map_err(|e| ("statx", e))?;
    let mut owned = born.uid() == uid;
    let mut grouped = born.gid() == gid;
    if !(owned && grouped) {
        match sys::fchown(fd, Some(uid), Some(gid)) {
            Ok(()) => (owned, grouped) = (true, true),
            Err(Errno::PERM) => grouped |= sys::fchown(fd, None, Some(gid)).is_ok(),
            Err(e) => return Err(("fchown", e)),
        }
    }
    acl::drop_inherited(fd.as_fd(), born.is_dir())?;
    let list = |name: &[u8]| name == acl::ACCESS.to_bytes();
    let has_list = attr.xattrs.iter().any(|(name, _)| list(name));
    let mode = acl::permitted(mode, owned, grouped);
    // The group's bits are the list's mask, and come with it.
    let narrow = if has_list { mode & !0o070 } else { mode };
    sys::fchmod(fd, FileMode::from_raw_mode(narrow)).map_err(|e| ("fchmod", e))?;
    for (name, value) in &attr.xattrs {
        if list(name) && !grouped {
            continue;
        }
        let name = CString::new(name.as_slice()).map_err(|_| ("fsetxattr", Errno::INVAL))?;
        match sys::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty()) {
            // Not everybody may set every attribute; the content counts.
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(e) => return Err(("fsetxattr", e)),
        }
    }
    Ok(())
}
