//! Many threads share syncs, nobody waits for ever, and what was acknowledged survives a kill.

use crate::common::{self, FOREVER, spawn};
use crate::support::{count, dir, numbers, payload, record, small};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use steadfast::journal::{End, LogOptions, inspect};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{DiskState, ErrorKind};

const CHILD: &str = "STEADFAST_TEST_THREADS";

#[test]
fn sixteen_threads_share_their_syncs() {
    let tmp = common::dir();
    let (log, _) = LogOptions::new()
        .segment_len(64 * 1024)
        .open(dir(tmp.path()))
        .unwrap();
    let syncs = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for t in 0..16 {
            let (log, syncs) = (&log, &syncs);
            s.spawn(move || {
                let append = || {
                    for n in 0..200 {
                        let payload = payload(t * 1000 + n, 64);
                        let appended = log.append_durable(&[record(&payload)]).unwrap();
                        assert!(log.durable() >= appended.last);
                    }
                };
                let (_, seen) = hook::scope(None, append);
                syncs.fetch_add(count(&seen, "fdatasync"), SeqCst);
            });
        }
    });
    let syncs = syncs.into_inner();
    // How many depends on how long a sync takes here, which may be no time.
    eprintln!("3200 records by 16 threads: {syncs} fdatasyncs");
    assert!(syncs <= 3200, "{syncs}");
    drop(log);
    let (_, found) = LogOptions::new().open(dir(tmp.path())).unwrap();
    let mut all = numbers(&found.records);
    // Each thread's own are in its order.
    for t in 0..16 {
        let own: Vec<_> = all.iter().copied().filter(|n| n / 1000 == t).collect();
        assert_eq!(own, (t * 1000..t * 1000 + 200).collect::<Vec<_>>());
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 3200);
}

/// What sixteen threads have added when one of them syncs is synced once.
#[test]
fn one_sync_for_all_that_is_waiting() {
    let tmp = common::dir();
    let (log, _) = LogOptions::new().open(dir(tmp.path())).unwrap();
    let (syncs, turn) = (AtomicUsize::new(0), Barrier::new(16));
    std::thread::scope(|s| {
        for t in 0..16 {
            let (log, syncs, turn) = (&log, &syncs, &turn);
            s.spawn(move || {
                for n in 0..50 {
                    let appended = log.append(&[record(&payload(t * 1000 + n, 64))]).unwrap();
                    turn.wait();
                    let (done, seen) = hook::scope(None, || log.sync(appended.last));
                    done.unwrap();
                    syncs.fetch_add(count(&seen, "fdatasync"), SeqCst);
                    turn.wait();
                }
            });
        }
    });
    assert_eq!(syncs.into_inner(), 50);
}

/// The one thread whose write or sync fails, and all others, get an answer.
#[test]
fn a_failed_sync_holds_nobody_up() {
    for (call, round) in [
        ("fdatasync", 40),
        ("pwrite64", 41),
        ("fdatasync", 1),
        ("pwrite64", 2),
    ] {
        let tmp = common::dir();
        let (log, _) = LogOptions::new().open(dir(tmp.path())).unwrap();
        let log = Arc::new(log);
        let (send, receive) = mpsc::channel();
        // The others are not so far ahead of the first that they fill the log before it meets the failure.
        let limit = Arc::new(AtomicU64::new(100));
        for t in 0..8u64 {
            let (log, send, limit) = (log.clone(), send.clone(), limit.clone());
            std::thread::spawn(move || {
                let append = || {
                    let mut acknowledged = Vec::new();
                    for n in 0.. {
                        while t > 0 && n > limit.load(SeqCst) {
                            std::thread::yield_now();
                        }
                        let n = t * 1_000_000 + n;
                        match log.append_durable(&[record(&payload(n, 30))]) {
                            Ok(_) => acknowledged.push(n),
                            Err(error) => {
                                limit.store(u64::MAX, SeqCst);
                                return (acknowledged, n, error);
                            }
                        }
                        if t == 0 {
                            limit.fetch_add(100, SeqCst);
                        }
                    }
                    unreachable!()
                };
                // The first thread meets it, at one of its own calls.
                let action = Action::Fail(Errno::IO);
                let plan = (t == 0).then_some(Plan { at: round, action });
                send.send(hook::scope(plan, append).0).unwrap();
            });
        }
        let mut ends = Vec::new();
        for _ in 0..8 {
            let end = receive.recv_timeout(FOREVER);
            ends.push(end.unwrap_or_else(|e| panic!("{call}: somebody waits for ever: {e}")));
        }
        // No thread holds the log any more, or the next open would be refused.
        while Arc::strong_count(&log) > 1 {
            std::thread::yield_now();
        }
        drop(log);
        let (_, found) = LogOptions::new().open(dir(tmp.path())).unwrap();
        let found = numbers(&found.records);
        for (acknowledged, last, error) in ends {
            assert!(
                matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned),
                "{error}"
            );
            for n in acknowledged {
                assert!(found.contains(&n), "{n} was acknowledged");
            }
            if error.disk_state() == DiskState::Unchanged {
                assert!(!found.contains(&last), "{last} was refused: {error}");
            }
        }
    }
}

