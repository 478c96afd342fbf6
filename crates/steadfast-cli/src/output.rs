//! What the user sees: results and failures, as text or as one JSON object.

use crate::args::Global;
use crate::exit::Exit;
use crate::place::Place;
use crate::signals;
use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use steadfast::sys::errno_name;
use steadfast::{DiskState, Error, ErrorKind};

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    pub(crate) json: bool,
    pub(crate) verbose: bool,
    pub(crate) quiet: bool,
    color: ColorChoice,
}

impl Ui {
    /// As the global options say.
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            json: global.json,
            verbose: global.verbose > 0,
            quiet: global.quiet,
            color: global.color,
        }
    }

    /// Whether to draw progress: on a terminal, for a person.
    pub(crate) fn progress(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Prints a result. A reader that has gone away is nobody's error; the change was made all the same.
    pub(crate) fn success(&self, command: &str, report: &Report) -> Exit {
        let mut out = Vec::new();
        if self.json {
            let mut object = report.json.clone();
            object.insert("command".into(), command.into());
            object.insert("exit_code".into(), report.exit.code().into());
            if !report.notes.is_empty() {
                object.insert("notes".into(), report.notes.clone().into());
            }
            out.extend(Value::Object(object).to_string().into_bytes());
            out.push(b'\n');
        } else {
            if !self.quiet || report.is_answer {
                out.extend_from_slice(&report.text.render(self.colored(&io::stdout())));
            }
            if self.verbose {
                for line in &report.details {
                    out.extend_from_slice(line.as_bytes());
                    out.push(b'\n');
                }
            }
            if !self.quiet {
                for note in &report.notes {
                    self.warn(note);
                }
            }
        }
        match write_all(&out) {
            Ok(()) => report.exit,
            Err(e) => {
                self.warn(&format!("cannot write the result to stdout: {e}"));
                // The answer was the whole job; a change stays made.
                if report.is_answer {
                    Exit::Failed
                } else {
                    report.exit
                }
            }
        }
    }

    /// Prints a failure on stderr.
    pub(crate) fn failure(&self, command: &str, failure: &Failure) -> Exit {
        let code = failure.exit.code();
        if self.json {
            let mut object = failure.json.clone();
            object.insert("command".into(), command.into());
            object.insert("error".into(), failure.message.clone().into());
            object.insert("exit_code".into(), code.into());
            eprint(&format!("{}\n", Value::Object(object)));
            return failure.exit;
        }
        let red = self.style(&io::stderr(), AnsiColor::Red);
        let (start, end) = (red.render(), red.render_reset());
        let mut text = format!("{start}steadfast:{end} {}\n", failure.message);
        for (label, line) in &failure.hints {
            text.push_str(&format!("  {label}: {line}\n"));
        }
        eprint(&text);
        failure.exit
    }

    /// A remark on stderr that is not a failure.
    pub(crate) fn warn(&self, text: &str) {
        let yellow = self.style(&io::stderr(), AnsiColor::Yellow);
        let (start, end) = (yellow.render(), yellow.render_reset());
        eprint(&format!("{start}steadfast: note:{end} {text}\n"));
    }

    fn colored(&self, stream: &impl IsTerminal) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let off = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
                stream.is_terminal() && !off && !dumb
            }
        }
    }

    fn style(&self, stream: &impl IsTerminal, color: AnsiColor) -> Style {
        if self.colored(stream) {
            color.on_default().bold()
        } else {
            Style::new()
        }
    }
}

/// Text for stdout: bytes as they are, and words in a colour.
#[derive(Debug, Default)]
pub(crate) struct Text(Vec<(Vec<u8>, Option<AnsiColor>)>);

impl Text {
    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: impl Into<Vec<u8>>) {
        self.0.push((bytes.into(), None));
    }

    /// Adds a word in a colour.
    pub(crate) fn push_colored(&mut self, word: impl Into<Vec<u8>>, color: AnsiColor) {
        self.0.push((word.into(), Some(color)));
    }

    fn render(&self, colored: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for (bytes, color) in &self.0 {
            match color {
                Some(color) if colored => {
                    let style = color.on_default();
                    out.extend(style.render().to_string().into_bytes());
                    out.extend(bytes);
                    out.extend(style.render_reset().to_string().into_bytes());
                }
                _ => out.extend(bytes),
            }
        }
        out
    }
}

