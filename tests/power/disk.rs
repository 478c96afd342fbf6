//! Single calls that look at the disk, or set what is there, by whoever tests.

use crate::record::{Bytes, Stamp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, Statx, StatxFlags};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;

pub(crate) fn stamp(sec: i64, nsec: i64) -> Stamp {
    (sec, u32::try_from(nsec).unwrap())
}

/// Lets the file system's clock go on: a change after that shows in a file's time of change. Since Linux 6.13
/// a call or two does it, where times are kept so; before, it takes the next tick.
pub(crate) struct Ticker(fs::File);

impl Ticker {
    /// Of the file system that this directory is in.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(tempfile::tempfile_in(dir).unwrap())
    }

    /// Until it is later than this.
    pub(crate) fn pass(&self, latest: Stamp) {
        use rustix::fs::{fstat, futimens};
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: time(UTIME_OMIT),
            last_modification: time(UTIME_NOW),
        };
        loop {
            futimens(&self.0, &times).unwrap();
            let now = fstat(&self.0).unwrap();
            if stamp(now.st_ctime, now.st_ctime_nsec as i64) > latest {
                break;
            }
        }
    }
}

/// Those that anybody may set. Not every file system has them.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<Bytes, Bytes> {
    let get = |name: &[u8], value: &mut [u8]| rustix::fs::lgetxattr(path, name, value);
    values(|names| rustix::fs::llistxattr(path, names), get)
}

/// The same of an open file.
pub(crate) fn xattrs_of(fd: BorrowedFd<'_>) -> BTreeMap<Bytes, Bytes> {
    let get = |name: &[u8], value: &mut [u8]| rustix::fs::fgetxattr(fd, name, value);
    values(|names| rustix::fs::flistxattr(fd, names), get)
}

fn values(
    list: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> BTreeMap<Bytes, Bytes> {
    let mut names = [0; 4096];
    let Ok(len) = list(&mut names) else {
        return BTreeMap::new();
    };
    let mut value = [0; 4096];
    names[..len]
        .split(|b| *b == 0)
        .filter(|name| name.starts_with(b"user."))
        .map(|name| {
            let len = get(name, &mut value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}

pub(crate) fn statx(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Statx> {
    let mask = StatxFlags::BASIC_STATS;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(dir, name, flags, mask)
}

pub(crate) fn id(stx: &Statx) -> (u64, u64) {
    let dev = rustix::fs::makedev(stx.stx_dev_major, stx.stx_dev_minor);
    (dev, stx.stx_ino)
}

pub(crate) fn ctime(stx: &Statx) -> Stamp {
    (stx.stx_ctime.tv_sec, stx.stx_ctime.tv_nsec)
}

fn open(dir: impl AsFd, name: &[u8], flags: OFlags) -> OwnedFd {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode).unwrap()
}

/// The same for what its mode may forbid: gives whether that was changed for it.
pub(crate) fn open_anyway(dir: impl AsFd, name: &[u8], flags: OFlags) -> (OwnedFd, bool) {
    let all = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&dir, name, all, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => (fd, false),
        Err(_) => {
            rustix::fs::chmodat(&dir, name, Mode::RWXU, AtFlags::empty()).unwrap();
            (open(dir, name, flags), true)
        }
    }
}

pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> OwnedFd {
    open(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

pub(crate) fn set_mtime(dir: impl AsFd, name: &[u8], (sec, nsec): Stamp) {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(0, UTIME_OMIT),
        last_modification: time(sec, nsec.into()),
    };
    if name.is_empty() {
        rustix::fs::futimens(dir, &times).unwrap();
    } else {
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

pub(crate) fn names(dir: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Vec<Bytes> {
    rustix::fs::seek(dir, SeekFrom::Start(0)).unwrap();
    let mut all = Vec::new();
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push(name.to_vec());
        }
    }
    all
}

/// Whatever it is, with all that is in it.
pub(crate) fn remove(dir: impl AsFd, name: &[u8], buffer: &mut [MaybeUninit<u8>]) {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return,
        Err(rustix::io::Errno::ISDIR) => {}
        Err(e) => panic!("{}: {e}", String::from_utf8_lossy(name)),
    }
    let within = open_dir(dir, name);
    for name in names(&within, buffer) {
        remove(&within, &name, buffer);
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).unwrap();
}

pub(crate) fn read(fd: &OwnedFd) -> Bytes {
    let len = rustix::fs::fstat(fd).unwrap().st_size;
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    let mut at = 0;
    while at < bytes.len() {
        let got = rustix::io::pread(fd, &mut bytes[at..], at as u64).unwrap();
        assert!(got > 0);
        at += got;
    }
    bytes
}

/// Makes one content of another. What is zeros past its end is a hole: most of a log is that.
pub(crate) fn write(fd: &OwnedFd, before: &[u8], bytes: &[u8]) {
    const BLOCK: usize = 4096;
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut len = before.len();
    if len > bytes.len() {
        rustix::fs::ftruncate(fd, bytes.len() as u64).unwrap();
        len = bytes.len();
    }
    let kept = len;
    // As many blocks in a row as are others.
    let is_other = |n: usize| {
        let (from, to) = (n * BLOCK, bytes.len().min((n + 1) * BLOCK));
        let block = &bytes[from..to];
        match before.get(from..to) {
            Some(was) => was != block,
            None => *block != ZEROS[..block.len()] || from < kept,
        }
    };
    let count = bytes.len().div_ceil(BLOCK);
    let mut n = 0;
    while n < count {
        if !is_other(n) {
            n += 1;
            continue;
        }
        let first = n;
        while n < count && is_other(n) {
            n += 1;
        }
        let mut at = first * BLOCK;
        let to = bytes.len().min(n * BLOCK);
        len = len.max(to);
        while at < to {
            at += rustix::io::pwrite(fd, &bytes[at..to], at as u64).unwrap();
        }
    }
    if len < bytes.len() {
        rustix::fs::ftruncate(fd, bytes.len() as u64).unwrap();
    }
}
