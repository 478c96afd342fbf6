//! A copy that appears whole: what `cp` and `publish --copy` share.

use super::{Done, described, verb};
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::{count, shown};
use crate::place::Place;
use crate::progress::Watcher;
use std::ops::ControlFlow;
use steadfast::publish::FolderOptions;
use steadfast::tree::{CopyOptions, Progress};

/// Publishes a copy of `src` at `dst` as the options say.
pub(super) fn publish(
    src: &Place,
    dst: &Place,
    keep: Option<&Place>,
    options: &FolderOptions,
    ui: &Ui,
) -> Done {
    let mut watcher = Watcher::new(ui, "copying");
    let mut total = Progress::default();
    let mut step = |now: &Progress| -> ControlFlow<()> {
        total = *now;
        watcher.step(now)
    };
    let copying = &CopyOptions::new();
    let folder = src
        .root
        .symlink_metadata(&src.path)
        .is_ok_and(|meta| meta.is_dir());
    let receipt = options
        .copy(
            &src.root, &src.path, &dst.root, &dst.path, copying, &mut step,
        )
        .map_err(|e| {
            let places: Vec<_> = std::iter::once(src).chain(keep).chain([dst]).collect();
            Failure::of(e, &places)
        })?;
    drop(watcher);
    let mut words = format!(
        "copied {} and {}",
        count(total.files, "file"),
        count(total.dirs, "folder")
    );
    // Steps are told within a folder; one file has none.
    if !folder {
        total.files = 1;
        words = "copied 1 file".to_owned();
    }
    let report = Report::done([format!("{} {}", verb(&receipt), shown(&dst.given)), words])
        .with_path("src", &src.given)
        .with_path("dst", &dst.given)
        .with("files", total.files)
        .with("folders", total.dirs)
        .with("bytes", total.bytes);
    Ok(described(report, &receipt, &[dst]))
}
