//! A log that is released again and again stays small, and old frames never come back.

use crate::common;
use crate::support::{count, dir, image, long, numbers, open, payload, record};
use steadfast::journal::{End, LogOptions, inspect};
use steadfast::sys::hook;

#[test]
fn a_hundred_thousand_records_in_a_few_segments() {
    let tmp = common::dir();
    let options = LogOptions::new().segment_len(64 * 1024).max_segments(4);
    let (mut log, _) = options.open(dir(tmp.path())).unwrap();
    let (mut opens, mut n) = (Vec::new(), 0);
    while n < 100_000 {
        let payloads: Vec<_> = (n..n + 100).map(|n| payload(n, 32)).collect();
        let records: Vec<_> = payloads.iter().map(|p| record(p)).collect();
        let appended = log.append_durable(&records).unwrap();
        n += 100;
        if n % 500 == 0 {
            // All but the newest hundred.
            log.release(appended.first - 1).unwrap();
        }
        if n % 20_000 == 0 {
            log.close().unwrap();
            let (opened, seen) = hook::scope(None, || options.open(dir(tmp.path())).unwrap());
            let (again, found) = opened;
            log = again;
            assert!(found.clean);
            assert_eq!(numbers(&found.records), (n - 100..n).collect::<Vec<_>>());
            opens.push((seen.len(), image(tmp.path()).len()));
        }
    }
    eprintln!("calls of an open, and segments: {opens:?}");
    for (calls, segments) in opens {
        assert!(
            segments <= 4 && calls <= 11 + 3 * segments,
            "{calls} {segments}"
        );
    }
}

/// A segment that is used again holds, behind its new frames, old ones that are whole.
#[test]
fn old_frames_behind_the_end_are_not_the_logs() {
    let tmp = common::dir();
    let (mut log, _) = open(tmp.path()).unwrap();
    let rounds = if long() { 400 } else { 60 };
    for n in 0..rounds {
        // Alike in length, so that old frames stand exactly where new ones could.
        let appended = log.append_durable(&[record(&payload(n, 440))]).unwrap();
        let release = log.release(appended.last).unwrap();
        log.sync(release).unwrap();
        let seen = inspect(&dir(tmp.path())).unwrap();
        assert!(
            seen.records.is_empty() && matches!(seen.end, End::Open { .. }),
            "{n}: {seen:?}"
        );
        if n % 3 == 0 {
            drop(log);
            let (again, found) = open(tmp.path()).unwrap();
            assert!(
                found.records.is_empty() && found.last == release,
                "{n}: {found:?}"
            );
            log = again;
        }
    }
    let magic = image(tmp.path()).remove("0000000000000001.seg").unwrap();
    let whole = magic
        .windows(4)
        .filter(|w| *w == [0xf5, b'S', b'F', 1])
        .count();
    assert!(
        whole > 10,
        "{whole} frames: nothing was left of earlier uses"
    );
}

/// A used segment that is taken again is opened and looked at, no more: nothing is written or
/// synced beforehand.
#[test]
fn taking_a_segment_again_costs_two_calls() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    for n in 0..200 {
        let append = || log.append_durable(&[record(&payload(n, 440))]).unwrap();
        let (appended, seen) = hook::scope(None, append);
        if n > 60 {
            assert!(
                count(&seen, "openat") <= 1 && count(&seen, "fsync") == 0,
                "{seen:?}"
            );
            assert!(seen.len() <= 6, "{seen:?}");
        }
        log.release(appended.last).unwrap();
    }
}
