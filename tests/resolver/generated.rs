//! Random trees and paths: openat2, the walk and the model must agree on each.

use super::corpus::{USER, as_user, is_root};
use super::model::{Answer, Node, Tree, What};
use super::support::{Case, Id, Rng, Who, has_openat2, id, long, show, skipped};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Look-ups in one tree.
const PER_TREE: usize = 500;

/// Names are few, so that paths hit.
const NAMES: [&str; 6] = ["a", "b", "c", "l", "m", "dd"];

fn random_path(rng: &mut Rng, most: usize) -> Vec<u8> {
    let mut path = Vec::new();
    if rng.one_in(12) {
        path.push(b'/');
    }
    let parts = 1 + rng.below(most);
    for i in 0..parts {
        if i > 0 {
            path.push(b'/');
            if rng.one_in(20) {
                path.push(b'/');
            }
        }
        match rng.below(16) {
            0 => path.push(b'.'),
            1..=4 => path.extend_from_slice(b".."),
            5 if rng.one_in(20) => path.resize(path.len() + 255 + rng.below(2), b'n'),
            _ => path.extend_from_slice(rng.of(&NAMES).as_bytes()),
        }
    }
    if rng.one_in(6) {
        path.push(b'/');
    }
    path
}

fn random_tree(rng: &mut Rng) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![0];
    for _ in 0..12 + rng.below(24) {
        let dir = *rng.of(&dirs);
        let name = rng.of(&NAMES).as_bytes();
        let what = match rng.below(10) {
            0..=4 => What::Dir(BTreeMap::new()),
            5 => What::File,
            _ => What::Link(random_path(rng, 4)),
        };
        let is_dir = matches!(what, What::Dir(_));
        if let Some(new) = tree.add(dir, name, what)
            && is_dir
        {
            dirs.push(new);
        }
    }
    tree
}

fn random_case(rng: &mut Rng) -> Case {
    let mut resolve = if rng.one_in(2) {
        ResolveFlags::BENEATH
    } else {
        ResolveFlags::IN_ROOT
    };
    resolve.set(ResolveFlags::NO_SYMLINKS, rng.one_in(10));
    resolve.set(ResolveFlags::NO_MAGICLINKS, rng.one_in(10));
    resolve.set(ResolveFlags::NO_XDEV, rng.one_in(10));
    let mut flags = match rng.below(8) {
        0..=2 => OFlags::PATH,
        3 | 4 => OFlags::RDONLY,
        5 => *rng.of(&[OFlags::WRONLY, OFlags::RDWR, OFlags::TRUNC | OFlags::WRONLY]),
        6 => OFlags::CREATE | OFlags::RDWR,
        _ => OFlags::CREATE | OFlags::EXCL,
    };
    flags.set(OFlags::NOFOLLOW, rng.one_in(4));
    let creates = flags.contains(OFlags::CREATE);
    flags.set(OFlags::DIRECTORY, !creates && rng.one_in(4));
    let mode = if creates { Mode::RUSR } else { Mode::empty() };
    Case {
        path: random_path(rng, 7),
        flags,
        mode,
        resolve,
    }
}

/// A tree on the disk, and which inode is which node.
struct OnDisk {
    root: OwnedFd,
    paths: Vec<PathBuf>,
    nodes: HashMap<Id, Node>,
    openat2: bool,
    /// An unprivileged user asks.
    as_user: bool,
}

fn make(tree: &Tree, at: &Path) -> OnDisk {
    fs::create_dir(at).unwrap();
    let mut paths = vec![at.to_path_buf(); tree.nodes.len()];
    let mut nodes = HashMap::new();
    // A node comes after its directory.
    for node in 0..tree.nodes.len() {
        let path = paths[node].clone();
        match &tree.nodes[node].1 {
            What::Dir(entries) => {
                if node != 0 {
                    fs::create_dir(&path).unwrap();
                }
                for (name, child) in entries {
                    paths[*child] = path.join(std::ffi::OsStr::from_bytes(name));
                }
            }
            What::File => fs::write(&path, b"x").unwrap(),
            What::Link(text) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(text), &path).unwrap();
            }
        }
        let stat = rustix::fs::lstat(&path).unwrap();
        nodes.insert((stat.st_dev, stat.st_ino), node);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = rustix::fs::openat(CWD, at, flags, Mode::empty()).unwrap();
    OnDisk {
        root,
        paths,
        nodes,
        openat2: has_openat2(),
        as_user: false,
    }
}

