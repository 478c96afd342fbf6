//! What a root hands out: descriptors closed on exec, opened anew, without a name, from memory; and syncs.

use super::support::{backends, errno, mode, plant, root};
use crate::common;
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, fcntl_getfd};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::{Backend, Dir, Durability, ErrorKind, Root};

#[test]
fn every_descriptor_is_closed_on_exec() {
    for backend in backends() {
        let tmp = common::dir();
        plant(&tmp.path().join("t"));
        let r = root(&tmp.path().join("t"), backend);
        let check = |what: &str, fd: &dyn AsFd| {
            let flags = fcntl_getfd(fd.as_fd()).unwrap();
            assert!(flags.contains(FdFlags::CLOEXEC), "{what} {backend:?}");
        };
        check("root", &r);
        check("clone", &r.try_clone().unwrap());
        check(
            "open_with",
            &r.open_with("f", OFlags::PATH, mode(0)).unwrap(),
        );
        check("open_file", &r.open_file("f").unwrap());
        check("open_dir", &r.open_dir("d").unwrap());
        check("create", &r.create("c").unwrap());
        check("create_new", &r.create_new("n").unwrap());
        check("read_dir", &r.read_dir("d").unwrap());
        let made = r
            .create_dir_all("p/q", mode(0o755), Durability::None)
            .unwrap();
        check("create_dir_all", &made);
        check("Dir::try_clone", &made.try_clone().unwrap());
        check("reopen dir", &Root::reopen(&made, OFlags::RDONLY).unwrap());
        let file = r.open_with("f", OFlags::PATH, mode(0)).unwrap();
        check("reopen file", &Root::reopen(&file, OFlags::RDONLY).unwrap());
        if let Ok(file) = r.tmpfile(".") {
            check("tmpfile", &file);
        }
        if let Ok(fd) = r.try_open_cached("f", OFlags::RDONLY) {
            check("try_open_cached", &fd);
        }
    }
}

#[test]
fn reopens_what_is_open() {
    let tmp = common::dir();
    let dir = tmp.path().join("t");
    plant(&dir);
    let r = Root::open(&dir).unwrap();
    let file = r.open_with("f", OFlags::PATH, mode(0)).unwrap();
    // The name is somebody else's by now.
    fs::remove_file(dir.join("f")).unwrap();
    fs::write(dir.join("f"), "other").unwrap();
    let mut text = String::new();
    let again = Root::reopen(&file, OFlags::RDWR).unwrap();
    fs::File::from(again).read_to_string(&mut text).unwrap();
    assert_eq!(text, "f");

    let place = r.open_with("d", OFlags::PATH, mode(0)).unwrap();
    fs::rename(dir.join("d"), dir.join("moved")).unwrap();
    let again = Root::reopen(&place, OFlags::RDONLY).unwrap();
    let names: Vec<_> = Root::from(steadfast::Dir::from(again))
        .read_dir(".")
        .unwrap()
        .map(|e| e.unwrap().name().as_os_str().to_owned())
        .collect();
    assert_eq!(names.len(), 2);

    let link = r
        .open_with("l", OFlags::PATH | OFlags::NOFOLLOW, mode(0))
        .unwrap();
    let refused = errno(Root::reopen(&link, OFlags::RDONLY)).map(drop);
    assert_eq!(refused, Err(Errno::LOOP));
    for flags in [
        OFlags::CREATE,
        OFlags::EXCL,
        OFlags::TRUNC,
        OFlags::NOFOLLOW,
        OFlags::TMPFILE,
    ] {
        let refused = errno(Root::reopen(&file, flags | OFlags::RDWR)).map(drop);
        assert_eq!(refused, Err(Errno::INVAL), "{flags:?}");
    }
    // Without procfs, or with something else in its place: directories all the same, files clearly not.
    for (call, e) in [("fstatfs", Errno::NOSYS), ("openat", Errno::NOENT)] {
        hook::deny(&[(call, e)], || {
            let error = Root::reopen(&file, OFlags::RDONLY).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.advice().is_some());
        });
    }
    hook::deny(&[("fstatfs", Errno::NOSYS)], || {
        Root::reopen(&place, OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    });
}

