//! A section that other processes hold too: what they are at work on is not taken back beneath them.

use super::Section;
use crate::sys::{self, OwnedFd};
use crate::{Error, ErrorKind, Result};

const OP: &str = "hold section";

/// Descriptors that programs inherit. See [`Section::hold`].
#[derive(Debug)]
pub struct Hold {
    _claim: OwnedFd,
    _log: OwnedFd,
}

impl Section<'_> {
    /// Lets the programs that this process starts from now on hold the section as well, until the value is
    /// dropped: they inherit descriptors on which the section's locks are.
    ///
    /// It changes nothing while this process lives: committing the section, or taking it back, ends it for
    /// all. If this process dies, the section counts as dead only when the last of those programs has ended,
    /// and is taken back then. Programs that close descriptors which they do not know (sudo(8) and many
    /// daemons) do not hold it; nor do what they start.
    ///
    /// # Errors
    /// As dup(2); [`ErrorKind::Poisoned`] if the section is over.
    pub fn hold(&self) -> Result<Hold> {
        let fail = |e| Error::new(OP, "dup", e);
        let Some(held) = &self.held else {
            return Err(Error::of_kind(OP, ErrorKind::Poisoned));
        };
        Ok(Hold {
            _claim: sys::dup_inheritable(held.claim.lock_fd()).map_err(fail)?,
            _log: sys::dup_inheritable(held.writer.log.lock_fd()).map_err(fail)?,
        })
    }
}
