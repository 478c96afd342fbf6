//! Against an attacker: another process keeps exchanging directories with links that lead outside, moves
//! directories out of the root and back, and moves the root itself.
//!
//! Beforehand every state that the attacker can make is made once, one after another, and the answers of
//! openat2 (or the walk, where there is none) to each look-up are written down. Under attack, each answer
//! must be one of these: nothing from outside, and no errno that no state of the tree explains.

use super::children;
use super::common::FOREVER;
use super::support::{Case, Id, Rng, Who, has_openat2, id, kernel_answers, long};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;
use steadfast::{Backend, Root, RootOptions, Scope};

/// What the attacker can do, each of which has two states: the first name exchanged with the second, or, if
/// there is nothing at the second, moved there and back.
const FLIPS: [(&str, &str); 9] = [
    // A directory, and a link to its likeness outside.
    ("root/a", "store/a_out"),
    // A directory that leaves the root.
    ("root/a/b", "limbo/b"),
    // A file, and a link to its likeness outside.
    ("root/f", "store/f_out"),
    // A directory and a file; a directory and a dangling link; a directory and a link that stays inside.
    ("root/d", "store/d_file"),
    ("root/e", "store/e_dangling"),
    ("root/g", "store/g_inside"),
    // An inner directory and an absolute link outside.
    ("root/h/i", "store/i_abs"),
    // Deep directories of the same form, at the 17th level: one whose descriptor the walk closes.
    ("root/w/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d", "store/w"),
    // The root itself.
    ("root", "elsewhere"),
];

/// Of these, the deep directories.
const DEEP_FLIP: usize = 7;

/// Tells the attacker to do one of them only.
const ONLY: &str = "STEADFAST_TEST_FLIP";

const DEEP: usize = 60;

/// The same names inside and outside, each file with its own content.
fn plant(dir: &Path, content: &str) {
    for name in ["a/b/c", "a/k", "d", "e", "g", "h/i/j"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for name in [
        "f", "a/f", "a/b/f", "a/b/c/f", "d/f", "e/f", "g/f", "h/f", "h/i/f", "h/i/j/f",
    ] {
        fs::write(dir.join(name), content).unwrap();
    }
}

struct Field {
    top: PathBuf,
    root: OwnedFd,
    outside: HashSet<Id>,
    canary: BTreeMap<PathBuf, Vec<u8>>,
    inside: Vec<(Id, PathBuf)>,
}

fn build(top: &Path) -> Field {
    let root = top.join("root");
    for dir in ["root", "outside", "store", "limbo"] {
        fs::create_dir(top.join(dir)).unwrap();
    }
    plant(&root, "inside");
    plant(&top.join("outside"), "outside");
    // Only outside: removing these from inside must fail always.
    fs::write(top.join("outside/a/only"), "outside").unwrap();
    fs::create_dir(top.join("outside/a/empty")).unwrap();
    symlink("../outside/a", top.join("store/a_out")).unwrap();
    symlink("../outside/f", top.join("store/f_out")).unwrap();
    fs::write(top.join("store/d_file"), "inside").unwrap();
    symlink("nowhere", top.join("store/e_dangling")).unwrap();
    symlink("h", top.join("store/g_inside")).unwrap();
    symlink(top.join("outside/h/i"), top.join("store/i_abs")).unwrap();
    symlink("..", root.join("a/b/up")).unwrap();
    symlink("../f", root.join("h/to_f")).unwrap();
    symlink("../a/b/c", root.join("h/to_c")).unwrap();
    fs::create_dir_all(root.join("w").join("d/".repeat(DEEP))).unwrap();
    fs::create_dir_all(top.join("store/w").join("d/".repeat(DEEP - 16))).unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, &root, flags, Mode::empty()).unwrap();
    let mut outside: HashSet<Id> = [top.join("outside"), top.join("limbo"), top.to_path_buf()]
        .iter()
        .map(|path| super::support::id_at(CWD, path.to_str().unwrap()))
        .collect();
    let mut canary = BTreeMap::new();
    for path in list(&top.join("outside")) {
        outside.insert(super::support::id_at(CWD, path.to_str().unwrap()));
        let content = fs::read(&path).unwrap_or_default();
        canary.insert(path, content);
    }
    let mut inside: Vec<_> = list(top)
        .into_iter()
        .map(|path| (super::support::id_at(CWD, path.to_str().unwrap()), path))
        .filter(|(id, _)| !outside.contains(id))
        .collect();
    inside.sort();
    Field {
        top: top.to_path_buf(),
        root: fd,
        outside,
        canary,
        inside,
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            out.extend(list(&path));
        }
        out.push(path);
    }
    out
}

