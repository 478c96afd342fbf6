//! The calls of a commit one after the other, with next to no work between them: what a transaction costs in
//! the kernel if it is claimed, looked at and marked. The rest of its time is the library's own.

use crate::harness::{Done, Watch, open};
use rustix::fs::Access;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use steadfast::sys::{
    self, AsFd, AtFlags, LockKind, LockRange, Mode, OFlags, OwnedFd, RenameFlags, Timespec,
    Timestamps,
};

/// Where a workspace has its files: of the same kinds, and as large.
struct Calls {
    root: OwnedFd,
    own: OwnedFd,
    staged: OwnedFd,
    ledger: OwnedFd,
    log: OwnedFd,
    names: Vec<CString>,
    temporary: Vec<CString>,
    record: Vec<u8>,
}

/// From how many files on a commit leaves those that it replaces to the next checkpoint.
const LATER: usize = 8;

/// As [`Calls`] are made: this many files of this length, replaced or written in place.
pub(super) fn by_calls(
    dir: &Path,
    names: &[String],
    mut bytes: Vec<u8>,
    in_place: bool,
) -> Done<impl FnMut(&mut Watch) -> Done + use<>> {
    let (count, len) = (names.len(), bytes.len());
    let longest = count * (2 * len + 256);
    let mut calls = Calls::new(dir, names, longest)?;
    Ok(move |w: &mut Watch| {
        super::transactions::vary(&mut bytes);
        w.time(|| match in_place {
            true => Ok(calls.write_in_place(&bytes)?),
            false => Ok(calls.replace(&bytes)?),
        })?;
        // By a checkpoint, which is not measured either.
        match in_place || count < LATER {
            true => Ok(()),
            false => Ok(calls.remove()?),
        }
    })
}

impl Calls {
    fn new(dir: &Path, names: &[String], longest: usize) -> Done<Self> {
        let own = dir.join(".calls");
        fs::create_dir_all(own.join("staged"))?;
        fs::write(own.join("claims"), [])?;
        fs::write(own.join("ledger"), [0; 16 << 10])?;
        fs::write(own.join("log"), vec![0; longest + 4096])?;
        let own = open(&own)?;
        let file = |name: &str| sys::openat(&own, name, OFlags::RDWR, Mode::empty());
        let (ledger, log) = (file("ledger")?, file("log")?);
        sys::fsync(&log)?;
        let c = |name: String| CString::new(name);
        Ok(Self {
            root: open(dir)?,
            staged: sys::openat(&own, "staged", OFlags::DIRECTORY, Mode::empty())?,
            own,
            ledger,
            log,
            names: names.iter().cloned().map(c).collect::<Result<_, _>>()?,
            temporary: (0..names.len())
                .map(|n| c(format!("{n:08x}-0123456789abcdef")))
                .collect::<Result<_, _>>()?,
            record: Vec::with_capacity(longest),
        })
    }

