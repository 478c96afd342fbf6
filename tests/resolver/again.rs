//! EAGAIN, which openat2 answers when anything was renamed while it walked a `..`, stays inside.

use super::support::{Case, Who, has_openat2, id, skipped};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast::sys::hook;

fn tree(at: &std::path::Path) -> OwnedFd {
    std::fs::create_dir_all(at.join("a/b")).unwrap();
    std::fs::write(at.join("f"), "").unwrap();
    rustix::fs::openat(CWD, at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn case() -> Case {
    Case {
        path: b"a/b/../../f".to_vec(),
        flags: OFlags::RDONLY,
        mode: Mode::empty(),
        resolve: ResolveFlags::BENEATH,
    }
}

#[test]
fn the_walk_answers_when_openat2_never_does() {
    let dir = super::common::dir();
    let root = tree(dir.path());
    let open = |who| {
        hook::deny(&[("openat2", Errno::AGAIN)], || {
            hook::scope(None, || case().open(who, root.as_fd()))
        })
    };
    let (opened, calls) = open(Who::Auto);
    assert_eq!(id(opened.unwrap()), super::support::id_at(&root, "f"));
    assert_eq!(calls.last(), Some(&"openat"));
    if !hook::denied_by_env("openat2") {
        let asked = calls.iter().filter(|c| **c == "openat2").count();
        assert!((2..=16).contains(&asked), "{asked}");
    }
}

#[test]
fn renames_elsewhere_are_not_noticed() {
    let dir = super::common::dir();
    let root = tree(dir.path());
    let want = super::support::id_at(&root, "f");
    let elsewhere = super::common::dir();
    let stop = AtomicBool::new(false);
    let openat2 = has_openat2();
    let mut again = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, two) = (elsewhere.path().join("1"), elsewhere.path().join("2"));
            std::fs::create_dir(&one).unwrap();
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(&one, &two).unwrap();
                std::fs::rename(&two, &one).unwrap();
            }
        });
        let case = case();
        for _ in 0..20_000 {
            for who in [Who::Auto, Who::Walk] {
                let got = case.open(who, root.as_fd());
                // The renamer is stopped whatever happens, or this test would never end.
                if got.as_ref().map(id) != Ok(want) {
                    stop.store(true, Ordering::Relaxed);
                }
                assert_eq!(got.map(id), Ok(want), "{who:?}");
            }
            let (path, beneath) = (case.path.as_slice(), ResolveFlags::BENEATH);
            if openat2
                && rustix::fs::openat2(&root, path, OFlags::PATH, Mode::empty(), beneath)
                    .is_err_and(|e| e == Errno::AGAIN)
            {
                again += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    if again == 0 {
        skipped(
            "renames_elsewhere_are_not_noticed",
            "openat2 never said EAGAIN meanwhile",
        );
    }
}
