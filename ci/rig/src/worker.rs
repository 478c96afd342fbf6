//! One subject on one file system: records it, and checks the states that power cuts could leave.

use crate::device::{Device, Kind, Through};
use crate::play::{Expect, Play, Subject, Verdict};
use crate::random::Random;
use crate::shake::{Pace, Shake};
use crate::states::{self, State};
use crate::tree::{Tree, tree};
use crate::{Answer, fault};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steadfast::sys::{hook, syncfs};

/// Of so many states the recovery is recorded and cut, at the most.
const NESTED: usize = 6;
/// So many states of one recovery.
const OF_NESTED: usize = 5;
/// So many rounds more, until a fault is seen that must be.
const MORE_ROUNDS: usize = 20;

/// What a worker was told to do.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) kind: &'static Kind,
    pub(crate) seed: u64,
    pub(crate) rounds: usize,
    pub(crate) states: usize,
    /// It is to be done within this time; then there are fewer states.
    pub(crate) limit: Option<Duration>,
    /// Calls of the library that are left out.
    pub(crate) skip: Vec<&'a str>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) checked: usize,
    pub(crate) nested: usize,
    pub(crate) same: usize,
    pub(crate) lost: usize,
    pub(crate) torn: usize,
    pub(crate) unmountable: usize,
    /// Seconds in all, and of the checks.
    pub(crate) seconds: f64,
    pub(crate) checking: f64,
    /// Seconds of the checks: making the disk, mounting, recovering, unmounting.
    pub(crate) parts: [f64; 4],
    messages: BTreeMap<String, (usize, String)>,
}

#[derive(Debug)]
struct Worker<'a> {
    job: &'a Job<'a>,
    subject: &'a Subject,
    device: Device,
    tally: Tally,
    seen: HashSet<String>,
    start: Instant,
}

/// Does the job. While a fault that must be seen has not been, there are more rounds.
pub(crate) fn work(job: &Job<'_>, device: Device, subject: &Subject) -> Answer<Tally> {
    let mut worker = Worker::new(job, device, subject);
    for round in 0..job.rounds {
        let left = job.states.saturating_sub(worker.tally.checked);
        let number = left.div_ceil(job.rounds - round);
        if round > 0 && worker.is_late(job.rounds) {
            break;
        }
        worker.round(round, number)?;
    }
    for round in job.rounds..job.rounds + MORE_ROUNDS {
        let (lost, torn) = (worker.tally.lost, worker.tally.torn);
        let is_seen = match (subject.expect)(job.kind) {
            Expect::Wrong => lost + torn > 0,
            Expect::Loses => lost > 0,
            Expect::Clean | Expect::Any => true,
        };
        if is_seen {
            break;
        }
        worker.round(round, job.states.div_ceil(job.rounds))?;
    }
    worker.tally.seconds = worker.start.elapsed().as_secs_f64();
    Ok(worker.tally)
}

/// Checks one saved image again; known is what was acknowledged, and what had begun.
pub(crate) fn again(
    job: &Job<'_>,
    device: Device,
    subject: &Subject,
    image: &Path,
    known: (usize, usize),
) -> Answer<Verdict> {
    let mut worker = Worker::new(job, device, subject);
    // The states that it should have had, from an undisturbed run.
    let states = worker.record(0)?;
    worker.device.restore(image)?;
    worker.check(&states, known, Through::Recorded)
}

/// Does something, and adds the seconds that it took.
fn timed<T>(part: &mut f64, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = what();
    *part += start.elapsed().as_secs_f64();
    out
}

impl<'a> Worker<'a> {
    fn new(job: &'a Job<'a>, device: Device, subject: &'a Subject) -> Self {
        Self {
            job,
            subject,
            device,
            tally: Tally::default(),
            seen: HashSet::new(),
            start: Instant::now(),
        }
    }

    /// What decides in a part of the work.
    fn seed(&self, part: &str) -> u64 {
        let Job { seed, kind, .. } = self.job;
        let words = format!("{seed}, {}, {}, {part}", kind.name, self.subject.name);
        Random::about(&words).next()
    }

    /// Whether the time of this round, or of any of those that come after, is over.
    fn is_late(&self, round: usize) -> bool {
        let part = (round + 1).min(self.job.rounds) as f64 / self.job.rounds as f64;
        let limit = self.job.limit.map(|limit| limit.mul_f64(part));
        limit.is_some_and(|limit| self.start.elapsed() > limit)
    }

    /// Runs the subject, recorded; gives what was there after each step.
    fn record(&mut self, round: usize) -> Answer<Vec<Tree>> {
        self.device.order("take fresh")?;
        self.device.show(Through::Recorded)?;
        self.device.mount(Through::Recorded)?;
        let top = self.device.at.join("t");
        fs::create_dir(&top)?;
        let seed = self.seed(&format!("record {round}"));
        let shake = Arc::new(Shake::new(&self.device, Pace::of(round), seed)?);
        (self.subject.prepare)(&top)?;
        syncfs(File::open(&top)?)?;
        self.device.order("record")?;
        self.device
            .order(&format!("delay {}", if round % 2 == 1 { 300 } else { 0 }))?;
        let mut play = Play {
            states: vec![tree(&top)?],
            top,
            device: &mut self.device,
            shake: shake.clone(),
        };
        let done = hook::observe(
            move |_, _| shake.call(),
            || hook::skip(&self.job.skip, || (self.subject.run)(&mut play)),
        );
        let states = play.states;
        self.device.order("stop")?;
        self.device.order("delay 0")?;
        self.device.unmount()?;
        done.map(|()| states)
    }

