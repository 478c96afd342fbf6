//! `rm`, `cp`, `sync`: files and whole trees.

use crate::common::{dir, ended, names, run, skipped, spawn, steadfast};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Files, folders, links inside and outside.
fn tree(top: &Path) {
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::write(top.join("file"), "content").unwrap();
    fs::write(top.join("sub/x"), "x").unwrap();
    fs::set_permissions(top.join("sub/x"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("../keep", top.join("link")).unwrap();
    fs::write(top.join(OsStr::from_bytes(b"\xfe")), "odd").unwrap();
}

#[test]
fn rm_removes_and_says_what() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("keep"), "").unwrap();
    for name in ["a", "b", "c"] {
        fs::write(d.join(name), "").unwrap();
    }
    symlink("keep", d.join("link")).unwrap();
    tree(&d.join("t"));
    let quiet = run(d, ["rm", "a"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let json = run(d, ["rm", "--json", "b", "./c", "link"])
        .expect(0)
        .json();
    assert_eq!(json["removed"], serde_json::json!(["b", "./c", "link"]));
    assert_eq!((&json["files"], &json["folders"]), (&3.into(), &0.into()));
    let json = run(d, ["rm", "-r", "--json", "t"]).expect(0).json();
    assert_eq!((&json["files"], &json["folders"]), (&4.into(), &3.into()));
    assert_eq!(names(d), ["keep"]);
}

#[test]
fn rm_refuses_what_it_was_not_asked_for() {
    let dir = dir();
    let d = dir.path();
    tree(&d.join("t"));
    fs::write(d.join("f"), "").unwrap();
    let error = run(d, ["rm", "--json", "t"]).expect(1).error();
    assert_eq!(error["kind"], "is_a_directory", "{error}");
    assert_eq!(error["path"], "t");
    assert_eq!(
        run(d, ["rm", "--json", "f/"]).expect(1).error()["errno"],
        "ENOTDIR"
    );
    assert_eq!(
        run(d, ["rm", "-r", "--json", "f/"]).expect(1).error()["errno"],
        "ENOTDIR"
    );
    for path in [".", "..", "t/..", "/"] {
        let error = run(d, ["rm", "-r", "--json", path]).expect(1).error();
        assert_eq!(error["disk_state"], "unchanged", "{error}");
    }
    assert_eq!(names(d), ["f", "t"]);
}

#[test]
fn rm_of_nothing_fails_or_is_all_right() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("f"), "").unwrap();
    for path in ["none", "none/x"] {
        for recursive in [None, Some("-r")] {
            let args = ["rm", "--json", path].into_iter().chain(recursive);
            assert_eq!(run(d, args.clone()).expect(5).error()["kind"], "not_found");
            let json = run(d, args.chain(["--missing-ok"])).expect(0).json();
            assert_eq!(json["missing"], serde_json::json!([path]));
        }
    }
    assert_eq!(names(d), ["f"]);
}

#[test]
fn rm_that_fails_in_part_says_4_and_which() {
    let dir = dir();
    let d = dir.path();
    for name in ["a", "c"] {
        fs::write(d.join(name), "").unwrap();
    }
    let error = run(d, ["rm", "--json", "a", "b", "c"]).expect(4).error();
    assert_eq!(error["done"], serde_json::json!(["a", "c"]));
    assert_eq!(error["failures"].as_array().unwrap().len(), 1);
    assert_eq!(error["failures"][0]["path"], "b");
    assert_eq!(names(d), [""; 0]);
    let error = run(d, ["rm", "--json", "a", "b"]).expect(5).error();
    assert_eq!(error["failures"].as_array().unwrap().len(), 2);
    let text = run(d, ["rm", "a", "b"]).expect(5).stderr;
    assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
}

#[test]
fn rm_stays_beneath_its_root() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("jail")).unwrap();
    tree(&d.join("jail/t"));
    tree(&d.join("out"));
    symlink("../out", d.join("jail/up")).unwrap();
    for path in ["../out", "up/sub", "t/../../out"] {
        let error = run(d, ["rm", "-r", "--json", "--root", "jail", path])
            .expect(1)
            .error();
        assert_eq!(error["kind"], "escape", "{error}");
    }
    run(d, ["rm", "-r", "--root", "jail", "t", "up"]).expect(0);
    assert_eq!(names(&d.join("jail")), [""; 0]);
    assert_eq!(names(&d.join("out")).len(), 4);
}

