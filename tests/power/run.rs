//! Runs the states that a power cut may leave past a check; makes those that fail small, and shows them.

use crate::bench::Bench;
use crate::build::{Choice, Digest, State, names, reachable, shown};
use crate::common::Random;
use crate::data::{Data, Window};
use crate::record::{Cut, KERNEL, Node, Record};
use crate::recorder::Recorder;
use crate::rules::{Family, Masks, Rules};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashSet};
use std::fmt::{Debug, Write};
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use steadfast::sys::hook::{self, Likenesses, Machine, Still};

/// Runs one state again: what a failure has printed.
pub(crate) const AGAIN: &str = "STEADFAST_POWER";

/// Microseconds of processor time that all hunts took.
pub(crate) static SPENT: AtomicU64 = AtomicU64::new(0);

/// Of all states by now, in whatever order: two runs have looked at the same if it is the same.
pub(crate) static DIGEST: AtomicU64 = AtomicU64::new(0);

/// Microseconds of processor time.
pub(crate) fn clock(of: ClockId) -> u64 {
    let now = clock_gettime(of);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Those of this thread.
fn spent() -> u64 {
    clock(ClockId::ThreadCPUTime)
}

/// How many threads share a hunt: the tests themselves run side by side.
fn threads() -> usize {
    let set = std::env::var("STEADFAST_POWER_THREADS").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// States of the names, for each cut and family.
    pub(crate) masks: usize,
    /// Contents that are torn by chance, for each file that may be.
    pub(crate) torn: u64,
    /// States of all contents together, by chance, for each state of the names.
    pub(crate) mixed: usize,
    /// The check of one state of so many is cut again itself.
    pub(crate) nested: usize,
}

/// What was recorded, and what is to hold of it after a power cut.
pub(crate) struct Subject<'a, M> {
    pub(crate) name: &'a str,
    pub(crate) families: &'a [Family],
    pub(crate) record: Record,
    pub(crate) cuts: Vec<Cut<M>>,
    pub(crate) budget: Budget,
    /// Recovers what is in the directory, and says what is wrong with it.
    pub(crate) check: &'a (dyn Fn(&Path, &M) -> Result<(), String> + Sync),
}

/// One state to be looked at.
struct Task {
    cut: usize,
    choice: Choice,
    key: u64,
}

/// What the threads of a hunt share.
#[derive(Default)]
struct Hunt {
    next: AtomicUsize,
    /// All states, also those within others.
    seen: Mutex<HashSet<u64>>,
    /// The first one.
    failed: Mutex<Option<(usize, Failure)>>,
}

/// Where one thread makes its states.
struct Worker {
    at: PathBuf,
    dev: u64,
    bench: Bench,
}

impl Worker {
    fn new(at: PathBuf) -> Self {
        let bench = Bench::new(&at);
        let dev = fs::metadata(&at).unwrap().dev();
        Self { at, dev, bench }
    }
}

/// A world without chance for as long as this lives: see [`hook::Still`].
struct World {
    likenesses: Likenesses,
    still: Option<Still>,
    machine: Option<Machine>,
}

impl World {
    /// `depth` is how many times the power went before; `drawn` is a seed.
    fn new(dev: u64, depth: u8, drawn: u64, likenesses: Likenesses) -> Self {
        let depth = u64::from(depth);
        let still = Still {
            dev,
            ino: (1 + depth) << 32,
            clock: 1_500_000_000_000 + depth * 100_000_000_000,
            since: KERNEL,
            drawn,
        };
        let machine = Machine {
            boot_id: Some([7 + depth as u8; 16]),
            time_namespace: Some(0xefff_fffa),
            boottime: Duration::from_secs(100),
        };
        hook::set_process(Some(1000 + depth as u32));
        Self {
            likenesses: hook::set_likenesses(likenesses),
            still: hook::set_still(Some(still)),
            machine: hook::set_machine(Some(machine)),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        hook::set_likenesses(std::mem::take(&mut self.likenesses));
        hook::set_still(self.still);
        hook::set_machine(self.machine);
        hook::set_process(None);
    }
}

/// One state of so many is compared with what was made of it.
const COMPARED: u64 = 64;

/// A state in which the check failed: the whole story.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Where states are made: in memory. The model decides what is durable, and there are many of them.
pub(crate) fn memory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    tempfile::tempdir_in(shm)
        .or_else(|_| tempfile::tempdir_in(std::env::temp_dir()))
        .unwrap()
}

