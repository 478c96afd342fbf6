//! Other writers and readers at the same time.

use crate::common::{self, FOREVER, wait_until};
use crate::support::{names, no_exchange};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use steadfast::publish::{FileOptions, Staging, Target, Version};
use steadfast::sys::{AtFlags, hook};
use steadfast::{Durability, ErrorKind, Root};

/// A content of the writer's own length and letter.
fn content(letter: u8) -> Vec<u8> {
    vec![letter; 3000 + 977 * usize::from(letter - b'a')]
}

fn whole(bytes: &[u8]) -> bool {
    bytes
        .first()
        .is_some_and(|letter| bytes == content(*letter))
}

/// Ends the other threads, however this one ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Elsewhere two writers share a temporary's name and publish each other's halves.
#[test]
fn readers_of_a_file_with_two_writers_see_whole_contents() {
    const READS: u64 = 10_000;
    const WRITES: u64 = 400;
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let options = FileOptions::new().durability(Durability::None);
    options.write(&root, "f", content(b'a')).unwrap();
    let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for letter in [b'b', b'e'] {
            let (done, writes, root) = (&done, &writes, &root);
            scope.spawn(move || {
                for n in 0.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let base = FileOptions::new().durability(Durability::None);
                    let options = match n % 3 {
                        0 => base,
                        1 => base.staging(Staging::Unnamed),
                        _ => base.target(Target::Replace),
                    };
                    options.write(root, "f", content(letter)).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&done);
        let mut seen = [0; 256];
        let mut reads = 0;
        let start = Instant::now();
        // Who reads and writes how often is up to the scheduler: until all had their turns.
        while reads < READS
            || writes.load(Ordering::Relaxed) < WRITES
            || seen[usize::from(b'b')] == 0
            || seen[usize::from(b'e')] == 0
        {
            assert!(start.elapsed() < FOREVER, "a writer does nothing: {reads}");
            reads += 1;
            // Never missing, never half.
            let bytes = fs::read(tmp.path().join("f")).unwrap();
            assert!(
                whole(&bytes),
                "{} bytes of {:?}",
                bytes.len(),
                bytes.first()
            );
            seen[usize::from(bytes[0])] += 1;
        }
        println!(
            "{reads} reads beside {} writes",
            writes.load(Ordering::Relaxed)
        );
    });
    assert_eq!(names(tmp.path()), ["f"]);
}

