//! `prune`: what nobody needs any more goes from the workspace's own folder.

use super::Done;
use super::workspace::Place;
use crate::args::PruneArgs;
use crate::output::{Report, Text};
use crate::paths::{count, path_values, shown};
use serde_json::Value;
use std::path::PathBuf;
use steadfast::workspace::{PruneOptions, prune};

/// One pruning.
pub(crate) fn run(args: &PruneArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let mut options = PruneOptions::new()
        .dry_run(args.dry_run)
        .set_aside(args.set_aside);
    if let Some(age) = args.keys_older_than {
        options = options.keys_older_than(age);
    }
    let gone = prune(&place.root, &options).map_err(|e| place.missing(e))?;
    let verb = match args.dry_run {
        true => "would remove",
        false => "removed",
    };
    let mut lines: Vec<String> = (gone.litter.iter().chain(&gone.set_aside))
        .map(|path| format!("{verb} {}", shown(&place.spelt(path))))
        .collect();
    lines.extend(gone.logs.iter().map(|log| format!("{verb} log {log:08x}")));
    if gone.keys > 0 {
        lines.push(format!("{verb} {}", count(gone.keys, "key")));
    }
    if gone.bytes > 0 {
        lines.push(format!("in all {}", count(gone.bytes, "byte")));
    }
    let none = lines.is_empty();
    let mut report = if args.dry_run {
        let mut text = Text::default();
        lines.iter().for_each(|line| text.push(format!("{line}\n")));
        Report::answer(text)
    } else {
        Report::done(lines)
    };
    if none {
        report.details.push("nothing to remove".to_owned());
    }
    let spelt = |paths: &[PathBuf]| -> Vec<Value> {
        let paths: Vec<_> = paths.iter().map(|p| place.spelt(p)).collect();
        path_values(&paths)
    };
    Ok(report
        .with("dry_run", args.dry_run)
        .with("litter", spelt(&gone.litter))
        .with("logs", gone.logs.clone())
        .with("keys", gone.keys)
        .with("set_aside", spelt(&gone.set_aside))
        .with("bytes", gone.bytes))
}
