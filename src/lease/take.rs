//! Taking a lease: who may have it, the next number, and that it is durable before it is granted.

use super::file::{Locked, Opened, Shared, Spot};
use super::held::Lease;
use super::holder::Holder;
use super::options::LeaseOptions;
use super::record::{Content, FIRST, MAX_LABEL, Record, State};
use super::ttl::{self, Clock, Seen, TAKING, Verdict};
use crate::sys::{self, Errno};
use crate::{DiskState, Error, ErrorKind, Result};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

const ACQUIRE: &str = "acquire lease";

/// The content itself is watched, not the taking of a number.
const CONTENT: u64 = 0;

pub(super) fn take(shared: &Arc<Shared>, name: &[u8], options: &LeaseOptions) -> Result<Lease> {
    let spot = Spot::new(shared, name, ACQUIRE)?;
    let refuse = |why| {
        spot.refuse(ErrorKind::InvalidInput)
            .with_advice(format!("choose {why}"))
    };
    if options.label.len() > MAX_LABEL {
        return Err(refuse("a shorter label"));
    }
    match options.ttl {
        None => by_kernel(spot, options),
        Some(Duration::ZERO) => Err(refuse("a time to live above zero")),
        Some(ttl) => by_time(spot, options, ttl::nanos(ttl)),
    }
}

/// Held with the kernel's lock.
fn by_kernel(spot: Spot, options: &LeaseOptions) -> Result<Lease> {
    let locked = lock(&spot)?;
    let content = spot.read(&locked.file, true)?;
    may_take(&spot, &content, 0)?;
    let record = Record {
        state: State::Kernel,
        ..record(next(&spot, &content)?, options)
    };
    prepare(&spot, &locked.file, &content, record.fence)?;
    spot.write(&locked.file, &record).map_err(used_up)?;
    if matches!(content.newest.state, State::Ttl | State::Released) {
        unmark(&spot, &content, record.fence);
    }
    forget(&spot);
    Ok(Lease::kernel(spot, locked, record))
}

/// Held until a time. The kernel's lock is held for the taking only, and reaches this machine's
/// processes; others see that a number is being taken by a file that is created exclusively.
fn by_time(spot: Spot, options: &LeaseOptions, ttl: u64) -> Result<Lease> {
    // A look without the lock, which the holder needs in order to renew.
    if let Some(file) = spot.open(false)? {
        may_take(&spot, &spot.read(&file, false)?, ttl)?;
    }
    let locked = lock(&spot)?;
    let content = spot.read(&locked.file, true)?;
    may_take(&spot, &content, ttl)?;
    let clock = Clock::here().map_err(|(call, e)| spot.fail(call, e))?;
    // The holder's time begins before anybody can have seen that it has the lease.
    let start = now(&spot)?;
    let fence = announce(&spot, &content, start)?;
    let mut token = [0; 16];
    let drawn = sys::random(&mut token).map_err(|e| spot.fail("getrandom", e));
    let record = Record {
        state: State::Ttl,
        boot: clock.boot,
        namespace: clock.namespace,
        ttl,
        expiry: start.saturating_add(ttl),
        token,
        ..record(fence, options)
    };
    let granted = drawn.and_then(|()| grant(&spot, &locked.file, &content, &record, start));
    match granted {
        Ok(()) => unmark(&spot, &content, fence),
        Err(e) if e.disk_state() == DiskState::Unchanged => {
            // Nobody else has this number's mark. If it stays it is waited for.
            let _ = spot.unmark(fence);
            return Err(e);
        }
        Err(e) => return Err(e),
    }
    forget(&spot);
    Ok(Lease::by_time(spot, locked.file.id, record))
}

/// Opens the file and locks it, and sees to it that it is the one that everybody else locks.
fn lock(spot: &Spot) -> Result<Locked> {
    /// Each turn somebody replaced the file, which nobody should.
    const TURNS: u32 = 8;
    for _ in 0..TURNS {
        match spot.open_or_create()?.lock() {
            Ok(locked) if spot.leads_to(locked.file.id)? => return Ok(locked),
            Ok(_) => {}
            Err(e @ Errno::AGAIN) => {
                let error = spot.fail("fcntl(F_OFD_SETLK)", e);
                return Err(busy(
                    error.with_kind(ErrorKind::Busy),
                    holder(spot).as_ref(),
                ));
            }
            Err(e) => return Err(spot.fail("fcntl(F_OFD_SETLK)", e)),
        }
    }
    Err(spot.replaced())
}

/// Who holds it, as far as that can be read.
fn holder(spot: &Spot) -> Option<Holder> {
    let file = spot.open(false).ok()??;
    Holder::of(&spot.read(&file, false).ok()?.newest)
}

fn busy(error: Error, holder: Option<&Holder>) -> Error {
    let error = error.with_advice("wait, or try again later");
    match holder {
        Some(holder) => error.with_detail(holder.clone()),
        None => error,
    }
}

