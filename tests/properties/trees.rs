//! Copying, removing and syncing trees in any order, with a call that fails or a kill in between, against a
//! map of paths: what was asked for is there, nothing else has changed, and what is left over is told.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::tree::{CopyOptions, RemoveOptions, SyncStrategy};
use steadfast::{DiskState, Error, ErrorKind, Root};

const PATHS: [&str; 10] = [
    "a", "b", "d", "d/a", "d/e", "d/e/x", "d/n", "n", "n/e", "n/e/y",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Dir,
    /// Which of all files it is: some names are of the same.
    File(usize),
    Link,
}

#[derive(Clone, Debug, Default)]
struct Model {
    names: BTreeMap<String, Thing>,
    contents: Vec<Vec<u8>>,
}

/// What can be seen of a name: what it is, what is in it, and the first name of the same file.
type Seen = BTreeMap<String, (u8, Vec<u8>, String)>;

#[derive(Clone, Debug)]
enum Step {
    Make(usize, u8, usize),
    Copy(usize, usize, Option<Plan>),
    Remove(usize, Option<Plan>),
    Sync(usize, bool, Option<Plan>),
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let plan = || {
        let action = prop_oneof![
            Just(Action::Fail(Errno::IO)),
            Just(Action::Fail(Errno::NOSPC)),
            Just(Action::FailFrom(Errno::IO)),
        ];
        prop::option::weighted(
            0.3,
            (1..60_u64, action).prop_map(|(at, action)| Plan { at, action }),
        )
    };
    prop_oneof![
        4 => (path(), 0..4_u8, 0..9_000_usize).prop_map(|(p, what, n)| Step::Make(p, what, n)),
        4 => (path(), path(), plan()).prop_map(|(p, q, plan)| Step::Copy(p, q, plan)),
        2 => (path(), plan()).prop_map(|(p, plan)| Step::Remove(p, plan)),
        1 => (path(), any::<bool>(), plan()).prop_map(|(p, all, plan)| Step::Sync(p, all, plan)),
    ]
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Whether it is this path, or beneath it.
fn within(path: &str, top: &str) -> bool {
    Path::new(path).starts_with(top)
}

impl Model {
    /// Why nothing can be made at this path.
    fn no_room(&self, path: &str) -> Option<ErrorKind> {
        match parent(path).map(|parent| self.names.get(parent)) {
            None | Some(Some(Thing::Dir)) if self.names.contains_key(path) => {
                Some(ErrorKind::AlreadyExists)
            }
            None | Some(Some(Thing::Dir)) => None,
            Some(_) => self.missing(path),
        }
    }

    /// Why there is nothing at this path, if there is nothing.
    fn missing(&self, path: &str) -> Option<ErrorKind> {
        let mut at = path;
        while let Some(above) = parent(at) {
            match self.names.get(above) {
                Some(Thing::Dir) => break,
                Some(Thing::File(_)) => return Some(ErrorKind::NotADirectory),
                // It leads nowhere.
                Some(Thing::Link) => return Some(ErrorKind::NotFound),
                None => at = above,
            }
        }
        match self.names.contains_key(path) {
            true => None,
            false => Some(ErrorKind::NotFound),
        }
    }

    fn beneath(&self, top: &str) -> Vec<(String, Thing)> {
        let all = self.names.iter().filter(|(path, _)| within(path, top));
        all.map(|(path, thing)| (path.clone(), thing.clone()))
            .collect()
    }

    fn file(&mut self, content: Vec<u8>) -> Thing {
        self.contents.push(content);
        Thing::File(self.contents.len() - 1)
    }

