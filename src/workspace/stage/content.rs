//! Filling a new file with the pieces that it is to hold.

use super::{Work, fail};
use crate::sys::{self, AsFd, BorrowedFd, Errno, OFlags};
use crate::tree;
use crate::workspace::draft::{Piece, Source};
use crate::workspace::place;
use crate::{ErrorKind, Result};
use std::io::SeekFrom;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Size of the buffer that content passes through where it cannot be copied in the kernel.
const BUFFER: usize = 256 << 10;

impl Work<'_, '_> {
    /// Writes the pieces to the empty file `to`, one after the other.
    pub(super) fn fill(&self, to: BorrowedFd<'_>, pieces: &[Piece], path: &[u8]) -> Result<()> {
        for (at, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Given(Source::Bytes(bytes)) => {
                    place::write_all(to, bytes).map_err(|e| fail("write", e, path))?;
                }
                Piece::Given(Source::File(file)) => copy(file.fd.as_fd(), to, path)?,
                Piece::Existing(object) => {
                    let (from, _) = self.open_existing(*object, OFlags::RDONLY)?;
                    if at > 0 {
                        copy(from.as_fd(), to, path)?;
                        continue;
                    }
                    let copied =
                        tree::copy_content(from.as_fd(), to, &mut |_| ControlFlow::Continue(()))
                            .map_err(|e| {
                                e.with_operation(super::OPERATION).with_path(shown(path))
                            })?;
                    if copied.changed > 0 {
                        return Err(super::changed(path).with_kind(ErrorKind::Changed));
                    }
                    // Content that is shared moves no offset.
                    sys::seek(to, SeekFrom::End(0)).map_err(|e| fail("lseek", e, path))?;
                }
            }
        }
        Ok(())
    }
}

fn shown(path: &[u8]) -> &std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(path)
}

/// Appends all of `from`, whose offset does not count, to `to`.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let (mut at, mut buf) = (0, vec![0; BUFFER]);
    loop {
        let n = place::read_at(from, &mut buf, at).map_err(|e| fail("pread64", e, path))?;
        let Some(piece) = buf.get(..n).filter(|piece| !piece.is_empty()) else {
            return Ok(());
        };
        place::write_all(to, piece).map_err(|e| fail("write", e, path))?;
        at += n as u64;
    }
}

/// All of a file that is as long as `len` says.
pub(super) fn read_all(fd: impl AsFd, len: usize, path: &[u8]) -> Result<Arc<[u8]>> {
    let mut content: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    // Nobody else has it yet.
    let to = Arc::get_mut(&mut content).unwrap_or_default();
    match place::read_at(fd, to, 0) {
        Ok(n) if n == len => Ok(content),
        Ok(_) => Err(fail("pread64", Errno::IO, path)),
        Err(e) => Err(fail("pread64", e, path)),
    }
}
