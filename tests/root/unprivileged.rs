//! What a process without privileges may still do, and that it is refused as the kernel refuses it.

use super::support::{backends, errno, mode, path, root};
use crate::common;
use rustix::fs::{AtFlags, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, getuid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use steadfast::root::{Capabilities, Capability, Feature};
use steadfast::sys::hook;
use steadfast::{Durability, ErrorKind, Root};

const NOBODY: u32 = 65534;

/// Runs `f` on a thread without privileges, in a fresh directory that belongs to it. Credentials belong to
/// the thread; the others keep theirs.
fn as_nobody(name: &str, f: impl FnOnce(&Path) + Send) {
    let tmp = common::dir();
    let dir = tmp.path().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
    let is_root = getuid().is_root();
    if is_root {
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            if is_root {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            if let Err(e) = fs::read_dir(&dir) {
                crate::common::skipped(
                    name,
                    format_args!("nobody cannot reach the test directory: {e}"),
                );
                return;
            }
            f(&dir);
        });
        thread.join().unwrap();
    });
    // Whatever the modes now are, its owner on this thread may remove it.
    for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o700)).unwrap();
        }
    }
}

fn chmod(at: &Path, bits: u32) {
    fs::set_permissions(at, Permissions::from_mode(bits)).unwrap();
}

/// Directories that may only be searched are passed, by every call.
#[test]
fn search_permission_is_enough_to_pass() {
    as_nobody("search_permission_is_enough_to_pass", |dir| {
        fs::create_dir_all(dir.join("s/in")).unwrap();
        fs::write(dir.join("s/f"), "f").unwrap();
        chmod(&dir.join("s"), 0o100);
        for backend in backends() {
            let r = root(dir, backend);
            r.create_dir("s/in/d", mode(0o755)).unwrap();
            r.create_dir_all("s/in/a/b", mode(0o755), Durability::Full)
                .unwrap();
            r.create_new("s/in/n").unwrap();
            r.symlink("x", "s/in/l").unwrap();
            r.hard_link("s/in/n", &r, "s/in/h").unwrap();
            r.rename("s/in/n", &r, "s/in/m", RenameFlags::empty())
                .unwrap();
            assert!(r.exists("s/f"));
            assert_eq!(r.canonicalize("s/in/../f").unwrap(), Path::new("s/f"));
            for name in ["m", "h", "l"] {
                r.remove_file(path(format!("s/in/{name}").as_bytes()))
                    .unwrap();
            }
            for name in ["d", "a/b", "a"] {
                r.remove_dir(path(format!("s/in/{name}").as_bytes()))
                    .unwrap();
            }
            // Searched it may be, and no more.
            assert_eq!(errno(r.create_dir("s/no", mode(0o755))), Err(Errno::ACCESS));
            assert_eq!(errno(r.read_dir("s")).map(drop), Err(Errno::ACCESS));
            assert_eq!(
                errno(r.create_dir_all("s/no/x", mode(0o755), Durability::Full)).map(drop),
                Err(Errno::ACCESS)
            );
            // Made without the right to read them.
            r.create_dir_all("wx/in", mode(0o300), Durability::Full)
                .unwrap();
            r.remove_dir("wx/in").unwrap();
            r.remove_dir("wx").unwrap();
            // As a root of its own.
            let place = Root::from(r.open_dir("s").unwrap());
            assert!(place.exists("f"));
            place.create_dir("in/d", mode(0o755)).unwrap();
            place.remove_dir("in/d").unwrap();
        }
    });
}

/// Where not even that is allowed, the refusals come in the kernel's order.
#[test]
fn refusals_come_in_the_order_of_the_kernel() {
    as_nobody("refusals_come_in_the_order_of_the_kernel", |dir| {
        fs::create_dir_all(dir.join("nox/d")).unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("nox/f"), "").unwrap();
        fs::write(dir.join("f"), "").unwrap();
        chmod(&dir.join("nox"), 0o600);
        let raw = rustix::fs::open(dir, OFlags::DIRECTORY, mode(0)).unwrap();
        let paths = [
            "nox",
            "nox/",
            "nox/.",
            "nox/./",
            "nox/..",
            "nox/../",
            "nox/f",
            "nox/f/",
            "nox/no",
            "nox/no/",
            "nox/d/x",
            "nox/../f",
            "nox/../no",
        ];
        for backend in backends() {
            let r = root(dir, backend);
            for p in paths {
                // Only what is refused: the tree stays as it is.
                let check = |call: &str, theirs: Result<(), Errno>, ours: Result<(), Errno>| {
                    assert!(theirs.is_err(), "{call} {p}");
                    assert_eq!(ours, theirs, "{call} {p} {backend:?}");
                };
                let bits = mode(0o755);
                check(
                    "mkdir",
                    rustix::fs::mkdirat(&raw, p, bits),
                    errno(r.create_dir(p, bits)),
                );
                check(
                    "symlink",
                    rustix::fs::symlinkat("x", &raw, p),
                    errno(r.symlink("x", p)),
                );
                check(
                    "rmdir",
                    rustix::fs::unlinkat(&raw, p, AtFlags::REMOVEDIR),
                    errno(r.remove_dir(p)),
                );
                check(
                    "unlink",
                    rustix::fs::unlinkat(&raw, p, AtFlags::empty()),
                    errno(r.remove_file(p)),
                );
                check(
                    "link to",
                    rustix::fs::linkat(&raw, "f", &raw, p, AtFlags::empty()),
                    errno(r.hard_link("f", &r, p)),
                );
                if !p.ends_with("nox") && !p.ends_with("nox/") {
                    let none = RenameFlags::empty();
                    let moved = rustix::fs::renameat(&raw, p, &raw, "n");
                    check("rename from", moved, errno(r.rename(p, &r, "n", none)));
                    let moved = rustix::fs::renameat(&raw, "d", &raw, p);
                    check("rename to", moved, errno(r.rename("d", &r, p, none)));
                }
            }
        }
    });
}

