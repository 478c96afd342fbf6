//! The file of one lease: made once, never replaced, locked, read and written in place.

use super::name;
use super::record::{Bad, Content, FILE, Record};
use super::ttl::Seen;
use crate::publish::{FileOptions, Target};
use crate::sys::{
    self, AtFlags, Errno, FileId, LockKind, LockRange, Mode, OFlags, OwnedFd, Result as Sys,
};
use crate::{Dir, DiskState, Durability, Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The directory of the leases.
pub(super) const FOLDER: &str = "leases";

/// No process has this number.
const NOBODY: u32 = 0;

/// How often a record is read again that somebody may be writing, and the pause between.
const READS: u32 = 5;
const PAUSE: Duration = Duration::from_micros(500);

/// What all leases of one directory share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The directory that holds the folder.
    pub(super) state: Dir,
    /// The folder.
    pub(super) folder: Root,
    /// What was seen of leases whose clock cannot be read here, and of numbers that somebody has
    /// announced.
    pub(super) seen: Mutex<BTreeMap<(Vec<u8>, u64), Seen>>,
}

/// One lease's place, whether it is there or not.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Vec<u8>,
    file: Name,
    operation: &'static str,
}

impl Spot {
    pub(super) fn new(shared: &Arc<Shared>, name: &[u8], operation: &'static str) -> Result<Self> {
        let file = name::file(name).map_err(|e| {
            Error::new(operation, "openat", e)
                .with_path(OsStr::from_bytes(name))
                .with_advice("the name of a lease has at most 72 bytes")
        })?;
        Ok(Self {
            shared: shared.clone(),
            name: name.to_owned(),
            file,
            operation,
        })
    }

    /// The same place, for another operation.
    pub(super) fn during(&self, operation: &'static str) -> Self {
        Self {
            operation,
            ..self.clone()
        }
    }

    pub(super) fn shown(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    pub(super) fn fail(&self, call: &'static str, errno: Errno) -> Error {
        Error::new(self.operation, call, errno).with_path(self.shown())
    }

    pub(super) fn refuse(&self, kind: ErrorKind) -> Error {
        Error::of_kind(self.operation, kind).with_path(self.shown())
    }

    /// Opens the file; `None` if there is none.
    pub(super) fn open(&self, write: bool) -> Result<Option<Opened>> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let at = self.file.as_c_str();
        let fd = match sys::openat(&self.shared.folder, at, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            // Somebody makes sure that nobody writes the file, as a sweep does with one that still has its
            // temporary name as well: gone in a moment.
            Err(e @ Errno::AGAIN) => {
                return Err(self
                    .fail("openat", e)
                    .with_kind(ErrorKind::Busy)
                    .with_advice("wait, or try again later"));
            }
            Err(e) => return Err(self.fail("openat", e)),
        };
        let meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| self.fail("statx", e))?;
        if !meta.is_file() {
            return Err(self.refuse(ErrorKind::NotAFile));
        }
        let id = meta.id();
        Ok(Some(Opened { fd, id }))
    }

    /// Opens the file for writing, and makes it if there is none.
    pub(super) fn open_or_create(&self) -> Result<Opened> {
        /// Each turn somebody removed the file, which nobody should.
        const TURNS: u32 = 8;
        for _ in 0..TURNS {
            if let Some(opened) = self.open(true)? {
                return Ok(opened);
            }
            self.create()?;
        }
        Err(self.replaced())
    }

    /// Gives the file its name as a whole, so that there is never an empty one. The name is made
    /// durable by whoever is granted the lease first.
    fn create(&self) -> Result<()> {
        let options = FileOptions::new()
            .target(Target::CreateNew)
            .durability(Durability::Ordered)
            .mode(Mode::RUSR | Mode::WUSR);
        let made = options.write(&self.shared.folder, &self.file, Content::first(&self.name));
        match made {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            // Of the lease nothing was changed, even if the file is there now: nobody is named in
            // it.
            Err(e) => Err(e
                .with_operation(self.operation)
                .with_state(DiskState::Unchanged)
                .map_paths(|path| {
                    if path.as_os_str() == self.file.as_os_str() {
                        self.shown().into()
                    } else {
                        PathBuf::from(FOLDER).join(path)
                    }
                })),
        }
    }

    /// The file's name and the folder's are made durable.
    pub(super) fn sync_names(&self) -> Result<()> {
        let made = self.shared.folder.dir().sync();
        let made = made.and_then(|()| self.shared.state.sync());
        made.map_err(|e| e.with_operation(self.operation).with_path(self.shown()))
    }

    /// Whether the name still leads to this file, from the directory above the folder on.
    pub(super) fn leads_to(&self, id: FileId) -> Result<bool> {
        let path = PathBuf::from(FOLDER).join(&self.file);
        match sys::statx(
            &self.shared.state,
            path.as_path(),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(meta) => Ok(meta.id() == id),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(e) => Err(self.fail("statx", e)),
        }
    }

    pub(super) fn replaced(&self) -> Error {
        self.refuse(ErrorKind::Changed)
            .with_detail("the lease file was removed or replaced")
            .with_advice("everybody who uses these leases must stop and open them anew")
    }

    /// Reads the file. `quiet`: nobody writes it now, as the lock is held.
    pub(super) fn read(&self, file: &Opened, quiet: bool) -> Result<Content> {
        let mut turn = 1;
        loop {
            let bytes = file.read().map_err(|e| self.fail("pread64", e))?;
            let found = Content::parse(&bytes, &self.name);
            // A record that is being written may be seen in part.
            let whole = matches!(&found, Ok(c) if c.lost.is_none());
            if whole || quiet || turn == READS {
                return found.map_err(|bad| self.bad(bad));
            }
            turn += 1;
            std::thread::sleep(PAUSE);
        }
    }

    fn bad(&self, bad: Bad) -> Error {
        match bad {
            Bad::Damaged => self
                .refuse(ErrorKind::Corrupt)
                .with_detail("the lease file holds no number that can be read")
                .with_advice("choose a new name: no number of this one is sure to be higher"),
            Bad::Version(n) => self
                .refuse(ErrorKind::Unsupported)
                .with_detail(format!("version {n} of the lease file is not known")),
        }
    }

    /// One slot cannot be read.
    pub(super) fn half(&self) -> Error {
        self.refuse(ErrorKind::Corrupt)
            .with_detail("one of the lease file's two records is damaged")
            .with_advice("taking the lease repairs it, with a number that is surely higher")
    }

    /// Writes one record, and makes it durable. The file's lock is held.
    pub(super) fn write(&self, file: &Opened, record: &Record) -> Result<()> {
        let fail = |call| move |e| self.fail(call, e).with_state(DiskState::Indeterminate);
        self.write_loose(file, record).map_err(fail("pwrite64"))?;
        sys::fdatasync(&file.fd).map_err(fail("fdatasync"))
    }

    /// Writes one record, which a power cut may take back.
    pub(super) fn write_loose(&self, file: &Opened, record: &Record) -> Sys<()> {
        let (bytes, mut at) = (record.encode(&self.name), 0);
        while at < bytes.len() {
            match sys::pwrite(&file.fd, &bytes[at..], record.offset() + at as u64)? {
                0 => return Err(Errno::IO),
                n => at += n,
            }
        }
        Ok(())
    }

    /// Announces the taking of a number to machines that no lock reaches; `false`: somebody else
    /// has.
    pub(super) fn mark(&self, fence: u64) -> Result<bool> {
        let mark = name::mark(&self.name, fence).map_err(|e| self.fail("openat", e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        match sys::openat(&self.shared.folder, mark.as_c_str(), flags, mode) {
            Ok(_) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(self.fail("openat", e)),
        }
    }

    pub(super) fn unmark(&self, fence: u64) -> Result<()> {
        let mark = name::mark(&self.name, fence).map_err(|e| self.fail("unlinkat", e))?;
        match sys::unlinkat(&self.shared.folder, mark.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.fail("unlinkat", e)),
        }
    }
}

