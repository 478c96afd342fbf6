//! What the modules of this binary share.

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use steadfast::sys::hook;
use steadfast::{Backend, Root, RootOptions};

/// Every back end that can answer here.
pub(crate) fn backends() -> Vec<Backend> {
    let mut all = vec![Backend::Auto, Backend::Walk];
    if !hook::denied_by_env("openat2") {
        all.push(Backend::Kernel);
    }
    all
}

/// Opens `dir` as a root with this back end.
pub(crate) fn root(dir: &Path, backend: Backend) -> Root {
    RootOptions::new().backend(backend).open(dir).unwrap()
}

/// The errno of a result of this crate.
pub(crate) fn errno<T>(result: steadfast::Result<T>) -> Result<T, Errno> {
    result.map_err(|e| e.errno().expect("an error of path operations has an errno"))
}

pub(crate) fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits)
}

/// A byte string as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Everything under a directory that a program could tell apart: type, mode, number of names, content or
/// link text.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(top: &Path, dir: &Path, out: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let facts = path.symlink_metadata().unwrap();
            let kind = FileType::from_raw_mode(facts.mode());
            let detail = match kind {
                FileType::Symlink => format!("{:?}", fs::read_link(&path).unwrap()),
                FileType::RegularFile => format!("{:?} {}", fs::read(&path).ok(), facts.nlink()),
                _ => String::new(),
            };
            let mode = facts.permissions().mode();
            let name = path.strip_prefix(top).unwrap().to_owned();
            out.insert(name, format!("{kind:?} {mode:o} {detail}"));
            if kind == FileType::Directory {
                walk(top, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(dir, dir, &mut out);
    out
}

/// One of everything that a path can run into.
pub(crate) fn plant(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("f"), "f").unwrap();
    fs::write(dir.join("g"), "gg").unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/in"), "in").unwrap();
    fs::create_dir(dir.join("d/sub")).unwrap();
    fs::create_dir(dir.join("e")).unwrap();
    symlink("f", dir.join("l")).unwrap();
    symlink("d", dir.join("ld")).unwrap();
    symlink("nowhere", dir.join("dang")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    fs::hard_link(dir.join("g"), dir.join("h")).unwrap();
}

/// Paths that name all of it in all ways, and none that leads out.
pub(crate) fn paths() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        "f",
        "f/",
        "f//",
        "g",
        "h",
        "d",
        "d/",
        "d//",
        "e",
        "e/",
        "l",
        "l/",
        "ld",
        "ld/",
        "dang",
        "dang/",
        "loop",
        "loop/",
        "no",
        "no/",
        "d/in",
        "d/in/",
        "d/no",
        "d/no/",
        "d/sub",
        "d/sub/",
        "d//in",
        "./f",
        "no/x",
        "no/x/",
        "f/x",
        "ld/in",
        "ld/no",
        "ld/sub/",
        "l/x",
        "dang/x",
        "loop/x",
        ".",
        "./",
        "d/.",
        "d/./",
        "d/..",
        "d/../",
        "e/.",
        "e/..",
        "f/.",
        "f/..",
        "no/.",
        "no/..",
        "d/../f",
        "ld/../f",
        "d/sub/../in",
        "ld/.",
        "ld/..",
        "dang/..",
    ]
    .iter()
    .map(|p| p.as_bytes().to_vec())
    .collect();
    all.push(vec![b'n'; 255]);
    all.push(vec![b'n'; 256]);
    all.push([&[b'n'; 256][..], b"/"].concat());
    all.push([b"d/", &[0xff; 250][..]].concat());
    all.push(b"\xff\xfe\x80".to_vec());
    all.push(b" a\n\\\"'*?:".to_vec());
    all.push(b"d/".repeat(2000));
    all.push(b"./".repeat(2048));
    all
}
