//! `resolve-conflict`: a person chooses between their change and the transaction's.

use super::Done;
use super::workspace::{self, Place};
use crate::args::ResolveArgs;
use crate::output::Report;
use crate::paths::shown;
use steadfast::ErrorKind;
use steadfast::workspace::{Conflict, Resolution, WorkspaceOptions};

/// One resolution.
pub(crate) fn run(args: &ResolveArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let options = WorkspaceOptions::new().create(false).wait(args.wait.get());
    let workspace = place.open(options)?;
    let all = workspace.conflicts().map_err(|e| place.fail(e))?;
    let path = all.iter().find(|c| c.id() == args.id).map(Conflict::path);
    let (resolution, word) = match &args.choice.aside {
        Some(to) => (Resolution::SetAside(to.clone()), "aside"),
        None if args.choice.ours => (Resolution::KeepOurs, "ours"),
        None => (Resolution::KeepTheirs, "theirs"),
    };
    let number = workspace.resolve(args.id, &resolution).map_err(|e| {
        let unknown = e.kind() == ErrorKind::NotFound && path.is_none();
        let mut failure = place.fail(e);
        if unknown {
            failure.advise("steadfast status lists the conflicts");
        }
        failure
    })?;
    let what = path.map_or_else(String::new, |p| {
        format!(" about {}", shown(&place.spelt(p)))
    });
    let did = match word {
        "theirs" => "theirs stays",
        "ours" => "ours is there",
        _ => "ours is there, theirs was set aside",
    };
    let mut report = Report::done([format!("resolved conflict {}{what}: {did}", args.id)])
        .with("id", args.id.to_string())
        .with("kept", word)
        .with("number", number);
    if let Some(path) = path {
        report = report.with_path("path", &place.spelt(path));
    }
    workspace::close(workspace, false, &mut report);
    Ok(report)
}
