//! The command line: what it takes, and the words of its help.

mod exchange;
mod workspace;

pub(crate) use exchange::{PublishArgs, SwapArgs};
pub(crate) use workspace::{
    AbandonArgs, ApplyArgs, ExplainArgs, LogArgs, ManifestFormat, PruneArgs, RecoverArgs,
    RepairArgs, ResolveArgs, RunArgs, StatusArgs, WorkspaceArg,
};

use crate::exit;
use clap::{ArgAction, Args, ColorChoice, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use steadfast::Durability;
use steadfast::publish::SymlinkPolicy;
use steadfast::sys::Mode;

/// Atomic, durable and contained changes to files and folders
#[derive(Debug, Parser)]
#[command(
    name = "steadfast",
    bin_name = "steadfast",
    version,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true,
    long_about = "Atomic, durable and contained changes to files and folders.\n\n\
        A change is seen by others, and survives a crash, as a whole or not at all. When a \
        command has returned 0, a power cut does not take it back, unless --durability says \
        so. With --root no path leads out of that directory."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Global {
    /// Give the result, or the failure, as one JSON object
    ///
    /// The result goes to stdout, a failure to stderr. Paths that are not UTF-8 have a second
    /// field with their bytes in hex.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say what was done
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,

    /// Say nothing but failures and what was asked for
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    pub(crate) color: ColorChoice,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write stdin to a file, whole or not at all
    ///
    /// FILE holds its old content until all of stdin has been read and is on the disk. If anything
    /// fails, or a signal arrives before that, FILE is as it was and no temporary is left.
    ///
    /// A file that is replaced keeps its mode, owner (where permitted), extended attributes and
    /// ACL; a new one obeys the umask.
    #[command(after_help = "Example:\n  make-config | steadfast write /etc/app.conf")]
    Write(WriteArgs),

    /// Exchange two names
    ///
    /// Each name may be a file or a folder, of different kinds and in different directories of one
    /// file system. At every moment both names exist. Where the kernel or the file system cannot do
    /// that, --journal can do the next best.
    #[command(after_help = "Example:\n  steadfast swap /srv/www/live /srv/www/next")]
    Swap(SwapArgs),

    /// Put a finished file or folder in the place of another
    ///
    /// SRC moves to DST in one step; readers see the old DST or the new one. The old DST is removed
    /// afterwards, or kept with --keep-old. Content is synced before it becomes visible. A file
    /// replaces a file, a folder a folder, on one file system; --copy takes SRC from anywhere.
    #[command(after_help = "Example:\n  steadfast publish build/site /srv/www/live")]
    Publish(PublishArgs),

    /// Remove files and folders, durably
    ///
    /// A symlink is removed, never followed, and a folder on which something is mounted is refused.
    Rm(RmArgs),

    /// Copy a file or a folder, whole or not at all
    ///
    /// The copy is made beside DST and appears there when it is complete and on the disk, with the
    /// mode, owner (where permitted), times and extended attributes of SRC. Content is shared with
    /// the source (reflink) where the file system can.
    ///
    /// A file may replace a file. A folder replaces nothing: 'publish --copy' does that.
    Cp(CpArgs),

    /// Force files and folders to the disk
    ///
    /// A folder is synced with everything beneath it. The name of each PATH in its parent
    /// directory is made durable too.
    Sync(SyncArgs),

    /// Remove temporaries that killed processes left behind
    ///
    /// Only names made by steadfast are removed, and only where the process that made them is gone.
    Sweep(SweepArgs),

    /// Resolve a path beneath a root and say what is there
    ///
    /// Gives the canonical path inside the root, the type, the device and the inode; or, where the
    /// path does not resolve, the error by its name, as openat2(2) would give it.
    #[command(after_help = "Example:\n  steadfast lookup --root /srv/data uploads/../a.txt")]
    Lookup(LookupArgs),

    /// Make the changes of a manifest, all of them or none
    ///
    /// MANIFEST lists operations (write, append, rename, exchange, remove and more) and conditions,
    /// in TOML or JSON; '-' is stdin. They are one transaction: after a crash all of it is there or
    /// nothing, once any command has opened the workspace again. Names change one by one, quickly;
    /// who works by transactions too never sees some of them only.
    ///
    /// The folder .steadfast in DIR holds the log. It is made if there is none.
    #[command(after_help = "Example:\n  steadfast apply --root /srv/app release.toml")]
    Apply(ApplyArgs),

    /// Run a command, and put everything back unless it succeeds
    ///
    /// Before it starts, what is at each PATH is kept; while it runs, no other transaction works there.
    /// If the command exits with 0, all that it did stays, durably. If it fails, if a signal ends it,
    /// or if run itself is killed, everything is put back: content, mode, owner, times, extended
    /// attributes, what is there and what is not. Only what is at these paths: nothing else that the
    /// command does is undone.
    ///
    /// The exit code is that of the command, or 128 and the number of the signal that ended it. What is
    /// put back, and why, is told on stderr, unless --quiet says not to.
    ///
    /// A signal that is sent to run (INT, TERM, HUP, QUIT) is passed on to the command; when that has
    /// ended, all is put back, whatever it says. What is typed on the terminal, such as Ctrl-C, reaches
    /// the command by itself, and its exit code decides. If run is killed by SIGKILL, the kernel kills
    /// the command too; what it has started may live on, and holds the paths until it ends. The
    /// next use of the workspace after that puts everything back.
    #[command(after_help = "Example:\n  steadfast run --protect etc --protect db -- ./migrate.sh")]
    Run(RunArgs),

    /// Show the state of a workspace: writers, open work, conflicts
    ///
    /// Only looks: nothing is locked, recovered or changed. With NUMBER it explains what that
    /// transaction or section does, step by step.
    Status(StatusArgs),

    /// List the records of the workspace's logs
    Log(LogArgs),

    /// Explain what a transaction or section does, step by step
    Explain(ExplainArgs),

    /// Finish or take back what killed processes left
    ///
    /// What they had committed is finished, all else is taken back.
    ///
    /// Every other command that opens the workspace does this too. Conflicts that are left need
    /// resolve-conflict.
    Recover(RecoverArgs),

    /// Give up a transaction or section that cannot be finished
    ///
    /// What is done of a transaction stays done; what is not is never done, so that DIR is left with a part
    /// of it. 'explain' tells beforehand what that is. For when recover fails again and again. What the
    /// transaction was to put there is kept, as conflicts that can be resolved.
    ///
    /// Of a section nothing is put back. What was there before it is kept in .steadfast, under names that
    /// begin with given-up, until 'prune --set-aside'.
    Abandon(AbandonArgs),

    /// Make a damaged workspace one that can be opened
    ///
    /// What can be read is kept and finished; the rest is given up, and said. Damaged bytes are set
    /// aside for a person to look at, not removed.
    Repair(RepairArgs),

    /// Remove what a workspace does not need any more
    ///
    /// What killed processes left there, and empty logs beyond a few. Nothing that is open, and
    /// nothing outside of .steadfast.
    Prune(PruneArgs),

    /// Choose between a transaction and somebody else's change
    ///
    /// 'status' lists the conflicts. Until one is resolved, transactions on its path are refused.
    #[command(
        override_usage = "steadfast resolve-conflict [OPTIONS] ID (--theirs|--ours|--aside PATH)",
        after_help = "Example:\n  steadfast resolve-conflict 12-0 --aside app.conf.theirs"
    )]
    ResolveConflict(ResolveArgs),

    /// Show what this kernel and file system can do
    ///
    /// Makes and removes small temporary files in DIR to find out. For what is missing it says what
    /// steadfast does instead.
    Doctor(DoctorArgs),

    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  steadfast completions bash > /etc/bash_completion.d/steadfast"
    )]
    Completions(CompletionsArgs),

    /// Print the manual page, or write all of them to a directory
    #[command(after_help = "Example:\n  steadfast man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

