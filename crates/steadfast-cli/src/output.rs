//! What the user sees: results and failures, as text or as one JSON object.

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::paths::insert_path;
use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};
use std::path::Path;

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
        if report.on_stderr {
            eprint(&String::from_utf8_lossy(&out));
            return report.exit;
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
        if self.json {
            eprint(&format!("{}\n", failure.object(Some(command))));
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

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// Stdout is somebody else's.
    pub(crate) on_stderr: bool,
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
            on_stderr: false,
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
            on_stderr: false,
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
