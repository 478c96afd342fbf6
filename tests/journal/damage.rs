//! Damage: found, reported with its place, never taken for a crash; what stands before it is kept.

use crate::common;
use crate::support::{Image, KIND, dir, image, long, materialise, numbers, open, payload, record};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use steadfast::journal::{Damage, DamageKind, End, Inspection, inspect, repair};
use steadfast::sys::hook;
use steadfast::{Error, ErrorKind};

/// Records of the log under test.
const RECORDS: u64 = 50;

/// A log of several segments with fifty records; with the place of each record's payload.
struct Log {
    image: Image,
    clean: bool,
    places: Vec<(String, usize)>,
}

impl Log {
    fn new(clean: bool) -> Self {
        let tmp = common::dir();
        let (log, _) = steadfast::journal::LogOptions::new()
            .segment_len(8192)
            .open(dir(tmp.path()))
            .unwrap();
        for n in 0..RECORDS {
            let payload = payload(n, 40 + (n as usize * 37) % 700);
            log.append_durable(&[record(&payload)]).unwrap();
        }
        if clean {
            log.close().unwrap();
        } else {
            drop(log);
        }
        let image = image(tmp.path());
        assert!(image.len() > 2);
        let places = (0..RECORDS)
            .map(|n| {
                let text = payload(n, 40);
                let at = |bytes: &Vec<u8>| bytes.windows(40).position(|w| w == text);
                let found = image
                    .iter()
                    .find_map(|(name, b)| Some((name.clone(), at(b)?)));
                found.unwrap()
            })
            .collect();
        Self {
            image,
            clean,
            places,
        }
    }

    /// How many records end before this place.
    fn before(&self, name: &str, at: usize) -> usize {
        let earlier = |n: &usize| {
            let (segment, start) = &self.places[*n];
            let end = start + 40 + (n * 37) % 700;
            segment.as_str() < name || (segment == name && end <= at)
        };
        (0..self.places.len()).take_while(earlier).count()
    }

    /// What reading may say of the log, damaged at this place and not before it.
    fn check(&self, seen: &Inspection, name: &str, at: usize) {
        let found = numbers(&seen.records);
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let least = self.before(name, at);
        assert!(
            found.len() >= least,
            "{at}: {} of {least} records",
            found.len()
        );
        match &seen.end {
            End::Corrupt(damage) => {
                let number = format!("{:016x}.seg", damage.segment);
                let place = (number.as_str(), damage.offset);
                assert!(place <= (name, at as u64), "{damage:?} for {name} {at}");
                assert!(damage.to_string().contains(&damage.segment.to_string()));
            }
            // Nothing is lost; or the log was not closed, and it is the end that is lost.
            _ if self.clean => assert_eq!(found.len() as u64, RECORDS, "{name} {at}"),
            _ => assert!(found.len() as u64 >= RECORDS - 1, "{name} {at}"),
        }
    }
}

fn look(path: &Path) -> Inspection {
    inspect(&dir(path)).unwrap()
}

fn damage_in(error: &Error) -> Damage {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let detail = error.detail().unwrap();
    detail.downcast_ref::<Damage>().unwrap().clone()
}

/// Opening says the same as looking; after a repair the log opens, with what stood before, and goes on.
fn open_and_repair(path: &Path, seen: &Inspection) {
    let before = image(path);
    match (open(path), &seen.end) {
        (Err(error), End::Corrupt(damage)) => assert_eq!(damage_in(&error), *damage),
        (Ok((_, found)), End::Clean | End::Open { .. }) => {
            assert_eq!(found.records, seen.records);
            return;
        }
        (answer, end) => panic!("{answer:?} for {end:?}"),
    }
    assert_eq!(image(path), before, "a refused log was changed");
    let done = repair(&dir(path)).unwrap();
    assert!(done.damage.is_some() && done.last >= seen.last);
    assert_eq!(done.set_aside.len(), before.len());
    for (name, bytes) in done.set_aside.iter().zip(before.values()) {
        assert!(name.as_bytes().starts_with(b"damaged-"));
        assert_eq!(
            &fs::read(path.join(name)).unwrap(),
            bytes,
            "a damaged file was changed"
        );
    }
    // What is given up is said: all records that are not kept, each by its transaction if it can be read.
    let kept = seen.records.len() as u64;
    let readable: Vec<_> = done
        .given_up
        .iter()
        .filter_map(|g| g.readable)
        .filter(|(kind, _)| *kind >= 16)
        .map(|(_, transaction)| transaction)
        .collect();
    assert!(readable.is_sorted() && readable.iter().all(|n| (kept..RECORDS).contains(n)));
    for pair in done.given_up.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq);
    }
    let (log, found) = open(path).unwrap();
    assert!(found.clean);
    assert_eq!(found.records, seen.records);
    log.append_durable(&[record(&payload(kept, 100))]).unwrap();
    log.close().unwrap();
    let (_, found) = open(path).unwrap();
    assert_eq!(numbers(&found.records), (0..=kept).collect::<Vec<_>>());
    // There is nothing more to repair.
    assert_eq!(repair(&dir(path)).unwrap().damage, None);
}

