//! Opening a workspace, and its settings.

use super::Workspace;
use super::recover;
use super::section::{Authority, HookResult, Hooks};
use super::state::State;
use super::writers::{self, WriterOptions};
use crate::{Result, Root};
use std::time::Duration;

/// How a workspace is opened and works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct WorkspaceOptions {
    pub(super) create: bool,
    pub(super) wait: Duration,
    pub(super) checkpoint_bytes: u64,
    pub(super) checkpoint_every: Duration,
    pub(super) remove_later_from: usize,
    pub(super) log: WriterOptions,
    pub(super) hooks: Hooks,
}

impl Default for WorkspaceOptions {
    fn default() -> Self {
        Self {
            create: true,
            wait: Duration::from_secs(10),
            checkpoint_bytes: 4 << 20,
            checkpoint_every: Duration::from_secs(30),
            remove_later_from: 8,
            log: WriterOptions::default(),
            hooks: Hooks::default(),
        }
    }
}

impl WorkspaceOptions {
    /// Created if it is not there; 10 seconds of waiting for claims; a checkpoint after 4 MiB of log, or at
    /// the first commit 30 seconds after the last one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a state folder is made where there is none.
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// How long a commit waits for paths that others have claimed.
    pub fn wait(mut self, at_most: Duration) -> Self {
        self.wait = at_most;
        self
    }

    /// A commit that finds this many bytes of log that are not released makes a checkpoint. A quarter of
    /// what the log may grow to at the most.
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes.max(1);
        self
    }

    /// A commit that finds the last checkpoint this long ago makes one. No thread is started for it: what
    /// nobody commits to stays as it is.
    pub fn checkpoint_every(mut self, time: Duration) -> Self {
        self.checkpoint_every = time;
        self
    }

    /// A commit that replaces this many files or more leaves it to the next checkpoint to remove the old
    /// ones, which saves a sixth of its time; 8 by default. Only those of up to 16 KiB, without another
    /// name, and at most 1,024 at a time: up to 16 MiB that are free later. A checkpoint, a full disk, and
    /// the end of the workspace have them removed; after a kill, the next open does. 1: those of every
    /// commit; `usize::MAX`: none. Where names cannot be exchanged (renameat2(2)), old files go first.
    pub fn remove_later_from(mut self, files: usize) -> Self {
        self.remove_later_from = files.max(1);
        self
    }

    /// Length of the log's segments in bytes, and how many there may be: what a commit record may hold at
    /// the most, and how much log is kept. By default the first has 1 MiB and those that are added have 4,
    /// at most 17 in all.
    pub fn log(mut self, segment_len: u64, max_segments: u32) -> Self {
        self.log = WriterOptions {
            segment_len,
            further_segment_len: segment_len,
            max_segments,
        };
        self
    }

    /// Registers a hook that gives back resources which a protected section has recorded under this name
    /// ([`Section::resource`](super::Section::resource)), when that section is taken back, by whom ever: this
    /// process, or one that finds it after a crash. It may be called more than once for one resource, if a
    /// crash comes between, and it must not use the workspace.
    pub fn hook(
        mut self,
        name: &str,
        hook: impl Fn(&[u8], &Authority) -> HookResult + Send + Sync + 'static,
    ) -> Self {
        self.hooks.add(name, hook);
        self
    }

    /// Opens the workspace of `root`: its state folder `.steadfast`, mode 0700, is in it.
    ///
    /// What dead processes left is finished or taken back first ([`Workspace::recovered`] tells). Many
    /// processes and threads may have it open; one process may open it several times.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound): there is none, and none is to be created.
    /// [`Corrupt`](crate::ErrorKind::Corrupt): a log or a record is damaged; nothing was changed, and
    /// `steadfast repair` goes on from there. [`Unsupported`](crate::ErrorKind::Unsupported): a
    /// later version's format, or no open-file-description locks.
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied): the folder is another user's.
    /// A folder that was copied from elsewhere, and holds open work, is refused. Else as open(2), mkdir(2),
    /// fsync(2), and those of recovery.
    ///
    /// # After a crash
    /// Opening again goes on where it was: a state folder that was not complete is completed, and recovery
    /// begins again from what it finds.
    ///
    /// Needs Linux 3.15 for its locks (fcntl(2), `F_OFD_SETLK`). See the [module](super) for file systems.
    pub fn open(self, root: &Root) -> Result<Workspace> {
        operation!("open workspace");
        let root = root.try_clone()?;
        let mut state = State::open(&root, self.create)?;
        let (recovered, writer) = recover::on_open(&root, &mut state, &self)?;
        let writer = match writer {
            Some(writer) => writer,
            None => writers::open_own(&state, self.log)?.0,
        };
        Ok(Workspace::new(root, state, writer, self, recovered))
    }
}
