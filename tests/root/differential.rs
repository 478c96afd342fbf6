//! Every call gives what the kernel gives for the same path: the same errno, and the same tree afterwards.
//!
//! The same operation is made twice, as a plain `*at` call in one directory and through `Root` in its twin.

use super::support::{backends, errno, mode, path, paths, plant, root, snapshot};
use crate::common;
use rustix::fs::{self as raw, AtFlags, FileType, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use steadfast::sys::hook;
use steadfast::{Backend, Root};

/// Two twins, planted anew whenever one of them may have changed.
struct Twins {
    base: tempfile::TempDir,
    count: u32,
    backend: Backend,
    pair: Option<(PathBuf, OwnedFd, PathBuf, Root)>,
    planted: BTreeMap<PathBuf, String>,
    changes: u32,
}

impl Twins {
    fn new(backend: Backend) -> Self {
        let base = common::dir();
        plant(&base.path().join("a0"));
        Self {
            planted: snapshot(&base.path().join("a0")),
            base,
            count: 0,
            backend,
            pair: None,
            changes: 0,
        }
    }

    /// Makes one operation in both twins and compares.
    fn compare<T: PartialEq + Debug>(
        &mut self,
        what: impl Fn() -> String,
        theirs: impl FnOnce(&OwnedFd) -> Result<T, Errno>,
        ours: impl FnOnce(&Root) -> Result<T, Errno>,
    ) {
        let (count, backend, base) = (&mut self.count, self.backend, self.base.path());
        let (raw_dir, raw_fd, our_dir, our_root) = self.pair.get_or_insert_with(|| {
            *count += 1;
            let (a, b) = (
                base.join(format!("a{count}")),
                base.join(format!("b{count}")),
            );
            plant(&a);
            plant(&b);
            let fd = raw::open(&a, OFlags::DIRECTORY, mode(0)).unwrap();
            let ours = root(&b, backend);
            (a, fd, b, ours)
        });
        let (want, got) = (theirs(raw_fd), ours(our_root));
        assert_eq!(got, want, "{} with {:?}", what(), self.backend);
        // A call that the kernel refused has left its tree as it was planted.
        let want_tree = match &want {
            Ok(_) => &snapshot(raw_dir),
            Err(_) => &self.planted,
        };
        let our_tree = snapshot(our_dir);
        assert_eq!(our_tree, *want_tree, "{} with {:?}", what(), self.backend);
        if want.is_ok() {
            self.changes += 1;
            std::fs::remove_dir_all(&*raw_dir).unwrap();
            std::fs::remove_dir_all(&*our_dir).unwrap();
            self.pair = None;
        }
    }
}

/// A path as the raw calls take it. They have no room for one of 4096 bytes and more, but the errno is known.
fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{:?}... ({} bytes)", &text[..at], path.len()),
        None => format!("{text:?}"),
    }
}

/// Runs one operation on every path, and on those that lead nowhere out although they end in `..`.
fn each<T: PartialEq + Debug>(
    name: &str,
    climbing: bool,
    theirs: impl Fn(&OwnedFd, &Path) -> Result<T, Errno>,
    ours: impl Fn(&Root, &Path) -> steadfast::Result<T>,
    least: u32,
) {
    for backend in backends() {
        let mut twins = Twins::new(backend);
        let mut all = paths();
        if climbing {
            all.extend([b"..".to_vec(), b"../".to_vec()]);
        }
        for p in &all {
            let p = path(p);
            twins.compare(
                || format!("{name} {}", show(p.as_os_str().as_encoded_bytes())),
                |fd| theirs(fd, p),
                |root| errno(ours(root, p)),
            );
        }
        assert!(twins.changes >= least, "{name}: {} worked", twins.changes);
    }
}

#[test]
fn mkdir() {
    each(
        "mkdir",
        true,
        |fd, p| raw::mkdirat(fd, p, mode(0o750)),
        |root, p| root.create_dir(p, mode(0o750)),
        8,
    );
}

#[test]
fn rmdir() {
    each(
        "rmdir",
        true,
        |fd, p| raw::unlinkat(fd, p, AtFlags::REMOVEDIR),
        |root, p| root.remove_dir(p),
        4,
    );
}

