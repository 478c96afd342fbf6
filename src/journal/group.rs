//! Group commit: many threads add work, one at a time writes and syncs what all of them have added.
//! It knows nothing of files.
//!
//! Work is numbered in the order in which it is added. Whoever needs a number to be durable either
//! leads (takes all work, performs it without holding the lock, tells the others) or waits for the
//! leader. A leader's failure is final: it is kept, everybody who waits is told, and nobody leads
//! again.
//!
//! Those whose work was taken wait apart from those whose work came later: when a leader is done, all
//! of the former go on, and of the latter one, who leads. The others would wake only to wait again.

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::Errno;
use std::sync::PoisonError;
use std::time::Instant;

/// Work that is added by many and performed by one.
pub(super) trait Work {
    /// What a leader performs.
    type Taken;
    /// Takes all work added so far.
    fn take(&mut self) -> Self::Taken;
    /// The last number that was added.
    fn last(&self) -> u64;
    /// Numbers up to this one are durable.
    fn settle(&mut self, durable: u64);
}

/// The call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) call: &'static str,
    pub(super) errno: Errno,
}

/// What performing work came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Numbers up to this one are durable.
    pub(super) durable: u64,
    /// Numbers up to this one may be on the disk.
    pub(super) written: u64,
    pub(super) failure: Option<Failure>,
}

/// Why a number is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// It failed before this call was made.
    pub(super) earlier: bool,
    /// What was asked for may all the same be on the disk.
    pub(super) written: bool,
}

#[derive(Debug)]
pub(super) struct Group<W> {
    inner: Mutex<Inner<W>>,
    /// Those who wait for one group, and for the one after it, in turn.
    turns: [Condvar; 2],
    /// Those who wait for something else to change.
    changed: Condvar,
}

/// What is shared, under the lock.
#[derive(Debug)]
pub(super) struct Inner<W> {
    pub(super) work: W,
    durable: u64,
    written: u64,
    leading: bool,
    /// Numbers up to this one were taken by this leader, or by one before.
    taken: u64,
    /// Which of the two turns is about what was taken last.
    turn: usize,
    /// How many wait for each turn, and for something else.
    waiting: [usize; 2],
    others: usize,
    failure: Option<Failure>,
}

impl<W> Inner<W> {
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The failure that ended this group, as it concerns a call that begins now.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.failure.map(|failure| Refused {
            failure,
            earlier: true,
            written: false,
        })
    }
}

impl<W: Work> Group<W> {
    /// With numbers up to `durable` durable.
    pub(super) fn new(work: W, durable: u64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                work,
                durable,
                written: durable,
                leading: false,
                taken: durable,
                turn: 0,
                waiting: [0, 0],
                others: 0,
                failure: None,
            }),
            turns: [Condvar::new(), Condvar::new()],
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        // What the lock guards is changed by code that does not panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the group: a sync outside of it failed.
    pub(super) fn fail(&self, failure: Failure) {
        self.lock().failure.get_or_insert(failure);
        for all in self.turns.iter().chain([&self.changed]) {
            all.notify_all();
        }
    }

    /// Wakes those who wait in [`wait`](Self::wait).
    pub(super) fn wake(&self) {
        let anybody = self.lock().others > 0;
        if anybody {
            self.changed.notify_all();
        }
    }

    /// Waits until something changes, or a moment has come; false if it has.
    pub(super) fn wait<'a>(
        &'a self,
        mut guard: MutexGuard<'a, Inner<W>>,
        until: Instant,
    ) -> (MutexGuard<'a, Inner<W>>, bool) {
        let left = until.saturating_duration_since(Instant::now());
        guard.others += 1;
        let (mut guard, _) = self
            .changed
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner);
        guard.others -= 1;
        (guard, Instant::now() < until)
    }

    /// Returns when `number`, which must have been added, is durable; `perform` is called by one
    /// thread at a time.
    pub(super) fn commit(
        &self,
        number: u64,
        perform: impl Fn(W::Taken) -> Outcome,
    ) -> Result<(), Refused> {
        let mut inner = self.lock();
        let earlier = inner.failure.is_some();
        loop {
            if inner.durable >= number {
                return Ok(());
            }
            if let Some(failure) = inner.failure {
                return Err(Refused {
                    failure,
                    earlier,
                    written: inner.written >= number,
                });
            }
            if inner.leading {
                let turn = match number <= inner.taken {
                    true => inner.turn,
                    false => 1 - inner.turn,
                };
                inner.waiting[turn] += 1;
                inner = self.turns[turn]
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner);
                inner.waiting[turn] -= 1;
                continue;
            }
            inner.leading = true;
            inner.turn = 1 - inner.turn;
            inner.taken = inner.work.last();
            let taken = inner.work.take();
            drop(inner);
            let mut leader = Leader {
                group: self,
                outcome: None,
            };
            leader.outcome = Some(perform(taken));
            drop(leader);
            inner = self.lock();
        }
    }
}

/// Hands the lead back, also if performing the work ends in a panic: nobody waits for ever.
struct Leader<'a, W: Work> {
    group: &'a Group<W>,
    outcome: Option<Outcome>,
}

