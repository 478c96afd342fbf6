//! `publish`, `swap` and `sweep`: what appears, what is kept, what goes.

use crate::common::{Ran, dir, ended, exchanges, names, run, skipped, spawn, steadfast};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// A folder with one file.
fn folder(path: &Path, content: &str) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("f"), content).unwrap();
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// What needs an exchange: the answer without one, if there is none here.
fn refused(d: &Path, ran: &Ran, args: &[&str]) -> bool {
    if exchanges(d) {
        return false;
    }
    assert_eq!(ran.code, 6, "{args:?}: {ran:?}");
    true
}

#[test]
fn a_folder_takes_the_place_of_another() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("next"), "new");
    folder(&d.join("live"), "old");
    let inode = fs::metadata(d.join("next")).unwrap().ino();
    let args = ["publish", "--json", "next", "live"];
    let ran = run(d, args);
    if refused(d, &ran, &args) {
        assert_eq!(content(&d.join("live/f")), "old");
        return;
    }
    let json = ran.expect(0).json();
    assert_eq!(json["replaced"], true);
    assert_eq!(json["inode"], inode);
    assert_eq!(
        (&json["src"], &json["dst"]),
        (&"next".into(), &"live".into())
    );
    assert_eq!(content(&d.join("live/f")), "new");
    assert_eq!(names(d), ["live"]);
}

#[test]
fn a_file_or_folder_takes_a_free_name() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("next"), "new");
    fs::write(d.join("file"), "file").unwrap();
    fs::create_dir(d.join("sub")).unwrap();
    run(d, ["publish", "next", "sub/live"]).expect(0);
    let said = run(d, ["publish", "-v", "file", "sub/f"]).expect(0).stdout;
    assert_eq!(said, "created sub/f\n");
    assert_eq!(content(&d.join("sub/live/f")), "new");
    assert_eq!(content(&d.join("sub/f")), "file");
    assert_eq!(names(d), ["sub"]);
}

#[test]
fn no_replace_does_not_replace() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("next"), "new");
    folder(&d.join("live"), "old");
    for extra in [None, Some("--copy")] {
        let args = ["publish", "--json", "--no-replace", "next", "live"];
        let error = run(d, args.into_iter().chain(extra)).expect(5).error();
        assert_eq!(error["kind"], "already_exists", "{error}");
        assert_eq!(error["disk_state"], "unchanged");
        assert!(
            error["error"].as_str().unwrap().contains("\"live\""),
            "{error}"
        );
        assert_eq!(content(&d.join("live/f")), "old");
        assert_eq!(names(d), ["live", "next"]);
    }
}

#[test]
fn the_old_one_can_be_kept_anywhere() {
    let dir = dir();
    let d = dir.path();
    if !exchanges(d) {
        crate::common::skipped("the_old_one_can_be_kept_anywhere", "no exchange here");
        return;
    }
    fs::create_dir(d.join("sub")).unwrap();
    for keep in ["kept", "sub/kept", "./sub/../sub/other"] {
        folder(&d.join("next"), "new");
        folder(&d.join("live"), "old");
        let json = run(d, ["publish", "--json", "--keep-old", keep, "next", "live"])
            .expect(0)
            .json();
        assert_eq!(json["kept_old"], keep);
        assert_eq!(content(&d.join("live/f")), "new");
        assert_eq!(content(&d.join(keep).join("f")), "old");
        assert!(!d.join("next").exists());
    }
    folder(&d.join("next"), "newer");
    let args = ["publish", "--json", "--keep-old", "kept", "next", "live"];
    let error = run(d, args).expect(5).error();
    assert_eq!(
        (&error["kind"], &error["path"]),
        (&"already_exists".into(), &"kept".into())
    );
    assert_eq!(content(&d.join("live/f")), "new");
    assert_eq!(names(d), ["kept", "live", "next", "sub"]);
}

#[test]
fn a_copy_is_published_and_the_source_stays() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("src"), "new");
    symlink("f", d.join("src/link")).unwrap();
    let json = run(d, ["publish", "--copy", "--json", "src", "live"])
        .expect(0)
        .json();
    assert_eq!((&json["folders"], &json["bytes"]), (&1.into(), &3.into()));
    assert_eq!(content(&d.join("live/link")), "new");
    fs::write(d.join("src/f"), "newer").unwrap();
    fs::write(d.join("live/extra"), "").unwrap();
    let args = ["publish", "--copy", "src", "live"];
    let ran = run(d, args);
    if !refused(d, &ran, &args) {
        ran.expect(0);
        assert_eq!(content(&d.join("live/f")), "newer");
        assert_eq!(names(&d.join("live")), names(&d.join("src")));
    }
    assert_eq!(names(d), ["live", "src"]);
}

