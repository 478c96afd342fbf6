//! Power cuts: the states that a disk may be in between two syncs, block by block and in any order,
//! and what the next open makes of them.
//!
//! The model: blocks of 512 bytes are written whole or not at all; what was synced stays; of what
//! was written since, any blocks may be on the disk. Each step of the work here writes one group
//! and syncs it, which is checked, so that the images before and after a step tell which blocks
//! were in question.

use crate::common;
use crate::support::{
    Image, Random, dir, image, long, materialise, numbers, open, payload, record,
};
use std::collections::VecDeque;
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::journal::{End, Log, inspect};

const BLOCK: usize = 512;

/// Work on a log, step by step, with what must be found after a crash.
struct Work {
    random: Random,
    log: Option<Log>,
    next: u64,
    /// There was no room: the next step releases.
    stuck: bool,
    /// Number and sequence number of records that are durable and not released, in order.
    held: VecDeque<(u64, u64)>,
}

/// One step: the images before and after, and what may be found.
struct Step {
    before: Image,
    after: Image,
    held: Vec<u64>,
    /// Numbers that the step appends.
    adds: Vec<u64>,
    /// How many of `held`, from the first, the step releases.
    releases: usize,
}

impl Work {
    fn new(seed: u64, next: u64) -> Self {
        Self {
            random: Random(seed),
            log: None,
            next,
            stuck: false,
            held: VecDeque::new(),
        }
    }

    fn open(&mut self, path: &Path) {
        let (log, found) = open(path).unwrap();
        let seqs = found.records.iter().map(|e| e.seq);
        self.held = numbers(&found.records).into_iter().zip(seqs).collect();
        self.log = Some(log);
    }

    /// Appends up to four records, or releases, or closes and opens again; all synced.
    fn step(&mut self, path: &Path) -> Step {
        let before = image(path);
        let held = self.held.iter().map(|(n, _)| *n).collect();
        let (mut adds, mut releases) = (Vec::new(), 0);
        let log = self.log.take().unwrap();
        match self.random.below(10) {
            0 => {
                log.close().unwrap();
                let after = image(path);
                self.log = Some(open(path).unwrap().0);
                return Step {
                    before,
                    after,
                    held,
                    adds,
                    releases,
                };
            }
            _ if self.held.len() > 8 || (self.stuck && !self.held.is_empty()) => {
                self.stuck = false;
                releases = 1 + self.random.below(self.held.len() as u64) as usize;
                let (_, seq) = self.held.drain(..releases).next_back().unwrap();
                log.sync(log.release(seq).unwrap()).unwrap();
            }
            _ => {
                let payloads: Vec<_> = (0..1 + self.random.below(4))
                    .map(|_| {
                        self.next += 1;
                        let lens = [8, 60, 440, 600, 1400];
                        payload(self.next, lens[self.random.below(5) as usize])
                    })
                    .collect();
                // Added one by one, each then knows its number; synced together.
                let first = self.next + 1 - payloads.len() as u64;
                for (n, payload) in (first..).zip(&payloads) {
                    let appended = match log.append(&[record(payload)]) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            self.stuck = true;
                            break;
                        }
                        done => done.unwrap(),
                    };
                    adds.push(n);
                    self.held.push_back((n, appended.last));
                }
                log.sync(log.last()).unwrap();
            }
        }
        self.log = Some(log);
        let after = image(path);
        Step {
            before,
            after,
            held,
            adds,
            releases,
        }
    }
}

impl Step {
    /// The blocks that differ. A file that the step created was synced before its first frame was written.
    fn blocks(&self) -> (Image, Vec<(String, usize)>) {
        let mut base = self.before.clone();
        let mut blocks = Vec::new();
        for (name, after) in &self.after {
            let before = base.entry(name.clone()).or_insert_with(|| {
                let mut fresh = vec![0; after.len()];
                fresh[..BLOCK].copy_from_slice(&after[..BLOCK]);
                fresh
            });
            let differ = |at: &usize| before[*at..*at + BLOCK] != after[*at..*at + BLOCK];
            let found: Vec<_> = (0..after.len()).step_by(BLOCK).filter(differ).collect();
            blocks.extend(found.into_iter().map(|at| (name.clone(), at)));
        }
        (base, blocks)
    }

    /// Whether the step wrote one group only; a step that goes into the next segment may write two.
    fn is_one_group(&self) -> bool {
        let blocks = self.blocks().1;
        blocks.iter().all(|(name, _)| *name == blocks[0].0)
    }

    fn with(&self, base: &Image, blocks: &[(String, usize)], chosen: u64) -> Image {
        let mut out = base.clone();
        for (bit, (name, at)) in blocks.iter().enumerate() {
            if chosen >> (bit % 64) & 1 == 1 {
                let from = &self.after[name][*at..*at + BLOCK];
                out.get_mut(name).unwrap()[*at..*at + BLOCK].copy_from_slice(from);
            }
        }
        out
    }

