//! The kernel, the walk and a model in memory must agree on every path, errno for errno, and none may lead
//! out of the root.
//!
//! The input is a small program: it builds a tree, then opens paths beneath it with openat2, with the walk,
//! and in the model.

#![no_main]
#![allow(dead_code)] // The tests that the model is from use all of it.

#[path = "../../tests/resolver/model.rs"]
mod model;

/// What the model calls its questions.
mod support {
    use rustix::fs::{OFlags, ResolveFlags};

    #[derive(Clone, Debug)]
    pub(crate) struct Case {
        pub(crate) path: Vec<u8>,
        pub(crate) flags: OFlags,
        pub(crate) resolve: ResolveFlags,
    }
}

use libfuzzer_sys::fuzz_target;
use model::{Answer, Node, Tree, What};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use steadfast::{Backend, Root, RootOptions, Scope};
use steadfast_fuzz::input::Input;
use support::Case;

/// What paths and link texts are made of. Few names, so that they meet.
const PIECES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"dir",
    b"/",
    b"//",
    b"..",
    b".",
    b"../",
    b"./",
    b"/a",
    b"/..",
    b"b/",
    b"\xff",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"outside",
];
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"dir", b"\xff", b"outside"];
/// Open flags, chosen by the bits of a byte.
const FLAGS: [OFlags; 8] = [
    OFlags::PATH,
    OFlags::DIRECTORY,
    OFlags::NOFOLLOW,
    OFlags::CREATE,
    OFlags::EXCL,
    OFlags::WRONLY,
    OFlags::TRUNC,
    OFlags::NONBLOCK,
];

/// Up to 15 pieces.
fn path(input: &mut Input<'_>) -> Vec<u8> {
    let pieces = input.below(16);
    (0..pieces)
        .flat_map(|_| input.of(&PIECES))
        .copied()
        .collect()
}

/// What the kernel refuses before it looks at the path.
fn is_valid(flags: OFlags) -> bool {
    let with_path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    (!flags.contains(OFlags::PATH) || with_path.contains(flags))
        && !flags.contains(OFlags::CREATE | OFlags::DIRECTORY)
}

struct Disk {
    top: PathBuf,
    paths: Vec<PathBuf>,
    nodes: HashMap<u64, Node>,
}

impl Disk {
    fn new(tree: &Tree, top: PathBuf) -> Self {
        let mut out = Self {
            paths: vec![top.clone(); tree.nodes.len()],
            top,
            nodes: HashMap::new(),
        };
        // A node comes after its directory.
        for (node, (_, what)) in tree.nodes.iter().enumerate() {
            let path = out.paths[node].clone();
            match what {
                What::Dir(entries) => {
                    fs::create_dir(&path).unwrap();
                    for (name, child) in entries {
                        out.paths[*child] = path.join(OsStr::from_bytes(name));
                    }
                }
                What::File => fs::write(&path, "").unwrap(),
                What::Link(text) => symlink(OsStr::from_bytes(text), &path).unwrap(),
            }
            let ino = fs::symlink_metadata(&path).unwrap().ino();
            out.nodes.insert(ino, node);
        }
        out
    }

    /// The answer on the disk. What the open makes is removed again.
    fn answer(&self, root: &Root, case: &Case) -> Answer {
        let mode = match case.flags.contains(OFlags::CREATE) {
            true => Mode::from_raw_mode(0o640),
            false => Mode::empty(),
        };
        let path = Path::new(OsStr::from_bytes(&case.path));
        let fd = match root.open_with(path, case.flags, mode) {
            Ok(fd) => fd,
            Err(e) => {
                let errno = e.raw_os_error().unwrap_or_else(|| panic!("{case:?}: {e}"));
                return Answer::Fails(Errno::from_raw_os_error(errno));
            }
        };
        let ino = rustix::fs::fstat(&fd).unwrap().st_ino;
        if let Some(node) = self.nodes.get(&ino) {
            return Answer::Opens(*node);
        }
        // Not known before, so it is new: it must be in one of our directories.
        for (node, dir) in self.paths.iter().enumerate() {
            if !fs::symlink_metadata(dir).unwrap().is_dir() {
                continue;
            }
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.metadata().unwrap().ino() == ino {
                    fs::remove_file(entry.path()).unwrap();
                    return Answer::Makes(node);
                }
            }
        }
        panic!("{case:?} leads out of {:?}", self.top);
    }
}

fn build(input: &mut Input<'_>) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![0];
    tree.add(0, b"dir", What::Dir(BTreeMap::new()))
        .inspect(|d| dirs.push(*d));
    for _ in 0..input.below(16) {
        let (dir, name) = (input.of(&dirs), input.of(&NAMES));
        let what = match input.below(4) {
            0 => What::Dir(BTreeMap::new()),
            1 => What::File,
            // The kernel makes no empty one.
            _ => What::Link(
                Some(path(input))
                    .filter(|t| !t.is_empty())
                    .unwrap_or(b"a".into()),
            ),
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

fn run(data: &[u8]) {
    let mut input = Input(data);
    let temp = steadfast_fuzz::fresh();
    fs::write(temp.path().join("outside"), "").unwrap();
    let bits = input.byte();
    let tree = build(&mut input);
    let disk = Disk::new(&tree, temp.path().join("root"));
    let mut resolve = match bits & 1 == 0 {
        true => ResolveFlags::BENEATH,
        false => ResolveFlags::IN_ROOT,
    };
    resolve.set(ResolveFlags::NO_SYMLINKS, bits & 2 != 0);
    resolve.set(ResolveFlags::NO_MAGICLINKS, bits & 4 != 0);
    resolve.set(ResolveFlags::NO_XDEV, bits & 8 != 0);
    let open = |backend| {
        RootOptions::new()
            .scope(match bits & 1 == 0 {
                true => Scope::Beneath,
                false => Scope::InRoot,
            })
            .backend(backend)
            .no_symlinks(bits & 2 != 0)
            .no_magic_links(bits & 4 != 0)
            .no_mount_crossing(bits & 8 != 0)
            .open(&disk.top)
            .unwrap()
    };
    let (kernel, walk) = (open(Backend::Kernel), open(Backend::Walk));
    for _ in 0..12 {
        if input.is_over() {
            break;
        }
        let bits = input.byte();
        let flags = (0..8)
            .filter(|n| bits & 1 << n != 0)
            .fold(OFlags::empty(), |all, n| all | FLAGS[n]);
        let case = Case {
            path: path(&mut input),
            flags,
            resolve,
        };
        let theirs = disk.answer(&kernel, &case);
        let ours = disk.answer(&walk, &case);
        let expected = match is_valid(flags) {
            true => tree.open(&case),
            false => Answer::Fails(Errno::INVAL),
        };
        // The kernel counts links again when it starts over, and may refuse more than 20 of them.
        let quirk = theirs == Answer::Fails(Errno::LOOP);
        assert!(
            ours == expected && (theirs == expected || quirk),
            "kernel {theirs:?}, walk {ours:?}, model {expected:?}: {case:?} in {tree:?}"
        );
    }
}

fuzz_target!(
    init: steadfast_fuzz::fixed::write_if_asked(),
    |data: &[u8]| run(data)
);
