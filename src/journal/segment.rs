//! Segment files: names, header, creation, reading and writing. Nothing about what frames mean.

use super::frame::{BLOCK, LogId, NUMBER_LIMIT, le32, le64};
use crate::root::{Dir, sync_names, temp_name};
use crate::sys::{
    self, AsFd, AtFlags, Errno, FallocateFlags, FsKind, Mode, OFlags, OwnedFd, RenameFlags,
};
use crate::{DiskState, Error, ErrorKind, Name, Result};

/// First bytes of a segment file.
const MAGIC: [u8; 8] = *b"sflog\r\n\x1a";
/// The version of the format that this code reads and writes.
const VERSION: u32 = 1;
/// Length of the header, and so where frames begin.
pub(super) const START: usize = BLOCK;
/// Shortest and longest segment.
pub(super) const MIN_LEN: u64 = 8 * 1024;
pub(super) const MAX_LEN: u64 = 1 << 30;
/// Length of a segment unless another is asked for.
pub(super) const DEFAULT_LEN: u64 = 1 << 20;
/// How much is written or read in one call.
const CHUNK: usize = 1 << 20;

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: LogId,
    pub(super) number: u64,
    pub(super) len: u64,
    /// The log that this one is the repaired form of.
    pub(super) replaces: LogId,
}

/// Why a first block is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A later version of the format, intact.
    Newer(u32),
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; START] {
        let mut out = [0; START];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(START as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.id.0);
        out[32..40].copy_from_slice(&self.number.to_le_bytes());
        out[40..48].copy_from_slice(&self.len.to_le_bytes());
        out[48..64].copy_from_slice(&self.replaces.0);
        let crc = crc32c::crc32c(&out[..START - 4]);
        out[START - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks a first block; `number` is what the file's name says.
    pub(super) fn decode(bytes: &[u8], number: u64) -> Result<Self, Fault> {
        let header = bytes.get(..START).ok_or(Fault::Damaged)?;
        if header[..8] != MAGIC || le32(header, START - 4) != Some(crc32c::crc32c(&header[..508])) {
            return Err(Fault::Damaged);
        }
        match le32(header, 8) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(Fault::Newer(newer)),
            _ => return Err(Fault::Damaged),
        }
        let found = Self {
            id: id_at(header, 16).ok_or(Fault::Damaged)?,
            number: le64(header, 32).ok_or(Fault::Damaged)?,
            len: le64(header, 40).ok_or(Fault::Damaged)?,
            replaces: id_at(header, 48).ok_or(Fault::Damaged)?,
        };
        let whole = found.len.is_multiple_of(BLOCK as u64)
            && (MIN_LEN..=MAX_LEN).contains(&found.len)
            && found.number == number
            && number < NUMBER_LIMIT
            && found.id != LogId::NONE
            && found.id != found.replaces
            && le32(header, 12) == Some(START as u32);
        if whole {
            Ok(found)
        } else {
            Err(Fault::Damaged)
        }
    }
}

/// A log's id at this place of a block, whatever the rest of the block is.
pub(super) fn id_at(bytes: &[u8], at: usize) -> Option<LogId> {
    bytes.get(at..)?.first_chunk().map(|id| LogId(*id))
}

/// The file name of a segment.
pub(super) fn name(number: u64) -> Result<Name> {
    named(format!("{number:016x}.seg"))
}

/// A name that is made of digits and letters only, and so is always one.
pub(super) fn named(text: String) -> Result<Name> {
    Name::new(&text).map_err(|e| Error::new("name a file of a log", "openat", e).with_path(text))
}

/// The number of a segment by its file name.
pub(super) fn number(name: &[u8]) -> Option<u64> {
    let digits = name.strip_suffix(b".seg")?;
    let is_digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if digits.len() != 16 || !digits.iter().all(is_digit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What stands in a log's directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Segment numbers in order.
    pub(super) segments: Vec<u64>,
    /// Files that were never given their final name.
    pub(super) unfinished: Vec<Name>,
}

pub(super) fn list(dir: &Dir, operation: &'static str) -> Result<Listing> {
    let fail = |e| Error::new(operation, "getdents64", e);
    let mut out = Listing::default();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(operation))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        let name = entry.name().to_bytes();
        if let Some(number) = number(name) {
            out.segments.push(number);
        } else if temp_name::parse(name) == Some(temp_name::TempName::File) {
            out.unfinished
                .push(Name::from_entry(entry.name()).map_err(fail)?);
        }
    }
    out.segments.sort_unstable();
    Ok(out)
}

