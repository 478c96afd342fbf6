//! What the transactions of one boot know of each other: their numbers, who is between drawing one and being
//! done, whose work was left half done, and up to which number everything is durable in place.
//!
//! The locks are bytes of the claims' lock file, taken by the claim of each transaction, so that they end
//! with it in one step. Only the horizon is durable; after a power cut all the rest may be anything, and
//! whoever opens the workspace looks into every log instead.
//!
//! The file has four blocks of 4096 bytes, numbers in little endian: two copies of the horizon; the counter,
//! at 512 the id of the format that is known to be durable, at 1024 a failed sync, at 1536 what tells whether
//! conflicts were recorded, and at 2048 where logs were closed; 256 marks of 16 bytes.

mod closed;
mod conflicts;
mod counter;
mod doubt;
mod gate;
mod horizon;
mod marks;
mod peek;
#[cfg(test)]
mod tests;

pub(crate) use conflicts::Recorded;
pub(crate) use gate::RecoveryLock;
pub(crate) use marks::{DeadMark, Mark, MarkKind};
pub(crate) use peek::{Peek, peek, rebuild};

use super::state::OP;
use crate::claim::{Claim, Claims, Extra};
use crate::root::Dir;
use crate::sys::{self, AsFd, Errno, LockKind, LockRange, Mode, OFlags, OwnedFd};
use crate::{Error, ErrorKind, Result};
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(super) const FILE: &CStr = c"ledger";

const BLOCK: usize = 4096;
const LEN: usize = 4 * BLOCK;
const COUNTER: u64 = 2 * BLOCK as u64;
const SETTLED: u64 = COUNTER + 512;
const MARKS: u64 = 3 * BLOCK as u64;

/// Bytes of the lock file.
const GATE: Extra = Extra::new(0);
const TURNSTILE: Extra = Extra::new(1);
pub(crate) const RECOVERY: Extra = Extra::new(2);
/// The byte of the first mark; number 3 is the state folder's.
const FIRST_MARK: u32 = 256;

/// Bytes of the ledger file that are locked for a moment.
const TURN_BYTE: u64 = 0;
const HORIZON_BYTE: u64 = 1;
/// How long a moment may last: its holder writes 16 bytes, or waits for a sync.
const MOMENT: Duration = Duration::from_secs(30);

/// An open ledger. Threads may share it; a process that was forked must open its own.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: OwnedFd,
    claims: Arc<Claims>,
    /// Held by the thread that has the byte for counter and marks.
    turn: Mutex<()>,
    /// Held by the thread that has the horizon's byte.
    horizon: Mutex<horizon::Known>,
    alive: Arc<marks::Alive>,
    /// It holds nothing, and so sees every lock as somebody else's.
    watch: OnceLock<Claim>,
    process: u32,
}

/// Makes the file if it is missing, synced but for its name.
pub(super) fn create(dir: &Dir) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match sys::openat(dir, FILE, flags, Mode::empty()) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(e) => return Err(fail("openat", e)),
    }
    let mut bytes = vec![0; LEN];
    for start in [0, BLOCK] {
        horizon::put(&mut bytes[start..], 0);
    }
    counter::put(&mut bytes[COUNTER as usize..], 0);
    super::setup::put(dir, FILE, &bytes)
}

impl Ledger {
    /// Opens the ledger of a state folder.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is missing, too short, or both copies of the horizon are damaged.
    pub(crate) fn open(dir: &Dir, claims: &Arc<Claims>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = sys::openat(dir, FILE, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => fail("openat", e)
                .with_kind(ErrorKind::Corrupt)
                .with_advice(horizon::ADVICE),
            e => fail("openat", e),
        })?;
        let ledger = Self {
            file,
            claims: Arc::clone(claims),
            turn: Mutex::default(),
            horizon: Mutex::default(),
            alive: Arc::default(),
            watch: OnceLock::new(),
            process: std::process::id(),
        };
        ledger.horizon()?;
        Ok(ledger)
    }

    /// The id of the format of which it is known that its name is durable.
    pub(crate) fn settled(&self) -> Result<[u8; 16]> {
        let mut id = [0; 16];
        self.read(SETTLED, &mut id)?;
        Ok(id)
    }

    /// Notes that the name of the format with this id is durable.
    pub(crate) fn settle(&self, id: [u8; 16]) -> Result<()> {
        self.write(SETTLED, &id)
    }

    /// Reads all of `buf`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match sys::pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => {
                    let error = Error::of_kind(OP, ErrorKind::Corrupt).with_path(shown());
                    return Err(error
                        .with_detail("the file is too short")
                        .with_advice(horizon::ADVICE));
                }
                Ok(n) => done += n,
                Err(e) => return Err(fail("pread64", e)),
            }
        }
        Ok(())
    }

    /// Writes at most a block in one call.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match sys::pwrite(&self.file, bytes, offset) {
            Ok(n) if n == bytes.len() => Ok(()),
            // The bytes exist, so that no disk can be full.
            Ok(_) => Err(fail("pwrite64", Errno::IO).with_state(crate::DiskState::Indeterminate)),
            Err(e) => Err(fail("pwrite64", e)),
        }
    }

    /// The right to change the counter, and to take a free mark.
    fn turn(&self) -> Result<Turn<'_>> {
        let thread = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Turn {
            _process: self.moment(TURN_BYTE)?,
            _thread: thread,
        })
    }

    /// Takes a byte of the file from other processes. The caller keeps other threads out.
    fn moment(&self, byte: u64) -> Result<Moment<'_>> {
        if self.process != std::process::id() {
            return Err(Error::of_kind("use workspace", ErrorKind::Unsupported)
                .with_detail("it was opened by the process that this one was forked from")
                .with_advice("open the workspace anew"));
        }
        let range = LockRange::new(byte, 1).ok_or_else(|| fail("fcntl", Errno::OVERFLOW))?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(10);
        loop {
            match sys::ofd_try_lock(&self.file, LockKind::Exclusive, range) {
                Ok(()) => {
                    return Ok(Moment {
                        file: &self.file,
                        range,
                    });
                }
                Err(Errno::AGAIN | Errno::ACCESS) if start.elapsed() < MOMENT => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(2));
                }
                Err(e @ (Errno::AGAIN | Errno::ACCESS)) => {
                    return Err(fail("fcntl(F_OFD_SETLK)", e)
                        .with_kind(ErrorKind::Busy)
                        .with_advice("a process that holds it does not go on: was it stopped?"));
                }
                Err(e) => return Err(fail("fcntl(F_OFD_SETLK)", e)),
            }
        }
    }

    fn watch(&self) -> Result<&Claim> {
        if let Some(watch) = self.watch.get() {
            return Ok(watch);
        }
        let fresh = self.claims.try_claim(&[])?;
        Ok(self.watch.get_or_init(|| fresh))
    }
}

/// Held against other processes, and against other threads for longer than that.
struct Turn<'a> {
    _process: Moment<'a>,
    _thread: MutexGuard<'a, ()>,
}

/// A byte of the ledger file, held.
struct Moment<'a> {
    file: &'a OwnedFd,
    range: LockRange,
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        // If that fails the byte stays taken, and the others say so when their time is up.
        let _ = sys::ofd_unlock(self.file.as_fd(), self.range);
    }
}

fn shown() -> &'static str {
    ".steadfast/ledger"
}

#[cold]
fn fail(call: &'static str, errno: Errno) -> Error {
    Error::new("use the ledger of a workspace", call, errno).with_path(shown())
}