/// What a command that did its work has to say.
#[derive(Debug)]
pub(crate) struct Report {
    /// For stdout, without `--json`.
    pub(crate) text: Text,
    /// The text is what was asked for, not a confirmation: `--quiet` does not silence it.
    pub(crate) is_answer: bool,
    /// Lines for `--verbose`.
    pub(crate) details: Vec<String>,
    /// What fell back or was not kept.
    pub(crate) notes: Vec<String>,
    /// With `--json`.
    pub(crate) json: Map<String, Value>,
    /// Almost always [`Exit::Ok`].
    pub(crate) exit: Exit,
}

impl Report {
    /// A confirmation, which is silent without `--verbose`.
    pub(crate) fn done(details: impl IntoIterator<Item = String>) -> Self {
        Self {
            text: Text::default(),
            is_answer: false,
            details: details.into_iter().collect(),
            notes: Vec::new(),
            json: Map::new(),
            exit: Exit::Ok,
        }
    }

    /// An answer.
    pub(crate) fn answer(text: Text) -> Self {
        Self {
            text,
            is_answer: true,
            details: Vec::new(),
            notes: Vec::new(),
            json: Map::new(),
            exit: Exit::Ok,
        }
    }

    /// Adds a field of the JSON object.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.json.insert(key.into(), value.into());
        self
    }

    /// Adds a path to the JSON object.
    pub(crate) fn with_path(mut self, key: &str, path: &Path) -> Self {
        insert_path(&mut self.json, key, path);
        self
    }
}

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

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// An error of the library about these places, in the user's spelling.
    pub(crate) fn of(error: Error, places: &[&Place]) -> Self {
        let error = respell(error, places);
        let signal = signals::pending();
        let exit = Exit::of(&error, signal);
        let state = format!("; {}", error.disk_state());
        let full = error.to_string();
        let message = match (exit, full.split_once(&state)) {
            (Exit::Interrupted(n), _) => {
                format!(
                    "cannot {}: interrupted by {}",
                    error.operation(),
                    signals::name(n)
                )
            }
            (_, Some((message, _))) => message.to_owned(),
            (_, None) => full,
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
        if let Exit::Interrupted(n) = exit {
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
    pub(crate) fn published(error: Error) -> Self {
        let mut failure = Self::of(error, &[]);
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

    /// Of several paths, some failed: the first failure speaks, the worst decides the exit code, and what
    /// was done is not forgotten.
    pub(crate) fn several(failures: Vec<Self>, done: &[&Path]) -> Option<Self> {
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
        let mut failures = failures.into_iter();
        let mut first = failures.next()?;
        for other in failures {
            first.hints.push(("also", other.message));
        }
        first.exit = exit;
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

/// Puts the user's spelling in the place of paths beneath a root. The first place is the one that a
/// temporary name lies beside.
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
        match (found, places.first()) {
            (Some(path), _) => path,
            (None, Some(place)) if path.is_relative() => place.prefix.join(path),
            _ => path.to_path_buf(),
        }
    })
}

/// A path as a JSON string where it is UTF-8, else an object with the lossy text and all bytes in hex.
pub(crate) fn path_value(path: &Path) -> Value {
    match path.to_str() {
        Some(text) => text.into(),
        None => json!({"path": path.to_string_lossy(), "path_bytes_hex": hex(path)}),
    }
}

/// A path under `key`; beside it `key_bytes_hex` where it is not UTF-8.
pub(crate) fn insert_path(object: &mut Map<String, Value>, key: &str, path: &Path) {
    object.insert(key.into(), path.to_string_lossy().into());
    if path.to_str().is_none() {
        object.insert(format!("{key}_bytes_hex"), hex(path).into());
    }
}

fn hex(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `NotFound` as `not_found`.
fn kind_name(kind: ErrorKind) -> String {
    let mut out = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A path for a line of text: as it is, or quoted and escaped where that could mislead.
pub(crate) fn shown(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.is_empty() && !text.chars().any(needs_quotes) => text.to_owned(),
        _ => format!("{path:?}"),
    }
}

/// A number of things.
pub(crate) fn count(n: u64, thing: &str) -> String {
    match (n, thing.strip_suffix('y')) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{n} {stem}ies"),
        _ => format!("{n} {thing}s"),
    }
}

fn needs_quotes(c: char) -> bool {
    c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\')
}

/// Paths for the JSON object.
pub(crate) fn path_values<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Value> {
    paths.into_iter().map(|p| path_value(p)).collect()
}

/// Writes to stdout; a closed pipe is no error.
pub(crate) fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Writes to stderr. Nobody is left to tell if that fails.
pub(crate) fn eprint(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
