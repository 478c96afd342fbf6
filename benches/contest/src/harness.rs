//! How it is measured: contenders in turn, in shuffled order, each from a disk that has nothing to write.

use crate::count::{self, Disk};
use crate::result::{CaseResult, ContenderResult};
use crate::stats::Times;
use rustix::fs::{Mode, OFlags, syncfs};
use std::error::Error;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The answer of whatever may fail here.
pub(crate) type Done<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// One sample of a contender: prepares, has its work timed by the watch, and cleans up.
pub(crate) type Work = Box<dyn FnMut(&mut Watch) -> Done>;

/// Prepares a contender in a directory.
type Make = Box<dyn Fn(&Path) -> Done<Work>>;

/// Times the part of a sample that counts.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    disk: Option<Disk>,
    marks: bool,
    took: Option<Duration>,
    flushes: u64,
    memory: Option<u64>,
}

impl Watch {
    /// Does the work, and keeps what it took. Once in each sample.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> Done<T>) -> Done<T> {
        let before = self.disk.as_ref().map(Disk::flushes).transpose()?;
        let resident = if self.marks {
            let now = count::reset_peak()?;
            count::mark();
            Some(now)
        } else {
            None
        };
        let start = Instant::now();
        let answer = work()?;
        let took = start.elapsed();
        if let Some(resident) = resident {
            count::mark();
            self.memory = Some(count::peak()?.saturating_sub(resident));
        }
        if let (Some(disk), Some(before)) = (&self.disk, before) {
            self.flushes = disk.flushes()?.saturating_sub(before);
        }
        self.took = Some(self.took.unwrap_or_default() + took);
        Ok(answer)
    }
}

/// One way to do a case's work.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    make: Make,
}

/// The same work, done by several.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) title: String,
    /// How many things one sample does: what is reported is the time of one sample all the same.
    pub(crate) things: u64,
    /// Whether system calls are counted: not where a sample takes seconds under strace.
    pub(crate) traced: bool,
    /// At most so many rounds.
    pub(crate) rounds: usize,
    contenders: Vec<Contender>,
}

impl Case {
    /// A case without contenders; the first that is added is what the others are compared with.
    pub(crate) fn new(id: impl Into<String>, title: impl Into<String>, things: u64) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            things,
            traced: true,
            rounds: usize::MAX,
            contenders: Vec::new(),
        }
    }

    /// Adds a contender, which is made in a directory of its own.
    pub(crate) fn with<F>(
        mut self,
        name: &'static str,
        make: impl Fn(&Path) -> Done<F> + 'static,
    ) -> Self
    where
        F: FnMut(&mut Watch) -> Done + 'static,
    {
        let make = move |dir: &Path| -> Done<Work> { Ok(Box::new(make(dir)?)) };
        let make = Box::new(make);
        self.contenders.push(Contender { name, make });
        self
    }

    /// Without counting system calls.
    pub(crate) fn untraced(mut self) -> Self {
        self.traced = false;
        self
    }

    /// With at most so many rounds.
    pub(crate) fn rounds(mut self, at_most: usize) -> Self {
        self.rounds = at_most;
        self
    }
}

/// How long, and where.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    pub(crate) device: Option<String>,
    /// A case goes on for so long, once it has the fewest rounds.
    pub(crate) budget: Duration,
    pub(crate) fewest: usize,
    pub(crate) most: usize,
    /// When all cases are to be over, however slow the disk is.
    pub(crate) end: Option<SystemTime>,
}

impl Settings {
    /// How long a case may last at the most, if so many are to come after it.
    fn limit(&self, others: usize) -> Option<Duration> {
        let left = self.end?.duration_since(SystemTime::now());
        let left = left.unwrap_or_default();
        // What the others need on any disk; and no case takes it all.
        let needed = (2 * self.budget).saturating_mul(u32::try_from(others).unwrap_or(u32::MAX));
        Some(left.saturating_sub(needed).min(left / 3))
    }
}

