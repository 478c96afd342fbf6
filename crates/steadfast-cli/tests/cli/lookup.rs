//! `lookup`: the same answer from both resolvers, and every refusal by its name.

use crate::common::{Ran, dir, run};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn lookup(d: &Path, args: &[&str]) -> Ran {
    run(d, ["lookup", "--json", "--root", "jail"].iter().chain(args))
}

/// The resolvers that can answer here: without openat2, asking for it gives its errno and nothing else.
fn resolvers(d: &Path) -> Vec<&'static str> {
    let kernel = lookup(d, &["--resolver", "openat2", "."]);
    if kernel.code == 0 {
        return vec!["auto", "openat2", "walk"];
    }
    let errno = kernel.error()["errno"].clone();
    assert!(errno == "ENOSYS" || errno == "EPERM", "{kernel:?}");
    vec!["auto", "walk"]
}

/// A root with links that lead inside and outside.
fn jail(d: &Path) {
    fs::create_dir_all(d.join("jail/a/b")).unwrap();
    fs::write(d.join("jail/a/file"), "x").unwrap();
    fs::write(d.join("outside"), "x").unwrap();
    symlink("a/b", d.join("jail/in")).unwrap();
    symlink("../outside", d.join("jail/out")).unwrap();
    symlink("/a/file", d.join("jail/absolute")).unwrap();
    symlink("loop", d.join("jail/loop")).unwrap();
}

#[test]
fn what_is_there_is_the_same_for_both_resolvers() {
    let dir = dir();
    let d = dir.path();
    jail(d);
    let cases: &[(&str, &str, &str)] = &[
        ("a/file", "a/file", "regular_file"),
        ("in/../file", "a/file", "regular_file"),
        ("./in", "a/b", "directory"),
        (".", ".", "directory"),
        ("a//b/..", "a", "directory"),
    ];
    for (path, canonical, kind) in cases {
        let meta = fs::metadata(d.join("jail").join(path)).unwrap();
        for resolver in resolvers(d) {
            let json = lookup(d, &["--resolver", resolver, path]).expect(0).json();
            assert_eq!(json["canonical"], *canonical, "{path} by {resolver}");
            assert_eq!(json["type"], *kind);
            assert_eq!(json["inode"], meta.ino());
            assert_eq!(json["device"], meta.dev());
            assert_eq!(json["path"], *path);
        }
    }
}

#[test]
fn refusals_have_their_names() {
    let dir = dir();
    let d = dir.path();
    jail(d);
    let cases: &[(&[&str], &str, &str, i32)] = &[
        (&["none"], "ENOENT", "not_found", 5),
        (&["a/file/x"], "ENOTDIR", "not_a_directory", 1),
        (&["out"], "EXDEV", "escape", 1),
        (&[".."], "EXDEV", "escape", 1),
        (&["/a/file"], "EXDEV", "escape", 1),
        (&["absolute"], "EXDEV", "escape", 1),
        (&["loop"], "ELOOP", "symlink_loop", 1),
        (&["--no-symlinks", "in"], "ELOOP", "symlink_loop", 1),
    ];
    for (args, errno, kind, code) in cases {
        for resolver in resolvers(d) {
            let args = [&["--resolver", resolver], *args].concat();
            let error = lookup(d, &args).expect(*code).error();
            assert_eq!(error["errno"], *errno, "{args:?}");
            assert_eq!(error["kind"], *kind, "{args:?}");
            let args = [&["lookup", "--root", "jail"], &args[..]].concat();
            let text = run(d, &args).expect(*code);
            assert!(text.stderr.contains(errno), "{text:?}");
        }
    }
}

#[test]
fn in_root_is_as_chroot() {
    let dir = dir();
    let d = dir.path();
    jail(d);
    for (path, canonical) in [
        ("/a/file", "a/file"),
        ("absolute", "a/file"),
        ("../../a", "a"),
    ] {
        for resolver in resolvers(d) {
            let json = lookup(d, &["--in-root", "--resolver", resolver, path])
                .expect(0)
                .json();
            assert_eq!(json["canonical"], canonical, "{path} by {resolver}");
        }
    }
}

#[test]
fn a_symlink_itself_is_seen_on_request() {
    let dir = dir();
    let d = dir.path();
    jail(d);
    for path in ["in", "out", "loop"] {
        for resolver in resolvers(d) {
            let args = ["--no-follow", "--resolver", resolver, path];
            let json = lookup(d, &args).expect(0).json();
            assert_eq!(json["type"], "symlink");
            assert_eq!(json["canonical"], path);
        }
    }
}

#[test]
fn mounts_and_magic_links_are_told_apart() {
    let d = Path::new("/");
    let root = ["lookup", "--json", "--root", "/", "--resolver", "walk"];
    let look = |args: &[&str]| run(d, root.iter().chain(args));
    look(&["proc/self/status"]).expect(0);
    let error = look(&["--no-mount-crossing", "proc/self/status"])
        .expect(1)
        .error();
    assert_eq!(error["errno"], "EXDEV");
    assert_eq!(look(&["proc/self/exe"]).expect(1).error()["errno"], "EXDEV");
    let error = look(&["--no-magic-links", "proc/self/exe"])
        .expect(1)
        .error();
    assert_eq!(error["errno"], "ELOOP");
}

#[test]
fn text_is_for_people() {
    let dir = dir();
    let d = dir.path();
    jail(d);
    let name = OsStr::from_bytes(b"new\n\xff");
    fs::write(d.join("jail").join(name), "").unwrap();
    let args = ["lookup", "-q", "--root", "jail"].map(OsStr::new);
    let text = run(d, args.iter().chain(&[name])).expect(0).stdout;
    let meta = fs::metadata(d.join("jail").join(name)).unwrap();
    let dev = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let want = format!(
        "path    \"new\\n\\xFF\"\ntype    regular file\ndevice  {}:{}\ninode   {}\n",
        dev.0,
        dev.1,
        meta.ino()
    );
    assert_eq!(text, want);
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let dir = dir();
    let error = lookup(dir.path(), &["x"]).expect(5).error();
    assert_eq!(error["path"], "jail");
    assert_eq!(error["errno"], "ENOENT");
}
