//! A copy that appears whole: made in a staged directory beside its place, then published from there.

use super::{described, verb};
use crate::output::{Failure, Report, Ui, count, shown};
use crate::place::{Place, split};
use crate::progress::Watcher;
use crate::signals;
use std::path::Path;
use steadfast::publish::{FolderOptions, FolderTarget, PendingFolder, Receipt};
use steadfast::tree::{Copied, CopyOptions};

/// The copy's name while it grows.
const STAGED: &str = "copy";

/// Copies `src` and publishes the copy at `dst` as the options say.
pub(super) fn publish(
    src: &Place,
    dst: &Place,
    options: &FolderOptions,
    ui: &Ui,
) -> Result<Report, Failure> {
    // The staging directory stands beside the target, for which any free name in the parent will do.
    let (parent, _) = split(&dst.path);
    let beside = parent.join(format!("steadfast-copy-{}", std::process::id()));
    let stage = FolderOptions::new()
        .target(FolderTarget::CreateNew)
        .begin(&dst.root, &beside)
        .map_err(|e| {
            let dst_path = &dst.path;
            dst.fail(
                e.map_paths(|p| if p == beside { dst_path } else { p }.into()),
                &[],
            )
        })?;
    let done = staged(src, dst, options, &stage, ui);
    let tidied = stage.discard();
    match (done, tidied) {
        (Ok((copied, receipt)), tidied) => {
            let mut report = report(src, dst, &copied, &receipt);
            if let Err(e) = tidied {
                report
                    .notes
                    .push(format!("{e} (steadfast sweep removes what is left)"));
            }
            Ok(report)
        }
        (Err(failure), Ok(())) => Err(failure),
        (Err(mut failure), Err(e)) => {
            failure
                .hints
                .push(("left behind", format!("{e} (steadfast sweep removes it)")));
            Err(failure)
        }
    }
}

fn staged(
    src: &Place,
    dst: &Place,
    options: &FolderOptions,
    stage: &PendingFolder<'_>,
    ui: &Ui,
) -> Result<(Copied, Receipt), Failure> {
    let staging = Place {
        root: stage.root().try_clone().map_err(|e| dst.fail(e, &[]))?,
        path: STAGED.into(),
        given: src.given.clone(),
        prefix: dst.prefix.clone(),
    };
    let copied = {
        let mut watcher = Watcher::new(ui, "copying");
        let step = &mut |p: &_| watcher.step(p);
        src.root
            .copy_tree_watched(&src.path, &staging.root, STAGED, &CopyOptions::new(), step)
            .map_err(|e| src.fail(e.map_paths(|p| as_target(p, dst)), &[]))?
    };
    if let Some(signal) = signals::pending() {
        return Err(Failure::interrupted("publish", &dst.given, signal));
    }
    let receipt = options
        .publish(&staging.root, STAGED, &dst.root, &dst.path)
        .map_err(|e| staging.fail(e, &[dst]))?;
    Ok((copied, receipt))
}

/// A path in the copy, as one beneath its place to be.
fn as_target(path: &Path, dst: &Place) -> std::path::PathBuf {
    match path.strip_prefix(STAGED) {
        Ok(rest) if rest.as_os_str().is_empty() => dst.given.clone(),
        Ok(rest) => dst.given.join(rest),
        Err(_) => path.to_owned(),
    }
}

fn report(src: &Place, dst: &Place, copied: &Copied, receipt: &Receipt) -> Report {
    let dirs = count(copied.dirs, "folder");
    let files = count(copied.files, "file");
    let report = Report::done([
        format!("{} {}", verb(receipt), shown(&dst.given)),
        format!("copied {files} and {dirs}"),
    ])
    .with_path("src", &src.given)
    .with_path("dst", &dst.given)
    .with("files", copied.files)
    .with("folders", copied.dirs)
    .with("symlinks", copied.symlinks)
    .with("hard_links", copied.hard_links)
    .with("bytes", copied.bytes);
    let mut report = described(report, receipt, dst);
    let missed = [
        (
            copied.changed,
            "file",
            "changed while being copied: what was copied may be a mixture",
        ),
        (
            copied.owners_missed,
            "entry",
            "could not be given to the owner or group of the source",
        ),
        (copied.xattrs_missed, "attribute", "could not be set"),
        (
            copied.links_missed,
            "hard link",
            "became files of their own",
        ),
    ];
    for (n, thing, what) in missed {
        if n > 0 {
            report.notes.push(format!("{}: {what}", count(n, thing)));
        }
    }
    report
}