impl Command {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Write(_) => "write",
            Self::Swap(_) => "swap",
            Self::Publish(_) => "publish",
            Self::Rm(_) => "rm",
            Self::Cp(_) => "cp",
            Self::Sync(_) => "sync",
            Self::Sweep(_) => "sweep",
            Self::Lookup(_) => "lookup",
            Self::Apply(_) => "apply",
            Self::Run(_) => "run",
            Self::Status(_) => "status",
            Self::Log(_) => "log",
            Self::Explain(_) => "explain",
            Self::Recover(_) => "recover",
            Self::Abandon(_) => "abandon",
            Self::Repair(_) => "repair",
            Self::Prune(_) => "prune",
            Self::ResolveConflict(_) => "resolve-conflict",
            Self::Doctor(_) => "doctor",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }
}

/// How long to wait for the disk.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DurabilityArg {
    /// What a power cut may take back
    #[arg(long, value_name = "LEVEL", default_value = "full")]
    durability: Level,
}

impl DurabilityArg {
    /// For the library.
    pub(crate) fn get(self) -> Durability {
        match self.durability {
            Level::None => Durability::None,
            Level::Ordered => Durability::Ordered,
            Level::Full => Durability::Full,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// Nothing is synced: after a power cut anything may be there
    None,
    /// Old or new, never a mixture, but perhaps not the latest
    Ordered,
    /// Nothing: it is on the disk when the command returns
    Full,
}

/// Directories on the way.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ParentsArg {
    /// Make missing directories on the way, as durable as what goes in them
    #[arg(short, long)]
    pub(crate) parents: bool,
}

impl ParentsArg {
    /// The mode of directories to make, before the umask.
    pub(crate) fn mode(self) -> Option<Mode> {
        self.parents.then_some(Mode::from_raw_mode(0o777))
    }
}

/// Where the paths of the command line are resolved.
#[derive(Clone, Debug, Args)]
pub(crate) struct RootArg {
    /// Resolve every PATH beneath this directory, and never outside it
    ///
    /// No '..', absolute path or symlink leads out. Without it, the parent directory of each path
    /// is opened as any program would, and only the last component is looked at beneath it.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// The file
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) root: RootArg,

    #[command(flatten)]
    pub(crate) parents: ParentsArg,

    /// Fail if FILE exists
    #[arg(long, group = "condition")]
    pub(crate) create_new: bool,

