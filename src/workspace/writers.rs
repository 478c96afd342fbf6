//! The logs of a workspace: each writer has one of its own, whose lock is the writer's life.

use super::section::Story;
use super::setup;
use super::state::{State, Sub};
use crate::journal::{self, Inspection, Log, LogOptions, Recovered};
use crate::root::{Dir, sync_names, temp_name};
use crate::sys::{self, AsFd, Errno, Mode, OFlags};
use crate::{Error, ErrorKind, Name, Result};
use std::ffi::CString;

const OP: &str = "open a log of the workspace";

/// How a writer's log is made. One that is there keeps its segment length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriterOptions {
    /// In bytes. It bounds the longest record.
    pub(crate) segment_len: u64,
    /// Of those that are added.
    pub(crate) further_segment_len: u64,
    /// How many there may be before a checkpoint is due.
    pub(crate) max_segments: u32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        // Room for the contents that travel in one record, with as much again for what is around them.
        Self {
            segment_len: 1 << 20,
            further_segment_len: 4 << 20,
            max_segments: 17,
        }
    }
}

impl WriterOptions {
    fn log(self) -> LogOptions {
        LogOptions::new()
            .segment_len(self.segment_len)
            .further_segment_len(self.further_segment_len)
            .max_segments(self.max_segments)
    }
}

/// A log that is held, and its index.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) log: Log,
    pub(crate) index: u32,
}

/// Opens a log. What the ledger knows of its end is void then, for the caller may write to it.
fn open(state: &State, index: u32, options: LogOptions, dir: Dir) -> Result<(Log, Recovered)> {
    let end = || state.ledger.closed(index, state.incarnation());
    let opened = options.open_knowing(dir, end)?;
    // Also of one that is new: there may have been another in its place.
    state.ledger.reopened(index)?;
    Ok(opened)
}

/// Closes a log, so that the next open of it reads little.
///
/// # Errors
/// As [`Log::close`].
pub(super) fn close(state: &State, index: u32, log: Log) -> Result<()> {
    log.close_and(|last| {
        // Without the note it is only dearer to open.
        let _ = (state.ledger).note_closed(index, last, state.incarnation());
    })
}

/// Opens a log for a new writer: the first one that nobody holds and that has nothing left in it, or a new
/// one. Its name is durable when this returns.
///
/// # Errors
/// As [`LogOptions::open`]. A log that is damaged is passed over: [`open_dead`] tells of it.
pub(crate) fn open_own(state: &State, options: WriterOptions) -> Result<(Writer, Recovered)> {
    let there = indices(state)?;
    for &index in &there {
        let opened = open_dir(state, index).and_then(|dir| open(state, index, options.log(), dir));
        match opened {
            Ok((log, found)) if found.records.is_empty() => {
                if found.last == 0 {
                    // It was never used: its maker may have died before he synced its name.
                    sync(state)?;
                }
                return Ok((Writer { log, index }, found));
            }
            // A dead one's work, or his to say what is wrong with it.
            Ok(_) => {}
            Err(e) => match e.kind() {
                ErrorKind::Busy | ErrorKind::Corrupt | ErrorKind::NotFound => {}
                _ => return Err(name_log(e, index)),
            },
        }
    }
    let mut index = 1;
    loop {
        while there.binary_search(&index).is_ok() {
            index += 1;
        }
        match make(state, index, options) {
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::AlreadyExists) => index += 1,
            done => return done,
        }
    }
}

fn make(state: &State, index: u32, options: WriterOptions) -> Result<(Writer, Recovered)> {
    let fail = |call, e| name_log(Error::new(OP, call, e), index);
    let name = dir_name(index)?;
    let dir = setup::make_folder(&state.logs, &name).map_err(|(call, e)| fail(call, e))?;
    let (log, found) = open(state, index, options.log(), dir).map_err(|e| name_log(e, index))?;
    if !found.records.is_empty() {
        // Somebody made it meanwhile, used it and died.
        return Err(name_log(Error::of_kind(OP, ErrorKind::Busy), index));
    }
    sync(state)?;
    Ok((Writer { log, index }, found))
}

/// The indices of all logs in order, and whether somebody holds each.
pub(crate) fn list(state: &State) -> Result<Vec<(u32, bool)>> {
    let all = indices(state)?;
    all.into_iter()
        .map(|index| Ok((index, is_live(state, index)?)))
        .collect()
}

/// A log that nobody held: it is held now.
#[derive(Debug)]
pub(crate) struct DeadLog {
    pub(crate) index: u32,
    /// An error that concerns this log only.
    pub(crate) log: Result<(Log, Recovered)>,
}

