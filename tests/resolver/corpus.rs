//! A fixed tree with everything in it that paths can stumble over.

use super::support::{Id, id, id_at};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};
use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// The unprivileged user that owns the tree, and another.
pub(crate) const USER: u32 = 65_534;
const OTHER: u32 = 1_000;

const DIRS: [&str; 10] = [
    "a", "a/b", "a/b/c", "empty", "nox", "nox/d", "nor", "ro", "sticky", "grp",
];
const FILES: [&str; 8] = [
    "f",
    "a/f",
    "a/b/c/f",
    "nox/f",
    "nor/f",
    "ro/f",
    "secret",
    "sticky/own",
];
const LINKS: [(&str, &str); 44] = [
    ("lf", "f"),
    ("la", "a"),
    ("lab", "a/b"),
    ("la_ts", "a/"),
    ("lf_ts", "f/"),
    ("lla", "la"),
    ("lla_ts", "la/"),
    ("lnf", "lf"),
    ("up", ".."),
    ("a/up", ".."),
    ("a/upup", "../.."),
    ("a/b/tof", "../../f"),
    ("a/b/tol", "../../lf"),
    ("abs_a", "/a"),
    ("abs_f", "/f"),
    ("abs_ts", "/a/"),
    ("abs_up", "/../f"),
    ("esc", "../outside"),
    ("esc_f", "../outside/secret"),
    ("esc_in", "../tree/f"),
    ("esc_new", "../outside/new"),
    ("lroot", "/"),
    ("lroots", "//"),
    ("ldot", "."),
    ("ldots", ".."),
    ("ldeep", "a/./b/../b//c/f"),
    ("ldotend", "a/."),
    ("lfdot", "f/."),
    ("dang", "nope"),
    ("dang_dir", "a/nope"),
    ("dang_deep", "nope/deep"),
    ("dang_abs", "/nope"),
    ("dang_ts", "nope/"),
    ("ldang", "dang"),
    ("loop1", "loop2"),
    ("loop2", "loop1"),
    ("self", "self"),
    ("selfdir", "selfdir/x"),
    ("l_nox", "nox/f"),
    ("l_noxd", "nox"),
    ("l_secret", "secret"),
    ("nor/l", "../f"),
    ("ro/l", "../dang"),
    ("sticky/mine", "../f"),
];

pub(crate) struct Corpus {
    top: PathBuf,
    labels: HashMap<Id, String>,
    pub(crate) tree: OwnedFd,
    pub(crate) proc: Option<OwnedFd>,
    /// It has other owners, mounts and a device: we are root.
    pub(crate) full: bool,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A thread of its own with its own mounts, that go with it. Needs root.
pub(crate) fn with_own_mounts<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                // Deprecated for what it does with CLONE_FILES, which is not asked for here.
                #[allow(deprecated)]
                rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).unwrap();
            }
            f()
        });
        thread.join().unwrap()
    })
}

