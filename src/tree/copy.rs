//! Copying a tree.

use super::acl::drop_inherited;
use super::chain::{Chain, Identity, READ_DIR, look, look_at, path_of};
use super::content::{Copier, Failure};
use super::links::Links;
pub use super::meta::{Keep, Preserve};
use super::meta::{carry, chmod_place, owner, permitted, times};
use super::remove::{RemoveOptions, remove};
use super::walk::{Entry, Event, Walk, trouble_error};
use super::{Progress, Watch};
use crate::root::Name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileType, Metadata, Mode, OFlags, OwnedFd, Uid};
use crate::{DiskState, Error, ErrorKind, Result};
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::path::PathBuf;

const OPERATION: &str = "copy tree";

/// How often an entry that is replaced between two calls is tried again.
const TRIES: u32 = 8;

/// What becomes of FIFOs, sockets and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Special {
    /// They are an error ([`ErrorKind::NotAFile`]).
    #[default]
    Refuse,
    /// They are left out, and counted.
    Skip,
    /// They are made anew (mknod(2)); devices need `CAP_MKNOD`.
    Recreate,
}

/// How [`copy`] works.
#[derive(Clone, Debug)]
#[must_use]
pub struct CopyOptions {
    preserve: Preserve,
    special: Special,
    same_mount: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            preserve: Preserve::default(),
            special: Special::default(),
            same_mount: true,
        }
    }
}

impl CopyOptions {
    /// Owner and attributes as far as possible, times; special files and other mounts are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is kept.
    pub fn preserve(mut self, preserve: Preserve) -> Self {
        self.preserve = preserve;
        self
    }

    /// What becomes of FIFOs, sockets and devices.
    pub fn special(mut self, special: Special) -> Self {
        self.special = special;
        self
    }

    /// Whether to refuse (`EBUSY`, [`ErrorKind::Busy`]) a mount inside the tree. On by default; without it,
    /// what is mounted is copied as part of the tree.
    pub fn same_mount(mut self, on: bool) -> Self {
        self.same_mount = on;
        self
    }
}

/// What [`copy`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Regular files copied, further names of the same file not counted.
    pub files: u64,
    /// Directories made.
    pub dirs: u64,
    /// Symlinks made.
    pub symlinks: u64,
    /// FIFOs, sockets and devices made.
    pub specials: u64,
    /// Hard links made: further names of a file copied before.
    pub hard_links: u64,
    /// Bytes of content, holes not counted.
    pub bytes: u64,
    /// FIFOs, sockets and devices left out ([`Special::Skip`]).
    pub skipped: u64,
    /// Files whose size or time of change was not the same after copying as before: what was copied may be
    /// a mixture of two states.
    pub changed: u64,
    /// Files and directories that have another owner or group than their source.
    pub owners_missed: u64,
    /// Extended attributes and ACLs that could not be set.
    pub xattrs_missed: u64,
    /// Further names of a file that became files of their own, where the target cannot link them.
    pub links_missed: u64,
}

/// Copies the tree `from_name` in `from` to the name `to_name` in `to`, which must not exist: a directory
/// with all that is in it, a single file, a symlink.
///
/// Content is shared with the source where the file system can (`FICLONE`), else copied by the kernel
/// (copy_file_range(2)), else through a buffer; memory does not depend on sizes. Holes stay holes. Names
/// that are hard links of each other in the source are that in the copy. Symlinks are copied as they are and
/// never followed. FIFOs and devices are never opened. While the copy grows, nothing of it is more readable
/// than its source.
///
/// The target appears at once and grows: to make a finished tree appear, copy to a temporary name and rename.
/// What vanishes from the source meanwhile is left out; a source that changes gives what was there when it
/// was read, and is counted in [`Copied::changed`].
///
/// # Errors
/// `EEXIST`: the target exists. `ENOENT`: the source does not. `EINVAL`: the target is inside the source.
/// `EBUSY`: a mount in the source. [`ErrorKind::NotAFile`]: a special file. `EACCES`: a source that may not
/// be read. `ENOSPC`, `EDQUOT`. [`ErrorKind::Changed`]: a directory was moved away or replaced under the
/// work. Else as openat(2), write(2), fchown(2), fsetxattr(2) and the calls above. [`path`](Error::path) is
/// the source's, beginning with `from_name`, and [`other_path`](Error::other_path) the target's.
///
/// After an error the part that was copied is removed again ([`DiskState::Unchanged`]); if that fails too,
/// [`left_behind`](Error::left_behind) has its name.
///
/// # After a crash
/// Nothing is synced: any part of the copy may be there, or empty. [`sync`](super::sync) it, then its parent.
pub fn copy(
    from: impl AsFd,
    from_name: &Name,
    to: impl AsFd,
    to_name: &Name,
    options: &CopyOptions,
) -> Result<Copied> {
    let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
    copy_watched(from, from_name, to, to_name, options, watch)
}

