//! `cp`: a copy of a file or folder, whole or not at all.

use super::{Done, copy, making};
use crate::args::CpArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Ui;
use crate::paths::insert_path;
use crate::place::Place;
use steadfast::publish::{FolderOptions, FolderTarget};

/// One copy. A file may replace a file; a folder replaces nothing, for that is what `publish --copy` says.
pub(crate) fn run(args: &CpArgs, ui: &Ui) -> Done {
    let src = Place::find(&args.root, &args.src)?;
    let meta = src
        .root
        .symlink_metadata(&src.path)
        .map_err(|e| src.fail(e, &[]))?;
    if meta.is_dir() && !args.recursive {
        let message = format!("cannot copy {:?}: it is a directory", args.src);
        let mut failure = Failure::new(Exit::Failed, "is_a_directory", message);
        insert_path(&mut failure.json, "path", &args.src);
        failure.advise("--recursive copies a folder with everything in it");
        return Err(failure);
    }
    let dst = making(&args.root, args.parents, &args.dst, args.durability, false)?;
    let mut options = FolderOptions::new().durability(args.durability.get());
    if args.no_replace || meta.is_dir() {
        options = options.target(FolderTarget::CreateNew);
    }
    copy::publish(&src, &dst, None, &options, ui)
}
