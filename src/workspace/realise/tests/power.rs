//! What a power cut may leave: calls that are not there, and new files that are empty, zero or missing.

use super::{Ready, Scene, after, scenes, stops};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::some;
use crate::workspace::mapping::{Body, Object};
use crate::workspace::realise::Mode;
use crate::workspace::stage::stage;
use crate::workspace::testbed::{World, both_ways};
use std::cell::RefCell;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) enum Tear {
    Empty,
    Zeros,
    Missing,
}

/// The names of an inode beneath `dir`.
fn names(dir: &Path, ino: u64, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_dir() {
            names(&entry.path(), ino, out);
        } else if meta.ino() == ino {
            out.push(entry.path());
        }
    }
}

/// Does to every new file that was not synced what a power cut may do.
pub(super) fn tear(ready: &Ready, how: Tear) {
    for object in &ready.mapping.objects {
        let Object::New {
            ident,
            body: Body::Inline(content),
            ..
        } = object
        else {
            continue;
        };
        let mut all = Vec::new();
        names(ready.world.tmp.path(), ident.ino, &mut all);
        let Some(first) = all.first() else {
            continue;
        };
        let time = fs::metadata(first).unwrap().modified().unwrap();
        let set = |time| {
            let file = File::options().write(true).open(first).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        };
        match how {
            Tear::Empty => {
                fs::write(first, b"").unwrap();
                set(time - Duration::from_millis(1));
            }
            Tear::Zeros => {
                fs::write(first, vec![0; content.len()]).unwrap();
                set(time);
            }
            // Out of sight, so that its inode number is not taken for another file in the same instant.
            Tear::Missing => {
                let lost = ready.world.lost(ident.ino);
                for name in &all {
                    // A scene may have closed the directory to its owner.
                    let dir = name.parent().unwrap();
                    let mode = fs::metadata(dir).unwrap().permissions();
                    fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
                    fs::rename(name, &lost).unwrap();
                    fs::set_permissions(dir, mode).unwrap();
                }
                all.iter().skip(1).for_each(|name| {
                    let _ = fs::remove_file(name);
                });
            }
        }
    }
}

#[test]
fn torn_and_missing_files_are_made_anew() {
    both_ways(check_torn_and_missing_files_are_made_anew);
}

fn check_torn_and_missing_files_are_made_anew() {
    for denied in stops::denials() {
        for scene in scenes::all() {
            hook::deny(&denied, || {
                let want = after(&scene);
                for (n, how) in [Tear::Empty, Tear::Zeros, Tear::Missing]
                    .into_iter()
                    .enumerate()
                {
                    for at in some(3, n) {
                        let ready = Ready::of(&scene);
                        let action = Action::FailAfter(Errno::IO);
                        let plan = Some(Plan { at, action });
                        let (_, calls) = hook::scope(plan, || ready.run(Mode::First));
                        tear(&ready, how);
                        let what = format!("{denied:?} {how:?} after {at} {:?}", calls.last());
                        ready.finish(&scene, &want, &what);
                        if (calls.len() as u64) < at {
                            break;
                        }
                    }
                }
            });
        }
    }
}

/// What was torn is being made anew when that stops as well.
#[test]
fn a_recovery_that_mends_is_finished_by_another() {
    for scene in scenes::all() {
        let want = after(&scene);
        for (first, how) in [(1, Tear::Empty), (2, Tear::Zeros)] {
            for at in (first..).step_by(2) {
                let ready = Ready::of(&scene);
                ready.run(Mode::First).unwrap();
                tear(&ready, how);
                let action = Action::FailAfter(Errno::IO);
                let plan = Some(Plan { at, action });
                let (_, calls) = hook::scope(plan, || ready.run(Mode::Again));
                let what = format!("{how:?}, stopped after {at} {:?}", calls.last());
                let outcome = ready.run(Mode::Again).unwrap();
                assert_eq!(outcome.conflicts, [], "{}: {what}", scene.name);
                ready.check_opened(&scene, &want, &what);
                if (calls.len() as u64) < at {
                    break;
                }
            }
        }
    }
}

/// Likewise without an exchange, where the torn one is put away first.
#[test]
fn a_recovery_that_mends_in_two_steps_is_finished_by_another() {
    let denied = stops::denials().swap_remove(1);
    for scene in scenes::all() {
        hook::deny(&denied, || {
            let want = after(&scene);
            for at in some(2, 0) {
                let ready = Ready::of(&scene);
                ready.run(Mode::First).unwrap();
                tear(&ready, Tear::Empty);
                let action = Action::FailAfter(Errno::IO);
                let plan = Some(Plan { at, action });
                let (_, calls) = hook::scope(plan, || ready.run(Mode::Again));
                let what = format!("stopped after {at} {:?}", calls.last());
                let outcome = ready.run(Mode::Again).unwrap();
                assert_eq!(outcome.conflicts, [], "{}: {what}", scene.name);
                ready.check_opened(&scene, &want, &what);
                if (calls.len() as u64) < at {
                    break;
                }
            }
        });
    }
}

