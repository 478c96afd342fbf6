//! Files with anything in them: an error or a higher number, never a panic, never a number that was
//! given.

use crate::common::{self, Random};
use crate::support::{MINUTE, file, kind, leases};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::lease::{Lease, LeaseOptions, LeaseState, Leases};
use steadfast::sys::hook;

/// A lease that was held four times, and the last number.
fn used(dir: &Path) -> (Leases, u64) {
    let leases = leases(dir);
    let mut last = 0;
    for _ in 0..4 {
        last = leases.try_acquire("a").unwrap().fence().get();
    }
    (leases, last)
}

/// Every way to ask. What answers a number, answers one that is high enough.
fn ask(leases: &Leases, last: u64, why: &str) -> bool {
    let fine = |e: ErrorKind| {
        assert!(
            matches!(e, ErrorKind::Corrupt | ErrorKind::Unsupported),
            "{why}: {e:?}"
        );
    };
    match leases.current("a") {
        Ok(number) => assert!(number.unwrap().get() >= last, "{why}: {number:?}"),
        Err(e) => fine(e.kind()),
    }
    for info in leases.list().unwrap() {
        let number = info.fence().map_or(u64::MAX, |f| f.get());
        assert!(number >= last, "{why}: {info:?}");
    }
    match leases.try_acquire("a") {
        Ok(lease) => {
            assert!(lease.fence().get() > last, "{why}: {}", lease.fence());
            lease.check().unwrap();
            // It is whole again.
            assert_eq!(leases.current("a").unwrap(), Some(lease.fence()));
            true
        }
        Err(e) => {
            fine(e.kind());
            false
        }
    }
}

#[test]
fn garbage_never_gives_a_number_twice() {
    let tmp = common::dir();
    let (leases, last) = used(tmp.path());
    let at = file(tmp.path(), "a");
    let whole = fs::read(&at).unwrap();
    let mut random = Random(0x1ea5e);
    let (mut granted, mut refused) = (0, 0);
    for round in 0..300 {
        let mut bytes = whole.clone();
        match round % 5 {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => {
                bytes = (0..random.below(20_000))
                    .map(|_| random.next() as u8)
                    .collect()
            }
            2 => {
                for _ in 0..=random.below(3) {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            3 => {
                // In one record.
                let (slot, len) = (random.below(2) * 4096, 1 + random.below(511));
                bytes[slot..slot + len].fill(random.next() as u8);
            }
            _ => bytes.extend((0..random.below(5000)).map(|_| random.next() as u8)),
        }
        fs::write(&at, &bytes).unwrap();
        match ask(&leases, last, &format!("round {round}")) {
            true => granted += 1,
            false => refused += 1,
        }
    }
    assert!(granted > 50 && refused > 50, "{granted} {refused}");
}

#[test]
fn a_file_that_lost_all_is_corrupt_and_stays_as_it_is() {
    let tmp = common::dir();
    let (leases, _) = used(tmp.path());
    let at = file(tmp.path(), "a");
    for bytes in [&b""[..], b"x", &[0; 8192], &[0xff; 9000]] {
        fs::write(&at, bytes).unwrap();
        let error = leases.try_acquire("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.disk_state(), steadfast::DiskState::Unchanged);
        let options = LeaseOptions::new().ttl(MINUTE);
        assert_eq!(kind(options.try_acquire(&leases, "a")), ErrorKind::Corrupt);
        assert_eq!(kind(leases.current("a")), ErrorKind::Corrupt);
        assert_eq!(leases.list().unwrap()[0].state(), LeaseState::Damaged);
        assert_eq!(fs::read(&at).unwrap(), bytes);
    }
}

/// The file of another lease, under this one's name, would bring its numbers along.
#[test]
fn the_file_of_another_lease_is_no_lease() {
    let tmp = common::dir();
    let (leases, _) = used(tmp.path());
    drop(leases.try_acquire("b").unwrap());
    fs::copy(file(tmp.path(), "b"), file(tmp.path(), "a")).unwrap();
    assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Corrupt);
}

#[test]
fn a_later_version_is_left_alone() {
    let tmp = common::dir();
    let (leases, _) = used(tmp.path());
    let at = file(tmp.path(), "a");
    let mut bytes = fs::read(&at).unwrap();
    bytes[8] = 2;
    let crc = crc32c(&bytes[..508]);
    bytes[508..512].copy_from_slice(&crc.to_le_bytes());
    fs::write(&at, &bytes).unwrap();
    assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Unsupported);
    assert_eq!(kind(leases.current("a")), ErrorKind::Unsupported);
    assert_eq!(fs::read(&at).unwrap(), bytes);
}

/// Bit by bit, so that the format's checksum is a known one.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}

/// Who reads without the lock may see a record that is being written.
#[test]
fn a_record_that_is_being_written_is_read_again() {
    let tmp = common::dir();
    let (leases, last) = used(tmp.path());
    let at = file(tmp.path(), "a");
    let whole = fs::read(&at).unwrap();
    for slot in [0, 4096] {
        let mut torn = whole.clone();
        torn[slot + 20] ^= 1;
        fs::write(&at, &torn).unwrap();
        let (path, bytes) = (at.clone(), whole.clone());
        let observer = move |name, _| {
            if name == "pread64" {
                fs::write(&path, &bytes).unwrap();
            }
        };
        let seen = hook::observe(observer, || leases.current("a"));
        assert_eq!(seen.unwrap().unwrap().get(), last);
    }
}

/// Damage under a holder's hands: it learns of it.
#[test]
fn a_holder_learns_that_its_record_is_damaged() {
    let tmp = common::dir();
    let (leases, _) = used(tmp.path());
    let break_slot = |slot: u64| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(file(tmp.path(), "a"));
        file.unwrap()
            .write_all_at(b"garbage", slot * 4096 + 16)
            .unwrap();
    };
    for options in [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)] {
        for other in [0, 1] {
            let lease: Lease = options.acquire(&leases, "a", MINUTE).unwrap();
            break_slot((lease.fence().get() + other) % 2);
            assert_eq!(kind(lease.check()), ErrorKind::Corrupt);
            assert_eq!(kind(lease.with_publication(|_| Ok(()))), ErrorKind::Corrupt);
            let before = lease.fence();
            drop(lease);
            if options == LeaseOptions::new() {
                assert!(leases.try_acquire("a").unwrap().fence() > before);
                continue;
            }
            // What cannot be read may be a lease that lasts: nobody may take over at once.
            assert_eq!(kind(options.try_acquire(&leases, "a")), ErrorKind::Busy);
            fs::remove_file(file(tmp.path(), "a")).unwrap();
        }
    }
}
