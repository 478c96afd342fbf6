//! Leases: a name, one holder at a time, and a fencing number that only grows.
//!
//! Who holds a lease may do alone what its name stands for. It ends with its holder: it is a lock
//! of the kernel's (fcntl(2), open-file-description locks), which a killed process loses at once
//! and a stalled one never. No clock is asked and nothing has to be renewed.
//!
//! Each holder gets a number that is higher than everybody's before, made durable before the lease
//! is granted. Whoever stores what a holder did can store the number with it, and refuse a lower
//! one from then on ([`Leases::check_fence`]); and [`Lease::with_publication`] does not publish for
//! a holder that has lost its lease.
//!
//! ```
//! use std::time::Duration;
//! use steadfast::{ErrorKind, Root, lease::Leases};
//! # let tmp = tempfile::tempdir()?;
//! let state = Root::open(tmp.path())?;
//! let leases = Leases::open(state.dir())?;
//! let first = leases.acquire("deploy", Duration::from_secs(1))?;
//! assert_eq!(leases.try_acquire("deploy").unwrap_err().kind(), ErrorKind::Busy);
//! let old = first.fence();
//! first.release()?;
//! let second = leases.try_acquire("deploy")?;
//! assert!(second.fence() > old);
//! assert_eq!(leases.check_fence("deploy", old).unwrap_err().kind(), ErrorKind::Fenced);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Shared storage
//! Where locks do not reach from one machine to the other, a lease can end by time
//! ([`LeaseOptions::ttl`]). Its end is recorded on the holder's clock that counts from boot,
//! suspended time included; nobody can set it, and wall clocks decide nothing. A taker that reads
//! the same clock judges by it. Every other one, on another machine or after a reboot, must see the
//! lease unchanged for as long as it lasts, and a sixteenth longer, on its own clock. A number is
//! announced by a file that only one can create, so that two machines that take a lease at once do
//! not get the same one.
//!
//! What remains there: a holder that is suspended between its last check and its publication can
//! publish after the lease has passed on. Only who reads or stores what is published can refuse
//! that, by the number. And a machine that is suspended between its last look at the lease file and
//! its write to it, for so long that the lease passes on twice, can take a number back. All this
//! rests on a storage that creates a file exclusively for one machine, and shows a file that is
//! opened anew as it was synced by another; NFS does with its usual options.
//!
//! All users of a name have to take it in the same way: a lease without a ttl is not seen by a
//! machine that its lock does not reach.
//!
//! # What it rests on
//! Nobody else removes or replaces files of the folder, which is private (mode 0700).
//! [`Lease::check`] finds that out; a name whose file was removed begins with low numbers again.
//! Leases are advisory. The format is in `docs/lease-format.md`. Linux 3.15.

mod file;
mod held;
mod holder;
mod name;
mod options;
mod record;
mod take;
mod ttl;

pub use held::{Guard, Lease};
pub use holder::{Holder, LeaseInfo, LeaseMode, LeaseState};
pub use name::MAX_NAME;
pub use options::LeaseOptions;
pub use record::MAX_LABEL;

use crate::publish::{self, SweepOptions};
use crate::sys::Mode;
use crate::{Dir, Durability, Error, ErrorKind, Result, RootOptions};
use file::{FOLDER, Shared, Spot};
use record::{Content, State};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use ttl::{Clock, Verdict};

const LIST: &str = "list leases";

/// A fencing number. Of two holders of a lease the later one has the higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Fence(u64);

impl Fence {
    /// A number that was stored somewhere.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, from 2 up and below 2^62.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The leases of one directory.
#[derive(Debug)]
pub struct Leases {
    shared: Arc<Shared>,
}

impl Leases {
    /// The leases that are kept in `dir`, in a folder `leases` (mode 0700), which is made if it is
    /// not there, with one file (mode 0600) for each lease. All who are to see each other's leases
    /// use the same directory.
    ///
    /// What a process left that was killed while it made such a file is removed.
    ///
    /// # Errors
    /// As mkdir(2) and open(2). `ELOOP`, `EEXIST`: something else has the folder's name.
    pub fn open(dir: &Dir) -> Result<Self> {
        let state = dir.try_clone()?;
        let root = RootOptions::new().no_symlinks(true).over(dir.try_clone()?);
        // Names are synced when the first lease is granted.
        let folder = root.create_dir_all(FOLDER, Mode::RWXU, Durability::None);
        let folder = folder.map_err(|e| e.with_operation("open leases"))?.into();
        // It is not needed for anything that follows, and the next one tries again.
        let _ = publish::sweep(&folder, ".", &SweepOptions::new());
        Ok(Self {
            shared: Arc::new(Shared {
                state,
                folder,
                seen: Mutex::default(),
            }),
        })
    }

    /// All leases that were ever taken in `dir`, where there is a folder of them already; nothing is changed.
    pub(crate) fn list_in(dir: &Dir) -> Result<Vec<LeaseInfo>> {
        let state = dir.try_clone()?;
        let root = RootOptions::new().no_symlinks(true).over(dir.try_clone()?);
        let folder = root.open_dir(FOLDER)?;
        let folder = RootOptions::new().no_symlinks(true).over(folder);
        let shared = Arc::new(Shared {
            state,
            folder,
            seen: Mutex::default(),
        });
        Self { shared }.list()
    }

