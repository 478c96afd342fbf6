//! `rm`: files and folders go, and stay gone after a power cut.

use super::Done;
use crate::args::RmArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Report, Ui};
use crate::paths::{count, path_values, shown};
use crate::place::Place;
use crate::progress::Watcher;
use crate::signals;
use std::path::{Path, PathBuf};
use steadfast::sys::FileId;
use steadfast::tree::{Progress, RemoveOptions};
use steadfast::{Dir, DiskState, Error, ErrorKind};

/// Removes each path, then syncs each parent once. One failure does not keep the others from being tried.
pub(crate) fn run(args: &RmArgs, ui: &Ui) -> Done {
    let mut watcher = Watcher::new(ui, "removing");
    let mut work = Work {
        args,
        watcher: &mut watcher,
        total: Progress::default(),
        parents: Vec::new(),
    };
    let (mut done, mut missing, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for path in &args.paths {
        if let Some(signal) = signals::pending() {
            failures.push(Failure::interrupted("remove", path, signal));
            break;
        }
        match work.one(path) {
            Ok(true) => done.push(path.clone()),
            Ok(false) => missing.push(path.clone()),
            Err(failure) => failures.push(failure),
        }
    }
    if args.durability.get().syncs_names() {
        failures.extend(work.sync());
    }
    let (files, dirs) = (work.total.files, work.total.dirs);
    drop(watcher);
    let removed: Vec<&Path> = done.iter().map(PathBuf::as_path).collect();
    if let Some(mut failure) = Failure::several(failures, &removed) {
        // Some are gone and some are not, which the mildest codes deny.
        if !removed.is_empty() && failure.exit != Exit::Published {
            failure.exit = Exit::Indeterminate;
            failure.set_state(
                DiskState::Indeterminate,
                "some were removed, and some were not",
            );
        }
        return Err(failure);
    }
    let mut report = Report::done(done.iter().map(|p| format!("removed {}", shown(p))));
    if args.recursive {
        let total = format!("{} and {}", count(files, "file"), count(dirs, "folder"));
        report.details.push(format!("in all {total}"));
    }
    Ok(report
        .with("removed", path_values(&done))
        .with("missing", path_values(&missing))
        .with("files", files)
        .with("folders", dirs))
}

/// The removals of one run.
struct Work<'a> {
    args: &'a RmArgs,
    watcher: &'a mut Watcher,
    total: Progress,
    /// Each directory that lost a name, once.
    parents: Vec<(Option<FileId>, Dir, PathBuf)>,
}

impl Work<'_> {
    /// Removes one path; false if there is none and that is all right.
    fn one(&mut self, path: &Path) -> Result<bool, Failure> {
        let place = match Place::find(&self.args.root, path) {
            Err(f) if self.args.missing_ok && f.is(ErrorKind::NotFound) => return Ok(false),
            place => place?,
        };
        let removed = place.root.split(&place.path).and_then(|(parent, _)| {
            self.remove(&place)?;
            Ok(parent)
        });
        match removed {
            Ok(parent) => {
                self.note(parent, &place);
                Ok(true)
            }
            Err(e) if self.args.missing_ok && e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => {
                let folder = e.kind() == ErrorKind::IsADirectory;
                let mut failure = place.fail(e, &[]);
                if folder {
                    failure.advise("--recursive removes a folder with everything in it");
                }
                Err(failure)
            }
        }
    }

    fn remove(&mut self, place: &Place) -> Result<(), Error> {
        if !self.args.recursive {
            place.root.remove_file(&place.path)?;
            self.total.files += 1;
            return Ok(());
        }
        let watcher = &mut *self.watcher;
        let removed =
            place
                .root
                .remove_tree_watched(&place.path, &RemoveOptions::new(), &mut |p| {
                    watcher.step(p)
                })?;
        self.total.files += removed.files;
        self.total.dirs += removed.dirs;
        Ok(())
    }

    fn note(&mut self, parent: Dir, place: &Place) {
        // Without its identity it may be synced twice, which only costs time.
        let id = parent.metadata().ok().map(|m| m.id());
        let known = |id: FileId| self.parents.iter().any(|(known, ..)| *known == Some(id));
        if !id.is_some_and(known) {
            self.parents.push((id, parent, place.given.clone()));
        }
    }

    /// Makes the removals durable.
    fn sync(&self) -> Vec<Failure> {
        let synced = self.parents.iter().map(|(_, dir, path)| {
            let failed = |e: Error| Failure::published(e.map_paths(|_| path.clone()), &[]);
            dir.sync().map_err(failed)
        });
        synced.filter_map(Result::err).collect()
    }
}
