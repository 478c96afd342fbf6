//! What the commands on a workspace share: opening it, its errors in the user's spelling, leaving it.

use crate::args::WorkspaceArg;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Report;
use crate::paths::{count, path_value, shown};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use steadfast::sys::Errno;
use steadfast::workspace::{Conflict, Ours, Theirs, Workspace, WorkspaceOptions};
use steadfast::{Error, ErrorKind, Root};

/// A directory with, perhaps, a workspace.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: Root,
    dir: PathBuf,
}

impl Place {
    /// Opens the directory.
    pub(super) fn new(arg: &WorkspaceArg) -> Result<Self, Failure> {
        Self::at(&arg.root)
    }

    /// Opens this directory.
    pub(super) fn at(dir: &Path) -> Result<Self, Failure> {
        let root = Root::open(dir).map_err(|e| Failure::of(e, &[]))?;
        let dir = dir.to_path_buf();
        Ok(Self { root, dir })
    }

    /// Opens the workspace.
    pub(super) fn open(&self, options: WorkspaceOptions) -> Result<Workspace, Failure> {
        options.open(&self.root).map_err(|e| self.missing(e))
    }

    /// An error of opening, which may be that there is no workspace.
    pub(super) fn missing(&self, error: Error) -> Failure {
        let none = error.kind() == ErrorKind::NotFound;
        let closed = error.errno() == Some(Errno::ACCESS);
        let new = error.system_call() == Some("mkdirat");
        let mut failure = self.fail(error);
        if none {
            // The library's own is for programs.
            failure.hints.retain(|(label, _)| *label != "advice");
            failure.advise("there is no workspace here; steadfast apply makes one");
        } else if closed && new {
            failure.advise("needed: write and search permission on the directory");
        } else if closed {
            failure.advise(
                "a workspace is for the user who made it: do this as the owner of .steadfast",
            );
        }
        failure
    }

    /// An error of the library, with its paths as the user would write them.
    pub(super) fn fail(&self, error: Error) -> Failure {
        Failure::of(error.map_paths(|path| self.spelt(path)), &[])
    }

    /// A path beneath the root as the user would write it.
    pub(super) fn spelt(&self, path: &Path) -> PathBuf {
        match (self.dir == Path::new("."), path.is_relative()) {
            (false, true) => self.dir.join(path),
            _ => path.to_path_buf(),
        }
    }
}

/// Closes a workspace; with `settle` it is checkpointed even if little has been written. What was
/// committed is durable whatever comes of that.
pub(super) fn close(workspace: Workspace, settle: bool, report: &mut Report) {
    let settled = match settle {
        true => workspace.settle().and_then(|()| workspace.close()),
        false => workspace.close(),
    };
    let Err(error) = settled else {
        return;
    };
    let error = error.to_string();
    report.notes.push(format!(
        "the next open has to go on from the log, which could not be closed: {error}"
    ));
    if settle {
        report.exit = Exit::Committed;
    }
}

/// Conflicts for a person, and what to do about them.
pub(super) fn conflict_lines(conflicts: &[Conflict], place: &Place) -> String {
    let mut text = format!("{}:\n", count(conflicts.len() as u64, "conflict"));
    for conflict in conflicts {
        text.push_str(&format!("  {}\n", conflict_line(conflict, place)));
    }
    // One conflict has a line that can be copied.
    let id = match conflicts {
        [one] => one.id().to_string(),
        _ => "ID".to_owned(),
    };
    text.push_str(&format!(
        "choose: steadfast resolve-conflict {id} (--theirs | --ours | --aside PATH)\n"
    ));
    text
}

/// A conflict on one line.
fn conflict_line(conflict: &Conflict, place: &Place) -> String {
    let theirs = match conflict.theirs() {
        Theirs::Nothing => "was removed".to_owned(),
        Theirs::File(len) => format!("is a file of {} now", count(len, "byte")),
        Theirs::Dir => "is a folder now".to_owned(),
        Theirs::Symlink => "is a symlink now".to_owned(),
        _ => "is something else now".to_owned(),
    };
    let ours = match conflict.ours() {
        Ours::Kept(path) => format!("ours is kept in {}", shown(&place.spelt(&path))),
        Ours::Nothing => "ours is to remove it".to_owned(),
        Ours::Change => "ours is to change it".to_owned(),
        _ => "ours is something else".to_owned(),
    };
    let path = shown(&place.spelt(conflict.path()));
    format!("{}  {path} {theirs}; {ours}", conflict.id())
}

/// A conflict for a program.
pub(super) fn conflict_value(conflict: &Conflict, place: &Place) -> Value {
    let (theirs, len) = match conflict.theirs() {
        Theirs::Nothing => ("nothing", None),
        Theirs::File(len) => ("file", Some(len)),
        Theirs::Dir => ("directory", None),
        Theirs::Symlink => ("symlink", None),
        Theirs::Special => ("special", None),
        _ => ("other", None),
    };
    let (ours, kept) = match conflict.ours() {
        Ours::Kept(path) => ("kept", Some(path_value(&place.spelt(&path)))),
        Ours::Nothing => ("nothing", None),
        Ours::Change => ("change", None),
        _ => ("other", None),
    };
    json!({
        "id": conflict.id().to_string(),
        "transaction": conflict.transaction(),
        "path": path_value(&place.spelt(conflict.path())),
        "label": conflict.label(),
        "theirs": {"kind": theirs, "bytes": len},
        "ours": {"kind": ours, "path": kept},
    })
}
