//! Automount points on the way: debugfs has one, `tracing`, that mounts tracefs when a look-up goes through.

use super::corpus::{is_root, with_own_mounts};
use super::support::{Case, Who, has_openat2, kernel_answers, skipped};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::os::fd::AsFd;
use std::path::Path;

/// The answer, and the kind of file system that it is on, with a debugfs on which nothing was mounted yet.
fn ask(case: &Case, who: Who, at: &Path) -> Option<Result<u64, i32>> {
    mount("debugfs", at, "debugfs", MountFlags::empty(), None).ok()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, at, flags, Mode::empty()).unwrap();
    let found = case.open(who, root.as_fd());
    let answer = found
        .map(|fd| rustix::fs::fstatfs(fd).unwrap().f_type.cast_unsigned() as u64)
        .map_err(rustix::io::Errno::raw_os_error);
    drop(root);
    // What was mounted on it goes with it.
    unmount(at, UnmountFlags::DETACH).unwrap();
    Some(answer)
}

#[test]
fn automounts_are_set_off_as_the_kernel_does() {
    if !is_root() || !has_openat2() {
        skipped(
            "automounts_are_set_off_as_the_kernel_does",
            "needs root and openat2",
        );
        return;
    }
    let dir = super::common::dir();
    let mut askable = vec![Who::Walk, Who::Auto];
    if kernel_answers() {
        askable.push(Who::Kernel);
    }
    let kinds = with_own_mounts(|| {
        let mut kinds = std::collections::BTreeSet::new();
        for path in [
            "tracing",
            "tracing/",
            "tracing/README",
            "tracing/..",
            "tracing/.",
            "tracing/no",
        ] {
            for flags in [
                OFlags::PATH,
                OFlags::PATH | OFlags::NOFOLLOW,
                OFlags::PATH | OFlags::DIRECTORY,
                OFlags::RDONLY,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            ] {
                for resolve in [ResolveFlags::empty(), ResolveFlags::NO_XDEV] {
                    let creates = flags.contains(OFlags::CREATE);
                    let case = Case {
                        path: path.as_bytes().to_vec(),
                        flags,
                        mode: if creates { Mode::RUSR } else { Mode::empty() },
                        resolve: resolve | ResolveFlags::BENEATH,
                    };
                    let raw = ask(&case, Who::Raw, dir.path())?;
                    kinds.extend(raw);
                    for who in &askable {
                        let got = ask(&case, *who, dir.path());
                        assert_eq!(got, Some(raw), "{who:?} {path} {flags:?} {resolve:?}");
                    }
                }
            }
        }
        Some(kinds)
    });
    // Both were seen: what is mounted there, and what it is mounted on.
    if kinds.is_none_or(|kinds| kinds.len() < 2) {
        skipped(
            "automounts_are_set_off_as_the_kernel_does",
            "no debugfs with tracing",
        );
    }
}
