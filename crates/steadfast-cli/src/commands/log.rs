//! `log`: the records of a workspace's logs.

use super::Done;
use super::times::rfc3339;
use super::workspace::Place;
use crate::args::LogArgs;
use crate::output::{Report, Text};
use crate::paths::path_values;
use serde_json::{Value, json};
use std::path::PathBuf;
use steadfast::workspace::{LogRecord, LogRecords, records};

/// Only looks.
pub(crate) fn run(args: &LogArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let logs = records(&place.root, args.log).map_err(|e| place.missing(e))?;
    let mut text = Text::default();
    for log in &logs {
        let state = if log.live { "in use" } else { "free" };
        text.push(format!("log {:08x} ({state})\n", log.writer));
        for record in &log.records {
            text.push(lines(record));
        }
        if log.records.is_empty() && log.error.is_none() {
            text.push("  no records\n");
        }
        if let Some(damage) = &log.damage {
            text.push(format!("  damaged: {damage}\n"));
        }
        if let Some(error) = &log.error {
            text.push(format!("  {error}\n"));
        }
    }
    let values: Vec<Value> = logs.iter().map(|log| value(log, &place)).collect();
    Ok(Report::answer(text).with("logs", values))
}

fn lines(record: &LogRecord) -> String {
    let mut text = format!("  {:>6}  {} {}", record.seq, record.kind, record.number);
    if let Some(time) = record.time {
        text.push_str(&format!("  {}", rfc3339(time)));
    }
    if !record.label.is_empty() {
        text.push_str(&format!("  {:?}", record.label));
    }
    text.push('\n');
    for step in &record.summary {
        text.push_str(&format!("          {step}\n"));
    }
    text
}

fn value(log: &LogRecords, place: &Place) -> Value {
    let records = log.records.iter().map(|record| {
        let paths: Vec<PathBuf> = record.paths.iter().map(|p| place.spelt(p)).collect();
        json!({
            "sequence": record.seq,
            "kind": record.kind,
            "number": record.number,
            "time": record.time.map(rfc3339),
            "label": record.label,
            "summary": record.summary,
            "paths": path_values(&paths),
            "damaged": record.damaged,
        })
    });
    let damage = log
        .damage
        .as_ref()
        .map(|d| json!({"segment": d.segment, "offset": d.offset, "problem": d.to_string()}));
    json!({
        "log": log.writer,
        "live": log.live,
        "records": records.collect::<Vec<_>>(),
        "damage": damage,
        "error": log.error.as_ref().map(ToString::to_string),
    })
}
