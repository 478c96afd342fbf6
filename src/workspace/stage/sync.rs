//! Making what was staged durable, with as few syncs as it takes.

use super::OPERATION;
use crate::root::sync_names;
use crate::sys::{self, AsFd, OwnedFd};
use crate::workspace::ctx::Ctx;
use crate::{Error, Result};
use std::sync::Arc;

/// Up to this many files are synced one by one; more by one sync of the file system.
const FEW: usize = 3;

/// A file or directory that must be durable before the commit.
pub(super) enum Fd {
    Own(OwnedFd),
    Given(Arc<super::super::draft::StagedFile>),
}

/// What must be durable before the commit.
#[derive(Default)]
pub(super) struct ToSync {
    /// As many as are synced one by one, and one more.
    files: Vec<Fd>,
    staged: bool,
    kept: bool,
}

impl ToSync {
    /// Something in `staged/`, with its name.
    pub(super) fn staged(&mut self, fd: Fd) {
        self.staged = true;
        self.add(fd);
    }

    /// Something in `kept/`, with its name.
    pub(super) fn kept(&mut self, fd: Fd) {
        self.kept = true;
        self.add(fd);
    }

    fn add(&mut self, fd: Fd) {
        if self.files.len() <= FEW {
            self.files.push(fd);
        }
    }

    pub(super) fn run(self, ctx: &Ctx<'_>) -> Result<()> {
        let fail = |call| move |e| Error::new(OPERATION, call, e);
        if self.files.len() > FEW
            && let Some(first) = self.files.first()
        {
            let fd = match first {
                Fd::Own(fd) => fd.as_fd(),
                Fd::Given(file) => file.fd.as_fd(),
            };
            return ctx.syncfs(fd).map_err(fail("syncfs"));
        }
        for fd in &self.files {
            let done = match fd {
                Fd::Own(fd) => sync_names(fd.as_fd()),
                Fd::Given(file) => sys::fsync(&file.fd),
            };
            done.map_err(fail("fsync"))?;
        }
        for (dir, wanted) in [(ctx.staged, self.staged), (ctx.kept, self.kept)] {
            if wanted {
                sync_names(dir.as_fd()).map_err(fail("fsync"))?;
            }
        }
        Ok(())
    }
}