/// Elsewhere an empty file is put there first.
#[test]
fn a_file_that_is_created_is_never_seen_empty() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let done = AtomicBool::new(false);
    let found = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = Stop(&done);
            for n in 0..=2000 {
                let base = FileOptions::new().durability(Durability::None);
                let options = match n % 3 {
                    0 => base,
                    1 => base.target(Target::CreateNew),
                    _ => base.target(Target::CreateNew).staging(Staging::Unnamed),
                };
                options.write(&root, "f", content(b'c')).unwrap();
                if n == 2000 {
                    // A reader that comes late is waited for.
                    wait_until("a reader", || found.load(Ordering::Relaxed) > 0);
                }
                fs::remove_file(tmp.path().join("f")).unwrap();
            }
        });
        while !done.load(Ordering::Relaxed) {
            if let Ok(bytes) = fs::read(tmp.path().join("f")) {
                assert!(whole(&bytes), "{} bytes", bytes.len());
                found.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    println!("2001 files, met {} times", found.into_inner());
    assert_eq!(names(tmp.path()), [""; 0]);
}

#[test]
fn one_of_many_creators_wins() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    for round in 0..50 {
        let name = format!("f{round}");
        let won = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for letter in b'a'..b'e' {
                let (root, name, won) = (&root, &name, &won);
                scope.spawn(move || {
                    let new = FileOptions::new().durability(Durability::None);
                    let new = new.target(Target::CreateNew);
                    match new.write(root, name, content(letter)) {
                        Ok(_) => drop(won.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}"),
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
        assert!(whole(&fs::read(tmp.path().join(&name)).unwrap()));
    }
    assert_eq!(names(tmp.path()).len(), 50);
}

/// Elsewhere the last writer wins, and what the others wrote is lost without a word.
#[test]
fn no_update_is_lost_with_if_unchanged() {
    const THREADS: u64 = 4;
    const EACH: u64 = 60;
    let test = "no_update_is_lost_with_if_unchanged";
    if no_exchange() {
        crate::support::skipped(
            test,
            "without RENAME_EXCHANGE the condition is checked before",
        );
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    fs::write(tmp.path().join("n"), "0").unwrap();
    let refusals = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut done = 0;
                while done < EACH {
                    let mut file = File::open(tmp.path().join("n")).unwrap();
                    let seen = steadfast::sys::statx(&file, c"", AtFlags::EMPTY_PATH).unwrap();
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    let next = (text.parse::<u64>().unwrap() + 1).to_string();
                    let seen = Target::IfUnchanged(Version::of_metadata(&seen));
                    let options = FileOptions::new().durability(Durability::None).target(seen);
                    match options.write(&root, "n", next) {
                        Ok(_) => done += 1,
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Changed, "{e}");
                            assert!(e.left_behind().is_empty(), "{e}");
                            refusals.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    println!(
        "{} updates, {} refused",
        THREADS * EACH,
        refusals.into_inner()
    );
    let n = fs::read_to_string(tmp.path().join("n")).unwrap();
    assert_eq!(n, (THREADS * EACH).to_string());
    assert_eq!(names(tmp.path()), ["n"]);
}

/// Between the look at the target and the exchange it may change: what comes out of the exchange decides, and
/// goes back.
#[test]
fn what_comes_out_of_the_exchange_decides() {
    let test = "what_comes_out_of_the_exchange_decides";
    if no_exchange() {
        crate::support::skipped(test, "no RENAME_EXCHANGE");
        return;
    }
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "0").unwrap();
    // The number that the other writer has published last; held while it renames.
    let (last, stop) = (Mutex::new(0u64), AtomicBool::new(false));
    let (mut attempts, mut taken_back) = (0u32, 0u32);
    let mut left = BTreeSet::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = tmp.path().join("other");
            for n in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                fs::write(&other, n.to_string()).unwrap();
                let mut last = last.lock().unwrap();
                fs::rename(&other, &f).unwrap();
                *last = n;
                drop(last);
                for _ in 0..n % 2000 {
                    std::hint::spin_loop();
                }
            }
        });
        let _stop = Stop(&stop);
        let start = Instant::now();
        while taken_back < 3 && start.elapsed() < Duration::from_secs(15) {
            attempts += 1;
            let (before, seen) = {
                let last = last.lock().unwrap();
                (*last, Version::of(&root, "f").unwrap())
            };
            let options = FileOptions::new().durability(Durability::None);
            let options = options.target(Target::IfUnchanged(seen));
            let (done, calls) = hook::scope(None, || options.write(&root, "f", "mine"));
            let last = last.lock().unwrap();
            let now = fs::read_to_string(&f).unwrap();
            match done {
                Ok(_) if now == "mine" => assert_eq!(*last, before, "an update was lost"),
                // It came after ours.
                Ok(_) => assert_eq!(now, last.to_string()),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Changed, "{e}");
                    assert_eq!(now, last.to_string(), "theirs is not back");
                    left.extend(e.left_behind().to_vec());
                }
            }
            let exchange = "renameat2(RENAME_EXCHANGE)";
            taken_back += u32::from(calls.iter().filter(|c| **c == exchange).count() > 1);
        }
    });
    println!("{attempts} attempts, {taken_back} taken back");
    // Replaced once more while it was taken back: what came out first is kept, and the error says where.
    let found = names(tmp.path()).into_iter();
    let found: BTreeSet<_> = found
        .filter(|name| name.starts_with(".sf-"))
        .map(PathBuf::from)
        .collect();
    assert_eq!(found, left);
}