    /// Fail if FILE does not exist
    #[arg(long, group = "condition")]
    pub(crate) replace_only: bool,

    /// Fail unless the content of FILE has this SHA-256 hash (see sha256sum)
    #[arg(long, value_name = "SHA256", group = "condition", value_parser = sha256)]
    pub(crate) if_unchanged: Option<[u8; 32]>,

    /// Fail unless stdin has this SHA-256 hash
    #[arg(long, value_name = "SHA256", value_parser = sha256)]
    pub(crate) expect_sha256: Option<[u8; 32]>,

    /// Fail unless stdin has this many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) expect_len: Option<u64>,

    /// Permissions in octal, instead of those of the old file or the umask
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<Mode>,

    #[command(flatten)]
    pub(crate) durability: DurabilityArg,

    /// What to do when FILE is a symlink
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    pub(crate) symlink: SymlinkArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SymlinkArg {
    /// Fail
    Refuse,
    /// Take what it leads to, beneath the root if one is given
    Follow,
    /// Replace the link itself
    Replace,
}

impl SymlinkArg {
    /// Whether the target may be elsewhere than where the path says.
    pub(crate) fn follows(self) -> bool {
        matches!(self, Self::Follow)
    }

    /// For the library.
    pub(crate) fn get(self) -> SymlinkPolicy {
        match self {
            Self::Refuse => SymlinkPolicy::Refuse,
            Self::Follow => SymlinkPolicy::Follow,
            Self::Replace => SymlinkPolicy::Replace,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// What to remove
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) root: RootArg,
    /// Remove folders with everything in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Do not fail for a path that does not exist
    #[arg(long)]
    pub(crate) missing_ok: bool,
    #[command(flatten)]
    pub(crate) durability: DurabilityArg,
}

#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// What to copy
    pub(crate) src: PathBuf,
    /// The name of the copy
    pub(crate) dst: PathBuf,
    #[command(flatten)]
    pub(crate) root: RootArg,
    /// Copy a folder with everything in it
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Fail if DST exists
    #[arg(long)]
    pub(crate) no_replace: bool,
    #[command(flatten)]
    pub(crate) parents: ParentsArg,
    #[command(flatten)]
    pub(crate) durability: DurabilityArg,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// What to sync
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) root: RootArg,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The directory
    pub(crate) dir: PathBuf,
    /// The folders in it too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Only say what would be removed
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Also remove those whose maker cannot be proven dead
    ///
    /// On network and FUSE storage locks of other machines are not seen. Only for when nobody
    /// publishes there.
    #[arg(long)]
    pub(crate) unproven: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// The path, relative to the root
    pub(crate) path: PathBuf,
    /// The root
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Who resolves
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub(crate) resolver: ResolverArg,
    /// Take absolute paths and symlinks as starting at the root, as chroot would
    #[arg(long)]
    pub(crate) in_root: bool,
    /// Look at a symlink at the end of PATH itself
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Refuse symlinks on the way
    #[arg(long)]
    pub(crate) no_symlinks: bool,
    /// Refuse magic links (such as /proc/self/exe) as symlinks
    #[arg(long)]
    pub(crate) no_magic_links: bool,
    /// Refuse to step onto another mount
    #[arg(long)]
    pub(crate) no_mount_crossing: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ResolverArg {
    /// The kernel, or the walk where the kernel cannot
    Auto,
    /// Only the kernel's openat2(2)
    Openat2,
    /// Only the walk in user space
    Walk,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A directory of the file system in question
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command whose page to print; without one, the page of steadfast itself
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) page: Option<String>,
    /// Write one file for each page to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    let bad = || "a SHA-256 hash has 64 hexadecimal digits".to_owned();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(hash)
}

fn mode(text: &str) -> Result<Mode, String> {
    let octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(bits) if octal && bits <= 0o7777 => Ok(Mode::from_raw_mode(bits)),
        _ => Err("a mode is an octal number up to 7777".to_owned()),
    }
}

/// The definition, with the exit codes at the end of the main help and of every long one.
pub(crate) fn definition() -> clap::Command {
    let codes = exit::help();
    Cli::command()
        .after_help(codes.clone())
        .mut_subcommands(|c| {
            let long = match c.get_after_help() {
                Some(example) => format!("{example}\n\n{codes}"),
                None => codes.clone(),
            };
            c.after_long_help(long)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn modes_are_octal_and_hashes_whole() {
        assert_eq!(mode("0640"), Ok(Mode::from_raw_mode(0o640)));
        assert_eq!(mode("7777"), Ok(Mode::from_raw_mode(0o7777)));
        for bad in ["", "8", "10000", "+644", "-1", "0x1ff", "u+x"] {
            assert!(mode(bad).is_err(), "{bad:?}");
        }
        assert_eq!(sha256(&"aB".repeat(32)), Ok([0xab; 32]));
        for bad in [
            "",
            "ab",
            &"g0".repeat(32),
            &"+1".repeat(32),
            &"ab".repeat(33),
        ] {
            assert!(sha256(bad).is_err(), "{bad:?}");
        }
    }
}
