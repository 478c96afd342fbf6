//! What the transaction sees: its own changes on top of the disk.

use super::stop::{Done, Stop};
use super::{InodeIx, Origin, Part, ROOT, STATE, View};
use crate::root::Last;
use crate::sys::{self, AsFd, AtFlags, DirStream, Errno, FileType, Mode, OFlags, OwnedFd};
use crate::workspace::draft::{Source, StagedFile};
use crate::workspace::identity::{Ident, Kind};
use crate::{Name, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A piece of a file's content as the transaction sees it.
#[derive(Debug)]
pub(crate) enum Content {
    Bytes(Arc<[u8]>),
    Staged(Arc<StagedFile>),
    /// All of this file: open for reading, at its start.
    Disk(OwnedFd),
}

impl View<'_> {
    /// Whether there is something at `path`, if only a symlink that leads nowhere.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    pub(crate) fn exists(&mut self, path: &Path) -> Result<bool> {
        self.named("look for", path, |view, path| match view.seen(path) {
            Ok(found) => Ok(found.is_some()),
            Err(Stop::Path(Errno::NOENT | Errno::NOTDIR)) => Ok(false),
            Err(stop) => Err(stop),
        })
    }

    /// What is at `path` on the disk, as long as no operation was about it.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    pub(crate) fn identity(&mut self, path: &Path) -> Result<Option<Ident>> {
        self.named("look at", path, |view, path| match view.seen(path) {
            Ok(found) => Ok(found.and_then(|ix| view.inodes[ix].origin.as_ref().map(|o| o.ident))),
            Err(Stop::Path(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            Err(stop) => Err(stop),
        })
    }

    /// The content of the file `path`, piece by piece; a symlink is not followed.
    ///
    /// # Errors
    /// As open(2) with `O_NOFOLLOW`. [`Changed`](crate::ErrorKind::Changed): the file on the disk is not the
    /// one that was seen first.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Vec<Content>> {
        self.named("read", path, |view, path| {
            let ix = view.seen(path)?.ok_or(Stop::Path(Errno::NOENT))?;
            view.is_file(ix)?;
            let pieces = view.parts_of(ix).into_iter().map(|part| match part {
                Part::Given(Source::Bytes(bytes)) => Ok(Content::Bytes(bytes)),
                Part::Given(Source::File(file)) => Ok(Content::Staged(file)),
                Part::Existing(file) => {
                    if let Some(origin) = &view.inodes[file].origin {
                        view.note_read(origin.path.clone(), Some(origin.ident));
                    }
                    view.open(file).map(Content::Disk)
                }
            });
            pieces.collect()
        })
    }

    /// The names in the directory `path` with their kinds, in order; the state folder is not among them.
    ///
    /// # Errors
    /// As open(2) and getdents(2).
    pub(crate) fn list(&mut self, path: &Path) -> Result<Vec<(Name, Kind)>> {
        self.named("read directory", path, |view, path| {
            let dir = view.seen(path)?.ok_or(Stop::Path(Errno::NOENT))?;
            if view.inodes[dir].kind != Kind::Dir {
                return Err(Stop::Path(Errno::NOTDIR));
            }
            if let Some(origin) = &view.inodes[dir].origin {
                view.note_list(origin.path.clone(), origin.ident);
            }
            view.names_in(dir)
        })
    }

    /// What is at a path; what the disk had to say about it counts as read.
    pub(super) fn seen(&mut self, path: &[u8]) -> Done<Option<InodeIx>> {
        let at = self.target(path)?;
        let name = match &at.last {
            Last::Normal(name) if !at.slash => name,
            _ => return self.directory(path).map(Some),
        };
        let entry = self.entry(at.dir, name)?;
        match entry.now {
            Some(ix) => {
                if let Some(origin) = &self.inodes[ix].origin {
                    self.note_read(origin.path.clone(), Some(origin.ident));
                }
            }
            None if entry.before.is_none() => {
                if let Some(path) = self.disk_path(at.dir, name) {
                    self.note_read(path, None);
                }
            }
            // It was there, and this transaction took it away.
            None => {}
        }
        Ok(entry.now)
    }

    /// Opens a file on the disk, and makes sure that it is the one that was seen.
    fn open(&mut self, file: InodeIx) -> Done<OwnedFd> {
        let Some(Origin {
            dir,
            name: Some(name),
            ident,
            ..
        }) = &self.inodes[file].origin
        else {
            return Err(Stop::Changed);
        };
        let Some(above) = &self.inodes[*dir].origin else {
            return Err(Stop::Changed);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let at = self.disk.dir(*dir, above)?;
        let fd = match sys::openat(at, name.as_c_str(), flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Err(Stop::Changed),
            done => done.map_err(|e| Stop::Call("openat", e))?,
        };
        let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| Stop::Call("statx", e))?;
        match ident.is_unchanged(&Ident::of(&meta)) {
            true => Ok(fd),
            false => Err(Stop::Changed),
        }
    }

    /// Whether a directory has no names in the view.
    pub(super) fn is_empty(&mut self, dir: InodeIx) -> Done<bool> {
        self.read_names(dir)?;
        let inode = &self.inodes[dir];
        let used = inode.entries.values().any(|entry| entry.now.is_some());
        let unseen = inode.listing.iter().flat_map(BTreeMap::keys);
        let mut unseen = unseen.filter(|name| !inode.entries.contains_key(name));
        Ok(!used && unseen.next().is_none())
    }

    fn names_in(&mut self, dir: InodeIx) -> Done<Vec<(Name, Kind)>> {
        self.read_names(dir)?;
        let mut names = BTreeMap::new();
        let inode = &self.inodes[dir];
        for (name, kind) in inode.listing.iter().flatten() {
            if !inode.entries.contains_key(name) {
                names.insert(name.clone(), *kind);
            }
        }
        for (name, entry) in &inode.entries {
            if let Some(ix) = entry.now {
                names.insert(name.clone(), Some(self.inodes[ix].kind));
            }
        }
        let mut out = Vec::with_capacity(names.len());
        for (name, kind) in names {
            let kind = match kind {
                Some(kind) => kind,
                None => match self.entry(dir, &name)?.now {
                    Some(ix) => self.inodes[ix].kind,
                    None => return Err(Stop::Changed),
                },
            };
            out.push((name, kind));
        }
        Ok(out)
    }

    /// Reads the names in a directory on the disk, once.
    fn read_names(&mut self, dir: InodeIx) -> Done<()> {
        let inode = &self.inodes[dir];
        let Some(origin) = inode.origin.as_ref().filter(|_| inode.listing.is_none()) else {
            return Ok(());
        };
        let fail = |e| Stop::Call("getdents64", e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = sys::openat(
            self.disk.dir(dir, origin)?.as_fd(),
            c".",
            flags,
            Mode::empty(),
        );
        let mut stream = DirStream::new(fd.map_err(|e| Stop::Call("openat", e))?);
        let mut names = BTreeMap::new();
        while let Some(entry) = stream.next().map_err(fail)? {
            let name = Name::from_entry(entry.name()).map_err(fail)?;
            if dir == ROOT && name.as_bytes() == STATE {
                continue;
            }
            names.insert(name, kind_of(entry.kind_hint()));
        }
        // The first answer about a name stands: what came or went since then is not seen.
        for (name, entry) in &inode.entries {
            match entry.before {
                Some(ix) => names.insert(name.clone(), Some(self.inodes[ix].kind)),
                None => names.remove(name),
            };
        }
        self.inodes[dir].listing = Some(names);
        Ok(())
    }
}

fn kind_of(hint: FileType) -> Option<Kind> {
    match hint {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Unknown => None,
        _ => Some(Kind::Special),
    }
}
