//! The bytes of the lock file beyond the table: locks that share the life of a claim.
//!
//! They are on the same open file description as the claim's own, so that the kernel frees all of them in
//! one step when the holder dies: who gets the claim afterwards finds every one of them free.

use super::{Claim, OPERATION, again_until};
use crate::sys::{self, AsFd, Errno, LockKind, LockRange};
use crate::{Error, ErrorKind, Result};
use std::time::Duration;

/// Where they begin: no path's bytes are here or above.
const START: u64 = 1 << 62;

/// One of them, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Extra(u32);

impl Extra {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    fn range(self) -> Result<LockRange> {
        LockRange::new(START + u64::from(self.0), 1)
            .ok_or_else(|| Error::new(OPERATION, "fcntl(F_OFD_SETLK)", Errno::OVERFLOW))
    }
}

/// Whether somebody holds a byte of an open lock file; asked without any right to take it.
pub(crate) fn is_held(fd: impl AsFd, extra: Extra) -> Result<bool> {
    sys::ofd_would_wait(fd, LockKind::Exclusive, extra.range()?)
        .map_err(|e| fail("fcntl(F_OFD_GETLK)", e))
}

impl Claim {
    /// Takes a byte without waiting; `false`: somebody else holds it. What this claim has of it, it keeps
    /// then. One call.
    pub(crate) fn try_extra(&self, kind: LockKind, extra: Extra) -> Result<bool> {
        match sys::ofd_try_lock(&self.fd, kind, extra.range()?) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(e) => Err(fail("fcntl(F_OFD_SETLK)", e)),
        }
    }

    /// Takes a byte, and waits for it at the most this long. [`ErrorKind::Busy`] when the time is up.
    pub(crate) fn wait_extra(&self, kind: LockKind, extra: Extra, wait: Duration) -> Result<()> {
        again_until(wait, || match self.try_extra(kind, extra)? {
            true => Ok(()),
            false => Err(fail("fcntl(F_OFD_SETLK)", Errno::AGAIN).with_kind(ErrorKind::Busy)),
        })
    }

    /// Gives a byte back.
    pub(crate) fn unlock_extra(&self, extra: Extra) -> Result<()> {
        sys::ofd_unlock(&self.fd, extra.range()?)
            .map_err(|e| fail("fcntl(F_OFD_SETLK, F_UNLCK)", e))
    }

    /// Whether somebody other than this claim holds a byte in a way that excludes `kind`. Nothing is taken.
    pub(crate) fn extra_would_wait(&self, kind: LockKind, extra: Extra) -> Result<bool> {
        sys::ofd_would_wait(&self.fd, kind, extra.range()?)
            .map_err(|e| fail("fcntl(F_OFD_GETLK)", e))
    }
}

#[cold]
fn fail(call: &'static str, errno: Errno) -> Error {
    Error::new(OPERATION, call, errno).with_path("claims")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;
    use crate::claim::{ClaimPath, Claims, Want};
    use LockKind::{Exclusive, Shared};

    fn table() -> (tempfile::TempDir, Claims) {
        let base = std::env::var_os("STEADFAST_TEST_DIR");
        let tmp = tempfile::tempdir_in(base.map_or_else(std::env::temp_dir, Into::into)).unwrap();
        let claims = Claims::open(Root::open(tmp.path()).unwrap().dir()).unwrap();
        (tmp, claims)
    }

    #[test]
    fn holders_exclude_each_other_and_not_themselves() {
        let (_tmp, claims) = table();
        let [a, b] = [(); 2].map(|()| claims.try_claim(&[]).unwrap());
        let (x, y) = (Extra::new(0), Extra::new(u32::MAX));
        assert!(a.try_extra(Exclusive, x).unwrap());
        assert!(!a.extra_would_wait(Exclusive, x).unwrap());
        assert!(b.extra_would_wait(Shared, x).unwrap());
        assert!(!b.try_extra(Shared, x).unwrap());
        assert!(b.try_extra(Exclusive, y).unwrap());
        let error = b
            .wait_extra(Shared, x, Duration::from_millis(1))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(a.try_extra(Shared, x).unwrap());
        assert!(b.try_extra(Shared, x).unwrap());
        assert!(!a.try_extra(Exclusive, x).unwrap());
        b.unlock_extra(x).unwrap();
        assert!(a.try_extra(Exclusive, x).unwrap());
        drop(a);
        assert!(b.try_extra(Exclusive, x).unwrap());
    }

    /// Neither the whole table nor a refused extension touches them.
    #[test]
    fn paths_have_other_bytes() {
        let (_tmp, claims) = table();
        let mut a = claims.try_claim(&[]).unwrap();
        assert!(a.try_extra(Exclusive, Extra::new(0)).unwrap());
        let all = [Want::exclusive(ClaimPath::new(".").unwrap())];
        let b = claims.try_claim(&all).unwrap();
        assert!(a.try_extend(&all).is_err());
        assert!(b.extra_would_wait(Exclusive, Extra::new(0)).unwrap());
        drop(b);
        a.try_extend(&all).unwrap();
        let c = claims.try_claim(&[]).unwrap();
        assert!(c.extra_would_wait(Exclusive, Extra::new(0)).unwrap());
    }

    /// Processes of different versions share a table: the places must not move, nor be a path's, of which
    /// the last byte is the one before them.
    #[test]
    fn the_places_are_fixed() {
        let first = LockRange::new(1 << 62, 1).unwrap();
        assert_eq!(Extra::new(0).range().unwrap(), first);
        let last = LockRange::new((1 << 62) + u64::from(u32::MAX), 1).unwrap();
        assert_eq!(Extra::new(u32::MAX).range().unwrap(), last);
    }
}