    /// What was acknowledged is there, nothing that was not written, in order; of the step itself
    /// the beginning.
    fn check(&self, found: &[u64], whole: bool) {
        let all: Vec<_> = self.held.iter().chain(&self.adds).copied().collect();
        let released = &all[self.releases..];
        let fits = |all: &[u64], least: usize| {
            found.len() >= least && found.len() <= all.len() && found == &all[..found.len()]
        };
        let least = self.held.len() - self.releases;
        let kept = self.releases > 0 && fits(&all, self.held.len());
        assert!(
            (kept && !whole) || fits(released, if whole { released.len() } else { least }),
            "found {found:?}, held {:?}, added {:?}, released {}",
            self.held,
            self.adds,
            self.releases
        );
    }
}

/// Every subset of the blocks of a group, up to 8 of them; else a sample.
fn subsets(blocks: usize, random: &mut Random) -> Vec<u64> {
    if blocks <= 8 {
        return (0..1 << blocks).collect();
    }
    let mut out: Vec<u64> = (0..48)
        .map(|_| random.below(1 << 31) << 31 | random.below(1 << 31))
        .collect();
    out.extend([0, u64::MAX]);
    out
}

#[test]
fn every_state_that_a_power_cut_may_leave_opens_as_before_or_after() {
    let tmp = common::dir();
    let mut work = Work::new(7, 0);
    work.open(tmp.path());
    let mut random = Random(11);
    let (mut states, mut steps) = (0, 0);
    for _ in 0..if long() { 400 } else { 60 } {
        let step = work.step(tmp.path());
        if !step.is_one_group() {
            continue;
        }
        steps += 1;
        let (base, blocks) = step.blocks();
        for chosen in subsets(blocks.len(), &mut random) {
            let state = materialise(&step.with(&base, &blocks, chosen));
            // Reading alone tells; that opening says the same is looked at for some.
            let seen = inspect(&dir(state.path())).unwrap();
            assert!(
                !matches!(seen.end, End::Corrupt(_)),
                "{:?} {chosen:b}",
                seen.end
            );
            let every = (0..blocks.len()).all(|bit| chosen >> (bit % 64) & 1 == 1);
            step.check(&numbers(&seen.records), every);
            states += 1;
            if states % 32 == 0 {
                let (log, found) = open(state.path()).unwrap();
                assert_eq!(found.records, seen.records);
                drop(log);
            }
        }
    }
    assert!(steps > 40, "{steps}");
    eprintln!("{states} states of {steps} steps");
}

/// A log that loses its writer again and again, each time in the middle of a group, and goes on:
/// what an earlier writer left behind the end never becomes part of the log.
#[test]
fn crash_after_crash_nothing_is_lost_or_comes_back() {
    let mut crashes = 0;
    for seed in 0..if long() { 40 } else { 4 } {
        let mut random = Random(seed * 1_000_003 + 5);
        let mut tmp = common::dir();
        let mut work = Work::new(seed, seed * 1_000_000);
        work.open(tmp.path());
        for _ in 0..40 {
            let mut step = work.step(tmp.path());
            for _ in 0..random.below(6) {
                step = work.step(tmp.path());
            }
            if !step.is_one_group() {
                continue;
            }
            let (base, blocks) = step.blocks();
            // Often without the first block, which is where a beginning would be seen.
            let chosen = (random.below(1 << 31) << 31 | random.below(1 << 31)) & !random.below(2);
            let state = step.with(&base, &blocks, chosen);
            work.log = None;
            tmp = materialise(&state);
            work.open(tmp.path());
            let found: Vec<_> = work.held.iter().map(|(n, _)| *n).collect();
            step.check(&found, false);
            crashes += 1;
        }
    }
    eprintln!("{crashes} crashes");
    assert!(crashes > 100);
}

/// A writer died in its first group, of which the first block was lost and the second was not. The
/// next writer's first group has the same numbers and the same epoch, and ends where the second
/// block stands whole.
#[test]
fn what_a_dead_writer_left_is_not_taken_for_the_next_ones() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 10))]).unwrap();
    log.close().unwrap();
    let before = image(tmp.path());
    let (log, _) = open(tmp.path()).unwrap();
    // With the beginning of the run the first fills one block, the second the next.
    let lost = [payload(2, 512 - 72 - 64), payload(3, 512 - 64)];
    let lost: Vec<_> = lost.iter().map(|p| record(p)).collect();
    log.append_durable(&lost).unwrap();
    drop(log);
    let after = image(tmp.path());
    let name = "0000000000000001.seg";
    let changed: Vec<_> = (0..8192)
        .step_by(BLOCK)
        .filter(|at| before[name][*at..*at + BLOCK] != after[name][*at..*at + BLOCK])
        .collect();
    assert_eq!(changed.len(), 2);
    let mut torn = after.clone();
    torn.get_mut(name).unwrap()[changed[0]..changed[1]].fill(0);
    let tmp = materialise(&torn);
    let (log, found) = open(tmp.path()).unwrap();
    assert_eq!(numbers(&found.records), [1]);
    log.append_durable(&[record(&payload(4, 512 - 72 - 64))])
        .unwrap();
    drop(log);
    let now = image(tmp.path());
    assert_eq!(
        now[name][changed[1]..],
        after[name][changed[1]..],
        "nothing is left to be taken"
    );
    assert_eq!(numbers(&open(tmp.path()).unwrap().1.records), [1, 4]);
}
