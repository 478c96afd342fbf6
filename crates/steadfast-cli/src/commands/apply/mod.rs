//! `apply`: the changes of a manifest as one transaction.

mod load;

use super::workspace::{self, Place};
use super::{Done, steps};
use crate::args::ApplyArgs;
use crate::failure::Failure;
use crate::manifest::{Attributes, Change, Condition, Content, Expect, Manifest, Operation};
use crate::output::{Report, Text, Ui};
use crate::paths::count;
use crate::progress::Watcher;
use crate::signals;
use load::Loaded;
use serde_json::json;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use steadfast::ErrorKind;
use steadfast::publish::Version;
use steadfast::sys::{Gid, Mode, Uid};
use steadfast::workspace::{
    Attributes as Wanted, Status, Transaction, TransactionState, WorkspaceOptions, status,
};

const NOTHING: &str = "nothing to do: all of it was so already";

/// One transaction, or what it would be.
pub(crate) fn run(args: &ApplyArgs, ui: &Ui) -> Done {
    // Everything about the manifest that can be wrong is found before anything is opened or made.
    let loaded = load::load(args)?;
    let manifest = &loaded.manifest;
    let place = Place::new(&args.workspace)?;
    if args.dry_run {
        return plan(args, &loaded, &place, ui);
    }
    let workspace = place.open(WorkspaceOptions::new().wait(args.wait.get()))?;
    let known = |key: &String| workspace.key(key).map(|value| value.is_some());
    if let Some(key) = &args.key
        && known(key).map_err(|e| place.fail(e))?
    {
        return Ok(done_before(key));
    }
    let mut tx = workspace.begin();
    gather(&mut tx, args, &loaded, &place, ui)?;
    let receipt = match (tx.commit(), &args.key) {
        // Somebody else was faster.
        (Err(e), Some(key))
            if e.kind() == ErrorKind::AlreadyExists && known(key).unwrap_or(false) =>
        {
            return Ok(done_before(key));
        }
        (done, _) => done.map_err(|e| blame(e, &place, manifest))?,
    };
    let number = receipt.number();
    let mut report = match number {
        0 => Report::done([NOTHING.to_owned()]),
        n => {
            let operations = count(manifest.operations.len() as u64, "operation");
            Report::done([format!("committed transaction {n}: {operations}")])
        }
    };
    workspace::close(workspace, args.settle, &mut report);
    Ok(report.with("applied", true).with("number", number))
}

/// What it would be. Nothing is changed: a workspace is neither opened nor made.
fn plan(args: &ApplyArgs, loaded: &Loaded, place: &Place, ui: &Ui) -> Done {
    if let Some(key) = &args.key {
        let mut alone = Transaction::to_plan(&place.root);
        alone.key(key, []);
        match alone.plan() {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let mut text = Text::default();
                text.push(format!("{}\n", words_before(key)));
                let report = Report::answer(text);
                return Ok(before(report, key).with("dry_run", true));
            }
            done => done.map_err(|e| place.fail(e))?,
        };
    }
    let mut tx = Transaction::to_plan(&place.root);
    gather(&mut tx, args, loaded, place, ui)?;
    let plan = (tx.plan()).map_err(|e| blame(e, place, &loaded.manifest))?;
    let mut text = Text::default();
    match plan.steps.is_empty() {
        true => text.push(format!("{NOTHING}\n")),
        false => text.push(steps::lines(&plan.steps)),
    }
    let mut report = Report::answer(text)
        .with("applied", false)
        .with("dry_run", true)
        .with("steps", steps::values(&plan.steps));
    match status(&place.root) {
        Ok(found) if has_open_work(&found) => report.notes.push(
            "processes that died have left unfinished work here, which is finished or taken back \
             before anything is applied: see steadfast status"
                .to_owned(),
        ),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(place.missing(e)),
        _ => {}
    }
    Ok(report)
}

/// Whether opening the workspace would change something of the tree.
fn has_open_work(found: &Status) -> bool {
    let open = |state| matches!(state, TransactionState::Dead | TransactionState::Abandoned);
    found.transactions.iter().any(|t| open(t.state)) || found.sections.iter().any(|s| !s.live)
}

