//! What stands at the target or at a temporary's name and is no file of ours.

use crate::common;
use crate::support::{mode, names, read, refused, replacing, temporaries};
use std::fs;
use std::os::unix::fs::symlink;
use steadfast::publish::{FileOptions, FolderOptions, SymlinkPolicy, Target};
use steadfast::sys::hook;
use steadfast::{ErrorKind, Root};

/// Elsewhere the new file takes the link's own mode, or is written through it.
#[test]
fn a_symlink_at_the_target_is_not_written_through_and_gives_no_mode() {
    let tmp = common::dir();
    let dir = tmp.path().join("root");
    fs::create_dir(&dir).unwrap();
    fs::write(tmp.path().join("outside"), "outside").unwrap();
    let root = Root::open(&dir).unwrap();
    for text in ["../outside", "nowhere", "/etc/nowhere"] {
        symlink(text, dir.join("l")).unwrap();
        for options in replacing(&root, "l") {
            refused(options.write(&root, "l", "new"), ErrorKind::SymlinkLoop);
        }
        if text != "nowhere" {
            let follow = FileOptions::new().symlink(SymlinkPolicy::Follow);
            refused(follow.write(&root, "l", "new"), ErrorKind::Escape);
        }
        assert_eq!(names(&dir), ["l"], "nothing was made where the link leads");
        let replace = FileOptions::new().symlink(SymlinkPolicy::Replace);
        replace.write(&root, "l", "new").unwrap();
        let made = fs::symlink_metadata(dir.join("l")).unwrap();
        assert!(made.is_file());
        fs::write(dir.join("plain"), "").unwrap();
        assert_eq!(
            mode(&dir.join("l")),
            mode(&dir.join("plain")),
            "that of any new file"
        );
        assert_eq!(read(&tmp.path().join("outside")), "outside");
        for name in ["l", "plain"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
}

/// Elsewhere a fixed name is opened without `O_EXCL`: a user's own file is lost, or a planted link written
/// through.
#[test]
fn names_that_others_use_for_temporaries_are_left_alone() {
    let tmp = common::dir();
    let dir = tmp.path().join("root");
    fs::create_dir(&dir).unwrap();
    fs::write(tmp.path().join("outside"), "outside").unwrap();
    let root = Root::open(&dir).unwrap();
    let planted = [
        ".f.tmp",
        "f.tmp",
        ".f.fstx-tmp",
        ".tmpf",
        "f~",
        ".sf-",
        ".sf-t",
        ".f.new",
    ];
    for (n, name) in planted.iter().enumerate() {
        if n % 2 == 0 {
            fs::write(dir.join(name), "mine").unwrap();
        } else {
            symlink("../outside", dir.join(name)).unwrap();
        }
    }
    let mut before = names(&dir);
    FileOptions::new().write(&root, "f", "1").unwrap();
    for options in replacing(&root, "f") {
        options.write(&root, "f", "2").unwrap();
    }
    before.push("f".to_owned());
    before.sort();
    assert_eq!(names(&dir), before);
    for (n, name) in planted.iter().enumerate() {
        let want = if n % 2 == 0 { "mine" } else { "outside" };
        assert_eq!(read(&dir.join(name)), want);
    }
}

/// The numbers that follow `seen` in the library's sequence of names (SplitMix64, undone).
fn following(seen: u64, count: u64) -> impl Iterator<Item = u64> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    const FACTORS: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
    fn unshift(value: u64, by: u32) -> u64 {
        let mut x = value;
        for _ in 0..64 / by {
            x = value ^ (x >> by);
        }
        x
    }
    fn inverse(factor: u64) -> u64 {
        // Newton: each step doubles the number of right bits.
        let mut x = factor;
        for _ in 0..6 {
            x = x.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(x)));
        }
        x
    }
    let mut z = unshift(seen, 31).wrapping_mul(inverse(FACTORS[1]));
    z = unshift(z, 27).wrapping_mul(inverse(FACTORS[0]));
    let state = unshift(z, 30);
    (1..=count).map(move |n| {
        let mut z = state.wrapping_add(STEP.wrapping_mul(n));
        z = (z ^ (z >> 30)).wrapping_mul(FACTORS[0]);
        z = (z ^ (z >> 27)).wrapping_mul(FACTORS[1]);
        z ^ (z >> 31)
    })
}

/// Whoever sees one temporary can compute the next names; what is planted there is passed over.
#[test]
fn a_planted_temporary_is_neither_used_nor_removed() {
    let tmp = common::dir();
    let dir = tmp.path().join("root");
    fs::create_dir(&dir).unwrap();
    fs::write(tmp.path().join("outside"), "outside").unwrap();
    let root = Root::open(&dir).unwrap();
    // Other tests of this process draw names, too: until a planted one was met.
    for _ in 0..1000 {
        let pending = FileOptions::new().begin(&root, "f").unwrap();
        let seen = temporaries(&dir).remove(0);
        drop(pending);
        let number = u64::from_str_radix(&seen[5..21], 16).unwrap();
        let planted: Vec<_> = following(number, 12)
            .map(|n| {
                let name = format!(".sf-t{n:016x}");
                format!("{name}{:08x}", crc32c::crc32c(name.as_bytes()))
            })
            .collect();
        for name in &planted {
            symlink("../outside", dir.join(name)).unwrap();
        }
        let write = || FileOptions::new().write(&root, "f", "new");
        let (done, calls) = hook::scope(None, write);
        done.unwrap();
        for name in &planted {
            assert!(dir.join(name).is_symlink());
            fs::remove_file(dir.join(name)).unwrap();
        }
        assert_eq!(names(&dir), ["f"]);
        assert!(fs::symlink_metadata(dir.join("f")).unwrap().is_file());
        assert_eq!(read(&tmp.path().join("outside")), "outside");
        fs::remove_file(dir.join("f")).unwrap();
        if calls.iter().filter(|c| **c == "openat").count() > 1 {
            return;
        }
    }
    panic!("no planted name was met");
}

/// Elsewhere opening it for reading waits for ever.
#[test]
fn a_fifo_at_the_target_is_refused_at_once() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let fifo = steadfast::sys::Mode::from_raw_mode(0o600);
    steadfast::sys::mkfifoat(&root, c"p", fifo).unwrap();
    for options in [
        FileOptions::new(),
        FileOptions::new().target(Target::Replace),
    ] {
        refused(options.write(&root, "p", "new"), ErrorKind::NotAFile);
    }
    let new = FileOptions::new().target(Target::CreateNew);
    refused(new.write(&root, "p", "new"), ErrorKind::AlreadyExists);
    refused(
        FolderOptions::new().begin(&root, "p"),
        ErrorKind::NotADirectory,
    );
    assert_eq!(names(tmp.path()), ["p"]);
}

/// Also one that takes the file's place between the look and the opening.
#[test]
fn a_fifo_that_takes_the_place_of_the_target_does_not_block() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let bits = steadfast::sys::Mode::from_raw_mode(0o600);
    steadfast::sys::mkfifoat(&root, c"p", bits).unwrap();
    fs::write(tmp.path().join("f"), "old").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (p, f) = (c"p", c"f");
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(&root, p, &root, f, exchange);
            }
        });
        for _ in 0..300 {
            // Whatever it answers, it answers.
            let _ = FileOptions::new().begin(&root, "f").map(drop);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(names(tmp.path()), ["f", "p"]);
}