struct Stop<'a>(&'a AtomicUsize);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(1, SeqCst);
    }
}

/// A reader needs no lock: beside a writer that uses its segments again and again it sees some
/// moment's state.
#[test]
fn looking_beside_a_living_writer() {
    let tmp = common::dir();
    let (log, _) = small().open(dir(tmp.path())).unwrap();
    let done = AtomicUsize::new(0);
    let (mut looks, mut most) = (0, 0);
    std::thread::scope(|s| {
        let (log, done) = (&log, &done);
        s.spawn(move || {
            for n in 0.. {
                if done.load(SeqCst) == 1 {
                    break;
                }
                let appended = log.append_durable(&[record(&payload(n, 300))]).unwrap();
                if n % 8 == 7 {
                    log.sync(log.release(appended.last - 3).unwrap()).unwrap();
                }
            }
        });
        // Also if a look fails: the writer must not go on for ever.
        let stop = Stop(done);
        // Long enough for the writer to have had its turns.
        while looks < 1000 || most <= 4 {
            assert!(looks < 1_000_000, "the writer does nothing");
            let seen = inspect(&dir(tmp.path())).unwrap();
            assert!(!matches!(seen.end, End::Corrupt(_)), "{:?}", seen.end);
            let found = numbers(&seen.records);
            assert!(found.windows(2).all(|w| w[0] + 1 == w[1]), "{found:?}");
            looks += 1;
            most = most.max(found.len());
        }
        drop(stop);
    });
}

/// The child's part: threads append and say what was acknowledged, until the process is killed.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let (log, _) = LogOptions::new()
        .segment_len(64 * 1024)
        .open(dir(path.as_ref()))
        .unwrap();
    std::thread::scope(|s| {
        for t in 0..8 {
            let log = &log;
            s.spawn(move || {
                for n in 0..10_000 {
                    let n = t * 1_000_000 + n;
                    log.append_durable(&[record(&payload(n, 200))]).unwrap();
                    println!("@{n}");
                }
            });
        }
    });
}

#[test]
fn what_threads_were_told_survives_a_kill() {
    for lines in [1, 20, 300, 301, 1500] {
        let tmp = common::dir();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "threads::child",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD, tmp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn(&mut command);
        let mut told: Vec<u64> = Vec::new();
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            told.extend(
                line.rsplit_once('@')
                    .and_then(|(_, n)| n.parse::<u64>().ok()),
            );
            if told.len() >= lines && !killed {
                killed = true;
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(killed);
        let (_, found) = LogOptions::new().open(dir(tmp.path())).unwrap();
        let mut found = numbers(&found.records);
        found.sort_unstable();
        for n in &told {
            assert!(found.binary_search(n).is_ok(), "{n} was acknowledged");
        }
    }
}