#[test]
fn unlink() {
    each(
        "unlink",
        true,
        |fd, p| raw::unlinkat(fd, p, AtFlags::empty()),
        |root, p| root.remove_file(p),
        8,
    );
}

#[test]
fn mkfifo() {
    each(
        "mkfifo",
        true,
        |fd, p| raw::mknodat(fd, p, FileType::Fifo, mode(0o640), 0),
        |root, p| root.mkfifo(p, mode(0o640)),
        6,
    );
}

#[test]
fn symlink() {
    for text in [
        &b"any text"[..],
        b"",
        &[b't'; 4095],
        &[b't'; 4096],
        b"/",
        b"\xff",
    ] {
        each(
            "symlink",
            true,
            |fd, p| raw::symlinkat(text, fd, p),
            |root, p| root.symlink(path(text), p),
            if text.is_empty() || text.len() > 4000 {
                0
            } else {
                6
            },
        );
    }
}

#[test]
fn readlink() {
    each(
        "readlink",
        false,
        |fd, p| raw::readlinkat(fd, p, Vec::new()).map(|t| PathBuf::from(path(t.to_bytes()))),
        |root, p| root.read_link(p),
        4,
    );
}

#[test]
fn stat_and_lstat() {
    let raw_facts = |fd: &OwnedFd, p: &Path, flags| {
        raw::statat(fd, p, flags).map(|s| (s.st_mode & 0o7777, FileType::from_raw_mode(s.st_mode)))
    };
    let facts = |m: steadfast::sys::Metadata| (m.mode().bits(), m.kind());
    each(
        "stat",
        false,
        |fd, p| raw_facts(fd, p, AtFlags::empty()),
        |root, p| root.metadata(p).map(facts),
        20,
    );
    each(
        "lstat",
        false,
        |fd, p| raw_facts(fd, p, AtFlags::SYMLINK_NOFOLLOW),
        |root, p| root.symlink_metadata(p).map(facts),
        20,
    );
    each(
        "exists",
        false,
        |fd, p| match raw::statat(fd, p, AtFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        },
        |root, p| root.try_exists(p),
        20,
    );
}

#[test]
fn chmod_chown_and_times() {
    each(
        "chmod",
        false,
        |fd, p| raw::chmodat(fd, p, mode(0o711), AtFlags::empty()),
        |root, p| root.set_permissions(p, mode(0o711)),
        20,
    );
    let me = Some(rustix::process::getuid());
    each(
        "chown",
        false,
        |fd, p| raw::chownat(fd, p, me, None, AtFlags::empty()),
        |root, p| root.set_owner(p, me, None),
        20,
    );
    each(
        "lchown",
        false,
        |fd, p| raw::chownat(fd, p, me, None, AtFlags::SYMLINK_NOFOLLOW),
        |root, p| root.set_symlink_owner(p, me, None),
        20,
    );
    let time = |tv_sec| raw::Timespec { tv_sec, tv_nsec: 7 };
    let times = raw::Timestamps {
        last_access: time(1_000_000),
        last_modification: time(2_000_000),
    };
    each(
        "utimens",
        false,
        |fd, p| raw::utimensat(fd, p, &times, AtFlags::empty()),
        |root, p| root.set_times(p, &times),
        20,
    );
    each(
        "lutimens",
        false,
        |fd, p| raw::utimensat(fd, p, &times, AtFlags::SYMLINK_NOFOLLOW),
        |root, p| root.set_symlink_times(p, &times),
        20,
    );
}

#[test]
fn open() {
    let create = OFlags::CREATE;
    let cases: &[(OFlags, u32)] = &[
        (OFlags::RDONLY, 0),
        (OFlags::RDONLY | OFlags::DIRECTORY, 0),
        (OFlags::RDONLY | OFlags::NOFOLLOW, 0),
        (OFlags::PATH | OFlags::NOFOLLOW, 0),
        (OFlags::WRONLY, 0),
        (OFlags::RDWR | OFlags::TRUNC, 0),
        (OFlags::WRONLY | create, 0o600),
        (OFlags::WRONLY | create | OFlags::EXCL, 0o600),
        (OFlags::WRONLY | create | OFlags::NOFOLLOW, 0o600),
        (OFlags::RDONLY | create | OFlags::TRUNC, 0o640),
    ];
    for (flags, bits) in cases {
        each(
            &format!("open {flags:?}"),
            false,
            |fd, p| raw::openat(fd, p, *flags, mode(*bits)).map(drop),
            |root, p| root.open_with(p, *flags, mode(*bits)).map(drop),
            6,
        );
    }
    let flags = OFlags::WRONLY | create | OFlags::TRUNC;
    each(
        "create",
        false,
        |fd, p| raw::openat(fd, p, flags, mode(0o666)).map(drop),
        |root, p| root.create(p).map(drop),
        6,
    );
    let flags = OFlags::RDWR | create | OFlags::EXCL;
    each(
        "create new",
        false,
        |fd, p| raw::openat(fd, p, flags, mode(0o666)).map(drop),
        |root, p| root.create_new(p).map(drop),
        6,
    );
}

