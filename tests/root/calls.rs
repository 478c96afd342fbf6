//! Each call of a root does its work, keeps beneath it, and says clearly what it could not do.

use super::support::{backends, errno, mode, path, plant, root, snapshot};
use crate::common;
use rustix::fs::{OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use steadfast::sys::{AtFlags, hook};
use steadfast::{Backend, Durability, ErrorKind, Root, RootOptions, Scope};

/// Nothing outside a root is reached or changed, by any call, on any way out.
#[test]
fn nothing_leads_out() {
    for backend in backends() {
        let tmp = common::dir();
        let top = tmp.path().join("t");
        plant(&top);
        fs::write(tmp.path().join("x"), "outside").unwrap();
        fs::create_dir(tmp.path().join("dir")).unwrap();
        symlink("..", top.join("up")).unwrap();
        symlink("../x", top.join("out")).unwrap();
        symlink(tmp.path(), top.join("abs")).unwrap();
        let before = snapshot(tmp.path());
        let r = root(&top, backend);
        let far = tmp.path().join("x");
        let time = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let create = OFlags::WRONLY | OFlags::CREATE;
        // Those that follow a link at the end, and those that do not but have a directory on the way.
        let ways = [
            Path::new("../x"),
            &far,
            Path::new("up/x"),
            Path::new("abs/x"),
            Path::new("d/../../x"),
            Path::new("ld/../../x"),
        ];
        for p in ways.into_iter().chain([Path::new("out")]) {
            let follow = p != Path::new("out");
            let dir = p.with_file_name("dir");
            let new = p.with_file_name("new");
            let mut all = vec![
                ("open", r.open_file(p).map(drop)),
                ("open_with", r.open_with(p, create, mode(0o600)).map(drop)),
                ("create", r.create(p).map(drop)),
                ("metadata", r.metadata(p).map(drop)),
                ("exists", r.try_exists(p).map(drop)),
                ("set_permissions", r.set_permissions(p, mode(0o777))),
                ("set_owner", r.set_owner(p, None, None)),
                ("set_times", r.set_times(p, &times)),
                ("get_xattr", r.get_xattr(p, "user.x").map(drop)),
                (
                    "set_xattr",
                    r.set_xattr(p, "user.x", b"1", XattrFlags::empty()),
                ),
                ("remove_xattr", r.remove_xattr(p, "user.x")),
                ("list_xattr", r.list_xattr(p).map(drop)),
                ("sync", r.sync(p)),
                ("canonicalize", r.canonicalize(p).map(drop)),
            ];
            if follow {
                all.extend([
                    ("open_dir", r.open_dir(&dir).map(drop)),
                    ("create_new", r.create_new(&new).map(drop)),
                    ("tmpfile", r.tmpfile(&dir).map(drop)),
                    ("symlink_metadata", r.symlink_metadata(p).map(drop)),
                    ("read_link", r.read_link(p).map(drop)),
                    ("read_dir", r.read_dir(&dir).map(drop)),
                    ("sync_dir", r.sync_dir(&dir)),
                    ("create_dir", r.create_dir(&new, mode(0o700))),
                    ("mkfifo", r.mkfifo(&new, mode(0o700))),
                    ("remove_file", r.remove_file(p)),
                    ("remove_dir", r.remove_dir(&dir)),
                    ("rename from", r.rename(p, &r, "n", RenameFlags::empty())),
                    ("rename to", r.rename("f", &r, p, RenameFlags::empty())),
                    ("exchange", r.rename("f", &r, p, RenameFlags::EXCHANGE)),
                    ("symlink", r.symlink("t", &new)),
                    ("link from", r.hard_link(p, &r, "n")),
                    ("link to", r.hard_link("f", &r, &new)),
                    ("set_symlink_owner", r.set_symlink_owner(p, None, None)),
                    ("set_symlink_times", r.set_symlink_times(p, &times)),
                ]);
                let f = r.open_file("f").unwrap();
                all.push(("link fd", r.hard_link_from(&f, &new)));
            }
            for (call, result) in all {
                let error = result.expect_err(call);
                assert_eq!(error.kind(), ErrorKind::Escape, "{call} {p:?} {backend:?}");
                assert_eq!(error.errno(), Some(Errno::XDEV), "{call} {p:?} {backend:?}");
                assert!(!r.exists(p));
            }
        }
        assert!(snapshot(tmp.path()) == before, "{backend:?}");
    }
}

/// A root that takes `/` for itself: what the kernel says of `/` is said of it.
#[test]
fn slash_is_the_root_where_that_is_asked_for() {
    for backend in backends() {
        let tmp = common::dir();
        plant(&tmp.path().join("t"));
        let options = RootOptions::new().scope(Scope::InRoot).backend(backend);
        let r = options.open(tmp.path().join("t")).unwrap();
        for p in ["/", "//"] {
            let none = RenameFlags::empty();
            let free = RenameFlags::NOREPLACE;
            let cases = [
                ("mkdir", errno(r.create_dir(p, mode(0o755))), Errno::EXIST),
                ("mkfifo", errno(r.mkfifo(p, mode(0o755))), Errno::EXIST),
                ("symlink", errno(r.symlink("x", p)), Errno::EXIST),
                ("link to", errno(r.hard_link("f", &r, p)), Errno::EXIST),
                ("link from", errno(r.hard_link(p, &r, "n")), Errno::PERM),
                ("unlink", errno(r.remove_file(p)), Errno::ISDIR),
                ("rmdir", errno(r.remove_dir(p)), Errno::BUSY),
                (
                    "rename from",
                    errno(r.rename(p, &r, "n", none)),
                    Errno::BUSY,
                ),
                ("rename to", errno(r.rename("f", &r, p, none)), Errno::BUSY),
                (
                    "rename to, free",
                    errno(r.rename("f", &r, p, free)),
                    if hook::denied_by_env("renameat2(RENAME_NOREPLACE)") {
                        Errno::INVAL
                    } else {
                        Errno::EXIST
                    },
                ),
                ("readlink", errno(r.read_link(p)).map(drop), Errno::INVAL),
            ];
            for (call, got, want) in cases {
                assert_eq!(got, Err(want), "{call} {backend:?}");
            }
        }
        r.create_dir_all("/a/../b/c", mode(0o755), Durability::None)
            .unwrap_err();
        r.create_dir_all("/../b/c", mode(0o755), Durability::None)
            .unwrap();
        assert!(tmp.path().join("t/b/c").is_dir());
        assert_eq!(r.canonicalize("/../ld/./in").unwrap(), Path::new("d/in"));
        assert_eq!(r.canonicalize("/").unwrap(), Path::new("."));
    }
}

#[test]
fn a_nul_is_refused_everywhere() {
    let tmp = common::dir();
    let dir = tmp.path().join("t");
    plant(&dir);
    for backend in backends() {
        let r = root(&dir, backend);
        let p = path(b"f\0x");
        for (call, result) in [
            ("open", errno(r.open_file(p)).map(drop)),
            ("create", errno(r.create(p)).map(drop)),
            ("metadata", errno(r.metadata(p)).map(drop)),
            ("mkdir", errno(r.create_dir(p, mode(0o755)))),
            ("unlink", errno(r.remove_file(p))),
            ("rename", errno(r.rename("f", &r, p, RenameFlags::empty()))),
            ("symlink text", errno(r.symlink(p, "s"))),
            ("canonicalize", errno(r.canonicalize(p)).map(drop)),
            (
                "cached",
                errno(r.try_open_cached(p, OFlags::RDONLY)).map(drop),
            ),
        ] {
            let cached = call == "cached" && backend == Backend::Walk;
            let want = if cached { Errno::AGAIN } else { Errno::INVAL };
            assert_eq!(result, Err(want), "{call} {backend:?}");
        }
    }
}

#[test]
fn renames_between_roots() {
    for backend in backends() {
        let tmp = common::dir();
        let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
        plant(&a);
        plant(&b);
        let (ra, rb) = (root(&a, backend), root(&b, backend));
        fs::write(a.join("f"), "from a").unwrap();
        ra.rename("f", &rb, "d/in", RenameFlags::empty()).unwrap();
        assert!(!a.join("f").exists());
        assert_eq!(fs::read(b.join("d/in")).unwrap(), b"from a");
        rb.hard_link("d/in", &ra, "back").unwrap();
        assert_eq!(fs::read(a.join("back")).unwrap(), b"from a");
        let error = ra
            .rename("gone", &rb, "x", RenameFlags::empty())
            .unwrap_err();
        assert_eq!(error.path(), Some(Path::new("gone")));
        assert_eq!(error.other_path(), Some(Path::new("x")));
        assert_eq!(error.system_call(), Some("renameat"));
    }
}

/// `EINVAL` has three meanings, which are told apart.
#[test]
fn a_flag_that_is_missing_is_not_a_wrong_argument() {
    let tmp = common::dir();
    let dir = tmp.path().join("t");
    plant(&dir);
    let r = Root::open(&dir).unwrap();
    let (swap, free) = (RenameFlags::EXCHANGE, RenameFlags::NOREPLACE);
    let kind = |from, to, flags| r.rename(from, &r, to, flags).unwrap_err().kind();
    let off = [
        ("renameat2(RENAME_EXCHANGE)", Errno::INVAL),
        ("renameat2(RENAME_NOREPLACE)", Errno::INVAL),
    ];
    hook::deny(&off, || {
        assert_eq!(kind("f", "g", swap), ErrorKind::Unsupported);
        assert_eq!(kind("d", "e", swap), ErrorKind::Unsupported);
        assert_eq!(kind("f", "new", free), ErrorKind::Unsupported);
        assert_eq!(kind("d/sub", "new", free), ErrorKind::Unsupported);
    });
    // As the kernel has them, whether or not it knows the flags.
    for (from, to, flags) in [
        ("d", "d/sub/x", free),
        ("d", "d/sub", swap),
        ("d/sub", "d", swap),
        ("d", "d/x", RenameFlags::empty()),
        ("f", "g", swap | free),
        ("f", "g", RenameFlags::from_bits_retain(64)),
    ] {
        assert_eq!(
            kind(from, to, flags),
            ErrorKind::InvalidInput,
            "{from} {to} {flags:?}"
        );
    }
}

#[test]
fn attributes_are_set_without_the_newest_calls() {
    let tmp = common::dir();
    let dir = tmp.path().join("t");
    plant(&dir);
    // Followed, so that it is seen to be the file and not the link.
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
    let times = Timestamps {
        last_access: time(1_000),
        last_modification: time(2_000),
    };
    let bits = |name: &str| {
        fs::symlink_metadata(dir.join(name))
            .unwrap()
            .permissions()
            .mode()
    };
    let mtime = |name: &str| fs::symlink_metadata(dir.join(name)).unwrap().mtime();
    let old = [
        ("fchmodat2", Errno::NOSYS),
        ("utimensat(AT_EMPTY_PATH)", Errno::INVAL),
    ];
    for backend in backends() {
        let r = root(&dir, backend);
        for (way, calls) in [("new", &[][..]), ("old", &old[..])] {
            hook::deny(calls, || {
                r.set_permissions("l", mode(0o640)).unwrap();
                assert_eq!(bits("f") & 0o7777, 0o640, "{way}");
                r.set_times("l", &times).unwrap();
                assert_eq!(mtime("f"), 2_000, "{way}");
                assert_ne!(mtime("l"), 2_000, "{way}");
                r.set_symlink_times("ld", &times).unwrap();
                assert_eq!(mtime("ld"), 2_000, "{way}");
                assert_ne!(mtime("d"), 2_000, "{way}");
            });
            fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(dir.join("f"), "f").unwrap();
            fs::remove_file(dir.join("ld")).unwrap();
            symlink("d", dir.join("ld")).unwrap();
        }
        let blind = [old[0], old[1], ("fstatfs", Errno::NOSYS)];
        hook::deny(&blind, || {
            let error = r.set_permissions("f", mode(0o640)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let error = r.set_times("f", &times).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        });
    }
}

#[test]
fn owners_are_set() {
    if !rustix::process::getuid().is_root() {
        crate::common::skipped("owners_are_set", "needs root");
        return;
    }
    for backend in backends() {
        let tmp = common::dir();
        let dir = tmp.path().join("t");
        plant(&dir);
        let r = root(&dir, backend);
        let owner = |name: &str| {
            let facts = fs::symlink_metadata(dir.join(name)).unwrap();
            (facts.uid(), facts.gid())
        };
        let (uid, gid) = (rustix::fs::Uid::from_raw(7), rustix::fs::Gid::from_raw(8));
        r.set_owner("l", Some(uid), None).unwrap();
        assert_eq!((owner("f"), owner("l")), ((7, 0), (0, 0)));
        r.set_symlink_owner("l", None, Some(gid)).unwrap();
        assert_eq!((owner("f"), owner("l")), ((7, 0), (0, 8)));
    }
}

#[test]
fn attributes_of_users_come_and_go() {
    for backend in backends() {
        let tmp = common::dir();
        let dir = tmp.path().join("t");
        plant(&dir);
        let r = root(&dir, backend);
        if let Err(e) = r.set_xattr("d", "user.one", b"1", XattrFlags::empty()) {
            assert_eq!(e.errno(), Some(Errno::OPNOTSUPP));
            crate::common::skipped("attributes_of_users_come_and_go", e);
            return;
        }
        // Through the link, larger than the first buffer.
        let large = vec![b'v'; 900];
        r.set_xattr("l", "user.two", &large, XattrFlags::CREATE)
            .unwrap();
        let again = r.set_xattr("f", "user.two", b"", XattrFlags::CREATE);
        assert_eq!(errno(again), Err(Errno::EXIST));
        assert_eq!(r.get_xattr("f", "user.two").unwrap(), Some(large));
        assert_eq!(r.get_xattr("f", "user.none").unwrap(), None);
        assert!(r.list_xattr("f").unwrap().contains(&"user.two".into()));
        r.remove_xattr("f", "user.two").unwrap();
        assert!(!r.list_xattr("f").unwrap().contains(&"user.two".into()));
        assert_eq!(errno(r.remove_xattr("f", "user.two")), Err(Errno::NODATA));
    }
}

#[test]
fn reads_every_name() {
    for backend in backends() {
        let tmp = common::dir();
        let r = root(tmp.path(), backend);
        let names = [
            vec![b'n'; 255],
            vec![0xff; 250],
            b" \n".to_vec(),
            b"...".to_vec(),
        ];
        for name in &names {
            r.create_new(path(name)).unwrap();
        }
        r.create_dir("sub", mode(0o755)).unwrap();
        let mut seen: Vec<_> = r
            .read_dir(".")
            .unwrap()
            .map(|e| e.unwrap().name().as_os_str().as_bytes().to_vec())
            .collect();
        seen.sort();
        let mut want = names.to_vec();
        want.push(b"sub".to_vec());
        want.sort();
        assert_eq!(seen, want);
        for name in &names {
            r.remove_file(path(name)).unwrap();
        }
        // After an error nothing follows.
        hook::deny(&[("getdents64", Errno::IO)], || {
            let mut entries = r.read_dir(".").unwrap();
            let error = entries.next().unwrap().unwrap_err();
            assert_eq!(
                (error.errno(), error.path()),
                (Some(Errno::IO), Some(Path::new(".")))
            );
            assert!(entries.next().is_none());
        });
    }
}

#[test]
fn paths_are_made_canonical() {
    for backend in backends() {
        let tmp = common::dir();
        let dir = tmp.path().join("t");
        plant(&dir);
        let r = root(&dir, backend);
        for (p, want) in [
            ("f", "f"),
            ("./d//in", "d/in"),
            ("ld/../l", "f"),
            ("ld/", "d"),
            ("d/..", "."),
            (".", "."),
        ] {
            let found = r.canonicalize(p).unwrap();
            assert_eq!(found, Path::new(want), "{p}");
            let of = |p: &Path| r.metadata(p).unwrap().id();
            assert_eq!(of(Path::new(p)), of(&found));
        }
        assert_eq!(errno(r.canonicalize("dang")).map(drop), Err(Errno::NOENT));
        assert_eq!(errno(r.canonicalize("f/")).map(drop), Err(Errno::NOTDIR));
    }
}

/// A directory of a lower overlayfs layer cannot be renamed, which is not another device.
#[test]
fn lower_layers_are_told_from_other_devices() {
    let tmp = common::dir();
    let at = |name: &str| tmp.path().join(name);
    for name in ["lower/dir/sub", "upper", "work", "merged"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("lower/file"), "").unwrap();
    let data = format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=off",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let data = std::ffi::CString::new(data).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(e) = rustix::mount::mount("overlay", at("merged"), "overlay", flags, Some(&*data)) {
        crate::common::skipped(
            "lower_layers_are_told_from_other_devices",
            format_args!("mount: {e}"),
        );
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
        }
    }
    let merged = at("merged");
    let _unmount = Unmount(&merged);
    let r = Root::open(&merged).unwrap();
    let kind = |from, to: &Root, name, flags| r.rename(from, to, name, flags).unwrap_err().kind();
    let none = RenameFlags::empty();
    assert_eq!(kind("dir", &r, "moved", none), ErrorKind::LowerLayer);
    r.create_dir("new", mode(0o755)).unwrap();
    if !hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        assert_eq!(
            kind("new", &r, "dir", RenameFlags::EXCHANGE),
            ErrorKind::LowerLayer
        );
    }
    let outside = Root::open(tmp.path()).unwrap();
    assert_eq!(kind("file", &outside, "x", none), ErrorKind::CrossDevice);
    assert_eq!(kind("dir", &outside, "x", none), ErrorKind::CrossDevice);
    // In this order of refusals: two mounts before what is no name, and before a slash.
    assert_eq!(errno(r.rename(".", &outside, "x", none)), Err(Errno::XDEV));
    assert_eq!(
        errno(r.rename("file/", &outside, "x", none)),
        Err(Errno::XDEV)
    );
    assert_eq!(
        errno(r.rename("gone/", &outside, "x", none)),
        Err(Errno::XDEV)
    );

    // The same mount, read-only: what is refused first is still what the kernel refuses first.
    let remount = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(&merged, remount, c"").unwrap();
    let dir = rustix::fs::open(&merged, OFlags::DIRECTORY, mode(0)).unwrap();
    for p in ["file/", "dir/", "gone/", "file", "dir", "gone", "."] {
        let unlinked = rustix::fs::unlinkat(&dir, p, AtFlags::empty());
        assert_eq!(errno(r.remove_file(p)), unlinked, "{p}");
        let removed = rustix::fs::unlinkat(&dir, p, AtFlags::REMOVEDIR);
        assert_eq!(errno(r.remove_dir(p)), removed, "{p}");
        let made = rustix::fs::mkdirat(&dir, p, mode(0o755));
        assert_eq!(errno(r.create_dir(p, mode(0o755))), made, "{p}");
        let linked = rustix::fs::symlinkat("x", &dir, p);
        assert_eq!(errno(r.symlink("x", p)), linked, "{p}");
        for to in ["x", "x/", "file/", "dir/"] {
            let moved = rustix::fs::renameat(&dir, p, &dir, to);
            assert_eq!(errno(r.rename(p, &r, to, none)), moved, "{p} {to}");
        }
    }
    let can = steadfast::root::Capabilities::probe_uncached(&r).unwrap();
    assert!(can.is_read_only());
    let unknown = steadfast::root::Capability::Unknown(Errno::ROFS);
    assert_eq!(can.get(steadfast::root::Feature::HardLink), unknown);
}
