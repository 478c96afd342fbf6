//! The userspace walk: openat2's answer without openat2.

use super::resolve::Request;
use crate::sys::{self, Errno, OwnedFd};

pub(crate) fn open(_request: &Request<'_>) -> sys::Result<OwnedFd> {
    Err(Errno::NOSYS)
}
