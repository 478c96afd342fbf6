//! Repair of a damaged log, on request only: what stands before the damage becomes a log of its
//! own, and the damaged one is set aside.
//!
//! The repaired log is one new segment with a new log id, staged and synced, that names the log it
//! replaces. Its rename is the one step that decides: before it the old log stands as it was, after
//! it the old files are only in the way, and are renamed. A repair that is killed can be repeated.

use super::analyse::{Analysis, Head, analyse};
use super::damage::Damage;
use super::frame::{
    self, BLOCK, Content, KIND_CLOSE, LogId, NUMBER_LIMIT, Payload, Run, release, room, seal,
};
use super::open::{lock, read_heads, remove_unfinished};
use super::queue::show_id;
use super::scan::{self, Placed};
use super::segment::{self, DEFAULT_LEN, Header, MAX_LEN, NotCreated, START};
use crate::root::{Dir, sync_names};
use crate::sys::{self, AsFd, Errno, RenameFlags};
use crate::{DiskState, Error, ErrorKind, Name, Result};
use std::collections::BTreeMap;

const OP: &str = "repair log";

/// A frame that was durable, or may have been, and is not part of the repaired log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GivenUp {
    /// Its sequence number.
    pub seq: u64,
    /// Its kind and transaction id, if it can be read; it stands in the segment file that is set aside.
    pub readable: Option<(u16, u64)>,
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Repaired {
    /// What was damaged; `None`: nothing was, and nothing was rewritten.
    pub damage: Option<Damage>,
    /// The last number that was kept. New records get the numbers after it.
    pub last: u64,
    /// What comes after it in the damaged log, in order.
    pub given_up: Vec<GivenUp>,
    /// Files that hold the damaged log now, in the same directory: nothing removes them.
    pub set_aside: Vec<Name>,
}

/// Repairs the log in `dir`: keeps the frames before the damage, sets the damaged segment files
/// aside (renamed to `damaged-...`), and says what is given up. An undamaged log is left as it is.
///
/// The repaired log is durable when this returns. If it fails or is killed, the log is as it was,
/// or repaired with some of the old files still to be renamed, which calling it again does.
///
/// # Errors
/// [`ErrorKind::Busy`]: somebody has the log open. [`ErrorKind::NotFound`]: there is none.
/// [`ErrorKind::Unsupported`]: a later version's format. Those of open(2), read(2), write(2),
/// fsync(2), rename(2).
pub fn repair(dir: &Dir) -> Result<Repaired> {
    // Where there is no log, not even its lock file is created.
    if segment::list(dir, OP)?.segments.is_empty() {
        return Err(Error::of_kind(OP, ErrorKind::NotFound));
    }
    let held = lock(dir, OP)?;
    let listing = segment::list(dir, OP)?;
    let heads = read_heads(dir, &listing, false, OP)?;
    remove_unfinished(dir, &listing).map_err(|e| e.with_operation(OP))?;
    let found = analyse(heads, None, OP)?;
    let mut out = Repaired {
        damage: found.damage.clone(),
        last: found.last,
        given_up: Vec::new(),
        set_aside: Vec::new(),
    };
    let old: Vec<u64> = if found.damage.is_some() {
        out.given_up = given_up(&found)?;
        publish(dir, &found)?;
        listing.segments
    } else {
        found.superseded.clone()
    };
    for number in old {
        out.set_aside.push(set_aside(dir, &found, number)?);
    }
    if !out.set_aside.is_empty() {
        sync_names(dir.as_fd())
            .map_err(|e| Error::new(OP, "fsync", e).with_state(DiskState::Published))?;
    }
    drop(held);
    Ok(out)
}

/// Frames beyond the last that stands: found whole somewhere, or proved to have been durable.
fn given_up(found: &Analysis) -> Result<Vec<GivenUp>> {
    let mut whole: BTreeMap<u64, (u64, Placed)> = BTreeMap::new();
    let mut highest = found.last;
    for head in &found.heads {
        if found.superseded.contains(&head.file.number) {
            continue;
        }
        for (frame, run) in scan::survivors(&head.bytes(OP)?, START, found.id.seed()) {
            highest = highest.max(frame.durable).max(frame.seq);
            // Of two with one number, the later run's is the one that was accepted.
            let newer = whole.get(&frame.seq).is_none_or(|(e, _)| *e < run.epoch);
            if frame.seq > found.last && newer {
                whole.insert(frame.seq, (run.epoch, frame));
            }
        }
    }
    // Numbers between are listed one by one only as far as frames can have had them.
    let room: u64 = found.heads.iter().map(|h| h.len()).sum();
    let limit = found.last + room / frame::HEADER as u64;
    let mut out: Vec<GivenUp> = Vec::new();
    for seq in found.last + 1..=highest.min(limit) {
        let readable = whole.remove(&seq).map(|(_, f)| (f.kind, f.transaction));
        out.push(GivenUp { seq, readable });
    }
    out.extend(whole.into_values().map(|(_, f)| GivenUp {
        seq: f.seq,
        readable: Some((f.kind, f.transaction)),
    }));
    Ok(out)
}