#[test]
fn every_flipped_bit_is_found_or_harms_nothing() {
    let stride = if long() { 1 } else { 211 };
    for clean in [true, false] {
        let log = Log::new(clean);
        let tmp = materialise(&log.image);
        let (mut flips, mut found, mut repairs) = (0, 0, 0);
        for (name, bytes) in &log.image {
            let file = fs::File::options()
                .write(true)
                .open(tmp.path().join(name))
                .unwrap();
            for bit in (0..bytes.len() * 8).step_by(stride) {
                let (at, flipped) = (bit / 8, bytes[bit / 8] ^ (1 << (bit % 8)));
                file.write_all_at(&[flipped], at as u64).unwrap();
                let seen = look(tmp.path());
                log.check(&seen, name, at);
                flips += 1;
                found += usize::from(matches!(seen.end, End::Corrupt(_)));
                if flips % 59 == 0 && repairs < 150 {
                    repairs += 1;
                    let mut damaged = log.image.clone();
                    damaged.get_mut(name).unwrap()[at] = flipped;
                    open_and_repair(materialise(&damaged).path(), &seen);
                }
                file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            }
        }
        eprintln!("{flips} flips, {found} of them corruption, {repairs} repairs");
        assert!(found * 3 > flips, "{found} of {flips}");
    }
}

#[test]
fn every_cut_file_is_found_and_repaired() {
    let stride = if long() { 1 } else { 97 };
    for clean in [true, false] {
        let log = Log::new(clean);
        let mut cuts = 0;
        for (name, bytes) in &log.image {
            // And around the end of what is written.
            let end = bytes.iter().rposition(|b| *b != 0).unwrap();
            let all = (0..bytes.len()).step_by(stride);
            for len in all.chain(end - 70..(end + 20).min(bytes.len())) {
                let mut damaged = log.image.clone();
                damaged.get_mut(name).unwrap().truncate(len);
                let tmp = materialise(&damaged);
                let seen = look(tmp.path());
                assert!(
                    matches!(seen.end, End::Corrupt(_)),
                    "{name} {len}: {:?}",
                    seen.end
                );
                log.check(&seen, name, len);
                cuts += 1;
                if cuts % 37 == 0 {
                    open_and_repair(tmp.path(), &seen);
                }
            }
        }
    }
}

/// Blocks that were never written although the disk said so, and blocks with something else in them.
#[test]
fn lost_and_misplaced_blocks_are_found() {
    for clean in [true, false] {
        let log = Log::new(clean);
        for (name, bytes) in &log.image {
            for at in (0..bytes.len()).step_by(512) {
                for with in [vec![0; 512], bytes[512..1024].to_vec()] {
                    if bytes[at..at + 512] == with {
                        continue;
                    }
                    let mut damaged = log.image.clone();
                    damaged.get_mut(name).unwrap()[at..at + 512].copy_from_slice(&with);
                    let tmp = materialise(&damaged);
                    let seen = look(tmp.path());
                    log.check(&seen, name, at);
                    if at % 4096 == 512 {
                        open_and_repair(tmp.path(), &seen);
                    }
                }
            }
        }
    }
}

#[test]
fn a_missing_segment_is_found() {
    for clean in [true, false] {
        let log = Log::new(clean);
        let last = log.image.keys().next_back().unwrap();
        for name in log.image.keys().filter(|n| *n != last) {
            let mut damaged = log.image.clone();
            damaged.remove(name);
            let tmp = materialise(&damaged);
            let seen = look(tmp.path());
            assert!(
                matches!(seen.end, End::Corrupt(_)),
                "{name}: {:?}",
                seen.end
            );
            log.check(&seen, name, 0);
            open_and_repair(tmp.path(), &seen);
        }
    }
}

#[test]
fn segments_of_two_logs_are_not_taken_for_one() {
    let (one, other) = (Log::new(true), Log::new(true));
    let name = one.image.keys().nth(1).unwrap();
    let mut mixed = one.image.clone();
    mixed.insert(name.clone(), other.image[name].clone());
    let tmp = materialise(&mixed);
    let seen = look(tmp.path());
    let End::Corrupt(damage) = &seen.end else {
        panic!("{:?}", seen.end)
    };
    assert!(
        matches!(damage.kind, DamageKind::Foreign | DamageKind::Frame),
        "{damage:?}"
    );
    let done = repair(&dir(tmp.path())).unwrap();
    assert_eq!(done.set_aside.len(), mixed.len());
    let (_, found) = open(tmp.path()).unwrap();
    let kept = numbers(&found.records);
    assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
    assert!(!kept.is_empty());
}

