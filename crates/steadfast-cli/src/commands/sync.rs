//! `sync`: what is there goes to the disk.

use super::Done;
use crate::args::SyncArgs;
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::{path_values, shown};
use crate::place::Place;
use crate::progress::Watcher;
use crate::signals;
use std::path::{Path, PathBuf};
use steadfast::tree::{SyncStrategy, Synced};
use steadfast::{DiskState, Error, ErrorKind};

/// Syncs each path. One failure does not keep the others from being tried.
pub(crate) fn run(args: &SyncArgs, ui: &Ui) -> Done {
    let mut watcher = Watcher::new(ui, "syncing");
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    let (mut files, mut dirs) = (0, 0);
    for path in &args.paths {
        if let Some(signal) = signals::pending() {
            failures.push(Failure::interrupted("sync", path, signal));
            break;
        }
        match one(args, path, &mut watcher) {
            Ok(synced) => {
                done.push(path.clone());
                files += synced.files;
                dirs += synced.dirs;
            }
            Err(failure) => failures.push(failure),
        }
    }
    drop(watcher);
    let synced: Vec<_> = done.iter().map(PathBuf::as_path).collect();
    match Failure::several(failures, &synced) {
        Some(failure) => Err(failure),
        None => Ok(
            Report::done(done.iter().map(|p| format!("synced {}", shown(p))))
                .with("synced", path_values(&done))
                .with("files", files)
                .with("folders", dirs),
        ),
    }
}

/// After a failed fsync the content is there, and is not known to be durable.
fn unsynced(error: Error, place: &Place) -> Failure {
    let synced = matches!(error.system_call(), Some("fsync" | "fdatasync" | "syncfs"));
    match error.kind() {
        // A FIFO, socket or device.
        ErrorKind::InvalidInput => place.fail(error, &[]),
        _ if synced => Failure::published(error, &[place]),
        _ => place.fail(error, &[]),
    }
}

fn one(args: &SyncArgs, path: &Path, watcher: &mut Watcher) -> Result<Synced, Failure> {
    let place = Place::find(&args.root, path)?;
    let fail = |e| unsynced(e, &place);
    let strategy = SyncStrategy::default();
    let tree = place
        .root
        .sync_tree_watched(&place.path, strategy, &mut |p| watcher.step(p));
    let synced = match tree {
        Ok(synced) => synced,
        // It is none itself. One that stopped being one inside the tree is another matter.
        Err(e)
            if e.kind() == ErrorKind::NotADirectory && e.disk_state() == DiskState::Unchanged =>
        {
            place.root.sync(&place.path).map_err(fail)?;
            Synced::default()
        }
        Err(e) => return Err(fail(e).about("sync")),
    };
    match place.root.split(&place.path) {
        Ok((parent, _)) => parent
            .sync()
            .map_err(|e| fail(e.map_paths(|_| path.into())))?,
        // "." and "/" have no name to make durable.
        Err(e) if e.kind() == ErrorKind::InvalidInput => {}
        Err(e) => return Err(fail(e)),
    }
    Ok(synced)
}
