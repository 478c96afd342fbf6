//! The operations on one name, and which one does what.

use super::attributes::{both, check, kept};
use super::lookup::{At, Walk, components};
use super::stop::{Done, Stop};
use super::{Entry, Inode, InodeIx, Part, ROOT, View};
use crate::root::{Last, PATH_MAX};
use crate::sys::{self, AtFlags, Errno, Mode, OFlags};
use crate::workspace::draft::{AttrRequest, Op, Source};
use crate::workspace::identity::Kind;
use crate::{Name, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl View<'_> {
    /// Carries out one operation. After an error the view is as before.
    ///
    /// # Errors
    /// As the kernel would answer. A write over a symlink is `ELOOP`, and one over a FIFO, socket or device
    /// [`NotAFile`](crate::ErrorKind::NotAFile). [`CrossDevice`](crate::ErrorKind::CrossDevice): a name on
    /// another mount than the root. [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without an
    /// errno: a name in the state folder.
    pub(crate) fn run(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Write {
                path,
                source,
                attr,
                create_new,
            } => self.named("write file", path, |view, path| {
                view.write(path, source, attr, *create_new)
            }),
            Op::Append { path, source } => self.named("append to file", path, |view, path| {
                view.append(path, source)
            }),
            Op::CreateDir {
                path,
                mode,
                parents: false,
            } => self.named("create directory", path, |view, path| {
                view.create_dir(path, *mode)
            }),
            Op::CreateDir { path, mode, .. } => {
                self.named("create directories", path, |view, path| {
                    view.create_dir_all(path, *mode)
                })
            }
            Op::RemoveFile { path } => self.named("remove file", path, Self::remove_file),
            Op::RemoveDir { path } => self.named("remove directory", path, Self::remove_dir),
            Op::RemoveTree { path } => self.named("remove tree", path, Self::remove_tree),
            Op::Rename { from, to, how } => self
                .named("rename", from, |view, from| {
                    view.rename(from, to.as_os_str().as_bytes(), *how)
                })
                .map_err(|e| e.with_other(to)),
            Op::Symlink { target, path } => self.named("create symlink", path, |view, path| {
                view.symlink(target, path)
            }),
            Op::HardLink { from, to } => self
                .named("create hard link", from, |view, from| {
                    view.hard_link(from, to.as_os_str().as_bytes())
                })
                .map_err(|e| e.with_other(to)),
            Op::SetAttributes { path, attr } => {
                self.named("set the attributes of", path, |view, path| {
                    view.set_attributes(path, attr)
                })
            }
            Op::WriteInPlace { path, source } => {
                self.named("write in place", path, |view, path| {
                    view.write_in_place(path, source)
                })
            }
            Op::Key { name, value } => self.named(
                "record key",
                Path::new(std::ffi::OsStr::from_bytes(name)),
                |view, name| view.key(name, value),
            ),
        }
    }

    pub(super) fn named<T>(
        &mut self,
        operation: &'static str,
        path: &Path,
        f: impl FnOnce(&mut Self, &[u8]) -> Done<T>,
    ) -> Result<T> {
        f(self, path.as_os_str().as_bytes()).map_err(|stop| stop.into_error(operation, path))
    }

    /// Refuses a directory in which nothing that was staged can get a name.
    pub(super) fn on_root_mount(&self, dir: InodeIx, call: &'static str) -> Done<()> {
        match &self.inodes[dir].origin {
            Some(origin) if origin.foreign => Err(Stop::OtherMount(call)),
            _ => Ok(()),
        }
    }

    /// Gives a name to something, or to nothing.
    pub(super) fn set(&mut self, dir: InodeIx, name: &Name, now: Option<InodeIx>) {
        let entries = &mut self.inodes[dir].entries;
        let entry = match entries.get_mut(name) {
            Some(entry) => entry,
            None => entries.entry(name.clone()).or_default(),
        };
        let old = std::mem::replace(&mut entry.now, now);
        // In the course of an exchange the old one may have another name already.
        if let Some(old) = old
            && let Some((above, at)) = &self.inodes[old].at
            && (*above, at) == (dir, name)
        {
            self.inodes[old].at = None;
        }
        if let Some(now) = now
            && self.inodes[now].kind == Kind::Dir
        {
            self.inodes[now].at = Some((dir, name.clone()));
        }
    }

    /// The directory and name that a file is to be written at, and the file that is there.
    fn file_at(&mut self, path: &[u8], new: bool) -> Done<(InodeIx, Name, Option<InodeIx>)> {
        const CALL: &str = "openat";
        let at = self.target(path)?;
        if at.slash && matches!(at.last, Last::Normal(_)) {
            return Err(Stop::Call(CALL, Errno::ISDIR));
        }
        let taken = if new { Errno::EXIST } else { Errno::ISDIR };
        let Last::Normal(name) = at.last else {
            return Err(Stop::Call(CALL, taken));
        };
        let Entry { now, mounted, .. } = self.used_entry(at.dir, &name)?;
        if let Some(old) = now {
            if new {
                return Err(Stop::Call(CALL, Errno::EXIST));
            }
            self.is_file(old)?;
            if mounted {
                return Err(Stop::Call("renameat2", Errno::BUSY));
            }
        }
        self.on_root_mount(at.dir, "renameat2")?;
        Ok((at.dir, name, now))
    }

    /// Refuses what cannot be written to.
    pub(super) fn is_file(&self, ix: InodeIx) -> Done<()> {
        match self.inodes[ix].kind {
            Kind::File => Ok(()),
            Kind::Dir => Err(Stop::Call("openat", Errno::ISDIR)),
            Kind::Symlink => Err(Stop::Call("openat", Errno::LOOP)),
            Kind::Special => Err(Stop::NotAFile),
        }
    }

    fn write(&mut self, path: &[u8], source: &Source, attr: &AttrRequest, new: bool) -> Done<()> {
        let (dir, name, old) = self.file_at(path, new)?;
        let parts = vec![Part::Given(source.clone())];
        self.put_file(dir, &name, old, parts, attr);
        Ok(())
    }

    fn append(&mut self, path: &[u8], source: &Source) -> Done<()> {
        let (dir, name, old) = self.file_at(path, false)?;
        let mut parts = match old {
            Some(old) => self.parts_of(old),
            None => Vec::new(),
        };
        parts.push(Part::Given(source.clone()));
        self.put_file(dir, &name, old, parts, &AttrRequest::default());
        Ok(())
    }

    /// What a file's content is made of.
    pub(super) fn parts_of(&self, file: InodeIx) -> Vec<Part> {
        let inode = &self.inodes[file];
        match (&inode.origin, &inode.in_place) {
            (_, Some(source)) => vec![Part::Given(source.clone())],
            (Some(_), None) => vec![Part::Existing(file)],
            (None, None) => inode.parts.clone(),
        }
    }

    /// A new file, which keeps the attributes of that which it replaces.
    fn put_file(
        &mut self,
        dir: InodeIx,
        name: &Name,
        old: Option<InodeIx>,
        parts: Vec<Part>,
        attr: &AttrRequest,
    ) {
        let mut file = Inode::new(Kind::File);
        file.parts = parts;
        let mut first = AttrRequest::default();
        if let Some(ix) = old {
            let old = &self.inodes[ix];
            file.like = if old.origin.is_some() {
                Some(ix)
            } else {
                old.like
            };
            first = kept(old);
        }
        file.attr = both(&first, attr, Kind::File);
        let file = self.add(file);
        self.set(dir, name, Some(file));
    }

    fn write_in_place(&mut self, path: &[u8], source: &Source) -> Done<()> {
        const CALL: &str = "openat";
        let at = self.target(path)?;
        let name = match &at.last {
            Last::Normal(name) if !at.slash => name,
            _ => {
                self.directory(path)?;
                return Err(Stop::Call(CALL, Errno::ISDIR));
            }
        };
        let entry = self.used_entry(at.dir, name)?;
        let ix = entry.now.ok_or(Stop::Call(CALL, Errno::NOENT))?;
        self.is_file(ix)?;
        let file = &mut self.inodes[ix];
        file.attr.mtime = None;
        match file.origin {
            Some(_) => file.in_place = Some(source.clone()),
            None => file.parts = vec![Part::Given(source.clone())],
        }
        Ok(())
    }

    fn set_attributes(&mut self, path: &[u8], attr: &AttrRequest) -> Done<()> {
        let at = self.target(path)?;
        let ix = match &at.last {
            Last::Normal(name) if !at.slash => self
                .used_entry(at.dir, name)?
                .now
                .ok_or(Stop::Path(Errno::NOENT))?,
            _ => self.directory(path)?,
        };
        if ix == ROOT {
            return Err(Stop::Root);
        }
        let inode = &mut self.inodes[ix];
        check(inode.kind, attr)?;
        inode.attr = both(&inode.attr, attr, inode.kind);
        Ok(())
    }

    /// The name for something new that is no file: one that is not taken.
    pub(super) fn vacant(&mut self, path: &[u8], call: &'static str) -> Done<(At, Name)> {
        let at = self.target(path)?;
        let name = at.name(call, Errno::EXIST)?.clone();
        if self.used_entry(at.dir, &name)?.now.is_some() {
            return Err(Stop::Call(call, Errno::EXIST));
        }
        Ok((at, name))
    }

    fn create_dir(&mut self, path: &[u8], mode: Option<u32>) -> Done<()> {
        let (at, name) = self.vacant(path, "mkdirat")?;
        self.on_root_mount(at.dir, "mkdirat")?;
        self.put_dir(at.dir, &name, mode);
        Ok(())
    }

    fn put_dir(&mut self, dir: InodeIx, name: &Name, mode: Option<u32>) -> InodeIx {
        let mut new = Inode::new(Kind::Dir);
        new.attr.mode = mode.map(|mode| mode & 0o7777);
        let new = self.add(new);
        self.set(dir, name, Some(new));
        new
    }

    /// As [`Root::create_dir_all`](crate::Root::create_dir_all).
    fn create_dir_all(&mut self, path: &[u8], mode: Option<u32>) -> Done<()> {
        const CALL: &str = "mkdirat";
        super::lookup::check(path)?;
        let mut walk = Walk::new();
        self.begin(&mut walk, path)?;
        let parts: Vec<_> = components(path).collect();
        for (i, part) in parts.iter().enumerate() {
            let (above, is_name) = (walk.here, !matches!(*part, b"." | b".."));
            match self.go(&mut walk, part) {
                Ok(()) => {}
                Err(Stop::Path(Errno::NOTDIR)) if is_name && i + 1 == parts.len() => {
                    return Err(Stop::Call(CALL, Errno::EXIST));
                }
                Err(Stop::Path(Errno::NOENT)) if is_name => {
                    return self.create_below(above, &parts[i..], mode);
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    fn create_below(&mut self, above: InodeIx, missing: &[&[u8]], mode: Option<u32>) -> Done<()> {
        const CALL: &str = "mkdirat";
        if missing.contains(&b"..".as_slice()) {
            return Err(Stop::Path(Errno::NOENT));
        }
        let names = missing.iter().filter(|part| **part != b".");
        let names: Vec<_> = names
            .map(|part| Name::from_bytes(part).map_err(Stop::Path))
            .collect::<Done<_>>()?;
        if let Some(first) = names.first()
            && self.used_entry(above, first)?.now.is_some()
        {
            // A link that leads nowhere.
            return Err(Stop::Call(CALL, Errno::EXIST));
        }
        if names.iter().any(|name| name.as_bytes().len() > 255) {
            return Err(Stop::Call(CALL, Errno::NAMETOOLONG));
        }
        self.on_root_mount(above, CALL)?;
        let mut here = above;
        for name in &names {
            here = self.put_dir(here, name, mode);
        }
        Ok(())
    }

    fn remove_file(&mut self, path: &[u8]) -> Done<()> {
        const CALL: &str = "unlinkat";
        let refuse = |e| Err(Stop::Call(CALL, e));
        let at = self.target(path)?;
        let name = at.name(CALL, Errno::ISDIR)?;
        let entry = self.used_entry(at.dir, name)?;
        match entry.now.map(|ix| self.inodes[ix].kind) {
            None => return refuse(Errno::NOENT),
            Some(Kind::Dir) => return refuse(Errno::ISDIR),
            Some(_) if at.slash => return refuse(Errno::NOTDIR),
            Some(_) if entry.mounted => return refuse(Errno::BUSY),
            Some(_) => {}
        }
        self.on_root_mount(at.dir, CALL)?;
        self.set(at.dir, name, None);
        Ok(())
    }

    fn remove_dir(&mut self, path: &[u8]) -> Done<()> {
        const CALL: &str = "unlinkat(AT_REMOVEDIR)";
        let refuse = |e| Err(Stop::Call(CALL, e));
        let at = self.target(path)?;
        let name = at.directory(CALL)?;
        let entry = self.used_entry(at.dir, name)?;
        let ix = entry.now.ok_or(Stop::Call(CALL, Errno::NOENT))?;
        if self.inodes[ix].kind != Kind::Dir {
            return refuse(Errno::NOTDIR);
        }
        if entry.mounted {
            return refuse(Errno::BUSY);
        }
        if !self.is_empty(ix)? {
            return refuse(Errno::NOTEMPTY);
        }
        self.on_root_mount(at.dir, CALL)?;
        self.set(at.dir, name, None);
        Ok(())
    }

    fn remove_tree(&mut self, path: &[u8]) -> Done<()> {
        const CALL: &str = "unlinkat(AT_REMOVEDIR)";
        let refuse = |e| Err(Stop::Call(CALL, e));
        let at = self.target(path)?;
        let name = at.directory(CALL)?;
        let entry = self.used_entry(at.dir, name)?;
        match entry.now.map(|ix| self.inodes[ix].kind) {
            None => return refuse(Errno::NOENT),
            Some(Kind::Dir) => {}
            Some(_) if at.slash => return refuse(Errno::NOTDIR),
            Some(_) => {}
        }
        if entry.mounted {
            return refuse(Errno::BUSY);
        }
        self.on_root_mount(at.dir, CALL)?;
        self.set(at.dir, name, None);
        Ok(())
    }

    fn symlink(&mut self, text: &[u8], path: &[u8]) -> Done<()> {
        const CALL: &str = "symlinkat";
        let refuse = |e| Err(Stop::Call(CALL, e));
        match text.len() {
            0 => return refuse(Errno::NOENT),
            PATH_MAX.. => return refuse(Errno::NAMETOOLONG),
            _ if text.contains(&0) => return refuse(Errno::INVAL),
            _ => {}
        }
        let (at, name) = self.vacant(path, CALL)?;
        if at.slash {
            return refuse(Errno::NOENT);
        }
        self.on_root_mount(at.dir, CALL)?;
        let mut link = Inode::new(Kind::Symlink);
        link.text = Some(text.to_vec());
        let link = self.add(link);
        self.set(at.dir, &name, Some(link));
        Ok(())
    }

    fn key(&mut self, key: &[u8], value: &[u8]) -> Done<()> {
        let name = key_name(key).map_err(Stop::Path)?;
        if self.keys.contains_key(&name) || self.key_on_disk(&name)? {
            return Err(Stop::Call("openat", Errno::EXIST));
        }
        let mut file = Inode::new(Kind::File);
        file.parts = vec![Part::Given(Source::Bytes(value.into()))];
        file.attr.mode = Some(0o600);
        let file = self.add(file);
        self.keys.insert(name, file);
        Ok(())
    }

    fn key_on_disk(&self, name: &Name) -> Done<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let keys = self
            .disk
            .root()
            .open_raw(KEYS.as_bytes(), flags, Mode::empty());
        let keys = match keys {
            Err(Errno::NOENT) => return Ok(false),
            done => done.map_err(Stop::Path)?,
        };
        match sys::statx(&keys, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(Stop::Call("statx", e)),
        }
    }
}

/// The folder of idempotency keys.
pub(super) const KEYS: &str = ".steadfast/keys";

/// The name of an idempotency key's file: all of a short key in hexadecimal digits, else its beginning and
/// a hash of it. The hash keeps keys apart that somebody chose in good faith, not those made to collide.
pub(crate) fn key_name(key: &[u8]) -> sys::Result<Name> {
    const WHOLE: usize = 96;
    const BEGINNING: usize = 64;
    let mut name = String::with_capacity(2 * WHOLE + 1);
    let (class, shown) = if key.len() <= WHOLE {
        ('k', key)
    } else {
        ('h', &key[..BEGINNING])
    };
    name.push(class);
    for byte in shown {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    if class == 'h' {
        // FNV-1a with 128 bits.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in key {
            hash =
                (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        name.push_str(&format!("-{hash:032x}"));
    }
    Name::new(name)
}