/// A lease file that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) id: FileId,
}

impl Opened {
    fn read(&self) -> Sys<Vec<u8>> {
        let (mut bytes, mut at) = (vec![0; FILE], 0);
        while at < FILE {
            match sys::pread(&self.fd, &mut bytes[at..], at as u64)? {
                0 => break,
                n => at += n,
            }
        }
        bytes.truncate(at);
        Ok(bytes)
    }

    /// Whether somebody has the lock.
    pub(super) fn is_locked(&self) -> Sys<bool> {
        sys::ofd_would_wait(&self.fd, LockKind::Shared, byte()?)
    }

    /// Takes the lock, or answers `EAGAIN`.
    pub(super) fn lock(self) -> Sys<Locked> {
        match sys::ofd_try_lock(&self.fd, LockKind::Exclusive, byte()?) {
            Err(Errno::ACCESS) => Err(Errno::AGAIN),
            Err(e) => Err(e),
            Ok(()) => Ok(Locked {
                file: self,
                process: sys::process_id(),
            }),
        }
    }
}

/// The byte that is locked: far behind the records, for where locks hold back those who read.
fn byte() -> Sys<LockRange> {
    LockRange::new(1 << 40, 1).ok_or(Errno::OVERFLOW)
}

/// A lease file that is locked, until this is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) file: Opened,
    /// Whose lock it is: a child that was forked has a copy.
    process: u32,
}

impl Locked {
    /// Whether this process took the lock, and not one that it was forked from.
    pub(super) fn is_ours(&self) -> bool {
        self.process == sys::process_id()
    }

    /// Takes again what is held: an error if the kernel or a file server has lost it to somebody.
    pub(super) fn confirm(&self) -> Sys<()> {
        sys::ofd_try_lock(&self.file.fd, LockKind::Exclusive, byte()?)
    }

    /// As dropping it, and says if it failed.
    pub(super) fn unlock(mut self) -> Sys<()> {
        if !self.is_ours() {
            return Ok(());
        }
        self.process = NOBODY;
        sys::ofd_unlock(&self.file.fd, byte()?)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child of another thread that is between fork and
        // exec. But a child that goes on with this value must not give up its parent's lease.
        if self.is_ours()
            && let Ok(byte) = byte()
        {
            // It ends with the descriptor at the latest.
            let _ = sys::ofd_unlock(&self.file.fd, byte);
        }
    }
}