#[test]
fn cp_copies_a_file_with_its_mode() {
    let dir = dir();
    let d = dir.path();
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 253) as u8).collect();
    fs::write(d.join("a"), &content).unwrap();
    fs::set_permissions(d.join("a"), fs::Permissions::from_mode(0o751)).unwrap();
    let json = run(d, ["cp", "--json", "a", "b"]).expect(0).json();
    assert_eq!((&json["src"], &json["dst"]), (&"a".into(), &"b".into()));
    assert_eq!(json["replaced"], false);
    assert_eq!(fs::read(d.join("b")).unwrap(), content);
    assert_eq!(fs::metadata(d.join("b")).unwrap().mode() & 0o7777, 0o751);
    fs::write(d.join("b"), "other").unwrap();
    run(d, ["cp", "a", "b"]).expect(0);
    assert_eq!(fs::read(d.join("b")).unwrap(), content);
    let error = run(d, ["cp", "--no-replace", "--json", "a", "b"])
        .expect(5)
        .error();
    assert_eq!(error["kind"], "already_exists");
    assert_eq!(error["other_path"], "b");
    assert_eq!(names(d), ["a", "b"]);
}

#[test]
fn cp_copies_a_tree_on_request_only() {
    let dir = dir();
    let d = dir.path();
    tree(&d.join("t"));
    let error = run(d, ["cp", "--json", "t", "u"]).expect(1).error();
    assert_eq!(error["kind"], "is_a_directory", "{error}");
    assert_eq!(names(d), ["t"]);
    let json = run(d, ["cp", "-r", "--json", "t", "u"]).expect(0).json();
    assert_eq!(json["inode"], fs::metadata(d.join("u")).unwrap().ino());
    assert_eq!(names(&d.join("u")), names(&d.join("t")));
    assert_eq!(fs::read(d.join("u/sub/x")).unwrap(), b"x");
    assert_eq!(
        fs::metadata(d.join("u/sub/x")).unwrap().mode() & 0o7777,
        0o750
    );
    assert_eq!(
        fs::read_link(d.join("u/link")).unwrap(),
        Path::new("../keep")
    );
    assert!(d.join("u/sub/empty").is_dir());
    let error = run(d, ["cp", "-r", "--json", "t", "u"]).expect(5).error();
    assert_eq!(error["kind"], "already_exists", "{error}");
    let inside = run(d, ["cp", "-r", "--json", "t", "t/sub/new"])
        .expect(1)
        .error();
    assert_eq!(inside["kind"], "invalid_input", "{inside}");
    assert_eq!(names(d), ["t", "u"]);
    assert_eq!(names(&d.join("t/sub")), ["empty", "x"]);
}

#[test]
fn parents_are_made_on_request() {
    let dir = dir();
    let d = dir.path();
    tree(&d.join("t"));
    for verb in [
        &["cp", "t/file"][..],
        &["cp", "-r", "t"],
        &["publish", "--copy", "t"],
    ] {
        let without = verb.iter().chain(&["new/way/dst"]);
        assert_eq!(run(d, without.clone()).expect(5).stdout, "");
        assert_eq!(names(d), ["t"]);
        run(d, without.chain(&["-p"])).expect(0);
        assert_eq!(names(&d.join("new/way")), ["dst"]);
        fs::remove_dir_all(d.join("new")).unwrap();
    }
}

#[test]
fn sync_takes_files_and_folders() {
    let dir = dir();
    let d = dir.path();
    tree(&d.join("t"));
    run(d, ["sync", "t/file", "t", ".", "t/sub/"]).expect(0);
    let json = run(d, ["sync", "--json", "t/file", "t"]).expect(0).json();
    assert_eq!(json["synced"], serde_json::json!(["t/file", "t"]));
    let error = run(d, ["sync", "--json", "t", "none"]).expect(5).error();
    assert_eq!(error["done"], serde_json::json!(["t"]));
    assert_eq!(error["failures"][0]["path"], "none");
    let error = run(d, ["sync", "--json", "--root", "t", "../t"])
        .expect(1)
        .error();
    assert_eq!(error["kind"], "escape");
}

#[test]
fn who_may_not_is_told_where_and_what_is_needed() {
    let test = "who_may_not_is_told_where_and_what_is_needed";
    let dir = dir();
    let d = dir.path();
    if fs::metadata(d).unwrap().uid() != 0 {
        skipped(test, "only root can be somebody else");
        return;
    }
    fs::create_dir(d.join("shut")).unwrap();
    for (path, mode) in [(".", 0o755), ("shut", 0o700)] {
        fs::set_permissions(d.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let as_nobody = |args: &[&str]| {
        let mut command = steadfast(d);
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        let error = ended(spawn(command.arg("--json").args(args))).error();
        assert_eq!(error["kind"], "permission_denied", "{args:?}");
        error
    };
    // What is there is not known to be durable.
    let error = as_nobody(&["sync", "shut"]);
    assert_eq!(
        (&error["path"], &error["exit_code"]),
        (&"shut".into(), &3.into())
    );
    let needed = "needed: write and search permission on the directory";
    for args in [
        &["write", "new"] as &[&str],
        &["run", "--root", ".", "--protect", "shut", "--", "true"],
    ] {
        let error = as_nobody(args);
        let advice = error["advice"].as_str().unwrap_or_default();
        assert!(advice.starts_with(needed), "{args:?}: {error}");
    }
    assert_eq!(names(d), ["shut"]);
}
