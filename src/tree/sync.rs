//! Making a tree durable.

use super::chain::READ_DIR;
use super::walk::{Event, Walk};
use super::{Progress, Watch};
use crate::root::sync_names;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileType, Mode, OFlags};
use crate::{DiskState, Error, ErrorKind, Result};
use std::ops::ControlFlow;

const OPERATION: &str = "sync tree";

/// Up to this many files and directories are synced one by one by [`SyncStrategy::Auto`]. Measured on ext4,
/// xfs and btrfs, one syncfs(2) wins from about four files on; it also waits for other programs' data,
/// which is why a few more are done one by one.
const FEW: u64 = 8;

/// How [`sync`] makes a tree durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncStrategy {
    /// A tree of up to eight files and directories one by one, a larger one by the whole file system.
    #[default]
    Auto,
    /// fsync(2) of every file and directory: waits for nobody else's data, but once for each.
    EachFile,
    /// One syncfs(2) for the whole file system: the fastest for many files, but it waits for everybody's
    /// data.
    WholeFileSystem,
}

/// What [`sync`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Synced {
    /// Files synced one by one.
    pub files: u64,
    /// Directories synced one by one.
    pub dirs: u64,
    /// Whether the whole file system was synced.
    pub whole_file_system: bool,
    /// Mount points found in the tree, which were left out. Always 0 after a sync of the whole file system,
    /// which does not look.
    pub mounts_skipped: u64,
}

/// Makes every file and directory below `dir`, and `dir` itself, durable: content, metadata and names.
///
/// The names above `dir`, its own among them, are not part of it: sync its parent for that. Other mounts in
/// the tree are left out. What vanishes meanwhile is passed over; what is created meanwhile may be missed.
/// A file that may not be opened for reading, and so cannot be synced alone, makes it sync the whole file
/// system. Symlinks, FIFOs, sockets and devices are durable with the directory that holds them.
///
/// # Errors
/// As fsync(2), syncfs(2), openat(2), getdents(2). The [`disk_state`](Error::disk_state) is
/// [`DiskState::Published`]: the tree is as it was, but not known to be durable. A sync that failed is never
/// tried again, and calling this again proves nothing: write the content anew.
///
/// syncfs(2) reports write errors since Linux 5.8; before, use [`SyncStrategy::EachFile`].
pub fn sync(dir: impl AsFd, strategy: SyncStrategy) -> Result<Synced> {
    sync_watched(dir, strategy, &mut |_| ControlFlow::Continue(()))
}

/// [`sync`], telling `watch` after each file and directory.
///
/// # Errors
/// As [`sync`], and [`ErrorKind::Cancelled`].
pub fn sync_watched(
    dir: impl AsFd,
    strategy: SyncStrategy,
    watch: &mut Watch<'_>,
) -> Result<Synced> {
    operation!("sync tree", strategy = strategy);
    let dir = dir.as_fd();
    let done = match strategy {
        SyncStrategy::WholeFileSystem => whole(dir, Synced::default()),
        SyncStrategy::EachFile => each(dir, watch),
        SyncStrategy::Auto => match has_few(dir) {
            Ok(true) => each(dir, watch),
            Ok(false) => whole(dir, Synced::default()),
            Err(e) => Err(e),
        },
    };
    done.map_err(|e| e.with_operation(OPERATION).with_state(DiskState::Published))
}

/// syncfs through a descriptor that the kernel takes for it.
fn whole(dir: BorrowedFd<'_>, done: Synced) -> Result<Synced> {
    let fail = |call| move |e| Error::new(OPERATION, call, e);
    match sys::openat(dir, c".", READ_DIR, Mode::empty()) {
        Ok(fd) => sys::syncfs(&fd).map_err(fail("syncfs"))?,
        // It may not be read: through a file made there for a moment.
        Err(Errno::ACCESS) => sync_names(dir).map_err(fail("syncfs"))?,
        Err(e) => return Err(fail("openat")(e)),
    }
    Ok(Synced {
        whole_file_system: true,
        ..done
    })
}

/// Whether a tree is small enough to be synced one by one.
fn has_few(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut walk = match Walk::over(dir) {
        Err(e) if e.errno() == Some(Errno::ACCESS) => return Ok(false),
        done => done?.same_mount(true),
    };
    // The directory itself is one.
    let mut count = 1;
    loop {
        let event = match walk.next() {
            // What cannot be looked into has to be synced as a whole.
            Err(e) if e.errno() == Some(Errno::ACCESS) => return Ok(false),
            other => other?,
        };
        match event {
            None => return Ok(true),
            Some(Event::Enter(_)) => count += 1,
            Some(Event::Other(entry)) if entry.kind() == FileType::RegularFile => count += 1,
            Some(_) => {}
        }
        if count > FEW {
            return Ok(false);
        }
    }
}

/// One by one, contents before the directory that holds them.
fn each(dir: BorrowedFd<'_>, watch: &mut Watch<'_>) -> Result<Synced> {
    let mut done = Synced::default();
    let mut walk = match Walk::over(dir) {
        Err(e) if e.errno() == Some(Errno::ACCESS) => return whole(dir, done),
        other => other?.same_mount(true),
    };
    loop {
        let event = match walk.next() {
            Err(e) if e.errno() == Some(Errno::ACCESS) => return whole(dir, done),
            other => other?,
        };
        match event {
            None => break,
            Some(Event::Other(entry)) if entry.kind() == FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let name = entry.name().as_c_str();
                let fd = match sys::openat(entry.parent(), name, flags, Mode::empty()) {
                    Ok(fd) => fd,
                    // It has vanished, or is no file any more.
                    Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => continue,
                    Err(Errno::ACCESS | Errno::PERM) => return whole(dir, done),
                    Err(e) => {
                        return Err(Error::new(OPERATION, "openat", e).with_path(entry.path()));
                    }
                };
                sys::fsync(&fd)
                    .map_err(|e| Error::new(OPERATION, "fsync", e).with_path(entry.path()))?;
                done.files += 1;
            }
            Some(Event::Leave(entry)) => {
                if let Some(fd) = entry.dir() {
                    sys::fsync(fd)
                        .map_err(|e| Error::new(OPERATION, "fsync", e).with_path(entry.path()))?;
                }
                done.dirs += 1;
            }
            Some(Event::Mount(_)) => {
                done.mounts_skipped += 1;
                continue;
            }
            Some(_) => continue,
        }
        let progress = Progress {
            files: done.files,
            dirs: done.dirs,
            bytes: 0,
        };
        if watch(&progress).is_break() {
            return Err(Error::of_kind(OPERATION, ErrorKind::Cancelled));
        }
    }
    sync_names(dir).map_err(|e| Error::new(OPERATION, "fsync", e))?;
    done.dirs += 1;
    Ok(done)
}
