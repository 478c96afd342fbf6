//! The job that the crate is for: a live folder is replaced, again and again, while others read it.
//!
//! The name is never missing, and whoever has opened the folder sees one version and no other, as long as
//! that is there at all.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;
mod site;

use common::{long, memory_dir as dir};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use site::{Random, Site, VERSION, content, temporaries, version_of};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use steadfast::publish::{FolderOptions, FolderTarget, swap};
use steadfast::sys::hook;
use steadfast::tree::{CopyOptions, RemoveOptions};
use steadfast::{DiskState, Durability, ErrorKind, Root};

const DIR: &str = "STEADFAST_MAIN_JOB_DIR";
const LIVE: &str = "live";
const NEXT: &str = "next";
const KEPT: &str = "kept";
const FILES: usize = 2000;
const READERS: u64 = 3;

/// Two sites that share few names; even versions are of the one, odd ones of the other.
fn sites() -> [Site; 2] {
    [Site::new(1, FILES), Site::new(2, FILES + 500)]
}

fn of(sites: &[Site; 2], version: u64) -> &Site {
    &sites[usize::from(version % 2 == 1)]
}

/// What readers have seen so far.
#[derive(Default)]
struct Seen {
    opened: AtomicU64,
    files: AtomicU64,
    versions: AtomicU64,
    retired: AtomicU64,
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

fn get(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// How often readers open the folder at the least, and how often they find another version than before.
const OPENED: u64 = 100;
const VERSIONS: u64 = 4;

/// Opens the live folder and reads some of it, until told to stop.
fn read_along(live: &Path, sites: &[Site; 2], seed: u64, seen: &Seen, stop: impl Fn() -> bool) {
    let (mut random, mut last) = (Random(seed), u64::MAX);
    while !stop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, live, flags, Mode::empty()).expect("the name is missing");
        count(&seen.opened);
        // Of a folder that was replaced meanwhile the rest may be gone, but nothing else may be there.
        let read = |path: &Path| -> Option<Vec<u8>> {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&folder, path, flags, Mode::empty()) {
                Ok(fd) => {
                    let mut bytes = Vec::new();
                    File::from(fd).read_to_end(&mut bytes).unwrap();
                    Some(bytes)
                }
                Err(Errno::NOENT) => {
                    let held = rustix::fs::fstat(&folder).unwrap();
                    let now = fs::metadata(live).expect("the name is missing");
                    assert_ne!(
                        held.st_ino,
                        now.ino(),
                        "{path:?} is missing in the live folder"
                    );
                    None
                }
                Err(e) => panic!("{path:?}: {e}"),
            }
        };
        let Some(bytes) = read(Path::new(VERSION)) else {
            count(&seen.retired);
            continue;
        };
        let version = version_of(&bytes);
        if version != last {
            count(&seen.versions);
            last = version;
        }
        let site = of(sites, version);
        for n in 0..20 {
            if n == 10 {
                // Long enough for the folder to be replaced under the reader, who leaves it the processor.
                std::thread::sleep(Duration::from_millis(1 + random.next() % 20));
            }
            let (path, number, len) = &site.files[random.below(site.files.len())];
            let Some(bytes) = read(path) else {
                count(&seen.retired);
                break;
            };
            assert!(
                bytes == content(version, *number, *len),
                "{path:?}: {} bytes of version {} in version {version}",
                bytes.len(),
                version_of(&bytes),
            );
            count(&seen.files);
        }
    }
}

/// A reader that is a process of its own. On its own it does nothing.
#[test]
fn reader() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let seen = Seen::default();
    let stop = || dir.join("stop").exists() && get(&seen.opened) >= OPENED;
    read_along(&dir.join(LIVE), &sites(), 77, &seen, stop);
    let numbers = [&seen.opened, &seen.files, &seen.versions].map(get);
    println!("SEEN {} {} {}", numbers[0], numbers[1], numbers[2]);
}

