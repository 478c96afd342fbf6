//! `explain`: one transaction or section, step by step.

use super::Done;
use super::status::{section_head, section_value, transaction_head, transaction_value};
use super::workspace::Place;
use crate::args::{ExplainArgs, WorkspaceArg};
use crate::output::{Report, Text};
use crate::paths::path_value;
use serde_json::{Value, json};
use steadfast::workspace::{ExplainedStep, Now, explain};

/// Only looks.
pub(crate) fn run(args: &ExplainArgs) -> Done {
    explained(&args.workspace, args.number)
}

/// The same for `status`.
pub(super) fn explained(workspace: &WorkspaceArg, number: u64) -> Done {
    let place = Place::new(workspace)?;
    let found = explain(&place.root, number).map_err(|e| place.fail(e))?;
    let mut text = Text::default();
    if let Some(transaction) = &found.transaction {
        text.push(transaction_head(transaction, &place));
    }
    if let Some(section) = &found.section {
        text.push(section_head(section));
    }
    text.push(format!("{}\n", found.outlook));
    for step in &found.steps {
        let now = match step.now {
            Now::After => "done",
            Now::Before => "not yet done",
            Now::Between => "half done",
            Now::Theirs => "somebody else has changed it",
            Now::GivenUp => "given up",
            _ => "cannot be told",
        };
        let (what, would) = (&step.what, &step.would);
        text.push(format!(
            "  {what}\n    now: {now}; recovery would: {would}\n"
        ));
    }
    let steps: Vec<Value> = found.steps.iter().map(|s| step_value(s, &place)).collect();
    Ok(Report::answer(text)
        .with("number", found.number)
        .with("outlook", found.outlook.as_str())
        .with(
            "transaction",
            found
                .transaction
                .as_ref()
                .map(|t| transaction_value(t, &place)),
        )
        .with("section", found.section.as_ref().map(section_value))
        .with("steps", steps))
}

fn step_value(step: &ExplainedStep, place: &Place) -> Value {
    let now = match step.now {
        Now::After => "after",
        Now::Before => "before",
        Now::Between => "between",
        Now::Theirs => "theirs",
        Now::GivenUp => "given_up",
        _ => "unknown",
    };
    json!({
        "path": path_value(&place.spelt(&step.path)),
        "what": step.what,
        "now": now,
        "would": step.would,
    })
}
