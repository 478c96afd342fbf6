//! The log itself: what was synced is there, in order and whole, until it is released.

use crate::common;
use crate::recorder::Recorder;
use crate::rules::REAL;
use crate::run::{Budget, Subject, record, scale};
use std::fs;
use std::path::Path;
use steadfast::Root;
use steadfast::journal::{Log, LogOptions, Record, Recovered};

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Records up to this one are durable.
    synced: u64,
    /// Those up to this one may be released.
    released: u64,
}

const KIND: u16 = Record::FIRST_KIND;

/// The content of a record: of some bytes, or of more than one block.
fn content(n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(3) {
        5_000
    } else {
        20 + n as usize
    };
    (0..len).map(|at| (at as u64 * 7 + n) as u8).collect()
}

fn open(at: &Path) -> Result<(Log, Recovered), String> {
    let root = Root::open(at.join("log")).map_err(|e| e.to_string())?;
    let dir = root.dir().try_clone().map_err(|e| e.to_string())?;
    let options = LogOptions::new().create(true).max_segments(6);
    let options = options.segment_len(16 << 10).further_segment_len(24 << 10);
    options.open(dir).map_err(|e| format!("{e}: {e:?}"))
}

fn check(at: &Path, known: Known) -> Result<(), String> {
    let (log, found) = open(at)?;
    let numbers: Vec<u64> = found.records.iter().map(|r| r.transaction).collect();
    let is_row = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let has_all = match (numbers.first(), numbers.last()) {
        (Some(first), Some(last)) => *first <= known.released + 1 && *last >= known.synced,
        _ => known.synced <= known.released,
    };
    let is_whole =
        (found.records.iter()).all(|r| r.kind == KIND && r.payload == content(r.transaction));
    if !(is_row && has_all && is_whole) {
        return Err(format!("found {numbers:?}, whole: {is_whole}"));
    }
    // It can be written on, in its row: this check is cut as well, and what it wrote may be there.
    let next = numbers.last().map_or(known.released, |last| *last) + 1;
    let payload = content(next);
    let record = Record::new(KIND, &payload).transaction(next);
    log.append_durable(&[record]).map_err(|e| e.to_string())?;
    drop(log);
    let (log, found) = open(at)?;
    match found.records.last() {
        Some(last) if last.transaction == next => log.close().map_err(|e| e.to_string()),
        last => Err(format!("{next} was written, and {last:?} is there")),
    }
}

#[test]
fn a_log() {
    if common::switched_off() {
        return;
    }
    let ready = |top: &Path| {
        fs::create_dir(top.join("log")).unwrap();
        open(top).unwrap().0.close().unwrap();
    };
    let run = |top: &Path, recorder: &Recorder<Known>| {
        let (log, _) = open(top).unwrap();
        let mut known = Known::default();
        let mut ends = vec![0];
        // Each sync is for three of them, and most are released soon after: segments are used again.
        for group in 0..8 {
            for n in 1..=3 {
                let n = group * 3 + n;
                let payload = content(n);
                let done = log.append(&[Record::new(KIND, &payload).transaction(n)]);
                ends.push(done.unwrap().last);
            }
            log.sync(ends[ends.len() - 1]).unwrap();
            known.synced = group * 3 + 3;
            recorder.know(known);
            if group % 2 == 1 {
                known.released = known.synced - 2;
                recorder.know(known);
                let end = ends[known.released as usize];
                let release = log.release(end).unwrap();
                if group % 4 == 1 {
                    log.sync(release).unwrap();
                }
            }
        }
    };
    let (record, cuts, (), _work) = record(Known::default(), ready, run);
    let checked = |at: &Path, known: &Known| check(at, *known);
    let subject = Subject {
        name: "log",
        families: &REAL,
        record,
        cuts,
        budget: Budget {
            masks: 4 * scale(),
            torn: 2 * scale().min(40) as u64,
            mixed: 2 * scale().min(40),
            nested: 30,
        },
        check: &checked,
    };
    crate::count("log", subject.prove());
}
