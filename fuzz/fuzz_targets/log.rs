//! A log of any bytes is opened, or refused and repaired; what stood stays, and nothing is invented.
//!
//! The input is a program that writes a log byte by byte from the description of its format, and then
//! changes bytes. With the checksums put right afterwards, on half of the inputs, it gets behind them.
//! Without a change the library must read exactly what was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use steadfast::journal::{End, Entry, LogOptions, Record, inspect, repair};
use steadfast::{Dir, ErrorKind, Root};
use steadfast_fuzz::input::Input;
use steadfast_fuzz::log::{self, BLOCK, Log};

const ID: [u8; 16] = [7; 16];
const LENS: [usize; 3] = [8 << 10, 8 << 10, 9 << 10];

type Files = BTreeMap<String, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let all = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let named = all.map(|e| {
        (
            e.file_name().into_string().unwrap(),
            fs::read(e.path()).unwrap(),
        )
    });
    named.filter(|(name, _)| name != "lock").collect()
}

/// Writes a log as its format says.
fn write(input: &mut Input<'_>) -> Log {
    let mut log = Log::new(ID, input.of(&LENS));
    for _ in 0..input.below(24) {
        match input.below(8) {
            0..3 => {
                let count = 1 + input.below(4);
                let record = |input: &mut Input<'_>| {
                    let payload = vec![input.byte(); usize::from(input.short() % 700)];
                    (
                        16 + u16::from(input.byte() % 4),
                        u64::from(input.byte()),
                        0,
                        payload,
                    )
                };
                log.append((0..count).map(|_| record(input)).collect());
            }
            3 => {
                log.append(vec![(16, 1, 2, input.take(64).to_vec())]);
            }
            4 => log.run(),
            5 => {
                let back = u64::from(input.byte() % 8);
                let last = log.last();
                log.release(last.saturating_sub(back));
            }
            6 if log.segments.len() < 4 => log.segment(input.of(&LENS)),
            _ => log.close(),
        }
    }
    log
}

/// Changes bytes of the segments. True if it changed any.
fn change(input: &mut Input<'_>, segments: &mut Vec<(u64, Vec<u8>)>) -> bool {
    let changes = input.below(10);
    for _ in 0..changes {
        let which = input.below(segments.len());
        // Mostly a place in a header: of the segment, or of the first frame of a block.
        let block = usize::from(input.byte() % 18);
        let at = block * BLOCK + input.of(&[0, 4, 8, 12, 14, 16, 24, 32, 40, 48, 56, 64]);
        let bytes = &mut segments[which].1;
        let at = at.min(bytes.len().saturating_sub(1));
        let mut put = |what: &[u8]| {
            let end = bytes.len().min(at + what.len());
            let start = at.min(end);
            bytes[start..end].copy_from_slice(&what[..end - start]);
        };
        match input.below(8) {
            0 => put(&[input.byte()]),
            1 => put(&input.short().to_le_bytes()),
            2 => put(&input.long().to_le_bytes()),
            3 => {
                let n = usize::from(input.byte() % 64);
                put(input.take(n));
            }
            4 => put(&[0; BLOCK]),
            5 => {
                let len = usize::from(input.short()) % (12 << 10);
                bytes.resize(len, 0);
            }
            6 => {
                // A block from elsewhere, as of an earlier use.
                let from = usize::from(input.byte() % 16) * BLOCK;
                let to = block * BLOCK;
                if from.max(to) + BLOCK <= bytes.len() {
                    bytes.copy_within(from..from + BLOCK, to);
                }
            }
            _ => match input.below(3) {
                0 => segments[which].0 = u64::from(input.byte() % 8),
                1 if segments.len() > 1 => drop(segments.remove(which)),
                _ => {
                    let n = usize::from(input.short() % 2048);
                    let raw = input.take(n).to_vec();
                    segments.push((u64::from(input.byte() % 8), raw));
                }
            },
        }
    }
    changes > 0
}

fn shown(entries: &[Entry]) -> Vec<(u64, u16, u64, u64, &[u8])> {
    let show = |e: &'_ Entry| (e.seq, e.kind, e.transaction, e.fence);
    entries
        .iter()
        .map(|e| {
            let (seq, kind, transaction, fence) = show(e);
            (seq, kind, transaction, fence, e.payload.as_slice())
        })
        .collect()
}