/// Runs a case, after which so many come: all rounds, then each contender once under strace.
pub(crate) fn run(case: &Case, settings: &Settings, others: usize) -> Done<CaseResult> {
    let (start, limit) = (Instant::now(), settings.limit(others));
    let base = settings.dir.join(case.id.replace('/', "-"));
    let anchor = open(&settings.dir)?;
    let mut works = Vec::new();
    for (at, contender) in case.contenders.iter().enumerate() {
        let dir = base.join(at.to_string());
        fs::create_dir_all(&dir)?;
        let work = (contender.make)(&dir).map_err(|e| named(case, contender, e))?;
        works.push((work, Times::default()));
    }
    let mut watch = Watch {
        disk: settings.device.as_deref().map(Disk::new),
        ..Watch::default()
    };
    // What happens the first time only.
    for (at, (work, _)) in works.iter_mut().enumerate() {
        work(&mut watch).map_err(|e| named_at(case, at, e))?;
    }
    let mut order: Vec<usize> = (0..works.len()).collect();
    let mut dice = Dice::seeded(&case.id);
    let begin = Instant::now();
    let most = settings.most.min(case.rounds);
    for round in 0..most {
        if round >= settings.fewest && begin.elapsed() > settings.budget {
            break;
        }
        // Another one would take as long as those before.
        let next = begin.elapsed() / u32::try_from(round.max(1)).unwrap_or(u32::MAX);
        if round >= 1 && limit.is_some_and(|limit| start.elapsed() + next > limit) {
            break;
        }
        dice.shuffle(&mut order);
        for &at in &order {
            // What the one before has left to write is not this one's to wait for.
            syncfs(&anchor)?;
            watch.took = None;
            watch.flushes = 0;
            if let Some((work, times)) = works.get_mut(at) {
                work(&mut watch).map_err(|e| named_at(case, at, e))?;
                times.add(watch.took.ok_or("nothing was timed")?, watch.flushes);
            }
        }
    }
    let mut contenders = Vec::new();
    for (contender, (work, times)) in case.contenders.iter().zip(works) {
        drop(work);
        let mut result = times.result(contender.name);
        if case.traced {
            count_calls(case, contender, settings, &mut result)
                .map_err(|e| named(case, contender, e))?;
        }
        contenders.push(result);
    }
    fs::remove_dir_all(&base)?;
    Ok(CaseResult {
        id: case.id.clone(),
        title: case.title.clone(),
        things: case.things,
        contenders,
    })
}

fn count_calls(
    case: &Case,
    contender: &Contender,
    settings: &Settings,
    result: &mut ContenderResult,
) -> Done {
    let dir = settings.dir.join("traced");
    fs::create_dir_all(&dir)?;
    let log = tempfile::NamedTempFile::new()?;
    let counted = count::strace(&case.id, contender.name, &dir, log.path())?;
    fs::remove_dir_all(&dir)?;
    result.calls = Some(counted.calls);
    result.syncs = Some(counted.syncs);
    result.memory_kib = counted.memory_kib;
    result.by_name = counted.by_name;
    Ok(())
}

/// One contender's second sample, marked for strace; answers by how many KiB the memory grew.
pub(crate) fn once(case: &Case, name: &str, dir: &Path) -> Done<u64> {
    let contender = case.contenders.iter().find(|c| c.name == name);
    let contender = contender.ok_or("no such contender")?;
    let mut work = (contender.make)(dir)?;
    let mut watch = Watch::default();
    work(&mut watch)?;
    watch.marks = true;
    work(&mut watch)?;
    watch.memory.ok_or_else(|| "nothing was timed".into())
}

fn named(
    case: &Case,
    contender: &Contender,
    error: Box<dyn Error + Send + Sync>,
) -> Box<dyn Error + Send + Sync> {
    format!("{}, {}: {error}", case.id, contender.name).into()
}

fn named_at(
    case: &Case,
    at: usize,
    error: Box<dyn Error + Send + Sync>,
) -> Box<dyn Error + Send + Sync> {
    match case.contenders.get(at) {
        Some(contender) => named(case, contender, error),
        None => error,
    }
}

/// Opens a directory.
pub(crate) fn open(dir: &Path) -> Done<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

/// Random enough to change the order: the same order in each run of a case.
struct Dice(u64);

impl Dice {
    fn seeded(text: &str) -> Self {
        // FNV-1a; never zero, from which xorshift does not get away.
        let hash = |sum: u64, b: u8| (sum ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, hash) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n.max(1) as u64).unwrap_or(0)
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for at in (1..order.len()).rev() {
            order.swap(at, self.below(at + 1));
        }
    }
}