impl<M: Clone + Debug + Send + Sync + 'static> Subject<'_, M> {
    /// Fails at the first state that does not pass. Gives the number of states, each counted once.
    #[track_caller]
    pub(crate) fn prove(&self) -> usize {
        match self.hunt() {
            Ok(states) => states,
            Err(Failure(story)) => panic!("{story}"),
        }
    }

    /// [`Self::prove`], where a failure is looked for.
    pub(crate) fn hunt(&self) -> Result<usize, Failure> {
        let work = memory();
        let at = work.path().join("s0");
        if let Ok(again) = std::env::var(AGAIN) {
            return self.again(&mut Worker::new(at), &again, 0);
        }
        let hunt = Hunt::default();
        let tasks = self.shared(&self.cuts, |_, cut| self.states(cut));
        let mut tasks: Vec<Task> = tasks.into_iter().flatten().collect();
        tasks.retain(|task| hunt.seen.lock().unwrap().insert(task.key));
        let workers: Vec<usize> = (0..threads()).collect();
        self.shared(&workers, |_, n| {
            let mut worker = Worker::new(at.with_file_name(format!("s{n}")));
            self.look_at(&mut worker, &tasks, &hunt);
        });
        let seen = hunt.seen.into_inner().unwrap();
        if let Some((_, failure)) = hunt.failed.into_inner().unwrap() {
            return Err(failure);
        }
        let sum = seen.iter().fold(0, |sum: u64, key| sum.wrapping_add(*key));
        DIGEST.fetch_add(sum, Ordering::Relaxed);
        Ok(seen.len())
    }

