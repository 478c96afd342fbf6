//! `status`, `log` and `explain`: what a person sees of a workspace, without touching it.

use crate::common::{dir, names, run};
use crate::faults::seam;
use crate::recover::{NEW, OLD, decided, picture, undone};
use std::fs;
use std::path::Path;

/// Every name and length below a directory.
fn everything(d: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for name in names(d) {
        let path = d.join(name);
        let meta = fs::symlink_metadata(&path).unwrap();
        out.push(format!(
            "{path:?} {} {:?}",
            meta.len(),
            meta.modified().unwrap()
        ));
        if meta.is_dir() {
            out.extend(everything(&path));
        }
    }
    out
}

#[test]
fn a_workspace_at_rest_has_nothing_open() {
    let dir = dir();
    let d = dir.path();
    fs::write(
        d.join("m.toml"),
        "[[operations]]\nop = 'create_dir'\npath = 'a'",
    )
    .unwrap();
    run(d, ["apply", "m.toml"]).expect(0);
    let before = everything(d);
    let text = run(d, ["status"]).expect(0).stdout;
    assert!(text.starts_with("workspace .steadfast, id "), "{text}");
    assert!(text.ends_with("\nnothing is open\n"), "{text}");
    let json = run(d, ["status", "--json"]).expect(0).json();
    assert_eq!(json["id"].as_str().unwrap().len(), 32);
    assert_eq!(json["format"], 1);
    assert_eq!(json["copy"], false);
    for list in ["problems", "sections", "conflicts", "leases"] {
        assert_eq!(json[list].as_array().unwrap().len(), 0, "{list}");
    }
    assert_eq!(json["writers"][0]["live"], false);
    let log = run(d, ["log", "--json"]).expect(0).json();
    assert_eq!(log["logs"].as_array().unwrap().len(), 1);
    run(d, ["log"]).expect(0);
    assert_eq!(everything(d), before, "looking changes nothing");
}

#[test]
fn what_a_killed_process_left_is_shown_and_explained() {
    if !seam("what_a_killed_process_left_is_shown_and_explained") {
        return;
    }
    let dir = undone(decided());
    let d = dir.path();
    let before = everything(d);
    let json = run(d, ["status", "--json"]).expect(0).json();
    let transaction = &json["transactions"][0];
    assert_eq!(transaction["state"], "dead");
    let paths = transaction["paths"].as_array().unwrap();
    assert!(
        paths.contains(&"f".into()) && paths.contains(&"old".into()),
        "{json}"
    );
    let number = transaction["number"].as_u64().unwrap().to_string();
    let text = run(d, ["status"]).expect(0).stdout;
    let line = format!("\ntransaction {number}: committed, its process died");
    assert!(text.contains(&line), "{text}");
    assert!(!text.contains("nothing is open"), "{text}");

    let explained = run(d, ["explain", &number]).expect(0).stdout;
    assert_eq!(run(d, ["status", &number]).expect(0).stdout, explained);
    assert!(
        explained.contains("\n  remove old (directory)\n    now: not yet done; "),
        "{explained}"
    );
    let json = run(d, ["explain", "--json", &number]).expect(0).json();
    let steps = json["steps"].as_array().unwrap();
    assert!(
        steps.len() >= 5 && steps.iter().all(|s| s["now"] == "before"),
        "{json}"
    );

    let text = run(d, ["log"]).expect(0).stdout;
    assert!(text.contains(&format!(" commit {number}  ")), "{text}");
    let json = run(d, ["log", "--json"]).expect(0).json();
    let records = json["logs"][0]["records"].as_array().unwrap();
    assert_eq!(records.last().unwrap()["kind"], "commit");
    assert_eq!(everything(d), before, "looking changes nothing");
    assert_eq!(picture(d), OLD);

    run(d, ["recover"]).expect(0);
    assert_eq!(picture(d), NEW);
    let error = run(d, ["explain", "--json", &number]).expect(5).error();
    assert_eq!(error["kind"], "not_found");
}

#[test]
fn conflicts_are_listed_until_they_are_resolved() {
    if !seam("conflicts_are_listed_until_they_are_resolved") {
        return;
    }
    let dir = undone(decided());
    let d = dir.path();
    fs::write(d.join("f"), "theirs").unwrap();
    run(d, ["recover"]).expect(8);
    let text = run(d, ["status"]).expect(0).stdout;
    assert!(text.contains("\n1 conflict:\n  "), "{text}");
    let json = run(d, ["status", "--json"]).expect(0).json();
    let id = json["conflicts"][0]["id"].as_str().unwrap();
    run(d, ["resolve-conflict", id, "--theirs"]).expect(0);
    let text = run(d, ["status"]).expect(0).stdout;
    assert!(text.ends_with("nothing is open\n"), "{text}");
}

