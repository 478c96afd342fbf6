//! Random operations, done by plain system calls one after the other, and by the view at once: the same
//! answers, and the same tree in the end.

use super::by_hand::ByHand;
use super::place::place;
use super::{Random, dir};
use crate::sys::Errno;
use crate::workspace::child::{long, one_of_many};
use crate::workspace::draft::{AttrRequest, Op, Renaming, Source};
use crate::workspace::identity::Kind;
use crate::workspace::view::{Content, View};
use crate::{ErrorKind, Root};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Times that operations set begin here, so that a time that was set is told from one that came by itself.
const SET_TIMES: i64 = 1_000_000_000;

/// How many sequences are tried on one pair of trees.
const SEQUENCES: usize = 8;

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thing {
    kind: Kind,
    mode: u32,
    /// Of a file; of a symlink its text.
    content: Vec<u8>,
    mtime: Option<i64>,
    /// The first of its names.
    first: Option<PathBuf>,
}

pub(super) type Tree = BTreeMap<PathBuf, Thing>;

/// All paths in a directory of the disk.
pub(super) fn paths_in(top: &Path) -> Vec<PathBuf> {
    let (mut out, mut next) = (vec![PathBuf::new()], 0);
    while next < out.len() {
        let at = out[next].clone();
        next += 1;
        // The others are no directories.
        if fs::symlink_metadata(top.join(&at)).unwrap().is_dir() {
            let mut names: Vec<_> = fs::read_dir(top.join(&at))
                .unwrap()
                .map(|e| at.join(e.unwrap().file_name()))
                .collect();
            names.sort();
            out.append(&mut names);
        }
    }
    out.split_off(1)
}

/// What is in a directory of the disk.
pub(super) fn tree_of(top: &Path) -> Tree {
    fn walk(top: &Path, at: &Path, firsts: &mut BTreeMap<u64, PathBuf>, out: &mut Tree) {
        let mut names: Vec<_> = fs::read_dir(top.join(at))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for name in names {
            let path = at.join(name);
            let full = top.join(&path);
            let meta = fs::symlink_metadata(&full).unwrap();
            let kind = meta.file_type();
            let (kind, content) = if kind.is_dir() {
                (Kind::Dir, Vec::new())
            } else if kind.is_symlink() {
                let text = fs::read_link(&full).unwrap();
                (Kind::Symlink, text.into_os_string().into_encoded_bytes())
            } else if kind.is_fifo() {
                (Kind::Special, Vec::new())
            } else {
                (Kind::File, fs::read(&full).unwrap())
            };
            let first = (kind != Kind::Dir).then(|| {
                firsts
                    .entry(meta.ino())
                    .or_insert_with(|| path.clone())
                    .clone()
            });
            let set = (SET_TIMES..SET_TIMES + 100).contains(&meta.mtime());
            let thing = Thing {
                kind,
                mode: meta.mode() & 0o7777,
                content,
                mtime: (set && kind != Kind::Dir).then(|| meta.mtime()),
                first,
            };
            out.insert(path.clone(), thing);
            if kind == Kind::Dir {
                walk(top, &path, firsts, out);
            }
        }
    }
    let mut out = Tree::new();
    walk(top, Path::new(""), &mut BTreeMap::new(), &mut out);
    out
}

/// What the transaction itself sees, as far as it can know.
fn seen(view: &mut View<'_>, at: &Path, out: &mut Tree) {
    for (name, kind) in view.list(at).unwrap() {
        let path = match at.to_str() {
            Some(".") => PathBuf::from(name.as_os_str()),
            _ => at.join(name.as_os_str()),
        };
        let facts = view.metadata(&path).unwrap();
        assert_eq!(facts.kind, kind);
        let mut content = facts.target.clone().unwrap_or_default();
        if kind == Kind::File {
            content = content_of(view, &path);
            assert_eq!(facts.len, Some(content.len() as u64), "{path:?}");
        }
        let set = facts.mtime.map(|(sec, _)| sec);
        let set = set.filter(|s| (SET_TIMES..SET_TIMES + 100).contains(s));
        let thing = Thing {
            kind,
            mode: facts
                .mode
                .unwrap_or(if kind == Kind::Symlink { 0o777 } else { 0o644 }),
            content,
            mtime: set.filter(|_| kind != Kind::Dir),
            first: None,
        };
        out.insert(path.clone(), thing);
        if kind == Kind::Dir {
            seen(view, &path, out);
        }
    }
}