/// [`copy`], telling `watch` after each entry, and after each piece of a large file.
///
/// # Errors
/// As [`copy`], and [`ErrorKind::Cancelled`].
pub fn copy_watched(
    from: impl AsFd,
    from_name: &Name,
    to: impl AsFd,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let walk = Walk::new(from.as_fd(), from_name)?;
    Work::new(to.as_fd(), to_name, options, watch).run(walk, None)
}

/// [`copy_watched`] into the empty directory `to_name`, which the caller has made and removes after an error.
/// It gets the attributes of the source.
pub(crate) fn copy_into(
    from: BorrowedFd<'_>,
    from_name: &Name,
    to: BorrowedFd<'_>,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let walk = Walk::new(from, from_name)?;
    let mut work = Work::new(to, to_name, options, watch);
    work.existing = true;
    work.run(walk, None)
}

/// Copies content and attributes of the regular file `from` to the empty file `to`, which the caller removes
/// after an error. Both stand at their start.
pub(crate) fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    preserve: Preserve,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let fail = |(call, e)| Error::new(OPERATION, call, e);
    let meta = look(from).map_err(|e| fail(("statx", e)))?;
    let mut done = copy_content(from, to, watch)?;
    drop_inherited(to, false).map_err(fail)?;
    let missed = carry(from, &meta, to, preserve).map_err(fail)?;
    done.owners_missed = missed.owner.into();
    done.xattrs_missed = missed.xattrs;
    Ok(done)
}

/// [`copy_file`] without the attributes.
pub(crate) fn copy_content(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let fail = |call, e| Error::new(OPERATION, call, e);
    let meta = look(from).map_err(|e| fail("statx", e))?;
    let mut done = Copied::default();
    let copied = Copier::default().copy(from, &meta, to, &mut |n| {
        done.bytes += n;
        watch(&progress(&done))
    });
    match copied {
        Ok(content) => done.changed = content.changed.into(),
        Err(Failure::Call(call, e)) => return Err(fail(call, e)),
        Err(Failure::Cancelled) => return Err(Error::of_kind(OPERATION, ErrorKind::Cancelled)),
    }
    done.files = 1;
    Ok(done)
}

/// [`copy_watched`] of a directory that is open.
pub(super) fn copy_dir(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let walk = Walk::over(from).map_err(|e| e.with_operation(OPERATION))?;
    Work::new(to, to_name, options, watch).run(walk, Some(from))
}

/// A copy under way. Dropped before its end, it removes what it made.
struct Work<'a, 'w> {
    to: Chain<BorrowedFd<'a>, OwnedFd>,
    to_name: &'a Name,
    options: &'a CopyOptions,
    watch: &'a mut Watch<'w>,
    /// Facts about the directories of the source that were entered.
    entered: Vec<Metadata>,
    links: Links,
    copier: Copier,
    done: Copied,
    made: Made,
    /// The top directory was there before, and is not ours to remove.
    existing: bool,
    /// Who owns what this process creates here: known from the first directory, checked in the first thing
    /// made inside it. A directory of somebody else's is not the one that was made.
    creator: Option<Uid>,
}

/// How far the top of the copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Nothing,
    /// The name may have been created: a device error came in answer.
    Perhaps,
    /// The name was created, what it is not yet looked at.
    Name,
    /// This is it.
    Known(Identity),
    /// The copy is complete.
    Finished,
}

