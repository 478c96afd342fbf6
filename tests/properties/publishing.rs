//! Publishing and exchanging files with any options, against a map of names: what is allowed is done, what is
//! not has changed nothing, and no temporary stays.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, Staging, SymlinkPolicy, Target, Version, swap,
};
use steadfast::sys::{Mode, hook};
use steadfast::{Durability, ErrorKind, Root};

const NAMES: [&str; 8] = ["a", "b", "d", "d/x", "l", "m", "n/y", "z"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Dir,
    /// Content, and which of all files it is.
    File(Vec<u8>, u64),
    Link(&'static str),
}

type Model = BTreeMap<String, Thing>;

#[derive(Clone, Debug)]
struct Write1 {
    name: usize,
    target: u8,
    policy: u8,
    staging: u8,
    durability: u8,
    parents: bool,
    how: u8,
    len: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Write1),
    /// The version of a name is remembered, for a write on condition.
    Look(usize),
    Swap(usize, usize),
    Remove(usize),
    Batch(Vec<usize>, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let write = (
        name(),
        0..4_u8,
        0..3_u8,
        0..3_u8,
        0..3_u8,
        any::<bool>(),
        0..6_u8,
        prop_oneof![Just(0_usize), 1..100_usize, Just(70_000)],
    )
        .prop_map(
            |(name, target, policy, staging, durability, parents, how, len)| {
                Step::Write(Write1 {
                    name,
                    target,
                    policy,
                    staging,
                    durability,
                    parents,
                    how,
                    len,
                })
            },
        );
    prop_oneof![
        6 => write,
        2 => name().prop_map(Step::Look),
        1 => (name(), name()).prop_map(|(a, b)| Step::Swap(a, b)),
        1 => name().prop_map(Step::Remove),
        1 => (prop::collection::btree_set(name(), 1..4), 0..4_u8)
            .prop_map(|(names, how)| Step::Batch(names.into_iter().collect(), how)),
    ]
}

/// What is there.
fn found(top: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(top.join(&at)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = if at.is_empty() {
                name
            } else {
                format!("{at}/{name}")
            };
            let meta = fs::symlink_metadata(top.join(&path)).unwrap();
            let what = if meta.is_dir() {
                todo.push(path.clone());
                None
            } else if meta.is_symlink() {
                Some(
                    fs::read_link(top.join(&path))
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                )
            } else {
                Some(fs::read(top.join(&path)).unwrap())
            };
            out.insert(path, what);
        }
    }
    out
}

fn expected(model: &Model) -> BTreeMap<String, Option<Vec<u8>>> {
    let what = |thing: &Thing| match thing {
        Thing::Dir => None,
        Thing::File(bytes, _) => Some(bytes.clone()),
        Thing::Link(to) => Some(to.as_bytes().to_vec()),
    };
    model
        .iter()
        .map(|(name, thing)| (name.clone(), what(thing)))
        .collect()
}

struct State {
    model: Model,
    /// Versions that were looked at: the name, and which file it was.
    seen: Option<(Version, u64)>,
    next: u64,
}

impl State {
    fn file(&mut self, bytes: Vec<u8>) -> Thing {
        self.next += 1;
        Thing::File(bytes, self.next)
    }

    /// Where the links from a name lead; `None` if in a circle.
    fn end(&self, name: &'static str) -> Option<&'static str> {
        let mut at = name;
        for _ in 0..NAMES.len() {
            match self.model.get(at) {
                Some(Thing::Link(to)) => at = to,
                _ => return Some(at),
            }
        }
        None
    }

    /// Whether the directory of a name is there.
    fn has_parent(&self, name: &str) -> bool {
        name.split_once('/')
            .is_none_or(|(dir, _)| self.model.get(dir) == Some(&Thing::Dir))
    }
}

fn write(state: &mut State, root: &Root, w: &Write1) -> TestCaseResult {
    let name = NAMES[w.name];
    let bytes: Vec<u8> = (0..w.len).map(|n| (n as u64 ^ state.next) as u8).collect();
    let mut options = FileOptions::new()
        .symlink(
            [
                SymlinkPolicy::Refuse,
                SymlinkPolicy::Follow,
                SymlinkPolicy::Replace,
            ][usize::from(w.policy)],
        )
        .staging(
            [
                Staging::Beside,
                Staging::Unnamed,
                Staging::In("stage".into()),
            ][usize::from(w.staging)]
            .clone(),
        )
        .durability(
            [Durability::None, Durability::Ordered, Durability::Full][usize::from(w.durability)],
        );
    if w.parents {
        options = options.create_parents(Mode::from_raw_mode(0o755));
    }
    options = match (w.target, &state.seen) {
        (1, _) => options.target(Target::CreateNew),
        (2, _) => options.target(Target::Replace),
        (3, Some((version, _))) => options.target(Target::IfUnchanged(version.clone())),
        _ => options,
    };
    let wrong = w.how == 5;
    options = options.expect_len(bytes.len() as u64 + u64::from(wrong));

    // What should come of it: the name that gets the file, or nothing.
    let mut at = name;
    let mut allowed = !wrong && (w.parents || state.has_parent(name));
    let mut kind = None;
    let linked = matches!(state.model.get(name), Some(Thing::Link(_)));
    match w.policy {
        0 => allowed &= !linked,
        // A name that a link has is taken.
        1 if w.target != 1 => match state.end(name) {
            Some(end) => at = end,
            None => allowed = false,
        },
        _ => {}
    }
    let there = state.model.get(at);
    match (w.target, &state.seen, there) {
        (_, _, Some(Thing::Dir)) => allowed = false,
        (1, _, Some(_)) => (allowed, kind) = (false, Some(ErrorKind::AlreadyExists)),
        (2, _, None) | (3, Some(_), None) => (allowed, kind) = (false, Some(ErrorKind::NotFound)),
        (3, Some((_, which)), there) if !matches!(there, Some(Thing::File(_, is)) if is == which) =>
        {
            allowed = false;
            kind = Some(ErrorKind::Changed);
        }
        _ => {}
    }
    let discarded = w.how == 4;
    let done = match w.how {
        0 | 5 => options.write(root, name, &bytes).map(drop),
        1 => options
            .write_with(root, name, |file| file.write_all(&bytes))
            .map(drop),
        2 => options.write_from(root, name, &mut &bytes[..]).map(drop),
        _ => options.begin(root, name).and_then(|mut pending| {
            pending.write_all(&bytes).unwrap();
            if discarded {
                pending.discard()
            } else {
                pending.commit().map(drop)
            }
        }),
    };
    // Directories that it made stay, also if nothing came of the file.
    if w.parents && name.starts_with("n/") && !state.model.contains_key("n") {
        state.model.insert("n".to_owned(), Thing::Dir);
    }
    if discarded {
        return Ok(());
    }
    prop_assert_eq!(done.is_ok(), allowed, "{:?}: {:?}", w, done);
    if let (Err(error), Some(kind), false) = (&done, kind, wrong)
        && state.has_parent(name)
        && !linked
    {
        prop_assert_eq!(error.kind(), kind, "{:?}: {}", w, error);
    }
    if allowed {
        if let Some((dir, _)) = at.split_once('/') {
            state.model.insert(dir.to_owned(), Thing::Dir);
        }
        let file = state.file(bytes);
        state.model.insert(at.to_owned(), file);
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config(300))]

