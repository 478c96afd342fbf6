//! Removing a tree.

use super::chain::{Chain, Identity, NameBuf, READ_DIR, Reader, Trouble, look, path_of};
use super::meta::chmod_place;
use super::walk::trouble_error;
use super::{Progress, Watch};
use crate::root::Name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileType, Metadata, Mode, OFlags, OwnedFd};
use crate::{DiskState, Error, ErrorKind, Result};
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::time::Duration;

const OPERATION: &str = "remove tree";

/// How often an entry that changes its type between two calls is tried again.
const TRIES: u32 = 8;
/// Passes over one directory that remove nothing before it is given up; between them is a pause, twice as
/// long each time, for a process that holds removed files open (`.nfs*`), or one that still creates.
const IDLE_PASSES: u32 = 8;
/// Passes over one directory altogether.
const PASSES: u32 = 1000;
/// How many directories may be moved away under the work before it gives up.
const MOVES: u32 = 64;

/// How [`remove`] works.
#[derive(Clone, Debug)]
#[must_use]
pub struct RemoveOptions {
    same_mount: bool,
    missing_ok: bool,
}

impl Default for RemoveOptions {
    fn default() -> Self {
        Self {
            same_mount: true,
            missing_ok: false,
        }
    }
}

impl RemoveOptions {
    /// Refuses other mounts, and a tree that does not exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to refuse (`EBUSY`, [`ErrorKind::Busy`]) a mount in the tree, before anything on that mount is
    /// touched. On by default. Without it, what is mounted is emptied, and its mount point is `EBUSY` then.
    pub fn same_mount(mut self, on: bool) -> Self {
        self.same_mount = on;
        self
    }

    pub(super) fn accepts_missing(&self) -> bool {
        self.missing_ok
    }

    /// Whether a tree that does not exist is a success. Off by default.
    pub fn missing_ok(mut self, on: bool) -> Self {
        self.missing_ok = on;
        self
    }
}

/// How mounts were told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum MountCheck {
    /// There was no directory to check, or the caller did not ask.
    #[default]
    NotNeeded,
    /// By the mount itself (Linux 5.8).
    Mount,
    /// By the device number: a bind mount within one device would not have been seen.
    Device,
}

/// What [`remove`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Removed {
    /// Entries removed that were not directories. What somebody else removed meanwhile is not counted.
    pub files: u64,
    /// Directories removed.
    pub dirs: u64,
    /// How mounts were told apart.
    pub mount_check: MountCheck,
}

/// Removes the tree `name` in `parent`: a directory with all that is in it, or a single file or symlink.
///
/// Every name is removed through a descriptor of the directory that holds it, and no symlink is followed.
/// What somebody else removes meanwhile counts as done; what somebody creates meanwhile is removed too, as
/// long as that does not go on forever. At most 18 descriptors are open, at any depth. A directory of the
/// caller's own that lacks the permission to be read, searched or changed is given it first.
///
/// # Errors
/// `ENOENT`: it does not exist (unless [`missing_ok`](RemoveOptions::missing_ok)). `EBUSY`: a mount.
/// `ENOTEMPTY`: entries come back all the time: somebody creates them, or holds removed files open on NFS
/// (`.nfs*`). `EACCES`, `EPERM`: a directory or file that this process may not change, an immutable or
/// append-only file. [`ErrorKind::Changed`]: directories are moved about under the work. Else as
/// openat(2), statx(2), getdents(2), unlinkat(2).
///
/// The first error ends it. Its [`disk_state`](Error::disk_state) is [`DiskState::Unchanged`] if nothing had
/// been removed, else [`DiskState::Indeterminate`]; its path begins with `name`.
///
/// # After a crash
/// Any part may be gone. To make a name vanish at once, rename it first, and sync the parent after.
pub fn remove(parent: impl AsFd, name: &Name, options: &RemoveOptions) -> Result<Removed> {
    remove_watched(parent, name, options, &mut |_| ControlFlow::Continue(()))
}

/// [`remove`], telling `watch` after each entry.
///
/// # Errors
/// As [`remove`], and [`ErrorKind::Cancelled`].
pub fn remove_watched(
    parent: impl AsFd,
    name: &Name,
    options: &RemoveOptions,
    watch: &mut Watch<'_>,
) -> Result<Removed> {
    remove_at(parent.as_fd(), name, false, options, watch)
}