impl Corpus {
    /// Builds it under `top`. With root, in a thread [`with_own_mounts`].
    pub(crate) fn build(top: &Path) -> Self {
        let full = is_root();
        let tree = top.join("tree");
        fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&tree).unwrap();
        fs::create_dir(top.join("outside")).unwrap();
        fs::write(top.join("outside/secret"), "outside").unwrap();
        for dir in DIRS {
            fs::create_dir(tree.join(dir)).unwrap();
        }
        for file in FILES {
            fs::write(tree.join(file), "inside").unwrap();
        }
        for (link, text) in LINKS {
            symlink(text, tree.join(link)).unwrap();
        }
        // x40 ends at f after 40 links, x41 after 41; z<n> leads outside after n.
        for (prefix, end) in [("x", "f"), ("z", ".."), ("q", "/"), ("w", "nope")] {
            let mut text = end.to_owned();
            for n in 1..=41 {
                let name = format!("{prefix}{n}");
                symlink(&text, tree.join(&name)).unwrap();
                text = name;
            }
        }
        symlink("n".repeat(256), tree.join("l_long")).unwrap();
        fs::create_dir(tree.join("n".repeat(255))).unwrap();
        fs::write(tree.join("n".repeat(255)).join("m".repeat(255)), "").unwrap();
        // Long texts (of a length that every file system takes), together longer than a path may be.
        let mut end = "f".to_owned();
        for n in 1..=6 {
            let name = format!("l_wide{n}");
            symlink(format!("{}{end}", "a/../".repeat(150)), tree.join(&name)).unwrap();
            end = name;
        }
        let mknod = |name: &str, kind| {
            rustix::fs::mknodat(CWD, tree.join(name), kind, Mode::from(0o644), 0).unwrap();
        };
        mknod("fifo", FileType::Fifo);
        mknod("sock", FileType::Socket);
        if full {
            own(&tree);
            own_specials(&tree);
            mounts(&tree);
        }
        let mode = |name: &str, mode| {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("nox", 0o600);
        mode("nor", 0o300);
        mode("ro", 0o555);
        mode("secret", 0o000);
        mode("sticky", 0o1777);
        mode("grp", 0o1770);

        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
        };
        let mut corpus = Self {
            top: top.to_path_buf(),
            labels: HashMap::new(),
            tree: open(&tree).unwrap(),
            proc: open(Path::new("/proc/self"))
                .and_then(|_| open(Path::new("/proc")))
                .ok(),
            full,
        };
        corpus.label();
        corpus
    }

    fn label(&mut self) {
        let mut paths = vec![self.top.join("outside"), self.top.join("outside/secret")];
        list(&self.top.join("tree"), &mut paths);
        self.labels.insert(id(&self.tree), ".".to_owned());
        self.labels
            .insert(id_at(CWD, self.top.to_str().unwrap()), "!top".to_owned());
        for path in paths {
            let name = match path.strip_prefix(self.top.join("tree")) {
                Ok(inside) => inside.to_str().unwrap().to_owned(),
                Err(_) => format!("!{}", path.display()),
            };
            // In a directory that may be read but not searched the user sees names only.
            let Ok(stat) = rustix::fs::lstat(&path) else {
                continue;
            };
            let id = (stat.st_dev, stat.st_ino);
            self.labels.entry(id).or_insert(shorten(&name));
        }
        // What cannot be listed without privilege.
        for name in ["nox/d", "nox/f", "nor/f", "nor/l"] {
            let path = self.top.join("tree").join(name);
            if let Ok(stat) = rustix::fs::lstat(&path) {
                self.labels
                    .entry((stat.st_dev, stat.st_ino))
                    .or_insert(name.to_owned());
            }
        }
    }

    /// What was opened, in words; and what the open made is removed and what it emptied filled again.
    pub(crate) fn outcome(&self, opened: &OwnedFd, changes: bool) -> String {
        let stat = rustix::fs::fstat(opened).unwrap();
        let label = self.labels.get(&id(opened)).cloned();
        if !changes {
            return label.unwrap_or_else(|| match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => "?dir".to_owned(),
                FileType::Symlink => "?link".to_owned(),
                _ => "?file".to_owned(),
            });
        }
        let label = label.unwrap_or_else(|| {
            if stat.st_nlink == 0 {
                return "tmpfile".to_owned();
            }
            self.take_away(id(opened))
                .map_or_else(|| "!new".to_owned(), |path| format!("new:{path}"))
        });
        if stat.st_size == 0 && stat.st_nlink > 0 && !label.starts_with("new:") {
            let path = self.top.join("tree").join(&label);
            if path.is_file() && !label.contains('*') {
                fs::write(path, "inside").unwrap();
                return format!("{label} (emptied)");
            }
        }
        label
    }

    /// Removes a new file, and says where it was.
    fn take_away(&self, id: Id) -> Option<String> {
        let tree = self.top.join("tree");
        let mut paths = Vec::new();
        list(&tree, &mut paths);
        let unlisted = [tree.join("nor/new")];
        for path in paths.iter().chain(&unlisted) {
            if let Ok(stat) = rustix::fs::lstat(path)
                && (stat.st_dev, stat.st_ino) == id
            {
                fs::remove_file(path).unwrap();
                return Some(
                    path.strip_prefix(&tree)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
        None
    }
}

/// Runs `f` as the unprivileged user, if we can be another.
pub(crate) fn as_user<R>(f: impl FnOnce() -> R) -> R {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    if !is_root() {
        return f();
    }
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, Gid::ROOT).unwrap();
    // The saved id stays root, to come back; the effective capabilities are gone meanwhile.
    set_thread_res_uid(uid, uid, Uid::ROOT).unwrap();
    let value = f();
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).unwrap();
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).unwrap();
    value
}

