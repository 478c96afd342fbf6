//! A log that is released again and again stays small, and old frames never come back.

use crate::common;
use crate::support::{count, dir, image, long, numbers, open, payload, record};
use steadfast::ErrorKind;
use steadfast::journal::{End, Log, LogOptions, inspect};
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

/// A log may begin short, and grow by longer segments. How long one payload may be is said by the shortest,
/// and how much goes into a segment by its own length.
#[test]
fn a_log_grows_by_longer_segments() {
    let tmp = common::dir();
    let options = LogOptions::new()
        .segment_len(8 << 10)
        .further_segment_len(32 << 10)
        .max_segments(3);
    let lens = || -> Vec<usize> { image(tmp.path()).values().map(Vec::len).collect() };
    let (log, _) = options.open(dir(tmp.path())).unwrap();
    assert_eq!(lens(), [8 << 10]);
    let limit = log.max_payload();
    assert!((6000..8 << 10).contains(&limit), "{limit}");
    let mut n = 0;
    let mut append = |log: &Log| {
        let appended = log.append_durable(&[record(&payload(n, 1400))]);
        n += u64::from(appended.is_ok());
        appended
    };
    let full = loop {
        if let Err(error) = append(&log) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    assert_eq!(lens(), [8 << 10, 32 << 10, 32 << 10]);
    // 4 in the first and 19 in each of the others: frames begin at blocks, and some room is kept.
    assert_eq!(log.last() - 3, 42);
    drop(log);
    // Whoever opens it next goes on with what there is, and adds what it says itself.
    for further in [None, Some(16 << 10), Some(1)] {
        let mut options = LogOptions::new().segment_len(64 << 10);
        if let Some(len) = further {
            options = options.further_segment_len(len);
        }
        let (log, found) = options.open(dir(tmp.path())).unwrap();
        assert_eq!(log.max_payload(), limit);
        assert!(found.records.len() >= 42, "{}", found.records.len());
        numbers(&found.records);
        let before = lens().len();
        while lens().len() == before {
            append(&log).unwrap();
        }
        let added = *lens().last().unwrap();
        assert_eq!(added as u64, further.unwrap_or(0).max(8 << 10));
    }
    let (log, found) = options.open(dir(tmp.path())).unwrap();
    let all: Vec<u64> = (0..found.records.len() as u64).collect();
    assert_eq!(numbers(&found.records), all);
    // All are used again, each as long as it is.
    log.sync(log.release(log.last()).unwrap()).unwrap();
    let mut appended = 0;
    while append(&log).is_ok() {
        appended += 1;
    }
    assert_eq!(lens(), [8, 32, 32, 8, 16, 8].map(|len: usize| len << 10));
    assert!(appended > 42, "{appended}");
    drop(log);
    let (_, found) = options.open(dir(tmp.path())).unwrap();
    assert_eq!(found.records.len(), appended);
    numbers(&found.records);
}

/// A used segment that is taken again is opened and looked at, no more: nothing is written or
/// synced beforehand.
#[test]
fn taking_a_segment_again_costs_three_calls() {
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
            assert!(seen.len() <= 7, "{seen:?}");
        }
        log.release(appended.last).unwrap();
    }
}
