//! The ledger as it is now, read without a lock and without the right to write; and one made anew.

use super::{BLOCK, COUNTER, DeadMark, FILE, LEN, MARKS, counter, fail, horizon, marks};
use crate::Result;
use crate::claim::is_held;
use crate::root::Dir;
use crate::sys::{self, Errno, Mode, OFlags, OwnedFd};

/// What the file says; `None` where it is damaged.
#[derive(Debug, Default)]
pub(crate) struct Peek {
    /// The file is missing.
    pub(crate) missing: bool,
    /// The file ends too early.
    pub(crate) short: bool,
    pub(crate) horizon: Option<u64>,
    pub(crate) last: Option<u64>,
    /// All marks, and whether somebody holds each.
    pub(crate) marks: Vec<(DeadMark, bool)>,
}

impl Peek {
    /// What is wrong with it, in words.
    pub(crate) fn damage(&self) -> Option<&'static str> {
        if self.missing {
            Some("it is missing")
        } else if self.short {
            Some("it is too short")
        } else if self.horizon.is_none() {
            Some("both copies of the horizon are damaged")
        } else if self.last.is_none() {
            Some("the counter is damaged")
        } else {
            None
        }
    }
}

/// Reads it. A living process may change it meanwhile: the answer is that of some moments during the call.
pub(crate) fn peek(dir: &Dir) -> Result<Peek> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match sys::openat(dir, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => {
            return Ok(Peek {
                missing: true,
                ..Peek::default()
            });
        }
        Err(e) => return Err(fail("openat", e)),
    };
    // Copies that are just being written look damaged for a moment.
    let mut found = read(dir, &file)?;
    for _ in 0..8 {
        if found.damage().is_none() {
            break;
        }
        found = read(dir, &file)?;
    }
    Ok(found)
}

fn read(dir: &Dir, file: &OwnedFd) -> Result<Peek> {
    let mut bytes = [0; LEN];
    let mut len = 0;
    while len < LEN {
        match sys::pread(file, &mut bytes[len..], len as u64).map_err(|e| fail("pread64", e))? {
            0 => break,
            n => len += n,
        }
    }
    let copies = [horizon::get(&bytes), horizon::get(&bytes[BLOCK..])];
    let mut out = Peek {
        short: len < LEN,
        horizon: copies.into_iter().flatten().max(),
        last: bytes[COUNTER as usize..]
            .first_chunk()
            .and_then(counter::get),
        ..Peek::default()
    };
    let claims = open_claims(dir)?;
    let table = bytes[MARKS as usize..].chunks_exact(marks::LEN);
    for (entry, content) in table.enumerate() {
        let Some(content) = content.first_chunk().filter(|c| **c != [0; marks::LEN]) else {
            continue;
        };
        let live = match &claims {
            Some(claims) => is_held(claims, marks::byte(entry))?,
            None => false,
        };
        // Its owner may have been done between the two: see `Ledger::dead`.
        let mut now = [0; marks::LEN];
        let offset = MARKS + (entry * marks::LEN) as u64;
        let len = sys::pread(file, &mut now, offset).map_err(|e| fail("pread64", e))?;
        if live || (len == now.len() && now == *content) {
            out.marks.push((marks::decode(entry, *content), live));
        }
    }
    Ok(out)
}

fn open_claims(dir: &Dir) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match sys::openat(dir, c"claims", flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(fail("openat", e).with_path(".steadfast/claims")),
    }
}

/// Puts a ledger with these numbers in the place of what is there. One mark in it is of no known kind, so
/// that the next recovery looks at everything above the horizon, whatever boot it is from. Its name is not
/// synced.
pub(crate) fn rebuild(dir: &Dir, horizon: u64, last: u64) -> Result<()> {
    let mut bytes = vec![0; LEN];
    for start in [0, BLOCK] {
        horizon::put(&mut bytes[start..], horizon);
    }
    counter::put(&mut bytes[COUNTER as usize..], last);
    bytes[MARKS as usize..][..marks::LEN].fill(0xff);
    crate::workspace::setup::put(dir, FILE, &bytes)
}
