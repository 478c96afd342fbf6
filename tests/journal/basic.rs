//! What is appended is found again, in order, and only that.

use crate::common::{self, FOREVER};
use crate::support::{KIND, count, dir, image, numbers, open, payload, record, small};
use std::fs;
use std::time::Duration;
use steadfast::journal::{End, LogOptions, Record, inspect};
use steadfast::sys::hook;
use steadfast::{DiskState, Error, ErrorKind};

#[test]
fn what_was_appended_is_found_with_all_its_fields() {
    let tmp = common::dir();
    let (log, found) = open(tmp.path()).unwrap();
    assert!(found.clean && found.records.is_empty() && found.last == 0);
    let texts: [&[u8]; 4] = [b"", b"one", &[0; 700], b"12345678"];
    let records: Vec<_> = (17..)
        .zip(texts)
        .map(|(n, t)| Record::new(n, t).transaction(u64::MAX).fence(n.into()))
        .collect();
    let appended = log.append_durable(&records).unwrap();
    assert_eq!(log.durable(), appended.last);
    drop(log);
    let (log, found) = open(tmp.path()).unwrap();
    assert!(!found.clean);
    assert_eq!(found.last, appended.last);
    let seqs: Vec<_> = found.records.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, (appended.first..=appended.last).collect::<Vec<_>>());
    for ((entry, kind), text) in found.records.iter().zip(17..).zip(texts) {
        assert_eq!((entry.kind, &entry.payload[..]), (kind, text));
        assert_eq!((entry.transaction, entry.fence), (u64::MAX, kind.into()));
    }
    log.close().unwrap();
    let (log, again) = open(tmp.path()).unwrap();
    assert!(again.clean);
    assert_eq!(again.records, found.records);
    // Nothing was appended: closing it again writes nothing.
    let before = image(tmp.path());
    log.close().unwrap();
    assert_eq!(image(tmp.path()), before);
}

/// Nothing was ever lost of a log in which nothing is.
#[test]
fn a_new_log_is_clean_however_it_was_left() {
    let tmp = common::dir();
    for close in [true, false, true] {
        let (log, found) = open(tmp.path()).unwrap();
        assert!(found.clean && found.records.is_empty() && found.last == 0);
        if close {
            log.close().unwrap();
        }
    }
    assert_eq!(inspect(&dir(tmp.path())).unwrap().end, End::Clean);
    // What a writer that died in its first group has left.
    let segment = tmp.path().join("0000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() = 1;
    fs::write(&segment, bytes).unwrap();
    let (log, found) = open(tmp.path()).unwrap();
    assert!(!found.clean && found.records.is_empty());
    let last = log.append_durable(&[record(&payload(1, 9))]).unwrap().last;
    drop(log);
    assert_eq!(open(tmp.path()).unwrap().1.last, last);
}

#[test]
fn one_record_costs_one_write_and_one_sync() {
    let tmp = common::dir();
    let (log, _) = LogOptions::new().open(dir(tmp.path())).unwrap();
    for n in 0..5 {
        let payload = payload(n, 100);
        let append = || log.append_durable(&[record(&payload)]).unwrap();
        assert_eq!(hook::scope(None, append).1, ["pwrite64", "fdatasync"]);
    }
    let (appended, seen) = hook::scope(None, || log.append(&[record(&payload(9, 9))]).unwrap());
    assert!(seen.is_empty());
    // Synced with what comes after it, and then already durable.
    let (_, seen) = hook::scope(None, || {
        log.append_durable(&[record(&payload(10, 9))]).unwrap()
    });
    assert_eq!(seen, ["pwrite64", "fdatasync"]);
    let (_, seen) = hook::scope(None, || log.sync(appended.last).unwrap());
    assert!(seen.is_empty());
    let (_, seen) = hook::scope(None, || log.close().unwrap());
    assert_eq!(
        seen,
        ["pwrite64", "fdatasync", "fcntl(F_OFD_SETLK, F_UNLCK)"]
    );
}

/// Records without a sync are only in memory; a crash loses them, in order.
#[test]
fn what_was_not_synced_is_lost_in_whole() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 10))]).unwrap();
    log.append(&[record(&payload(2, 10))]).unwrap();
    drop(log);
    assert_eq!(numbers(&open(tmp.path()).unwrap().1.records), [1]);
}

