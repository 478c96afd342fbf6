//! The directories between the top of a tree and where the work is, with a bounded number of descriptors.
//!
//! The innermost levels are open. The others keep only their name and identity, and what was not yet read of
//! their entries. On the way back a level is opened again through `..` of the one below it, and must be the
//! same directory (device, inode, mount) as before; if it is not, it is looked for by the names from the top,
//! each checked alike. So the depth of a tree is bounded by memory alone, and nothing that is renamed
//! meanwhile leads outside.

use crate::root::Name;
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, DirStream, Errno, FileType, Metadata, Mode, OFlags, OwnedFd,
};
use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// How many levels are open at most.
pub(super) const WINDOW: usize = 16;

/// How a directory is opened to be read. `O_NOFOLLOW`: a symlink in its place is `ENOTDIR`.
pub(super) const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

/// What makes two descriptors the same directory at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    dev: u64,
    ino: u64,
    mount: Option<u64>,
}

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Self {
        let id = meta.id();
        Self {
            dev: id.dev,
            ino: id.ino,
            mount: meta.mount_id(),
        }
    }

    /// Whether they are the same directory, perhaps reached through another mount.
    pub(super) fn is_file_of(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Whether `meta`, a directory found by name in this one, is on another mount: told by the mount itself
    /// since Linux 5.8, by the device number before (where a bind mount within one device cannot be seen).
    pub(super) fn crosses_to(&self, meta: &Metadata) -> bool {
        match (self.mount, meta.mount_id()) {
            (Some(here), Some(there)) => here != there || meta.is_mount_root() == Some(true),
            _ => self.dev != meta.id().dev,
        }
    }
}

/// Facts about an open file or directory.
pub(super) fn look(fd: impl AsFd) -> sys::Result<Metadata> {
    sys::statx(fd, c"", AtFlags::EMPTY_PATH)
}

