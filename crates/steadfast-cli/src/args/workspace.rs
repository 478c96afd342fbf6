//! The arguments of the commands that work on a workspace.

use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use steadfast::workspace::ConflictId;

/// Which workspace.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkspaceArg {
    /// The directory that the workspace is about
    ///
    /// No path leads outside it. Its state is in the folder .steadfast there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) root: PathBuf,
}

/// How long to wait for others.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArg {
    /// How long to wait for paths that others are changing
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    wait: Duration,
}

impl WaitArg {
    /// For the library.
    pub(crate) fn get(self) -> Duration {
        self.wait
    }
}

/// How a manifest is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ManifestFormat {
    Toml,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The manifest: a file with the ending .toml or .json, or '-' for stdin
    pub(crate) manifest: PathBuf,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
    /// How the manifest is written, where its name does not tell
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ManifestFormat>,
    /// Only say what would be done
    ///
    /// Nothing is changed, and no workspace is made. Where processes that died have left unfinished
    /// work, which is finished before anything is applied, a note says so.
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// A text for people who look at the log, instead of the manifest's
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// Do it once: if this key is recorded already, do nothing and succeed
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Also wait until readers need no recovery after a power cut
    #[arg(long)]
    pub(crate) settle: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What is put back: a file, a folder with all that is in it, or a name that is free
    ///
    /// Can be given several times. '.' is everything in DIR.
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) protect: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
    /// A text for people who look at the log
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Explain this transaction or section
    pub(crate) number: Option<u64>,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Only this log, as status shows it
    #[arg(long, value_name = "LOG", value_parser = log_index)]
    pub(crate) log: Option<u32>,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The transaction or section, as status or log shows it
    pub(crate) number: u64,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct AbandonArgs {
    /// The transaction or section, as status shows it
    pub(crate) number: u64,
    /// Remove what is not in place, instead of keeping it
    ///
    /// Of a transaction: what it was to put there; what was there before it is never removed. Of a section:
    /// what it has kept of the state before.
    #[arg(long)]
    pub(crate) drop: bool,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only say what would be removed
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Also idempotency keys that were recorded longer ago than this
    ///
    /// Work under such a key is done again if it is asked for again.
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) keys_older_than: Option<Duration>,
    /// Also what repairs have set aside, and what is kept of sections that were given up, for good
    #[arg(long)]
    pub(crate) set_aside: bool,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The conflict, as status shows it
    pub(crate) id: ConflictId,
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) workspace: WorkspaceArg,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// What is to be at the path.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Choice {
    /// Leave what somebody else put there, and drop the transaction's
    #[arg(long)]
    pub(crate) theirs: bool,
    /// Put the transaction's there, and drop what is there
    #[arg(long)]
    pub(crate) ours: bool,
    /// Move what is there to PATH, which must not exist, and put the transaction's in its place
    #[arg(long, value_name = "PATH")]
    pub(crate) aside: Option<PathBuf>,
}

/// Whole days.
fn days(text: &str) -> Result<Duration, String> {
    let days: Option<u32> = text.parse().ok();
    days.map(|n| Duration::from_secs(u64::from(n) * 86_400))
        .ok_or_else(|| "a number of days is needed, such as 30".to_owned())
}

/// The index of a log, in hexadecimal.
fn log_index(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    match u32::from_str_radix(text, 16) {
        Ok(index) if digits => Ok(index),
        _ => Err("a log has up to 8 hexadecimal digits".to_owned()),
    }
}

/// Seconds, perhaps with a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "a number of seconds is needed, such as 10 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_not_negative_and_end() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "-1", "inf", "NaN", "1e30", "10s"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
