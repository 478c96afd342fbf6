//! Runs the states that a power cut may leave past a check; makes those that fail small, and shows them.

use crate::build::{Choice, State, names, reachable, shown};
use crate::common::Random;
use crate::data::{Data, Window};
use crate::record::{Cut, Node, Record, Recorder};
use crate::rules::{Family, Masks, Rules};
use std::collections::{BTreeMap, HashSet};
use std::fmt::{Debug, Write};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use steadfast::sys;
use steadfast::sys::hook::{self, Likenesses, Machine};

/// Runs one state again: what a failure has printed.
pub(crate) const AGAIN: &str = "STEADFAST_POWER";

/// Microseconds of processor time that all hunts took.
pub(crate) static SPENT: AtomicU64 = AtomicU64::new(0);

/// Those of this thread.
fn spent() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
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

/// What the threads of a hunt share.
#[derive(Default)]
struct Hunt {
    next: AtomicUsize,
    seen: Mutex<HashSet<u64>>,
    count: AtomicUsize,
    failed: Mutex<Option<Failure>>,
}

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

/// Runs `f` after the next boot.
fn rebooted<R>(f: impl FnOnce() -> R) -> R {
    let now = hook::set_machine(None);
    let id = match now.and_then(|machine| machine.boot_id) {
        Some(id) => id.map(|byte| byte.wrapping_add(1)),
        None => [7; 16],
    };
    let machine = Machine {
        boot_id: Some(id),
        time_namespace: sys::time_namespace().ok().flatten(),
        boottime: std::time::Duration::from_secs(100),
    };
    hook::set_machine(Some(machine));
    let value = f();
    hook::set_machine(now);
    value
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
        let at = work.path().join("s");
        if let Ok(again) = std::env::var(AGAIN) {
            return self.again(&at, &again);
        }
        let before = spent();
        let found = self.each(&at, threads(), self.budget.nested, "");
        if threads() == 1 {
            SPENT.fetch_add(spent() - before, Ordering::Relaxed);
        }
        found
    }

    fn each(
        &self,
        at: &Path,
        threads: usize,
        nested: usize,
        before: &str,
    ) -> Result<usize, Failure> {
        let hunt = Hunt::default();
        let work = |at: &Path| {
            while let Some(number) = self.next(&hunt) {
                if let Err(failure) = self.one(at, number, &hunt, nested, before) {
                    *hunt.failed.lock().unwrap() = Some(failure);
                }
            }
        };
        if threads == 1 {
            work(at);
        } else {
            let name = std::thread::current().name().unwrap_or("").to_owned();
            std::thread::scope(|scope| {
                for n in 0..threads {
                    let at = at.with_file_name(format!("s{n}"));
                    let timed = move || {
                        work(&at);
                        SPENT.fetch_add(spent(), Ordering::Relaxed);
                    };
                    let builder = std::thread::Builder::new().name(name.clone());
                    builder.spawn_scoped(scope, timed).unwrap();
                }
            });
        }
        match hunt.failed.into_inner().unwrap() {
            Some(failure) => Err(failure),
            None => Ok(hunt.count.into_inner()),
        }
    }

    /// The next cut that nobody has taken, as long as nothing has failed.
    fn next(&self, hunt: &Hunt) -> Option<usize> {
        let number = hunt.next.fetch_add(1, Ordering::Relaxed);
        let has_failed = hunt.failed.lock().unwrap().is_some();
        (number < self.cuts.len() && !has_failed).then_some(number)
    }

    /// All states of one cut that were not seen before.
    fn one(
        &self,
        at: &Path,
        number: usize,
        hunt: &Hunt,
        nested: usize,
        before: &str,
    ) -> Result<(), Failure> {
        let cut = &self.cuts[number];
        let mut random = Random(seed() ^ (number as u64) << 32);
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
                    let state = State::of(&self.record, &choice);
                    let mut key = DefaultHasher::new();
                    (state.key(), format!("{:?}", cut.known)).hash(&mut key);
                    if !hunt.seen.lock().unwrap().insert(key.finish()) {
                        continue;
                    }
                    let count = 1 + hunt.count.fetch_add(1, Ordering::Relaxed);
                    if let Err(what) = self.look(at, &state, cut) {
                        return Err(self.failed(at, number, choice, &rules, what, before));
                    }
                    if count.is_multiple_of(nested) && !self.hides(&choice) {
                        let inner = self.cut_again(at, number, &choice)?;
                        hunt.count.fetch_add(inner, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there is more on the disk than the state shows: what comes of that later is not known.
    fn hides(&self, choice: &Choice) -> bool {
        choice.data.iter().any(|(node, data)| {
            let window = Window::new(&self.record, *node, choice.call);
            window.is_some_and(|window| window.hides(*data))
        })
    }

    /// The check of one state is recorded, and cut itself.
    fn cut_again(&self, at: &Path, cut: usize, choice: &Choice) -> Result<usize, Failure> {
        let outer = format!("{} then ", self.line(cut, choice));
        let subject = |record, cuts, families| Subject {
            name: self.name,
            families,
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
        let (record, cuts) = self.recorded(at, cut, choice);
        let families = [choice.family];
        let inner = subject(record, cuts, &families);
        rebooted(|| inner.each(at, 1, 0, &outer)).map_err(|Failure(story)| {
            let before = shown(&self.record, choice);
            Failure(format!("{story}\nwhile this was recovered: {before}"))
        })
    }

    fn recorded(&self, at: &Path, cut: usize, choice: &Choice) -> (Record, Vec<Cut<M>>) {
        let cut = &self.cuts[cut];
        fs::create_dir(at).unwrap();
        let likenesses = State::of(&self.record, choice).build(at);
        let recorder = Recorder::new(at, cut.known.clone(), likenesses.clone());
        let checked =
            rebooted(|| with(likenesses, || recorder.run(|| (self.check)(at, &cut.known))));
        checked.unwrap();
        fs::remove_dir_all(at).unwrap();
        recorder.take()
    }

    fn look(&self, at: &Path, state: &State<'_>, cut: &Cut<M>) -> Result<(), String> {
        fs::create_dir(at).unwrap();
        let likenesses = state.build(at);
        let check =
            AssertUnwindSafe(|| rebooted(|| with(likenesses, || (self.check)(at, &cut.known))));
        let checked = catch_unwind(check).unwrap_or_else(|panic| {
            hook::set_likenesses(Likenesses::new());
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("at something")))
        });
        fs::remove_dir_all(at).unwrap();
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
        at: &Path,
        cut: usize,
        mut choice: Choice,
        rules: &Rules<'_>,
        mut what: String,
        before: &str,
    ) -> Failure {
        let fails = |choice: &Choice| {
            self.look(at, &State::of(&self.record, choice), &self.cuts[cut])
                .err()
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
        Failure(format!(
            "{}: {what}\nknown: {:?}\n{}\nagain: {AGAIN}='{before}{line}' cargo test --test power -- {test}",
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
    fn again(&self, at: &Path, line: &str) -> Result<usize, Failure> {
        let (first, then) = match line.split_once(" then ") {
            Some((first, then)) => (first, Some(then)),
            None => (line, None),
        };
        let Some((cut, choice)) = self.parse(first) else {
            return Ok(0);
        };
        let rules = Rules::new(&self.record, choice.family, choice.call);
        let Some(then) = then else {
            let state = State::of(&self.record, &choice);
            let found = self.look(at, &state, &self.cuts[cut]);
            return match found {
                Ok(()) => Ok(1),
                Err(what) => Err(self.failed(at, cut, choice, &rules, what, "")),
            };
        };
        let (record, cuts) = self.recorded(at, cut, &choice);
        let inner = Subject {
            record,
            cuts,
            ..*self
        };
        rebooted(|| inner.again(at, then))
    }
}

fn with<R>(likenesses: Likenesses, f: impl FnOnce() -> R) -> R {
    let before = hook::set_likenesses(likenesses);
    let value = f();
    hook::set_likenesses(before);
    value
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
    before(&top);
    let recorder = Recorder::new(&top, known, Likenesses::new());
    let value = recorder.run(|| run(&top, &recorder));
    let (record, cuts) = recorder.take();
    (record, cuts, value, work)
}