/// Facts about a name, which is not followed.
pub(super) fn look_at(dir: impl AsFd, name: &CStr) -> sys::Result<Metadata> {
    sys::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What went wrong with a level.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A call failed.
    Call(&'static str, Errno),
    /// The directory at this depth is not where it was.
    Moved(usize),
}

/// What a chain keeps of an open level.
pub(super) trait Handle: AsFd + Sized {
    /// What stays while the level is closed.
    type Parked;
    fn open(fd: OwnedFd, parked: Option<Self::Parked>) -> Self;
    fn park(self) -> sys::Result<Self::Parked>;
}

impl Handle for OwnedFd {
    type Parked = ();
    fn open(fd: OwnedFd, _: Option<()>) -> Self {
        fd
    }
    fn park(self) -> sys::Result<()> {
        Ok(())
    }
}

enum Level<H: Handle> {
    Open(H),
    Parked(H::Parked),
    /// Between the two, when parking it failed.
    Broken,
}

/// See the module.
pub(super) struct Chain<B, H: Handle> {
    base: B,
    /// The name of each level in the one above; `None` for a first level that is `base` itself.
    names: Vec<Option<Name>>,
    ids: Vec<Identity>,
    levels: Vec<Level<H>>,
    /// Levels from here on are open.
    open_from: usize,
}

impl<B: AsFd, H: Handle> Chain<B, H> {
    pub(super) fn new(base: B) -> Self {
        Self {
            base,
            names: Vec::new(),
            ids: Vec::new(),
            levels: Vec::new(),
            open_from: 0,
        }
    }

    pub(super) fn base(&self) -> &B {
        &self.base
    }

    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The identity of the innermost level.
    pub(super) fn id(&self) -> Option<Identity> {
        self.ids.last().copied()
    }

    /// The innermost level's handle.
    pub(super) fn top(&mut self) -> Option<&mut H> {
        match self.levels.last_mut() {
            Some(Level::Open(h)) => Some(h),
            _ => None,
        }
    }

    /// The innermost level's descriptor, or the base.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd_at(self.levels.len())
    }

    /// The descriptor that holds the innermost level's name. [`open_parent`](Self::open_parent) comes first.
    pub(super) fn parent_fd(&self) -> BorrowedFd<'_> {
        self.fd_at(self.levels.len().saturating_sub(1))
    }

    fn fd_at(&self, depth: usize) -> BorrowedFd<'_> {
        match depth.checked_sub(1).and_then(|at| self.levels.get(at)) {
            Some(Level::Open(h)) => h.as_fd(),
            _ => self.base.as_fd(),
        }
    }

    /// The name of the innermost level.
    pub(super) fn name(&self) -> Option<&Name> {
        self.names.last().and_then(Option::as_ref)
    }

    pub(super) fn names(&self) -> &[Option<Name>] {
        &self.names
    }

    /// Opens a name in the innermost level; closes outer levels if descriptors run out.
    pub(super) fn open_in(
        &mut self,
        name: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> sys::Result<OwnedFd> {
        loop {
            match sys::openat(self.fd(), name, flags, mode) {
                Err(Errno::MFILE) if self.open_from + 1 < self.levels.len() => self.park_one()?,
                done => return done,
            }
        }
    }

    /// Adds a level.
    pub(super) fn push(
        &mut self,
        name: Option<Name>,
        fd: OwnedFd,
        id: Identity,
    ) -> sys::Result<()> {
        if self.levels.len() - self.open_from >= WINDOW {
            self.park_one()?;
        }
        self.names.push(name);
        self.ids.push(id);
        self.levels.push(Level::Open(H::open(fd, None)));
        Ok(())
    }

    fn park_one(&mut self) -> sys::Result<()> {
        let at = self.open_from;
        if let Some(level) = self.levels.get_mut(at) {
            self.open_from += 1;
            match std::mem::replace(level, Level::Broken) {
                Level::Open(h) => *level = Level::Parked(h.park()?),
                other => *level = other,
            }
        }
        Ok(())
    }

    /// Makes sure that the level above the innermost is open.
    pub(super) fn open_parent(&mut self) -> Result<(), Trouble> {
        let Some(at) = self.levels.len().checked_sub(2) else {
            return Ok(());
        };
        if at >= self.open_from {
            return Ok(());
        }
        let fd = self.find(at)?;
        let level = &mut self.levels[at];
        match std::mem::replace(level, Level::Broken) {
            Level::Parked(parked) => *level = Level::Open(H::open(fd, Some(parked))),
            other => {
                *level = other;
                return Err(Trouble::Moved(at));
            }
        }
        self.open_from = at;
        Ok(())
    }

    /// Opens level `at`, the parent of the innermost: through `..`, else by the names from the top.
    fn find(&self, at: usize) -> Result<OwnedFd, Trouble> {
        // Without the right to search the innermost level, `..` cannot be asked for.
        if let Ok(fd) = sys::openat(self.fd(), c"..", READ_DIR, Mode::empty())
            && look(&fd).is_ok_and(|meta| Identity::of(&meta) == self.ids[at])
        {
            return Ok(fd);
        }
        let mut found: Option<OwnedFd> = None;
        for depth in 0..=at {
            let flags = if depth == at {
                READ_DIR
            } else {
                READ_DIR | OFlags::PATH
            };
            let name = self.names[depth].as_ref().map_or(c".", Name::as_c_str);
            let from = found.as_ref().map_or(self.base.as_fd(), AsFd::as_fd);
            let fd = match sys::openat(from, name, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                    return Err(Trouble::Moved(depth));
                }
                done => done.map_err(|e| Trouble::Call("openat", e))?,
            };
            let meta = look(&fd).map_err(|e| Trouble::Call("statx", e))?;
            if Identity::of(&meta) != self.ids[depth] {
                return Err(Trouble::Moved(depth));
            }
            found = Some(fd);
        }
        found.ok_or(Trouble::Moved(at))
    }

    /// Leaves the innermost level; the one above is open then.
    pub(super) fn pop(&mut self) -> Result<(), Trouble> {
        self.open_parent()?;
        self.truncate(self.levels.len().saturating_sub(1));
        Ok(())
    }

    /// Leaves every level from depth `at` on, which is not where it was, and any above it that is not
    /// there either, so that the innermost one is open again.
    pub(super) fn leave_moved(&mut self, mut at: usize) -> Result<(), Trouble> {
        while let Some(above) = at.checked_sub(1) {
            if above >= self.open_from {
                break;
            }
            match self.find(above) {
                Ok(fd) => {
                    if let Level::Parked(parked) =
                        std::mem::replace(&mut self.levels[above], Level::Broken)
                    {
                        self.levels[above] = Level::Open(H::open(fd, Some(parked)));
                        break;
                    }
                    at = above;
                }
                Err(Trouble::Moved(depth)) => at = depth.min(above),
                Err(e) => return Err(e),
            }
        }
        self.truncate(at);
        Ok(())
    }

    fn truncate(&mut self, depth: usize) {
        self.levels.truncate(depth);
        self.names.truncate(depth);
        self.ids.truncate(depth);
        self.open_from = self.open_from.min(depth.saturating_sub(1));
    }

    /// The innermost level's path, or that of `leaf` in it, from the base.
    pub(super) fn path(&self, leaf: Option<&CStr>) -> PathBuf {
        path_of(&self.names, leaf)
    }
}

