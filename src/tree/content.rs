//! Copying the content of one regular file: by sharing it, in the kernel, or through a buffer; holes stay.

use super::chain::look;
use crate::sys::{self, BorrowedFd, Errno, Metadata};
use std::io::SeekFrom;
use std::ops::ControlFlow;

/// Most bytes that one call copies, so that a long copy can be stopped.
const CHUNK: u64 = 32 << 20;
/// Size of the buffer, where one is needed.
const BUFFER: usize = 256 << 10;
/// How often the end is looked for again in a file that grows all the time.
const ROUNDS: u32 = 4;

/// Why the content could not be copied.
#[derive(Debug)]
pub(super) enum Failure {
    Call(&'static str, Errno),
    Cancelled,
}

/// What was copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// The source's size or time of change is not what it was when the copy began.
    pub(super) changed: bool,
}

/// Copies files one after the other, and remembers which ways are not open.
#[derive(Debug, Default)]
pub(super) struct Copier {
    buf: Vec<u8>,
    /// The mount (or device) of sources that cannot be shared with the target.
    unshared: Option<u64>,
    /// The same for copy_file_range.
    unranged: Option<u64>,
}

/// A way that is not open, so that the next one is tried. If it is the device that fails, that says so too.
fn next_way(e: Errno) -> bool {
    matches!(
        e,
        Errno::XDEV
            | Errno::OPNOTSUPP
            | Errno::INVAL
            | Errno::NOTTY
            | Errno::NOSYS
            | Errno::PERM
            | Errno::TXTBSY
            | Errno::IO
    )
}

/// Whether it is not open for other files of the same mount either.
fn for_all(e: Errno) -> bool {
    matches!(
        e,
        Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS
    )
}

impl Copier {
    /// Copies all of `from`, whose facts are `meta`, to the empty file `to`. Both stand at their start.
    /// `step` hears of every piece.
    pub(super) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        meta: &Metadata,
        to: BorrowedFd<'_>,
        step: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Content, Failure> {
        let place = meta.mount_id().unwrap_or(meta.id().dev);
        if meta.is_empty() {
            // A file of procfs says 0 and has content; of others one read finds the end.
            self.range(from, to, 0, u64::MAX, Some(place), true, step)?;
            return Ok(Content { changed: false });
        }
        if self.unshared != Some(place) {
            match sys::ficlone(to, from) {
                Ok(()) => {
                    tell(step, meta.len())?;
                    return Ok(Content { changed: false });
                }
                Err(e) if next_way(e) => {
                    if for_all(e) {
                        self.unshared = Some(place);
                    }
                }
                Err(e) => return Err(Failure::Call("ioctl(FICLONE)", e)),
            }
        }
        let holes = meta.allocated() < meta.len();
        let (mut at, mut bound) = (0, meta.len());
        for _ in 0..ROUNDS {
            at = if holes {
                self.with_holes(from, to, at, bound, Some(place), step)?
            } else {
                self.range(from, to, at, bound, Some(place), false, step)?
            };
            let now = look(from).map_err(|e| Failure::Call("statx", e))?;
            if now.len() <= at {
                let changed = now.len() != meta.len() || now.mtime() != meta.mtime();
                return Ok(Content { changed });
            }
            if at < bound {
                // It was shorter for a moment; the offsets stand at its end of then.
                break;
            }
            bound = now.len();
        }
        Ok(Content { changed: true })
    }

    /// The same from `at` to `bound`, leaving out holes; gives where it ends.
    fn with_holes(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut at: u64,
        bound: u64,
        place: Option<u64>,
        step: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, Failure> {
        let mut end = at;
        while at < bound {
            // Where the file system cannot tell, all of the rest is data.
            let (data, hole) = match sys::seek_data(from, at) {
                Ok(Some(data)) if data < bound => match sys::seek_hole(from, data) {
                    Ok(hole) => (data, hole.min(bound)),
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => (data, bound),
                    // It was cut off meanwhile.
                    Err(Errno::NXIO) => break,
                    Err(e) => return Err(Failure::Call("lseek(SEEK_HOLE)", e)),
                },
                Ok(_) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => (at, bound),
                Err(e) => return Err(Failure::Call("lseek(SEEK_DATA)", e)),
            };
            for fd in [from, to] {
                sys::seek(fd, SeekFrom::Start(data)).map_err(|e| Failure::Call("lseek", e))?;
            }
            end = self.range(from, to, data, hole, place, false, step)?;
            at = hole;
        }
        if end < bound {
            // The last hole.
            sys::ftruncate(to, bound).map_err(|e| Failure::Call("ftruncate", e))?;
        }
        Ok(bound)
    }

    /// The same from `at`, where both files stand, to `bound` or the end of `from`; gives where it ends.
    #[allow(clippy::too_many_arguments)] // One call of its own each.
    fn range(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        mut at: u64,
        bound: u64,
        place: Option<u64>,
        mut by_buffer: bool,
        step: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, Failure> {
        by_buffer |= self.unranged == place;
        while at < bound {
            // At most CHUNK, which fits.
            let want = usize::try_from((bound - at).min(CHUNK)).unwrap_or(BUFFER);
            let done = if by_buffer {
                let want = want.min(BUFFER);
                if self.buf.len() < want {
                    self.buf.resize(want, 0);
                }
                let got =
                    sys::read(from, &mut self.buf[..want]).map_err(|e| Failure::Call("read", e))?;
                if got == 0 {
                    break;
                }
                write_all(to, &self.buf[..got]).map_err(|e| Failure::Call("write", e))?;
                got
            } else {
                match sys::copy_file_range(from, to, want) {
                    // The end, or a file that this call does not work for: reading tells.
                    Ok(0) => {
                        by_buffer = true;
                        continue;
                    }
                    Ok(n) => n,
                    Err(e) if next_way(e) => {
                        if for_all(e) {
                            self.unranged = place;
                        }
                        by_buffer = true;
                        continue;
                    }
                    Err(e) => return Err(Failure::Call("copy_file_range", e)),
                }
            };
            at += done as u64;
            tell(step, done as u64)?;
        }
        Ok(at)
    }
}

fn tell(step: &mut dyn FnMut(u64) -> ControlFlow<()>, n: u64) -> Result<(), Failure> {
    match step(n) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Failure::Cancelled),
    }
}

/// Writes all of `rest` at the descriptor's offset.
fn write_all(to: BorrowedFd<'_>, mut rest: &[u8]) -> Result<(), Errno> {
    while !rest.is_empty() {
        match sys::write(to, rest)? {
            // A file that takes nothing and says no error has no room.
            0 => return Err(Errno::NOSPC),
            n => rest = rest.get(n..).unwrap_or_default(),
        }
    }
    Ok(())
}
