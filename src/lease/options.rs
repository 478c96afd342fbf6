//! How a lease is taken.

use super::take;
use super::{Lease, Leases};
use crate::Result;
use crate::wait::again_until;
use std::time::Duration;

/// How a lease is taken. One value serves any number of leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct LeaseOptions {
    pub(super) ttl: Option<Duration>,
    pub(super) label: Vec<u8>,
}

impl LeaseOptions {
    /// Held as long as the kernel's lock is, without a label.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lease lasts this long, unless it is [renewed](Lease::renew) before: for storage that
    /// several machines share and whose locks do not reach from one to the other. On a local file
    /// system it is the worse choice: see the [module](super).
    ///
    /// Choose it several times as long as the longest pause between two renewals, a sync included.
    /// Zero is refused when the lease is taken.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Words for people who wait for the lease, of at most [`MAX_LABEL`](super::MAX_LABEL) bytes:
    /// which program, which machine.
    pub fn label(mut self, label: impl AsRef<[u8]>) -> Self {
        self.label = label.as_ref().to_owned();
        self
    }

    /// Takes the lease `name`, any bytes and at most [`MAX_NAME`](super::MAX_NAME) of them, or
    /// fails at once.
    ///
    /// When this returns the new number is durable. Four calls to open, look, lock and look again,
    /// three to read, write and sync; the first taking of a name also makes its file and syncs two
    /// directories. With a [ttl](Self::ttl) there are about three times as many, and one sync.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy): somebody holds it; the error's detail is a
    /// [`Holder`](super::Holder), if that is known. Somebody else's
    /// [`try_acquire`](Self::try_acquire), [`Lease::renew`] or [`Lease::guard`] under way can be
    /// the reason, too. A lease that was timed by another machine's clock stays busy until it has
    /// been tried for as long as it lasts, and a sixteenth longer, through the same [`Leases`]
    /// value, and was not renewed all the while. [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt):
    /// no number can be read in the lease's file.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the file is of a later version.
    /// [`ErrorKind::Expired`](crate::ErrorKind::Expired): taking it took longer than it lasts.
    /// [`ErrorKind::Changed`](crate::ErrorKind::Changed): the file is removed or replaced all the
    /// time. `ENAMETOOLONG`, `EINVAL`: the name or label is too long, or the time zero. `ENOLCK`:
    /// no locks are left, or there are none here. Else as open(2), pwrite(2) and fdatasync(2).
    ///
    /// After an error the lease is not held. With
    /// [`DiskState::Indeterminate`](crate::DiskState::Indeterminate) a number may be used up, and a
    /// lease with a ttl be seen as held until that is over.
    pub fn try_acquire(&self, leases: &Leases, name: impl AsRef<[u8]>) -> Result<Lease> {
        operation!("acquire lease");
        take::take(&leases.shared, name.as_ref(), self)
    }

    /// [`try_acquire`](Self::try_acquire), waiting for at most this long. Who waits is not served
    /// in order of arrival.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire); [`ErrorKind::Busy`](crate::ErrorKind::Busy) when the
    /// time is up.
    pub fn acquire(
        &self,
        leases: &Leases,
        name: impl AsRef<[u8]>,
        wait: Duration,
    ) -> Result<Lease> {
        again_until(wait, || self.try_acquire(leases, name.as_ref()))
    }
}
