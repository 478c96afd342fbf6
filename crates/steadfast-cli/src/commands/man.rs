//! `man`: manual pages, generated from the definition of the command line.

use super::Done;
use crate::args::{Cli, ManArgs};
use crate::exit::TABLE;
use crate::failure::{FIELDS, Failure};
use crate::output::{Report, Text};
use crate::paths::path_values;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io;
use steadfast::Root;
use steadfast::publish::FileOptions;

/// Prints a page, or publishes every page as a file.
pub(crate) fn run(args: &ManArgs) -> Done {
    let mut definition = Cli::command();
    definition.build();
    let Some(dir) = &args.dir else {
        let command = match &args.page {
            None => Some(&definition),
            Some(name) => definition.find_subcommand(name),
        };
        let Some(command) = command else {
            let name = args.page.as_deref().unwrap_or_default();
            return Err(Failure::usage(format!("there is no command {name:?}")));
        };
        let page = render(command, &definition).map_err(|e| broken(&e))?;
        let json = String::from_utf8_lossy(&page).into_owned();
        let mut text = Text::default();
        text.push(page);
        return Ok(Report::answer(text).with("page", json));
    };
    let root = Root::open(dir).map_err(|e| Failure::of(e, &[]))?;
    let mut written = Vec::new();
    for command in pages(&definition) {
        let page = render(command, &definition).map_err(|e| broken(&e))?;
        let name = format!("{}.1", title(command));
        let shown = dir.join(&name);
        FileOptions::new()
            .write(&root, &name, &page)
            .map_err(|e| Failure::of(e.map_paths(|p| dir.join(p)), &[]))?;
        written.push(shown);
    }
    let count = written.len();
    Ok(Report::done([format!("wrote {count} pages to {dir:?}")])
        .with_path("dir", dir)
        .with("pages", path_values(&written)))
}

/// The commands that have a page.
fn pages(definition: &Command) -> impl Iterator<Item = &Command> {
    let verbs = definition.get_subcommands();
    std::iter::once(definition).chain(verbs.filter(|c| c.get_name() != "help"))
}

/// The name of a page: `steadfast-write` for `steadfast write`.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn render(command: &Command, whole: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(title(command))
        .source(format!("steadfast {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    page.extend(format!(".SH SYNOPSIS\n{}\n", escape(usage)).into_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let is_whole = command.get_name() == whole.get_name();
    if is_whole {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(example) = command.get_after_help() {
        let example = example.to_string();
        let lines = example.lines().skip(1).map(|l| l.trim_start());
        page.extend(b".SH EXAMPLE\n.nf\n");
        for line in lines {
            page.extend(format!("{}\n", escape(line)).into_bytes());
        }
        page.extend(b".fi\n");
    }
    page.extend(b".SH \"EXIT STATUS\"\n");
    for (code, meaning) in TABLE {
        page.extend(format!(".TP\n\\fB{code}\\fR\n{}\n", escape(meaning)).into_bytes());
    }
    if is_whole {
        page.extend(b".SH JSON\n");
        page.extend(
            b"With \\fB\\-\\-json\\fR a result is one object on stdout, with command, exit_code, the \
            command's own fields, and notes where something was not kept. A failure is one object on \
            stderr. For a path that is not UTF\\-8 there is a second field whose name ends with \
            _bytes_hex. The fields of a failure:\n",
        );
        for (field, meaning) in FIELDS {
            page.extend(format!(".TP\n\\fB{field}\\fR\n{}\n", escape(meaning)).into_bytes());
        }
    }
    page.extend(b".SH \"SEE ALSO\"\n");
    let names: Vec<_> = pages(whole)
        .filter(|c| c.get_name() != command.get_name())
        .map(|c| format!("\\fB{}\\fR(1)", escape(title(c))))
        .collect();
    page.extend(format!("{}\n", names.join(", ")).into_bytes());
    Ok(page)
}

/// Text that troff takes as it is.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.chars().next() {
        Some('.' | '\'') => format!("\\&{text}"),
        _ => text,
    }
}

fn broken(e: &io::Error) -> Failure {
    Failure::new(
        crate::exit::Exit::Failed,
        "io",
        format!("cannot render the page: {e}"),
    )
}