    /// Takes the lease `name` with the default [`LeaseOptions`], or fails at once.
    ///
    /// # Errors
    /// As [`LeaseOptions::try_acquire`].
    pub fn try_acquire(&self, name: impl AsRef<[u8]>) -> Result<Lease> {
        LeaseOptions::new().try_acquire(self, name)
    }

    /// [`try_acquire`](Self::try_acquire), waiting for at most this long.
    ///
    /// # Errors
    /// As [`LeaseOptions::acquire`].
    pub fn acquire(&self, name: impl AsRef<[u8]>, wait: Duration) -> Result<Lease> {
        LeaseOptions::new().acquire(self, name, wait)
    }

    /// The highest number of the lease `name`, whether it is held or not; `None` if nobody ever
    /// held it.
    ///
    /// A number that is being granted can be seen before it is durable; after a power cut the lease
    /// may then have a lower one, which is still no lower than any that was granted.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: the highest number cannot be told. Else as open(2) and pread(2).
    pub fn current(&self, name: impl AsRef<[u8]>) -> Result<Option<Fence>> {
        let spot = Spot::new(&self.shared, name.as_ref(), "read lease")?;
        number(&spot)
    }

    /// Refuses a number that is not the lease's highest: for whoever stores what holders did.
    ///
    /// It tells of the moment of the call. A holder that must be sure until it has published uses
    /// [`Lease::with_publication`].
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: there was a later holder. [`ErrorKind::Changed`]: this number was
    /// never granted here, so that the lease file must have been removed or replaced. Else as
    /// [`current`](Self::current).
    pub fn check_fence(&self, name: impl AsRef<[u8]>, fence: Fence) -> Result<()> {
        let spot = Spot::new(&self.shared, name.as_ref(), "check fencing number")?;
        let refuse = |kind, current: String| {
            let error: Error = spot.refuse(kind);
            Err(error.with_detail(format!("it is {fence}, and the highest is {current}")))
        };
        match number(&spot)? {
            Some(current) if current == fence => Ok(()),
            Some(current) if current > fence => refuse(ErrorKind::Fenced, current.to_string()),
            Some(current) => refuse(ErrorKind::Changed, current.to_string()),
            None => refuse(ErrorKind::Changed, "none".to_owned()),
        }
    }

    /// All leases that were ever taken here, in no order.
    ///
    /// # Errors
    /// As open(2) and getdents(2) of the folder, open(2) and pread(2) of the files. A file that is
    /// damaged, or none, is listed ([`LeaseState::Damaged`]).
    pub fn list(&self) -> Result<Vec<LeaseInfo>> {
        let folder = &self.shared.folder;
        let fail = |call, e| Error::new(LIST, call, e).with_path(FOLDER);
        let stream = folder.dir().read_dir();
        let mut stream = stream.map_err(|e| e.with_operation(LIST).with_path(FOLDER))?;
        let mut names = Vec::new();
        while let Some(entry) = stream.next().map_err(|e| fail("getdents64", e))? {
            names.extend(name::of_file(entry.name().to_bytes()));
        }
        let mut list = Vec::with_capacity(names.len());
        for name in names {
            // Removed meanwhile, or never held.
            list.extend(info(&Spot::new(&self.shared, &name, LIST)?)?);
        }
        Ok(list)
    }
}

/// The highest number.
fn number(spot: &Spot) -> Result<Option<Fence>> {
    let Some(file) = spot.open(false)? else {
        return Ok(None);
    };
    let content = spot.read(&file, false)?;
    if content.lost.is_some() {
        return Err(spot.half());
    }
    Ok(granted(&content))
}

/// The highest number, unless it is that of a file that nobody has held yet.
fn granted(content: &Content) -> Option<Fence> {
    (content.newest.fence > record::FIRST).then_some(Fence(content.newest.fence))
}

/// What is known of a lease; `None` if there is none.
fn info(spot: &Spot) -> Result<Option<LeaseInfo>> {
    let mut info = LeaseInfo {
        name: spot.name.clone(),
        fence: None,
        holder: None,
        state: LeaseState::Damaged,
    };
    let file = match spot.open(false) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(e) if matches!(e.kind(), ErrorKind::NotAFile | ErrorKind::SymlinkLoop) => {
            return Ok(Some(info));
        }
        Err(e) => return Err(e),
    };
    // Before the record is read, so that it is not that of a holder before.
    let locked = file
        .is_locked()
        .map_err(|e| spot.fail("fcntl(F_OFD_GETLK)", e))?;
    let content = match spot.read(&file, false) {
        Ok(content) => content,
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            return Ok(Some(info));
        }
        Err(e) => return Err(e),
    };
    info.holder = Holder::of(&content.newest);
    if content.lost.is_some() {
        return Ok(Some(info));
    }
    info.fence = granted(&content);
    info.state = match content.newest.state {
        State::Kernel if locked => LeaseState::Live,
        State::Ttl => {
            let clock = Clock::here().map_err(|(call, e)| spot.fail(call, e))?;
            let now = ttl::now().map_err(|e| spot.fail("clock_gettime", e))?;
            match ttl::judge(&content, clock, now, 0) {
                Verdict::Free => LeaseState::Free,
                Verdict::Live => LeaseState::Live,
                Verdict::Watch(_) => LeaseState::Unknown,
            }
        }
        _ => LeaseState::Free,
    };
    Ok(Some(info))
}