/// Takes every log that nobody holds, in the order of their indices.
///
/// # Errors
/// The folder cannot be read. What is wrong with one log, such as [`ErrorKind::Corrupt`], is in its place in
/// the answer.
pub(crate) fn open_dead(state: &State) -> Result<Vec<DeadLog>> {
    let mut out = Vec::new();
    for index in indices(state)? {
        // One that its maker never filled has no segment, and gets one when it is used.
        let options = LogOptions::new().create(false);
        let log = open_dir(state, index).and_then(|dir| open(state, index, options, dir));
        match log {
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::NotFound) => {}
            log => out.push(DeadLog {
                index,
                log: log.map_err(|e| name_log(e, index)),
            }),
        }
    }
    Ok(out)
}

/// What a log holds, without its lock.
pub(crate) fn inspect(state: &State, index: u32) -> Result<Inspection> {
    let dir = open_dir(state, index)?;
    journal::inspect(&dir).map_err(|e| name_log(e, index))
}

/// Whether somebody holds a log. One that is not there is nobody's.
pub(crate) fn is_live(state: &State, index: u32) -> Result<bool> {
    match open_dir(state, index) {
        Ok(dir) => journal::is_live(&dir).map_err(|e| name_log(e, index)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether there is a log of this index, be it without a record.
pub(super) fn exists(state: &State, index: u32) -> Result<bool> {
    match inspect(state, index) {
        Ok(found) => Ok(found.end != journal::End::Empty),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The first log that somebody holds, that is damaged, or that has a record above the horizon.
pub(super) fn first_with_open_work(state: &State) -> Result<Option<u32>> {
    let horizon = state.ledger.horizon()?;
    for index in indices(state)? {
        let found = inspect(state, index)?;
        let damaged = matches!(found.end, journal::End::Corrupt(_));
        // Numbers begin at 1: a record without one is not known to be over.
        let open =
            |record: &journal::Entry| record.transaction == 0 || record.transaction > horizon;
        if found.live || damaged || found.records.iter().any(open) {
            return Ok(Some(index));
        }
        // A section stays open however far the horizon is.
        let is_over = |story: &Result<Story>| story.as_ref().is_ok_and(Story::is_over);
        if !(Story::each(&found.records).iter()).all(|(_, story)| is_over(story)) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// A fresh name for something in `staged/`, `kept/` or `retired/` that belongs to the log with this index.
/// Random: nobody uses it, and creating it exclusively tells.
pub(crate) fn fresh_name(index: u32) -> Result<Name> {
    let number =
        temp_name::next_random().map_err(|e| Error::new("draw a private name", "getrandom", e))?;
    private_name(index, number)
}

fn private_name(index: u32, number: u64) -> Result<Name> {
    // One for each file of a transaction: not by format!, which takes as long as all else here.
    let mut text = Vec::with_capacity(8 + 1 + 16 + 1);
    temp_name::hex(index.into(), 8, &mut text);
    text.push(b'-');
    temp_name::hex(number, 16, &mut text);
    Name::from_vec(text).map_err(|e| Error::new("draw a private name", "openat", e))
}

/// The index of the log whose writer made a private name; `None`: it is none.
pub(crate) fn owner_of(name: &Name) -> Option<u32> {
    let (index, number) = name.as_bytes().split_at_checked(8)?;
    let (dash, number) = number.split_first()?;
    let own = *dash == b'-' && number.len() == 16 && number.iter().all(is_digit);
    if own { parse(index) } else { None }
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)
}

/// An index from the name of its folder.
pub(super) fn parse(name: &[u8]) -> Option<u32> {
    if name.len() != 8 || !name.iter().all(is_digit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(name).ok()?, 16).ok()
}

fn dir_name(index: u32) -> Result<CString> {
    CString::new(format!("{index:08x}"))
        .map_err(|_| name_log(Error::new(OP, "openat", Errno::INVAL), index))
}

fn open_dir(state: &State, index: u32) -> Result<Dir> {
    open_in(&state.logs, index)
}

/// A log's folder in that of all.
pub(super) fn open_in(logs: &Dir, index: u32) -> Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    sys::openat(logs, dir_name(index)?.as_c_str(), flags, Mode::empty())
        .map(Dir::from)
        .map_err(|e| name_log(Error::new(OP, "openat", e), index))
}

/// In order.
fn indices(state: &State) -> Result<Vec<u32>> {
    let fail = |e| Error::new(OP, "getdents64", e).with_path(Sub::Logs.path());
    let mut out = Vec::new();
    let mut stream = state
        .logs
        .read_dir()
        .map_err(|e| e.with_operation(OP).with_default_path(Sub::Logs.path()))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        out.extend(parse(entry.name().to_bytes()));
    }
    out.sort_unstable();
    Ok(out)
}

fn sync(state: &State) -> Result<()> {
    sync_names(state.logs.as_fd())
        .map_err(|e| Error::new(OP, "fsync", e).with_path(Sub::Logs.path()))
}

/// The path of an error of the log, which knows the names of its files only.
fn name_log(error: Error, index: u32) -> Error {
    let log = format!("{}/{index:08x}", Sub::Logs.path());
    match error.path() {
        Some(_) => error.map_paths(|path| std::path::Path::new(&log).join(path)),
        None => error.with_path(log),
    }
}

#[cfg(test)]
mod tests;