#[test]
fn open_close_and_crash_again_and_again() {
    let tmp = common::dir();
    let (mut want, mut clean) = (Vec::new(), true);
    for n in 0..40 {
        let (log, found) = small().max_segments(9).open(dir(tmp.path())).unwrap();
        assert_eq!(numbers(&found.records), want);
        assert_eq!(found.clean, clean, "{n}");
        if n % 5 != 4 {
            log.append_durable(&[record(&payload(n, (n * 13) as usize))])
                .unwrap();
            want.push(n);
            clean = false;
        }
        if n % 3 != 0 {
            log.close().unwrap();
            clean = true;
        }
    }
}

#[test]
fn released_records_do_not_come_back_and_their_segments_are_used_again() {
    let tmp = common::dir();
    let (mut log, _) = open(tmp.path()).unwrap();
    let mut last = 0;
    for n in 0..200 {
        let appended = log.append_durable(&[record(&payload(n, 500))]).unwrap();
        if n % 7 == 6 {
            log.release(last).unwrap();
        }
        last = appended.last;
        if n % 31 == 30 {
            log.sync(log.last()).unwrap();
            drop(log);
            let (again, found) = open(tmp.path()).unwrap();
            let held = numbers(&found.records);
            assert!(held.len() <= 8 && held.last() == Some(&n), "{held:?}");
            log = again;
        }
    }
    assert!(image(tmp.path()).len() <= 3);
    let release = log.release(last).unwrap();
    assert_eq!(log.release(last).unwrap(), release);
    assert!(log.released() < last);
    log.sync(release).unwrap();
    assert_eq!(log.released(), last);
    drop(log);
    assert!(open(tmp.path()).unwrap().1.records.is_empty());
}

/// A segment is free only once the release is durable: else a crash would find neither the records nor the
/// release.
#[test]
fn a_segment_is_not_reused_before_the_release_is_durable() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let mut last = 0;
    for n in 0..17 {
        last = log
            .append_durable(&[record(&payload(n, 700))])
            .unwrap()
            .last;
    }
    let before = image(tmp.path());
    log.release(last).unwrap();
    // It is the append that needs the room that syncs the release first.
    let mut n = 17;
    loop {
        let (done, seen) = hook::scope(None, || log.append(&[record(&payload(n, 700))]).map(drop));
        done.unwrap();
        n += 1;
        if let Some(opened) = seen.iter().position(|c| *c == "openat") {
            assert!(count(&seen[..opened], "fdatasync") > 0, "{seen:?}");
            break;
        }
        assert!(seen.is_empty(), "{seen:?}");
    }
    assert_eq!(image(tmp.path()).len(), before.len());
}