fn content_of(view: &mut View<'_>, path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in view.read(path).unwrap() {
        match piece {
            Content::Bytes(bytes) => out.extend_from_slice(&bytes),
            Content::Disk(fd) => {
                std::io::copy(&mut fs::File::from(fd), &mut out).unwrap();
            }
            Content::Staged(_) => unreachable!("no operation here stages a file"),
        }
    }
    out
}

fn build(top: &Path) {
    let file = |name: &str, mode| {
        fs::write(top.join(name), format!("old {name}")).unwrap();
        fs::set_permissions(top.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    for name in ["d", "d/e", "d/e/x", "o", "v"] {
        fs::create_dir(top.join(name)).unwrap();
        fs::set_permissions(top.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    file("a", 0o640);
    file("b", 0o604);
    file("d/f", 0o600);
    file("d/e/g", 0o751);
    file("o/a", 0o644);
    fs::hard_link(top.join("a"), top.join("h")).unwrap();
    fs::hard_link(top.join("d/f"), top.join("o/h")).unwrap();
    let links = [
        ("l", "a"),
        ("ld", "d"),
        ("d/up", "../o"),
        ("gone", "nowhere"),
        ("loop", "loop"),
        ("abs", "/d"),
        ("out", "../other"),
        ("o/far", "../ld/e/../up"),
    ];
    for (name, text) in links {
        symlink(text, top.join(name)).unwrap();
    }
    let fifo = crate::Name::new("p").unwrap();
    let root = Root::open(top).unwrap();
    root.mkfifo(&fifo, crate::sys::Mode::from_raw_mode(0o644))
        .unwrap();
    fs::set_permissions(top.join("p"), PermissionsExt::from_mode(0o644)).unwrap();
}

fn random_path(random: &mut Random, there: &[PathBuf]) -> PathBuf {
    const NAMES: [&str; 22] = [
        "a", "b", "d", "e", "f", "g", "h", "o", "v", "x", "n", "m", "l", "ld", "up", "gone",
        "loop", "abs", "out", "far", ".", "..",
    ];
    let mut path = if random.one_in(100) {
        String::new()
    } else if random.one_in(100) {
        format!("{}{}", ["", "d/", "n/"][random.below(3)], "y".repeat(256))
    } else if random.one_in(100) {
        "/a".into()
    } else if !there.is_empty() && !random.one_in(3) {
        let path = random.of(there).to_str().unwrap().to_owned();
        match random.below(8) {
            0 => format!("{path}/{}", random.of(&NAMES)),
            1 => format!("{path}/../{}", random.of(&NAMES)),
            2 | 3 => match path.rsplit_once('/') {
                Some((parent, _)) => format!("{parent}/{}", random.of(&NAMES)),
                None => (*random.of(&NAMES)).to_owned(),
            },
            _ => path,
        }
    } else {
        let parts: Vec<_> = (0..=random.below(3)).map(|_| *random.of(&NAMES)).collect();
        parts.join("/")
    };
    if random.one_in(8) {
        path.push('/');
    }
    path.into()
}

fn random_op(random: &mut Random, there: &[PathBuf], step: usize) -> Op {
    let path = random_path(random, there);
    let bytes = |random: &mut Random| {
        let bytes = format!("new {step}").repeat(random.below(3));
        Source::Bytes(bytes.as_bytes().into())
    };
    let mode = |random: &mut Random| [0o700, 0o744, 0o755, 0o711][random.below(4)];
    let attr = |random: &mut Random| AttrRequest {
        mode: random.one_in(2).then(|| mode(random)),
        mtime: random
            .one_in(2)
            .then(|| (SET_TIMES + i64::try_from(step).unwrap(), 5)),
        ..AttrRequest::default()
    };
    match random.below(24) {
        0..4 => Op::Write {
            path,
            source: bytes(random),
            attr: if random.one_in(2) {
                attr(random)
            } else {
                AttrRequest::default()
            },
            create_new: random.one_in(4),
        },
        4..6 => Op::Append {
            path,
            source: bytes(random),
        },
        6..8 => Op::CreateDir {
            path,
            mode: Some(0o700),
            parents: random.one_in(2),
        },
        8 => Op::RemoveFile { path },
        9 => Op::RemoveDir { path },
        10 => Op::RemoveTree { path },
        11..18 => Op::Rename {
            from: path,
            to: random_path(random, there),
            how: match random.below(6) {
                0 => Renaming::NoReplace,
                1 | 2 => Renaming::Exchange,
                _ => Renaming::Replace,
            },
        },
        18 => Op::Symlink {
            target: random_path(random, there)
                .into_os_string()
                .into_encoded_bytes(),
            path,
        },
        19..21 => Op::HardLink {
            from: path,
            to: random_path(random, there),
        },
        21..23 => Op::SetAttributes {
            path,
            attr: attr(random),
        },
        _ => Op::WriteInPlace {
            path,
            source: bytes(random),
        },
    }
}

/// The answer of the view, by errno; what has none is told by one that the model uses for it.
fn answer(result: crate::Result<()>) -> Result<(), Errno> {
    result.map_err(|e| match (e.errno(), e.kind()) {
        (Some(errno), _) => errno,
        (None, ErrorKind::NotAFile) => Errno::NXIO,
        (None, ErrorKind::InvalidInput) => ByHand::ROOT,
        (None, kind) => panic!("{kind:?}: {e}"),
    })
}

/// Some sequences, one after the other on the same pair of trees.
fn some(seed: u64, coverage: &mut BTreeMap<String, u32>) {
    let (hand, other) = (dir(), dir());
    for at in [hand.path(), other.path()] {
        fs::create_dir(at.join("tree")).unwrap();
        fs::create_dir(at.join("hold")).unwrap();
        build(&at.join("tree"));
    }
    let by_hand = ByHand::new(hand.path());
    let mut random = Random(seed);
    let mut done = vec![format!("seed {seed}")];
    for _ in 0..SEQUENCES {
        done.push("begin".into());
        one(&by_hand, other.path(), &mut random, &mut done, coverage);
    }
}

fn one(
    by_hand: &ByHand,
    other: &Path,
    random: &mut Random,
    done: &mut Vec<String>,
    coverage: &mut BTreeMap<String, u32>,
) {
    let top = other.join("tree");
    let root = Root::open(&top).unwrap();
    let mut view = View::new(&root).unwrap();
    for step in 0..=random.below(30) {
        let there = paths_in(by_hand.top());
        let op = random_op(random, &there, step);
        let want = by_hand.run(&op);
        let have = answer(view.run(&op));
        done.push(format!("{op:?} = {want:?}"));
        assert_eq!(have, want, "{}", done.join("\n"));
        let name = format!("{op:?}");
        let name = name.split([' ', '{']).next().unwrap().to_owned();
        *coverage.entry(format!("{name} {want:?}")).or_default() += 1;
    }
    let want = tree_of(by_hand.top());
    // Half of the time: looking must change nothing, and must not be needed.
    if random.one_in(2) {
        let mut have = Tree::new();
        seen(&mut view, Path::new("."), &mut have);
        let mut want = want.clone();
        want.values_mut().for_each(|thing| thing.first = None);
        same(&have, &want, || format!("seen: {}", done.join("\n")));
    }
    let draft = view.draft();
    view.wants(&draft).unwrap();
    place(&draft, &top, &other.join("hold"));
    let context = || format!("placed: {}\n{draft:#?}", done.join("\n"));
    same(&tree_of(&top), &want, context);
    fs::remove_dir_all(other.join("hold")).unwrap();
    fs::create_dir(other.join("hold")).unwrap();
}

fn same(have: &Tree, want: &Tree, context: impl Fn() -> String) {
    let paths = have.keys().chain(want.keys());
    let differs = |path: &&PathBuf| have.get(*path) != want.get(*path);
    let wrong: Vec<_> = paths.filter(differs).collect();
    let both = wrong
        .iter()
        .map(|path| (path, have.get(*path), want.get(*path)));
    let both: Vec<_> = both.collect();
    assert!(
        both.is_empty(),
        "{}\n(path, have, want): {both:?}",
        context()
    );
}

#[test]
fn the_sum_of_the_operations_is_their_result() {
    let count = match (long(), one_of_many()) {
        (true, _) => 5_000,
        (false, false) => 250,
        (false, true) => 100,
    };
    let only: Option<u64> = std::env::var("STEADFAST_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let mut coverage = BTreeMap::new();
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        some(seed, &mut coverage);
    }
    if only.is_none() {
        // Every operation has succeeded often, so that the trees that are compared are not as they began.
        for name in [
            "Write",
            "Append",
            "CreateDir",
            "RemoveFile",
            "RemoveDir",
            "RemoveTree",
            "Rename",
            "Symlink",
            "HardLink",
            "SetAttributes",
            "WriteInPlace",
        ] {
            let good = coverage.get(&format!("{name} Ok(())")).copied();
            let often = u32::try_from(count / 5).unwrap().min(50);
            assert!(good.unwrap_or(0) >= often, "{name}: {coverage:#?}");
        }
    }
    if std::env::var_os("STEADFAST_SHOW").is_some() {
        eprintln!("{coverage:#?}");
    }
}
