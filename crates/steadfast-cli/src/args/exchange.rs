//! The arguments of the commands that exchange names, by the kernel or by a journal.

use super::{DurabilityArg, ParentsArg, RootArg, SymlinkArg};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct SwapArgs {
    /// One name
    pub(crate) a: PathBuf,
    /// The other
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) root: RootArg,
    #[command(flatten)]
    pub(crate) journal: JournalArg,
    #[command(flatten)]
    pub(crate) durability: DurabilityArg,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The finished file or folder
    pub(crate) src: PathBuf,
    /// The name that it gets
    pub(crate) dst: PathBuf,
    #[command(flatten)]
    pub(crate) root: RootArg,
    #[command(flatten)]
    pub(crate) journal: JournalArg,
    /// Fail if DST exists
    #[arg(long, conflicts_with = "keep_old")]
    pub(crate) no_replace: bool,
    /// Keep the old DST under this name, which must not exist
    #[arg(long, value_name = "PATH")]
    pub(crate) keep_old: Option<PathBuf>,
    /// Publish a copy and leave SRC where it is
    #[arg(long, conflicts_with = "journal")]
    pub(crate) copy: bool,
    /// What to do when DST is a symlink
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "refuse",
        conflicts_with = "journal"
    )]
    pub(crate) symlink: SymlinkArg,
    #[command(flatten)]
    pub(crate) parents: ParentsArg,
    #[command(flatten)]
    pub(crate) durability: DurabilityArg,
}

/// A workspace for what the kernel may be unable to do at once.
#[derive(Clone, Debug, Args)]
pub(crate) struct JournalArg {
    /// Also where names cannot be exchanged: by a journal in ROOT, beneath which all paths are
    ///
    /// It is in the folder .steadfast there, as for apply. Where names can be exchanged nothing is
    /// written to it. Else one of them is absent for a moment, and after a crash just then until a
    /// command has opened the workspace, such as 'recover'.
    #[arg(long, value_name = "ROOT", conflicts_with_all = ["root", "durability"])]
    journal: Option<PathBuf>,
}

impl JournalArg {
    /// The directory, if there is to be one.
    pub(crate) fn get(&self) -> Option<&Path> {
        self.journal.as_deref()
    }
}
