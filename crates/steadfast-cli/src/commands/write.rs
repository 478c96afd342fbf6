//! `write`: stdin to a file.

use super::{Done, described, making, verb};
use crate::args::WriteArgs;
use crate::output::{Report, Ui};
use crate::paths::shown;
use crate::stdin::Stdin;
use std::io::{self, IsTerminal};
use steadfast::publish::{FileOptions, Target, Version};

/// Reads all of stdin, then publishes.
pub(crate) fn run(args: &WriteArgs, ui: &Ui) -> Done {
    let wide = args.symlink.follows();
    let place = making(&args.root, args.parents, &args.file, args.durability, wide)?;
    let mut options = FileOptions::new()
        .target(target(args))
        .durability(args.durability.get())
        .symlink(args.symlink.get());
    if let Some(mode) = args.mode {
        options = options.mode(mode);
    }
    if let Some(len) = args.expect_len {
        options = options.expect_len(len);
    }
    if let Some(hash) = args.expect_sha256 {
        options = options.expect_sha256(hash);
    }
    if io::stdin().is_terminal() && ui.progress() {
        ui.warn("reading the terminal; Ctrl-D at the start of a line ends it");
    }
    let mut stdin = Stdin::new();
    let receipt = options
        .write_from(&place.root, &place.path, &mut stdin)
        .map_err(|e| place.fail(e, &[]))?;
    let report = Report::done([format!("{} {}", verb(&receipt), shown(&place.given))])
        .with_path("path", &place.given)
        .with("bytes", stdin.bytes());
    Ok(described(report, &receipt, &[&place]))
}

fn target(args: &WriteArgs) -> Target {
    match args.if_unchanged {
        Some(hash) => Target::IfUnchanged(Version::sha256(hash)),
        None if args.create_new => Target::CreateNew,
        None if args.replace_only => Target::Replace,
        None => Target::CreateOrReplace,
    }
}
