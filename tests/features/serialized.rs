//! Feature `serde`: what reports, plans and errors look like as JSON.

use crate::common;
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};
use steadfast::publish::{FileOptions, PendingFile, SweepOptions, Target, sweep};
use steadfast::root::Capabilities;
use steadfast::workspace::{Workspace, status};
use steadfast::{Root, tree};

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

#[test]
fn a_plan() {
    let dir = common::dir();
    std::fs::write(dir.path().join("old"), "12345").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    let mut tx = workspace.begin();
    tx.write("a", "123").unwrap();
    tx.rename("old", "new").symlink("a", "link");
    // A name that is no text.
    tx.create_dir(OsStr::from_bytes(b"z\xff"));
    assert_eq!(
        value(&tx.plan().unwrap()),
        json!({"steps": [
            {"path": "a", "kind": {"create": {"file": {"len": 3}}}},
            {"path": "link", "kind": {"create": {"symlink": {"target": "a"}}}},
            {"path": "new", "kind": {"move": {"from": "old", "replaces": false}}},
            {
                "path": {"path": "z\u{fffd}", "path_bytes_hex": "7aff"},
                "kind": {"create": "dir"},
            },
        ]})
    );
}

#[test]
fn an_error() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    let options = FileOptions::new().target(Target::Replace);
    let error = value(&options.write(&root, "x", "").unwrap_err());
    let expected = [
        ("operation", json!("publish file")),
        ("kind", json!("not_found")),
        ("disk_state", json!("unchanged")),
        ("path", json!("x")),
        ("other_path", json!(null)),
        ("system_call", json!("statx")),
        ("errno", json!("ENOENT")),
        ("left_behind", json!([])),
        ("detail", json!(null)),
        ("source", json!(null)),
    ];
    for (key, wanted) in expected {
        assert_eq!(error[key], wanted, "{key} of {error}");
    }
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("cannot publish file"), "{message}");
    // What we know further is in the message; what the caller's code gave is not.
    let options = FileOptions::new().expect_len(3);
    let error = value(&options.write(&root, "x", "").unwrap_err());
    let detail = error["detail"].as_str().unwrap();
    assert!(error["message"].as_str().unwrap().contains(detail));
    assert_eq!(error["source"], json!(null));
    let fails = |_: &mut PendingFile<'_>| Err(std::io::Error::other("no more"));
    let options = FileOptions::new();
    let error = value(&options.write_with(&root, "x", fails).unwrap_err());
    assert_eq!(
        (&error["detail"], &error["source"]),
        (&json!(null), &json!("no more"))
    );
}

#[test]
fn receipts_and_reports() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    FileOptions::new().write(&root, "a", "1").unwrap();
    let long_ago = UNIX_EPOCH - Duration::from_millis(1500);
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("a"))
        .unwrap();
    file.set_modified(long_ago).unwrap();
    let receipt = FileOptions::new().write(&root, "a", "22").unwrap();
    let found = value(&receipt);
    assert_eq!(found["id"]["ino"], receipt.id().ino);
    assert_eq!(found["replaced"]["kind"], "file");
    assert_eq!(found["replaced"]["len"], 1);
    // A time before 1970 is no failure; whether the file system keeps one is its own affair.
    if file.metadata().unwrap().modified().unwrap() == long_ago {
        let expected = json!({"secs_since_epoch": -2, "nanos_since_epoch": 500_000_000});
        assert_eq!(found["replaced"]["mtime"], expected);
    }

    let (parent, name) = root.split("a").unwrap();
    let removed = tree::remove(&parent, &name, &tree::RemoveOptions::new()).unwrap();
    let expected = json!({"files": 1, "dirs": 0, "mount_check": "not_needed"});
    assert_eq!(value(&removed), expected);

    let can = value(&Capabilities::probe_uncached(&root).unwrap());
    assert_eq!(can["features"].as_object().unwrap().len(), 21);
    assert_eq!(can["features"]["sync-directory"], "yes");

    let swept = sweep(&root, ".", &SweepOptions::new()).unwrap();
    assert_eq!(value(&swept), json!({"removed": [], "kept": []}));
}

#[test]
fn the_status_of_a_workspace() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    assert_eq!(value(workspace.recovered())["finished"], json!([]));
    let mut tx = workspace.begin();
    tx.label("first").write("a", "1").unwrap();
    let receipt = value(&tx.commit().unwrap());
    assert_eq!(receipt, json!({"number": 1, "notes": []}));
    let status = value(&status(&root).unwrap());
    assert_eq!(status["problems"], json!([]));
    assert_eq!(status["writers"][0]["live"], true);
    let tx = &status["transactions"][0];
    assert_eq!((&tx["number"], &tx["label"]), (&json!(1), &json!("first")));
    assert_eq!(
        (&tx["state"], &tx["paths"]),
        (&json!("done"), &json!(["a"]))
    );
    assert!(tx["time"]["secs_since_epoch"].is_i64());
}
