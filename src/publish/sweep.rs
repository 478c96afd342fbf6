//! Removing what a killed process left.
//!
//! A temporary is known by its name, check digits included, and by a maker that no longer lives. For a file
//! the kernel says so: it grants a read lease only if nobody has the file open for writing, and who makes
//! one of our files keeps it open so until it is published. A staged directory is locked with flock(2) by
//! its maker. One side of an exchange is told by the marks in its name. Age is no proof, and is not
//! asked for.

use crate::root::temp_name::{self, TempName};
use crate::root::{resolve_error, sync_names};
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, DirStream, Errno, FileId, LockKind, Metadata, Mode, OFlags,
    OwnedFd,
};
use crate::tree::{self, RemoveOptions};
use crate::{DiskState, Error, Name, Result, Root};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const SWEEP: &str = "sweep";

/// How to sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct SweepOptions {
    recursive: bool,
    dry_run: bool,
    unproven: bool,
}

impl SweepOptions {
    /// One directory, for real.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also all directories below, on the same mount, without following symlinks.
    pub fn recursive(mut self, on: bool) -> Self {
        self.recursive = on;
        self
    }

    /// Only report.
    pub fn dry_run(mut self, on: bool) -> Self {
        self.dry_run = on;
        self
    }

    /// Also remove temporaries whose makers cannot be proven dead ([`Kept::Unprovable`]): on network and FUSE
    /// storage, where leases and locks of another machine are not seen. Only for callers who know that nobody
    /// publishes there now.
    pub fn unproven(mut self, on: bool) -> Self {
        self.unproven = on;
        self
    }
}

/// Why a temporary was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Kept {
    /// Its maker lives.
    InUse,
    /// It cannot be proven that its maker is dead: storage shared with other machines, or no leases or
    /// locks here.
    Unprovable,
    /// Another user's, or in a directory that may not be written. Of a directory: it may not be read.
    NotPermitted,
    /// It has the name of a temporary but is something else.
    NotOurs,
    /// The old side of an interrupted exchange that somebody changed meanwhile, or that was to be kept: it is
    /// for a person to look at.
    Displaced,
    /// Removing it failed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::errno"))]
    Failed(Errno),
}

/// What a sweep did. Paths are relative to the swept directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    removed: Vec<PathBuf>,
    kept: Vec<(PathBuf, Kept)>,
}

impl SweepReport {
    /// What was removed (in a dry run: what would be).
    #[must_use]
    pub fn removed(&self) -> &[PathBuf] {
        &self.removed
    }

    /// What was left alone, and why.
    #[must_use]
    pub fn kept(&self) -> &[(PathBuf, Kept)] {
        &self.kept
    }
}

