//! Files with right checksums that no log has left: what opening takes, it takes again after an append;
//! what it cannot go on from, it refuses, and repair makes a log of it.

use crate::common;
use crate::support::{Image, KIND, dir, image, materialise, numbers, open, payload, record, small};
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::journal::{DamageKind, End, Record, inspect, repair};

const LEN: usize = 8192;
const BLOCK: usize = 512;
const ID: [u8; 16] = [7; 16];
const OTHER: [u8; 16] = [9; 16];
const NONE: [u8; 16] = [0; 16];
/// Numbers are below this.
const LIMIT: u64 = 1 << 62;

fn file(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// A segment that holds nothing.
fn segment(id: [u8; 16], number: u64, replaces: [u8; 16]) -> Vec<u8> {
    let mut out = b"sflog\r\n\x1a".to_vec();
    out.extend([1_u32, 512].iter().flat_map(|n| n.to_le_bytes()));
    out.extend(id);
    out.extend([number, LEN as u64].iter().flat_map(|n| n.to_le_bytes()));
    out.extend(replaces);
    out.resize(BLOCK - 4, 0);
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out.resize(LEN, 0);
    out
}

/// One with the beginning of a run, by which everything is released.
fn used(id: [u8; 16], number: u64, seq: u64, epoch: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(72_u32.to_le_bytes());
    frame.extend([2_u16, 1].iter().flat_map(|n| n.to_le_bytes()));
    let numbers = [seq, epoch, seq - 1, 0, 0, 5, seq];
    frame.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&id), &frame);
    let mut out = segment(id, number, NONE);
    out[BLOCK..BLOCK + 4].copy_from_slice(&[0xf5, b'S', b'F', 1]);
    out[BLOCK + 4..BLOCK + 8].copy_from_slice(&crc.to_le_bytes());
    out[BLOCK + 8..BLOCK + 8 + frame.len()].copy_from_slice(&frame);
    out
}

/// A log with one record, closed, in its first segment.
fn one_record() -> Image {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 40))]).unwrap();
    log.close().unwrap();
    let image = image(tmp.path());
    assert_eq!(image.len(), 1);
    image
}

/// Appends more than one segment holds, each time to what was opened before.
fn goes_on(path: &Path, before: &[u64]) {
    let mut want = before.to_vec();
    let open = || small().max_segments(9).open(dir(path));
    for n in 100..104 {
        let (log, found) = open().unwrap_or_else(|e| panic!("at record {n}: {e}"));
        assert_eq!(numbers(&found.records), want);
        log.append_durable(&[record(&payload(n, 3000))]).unwrap();
        want.push(n);
    }
    let (_, found) = open().unwrap();
    assert_eq!(numbers(&found.records), want);
}

/// It is refused, unchanged, for this segment; repaired, it holds these records, and goes on.
fn refused(files: &Image, segment: u64, kind: DamageKind, kept: &[u64]) {
    let tmp = materialise(files);
    let End::Corrupt(damage) = inspect(&dir(tmp.path())).unwrap().end else {
        panic!("it is taken for a log")
    };
    assert_eq!((damage.segment, damage.kind), (segment, kind));
    assert_eq!(open(tmp.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(&image(tmp.path()), files);
    let done = repair(&dir(tmp.path())).unwrap();
    assert_eq!(done.set_aside.len(), files.len());
    goes_on(tmp.path(), kept);
}

/// Its header is gone, and its frames are of another log: which number may the next one have?
#[test]
fn a_segment_of_another_log_without_its_header() {
    for id in [OTHER, NONE] {
        let mut files = one_record();
        let mut bytes = used(id, 2, 20, 3);
        bytes[..16].fill(0);
        files.insert(file(2), bytes);
        let kind = match id {
            NONE => DamageKind::Header,
            _ => DamageKind::Foreign,
        };
        refused(&files, 2, kind, &[1]);
    }
}

/// A repair gives the log that it makes a higher number than all that was there.
#[test]
fn a_log_that_was_replaced_behind_the_one_that_has_replaced_it() {
    let repaired = |number| {
        let mut bytes = used(ID, number, 20, 3);
        let header = segment(ID, number, OTHER);
        bytes[..BLOCK].copy_from_slice(&header[..BLOCK]);
        (file(number), bytes)
    };
    let old = |number| (file(number), used(OTHER, number, 9, 1));
    refused(
        &Image::from([repaired(1), old(2)]),
        2,
        DamageKind::Foreign,
        &[],
    );
    // As a repair leaves it that was killed.
    let tmp = materialise(&Image::from([old(1), repaired(2)]));
    goes_on(tmp.path(), &[]);
}

/// Of two logs that have replaced one another, none stands: nobody would read what is appended.
#[test]
fn logs_that_have_replaced_one_another() {
    let one = (file(1), segment(ID, 1, OTHER));
    let other = (file(2), segment(OTHER, 2, ID));
    refused(&Image::from([one, other]), 2, DamageKind::Foreign, &[]);
    for (id, replaced) in [(ID, ID), (NONE, OTHER)] {
        let odd = (file(1), segment(id, 1, replaced));
        refused(&Image::from([odd]), 1, DamageKind::Header, &[]);
    }
}

/// There is no number for the next one.
#[test]
fn a_segment_with_a_number_that_none_can_have() {
    for number in [LIMIT, u64::MAX] {
        let mut files = one_record();
        files.insert(file(number), segment(ID, number, NONE));
        let tmp = materialise(&files);
        assert_eq!(open(tmp.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        repair(&dir(tmp.path())).unwrap();
        goes_on(tmp.path(), &[1]);
        refused(
            &Image::from([(file(number), segment(ID, number, NONE))]),
            number,
            DamageKind::Header,
            &[],
        );
    }
    // It is full, and no other can follow.
    let last = Image::from([(file(LIMIT - 1), segment(ID, LIMIT - 1, NONE))]);
    let tmp = materialise(&last);
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 4000))]).unwrap();
    let error = log.append(&[record(&payload(2, 4000))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    log.close().unwrap();
    let (_, found) = open(tmp.path()).unwrap();
    assert_eq!(numbers(&found.records), [1]);
}

/// Whoever went on would write what nobody reads.
#[test]
fn numbers_that_are_used_up() {
    for (seq, epoch) in [
        (LIMIT - 1, 1),
        (LIMIT - 3, 1),
        (9, LIMIT - 1),
        (LIMIT - 40, LIMIT - 40),
    ] {
        let tmp = materialise(&Image::from([(file(1), used(ID, 1, seq, epoch))]));
        let mut want = Vec::new();
        for n in 1..30 {
            let (log, found) = open(tmp.path()).unwrap();
            assert_eq!(numbers(&found.records), want, "{seq} {epoch}");
            let payload = payload(n, 40);
            match log.append_durable(&[record(&payload), record(&payload)]) {
                Ok(_) => want.extend([n, n]),
                Err(e) => assert_eq!(e.kind(), ErrorKind::StorageFull, "{e}"),
            }
        }
        assert_eq!(want.is_empty(), seq.max(epoch) > LIMIT - 6, "{want:?}");
        let (log, found) = open(tmp.path()).unwrap();
        assert_eq!(numbers(&found.records), want);
        let more = Record::new(KIND, b"more");
        let error = log.append(&[more; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        while log.append(&[more]).is_ok() {}
        if !want.is_empty() {
            let error = log.release(log.last()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
        let error = log.close().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
}
