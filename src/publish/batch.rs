//! Many files: each published atomically, all of them durable at the end.

use super::pending::{PendingFile, REPLACE};
use super::place::sync_dir;
use super::ready::Ready;
use super::{FileOptions, Receipt};
use crate::sys::{
    self, AsFd, AsRawFd, AtFlags, Errno, FileId, FsKind, Mode, OFlags, OwnedFd, SyncRange,
};
use crate::{DiskState, Error, ErrorKind, Result, Root};
use std::io::{self, Read, Write};
use std::path::Path;

/// How the content of a batch is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchStrategy {
    /// By number, file system, and how much others have to write: fsync of each for a few files, one
    /// syncfs(2) for many, and started writeback followed by fsync of each where a syncfs would wait for much
    /// more than the batch's own data.
    #[default]
    Auto,
    /// fsync(2) of each file.
    EachFile,
    /// Writing out is started for all files, then fsync(2) of each.
    StartThenEachFile,
    /// One syncfs(2) for all files that are staged together. It waits for everybody's data on the file
    /// system, and reports write errors since Linux 5.8; before that fsync of each is used instead.
    WholeFileSystem,
}

/// Publishes many files together, which costs far fewer syncs than publishing each by itself.
///
/// Files are staged as they come, and published in waves: content synced, names given. A wave has 256 files
/// ([`WAVE`](Self::WAVE)), or more where the process may open many: a quarter of `RLIMIT_NOFILE`, 4,096 at
/// the most. [`commit`](Self::commit) publishes the last wave and syncs every directory once; only then all
/// are durable. It is **not** a transaction: each file is atomic for itself, and after a crash or an error
/// some may be published and others not.
///
/// ```
/// use steadfast::{Root, publish::{Batch, FileOptions}};
/// # let tmp = tempfile::tempdir()?;
/// let root = Root::open(tmp.path())?;
/// let options = FileOptions::new();
/// let mut batch = Batch::new(&root)?;
/// for n in 0..10 {
///     batch.write(format!("part-{n}"), [n; 100], &options)?;
/// }
/// assert_eq!(batch.commit()?.len(), 10);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it discards the files that are not published yet; call commit()"]
pub struct Batch<'r> {
    root: &'r Root,
    strategy: BatchStrategy,
    staged: Vec<PendingFile<'r>>,
    /// Bytes in the wave.
    bytes: u64,
    /// How many files make a wave, once that matters.
    wave: Option<usize>,
    receipts: Vec<Receipt>,
    /// A wave has failed, and what was staged in it is gone.
    failed: bool,
    dirs: Vec<Touched>,
    /// Opened before anything is written, so that syncfs reports every write error since.
    anchor: OwnedFd,
    kind: FsKind,
    syncfs_reports: bool,
}

impl<'r> Batch<'r> {
    /// Files that are staged at once in any case, before they are published: each holds a descriptor, and one
    /// in a folder below the root another.
    pub const WAVE: usize = 256;
    /// The most that are, however many descriptors there may be.
    const MOST: usize = 16 * Self::WAVE;

