//! `abandon`: a transaction that cannot be finished is given up, as far as it is not done.

use super::Done;
use super::workspace::Place;
use crate::args::AbandonArgs;
use crate::output::{Report, Text};
use crate::paths::path_value;
use serde_json::{Value, json};
use steadfast::workspace::{Abandon, AbandonedStep, abandon};

/// One transaction.
pub(crate) fn run(args: &AbandonArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let how = match args.drop {
        true => Abandon::Drop,
        false => Abandon::KeepOurs,
    };
    let gone = abandon(&place.root, args.number, how).map_err(|e| place.fail(e))?;
    let mut text = Text::default();
    text.push(format!("gave up {}\n", gone.number));
    for (title, steps) in [
        ("done, and stays", &gone.done),
        ("given up", &gone.given_up),
    ] {
        if !steps.is_empty() {
            text.push(format!("{title}:\n"));
        }
        for step in steps {
            text.push(format!("  {}\n", step.what));
        }
    }
    let conflicts: Vec<String> = gone.conflicts.iter().map(ToString::to_string).collect();
    if !conflicts.is_empty() {
        let list = conflicts.join(", ");
        text.push(format!(
            "what was to be there is kept: see steadfast status, resolve-conflict {list}\n"
        ));
    }
    let values = |steps: &[AbandonedStep]| -> Vec<Value> {
        let value =
            |s: &AbandonedStep| json!({"path": path_value(&place.spelt(&s.path)), "what": s.what});
        steps.iter().map(value).collect()
    };
    Ok(Report::answer(text)
        .with("number", gone.number)
        .with("label", gone.label.as_str())
        .with("done", values(&gone.done))
        .with("given_up", values(&gone.given_up))
        .with("conflicts", conflicts))
}