impl<W: Work> Drop for Leader<'_, W> {
    fn drop(&mut self) {
        let mut inner = self.group.lock();
        inner.leading = false;
        match self.outcome {
            Some(outcome) => {
                inner.durable = inner.durable.max(outcome.durable);
                inner.written = inner.written.max(outcome.written);
                inner.failure = inner.failure.or(outcome.failure);
                let durable = inner.durable;
                inner.work.settle(durable);
            }
            None => {
                inner.written = u64::MAX;
                inner.failure.get_or_insert(Failure {
                    call: "pwrite64",
                    errno: Errno::CANCELED,
                });
            }
        }
        let (turn, waiting, others) = (inner.turn, inner.waiting, inner.others > 0);
        let over = inner.failure.is_some();
        drop(inner);
        // The next leader first: the disk waits for it.
        let next = &self.group.turns[1 - turn];
        match (waiting[1 - turn] > 0, over) {
            (false, _) => {}
            (true, false) => next.notify_one(),
            (true, true) => next.notify_all(),
        }
        if waiting[turn] > 0 {
            self.group.turns[turn].notify_all();
        }
        if others {
            self.group.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    /// Longer than anything takes here, even on a busy machine.
    const FOREVER: Duration = Duration::from_secs(600);

    /// Numbers added and not yet taken.
    #[derive(Default)]
    struct Numbers(Vec<u64>, u64);

    impl Work for Numbers {
        type Taken = Vec<u64>;
        fn take(&mut self) -> Vec<u64> {
            std::mem::take(&mut self.0)
        }
        fn last(&self) -> u64 {
            self.1
        }
        fn settle(&mut self, _: u64) {}
    }

    fn add(group: &Group<Numbers>) -> u64 {
        let mut inner = group.lock();
        inner.work.1 += 1;
        let number = inner.work.1;
        inner.work.0.push(number);
        number
    }

    fn done(taken: &[u64]) -> Outcome {
        let last = taken.last().copied().unwrap_or(0);
        Outcome {
            durable: last,
            written: last,
            failure: None,
        }
    }

    const EIO: Failure = Failure {
        call: "fdatasync",
        errno: Errno::IO,
    };

    /// Runs `f` in threads, and gives what they answer; fails if one of them never does.
    fn threads<T: Send + 'static>(
        n: usize,
        f: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        let (send, receive) = mpsc::channel();
        let f = Arc::new(f);
        for i in 0..n {
            let (send, f) = (send.clone(), f.clone());
            std::thread::spawn(move || send.send(f(i)));
        }
        (0..n)
            .map(|_| receive.recv_timeout(FOREVER).unwrap())
            .collect()
    }

    #[test]
    fn everything_is_performed_once_in_order_and_shared() {
        let group = Arc::new(Group::new(Numbers::default(), 0));
        let (rounds, seen) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(Mutex::new(Vec::<u64>::new())),
        );
        let (r, s, g) = (rounds.clone(), seen.clone(), group.clone());
        threads(16, move |_| {
            for _ in 0..100 {
                let number = add(&g);
                g.commit(number, |taken| {
                    r.fetch_add(1, SeqCst);
                    s.lock().unwrap().extend(&taken);
                    // The first lasts until two more have added something: they share the next.
                    while taken.contains(&1) && g.lock().work.0.len() < 2 {
                        std::thread::yield_now();
                    }
                    done(&taken)
                })
                .unwrap();
                assert!(g.lock().durable() >= number);
            }
        });
        assert_eq!(*seen.lock().unwrap(), (1..=1600).collect::<Vec<_>>());
        assert!(rounds.load(SeqCst) < 1600);
    }

    #[test]
    fn one_failure_reaches_everybody_and_is_final() {
        let group = Arc::new(Group::new(Numbers::default(), 0));
        let calls = Arc::new(AtomicU64::new(0));
        let (g, c) = (group.clone(), calls.clone());
        let all = threads(8, move |_| {
            let number = add(&g);
            g.commit(number, |taken| {
                c.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                Outcome {
                    durable: 0,
                    written: taken.last().copied().unwrap_or(0),
                    failure: Some(EIO),
                }
            })
        });
        assert_eq!(calls.load(SeqCst), 1, "a failed sync was made again");
        assert!(all.iter().all(|r| r.is_err_and(|e| e.failure == EIO)));
        assert!(
            all.iter()
                .any(|r| r.is_err_and(|e| e.written && !e.earlier))
        );
        let late = add(&group);
        let refused = group.commit(late, |t| done(&t)).unwrap_err();
        assert!(refused.earlier && !refused.written);
    }

    #[test]
    fn a_leader_that_panics_holds_nobody_up() {
        let group = Arc::new(Group::new(Numbers::default(), 0));
        let number = add(&group);
        let g = group.clone();
        let leader = std::thread::spawn(move || g.commit(number, |_| panic!("on purpose")));
        assert!(leader.join().is_err());
        let g = group.clone();
        let refused = threads(1, move |_| g.commit(number, |t| done(&t)).unwrap_err());
        assert!(refused[0].written);
    }
}
