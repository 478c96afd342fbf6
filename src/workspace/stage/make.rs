//! Making one new thing under its private name, with all its attributes.
//!
//! The folder is closed to everybody else, and a file is made with the rights that the umask gives it, or
//! that the file has whose place it takes, where it has no access list; else it is closed off until it has
//! its owner and mode.

use super::content::read_all;
use super::sync::Fd;
use super::{INLINE, Made, Work, fail};
use crate::publish::Preserve;
use crate::publish::attributes::{self, Explicit, Old};
use crate::sys::{
    self, AsFd, BorrowedFd, Errno, FileType, Gid, Metadata, Mode, OFlags, OwnedFd, Uid, XattrFlags,
};
use crate::tree::acl;
use crate::workspace::draft::{AttrRequest, DraftObject, NewContent, Piece, Source, StagedFile};
use crate::workspace::identity::{Ident, Stamp};
use crate::workspace::mapping::{Attributes, Body, Object, ObjectIx, Place};
use crate::workspace::place::{self, timespec};
use crate::{Dir, Name, Result};
use std::ffi::CString;
use std::sync::Arc;

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const ALL_FILE: Mode = Mode::from_raw_mode(0o666);
const ALL_DIR: Mode = Mode::from_raw_mode(0o777);

/// What a new thing gets from the directory that it will be in.
#[derive(Default)]
struct Heritage {
    /// The group, and whether a directory hands it on.
    group: Option<Gid>,
    list: Option<Vec<u8>>,
}

