//! Somebody swaps directories with symlinks all the while: nothing outside is reached.

use crate::common;
use crate::support::{assert_same, list, name, snapshot};
use rustix::fs::{Mode, RenameFlags};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast::sys::FileType;
use steadfast::tree::{self, CopyOptions, Event, RemoveOptions, copy, remove};
use steadfast::{ErrorKind, Root, RootOptions};

/// At least this many rounds, and then until enough came through.
fn rounds() -> usize {
    if std::env::var_os("STEADFAST_LONG").is_some() {
        5000
    } else {
        100
    }
}

/// Whether to go on after `done` rounds, of which `through` came through: how many do is up to the scheduler.
fn more(done: &mut usize, through: usize) -> bool {
    *done += 1;
    let enough = *done > rounds() && through > rounds() / 10;
    assert!(enough || *done < 1000 * rounds(), "{through} of {done}");
    !enough
}

/// Outside: what must neither go nor be seen inside.
fn outside(dir: &Path) {
    fs::create_dir_all(dir.join("outside/sub/deep")).unwrap();
    for path in [
        "outside/SECRET",
        "outside/sub/SECRET",
        "outside/sub/deep/SECRET",
    ] {
        fs::write(dir.join(path), "secret").unwrap();
    }
}

/// A tree whose directories `sub` have names in common with those outside.
fn build(dir: &Path) {
    fs::create_dir_all(dir.join("t/sub/deep/more")).unwrap();
    for n in 0..10 {
        fs::write(dir.join(format!("t/sub/{n}")), "x").unwrap();
        fs::write(dir.join(format!("t/sub/deep/{n}")), "x").unwrap();
    }
}

/// A root that follows no symlink, so that the attacker and the test itself stay inside.
fn inside(dir: &Path) -> Root {
    RootOptions::new().no_symlinks(true).open(dir).unwrap()
}

/// Exchanges two paths until told to stop; what does not work does not matter.
fn exchange(stop: &AtomicBool, root: &Root, one: &str, other: &str) {
    while !stop.load(Ordering::Relaxed) {
        if let (Ok((dir, one)), Ok((to, other))) = (root.split(one), root.split(other)) {
            let (one, other) = (one.as_c_str(), other.as_c_str());
            let _ = rustix::fs::renameat_with(&dir, one, &to, other, RenameFlags::EXCHANGE);
        }
    }
}

/// Runs `work` while others exchange each pair of paths.
fn attacked<R>(dir: &Path, pairs: &[(&str, &str)], work: impl FnOnce() -> R) -> R {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let _stop = Stop(stop);
        for (one, other) in pairs {
            scope.spawn(move || exchange(stop, &inside(dir), one, other));
        }
        work()
    })
}

#[test]
fn nothing_outside_is_removed() {
    let dir = common::dir();
    outside(dir.path());
    let before = snapshot(&dir.path().join("outside"));
    let root = Root::open(dir.path()).unwrap();
    symlink(dir.path().join("outside/sub"), dir.path().join("evil")).unwrap();
    let pairs = [("t/sub", "evil"), ("t/sub/deep", "t/evil")];
    let safe = inside(dir.path());
    let (mut removed, mut done) = (0, 0);
    attacked(dir.path(), &pairs, || {
        while more(&mut done, removed) {
            // Anything may be a directory or a link at this moment.
            let _ = safe.create_dir_all("t/sub/deep", Mode::RWXU, steadfast::Durability::None);
            let _ = safe.symlink("../outside", "t/evil");
            for n in 0..10 {
                let _ = safe.create(format!("t/sub/deep/{n}"));
            }
            match remove(&root, &name("t"), &RemoveOptions::new()) {
                Ok(_) => removed += 1,
                Err(e) => assert!(
                    matches!(e.kind(), ErrorKind::Changed | ErrorKind::DirectoryNotEmpty),
                    "{e}"
                ),
            }
            if !dir.path().join("evil").is_symlink() {
                // The attacker's link went with the tree.
                let _ = safe.remove_tree("evil", &RemoveOptions::new());
                let _ = safe.symlink("outside/sub", "evil");
            }
        }
    });
    let kept = snapshot(&dir.path().join("outside"));
    assert_same(&kept, &before);
}

