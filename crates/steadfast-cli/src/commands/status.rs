//! `status`: what is open in a workspace, and what is wrong with it.

use super::times::rfc3339;
use super::workspace::{Place, conflict_lines, conflict_value};
use super::{Done, explain};
use crate::args::StatusArgs;
use crate::output::{Report, Text};
use crate::paths::{count, path_value, path_values, shown};
use clap::builder::styling::AnsiColor;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use steadfast::lease::{LeaseInfo, LeaseState};
use steadfast::workspace::{
    FolderStatus, SectionStatus, Status, TransactionState, TransactionStatus, WriterStatus, status,
};

/// Paths on a line; the rest are counted.
const ON_A_LINE: usize = 4;

/// Only looks.
pub(crate) fn run(args: &StatusArgs) -> Done {
    if let Some(number) = args.number {
        return explain::explained(&args.workspace, number);
    }
    let place = Place::new(&args.workspace)?;
    let status = status(&place.root).map_err(|e| place.missing(e))?;
    let mut text = Text::default();
    write(&status, &place, &mut text);
    let problems = status.problems.iter().map(|p| {
        json!({
            "kind": crate::failure::kind_name(p.kind),
            "path": path_value(&place.spelt(&p.path)),
            "problem": p.what,
        })
    });
    let transactions = status.transactions.iter();
    let conflicts = status.conflicts.iter();
    Ok(Report::answer(text)
        .with("id", status.id.map(hex))
        .with("format", status.version)
        .with("copy", status.copy)
        .with("horizon", status.horizon)
        .with("last_number", status.last)
        .with("problems", problems.collect::<Vec<_>>())
        .with(
            "transactions",
            transactions
                .map(|t| transaction_value(t, &place))
                .collect::<Vec<_>>(),
        )
        .with(
            "sections",
            status
                .sections
                .iter()
                .map(section_value)
                .collect::<Vec<_>>(),
        )
        .with(
            "conflicts",
            conflicts
                .map(|c| conflict_value(c, &place))
                .collect::<Vec<_>>(),
        )
        .with(
            "writers",
            status.writers.iter().map(writer_value).collect::<Vec<_>>(),
        )
        .with(
            "private",
            status
                .private
                .iter()
                .map(|f| folder_value(f, &place))
                .collect::<Vec<_>>(),
        )
        .with(
            "leases",
            status.leases.iter().map(lease_value).collect::<Vec<_>>(),
        ))
}

fn write(status: &Status, place: &Place, text: &mut Text) {
    let name = shown(&place.spelt(Path::new(".steadfast")));
    let id = status.id.map_or_else(|| "unknown".to_owned(), hex);
    let format = status
        .version
        .map_or("unknown".to_owned(), |v| v.to_string());
    text.push(format!("workspace {name}, id {id}, format {format}\n"));
    if status.copy {
        text.push("it was copied from elsewhere; the next open makes it a workspace of its own\n");
    }
    for problem in &status.problems {
        text.push_colored("problem", AnsiColor::Red);
        let path = shown(&place.spelt(&problem.path));
        text.push(format!(" {path}: {}\n", problem.what));
    }
    // What is in place and waits for a checkpoint is nobody's concern.
    let open = |t: &&TransactionStatus| t.state != TransactionState::Done;
    for transaction in status.transactions.iter().filter(open) {
        text.push(transaction_line(transaction, place));
    }
    for section in &status.sections {
        text.push(section_line(section));
    }
    if !status.conflicts.is_empty() {
        text.push(conflict_lines(&status.conflicts, place));
    }
    let done = status.transactions.iter().filter(|t| !open(t)).count();
    if done > 0 {
        let what = count(done as u64, "transaction");
        text.push(format!(
            "{what} in place, until the next checkpoint in the log too\n"
        ));
    }
    for writer in &status.writers {
        text.push(writer_line(writer));
    }
    for folder in status
        .private
        .iter()
        .filter(|f| f.owned + f.litter + f.others > 0)
    {
        text.push(folder_line(folder, place));
    }
    for lease in &status.leases {
        text.push(lease_line(lease));
    }
    let quiet = status.problems.is_empty() && status.sections.is_empty();
    if quiet && status.conflicts.is_empty() && done == status.transactions.len() {
        text.push("nothing is open\n");
    }
}

/// A transaction on one line.
pub(super) fn transaction_line(t: &TransactionStatus, place: &Place) -> String {
    let state = match t.state {
        TransactionState::InProgress => "about to be committed",
        TransactionState::Pending => "committed, being put in place",
        TransactionState::Done => "committed and in place",
        TransactionState::Dead => "committed, its process died: the next open finishes it",
        TransactionState::Lost => "its process died before it was committed: it never was",
        TransactionState::Abandoned => "given up",
        _ => "in another state",
    };
    transaction_words(t, place, &format!(": {state}"))
}

/// One without its state, for where that is told at length.
pub(super) fn transaction_head(t: &TransactionStatus, place: &Place) -> String {
    transaction_words(t, place, "")
}

