//! Copying what is not a directory.

use super::acl::drop_inherited;
use super::chain::{Identity, look, look_at};
use super::content::Failure;
use super::copy::{Special, progress};
use super::links::{Key, Links};
use super::meta::{Keep, chmod_place, owner, permitted, times, without_list};
use super::walk::Entry;
use super::work::{Made, Trouble, Work, replaced};
use crate::ErrorKind;
use crate::root::Name;
use crate::sys::{self, AsFd, Errno, FileType, Metadata, Mode, OFlags, OwnedFd};
use std::ffi::CStr;

/// How often an entry that is replaced between two calls is tried again.
const TRIES: u32 = 8;

impl Work<'_, '_> {
    /// Copies what is not a directory.
    pub(super) fn other(&mut self, entry: &Entry<'_>) -> Result<(), Trouble> {
        let name = self.target(entry.name());
        for _ in 0..TRIES {
            let meta = match look_at(entry.parent(), entry.name().as_c_str()) {
                Ok(meta) => meta,
                Err(Errno::NOENT) if self.to.depth() > 0 => return Ok(()),
                Err(e) => return Err(Trouble::Call("statx", e)),
            };
            let key = Links::key(&meta);
            if let Some(key) = key
                && self.link(key, name)?
            {
                return self.tell(0);
            }
            let made = match meta.kind() {
                FileType::RegularFile => self.file(entry, name, &meta)?,
                FileType::Symlink => self.symlink(entry, name, &meta)?,
                FileType::Directory => return Err(replaced()),
                FileType::Unknown => return Err(Trouble::Kind(ErrorKind::Unsupported, "")),
                _ => match self.options.special {
                    Special::Refuse => {
                        let advice = "a FIFO, socket or device: skip or recreate them";
                        return Err(Trouble::Kind(ErrorKind::NotAFile, advice));
                    }
                    Special::Skip => {
                        self.done.skipped += 1;
                        return Ok(());
                    }
                    Special::Recreate => self.special(entry, name, &meta)?,
                },
            };
            if let Some(own) = made {
                if let Some(key) = key {
                    self.links
                        .add(key, &own, self.to.names(), name, meta.links() - 1);
                }
                return self.tell(0);
            }
        }
        Err(replaced())
    }

    /// Makes a further name of a file copied before, if there was one; false if it has to be copied.
    fn link(&mut self, key: Key, name: &Name) -> Result<bool, Trouble> {
        let base = *self.to.base();
        match self.links.make(key, base, &self.to, name) {
            Ok(true) => {
                self.done.hard_links += 1;
                Ok(true)
            }
            Ok(false) => Ok(false),
            // No hard links here, or no more of this file: a file of its own.
            Err(("linkat", Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS)) => {
                self.done.links_missed += 1;
                self.links.forget(key);
                Ok(false)
            }
            // The copy's directory has its final mode, which may bar its owner, us, but not others.
            Err(("openat" | "linkat", Errno::ACCESS)) => {
                self.done.links_missed += 1;
                self.links.forget(key);
                Ok(false)
            }
            Err(("linkat", Errno::STALE)) => Err(replaced()),
            Err(e) => Err(e.into()),
        }
    }

