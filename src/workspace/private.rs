//! Private files in `staged/`: content that is written away as it comes, and records too long for the log.

use super::ctx::Ctx;
use super::draft::StagedFile;
use crate::root::sync_names;
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, Mode, OFlags, OwnedFd};
use crate::tree::copy_content;
use crate::{Dir, Error, ErrorKind, Name, Result};
use std::io::Read;

const OP: &str = "write private file";
const READ: &str = "read private file";
const BUFFER: usize = 128 << 10;

/// A file with what `reader` gives until its end.
pub(super) fn from_reader(ctx: &mut Ctx<'_>, reader: &mut dyn Read) -> Result<StagedFile> {
    fill(ctx, |fd| {
        let mut buffer = vec![0; BUFFER];
        let mut len = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(len),
                Ok(n) => {
                    write_all(fd, buffer.get(..n).unwrap_or_default())?;
                    len += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::of_kind(OP, ErrorKind::Source).with_source(e)),
            }
        }
    })
}

/// A copy of an open file, from its start.
pub(super) fn from_file(ctx: &mut Ctx<'_>, from: BorrowedFd<'_>) -> Result<StagedFile> {
    fill(ctx, |to| {
        sys::seek(from, std::io::SeekFrom::Start(0)).map_err(|e| Error::new(OP, "lseek", e))?;
        let copied = copy_content(from, to.as_fd(), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .map_err(|e| e.with_operation(OP))?;
        Ok(copied.bytes)
    })
}

/// What `reader` gives until its end.
pub(super) fn in_memory(mut reader: impl Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    match reader.read_to_end(&mut out) {
        Ok(_) => Ok(out),
        Err(e) => Err(Error::of_kind(OP, ErrorKind::Source).with_source(e)),
    }
}

/// An open file in the place of a private one that would have its content: for a plan, which only looks.
pub(super) fn as_it_is(from: BorrowedFd<'_>) -> Result<StagedFile> {
    let facts =
        sys::statx(from, c"", AtFlags::EMPTY_PATH).map_err(|e| Error::new(OP, "statx", e))?;
    Ok(StagedFile {
        name: Name::new("-").map_err(|e| Error::new(OP, "openat", e))?,
        fd: (from.try_clone_to_owned())
            .map_err(|e| Error::new(OP, "fcntl", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?,
        len: facts.len(),
    })
}

/// One piece after the other.
struct Pieces<'a> {
    now: &'a [u8],
    more: std::slice::Iter<'a, &'a [u8]>,
}

impl Read for Pieces<'_> {
    /// Fills the buffer, unless they come to their end.
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut done = 0;
        while let Some(room) = buf.get_mut(done..).filter(|room| !room.is_empty()) {
            if self.now.is_empty() {
                match self.more.next() {
                    Some(next) => self.now = next,
                    None => break,
                }
            } else {
                done += self.now.read(room)?;
            }
        }
        Ok(done)
    }
}

/// A file that is durable, with its name, when this returns. Its content is these pieces.
pub(super) fn durable(ctx: &mut Ctx<'_>, content: &[&[u8]]) -> Result<Name> {
    let mut pieces = Pieces {
        now: &[],
        more: content.iter(),
    };
    let file = from_reader(ctx, &mut pieces)?;
    // Whatever the umask: whoever recovers must be able to open it again.
    let synced = sys::fchmod(&file.fd, Mode::RUSR | Mode::WUSR)
        .map_err(|e| ("fchmod", e))
        .and_then(|()| sys::fsync(&file.fd).map_err(|e| ("fsync", e)))
        .and_then(|()| sync_names(ctx.staged.as_fd()).map_err(|e| ("fsync", e)));
    match synced {
        Ok(()) => Ok(file.name),
        Err((call, e)) => {
            discard(ctx, &file.name);
            Err(Error::new(OP, call, e))
        }
    }
}

fn fill(ctx: &mut Ctx<'_>, fill: impl FnOnce(&OwnedFd) -> Result<u64>) -> Result<StagedFile> {
    let name = (ctx.names)()?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd =
        sys::openat(ctx.staged, name.as_c_str(), flags, Mode::RUSR | Mode::WUSR).map_err(|e| {
            // On network storage it may have been made all the same. The name is nobody else's.
            discard(ctx, &name);
            Error::new(OP, "openat", e)
        })?;
    match fill(&fd) {
        Ok(len) => Ok(StagedFile { name, fd, len }),
        Err(e) => {
            discard(ctx, &name);
            Err(e)
        }
    }
}

fn discard(ctx: &Ctx<'_>, name: &Name) {
    // What cannot be removed is litter with its owner's number on it.
    let _ = sys::unlinkat(ctx.staged, name.as_c_str());
}

/// All of a private file, which is not longer than this.
pub(super) fn read(dir: &Dir, name: &Name, longest: usize) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = sys::openat(dir, name.as_c_str(), flags, Mode::empty())
        .map_err(|e| Error::new(READ, "openat", e).with_path(name))?;
    read_all(&fd, longest).map_err(|e| e.with_path(name))
}

/// Adds all that is in a file, wherever its offset is.
pub(super) fn read_from_start(fd: &OwnedFd, out: &mut Vec<u8>) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    loop {
        match sys::pread(fd, &mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                out.extend_from_slice(buffer.get(..n).unwrap_or_default());
                offset += n as u64;
            }
            Err(e) => return Err(Error::new(READ, "pread64", e)),
        }
    }
}

/// All that is in a file, which is not longer than this.
pub(super) fn read_all(fd: &OwnedFd, longest: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = vec![0; BUFFER.min(longest + 1)];
    loop {
        match sys::read(fd, &mut buffer) {
            Ok(0) => return Ok(out),
            Ok(n) => out.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            Err(e) => return Err(Error::new(READ, "read", e)),
        }
        if out.len() > longest {
            return Err(Error::of_kind(READ, ErrorKind::Corrupt)
                .with_detail(format!("it is longer than {longest} bytes")));
        }
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match sys::write(fd, bytes) {
            Ok(0) => return Err(Error::new(OP, "write", Errno::IO)),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) => return Err(Error::new(OP, "write", e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::testbed::World;

    #[test]
    fn a_durable_file_has_all_pieces() {
        let world = World::new();
        let long = vec![7; BUFFER + 5];
        let pieces: [&[u8]; 4] = [b"ab", b"", &long, b"c"];
        world.with(|ctx| {
            let name = durable(ctx, &pieces).unwrap();
            assert_eq!(read(ctx.staged, &name, 1 << 20).unwrap(), pieces.concat());
        });
    }
}
