//! What the tests work with: trees with everything about them, and whether a workspace is clean.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use steadfast::Root;
use steadfast::claim::{ClaimPath, Claims, Want};
use steadfast::sys::XattrFlags;
use steadfast::workspace::Workspace;

pub(crate) const STATE: &str = ".steadfast";

/// Everything about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same inode.
    same_as: Option<PathBuf>,
}

pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// The tree beneath a directory, without the workspace's own folder, and the directory itself as `.`.
pub(crate) fn tree(top: &Path) -> Tree {
    let mut out = Tree::new();
    let mut seen = BTreeMap::new();
    look(top, Path::new("."), &mut out, &mut seen);
    out
}

fn look(top: &Path, path: &Path, out: &mut Tree, seen: &mut BTreeMap<u64, PathBuf>) {
    let full = top.join(path);
    let meta = fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let same_as = match seen.get(&meta.ino()) {
        Some(first) if !kind.is_dir() => Some(first.clone()),
        _ => {
            seen.insert(meta.ino(), path.to_owned());
            None
        }
    };
    let (kind, content) = if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        let text = fs::read_link(&full).unwrap();
        ("symlink", text.as_os_str().as_bytes().to_vec())
    } else if kind.is_file() {
        ("file", fs::read(&full).unwrap())
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else {
        ("other", Vec::new())
    };
    let entry = Entry {
        kind,
        mode: meta.permissions().mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        content,
        xattrs: if kind == "file" || kind == "directory" {
            xattrs(&full)
        } else {
            BTreeMap::new()
        },
        same_as,
    };
    out.insert(path.to_owned(), entry);
    if kind == "directory" {
        let mut names: Vec<_> = fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !(path == Path::new(".") && name == STATE))
            .collect();
        names.sort();
        for name in names {
            look(top, &path.join(name), out, seen);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = [0; 4096];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    let get = |name: &[u8]| {
        let mut value = [0; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
        Some((name.to_vec(), value[..len].to_vec()))
    };
    (names[..len].split(|b| *b == 0))
        .filter(|name| !name.is_empty() && !name.starts_with(b"security."))
        .filter_map(get)
        .collect()
}

/// Without the times of directories, which change when a transaction is finished by recovery.
pub(crate) fn without_times_of_dirs(mut tree: Tree) -> Tree {
    for entry in tree.values_mut().filter(|e| e.kind == "directory") {
        entry.mtime = (0, 0);
    }
    tree
}

/// Fails with what differs.
#[track_caller]
pub(crate) fn assert_same(now: &Tree, before: &Tree, context: &str) {
    for (path, entry) in before {
        match now.get(path) {
            None => panic!("{context}: {path:?} is gone"),
            Some(found) => assert_eq!(found, entry, "{context}: {path:?}"),
        }
    }
    for path in now.keys() {
        assert!(before.contains_key(path), "{context}: {path:?} is new");
    }
}

/// Nothing is in the private folders, no claim is held, and nothing is left to be done.
#[track_caller]
pub(crate) fn assert_clean(top: &Path, context: &str) {
    for folder in ["staged", "kept", "retired", "conflicts"] {
        let names: Vec<_> = fs::read_dir(top.join(STATE).join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(names.is_empty(), "{context}: {folder} has {names:?}");
    }
    let root = Root::open(top.join(STATE)).unwrap();
    let all = [Want::exclusive(ClaimPath::default())];
    let claims = Claims::open(root.dir()).unwrap();
    assert!(claims.try_claim(&all).is_ok(), "{context}: a claim is held");
    let ledger = fs::read(top.join(STATE).join("ledger")).unwrap();
    let marks = &ledger[12288..];
    assert!(marks.iter().all(|b| *b == 0), "{context}: a mark is left");
}

pub(crate) fn open(top: &Path) -> Workspace {
    Workspace::open(&Root::open(top).unwrap()).unwrap()
}

pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn set_mtime(path: impl AsRef<Path>, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::open(path.as_ref())
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// A tree with all sorts of things, with old times.
pub(crate) fn furnish(top: &Path) {
    write(top.join("a"), "a old");
    write(top.join("b"), vec![b'b'; 40_000]);
    write(top.join("c"), "c old");
    write(top.join("d/one"), "one old");
    write(top.join("d/two"), "two old");
    write(top.join("d/sub/deep"), "deep old");
    fs::create_dir(top.join("d/empty")).unwrap();
    fs::create_dir(top.join("e")).unwrap();
    fs::hard_link(top.join("d/one"), top.join("d/sub/link")).unwrap();
    fs::hard_link(top.join("c"), top.join("c2")).unwrap();
    std::os::unix::fs::symlink("d/one", top.join("s")).unwrap();
    fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(top.join("d/two"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(top.join("d/sub"), fs::Permissions::from_mode(0o2750)).unwrap();
    let root = Root::open(top).unwrap();
    for path in ["a", "d/two", "d/sub"] {
        // Not every file system has them.
        let _ = root.set_xattr(path, "user.origin", path.as_bytes(), XattrFlags::empty());
    }
    let mut time = 1_000_000_000;
    for path in [
        "a",
        "b",
        "c",
        "d/one",
        "d/two",
        "d/sub/deep",
        "d/sub",
        "d/empty",
        "d",
        "e",
    ] {
        time += 1000;
        set_mtime(top.join(path), time);
    }
    set_mtime(top, 1_100_000_000);
}