/// Joins names to a path.
pub(super) fn path_of(names: &[Option<Name>], leaf: Option<&CStr>) -> PathBuf {
    let mut path = Vec::new();
    let parts = names.iter().flatten().map(Name::as_bytes);
    for part in parts.chain(leaf.map(CStr::to_bytes)) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    PathBuf::from(OsString::from_vec(path))
}

/// A name copied out of a directory's listing, in a buffer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct NameBuf(Vec<u8>);

impl NameBuf {
    fn set(&mut self, name: &CStr) {
        self.0.clear();
        self.0.extend_from_slice(name.to_bytes_with_nul());
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).unwrap_or_default()
    }
}

/// What was read of a directory and not yet handed out.
#[derive(Debug, Default)]
pub(super) struct Listing {
    names: Vec<u8>,
    entries: Vec<(usize, FileType)>,
    at: usize,
    /// The directory has been read to its end.
    done: bool,
    /// For the remover: passes over this directory, and passes that removed nothing.
    pub(super) passes: u32,
    pub(super) idle: u32,
    pub(super) removed: bool,
    pub(super) opened_up: bool,
}

/// An open directory that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    stream: DirStream,
    pub(super) listing: Listing,
}

impl Reader {
    /// The next entry: its name goes to `name`, its type as the directory records it comes back.
    pub(super) fn next(&mut self, name: &mut NameBuf) -> sys::Result<Option<FileType>> {
        let list = &mut self.listing;
        if let Some(&(start, kind)) = list.entries.get(list.at) {
            list.at += 1;
            name.set(CStr::from_bytes_until_nul(&list.names[start..]).unwrap_or_default());
            return Ok(Some(kind));
        }
        if list.done {
            return Ok(None);
        }
        match self.stream.next() {
            Ok(Some(entry)) => {
                name.set(entry.name());
                Ok(Some(entry.kind_hint()))
            }
            // ENOENT: the directory itself was removed.
            Ok(None) | Err(Errno::NOENT) => {
                list.done = true;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Starts again from the first entry.
    pub(super) fn rewind(&mut self) -> sys::Result<()> {
        let list = &mut self.listing;
        list.names.clear();
        list.entries.clear();
        list.at = 0;
        list.done = false;
        self.stream.rewind()
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.fd().as_fd()
    }
}

impl Handle for Reader {
    type Parked = Listing;

    fn open(fd: OwnedFd, parked: Option<Listing>) -> Self {
        Self {
            stream: DirStream::new(fd),
            listing: parked.unwrap_or_default(),
        }
    }

    /// Reads the rest of the directory: an offset in it may mean nothing to another descriptor.
    fn park(mut self) -> sys::Result<Listing> {
        let list = &mut self.listing;
        if list.done {
            return Ok(self.listing);
        }
        loop {
            match self.stream.next() {
                Ok(Some(entry)) => {
                    list.entries.push((list.names.len(), entry.kind_hint()));
                    list.names
                        .extend_from_slice(entry.name().to_bytes_with_nul());
                }
                Ok(None) | Err(Errno::NOENT) => break,
                Err(e) => return Err(e),
            }
        }
        list.done = true;
        Ok(self.listing)
    }
}