/// [`remove_watched`], which may insist on a directory.
pub(super) fn remove_at(
    parent: BorrowedFd<'_>,
    name: &Name,
    directory: bool,
    options: &RemoveOptions,
    watch: &mut Watch<'_>,
) -> Result<Removed> {
    operation!("remove tree", name = name);
    let mut remover = Remover {
        chain: Chain::new(parent),
        same_mount: options.same_mount,
        done: Removed::default(),
        changed: false,
        moves: 0,
        watch,
    };
    match remover.run(name, directory) {
        Ok(()) => Ok(remover.done),
        Err(Stop::Missing) if options.missing_ok => Ok(remover.done),
        Err(Stop::Missing) => {
            Err(Error::new(OPERATION, "openat", Errno::NOENT).with_path(name.as_os_str()))
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Remover<'a, 'w> {
    chain: Chain<BorrowedFd<'a>, Reader>,
    same_mount: bool,
    done: Removed,
    /// Something was removed, or a directory's mode changed.
    changed: bool,
    moves: u32,
    watch: &'a mut Watch<'w>,
}

enum Stop {
    Missing,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What became of one name.
#[derive(PartialEq, Eq)]
enum Fate {
    Removed,
    /// It was not there.
    Gone,
    /// It is a directory, which is entered now.
    Entered,
    /// It stays for now.
    Kept,
}

impl Remover<'_, '_> {
    fn run(&mut self, name: &Name, directory: bool) -> Result<(), Stop> {
        if directory {
            match self.open_child(name.as_c_str()) {
                Ok((fd, meta)) => self.enter(name.as_c_str(), fd, &meta)?,
                Err(("openat", Errno::NOENT)) => return Err(Stop::Missing),
                Err((call, e)) => {
                    // With O_NOFOLLOW a symlink is ENOTDIR as well, but ELOOP to some file systems.
                    let e = if e == Errno::LOOP { Errno::NOTDIR } else { e };
                    return Err(self.fail(call, e, Some(name.as_c_str())).into());
                }
            }
        } else if self.entry(name.as_c_str(), FileType::Directory)? == Fate::Gone {
            return Err(Stop::Missing);
        }
        let mut entry = NameBuf::default();
        while let Some(top) = self.chain.top() {
            match top.next(&mut entry) {
                Ok(Some(hint)) => match self.entry(entry.as_c_str(), hint)? {
                    Fate::Removed => {
                        if let Some(top) = self.chain.top() {
                            top.listing.removed = true;
                        }
                    }
                    Fate::Gone | Fate::Entered | Fate::Kept => {}
                },
                Ok(None) => self.leave()?,
                Err(e) => return Err(self.fail("getdents64", e, None).into()),
            }
        }
        Ok(())
    }

    /// Removes a name in the innermost directory, or enters it.
    fn entry(&mut self, name: &CStr, hint: FileType) -> Result<Fate> {
        let mut dir = hint == FileType::Directory;
        for _ in 0..TRIES {
            if dir {
                match self.open_child(name) {
                    Ok((fd, meta)) => {
                        self.enter(name, fd, &meta)?;
                        return Ok(Fate::Entered);
                    }
                    Err(("openat", Errno::NOENT)) => return Ok(Fate::Gone),
                    Err(("openat", Errno::NOTDIR | Errno::LOOP)) => dir = false,
                    Err((call, e)) => return Err(self.fail(call, e, Some(name))),
                }
                continue;
            }
            match sys::unlinkat(self.chain.fd(), name) {
                Ok(()) => {
                    self.changed = true;
                    self.done.files += 1;
                    self.tell(Some(name))?;
                    return Ok(Fate::Removed);
                }
                Err(Errno::NOENT) => return Ok(Fate::Gone),
                Err(Errno::ISDIR) => dir = true,
                // A file that somebody holds open on NFS, under the name that the client gave it.
                Err(Errno::BUSY) if name.to_bytes().starts_with(b".nfs") => return Ok(Fate::Kept),
                Err(Errno::ACCESS) if self.open_up_top()? => {}
                Err(e) => return Err(self.fail_changing("unlinkat", e, Some(name))),
            }
        }
        Err(self
            .fail("unlinkat", Errno::AGAIN, Some(name))
            .with_kind(ErrorKind::Changed))
    }

    /// Opens a directory in the innermost one to be read, and looks at it.
    fn open_child(&mut self, name: &CStr) -> Result<(OwnedFd, Metadata), (&'static str, Errno)> {
        match self.chain.open_in(name, READ_DIR, Mode::empty()) {
            Ok(fd) => {
                let meta = look(&fd).map_err(|e| ("statx", e))?;
                Ok((fd, meta))
            }
            Err(Errno::ACCESS) => self.open_closed(name),
            Err(e) => Err(("openat", e)),
        }
    }

    /// Opens a directory that may not be read, after giving its owner, us, the right to.
    fn open_closed(&mut self, name: &CStr) -> Result<(OwnedFd, Metadata), (&'static str, Errno)> {
        const DENIED: (&str, Errno) = ("openat", Errno::ACCESS);
        let flags = READ_DIR | OFlags::PATH;
        let place = match self.chain.open_in(name, flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                // It is the directory above that may not be searched.
                if !self.open_up_top().map_err(|_| DENIED)? {
                    return Err(DENIED);
                }
                self.chain.open_in(name, flags, Mode::empty())
            }
            done => done,
        };
        let place = place.map_err(|e| ("openat", e))?;
        let meta = look(&place).map_err(|e| ("statx", e))?;
        if self.refuses(&meta) {
            // Left for `enter` to refuse, before its mode is touched.
            return Ok((place, meta));
        }
        if chmod_place(place.as_fd(), meta.mode() | Mode::RWXU).is_err() {
            return Err(DENIED);
        }
        self.changed = true;
        let fd = sys::openat(&place, c".", READ_DIR, Mode::empty()).map_err(|e| ("openat", e))?;
        Ok((fd, meta))
    }

    /// Gives us the right to search and change the innermost directory, once, if it is ours; false if not.
    fn open_up_top(&mut self) -> Result<bool> {
        let Some(top) = self.chain.top() else {
            return Ok(false);
        };
        if std::mem::replace(&mut top.listing.opened_up, true) {
            return Ok(false);
        }
        let Ok(meta) = look(&*top) else {
            return Ok(false);
        };
        // A refusal here leaves the caller with the error that it came with.
        let done = sys::fchmod(&*top, meta.mode() | Mode::RWXU).is_ok();
        self.changed |= done;
        Ok(done)
    }

    /// Whether a directory found in the innermost one must not be touched.
    fn refuses(&self, meta: &Metadata) -> bool {
        self.same_mount
            && match self.chain.id() {
                Some(above) => above.crosses_to(meta),
                None => match meta.is_mount_root() {
                    Some(root) => root,
                    None => look(self.chain.base())
                        .is_ok_and(|base| Identity::of(&base).crosses_to(meta)),
                },
            }
    }

    fn enter(&mut self, name: &CStr, fd: OwnedFd, meta: &Metadata) -> Result<()> {
        if self.refuses(meta) {
            return Err(self.fail("statx", Errno::BUSY, Some(name)).with_advice(
                "something is mounted there: unmount it, or allow other mounts to be emptied",
            ));
        }
        if self.same_mount {
            self.done.mount_check = if meta.mount_id().is_some() {
                MountCheck::Mount
            } else {
                MountCheck::Device
            };
        }
        let own = Name::from_entry(name).map_err(|e| self.fail("getdents64", e, Some(name)))?;
        self.chain
            .push(Some(own), fd, Identity::of(meta))
            .map_err(|e| self.fail("getdents64", e, None))
    }

    /// Removes the innermost directory, which has been read to its end.
    fn leave(&mut self) -> Result<()> {
        if let Err(trouble) = self.chain.open_parent() {
            return self.moved(trouble);
        }
        let Some(name) = self.chain.name().cloned() else {
            return self.chain.pop().or_else(|trouble| self.moved(trouble));
        };
        match sys::rmdirat(self.chain.parent_fd(), name.as_c_str()) {
            Ok(()) => {
                self.changed = true;
                self.done.dirs += 1;
                self.pop()?;
                if let Some(top) = self.chain.top() {
                    top.listing.removed = true;
                }
                self.tell(Some(name.as_c_str()))
            }
            Err(Errno::NOENT) => self.pop(),
            // Something else has its name now, which is removed like any entry.
            Err(Errno::NOTDIR) => {
                self.pop()?;
                self.entry(name.as_c_str(), FileType::Unknown).map(drop)
            }
            Err(e @ (Errno::NOTEMPTY | Errno::EXIST)) => self.again(e),
            Err(Errno::ACCESS) if self.open_up_parent() => Ok(()),
            Err(e) => Err(self.fail_changing("unlinkat(AT_REMOVEDIR)", e, None)),
        }
    }

    fn pop(&mut self) -> Result<()> {
        self.chain.pop().or_else(|trouble| self.moved(trouble))
    }

    /// Reads the innermost directory once more, because something is left in it.
    fn again(&mut self, errno: Errno) -> Result<()> {
        let Some(top) = self.chain.top() else {
            return Ok(());
        };
        let list = &mut top.listing;
        list.passes += 1;
        list.idle = if list.removed { 0 } else { list.idle + 1 };
        list.removed = false;
        let (passes, idle) = (list.passes, list.idle);
        if idle > IDLE_PASSES || passes > PASSES {
            return Err(self
                .fail("unlinkat(AT_REMOVEDIR)", errno, None)
                .with_kind(ErrorKind::DirectoryNotEmpty)
                .with_advice(
                    "somebody creates files there all the time, or holds removed ones open",
                ));
        }
        if idle > 1 {
            std::thread::sleep(Duration::from_millis(1 << idle));
        }
        top.rewind().map_err(|e| self.fail("lseek", e, None))
    }

    /// Gives us the right to change the directory above the innermost, once.
    fn open_up_parent(&mut self) -> bool {
        if self.chain.depth() < 2 || self.moves >= MOVES {
            return false;
        }
        // Bounded by the same budget as directories that are moved.
        self.moves += 1;
        let parent = self.chain.parent_fd();
        let done = look(parent)
            .and_then(|meta| sys::fchmod(parent, meta.mode() | Mode::RWXU))
            .is_ok();
        self.changed |= done;
        done
    }

    /// Goes on above a directory that is no longer where it was: what is there now is met on the next pass.
    fn moved(&mut self, trouble: Trouble) -> Result<()> {
        let trouble = match trouble {
            Trouble::Moved(depth) if self.moves < MOVES => {
                self.moves += 1;
                match self.chain.leave_moved(depth) {
                    Ok(()) => return Ok(()),
                    Err(trouble) => trouble,
                }
            }
            other => other,
        };
        let error = trouble_error(OPERATION, trouble, self.chain.names());
        Err(error.with_state(self.state()))
    }

    fn tell(&mut self, name: Option<&CStr>) -> Result<()> {
        let progress = Progress {
            files: self.done.files,
            dirs: self.done.dirs,
            bytes: 0,
        };
        match (self.watch)(&progress) {
            ControlFlow::Continue(()) => Ok(()),
            // The last removal done, there is nothing to cancel.
            ControlFlow::Break(()) if self.chain.depth() == 0 => Ok(()),
            ControlFlow::Break(()) => Err(Error::of_kind(OPERATION, ErrorKind::Cancelled)
                .with_path(path_of(self.chain.names(), name))
                .with_state(self.state())),
        }
    }

    fn state(&self) -> DiskState {
        if self.changed {
            DiskState::Indeterminate
        } else {
            DiskState::Unchanged
        }
    }

    #[cold]
    fn fail(&self, call: &'static str, errno: Errno, leaf: Option<&CStr>) -> Error {
        Error::new(OPERATION, call, errno)
            .with_path(self.chain.path(leaf))
            .with_state(self.state())
    }

    /// [`fail`](Self::fail) of a call that changes: after a device error nobody knows whether it did.
    #[cold]
    fn fail_changing(&self, call: &'static str, errno: Errno, leaf: Option<&CStr>) -> Error {
        let error = self.fail(call, errno, leaf);
        match error.kind() {
            ErrorKind::Io => error.with_state(DiskState::Indeterminate),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::CWD;

    #[test]
    fn types_in_a_listing_are_hints() {
        let dir = tempfile::tempdir().unwrap();
        let parent = sys::openat(CWD, dir.path(), READ_DIR, Mode::empty()).unwrap();
        let hints = [
            FileType::Unknown,
            FileType::Directory,
            FileType::RegularFile,
        ];
        for hint in hints {
            std::fs::create_dir(dir.path().join("dir")).unwrap();
            std::fs::write(dir.path().join("file"), "").unwrap();
            let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
            let mut remover = Remover {
                chain: Chain::new(parent.as_fd()),
                same_mount: true,
                done: Removed::default(),
                changed: false,
                moves: 0,
                watch,
            };
            assert!(remover.entry(c"file", hint).unwrap() == Fate::Removed);
            assert!(remover.entry(c"file", hint).unwrap() == Fate::Gone);
            assert!(remover.entry(c"dir", hint).unwrap() == Fate::Entered);
            remover.leave().unwrap();
            assert_eq!((remover.done.files, remover.done.dirs), (1, 1));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
