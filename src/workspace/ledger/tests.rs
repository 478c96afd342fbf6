//! Numbers, marks, gate and horizon, within one process and over several that are killed.

use super::*;
use crate::claim::{ClaimPath, Want};
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::{command, dir, long, one_of_many, output, spawn, wait_for};
use crate::workspace::state::State;
use crate::{DiskState, Root};
use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

fn workspace() -> (tempfile::TempDir, State) {
    let tmp = dir();
    let state = open(tmp.path(), true);
    (tmp, state)
}

fn open(top: &Path, create: bool) -> State {
    State::open(&Root::open(top).unwrap(), create).unwrap()
}

fn file(tmp: &tempfile::TempDir) -> std::fs::File {
    let path = tmp.path().join(".steadfast/ledger");
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

fn fill(seed: u64, bytes: &mut [u8]) {
    let mut state = seed;
    for byte in bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
}

fn exclusive(path: &str) -> [Want; 1] {
    [Want::exclusive(ClaimPath::new(path).unwrap())]
}

#[test]
fn no_number_is_drawn_twice() {
    let (tmp, state) = workspace();
    let children: Vec<_> = (0..3)
        .map(|_| {
            let command = command("draw", tmp.path(), "");
            std::thread::spawn(move || output(command))
        })
        .collect();
    let draw = || (0..250).map(|_| state.ledger.draw().unwrap()).collect();
    let mut threads: Vec<Vec<u64>> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(draw)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for child in children {
        let text = child.join().unwrap();
        let drawn = text.split("drawn ").skip(1);
        threads.extend(drawn.map(|part| {
            let numbers = part.split(';').next().unwrap().split(' ');
            numbers.map(|n| n.parse().unwrap()).collect()
        }));
    }
    assert_eq!(threads.len(), 16);
    let all: HashSet<u64> = threads.iter().flatten().copied().collect();
    assert_eq!(all, (1..=16 * 250).collect());
    // To each thread they rise.
    assert!(threads.iter().all(|of_one| of_one.is_sorted()));
}

#[test]
fn numbers_go_on_above_what_was_seen() {
    let (tmp, state) = workspace();
    let ledger = &state.ledger;
    assert_eq!(ledger.draw().unwrap(), 1);
    ledger.raise(100).unwrap();
    ledger.raise(50).unwrap();
    assert_eq!(ledger.draw().unwrap(), 101);
    ledger.set_horizon(200).unwrap();
    ledger.raise(0).unwrap();
    assert_eq!(ledger.draw().unwrap(), 201);
    // After a power cut the counter may be an old one, or nothing at all.
    file(&tmp).write_all_at(&[7; 12], COUNTER).unwrap();
    let error = ledger.draw().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    ledger.raise(300).unwrap();
    assert_eq!(open(tmp.path(), false).ledger.draw().unwrap(), 301);
    ledger.raise(u64::MAX).unwrap();
    assert_eq!(ledger.draw().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_mark_is_dead_when_its_claim_is() {
    let (_tmp, state) = workspace();
    let ledger = &state.ledger;
    let [mine, other] = [(); 2].map(|()| state.claims.try_claim(&[]).unwrap());
    let commit = ledger.mark(&mine, 5, 7, MarkKind::Commit).unwrap();
    // Two numbers that begin at the same entry, and two marks of one claim.
    let section = ledger.mark(&mine, 5 + 256, 8, MarkKind::Section).unwrap();
    let theirs = ledger.mark(&other, 4, 9, MarkKind::Section).unwrap();
    // Its own need no question; others' do.
    let (dead, calls) = hook::scope(None, || ledger.dead());
    assert_eq!((dead.unwrap(), calls), (vec![], vec!["pread64"]));
    let beside = Ledger::open(&state.dir, &state.claims).unwrap();
    assert_eq!(beside.dead().unwrap(), []);
    ledger.clear(commit, &mine).unwrap();
    assert_eq!(ledger.dead().unwrap(), []);
    drop((section, mine));
    drop((theirs, other));
    let dead = ledger.dead().unwrap();
    let told = |m: &DeadMark| (m.number, m.log, m.kind);
    let told: Vec<_> = dead.iter().map(told).collect();
    assert_eq!(
        told,
        [(4, 9, MarkKind::Section), (261, 8, MarkKind::Section)]
    );
    // A dead one's entry is not used again before its work is finished.
    let next = state.claims.try_claim(&[]).unwrap();
    let mark = ledger.mark(&next, 261, 1, MarkKind::Commit).unwrap();
    assert_eq!(ledger.dead().unwrap(), dead);
    let alone = ledger.recovery_lock(Duration::ZERO).unwrap();
    ledger.clear_dead(&dead[1], &alone).unwrap();
    assert_eq!(ledger.dead().unwrap(), dead[..1]);
    // Somebody else was faster, and the entry is in use again.
    ledger.clear_dead(&dead[0], &alone).unwrap();
    let again = ledger.mark(&next, 4 + 512, 1, MarkKind::Commit).unwrap();
    assert_eq!(again.entry, dead[0].entry);
    ledger.clear_dead(&dead[0], &alone).unwrap();
    drop((again, mark, next));
    assert_eq!(ledger.dead().unwrap().last().unwrap().number, 4 + 512);
}

/// What happens between two calls of one look at the marks.
#[test]
fn marks_that_change_between_two_calls_are_not_misread() {
    let (tmp, state) = workspace();
    let ledger = &state.ledger;
    let entry = |n: u64| MARKS + 16 * n;
    let after = |call: &'static str, at: u64, content: [u8; 16]| {
        let file = file(&tmp);
        move |made: &'static str, _: Option<(u64, u64)>| {
            if made == call {
                file.write_all_at(&content, at).unwrap();
            }
        }
    };
    // Its owner is done after the entry was read, and so holds no byte any more: it is not dead.
    let mut theirs = [0; 16];
    theirs[0] = 3;
    file(&tmp).write_all_at(&theirs, entry(3)).unwrap();
    assert_eq!(ledger.dead().unwrap().len(), 1);
    let done = after("fcntl(F_OFD_GETLK)", entry(3), [0; 16]);
    let dead = hook::observe(done, || ledger.dead().unwrap());
    assert_eq!(dead, []);
    // Somebody takes the entry and dies before we have its byte: it is not written over.
    let claim = state.claims.try_claim(&[]).unwrap();
    let died = after("fcntl(F_OFD_SETLK)", entry(7), theirs);
    let mark = hook::observe(died, || {
        ledger.mark(&claim, 7, 1, MarkKind::Commit).unwrap()
    });
    assert_eq!(mark.entry, 8);
    assert_eq!(ledger.dead().unwrap().len(), 1);
}

#[test]
fn all_marks_may_be_taken() {
    let (_tmp, state) = workspace();
    let claim = state.claims.try_claim(&[]).unwrap();
    let mark = |n| state.ledger.mark(&claim, n, 1, MarkKind::Commit);
    let mut all: Vec<Mark> = (1..=256).map(|n| mark(n).unwrap()).collect();
    let error = mark(257).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.advice().is_some());
    state.ledger.clear(all.remove(100), &claim).unwrap();
    all.push(mark(257).unwrap());
    assert_eq!(all.last().unwrap().entry, 101);
}