fn run(data: &[u8]) {
    let mut input = Input(data);
    let mended = input.one_in(2);
    let written = write(&mut input);
    let mut segments = written.segments.clone();
    let changed = change(&mut input, &mut segments);
    if changed && mended {
        segments.iter_mut().for_each(|(_, bytes)| log::mend(bytes));
    }
    let temp = steadfast_fuzz::fresh();
    let path = temp.path();
    for (number, bytes) in &segments {
        fs::write(path.join(format!("{number:016x}.seg")), bytes).unwrap();
    }
    let root = Root::open(path).unwrap();
    let dir = || root.dir().try_clone().unwrap();
    check(path, &dir, (!changed).then_some(&written));
}

fn check(path: &Path, dir: &dyn Fn() -> Dir, written: Option<&Log>) {
    let before = files(path);
    let seen = match inspect(&dir()) {
        Ok(seen) => seen,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
            let refused = LogOptions::new().open(dir()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
            assert_eq!(files(path), before, "it is not ours, and was changed");
            return;
        }
    };
    assert_eq!(files(path), before, "looking has changed something");
    let numbers: Vec<u64> = seen.records.iter().map(|r| r.seq).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(
        numbers
            .iter()
            .all(|n| (seen.released + 1..=seen.last).contains(n))
    );
    if let Some(written) = written {
        let stands = written.standing();
        let stands: Vec<_> = stands
            .iter()
            .map(|r| (r.seq, r.kind, r.transaction, r.fence, r.payload.as_slice()))
            .collect();
        assert_eq!(shown(&seen.records), stands);
        assert_eq!(seen.last, written.last());
        // One in which nothing was ever written is as good as closed.
        let clean = written.closed || written.last() == 0;
        assert_eq!(seen.end == End::Clean, clean, "{:?}", seen.end);
    }
    let options = || {
        LogOptions::new()
            .segment_len(8 << 10)
            .further_segment_len(12 << 10)
            .max_segments(16)
    };
    let opened = options().open(dir());
    let (log, found) = match (opened, &seen.end) {
        (Ok(opened), end) => {
            assert!(!matches!(end, End::Corrupt(_)), "opened: {end:?}");
            opened
        }
        (Err(e), End::Corrupt(_)) => {
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
            assert_eq!(files(path), before, "refused, and changed");
            let done = repair(&dir()).unwrap();
            assert!(done.damage.is_some());
            assert_eq!(done.last, seen.last);
            let after = files(path);
            for name in &done.set_aside {
                let bytes = &after[std::str::from_utf8(name.as_bytes()).unwrap()];
                assert!(
                    before.values().any(|old| old == bytes),
                    "{name:?} was changed"
                );
            }
            assert_eq!(done.set_aside.len(), before.len());
            let again = repair(&dir()).unwrap();
            assert!(
                again.damage.is_none() && again.set_aside.is_empty(),
                "{again:?}"
            );
            options().open(dir()).unwrap()
        }
        (Err(e), end) => panic!("{e}: {end:?}"),
    };
    assert_eq!(shown(&found.records), shown(&seen.records));
    // It is a log like any other now.
    let done = match log.append_durable(&[Record::new(16, b"new").transaction(5)]) {
        // The bytes of a number were changed, and there is none behind it.
        Err(e) if e.kind() == ErrorKind::StorageFull && e.errno().is_none() => return,
        done => done.unwrap(),
    };
    assert!(done.first > seen.last);
    drop(log);
    let (log, found) = options().open(dir()).unwrap();
    let (last, old) = found.records.split_last().unwrap();
    assert_eq!(shown(old), shown(&seen.records));
    assert_eq!(
        (last.seq, last.payload.as_slice()),
        (done.last, b"new".as_slice())
    );
    log.release(done.last).unwrap();
    log.close().unwrap();
    let (_, found) = options().open(dir()).unwrap();
    assert!(found.clean && found.records.is_empty());
}

fuzz_target!(
    init: steadfast_fuzz::fixed::write_if_asked(),
    |data: &[u8]| run(data)
);
