//! `run`: a command whose changes are kept if it succeeds, and put back if not.

mod child;

pub(crate) use child::become_command;

use super::Done;
use super::workspace::{self, Place};
use crate::args::RunArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Report;
use crate::paths::{count, path_values};
use crate::signals;
use child::Ended;
use std::io;
use std::path::Path;
use steadfast::workspace::{Section, WorkspaceOptions};

/// One protected section with the command in it.
pub(crate) fn run(args: &RunArgs) -> Done {
    // The codes below 125 are the command's own.
    protected(args).map_err(|mut failure| {
        if !matches!(failure.exit, Exit::Interrupted(_)) {
            failure.exit = Exit::Run;
        }
        failure
    })
}

fn protected(args: &RunArgs) -> Done {
    let place = Place::new(&args.workspace)?;
    let workspace = place.open(WorkspaceOptions::new().wait(args.wait.get()))?;
    let label = args.label.clone().unwrap_or_else(|| words(args));
    let mut section = workspace.section(&label).map_err(|e| place.fail(e))?;
    section.protect(&args.protect).map_err(|e| place.fail(e))?;
    let number = section.number();
    // What the command starts may outlive it and this process.
    let hold = section.hold().map_err(|e| place.fail(e))?;
    let ended = child::run(&args.command);
    drop(hold);
    let ended = match ended {
        Ok(Some(ended)) => ended,
        Ok(None) => {
            let signal = signals::pending().unwrap_or_default();
            back(section, &place)?;
            let command = Path::new(&args.command[0]);
            return Err(Failure::interrupted("run", command, signal));
        }
        Err(error) => {
            back(section, &place)?;
            return Err(cannot_watch(&error));
        }
    };
    let keep = ended.success() && ended.told.is_none();
    if keep {
        section.commit().map_err(|e| place.fail(e))?;
    } else {
        back(section, &place)?;
    }
    let what = count(args.protect.len() as u64, "path");
    let mut report = match keep {
        true => Report::done([format!("kept {what}: {}", outcome(&ended))]),
        false => Report::done([]),
    };
    if !keep {
        // Else nobody would know why nothing has changed.
        report
            .notes
            .push(format!("put back {what}: {}", outcome(&ended)));
    }
    let mut report = report
        .with("kept", keep)
        .with("number", number)
        .with("command_exit_code", ended.code())
        .with("command_signal", ended.signal())
        .with("protected", path_values(&args.protect));
    report.exit = exit(&ended);
    workspace::close(workspace, false, &mut report);
    // Stdout is the command's.
    report.on_stderr = true;
    Ok(report)
}

/// Puts everything back.
fn back(section: Section<'_>, place: &Place) -> Result<(), Failure> {
    section.rollback().map_err(|e| {
        let mut failure = place.fail(e);
        failure.advise("everything is still kept; steadfast recover tries again to put it back");
        failure
    })
}

/// The exit code: that of the command, but never 0 if its work was put back.
fn exit(ended: &Ended) -> Exit {
    match (ended.code(), ended.told) {
        (0, Some(signal)) => Exit::Interrupted(signal),
        (code, _) => Exit::Passed(code),
    }
}

fn outcome(ended: &Ended) -> String {
    let told = ended.told.map(signals::name);
    match (ended.signal(), ended.code(), told) {
        (Some(n), _, _) => format!("the command was ended by signal {n}"),
        (None, 0, Some(name)) => format!("the command succeeded, but {name} asked to stop"),
        (None, code, _) => format!("the command gave {code}"),
    }
}

/// The command line as a label.
fn words(args: &RunArgs) -> String {
    let words = args.command.iter().map(|word| word.to_string_lossy());
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect()
}

fn cannot_watch(error: &io::Error) -> Failure {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    Failure::new(
        Exit::Run,
        "io",
        format!("cannot start a command under watch: {words}"),
    )
}
