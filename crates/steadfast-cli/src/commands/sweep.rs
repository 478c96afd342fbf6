//! `sweep`: what killed processes left is removed.

use super::Done;
use crate::args::SweepArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Report, Text};
use crate::paths::{path_value, path_values, shown};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use steadfast::Root;
use steadfast::publish::{Kept, SweepOptions, sweep};
use steadfast::sys::errno_name;

/// One sweep.
pub(crate) fn run(args: &SweepArgs) -> Done {
    let root = Root::open(&args.dir).map_err(|e| Failure::of(e, &[]))?;
    let options = SweepOptions::new()
        .recursive(args.recursive)
        .dry_run(args.dry_run)
        .unproven(args.unproven);
    let swept = sweep(&root, ".", &options)
        .map_err(|e| Failure::of(e.map_paths(|p| under(&args.dir, p)), &[]))?;
    let removed: Vec<PathBuf> = swept
        .removed()
        .iter()
        .map(|p| under(&args.dir, p))
        .collect();
    let kept: Vec<(PathBuf, Kept)> = swept
        .kept()
        .iter()
        .map(|(p, why)| (under(&args.dir, p), *why))
        .collect();
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let lines = removed.iter().map(|p| format!("{verb} {}", shown(p)));
    let mut report = if args.dry_run {
        let mut text = Text::default();
        lines.for_each(|line| text.push(format!("{line}\n")));
        Report::answer(text)
    } else {
        Report::done(lines)
    };
    if removed.is_empty() {
        report.details.push("nothing to remove".to_owned());
    }
    for (path, why) in &kept {
        report
            .notes
            .push(format!("kept {}: {}", shown(path), words(*why)));
        if matches!(why, Kept::Failed(_)) {
            report.exit = match removed.is_empty() {
                true => Exit::Failed,
                false => Exit::Indeterminate,
            };
        }
    }
    let kept: Vec<Value> = kept
        .iter()
        .map(|(path, why)| json!({"path": path_value(path), "reason": reason(*why)}))
        .collect();
    Ok(report
        .with_path("dir", &args.dir)
        .with("dry_run", args.dry_run)
        .with("removed", path_values(&removed))
        .with("kept", kept))
}

/// A path of the report as the user would give it.
fn under(dir: &Path, path: &Path) -> PathBuf {
    match (dir == Path::new("."), path == Path::new(".")) {
        (_, true) => dir.to_owned(),
        (true, _) => path.to_owned(),
        _ => dir.join(path),
    }
}

fn words(why: Kept) -> String {
    match why {
        Kept::InUse => "its maker lives".into(),
        Kept::Unprovable => "it cannot be proven that its maker is dead (see --unproven)".into(),
        Kept::NotPermitted => "it belongs to another user".into(),
        Kept::NotOurs => "it has the name of a temporary, but is none".into(),
        Kept::Displaced => {
            "it was to be kept, or was changed by somebody else: look at it yourself".into()
        }
        Kept::Failed(errno) => {
            format!("removing it failed ({})", errno_name(errno).unwrap_or("?"))
        }
        other => format!("{other:?}"),
    }
}

fn reason(why: Kept) -> &'static str {
    match why {
        Kept::InUse => "in_use",
        Kept::Unprovable => "unprovable",
        Kept::NotPermitted => "not_permitted",
        Kept::NotOurs => "not_ours",
        Kept::Displaced => "displaced",
        Kept::Failed(_) => "failed",
        _ => "other",
    }
}
