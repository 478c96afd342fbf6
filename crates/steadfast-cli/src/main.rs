//! The command `steadfast`: verbs over the library, which does all work on files.

mod args;
mod commands;
mod exit;
mod failure;
mod manifest;
mod output;
mod paths;
mod place;
mod progress;
mod signals;
mod stdin;

use args::{Cli, Command};
use clap::FromArgMatches;
use exit::Exit;
use failure::Failure;
use output::Ui;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "_hook")]
    steadfast::sys::hook::arm_from_env();
    // Whatever goes wrong inside, the user gets a sentence and a code, not a stack trace.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        output::eprint(&format!(
            "steadfast: internal error at {}; what was being changed may be done in part; \
             please report this\n",
            place.as_deref().unwrap_or("an unknown place")
        ));
    }));
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = commands::become_command(&args) {
        return ExitCode::from(code);
    }
    let exit = std::panic::catch_unwind(|| run(args));
    ExitCode::from(exit.unwrap_or(Exit::Indeterminate).code())
}

fn run(args: Vec<OsString>) -> Exit {
    let early = Early::of(&args);
    let parsed = args::definition()
        .color(early.color)
        .try_get_matches_from(args)
        .and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return early.refuse(&e),
    };
    let ui = Ui::new(&cli.global);
    let name = cli.command.name();
    let insist = !matches!(cli.command, Command::Run(_));
    let done = signals::install(insist)
        .map_err(|e| Failure::new(Exit::Failed, "io", format!("cannot watch for signals: {e}")))
        .and_then(|()| commands::run(cli.command, &ui));
    match done {
        Ok(report) => ui.success(name, &report),
        Err(failure) => ui.failure(name, &failure),
    }
}

/// What must be known about the output before the command line has been understood.
struct Early {
    json: bool,
    color: clap::ColorChoice,
    /// What a wrong command line gives: of `run` the low codes are the command's.
    wrong: Exit,
}

impl Early {
    fn of(args: &[OsString]) -> Self {
        let mut early = Self {
            json: false,
            color: clap::ColorChoice::Auto,
            wrong: Exit::Usage,
        };
        let mut verb = None;
        let mut words = args.iter().skip(1).map_while(|a| match a.to_str() {
            Some("--") => None,
            word => Some(word.unwrap_or_default()),
        });
        while let Some(word) = words.next() {
            let color = match word {
                "--json" => {
                    early.json = true;
                    continue;
                }
                "--color" => words.next(),
                _ if !word.starts_with('-') => {
                    verb.get_or_insert(word);
                    continue;
                }
                _ => word.strip_prefix("--color="),
            };
            match color {
                Some("always") => early.color = clap::ColorChoice::Always,
                Some("never") => early.color = clap::ColorChoice::Never,
                _ => {}
            }
        }
        if verb == Some("run") {
            early.wrong = Exit::Run;
        }
        early
    }

    /// Help and version are answers; everything else is a wrong command line.
    fn refuse(&self, error: &clap::Error) -> Exit {
        if !error.use_stderr() {
            return match error.print() {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
                _ => Exit::Ok,
            };
        }
        if self.json {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let lines = text.lines().map(str::trim).take_while(|l| !l.is_empty());
            let line = lines.collect::<Vec<_>>().join(" ");
            let mut failure = Failure::usage(line);
            failure.exit = self.wrong;
            let object = failure.object(None);
            output::eprint(&format!("{object}\n"));
        } else {
            // Nobody is left to tell if stderr is closed.
            let _ = error.print();
        }
        self.wrong
    }
}
