//! Protected sections: changes that are visible at once, and are taken back unless the section commits.
//!
//! A section is for work that cannot be collected first: another program changes files, or the next step
//! depends on what a reader sees. Before anything is changed, what undoes it is durable in a log; error,
//! panic, drop, signal or crash puts everything back.

mod evidence;
#[allow(dead_code)] // Until rolling back calls it.
mod resource;

pub use evidence::{Evidence, Seen};
pub(super) use resource::Hooks;
pub use resource::{Authority, HookResult};

use super::Workspace;
use super::commit::Receipt;
use super::identity::Ident;
use super::transaction::Transaction;
use crate::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Work in progress that is taken back unless [`commit`](Self::commit) is called. Made by
/// [`Workspace::section`].
///
/// Dropping it, also by a panic, takes everything back. So does whoever opens the workspace next, or meets
/// one of its paths, after its process has died.
#[derive(Debug)]
#[must_use = "dropping a section takes it back"]
pub struct Section<'w> {
    workspace: &'w Workspace,
    number: u64,
}

/// A thing that was moved aside by [`Section::capture`], and can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    from: PathBuf,
    to: PathBuf,
    ident: Ident,
}

impl Captured {
    /// Where it was.
    #[must_use]
    pub fn from(&self) -> &Path {
        &self.from
    }

    /// Where it is now.
    #[must_use]
    pub fn to(&self) -> &Path {
        &self.to
    }

    /// Its inode number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.ident.ino
    }
}

fn not_yet<T>(operation: &'static str) -> Result<T> {
    Err(Error::of_kind(operation, ErrorKind::Unsupported))
}

impl Workspace {
    /// Begins a protected section.
    ///
    /// # Errors
    /// Those of opening a log; [`ErrorKind::Busy`]: too many at once.
    pub fn section(&self, label: &str) -> Result<Section<'_>> {
        let _ = label;
        not_yet("begin section")
    }
}

impl<'w> Section<'w> {
    /// Its number in the workspace.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Keeps what these paths hold, so that it can be put back whoever changes it.
    ///
    /// # Errors
    /// Those of copying; [`ErrorKind::Busy`]: somebody else has claimed them.
    pub fn protect<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) -> Result<()> {
        let _ = paths;
        not_yet("protect")
    }

    /// Makes changes at once, with their undo.
    ///
    /// # Errors
    /// As [`Transaction::commit`]; that of `change`.
    pub fn apply(&mut self, change: impl FnOnce(&mut Transaction<'w>) -> Result<()>) -> Result<()> {
        change(&mut self.workspace.begin())?;
        not_yet("apply changes")
    }

    /// Moves something aside, to a name that must be free.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn capture(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Captured> {
        let _ = (from, to);
        not_yet("capture")
    }

    /// Moves it back, if it is still the same thing and its old name is free.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`]: it is another thing. As [`apply`](Self::apply).
    pub fn restore(&mut self, captured: &Captured) -> Result<()> {
        let _ = captured;
        not_yet("restore")
    }

    /// Records durably that a phase is reached.
    ///
    /// # Errors
    /// Those of writing the log.
    pub fn phase(&mut self, name: &str) -> Result<()> {
        let _ = name;
        not_yet("record phase")
    }

    /// Records durably that a resource of the application is to be given back if the section is taken back,
    /// by the hook of this name.
    ///
    /// # Errors
    /// Those of writing the log.
    pub fn resource(&mut self, hook: &str, payload: impl AsRef<[u8]>) -> Result<()> {
        let _ = (hook, payload.as_ref());
        not_yet("record resource")
    }

    /// Facts about these paths now, recorded durably.
    ///
    /// # Errors
    /// As statx(2) and read(2).
    pub fn evidence<P: AsRef<Path>>(
        &mut self,
        paths: impl IntoIterator<Item = P>,
        with_hash: bool,
    ) -> Result<Vec<Evidence>> {
        let _ = (paths, with_hash);
        not_yet("take evidence")
    }

    /// Records, with the commit, that the work known under this key is done.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`]: it is done already.
    pub fn key(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let _ = (key.as_ref(), value.as_ref());
        not_yet("record key")
    }

    /// Keeps everything: once this returns `Ok`, it survives a power cut as it is now.
    ///
    /// # Errors
    /// Those of syncing.
    pub fn commit(self) -> Result<Receipt> {
        not_yet("commit section")
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// Those of putting things back. Then the section stays open, and whoever comes next tries again.
    pub fn rollback(self) -> Result<()> {
        not_yet("take back section")
    }
}
