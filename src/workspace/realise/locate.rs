//! Opening the directories, and looking where everything is.

use super::super::identity::{Ident, Kind};
use super::super::mapping::{Object, ObjectIx, Place, PlaceIx};
use super::super::place::{self, Held};
use super::state::{Aside, At, Folder, Pos, Purpose, Work};
use super::{Mode, fail};
use crate::sys::{self, AsFd, Errno, Mode as FileMode};
use crate::tree;
use crate::{Dir, Name, Result, Root};

impl<'a> Work<'_, 'a, '_> {
    /// Opens every directory that is needed. What cannot be found stays closed.
    pub(super) fn open_places(&mut self) -> Result<()> {
        if self.mode == Mode::Again {
            for object in 0..self.homes.len() {
                self.look_if_unknown(Pos::Home(object))?;
            }
        }
        loop {
            let mut closed = false;
            let mut opened = false;
            for at in 0..self.places.len() {
                if self.places[at].is_some() || !self.is_needed(at) {
                    continue;
                }
                match self.try_open(at)? {
                    Some(held) => {
                        self.places[at] = Some(held);
                        self.look_at_slots(at)?;
                        opened = true;
                    }
                    None => closed = true,
                }
            }
            if !closed {
                return Ok(());
            }
            if opened {
                continue;
            }
            if !self.scanned {
                self.scan()?;
            } else if !self.remake_dirs()? {
                return Ok(());
            }
        }
    }

    fn is_needed(&self, place: PlaceIx) -> bool {
        self.mode == Mode::Again
            || (0..self.slots.len())
                .any(|slot| self.mapping.slots[slot].place == place && self.concerns(slot))
    }

    fn look_at_slots(&mut self, place: PlaceIx) -> Result<()> {
        for slot in 0..self.slots.len() {
            if self.mapping.slots[slot].place == place {
                self.look_if_unknown(Pos::Slot(slot))?;
            }
        }
        Ok(())
    }

    pub(super) fn look_if_unknown(&mut self, pos: Pos) -> Result<()> {
        if self.at(pos) == At::Unknown {
            self.look(pos)?;
        }
        Ok(())
    }

    /// Looks what stands at a name.
    pub(super) fn look(&mut self, pos: Pos) -> Result<At> {
        let found = match self.name_at(pos) {
            Some((dir, name)) => place::look(dir, name),
            None => return Ok(At::Unknown),
        };
        let at = match found {
            Ok(meta) => {
                if let Pos::Home(object) = pos {
                    self.alone[object] = meta.links() == 1;
                }
                At::Thing(Ident::of(&meta))
            }
            Err(Errno::NOENT) => At::Empty,
            Err(e) => return Err(fail("statx", e, self.path(pos))),
        };
        self.set(pos, at);
        Ok(at)
    }