    fn look(&self, name: &CString) -> sys::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        sys::statx(&self.root, name.as_c_str(), flags).map(drop)
    }

    /// Claims, and looks under the claims.
    fn begin(&mut self) -> sys::Result<OwnedFd> {
        self.record.clear();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let claims = sys::openat(&self.own, "claims", flags, Mode::RUSR | Mode::WUSR)?;
        facts(&claims)?;
        let lock = |start, len| {
            let range = LockRange::new(start, len).ok_or(sys::Errno::INVAL)?;
            sys::ofd_try_lock(&claims, LockKind::Exclusive, range)
        };
        for n in 0..self.names.len() as u64 {
            // In the order in which they lie, and far from each other.
            lock((1 << 40) * (n + 1), 4096)?;
        }
        lock(1 << 56, 1)?;
        sys::pread(&self.ledger, &mut [0; 4096], 12288)?;
        facts(&self.root)?;
        for name in &self.names {
            self.look(name)?;
        }
        sys::pread(&self.ledger, &mut [0; 12], 9728)?;
        Ok(claims)
    }

    /// Marks what is about to be committed, and writes the record.
    fn decide(&mut self, claims: &OwnedFd) -> sys::Result<()> {
        let range = |start, len| LockRange::new(start, len).ok_or(sys::Errno::INVAL);
        let byte = |at: u64| range((1 << 62) + at, 1);
        sys::ofd_would_wait(claims, LockKind::Shared, byte(1)?)?;
        sys::ofd_try_lock(claims, LockKind::Shared, byte(0)?)?;
        sys::ofd_try_lock(&self.ledger, LockKind::Exclusive, range(0, 1)?)?;
        sys::pread(&self.ledger, &mut [0; 8192], 8192)?;
        write(&self.ledger, &[1; 12], 8192)?;
        sys::ofd_try_lock(claims, LockKind::Exclusive, byte(2)?)?;
        write(&self.ledger, &[1; 16], 13248)?;
        sys::ofd_unlock(&self.ledger, range(0, 1)?)?;
        let len = (self.record.len() + 256).next_multiple_of(512);
        self.record.resize(len, 0);
        write(&self.log, &self.record, 0)?;
        sys::fdatasync(&self.log)
    }

    fn end(&self, claims: OwnedFd) -> sys::Result<()> {
        write(&self.ledger, &[0; 16], 13248)?;
        sys::ofd_unlock(&claims, LockRange::WHOLE)
    }

    fn replace(&mut self, content: &[u8]) -> sys::Result<()> {
        let claims = self.begin()?;
        let may = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(&self.root, ".", may, AtFlags::EACCESS)?;
        for (n, (name, temporary)) in self.names.iter().zip(&self.temporary).enumerate() {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let old = sys::openat(&self.root, name.as_c_str(), flags, Mode::empty())?;
            sys::flistxattr(&old)?;
            drop(old);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = Mode::from_raw_mode(0o644);
            let new = sys::openat(&self.staged, temporary.as_c_str(), flags, mode)?;
            whole(sys::write(&new, content)?, content)?;
            facts(&new)?;
            if n == 0 {
                sys::fgetxattr(&self.staged, "system.posix_acl_default")?;
            }
            self.record.extend_from_slice(content);
        }
        self.decide(&claims)?;
        for (name, temporary) in self.names.iter().zip(&self.temporary) {
            let (name, temporary) = (name.as_c_str(), temporary.as_c_str());
            let (from, to) = (&self.staged, &self.root);
            sys::renameat2(from, temporary, to, name, RenameFlags::EXCHANGE)?;
            let _displaced = sys::statx(from, temporary, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if self.names.len() < LATER {
            self.remove()?;
        }
        self.end(claims)
    }

    fn remove(&self) -> sys::Result<()> {
        let mut all = self.temporary.iter();
        all.try_for_each(|name| sys::unlinkat(&self.staged, name.as_c_str()))
    }

    fn write_in_place(&mut self, content: &[u8]) -> sys::Result<()> {
        let claims = self.begin()?;
        let mut files = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let flags = flags | OFlags::NOATIME;
            let file = sys::openat(&self.root, name.as_c_str(), flags, Mode::empty())?;
            facts(&file)?;
            let old = self.record.len();
            self.record.resize(old + content.len(), 0);
            let to = self.record.get_mut(old..).unwrap_or_default();
            whole(sys::pread(&file, to, 0)?, content)?;
            self.record.extend_from_slice(content);
            files.push(file);
        }
        self.decide(&claims)?;
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: sys::UTIME_OMIT,
        };
        for (file, name) in files.into_iter().zip(&self.names) {
            self.look(name)?;
            write(&file, content, 0)?;
            let time = Timespec {
                tv_sec: 1_700_000_000 + i64::from(content.first().copied().unwrap_or(0)),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: omit,
                last_modification: time,
            };
            sys::futimens(&file, &times)?;
        }
        self.end(claims)
    }
}

fn facts(fd: impl AsFd) -> sys::Result<()> {
    sys::statx(fd, "", AtFlags::EMPTY_PATH).map(drop)
}

fn write(fd: impl AsFd, bytes: &[u8], at: u64) -> sys::Result<()> {
    whole(sys::pwrite(fd, bytes, at)?, bytes)
}

/// A call that did less would not be what is compared.
fn whole(done: usize, bytes: &[u8]) -> sys::Result<()> {
    match done == bytes.len() {
        true => Ok(()),
        false => Err(sys::Errno::IO),
    }
}