/// Gives everything to the user, who may not do everything in each directory.
fn restrict(disk: &mut OnDisk, tree: &Tree, rng: &mut Rng) {
    for (path, (_, what)) in disk.paths.iter().zip(&tree.nodes).rev() {
        std::os::unix::fs::lchown(path, Some(USER), Some(USER)).unwrap();
        let mode = match what {
            What::Dir(_) => *rng.of(&[0o700, 0o700, 0o700, 0o700, 0o600, 0o300, 0o500, 0o000]),
            What::File => *rng.of(&[0o600, 0o400, 0o200, 0o000]),
            What::Link(_) => continue,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    disk.as_user = true;
}

/// The answer on the disk. What the open makes is removed again.
fn on_disk(disk: &OnDisk, case: &Case, who: Who) -> Answer {
    let open = || case.open(who, disk.root.as_fd());
    let fd = match if disk.as_user { as_user(open) } else { open() } {
        Ok(fd) => fd,
        Err(e) => return Answer::Fails(e),
    };
    if let Some(node) = disk.nodes.get(&id(&fd)) {
        return Answer::Opens(*node);
    }
    // Not known before, so it is new: it must be in one of our directories.
    let new = id(&fd);
    for (node, path) in disk.paths.iter().enumerate() {
        // Through a link it would list a directory of somebody else, where entries come and go.
        if !rustix::fs::lstat(path).is_ok_and(|s| s.st_mode & 0o170_000 == 0o040_000) {
            continue;
        }
        let Ok(entries) = fs::read_dir(path) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            let stat = rustix::fs::lstat(entry.path()).unwrap();
            if (stat.st_dev, stat.st_ino) == new {
                fs::remove_file(entry.path()).unwrap();
                return Answer::Makes(node);
            }
        }
    }
    panic!("{case:?}: {who:?} opened something outside of the root");
}

/// The kernel may refuse a path of more than 20 links at random, because it counts them again when it
/// starts over. The walk does not.
fn is_quirk(raw: Answer, model: Answer) -> bool {
    raw == Answer::Fails(Errno::LOOP) && model != raw
}

fn disagreement(tree: &Tree, disk: &OnDisk, case: &Case) -> Option<String> {
    let model = tree.open(case);
    let raw = if disk.openat2 {
        on_disk(disk, case, Who::Raw)
    } else {
        model
    };
    let walk = on_disk(disk, case, Who::Walk);
    if disk.as_user {
        // The model knows no permissions.
        let same = walk == raw || is_quirk(raw, walk);
        return (!same).then(|| format!("kernel {raw:?}, walk {walk:?}"));
    }
    if walk == model && (raw == model || is_quirk(raw, model)) {
        return None;
    }
    Some(format!("kernel {raw:?}, walk {walk:?}, model {model:?}"))
}

/// The shortest path that still makes them disagree, by leaving out one component after another.
fn shrink(tree: &Tree, disk: &OnDisk, case: &Case) -> Case {
    let mut best = case.clone();
    loop {
        let parts: Vec<&[u8]> = best.path.split(|b| *b == b'/').collect();
        let shorter = (0..parts.len()).find_map(|left_out| {
            let mut parts = parts.clone();
            parts.remove(left_out);
            let next = Case {
                path: parts.join(&b'/'),
                ..best.clone()
            };
            disagreement(tree, disk, &next).map(|_| next)
        });
        match shorter {
            Some(next) => best = next,
            None => return best,
        }
    }
}

fn run(seed: u64, trees: usize, user: bool) {
    let dir = super::common::dir();
    for n in 0..trees {
        let seed = seed + n as u64;
        let mut rng = Rng(seed);
        let tree = random_tree(&mut rng);
        let at = dir.path().join(n.to_string());
        let mut disk = make(&tree, &at);
        if user {
            restrict(&mut disk, &tree, &mut rng);
        }
        for _ in 0..PER_TREE {
            let case = random_case(&mut rng);
            if disagreement(&tree, &disk, &case).is_some() {
                let case = shrink(&tree, &disk, &case);
                let why = disagreement(&tree, &disk, &case);
                let nodes: Vec<String> = (0..tree.nodes.len())
                    .map(|i| format!("{i}: {:?} {:?}", disk.paths[i], tree.nodes[i].1))
                    .collect();
                panic!(
                    "seed {seed}: {case:?} \"{}\": {why:?}\n{}",
                    show(&case.path),
                    nodes.join("\n")
                );
            }
        }
        fs::remove_dir_all(&at).unwrap();
    }
}

fn seed() -> u64 {
    std::env::var("STEADFAST_SEED").map_or(1, |s| s.parse().unwrap())
}

#[test]
fn random_lookups_agree_with_kernel_and_model() {
    let lookups = if long() { 1_000_000 } else { 100_000 };
    run(seed(), lookups / PER_TREE, false);
}

#[test]
fn random_lookups_of_a_user_agree_with_the_kernel() {
    if !is_root() || !has_openat2() {
        skipped(
            "random_lookups_of_a_user_agree_with_the_kernel",
            "needs root and openat2",
        );
        return;
    }
    let lookups = if long() { 1_000_000 } else { 20_000 };
    run(seed(), lookups / PER_TREE, true);
}