#[test]
fn nothing_outside_is_copied() {
    let dir = common::dir();
    outside(dir.path());
    build(dir.path());
    symlink("../outside/sub", dir.path().join("t/evil")).unwrap();
    symlink("../../outside/sub/deep", dir.path().join("t/sub/evil")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let pairs = [("t/sub", "t/evil"), ("t/sub/deep", "t/sub/evil")];
    let (mut copied, mut seen, mut done) = (0, 0, 0);
    attacked(dir.path(), &pairs, || {
        while more(&mut done, copied) {
            match copy(&root, &name("t"), &root, &name("copy"), &CopyOptions::new()) {
                Ok(_) => copied += 1,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Changed, "{e}");
                    assert!(!dir.path().join("copy").exists(), "{e}");
                    continue;
                }
            }
            for (path, found) in snapshot(&dir.path().join("copy")) {
                assert!(!path.ends_with("SECRET"), "{path:?}");
                assert_ne!(found.content, b"secret", "{path:?}");
                seen += 1;
            }
            remove(&root, &name("copy"), &RemoveOptions::new()).unwrap();
        }
    });
    assert!(seen > copied, "{copied} {seen}");
}

#[test]
fn nothing_is_copied_to_the_outside() {
    let dir = common::dir();
    outside(dir.path());
    build(dir.path());
    let before = snapshot(&dir.path().join("outside"));
    fs::create_dir(dir.path().join("place")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    symlink("../outside/sub", dir.path().join("place/evil")).unwrap();
    symlink("../../outside/sub", dir.path().join("place/evil2")).unwrap();
    let pairs = [
        ("place/copy", "place/evil"),
        ("place/copy/sub", "place/evil2"),
    ];
    let safe = inside(dir.path());
    let mut copied = 0;
    attacked(dir.path(), &pairs, || {
        for _ in 0..rounds() {
            match root.copy_tree("t", &root, "place/copy", &CopyOptions::new()) {
                Ok(_) => copied += 1,
                Err(e) => assert!(
                    matches!(
                        e.kind(),
                        // In the place of what was just made there was something else.
                        ErrorKind::Changed
                            | ErrorKind::AlreadyExists
                            | ErrorKind::NotADirectory
                            | ErrorKind::NotFound
                            | ErrorKind::SymlinkLoop
                    ),
                    "{e}"
                ),
            }
            let _ = safe.remove_tree("place/copy", &RemoveOptions::new());
        }
    });
    assert_same(&snapshot(&dir.path().join("outside")), &before);
    assert_eq!(list(&dir.path().join("outside")), ["SECRET", "sub"]);
    eprintln!("{copied} of {} copies came through", rounds());
}

/// Ten directories with a file each, and a closure that makes symlinks to the outside of all but one.
fn ten(dir: &Path) -> impl FnMut() + '_ {
    outside(dir);
    for n in 0..10 {
        fs::create_dir_all(dir.join(format!("t/{n}"))).unwrap();
        fs::write(dir.join(format!("t/{n}/SECRET")), "x").unwrap();
    }
    let mut first = true;
    move || {
        if !std::mem::take(&mut first) {
            return;
        }
        for n in 0..10 {
            let path = dir.join(format!("t/{n}"));
            let _ = fs::rename(&path, dir.join(format!("aside{n}")));
            symlink("../outside/sub", &path).unwrap();
        }
    }
}

#[test]
fn directories_that_became_links_after_they_were_listed_are_not_followed() {
    let dir = common::dir();
    let mut swap = ten(dir.path());
    let before = snapshot(&dir.path().join("outside"));
    let root = Root::open(dir.path()).unwrap();
    let mut links = 0;
    // The first step is inside the first directory; the listing calls the others directories, too.
    let mut walk = root.walk("t").unwrap();
    while let Some(event) = walk.next().unwrap() {
        match event {
            Event::Enter(e) if e.depth() == 1 => swap(),
            Event::Other(e) if e.kind() == FileType::Symlink => links += 1,
            Event::Other(e) => assert_eq!(e.metadata().unwrap().unwrap().len(), 1),
            _ => {}
        }
    }
    assert_eq!(links, 9);
    assert_same(&snapshot(&dir.path().join("outside")), &before);

    let dir = common::dir();
    let mut swap = ten(dir.path());
    let root = Root::open(dir.path()).unwrap();
    let options = CopyOptions::new();
    let done = tree::copy_watched(
        &root,
        &name("t"),
        &root,
        &name("copy"),
        &options,
        &mut |_| {
            swap();
            ControlFlow::Continue(())
        },
    );
    assert_eq!(done.unwrap().symlinks, 9);
    for (path, seen) in snapshot(&dir.path().join("copy")) {
        assert_ne!(seen.content, b"secret", "{path:?}");
    }

    let dir = common::dir();
    let mut swap = ten(dir.path());
    let before = snapshot(&dir.path().join("outside"));
    let root = Root::open(dir.path()).unwrap();
    let done = tree::remove_watched(&root, &name("t"), &RemoveOptions::new(), &mut |_| {
        swap();
        ControlFlow::Continue(())
    });
    done.unwrap();
    assert!(!dir.path().join("t").exists());
    assert_same(&snapshot(&dir.path().join("outside")), &before);
}
