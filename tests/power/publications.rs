//! Publications: old or new, never torn, and what was acknowledged stays.

use crate::common;
use crate::recorder::Recorder;
use crate::rules::ALL;
use crate::run::{Budget, Subject, record, scale};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, FolderOptions, Staging, SweepOptions, Target, Version, swap,
    sweep,
};
use steadfast::sys::{Mode, hook};
use steadfast::tree::{CopyOptions, SyncStrategy};
use steadfast::{Durability, ErrorKind, Result, Root};

/// What a reader finds: every path with what is there, temporaries left out.
pub(crate) type View = BTreeMap<PathBuf, String>;

pub(crate) fn view(top: &Path) -> View {
    fn add(all: &mut View, top: &Path, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(top).unwrap().to_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(".sf-")
            {
                continue;
            }
            let what = if meta.is_dir() {
                add(all, top, &path);
                "directory".to_owned()
            } else {
                format!("{:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            all.insert(shown, what);
        }
    }
    let mut all = View::new();
    add(&mut all, top, top);
    all
}

pub(crate) fn put(top: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Given old and new: whether a state may be found, and whether the operation had returned Ok before.
pub(crate) type Rule = Box<dyn Fn(&View, bool) -> bool + Sync>;

/// Runs an operation in a directory, cuts the power everywhere in every way of the model, sweeps, and checks.
/// Gives the number of states.
#[track_caller]
pub(crate) fn cut(
    name: &str,
    before: &[(&str, &str)],
    operation: impl FnOnce(&Root) -> Result<()>,
    allowed: &dyn Fn(&View, &View) -> Rule,
) -> usize {
    // A state of theirs takes a third of the time of one of a transaction.
    let times = if scale() > 1 { 4 * scale() } else { 1 };
    let budget = Budget {
        masks: 12 * times,
        torn: 2 * times.min(40) as u64,
        mixed: 2 * times.min(40),
        nested: 40,
    };
    match hunt(name, before, operation, allowed, budget) {
        None => 0,
        Some(Ok(total)) => {
            assert!(total > 1);
            total
        }
        Some(Err(story)) => panic!("{story}"),
    }
}

/// [`cut`], where a failure is looked for. `None`: it cannot be done, or need not be done here.
pub(crate) fn hunt(
    name: &str,
    before: &[(&str, &str)],
    operation: impl FnOnce(&Root) -> Result<()>,
    allowed: &dyn Fn(&View, &View) -> Rule,
    budget: Budget,
) -> Option<std::result::Result<usize, String>> {
    let mut old = View::new();
    let ready = |top: &Path| {
        put(top, before);
        old = view(top);
    };
    let run = |top: &Path, recorder: &Recorder<bool>| {
        let done = operation(&Root::open(top).unwrap());
        recorder.know(true);
        (done, view(top))
    };
    let (record, cuts, (done, new), _work) = record(false, ready, run);
    match done {
        Err(e) if e.kind() == ErrorKind::Unsupported && missing("renameat2(RENAME_EXCHANGE)") => {
            common::skipped(name, "no exchange here");
            return None;
        }
        done => done.unwrap(),
    }
    if !common::concerned(&record.calls) {
        return None;
    }
    let is_allowed = allowed(&old, &new);
    let check = |at: &Path, done: &bool| {
        let found = view(at);
        if !is_allowed(&found, *done) {
            return Err(format!("found {found:#?}\nold {old:#?}\nnew {new:#?}"));
        }
        let options = SweepOptions::new().recursive(true);
        let swept = sweep(&Root::open(at).unwrap(), ".", &options).map_err(|e| e.to_string())?;
        let litter = litter(at);
        if !litter.is_empty() && !name.contains("keep") {
            return Err(format!("left {litter:?}\n{swept:?}"));
        }
        match view(at) == found {
            true => Ok(()),
            false => Err("swept what was not to be swept".to_owned()),
        }
    };
    let subject = Subject {
        name,
        families: &ALL,
        record,
        cuts,
        budget,
        check: &check,
    };
    let hunted = subject.hunt();
    if let Ok(total) = &hunted {
        crate::count(name, *total);
    }
    Some(hunted.map_err(|failure| failure.0))
}

pub(crate) fn missing(call: &str) -> bool {
    hook::denied_by_env(call)
}

fn litter(top: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(top).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(".sf-")
        {
            found.insert(path);
        } else if path.is_dir() && !path.is_symlink() {
            found.append(&mut litter(&path));
        }
    }
    found
}

/// Old or new as a whole; new once it is acknowledged.
pub(crate) fn atomic(old: &View, new: &View) -> Rule {
    let (old, new) = (old.clone(), new.clone());
    Box::new(move |found, done| *found == new || (!done && *found == old))
}

/// [`atomic`]; but where a free name cannot be asked for, the new folder's is claimed by an empty one first.
fn claimed(old: &View, new: &View) -> Rule {
    let rule = atomic(old, new);
    if !missing("renameat2(RENAME_NOREPLACE)") {
        return rule;
    }
    let mut claim = old.clone();
    claim.insert("n".into(), "directory".to_owned());
    Box::new(move |found, done| rule(found, done) || (!done && *found == claim))
}

/// Old or new as a whole, whenever.
fn ordered(old: &View, new: &View) -> Rule {
    let (old, new) = (old.clone(), new.clone());
    Box::new(move |found, _| *found == new || *found == old)
}

/// Each path old or new for itself; all new once it is acknowledged. Directories may come early.
fn each(old: &View, new: &View) -> Rule {
    let (old, new) = (old.clone(), new.clone());
    Box::new(move |found, done| {
        let paths: BTreeSet<_> = old.keys().chain(new.keys()).chain(found.keys()).collect();
        let fits = |p: &&PathBuf| {
            let found = found.get(*p);
            found == new.get(*p) || (!done && found == old.get(*p))
        };
        paths.iter().all(fits)
    })
}

#[test]
fn files() {
    let old = &[("f", "the old text"), ("d/g", "another one")][..];
    // Of several sectors, and not of whole ones.
    let text: &str = "the new text, which is longer".repeat(200).leak();
    let write = |options: FileOptions, path: &'static str| {
        move |root: &Root| options.write(root, path, text).map(drop)
    };
    let new = || FileOptions::new();
    let mut total = 0;
    total += cut("create", old, write(new(), "n"), &atomic);
    total += cut("replace", old, write(new(), "f"), &atomic);
    total += cut("replace below", old, write(new(), "d/g"), &atomic);
    total += cut(
        "create new",
        old,
        write(new().target(Target::CreateNew), "n"),
        &atomic,
    );
    total += cut(
        "only replace",
        old,
        write(new().target(Target::Replace), "f"),
        &atomic,
    );
    total += cut(
        "unnamed",
        old,
        write(new().staging(Staging::Unnamed), "f"),
        &atomic,
    );
    let unnamed = new().staging(Staging::Unnamed).target(Target::CreateNew);
    total += cut("unnamed and new", old, write(unnamed, "n"), &atomic);
    let elsewhere = new().staging(Staging::In("d".into()));
    total += cut("staged elsewhere", old, write(elsewhere, "f"), &atomic);
    let mode = new().mode(Mode::from_raw_mode(0o640));
    total += cut("mode", old, write(mode, "f"), &atomic);
    let parents = new().create_parents(Mode::RWXU);
    total += cut("parents", old, write(parents, "a/b/n"), &each);
    let ordered_replace = new().durability(Durability::Ordered);
    total += cut("ordered", old, write(ordered_replace, "f"), &ordered);
    total += cut(
        "if unchanged",
        old,
        |root| {
            let seen = Version::of(root, "f")?;
            let options = FileOptions::new().target(Target::IfUnchanged(seen));
            options.write(root, "f", text).map(drop)
        },
        &atomic,
    );
    eprintln!("files: {total} states");
}