#[test]
fn a_full_log_refuses_waits_and_goes_on() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let full = |log: &steadfast::journal::Log| {
        for n in 0.. {
            match log.append_durable(&[record(&payload(n, 900))]) {
                Ok(_) => assert!(n < 100),
                Err(error) => return error,
            }
        }
        unreachable!()
    };
    let error = full(&log);
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert_eq!(error.disk_state(), DiskState::Unchanged);
    // It is not poisoned, and a release always finds room.
    for seq in 1..=log.last() {
        log.sync(log.release(seq).unwrap()).unwrap();
    }
    log.append_durable(&[record(&payload(1, 900))]).unwrap();
    full(&log);
    log.close().unwrap();
    let (log, found) = small()
        .wait_for_release(FOREVER)
        .open(dir(tmp.path()))
        .unwrap();
    let last = found.last;
    std::thread::scope(|s| {
        let waiter = s.spawn(|| log.append_durable(&[record(&payload(77, 900))]).map(drop));
        // Mostly it waits by now; if not, it has less to wait for.
        std::thread::sleep(Duration::from_millis(20));
        log.release(last).unwrap();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let limit = log.max_payload() as usize;
    let long = vec![1; limit + 1];
    let kind = |done: steadfast::Result<()>| done.unwrap_err().kind();
    let append = |record: Record<'_>| kind(log.append(&[record]).map(drop));
    assert_eq!(append(Record::new(15, b"")), ErrorKind::InvalidInput);
    assert_eq!(append(Record::new(KIND, &long)), ErrorKind::InvalidInput);
    assert_eq!(kind(log.append(&[]).map(drop)), ErrorKind::InvalidInput);
    assert_eq!(kind(log.sync(1)), ErrorKind::InvalidInput);
    assert_eq!(kind(log.release(1).map(drop)), ErrorKind::InvalidInput);
    assert_eq!(log.last(), 0);
    // The longest payload fits, in every segment.
    for _ in 0..5 {
        let at = log
            .append_durable(&[Record::new(KIND, &long[1..])])
            .unwrap();
        log.release(at.last).unwrap();
    }
    drop(log);
    let (_, found) = open(tmp.path()).unwrap();
    assert!(found.records.iter().all(|e| e.payload == long[1..]));
}

#[test]
fn a_second_opener_is_turned_away_and_a_reader_is_not() {
    let tmp = common::dir();
    assert!(matches!(inspect(&dir(tmp.path())).unwrap().end, End::Empty));
    let missing = LogOptions::new().create(false).open(dir(tmp.path()));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 50))]).unwrap();
    for _ in 0..2 {
        let error = open(tmp.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        let error = steadfast::journal::repair(&dir(tmp.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        let seen = inspect(&dir(tmp.path())).unwrap();
        assert!(
            seen.live
                && matches!(
                    seen.end,
                    End::Open {
                        segment: 1,
                        offset: 1024
                    }
                )
        );
        assert_eq!(numbers(&seen.records), [1]);
    }
    log.close().unwrap();
    let seen = inspect(&dir(tmp.path())).unwrap();
    assert!(!seen.live && seen.end == End::Clean, "{seen:?}");
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 50))]).unwrap();
    log.close().unwrap();
    let path = tmp.path().join("0000000000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..508]);
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let at = dir(tmp.path());
    let refusals: [Error; 3] = [
        open(tmp.path()).unwrap_err(),
        inspect(&at).unwrap_err(),
        steadfast::journal::repair(&at).unwrap_err(),
    ];
    for error in refusals {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// Files that are not the log's stay; what a dead writer had not finished goes.
#[test]
fn only_unfinished_segments_are_removed() {
    let tmp = common::dir();
    open(tmp.path()).unwrap().0.close().unwrap();
    for name in [
        ".sf-d0123456789abcdef96735b5a",
        "notes",
        "1.seg",
        "000000000000000g.seg",
    ] {
        fs::write(tmp.path().join(name), "mine").unwrap();
    }
    let no_unlink = [("unlinkat", steadfast::sys::Errno::IO)];
    let no_room = [("pwrite64", steadfast::sys::Errno::NOSPC), no_unlink[0]];
    let (log, _) = open(tmp.path()).unwrap();
    let error = hook::deny(&no_room, || {
        loop {
            match log.append(&[record(&payload(1, 900))]) {
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    });
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(error.left_behind().len(), 1);
    let left = tmp.path().join(&error.left_behind()[0]);
    assert!(left.exists());
    drop(log);
    open(tmp.path()).unwrap();
    assert!(!left.exists());
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 4 + 2);
}

/// The calls of opening a clean log do not depend on what it holds.
#[test]
fn opening_a_clean_log_costs_a_handful_of_calls() {
    let tmp = common::dir();
    let mut costs = Vec::new();
    for _ in 0..3 {
        let (log, _) = open(tmp.path()).unwrap();
        for n in 0..300 {
            let at = log.append_durable(&[record(&payload(n, 300))]).unwrap();
            log.release(at.last).unwrap();
        }
        log.close().unwrap();
        let segments = image(tmp.path()).len();
        let (opened, seen) = hook::scope(None, || open(tmp.path()).unwrap());
        costs.push(seen.len() - 3 * segments);
        for call in ["fsync", "fdatasync", "pwrite64"] {
            assert_eq!(count(&seen, call), 0, "{seen:?}");
        }
        drop(opened);
    }
    assert_eq!(costs[0], costs[2], "{costs:?}");
    eprintln!("{} calls, and 3 for each segment", costs[0]);
    assert!(costs[0] <= 12, "{costs:?}");
}

#[test]
fn handles_may_cross_threads() {
    fn both<T: Send + Sync>() {}
    both::<steadfast::journal::Log>();
    both::<steadfast::journal::Recovered>();
    both::<steadfast::journal::Damage>();
}