/// An error unless the record, and what was seen of it before, allow to take the lease.
fn may_take(spot: &Spot, content: &Content, ttl: u64) -> Result<()> {
    let by_time = content.newest.state == State::Ttl;
    if !by_time && (content.lost.is_none() || ttl == 0) {
        return Ok(());
    }
    let clock = Clock::here().map_err(|(call, e)| spot.fail(call, e))?;
    let now = now(spot)?;
    let free = match ttl::judge(content, clock, now, ttl) {
        Verdict::Free => true,
        Verdict::Live => false,
        Verdict::Watch(time) => watched(spot, content, CONTENT, now) >= time,
    };
    if free {
        return Ok(());
    }
    let holder = Holder::of(&content.newest);
    Err(busy(spot.refuse(ErrorKind::Busy), holder.as_ref()))
}

/// For how long this has been seen; the first time begins now.
fn watched(spot: &Spot, content: &Content, taking: u64, now: u64) -> u64 {
    let mut seen = spot
        .shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let key = (spot.name.clone(), taking);
    let age = seen.get(&key).and_then(|s| s.age(content, now));
    age.unwrap_or_else(|| {
        seen.insert(key, Seen::new(content, now));
        0
    })
}

fn forget(spot: &Spot) {
    let mut seen = spot
        .shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    seen.retain(|(name, _), _| *name != spot.name);
}

/// Announces the next number that nobody else has announced. One that was announced and not taken
/// for long enough is passed over, and never granted.
fn announce(spot: &Spot, content: &Content, now: u64) -> Result<u64> {
    let mut fence = next(spot, content)?;
    while !spot.mark(fence)? {
        if watched(spot, content, fence, now) < 2 * ttl::nanos(TAKING) {
            let error = spot.refuse(ErrorKind::Busy);
            return Err(busy(
                error.with_detail("somebody is about to take it, or died while doing so"),
                None,
            ));
        }
        fence += 1;
    }
    Ok(fence)
}

/// Writes the record, and sees to it that nobody on another machine was faster.
fn grant(spot: &Spot, file: &Opened, content: &Content, record: &Record, start: u64) -> Result<()> {
    // Whoever had announced this number before and has taken it, has written it before giving up
    // the mark.
    if reread(spot, file)? != *content {
        return Err(busy(spot.refuse(ErrorKind::Busy), None));
    }
    prepare(spot, file, content, record.fence)?;
    spot.write(file, record).map_err(used_up)?;
    let lost = |e: Error| e.with_state(DiskState::Indeterminate);
    let found = reread(spot, file).map_err(lost)?;
    if found.newest != *record {
        // Its slot may be another's now: what is in there stays.
        let error = lost(spot.refuse(ErrorKind::Busy));
        return Err(busy(error, Holder::of(&found.newest).as_ref()));
    }
    let now = now(spot).map_err(lost)?;
    let late = if now >= record.expiry {
        spot.refuse(ErrorKind::Expired)
            .with_advice("taking it took longer than it lasts: choose a longer time")
    } else if now.saturating_sub(start) > ttl::nanos(TAKING) {
        // Others wait so long for whoever announces a number, and not longer.
        spot.refuse(ErrorKind::Busy)
            .with_advice("taking it took too long: the storage is slow")
    } else {
        return Ok(());
    };
    // So that nobody waits for it. If this fails they wait until its time is up.
    let _ = spot.write_loose(file, &record.released());
    Err(lost(late))
}

/// Reads the file through a new descriptor: on network storage, opening is what asks the server.
fn reread(spot: &Spot, file: &Opened) -> Result<Content> {
    match spot.open(false)? {
        Some(again) if again.id == file.id => spot.read(&again, false),
        _ => Err(spot.replaced()),
    }
}

/// Makes the name durable before its first number is granted, and writes what must be there beside
/// the new number: the one before it.
fn prepare(spot: &Spot, file: &Opened, content: &Content, fence: u64) -> Result<()> {
    if content.newest.fence <= FIRST {
        spot.sync_names()?;
    }
    for passed in content.newest.fence + 1..fence {
        let record = Record {
            fence: passed,
            ..Record::default()
        };
        spot.write(file, &record).map_err(used_up)?;
    }
    Ok(())
}

fn used_up(error: Error) -> Error {
    error.with_advice("the lease is not held; its next number may be used up")
}

/// Removes the marks up to this number. One that stays does no harm: its number has been taken.
fn unmark(spot: &Spot, content: &Content, fence: u64) {
    for number in content.newest.fence..=fence {
        let _ = spot.unmark(number);
    }
}

fn next(spot: &Spot, content: &Content) -> Result<u64> {
    content.next().ok_or_else(|| {
        spot.refuse(ErrorKind::Corrupt)
            .with_detail("the numbers are used up")
    })
}

fn now(spot: &Spot) -> Result<u64> {
    ttl::now().map_err(|e| spot.fail("clock_gettime", e))
}

/// What every record says.
fn record(fence: u64, options: &LeaseOptions) -> Record {
    Record {
        fence,
        pid: sys::process_id(),
        since: sys::realtime().as_secs(),
        label: options.label.clone(),
        ..Record::default()
    }
}
