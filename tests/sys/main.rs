//! The thin layer: each call does what its manual page says, and keeps the errno.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod trace;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use steadfast::sys::{
    self, AtFlags, CWD, DirStream, Errno, FallocateFlags, FileType, LockKind, LockRange, Mode,
    OFlags, OpenHow, RenameFlags, ResolveFlags, SyncRange, XattrFlags, hook,
};

fn open(path: &Path, flags: OFlags) -> OwnedFd {
    sys::openat(CWD, path, flags, Mode::empty()).unwrap()
}

fn dir(path: &Path) -> OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// An unsupported call is no failure of this suite, but it is said.
fn supported<T>(what: &str, result: sys::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e @ (Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::NOTTY | Errno::ISDIR)) => {
            crate::common::skipped(what, format_args!("not on this file system ({e})"));
            None
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

#[test]
fn rename_flags_keep_and_exchange() {
    let tmp = common::dir();
    let at = dir(tmp.path());
    for (name, text) in [("a", "1"), ("b", "2")] {
        fs::write(tmp.path().join(name), text).unwrap();
    }
    let rename = |from: &str, to: &str, flags| sys::renameat2(&at, from, &at, to, flags);
    if supported("NOREPLACE", rename("a", "c", RenameFlags::NOREPLACE)).is_some() {
        assert_eq!(rename("c", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        rename("c", "a", RenameFlags::NOREPLACE).unwrap();
    }
    if supported("EXCHANGE", rename("a", "b", RenameFlags::EXCHANGE)).is_some() {
        assert_eq!(fs::read_to_string(tmp.path().join("a")).unwrap(), "2");
        assert_eq!(
            rename("a", "none", RenameFlags::EXCHANGE),
            Err(Errno::NOENT)
        );
        let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
        assert_eq!(rename("a", "b", both), Err(Errno::INVAL));
    }
    rename("a", "b", RenameFlags::empty()).unwrap();
    assert!(!tmp.path().join("a").exists());
    assert_eq!(rename("a\0x", "b", RenameFlags::empty()), Err(Errno::INVAL));
}

#[test]
fn openat2_resolves_as_asked_and_its_absence_is_found() {
    let tmp = common::dir();
    let at = dir(tmp.path());
    fs::write(tmp.path().join("f"), "").unwrap();
    std::os::unix::fs::symlink("/", tmp.path().join("out")).unwrap();
    let ask =
        |path: &str, flags| sys::openat2(&at, path, OpenHow::new(OFlags::PATH).resolve(flags));
    if sys::openat2_blocked() {
        crate::common::skipped("openat2", "not to be had here");
        return;
    }
    ask("f", ResolveFlags::BENEATH).unwrap();
    assert_eq!(ask("out", ResolveFlags::BENEATH).unwrap_err(), Errno::XDEV);
    assert_eq!(ask("..", ResolveFlags::BENEATH).unwrap_err(), Errno::XDEV);
    ask("out", ResolveFlags::IN_ROOT).unwrap();
    assert_eq!(
        ask("out", ResolveFlags::NO_SYMLINKS).unwrap_err(),
        Errno::LOOP
    );
    let both = ResolveFlags::BENEATH | ResolveFlags::IN_ROOT;
    assert_eq!(ask("f", both).unwrap_err(), Errno::INVAL);
    for blocked in [Errno::NOSYS, Errno::PERM] {
        assert!(hook::deny(&[("openat2", blocked)], sys::openat2_blocked));
    }
}

#[test]
fn an_unnamed_file_gets_a_name_once() {
    let tmp = common::dir();
    let at = dir(tmp.path());
    let Some(file) = supported("O_TMPFILE", sys::open_tmpfile(&at, Mode::RUSR | Mode::WUSR)) else {
        return;
    };
    if hook::denied_by_env("linkat(/proc/self/fd)") {
        common::skipped("naming an open file", "switched off");
        return;
    }
    sys::write(&file, b"text").unwrap();
    if supported("naming an open file", sys::link_descriptor(&file, &at, "f")).is_none() {
        return;
    }
    assert_eq!(fs::read(tmp.path().join("f")).unwrap(), b"text");
    assert_eq!(sys::link_descriptor(&file, &at, "f"), Err(Errno::EXIST));
    // Through procfs, and without either way.
    let no_empty_path = ("linkat(AT_EMPTY_PATH)", Errno::NOENT);
    hook::deny(&[no_empty_path], || {
        supported(
            "linking through procfs",
            sys::link_descriptor(&file, &at, "g"),
        );
    });
    let no_proc = ("fstatfs", Errno::IO);
    hook::deny(&[no_empty_path, no_proc], || {
        assert_eq!(sys::link_descriptor(&file, &at, "h"), Err(Errno::OPNOTSUPP));
    });
}

#[test]
fn syncs_answer_and_are_never_repeated() {
    let tmp = common::dir();
    let file = File::create(tmp.path().join("f")).unwrap();
    sys::write(&file, &[1; 10_000]).unwrap();
    sys::sync_file_range(&file, 0, 0, SyncRange::Start).unwrap();
    sys::sync_file_range(&file, 0, 4096, SyncRange::WriteAndWait).unwrap();
    assert_eq!(
        sys::sync_file_range(&file, u64::MAX, 1, SyncRange::Start),
        Err(Errno::INVAL)
    );
    sys::fdatasync(&file).unwrap();
    sys::fsync(&file).unwrap();
    sys::syncfs(&file).unwrap();
    let interrupted = hook::Plan {
        at: 1,
        action: hook::Action::Fail(Errno::INTR),
    };
    let calls: [(&str, &dyn Fn() -> sys::Result<()>); 3] = [
        ("fsync", &|| sys::fsync(&file)),
        ("fdatasync", &|| sys::fdatasync(&file)),
        ("syncfs", &|| sys::syncfs(&file)),
    ];
    for (name, call) in calls {
        let (answer, seen) = hook::scope(Some(interrupted), call);
        assert_eq!((answer, seen), (Err(Errno::INTR), vec![name]));
    }
}

#[test]
fn facts_and_identities() {
    let tmp = common::dir();
    fs::write(tmp.path().join("f"), "12345").unwrap();
    std::os::unix::fs::symlink("f", tmp.path().join("l")).unwrap();
    let at = dir(tmp.path());
    let look = |name: &str, flags| sys::statx(&at, name, flags).unwrap();
    let file = look("f", AtFlags::SYMLINK_NOFOLLOW);
    assert_eq!(
        (file.kind(), file.len(), file.links()),
        (FileType::RegularFile, 5, 1)
    );
    assert!(file.is_file() && !file.is_dir() && !file.is_empty());
    assert!(look("l", AtFlags::SYMLINK_NOFOLLOW).is_symlink());
    assert_eq!(look("l", AtFlags::empty()).id(), file.id());
    let itself = look("", AtFlags::EMPTY_PATH);
    assert!(itself.is_dir());
    assert_ne!(itself.id(), file.id());
    let std = fs::metadata(tmp.path().join("f")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((std.dev(), std.ino()), (file.id().dev, file.id().ino));
    assert_eq!(
        (std.mtime(), std.mtime_nsec()),
        (file.mtime().tv_sec, file.mtime().tv_nsec)
    );
    assert!(file.mount_id().is_some() && file.mount_id() == itself.mount_id());
    assert!(sys::fs_kind(&at).is_ok());
}

#[test]
fn content_is_copied_reserved_and_its_holes_are_found() {
    let tmp = common::dir();
    let from = tmp.path().join("from");
    fs::write(&from, vec![7; 100_000]).unwrap();
    let from = File::open(&from).unwrap();
    let to = File::create_new(tmp.path().join("to")).unwrap();
    if supported("FICLONE", sys::ficlone(&to, &from)).is_some() {
        assert_eq!(fs::read(tmp.path().join("to")).unwrap(), vec![7; 100_000]);
    }
    sys::ftruncate(&to, 0).unwrap();
    if let Some(n) = supported("copy_file_range", sys::copy_file_range(&from, &to, 1000)) {
        assert_eq!(fs::read(tmp.path().join("to")).unwrap(), vec![7; n]);
    }
    let file = File::create_new(tmp.path().join("sparse")).unwrap();
    supported(
        "fallocate",
        sys::fallocate(&file, FallocateFlags::empty(), 0, 4096),
    );
    assert_eq!(
        sys::seek(&file, std::io::SeekFrom::Start(1 << 20)),
        Ok(1 << 20)
    );
    sys::write(&file, b"end").unwrap();
    let size = sys::statx(&file, "", AtFlags::EMPTY_PATH).unwrap().len();
    assert_eq!(size, (1 << 20) + 3);
    let data = sys::seek_data(&file, 512 * 1024).unwrap().unwrap();
    assert!(data <= 1 << 20);
    assert_eq!(sys::seek_data(&file, size), Ok(None));
    assert!(sys::seek_hole(&file, 0).unwrap() <= size);
    let mut buf = [0; 3];
    assert_eq!(
        (
            sys::pwrite(&file, b"x", 0),
            sys::pread(
                File::open(tmp.path().join("sparse")).unwrap(),
                &mut buf,
                1 << 20
            )
        ),
        (Ok(1), Ok(3))
    );
    assert_eq!(&buf, b"end");
}

#[test]
fn attributes_of_any_size() {
    let tmp = common::dir();
    let file = File::create(tmp.path().join("f")).unwrap();
    let set = |name: &str, value: &[u8]| sys::fsetxattr(&file, name, value, XattrFlags::empty());
    if supported("user attributes", set("user.a", b"value")).is_none() {
        return;
    }
    assert_eq!(sys::fgetxattr(&file, "user.a").unwrap().unwrap(), b"value");
    assert_eq!(sys::fgetxattr(&file, "user.none"), Ok(None));
    // More than the first buffer holds.
    let large = vec![9; 800];
    set("user.b", &large).unwrap();
    assert_eq!(sys::fgetxattr(&file, "user.b").unwrap().unwrap(), large);
    set("user.empty", b"").unwrap();
    let names = sys::flistxattr(&file).unwrap();
    for name in [c"user.a", c"user.b", c"user.empty"] {
        assert!(names.iter().any(|n| n.as_c_str() == name), "{names:?}");
    }
    sys::fremovexattr(&file, "user.a").unwrap();
    assert_eq!(sys::fremovexattr(&file, "user.a"), Err(Errno::NODATA));
    let exists = sys::fsetxattr(&file, "user.b", b"", XattrFlags::CREATE);
    assert_eq!(exists, Err(Errno::EXIST));
}

#[test]
fn locks_belong_to_the_open_file_description() {
    let tmp = common::dir();
    let path = tmp.path().join("lock");
    fs::write(&path, "").unwrap();
    let (a, b) = (open(&path, OFlags::RDWR), open(&path, OFlags::RDWR));
    let range = |start, len| LockRange::new(start, len).unwrap();
    sys::ofd_lock(&a, LockKind::Exclusive, range(0, 10)).unwrap();
    assert_eq!(
        sys::ofd_try_lock(&b, LockKind::Shared, range(9, 1)),
        Err(Errno::AGAIN)
    );
    sys::ofd_try_lock(&b, LockKind::Exclusive, range(10, 10)).unwrap();
    assert_eq!(
        sys::ofd_try_lock(&b, LockKind::Shared, LockRange::WHOLE),
        Err(Errno::AGAIN)
    );
    // A duplicate is the same holder, and closing it gives nothing back.
    let same = a.try_clone().unwrap();
    sys::ofd_try_lock(&same, LockKind::Exclusive, range(0, 5)).unwrap();
    drop(same);
    assert_eq!(
        sys::ofd_try_lock(&b, LockKind::Shared, range(0, 1)),
        Err(Errno::AGAIN)
    );
    sys::ofd_unlock(&a, range(0, 5)).unwrap();
    sys::ofd_try_lock(&b, LockKind::Shared, range(0, 5)).unwrap();
    let looks = open(&path, OFlags::RDONLY);
    let would_wait = |range| sys::ofd_would_wait(&looks, LockKind::Exclusive, range);
    assert_eq!(would_wait(range(7, 1)), Ok(true));
    assert_eq!(would_wait(range(30, 1)), Ok(false));
    assert_eq!(
        sys::ofd_would_wait(&a, LockKind::Exclusive, range(7, 1)),
        Ok(false)
    );
    drop(a);
    sys::ofd_try_lock(&b, LockKind::Exclusive, LockRange::WHOLE).unwrap();
    assert_eq!(LockRange::new(0, 0), None);
    assert_eq!(LockRange::new(u64::MAX, 1), None);
    assert_eq!(LockRange::new(i64::MAX as u64, 1), None);
    // An exclusive lock needs the right to write.
    let reader = open(&path, OFlags::RDONLY);
    assert_eq!(
        sys::ofd_try_lock(&reader, LockKind::Exclusive, range(90, 1)),
        Err(Errno::BADF)
    );
    // flock, also for directories.
    let (c, d) = (dir(tmp.path()), dir(tmp.path()));
    sys::try_flock(&c, LockKind::Shared).unwrap();
    sys::try_flock(&d, LockKind::Shared).unwrap();
    assert_eq!(sys::try_flock(&d, LockKind::Exclusive), Err(Errno::AGAIN));
    drop(c);
    sys::try_flock(&d, LockKind::Exclusive).unwrap();
}

#[test]
fn a_lease_tells_whether_somebody_writes() {
    let tmp = common::dir();
    let path = tmp.path().join("f");
    let writer = File::create(&path).unwrap();
    let reader = open(&path, OFlags::RDONLY);
    assert_eq!(
        sys::lease_free_of_writers(&reader).err(),
        Some(Errno::AGAIN)
    );
    drop(writer);
    let proof = sys::lease_free_of_writers(&reader).unwrap();
    // Another reader does no harm.
    drop(open(&path, OFlags::RDONLY));
    let nonblocking = OFlags::WRONLY | OFlags::NONBLOCK;
    assert_eq!(
        sys::openat(CWD, &path, nonblocking, Mode::empty()).err(),
        Some(Errno::AGAIN)
    );
    drop(proof);
    drop(open(&path, OFlags::WRONLY));
}

#[test]
fn a_directory_is_read_to_its_end_and_again() {
    let tmp = common::dir();
    let mut want: Vec<Vec<u8>> = (0..3000)
        .map(|n| format!("entry-{n:04}").into_bytes())
        .collect();
    for odd in [&b"..."[..], b".x", b"\xff\xfe", b"new\nline", &[b'n'; 255]] {
        want.push(odd.to_vec());
    }
    want.retain(|name| {
        let path = tmp.path().join(std::ffi::OsStr::from_bytes(name));
        fs::write(path, "")
            .map_err(|e| crate::common::skipped(&format!("the name {name:?}"), e))
            .is_ok()
    });
    fs::create_dir(tmp.path().join("d")).unwrap();
    want.push(b"d".to_vec());
    want.sort();
    let mut stream = DirStream::new(dir(tmp.path()));
    for _ in 0..2 {
        let mut found = Vec::new();
        while let Some(entry) = stream.next().unwrap() {
            if entry.name() == c"d" {
                assert!(matches!(
                    entry.kind_hint(),
                    FileType::Directory | FileType::Unknown
                ));
            }
            found.push(entry.name().to_bytes().to_vec());
        }
        found.sort();
        assert_eq!(found, want);
        stream.rewind().unwrap();
    }
    assert!(
        DirStream::new(dir(&tmp.path().join("d")))
            .next()
            .unwrap()
            .is_none()
    );
}

#[test]
fn every_descriptor_is_closed_on_exec() {
    let tmp = common::dir();
    let at = dir(tmp.path());
    let create = OFlags::RDWR | OFlags::CREATE;
    let mut all = vec![sys::openat(&at, "f", create, Mode::RUSR).unwrap()];
    all.extend(sys::openat2(&at, "f", OpenHow::new(OFlags::PATH)).ok());
    all.extend(sys::open_tmpfile(&at, Mode::RUSR).ok());
    all.push(at);
    for fd in all {
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}

#[test]
fn handles_may_cross_threads() {
    fn both<T: Send + Sync>() {}
    both::<steadfast::Root>();
    both::<steadfast::Dir>();
    both::<steadfast::Name>();
    both::<steadfast::Error>();
    both::<steadfast::Capabilities>();
    both::<steadfast::publish::FileOptions>();
    both::<steadfast::publish::FolderOptions>();
    both::<steadfast::publish::PendingFile<'static>>();
    both::<steadfast::publish::PendingFolder<'static>>();
    both::<steadfast::publish::Batch<'static>>();
    both::<steadfast::publish::Receipt>();
    both::<steadfast::publish::SweepReport>();
}

#[test]
fn a_symlink_itself_is_linked() {
    let tmp = common::dir();
    let at = dir(tmp.path());
    fs::write(tmp.path().join("file"), "").unwrap();
    sys::symlinkat("file", &at, "link").unwrap();
    if supported("links to symlinks", sys::linkat(&at, "link", &at, "other")).is_some() {
        assert_eq!(sys::readlinkat(&at, "other").unwrap(), c"file".to_owned());
    }
}