#[test]
fn a_damaged_log_is_told_with_its_place_and_opens_nothing() {
    if !seam("a_damaged_log_is_told_with_its_place_and_opens_nothing") {
        return;
    }
    let dir = undone(decided());
    let d = dir.path();
    let log = d
        .join(".steadfast/logs")
        .join(&names(&d.join(".steadfast/logs"))[0]);
    let segment = names(&log)
        .into_iter()
        .find(|n| n.to_string_lossy().ends_with(".seg"));
    let segment = log.join(segment.unwrap());
    let mut bytes = fs::read(&segment).unwrap();
    // The header of the segment.
    bytes[20] ^= 0xff;
    fs::write(&segment, &bytes).unwrap();
    let json = run(d, ["status", "--json"]).expect(0).json();
    assert_eq!(json["problems"][0]["kind"], "corrupt", "{json}");
    let text = run(d, ["status"]).expect(0).stdout;
    assert!(text.contains("\nproblem .steadfast/logs/"), "{text}");
    run(d, ["log"]).expect(0);
    for args in [&["recover", "--json"][..], &["apply", "--json", "m.toml"]] {
        let error = run(d, args).expect(1).error();
        assert_eq!(
            (&error["kind"], &error["disk_state"]),
            (&"corrupt".into(), &"unchanged".into())
        );
    }
    assert_eq!(picture(d), OLD);
    let text = run(d, ["repair"]).expect(0).stdout;
    assert!(text.contains("\n  kept the records up to "), "{text}");
    assert!(text.contains("\nset aside .steadfast/"), "{text}");
    assert_eq!(run(d, ["repair"]).expect(0).stdout, "nothing is damaged\n");
    run(d, ["recover"]).expect(0);
    assert_eq!(picture(d), OLD);
    run(d, ["apply", "m.toml"]).expect(0);
    assert_eq!(picture(d), NEW);
}

#[test]
fn what_cannot_be_finished_is_given_up_on_request() {
    if !seam("what_cannot_be_finished_is_given_up_on_request") {
        return;
    }
    for how in [&[][..], &["--drop"]] {
        let dir = undone(decided());
        let d = dir.path();
        let json = run(d, ["status", "--json"]).expect(0).json();
        let number = json["transactions"][0]["number"]
            .as_u64()
            .unwrap()
            .to_string();
        let json = run(d, [&["abandon", &number, "--json"], how].concat());
        let json = json.expect(0).json();
        assert!(json["given_up"].as_array().unwrap().len() >= 5, "{json}");
        assert_eq!(json["done"].as_array().unwrap().len(), 0);
        let kept = json["conflicts"].as_array().unwrap().len();
        assert_eq!(kept > 0, how.is_empty(), "{json}");
        assert_eq!(picture(d), OLD);
        run(d, ["recover"]).expect(if kept > 0 { 8 } else { 0 });
        assert_eq!(picture(d), OLD);
        // Once.
        run(d, ["abandon", &number]).expect(5);
        for id in json["conflicts"].as_array().unwrap() {
            run(d, ["resolve-conflict", "--theirs", id.as_str().unwrap()]).expect(0);
        }
        run(d, ["apply", "m.toml"]).expect(0);
        assert_eq!(picture(d), NEW);
    }
}

#[test]
fn where_there_is_no_workspace_there_is_no_status() {
    let dir = dir();
    let commands: [&[&str]; 5] = [
        &["status"],
        &["log"],
        &["explain", "1"],
        &["abandon", "1"],
        &["repair"],
    ];
    for args in commands {
        let error = run(dir.path(), [args, &["--json"]].concat())
            .expect(5)
            .error();
        assert_eq!(error["kind"], "not_found", "{args:?}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
    run(dir.path(), ["log", "--log", "xyz"]).expect(2);
}

#[test]
fn what_repairs_have_set_aside_goes_on_request_only() {
    if !seam("what_repairs_have_set_aside_goes_on_request_only") {
        return;
    }
    let dir = undone(decided());
    let d = dir.path();
    run(d, ["apply", "m.toml"]);
    fs::write(d.join(".steadfast/ledger"), "no ledger").unwrap();
    let json = run(d, ["repair", "--json"]).expect(0).json();
    let aside = json["set_aside"].as_array().unwrap().clone();
    assert!(json["ledger"].is_object() && aside.len() == 1, "{json}");
    let aside = d.join(aside[0].as_str().unwrap());
    assert_eq!(fs::read(&aside).unwrap(), b"no ledger");
    run(d, ["prune"]).expect(0);
    let text = run(d, ["prune", "-n", "--set-aside"]).expect(0).stdout;
    assert!(text.starts_with("would remove .steadfast/"), "{text}");
    assert!(aside.exists());
    run(d, ["prune", "--set-aside"]).expect(0);
    assert!(!aside.exists());
    assert_eq!(run(d, ["prune", "-n", "--set-aside"]).expect(0).stdout, "");
}

#[test]
fn old_keys_go_on_request_only() {
    let dir = dir();
    let d = dir.path();
    fs::write(
        d.join("m.toml"),
        "[[operations]]\nop = 'append'\npath = 'a'\ncontent = 'x'",
    )
    .unwrap();
    let apply = || run(d, ["apply", "--key", "k", "m.toml"]).expect(0);
    apply();
    run(d, ["prune"]).expect(0);
    run(d, ["prune", "--keys-older-than", "1"]).expect(0);
    apply();
    assert_eq!(fs::read_to_string(d.join("a")).unwrap(), "x");
    let json = run(d, ["prune", "--json", "--keys-older-than", "0"])
        .expect(0)
        .json();
    assert_eq!(json["keys"], 1);
    apply();
    assert_eq!(fs::read_to_string(d.join("a")).unwrap(), "xx");
}