    /// A batch beneath `root`, with the automatic strategy.
    ///
    /// # Errors
    /// As open(2) of the root directory.
    pub fn new(root: &'r Root) -> Result<Self> {
        let fail = |call, e| Error::new("begin batch", call, e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let anchor =
            sys::openat(root, c".", flags, Mode::empty()).map_err(|e| fail("openat", e))?;
        let kind = sys::fs_kind(&anchor).map_err(|e| fail("fstatfs", e))?;
        // The kernel that knows mount ids (5.8) is the one whose syncfs reports errors.
        let syncfs_reports = sys::statx(&anchor, c"", AtFlags::EMPTY_PATH)
            .map_err(|e| fail("statx", e))?
            .mount_id()
            .is_some();
        Ok(Self {
            root,
            strategy: BatchStrategy::Auto,
            staged: Vec::new(),
            bytes: 0,
            wave: None,
            receipts: Vec::new(),
            failed: false,
            dirs: Vec::new(),
            anchor,
            kind,
            syncfs_reports,
        })
    }

    /// How content is made durable.
    pub fn strategy(mut self, strategy: BatchStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Stages these bytes for `path`.
    ///
    /// # Errors
    /// As [`FileOptions::begin`]; for this file [`DiskState::Unchanged`]. If a wave was due and failed, as
    /// [`commit`](Self::commit).
    pub fn write(
        &mut self,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]>,
        options: &FileOptions,
    ) -> Result<()> {
        let bytes = bytes.as_ref();
        self.write_with(path, options, |pending| pending.write_all(bytes))
    }

    /// Stages all that a reader gives for `path`.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::Source`](crate::ErrorKind::Source) for the reader's error.
    pub fn write_from(
        &mut self,
        path: impl AsRef<Path>,
        mut reader: impl Read,
        options: &FileOptions,
    ) -> Result<()> {
        self.write_with(path, options, |pending| {
            super::file::copy_from(&mut reader, pending)
        })
    }

    /// Stages what the closure writes for `path`.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::Source`](crate::ErrorKind::Source) for the closure's own
    /// error.
    pub fn write_with(
        &mut self,
        path: impl AsRef<Path>,
        options: &FileOptions,
        fill: impl FnOnce(&mut PendingFile<'_>) -> io::Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        if self.staged.len() >= Self::WAVE && self.staged.len() >= self.wave() {
            self.publish_wave()?;
        }
        let mut pending = match options.begin(self.root, path) {
            // Few descriptors here: publish what is staged, and try once more.
            Err(e)
                if matches!(e.errno(), Some(Errno::MFILE | Errno::NFILE))
                    && !self.staged.is_empty() =>
            {
                self.publish_wave()?;
                options.begin(self.root, path)?
            }
            pending => pending?,
        };
        let done = fill(&mut pending);
        let pending = pending.filled(done)?;
        self.bytes = self.bytes.saturating_add(pending.written);
        self.staged.push(pending);
        Ok(())
    }

    /// How many files make a wave. Every wave costs a sync that waits for the device several times; so they
    /// are as few as half of the descriptors allow, of which a file takes two at the most.
    fn wave(&mut self) -> usize {
        *self.wave.get_or_insert_with(|| {
            let quarter = sys::descriptor_limit().unwrap_or(0) / 4;
            usize::try_from(quarter).map_or(Self::MOST, |n| n.clamp(Self::WAVE, Self::MOST))
        })
    }

    /// Publishes what is staged and makes all of it durable. The receipts are in the order of the calls.
    ///
    /// # Errors
    /// The first failure. What was staged and not published is discarded. [`DiskState::Unchanged`]: nothing
    /// of this batch was published. [`DiskState::Published`]: everything was, but a directory could not be
    /// synced.
    /// [`DiskState::Indeterminate`]: the files before the one that the error names are published (perhaps
    /// not durably), it and those after it are not. [`ErrorKind::Poisoned`]: a wave
    /// failed earlier, as an error of [`write`](Self::write) said.
    pub fn commit(mut self) -> Result<Vec<Receipt>> {
        operation!("publish batch");
        self.publish_wave()?;
        self.sync_dirs()?;
        Ok(std::mem::take(&mut self.receipts))
    }

    fn publish_wave(&mut self) -> Result<()> {
        operation!("publish wave", files = self.staged.len());
        if self.failed {
            let state = match self.receipts.is_empty() {
                true => DiskState::Unchanged,
                false => DiskState::Indeterminate,
            };
            return Err(Error::of_kind("publish batch", ErrorKind::Poisoned)
                .with_state(state)
                .with_advice("publishing a part of this batch failed before: begin again"));
        }
        let done = self.try_publish_wave();
        self.failed = done.is_err();
        done
    }

    fn try_publish_wave(&mut self) -> Result<()> {
        let partly = |e: Error, done: bool| match e.disk_state() {
            DiskState::Unchanged if !done => e,
            _ => e.with_state(DiskState::Indeterminate),
        };
        let published = !self.receipts.is_empty();
        let staged = std::mem::take(&mut self.staged);
        let bytes = std::mem::take(&mut self.bytes);
        let ready = staged.into_iter().map(PendingFile::prepare);
        // In the same place: both are of one size.
        let ready: Vec<_> = ready
            .collect::<Result<_>>()
            .map_err(|e| partly(e, published))?;
        self.receipts.reserve(ready.len());
        self.sync_content(&ready, bytes)
            .map_err(|e| partly(e, published))?;
        for file in ready {
            if file.syncs_names() {
                self.remember_dirs(&file)
                    .map_err(|e| partly(e, !self.receipts.is_empty()))?;
            }
            let receipt = file
                .publish()
                .map_err(|e| partly(e, !self.receipts.is_empty()))?;
            self.receipts.push(receipt);
        }
        Ok(())
    }

    fn sync_content(&self, ready: &[Ready<'_>], bytes: u64) -> Result<()> {
        let files: Vec<_> = ready.iter().filter(|f| f.syncs_content()).collect();
        let strategy = match self.strategy {
            BatchStrategy::Auto => self.choose(files.len(), bytes),
            chosen => chosen,
        };
        match strategy {
            BatchStrategy::WholeFileSystem if self.syncfs_reports && self.one_mount(&files) => {
                if files.is_empty() {
                    return Ok(());
                }
                return sys::syncfs(&self.anchor)
                    .map_err(|e| Error::new(REPLACE, "syncfs", e).with_path(files[0].shown()));
            }
            BatchStrategy::StartThenEachFile => {
                for file in &files {
                    // Only an early start: what it cannot do, or fails to write, fsync does and reports.
                    let _ = sys::sync_file_range(file.as_fd(), 0, 0, SyncRange::Start);
                }
            }
            _ => {}
        }
        for file in files {
            sys::fsync(file.as_fd())
                .map_err(|e| Error::new(REPLACE, "fsync", e).with_path(file.shown()))?;
        }
        Ok(())
    }

    /// Measured (`docs/durability.md`): one syncfs is the fastest from two files on ext4 and xfs and from
    /// four on btrfs, but has no bound when others have dirty data. How much of that is on this file system
    /// is not to be had, so that all of the machine's counts.
    fn choose(&self, files: usize, bytes: u64) -> BatchStrategy {
        const FEW: usize = 4;
        /// Of other people's data, this much is worth waiting for whatever the batch holds.
        const FREE: u64 = 64 << 20;
        /// And this much for each file that then needs no fsync of its own: two device flushes of a
        /// millisecond, in which a slow disk writes as much.
        const FREE_FOR_EACH: u64 = 512 << 10;
        if files < FEW {
            return BatchStrategy::EachFile;
        }
        let each = FREE_FOR_EACH.saturating_mul(u64::try_from(files).unwrap_or(u64::MAX));
        let free = FREE.max(bytes.saturating_mul(4)).max(each);
        let in_memory = matches!(self.kind, FsKind::Tmpfs | FsKind::Ramfs);
        let dirty = if in_memory { Some(0) } else { dirty_bytes() };
        match dirty {
            Some(dirty) if dirty > free => BatchStrategy::StartThenEachFile,
            _ => BatchStrategy::WholeFileSystem,
        }
    }

    /// Whether one syncfs reaches all of them: a root may span file systems.
    fn one_mount(&self, files: &[&Ready<'_>]) -> bool {
        let device = sys::statx(&self.anchor, c"", AtFlags::EMPTY_PATH).map(|m| m.id().dev);
        device.is_ok_and(|device| files.iter().all(|f| f.id().dev == device))
    }

    fn remember_dirs(&mut self, file: &Ready<'_>) -> Result<()> {
        // Before either is noted: what the file is about to do there is not done yet.
        if self.dirs.len() + 2 > Self::WAVE {
            self.sync_dirs()?;
        }
        let dirs = file.dirs();
        let moves = dirs.iter().all(Option::is_some);
        for (n, dir) in dirs.into_iter().flatten().enumerate() {
            let fail = |call, e| Error::new(REPLACE, call, e).with_path(file.shown());
            let loses = moves && n == 0;
            // The root's own descriptor needs no look at what it is.
            let of_root = dir.as_raw_fd() == self.root.as_fd().as_raw_fd();
            if of_root && let Some(known) = self.dirs.iter_mut().find(|known| known.of_root) {
                known.loses |= loses;
                continue;
            }
            let id = sys::statx(dir, c"", AtFlags::EMPTY_PATH)
                .map_err(|e| fail("statx", e))?
                .id();
            if let Some(known) = self.dirs.iter_mut().find(|known| known.id == id) {
                known.of_root |= of_root;
                known.loses |= loses;
                continue;
            }
            let fd = dir.try_clone_to_owned();
            let fd = fd.map_err(|e| fail("fcntl", crate::root::errno_of(&e)))?;
            self.dirs.push(Touched {
                id,
                fd,
                of_root,
                loses,
            });
        }
        Ok(())
    }

    /// First where names went away, then where they came, as every move is made durable.
    fn sync_dirs(&mut self) -> Result<()> {
        let (from, to): (Vec<_>, Vec<_>) = std::mem::take(&mut self.dirs)
            .into_iter()
            .partition(|dir| dir.loses);
        for dir in from.iter().chain(&to) {
            sync_dir("publish batch", dir.fd.as_fd())?;
        }
        Ok(())
    }
}

/// A directory with names that are not durable yet.
#[derive(Debug)]
struct Touched {
    id: FileId,
    fd: OwnedFd,
    /// It is known as the root's own descriptor.
    of_root: bool,
    /// Files were staged here and have moved to another.
    loses: bool,
}

/// What the whole machine has yet to write, from procfs; `None` if that cannot be read.
fn dirty_bytes() -> Option<u64> {
    let fd = sys::openat(sys::CWD, c"/proc/meminfo", OFlags::RDONLY, Mode::empty()).ok()?;
    let mut buf = [0; 4096];
    let len = sys::read(&fd, &mut buf).ok()?;
    let text = std::str::from_utf8(&buf[..len]).ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("Dirty:")? + kib("Writeback:")?).saturating_mul(1024))
}