/// Whatever is in the counter and the marks, it is told, can be cleared, and does no harm.
#[test]
fn garbage_is_told_and_cleared() {
    let (tmp, state) = workspace();
    state.ledger.set_horizon(40).unwrap();
    let mut garbage = vec![0; LEN - COUNTER as usize];
    for seed in 0..50 {
        fill(seed, &mut garbage);
        file(&tmp).write_all_at(&garbage, COUNTER).unwrap();
        let state = open(tmp.path(), false);
        let ledger = &state.ledger;
        let dead = ledger.dead().unwrap();
        assert_eq!(dead.len(), 256);
        assert!(dead.iter().filter(|m| m.kind == MarkKind::Unknown).count() > 250);
        let claim = state.claims.try_claim(&[]).unwrap();
        assert_eq!(
            ledger
                .mark(&claim, 1, 1, MarkKind::Commit)
                .unwrap_err()
                .kind(),
            ErrorKind::Busy
        );
        let alone = ledger.recovery_lock(Duration::ZERO).unwrap();
        for mark in &dead {
            ledger.clear_dead(mark, &alone).unwrap();
        }
        assert_eq!(ledger.dead().unwrap(), []);
        assert_eq!(ledger.draw().unwrap_err().kind(), ErrorKind::Corrupt);
        ledger.raise(0).unwrap();
        assert_eq!(ledger.draw().unwrap(), 41);
    }
}

