//! `repair`: a damaged workspace becomes one that can be opened, and what that costs is said.

use super::Done;
use super::workspace::Place;
use crate::args::RepairArgs;
use crate::output::{Report, Text};
use crate::paths::{count, path_values, shown};
use serde_json::{Value, json};
use std::path::PathBuf;
use steadfast::workspace::{Repaired, repair};

/// One repair.
pub(crate) fn run(args: &RepairArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let done = repair(&place.root).map_err(|e| place.missing(e))?;
    let mut text = Text::default();
    if done.is_empty() {
        text.push("nothing is damaged\n");
    }
    write(&done, &place, &mut text);
    let spelt = |paths: &[PathBuf]| -> Vec<Value> {
        let paths: Vec<_> = paths.iter().map(|p| place.spelt(p)).collect();
        path_values(&paths)
    };
    let logs = done.logs.iter().map(|log| {
        json!({
            "log": log.index,
            "segment": log.damage.segment,
            "offset": log.damage.offset,
            "problem": log.damage.to_string(),
            "kept_up_to": log.last,
            "given_up": log.given_up,
            "unreadable": log.unreadable,
        })
    });
    let ledger = done
        .ledger
        .map(|l| json!({"horizon": l.horizon, "last_number": l.last}));
    Ok(Report::answer(text)
        .with("format", done.format)
        .with("folders", spelt(&done.folders))
        .with("ledger", ledger)
        .with("logs", logs.collect::<Vec<_>>())
        .with("unreadable", done.unreadable.clone())
        .with("notes_set_aside", spelt(&done.notes))
        .with("set_aside", spelt(&done.set_aside)))
}

fn write(done: &Repaired, place: &Place, text: &mut Text) {
    if done.format {
        text.push("wrote the workspace's format file anew, with a new id\n");
    }
    for folder in &done.folders {
        text.push(format!("made {}\n", shown(&place.spelt(folder))));
    }
    if let Some(ledger) = &done.ledger {
        let horizon = ledger.horizon;
        text.push(format!(
            "rebuilt the ledger: what is above transaction {horizon} is looked at again\n"
        ));
    }
    for log in &done.logs {
        text.push(format!("log {:08x}: {}\n", log.index, log.damage));
        text.push(format!("  kept the records up to {}\n", log.last));
        if !log.given_up.is_empty() {
            text.push(format!("  gave up {}\n", numbers(&log.given_up)));
        }
        if log.unreadable > 0 {
            text.push(format!(
                "  {} cannot be read\n",
                count(log.unreadable, "record")
            ));
        }
    }
    if !done.unreadable.is_empty() {
        text.push(format!(
            "gave up {}: unreadable\n",
            numbers(&done.unreadable)
        ));
    }
    for path in done.notes.iter().chain(&done.set_aside) {
        text.push(format!("set aside {}\n", shown(&place.spelt(path))));
    }
}

fn numbers(all: &[u64]) -> String {
    let what = match all.len() {
        1 => "transaction",
        _ => "transactions",
    };
    let list: Vec<_> = all.iter().map(u64::to_string).collect();
    format!("{what} {}", list.join(", "))
}
