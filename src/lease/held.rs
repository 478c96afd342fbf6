//! A lease that is held: asking whether it still is, renewing it, publishing under it, giving it
//! back.

use super::Fence;
use super::file::{Locked, Opened, Spot};
use super::holder::LeaseMode;
use super::record::{Content, Record, State};
use super::ttl;
use crate::sys::{self, Errno, FileId};
use crate::wait::again_until;
use crate::{DiskState, Error, ErrorKind, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the lock is waited for, which others hold for moments; and in [`Drop`], which cannot
/// say so.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_IN_DROP: Duration = Duration::from_millis(50);

/// A lease that is held. It is given back when this is dropped, or its process ends; with a
/// [ttl](super::LeaseOptions::ttl) also when that is over.
///
/// A child that was forked has a copy of this value but not the lease: every call on the copy fails
/// with [`ErrorKind::Fenced`], and dropping it does nothing. While it lives, though, it keeps the
/// kernel's lock of a parent that is *killed*; a child that runs another program (execve(2)) does
/// not.
#[derive(Debug)]
#[must_use = "dropping it gives the lease back"]
pub struct Lease {
    spot: Spot,
    fence: Fence,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Kernel(Locked),
    Time(Timed),
    /// It was given back.
    No,
}

#[derive(Debug)]
struct Timed {
    id: FileId,
    /// What was written last.
    record: Mutex<Record>,
    /// The end of it, on this machine's clock.
    expiry: AtomicU64,
    token: [u8; 16],
    ttl: u64,
    process: u32,
}

impl Lease {
    pub(super) fn kernel(spot: Spot, locked: Locked, record: Record) -> Self {
        Self {
            spot,
            fence: Fence(record.fence),
            held: Held::Kernel(locked),
        }
    }

    pub(super) fn by_time(spot: Spot, id: FileId, record: Record) -> Self {
        Self {
            spot,
            fence: Fence(record.fence),
            held: Held::Time(Timed {
                id,
                expiry: AtomicU64::new(record.expiry),
                token: record.token,
                ttl: record.ttl,
                process: sys::process_id(),
                record: Mutex::new(record),
            }),
        }
    }

    /// The fencing number: higher than that of everybody who held this lease before, whatever crash
    /// or power cut was between.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.spot.name
    }

    /// How it ends.
    #[must_use]
    pub fn mode(&self) -> LeaseMode {
        match &self.held {
            Held::Time(timed) => LeaseMode::Ttl(Duration::from_nanos(timed.ttl)),
            Held::Kernel(_) | Held::No => LeaseMode::Kernel,
        }
    }

    /// How long it lasts if it is not renewed; zero if that is over, `None` if it has no end.
    ///
    /// # Errors
    /// As clock_gettime(2).
    pub fn remaining(&self) -> Result<Option<Duration>> {
        let Held::Time(timed) = &self.held else {
            return Ok(None);
        };
        let left = timed.left(&self.spot.during("check lease"))?;
        Ok(Some(Duration::from_nanos(left)))
    }

    /// Whether the lease is still held: the lock is, or the time is not over; the lease file is the
    /// one that others find; and its highest number is this one's.
    ///
    /// It tells of the moment of the call; [`guard`](Self::guard) is for what must not be done too
    /// late.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`]: the time is over, and will not begin again. [`ErrorKind::Fenced`]:
    /// somebody else has a higher number; or this process was forked from the holder.
    /// [`ErrorKind::Changed`]: the lease file was removed or replaced. [`ErrorKind::Corrupt`]: it
    /// is damaged. Else as open(2), fcntl(2), pread(2).
    pub fn check(&self) -> Result<()> {
        let spot = self.spot.during("check lease");
        match &self.held {
            Held::Kernel(locked) => self.check_locked(&spot, locked),
            Held::Time(timed) => {
                timed.is_ours(&spot)?;
                timed.left_or_expired(&spot)?;
                let file = spot.open(false)?.ok_or_else(|| spot.replaced())?;
                if file.id != timed.id || !spot.leads_to(timed.id)? {
                    return Err(spot.replaced());
                }
                self.compare(&spot, &spot.read(&file, false)?, timed.token)?;
                // Reading may have taken its time.
                timed.left_or_expired(&spot)
            }
            Held::No => Err(fenced(&spot, "it was given back")),
        }
    }

    /// Begins the time to live anew; a lease without one is only [checked](Self::check).
    ///
    /// The new end counts from before the record is written. The file is opened, locked, read,
    /// written, synced and read again. The lock is waited for up to 2 s if somebody has it for a
    /// moment.
    ///
    /// # Errors
    /// As [`check`](Self::check): what is over cannot be renewed. [`ErrorKind::Busy`]: somebody has
    /// the lock for longer than a moment. Else as pwrite(2) and fdatasync(2), with
    /// [`DiskState::Indeterminate`](crate::DiskState::Indeterminate): the lease lasts as long as
    /// before, and others may see it last longer.
    pub fn renew(&self) -> Result<()> {
        operation!("renew lease");
        let spot = self.spot.during("renew lease");
        let Held::Time(timed) = &self.held else {
            return self.check().map_err(|e| e.with_operation("renew lease"));
        };
        timed.is_ours(&spot)?;
        let mut last = timed.record.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = self.lock(&spot, timed, PATIENCE)?;
        let now = ttl::now().map_err(|e| spot.fail("clock_gettime", e))?;
        let record = Record {
            renewals: last.renewals.wrapping_add(1),
            expiry: now.saturating_add(timed.ttl),
            ..last.clone()
        };
        // It counts as written from now on: another attempt must not write something else under its
        // counter.
        last.renewals = record.renewals;
        spot.write(&locked.file, &record)?;
        // Somebody on another machine, whom the lock does not reach, may have written meanwhile.
        let content = spot.read(&locked.file, true);
        let still = content.and_then(|content| self.compare(&spot, &content, timed.token));
        // The old end must not have passed while the new one was written.
        if let Err(e) = still.and_then(|()| timed.left_or_expired(&spot)) {
            if e.kind() == ErrorKind::Expired {
                // So that nobody waits for it. If this fails they wait until the new end.
                let _ = spot.write_loose(&locked.file, &record.released());
            }
            return Err(e.with_state(DiskState::Indeterminate));
        }
        timed.expiry.store(record.expiry, Ordering::Release);
        *last = record;
        Ok(())
    }

    /// Holds the lease fast for a publication: as long as the guard lives nobody of this kernel can
    /// take the lease, even if its time runs out meanwhile.
    ///
    /// Without a ttl the kernel's lock is held anyway, and this is [`check`](Self::check). With
    /// one, the number and the time are checked under the lease file's lock, which the guard keeps:
    /// keep it for moments only, and renew before and not meanwhile. What the lock does not reach
    /// is another machine on shared storage: between the check and the publication there a gap
    /// remains, in which this process may be suspended and the lease pass on. Whoever reads what is
    /// published there has to compare fencing numbers.
    ///
    /// # Errors
    /// As [`renew`](Self::renew), with nothing changed.
    pub fn guard(&self) -> Result<Guard<'_>> {
        let spot = self.spot.during("guard lease");
        let lock = match &self.held {
            Held::Time(timed) => {
                timed.is_ours(&spot)?;
                Some(self.lock(&spot, timed, PATIENCE)?)
            }
            Held::Kernel(_) | Held::No => {
                self.check().map_err(|e| e.with_operation("guard lease"))?;
                None
            }
        };
        Ok(Guard { lease: self, lock })
    }

    /// Publishes under a [`guard`](Self::guard): calls `publish` with the fencing number if the
    /// lease is still held, and not at all if it is not.
    ///
    /// Let `publish` do the last step alone, on what was written before:
    ///
    /// ```
    /// use std::io::Write;
    /// use steadfast::{Root, lease::Leases, publish::FileOptions};
    /// # let tmp = tempfile::tempdir()?;
    /// let root = Root::open(tmp.path())?;
    /// let leases = Leases::open(root.dir())?;
    /// let lease = leases.try_acquire("deploy")?;
    /// let mut file = FileOptions::new().begin(&root, "site.conf")?;
    /// writeln!(file, "# written under {}", lease.fence())?;
    /// lease.with_publication(|_fence| file.commit())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`guard`](Self::guard), with nothing published; else the closure's own.
    pub fn with_publication<T>(&self, publish: impl FnOnce(Fence) -> Result<T>) -> Result<T> {
        let guard = self.guard()?;
        publish(guard.fence())
    }

    /// Gives the lease back. Dropping does the same, and cannot say if it failed.
    ///
    /// # Errors
    /// As [`check`](Self::check) for a lease with a ttl: it was not held to the end. Else as
    /// pwrite(2) and fcntl(2). The lease is not held any more in any case.
    pub fn release(mut self) -> Result<()> {
        operation!("release lease");
        let spot = self.spot.during("release lease");
        match std::mem::replace(&mut self.held, Held::No) {
            Held::Kernel(locked) => {
                let done = locked.unlock();
                done.map_err(|e| spot.fail("fcntl(F_OFD_SETLK, F_UNLCK)", e))
            }
            Held::Time(timed) => self.give_back(&spot, &timed, PATIENCE),
            Held::No => Ok(()),
        }
    }

    /// Says in the record that it is free. Not synced: if that is lost, others wait until its time
    /// is up.
    fn give_back(&self, spot: &Spot, timed: &Timed, patience: Duration) -> Result<()> {
        timed.is_ours(spot)?;
        let last = timed.record.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = self.lock(spot, timed, patience)?;
        let done = spot.write_loose(&locked.file, &last.released());
        done.map_err(|e| spot.fail("pwrite64", e))
    }

    /// With the lock held all the time.
    fn check_locked(&self, spot: &Spot, locked: &Locked) -> Result<()> {
        if !locked.is_ours() {
            return Err(forked(spot));
        }
        match locked.confirm() {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => {
                return Err(fenced(spot, "the kernel or file server has lost its lock"));
            }
            Err(e) => return Err(spot.fail("fcntl(F_OFD_SETLK)", e)),
        }
        if !spot.leads_to(locked.file.id)? {
            return Err(spot.replaced());
        }
        self.compare(spot, &spot.read(&locked.file, true)?, [0; 16])
    }

    /// Takes the file's lock for a moment, and makes sure that the lease is still held then.
    fn lock(&self, spot: &Spot, timed: &Timed, patience: Duration) -> Result<Locked> {
        let locked = again_until(patience, || {
            timed.left_or_expired(spot)?;
            let file: Opened = spot.open(true)?.ok_or_else(|| spot.replaced())?;
            if file.id != timed.id {
                return Err(spot.replaced());
            }
            file.lock().map_err(|e| {
                let error = spot.fail("fcntl(F_OFD_SETLK)", e);
                match e {
                    Errno::AGAIN => error.with_kind(ErrorKind::Busy),
                    _ => error,
                }
            })
        })?;
        if !spot.leads_to(locked.file.id)? {
            return Err(spot.replaced());
        }
        self.compare(spot, &spot.read(&locked.file, true)?, timed.token)?;
        timed.left_or_expired(spot)?;
        Ok(locked)
    }

    /// Whether the file's highest number is this lease's own.
    fn compare(&self, spot: &Spot, content: &Content, token: [u8; 16]) -> Result<()> {
        let newest = &content.newest;
        if newest.fence > self.fence.0 {
            return Err(fenced(spot, format!("number {} was granted", newest.fence)));
        }
        if content.lost.is_some() {
            return Err(spot.half());
        }
        let ours = newest.fence == self.fence.0 && newest.token == token;
        if !ours || newest.state == State::Released {
            return Err(spot.replaced());
        }
        Ok(())
    }
}