impl<'a> Work<'_, 'a> {
    pub(super) fn make(&mut self, at: ObjectIx) -> Result<()> {
        let DraftObject::New {
            content,
            attr,
            like,
        } = &self.draft.objects[at]
        else {
            return Ok(());
        };
        let path = self.path_of(at);
        let object = match content {
            NewContent::File(pieces) => self.make_file(at, pieces, attr, *like, path)?,
            NewContent::Dir => self.make_dir(at, attr, *like, path)?,
            NewContent::Symlink(target) => self.make_symlink(target, attr, path)?,
            NewContent::Link(to) => self.make_link(*to, path)?,
        };
        self.objects[at] = Some(object);
        Ok(())
    }

    /// Draws a private name and has something made under it, which is removed if there is no commit.
    pub(super) fn create<T>(
        &mut self,
        dir: &'a Dir,
        is_dir: bool,
        path: &[u8],
        call: &'static str,
        make: impl FnOnce(&'a Dir, &Name) -> sys::Result<T>,
    ) -> Result<(Name, T)> {
        let name = (self.ctx.names)()?;
        let made = make(dir, &name);
        // Whatever else it answers, it may have been carried out (on network storage).
        if !matches!(made, Err(Errno::EXIST)) {
            let name = name.clone();
            self.out.made.push(Made { dir, name, is_dir });
        }
        made.map(|value| (name, value))
            .map_err(|e| fail(call, e, path))
    }

    /// An empty file in one of the folders.
    pub(super) fn create_file(
        &mut self,
        dir: &'a Dir,
        mode: Mode,
        path: &[u8],
    ) -> Result<(Name, OwnedFd)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.create(dir, false, path, "openat", |dir, name| {
            sys::openat(dir, name.as_c_str(), flags, mode)
        })
    }

    fn make_file(
        &mut self,
        at: ObjectIx,
        pieces: &[Piece],
        attr: &AttrRequest,
        like: Option<ObjectIx>,
        path: &[u8],
    ) -> Result<Object> {
        let like = self.like(like, FileType::RegularFile)?;
        let heritage = self.heritage(at, like.is_some())?;
        let mut umasked = by_umask(like.as_ref(), heritage.as_ref(), attr);
        let asked = *attr != AttrRequest::default();
        // Like another file that has nothing but its mode and owner.
        let mut alike = like.as_ref().filter(|old| !old.has_xattrs() && !asked);
        let (staged, fd) = match self.adopt(pieces) {
            Some(file) => {
                umasked = false;
                alike = None;
                (file.name.clone(), Fd::Given(file))
            }
            None => {
                let mode = match alike {
                    Some(old) => old.meta.mode() & Mode::from_raw_mode(0o777),
                    None if umasked => ALL_FILE,
                    None => PRIVATE,
                };
                let (name, fd) = self.create_file(self.ctx.staged, mode, path)?;
                self.fill(fd.as_fd(), pieces, path)?;
                (name, Fd::Own(fd))
            }
        };
        let file = match &fd {
            Fd::Own(fd) => fd.as_fd(),
            Fd::Given(file) => file.fd.as_fd(),
        };
        let facts = || place::facts(file).map_err(|e| fail("statx", e, path));
        let complete = match alike {
            Some(old) => {
                let now = facts()?;
                (old.is_like(&now) && !self.hands_down(path)?).then_some(now)
            }
            None if umasked && !asked => Some(facts()?),
            None => None,
        };
        let (meta, list) = match complete {
            Some(now) => (now, false),
            None => {
                let list = self.dress(file, attr, like.as_ref(), heritage, umasked, path)?;
                (facts()?, list)
            }
        };
        let attr = attributes_of(file, &meta, attr.atime, list, path)?;
        let body = match usize::try_from(meta.len()) {
            Ok(len) if len <= INLINE.min(self.room) => {
                self.room -= len;
                match pieces {
                    [Piece::Given(Source::Bytes(bytes))] => Body::Inline(Arc::clone(bytes)),
                    _ => Body::Inline(read_all(file, len, path)?),
                }
            }
            _ => {
                self.sync.staged(fd);
                Body::Staged
            }
        };
        Ok(Object::New {
            staged,
            ident: Ident::of(&meta),
            body,
            attr,
        })
    }

    /// Whether the folder for new files gives them an access list.
    fn hands_down(&mut self, path: &[u8]) -> Result<bool> {
        if let Some(known) = self.hands_down {
            return Ok(known);
        }
        let list = match sys::fgetxattr(self.ctx.staged, acl::DEFAULT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => None,
            done => done.map_err(|e| fail("fgetxattr", e, path))?,
        };
        Ok(*self.hands_down.insert(list.is_some()))
    }

    /// The file that the caller has written already, if it is all the content and nobody else's.
    pub(super) fn adopt(&mut self, pieces: &[Piece]) -> Option<Arc<StagedFile>> {
        let [Piece::Given(Source::File(file))] = pieces else {
            return None;
        };
        if self.out.made.iter().any(|made| made.name == file.name) {
            return None;
        }
        self.out.made.push(Made {
            dir: self.ctx.staged,
            name: file.name.clone(),
            is_dir: false,
        });
        Some(file.clone())
    }

    fn make_dir(
        &mut self,
        at: ObjectIx,
        attr: &AttrRequest,
        like: Option<ObjectIx>,
        path: &[u8],
    ) -> Result<Object> {
        let like = self.like(like, FileType::Directory)?;
        let heritage = self.heritage(at, like.is_some())?;
        let umasked = by_umask(like.as_ref(), heritage.as_ref(), attr);
        let simple = umasked && *attr == AttrRequest::default();
        let mode = if umasked { ALL_DIR } else { Mode::RWXU };
        let make = |dir: &'a Dir, name: &Name| sys::mkdirat(dir, name.as_c_str(), mode);
        let (staged, ()) = self.create(self.ctx.staged, true, path, "mkdirat", make)?;
        let open = || place::open_in(self.ctx.staged, staged.as_c_str());
        let receives = self.receives(at);
        let (meta, attr) = if simple && !receives {
            let meta = place::look(self.ctx.staged, staged.as_c_str());
            let meta = meta.map_err(|e| fail("statx", e, path))?;
            (meta, plain(&meta))
        } else {
            let fd = open().map_err(|e| fail("openat", e, path))?;
            let list = if simple {
                false
            } else {
                self.dress(fd.as_fd(), attr, like.as_ref(), heritage, umasked, path)?
            };
            let meta = place::facts(&fd).map_err(|e| fail("statx", e, path))?;
            let attr = attributes_of(fd.as_fd(), &meta, attr.atime, list, path)?;
            // Its owner puts into it what it is to hold, and gives it this mode afterwards.
            let open = meta.mode() | Mode::RWXU;
            if open != meta.mode() {
                sys::fchmod(&fd, open).map_err(|e| fail("fchmod", e, path))?;
            }
            // What is moved into it has no other name then: the directory must be there after a crash.
            if receives {
                self.sync.staged(Fd::Own(fd));
            }
            (meta, attr)
        };
        Ok(Object::New {
            staged,
            ident: Ident::of(&meta),
            body: Body::Dir,
            attr,
        })
    }

    /// Whether something that exists, or a directory with such a thing in it, is moved into this new one.
    fn receives(&self, at: ObjectIx) -> bool {
        let into = |place: usize| matches!(self.draft.places[place], Place::New(o) if o == at);
        self.draft.slots.iter().any(|slot| {
            into(slot.place)
                && slot.after.is_some_and(|o| match &self.draft.objects[o] {
                    DraftObject::Existing { .. } => true,
                    DraftObject::New {
                        content: NewContent::Dir,
                        ..
                    } => o != at && self.receives(o),
                    DraftObject::New { .. } => false,
                })
        })
    }

    fn make_symlink(&mut self, target: &[u8], attr: &AttrRequest, path: &[u8]) -> Result<Object> {
        let text = CString::new(target).map_err(|_| fail("symlinkat", Errno::INVAL, path))?;
        let make =
            |dir: &'a Dir, name: &Name| sys::symlinkat(text.as_c_str(), dir, name.as_c_str());
        let (staged, ()) = self.create(self.ctx.staged, false, path, "symlinkat", make)?;
        let (dir, name) = (self.ctx.staged, staged.as_c_str());
        let (uid, gid) = (attr.uid.map(Uid::from_raw), attr.gid.map(Gid::from_raw));
        if uid.is_some() || gid.is_some() {
            sys::fchownat(dir, name, uid, gid).map_err(|e| fail("fchownat", e, path))?;
        }
        if attr.mtime.is_some() || attr.atime.is_some() {
            sys::utimensat(dir, name, &place::times(attr.atime, attr.mtime))
                .map_err(|e| fail("utimensat", e, path))?;
        }
        let meta = place::look(dir, name).map_err(|e| fail("statx", e, path))?;
        Ok(Object::New {
            ident: Ident::of(&meta),
            body: Body::Symlink(target.to_vec()),
            attr: Attributes {
                atime: attr.atime,
                ..plain(&meta)
            },
            staged,
        })
    }

    fn make_link(&mut self, to: ObjectIx, path: &[u8]) -> Result<Object> {
        let staged_dir = self.ctx.staged;
        let source = match &self.objects[to] {
            Some(Object::New { staged, .. }) => Some(staged.clone()),
            _ => None,
        };
        let opened = match &source {
            Some(_) => None,
            None => {
                let (dir, slot) = self.existing(to)?;
                // Borrowed from the places, which the making of the link does not touch.
                let dir = sys::openat(dir, c".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
                    .map_err(|e| fail("openat", e, path))?;
                Some((dir, slot.name.clone()))
            }
        };
        let make = |dir: &'a Dir, name: &Name| match (&source, &opened) {
            (Some(from), _) => sys::linkat(staged_dir, from.as_c_str(), dir, name.as_c_str()),
            (None, Some((place, from))) => {
                sys::linkat(place, from.as_c_str(), dir, name.as_c_str())
            }
            (None, None) => Err(Errno::NOENT),
        };
        let (staged, ()) = self.create(staged_dir, false, path, "linkat", make)?;
        let meta = place::look(staged_dir, staged.as_c_str());
        let meta = meta.map_err(|e| fail("statx", e, path))?;
        let ident = Ident::of(&meta);
        let meant = match &self.objects[to] {
            Some(Object::New { ident: of, .. } | Object::Existing { ident: of, .. }) => {
                of.is(&ident)
            }
            _ => false,
        };
        if !meant {
            return Err(super::changed(path));
        }
        Ok(Object::New {
            staged,
            ident,
            body: Body::Link(to),
            attr: plain(&meta),
        })
    }

    /// The attributes of the file that gives way.
    fn like(&mut self, like: Option<ObjectIx>, kind: FileType) -> Result<Option<Old>> {
        let Some(like) = like else {
            return Ok(None);
        };
        let meta = self.facts(like)?;
        if meta.kind() != kind {
            return Ok(None);
        }
        let mut notes = std::mem::take(&mut self.out.notes);
        let (dir, slot) = self.existing(like)?;
        // If it is another file by now, that is seen when it is exchanged for the new one.
        let old = Old::read_of(dir, &slot.name, meta, &mut notes)
            .map_err(|(call, e)| fail(call, e, &slot.path));
        self.out.notes = notes;
        old.map(Some)
    }

    /// What the directory hands down to a new thing that is not like an old one.
    fn heritage(&mut self, at: ObjectIx, like: bool) -> Result<Option<Heritage>> {
        let Some(slot) = self.slot_of(at).filter(|_| !like) else {
            return Ok(None);
        };
        let heritage = match &self.draft.places[slot.place] {
            Place::Keys => return Ok(None),
            Place::New(parent) => match &self.objects[*parent] {
                Some(Object::New { attr, .. }) => Heritage {
                    group: (attr.mode & 0o2000 != 0).then(|| Gid::from_raw(attr.gid)),
                    list: attr
                        .xattrs
                        .iter()
                        .find(|(name, _)| name == acl::DEFAULT.to_bytes())
                        .map(|(_, value)| value.clone()),
                },
                _ => Heritage::default(),
            },
            Place::Existing { .. } => match &mut self.places[slot.place] {
                Some(place) => {
                    let group = place.meta.mode().contains(Mode::SGID);
                    if place.default_list.is_none() {
                        let list = match sys::fgetxattr(&place.dir, acl::DEFAULT) {
                            // It has none, or may not be read (a place that is only passed).
                            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => None,
                            done => done.map_err(|e| fail("fgetxattr", e, &slot.path))?,
                        };
                        place.default_list = Some(list);
                    }
                    Heritage {
                        group: group.then(|| place.meta.gid()),
                        list: place.default_list.clone().flatten(),
                    }
                }
                None => Heritage::default(),
            },
        };
        let some = heritage.group.is_some() || heritage.list.is_some();
        Ok(some.then_some(heritage))
    }

    /// Gives a file or directory that only its owner can reach its attributes. True if it may have extended
    /// ones then.
    fn dress(
        &mut self,
        fd: BorrowedFd<'_>,
        attr: &AttrRequest,
        like: Option<&Old>,
        heritage: Option<Heritage>,
        umasked: bool,
        path: &[u8],
    ) -> Result<bool> {
        let refused = |(call, e)| fail(call, e, path);
        let mut born = place::facts(fd).map_err(|e| fail("statx", e, path))?;
        let mut extended = like.is_some_and(Old::has_xattrs) || !attr.xattrs.is_empty();
        if like.is_none() && !umasked {
            let heritage = heritage.unwrap_or_default();
            extended |= heritage.list.is_some();
            self.inherit(fd, &born, heritage, attr.mode.is_some(), path)?;
            born = place::facts(fd).map_err(|e| fail("statx", e, path))?;
        }
        let mut explicit = Explicit {
            mode: attr.mode.map(Mode::from_raw_mode),
            uid: attr.uid.map(Uid::from_raw),
            gid: attr.gid.map(Gid::from_raw),
            atime: attr.atime.map(timespec),
            mtime: attr.mtime.map(timespec),
            xattrs: Vec::new(),
        };
        let mut removed = Vec::new();
        for (name, value) in last_of_each(&attr.xattrs) {
            // What holds a NUL byte is refused like an empty name.
            let name = CString::new(name).unwrap_or_default();
            match value {
                Some(value) => explicit.xattrs.push((name, value.to_vec())),
                None => removed.push(name),
            }
        }
        let notes = &mut self.out.notes;
        attributes::apply(
            fd,
            born.rights(),
            like,
            Preserve::default(),
            &explicit,
            notes,
        )
        .map_err(refused)?;
        for name in removed {
            match sys::fremovexattr(fd, name.as_c_str()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(e) => return Err(fail("fremovexattr", e, path)),
            }
        }
        Ok(extended)
    }

    /// Group, mode and access list of a new thing, as if it had been made in its directory.
    fn inherit(
        &mut self,
        fd: BorrowedFd<'_>,
        born: &Metadata,
        heritage: Heritage,
        explicit: bool,
        path: &[u8],
    ) -> Result<()> {
        if let Some(group) = heritage.group.filter(|group| *group != born.gid()) {
            sys::fchown(fd, None, Some(group)).map_err(|e| fail("fchown", e, path))?;
        }
        let is_dir = born.is_dir();
        let all = if is_dir { ALL_DIR } else { ALL_FILE };
        let handed_on = if is_dir && heritage.group.is_some() {
            Mode::SGID
        } else {
            Mode::empty()
        };
        let list = heritage.list.as_deref();
        let inherited = list.and_then(|list| acl::inherit(list, all.as_raw_mode()));
        let Some((access, mode)) = inherited else {
            if explicit {
                return Ok(());
            }
            let mode = self.default_mode(is_dir, path)?;
            let mode = Mode::from_raw_mode(mode) | handed_on;
            return sys::fchmod(fd, mode).map_err(|e| fail("fchmod", e, path));
        };
        // The group's bits are the list's mask, and come with it.
        let mode = Mode::from_raw_mode(mode) | handed_on;
        sys::fchmod(fd, mode.difference(Mode::RWXG)).map_err(|e| fail("fchmod", e, path))?;
        let set = |name, value: &[u8]| {
            sys::fsetxattr(fd, name, value, XattrFlags::empty())
                .map_err(|e| fail("fsetxattr", e, path))
        };
        set(acl::ACCESS, &access)?;
        match list {
            Some(list) if is_dir => set(acl::DEFAULT, list),
            _ => Ok(()),
        }
    }

    /// What the umask leaves of the mode of a new file or directory. It can only be asked for by making one.
    fn default_mode(&mut self, is_dir: bool, path: &[u8]) -> Result<u32> {
        if let Some(mode) = self.defaults[usize::from(is_dir)] {
            return Ok(mode);
        }
        let dir = self.ctx.staged;
        let mode = if is_dir {
            let make = |dir: &'a Dir, name: &Name| sys::mkdirat(dir, name.as_c_str(), ALL_DIR);
            let (name, ()) = self.create(dir, true, path, "mkdirat", make)?;
            let meta = place::look(dir, name.as_c_str()).map_err(|e| fail("statx", e, path))?;
            sys::rmdirat(dir, name.as_c_str()).map_err(|e| fail("unlinkat", e, path))?;
            meta.mode()
        } else {
            let (name, fd) = self.create_file(dir, ALL_FILE, path)?;
            let meta = place::facts(&fd).map_err(|e| fail("statx", e, path))?;
            sys::unlinkat(dir, name.as_c_str()).map_err(|e| fail("unlinkat", e, path))?;
            meta.mode()
        };
        self.out.made.pop();
        let mode = mode.as_raw_mode() & 0o777;
        self.defaults[usize::from(is_dir)] = Some(mode);
        Ok(mode)
    }
}

