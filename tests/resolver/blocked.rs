//! Where openat2 is filtered away (as container runtimes do) or there is no procfs.

use super::children;
use super::corpus::is_root;
use super::support::{Case, Who, has_openat2, id, skipped};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::fd::AsFd;
use std::path::PathBuf;
use steadfast::sys::hook;

fn top() -> PathBuf {
    PathBuf::from(std::env::var_os(children::TOP).unwrap())
}

/// From here on this thread, and those that it starts, get `errno` for openat2.
fn block_openat2(errno: Errno) {
    let rules = [(libc::SYS_openat2, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.raw_os_error().cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn inside(path: &str, flags: OFlags) -> Case {
    Case {
        path: path.as_bytes().to_vec(),
        flags,
        mode: Mode::empty(),
        resolve: ResolveFlags::BENEATH,
    }
}

/// The whole table, with openat2 answering the errno that is asked for.
pub(crate) fn filtered_child() {
    let errno = match std::env::var("STEADFAST_TEST_ERRNO").unwrap().as_str() {
        "ENOSYS" => Errno::NOSYS,
        "EPERM" => Errno::PERM,
        other => panic!("no errno {other}"),
    };
    block_openat2(errno);
    assert!(!has_openat2());
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let case = inside(".", OFlags::PATH);
    let open = |who| case.open(who, root.as_fd());
    let (first, calls) = hook::scope(None, || open(Who::Auto));
    assert_eq!(id(first.unwrap()), id(&root));
    if !hook::denied_by_env("openat2") {
        assert_eq!(calls[..2], ["openat2", "openat2(NULL)"]);
        let by_kernel = open(Who::Kernel).map(drop);
        assert_eq!(by_kernel, Err(errno), "Kernel never falls back");
    }
    let (second, calls) = hook::scope(None, || open(Who::Auto));
    assert_eq!(id(second.unwrap()), id(&root));
    assert!(
        calls.iter().all(|c| *c == "openat"),
        "blocked is remembered: {calls:?}"
    );
    super::table::compare(&top(), false);
}

#[test]
fn all_is_the_same_when_openat2_is_filtered() {
    for errno in ["ENOSYS", "EPERM"] {
        let dir = super::common::dir();
        children::run("filtered", dir.path(), &[("STEADFAST_TEST_ERRNO", errno)]);
    }
}

/// The EPERM of the file (`O_NOATIME` on another's) is not taken for a filter's.
pub(crate) fn genuine_child() {
    let path = top().join("f");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(top(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let root =
        rustix::fs::openat(CWD, top(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let ask = |flags| {
        let case = inside("f", flags);
        hook::scope(None, || {
            super::corpus::as_user(|| case.open(Who::Auto, root.as_fd()))
        })
    };
    let (refused, calls) = ask(OFlags::RDONLY | OFlags::NOATIME);
    assert_eq!(refused.map(drop), Err(Errno::PERM));
    assert!(
        !calls.contains(&"openat"),
        "the kernel's word is final: {calls:?}"
    );
    let (opened, calls) = ask(OFlags::RDONLY);
    assert!(opened.is_ok());
    assert_eq!(calls, ["openat2"], "and openat2 is asked the next time");
}

#[test]
fn a_genuine_eperm_stays() {
    if !is_root() || !has_openat2() || hook::denied_by_env("openat2") {
        skipped("a_genuine_eperm_stays", "needs root and openat2");
        return;
    }
    let dir = super::common::dir();
    children::run("genuine", dir.path(), &[]);
}

/// The whole table without procfs, with and without openat2.
pub(crate) fn no_proc_child() {
    super::corpus::with_own_mounts(|| {
        rustix::mount::unmount("/proc", rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(!std::path::Path::new("/proc/self").exists());
        if std::env::var_os("STEADFAST_TEST_ERRNO").is_some() {
            block_openat2(Errno::NOSYS);
        }
        super::table::compare(&top(), has_openat2());
    });
}

#[test]
fn all_is_the_same_without_proc() {
    if !is_root() {
        skipped("all_is_the_same_without_proc", "needs root");
        return;
    }
    for more in [&[][..], &[("STEADFAST_TEST_ERRNO", "ENOSYS")]] {
        let dir = super::common::dir();
        children::run("no-proc", dir.path(), more);
    }
}
