//! `completions`: a script for a shell, generated from the definition of the command line.

use crate::args::{CompletionsArgs, definition};
use crate::output::{Report, Text};

/// The script is the answer.
pub(crate) fn run(args: &CompletionsArgs) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "steadfast", &mut script);
    let json = String::from_utf8_lossy(&script).into_owned();
    let mut text = Text::default();
    text.push(script);
    Report::answer(text)
        .with("shell", args.shell.to_string())
        .with("script", json)
}