/// A file that is too short anywhere is refused, and never read beyond its end.
#[test]
fn a_short_file_is_damage() {
    let (tmp, state) = workspace();
    state.ledger.set_horizon(1).unwrap();
    for len in [0, 1, 19, 4095, 4096, 4115] {
        file(&tmp).set_len(len).unwrap();
        let error = State::open(&Root::open(tmp.path()).unwrap(), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}");
        assert!(error.advice().is_some());
        assert_eq!(state.ledger.dead().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(state.ledger.draw().unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn the_horizon_never_goes_down() {
    let (tmp, state) = workspace();
    let ledger = &state.ledger;
    assert_eq!(ledger.horizon().unwrap(), 0);
    for (set, is) in [(5, 5), (3, 5), (5, 5), (9, 9), (10, 10), (0, 10)] {
        ledger.set_horizon(set).unwrap();
        assert_eq!(ledger.horizon().unwrap(), is);
        assert_eq!(open(tmp.path(), false).ledger.horizon().unwrap(), is);
    }
}

/// What somebody else wrote may not be durable, and must be before the other copy is written over; what this
/// process synced is.
#[test]
fn the_copy_that_counts_is_durable_before_the_other_is_written() {
    let (tmp, state) = workspace();
    let copies = || {
        let mut bytes = [0; 2 * BLOCK];
        file(&tmp).read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let set = |state: &State, number| {
        let (done, calls) = hook::scope(None, || state.ledger.set_horizon(number));
        done.unwrap();
        let wanted = |call: &&&str| ["pwrite64", "fdatasync"].contains(*call);
        calls.iter().filter(wanted).copied().collect::<Vec<_>>()
    };
    let once = ["pwrite64", "fdatasync"];
    assert_eq!(set(&state, 5), [once, once].concat());
    assert_eq!(set(&state, 6), once);
    assert_eq!(set(&state, 6), [""; 0]);
    let other = open(tmp.path(), false);
    assert_eq!(set(&other, 6), once);
    assert_eq!(set(&other, 7), once);
    assert_eq!(set(&state, 8), [once, once].concat());
    // Every crash of the write of one copy leaves the old number or the new one.
    for number in 9..13 {
        let before = copies();
        state.ledger.set_horizon(number).unwrap();
        let after = copies();
        let changed: Vec<usize> = (0..before.len())
            .filter(|i| before[*i] != after[*i])
            .collect();
        assert!(changed.iter().all(|i| i / BLOCK == changed[0] / BLOCK));
        let start = changed[0] / BLOCK * BLOCK;
        for cut in 0..=20 {
            for garbage in [false, true] {
                let mut torn = before;
                torn[start..start + cut].copy_from_slice(&after[start..start + cut]);
                if garbage {
                    fill(number, &mut torn[start + cut..start + BLOCK]);
                }
                file(&tmp).write_all_at(&torn, 0).unwrap();
                let found = open(tmp.path(), false).ledger.horizon().unwrap();
                assert_eq!(found, if cut == 20 { number } else { number - 1 });
            }
        }
        file(&tmp).write_all_at(&after, 0).unwrap();
    }
    file(&tmp).write_all_at(&[0; 2 * BLOCK], 0).unwrap();
    let error = State::open(&Root::open(tmp.path()).unwrap(), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_failed_sync_of_the_horizon_is_final() {
    let (_tmp, state) = workspace();
    state.ledger.set_horizon(1).unwrap();
    let calls = hook::scope(None, || state.ledger.set_horizon(2)).1;
    let at = calls.iter().position(|c| *c == "fdatasync").unwrap() as u64 + 1;
    let action = Action::Fail(Errno::IO);
    let (failed, _) = hook::scope(Some(Plan { at, action }), || state.ledger.set_horizon(3));
    let error = failed.unwrap_err();
    assert_eq!(
        (error.errno(), error.disk_state()),
        (Some(Errno::IO), DiskState::Indeterminate)
    );
    for number in [2, 3, 4] {
        let error = state.ledger.set_horizon(number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
    }
}

#[test]
fn a_closed_gate_keeps_out_and_finds_nobody_inside() {
    let (_tmp, state) = workspace();
    let ledger = &state.ledger;
    let claim = state.claims.try_claim(&[]).unwrap();
    ledger.enter(&claim, Duration::ZERO).unwrap();
    let error = ledger.close_gate(Duration::from_millis(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.advice().is_some());
    ledger.leave(&claim).unwrap();
    let closed = ledger.close_gate(Duration::ZERO).unwrap();
    let error = ledger.enter(&claim, Duration::from_millis(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(
        ledger.close_gate(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(closed);
    ledger.enter(&claim, Duration::ZERO).unwrap();
    let one = ledger.recovery_lock(Duration::ZERO).unwrap();
    assert_eq!(
        ledger.recovery_lock(Duration::ZERO).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(one);
    let _other = ledger.recovery_lock(Duration::ZERO).unwrap();
}

/// Somebody is inside at every moment, and yet the gate can be closed: those who come later let the closer
/// go first.
#[test]
fn a_closer_is_not_starved() {
    let (_tmp, state) = workspace();
    let (inside, stop) = (AtomicI64::new(0), AtomicBool::new(false));
    let turns = [const { AtomicI64::new(0) }; 2];
    // Longer than anything takes, even on a busy machine.
    let wait = Duration::from_secs(600);
    // Two who take turns: none leaves before another has come in, unless the gate is being closed.
    let one = |own: usize| {
        let other = 1 - own;
        while !stop.load(Ordering::SeqCst) {
            let claim = state.claims.try_claim(&[]).unwrap();
            state.ledger.enter(&claim, wait).unwrap();
            inside.fetch_add(1, Ordering::SeqCst);
            let seen = turns[other].load(Ordering::SeqCst);
            turns[own].fetch_add(1, Ordering::SeqCst);
            let start = Instant::now();
            while turns[other].load(Ordering::SeqCst) == seen
                && start.elapsed() < Duration::from_millis(200)
                && !stop.load(Ordering::SeqCst)
            {
                std::thread::sleep(Duration::from_micros(50));
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            state.ledger.leave(&claim).unwrap();
        }
    };
    std::thread::scope(|s| {
        s.spawn(|| one(0));
        s.spawn(|| one(1));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..10 {
                let before = turns[0].load(Ordering::SeqCst);
                while turns[0].load(Ordering::SeqCst) < before + 3 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                let closed = state.ledger.close_gate(wait).unwrap();
                assert_eq!(inside.load(Ordering::SeqCst), 0);
                drop(closed);
            }
        }));
        stop.store(true, Ordering::SeqCst);
        result.unwrap();
    });
}

/// Whoever gets the claim of a process that was killed finds its mark, at once and always: there is no moment
/// in which one lock is gone and the other is not.
#[test]
fn the_claim_and_the_mark_of_a_killed_process_end_in_one_step() {
    let (tmp, state) = workspace();
    let kills = match (long(), one_of_many()) {
        (true, _) => 10_000,
        (false, false) => 1_000,
        (false, true) => 100,
    };
    let spawn = || spawn(command("hold", tmp.path(), "").stderr(std::process::Stdio::null()));
    // The next one starts, and waits for the claim, while the one before is still alive.
    let mut child = spawn();
    for kill in 0..kills {
        wait_for("held", &mut child);
        let started = AtomicBool::new(false);
        let dead = std::thread::scope(|s| {
            let watcher = s.spawn(|| {
                started.store(true, Ordering::SeqCst);
                // As little as can be between the claim and the look at the marks.
                let (want, mut claim) = (exclusive("a"), state.claims.try_claim(&[]).unwrap());
                loop {
                    match claim.try_extend(&want) {
                        Ok(()) => return (state.ledger.dead().unwrap(), claim),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Busy),
                    }
                }
            });
            while !started.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            watcher.join().unwrap()
        });
        child.wait().unwrap();
        let (dead, claim) = dead;
        assert_eq!(dead.len(), 1, "kill {kill}");
        assert_eq!((dead[0].log, dead[0].kind), (1, MarkKind::Commit));
        let alone = state.ledger.recovery_lock(Duration::ZERO).unwrap();
        state.ledger.clear_dead(&dead[0], &alone).unwrap();
        // Nobody is inside either.
        drop(state.ledger.close_gate(Duration::ZERO).unwrap());
        drop(claim);
        child = spawn();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
