//! `publish`: a finished file or folder takes the place of another.

use super::{Done, copy, described, journaled, making, verb};
use crate::args::PublishArgs;
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::shown;
use crate::place::Place;
use crate::progress::Watcher;
use steadfast::publish::{FolderOptions, FolderTarget};
use steadfast::tree::Progress;

/// One publication, of the thing itself or of a copy.
pub(crate) fn run(args: &PublishArgs, ui: &Ui) -> Done {
    if let Some(top) = args.journal.get() {
        return journaled::publish(args, top, ui);
    }
    let src = Place::find(&args.root, &args.src)?;
    // What is kept, or what a link leads to, may be elsewhere than beside the target.
    let wide = args.keep_old.is_some() || args.symlink.follows();
    let dst = making(&args.root, args.parents, &args.dst, args.durability, wide)?;
    let keep = args
        .keep_old
        .as_ref()
        .map(|keep| Place::wide(&args.root, keep))
        .transpose()?;
    let mut options = FolderOptions::new()
        .durability(args.durability.get())
        .symlink(args.symlink.get());
    if args.no_replace {
        options = options.target(FolderTarget::CreateNew);
    }
    if let Some(keep) = &keep {
        options = options.keep_old(&keep.path);
    }
    if args.copy {
        return copy::publish(&src, &dst, keep.as_ref(), &options, ui);
    }
    let mut watcher = Watcher::new(ui, "syncing");
    let step = &mut |p: &Progress| watcher.step(p);
    let receipt = options
        .publish_watched(&src.root, &src.path, &dst.root, &dst.path, step)
        .map_err(|e| {
            let places: Vec<_> = std::iter::once(&src).chain(&keep).chain([&dst]).collect();
            journaled::advise(Failure::of(e, &places))
        })?;
    let mut report = Report::done([format!("{} {}", verb(&receipt), shown(&args.dst))])
        .with_path("src", &args.src)
        .with_path("dst", &args.dst);
    if let Some(keep) = &args.keep_old {
        report = report.with_path("kept_old", keep);
    }
    Ok(described(report, &receipt, &[&src, &dst]))
}
