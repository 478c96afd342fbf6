//! Random trees, what can be seen of a tree, and running as somebody else.

use rustix::fs::{Gid, Mode, SeekFrom, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use steadfast::Name;

pub(crate) const NOBODY: u32 = 65534;
/// A time to come, which every file system can store.
const AHEAD: i64 = 2_140_000_000;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) use crate::common::skipped;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A small generator (xorshift64*), so that a seed gives the same tree everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Any bytes that make a name.
    fn name(&mut self) -> OsString {
        let len = if self.one_in(8) {
            255
        } else {
            1 + self.below(12)
        };
        let bytes: Vec<u8> = (0..len)
            .map(|_| match self.below(4) {
                0 => loop {
                    let byte = self.next() as u8;
                    if byte != b'/' && byte != 0 {
                        break byte;
                    }
                },
                _ => b'a' + self.below(26) as u8,
            })
            .collect();
        match &bytes[..] {
            b"." | b".." => "dots".into(),
            _ => OsString::from_vec(bytes),
        }
    }
}

/// A bare access list with one named user, in the kernel's form.
pub(crate) fn acl(user: u16, named: (u32, u16), group: u16, mask: u16, other: u16) -> Vec<u8> {
    let none = u32::MAX;
    let mut out = vec![2, 0, 0, 0];
    for (tag, bits, id) in [
        (1u16, user, none),
        (2, named.1, named.0),
        (4, group, none),
        (16, mask, none),
        (32, other, none),
    ] {
        out.extend(tag.to_le_bytes());
        out.extend(bits.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

pub(crate) fn set_xattr(path: &Path, key: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(path, key, value, XattrFlags::empty()).is_ok()
}

pub(crate) fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    let mut buf = vec![0; 1 << 16];
    let len = rustix::fs::lgetxattr(path, key, &mut buf[..]).ok()?;
    buf.truncate(len);
    Some(buf)
}

/// A tree with a bit of everything at `top`, which must not exist. As root with owners of all kinds.
pub(crate) fn build(top: &Path, random: &mut Random) {
    fs::create_dir(top).unwrap();
    let mut dirs = vec![top.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut all = vec![top.to_owned()];
    for _ in 0..25 + random.below(25) {
        let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
        let path = dir.join(random.name());
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(10) {
            0..3 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            3 => {
                let text = OsString::from_vec(vec![b'x'; 1 + random.below(300) as usize]);
                let text = if random.one_in(2) { "..".into() } else { text };
                std::os::unix::fs::symlink(text, &path).unwrap();
            }
            4 => {
                let mode = Mode::from_raw_mode(0o640);
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            }
            5 if !files.is_empty() => {
                let old = &files[random.below(files.len() as u64) as usize];
                fs::hard_link(old, &path).unwrap();
            }
            _ => {
                file(&path, random);
                files.push(path.clone());
            }
        }
        all.push(path);
    }
    // What is inside first: modes may bar the way, and new entries change times.
    for path in all.iter().rev() {
        attributes(path, random);
    }
}

/// A file with content here and there, and holes between.
fn file(path: &Path, random: &mut Random) {
    let file = fs::File::create_new(path).unwrap();
    let mut at = 0;
    for _ in 0..random.below(5) {
        let len = 1 + random.below(40_000);
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        file.write_all_at(&bytes, at).unwrap();
        at += len;
        if random.one_in(2) {
            at += random.below(1 << 20);
        }
    }
    if random.one_in(3) {
        file.set_len(at + random.below(1 << 20)).unwrap();
    }
}

fn attributes(path: &Path, random: &mut Random) {
    let meta = path.symlink_metadata().unwrap();
    if is_root() && random.one_in(2) {
        let (uid, gid) = (random.below(3) as u32, random.below(70_000) as u32);
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    }
    if !meta.is_symlink() {
        if random.one_in(3) && !meta.file_type().is_fifo() {
            set_xattr(path, "user.note", &vec![b'v'; random.below(300) as usize]);
        }
        // Without privileges we must keep the right to read, and to enter.
        let own = if is_root() { 0 } else { 0o700 };
        let (fifo, special) = (
            meta.file_type().is_fifo(),
            if meta.is_dir() { 0o1000 } else { 0o6000 },
        );
        let mut mode = random.below(0o1000) as u32 | own;
        if random.one_in(3) {
            mode |= special;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        // Special files are copied without.
        if random.one_in(4) && !fifo {
            let bits = |random: &mut Random| random.below(8) as u16;
            let user = if is_root() { bits(random) } else { 7 };
            let (named, group) = ((7, bits(random)), bits(random));
            let list = acl(user, named, group, bits(random), bits(random));
            set_xattr(path, "system.posix_acl_access", &list);
            if meta.is_dir() && random.one_in(2) {
                set_xattr(path, "system.posix_acl_default", &list);
            }
        }
    }
    // Last access lies ahead, so that reading does not change it (relatime).
    let time = |sec: i64, random: &mut Random| Timespec {
        tv_sec: sec + random.below(100_000) as i64,
        tv_nsec: random.below(1_000_000_000) as i64,
    };
    let times = Timestamps {
        last_access: time(AHEAD, random),
        last_modification: time(1_000_000_000, random),
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// What a program can tell about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) times: [(i64, i64); 2],
    pub(crate) content: Vec<u8>,
    /// Where there is data, and the size.
    pub(crate) extents: Vec<u64>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) device: u64,
    /// The first name, in order, of the same file.
    pub(crate) same_as: PathBuf,
}

/// All entries from `top` on, which is the empty path.
pub(crate) fn snapshot(top: &Path) -> BTreeMap<PathBuf, Seen> {
    fn visit(
        top: &Path,
        path: &Path,
        first: &mut BTreeMap<(u64, u64), PathBuf>,
        out: &mut BTreeMap<PathBuf, Seen>,
    ) {
        let meta = path.symlink_metadata().unwrap();
        let short = path.strip_prefix(top).unwrap().to_owned();
        let same_as = first
            .entry((meta.dev(), meta.ino()))
            .or_insert(short.clone());
        let mut seen = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            times: [
                // Reading changes it, unless it lies ahead as in the trees made here.
                if meta.atime() >= AHEAD {
                    (meta.atime(), meta.atime_nsec())
                } else {
                    (0, 0)
                },
                (meta.mtime(), meta.mtime_nsec()),
            ],
            content: Vec::new(),
            extents: Vec::new(),
            xattrs: xattrs(path),
            device: meta.rdev(),
            same_as: same_as.clone(),
        };
        if meta.is_symlink() {
            seen.content = fs::read_link(path).unwrap().into_os_string().into_vec();
        } else if meta.is_file() {
            let file = fs::File::open(path).unwrap();
            seen.extents = extents(&file, meta.len());
            if meta.len() < 64 << 20 {
                seen.content = fs::read(path).unwrap();
            }
        }
        out.insert(short, seen);
        if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect();
            names.sort();
            for path in names {
                visit(top, &path, first, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    visit(top, top, &mut BTreeMap::new(), &mut out);
    out
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    if path.is_symlink() {
        return BTreeMap::new();
    }
    let mut buf = vec![0u8; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut buf[..]).unwrap_or(0);
    buf[..len]
        .split(|b| *b == 0)
        .filter(|key| !key.is_empty())
        .map(|key| {
            let key = String::from_utf8(key.to_vec()).unwrap();
            let value = xattr(path, &key).unwrap_or_default();
            (key, value)
        })
        .collect()
}

/// Where data begins and ends, alternating, and at last the size.
fn extents(file: &fs::File, size: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
        out.extend([data, at]);
    }
    out.push(size);
    out
}

/// Whether the size is the same and every large hole is one in the copy too. What is written last is data in
/// pieces of the page cache's choice.
pub(crate) fn keeps_holes(from: &[u64], to: &[u64]) -> bool {
    let is_data = |at: u64| {
        to.chunks_exact(2)
            .any(|data| (data[0]..data[1]).contains(&at))
    };
    // From each end of data to the next begin, or the size.
    let mut holes = std::iter::once(&0).chain(from).copied().collect::<Vec<_>>();
    holes.truncate(holes.len() / 2 * 2);
    from.last() == to.last()
        && holes
            .chunks_exact(2)
            .filter(|hole| hole[1] - hole[0] > 256 << 10)
            .all(|hole| !is_data(hole[0].midpoint(hole[1])))
}

/// The names in a directory, sorted.
pub(crate) fn list(dir: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// Compares two snapshots and says where they first differ, not with whole contents.
pub(crate) fn assert_same(left: &BTreeMap<PathBuf, Seen>, right: &BTreeMap<PathBuf, Seen>) {
    let names = |s: &BTreeMap<PathBuf, Seen>| s.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(right));
    for (path, a) in left {
        let b = &right[path];
        assert_eq!(
            format!("{:o}", a.mode),
            format!("{:o}", b.mode),
            "mode of {path:?}"
        );
        assert_eq!(a.owner, b.owner, "owner of {path:?}");
        assert_eq!(a.xattrs, b.xattrs, "attributes of {path:?}");
        assert_eq!(a.times, b.times, "times of {path:?}");
        assert!(
            keeps_holes(&a.extents, &b.extents),
            "holes of {path:?}: {:?} {:?}",
            a.extents,
            b.extents
        );
        assert_eq!(a.device, b.device, "device of {path:?}");
        assert_eq!(a.same_as, b.same_as, "links of {path:?}");
        assert!(a.content == b.content, "content of {path:?}");
    }
}

pub(crate) fn is_fifo(path: &Path) -> bool {
    path.symlink_metadata().unwrap().file_type().is_fifo()
}

pub(crate) fn mode_of(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives a tree to nobody.
pub(crate) fn give_away(path: &Path) {
    if !is_root() {
        return;
    }
    let meta = path.symlink_metadata().unwrap();
    if meta.is_dir() {
        for name in list(path) {
            give_away(&path.join(name));
        }
    }
    let mode = meta.mode() & 0o7777;
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if !meta.is_symlink() {
        chmod(path, mode);
    }
}

/// Runs `f` in a thread without privileges: as nobody if we are root.
pub(crate) fn as_nobody<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            f()
        });
        thread.join().unwrap()
    })
}

/// Runs this binary's test `test` again in a process of its own, which is told apart by [`is_child`].
pub(crate) fn run_child(test: &str) {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("STEADFAST_TREE_CHILD", test)
        .status()
        .unwrap();
    assert!(status.success(), "{test} in a process of its own: {status}");
}

pub(crate) fn is_child(test: &str) -> bool {
    std::env::var_os("STEADFAST_TREE_CHILD").as_deref() == Some(OsStr::new(test))
}