/// However many files recovery makes anew, they are durable before any of them gets its name, and that
/// costs one sync if they are more than a few.
#[test]
fn many_files_are_made_anew_at_the_price_of_one_sync() {
    for (files, syncs) in [(3, vec!["fsync"; 3]), (40, vec!["syncfs"])] {
        let world = World::new();
        let mut draft = world.draft();
        for n in 0..files {
            draft.create(&format!("n{n}"), b"new");
        }
        let draft = draft.draft;
        let mapping = world.with(|ctx| stage(ctx, draft).unwrap().committed());
        let opened = RefCell::default();
        let ready = Ready {
            world,
            mapping,
            opened,
        };
        tear(&ready, Tear::Empty);
        let (done, calls) = hook::scope(None, || ready.run(Mode::Again));
        assert_eq!(done.unwrap().conflicts, []);
        let is_sync = |call: &&&str| ["fsync", "fdatasync", "syncfs"].contains(*call);
        let renamed = calls.iter().position(|call| call.starts_with("renameat2"));
        let before: Vec<_> = calls[..renamed.unwrap()].iter().filter(is_sync).collect();
        assert_eq!(before, syncs.iter().collect::<Vec<_>>());
        assert_eq!(
            calls.iter().filter(is_sync).count(),
            syncs.len(),
            "{calls:?}"
        );
        for n in 0..files {
            assert_eq!(ready.world.read(&format!("n{n}")), b"new");
        }
    }
}

/// What stands in for a torn file is never under the private name that the record has: a change may be
/// written into it before it has its name, and then it would be taken for what an exchange has brought out.
#[test]
fn what_stands_in_for_a_torn_file_has_a_name_of_its_own() {
    let scene = scenes::all().swap_remove(0);
    assert_eq!(scene.name, "replace");
    let want = after(&scene);
    let mut stood_in = 0;
    for at in 1.. {
        let ready = Ready::of(&scene);
        let [recorded] = &ready.world.private("staged")[..] else {
            panic!("one new file");
        };
        ready.run(Mode::First).unwrap();
        tear(&ready, Tear::Empty);
        let action = Action::FailAfter(Errno::IO);
        let plan = Some(Plan { at, action });
        let (_, calls) = hook::scope(plan, || ready.run(Mode::Again));
        let staged = ready.world.private("staged");
        assert!(!staged.contains(recorded), "{at}: {:?}", calls.last());
        stood_in += staged.len();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts, [], "{at}");
        ready.check_opened(&scene, &want, &format!("stopped after {at}"));
        if (calls.len() as u64) < at {
            break;
        }
    }
    assert!(stood_in > 0);
}

/// Two transactions as one: the first has made a directory, the second has moved it and made another at
/// its old name. What an earlier recovery made for that one nobody knows again, and so it gets a fresh
/// private name, under which the first is found after the exchange.
#[test]
fn what_a_directory_made_anew_has_replaced_is_found() {
    let scene = Scene {
        name: "moved and made again",
        prepare: |_| {},
        draft: |b| {
            let (above, moved, again) = (b.dir(), b.dir(), b.dir());
            let at = b.free("n");
            b.put(at, above);
            let at = b.free("g");
            b.put(at, moved);
            let at = b.within(above, "m");
            b.put(at, again);
        },
        check: |_| {},
    };
    let want = after(&scene);
    let ready = Ready::of(&scene);
    let homes: Vec<_> = (ready.mapping.objects.iter())
        .map(|object| match object {
            Object::New { staged, .. } => {
                let name = std::str::from_utf8(staged.as_bytes()).unwrap();
                ready.world.path(".steadfast/staged").join(name)
            }
            _ => panic!("only new ones"),
        })
        .collect();
    fs::rename(&homes[0], ready.world.path("n")).unwrap();
    fs::rename(&homes[1], ready.world.path("n/m")).unwrap();
    fs::rename(&homes[2], ready.world.lost(0)).unwrap();
    fs::create_dir(&homes[2]).unwrap();
    let outcome = ready.run(Mode::Again).unwrap();
    assert_eq!(outcome.conflicts, []);
    ready.check_folders(&scene, &want, "again", &["retired", "kept"]);
}

/// A file that somebody has worked on since is theirs, even if it looks like one that was cut short.
#[test]
fn a_later_edit_is_not_taken_for_a_torn_file() {
    let scene = &scenes::all()[0];
    let ready = Ready::of(scene);
    ready.run(Mode::First).unwrap();
    fs::write(ready.world.path("a"), b"").unwrap();
    let outcome = ready.run(Mode::Again).unwrap();
    assert_eq!(outcome.conflicts, []);
    assert_eq!(ready.world.read("a"), b"");
}

/// Everything that changes names, as one step that a power cut may leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
}

type Shot = Vec<(PathBuf, u64)>;

fn inodes(dir: &Path, top: &Path, out: &mut Shot) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        out.push((
            entry.path().strip_prefix(top).unwrap().to_owned(),
            meta.ino(),
        ));
        if meta.is_dir() {
            inodes(&entry.path(), top, out);
        }
    }
    out.sort();
}