impl Timed {
    fn is_ours(&self, spot: &Spot) -> Result<()> {
        match self.process == sys::process_id() {
            true => Ok(()),
            false => Err(forked(spot)),
        }
    }

    /// Nanoseconds until the end.
    fn left(&self, spot: &Spot) -> Result<u64> {
        let now = ttl::now().map_err(|e| spot.fail("clock_gettime", e))?;
        Ok(self.expiry.load(Ordering::Acquire).saturating_sub(now))
    }

    fn left_or_expired(&self, spot: &Spot) -> Result<()> {
        match self.left(spot)? {
            0 => Err(spot
                .refuse(ErrorKind::Expired)
                .with_advice("stop what was done under it, and take it anew")),
            _ => Ok(()),
        }
    }
}

fn fenced(spot: &Spot, why: impl Into<String>) -> Error {
    spot.refuse(ErrorKind::Fenced)
        .with_detail(why.into())
        .with_advice("stop what was done under it, and take it anew")
}

fn forked(spot: &Spot) -> Error {
    fenced(
        spot,
        "it is the lease of the process that this one was forked from",
    )
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A lock ends with its value. A time ends by itself, if it cannot be ended here.
        if let Held::Time(timed) = std::mem::replace(&mut self.held, Held::No) {
            let spot = self.spot.during("release lease");
            let _ = self.give_back(&spot, &timed, PATIENCE_IN_DROP);
        }
    }
}

/// Holds a lease fast while something is published under it: [`Lease::guard`].
#[derive(Debug)]
#[must_use = "dropping it lets the lease pass on"]
pub struct Guard<'a> {
    lease: &'a Lease,
    /// Of a lease with a ttl.
    lock: Option<Locked>,
}

impl Guard<'_> {
    /// The fencing number, to be written with what is published.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.lease.fence
    }

    /// Whether the lease is still held, as [`Lease::check`]. After a publication on storage that
    /// machines share, an error tells that another machine may have taken the lease before it.
    ///
    /// # Errors
    /// As [`Lease::check`].
    pub fn check(&self) -> Result<()> {
        self.lease.check()
    }

    /// Whether the lock that this guard took for itself is held, which a lease without a ttl does
    /// not need.
    #[must_use]
    pub fn locks(&self) -> bool {
        self.lock.is_some()
    }
}
