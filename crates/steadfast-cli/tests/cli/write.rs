//! `write`: content, conditions, attributes, symlinks, errors.

use crate::common::{dir, names, run, run_with};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn hash(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn stdin_becomes_the_file() {
    let dir = dir();
    let d = dir.path();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let created = run_with(d, ["write", "f"], &big).expect(0);
    assert_eq!((created.stdout.as_str(), created.stderr.as_str()), ("", ""));
    assert_eq!(fs::read(d.join("f")).unwrap(), big);
    let replaced = run_with(d, ["write", "-v", "./f"], b"new").expect(0);
    assert_eq!(replaced.stdout, "replaced ./f\n");
    assert_eq!(fs::read(d.join("f")).unwrap(), b"new");
    run(d, ["write", "f"]).expect(0);
    assert_eq!(fs::read(d.join("f")).unwrap(), b"");
    assert_eq!(names(d), ["f"]);
}

#[test]
fn json_tells_what_was_done() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("sub")).unwrap();
    let json = run_with(d, ["write", "--json", "sub/f"], b"abc")
        .expect(0)
        .json();
    let meta = fs::metadata(d.join("sub/f")).unwrap();
    assert_eq!(json["command"], "write");
    assert_eq!(json["path"], "sub/f");
    assert_eq!(json["replaced"], false);
    assert_eq!(json["inode"], meta.ino());
    assert_eq!(json["device"], meta.dev());
    assert_eq!(json["bytes"], 3);
    assert_eq!(json["exit_code"], 0);
    let json = run_with(d, ["write", "--json", "sub/f"], b"abc")
        .expect(0)
        .json();
    assert_eq!(json["replaced"], true);
}

#[test]
fn conditions_that_are_not_met_are_5_and_change_nothing() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("f"), "old").unwrap();
    let wrong = hash(b"other");
    let cases: &[(&[&str], &str)] = &[
        (&["--create-new", "f"], "already_exists"),
        (&["--replace-only", "none"], "not_found"),
        (&["--if-unchanged", &wrong, "f"], "changed"),
        (&["--if-unchanged", &wrong, "none"], "not_found"),
        (&["--expect-sha256", &wrong, "f"], "mismatch"),
        (&["--expect-len", "4", "f"], "mismatch"),
        (&["nowhere/f"], "not_found"),
    ];
    for (args, kind) in cases {
        let args = ["write", "--json"].iter().chain(*args);
        let error = run_with(d, args.clone(), b"new").expect(5).error();
        let args: Vec<_> = args.collect();
        assert_eq!(error["kind"], *kind, "{args:?}: {error}");
        assert_eq!(error["disk_state"], "unchanged", "{args:?}: {error}");
        assert_eq!(error["left_behind"], serde_json::json!([]));
        let text = run_with(d, args.iter().filter(|a| **a != &"--json"), b"new").expect(5);
        assert!(text.stderr.starts_with("steadfast: cannot "), "{text:?}");
        assert_eq!(fs::read(d.join("f")).unwrap(), b"old");
        assert_eq!(names(d), ["f"]);
    }
}

#[test]
fn conditions_that_are_met_let_it_through() {
    let dir = dir();
    let d = dir.path();
    run_with(d, ["write", "--create-new", "f"], b"1").expect(0);
    run_with(d, ["write", "--replace-only", "f"], b"2").expect(0);
    run_with(d, ["write", "--if-unchanged", &hash(b"2"), "f"], b"3").expect(0);
    let upper = hash(b"4").to_uppercase();
    run_with(
        d,
        ["write", "--expect-sha256", &upper, "--expect-len", "1", "f"],
        b"4",
    )
    .expect(0);
    assert_eq!(fs::read(d.join("f")).unwrap(), b"4");
}

#[test]
fn the_error_names_the_path_as_it_was_given() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir_all(d.join("a/b")).unwrap();
    fs::write(d.join("a/b/f"), "old").unwrap();
    for given in ["a/b/f", "a//b/f", "./a/b/../b/f"] {
        let args = ["write", "--create-new", "--json", given];
        let error = run_with(d, args, b"new").expect(5).error();
        assert_eq!(error["path"], given);
        assert!(
            error["error"]
                .as_str()
                .unwrap()
                .contains(&format!("{given:?}")),
            "{error}"
        );
        assert_eq!(error["errno"], "EEXIST");
    }
}

#[test]
fn a_root_is_not_left() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir_all(d.join("jail/in")).unwrap();
    symlink("..", d.join("jail/up")).unwrap();
    run_with(d, ["write", "--root", "jail", "in/f"], b"x").expect(0);
    assert_eq!(fs::read(d.join("jail/in/f")).unwrap(), b"x");
    let absolute = d.join("out").into_os_string().into_string().unwrap();
    for path in ["../out", "up/out", "in/../../out", &absolute] {
        let error = run_with(d, ["write", "--json", "--root", "jail", path], b"x")
            .expect(1)
            .error();
        assert_eq!(error["kind"], "escape", "{path}: {error}");
        assert_eq!(error["errno"], "EXDEV");
    }
    assert_eq!(names(d), ["jail"]);
    assert_eq!(names(&d.join("jail")), ["in", "up"]);
}