    #[test]
    fn the_directory_is_the_model(steps in prop::collection::vec(step(), 1..25)) {
        let dir = crate::common::memory_dir();
        let top = dir.path();
        let root = Root::open(top).unwrap();
        fs::create_dir(top.join("d")).unwrap();
        fs::create_dir(top.join("stage")).unwrap();
        fs::write(top.join("a"), "old").unwrap();
        std::os::unix::fs::symlink("a", top.join("l")).unwrap();
        std::os::unix::fs::symlink("z", top.join("m")).unwrap();
        let mut state = State { model: Model::new(), seen: None, next: 1 };
        state.model.insert("d".to_owned(), Thing::Dir);
        state.model.insert("stage".to_owned(), Thing::Dir);
        state.model.insert("a".to_owned(), Thing::File(b"old".to_vec(), 1));
        state.model.insert("l".to_owned(), Thing::Link("a"));
        state.model.insert("m".to_owned(), Thing::Link("z"));
        for step in &steps {
            match step {
                Step::Write(w) => write(&mut state, &root, w)?,
                Step::Look(name) => {
                    let name = NAMES[*name];
                    if let Some(Thing::File(_, which)) = state.model.get(name) {
                        state.seen = Some((Version::of(&root, name).unwrap(), *which));
                    }
                }
                Step::Swap(a, b) => {
                    let names = [NAMES[*a], NAMES[*b]];
                    // Links stay where they are meant to stand, and directories too.
                    let simple = |name: &&str| {
                        !name.contains('/') && state.model.get(*name) != Some(&Thing::Dir)
                    };
                    if !names.iter().all(simple) {
                        continue;
                    }
                    let things = names.map(|name| state.model.get(name).cloned());
                    let done = swap(&root, names[0], &root, names[1], Durability::Full);
                    if let [Some(one), Some(two)] = things
                        && done.is_ok()
                    {
                        state.model.insert(names[0].to_owned(), two);
                        state.model.insert(names[1].to_owned(), one);
                        // It may or may not count as changed: its ctime is another.
                        state.seen = None;
                    } else if hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
                        let kind = done.unwrap_err().kind();
                        prop_assert!(matches!(kind, ErrorKind::Unsupported | ErrorKind::NotFound));
                    } else {
                        prop_assert_eq!(done.unwrap_err().kind(), ErrorKind::NotFound);
                    }
                }
                Step::Remove(name) => {
                    let name = NAMES[*name];
                    if matches!(state.model.get(name), Some(Thing::File(..))) {
                        fs::remove_file(top.join(name)).unwrap();
                        state.model.remove(name);
                    }
                }
                Step::Batch(names, how) => {
                    use BatchStrategy::{Auto, EachFile, StartThenEachFile, WholeFileSystem};
                    let strategy = [Auto, EachFile, StartThenEachFile, WholeFileSystem][usize::from(*how)];
                    let mut batch = Batch::new(&root).unwrap().strategy(strategy);
                    let mut want = Vec::new();
                    for name in names.iter().map(|n| NAMES[*n]) {
                        let file = !matches!(state.model.get(name), Some(Thing::Dir | Thing::Link(_)));
                        if file && state.has_parent(name) {
                            let file = state.file(format!("batch {}", state.next).into_bytes());
                            let Thing::File(bytes, _) = &file else { unreachable!() };
                            batch.write(name, bytes, &FileOptions::new()).unwrap();
                            want.push((name, file));
                        }
                    }
                    prop_assert_eq!(batch.commit().unwrap().len(), want.len());
                    for (name, file) in want {
                        state.model.insert(name.to_owned(), file);
                    }
                }
            }
            prop_assert_eq!(found(top), expected(&state.model), "after {:?}", step);
        }
    }
}