#[test]
fn what_cannot_be_published_is_refused_by_name() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("a"), "a");
    fs::write(d.join("file"), "file").unwrap();
    symlink("a", d.join("link")).unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["none", "b"], 5, "not_found"),
        (&["a", "none/b"], 5, "not_found"),
        (&["a", "a/sub"], 1, "invalid_input"),
        (&["a", "file"], 1, "not_a_directory"),
        (&["file", "a"], 1, "is_a_directory"),
        (&["a", "link"], 1, "symlink_loop"),
        (&["link", "b"], 1, "not_a_file"),
        (&["--root", "a", "f", "../out"], 1, "escape"),
    ];
    for (args, code, kind) in cases {
        for extra in [None, Some("--copy")] {
            let all: Vec<_> = ["publish", "--json"]
                .iter()
                .chain(*args)
                .copied()
                .chain(extra)
                .collect();
            let error = run(d, &all).expect(*code).error();
            assert_eq!(error["kind"], *kind, "{all:?}: {error}");
            assert_eq!(error["disk_state"], "unchanged", "{all:?}: {error}");
            assert_eq!(names(d), ["a", "file", "link"], "{all:?}");
            assert_eq!(names(&d.join("a")), ["f"], "{all:?}");
        }
    }
}

#[test]
fn two_names_change_places() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("sub/a"), "a");
    fs::write(d.join("b"), "b").unwrap();
    let args = ["swap", "--json", "sub/a", "b"];
    let ran = run(d, args);
    if refused(d, &ran, &args) {
        assert_eq!(content(&d.join("b")), "b");
        return;
    }
    let json = ran.expect(0).json();
    assert_eq!((&json["a"], &json["b"]), (&"sub/a".into(), &"b".into()));
    assert_eq!(content(&d.join("sub/a")), "b");
    assert_eq!(content(&d.join("b/f")), "a");
    assert_eq!(
        run(d, ["swap", "-v", "b", "sub/a"]).expect(0).stdout,
        "swapped b and sub/a\n"
    );
    let error = run(d, ["swap", "--json", "b", "sub/none"])
        .expect(5)
        .error();
    assert_eq!(error["kind"], "not_found");
    let error = run(d, ["swap", "--json", "sub", "sub/a"]).expect(1).error();
    assert_eq!(error["kind"], "invalid_input", "{error}");
    let error = run(d, ["swap", "--json", "--root", "sub", "a", "../b"])
        .expect(1)
        .error();
    assert_eq!(error["kind"], "escape");
    assert_eq!(error["path"], "../b");
}

#[test]
fn the_same_name_in_two_directories_is_told_apart() {
    let dir = dir();
    let d = dir.path();
    folder(&d.join("x"), "x");
    folder(&d.join("y"), "y");
    fs::remove_file(d.join("y/f")).unwrap();
    let code = if exchanges(d) { 5 } else { 6 };
    let error = run(d, ["swap", "--json", "x/f", "y/f"])
        .expect(code)
        .error();
    assert_eq!(
        (&error["path"], &error["other_path"]),
        (&"x/f".into(), &"y/f".into())
    );
    fs::write(d.join("y/f"), "y").unwrap();
    let error = run(d, ["publish", "--json", "--no-replace", "x/f", "y/f"])
        .expect(5)
        .error();
    assert_eq!(
        (&error["path"], &error["other_path"]),
        (&"x/f".into(), &"y/f".into())
    );
}

#[test]
fn what_a_kill_leaves_is_swept_and_nothing_else() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("sub")).unwrap();
    fs::write(d.join("keep"), "").unwrap();
    fs::write(d.join(".sf-mine"), "").unwrap();
    let writer = |path: &str| {
        let mut child = spawn(steadfast(d).args(["write", path]));
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(&[b'x'; 1 << 20])
            .unwrap();
        child
    };
    let mut dead = writer("dead");
    dead.kill().unwrap();
    dead.wait().unwrap();
    let mut deep = writer("sub/deep");
    deep.kill().unwrap();
    deep.wait().unwrap();
    let mut living = writer("living");
    let all = names(d);
    assert_eq!(all.len(), 5, "{all:?}");

    let would = run(d, ["sweep", "-n", "--json", "."]).expect(0).json();
    assert_eq!(names(d), all);
    let text = run(d, ["sweep", "--dry-run", "-q", "."]).expect(0).stdout;
    assert!(
        text.starts_with("would remove .sf-") && text.lines().count() == 1,
        "{text}"
    );
    let swept = run(d, ["sweep", "--json", "."]).expect(0).json();
    assert_eq!(swept["removed"], would["removed"]);
    assert_eq!(swept["removed"].as_array().unwrap().len(), 1);
    assert_eq!(swept["kept"][0]["reason"], "in_use", "{swept}");
    assert_eq!(names(d).len(), 4);
    assert_eq!(names(&d.join("sub")).len(), 1);

    let swept = run(d, ["sweep", "-r", "--json", d.to_str().unwrap()])
        .expect(0)
        .json();
    let removed = swept["removed"][0].as_str().unwrap();
    assert!(
        removed.starts_with(d.join("sub").to_str().unwrap()),
        "{removed}"
    );
    assert_eq!(names(&d.join("sub")), [""; 0]);

    drop(living.stdin.take());
    assert!(living.wait().unwrap().success());
    assert_eq!(names(d), [".sf-mine", "keep", "living", "sub"]);
}