#[test]
fn a_symlink_is_refused_followed_or_replaced() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("file"), "old").unwrap();
    symlink("file", d.join("link")).unwrap();
    let refused = run_with(d, ["write", "--json", "link"], b"new")
        .expect(1)
        .error();
    assert_eq!(refused["kind"], "symlink_loop", "{refused}");
    assert_eq!(fs::read(d.join("file")).unwrap(), b"old");
    run_with(d, ["write", "--symlink", "follow", "link"], b"followed").expect(0);
    assert!(d.join("link").is_symlink());
    assert_eq!(fs::read(d.join("file")).unwrap(), b"followed");
    run_with(d, ["write", "--symlink", "replace", "link"], b"replaced").expect(0);
    assert!(!d.join("link").is_symlink());
    assert_eq!(fs::read(d.join("link")).unwrap(), b"replaced");
    assert_eq!(fs::read(d.join("file")).unwrap(), b"followed");
}

#[test]
fn a_symlink_is_followed_as_far_as_its_root() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir_all(d.join("jail/sub")).unwrap();
    fs::write(d.join("out"), "old").unwrap();
    symlink("../../out", d.join("jail/sub/up")).unwrap();
    symlink(d.join("out"), d.join("jail/sub/absolute")).unwrap();
    symlink("../new", d.join("jail/sub/new")).unwrap();
    let write = |args: &[&str]| {
        run_with(
            d,
            ["write", "--symlink", "follow"].iter().chain(args),
            b"new",
        )
    };
    for link in ["jail/sub/up", "jail/sub/absolute"] {
        write(&[link]).expect(0);
        assert_eq!(fs::read(d.join("out")).unwrap(), b"new");
        fs::write(d.join("out"), "old").unwrap();
        let error = write(&["--root", "jail", "--json", &link[5..]])
            .expect(1)
            .error();
        assert_eq!(error["kind"], "escape", "{error}");
        assert_eq!(fs::read(d.join("out")).unwrap(), b"old");
    }
    write(&["--root", "jail", "sub/new"]).expect(0);
    assert_eq!(fs::read(d.join("jail/new")).unwrap(), b"new");
    assert_eq!(names(&d.join("jail/sub")), ["absolute", "new", "up"]);
}

#[test]
fn mode_is_kept_or_set() {
    let dir = dir();
    let d = dir.path();
    let mode = |name: &str| fs::metadata(d.join(name)).unwrap().permissions().mode() & 0o7777;
    run_with(d, ["write", "--mode", "640", "set"], b"x").expect(0);
    assert_eq!(mode("set"), 0o640);
    run_with(d, ["write", "set"], b"y").expect(0);
    assert_eq!(mode("set"), 0o640);
    run_with(d, ["write", "--mode", "0604", "set"], b"z").expect(0);
    assert_eq!(mode("set"), 0o604);
}

#[test]
fn every_durability_writes_the_same() {
    let dir = dir();
    for level in ["none", "ordered", "full"] {
        run_with(
            dir.path(),
            ["write", "--durability", level, "f"],
            level.as_bytes(),
        )
        .expect(0);
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), level.as_bytes());
    }
}

#[test]
fn a_folder_is_not_written_over() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("sub")).unwrap();
    for path in ["sub", "sub/", "."] {
        let error = run_with(d, ["write", "--json", path], b"x")
            .expect(1)
            .error();
        assert_eq!(error["disk_state"], "unchanged", "{error}");
    }
    assert_eq!(names(d), ["sub"]);
    assert_eq!(names(&d.join("sub")), [""; 0]);
}

#[test]
fn names_need_not_be_utf8() {
    let dir = dir();
    let d = dir.path();
    let name = OsStr::from_bytes(b"\xff\xfe \n");
    let args = [OsStr::new("write"), "--json".as_ref(), name];
    let json = run_with(d, args, b"x").expect(0).json();
    assert_eq!(json["path_bytes_hex"], "fffe200a");
    assert_eq!(fs::read(d.join(name)).unwrap(), b"x");
    let args = [
        OsStr::new("write"),
        "--create-new".as_ref(),
        "--json".as_ref(),
        name,
    ];
    let error = run_with(d, args, b"x").expect(5).error();
    assert_eq!(error["path_bytes_hex"], "fffe200a");
    let args = [OsStr::new("write"), "--create-new".as_ref(), name];
    let text = run_with(d, args, b"x").expect(5);
    assert!(text.stderr.contains(r#""\xFF\xFE \n""#), "{text:?}");
    assert_eq!(names(d), [name]);
}

#[test]
fn a_stdin_that_cannot_be_read_is_reported() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("f"), "old").unwrap();
    for json in [true, false] {
        let mut command = crate::common::steadfast(d);
        command.args(["write", "f"]).args(json.then_some("--json"));
        command.stdin(fs::File::open(d).unwrap());
        let ran = crate::common::ran(&command.output().unwrap()).expect(1);
        if json {
            let error = ran.error();
            assert_eq!(error["kind"], "source", "{error}");
            assert_eq!(error["disk_state"], "unchanged");
        } else {
            assert!(ran.stderr.contains("directory"), "{ran:?}");
        }
    }
    assert_eq!(fs::read(d.join("f")).unwrap(), b"old");
    assert_eq!(names(d), ["f"]);
}