    fn round(&mut self, round: usize, number: usize) -> Answer<()> {
        let states = self.record(round)?;
        let start = Instant::now();
        let events = self.device.order("events")?;
        let seed = self.seed(&format!("states {round}"));
        let chosen = states::choose(&events, number, self.job.kind.torn, None, seed);
        for (n, state) in chosen.iter().enumerate() {
            if n > 0 && self.is_late(round) {
                break;
            }
            let hash = timed(&mut self.tally.parts[0], || self.device.order(&state.load))?;
            let known = (state.acknowledged, state.begun);
            if !self.seen.insert(format!("{hash} {known:?}")) {
                self.tally.same += 1;
                continue;
            }
            let nested = self.subject.nested && n % 8 == 0 && n / 8 < NESTED;
            if !nested {
                let verdict = self.check(&states, known, Through::Memory)?;
                self.count(verdict, state, round)?;
            } else {
                let verdict = self.check(&states, known, Through::Recorded)?;
                self.device.order("stop")?;
                self.device.order("take shown")?;
                self.count(verdict, state, round)?;
                let seed = self.seed(&format!("recovery {round} {n}"));
                self.nested(&states, state, round, seed)?;
                self.device.order("forget")?;
            }
        }
        self.device.order("forget")?;
        self.tally.checking += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Cuts the recovery that was just recorded.
    fn nested(&mut self, states: &[Tree], first: &State, round: usize, seed: u64) -> Answer<()> {
        let events = self.device.order("events")?;
        let known = (first.acknowledged, first.begun);
        // A file system may not survive a torn block of its own during its own recovery.
        let torn = 8;
        for state in states::choose(&events, OF_NESTED, torn, Some(known), seed) {
            let hash = timed(&mut self.tally.parts[0], || self.device.order(&state.load))?;
            if !self.seen.insert(format!("{hash} {known:?}")) {
                self.tally.same += 1;
                continue;
            }
            let verdict = self.check(states, known, Through::Memory)?;
            self.tally.nested += 1;
            self.count(verdict, &state, round)?;
        }
        Ok(())
    }

    /// Mounts the disk that the server has, recovers, and judges.
    fn check(
        &mut self,
        states: &[Tree],
        known: (usize, usize),
        through: Through,
    ) -> Answer<Verdict> {
        let [showing, mounting, recovering, unmounting] = &mut self.tally.parts;
        timed(showing, || self.device.show(through))?;
        if through == Through::Recorded {
            self.device.order("record")?;
        }
        if let Err(e) = timed(mounting, || self.device.mount(through)) {
            return Ok(Verdict::Unmountable(e.to_string()));
        }
        let top = self.device.at.join("t");
        let recover = || catch_unwind(AssertUnwindSafe(|| (self.subject.recover)(&top)));
        let found = timed(recovering, recover);
        let found = found.unwrap_or_else(|_| Err(fault("recovery panicked")));
        let verdict = self.subject.judge(states, found, known.0, known.1);
        timed(unmounting, || self.device.unmount())?;
        Ok(verdict)
    }

    fn count(&mut self, verdict: Verdict, state: &State, round: usize) -> Answer<()> {
        self.tally.checked += 1;
        let (count, word, message) = match verdict {
            Verdict::Clean => return Ok(()),
            Verdict::Lost(message) => (&mut self.tally.lost, "lost", message),
            Verdict::Torn(message) => (&mut self.tally.torn, "torn", message),
            Verdict::Unmountable(message) => (&mut self.tally.unmountable, "no mount", message),
        };
        *count += 1;
        let short: String = message
            .split_once(": ")
            .map_or(&*message, |(_, m)| m)
            .into();
        let group = format!("{word}: {}", short.chars().take(60).collect::<String>());
        let new = !self.tally.messages.contains_key(&group);
        let entry = self.tally.messages.entry(group).or_default();
        entry.0 += 1;
        if !new || (self.subject.expect)(self.job.kind) != Expect::Clean {
            return Ok(());
        }
        // Worth keeping: with the disk, and how to look at it again.
        let (dir, kind) = (self.job.dir.join("failed"), self.job.kind.name);
        fs::create_dir_all(&dir)?;
        let saved = format!("{}-{}.img", self.job.name, self.tally.messages.len());
        let file = dir.join(&saved);
        self.device.show(Through::Recorded)?;
        self.device.save(&file)?;
        let (subject, known) = (self.subject.name, (state.acknowledged, state.begun));
        let text = format!(
            "round {round}, seed {}, {}: {}\n    {message}\n    \
             again: ci/rig.sh again target/rig-failed/{saved} {kind} '{subject}' {} {}",
            self.job.seed, state.form, state.load, known.0, known.1
        );
        if let Some(entry) = self.tally.messages.values_mut().find(|e| e.1.is_empty()) {
            entry.1 = text;
        }
        Ok(())
    }
}

impl Tally {
    /// Counts those of another as well, without its messages.
    pub(crate) fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.nested += other.nested;
        self.seconds += other.seconds;
        self.checking += other.checking;
        for (sum, part) in self.parts.iter_mut().zip(other.parts) {
            *sum += part;
        }
    }

    /// What was wrong, each kind once.
    pub(crate) fn messages(&self) -> impl Iterator<Item = String> {
        let all = self.messages.iter();
        all.map(|(group, (times, text))| format!("{times} x {group}\n    {text}"))
    }
}