/// One publication after the other, each in another way, until that is enough of them. Gives the last version
/// and the number of publications.
fn publish_along(
    dir: &Path,
    root: &Root,
    sites: &[Site; 2],
    enough: impl Fn() -> bool,
) -> (u64, u64) {
    let (mut version, mut publications) = (0, 0);
    let make_next = |version| {
        fs::create_dir(dir.join(NEXT)).unwrap();
        let next = Root::open(dir.join(NEXT)).unwrap();
        of(sites, version).fill(&next, version).unwrap();
    };
    let remove = |name| {
        root.remove_tree(name, &RemoveOptions::new())
            .map(drop)
            .unwrap()
    };
    for round in 0.. {
        // Each way once at the least.
        if round >= 5 && enough() {
            break;
        }
        let before = version;
        version += 1;
        match round % 5 {
            // Staged beside the live one.
            0 => {
                let folder = FolderOptions::new().begin(root, LIVE).unwrap();
                of(sites, version).fill(folder.root(), version).unwrap();
                folder.commit().unwrap();
            }
            // Made elsewhere, forth and back.
            1 => {
                make_next(version);
                for _ in 0..40 {
                    swap(root, LIVE, root, NEXT, Durability::Full).unwrap();
                    publications += 1;
                }
                swap(root, NEXT, root, LIVE, Durability::None).unwrap();
                of(sites, before).check(&dir.join(NEXT), before);
                remove(NEXT);
            }
            // Made elsewhere, moved into place.
            2 => {
                make_next(version);
                let options = FolderOptions::new().target(FolderTarget::Replace);
                options.publish(root, NEXT, root, LIVE).unwrap();
            }
            // The old one is kept.
            3 => {
                let folder = FolderOptions::new()
                    .keep_old(KEPT)
                    .begin(root, LIVE)
                    .unwrap();
                of(sites, version).fill(folder.root(), version).unwrap();
                folder.commit().unwrap();
                of(sites, before).check(&dir.join(KEPT), before);
                remove(KEPT);
            }
            // A copy, of which the source stays.
            _ => {
                make_next(version);
                let watch = &mut |_: &_| std::ops::ControlFlow::Continue(());
                let options = FolderOptions::new();
                options
                    .copy(root, NEXT, root, LIVE, &CopyOptions::new(), watch)
                    .unwrap();
                of(sites, version).check(&dir.join(NEXT), version);
                remove(NEXT);
            }
        }
        publications += 1;
        of(sites, version).check(&dir.join(LIVE), version);
        assert_eq!(temporaries(dir), [""; 0].map(std::path::PathBuf::from));
    }
    (version, publications)
}

#[test]
fn a_live_folder_is_replaced_while_others_read_it() {
    let tmp = dir();
    let dir = tmp.path();
    let root = Root::open(dir).unwrap();
    let sites = sites();
    let folder = FolderOptions::new()
        .target(FolderTarget::CreateNew)
        .begin(&root, LIVE)
        .unwrap();
    sites[0].fill(folder.root(), 0).unwrap();
    folder.commit().unwrap();
    sites[0].check(&dir.join(LIVE), 0);

    if hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        let folder = FolderOptions::new().begin(&root, LIVE).unwrap();
        sites[1].fill(folder.root(), 1).unwrap();
        let error = folder.commit().unwrap_err();
        let state = (error.kind(), error.disk_state());
        assert_eq!(state, (ErrorKind::Unsupported, DiskState::Unchanged));
        sites[0].check(&dir.join(LIVE), 0);
        return;
    }

    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "reader", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped());
    let child = common::spawn(&mut command);
    let time = match (long(), common::switched_off()) {
        (true, _) => 120,
        (false, false) => 8,
        // What is switched off changes how a version is made, not how readers meet it.
        (false, true) => 3,
    };
    let (start, time) = (Instant::now(), Duration::from_secs(time));
    let (stop, seen, looks) = (AtomicBool::new(false), Seen::default(), AtomicU64::new(0));
    let (version, publications) = std::thread::scope(|scope| {
        // However it ends, the readers end as well.
        struct Stop<'a>(&'a AtomicBool, &'a Path);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
                let _ = File::create(self.1.join("stop")).and_then(|mut f| f.write_all(b""));
            }
        }
        let _stop = Stop(&stop, dir);
        let mut readers = Vec::new();
        for seed in 0..READERS {
            let (sites, stop, seen) = (&sites, &stop, &seen);
            readers.push(scope.spawn(move || {
                let stopped = || stop.load(Ordering::Relaxed);
                read_along(&dir.join(LIVE), sites, seed, seen, stopped);
            }));
        }
        // The name alone, as often as can be: a window of some microseconds is met.
        scope.spawn(|| {
            let live = dir.join(LIVE);
            while !stop.load(Ordering::Relaxed) {
                fs::symlink_metadata(&live).expect("the name is missing");
                count(&looks);
            }
        });
        // How fast the readers are is up to the scheduler: until they have met enough.
        publish_along(dir, &root, &sites, || {
            let met = get(&seen.opened) > OPENED && get(&seen.versions) > VERSIONS;
            let failed = readers.iter().any(|r| r.is_finished());
            assert!(met || start.elapsed() < time + common::FOREVER);
            failed || met && start.elapsed() > time
        })
    });
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "the reading process failed: {text}"
    );
    let line = text
        .lines()
        .find_map(|l| l.split_once("SEEN "))
        .unwrap_or_else(|| panic!("{text}"));
    let process: Vec<u64> = line
        .1
        .split(' ')
        .map(|n| n.trim().parse().unwrap())
        .collect();

    fs::remove_file(dir.join("stop")).unwrap();
    // One tree, byte for byte, and nothing else.
    of(&sites, version).check(&dir.join(LIVE), version);
    let names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, [LIVE]);
    println!(
        "{publications} publications of some {FILES} files; {READERS} threads opened \
         the folder {} times and read {} files; a process {} and {}; \
         another version than before {} times, retired under a reader {} times; {} looks at the name",
        get(&seen.opened),
        get(&seen.files),
        process[0],
        process[1],
        get(&seen.versions) + process[2],
        get(&seen.retired),
        get(&looks),
    );
}