#[test]
fn without_kernel_features() {
    let old = &[("f", "the old text")][..];
    let off = |calls: &'static [&'static str], options: FileOptions, path: &'static str| {
        move |root: &Root| {
            let calls: Vec<_> = calls
                .iter()
                .map(|c| (*c, steadfast::sys::Errno::INVAL))
                .collect();
            hook::deny(&calls, || {
                options.write(root, path, "the new text").map(drop)
            })
        }
    };
    let new = FileOptions::new().target(Target::CreateNew);
    cut(
        "link and unlink",
        old,
        off(&["renameat2(RENAME_NOREPLACE)"], new, "n"),
        &atomic,
    );
    let replace = FileOptions::new().target(Target::Replace);
    cut(
        "no exchange",
        old,
        off(&["renameat2(RENAME_EXCHANGE)"], replace, "f"),
        &atomic,
    );
    let unnamed = FileOptions::new().staging(Staging::Unnamed);
    let no_link = &["linkat(AT_EMPTY_PATH)", "linkat(/proc/self/fd)", "fstatfs"][..];
    cut(
        "copied to get a name",
        old,
        off(no_link, unnamed, "f"),
        &atomic,
    );
}

#[test]
fn folders() {
    let old = &[("live/a", "old a"), ("live/sub/b", "old b"), ("x/f", "f")][..];
    let both = &[
        &[("next/a", "new a"), ("next/sub/c", "new c"), ("g", "new g")][..],
        old,
    ]
    .concat();
    let fill = |options: FolderOptions, path: &'static str| {
        move |root: &Root| {
            let staged = options.begin(root, path)?;
            let file = FileOptions::new().durability(Durability::None);
            file.write(staged.root(), "a", "new a")?;
            staged.root().create_dir("sub", Mode::RWXU)?;
            file.write(staged.root(), "sub/c", "new c")?;
            staged.commit().map(drop)
        }
    };
    let options = FolderOptions::new;
    let each_file = || FolderOptions::new().sync_strategy(SyncStrategy::EachFile);
    let mut total = 0;
    total += cut("new folder", old, fill(options(), "n"), &claimed);
    total += cut(
        "new folder, each file",
        old,
        fill(each_file(), "n"),
        &claimed,
    );
    total += cut("folder", old, fill(options(), "live"), &atomic);
    total += cut("folder, each file", old, fill(each_file(), "live"), &atomic);
    // Where the old one is kept it may be under its temporary name for a while; the live one is whole.
    let live = |old: &View, new: &View| -> Rule {
        let only = |view: &View| -> View {
            let live = view.iter().filter(|(path, _)| path.starts_with("live"));
            live.map(|(path, what)| (path.clone(), what.clone()))
                .collect()
        };
        let (old, new_live, new) = (only(old), only(new), new.clone());
        Box::new(move |found, done| match done {
            true => *found == new,
            false => only(found) == old || only(found) == new_live,
        })
    };
    total += cut("keep", old, fill(options().keep_old("kept"), "live"), &live);
    let publish = |options: FolderOptions, from: &'static str, to: &'static str| {
        move |root: &Root| options.publish(root, from, root, to).map(drop)
    };
    // The source goes while the replaced folder takes its name, and then that goes: only the target is one
    // step.
    total += cut("move", both, publish(options(), "next", "live"), &live);
    total += cut(
        "move to a new name",
        both,
        publish(options(), "next", "n"),
        &moved,
    );
    total += cut(
        "move across",
        both,
        publish(each_file(), "next", "x/n"),
        &moved,
    );
    total += cut(
        "move a file",
        both,
        publish(options(), "g", "x/f"),
        &target("x/f"),
    );
    // Made by another program a moment ago, which synced nothing.
    let fresh = |options: FolderOptions, from: &'static str, to: &'static str| {
        move |root: &Root| {
            let top = fs::read_link(format!("/proc/self/fd/{}", root.as_fd().as_raw_fd()));
            let files = [
                ("fresh/a", "fresh a"),
                ("fresh/sub/c", "fresh c"),
                ("h", "fresh h"),
            ];
            put(
                &top.unwrap(),
                if from == "h" {
                    &files[2..]
                } else {
                    &files[..2]
                },
            );
            options.publish(root, from, root, to).map(drop)
        }
    };
    total += cut(
        "move what is fresh",
        old,
        fresh(options(), "fresh", "live"),
        &live,
    );
    total += cut(
        "fresh, each file",
        old,
        fresh(each_file(), "fresh", "live"),
        &live,
    );
    total += cut(
        "a fresh file",
        old,
        fresh(options(), "h", "x/f"),
        &target("x/f"),
    );
    let copy = |from: &'static str, to: &'static str| {
        move |root: &Root| {
            let watch = &mut |_: &_| ControlFlow::Continue(());
            let copy = CopyOptions::new();
            FolderOptions::new()
                .copy(root, from, root, to, &copy, watch)
                .map(drop)
        }
    };
    total += cut("copy", both, copy("next", "live"), &atomic);
    total += cut("copy a file", both, copy("g", "x/f"), &atomic);
    eprintln!("folders: {total} states");
}

