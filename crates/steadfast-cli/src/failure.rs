//! Why a command failed: the exit code, a sentence for a person, fields for a program.

use crate::exit::Exit;
use crate::paths::{insert_path, path_value};
use crate::place::Place;
use crate::signals;
use serde_json::{Map, Value};
use std::path::Path;
use steadfast::sys::errno_name;
use steadfast::{DiskState, Error, ErrorKind};

/// The fields of the JSON object of a failure, for the manual page.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("command", "the command, null if that was not understood"),
    ("error", "one sentence"),
    ("exit_code", "the exit status"),
    (
        "kind",
        "what kind of failure it is, such as not_found, already_exists or usage",
    ),
    (
        "disk_state",
        "unchanged, published (visible, but perhaps not durable), committed (recorded, recovery finishes \
            it) or indeterminate",
    ),
    ("operation", "what was tried"),
    ("path", "the path that it is about, in the user's spelling"),
    ("other_path", "the second path, where there is one"),
    ("system_call", "the call that failed"),
    ("errno", "its answer by name, such as ENOSPC"),
    ("errno_number", "its answer by number"),
    ("advice", "what to do next, where that is known"),
    ("left_behind", "temporaries that could not be removed"),
    ("signal", "the signal that stopped the work"),
    (
        "manifest",
        "of apply: problem, line, column, operation or condition (by number) and field of the manifest",
    ),
    (
        "failures",
        "of several paths, an object for each that failed",
    ),
    ("done", "of several paths, those that were done"),
];

/// Those of [`FIELDS`] that are not always there.
const OPTIONAL: &[&str] = &["other_path", "signal", "manifest", "failures", "done"];

/// Why a command failed, for a person and for a program.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// One sentence.
    pub(crate) message: String,
    /// Label and text of further lines for a person.
    pub(crate) hints: Vec<(&'static str, String)>,
    /// Fields for a program.
    pub(crate) json: Map<String, Value>,
}

impl Failure {
    /// Without a system call behind it.
    pub(crate) fn new(exit: Exit, kind: &str, message: impl Into<String>) -> Self {
        let mut json = Map::new();
        json.insert("kind".into(), kind.into());
        json.insert("disk_state".into(), "unchanged".into());
        Self {
            exit,
            message: message.into(),
            hints: Vec::new(),
            json,
        }
    }