/// The step between two moments, if it is one; what is below a directory goes with it.
fn step(before: &Shot, after: &Shot) -> Option<Step> {
    let gone: Vec<_> = before.iter().filter(|e| !after.contains(e)).collect();
    let come: Vec<_> = after.iter().filter(|e| !before.contains(e)).collect();
    let top = |list: &[&(PathBuf, u64)]| -> Vec<(PathBuf, u64)> {
        let below = |e: &(PathBuf, u64)| list.iter().any(|o| o.0 != e.0 && e.0.starts_with(&o.0));
        list.iter()
            .filter(|e| !below(e))
            .map(|e| (*e).clone())
            .collect()
    };
    match (&top(&gone)[..], &top(&come)[..]) {
        ([], []) => None,
        ([(from, _)], []) => Some(Step::Unlink(from.clone())),
        ([], [(to, ino)]) => {
            let from = before.iter().find(|e| e.1 == *ino);
            Some(Step::Link(from.unwrap().0.clone(), to.clone()))
        }
        ([(from, a)], [(to, b)]) if a == b => Some(Step::Rename(from.clone(), to.clone())),
        ([(a, _), (b, _)], [(c, _), (d, _)]) if (a, b) == (c, d) => {
            Some(Step::Exchange(a.clone(), b.clone()))
        }
        other => panic!("no single step: {other:?}"),
    }
}

impl Step {
    fn names(&self) -> Vec<&PathBuf> {
        match self {
            Self::Rename(a, b) | Self::Exchange(a, b) | Self::Link(a, b) => vec![a, b],
            Self::Unlink(a) => vec![a],
        }
    }

    /// Whether a crash can leave this one without the other only.
    fn needs(&self, earlier: &Self) -> bool {
        let near = |a: &PathBuf, b: &PathBuf| a.starts_with(b) || b.starts_with(a);
        let names = earlier.names();
        self.names()
            .iter()
            .any(|a| names.iter().any(|b| near(a, b)))
    }

    fn redo(&self, top: &Path) {
        use crate::sys::{CWD, RenameFlags, renameat2};
        let rename = |a: &Path, b: &Path, flags| {
            renameat2(CWD, top.join(a), CWD, top.join(b), flags).unwrap();
        };
        match self {
            Self::Rename(a, b) => rename(a, b, RenameFlags::empty()),
            Self::Exchange(a, b) => rename(a, b, RenameFlags::EXCHANGE),
            Self::Link(a, b) => fs::hard_link(top.join(a), top.join(b)).unwrap(),
            Self::Unlink(a) if top.join(a).symlink_metadata().unwrap().is_dir() => {
                fs::remove_dir(top.join(a)).unwrap();
            }
            Self::Unlink(a) => fs::remove_file(top.join(a)).unwrap(),
        }
    }
}

/// Any of the steps may be missing, as long as none is there that works on the names of a missing one. A
/// sync makes all before it durable.
#[test]
fn any_steps_may_be_lost() {
    both_ways(check_any_steps_may_be_lost);
}

fn check_any_steps_may_be_lost() {
    const MOST: usize = 9;
    if hook::denied_by_env("renameat2(RENAME_NOREPLACE)") {
        eprintln!(
            "SKIPPED any_steps_may_be_lost: a claimed directory is replaced, which is no single step"
        );
        return;
    }
    let mut states = 0;
    // Content that is written in place is no step, and is synced before the steps that follow it.
    for scene in scenes::all()
        .into_iter()
        .filter(|s| !s.name.starts_with("in place"))
    {
        let want = after(&scene);
        let ready = Ready::of(&scene);
        let top = ready.world.tmp.path().to_owned();
        let (mut steps, mut synced) = (Vec::new(), 0);
        let recorded = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let (log, at) = (recorded.clone(), top.clone());
        let mut last = Vec::new();
        inodes(&top, &top, &mut last);
        hook::observe(
            move |call, _| {
                let mut now = Vec::new();
                inodes(&at, &at, &mut now);
                log.borrow_mut().push((call, now));
            },
            || ready.run(Mode::First).unwrap(),
        );
        for (call, now) in recorded.borrow().iter() {
            steps.extend(step(&last, now));
            if call.contains("sync") {
                synced = steps.len();
            }
            last.clone_from(now);
        }
        drop(ready);
        let open = (steps.len() - synced).min(MOST);
        for set in 0..1u32 << open {
            // What is past the open steps did not happen.
            let mut done: Vec<&Step> = steps[..synced].iter().collect();
            let mut lost: Vec<&Step> = Vec::new();
            let mut possible = true;
            for (bit, step) in steps[synced..synced + open].iter().enumerate() {
                if set >> bit & 1 == 0 {
                    lost.push(step);
                } else if lost.iter().any(|earlier| step.needs(earlier)) {
                    possible = false;
                } else {
                    done.push(step);
                }
            }
            if !possible {
                continue;
            }
            let ready = Ready::of(&scene);
            done.iter()
                .for_each(|step| step.redo(ready.world.tmp.path()));
            ready.finish(&scene, &want, &format!("only {done:?}"));
            states += 1;
        }
    }
    assert!(states > 50, "{states}");
}
