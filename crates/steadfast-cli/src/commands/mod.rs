//! One file for each verb: arguments to library calls, library answers to reports.

mod abandon;
mod apply;
mod completions;
mod copy;
mod cp;
mod doctor;
mod explain;
mod journaled;
mod log;
mod lookup;
mod man;
mod prune;
mod publish;
mod recover;
mod repair;
mod resolve;
mod rm;
mod run;
mod status;
mod steps;
mod swap;
mod sweep;
mod sync;
mod times;
mod workspace;
mod write;

pub(crate) use run::become_command;

use crate::args::{Command, DurabilityArg, ParentsArg, RootArg};
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::count;
use crate::place::{Place, split};
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::publish::{Note, Receipt};

/// What a command comes to.
pub(crate) type Done = Result<Report, Failure>;

/// Runs a command.
pub(crate) fn run(command: Command, ui: &Ui) -> Done {
    match command {
        Command::Write(args) => write::run(&args, ui),
        Command::Swap(args) => swap::run(&args),
        Command::Publish(args) => publish::run(&args, ui),
        Command::Rm(args) => rm::run(&args, ui),
        Command::Cp(args) => cp::run(&args, ui),
        Command::Sync(args) => sync::run(&args, ui),
        Command::Sweep(args) => sweep::run(&args),
        Command::Lookup(args) => lookup::run(&args),
        Command::Apply(args) => apply::run(&args, ui),
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Abandon(args) => abandon::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::ResolveConflict(args) => resolve::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Man(args) => man::run(&args),
    }
}

/// The place of a target, with the directories on the way made if that was asked for. A `wide` place is not
/// held to its parent directory, unless by a root.
fn making(
    root: &RootArg,
    parents: ParentsArg,
    given: &Path,
    durability: DurabilityArg,
    wide: bool,
) -> Result<Place, Failure> {
    if let Some(mode) = parents.mode() {
        let place = Place::find_far(root, given)?;
        let (parent, _) = split(&place.path);
        if parent != Path::new(".") {
            place
                .root
                .create_dir_all(parent, mode, durability.get())
                .map_err(|e| place.fail(e, &[]))?;
        }
    }
    let place = if wide {
        Place::wide(root, given)
    } else {
        Place::find(root, given)
    };
    place.map_err(|mut failure| {
        if root.root.is_none() && failure.is(ErrorKind::NotFound) {
            failure.advise("--parents makes the folders that are missing");
        }
        failure
    })
}

/// What a publication did to the name.
fn verb(receipt: &Receipt) -> &'static str {
    match receipt.replaced() {
        Some(_) => "replaced",
        None => "created",
    }
}

/// Adds what a receipt says about these operands, of which the last is the target.
fn described(report: Report, receipt: &Receipt, places: &[&Place]) -> Report {
    let id = receipt.id();
    let mut report = report
        .with("replaced", receipt.replaced().is_some())
        .with("device", id.dev)
        .with("inode", id.ino);
    report.notes = receipt.notes().iter().map(|n| words(n, places)).collect();
    report
}

/// A note of the library as a sentence.
fn words(note: &Note, places: &[&Place]) -> String {
    match note {
        Note::OwnerNotKept => "the old file's owner could not be kept".into(),
        Note::GroupNotKept => {
            "the old file's group could not be kept; the group has only everybody's rights".into()
        }
        Note::AttributeNotKept(name) => {
            format!("the old file's extended attribute {name:?} could not be kept")
        }
        Note::AclNotKept => {
            "the old file's access control list could not be kept; no right was widened".into()
        }
        Note::LinksCut(n) => format!("the old file has {n} further names, which keep its content"),
        Note::StagedByName => "O_TMPFILE is missing here: a named temporary was used".into(),
        Note::NoReplaceByLink => "RENAME_NOREPLACE is missing here: link was used".into(),
        Note::CheckedNotExchanged => {
            "RENAME_EXCHANGE is missing here: the old file was checked just before it was replaced"
                .into()
        }
        Note::SourceChanged(n) => format!(
            "{} changed while being copied: what was copied may be a mixture",
            count(*n, "file")
        ),
        Note::OwnersNotCopied(n) => {
            format!(
                "{} could not be given to the owner of the source",
                count(*n, "entry")
            )
        }
        Note::AttributesNotCopied(n) => {
            format!("{} could not be copied", count(*n, "extended attribute"))
        }
        Note::LinksNotCopied(n) => {
            format!(
                "{} could not be made: each name has a file of its own",
                count(*n, "hard link")
            )
        }
        Note::Left(path) => match (places, places.last()) {
            ([src, _, ..], _) if *path == src.path => {
                format!(
                    "the old one could not be removed: it is at {:?} now",
                    src.given
                )
            }
            (_, home) => {
                let path = home.map_or(path.clone(), |home| home.prefix.join(path));
                format!("the temporary {path:?} could not be removed; steadfast sweep removes it")
            }
        },
        other => format!("{other:?}"),
    }
}