    /// Opens one directory, if it is where it can be: at its path, or where the transaction has put it.
    fn try_open(&self, at: PlaceIx) -> Result<Option<Held<'a>>> {
        match &self.mapping.places[at] {
            Place::Keys => {
                let keys: &'a Dir = self.ctx.keys;
                Ok(Some(Held::Borrowed(keys.as_fd())))
            }
            Place::New(object) => {
                let Some(fd) = self.open_object(*object)? else {
                    return Ok(None);
                };
                self.open_up(*object, &fd)?;
                Ok(Some(Held::Own(fd)))
            }
            Place::Existing {
                path,
                ident,
                object,
            } => {
                let root: &'a Root = self.ctx.root;
                if path.is_empty() && self.mode == Mode::First {
                    // The very descriptor that the mapping was made by: it can be no other directory.
                    return Ok(Some(Held::Borrowed(root.as_fd())));
                }
                match place::open(root, path) {
                    Ok((held, meta)) if ident.is(&Ident::of(&meta)) => return Ok(Some(held)),
                    Ok(_) => {}
                    Err(e) if is_absent(e) => {}
                    Err(e) => return Err(fail("openat2", e, path)),
                }
                if let Some(object) = object
                    && let Some(fd) = self.open_object(*object)?
                {
                    return Ok(Some(Held::Own(fd)));
                }
                self.open_below_moved(path, ident)
            }
        }
    }

    /// Opens a directory that is an object, wherever it is.
    fn open_object(&self, object: ObjectIx) -> Result<Option<sys::OwnedFd>> {
        let Some((dir, name)) = self.find_any(object).and_then(|pos| self.name_at(pos)) else {
            return Ok(None);
        };
        match place::open_in(dir, name) {
            Ok(fd) => {
                let meta = place::facts(&fd).map_err(|e| fail("statx", e, b""))?;
                Ok(self.is(object, &Ident::of(&meta)).then_some(fd))
            }
            Err(e) if is_absent(e) => Ok(None),
            Err(e) => Err(fail("openat", e, self.path_of(object))),
        }
    }

    /// A directory below one that the transaction moves.
    fn open_below_moved(&self, path: &[u8], ident: &Ident) -> Result<Option<Held<'a>>> {
        for (at, object) in self.mapping.objects.iter().enumerate() {
            let (moved, slot) = match (object, self.target[at]) {
                (Object::Existing { ident, slot }, _) => (ident, *slot),
                // It is on its way back to where it was.
                (Object::Kept { ident, .. }, Some(slot)) => (ident, slot),
                _ => continue,
            };
            let slot = &self.mapping.slots[slot];
            let Place::Existing { path: above, .. } = &self.mapping.places[slot.place] else {
                continue;
            };
            let mut old = above.clone();
            if !old.is_empty() {
                old.push(b'/');
            }
            old.extend_from_slice(slot.name.as_bytes());
            old.push(b'/');
            let Some(rest) = path.strip_prefix(old.as_slice()) else {
                continue;
            };
            if moved.kind != Kind::Dir {
                continue;
            }
            let Some(fd) = self.open_object(at)? else {
                continue;
            };
            let below = self.ctx.root.options().over(Dir::from(fd));
            let flags = sys::OFlags::DIRECTORY | sys::OFlags::RDONLY;
            match below.open_raw(rest, flags, FileMode::empty()) {
                Ok(fd) => {
                    let meta = place::facts(&fd).map_err(|e| fail("statx", e, path))?;
                    if ident.is(&Ident::of(&meta)) {
                        return Ok(Some(Held::Own(fd)));
                    }
                }
                Err(e) if is_absent(e) => {}
                Err(e) => return Err(fail("openat2", e, path)),
            }
        }
        Ok(None)
    }

    /// A new directory that its owner may not write to is opened up until it holds what it is to hold.
    fn open_up(&self, object: ObjectIx, fd: &sys::OwnedFd) -> Result<()> {
        if !self.is_closed_dir(object) || self.mode == Mode::First {
            return Ok(());
        }
        let Object::New { attr, .. } = &self.mapping.objects[object] else {
            return Ok(());
        };
        let mode = FileMode::from_raw_mode(attr.mode) | FileMode::RWXU;
        tree::chmod_place(fd.as_fd(), mode).map_err(|(c, e)| fail(c, e, self.path_of(object)))
    }

    /// Reads the folders of what was put away, for what is at none of its names.
    pub(super) fn scan(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.scanned, true) {
            return Ok(());
        }
        for folder in [Folder::Retired, Folder::Kept, Folder::Staged] {
            let dir = match folder {
                Folder::Kept => self.ctx.kept,
                Folder::Retired => self.ctx.retired,
                // Where an exchange has brought what a step of the section has displaced.
                Folder::Staged if self.purpose == Purpose::Back => self.ctx.staged,
                Folder::Staged => continue,
            };
            let mut entries = dir.read_dir()?;
            let mut names = Vec::new();
            while let Some(entry) = entries.next().map_err(|e| fail("getdents64", e, b""))? {
                if let Ok(name) = Name::from_entry(entry.name()) {
                    names.push(name);
                }
            }
            for name in names {
                let known = |aside: &Aside| aside.folder == folder && aside.name == name;
                let is_home = (0..self.homes.len()).any(|o| self.home(o) == Some((folder, &name)));
                if is_home || self.asides.iter().any(known) {
                    continue;
                }
                let found = place::ident_at(dir, name.as_c_str());
                let at = At::from(found.map_err(|e| fail("statx", e, b""))?);
                self.asides.push(Aside {
                    folder,
                    name,
                    at,
                    of: None,
                    drop: false,
                });
            }
        }
        Ok(())
    }
}

/// Whether an errno says that there is no such directory.
fn is_absent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::STALE
    )
}