    fn seen(&self) -> Seen {
        let mut first: BTreeMap<usize, &String> = BTreeMap::new();
        let mut out = Seen::new();
        for (path, thing) in &self.names {
            let seen = match thing {
                Thing::Dir => (b'd', Vec::new(), String::new()),
                Thing::Link => (b'l', b"nowhere".to_vec(), String::new()),
                Thing::File(n) => {
                    let first = first.entry(*n).or_insert(path);
                    (b'f', self.contents[*n].clone(), (*first).clone())
                }
            };
            out.insert(path.clone(), seen);
        }
        out
    }
}

fn look(top: &Path) -> Seen {
    fn visit(dir: &Path, name: &str, out: &mut BTreeMap<String, (u8, Vec<u8>, u64)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = format!("{name}{}", entry.file_name().to_str().unwrap());
            let meta = entry.metadata().unwrap();
            let seen = if meta.is_dir() {
                visit(&entry.path(), &format!("{path}/"), out);
                (b'd', Vec::new(), 0)
            } else if meta.is_symlink() {
                let text = fs::read_link(entry.path()).unwrap();
                (b'l', text.into_os_string().into_encoded_bytes(), 0)
            } else {
                (b'f', fs::read(entry.path()).unwrap(), meta.ino())
            };
            out.insert(path, seen);
        }
    }
    let mut all = BTreeMap::new();
    visit(top, "", &mut all);
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let named = all.into_iter().map(|(path, (kind, content, inode))| {
        let same = match kind {
            b'f' => first.entry(inode).or_insert(path.clone()).clone(),
            _ => String::new(),
        };
        (path, (kind, content, same))
    });
    named.collect()
}

fn make(model: &mut Model, top: &Path, path: &str, what: u8, n: usize) {
    if model.no_room(path).is_some() {
        return;
    }
    let at = top.join(path);
    let thing = match what {
        0 => {
            fs::create_dir(at).unwrap();
            Thing::Dir
        }
        1 => {
            std::os::unix::fs::symlink("nowhere", at).unwrap();
            Thing::Link
        }
        2 if !model.contents.is_empty() => {
            let which = Thing::File(n % model.contents.len());
            let Some((old, _)) = model.names.iter().find(|(_, thing)| **thing == which) else {
                return;
            };
            fs::hard_link(top.join(old), at).unwrap();
            which
        }
        _ => {
            let content = vec![n as u8; n];
            fs::write(at, &content).unwrap();
            model.file(content)
        }
    };
    model.names.insert(path.to_owned(), thing);
}

/// Whether the plan's call was made: then any error is right.
fn met(plan: Option<Plan>, seen: &[&str]) -> bool {
    plan.is_some_and(|plan| plan.at <= seen.len() as u64)
}

fn copy(
    model: &mut Model,
    root: &Root,
    top: &Path,
    (from, to): (&str, &str),
    plan: Option<Plan>,
) -> TestCaseResult {
    let inside = model.names.get(from) == Some(&Thing::Dir) && within(to, from);
    let why: Vec<ErrorKind> = [model.missing(from), model.no_room(to)]
        .into_iter()
        .flatten()
        .chain(inside.then_some(ErrorKind::InvalidInput))
        .collect();
    let call = || root.copy_tree(from, root, to, &CopyOptions::new());
    let (done, seen) = hook::scope(plan, call);
    match done {
        Ok(done) => {
            prop_assert!(why.is_empty(), "{from} to {to}: should be {why:?}");
            let mut copies: BTreeMap<usize, Thing> = BTreeMap::new();
            let mut counts = [0_u64; 5];
            for (path, thing) in model.beneath(from) {
                let copy = match &thing {
                    Thing::File(n) if copies.contains_key(n) => {
                        counts[3] += 1;
                        copies[n].clone()
                    }
                    Thing::File(n) => {
                        counts[0] += 1;
                        counts[4] += model.contents[*n].len() as u64;
                        let copy = model.file(model.contents[*n].clone());
                        copies.insert(*n, copy.clone());
                        copy
                    }
                    Thing::Dir => {
                        counts[1] += 1;
                        Thing::Dir
                    }
                    Thing::Link => {
                        counts[2] += 1;
                        Thing::Link
                    }
                };
                model
                    .names
                    .insert(format!("{to}{}", &path[from.len()..]), copy);
            }
            if !met(plan, &seen) {
                let told = [
                    done.files,
                    done.dirs,
                    done.symlinks,
                    done.hard_links,
                    done.bytes,
                ];
                prop_assert_eq!(told, counts);
            }
        }
        Err(e) => {
            let right = met(plan, &seen) || why.contains(&e.kind());
            prop_assert!(right, "{from} to {to}: {e}, should be {why:?}");
            match model.no_room(to) {
                None => tidy_up(root, &e, to)?,
                Some(_) => prop_assert!(e.left_behind().is_empty()),
            }
        }
    }
    prop_assert_eq!(look(top), model.seen());
    Ok(())
}