/// Calls with two paths, on all pairs of those paths that differ in kind.
fn pairs(
    name: &str,
    climbing_old: bool,
    theirs: impl Fn(&OwnedFd, &Path, &Path) -> Result<(), Errno>,
    ours: impl Fn(&Root, &Path, &Path) -> steadfast::Result<()>,
    least: u32,
) {
    let kinds: &[&[u8]] = &[
        b"f",
        b"f/",
        b"g",
        b"h",
        b"d",
        b"d/",
        b"e",
        b"e/",
        b"l",
        b"l/",
        b"ld",
        b"ld/",
        b"dang",
        b"dang/",
        b"loop/",
        b"no",
        b"no/",
        b"d/in",
        b"d/in/",
        b"d/no",
        b"d/no/",
        b"d/sub",
        b"d/sub/",
        b"no/x",
        b"f/x",
        b"ld/in",
        b"ld/no",
        b"ld/sub",
        b".",
        b"./",
        b"d/.",
        b"e/..",
        b"f/.",
        b"no/.",
        b"",
        b"\xff\xfe\x80",
    ];
    // Of the two that ask the kernel one is enough here.
    for backend in [Backend::Auto, Backend::Walk] {
        let mut twins = Twins::new(backend);
        let long = vec![b'n'; 256];
        let up: &[u8] = b"..";
        let new: Vec<&[u8]> = kinds.iter().copied().chain([&long[..], up]).collect();
        let old: Vec<&[u8]> = match climbing_old {
            true => new.clone(),
            false => new[..new.len() - 1].to_vec(),
        };
        for from in &old {
            for to in &new {
                twins.compare(
                    || format!("{name} {} to {}", show(from), show(to)),
                    |fd| theirs(fd, path(from), path(to)),
                    |root| errno(ours(root, path(from), path(to))),
                );
            }
        }
        assert!(twins.changes >= least, "{name}: {} worked", twins.changes);
    }
}

#[test]
fn link() {
    pairs(
        "link",
        false,
        |fd, from, to| raw::linkat(fd, from, fd, to, AtFlags::empty()),
        |root, from, to| root.hard_link(from, root, to),
        20,
    );
}

#[test]
fn rename() {
    pairs(
        "rename",
        true,
        |fd, from, to| raw::renameat(fd, from, fd, to),
        |root, from, to| root.rename(from, root, to, RenameFlags::empty()),
        50,
    );
}

fn rename_with(flags: RenameFlags, call: &str, least: u32) {
    if hook::denied_by_env(call) {
        return;
    }
    let probe = common::dir();
    std::fs::write(probe.path().join("a"), "").unwrap();
    std::fs::write(probe.path().join("b"), "").unwrap();
    let fd = raw::open(probe.path(), OFlags::DIRECTORY, mode(0)).unwrap();
    let to = if flags == RenameFlags::EXCHANGE {
        "b"
    } else {
        "c"
    };
    if let Err(e) = raw::renameat_with(&fd, "a", &fd, to, flags) {
        crate::common::skipped(call, format_args!("this file system answers {e}"));
        return;
    }
    pairs(
        call,
        true,
        |fd, from, to| raw::renameat_with(fd, from, fd, to, flags),
        |root, from, to| root.rename(from, root, to, flags),
        least,
    );
}

#[test]
fn rename_to_a_free_name() {
    rename_with(RenameFlags::NOREPLACE, "renameat2(RENAME_NOREPLACE)", 15);
}

#[test]
fn exchange() {
    rename_with(RenameFlags::EXCHANGE, "renameat2(RENAME_EXCHANGE)", 50);
}
