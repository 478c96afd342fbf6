//! The parts of the library that keep state of their own: the log, and leases.

use crate::play::{Expect, Play, Subject};
use crate::tree::{Tree, value};
use crate::{Answer, fault};
use std::fs;
use std::path::Path;
use steadfast::Root;
use steadfast::journal::{LogOptions, Record, Recovered};
use steadfast::lease::Leases;

/// This many of the newest records are never released.
const HELD: usize = 3;
const KIND: u16 = 16;

/// The number of the last record, of which all that are not released must be there.
fn last(found: &Recovered) -> Answer<Tree> {
    let mut numbers = Vec::new();
    for entry in &found.records {
        let text = std::str::from_utf8(&entry.payload)?;
        let (number, rest) = text.split_once(' ').ok_or("a record without a number")?;
        let number: usize = number.parse()?;
        if rest != filling(number) {
            return Err(fault(format!("record {number} is not whole")));
        }
        numbers.push(number);
    }
    let last = numbers.last().copied().unwrap_or(0);
    let row = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    // The release that comes with the next record may be there without it.
    let early = ((last + 2).saturating_sub(HELD)).clamp(1, last.max(1));
    if !row || numbers.first().is_some_and(|first| *first > early) {
        return Err(fault(format!("records {numbers:?}")));
    }
    Ok(value(last.to_string()))
}

fn filling(number: usize) -> String {
    "abcdefg".repeat(number % 5 * 70 + 3)
}

fn options() -> LogOptions {
    LogOptions::new()
        .segment_len(8 << 10)
        .further_segment_len(12 << 10)
        .max_segments(3)
}

/// Records in small segments, which are used again all the time.
fn log(play: &mut Play<'_>) -> Answer<()> {
    let dir = Root::open(&play.top)?.dir().try_clone()?;
    play.states = vec![value("0")];
    let mut log = None;
    let mut seqs = Vec::new();
    for n in 1..=30_usize {
        play.step(
            |_| Ok(value(n.to_string())),
            |_, _| {
                if n % 11 == 1 {
                    // As a process that was killed.
                    drop(log.take());
                    log = Some(options().open(dir.try_clone()?)?.0);
                }
                let log = log.as_ref().ok_or("no log")?;
                if let Some(released) = n.checked_sub(HELD + 1) {
                    log.release(seqs.get(released).copied().unwrap_or(0))?;
                }
                let payload = format!("{n} {}", filling(n));
                let made = log.append_durable(&[Record::new(KIND, payload.as_bytes())])?;
                seqs.push(made.last);
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn recover_log(top: &Path) -> Answer<Tree> {
    let dir = || -> Answer<_> { Ok(Root::open(top)?.dir().try_clone()?) };
    let (log, found) = options().open(dir()?)?;
    let now = last(&found)?;
    log.close()?;
    // What recovery leaves says the same.
    let (_, again) = options().open(dir()?)?;
    if last(&again)? == now {
        Ok(now)
    } else {
        Err(fault(format!("opened again: {again:?}")))
    }
}

const LEASE: &str = "leader";

fn current(leases: &Leases) -> Answer<Tree> {
    let fence = leases.current(LEASE)?.map_or(0, |fence| fence.get());
    Ok(value(fence.to_string()))
}

fn lease(play: &mut Play<'_>) -> Answer<()> {
    let dir = Root::open(&play.top)?.dir().try_clone()?;
    let leases = Leases::open(&dir)?;
    play.states = vec![value("0")];
    for n in 0..10 {
        let mut held = None;
        play.step(
            |_| current(&leases),
            |_, _| {
                held = Some(leases.try_acquire(LEASE)?);
                Ok(())
            },
        )?;
        if let Some(lease) = held.filter(|_| n % 2 == 0) {
            lease.release()?;
        }
    }
    Ok(())
}

fn recover_lease(top: &Path) -> Answer<Tree> {
    let dir = Root::open(top)?.dir().try_clone()?;
    let leases = Leases::open(&dir)?;
    let before = leases.current(LEASE)?.map_or(0, |fence| fence.get());
    let now = current(&leases)?;
    let lease = leases.try_acquire(LEASE)?;
    if lease.fence().get() <= before {
        return Err(fault("a fencing number was granted twice"));
    }
    lease.release()?;
    Ok(now)
}

pub(crate) fn all() -> Vec<Subject> {
    vec![
        Subject {
            name: "log, recycled",
            expect: |_| Expect::Clean,
            each: false,
            nested: true,
            prepare: |_| Ok(()),
            run: log,
            recover: recover_log,
        },
        Subject {
            name: "leases",
            expect: |_| Expect::Clean,
            each: false,
            // Its recovery takes the next number.
            nested: false,
            prepare: |top| Ok(fs::write(top.join("file"), "")?),
            run: lease,
            recover: recover_lease,
        },
    ]
}
