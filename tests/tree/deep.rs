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
    // Each sync waits for the disk: all levels only in the long form.
    let long = std::env::var_os("STEADFAST_LONG").is_some();
    let levels = if long { LEVELS } else { 100 };
    let mut at = root.open_dir("copy").unwrap();
    for _ in levels..LEVELS {
        at = Root::from(at).open_dir("d").unwrap();
    }
    let done = sync(&at, SyncStrategy::EachFile).unwrap();
    let levels = levels as u64;
    let (dirs, links) = (levels + 1 + levels / 25, levels / 100);
    assert_eq!((done.dirs, done.files), (dirs, levels + links));
    assert!(sync(&root, SyncStrategy::Auto).unwrap().whole_file_system);
    let all = |top: &str| {
        let done = remove(&root, &name(top), &RemoveOptions::new()).unwrap();
        assert_eq!((done.dirs, done.files), (DIRS, LEVELS as u64 + LINKS));
    };
    all("copy");
    // Nearly none left: outer levels are closed as needed.
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    let fewer = Rlimit {
        current: Some(open + 8),
        ..limit
    };
    setrlimit(Resource::Nofile, fewer).unwrap();
    assert_eq!(count("t"), want);
    all("t");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
