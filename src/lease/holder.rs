//! Who holds a lease, as far as its record tells, and what is known of all leases.

use super::Fence;
use super::record::{Record, State};
use std::fmt;
use std::time::{Duration, SystemTime};

/// How a lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
pub enum LeaseMode {
    /// With its holder: the kernel's lock decides.
    Kernel,
    /// After this time, unless it is renewed.
    Ttl(Duration),
}

/// Who was granted a number, and when. It is the detail of an error of kind
/// [`Busy`](crate::ErrorKind::Busy).
///
/// What it says is for people. Between the moments when the kernel's lock was taken and the record
/// written, it is the holder before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    fence: Fence,
    mode: LeaseMode,
    pid: u32,
    label: Vec<u8>,
    since: SystemTime,
}

impl Holder {
    /// Of a record; `None` if nobody was granted its number, or it was given back.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let mode = match record.state {
            State::Never | State::Released => return None,
            State::Kernel => LeaseMode::Kernel,
            State::Ttl => LeaseMode::Ttl(Duration::from_nanos(record.ttl)),
        };
        let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(record.since));
        Some(Self {
            fence: Fence(record.fence),
            mode,
            pid: record.pid,
            label: record.label.clone(),
            since: since.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// The fencing number.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// How the lease ends.
    #[must_use]
    pub fn mode(&self) -> LeaseMode {
        self.mode
    }

    /// The process, as it is numbered on its machine and in its container.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The words that it gave.
    #[must_use]
    pub fn label(&self) -> &[u8] {
        &self.label
    }

    /// When it took the lease, by its wall clock, to the second.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.since
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held by process {}", self.pid)?;
        if !self.label.is_empty() {
            write!(f, " ({:?})", String::from_utf8_lossy(&self.label))?;
        }
        // An error of a clock before 1970 has been recorded as 1970.
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH);
        write!(f, " since @{}", since.unwrap_or_default().as_secs())?;
        match self.mode {
            LeaseMode::Kernel => Ok(()),
            LeaseMode::Ttl(ttl) => write!(f, ", for {ttl:?} at a time"),
        }
    }
}

impl std::error::Error for Holder {}

/// Whether a lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum LeaseState {
    /// It is held: the kernel's lock is, or its time is not up by the clock of this boot.
    Live,
    /// Nobody holds it.
    Free,
    /// It lasts for a time on the clock of another machine or boot, which cannot be read here: only
    /// trying to take it will tell.
    Unknown,
    /// The file cannot be read in full.
    Damaged,
}

/// One of the leases of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    pub(super) name: Vec<u8>,
    pub(super) fence: Option<Fence>,
    pub(super) holder: Option<Holder>,
    pub(super) state: LeaseState,
}

impl LeaseInfo {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The highest number that was granted; `None` if there was none yet, or it cannot be read.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// Who was granted that number, also if it is free again; `None` if it was given back, or
    /// cannot be read.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Whether it is held.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state
    }
}
