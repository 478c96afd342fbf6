//! One log and several threads, of which one runs at a time: shuttle chooses which goes on, at each lock and
//! each system call, and says which choice was wrong. A thread that nobody wakes is found as a deadlock: no
//! wait ends by itself here.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;
use steadfast::journal::{Log, LogOptions, Record};
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::sys::{Errno, OwnedFd};
use steadfast::{Dir, DiskState, ErrorKind};

/// How many orders are tried of each test, of each kind; STEADFAST_SCHEDULES says otherwise.
const ORDERS: usize = 1000;

fn dir(path: &Path) -> Dir {
    // Not by a call of the library's.
    Dir::from(OwnedFd::from(std::fs::File::open(path).unwrap()))
}

/// Goes through many orders: chosen at random, and with few changes at the worst moments.
fn orders(test: fn(&Path)) {
    let orders = std::env::var("STEADFAST_SCHEDULES").map_or(ORDERS, |n| n.parse().unwrap());
    // Memory, if there is such a place: what is tried are orders, not disks.
    let memory = Path::new("/dev/shm");
    let base = match tempfile::tempdir_in(memory) {
        Ok(_) => memory.to_owned(),
        Err(_) => std::env::temp_dir(),
    };
    let run = move || {
        let tmp = tempfile::tempdir_in(&base).unwrap();
        test(tmp.path());
    };
    let config = || {
        let mut config = shuttle::Config::new();
        config.stack_size = 256 << 10;
        config
    };
    let seed = 4;
    let random = RandomScheduler::new_from_seed(seed, orders);
    shuttle::Runner::new(random, config()).run(run.clone());
    let few = PctScheduler::new_from_seed(seed, 3, orders);
    shuttle::Runner::new(few, config()).run(run);
}

fn append(log: &Log, n: u64, len: usize) -> steadfast::Result<u64> {
    let mut payload = mark(n);
    payload.resize(len, b' ');
    log.append_durable(&[Record::new(16, &payload)])
        .map(|appended| appended.last)
}

/// What tells a record in a segment's bytes.
fn mark(n: u64) -> Vec<u8> {
    format!("<record {n:3}>").into_bytes()
}

/// The records whose bytes are in the files of a log.
fn written(top: &Path) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(top).unwrap().map(Result::unwrap);
    let segments = entries.filter(|e| e.path().extension().is_some_and(|e| e == "seg"));
    let mut out = BTreeSet::new();
    for segment in segments {
        let bytes = std::fs::read(segment.path()).unwrap();
        for found in bytes.windows(12).filter(|w| w.starts_with(b"<record ")) {
            let number = std::str::from_utf8(&found[8..11]).unwrap();
            out.insert(number.trim().parse().unwrap());
        }
    }
    out
}

/// What the disk has: the records as of the last sync that succeeded.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<BTreeSet<u64>>>);

impl Disk {
    /// Runs `f` with threads whose syncs it sees.
    fn under<R>(&self, top: &Path, f: impl FnOnce() -> R) -> R {
        let (disk, top) = (self.0.clone(), top.to_owned());
        let heard = move |call: &'static str, synced: Option<(u64, u64)>| {
            if call == "fdatasync" && synced.is_some() {
                *disk.borrow_mut() = written(&top);
            }
        };
        hook::observe(heard, f)
    }

    fn has(&self, n: u64) -> bool {
        self.0.borrow().contains(&n)
    }
}

thread_local! {
    static DISK: Disk = Disk::default();
}

#[test]
fn what_is_acknowledged_was_written_before_its_sync_began() {
    orders(|top| {
        let (log, _) = LogOptions::new().segment_len(8192).open(dir(top)).unwrap();
        let log = Arc::new(log);
        let disk = DISK.with(Disk::clone);
        disk.0.borrow_mut().clear();
        disk.under(top, || {
            let threads: Vec<_> = (0..3)
                .map(|t| {
                    let log = log.clone();
                    thread::spawn(move || {
                        for n in 0..2 {
                            let n = t * 10 + n;
                            let last = append(&log, n, 24).unwrap();
                            assert!(DISK.with(|disk| disk.has(n)), "{n}: told too early");
                            assert!(log.durable() >= last);
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    });
}

#[test]
fn a_failed_call_is_final_for_everybody() {
    orders(|top| {
        let (log, _) = LogOptions::new().segment_len(8192).open(dir(top)).unwrap();
        let log = Arc::new(log);
        let disk = DISK.with(Disk::clone);
        disk.0.borrow_mut().clear();
        let plan = Plan {
            at: 1 + shuttle::rand::RngCore::next_u64(&mut shuttle::rand::thread_rng()) % 6,
            action: Action::Fail(Errno::IO),
        };
        let work = || {
            let threads: Vec<_> = (0..3)
                .map(|t| {
                    let log = log.clone();
                    thread::spawn(move || {
                        for n in 0.. {
                            let n = t * 100 + n;
                            match append(&log, n, 24) {
                                Ok(_) => {
                                    assert!(DISK.with(|disk| disk.has(n)), "{n}: told too early")
                                }
                                Err(error) => return (n, error),
                            }
                        }
                        unreachable!()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap())
                .collect::<Vec<_>>()
        };
        let (ends, calls) = disk.under(top, || hook::scope(Some(plan), work));
        // The call that failed is the last: nothing is written or synced after it.
        assert_eq!(calls.len() as u64, plan.at, "{calls:?}");
        let seen = written(top);
        for (n, error) in &ends {
            assert!(
                matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned),
                "{error}"
            );
            assert!(!disk.has(*n), "{n}: durable, and refused");
            if error.disk_state() == DiskState::Unchanged {
                assert!(!seen.contains(n), "{n}: there, and said not to be");
            }
        }
        assert!(ends.iter().any(|(_, e)| e.kind() == ErrorKind::Io));
        let late = append(&log, 999, 24).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Poisoned);
    });
}

/// A log in which there is soon no room but what others give back.
fn narrow(top: &Path) -> Arc<Log> {
    let options = LogOptions::new().segment_len(8192).max_segments(2);
    let options = options.wait_for_release(Duration::from_secs(3600));
    Arc::new(options.open(dir(top)).unwrap().0)
}

/// Appends what fills a segment, and gives it back, which can be tried again while the log is sound.
fn fill(log: &Log, n: u64) -> steadfast::Result<()> {
    let last = append(log, n, 6000)?;
    loop {
        match log.release(last) {
            Err(e) if e.kind() != ErrorKind::Poisoned => {}
            done => return done.map(drop),
        }
    }
}

#[test]
fn who_waits_for_room_is_woken() {
    orders(|top| {
        let log = narrow(top);
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let log = log.clone();
                thread::spawn(move || (0..2).for_each(|n| fill(&log, t * 10 + n).unwrap()))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn who_waits_for_room_is_told_of_a_failure() {
    orders(|top| {
        let log = narrow(top);
        let plan = Plan {
            at: 1 + shuttle::rand::RngCore::next_u64(&mut shuttle::rand::thread_rng()) % 30,
            // Of creating a segment, as of writing and syncing.
            action: Action::Fail(Errno::IO),
        };
        let work = || {
            let threads: Vec<_> = (0..3)
                .map(|t| {
                    let log = log.clone();
                    thread::spawn(move || (0..2).try_for_each(|n| fill(&log, t * 10 + n)))
                })
                .collect();
            for done in threads.into_iter().map(|t| t.join().unwrap()) {
                if let Err(error) = done {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "{error}");
                }
            }
        };
        hook::scope(Some(plan), work);
    });
}