/// The path as a whole old or new.
fn target(path: &'static str) -> impl Fn(&View, &View) -> Rule {
    move |old, new| {
        let at = Path::new(path);
        let (old, new) = (old.get(at).cloned(), new.get(at).cloned());
        Box::new(move |found, done| {
            let found = found.get(at).cloned();
            found == new || (!done && found == old)
        })
    }
}

/// Under the old name, under the new one, or (of a move between two directories) under both or, on a file
/// system that the model allows and nobody has seen, none; whole wherever it is; only under the new one in
/// the end.
fn moved(old: &View, new: &View) -> Rule {
    let (old, new) = (old.clone(), new.clone());
    Box::new(move |found, done| {
        let known = |(path, what): (&PathBuf, &String)| {
            old.get(path) == Some(what) || new.get(path) == Some(what)
        };
        if done {
            *found == new
        } else {
            found.iter().all(known)
        }
    })
}

#[test]
fn swaps() {
    let old = &[("a/f", "in a"), ("b/f", "in b"), ("x/c/f", "in c")][..];
    let swapping = |a: &'static str, b: &'static str| {
        move |root: &Root| swap(root, a, root, b, Durability::Full)
    };
    cut("swap", old, swapping("a", "b"), &atomic);
    // Of names in two directories the model, weaker than every file system, moves one without the other.
    cut("swap across", old, swapping("a", "x/c"), &moved);
}

#[test]
fn batches() {
    let old = &[("f0", "old 0"), ("f1", "old 1"), ("d/f2", "old 2")][..];
    for strategy in [
        BatchStrategy::Auto,
        BatchStrategy::EachFile,
        BatchStrategy::StartThenEachFile,
        BatchStrategy::WholeFileSystem,
    ] {
        let name = format!("batch {strategy:?}");
        cut(
            &name,
            old,
            |root| {
                let mut batch = Batch::new(root)?.strategy(strategy);
                for path in ["f0", "f1", "d/f2", "d/f3"] {
                    batch.write(path, format!("new {path}"), &FileOptions::new())?;
                }
                batch.commit().map(drop)
            },
            &each,
        );
    }
}