    /// The JSON object, with every field that a failure can have.
    pub(crate) fn object(&self, command: Option<&str>) -> Value {
        let mut object = self.json.clone();
        object.insert("command".into(), command.into());
        object.insert("error".into(), self.message.clone().into());
        object.insert("exit_code".into(), self.exit.code().into());
        for (field, _) in FIELDS {
            if !OPTIONAL.contains(field) {
                let none = match *field {
                    "left_behind" => Value::Array(Vec::new()),
                    _ => Value::Null,
                };
                object.entry(*field).or_insert(none);
            }
        }
        object.into()
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// An error of the library about these operands, in the user's spelling and order. What is left behind
    /// lies beside the last.
    pub(crate) fn of(error: Error, places: &[&Place]) -> Self {
        let error = respell(error, places);
        let signal = signals::pending();
        let exit = Exit::of(&error, signal);
        let state = format!("; {}", error.disk_state());
        let full = error.to_string();
        let stopped = signal.filter(|_| stoppable(error.kind()));
        let message = match (stopped, full.split_once(&state)) {
            (Some(n), _) => {
                let path = error.path().map(|p| format!(" {p:?}")).unwrap_or_default();
                let name = signals::name(n);
                format!("cannot {}{path}: interrupted by {name}", error.operation())
            }
            (None, Some((message, _))) => with_sources(message, &error),
            (None, None) => with_sources(&full, &error),
        };
        let mut hints = vec![("state", error.disk_state().to_string())];
        for path in error.left_behind() {
            hints.push((
                "left behind",
                format!("{path:?} (steadfast sweep removes it)"),
            ));
        }
        if let Some(advice) = error.advice() {
            hints.push(("advice", advice.to_owned()));
        }
        let mut json = Map::new();
        json.insert("operation".into(), error.operation().into());
        json.insert("kind".into(), kind_name(error.kind()).into());
        json.insert("disk_state".into(), error.disk_state().as_str().into());
        json.insert("system_call".into(), error.system_call().into());
        json.insert("errno".into(), error.errno().and_then(errno_name).into());
        json.insert("errno_number".into(), error.raw_os_error().into());
        json.insert("advice".into(), error.advice().into());
        let left: Vec<Value> = error.left_behind().iter().map(|p| path_value(p)).collect();
        json.insert("left_behind".into(), left.into());
        if let Some(path) = error.path() {
            insert_path(&mut json, "path", path);
        }
        if let Some(path) = error.other_path() {
            insert_path(&mut json, "other_path", path);
        }
        if let Some(n) = stopped {
            json.insert("signal".into(), signals::name(n).into());
        }
        Self {
            exit,
            message,
            hints,
            json,
        }
    }

    /// A failure after the change had become visible, such as of the sync that follows it.
    pub(crate) fn published(error: Error, places: &[&Place]) -> Self {
        let mut failure = Self::of(error, places);
        failure.exit = Exit::Published;
        failure.set_state(DiskState::Published, &DiskState::Published.to_string());
        failure
    }

    /// What the disk looks like, where the command knows more than the call that failed.
    pub(crate) fn set_state(&mut self, state: DiskState, words: &str) {
        self.json.insert("disk_state".into(), state.as_str().into());
        self.hints.retain(|(label, _)| *label != "state");
        self.hints.insert(0, ("state", words.to_owned()));
    }

    /// In words that the user knows, what was tried.
    pub(crate) fn about(mut self, operation: &str) -> Self {
        if let Some(Value::String(old)) = self.json.insert("operation".into(), operation.into()) {
            self.message = self.message.replacen(&old, operation, 1);
        }
        self
    }

    /// What to do next, where the library cannot know.
    pub(crate) fn advise(&mut self, advice: &str) {
        self.json.insert("advice".into(), advice.into());
        self.hints.push(("advice", advice.to_owned()));
    }

    /// A signal came before this path's turn.
    pub(crate) fn interrupted(verb: &str, path: &Path, signal: u8) -> Self {
        let name = signals::name(signal);
        let message = format!("cannot {verb} {path:?}: interrupted by {name}");
        let mut failure = Self::new(Exit::Interrupted(signal), "cancelled", message);
        insert_path(&mut failure.json, "path", path);
        failure.json.insert("signal".into(), name.into());
        failure
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.json.get("kind") == Some(&kind_name(kind).into())
    }

    /// Of several paths, some failed: the first of the worst failures speaks and decides the exit code, and
    /// what was done is not forgotten.
    pub(crate) fn several(mut failures: Vec<Self>, done: &[&Path]) -> Option<Self> {
        let count = failures.len();
        let parts: Vec<Value> = failures
            .iter()
            .map(|f| {
                let mut object = f.json.clone();
                object.insert("error".into(), f.message.clone().into());
                object.into()
            })
            .collect();
        let exit = failures
            .iter()
            .fold(Exit::Ok, |worst, f| worst.worse(f.exit));
        let speaker = failures.iter().position(|f| f.exit == exit)?;
        let mut first = failures.remove(speaker);
        for other in failures {
            first.hints.push(("also", other.message));
        }
        if count > 1 || !done.is_empty() {
            let done: Vec<Value> = done.iter().map(|p| path_value(p)).collect();
            first
                .hints
                .push(("in all", format!("{} done, {count} failed", done.len())));
            first.json.insert("failures".into(), parts.into());
            first.json.insert("done".into(), done.into());
        }
        Some(first)
    }
}

/// Whether an error of this kind is what a signal makes of the work.
pub(crate) fn stoppable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Cancelled | ErrorKind::Source)
}

/// A text, and after it the texts of what the error came from.
fn with_sources(text: &str, error: &dyn std::error::Error) -> String {
    let mut text = text.to_owned();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

/// Puts the user's spelling in the place of paths beneath a root.
fn respell(error: Error, places: &[&Place]) -> Error {
    let mut position = 0;
    error.map_paths(|path| {
        position += 1;
        let known = |place: &&Place| {
            let rest = path.strip_prefix(&place.path).ok()?;
            let whole = rest.as_os_str().is_empty();
            Some(if whole {
                place.given.clone()
            } else {
                place.given.join(rest)
            })
        };
        // Two directories may hold the same name: the second path of an error is the last operand.
        let found = if position == 2 {
            places.iter().rev().find_map(known)
        } else {
            places.iter().find_map(known)
        };
        match (found, places.last()) {
            (Some(path), _) => path,
            (None, Some(place)) if path.is_relative() => place.prefix.join(path),
            _ => path.to_path_buf(),
        }
    })
}

/// `NotFound` as `not_found`.
pub(crate) fn kind_name(kind: ErrorKind) -> String {
    let mut out = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