/// A directory, which is held, for its path does not stay, and a name in it.
type Side = (OwnedFd, &'static str);

/// The two sides of each of [`FLIPS`].
struct Attacker(Vec<[Side; 2]>);

impl Attacker {
    /// While nothing has been moved yet.
    fn new(top: &Path) -> Self {
        let side = |path: &'static str| {
            let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(CWD, top.join(dir), flags, Mode::empty()).unwrap();
            (dir, name)
        };
        Self(
            FLIPS
                .iter()
                .map(|(one, two)| [side(one), side(two)])
                .collect(),
        )
    }

    /// Brings about the other state of one of them.
    fn flip(&self, which: usize) {
        let [(dir, name), (other, other_name)] = &self.0[which];
        let swap = |flags| rustix::fs::renameat_with(dir, *name, other, *other_name, flags);
        if swap(RenameFlags::EXCHANGE) == Err(Errno::NOENT)
            && swap(RenameFlags::NOREPLACE) == Err(Errno::NOENT)
        {
            rustix::fs::renameat_with(other, *other_name, dir, *name, RenameFlags::NOREPLACE)
                .unwrap();
        }
    }
}

/// The process that attacks until it is killed.
pub(crate) fn child() {
    let top = PathBuf::from(std::env::var_os(children::TOP).unwrap());
    let mut rng = Rng(std::env::var("STEADFAST_SEED").map_or(1, |s| s.parse().unwrap()));
    let attacker = Attacker::new(&top);
    let only = std::env::var(ONLY).map(|n| n.parse().unwrap());
    loop {
        let which = rng.below(FLIPS.len());
        attacker.flip(*only.as_ref().unwrap_or(&which));
    }
}

/// Down so far that outer levels are closed, and up again to the one that is exchanged.
fn deep() -> String {
    format!("w/{}{}", "d/".repeat(DEEP - 5), "../".repeat(DEEP - 5 - 16))
}

fn cases() -> Vec<Case> {
    let deep = deep();
    let paths = [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a/k",
        "a/b/up",
        "a/b/c/../../k",
        "f/",
        "d",
        "d/../f",
        "e",
        "e/../f",
        "g",
        "g/i",
        "h/i",
        "h/to_c",
        "nope",
        "../root/f",
        "w/d/d",
        &deep,
        "./a/../d/../e/../g/../f",
    ];
    // These are there whenever their directory is, so that O_CREAT makes no new state.
    let files = [
        "a/f",
        "a/b/c/f",
        "a/b/../f",
        "a/b/c/../../f",
        "a/b/up/f",
        "a/b/../../f",
        "f",
        "d/f",
        "e/f",
        "g/f",
        "g/i/f",
        "h/i/f",
        "h/i/j/../f",
        "h/i/j/f",
        "h/to_f",
        "h/to_c/f",
    ];
    let looks = [
        OFlags::PATH,
        OFlags::RDONLY,
        OFlags::RDONLY | OFlags::DIRECTORY,
        OFlags::PATH | OFlags::NOFOLLOW,
        OFlags::RDWR | OFlags::NOFOLLOW,
    ];
    let changes = [
        OFlags::RDWR | OFlags::CREATE,
        OFlags::WRONLY | OFlags::TRUNC,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
    ];
    let both = |path| {
        looks
            .iter()
            .chain(&changes)
            .map(move |flags| (path, *flags))
    };
    let only = |path| looks.iter().map(move |flags| (path, *flags));
    let mut out = Vec::new();
    for (path, flags) in paths
        .into_iter()
        .flat_map(only)
        .chain(files.into_iter().flat_map(both))
    {
        for resolve in [
            ResolveFlags::BENEATH,
            ResolveFlags::IN_ROOT,
            ResolveFlags::BENEATH | ResolveFlags::NO_XDEV,
        ] {
            let creates = flags.contains(OFlags::CREATE);
            out.push(Case {
                path: path.as_bytes().to_vec(),
                flags,
                mode: if creates {
                    Mode::RUSR | Mode::WUSR
                } else {
                    Mode::empty()
                },
                resolve,
            });
        }
    }
    out
}

type Answers = BTreeSet<Result<Id, i32>>;

fn ask(case: &Case, who: Who, root: &OwnedFd) -> Result<Id, i32> {
    case.open(who, root.as_fd())
        .map(id)
        .map_err(Errno::raw_os_error)
}

/// The answers to each case in every state that the attacker can make.
fn every_state(field: &Field, cases: &[Case]) -> Vec<Answers> {
    let who = if has_openat2() { Who::Raw } else { Who::Walk };
    let mut answers = vec![Answers::new(); cases.len()];
    // Where the root itself is makes no difference to what is beneath it.
    let flips = FLIPS.len() - 1;
    let attacker = Attacker::new(&field.top);
    for state in 0_u32..1 << flips {
        // Gray code: each state differs from the one before by one move.
        if state > 0 {
            attacker.flip(state.trailing_zeros() as usize);
        }
        for (case, answers) in cases.iter().zip(&mut answers) {
            answers.insert(ask(case, who, &field.root));
        }
    }
    // The last state of a Gray code is one move away from the first.
    attacker.flip(flips - 1);
    answers
}

fn is_inside(field: &Field, id: Id) -> bool {
    field
        .inside
        .binary_search_by(|(known, _)| known.cmp(&id))
        .is_ok()
}