/// Whoever may mount can put something else in procfs's place: neither files that only look like descriptors
/// nor the descriptors of another process are taken for this one's.
#[test]
fn something_mounted_over_procfs_is_noticed() {
    const FD: i32 = 200;
    let tmp = common::dir();
    fs::write(tmp.path().join("f"), "mine").unwrap();
    fs::write(tmp.path().join(FD.to_string()), "planted").unwrap();
    let file = Root::open(tmp.path())
        .unwrap()
        .open_with("f", OFlags::PATH, mode(0))
        .unwrap();
    let file = rustix::io::fcntl_dupfd_cloexec(&file, FD).unwrap();
    if std::os::fd::AsRawFd::as_raw_fd(&file) != FD {
        crate::common::skipped(
            "something_mounted_over_procfs_is_noticed",
            format_args!("descriptor {FD} is in use"),
        );
        return;
    }
    let mut other = std::process::Command::new("bash")
        .args(["-c", &format!("exec {FD}<{FD}; echo; read")])
        .current_dir(tmp.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It says so when it has opened the file.
    let mut said = [0];
    other.stdout.take().unwrap().read_exact(&mut said).unwrap();
    let theirs = format!("/proc/{}/fd", other.id());
    let ours = "/proc/thread-self/fd";
    for over in [tmp.path(), Path::new(&theirs)] {
        if let Err(e) = rustix::mount::mount_bind(over, ours) {
            crate::common::skipped(
                "something_mounted_over_procfs_is_noticed",
                format_args!("mount: {e}"),
            );
            break;
        }
        let answer = Root::reopen(&file, OFlags::RDONLY);
        let old = [("linkat(AT_EMPTY_PATH)", Errno::NOENT)];
        let root = Root::open(tmp.path()).unwrap();
        let linked = hook::deny(&old, || root.hard_link_from(&file, "linked"));
        rustix::mount::unmount(ours, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(linked.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    Root::reopen(&file, OFlags::RDONLY).unwrap();
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn an_unnamed_file_gets_a_name_once() {
    for backend in backends() {
        let tmp = common::dir();
        let r = root(tmp.path(), backend);
        fs::create_dir(tmp.path().join("d")).unwrap();
        let mut file = match r.tmpfile("d") {
            Ok(file) => file,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
                crate::common::skipped("an_unnamed_file_gets_a_name_once", "no O_TMPFILE here");
                return;
            }
        };
        file.write_all(b"content").unwrap();
        assert_eq!(fs::read_dir(tmp.path().join("d")).unwrap().count(), 0);
        let ways = ["linkat(AT_EMPTY_PATH)", "linkat(/proc/self/fd)"];
        if ways.into_iter().all(hook::denied_by_env) {
            let error = r.hard_link_from(&file, "d/name").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            return;
        }
        assert_eq!(errno(r.hard_link_from(&file, "d/no/")), Err(Errno::NOENT));
        r.hard_link_from(&file, "d/name").unwrap();
        assert_eq!(fs::read(tmp.path().join("d/name")).unwrap(), b"content");
        assert_eq!(errno(r.hard_link_from(&file, "d/name")), Err(Errno::EXIST));
        assert_eq!(errno(r.hard_link_from(&file, "d/name/")), Err(Errno::EXIST));
        assert_eq!(errno(r.hard_link_from(&file, "d/.")), Err(Errno::EXIST));
        // An open file that has a name already.
        r.hard_link_from(&file, "second").unwrap();
        assert_eq!(fs::metadata(tmp.path().join("second")).unwrap().nlink(), 2);
        assert_eq!(errno(r.tmpfile("d/name")).map(drop), Err(Errno::NOTDIR));
        let no_way = [
            ("linkat(AT_EMPTY_PATH)", Errno::NOENT),
            ("fstatfs", Errno::NOSYS),
        ];
        let error = hook::deny(&no_way, || r.hard_link_from(&file, "third")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    let tmp = common::dir();
    let r = Root::open(tmp.path()).unwrap();
    for e in [Errno::OPNOTSUPP, Errno::ISDIR] {
        let error = hook::deny(&[("openat(O_TMPFILE)", e)], || r.tmpfile(".")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn opens_from_memory_or_says_that_it_would_wait() {
    let tmp = common::dir();
    let dir = tmp.path().join("t");
    plant(&dir);
    let blocked = |r: &Root| {
        let error = r.try_open_cached("d/in", OFlags::RDONLY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let io = std::io::Error::from(error);
        assert_eq!(io.kind(), std::io::ErrorKind::WouldBlock);
    };
    blocked(&root(&dir, Backend::Walk));
    if hook::denied_by_env("openat2") {
        blocked(&root(&dir, Backend::Auto));
        return;
    }
    for backend in [Backend::Auto, Backend::Kernel] {
        let r = root(&dir, backend);
        for e in [Errno::NOSYS, Errno::PERM, Errno::AGAIN, Errno::INVAL] {
            hook::deny(&[("openat2", e)], || blocked(&r));
        }
        match r.try_open_cached("d/in", OFlags::RDONLY) {
            Ok(fd) => {
                let text = std::io::read_to_string(fs::File::from(fd)).unwrap();
                assert_eq!(text, "in");
            }
            // A file system that must ask a server each time.
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
        let error = r.try_open_cached("../x", OFlags::RDONLY).unwrap_err();
        assert!(matches!(
            error.kind(),
            ErrorKind::Escape | ErrorKind::WouldBlock
        ));
    }
}

#[test]
fn syncs_reach_the_kernel() {
    for backend in backends() {
        let tmp = common::dir();
        let dir = tmp.path().join("t");
        plant(&dir);
        let r = root(&dir, backend);
        r.mkfifo("fifo", mode(0o600)).unwrap();
        for p in ["f", "l", "d", "ld/sub", "."] {
            let (done, calls) = hook::scope(None, || r.sync(p));
            done.unwrap();
            assert_eq!(calls.iter().filter(|c| **c == "fsync").count(), 1, "{p}");
        }
        r.sync_dir("ld").unwrap();
        assert_eq!(errno(r.sync_dir("f")), Err(Errno::NOTDIR));
        assert_eq!(errno(r.sync("fifo")), Err(Errno::INVAL));
        let error = hook::deny(&[("fsync", Errno::IO)], || r.sync_dir("d")).unwrap_err();
        assert_eq!(
            (error.errno(), error.path()),
            (Some(Errno::IO), Some(Path::new("d")))
        );
    }
}

/// A descriptor that is only a place cannot be synced itself, so that the directory is opened for it.
#[test]
fn a_directory_that_is_held_as_a_place_is_synced() {
    let tmp = common::dir();
    let place = rustix::fs::open(tmp.path(), OFlags::PATH | OFlags::DIRECTORY, mode(0)).unwrap();
    let dir = Dir::from(place);
    let (done, calls) = hook::scope(None, || dir.sync());
    done.unwrap();
    assert_eq!(calls, ["fsync", "openat", "fsync"]);
    let plan = Plan {
        at: 3,
        action: Action::Fail(Errno::IO),
    };
    let (done, _) = hook::scope(Some(plan), || dir.sync());
    assert_eq!(done.unwrap_err().errno(), Some(Errno::IO));
}
