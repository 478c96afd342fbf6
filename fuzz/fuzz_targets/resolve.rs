//! The kernel and the walk must agree on every path, and neither may lead out of the root.
//!
//! The input is a small program: it builds two equal trees, then opens paths beneath one with openat2 and
//! beneath the other with the walk. Same errno or same place; and a place is always inside.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::fd::AsRawFd;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use steadfast::{Backend, Root, RootOptions, Scope};

/// What paths and link targets are made of. Few names, so that they meet.
const PIECES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"dir",
    b"/",
    b"//",
    b"..",
    b".",
    b"../",
    b"./",
    b"/a",
    b"/..",
    b"proc",
    b"\xff",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"outside",
];
/// Open flags, chosen by the bits of a byte.
const FLAGS: [OFlags; 8] = [
    OFlags::PATH,
    OFlags::DIRECTORY,
    OFlags::NOFOLLOW,
    OFlags::CREATE,
    OFlags::EXCL,
    OFlags::WRONLY,
    OFlags::TRUNC,
    OFlags::NONBLOCK,
];

/// Reads the program.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Up to 15 pieces.
    fn path(&mut self) -> Option<PathBuf> {
        let mut path = Vec::new();
        for _ in 0..self.byte()? % 16 {
            path.extend_from_slice(PIECES[usize::from(self.byte()?) % PIECES.len()]);
        }
        Some(OsStr::from_bytes(&path).into())
    }
}

fn options(bits: u8, backend: Backend) -> RootOptions {
    let scope = if bits & 1 == 0 {
        Scope::Beneath
    } else {
        Scope::InRoot
    };
    RootOptions::new()
        .scope(scope)
        .backend(backend)
        .no_symlinks(bits & 2 != 0)
        .no_magic_links(bits & 4 != 0)
        .no_mount_crossing(bits & 8 != 0)
}

/// The place that an open leads to, relative to the top of its root, or the errno.
fn answer(root: &Root, top: &Path, path: &Path, flags: OFlags) -> Result<PathBuf, i32> {
    let created = flags.contains(OFlags::CREATE);
    let mode = if created {
        Mode::from_raw_mode(0o640)
    } else {
        Mode::empty()
    };
    let fd = root
        .open_with(path, flags, mode)
        .map_err(|e| e.raw_os_error().unwrap_or(0))?;
    let place = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    match place.strip_prefix(top) {
        Ok(inside) => Ok(inside.to_owned()),
        Err(_) => panic!("{path:?} with {flags:?} leads to {place:?}"),
    }
}

fn run(data: &[u8]) -> Option<()> {
    let mut input = Input(data);
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = temp.path().canonicalize().unwrap();
    let tops = [base.join("kernel"), base.join("walk")];
    fs::write(base.join("outside"), "").unwrap();
    let bits = input.byte()?;
    for top in &tops {
        fs::create_dir_all(top.join("dir")).unwrap();
    }
    for _ in 0..input.byte()? % 12 {
        let (kind, place, target) = (input.byte()?, input.path()?, input.path()?);
        // Only where the path is plain: what it takes to build a tree is not what is tested.
        let plain = place
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || place.as_os_str().is_empty() {
            continue;
        }
        for top in &tops {
            let place = top.join(&place);
            // A link in the middle may lead out: build nothing there.
            if place
                .parent()
                .and_then(|p| p.canonicalize().ok())
                .is_none_or(|p| !p.starts_with(top))
            {
                continue;
            }
            // Whether it could be made is the same in both trees, and no matter.
            let _ = match kind % 4 {
                0 => fs::create_dir(&place),
                // Never through a link.
                1 => fs::File::create_new(&place).map(drop),
                _ => symlink(&target, &place),
            };
        }
    }
    let kernel = options(bits, Backend::Kernel).open(&tops[0]).unwrap();
    let walk = options(bits, Backend::Walk).open(&tops[1]).unwrap();
    for _ in 0..4 {
        let (chosen, path) = (input.byte()?, input.path()?);
        let flags = (0..8)
            .filter(|n| chosen & 1 << n != 0)
            .fold(OFlags::empty(), |all, n| all | FLAGS[n]);
        let theirs = answer(&kernel, &tops[0], &path, flags);
        let ours = answer(&walk, &tops[1], &path, flags);
        assert_eq!(
            theirs, ours,
            "{path:?} with {flags:?}: the kernel first, then the walk"
        );
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    // An input that ends early has been run as far as it goes.
    let _ = run(data);
});