/// Everything below, in a fixed order; what cannot be listed is left out.
fn list(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        into.push(path.clone());
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            list(&path, into);
        }
    }
}

/// Long runs of one letter as `{n*255}`, as the table writes them.
fn shorten(name: &str) -> String {
    name.replace(&"n".repeat(255), "{n*255}")
        .replace(&"m".repeat(255), "{m*255}")
}

fn own(tree: &Path) {
    let mut paths = vec![tree.to_path_buf()];
    list(tree, &mut paths);
    for path in paths {
        lchown(path, Some(USER), Some(USER)).unwrap();
    }
}

/// What a user cannot make: the sticky directory is root's, with files and links of three owners.
fn own_specials(tree: &Path) {
    lchown(tree.join("sticky"), Some(0), Some(0)).unwrap();
    lchown(tree.join("grp"), Some(0), Some(USER)).unwrap();
    for (name, owner) in [("roots", 0), ("others", OTHER)] {
        for dir in ["sticky", "grp"] {
            let link = tree.join(dir).join(name);
            symlink("../f", &link).unwrap();
            lchown(link, Some(owner), Some(owner)).unwrap();
            let link = tree.join(dir).join(format!("{name}_dang"));
            symlink("../nope", &link).unwrap();
            lchown(link, Some(owner), Some(owner)).unwrap();
        }
    }
    let file = tree.join("sticky/file");
    fs::write(&file, "inside").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    lchown(file, Some(OTHER), Some(OTHER)).unwrap();
}

/// Mounts: bm on a/b, bf on a/f, tm a tmpfs, rom read-only, nsf without following links.
fn mounts(tree: &Path) {
    for dir in ["bm", "tm", "rom", "nsf"] {
        fs::create_dir(tree.join(dir)).unwrap();
    }
    fs::write(tree.join("bf"), "").unwrap();
    mount_bind(tree.join("a/b"), tree.join("bm")).unwrap();
    mount_bind(tree.join("a/f"), tree.join("bf")).unwrap();
    mount("tmpfs", tree.join("tm"), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::set_permissions(tree.join("tm"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(tree.join("tm/d")).unwrap();
    fs::write(tree.join("tm/f"), "inside").unwrap();
    symlink("../a", tree.join("tm/out")).unwrap();
    symlink("../tm/f", tree.join("a/totm")).unwrap();
    symlink("tm", tree.join("ltm")).unwrap();
    symlink("bf", tree.join("lbf")).unwrap();
    for (name, flags) in [
        ("rom", MountFlags::RDONLY),
        ("nsf", MountFlags::NOSYMFOLLOW),
    ] {
        let at = tree.join(name);
        mount_bind(tree.join("a"), &at).unwrap();
        mount_remount(&at, MountFlags::BIND | flags, "").unwrap();
    }
}

impl Corpus {
    pub(crate) fn base(&self, name: &str) -> Option<std::os::fd::BorrowedFd<'_>> {
        match name {
            "tree" => Some(self.tree.as_fd()),
            "proc" => self.proc.as_ref().map(|fd| fd.as_fd()),
            other => panic!("no base {other:?}"),
        }
    }
}