fn transaction_words(t: &TransactionStatus, place: &Place, state: &str) -> String {
    let (number, label) = (t.number, quoted(&t.label));
    let mut line = format!("transaction {number}{label}{state}");
    if let Some(time) = t.time {
        line.push_str(&format!(", {}", rfc3339(time)));
    }
    let mut paths: Vec<_> = t.paths.iter().map(|p| shown(&place.spelt(p))).collect();
    let more = paths.len().saturating_sub(ON_A_LINE);
    paths.truncate(ON_A_LINE);
    if more > 0 {
        paths.push(format!("and {more} more"));
    }
    if !paths.is_empty() {
        line.push_str(&format!("; {}", paths.join(", ")));
    }
    line.push('\n');
    line
}

/// A transaction for a program.
pub(super) fn transaction_value(t: &TransactionStatus, place: &Place) -> Value {
    let state = match t.state {
        TransactionState::InProgress => "in_progress",
        TransactionState::Pending => "pending",
        TransactionState::Done => "done",
        TransactionState::Dead => "dead",
        TransactionState::Lost => "lost",
        TransactionState::Abandoned => "abandoned",
        _ => "other",
    };
    let paths: Vec<PathBuf> = t.paths.iter().map(|p| place.spelt(p)).collect();
    json!({
        "number": t.number,
        "label": t.label,
        "state": state,
        "time": t.time.map(rfc3339),
        "writer": t.writer,
        "paths": path_values(&paths),
    })
}

/// A section on one line.
pub(super) fn section_line(s: &SectionStatus) -> String {
    let state = match s.live {
        true => "open",
        false => "its process died: the next open takes it back",
    };
    section_words(s, &format!(": {state}"))
}

/// One without its state, for where that is told at length.
pub(super) fn section_head(s: &SectionStatus) -> String {
    section_words(s, "")
}

fn section_words(s: &SectionStatus, state: &str) -> String {
    let mut line = format!("section {}{}{state}", s.number, quoted(&s.label));
    if let Some(time) = s.time {
        line.push_str(&format!(", since {}", rfc3339(time)));
    }
    if let Some(phase) = &s.phase {
        line.push_str(&format!("; last phase {phase:?}"));
    }
    line.push('\n');
    line
}

/// A section for a program.
pub(super) fn section_value(s: &SectionStatus) -> Value {
    json!({
        "number": s.number,
        "label": s.label,
        "live": s.live,
        "time": s.time.map(rfc3339),
        "phase": s.phase,
        "writer": s.writer,
    })
}

fn writer_line(w: &WriterStatus) -> String {
    let state = if w.live { "in use" } else { "free" };
    let (records, bytes) = (count(w.records, "record"), count(w.bytes, "byte"));
    let damage = match &w.damage {
        Some(damage) => format!("; damaged: {damage}"),
        None => String::new(),
    };
    format!("log {:08x}: {state}, {records}, {bytes}{damage}\n", w.index)
}

fn writer_value(w: &WriterStatus) -> Value {
    let damage = w
        .damage
        .as_ref()
        .map(|d| json!({"segment": d.segment, "offset": d.offset, "problem": d.to_string()}));
    json!({
        "log": w.index,
        "live": w.live,
        "records": w.records,
        "bytes": w.bytes,
        "damage": damage,
    })
}

fn folder_line(f: &FolderStatus, place: &Place) -> String {
    let parts = [
        (f.owned, format!("{} in use", f.owned)),
        (
            f.litter,
            format!(
                "{} left behind ({})",
                f.litter,
                count(f.litter_bytes, "byte")
            ),
        ),
        (f.others, format!("{} set aside", f.others)),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(_, t)| t)
        .collect();
    format!("{}: {}\n", shown(&place.spelt(&f.path)), parts.join(", "))
}

fn folder_value(f: &FolderStatus, place: &Place) -> Value {
    json!({
        "path": path_value(&place.spelt(&f.path)),
        "owned": f.owned,
        "owned_bytes": f.owned_bytes,
        "litter": f.litter,
        "litter_bytes": f.litter_bytes,
        "others": f.others,
    })
}

fn lease_state(lease: &LeaseInfo) -> &'static str {
    match lease.state() {
        LeaseState::Live => "live",
        LeaseState::Free => "free",
        LeaseState::Unknown => "unknown",
        LeaseState::Damaged => "damaged",
        _ => "other",
    }
}

fn lease_line(lease: &LeaseInfo) -> String {
    let name = String::from_utf8_lossy(lease.name());
    format!("lease {name:?}: {}\n", lease_state(lease))
}

fn lease_value(lease: &LeaseInfo) -> Value {
    json!({
        "name": String::from_utf8_lossy(lease.name()),
        "state": lease_state(lease),
        "fence": lease.fence().map(|f| f.get()),
    })
}

fn quoted(label: &str) -> String {
    match label {
        "" => String::new(),
        label => format!(" {label:?}"),
    }
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}
