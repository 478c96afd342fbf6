//! One file or one folder, atomically: stage, sync, publish, retire.
//!
//! A file is written under a temporary name, made durable, and then given its name by one rename, so that
//! a reader, or a crash, finds the old file or the new one. [`FileOptions`] says what to replace, what to
//! keep and how durable it must be; [`PendingFile`] is the file while it is written. [`FolderOptions`] does
//! the same for a whole directory, [`swap`] exchanges any two names, [`Batch`] makes many files durable
//! together, and [`sweep`] removes what a killed process left.
//!
//! ```
//! use steadfast::{Root, publish::FileOptions};
//! # let tmp = tempfile::tempdir()?;
//! # let etc = tmp.path();
//! let root = Root::open(etc)?;
//! FileOptions::new().write(&root, "app.conf", b"threads = 4\n")?;
//! # assert_eq!(std::fs::read(etc.join("app.conf"))?, b"threads = 4\n");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What every publication promises
//! - It is one rename, link or exchange. Before it an error leaves [`DiskState::Unchanged`] and no temporary;
//!   after it, an error says [`DiskState::Published`].
//! - Content and attributes are on the device before the name is (except with [`Durability::None`]), and the
//!   name is before `Ok` (with [`Durability::Full`]).
//! - What a kill leaves has a name that [`sweep`] recognises, and no writer that lives.
//!
//! [`DiskState::Unchanged`]: crate::DiskState::Unchanged
//! [`DiskState::Published`]: crate::DiskState::Published
//! [`Durability::None`]: crate::Durability::None
//! [`Durability::Full`]: crate::Durability::Full

pub(crate) mod attributes;
mod batch;
mod existing;
mod file;
mod folder;
mod options;
mod pending;
mod place;
mod ready;
mod retire;
mod staged;
mod staged_folder;
mod swap;
mod sweep;
mod terms;
mod version;

pub use attributes::Preserve;
pub use batch::{Batch, BatchStrategy};
pub use folder::{FolderOptions, FolderTarget, PendingFolder};
pub use options::{FileOptions, Staging, SymlinkPolicy, Target, write};
pub use pending::PendingFile;
pub use swap::swap;
pub use sweep::{Kept, SweepOptions, SweepReport, sweep};
pub use version::Version;

use crate::sys::{FileId, Metadata};
use crate::tree::Copied;
use std::ffi::OsString;
use std::path::PathBuf;

/// What a publication did.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Receipt {
    id: FileId,
    replaced: Option<Metadata>,
    notes: Vec<Note>,
}

impl Receipt {
    /// The identity of what now has the name.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Facts about what had the name before, taken before the change; `None` if nothing had.
    #[must_use]
    pub fn replaced(&self) -> Option<&Metadata> {
        self.replaced.as_ref()
    }

    /// What was not kept, and which other way was taken.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// Something about a successful publication that the caller may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Note {
    /// The replaced file had another owner, which this process may not give; set-user-id was dropped.
    OwnerNotKept,
    /// The replaced file had another group, which this process may not give; the group's rights were cut to
    /// those of everybody, and set-group-id was dropped.
    GroupNotKept,
    /// An extended attribute of the replaced file was not kept.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::os_str"))]
    AttributeNotKept(OsString),
    /// The replaced file's access control list could not be kept or not be read; no right was widened.
    AclNotKept,
    /// The replaced file had further names (hard links), which keep the old content.
    LinksCut(u64),
    /// `O_TMPFILE` or linking it is missing here: a named temporary was used.
    StagedByName,
    /// `RENAME_NOREPLACE` is missing here: the name was made by link(2), or an exclusively made directory.
    NoReplaceByLink,
    /// `RENAME_EXCHANGE` is missing here: the condition on the old file was checked just before the
    /// rename, and not by the exchange itself.
    CheckedNotExchanged,
    /// This many files of a copy had changed when they had been read: what was copied may be a mixture.
    SourceChanged(u64),
    /// This many files and directories of a copy have another owner or group than their source.
    OwnersNotCopied(u64),
    /// This many extended attributes and access lists of a source could not be copied.
    AttributesNotCopied(u64),
    /// This many further names (hard links) of a copy became files of their own.
    LinksNotCopied(u64),
    /// A temporary could not be removed after the publication; [`sweep`] removes it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    Left(PathBuf),
}

impl Note {
    /// What a copy did not keep.
    fn of_copy(copied: &Copied) -> impl Iterator<Item = Self> {
        [
            (copied.changed, Self::SourceChanged as fn(u64) -> Self),
            (copied.owners_missed, Self::OwnersNotCopied),
            (copied.xattrs_missed, Self::AttributesNotCopied),
            (copied.links_missed, Self::LinksNotCopied),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, note)| note(n))
    }
}
