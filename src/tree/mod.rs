//! Whole trees by descriptor: walk, copy, remove, sync.
//!
//! Everything here works on a directory descriptor and names in it, never follows a symlink, needs a bounded
//! number of descriptors however deep the tree is, and takes names of any bytes. What others do to the tree
//! meanwhile is decided by the kernel on descriptors that are held: entries that vanish are passed over, a
//! directory that is moved away is an error or is left alone, and nothing outside is ever reached.
//!
//! The functions take a parent directory and a [`Name`](crate::Name); the methods of [`Root`](crate::Root)
//! of the same purpose take paths.
//!
//! Paths in the errors of this module begin with the name of the tree itself, or, from the methods of
//! [`Root`](crate::Root), with the path that the caller gave.

pub(crate) mod acl;
mod chain;
mod content;
mod copy;
mod leaves;
mod links;
mod meta;
mod on_root;
mod remove;
mod sync;
mod walk;
mod work;

pub use copy::{Copied, CopyOptions, Keep, Preserve, Special, copy, copy_watched};
pub(crate) use copy::{copy_content, copy_file, copy_into};
pub(crate) use meta::chmod_place;
pub use remove::{MountCheck, RemoveOptions, Removed, remove, remove_watched};
pub use sync::{SyncStrategy, Synced, sync, sync_watched};
pub use walk::{Entry, Event, Walk};

use std::ops::ControlFlow;

/// How far a long operation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Progress {
    /// Entries done that are not directories.
    pub files: u64,
    /// Directories done.
    pub dirs: u64,
    /// Bytes of content copied, holes not counted.
    pub bytes: u64,
}

/// Called after each step of a long operation; [`ControlFlow::Break`] stops it with
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub type Watch<'a> = dyn FnMut(&Progress) -> ControlFlow<()> + 'a;