/// A call that failed on a name, or an error already complete.
enum Trouble {
    Call(&'static str, Errno),
    Kind(ErrorKind, &'static str),
    Full(Error),
}

impl From<(&'static str, Errno)> for Trouble {
    fn from((call, e): (&'static str, Errno)) -> Self {
        Self::Call(call, e)
    }
}

impl<'a, 'w> Work<'a, 'w> {
    fn new(
        to: BorrowedFd<'a>,
        to_name: &'a Name,
        options: &'a CopyOptions,
        watch: &'a mut Watch<'w>,
    ) -> Self {
        Self {
            to: Chain::new(to),
            to_name,
            options,
            watch,
            entered: Vec::new(),
            links: Links::default(),
            copier: Copier::default(),
            done: Copied::default(),
            made: Made::Nothing,
            existing: false,
            creator: None,
        }
    }

    /// Copies what the walk finds; `over` is the directory itself, where the walk is over its contents.
    fn run(mut self, walk: Walk<BorrowedFd<'_>>, over: Option<BorrowedFd<'_>>) -> Result<Copied> {
        match self.go(walk.same_mount(self.options.same_mount), over) {
            Ok(()) => {
                self.made = Made::Finished;
                Ok(self.done)
            }
            Err(error) => Err(self.clean_up(error.with_operation(OPERATION))),
        }
    }

    fn go(&mut self, mut walk: Walk<BorrowedFd<'_>>, over: Option<BorrowedFd<'_>>) -> Result<()> {
        if let Some(dir) = over {
            let meta = look(dir).map_err(|e| Error::new(OPERATION, "statx", e))?;
            self.enter(self.to_name, &meta)
                .map_err(|t| self.complete(t, PathBuf::new(), None))?;
        }
        while let Some(event) = walk.next()? {
            match event {
                Event::Enter(entry) => {
                    let done = match entry.metadata()? {
                        Some(meta) => self.enter(self.target(entry.name()), &meta),
                        None => Err(Trouble::Call("statx", Errno::NOENT)),
                    };
                    let name = entry.name();
                    done.map_err(|t| self.complete(t, entry.path(), Some(name)))?;
                }
                Event::Leave(entry) => {
                    let done = match entry.dir() {
                        Some(dir) => self.leave(dir),
                        None => Err(Trouble::Call("openat", Errno::BADF)),
                    };
                    done.map_err(|t| self.complete(t, entry.path(), None))?;
                }
                Event::Mount(entry) => {
                    return Err(Error::new(OPERATION, "statx", Errno::BUSY)
                        .with_path(entry.path())
                        .with_advice("something is mounted there: allow other mounts to copy it"));
                }
                Event::Other(entry) => {
                    let name = entry.name();
                    self.other(&entry)
                        .map_err(|t| self.complete(t, entry.path(), Some(name)))?;
                }
            }
        }
        if let Some(dir) = over {
            self.leave(dir)
                .map_err(|t| self.complete(t, PathBuf::new(), None))?;
        }
        Ok(())
    }

    /// The name of the copy: the caller's for the top, else the same.
    fn target<'n>(&self, name: &'n Name) -> &'n Name
    where
        'a: 'n,
    {
        if self.to.depth() == 0 {
            self.to_name
        } else {
            name
        }
    }

    /// Makes a directory, for us alone, and goes into it.
    fn enter(&mut self, name: &Name, meta: &Metadata) -> Result<(), Trouble> {
        if let Made::Known(top) = self.made
            && top.is_file_of(&Identity::of(meta))
        {
            return Err(Trouble::Kind(
                ErrorKind::InvalidInput,
                "a tree cannot be copied into itself",
            ));
        }
        let top = self.to.depth() == 0;
        if !(top && self.existing) {
            self.created(
                sys::mkdirat(self.to.fd(), name.as_c_str(), Mode::RWXU).map_err(|e| ("mkdirat", e)),
            )?;
        }
        let fd = self
            .to
            .open_in(name.as_c_str(), READ_DIR, Mode::empty())
            .map_err(|e| ("openat", e))?;
        let own = look(&fd).map_err(|e| ("statx", e))?;
        if top {
            self.made = Made::Known(Identity::of(&own));
            self.creator = Some(own.uid());
            drop_inherited(fd.as_fd(), true)?;
        } else {
            self.check_creator(&own)?;
            if self.to.id().is_some_and(|above| above.crosses_to(&own)) {
                return Err(replaced());
            }
        }
        self.to
            .push(Some(name.clone()), fd, Identity::of(&own))
            .map_err(|e| ("openat", e))?;
        self.entered.push(*meta);
        Ok(())
    }

    /// Notes that the top's name is taken by us now.
    fn created<T>(&mut self, done: Result<T, (&'static str, Errno)>) -> Result<T, Trouble> {
        if self.made == Made::Nothing {
            self.made = match done {
                Ok(_) => Made::Name,
                Err((_, e)) if ErrorKind::from_errno(e) == ErrorKind::Io => Made::Perhaps,
                Err(_) => Made::Nothing,
            };
        }
        done.map_err(Trouble::from)
    }

    /// What was made in the top directory must belong to whom the directory belongs: else it is not the one
    /// that we made, but one that somebody put in its place.
    fn check_creator(&mut self, own: &Metadata) -> Result<(), Trouble> {
        match self.creator.take() {
            Some(uid) if uid != own.uid() => Err(replaced()),
            _ => Ok(()),
        }
    }

    /// Finishes the innermost directory, a copy of `from`.
    fn leave(&mut self, from: BorrowedFd<'_>) -> Result<(), Trouble> {
        let Some(meta) = self.entered.pop() else {
            return Ok(());
        };
        // Before its mode changes, which may take away the right to go up from it.
        if let Err(trouble) = self.to.open_parent() {
            return Err(self.lost(trouble));
        }
        self.carry(from, &meta, None)?;
        if let Err(trouble) = self.to.pop() {
            return Err(self.lost(trouble));
        }
        self.done.dirs += 1;
        self.tell(0)
    }

    /// [`carry`] to an open file, or to the innermost directory.
    fn carry(
        &mut self,
        from: BorrowedFd<'_>,
        meta: &Metadata,
        to: Option<BorrowedFd<'_>>,
    ) -> Result<(), Trouble> {
        let missed = carry(
            from,
            meta,
            to.unwrap_or(self.to.fd()),
            self.options.preserve,
        )?;
        self.done.owners_missed += u64::from(missed.owner);
        self.done.xattrs_missed += missed.xattrs;
        Ok(())
    }

    /// Copies what is not a directory.
    fn other(&mut self, entry: &Entry<'_>) -> Result<(), Trouble> {
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
                    Special::Recreate => Some(self.special(name, &meta)?),
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
    fn link(&mut self, key: super::links::Key, name: &Name) -> Result<bool, Trouble> {
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
            Err((_, Errno::ACCESS)) => {
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

    /// Makes a FIFO, socket or device.
    fn special(&mut self, name: &Name, meta: &Metadata) -> Result<Metadata, Trouble> {
        let mode = Mode::RUSR | Mode::WUSR;
        let made = sys::mknodat(
            self.to.fd(),
            name.as_c_str(),
            meta.kind(),
            mode,
            meta.rdev(),
        );
        self.created(made.map_err(|e| ("mknodat", e)))?;
        let (fd, own) = self.made_node(name.as_c_str(), meta.kind())?;
        if own.rdev() != meta.rdev() {
            return Err(replaced());
        }
        let kept = self.carry_owner(&fd, meta)?;
        let keep = self.options.preserve.owner;
        let mode = permitted(meta, !kept || keep == Keep::No, fd.as_fd())?;
        chmod_place(fd.as_fd(), mode)?;
        self.carry_times(&fd, meta)?;
        self.done.specials += 1;
        Ok(own)
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

    fn tell(&mut self, n: u64) -> Result<(), Trouble> {
        self.done.bytes += n;
        match (self.watch)(&progress(&self.done)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Trouble::Kind(ErrorKind::Cancelled, "")),
        }
    }

    fn lost(&self, trouble: super::chain::Trouble) -> Trouble {
        Trouble::Full(trouble_error(OPERATION, trouble, self.to.names()))
    }

    /// The error with the paths of both sides.
    #[cold]
    fn complete(&self, trouble: Trouble, from: PathBuf, leaf: Option<&Name>) -> Error {
        let error = match trouble {
            Trouble::Full(error) => return error,
            Trouble::Call(call, e) => Error::new(OPERATION, call, e),
            Trouble::Kind(kind, "") => Error::of_kind(OPERATION, kind),
            Trouble::Kind(kind, advice) => Error::of_kind(OPERATION, kind).with_advice(advice),
        };
        let leaf = leaf.map(|leaf| self.target(leaf).as_c_str());
        error
            .with_path(from)
            .with_other(path_of(self.to.names(), leaf))
    }

    /// Removes what was made. The error then says that nothing was changed, or what is left.
    #[cold]
    fn clean_up(&mut self, error: Error) -> Error {
        let made = std::mem::replace(&mut self.made, Made::Finished);
        if self.existing {
            return error;
        }
        match made {
            Made::Nothing => return error,
            // Not to be removed: it may as well be somebody else's.
            Made::Perhaps => return error.with_state(DiskState::Indeterminate),
            _ => {}
        }
        match self.remove_made(made) {
            Ok(()) => error.with_state(DiskState::Unchanged),
            Err(_) => error
                .with_state(DiskState::Indeterminate)
                .with_left(self.to_name.as_os_str()),
        }
    }

    fn remove_made(&self, made: Made) -> Result<()> {
        let base = *self.to.base();
        if let Made::Known(id) = made {
            match look_at(base, self.to_name.as_c_str()) {
                Ok(now) if Identity::of(&now) == id => {}
                Err(Errno::NOENT) => return Ok(()),
                // Somebody else's, in the place of ours.
                _ => return Err(Error::of_kind(OPERATION, ErrorKind::Changed)),
            }
        }
        let options = RemoveOptions::new().missing_ok(true);
        remove(base, self.to_name, &options).map(drop)
    }
}

impl Drop for Work<'_, '_> {
    fn drop(&mut self) {
        // Only when the caller's callback panics: nobody is there to be told of an error.
        if !self.existing && matches!(self.made, Made::Name | Made::Known(_)) {
            let _ = self.remove_made(self.made);
        }
    }
}

fn replaced() -> Trouble {
    Trouble::Kind(
        ErrorKind::Changed,
        "somebody replaced it while it was copied",
    )
}

fn progress(done: &Copied) -> Progress {
    Progress {
        files: done.files + done.symlinks + done.specials + done.hard_links,
        dirs: done.dirs,
        bytes: done.bytes,
    }
}
