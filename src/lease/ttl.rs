//! Whether a lease that ends by time has ended: by its holder's clock where that can be read here,
//! else by watching that nothing is written for as long as it lasts.
//!
//! Wall clocks decide nothing: they can be set.

use super::record::{Content, Record, State};
use crate::sys::{self, Result as Sys};
use std::time::Duration;

/// How long somebody on another machine may take from announcing a number to having it.
pub(super) const TAKING: Duration = Duration::from_secs(5);

/// A clock: which boot of which machine counts, and for which time namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) boot: Option<[u8; 16]>,
    pub(super) namespace: Option<u64>,
}

impl Clock {
    /// Of this thread.
    pub(super) fn here() -> Result<Self, (&'static str, sys::Errno)> {
        Ok(Self {
            boot: sys::boot_id().map_err(|e| ("openat", e))?,
            namespace: sys::time_namespace().map_err(|e| ("openat", e))?,
        })
    }

    /// Whether the record's times are on this clock, as far as that can be known.
    fn timed(self, record: &Record) -> bool {
        let known = |a: Option<_>, b: Option<_>| a.is_some() && a == b;
        known(self.boot, record.boot)
            && self.namespace.is_some()
            && self.namespace == record.namespace
    }
}

/// What the clock says now, in nanoseconds: 584 years of them fit.
pub(super) fn now() -> Sys<u64> {
    sys::boottime().map(nanos)
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What was seen of a lease, and when first, on this process's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    content: Content,
    since: u64,
}

impl Seen {
    pub(super) fn new(content: &Content, since: u64) -> Self {
        Self {
            content: content.clone(),
            since,
        }
    }

    /// How long this very state has been seen.
    pub(super) fn age(&self, content: &Content, now: u64) -> Option<u64> {
        let same = self.content == *content;
        // A clock that went back is another one.
        now.checked_sub(self.since).filter(|_| same)
    }
}

/// Whether a lease can be taken, as far as its record tells; the kernel's lock is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Free,
    Live,
    /// Free when nothing has changed for this long, in nanoseconds.
    Watch(u64),
}

/// Judges a lease at the time `now` of this clock, for a taker whose lease would last `ttl` (0: as
/// long as the kernel's lock is held).
pub(super) fn judge(content: &Content, clock: Clock, now: u64, ttl: u64) -> Verdict {
    let record = &content.newest;
    let by_time = record.state == State::Ttl;
    if content.lost.is_some() {
        // What cannot be read may be a lease that lasts as long as the last one, or the next one.
        let longest = if by_time { record.ttl.max(ttl) } else { ttl };
        return match longest {
            0 => Verdict::Free,
            ttl => Verdict::Watch(with_margin(ttl)),
        };
    }
    if !by_time {
        return Verdict::Free;
    }
    // A time further away than it can be set was not set by this clock.
    let credible = record.expiry.saturating_sub(now) <= record.ttl;
    if clock.timed(record) && credible {
        return match record.expiry <= now {
            true => Verdict::Free,
            false => Verdict::Live,
        };
    }
    Verdict::Watch(with_margin(record.ttl))
}

/// A sixteenth longer, for two machines whose clocks do not run alike.
pub(super) fn with_margin(ttl: u64) -> u64 {
    ttl.saturating_add(ttl / 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Clock = Clock {
        boot: Some([1; 16]),
        namespace: Some(7),
    };

    fn held() -> Content {
        Content {
            newest: Record {
                fence: 5,
                state: State::Ttl,
                boot: HERE.boot,
                namespace: HERE.namespace,
                ttl: 160,
                expiry: 1000,
                ..Record::default()
            },
            lost: None,
        }
    }

    #[test]
    fn the_holder_s_own_clock_decides_to_the_nanosecond() {
        assert_eq!(judge(&held(), HERE, 999, 0), Verdict::Live);
        assert_eq!(judge(&held(), HERE, 1000, 0), Verdict::Free);
        // 161 away: never set so by this clock.
        assert_eq!(judge(&held(), HERE, 839, 0), Verdict::Watch(170));
    }

    #[test]
    fn another_clock_says_nothing_at_all() {
        let mut others = vec![HERE; 4];
        others[0].boot = Some([2; 16]);
        others[1].boot = None;
        others[2].namespace = Some(8);
        others[3].namespace = None;
        for other in others {
            for now in [0, 999, 1000, u64::MAX] {
                assert_eq!(judge(&held(), other, now, 0), Verdict::Watch(170));
            }
        }
        let mut unknown = held();
        unknown.newest.boot = None;
        let none = Clock { boot: None, ..HERE };
        assert_eq!(judge(&unknown, none, 2000, 0), Verdict::Watch(170));
    }

    #[test]
    fn what_was_given_back_or_held_by_the_kernel_is_free_and_what_is_lost_is_watched() {
        for state in [State::Never, State::Kernel, State::Released] {
            let mut free = held();
            free.newest.state = state;
            assert_eq!(judge(&free, HERE, 0, 320), Verdict::Free);
            free.lost = Some(1);
            assert_eq!(judge(&free, HERE, 0, 0), Verdict::Free);
            assert_eq!(judge(&free, HERE, 0, 320), Verdict::Watch(340));
        }
        let mut lost = held();
        lost.lost = Some(1);
        assert_eq!(judge(&lost, HERE, 5000, 0), Verdict::Watch(170));
    }

    #[test]
    fn any_change_begins_the_watch_anew() {
        let seen = Seen::new(&held(), 100);
        assert_eq!(seen.age(&held(), 150), Some(50));
        assert_eq!(seen.age(&held(), 99), None);
        let mut renewed = held();
        renewed.newest.renewals += 1;
        assert_eq!(seen.age(&renewed, 150), None);
    }
}