/// Looks something up, and judges the answer.
fn look_up(field: &Field, case: &Case, who: Who, answers: &Answers) {
    let got = ask(case, who, &field.root);
    let path = super::support::show(&case.path);
    if let Ok(id) = got {
        assert!(
            !field.outside.contains(&id),
            "{who:?} opened {path} outside: {case:?}"
        );
        assert!(
            is_inside(field, id),
            "{who:?} opened something unknown: {path} {case:?}"
        );
    }
    // openat2 looks at the end whether what it found is still beneath the root.
    let moved = who != Who::Walk && got == Err(Errno::XDEV.raw_os_error());
    assert!(
        answers.contains(&got) || moved,
        "{who:?} {path}: {got:?} not in {answers:?}: {case:?}"
    );
}

/// Creates and removes with names of its own, and tries to remove what is only outside.
fn change(root: &Root, n: usize) {
    let explained = |e: steadfast::Error| {
        let errno = e.errno().unwrap();
        let known = [Errno::NOENT, Errno::XDEV, Errno::NOTDIR, Errno::LOOP];
        assert!(known.contains(&errno), "{e}");
    };
    let dirs = ["a", "a/b/c", "d", "e", "g", "h/i", "h/to_c", "a/b/up", "."];
    let dir = dirs[n % dirs.len()];
    let name = format!("{dir}/new-{n}");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    match root.open_with(&name, flags, Mode::RUSR) {
        Ok(_) => root.remove_file(&name).unwrap_or_else(explained),
        Err(e) => explained(e),
    }
    let name = format!("{dir}/new-dir-{n}");
    match root.create_dir(&name, Mode::RWXU) {
        Ok(()) => root.remove_dir(&name).unwrap_or_else(explained),
        Err(e) => explained(e),
    }
    explained(root.remove_file("a/only").unwrap_err());
    explained(root.remove_dir("a/empty").unwrap_err());
}

/// The attack is one: an open without protection gets outside.
fn wait_for_an_escape(field: &Field) {
    let start = Instant::now();
    while !rustix::fs::openat(&field.root, "a/f", OFlags::PATH, Mode::empty())
        .is_ok_and(|fd| field.outside.contains(&id(fd)))
    {
        assert!(start.elapsed() < FOREVER, "the attacker does nothing");
    }
}

#[test]
fn nothing_outside_is_reached_under_attack() {
    let dir = super::common::dir();
    let field = build(&fs::canonicalize(dir.path()).unwrap());
    let cases = cases();
    let answers = every_state(&field, &cases);
    let rounds = if long() { 1_000_000 } else { 10_000 };
    let mut who = vec![(Who::Walk, Backend::Walk), (Who::Auto, Backend::Auto)];
    if kernel_answers() {
        who.push((Who::Kernel, Backend::Auto));
    }
    let mut rng = Rng(7);
    let attacker = children::start("attacker", &field.top, &[]);
    let mut changes = 0;
    for (who, backend) in who {
        wait_for_an_escape(&field);
        let fd = field.root.try_clone().unwrap();
        let options = RootOptions::new().backend(backend).scope(Scope::Beneath);
        let root = options.over(fd.into());
        for n in 0..rounds {
            let at = rng.below(cases.len());
            look_up(&field, &cases[at], who, &answers[at]);
            if n % 8 == 0 {
                // Names that could not be removed are never used again.
                changes += 1;
                change(&root, changes);
            }
        }
        wait_for_an_escape(&field);
    }
    drop(attacker);
    let now: BTreeMap<_, _> = list(&field.top.join("outside"))
        .into_iter()
        .map(|path| (path.clone(), fs::read(&path).unwrap_or_default()))
        .collect();
    assert_eq!(now, field.canary, "something outside was changed");
}

/// Two deep trees of the same form change places all the time, so that the levels that the walk had closed
/// are not what they were when it comes back to them: it begins again, and its answer is in one of the two.
#[test]
fn a_walk_that_cannot_go_back_begins_again() {
    let dir = super::common::dir();
    let field = build(&fs::canonicalize(dir.path()).unwrap());
    let case = Case {
        path: deep().into_bytes(),
        flags: OFlags::PATH,
        mode: Mode::empty(),
        resolve: ResolveFlags::BENEATH,
    };
    let walk = || steadfast::sys::hook::scope(None, || ask(&case, Who::Walk, &field.root));
    let (here, calls) = walk();
    let once = calls.len();
    Attacker::new(&field.top).flip(DEEP_FLIP);
    let (there, _) = walk();
    assert_ne!(here, there);
    let attacker = children::start("attacker", &field.top, &[(ONLY, &DEEP_FLIP.to_string())]);
    let (mut again, mut walks) = (0, 0);
    let start = Instant::now();
    // Where attacker and walk share a processor, few walks meet it.
    while again < 100 && (again == 0 || walks < 20_000) {
        let (got, calls) = walk();
        assert!(got == here || got == there, "{got:?}");
        again += usize::from(calls.len() > once + once / 2);
        walks += 1;
        assert!(start.elapsed() < FOREVER, "no walk had to begin again");
    }
    drop(attacker);
    println!("{again} of {walks} walks began again");
}
