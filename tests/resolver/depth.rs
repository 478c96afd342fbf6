//! Deep paths with few descriptors.

use super::support::{Case, Id, Who, has_openat2, id, kernel_answers};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, OwnedFd};
use steadfast::root::bare;

/// What a process may have open during this test.
const FILES: u64 = 64;
/// Levels of the tree: as many as a path of 4,095 bytes can name.
const LEVELS: usize = 2_000;

fn open_dir(dir: impl AsFd, name: &str) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).unwrap()
}

/// Directories in each other, all called `d`, and who they are; the root first.
fn dig(root: &OwnedFd, levels: usize) -> Vec<Id> {
    let mut ids = vec![id(root)];
    let mut at = open_dir(root, ".");
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = open_dir(&at, "d");
        ids.push(id(&at));
    }
    let flags = OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(&at, "f", flags, Mode::RUSR).unwrap();
    ids
}

/// Takes the tree apart from above: recursion would need a descriptor or a stack for each level.
fn fill_in(root: &OwnedFd, levels: usize) {
    let mut at = open_dir(root, ".");
    for _ in 0..levels {
        at = open_dir(&at, "d");
    }
    rustix::fs::unlinkat(&at, "f", rustix::fs::AtFlags::empty()).unwrap();
    for _ in 0..levels {
        at = open_dir(&at, "..");
        rustix::fs::unlinkat(&at, "d", rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
}

fn case(path: &str, flags: OFlags) -> Case {
    Case {
        path: path.as_bytes().to_vec(),
        flags,
        mode: Mode::empty(),
        resolve: ResolveFlags::BENEATH,
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// In a process of its own: the limit on open files is the process's, and other tests open files.
pub(crate) fn child() {
    let top = std::path::PathBuf::from(std::env::var_os("STEADFAST_TEST_TOP").unwrap());
    let root = open_dir(CWD, top.to_str().unwrap());
    let ids = dig(&root, LEVELS);
    let old = getrlimit(Resource::Nofile);
    let new = Rlimit {
        current: Some(FILES),
        maximum: old.maximum,
    };
    setrlimit(Resource::Nofile, new).unwrap();
    let before = open_files();

    let mut askable = vec![Who::Walk, Who::Auto];
    if has_openat2() {
        askable.push(Who::Raw);
    }
    if kernel_answers() {
        askable.push(Who::Kernel);
    }
    let down = |levels: usize| "d/".repeat(levels);
    let up = |levels: usize| "../".repeat(levels);
    let expect = |path: &str, flags: OFlags, want: Result<Id, Errno>| {
        for who in &askable {
            let got = case(path, flags).open(*who, root.as_fd());
            if let Ok(fd) = &got {
                let cloexec = rustix::io::fcntl_getfd(fd).unwrap();
                assert!(cloexec.contains(FdFlags::CLOEXEC), "{who:?}");
            }
            let short = &path[..path.len().min(40)];
            assert_eq!(
                got.map(id),
                want,
                "{who:?}: {} bytes {short}...",
                path.len()
            );
        }
    };
    let dir = OFlags::PATH | OFlags::DIRECTORY;
    expect(&down(LEVELS), dir, Ok(ids[LEVELS]));
    expect(&down(LEVELS), OFlags::RDONLY, Ok(ids[LEVELS]));
    expect(&(down(LEVELS) + "f/.."), dir, Err(Errno::NOTDIR));
    expect(&(down(LEVELS) + "nope"), dir, Err(Errno::NOENT));
    expect(&(down(LEVELS) + &"/".repeat(95)), dir, Ok(ids[LEVELS]));
    expect(
        &(down(LEVELS) + &"/".repeat(96)),
        dir,
        Err(Errno::NAMETOOLONG),
    );
    // Down and back up: by every number of levels near the window, and all the way.
    for back in (0..80).chain([100, 200, 300, 500, 700, 800]) {
        expect(&(down(800) + &up(back)), dir, Ok(ids[800 - back]));
    }
    expect(&(down(800) + &up(800) + "d"), dir, Ok(ids[1]));
    expect(&(down(800) + &up(801)), dir, Err(Errno::XDEV));
    // Up and down again, over levels that had been closed.
    let zigzag = down(400) + &up(300) + &down(300) + &up(350) + &down(100);
    expect(&zigzag, dir, Ok(ids[150]));
    // The same through a link (of a length that every file system takes).
    let text = |n: usize, m: usize| down(n) + up(m).trim_end_matches('/');
    rustix::fs::symlinkat(text(200, 100), &root, "far").unwrap();
    expect("far", dir, Ok(ids[100]));
    expect(&("far/".to_owned() + &up(100)), dir, Ok(ids[0]));
    expect(&("far/".to_owned() + &up(101)), dir, Err(Errno::XDEV));
    expect(&("far/".to_owned() + &text(700, 650)), dir, Ok(ids[150]));
    rustix::fs::unlinkat(&root, "far", rustix::fs::AtFlags::empty()).unwrap();

    // The path found is the one walked along.
    let long = down(800) + &up(300);
    let (fd, path) =
        bare::canonical(root.as_fd(), long.as_bytes(), dir, ResolveFlags::BENEATH).unwrap();
    assert_eq!(id(&fd), ids[500]);
    assert_eq!(path, down(500).trim_end_matches('/').as_bytes());
    drop(fd);

    assert_eq!(open_files(), before, "descriptors were left open");
    fill_in(&root, LEVELS);
}

#[test]
fn deep_paths_need_few_descriptors() {
    let dir = super::common::dir();
    super::children::run("depth", dir.path(), &[]);
}
