//! `apply`: a manifest as one transaction.

use crate::common::{Ran, dir, names, run, run_with, skipped};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The examples of the repository.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/manifest")
        .join(name)
}

/// The names that are there but for the state folder, sorted.
fn visible(d: &Path) -> Vec<String> {
    let names = names(d)
        .into_iter()
        .map(|n| n.to_string_lossy().into_owned());
    names.filter(|n| n != ".steadfast").collect()
}

fn content(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Applies a manifest that comes from stdin.
fn apply(d: &Path, toml: &str, args: &[&str]) -> Ran {
    let all = [&["apply", "-", "--format", "toml"], args].concat();
    run_with(d, all, toml.as_bytes())
}

/// What is left in the state folder's rooms when nothing is open.
#[track_caller]
fn no_litter(d: &Path) {
    for room in ["staged", "kept", "retired", "conflicts"] {
        assert_eq!(names(&d.join(".steadfast").join(room)), [""; 0], "{room}");
    }
}

#[test]
fn the_release_example_is_applied_as_a_whole_and_only_once() {
    let dir = dir();
    let d = dir.path();
    let manifest = example("release.toml");
    let args = |more: &[&str]| {
        let mut args: Vec<_> = ["apply", "--json"].map(OsStr::new).to_vec();
        args.push(manifest.as_os_str());
        args.extend(more.iter().map(OsStr::new));
        run(d, args)
    };
    let json = args(&[]).expect(0).json();
    assert_eq!(
        (&json["applied"], &json["command"]),
        (&true.into(), &"apply".into())
    );
    assert!(json["number"].as_u64().unwrap() > 0);
    assert_eq!(visible(d), ["current", "releases"]);
    assert_eq!(content(d.join("current/VERSION")), "7\n");
    assert_eq!(content(d.join("releases/log")), "7\n");
    let start = d.join("current/bin/start");
    assert_eq!(
        (mode(&start), mode(d.join("releases/7/VERSION"))),
        (0o755, 0o644)
    );
    assert!(content(&start).starts_with("#!/bin/sh\n"));
    no_litter(d);
    // Its condition says that it must not be there.
    let error = args(&[]).expect(5).error();
    assert_eq!(
        (&error["kind"], &error["disk_state"]),
        (&"changed".into(), &"unchanged".into())
    );
    assert_eq!(error["path"], "releases/7");
    assert_eq!(content(d.join("releases/log")), "7\n");
}

/// What the example of every operation needs.
fn prepare(d: &Path) {
    fs::write(d.join("old.conf"), "old").unwrap();
    fs::write(d.join("counter"), "1\n").unwrap();
    fs::write(d.join("mounted.conf"), "older content").unwrap();
    fs::create_dir(d.join("empty")).unwrap();
    fs::create_dir_all(d.join("cache/deep")).unwrap();
    fs::write(d.join("cache/deep/f"), "").unwrap();
    fs::write(d.join("draft"), "text").unwrap();
    fs::write(d.join("left"), "left").unwrap();
    fs::write(d.join("right"), "right").unwrap();
    fs::write(d.join("script"), "").unwrap();
    fs::set_permissions(d.join("script"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_example_of_every_operation_does_what_it_says() {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    let inode = |name: &str| fs::symlink_metadata(d.join(name)).unwrap().ino();
    let (mounted, draft, left) = (inode("mounted.conf"), inode("draft"), inode("left"));
    let manifest = example("every-operation.toml");
    run(d, ["apply".as_ref(), manifest.as_os_str()]).expect(0);

    assert_eq!(content(d.join("app.conf")), "threads = 4\n");
    assert_eq!(mode(d.join("app.conf")), 0o640);
    let meta = fs::metadata(d.join("app.conf")).unwrap();
    let time = UNIX_EPOCH + Duration::from_millis(1_769_857_200_500);
    assert_eq!(meta.modified().unwrap(), time);
    assert_eq!(fs::read(d.join("logo.bin")).unwrap(), [0, 1, 2, 0xff]);
    assert_eq!(content(d.join("copy-of-manifest")), content(&manifest));
    assert_eq!(content(d.join("counter")), "1\n2\n");
    assert_eq!(content(d.join("mounted.conf")), "new");
    assert_eq!(inode("mounted.conf"), mounted);
    assert_eq!(mode(d.join("a/b/c")), 0o700);
    for gone in ["old.conf", "empty", "cache", "draft"] {
        assert!(!d.join(gone).exists(), "{gone}");
    }
    assert_eq!(
        (content(d.join("a/b/c/final")), inode("a/b/c/final")),
        ("text".into(), draft)
    );
    assert_eq!(
        (content(d.join("left")), inode("right")),
        ("right".into(), left)
    );
    assert_eq!(
        fs::read_link(d.join("link")).unwrap(),
        Path::new("a/b/c/final")
    );
    assert_eq!(inode("second-name"), inode("logo.bin"));
    assert_eq!(mode(d.join("script")), 0o755);
    assert!(d.join(OsStr::from_bytes(b"f\xff")).exists());
    no_litter(d);
}

#[test]
fn json_is_read_as_well() {
    let dir = dir();
    let d = dir.path();
    fs::write(d.join("log"), "now").unwrap();
    fs::write(d.join("log.1"), "before").unwrap();
    run(d, ["apply".as_ref(), example("rotate.json").as_os_str()]).expect(0);
    let all = ["log", "log.1", "log.2"].map(|n| content(d.join(n)));
    assert_eq!(all, ["", "now", "before"]);
}

#[test]
fn it_is_silent_unless_asked() {
    let dir = dir();
    let d = dir.path();
    let toml = "[[operations]]\nop = 'write'\npath = 'f'\ncontent = 'x'";
    let ran = apply(d, toml, &[]).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    let ran = apply(d, "[[operations]]\nop = 'remove_file'\npath = 'f'", &["-v"]).expect(0);
    assert!(ran.stdout.starts_with("committed transaction "), "{ran:?}");
    assert!(ran.stdout.ends_with(": 1 operation\n"), "{ran:?}");
}

#[test]
fn a_wrong_manifest_is_refused_before_anything_is_made() {
    let dir = dir();
    let d = dir.path();
    let toml = "[[operations]]\nop = 'write'\npath = 'f'\ncontent = 'x'\nmod = '0644'\n";
    let ran = apply(d, toml, &[]).expect(2);
    assert_eq!(
        ran.stderr,
        "steadfast: cannot read manifest \"-\": line 5, column 1: operation 1: field \"mod\": \
         unknown; known here: op, path, content, content_base64, from, create_new, mode, owner, \
         group, mtime, atime, xattrs\n"
    );
    let error = apply(d, toml, &["--json"]).expect(2).error();
    assert_eq!(error["kind"], "manifest");
    let place = &error["manifest"];
    assert_eq!(place["problem"], "unknown_field");
    let numbers = ["line", "column", "operation"].map(|k| place[k].as_u64().unwrap());
    assert_eq!((numbers, &place["field"]), ([5, 1, 1], &"mod".into()));
    assert!(place["condition"].is_null());
    assert_eq!(names(d), [""; 0]);
    // Neither is it guessed how it is written.
    fs::write(d.join("m"), "").unwrap();
    let ran = run(d, ["apply", "m"]).expect(2);
    assert!(ran.stderr.contains("--format"), "{ran:?}");
    let ran = run(d, ["apply", "-"]).expect(2);
    assert!(ran.stderr.contains("--format"), "{ran:?}");
    assert_eq!(names(d), ["m"]);
    let error = run(d, ["apply", "--json", "none.toml"]).expect(5).error();
    assert_eq!(
        (&error["kind"], &error["errno"]),
        (&"not_found".into(), &"ENOENT".into())
    );
}

#[test]
fn a_failing_operation_is_pointed_at_and_nothing_is_changed() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("folder")).unwrap();
    fs::write(d.join("f"), "old").unwrap();
    symlink("f", d.join("link")).unwrap();
    symlink("..", d.join("up")).unwrap();
    let write = |path: &str| format!("op = 'write'\npath = '{path}'\ncontent = 'x'");
    let cases = [
        (write("folder"), 1, "is_a_directory"),
        (write("none/f"), 5, "not_found"),
        (write("f/g"), 1, "not_a_directory"),
        (write("link"), 1, "symlink_loop"),
        (write("up/f"), 1, "escape"),
        (write("../f"), 1, "escape"),
        ("op = 'remove_dir'\npath = 'f'".into(), 1, "not_a_directory"),
        ("op = 'remove_file'\npath = 'none'".into(), 5, "not_found"),
        (
            format!("{}\ncreate_new = true", write("f")),
            5,
            "already_exists",
        ),
    ];
    for (operation, code, kind) in cases {
        let toml = format!(
            "[[operations]]\nop = 'write'\npath = 'first'\ncontent = '1'\n\n[[operations]]\n{operation}\n"
        );
        let error = apply(d, &toml, &["--json"]).expect(code).error();
        assert_eq!(
            (&error["kind"], &error["disk_state"]),
            (&kind.into(), &"unchanged".into())
        );
        assert_eq!(error["manifest"]["operation"], 2, "{operation}: {error}");
        assert_eq!(error["manifest"]["line"], 6, "{operation}");
        let text = apply(d, &toml, &[]).expect(code).stderr;
        assert!(text.contains("\n  manifest: operation 2 ("), "{text}");
        assert_eq!(visible(d), ["f", "folder", "link", "up"]);
        assert_eq!(content(d.join("f")), "old");
        no_litter(d);
    }
}

#[test]
fn conditions_decide() {
    let dir = dir();
    let d = dir.path();
    let hash = "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865";
    let with = |expect: &str| {
        format!(
            "[[conditions]]\npath = 'c'\nexpect = '{expect}'\n\
             [[operations]]\nop = 'write'\npath = 'out'\ncontent = '{expect}'"
        )
    };
    let states: [(&str, &[&str], &[&str]); 3] = [
        ("", &["absent"], &["present", "sha256"]),
        ("2\n", &["present"], &["absent", "sha256"]),
        ("1\n", &["present", "sha256"], &["absent"]),
    ];
    for (now, met, unmet) in states {
        if !now.is_empty() {
            fs::write(d.join("c"), now).unwrap();
        }
        let full = |e: &str| match e {
            "sha256" => format!("sha256:{hash}"),
            e => e.to_owned(),
        };
        for expect in met {
            apply(d, &with(&full(expect)), &[]).expect(0);
            assert_eq!(content(d.join("out")), full(expect));
        }
        fs::write(d.join("out"), "untouched").unwrap();
        for expect in unmet {
            let error = apply(d, &with(&full(expect)), &["--json"])
                .expect(5)
                .error();
            assert_eq!(
                (&error["kind"], &error["path"]),
                (&"changed".into(), &"c".into())
            );
            assert_eq!(error["manifest"]["condition"], 1);
            assert_eq!(content(d.join("out")), "untouched");
        }
    }
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_it_would() {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    let before = visible(d);
    let manifest = example("every-operation.toml");
    let args = ["apply".as_ref(), "-n".as_ref(), manifest.as_os_str()];
    let text = run(d, args).expect(0).stdout;
    for part in ["create app.conf", "remove cache", "counter"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = run(d, args.iter().chain([&OsStr::new("--json")]))
        .expect(0)
        .json();
    assert_eq!(
        (&json["applied"], &json["dry_run"]),
        (&false.into(), &true.into())
    );
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.len(), text.lines().count());
    assert_eq!(visible(d), before);
    assert_eq!(content(d.join("counter")), "1\n");
    // Not even a workspace is made, and contents are put nowhere.
    assert!(!d.join(".steadfast").exists());
    fs::write(d.join("long"), vec![b'x'; 100_000]).unwrap();
    let long = format!(
        "[[operations]]\nop = 'write'\npath = 'copy'\nfrom = 'long'\n\
         [[operations]]\nop = 'write'\npath = 'new'\ncontent = '{}'",
        "y".repeat(70_000)
    );
    let text = apply(d, &long, &["-n"]).expect(0).stdout;
    for part in ["create copy", "100000 bytes", "create new", "70000 bytes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!d.join(".steadfast").exists());
    // What would fail fails.
    fs::remove_file(d.join("draft")).unwrap();
    run(d, args).expect(5);
}

#[test]
fn the_first_example_of_the_description_works_in_an_empty_folder() {
    let page = include_str!("../../../../docs/manifest.md");
    let toml = page.split("```toml\n").nth(1).unwrap();
    let toml = toml.split("```").next().unwrap();
    let dir = dir();
    apply(dir.path(), toml, &[]).expect(0);
    assert_eq!(content(dir.path().join("releases/7/VERSION")), "7\n");
    // Its condition holds once.
    apply(dir.path(), toml, &[]).expect(5);
}

#[test]
fn with_a_key_it_is_done_once() {
    let dir = dir();
    let d = dir.path();
    let toml = "[[operations]]\nop = 'append'\npath = 'log'\ncontent = 'x'";
    for (n, applied) in [(1, true), (2, false), (3, false)] {
        let json = apply(d, toml, &["--key", "job-7", "--json"])
            .expect(0)
            .json();
        assert_eq!(json["applied"], applied, "{n}");
        assert_eq!(content(d.join("log")), "x");
    }
    apply(d, toml, &["--key", "job-8"]).expect(0);
    assert_eq!(content(d.join("log")), "xx");
    let done = apply(d, toml, &["--key", "job-8", "-n"]).expect(0).stdout;
    assert!(done.contains("applied before"), "{done}");
    let new = apply(d, toml, &["--key", "job-9", "-n"]).expect(0).stdout;
    assert!(new.contains("replace log"), "{new}");
    assert_eq!(content(d.join("log")), "xx");
    // As an operation it is a condition.
    let key = format!("{toml}\n[[operations]]\nop = 'key'\nname = 'job-8'");
    let error = apply(d, &key, &["--json"]).expect(5).error();
    assert_eq!(error["kind"], "already_exists");
    assert_eq!(content(d.join("log")), "xx");
}

#[test]
fn paths_of_the_manifest_are_beneath_the_root_and_from_is_beside_it() {
    let dir = dir();
    let d = dir.path();
    for folder in ["root", "build", "elsewhere"] {
        fs::create_dir(d.join(folder)).unwrap();
    }
    fs::write(d.join("build/big"), vec![b'b'; 100_000]).unwrap();
    let part = |op: &str| format!("[[operations]]\nop = '{op}'\npath = '{op}'\nfrom = 'big'\n");
    fs::write(d.join("root/write_in_place"), "old").unwrap();
    let toml = ["write", "append", "write_in_place"].map(part).concat();
    fs::write(d.join("build/m.toml"), toml).unwrap();
    let args = ["apply", "--root", "../root", "../build/m.toml"];
    run(&d.join("elsewhere"), args).expect(0);
    for name in ["write", "append", "write_in_place"] {
        assert_eq!(
            fs::read(d.join("root").join(name)).unwrap().len(),
            100_000,
            "{name}"
        );
    }
    // Errors are in the user's spelling.
    let missing = "[[operations]]\nop = 'remove_file'\npath = 'none'";
    let error = apply(d, missing, &["--root", "root", "--json"])
        .expect(5)
        .error();
    assert_eq!(error["path"], "root/none");
    let error = apply(d, missing, &["--root", "nowhere", "--json"])
        .expect(5)
        .error();
    assert_eq!(error["path"], "nowhere");
}

#[test]
fn content_comes_from_regular_files_only() {
    let dir = dir();
    let d = dir.path();
    fs::create_dir(d.join("sub")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(d.join("fifo"))
        .status();
    assert!(fifo.unwrap().success());
    for (from, code) in [("fifo", 1), ("sub", 1), ("none", 5), ("/dev/zero", 1)] {
        for op in ["write", "append"] {
            let toml = format!("[[operations]]\nop = '{op}'\npath = 'f'\nfrom = '{from}'");
            let error = apply(d, &toml, &["--json"]).expect(code).error();
            assert_eq!(error["manifest"]["operation"], 1);
            assert_eq!(error["path"], from);
        }
    }
    assert_eq!(visible(d), ["fifo", "sub"]);
    no_litter(d);
}

#[test]
fn names_of_any_bytes_are_said_exactly() {
    let dir = dir();
    let d = dir.path();
    let toml = "[[operations]]\nop = 'remove_file'\npath = { bytes = 'Zv8=' }";
    let error = apply(d, toml, &["--json"]).expect(5).error();
    assert_eq!(
        (&error["path"], &error["path_bytes_hex"]),
        (&"f\u{fffd}".into(), &"66ff".into())
    );
    fs::write(d.join(OsStr::from_bytes(b"f\xff")), "").unwrap();
    apply(d, toml, &[]).expect(0);
    assert_eq!(visible(d), [""; 0]);
}

#[test]
fn the_state_folder_is_nobodys_to_change() {
    let dir = dir();
    let d = dir.path();
    apply(d, "[[operations]]\nop = 'create_dir'\npath = 'a'", &[]).expect(0);
    for path in [".steadfast", ".steadfast/format", "a/../.steadfast/x"] {
        let toml = format!("[[operations]]\nop = 'remove_tree'\npath = '{path}'");
        let ran = apply(d, &toml, &[]);
        assert!([1, 5, 6].contains(&ran.code), "{ran:?}");
    }
    apply(d, "[[operations]]\nop = 'remove_dir'\npath = 'a'", &[]).expect(0);
}

#[test]
fn without_the_rights_it_says_so_and_changes_nothing() {
    let test = "without_the_rights_it_says_so_and_changes_nothing";
    let dir = dir();
    let d = dir.path();
    if fs::metadata(d).unwrap().uid() != 0 {
        skipped(test, "only root can be somebody else");
        return;
    }
    fs::create_dir(d.join("closed")).unwrap();
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(d, open).unwrap();
    let as_nobody = |toml: &str| {
        let mut command = crate::common::steadfast(d);
        std::os::unix::process::CommandExt::uid(&mut command, 65534);
        let mut child =
            crate::common::spawn(command.args(["apply", "-", "--format=toml", "--json"]));
        use std::io::Write;
        // A command that cannot be started reads nothing.
        let _ = child.stdin.take().unwrap().write_all(toml.as_bytes());
        crate::common::ended(child)
    };
    let ran = as_nobody("[[operations]]\nop = 'write'\npath = 'closed/f'\ncontent = 'x'");
    let error = ran.expect(1).error();
    assert_eq!(
        (&error["kind"], &error["errno"]),
        (&"permission_denied".into(), &"EACCES".into())
    );
    assert_eq!(error["disk_state"], "unchanged");
    assert_eq!(names(&d.join("closed")), [""; 0]);
    // The state folder is nobody's now, and root's commands do not trust it.
    let ran = run(d, ["recover", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}