/// An open segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) fd: OwnedFd,
    pub(super) number: u64,
    /// Size of the file.
    pub(super) size: u64,
}

impl Segment {
    /// Opens a segment; for writing only if asked.
    pub(super) fn open(dir: &Dir, number: u64, write: bool, op: &'static str) -> Result<Self> {
        let name = name(number)?;
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        // A FIFO or a device that somebody put there must not make this wait or act.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = sys::openat(dir, name.as_c_str(), flags, Mode::empty())
            .map_err(|e| Error::new(op, "openat", e).with_path(&name))?;
        let facts = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)
            .map_err(|e| Error::new(op, "statx", e).with_path(&name))?;
        if !facts.is_file() {
            return Err(Error::of_kind(op, ErrorKind::NotAFile).with_path(&name));
        }
        Ok(Self {
            fd,
            number,
            size: facts.len(),
        })
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    pub(super) fn read(&self, offset: u64, len: u64, op: &'static str) -> Result<Vec<u8>> {
        let len = len.min(self.size.saturating_sub(offset)).min(MAX_LEN);
        let mut out = vec![0; len as usize];
        let done = self.read_into(offset, &mut out, op)?;
        out.truncate(done);
        Ok(out)
    }

    /// Fills `out` from `offset`, as far as the file goes. Gives how much that is.
    pub(super) fn read_into(&self, offset: u64, out: &mut [u8], op: &'static str) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match sys::pread(&self.fd, &mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return Err(self.error(op, "pread64", e)),
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes`, in one call unless the kernel takes less.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> sys::Result<()> {
        write_all(&self.fd, offset, bytes)
    }

    #[cold]
    pub(super) fn error(&self, op: &'static str, call: &'static str, errno: Errno) -> Error {
        let error = Error::new(op, call, errno);
        match name(self.number) {
            Ok(name) => error.with_path(name),
            Err(_) => error,
        }
    }
}

fn write_all(fd: impl AsFd, offset: u64, bytes: &[u8]) -> sys::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match sys::pwrite(fd.as_fd(), &bytes[done..], offset + done as u64)? {
            0 => return Err(Errno::IO),
            n => done += n,
        }
    }
    Ok(())
}

/// Why a segment was not created.
#[derive(Debug)]
pub(super) enum NotCreated {
    /// Nothing was changed, and it may be tried again.
    Clean(Error),
    /// The name is taken.
    Taken,
    /// The segment has its name, which could not be synced: what this directory holds is unknown.
    Unsynced(Error),
}

/// Creates a segment with `frames` behind its header: of its full length and synced before it gets its
/// name, so that no crash leaves a short one. The directory is synced.
pub(super) fn create(
    dir: &Dir,
    header: &Header,
    frames: &[u8],
    op: &'static str,
) -> Result<Segment, NotCreated> {
    let clean = |call| move |e| NotCreated::Clean(Error::new(op, call, e));
    let name = name(header.number).map_err(NotCreated::Clean)?;
    let temp = temp_name::fresh(b't').map_err(clean("getrandom"))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = sys::openat(dir, temp.as_c_str(), flags, mode).map_err(clean("openat"))?;
    let staged = fill(&fd, header, frames)
        .map_err(|(call, e)| clean(call)(e))
        .and_then(|()| give_name(dir, &temp, &name, op));
    if let Err(error) = staged {
        return Err(match (sys::unlinkat(dir, temp.as_c_str()), error) {
            (Ok(()) | Err(Errno::NOENT), error) => error,
            (Err(_), NotCreated::Clean(error)) => NotCreated::Clean(error.with_left(&temp)),
            (Err(_), error) => error,
        });
    }
    sync_names(dir.as_fd()).map_err(|e| {
        let error = Error::new(op, "fsync", e).with_path(&name);
        NotCreated::Unsynced(error.with_state(DiskState::Indeterminate))
    })?;
    Ok(Segment {
        fd,
        number: header.number,
        size: header.len,
    })
}

fn fill(fd: &OwnedFd, header: &Header, frames: &[u8]) -> Result<(), (&'static str, Errno)> {
    // Whatever the umask: it may take rights from the owner, who could not open it again.
    sys::fchmod(fd, Mode::RUSR | Mode::WUSR).map_err(|e| ("fchmod", e))?;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(frames);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    if is_copied_on_write(fd) && stretch(fd, header.len)? {
        write_all(fd, 0, &bytes).map_err(|e| ("pwrite64", e))?;
    } else {
        write_out(fd, bytes, header.len).map_err(|e| ("pwrite64", e))?;
    }
    sys::fsync(fd).map_err(|e| ("fsync", e))
}

/// Whether what is written over something else gets another place on the disk.
fn is_copied_on_write(fd: &OwnedFd) -> bool {
    const KINDS: [FsKind; 3] = [FsKind::Btrfs, FsKind::Bcachefs, FsKind::Zfs];
    sys::fs_kind(fd).is_ok_and(|kind| KINDS.contains(&kind))
}

/// Gives a file its length, where zeros are read, if there is room for it now. The room is given back: btrfs
/// looks up who shares it before each write to what is reserved. False: the file system cannot.
fn stretch(fd: &OwnedFd, len: u64) -> Result<bool, (&'static str, Errno)> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for flags in [FallocateFlags::empty(), hole] {
        match sys::fallocate(fd, flags, 0, len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(e) => return Err(("fallocate", e)),
        }
    }
    Ok(true)
}

/// Writes what the file begins with, and zeros up to its length: what is written over them later changes no
/// metadata that a sync would have to wait for.
fn write_out(fd: &OwnedFd, mut bytes: Vec<u8>, len: u64) -> sys::Result<()> {
    // One call, for an ordinary segment.
    let first = (bytes.len().next_multiple_of(CHUNK) as u64).min(len);
    bytes.resize(first as usize, 0);
    let mut at = 0;
    while at < len {
        let n = (len - at).min(bytes.len() as u64);
        write_all(fd, at, &bytes[..n as usize])?;
        if at == 0 {
            bytes.fill(0);
        }
        at += n;
    }
    Ok(())
}

/// Renames without replacing; by link and unlink where `RENAME_NOREPLACE` is missing.
fn give_name(dir: &Dir, temp: &Name, name: &Name, op: &'static str) -> Result<(), NotCreated> {
    const FLAGS: RenameFlags = RenameFlags::NOREPLACE;
    let fail = |call, e| match e {
        Errno::EXIST => NotCreated::Taken,
        e => NotCreated::Clean(Error::new(op, call, e).with_path(name)),
    };
    let (from, to) = (temp.as_c_str(), name.as_c_str());
    match sys::renameat2(dir, from, dir, to, FLAGS) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return done.map_err(|e| fail(sys::rename_call(FLAGS), e)),
    }
    sys::linkat(dir, from, dir, to).map_err(|e| fail("linkat", e))?;
    // The second name is one that the next open of the log removes.
    let _ = sys::unlinkat(dir, from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Root, sys::hook};
    use std::os::unix::fs::MetadataExt;

    fn dir() -> (tempfile::TempDir, Dir) {
        let base = std::env::var_os("STEADFAST_TEST_DIR");
        let tmp = tempfile::tempdir_in(base.map_or_else(std::env::temp_dir, Into::into)).unwrap();
        let dir = Root::open(tmp.path()).unwrap().dir().try_clone().unwrap();
        (tmp, dir)
    }

    /// Whichever way it gets its length.
    #[test]
    fn a_new_segment_is_zeros_behind_what_it_was_given() {
        let (tmp, dir) = dir();
        let frames = [7; 700];
        for (number, len) in [MIN_LEN, DEFAULT_LEN, 2 * DEFAULT_LEN + 512]
            .into_iter()
            .enumerate()
        {
            let header = |number| Header {
                id: LogId([7; 16]),
                number,
                len,
                replaces: LogId::NONE,
            };
            let check = |number, bytes: &[u8]| {
                assert_eq!(bytes.len() as u64, len);
                assert_eq!(bytes[..START], header(number).encode());
                assert_eq!(bytes[START..][..frames.len()], frames);
                assert!(bytes[START + frames.len()..].iter().all(|b| *b == 0));
            };
            let number = 3 * number as u64;
            let (made, calls) =
                hook::scope(None, || create(&dir, &header(number), &frames, "test"));
            let made = made.unwrap();
            assert_eq!(calls.contains(&"fallocate"), is_copied_on_write(&made.fd));
            check(number, &made.read(0, u64::MAX, "test").unwrap());

            let number = number + 1;
            let unable = [("fallocate", Errno::OPNOTSUPP), ("fstatfs", Errno::NOSYS)];
            for unable in [&unable[..1], &unable[1..]] {
                let made = hook::deny(unable, || create(&dir, &header(number), &frames, "test"));
                check(number, &made.unwrap().read(0, u64::MAX, "test").unwrap());
                sys::unlinkat(&dir, super::name(number).unwrap().as_c_str()).unwrap();
            }

            // As where it is copied on write.
            let file = std::fs::File::create_new(tmp.path().join("stretched"))
                .unwrap()
                .into();
            let mut bytes = header(number).encode().to_vec();
            bytes.extend(frames);
            assert_eq!(stretch(&file, len), Ok(true));
            let stretched = tmp.path().join("stretched").metadata().unwrap();
            assert_eq!(stretched.len(), len);
            // A block that is only begun stays.
            assert!(stretched.blocks() * 512 < len);
            write_all(&file, 0, &bytes).unwrap();
            check(
                number,
                &std::fs::read(tmp.path().join("stretched")).unwrap(),
            );
            std::fs::remove_file(tmp.path().join("stretched")).unwrap();
        }
    }

    #[test]
    fn a_segment_for_which_there_is_no_room_is_not_made() {
        let (tmp, dir) = dir();
        let file = std::fs::File::create_new(tmp.path().join("f"))
            .unwrap()
            .into();
        let full = |errno| hook::deny(&[("fallocate", errno)], || stretch(&file, MIN_LEN));
        assert_eq!(full(Errno::NOSPC), Err(("fallocate", Errno::NOSPC)));
        assert_eq!(full(Errno::DQUOT), Err(("fallocate", Errno::DQUOT)));
        assert_eq!([full(Errno::OPNOTSUPP), full(Errno::NOSYS)], [Ok(false); 2]);
        assert_eq!(tmp.path().join("f").metadata().unwrap().len(), 0);
        let header = Header {
            id: LogId([7; 16]),
            number: 1,
            len: MIN_LEN,
            replaces: LogId::NONE,
        };
        let made = hook::deny(&[("fallocate", Errno::NOSPC)], || {
            create(&dir, &header, &[], "test")
        });
        match made {
            Ok(made) => assert!(!is_copied_on_write(&made.fd)),
            Err(NotCreated::Clean(e)) => {
                assert!(is_copied_on_write(&file));
                assert_eq!(
                    (e.kind(), e.disk_state()),
                    (ErrorKind::StorageFull, DiskState::Unchanged)
                );
                assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Each with a checksum that is right for it.
    #[test]
    fn only_what_was_written_is_a_header() {
        let id = LogId([7; 16]);
        let header = |len| Header {
            id,
            number: 3,
            len,
            replaces: LogId::NONE,
        };
        for len in [MIN_LEN, DEFAULT_LEN, MAX_LEN] {
            let bytes = header(len).encode();
            assert_eq!(Header::decode(&bytes, 3), Ok(header(len)));
            assert_eq!(Header::decode(&bytes, 4), Err(Fault::Damaged));
        }
        for len in [0, MIN_LEN - 512, MIN_LEN + 8, MAX_LEN + 512, u64::MAX] {
            assert_eq!(
                Header::decode(&header(len).encode(), 3),
                Err(Fault::Damaged),
                "{len}"
            );
        }
        let with = |at: usize, byte| {
            let mut bytes = header(MIN_LEN).encode();
            bytes[at] = byte;
            let crc = crc32c::crc32c(&bytes[..START - 4]);
            bytes[START - 4..].copy_from_slice(&crc.to_le_bytes());
            Header::decode(&bytes, 3)
        };
        assert_eq!(with(0, b'S'), Err(Fault::Damaged));
        assert_eq!(with(8, 0), Err(Fault::Damaged));
        assert_eq!(with(8, 2), Err(Fault::Newer(2)));
        assert_eq!(with(12, 8), Err(Fault::Damaged));
    }
}
