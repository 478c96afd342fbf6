//! `swap` and `publish` with `--journal`: in a workspace, which can do without the kernel's exchange.

use super::workspace::{self, Place};
use super::{Done, words};
use crate::args::{PublishArgs, SwapArgs};
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::shown;
use crate::progress::Watcher;
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::publish::{FolderOptions, FolderTarget, Note};
use steadfast::tree::Progress;
use steadfast::workspace::{Receipt, Workspace, WorkspaceOptions};

/// An exchange in the workspace of `top`.
pub(super) fn swap(args: &SwapArgs, top: &Path) -> Done {
    let (place, workspace) = open(top)?;
    let receipt = workspace
        .swap(&args.a, &args.b)
        .map_err(|e| place.fail(e))?;
    let (a, b) = (place.spelt(&args.a), place.spelt(&args.b));
    let detail = format!("swapped {} and {}", shown(&a), shown(&b));
    let report = Report::done([detail]).with_path("a", &a).with_path("b", &b);
    Ok(closed(report, &place, workspace, &receipt))
}

/// A publication in the workspace of `top`.
pub(super) fn publish(args: &PublishArgs, top: &Path, ui: &Ui) -> Done {
    if args.parents.parents {
        return Err(Failure::usage("--parents cannot be used with --journal"));
    }
    let (place, workspace) = open(top)?;
    let mut options = FolderOptions::new();
    if args.no_replace {
        options = options.target(FolderTarget::CreateNew);
    }
    if let Some(keep) = &args.keep_old {
        options = options.keep_old(keep);
    }
    let mut watcher = Watcher::new(ui, "syncing");
    let step = &mut |p: &Progress| watcher.step(p);
    let receipt = workspace
        .publish_folder_watched(&args.src, &args.dst, &options, step)
        .map_err(|e| place.fail(e))?;
    let (src, dst) = (place.spelt(&args.src), place.spelt(&args.dst));
    let mut report = Report::done([format!("published {} as {}", shown(&src), shown(&dst))])
        .with_path("src", &src)
        .with_path("dst", &dst);
    if let Some(keep) = &args.keep_old {
        report = report.with_path("kept_old", &place.spelt(keep));
    }
    Ok(closed(report, &place, workspace, &receipt))
}

/// What a failure for want of an exchange can be helped by.
pub(super) fn advise(mut failure: Failure) -> Failure {
    if failure.is(ErrorKind::Unsupported) {
        // The library's own names what it lacks; the sentence does so too.
        failure.hints.retain(|(label, _)| *label != "advice");
        failure.advise(
            "--journal ROOT does it in several steps, which a journal in ROOT has finished after a \
             crash; 'steadfast doctor' shows what is missing here",
        );
    }
    failure
}

fn open(top: &Path) -> Result<(Place, Workspace), Failure> {
    let place = Place::at(top)?;
    let workspace = place.open(WorkspaceOptions::new())?;
    Ok((place, workspace))
}

fn closed(report: Report, place: &Place, workspace: Workspace, receipt: &Receipt) -> Report {
    let mut report = report.with("number", receipt.number());
    for note in receipt.notes() {
        let note = match note {
            Note::Left(path) => Note::Left(place.spelt(path)),
            other => other.clone(),
        };
        report.notes.push(words(&note, &[]));
    }
    workspace::close(workspace, false, &mut report);
    report
}