/// Collects all that the manifest says.
fn gather(
    tx: &mut Transaction<'_>,
    args: &ApplyArgs,
    loaded: &Loaded,
    place: &Place,
    ui: &Ui,
) -> Result<(), Failure> {
    let manifest = &loaded.manifest;
    if let Some(label) = args.label.as_ref().or(manifest.label.as_ref()) {
        tx.label(label);
    }
    for condition in &manifest.conditions {
        expect(tx, condition);
    }
    let mut watcher = Watcher::new(ui, "staging");
    let total = manifest.operations.len();
    for (operation, number) in manifest.operations.iter().zip(1..) {
        if watcher.before(number, total).is_break() {
            break;
        }
        collect(tx, &operation.change, loaded, place)
            .map_err(|failure| point(failure, operation, number))?;
    }
    drop(watcher);
    if let Some(signal) = signals::pending() {
        let verb = "apply manifest";
        return Err(Failure::interrupted(verb, &args.manifest, signal));
    }
    if let Some(key) = &args.key {
        tx.key(key, args.label.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// The work of this key is done.
fn done_before(key: &str) -> Report {
    before(Report::done([words_before(key)]), key)
}

fn words_before(key: &str) -> String {
    format!("{key:?} was applied before; nothing to do")
}

fn before(report: Report, key: &str) -> Report {
    report.with("applied", false).with("key", key)
}

fn expect(tx: &mut Transaction<'_>, condition: &Condition) {
    let path = &condition.path;
    match condition.expect {
        Expect::Absent => tx.expect_absent(path),
        Expect::Present => tx.expect_present(path),
        Expect::Sha256(hash) => tx.expect_version(path, Version::sha256(hash)),
    };
}

/// Adds one operation to the transaction.
fn collect(
    tx: &mut Transaction<'_>,
    change: &Change,
    loaded: &Loaded,
    place: &Place,
) -> Result<(), Failure> {
    let fail = |e| place.fail(e);
    match change {
        Change::Write {
            path,
            content,
            create_new,
            attributes,
        } => {
            if *create_new {
                // The name must be free; what follows fills the file that it makes.
                tx.create_new(path, b"").map_err(fail)?;
            }
            match content {
                Content::Bytes(bytes) => tx.write(path, bytes).map_err(fail)?,
                Content::From(from) => {
                    let file = loaded.open(from)?;
                    tx.write_copy(path, &file).map_err(fail)?;
                }
            }
            set(tx, path, attributes);
        }
        Change::Append { path, content } => {
            let bytes = held(content, loaded)?;
            tx.append(path, bytes).map_err(fail)?;
        }
        Change::WriteInPlace { path, content } => {
            let bytes = held(content, loaded)?;
            tx.write_in_place(path, bytes).map_err(fail)?;
        }
        Change::CreateDir {
            path,
            parents,
            attributes,
        } => {
            match parents {
                true => tx.create_dir_all(path),
                false => tx.create_dir(path),
            };
            set(tx, path, attributes);
        }
        Change::RemoveFile { path } => {
            tx.remove_file(path);
        }
        Change::RemoveDir { path } => {
            tx.remove_dir(path);
        }
        Change::RemoveTree { path } => {
            tx.remove_tree(path);
        }
        Change::Rename {
            path,
            to,
            no_replace: false,
        } => {
            tx.rename(path, to);
        }
        Change::Rename { path, to, .. } => {
            tx.rename_no_replace(path, to);
        }
        Change::Exchange { path, with } => {
            tx.exchange(path, with);
        }
        Change::Symlink { path, target } => {
            tx.symlink(OsStr::from_bytes(target), path);
        }
        Change::HardLink { path, target } => {
            tx.hard_link(target, path);
        }
        Change::SetAttributes { path, attributes } => set(tx, path, attributes),
        Change::Key { name, value } => {
            tx.key(name, value);
        }
    }
    Ok(())
}

/// Content for an operation that takes it from memory.
fn held<'a>(content: &'a Content, loaded: &Loaded) -> Result<Cow<'a, [u8]>, Failure> {
    match content {
        Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Content::From(from) => loaded.read(from).map(Cow::Owned),
    }
}

/// Sets attributes; those of a new thing are its own from the start.
fn set(tx: &mut Transaction<'_>, path: &Path, attributes: &Attributes) {
    if attributes.is_empty() {
        return;
    }
    let mut wanted = Wanted::new();
    if let Some(mode) = attributes.mode {
        wanted = wanted.mode(Mode::from_raw_mode(mode));
    }
    if let Some(owner) = attributes.owner {
        wanted = wanted.uid(Uid::from_raw(owner));
    }
    if let Some(group) = attributes.group {
        wanted = wanted.gid(Gid::from_raw(group));
    }
    if let Some(time) = attributes.mtime {
        wanted = wanted.modified(time);
    }
    if let Some(time) = attributes.atime {
        wanted = wanted.accessed(time);
    }
    for (name, value) in &attributes.xattrs {
        let name = OsStr::from_bytes(name);
        wanted = match value {
            Some(value) => wanted.xattr(name, value),
            None => wanted.without_xattr(name),
        };
    }
    tx.set_attributes(path, wanted);
}

/// The failure, pointing at the condition or operation that names its path.
fn blame(error: steadfast::Error, place: &Place, manifest: &Manifest) -> Failure {
    let path = error.path().map(Path::to_path_buf);
    let mut failure = place.fail(error);
    let Some(path) = path.as_deref() else {
        return failure;
    };
    if failure.is(ErrorKind::Changed) {
        let mut found = (manifest.conditions.iter().zip(1..)).filter(|(c, _)| c.path == path);
        if let (Some((_, number)), None) = (found.next(), found.next()) {
            let words = format!("condition {number}");
            failure.hints.insert(0, ("manifest", words));
            let place = json!({"condition": number});
            failure.json.insert("manifest".into(), place);
            return failure;
        }
    }
    let named = |o: &&Operation| o.change.paths().contains(&path);
    let mut found = manifest
        .operations
        .iter()
        .zip(1..)
        .filter(|(o, _)| named(o));
    match (found.next(), found.next()) {
        // Of several it is not known which.
        (Some((operation, number)), None) => point(failure, operation, number),
        _ => failure,
    }
}

/// Points at an operation.
fn point(mut failure: Failure, operation: &Operation, number: usize) -> Failure {
    let (name, line) = (operation.change.name(), operation.line);
    let words = format!("operation {number} ({name}), line {line}");
    failure.hints.insert(0, ("manifest", words));
    let place = json!({"operation": number, "line": line});
    failure.json.insert("manifest".into(), place);
    failure
}