/// What a failed copy has left is what it says, and goes.
fn tidy_up(root: &Root, e: &Error, to: &str) -> TestCaseResult {
    if e.disk_state() == DiskState::Unchanged {
        prop_assert!(e.left_behind().is_empty());
        return Ok(());
    }
    let name = to.rsplit('/').next().unwrap();
    let mut left = e.left_behind().iter();
    prop_assert!(left.all(|left| left.file_name() == Some(name.as_ref())));
    // Of a call that makes something and fails nobody knows whether it has made it.
    let options = RemoveOptions::new().missing_ok(e.left_behind().is_empty());
    root.remove_tree(to, &options).unwrap();
    Ok(())
}

fn remove(
    model: &mut Model,
    root: &Root,
    top: &Path,
    path: &str,
    plan: Option<Plan>,
) -> TestCaseResult {
    let (why, before) = (model.missing(path), model.beneath(path));
    let (done, seen) = hook::scope(plan, || root.remove_tree(path, &RemoveOptions::new()));
    match done {
        Ok(done) => {
            prop_assert_eq!(why, None);
            if !met(plan, &seen) {
                let dirs = before
                    .iter()
                    .filter(|(_, thing)| *thing == Thing::Dir)
                    .count();
                let told = (done.dirs as usize, done.files as usize);
                prop_assert_eq!(told, (dirs, before.len() - dirs));
            }
        }
        Err(e) if why.is_some() => {
            prop_assert!(
                met(plan, &seen) || why == Some(e.kind()),
                "{path}: {e}, {why:?}"
            );
            return Ok(());
        }
        Err(e) => {
            prop_assert!(met(plan, &seen), "{path}: {e}");
            // Some of it may be gone, and nothing else is.
            let now = look(top);
            for (name, (kind, content, _)) in model.seen() {
                match now.get(&name) {
                    Some(is) => prop_assert_eq!((is.0, &is.1), (kind, &content)),
                    None => prop_assert!(within(&name, path), "{name} is gone"),
                }
            }
            prop_assert!(now.keys().all(|name| model.names.contains_key(name)));
            let again = RemoveOptions::new().missing_ok(true);
            root.remove_tree(path, &again).unwrap();
        }
    }
    model.names.retain(|name, _| !within(name, path));
    Ok(())
}

fn sync(
    model: &Model,
    root: &Root,
    path: &str,
    strategy: SyncStrategy,
    plan: Option<Plan>,
) -> TestCaseResult {
    let is_dir = model.names.get(path) == Some(&Thing::Dir);
    let (done, seen) = hook::scope(plan, || root.sync_tree(path, strategy));
    match done {
        Ok(_) => prop_assert!(is_dir),
        Err(e) => prop_assert!(!is_dir || met(plan, &seen), "{path}: {e}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config(300))]

    #[test]
    fn the_tree_is_the_model(steps in prop::collection::vec(step(), 1..30)) {
        let dir = crate::common::memory_dir();
        let top = dir.path();
        let root = Root::open(top).unwrap();
        let mut model = Model::default();
        for (path, what) in [("d", 0), ("d/e", 0), ("d/e/x", 3), ("d/a", 3), ("d/n", 2)] {
            make(&mut model, top, path, what, 5);
        }
        for step in steps {
            match step {
                Step::Make(p, what, n) => make(&mut model, top, PATHS[p], what, n),
                Step::Copy(p, q, plan) => copy(&mut model, &root, top, (PATHS[p], PATHS[q]), plan)?,
                Step::Remove(p, plan) => remove(&mut model, &root, top, PATHS[p], plan)?,
                Step::Sync(p, all, plan) => {
                    let strategy = match all {
                        true => SyncStrategy::WholeFileSystem,
                        false => SyncStrategy::EachFile,
                    };
                    sync(&model, &root, PATHS[p], strategy, plan)?;
                }
            }
            prop_assert_eq!(look(top), model.seen());
        }
    }
}