    /// Does something for each of a row, on all threads; the answers are in its order.
    fn shared<'s, T: Sync, R: Send>(
        &self,
        row: &'s [T],
        each: impl Fn(usize, &'s T) -> R + Sync,
    ) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let work = || {
            let before = spent();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(one) = row.get(n) else { break };
                let answer = each(n, one);
                done.lock().unwrap().push((n, answer));
            }
            SPENT.fetch_add(spent() - before, Ordering::Relaxed);
        };
        if threads() == 1 {
            work();
        } else {
            let name = std::thread::current().name().unwrap_or("").to_owned();
            std::thread::scope(|scope| {
                for _ in 0..threads() {
                    let builder = std::thread::Builder::new().name(name.clone());
                    builder.spawn_scoped(scope, work).unwrap();
                }
            });
        }
        let mut done = done.into_inner().unwrap();
        done.sort_by_key(|(n, _)| *n);
        done.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Looks at states that nobody has taken, up to the first one that fails.
    fn look_at(&self, worker: &mut Worker, tasks: &[Task], hunt: &Hunt) {
        loop {
            let number = hunt.next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(number) else { break };
            let is_first = |failed: &Option<(usize, Failure)>| {
                failed.as_ref().is_none_or(|(first, _)| number < *first)
            };
            if !is_first(&hunt.failed.lock().unwrap()) {
                break;
            }
            if let Err(failure) = self.one(worker, task, hunt) {
                let mut failed = hunt.failed.lock().unwrap();
                if is_first(&failed) {
                    *failed = Some((number, failure));
                }
            }
        }
    }

    fn one(&self, worker: &mut Worker, task: &Task, hunt: &Hunt) -> Result<(), Failure> {
        let cut = &self.cuts[task.cut];
        let state = State::of(&self.record, &task.choice);
        if let Err(what) = self.look(worker, &state, cut, task.key, 1) {
            return Err(self.failed(worker, task.cut, task.choice.clone(), what, "", 1));
        }
        let nested = self.budget.nested as u64;
        let is_due = |of: u64| of > 0 && task.key.is_multiple_of(of);
        // Of those with more on the disk than they show there are few.
        match is_due(nested) || is_due(nested.div_ceil(8)) && self.hides(&task.choice) {
            true => self.cut_again(worker, task, hunt),
            false => Ok(()),
        }
    }

    /// The check of one state is recorded, and cut itself.
    fn cut_again(&self, worker: &mut Worker, task: &Task, hunt: &Hunt) -> Result<(), Failure> {
        let (record, cuts) = self.recorded(worker, task.cut, &task.choice);
        let families = [task.choice.family];
        let inner = Subject {
            name: self.name,
            families: &families,
            record,
            cuts,
            budget: Budget {
                masks: 3,
                torn: 1,
                mixed: 1,
                nested: 0,
            },
            check: self.check,
        };
        let before = format!("{} then ", self.line(task.cut, &task.choice));
        for number in 0..inner.cuts.len() {
            let cut = &inner.cuts[number];
            for Task { choice, key, .. } in inner.states_of(number) {
                if !hunt.seen.lock().unwrap().insert(key) {
                    continue;
                }
                let state = State::of(&inner.record, &choice);
                if let Err(what) = inner.look(worker, &state, cut, key, 2) {
                    let failed = inner.failed(worker, number, choice, what, &before, 2);
                    let outer = shown(&self.record, &task.choice);
                    let Failure(story) = failed;
                    return Err(Failure(format!(
                        "{story}\nwhile this was recovered: {outer}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn states(&self, cut: &Cut<M>) -> Vec<Task> {
        let number = self.cuts.iter().position(|c| std::ptr::eq(c, cut));
        self.states_of(number.unwrap())
    }

    /// All states of one cut, some of them the same.
    fn states_of(&self, number: usize) -> Vec<Task> {
        let cut = &self.cuts[number];
        let known = format!("{:?}", cut.known);
        let mut random = Random(seed() ^ (number as u64) << 32);
        let mut seen = HashSet::new();
        let mut tasks = Vec::new();
        for family in self.families {
            let rules = Rules::new(&self.record, *family, cut.call);
            for masks in rules.masks(self.budget.masks, &mut random) {
                for data in self.contents(*family, cut.call, &masks, &mut random) {
                    let choice = Choice {
                        family: *family,
                        call: cut.call,
                        masks: masks.clone(),
                        data,
                    };
                    let mut key = Digest::default();
                    (State::of(&self.record, &choice).key(), &known).hash(&mut key);
                    let key = key.finish();
                    if seen.insert(key) {
                        tasks.push(Task {
                            cut: number,
                            choice,
                            key,
                        });
                    }
                }
            }
        }
        tasks
    }

    /// Whether there is more on the disk than the state shows.
    fn hides(&self, choice: &Choice) -> bool {
        choice.data.iter().any(|(node, data)| {
            let window = Window::new(&self.record, *node, choice.call);
            window.is_some_and(|window| !window.beyond(*data).is_empty())
        })
    }

    fn recorded(&self, worker: &mut Worker, cut: usize, choice: &Choice) -> (Record, Vec<Cut<M>>) {
        let cut = &self.cuts[cut];
        let state = State::of(&self.record, choice);
        let likenesses = worker.bench.make(&state);
        let _world = World::new(worker.dev, 1, state.key(), likenesses);
        let recorder = Recorder::new(&worker.at, cut.known.clone());
        recorder
            .run(|| (self.check)(&worker.at, &cut.known))
            .unwrap();
        let (mut record, cuts) = recorder.take();
        // More may be on the disk than the state shows.
        for (node, data) in &choice.data {
            let window = Window::new(&self.record, *node, choice.call);
            let beyond = window.map(|window| window.beyond(*data));
            let ino = self.record.things[*node].ino;
            let same = record.things.iter_mut().find(|thing| thing.ino == ino);
            let first = same.and_then(|thing| thing.versions.first_mut());
            if let Some(first) = first.filter(|first| first.call == 0) {
                first.beyond = beyond.unwrap_or_default();
            }
        }
        (record, cuts)
    }

    fn look(
        &self,
        worker: &mut Worker,
        state: &State<'_>,
        cut: &Cut<M>,
        key: u64,
        depth: u8,
    ) -> Result<(), String> {
        let likenesses = worker.bench.make(state);
        if key.is_multiple_of(COMPARED) {
            state.verify(&worker.at, &likenesses);
        }
        let world = World::new(worker.dev, depth, key, likenesses);
        let check = AssertUnwindSafe(|| (self.check)(&worker.at, &cut.known));
        let checked = catch_unwind(check).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("at something")))
        });
        drop(world);
        checked
    }

    /// States of the contents that belong to a state of the names: all whole, all at their worst, each file
    /// in turn in each of its states, and some by chance.
    fn contents(
        &self,
        family: Family,
        call: usize,
        masks: &Masks,
        random: &mut Random,
    ) -> Vec<BTreeMap<Node, Data>> {
        let mut names = names(&self.record, masks);
        let nodes = reachable(&mut names, &self.record);
        let open: Vec<(Node, Window<'_>, Vec<Data>)> = (nodes.into_iter())
            .filter_map(|node| Some((node, Window::new(&self.record, node, call)?)))
            .filter(|(_, window)| !window.is_durable())
            .map(|(node, window)| {
                let all = window.all(family, self.budget.torn, random);
                (node, window, all)
            })
            .collect();
        let least: BTreeMap<Node, Data> = open.iter().map(|(n, w, _)| (*n, w.least())).collect();
        let mut out = vec![BTreeMap::new(), least];
        for (node, window, all) in &open {
            let mut some: Vec<Data> = all.clone();
            some.retain(|data| *data != window.whole());
            let take = match open.len() {
                0..3 => some.len(),
                _ => 1 + self.budget.torn.min(4) as usize,
            };
            for _ in 0..take.min(some.len()) {
                let data = some.swap_remove(random.below(some.len()));
                out.push([(*node, data)].into());
            }
        }
        if open.len() > 1 {
            for _ in 0..self.budget.mixed {
                let mixed = open.iter().map(|(node, _, all)| (*node, *random.of(all)));
                out.push(mixed.collect());
            }
        }
        out
    }

    /// Gives back what was lost, one thing after the other, as long as the check fails.
    fn failed(
        &self,
        worker: &mut Worker,
        cut: usize,
        mut choice: Choice,
        mut what: String,
        before: &str,
        depth: u8,
    ) -> Failure {
        let rules = Rules::new(&self.record, choice.family, choice.call);
        let mut fails = |choice: &Choice| {
            let state = State::of(&self.record, choice);
            self.look(worker, &state, &self.cuts[cut], 0, depth).err()
        };
        let mut again = true;
        while std::mem::take(&mut again) {
            let mut simpler = Vec::new();
            for node in choice.data.keys() {
                let mut less = choice.clone();
                less.data.remove(node);
                simpler.push(less);
            }
            for (i, mask) in choice.masks.iter().enumerate() {
                let whole = self.record.units[i].whole();
                if *mask != whole {
                    let mut less = choice.clone();
                    less.masks[i] = whole;
                    if rules.allow(&less.masks) {
                        simpler.push(less);
                    }
                }
            }
            for less in simpler {
                if let Some(now) = fails(&less) {
                    (choice, what, again) = (less, now, true);
                    break;
                }
            }
        }
        let test = std::thread::current().name().unwrap_or("").to_owned();
        let line = self.line(cut, &choice);
        let states = match scale() {
            1 => String::new(),
            times => format!("STEADFAST_STATES={times} "),
        };
        Failure(format!(
            "{}: {what}\nknown: {:?}\n{}\nagain: {states}{AGAIN}='{before}{line}' \
             cargo test --test power -- {test}",
            self.name,
            self.cuts[cut].known,
            shown(&self.record, &choice),
        ))
    }

    /// A choice as one line.
    fn line(&self, cut: usize, choice: &Choice) -> String {
        let masks: String = choice.masks.iter().map(|m| char::from(b'0' + m)).collect();
        let mut data = String::new();
        for (node, what) in &choice.data {
            write!(data, "{node}={what},").unwrap();
        }
        format!("{}|{:?}|{cut}|{masks}|{data}", self.name, choice.family)
    }

    fn parse(&self, line: &str) -> Option<(usize, Choice)> {
        let mut words = line.split('|');
        if words.next()? != self.name {
            return None;
        }
        let family = words.next()?;
        let family = *crate::rules::ALL
            .iter()
            .find(|f| format!("{f:?}") == family)?;
        let cut = words.next()?.parse().ok()?;
        let masks = words.next()?.bytes().map(|b| b - b'0').collect();
        let data = words.next()?.split_terminator(',').map(|one| {
            let (node, data) = one.split_once('=')?;
            Some((node.parse().ok()?, Data::parse(data)?))
        });
        let choice = Choice {
            family,
            call: self.cuts.get::<usize>(cut)?.call,
            masks,
            data: data.collect::<Option<_>>()?,
        };
        Some((cut, choice))
    }

    /// One state only.
    fn again(&self, worker: &mut Worker, line: &str, depth: u8) -> Result<usize, Failure> {
        let (first, then) = match line.split_once(" then ") {
            Some((first, then)) => (first, Some(then)),
            None => (line, None),
        };
        let Some((cut, choice)) = self.parse(first) else {
            return Ok(0);
        };
        let Some(then) = then else {
            let state = State::of(&self.record, &choice);
            let found = self.look(worker, &state, &self.cuts[cut], 0, depth + 1);
            return match found {
                Ok(()) => Ok(1),
                Err(what) => Err(self.failed(worker, cut, choice, what, "", depth + 1)),
            };
        };
        let (record, cuts) = self.recorded(worker, cut, &choice);
        let inner = Subject {
            record,
            cuts,
            ..*self
        };
        inner.again(worker, then, depth + 1)
    }
}

/// Another sample with each number.
fn seed() -> u64 {
    let set = std::env::var("STEADFAST_SEED").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Whether to take the time for everything.
pub(crate) fn long() -> bool {
    std::env::var_os("STEADFAST_LONG").is_some()
}

/// How many times as much as usual is tried.
pub(crate) fn scale() -> usize {
    let set = std::env::var("STEADFAST_STATES").ok();
    match set.and_then(|n| n.parse().ok()) {
        Some(times) => times,
        None if long() => 100,
        None => 1,
    }
}

/// Runs something in a fresh directory and records it. `before` is durable.
pub(crate) fn record<M: Clone + 'static, R>(
    known: M,
    before: impl FnOnce(&Path),
    run: impl FnOnce(&Path, &Recorder<M>) -> R,
) -> (Record, Vec<Cut<M>>, R, tempfile::TempDir) {
    let work = memory();
    let top: PathBuf = work.path().join("run");
    fs::create_dir(&top).unwrap();
    let _world = World::new(
        fs::metadata(&top).unwrap().dev(),
        0,
        seed(),
        Likenesses::new(),
    );
    // So that what is there before has no times and numbers of its own either.
    Recorder::new(&top, known.clone()).run(|| before(&top));
    let recorder = Recorder::new(&top, known);
    let value = recorder.run(|| run(&top, &recorder));
    let (record, cuts) = recorder.take();
    (record, cuts, value, work)
}