/// Whether nothing but the umask decides on the mode, so that the thing can be made with it from the start.
fn by_umask(like: Option<&Old>, heritage: Option<&Heritage>, attr: &AttrRequest) -> bool {
    let explicit = attr.mode.is_some() || attr.uid.is_some() || attr.gid.is_some();
    like.is_none() && heritage.is_none() && !explicit
}

/// The requests that count: the last one of each name.
pub(super) fn last_of_each(
    requests: &[(Vec<u8>, Option<Vec<u8>>)],
) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    requests
        .iter()
        .enumerate()
        .filter(|(at, (name, _))| !requests[at + 1..].iter().any(|(later, _)| later == name))
        .map(|(_, (name, value))| (name.as_slice(), value.as_deref()))
}

/// Attributes without extended ones.
fn plain(meta: &Metadata) -> Attributes {
    Attributes {
        mode: meta.mode().as_raw_mode(),
        uid: meta.uid().as_raw(),
        gid: meta.gid().as_raw(),
        mtime: Ident::of(meta).mtime,
        atime: None,
        xattrs: Vec::new(),
    }
}

/// The attributes that something has, to make it anew with.
fn attributes_of(
    fd: BorrowedFd<'_>,
    meta: &Metadata,
    atime: Option<Stamp>,
    extended: bool,
    path: &[u8],
) -> Result<Attributes> {
    let mut attr = Attributes {
        atime,
        ..plain(meta)
    };
    if extended {
        for name in sys::flistxattr(fd).map_err(|e| fail("flistxattr", e, path))? {
            if acl::is_alias(&name) {
                continue;
            }
            let value = sys::fgetxattr(fd, name.as_c_str());
            if let Some(value) = value.map_err(|e| fail("fgetxattr", e, path))? {
                attr.xattrs.push((name.into_bytes(), value));
            }
        }
    }
    Ok(attr)
}
