//! Which states of a recording are looked at: prefixes, subsets and reorderings of what no flush has
//! covered, and writes that are torn.

use crate::image::SECTOR;
use crate::random::Random;
use std::collections::HashSet;

/// Up to this many pending writes every subset of them is a candidate.
const EXHAUSTIVE: usize = 5;

/// A disk that a power cut could leave, and what was known of the workload then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// What to give to the server's order `load`.
    pub(crate) load: String,
    /// So many steps had been acknowledged at the latest moment that fits.
    pub(crate) acknowledged: usize,
    /// So many had begun at the earliest.
    pub(crate) begun: usize,
    pub(crate) form: &'static str,
}

/// What lies between two flushes: the numbers of its writes, and their lengths (0 for what cannot be torn).
struct Interval {
    start: usize,
    end: usize,
    writes: Vec<(usize, usize)>,
}

fn intervals(events: &[&str]) -> Vec<Interval> {
    let mut out = vec![Interval {
        start: 0,
        end: events.len(),
        writes: Vec::new(),
    }];
    for (n, event) in events.iter().enumerate() {
        let Some(last) = out.last_mut() else { continue };
        let len = event[1..].parse().unwrap_or(0);
        match &event[..1] {
            "w" => last.writes.push((n, len)),
            "z" => last.writes.push((n, 0)),
            "f" => {
                last.end = n;
                out.push(Interval {
                    start: n + 1,
                    end: events.len(),
                    writes: Vec::new(),
                });
            }
            _ => {}
        }
    }
    out
}

/// The step marks: 2n is written when step n begins, 2n + 1 when it is acknowledged.
struct Marks(Vec<(usize, usize)>);

impl Marks {
    fn before(&self, at: usize, odd: bool) -> usize {
        let of_kind = self.0.iter().filter(|(_, mark)| (mark % 2 == 1) == odd);
        of_kind.filter(|(n, _)| *n < at).count()
    }
}

/// A candidate, with the number by which it is chosen.
struct Candidate {
    rank: u64,
    state: State,
}

/// The recording that states are chosen from.
struct Chooser {
    marks: Marks,
    known: Option<(usize, usize)>,
    seed: u64,
}

impl Chooser {
    /// The disk at the start of an interval, and what of it is chosen.
    fn candidate(
        &self,
        (number, interval): (usize, &Interval),
        chosen: &[String],
        form: &'static str,
    ) -> Candidate {
        let mut load = format!("load {}", interval.start);
        let mut about = format!("{} {number} {form}", self.seed);
        let mut last = interval.start;
        for spec in chosen {
            load = format!("{load} {spec}");
            let end = spec.find(['<', '>', '%']).unwrap_or(spec.len());
            let event = spec[..end].parse().unwrap_or(0);
            // Counted from the flush, so that it does not depend on what was before it.
            about = format!("{about} {}{}", event - interval.start, &spec[end..]);
            last = last.max(event);
        }
        let (acknowledged, begun) = self.known.unwrap_or_else(|| {
            let acknowledged = self.marks.before(interval.end, true);
            (acknowledged, self.marks.before(last, false))
        });
        let state = State {
            load,
            acknowledged,
            begun,
            form,
        };
        let rank = Random::about(&about).next();
        Candidate { rank, state }
    }
}

fn plain(writes: &[(usize, usize)]) -> Vec<String> {
    writes.iter().map(|(n, _)| n.to_string()).collect()
}

/// Some of the writes, in any order: all there are of few, of many a sample.
fn subsets(writes: &[(usize, usize)], random: &mut Random) -> Vec<Vec<String>> {
    if writes.len() <= EXHAUSTIVE {
        let all = 0_u32..1 << writes.len();
        let some = |bits: u32| {
            let of = writes.iter().enumerate();
            let some: Vec<_> = of
                .filter(|(n, _)| bits >> n & 1 == 1)
                .map(|(_, write)| *write)
                .collect();
            plain(&some)
        };
        return all.map(some).collect();
    }
    let sample = |_| {
        let lost = random.below(writes.len());
        let end = lost + 1 + random.below(writes.len() - lost);
        let mut some = writes[..end].to_vec();
        match random.below(3) {
            0 => drop(some.remove(lost)),
            1 => some.retain(|_| random.one_in(2)),
            _ => some = vec![writes[lost]],
        }
        plain(&some)
    };
    (0..2 * writes.len().min(40)).map(sample).collect()
}

/// One write is torn, into units of so many sectors; of those before it all or some are there.
fn torn(writes: &[(usize, usize)], unit: usize, random: &mut Random) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    for (n, (event, len)) in writes.iter().enumerate() {
        let units = len / (unit * SECTOR);
        if units < 2 {
            continue;
        }
        let cut = (1 + random.below(units - 1)) * unit;
        let torn = match random.below(if unit == 1 { 3 } else { 2 }) {
            0 => format!("{event}<{cut}"),
            1 => format!("{event}>{cut}"),
            _ => format!("{event}%{}", random.below(1 << 30)),
        };
        let mut some = plain(&writes[..n]);
        if random.one_in(3) {
            some.retain(|_| random.one_in(2));
        }
        some.push(torn);
        out.push(some);
    }
    out
}

/// Up to `number` different states, in the order of their rank; writes are torn into units of so many
/// sectors; `known` is for a recording without marks.
///
/// The seed decides for each interval by itself, and each state has a rank of its own: one write more or
/// less somewhere, as the kernel's timing has it, changes the choice there alone.
pub(crate) fn choose(
    events: &str,
    number: usize,
    unit: usize,
    known: Option<(usize, usize)>,
    seed: u64,
) -> Vec<State> {
    let events: Vec<_> = events.split_ascii_whitespace().collect();
    let marks = events.iter().enumerate().filter_map(|(n, event)| {
        let mark = event.strip_prefix('m')?.parse().ok()?;
        Some((n, mark))
    });
    let chooser = Chooser {
        marks: Marks(marks.collect()),
        known,
        seed,
    };
    let (mut prefixes, mut others) = (Vec::new(), Vec::new());
    for interval in intervals(&events).iter().enumerate() {
        let writes = &interval.1.writes;
        for end in 0..=writes.len() {
            prefixes.push(chooser.candidate(interval, &plain(&writes[..end]), "prefix"));
        }
        let mut random = Random::about(&format!("{seed} {}", interval.0));
        for some in subsets(writes, &mut random) {
            others.push(chooser.candidate(interval, &some, "subset"));
        }
        for some in torn(writes, unit, &mut random) {
            others.push(chooser.candidate(interval, &some, "torn"));
        }
    }
    for candidates in [&mut prefixes, &mut others] {
        candidates.sort_by_key(|candidate| candidate.rank);
    }
    // Half of them prefixes, as far as there are any.
    let from_others = others.len().min(number / 2);
    prefixes.truncate(number.saturating_sub(from_others).max(number / 2));
    let mut seen = HashSet::new();
    let mut out: Vec<_> = prefixes
        .into_iter()
        .chain(others)
        .filter(|candidate| seen.insert(candidate.state.load.clone()))
        .collect();
    out.truncate(number);
    out.sort_by_key(|candidate| candidate.rank);
    out.into_iter().map(|candidate| candidate.state).collect()
}