    /// Copies a regular file; `None` if it is not there any more as `meta` says.
    fn file(
        &mut self,
        entry: &Entry<'_>,
        name: &Name,
        meta: &Metadata,
    ) -> Result<Option<Metadata>, Trouble> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let from = match sys::openat(
            entry.parent(),
            entry.name().as_c_str(),
            flags,
            Mode::empty(),
        ) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            done => done.map_err(|e| ("openat", e))?,
        };
        let opened = look(&from).map_err(|e| ("statx", e))?;
        if Identity::of(&opened) != Identity::of(meta) || !opened.is_file() {
            return Ok(None);
        }
        let top = self.to.depth() == 0;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let to = self
            .to
            .open_in(name.as_c_str(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| ("openat", e));
        let to = self.created(to)?;
        let mut own = *meta;
        if top || self.creator.is_some() || opened.links() > 1 {
            own = look(&to).map_err(|e| ("statx", e))?;
            if top {
                self.made = Made::Known(Identity::of(&own));
                drop_inherited(to.as_fd(), false)?;
            }
            self.check_creator(&own)?;
        }
        let (done, watch) = (&mut self.done, &mut self.watch);
        let copied = self
            .copier
            .copy(from.as_fd(), &opened, to.as_fd(), &mut |n| {
                done.bytes += n;
                watch(&progress(done))
            });
        match copied {
            Ok(content) => self.done.changed += u64::from(content.changed),
            Err(Failure::Call(call, e)) => return Err(Trouble::Call(call, e)),
            Err(Failure::Cancelled) => return Err(Trouble::Kind(ErrorKind::Cancelled, "")),
        }
        self.carry(from.as_fd(), &opened, Some(to.as_fd()))?;
        self.done.files += 1;
        Ok(Some(own))
    }

    /// Copies a symlink; `None` if it is none any more.
    fn symlink(
        &mut self,
        entry: &Entry<'_>,
        name: &Name,
        meta: &Metadata,
    ) -> Result<Option<Metadata>, Trouble> {
        let text = match sys::readlinkat(entry.parent(), entry.name().as_c_str()) {
            Err(Errno::INVAL | Errno::NOENT) => return Ok(None),
            done => done.map_err(|e| ("readlinkat", e))?,
        };
        let made = sys::symlinkat(&*text, self.to.fd(), name.as_c_str());
        self.created(made.map_err(|e| ("symlinkat", e)))?;
        let (fd, own) = self.made_node(name.as_c_str(), FileType::Symlink)?;
        self.carry_node(&fd, meta)?;
        self.done.symlinks += 1;
        Ok(Some(own))
    }

    /// Makes a FIFO, socket or device; `None` if the source is not there any more as `meta` says.
    fn special(
        &mut self,
        entry: &Entry<'_>,
        name: &Name,
        meta: &Metadata,
    ) -> Result<Option<Metadata>, Trouble> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let from = entry.name().as_c_str();
        let from = match sys::openat(entry.parent(), from, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            done => done.map_err(|e| ("openat", e))?,
        };
        if Identity::of(&look(&from).map_err(|e| ("statx", e))?) != Identity::of(meta) {
            return Ok(None);
        }
        let (mode, kind) = (Mode::RUSR | Mode::WUSR, meta.kind());
        let made = sys::mknodat(self.to.fd(), name.as_c_str(), kind, mode, meta.rdev());
        self.created(made.map_err(|e| ("mknodat", e)))?;
        let (fd, own) = self.made_node(name.as_c_str(), kind)?;
        if own.rdev() != meta.rdev() {
            return Err(replaced());
        }
        let kept = self.carry_owner(&fd, meta)?;
        let check = !kept || self.options.preserve.owner == Keep::No;
        let (mode, _) = permitted(meta, check, fd.as_fd())?;
        chmod_place(fd.as_fd(), without_list(from.as_fd(), mode))?;
        self.carry_times(&fd, meta)?;
        self.done.specials += 1;
        Ok(Some(own))
    }

    /// A descriptor (`O_PATH`) for what was just made, so that nothing put in its place is changed.
    fn made_node(&mut self, name: &CStr, kind: FileType) -> Result<(OwnedFd, Metadata), Trouble> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = self
            .to
            .open_in(name, flags, Mode::empty())
            .map_err(|e| ("openat", e))?;
        let own = look(&fd).map_err(|e| ("statx", e))?;
        if own.kind() != kind || own.links() != 1 {
            return Err(replaced());
        }
        if self.to.depth() == 0 {
            self.made = Made::Known(Identity::of(&own));
        }
        self.check_creator(&own)?;
        Ok((fd, own))
    }

    fn carry_node(&mut self, fd: &OwnedFd, meta: &Metadata) -> Result<(), Trouble> {
        self.carry_owner(fd, meta)?;
        self.carry_times(fd, meta)
    }

    fn carry_owner(&mut self, fd: &OwnedFd, meta: &Metadata) -> Result<bool, Trouble> {
        let kept = owner(self.options.preserve.owner, meta, |uid, gid| {
            sys::fchownat(fd, c"", uid, gid).map_err(|e| ("fchownat", e))
        })?;
        self.done.owners_missed += u64::from(!kept);
        Ok(kept)
    }

    fn carry_times(&mut self, fd: &OwnedFd, meta: &Metadata) -> Result<(), Trouble> {
        if !self.options.preserve.times {
            return Ok(());
        }
        match sys::utimensat(fd, c"", &times(meta)) {
            // Kernels before 5.8 cannot set them through such a descriptor.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(Trouble::Call("utimensat", e)),
        }
    }
}