/// A directory that may be written and searched but not read cannot be opened for fsync; its names are made
/// durable all the same.
#[test]
fn directories_that_may_not_be_read_are_synced() {
    as_nobody("directories_that_may_not_be_read_are_synced", |dir| {
        let blind = dir.join("wx");
        fs::create_dir(&blind).unwrap();
        for bits in [0o300, 0o333] {
            chmod(&blind, bits);
            for backend in backends() {
                let r = root(dir, backend);
                let held = r.open_dir("wx").unwrap();
                let ways: [(&str, &dyn Fn() -> steadfast::Result<()>); 4] = [
                    ("Dir::sync", &|| held.sync()),
                    ("sync", &|| r.sync("wx")),
                    ("sync_dir", &|| r.sync_dir("wx")),
                    ("create_dir_all", &|| {
                        r.create_dir_all("wx/a", mode(0o755), Durability::Full)?;
                        r.remove_dir("wx/a")
                    }),
                ];
                for (what, sync) in ways {
                    let (done, calls) = hook::scope(None, sync);
                    done.unwrap();
                    assert!(calls.contains(&"syncfs"), "{what} {backend:?}: {calls:?}");
                    // Without unnamed files, by one that has a name for a moment.
                    for e in [Errno::OPNOTSUPP, Errno::ISDIR] {
                        let (done, calls) =
                            hook::scope(None, || hook::deny(&[("openat(O_TMPFILE)", e)], sync));
                        done.unwrap();
                        let end: Vec<_> = calls.iter().rev().take(2).rev().collect();
                        if what != "create_dir_all" {
                            assert_eq!(end, [&"unlinkat", &"syncfs"], "{what} {backend:?}");
                        }
                    }
                    chmod(&blind, 0o700);
                    assert_eq!(fs::read_dir(&blind).unwrap().count(), 0, "{what}");
                    chmod(&blind, bits);
                }
                let failed = hook::deny(&[("syncfs", Errno::IO)], || held.sync());
                assert_eq!(errno(failed), Err(Errno::IO));
            }
        }
        // Neither read nor written: nothing can be done, and that is said.
        chmod(&blind, 0o100);
        for backend in backends() {
            let r = root(dir, backend);
            assert_eq!(errno(r.sync_dir("wx")), Err(Errno::ACCESS));
            assert_eq!(errno(r.sync("wx")), Err(Errno::ACCESS));
        }
    });
}

#[test]
fn files_that_may_only_be_written_are_reached() {
    as_nobody("files_that_may_only_be_written_are_reached", |dir| {
        fs::write(dir.join("w"), "").unwrap();
        fs::write(dir.join("none"), "").unwrap();
        let with_xattrs = {
            let r = Root::open(dir).unwrap();
            r.set_xattr("w", "user.a", b"1", XattrFlags::empty())
                .is_ok()
        };
        chmod(&dir.join("w"), 0o200);
        chmod(&dir.join("none"), 0);
        for backend in backends() {
            let r = root(dir, backend);
            r.sync("w").unwrap();
            assert_eq!(errno(r.sync("none")), Err(Errno::ACCESS));
            if with_xattrs {
                r.set_xattr("w", "user.a", b"2", XattrFlags::empty())
                    .unwrap();
                assert_eq!(errno(r.list_xattr("none")).map(drop), Err(Errno::ACCESS));
            }
            // Mode and times need no right but ownership.
            r.set_permissions("none", mode(0o200)).unwrap();
            r.set_permissions("none", mode(0)).unwrap();
        }
    });
}

#[test]
fn an_unnamed_file_gets_a_name_without_privileges() {
    as_nobody("an_unnamed_file_gets_a_name_without_privileges", |dir| {
        for (i, backend) in backends().into_iter().enumerate() {
            let r = root(dir, backend);
            match r.tmpfile(".") {
                Ok(file) => match r.hard_link_from(&file, format!("n{i}")) {
                    Err(e)
                        if ["linkat(AT_EMPTY_PATH)", "linkat(/proc/self/fd)"]
                            .into_iter()
                            .all(hook::denied_by_env) =>
                    {
                        assert_eq!(e.kind(), ErrorKind::Unsupported);
                    }
                    done => done.unwrap(),
                },
                Err(e) => {
                    crate::common::skipped("an_unnamed_file_gets_a_name_without_privileges", e)
                }
            }
        }
    });
}

/// What cannot be tried is unknown, the rest is answered, and it is not remembered.
#[test]
fn a_directory_that_may_not_be_written_is_probed_as_far_as_it_goes() {
    const NAME: &str = "a_directory_that_may_not_be_written_is_probed_as_far_as_it_goes";
    as_nobody(NAME, |dir| {
        let fd = fs::File::open(dir).unwrap();
        chmod(dir, 0o500);
        let can = Capabilities::probe_uncached(&fd).unwrap();
        let unknown = Capability::Unknown(Errno::ACCESS);
        assert_eq!(can.get(Feature::Exchange), unknown);
        assert_eq!(can.get(Feature::SyncDirectory), unknown);
        assert!(can.has(Feature::SyncFs));
        assert_eq!(can.has(Feature::OpenAt2), !hook::denied_by_env("openat2"));
        // Nor is it remembered.
        assert_eq!(Capabilities::probe(&fd).unwrap().mount_id(), can.mount_id());
        chmod(dir, 0o700);
        let full = Capabilities::probe(&fd).unwrap();
        assert!(full.has(Feature::SyncDirectory));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
    });
}
