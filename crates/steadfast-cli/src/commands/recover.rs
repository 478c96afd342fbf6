//! `recover`: what killed processes left is finished or taken back.

use super::Done;
use super::workspace::{self, Place};
use crate::args::RecoverArgs;
use crate::exit::Exit;
use crate::output::{Report, Text};
use crate::paths::count;
use serde_json::Value;
use steadfast::workspace::WorkspaceOptions;

/// One recovery; opening the workspace is most of it.
pub(crate) fn run(args: &RecoverArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let options = WorkspaceOptions::new().create(false).wait(args.wait.get());
    let workspace = place.open(options)?;
    let more = workspace.recover().map_err(|e| place.fail(e))?;
    let opened = workspace.recovered();
    let finished = [opened.finished(), more.finished()].concat();
    let taken_back = [opened.taken_back(), more.taken_back()].concat();
    let removed = opened.removed() + more.removed();
    let conflicts = workspace.conflicts().map_err(|e| place.fail(e))?;
    let mut text = Text::default();
    for (verb, thing, numbers) in [
        ("finished", "transaction", &finished),
        ("took back", "section", &taken_back),
    ] {
        if !numbers.is_empty() {
            let list: Vec<_> = numbers.iter().map(u64::to_string).collect();
            let s = if numbers.len() == 1 { "" } else { "s" };
            text.push(format!("{verb} {thing}{s} {}\n", list.join(", ")));
        }
    }
    if removed > 0 {
        text.push(format!("removed {}\n", count(removed, "leftover")));
    }
    if text.is_empty() && conflicts.is_empty() {
        text.push("nothing to recover\n");
    }
    if !conflicts.is_empty() {
        text.push(workspace::conflict_lines(&conflicts, &place));
    }
    let values: Vec<Value> = conflicts
        .iter()
        .map(|c| workspace::conflict_value(c, &place))
        .collect();
    let mut report = Report::answer(text)
        .with("finished", finished)
        .with("taken_back", taken_back)
        .with("removed", removed)
        .with("conflicts", values);
    if !conflicts.is_empty() {
        report.exit = Exit::Conflict;
    }
    workspace::close(workspace, false, &mut report);
    Ok(report)
}