/// Removes, from the directory `path` beneath `root`, temporaries of this crate whose makers are dead.
///
/// Never a user's own file: see [`Kept`] for what is left alone. It may run beside any number of writers
/// and other sweeps, and a killed sweep is finished by the next one. The directory is synced if something
/// was removed.
///
/// # Errors
/// As open(2) and getdents(2) of the directory, and fsync(2); with [`DiskState::Indeterminate`] some
/// temporaries were removed before. What happens to a single temporary is in the report.
pub fn sweep(root: &Root, path: impl AsRef<Path>, options: &SweepOptions) -> Result<SweepReport> {
    let path = path.as_ref();
    operation!("sweep", path = path);
    let fail = |e| resolve_error(SWEEP, e, path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let fd = root
        .open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
        .map_err(fail)?;
    let mut report = SweepReport::default();
    match sweep_all(fd.as_fd(), path, options, &mut report) {
        Ok(()) => Ok(report),
        Err(e) if report.removed.is_empty() || options.dry_run => Err(e),
        Err(e) => Err(e.with_state(DiskState::Indeterminate)),
    }
}

fn sweep_all(
    fd: BorrowedFd<'_>,
    path: &Path,
    options: &SweepOptions,
    report: &mut SweepReport,
) -> Result<()> {
    sweep_dir(fd, Path::new(""), options, report).map_err(|e| e.with_default_path(path))?;
    if options.recursive {
        let mut walk = tree::Walk::over(fd)?.same_mount(true);
        loop {
            let entry = match walk.next() {
                Ok(Some(tree::Event::Enter(entry))) => entry,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(e) => {
                    // A directory that may not be read; the walk goes on behind it.
                    if walk.is_over() || e.errno() != Some(Errno::ACCESS) {
                        return Err(e);
                    }
                    let path = e.path().unwrap_or(Path::new("")).to_owned();
                    report.kept.push((path, Kept::NotPermitted));
                    continue;
                }
            };
            // What is staged in a staged tree goes or stays with it.
            if temp_name::parse(entry.name().as_bytes()).is_some() {
                walk.skip_contents();
                continue;
            }
            if let Some(dir) = entry.dir() {
                sweep_dir(dir, &entry.path(), options, report)?;
            }
        }
    }
    Ok(())
}

fn sweep_dir(
    dir: BorrowedFd<'_>,
    shown: &Path,
    options: &SweepOptions,
    report: &mut SweepReport,
) -> Result<()> {
    let fail = |call, e| Error::new(SWEEP, call, e).with_default_path(shown);
    let own = sys::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .map_err(|e| fail("openat", e))?;
    let mut stream = DirStream::new(own);
    // Collected first: removing while reading may skip entries on some file systems.
    let mut found = Vec::new();
    while let Some(entry) = stream.next().map_err(|e| fail("getdents64", e))? {
        if let Some(class) = temp_name::parse(entry.name().to_bytes())
            && let Ok(name) = Name::from_entry(entry.name())
        {
            found.push((name, class));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    // Unknown kinds of storage prove nothing either.
    let shared = sys::fs_kind(dir)
        .map_err(|e| fail("fstatfs", e))?
        .is_shared_storage();
    let sweeper = Sweeper {
        dir,
        shared,
        options,
    };
    let mut removed = false;
    for (name, class) in found {
        let path = shown.join(&name);
        match sweeper.entry(&name, class) {
            Ok(true) => {
                removed = true;
                report.removed.push(path);
            }
            Ok(false) => {}
            Err(kept) => report.kept.push((path, kept)),
        }
    }
    if removed && !options.dry_run {
        sync_names(dir).map_err(|e| fail("fsync", e))?;
    }
    Ok(())
}

struct Sweeper<'a> {
    dir: BorrowedFd<'a>,
    shared: bool,
    options: &'a SweepOptions,
}

impl Sweeper<'_> {
    /// `true`: removed. `false`: it is gone already.
    fn entry(&self, name: &Name, class: TempName) -> std::result::Result<bool, Kept> {
        let Some(meta) = self.look(name)? else {
            return Ok(false);
        };
        match class {
            TempName::File if meta.is_file() => self.file(name, &meta),
            TempName::Dir if meta.is_dir() => self.folder(name, &meta),
            TempName::Exchange { new, old, keep } => self.exchange(name, new, old, keep),
            TempName::File | TempName::Dir => Err(Kept::NotOurs),
        }
    }

    fn look(&self, name: &Name) -> std::result::Result<Option<Metadata>, Kept> {
        match sys::statx(self.dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(meta) => Ok(Some(meta)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Kept::Failed(e)),
        }
    }

    fn open(&self, name: &Name, flags: OFlags) -> std::result::Result<Option<OwnedFd>, Kept> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match sys::openat(self.dir, name.as_c_str(), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => Err(Kept::NotPermitted),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Kept::NotOurs),
            Err(e) => Err(Kept::Failed(e)),
        }
    }

    fn file(&self, name: &Name, meta: &Metadata) -> std::result::Result<bool, Kept> {
        let Some(fd) = self.open(name, OFlags::empty())? else {
            return Ok(false);
        };
        self.same(&fd, meta.id())?;
        let lease = sys::lease_free_of_writers(&fd);
        match &lease {
            Err(Errno::AGAIN) => return Err(Kept::InUse),
            Err(Errno::ACCESS | Errno::PERM) => return Err(Kept::NotPermitted),
            Ok(_) if !self.shared => {}
            _ if self.options.unproven => {}
            _ => return Err(Kept::Unprovable),
        }
        self.unlink(name, meta)
    }

    fn folder(&self, name: &Name, meta: &Metadata) -> std::result::Result<bool, Kept> {
        let Some(fd) = self.open(name, OFlags::DIRECTORY)? else {
            return Ok(false);
        };
        self.same(&fd, meta.id())?;
        match sys::try_flock(&fd, LockKind::Exclusive) {
            Err(Errno::AGAIN) => return Err(Kept::InUse),
            Ok(()) if !self.shared => {}
            _ if self.options.unproven => {}
            _ => return Err(Kept::Unprovable),
        }
        // The lock is held until all of it is gone.
        self.unlink(name, meta)
    }

    /// One side of an exchange. It is judged under an exclusive lock of the directory, which whoever may
    /// still take an exchange back holds as well.
    fn exchange(
        &self,
        name: &Name,
        new: u64,
        old: u64,
        keep: bool,
    ) -> std::result::Result<bool, Kept> {
        let held = sys::openat(
            self.dir,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(Kept::Failed)?;
        match sys::try_flock(&held, LockKind::Exclusive) {
            Err(Errno::AGAIN) => return Err(Kept::InUse),
            Ok(()) if !self.shared => {}
            _ if self.options.unproven => {}
            _ => return Err(Kept::Unprovable),
        }
        let Some(meta) = self.look(name)? else {
            return Ok(false);
        };
        if meta.id().ino == new {
            return if meta.is_dir() {
                self.folder(name, &meta)
            } else {
                self.file(name, &meta)
            };
        }
        if temp_name::mark(&meta) != old || keep {
            return Err(Kept::Displaced);
        }
        self.unlink(name, &meta)
    }

    /// What was opened is what was looked at.
    fn same(&self, fd: &OwnedFd, id: FileId) -> std::result::Result<(), Kept> {
        match sys::statx(fd, c"", AtFlags::EMPTY_PATH) {
            Ok(meta) if meta.id() == id => Ok(()),
            Ok(_) => Err(Kept::InUse),
            Err(e) => Err(Kept::Failed(e)),
        }
    }

    fn unlink(&self, name: &Name, meta: &Metadata) -> std::result::Result<bool, Kept> {
        if self.options.dry_run {
            return Ok(true);
        }
        let done = if meta.is_dir() {
            tree::remove(self.dir, name, &RemoveOptions::new().missing_ok(true))
                .map(drop)
                .map_err(|e| e.errno().unwrap_or(Errno::IO))
        } else {
            sys::unlinkat(self.dir, name.as_c_str())
        };
        match done {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::ACCESS | Errno::PERM) => Err(Kept::NotPermitted),
            Err(e) => Err(Kept::Failed(e)),
        }
    }
}
