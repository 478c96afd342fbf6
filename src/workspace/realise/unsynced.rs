//! Files that were written and are not durable yet: synced one by one if they are few, else by one sync of
//! their file system.

use super::fail;
use super::state::Work;
use crate::Result;
use crate::sys::{self, OwnedFd};

/// Up to this many files are synced one by one.
const FEW: usize = 3;

/// As many as are synced one by one, and one more.
#[derive(Debug, Default)]
pub(super) struct Unsynced<'m>(Vec<(OwnedFd, &'m [u8])>);

impl<'m> Work<'_, '_, 'm> {
    /// A file on the file system of the private folders, which is not relied on before
    /// [`sync_unsynced`](Self::sync_unsynced).
    pub(super) fn sync_later(&mut self, file: OwnedFd, path: &'m [u8]) -> Result<()> {
        if self.ctx.each {
            // A sync of the file system proves nothing.
            return sys::fsync(&file).map_err(|e| fail("fsync", e, path));
        }
        if self.unsynced.0.len() <= FEW {
            self.unsynced.0.push((file, path));
        }
        Ok(())
    }

    /// Makes all of them durable.
    pub(super) fn sync_unsynced(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.unsynced.0);
        match files.split_first() {
            Some(((one, path), more)) if more.len() >= FEW => {
                (self.ctx.syncfs(one)).map_err(|e| fail("syncfs", e, path))
            }
            _ => files
                .iter()
                .try_for_each(|(file, path)| sys::fsync(file).map_err(|e| fail("fsync", e, path))),
        }
    }
}