#[test]
fn a_place_to_sweep_must_be_there() {
    let dir = dir();
    let error = run(dir.path(), ["sweep", "--json", "none"])
        .expect(5)
        .error();
    assert_eq!(error["path"], "none");
}

/// Runs where no names can be exchanged.
fn without_exchange(d: &Path, args: &[&str]) -> Ran {
    let mut command = steadfast(d);
    command.args(args);
    command.env("STEADFAST_HOOK", "deny:renameat2(RENAME_EXCHANGE)=EINVAL");
    ended(spawn(&mut command))
}

/// Whether the binary heeds a plan; whether it is without an exchange in any case does not matter.
fn can_be_without_exchange(d: &Path, test: &str) -> bool {
    let plain = without_exchange(d, &["swap", "--json", "x", "y"]);
    if plain.code == 6 {
        let advice = plain.error()["advice"].as_str().unwrap().to_owned();
        assert!(advice.contains("--journal"), "{advice}");
        return true;
    }
    skipped(test, "the command is built without the test seam");
    false
}

#[test]
fn a_journal_does_without_an_exchange() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("top")).unwrap();
    folder(&d.join("top/x"), "x");
    folder(&d.join("top/y"), "y");
    folder(&d.join("top/z"), "z");
    fs::create_dir(d.join("plain")).unwrap();
    fs::write(d.join("plain/x"), "").unwrap();
    fs::write(d.join("plain/y"), "").unwrap();
    if !can_be_without_exchange(&d.join("plain"), "a_journal_does_without_an_exchange") {
        return;
    }
    let error = without_exchange(d, &["publish", "--json", "top/x", "top/y"])
        .expect(6)
        .error();
    let advice = error["advice"].as_str().unwrap();
    assert!(advice.contains("--journal ROOT"), "{error}");
    let args = ["swap", "--json", "--journal", "top", "x", "y"];
    let json = without_exchange(d, &args).expect(0).json();
    assert_eq!((&json["a"], &json["b"]), (&"top/x".into(), &"top/y".into()));
    assert_eq!(content(&d.join("top/x/f")), "y");
    assert_eq!(content(&d.join("top/y/f")), "x");
    let first = json["number"].as_u64().unwrap();
    assert!(first > 0, "{json}");
    let args = ["publish", "--json", "--journal", "top", "x", "y"];
    let json = without_exchange(d, &args).expect(0).json();
    assert!(json["number"].as_u64().unwrap() > first, "{json}");
    assert_eq!(content(&d.join("top/y/f")), "y");
    assert_eq!(names(&d.join("top")), [".steadfast", "y", "z"]);
    let args = [
        "publish",
        "-v",
        "--journal",
        "top",
        "--keep-old",
        "old",
        "z",
        "y",
    ];
    let said = without_exchange(d, &args).expect(0).stdout;
    assert_eq!(said, "published top/z as top/y\n");
    assert_eq!(content(&d.join("top/y/f")), "z");
    assert_eq!(content(&d.join("top/old/f")), "y");
    let args = [
        "publish",
        "--json",
        "--journal",
        "top",
        "--no-replace",
        "old",
        "y",
    ];
    let error = without_exchange(d, &args).expect(5).error();
    assert_eq!(error["path"], "top/old", "{error}");
    assert_eq!(names(&d.join("top")), [".steadfast", "old", "y"]);
}

#[test]
fn a_journal_is_not_written_to_where_names_can_be_exchanged() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("a"), "a").unwrap();
    folder(&d.join("b"), "b");
    let by_kernel = exchanges(d);
    let args = ["swap", "--json", "--journal", ".", "a", "b"];
    let json = run(d, args).expect(0).json();
    assert_eq!(json["number"] == 0, by_kernel, "{json}");
    assert_eq!(content(&d.join("b")), "a");
    assert_eq!(content(&d.join("a/f")), "b");
    let error = run(d, ["swap", "--json", "--journal", ".", "a", "../b"])
        .expect(1)
        .error();
    assert_eq!(error["kind"], "escape", "{error}");
    let error = run(d, ["swap", "--json", "--journal", ".", "a", "none"])
        .expect(5)
        .error();
    assert_eq!(error["kind"], "not_found", "{error}");
}