/// Also if it holds nothing that this log would read: somebody mixed up two directories.
#[test]
fn a_segment_of_another_log_is_not_passed_over() {
    let log = Log::new(true);
    let other = Log::new(true);
    let numbers: Vec<_> = log.image.keys().collect();
    let next = format!("{:016x}.seg", numbers.len() + 1);
    // An empty segment of the other log, by that number.
    let mut mixed = log.image.clone();
    let mut header = other.image[numbers[0]][..512].to_vec();
    header[32..40].copy_from_slice(&(numbers.len() as u64 + 1).to_le_bytes());
    let crc = crc32c::crc32c(&header[..508]);
    header[508..].copy_from_slice(&crc.to_le_bytes());
    header.resize(8192, 0);
    mixed.insert(next, header);
    let seen = look(materialise(&mixed).path());
    assert!(
        matches!(&seen.end, End::Corrupt(d) if d.kind == DamageKind::Foreign),
        "{:?}",
        seen.end
    );
}

/// A log that was closed and opened again goes on in the next segment. If the beginning of that is damaged,
/// the closing frame is the last that stands, and yet not the end.
#[test]
fn what_follows_a_closing_frame_is_missed() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 3000))]).unwrap();
    log.close().unwrap();
    let (log, _) = open(tmp.path()).unwrap();
    let long = log.max_payload() as usize - 2000;
    for (n, len) in [(2, long), (3, 10)] {
        log.append_durable(&[record(&payload(n, len))]).unwrap();
    }
    drop(log);
    let mut damaged = image(tmp.path());
    assert_eq!(damaged.len(), 2);
    let mut newest = damaged.last_entry().unwrap();
    newest.get_mut()[520] ^= 1;
    let seen = look(materialise(&damaged).path());
    assert!(matches!(seen.end, End::Corrupt(_)), "{:?}", seen.end);
}

/// Nor is a free segment that is missing: what it held was released, but more may have been taken away.
#[test]
fn a_missing_free_segment_is_found() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    for n in 0..100 {
        if log.append_durable(&[record(&payload(n, 900))]).is_err() {
            break;
        }
    }
    log.sync(log.release(log.last()).unwrap()).unwrap();
    log.close().unwrap();
    let names: Vec<_> = image(tmp.path()).into_keys().collect();
    assert_eq!(names.len(), 3);
    std::fs::remove_file(tmp.path().join(&names[1])).unwrap();
    let seen = look(tmp.path());
    assert!(
        matches!(&seen.end, End::Corrupt(d) if (d.kind, d.segment) == (DamageKind::Missing, 2)),
        "{:?}",
        seen.end
    );
}

/// What was set aside before, under the name that comes next, stays.
#[test]
fn setting_aside_replaces_nothing() {
    let log = Log::new(false);
    let name = log.image.keys().next().unwrap();
    let mut damaged = log.image.clone();
    damaged.get_mut(name).unwrap()[600] ^= 1;
    let tmp = materialise(&damaged);
    let id = &look(tmp.path()).id[..8];
    let before = format!("damaged-{id}-{}", name.strip_suffix(".seg").unwrap());
    std::fs::write(tmp.path().join(&before), "before").unwrap();
    let (done, calls) = hook::scope(None, || repair(&dir(tmp.path())).unwrap());
    assert_eq!(
        std::fs::read_to_string(tmp.path().join(&before)).unwrap(),
        "before"
    );
    let first = done.set_aside[0].as_os_str().to_str().unwrap();
    assert_eq!(first, format!("{before}-1"));
    // The names are synced once all of them are given.
    assert_eq!(calls.last(), Some(&"fcntl(F_OFD_SETLK, F_UNLCK)"));
    assert_eq!(calls[calls.len() - 2], "fsync");
}

/// A log with nothing left to read is set aside whole, and a new one begins.
#[test]
fn a_log_without_one_readable_byte() {
    let log = Log::new(true);
    let mut damaged = log.image.clone();
    for bytes in damaged.values_mut() {
        bytes.fill(0x55);
    }
    let tmp = materialise(&damaged);
    let seen = look(tmp.path());
    assert!(matches!(&seen.end, End::Corrupt(d) if d.kind == DamageKind::Header));
    open_and_repair(tmp.path(), &seen);
}

