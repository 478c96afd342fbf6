//! Two thousand levels with 64 descriptors.

use crate::common;
use crate::support::{is_child, name, run_child};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;
use steadfast::Root;
use steadfast::tree::{CopyOptions, Event, RemoveOptions, SyncStrategy, Walk, copy, remove, sync};

const LEVELS: usize = 2000;

/// A chain of directories `d` in `t`, a file in each, a link to it from each 100th in the next one, and two
/// more directories in each 50th.
fn build(dir: &Path) {
    let (mode, flags) = (Mode::RWXU, OFlags::DIRECTORY | OFlags::RDONLY);
    let top = dir.join("t");
    fs::create_dir(&top).unwrap();
    let mut at = rustix::fs::openat(CWD, &top, flags, mode).unwrap();
    for n in 0..LEVELS {
        rustix::fs::mkdirat(&at, "d", mode).unwrap();
        rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, mode).unwrap();
        let below = rustix::fs::openat(&at, "d", flags, mode).unwrap();
        if n % 100 == 0 {
            rustix::fs::linkat(&at, "f", &below, "link", rustix::fs::AtFlags::empty()).unwrap();
        }
        if n % 50 == 0 {
            // Before and after `d` in any listing.
            for extra in ["a", "z"] {
                rustix::fs::mkdirat(&at, extra, mode).unwrap();
            }
        }
        at = below;
    }
}

const DIRS: u64 = LEVELS as u64 + 1 + 2 * LEVELS as u64 / 50;
const LINKS: u64 = LEVELS as u64 / 100;

#[test]
fn deep_trees_need_few_descriptors() {
    const TEST: &str = "deep::deep_trees_need_few_descriptors";
    if !is_child(TEST) {
        run_child(TEST);
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(64),
        ..limit
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let dir = common::dir();
    build(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let count = |top: &str| {
        let (mut dirs, mut files, mut longest) = (0, 0, 0);
        let mut walk = Walk::new(&root, &name(top)).unwrap();
        while let Some(event) = walk.next().unwrap() {
            match event {
                Event::Leave(_) => dirs += 1,
                Event::Other(e) => {
                    files += 1;
                    longest = longest.max(e.depth());
                    assert!(e.metadata().unwrap().is_some());
                }
                _ => {}
            }
        }
        (dirs, files, longest)
    };
    let want = (DIRS, LEVELS as u64 + LINKS, LEVELS);
    assert_eq!(count("t"), want);
    let done = copy(&root, &name("t"), &root, &name("copy"), &CopyOptions::new()).unwrap();
    assert_eq!(
        (done.dirs, done.files, done.hard_links),
        (DIRS, LEVELS as u64, LINKS)
    );
    assert_eq!(count("copy"), want);
    let done = sync(root.open_dir("copy").unwrap(), SyncStrategy::EachFile).unwrap();
    assert_eq!((done.dirs, done.files), (DIRS, LEVELS as u64 + LINKS));
    assert!(sync(&root, SyncStrategy::Auto).unwrap().whole_file_system);
    for top in ["t", "copy"] {
        let done = remove(&root, &name(top), &RemoveOptions::new()).unwrap();
        assert_eq!((done.dirs, done.files), (DIRS, LEVELS as u64 + LINKS));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    // Nearly none left: outer levels are closed as needed.
    build(dir.path());
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(open + 8),
            ..limit
        },
    )
    .unwrap();
    assert_eq!(count("t"), want);
    copy(&root, &name("t"), &root, &name("copy"), &CopyOptions::new()).unwrap();
    assert_eq!(count("copy"), want);
    for top in ["t", "copy"] {
        remove(&root, &name(top), &RemoveOptions::new()).unwrap();
    }
}