/// Creates the repaired log: one closed segment that holds what stands.
fn publish(dir: &Dir, found: &Analysis) -> Result<()> {
    let id = LogId::random().map_err(|e| Error::new(OP, "getrandom", e))?;
    let run = Run {
        epoch: found.epoch + 1,
        nonce: u64::from_le_bytes(id.0[8..].try_into().unwrap_or_default()),
    };
    let frames = encode(found, id, run);
    let usual = found.heads.iter().filter_map(Head::true_len).max();
    let needed = ((START + frames.len()) as u64).next_multiple_of(BLOCK as u64);
    let len = usual.unwrap_or(DEFAULT_LEN).max(needed);
    if len > MAX_LEN {
        return Err(Error::of_kind(OP, ErrorKind::Unsupported)
            .with_advice("what is not released is longer than the longest segment"));
    }
    // What stands at a number that no segment can have is not counted on from.
    let numbers = found.heads.iter().map(|h| h.file.number);
    let mut number = numbers.filter(|n| *n < NUMBER_LIMIT - 1).max().unwrap_or(0) + 1;
    loop {
        let header = Header {
            id,
            number,
            len,
            replaces: found.id,
        };
        match segment::create(dir, &header, &frames, OP) {
            Ok(_) => return Ok(()),
            Err(NotCreated::Taken) => number += 1,
            Err(NotCreated::Clean(error) | NotCreated::Unsynced(error)) => return Err(error),
        }
    }
}

/// The frames of the repaired log, closed at the end.
fn encode(found: &Analysis, id: LogId, run: Run) -> Vec<u8> {
    let mut out = Vec::new();
    let released = found.released.to_le_bytes();
    let mut frames = found.frames.as_slice();
    // A run begins with a release frame; where nothing is released, the log's own first frame is that.
    let first = match found.released {
        0 => {
            frames = frames.get(1..).unwrap_or_default();
            1
        }
        seq => seq,
    };
    let size: usize = frames.iter().map(|f| room(f.payload.len())).sum();
    out.reserve(size + 2 * BLOCK);
    frame::push(&mut out, first, true, release(&released));
    let mut last = first;
    for frame in frames {
        let content = Content {
            kind: frame.kind,
            transaction: frame.transaction,
            fence: frame.fence,
            payload: Payload::new(&frame.payload),
        };
        frame::push(&mut out, frame.seq, false, content);
        last = frame.seq;
    }
    seal(&mut out, id.seed(), run, first - 1);
    let close = Content {
        kind: KIND_CLOSE,
        transaction: 0,
        fence: 0,
        payload: Payload::new(&[]),
    };
    let mut end = Vec::new();
    frame::push(&mut end, last + 1, false, close);
    seal(&mut end, id.seed(), run, last);
    out.extend_from_slice(&end);
    out
}

/// Renames a segment of the damaged log.
fn set_aside(dir: &Dir, found: &Analysis, number: u64) -> Result<Name> {
    let name = segment::name(number)?;
    let (id, mut copy) = (show_id(found.id), 0);
    loop {
        let suffix = if copy == 0 {
            String::new()
        } else {
            format!("-{copy}")
        };
        let aside = segment::named(format!("damaged-{}-{number:016x}{suffix}", &id[..8]))?;
        let (from, to) = (name.as_c_str(), aside.as_c_str());
        match rename_new(dir, from, to) {
            Ok(()) => return Ok(aside),
            Err((_, Errno::EXIST)) => copy += 1,
            Err((call, e)) => {
                let error = Error::new(OP, call, e).with_path(&name);
                return Err(error.with_state(DiskState::Published));
            }
        }
    }
}

fn rename_new(
    dir: &Dir,
    from: &std::ffi::CStr,
    to: &std::ffi::CStr,
) -> Result<(), (&'static str, Errno)> {
    const FLAGS: RenameFlags = RenameFlags::NOREPLACE;
    match sys::renameat2(dir, from, dir, to, FLAGS) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        done => return done.map_err(|e| (sys::rename_call(FLAGS), e)),
    }
    sys::linkat(dir, from, dir, to).map_err(|e| ("linkat", e))?;
    sys::unlinkat(dir, from).map_err(|e| ("unlinkat", e))
}