#[test]
fn what_is_undamaged_is_not_repaired() {
    let log = Log::new(false);
    let tmp = materialise(&log.image);
    let done = repair(&dir(tmp.path())).unwrap();
    assert!(done.damage.is_none() && done.given_up.is_empty() && done.set_aside.is_empty());
    assert_eq!(image(tmp.path()), log.image);
    let empty = common::dir();
    assert_eq!(
        repair(&dir(empty.path())).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

/// A log of one long segment: the group behind a small one is damaged, and the one after that proves it,
/// wherever it begins.
#[test]
fn a_proof_is_found_wherever_it_stands() {
    let tmp = common::dir();
    for clean in [false, true] {
        for first in (0..512).step_by(24) {
            // Around the ends of what is read at once, and far behind them.
            for blocks in [63, 127, 254, 255, 256, 600] {
                let at = tmp.path().join(format!("{clean}-{first}-{blocks}"));
                fs::create_dir(&at).unwrap();
                let (log, _) = steadfast::journal::LogOptions::new()
                    .segment_len(512 << 10)
                    .open(dir(&at))
                    .unwrap();
                log.append_durable(&[record(&payload(1, 8 + first))])
                    .unwrap();
                let long = payload(2, blocks * 512 - 64);
                let lost = log.append_durable(&[record(&long)]).unwrap().last;
                log.append_durable(&[record(&payload(3, 16))]).unwrap();
                if clean {
                    log.close().unwrap();
                } else {
                    drop(log);
                }
                let segment = at.join("0000000000000001.seg");
                let mut bytes = fs::read(&segment).unwrap();
                let payload = bytes.windows(64).position(|w| w == &long[..64]).unwrap();
                bytes[payload] ^= 1;
                fs::write(&segment, bytes).unwrap();
                let error = open(&at).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::Corrupt,
                    "{first} {blocks}: {error}"
                );
                let found = inspect(&dir(&at)).unwrap();
                let End::Corrupt(damage) = found.end else {
                    panic!("{first} {blocks}: {found:?}");
                };
                // The closing frame knew of the proof as well.
                assert_eq!(damage.durable, lost + u64::from(clean), "{first} {blocks}");
                assert!(damage.offset < payload as u64, "{first} {blocks}");
                fs::remove_dir_all(&at).unwrap();
            }
        }
    }
}

/// A segment that was written to another one's place as well: which of the two holds what was added to it
/// later, neither can tell.
#[test]
fn a_segment_that_stands_twice_is_found() {
    let log = Log::new(true);
    let names: Vec<_> = log.image.keys().collect();
    for (from, to) in [(0, 1), (1, 0), (0, names.len() - 1)] {
        let mut image = log.image.clone();
        let frames = image[names[from]][512..].to_vec();
        image.get_mut(names[to]).unwrap()[512..].copy_from_slice(&frames);
        let tmp = materialise(&image);
        let seen = look(tmp.path());
        assert!(
            matches!(&seen.end, End::Corrupt(d) if d.kind == DamageKind::Foreign),
            "{from} to {to}: {:?}",
            seen.end
        );
        assert_eq!(open(tmp.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// What is left of a group that was torn has a number that the next writer gave to another record: of the
/// two, that one is told as given up.
#[test]
fn of_two_records_with_one_number_the_later_is_given_up() {
    const BLOCK: usize = 512;
    let tmp = common::dir();
    let name = "0000000000000001.seg";
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 20))]).unwrap();
    // One block; three; and, in the fifth, the one that is left.
    let torn = [
        payload(2, BLOCK - 64),
        payload(3, 3 * BLOCK - 64),
        payload(99, 20),
    ];
    let torn: Vec<_> = torn.iter().map(|p| record(p)).collect();
    let before = image(tmp.path());
    log.append_durable(&torn).unwrap();
    drop(log);
    let mut after = image(tmp.path());
    let bytes = after.get_mut(name).unwrap();
    let blocks = (0..bytes.len()).step_by(BLOCK);
    let changed: Vec<_> = blocks
        .filter(|at| before[name][*at..*at + BLOCK] != bytes[*at..*at + BLOCK])
        .collect();
    assert_eq!(changed.len(), 5);
    bytes[changed[0]..changed[4]].fill(0);
    let tmp = materialise(&after);
    let (log, found) = open(tmp.path()).unwrap();
    assert_eq!(numbers(&found.records), [1]);
    for n in 4..7 {
        log.append_durable(&[record(&payload(n, 20))]).unwrap();
    }
    drop(log);
    let mut image = image(tmp.path());
    let bytes = image.get_mut(name).unwrap();
    assert!(bytes.windows(20).any(|w| w == payload(99, 20)));
    // The beginning of the later run.
    bytes[changed[0] + 16] ^= 1;
    let tmp = materialise(&image);
    let done = repair(&dir(tmp.path())).unwrap();
    assert!(done.damage.is_some());
    let given_up: Vec<_> = done.given_up.iter().map(|g| g.readable).collect();
    let told = |n| Some((KIND, n));
    assert_eq!(given_up, [None, told(4), told(5), told(6)], "{done:?}");
}
