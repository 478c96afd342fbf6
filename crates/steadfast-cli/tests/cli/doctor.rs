//! `doctor`: every feature has an answer, and what is missing an explanation.

use crate::common::{dir, names, run, steadfast};
use std::path::Path;

#[test]
fn every_feature_is_listed_in_text_and_json() {
    let dir = dir();
    let d = dir.path();
    let json = run(d, ["doctor", "--json"]).expect(0).json();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(json["kernel"], release.trim_end());
    let features = json["features"].as_array().unwrap();
    assert!(features.len() >= 21);
    let text = run(d, ["doctor", "."]).expect(0).stdout;
    assert!(text.contains(&format!("Linux {}", release.trim_end())));
    for feature in features {
        let name = feature["name"].as_str().unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name} ")))
            .unwrap();
        let answer = feature["answer"].as_str().unwrap();
        assert!(line.contains(answer), "{line}: {feature}");
        let yes = answer == "yes";
        assert_eq!(feature["fallback"].is_null(), yes, "{feature}");
        assert_eq!(feature["advice"].is_null(), yes, "{feature}");
        assert_eq!(feature["errno"].is_null(), yes, "{feature}");
        if !yes {
            let fallback = feature["fallback"].as_str().unwrap();
            let first = fallback.split(' ').next().unwrap();
            assert!(line.contains(first), "{line}: {feature}");
        }
    }
    for line in text.lines() {
        assert!(line.len() <= 80 && !line.ends_with(' '), "{line:?}");
    }
    assert_eq!(names(d), [""; 0], "the trials are removed");
}

#[test]
fn what_cannot_be_tried_is_unknown() {
    let json = run(Path::new("/"), ["doctor", "--json", "/proc"])
        .expect(0)
        .json();
    assert_eq!(json["file_system"], "proc");
    let features = json["features"].as_array().unwrap();
    let exchange = features
        .iter()
        .find(|f| f["name"] == "rename-exchange")
        .unwrap();
    assert_eq!(exchange["answer"], "unknown");
    let text = run(Path::new("/"), ["doctor", "/proc"]).expect(0).stdout;
    assert!(text.contains("features could not be tried here"), "{text}");
}

#[test]
fn a_missing_feature_has_advice() {
    let dir = dir();
    let mut command = steadfast(dir.path());
    command
        .args(["doctor"])
        .env("STEADFAST_HOOK", "deny:renameat2(RENAME_EXCHANGE)=EINVAL");
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    if text.contains("\nrename-exchange   yes") {
        crate::common::skipped(
            "a_missing_feature_has_advice",
            "the command is built without the test seam",
        );
        return;
    }
    assert!(
        text.contains("\nrename-exchange   no (EINVAL)        none: "),
        "{text}"
    );
    assert!(
        text.contains("\n  rename-exchange:  to swap and to replace folders"),
        "{text}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let dir = dir();
    let error = run(dir.path(), ["doctor", "--json", "none"])
        .expect(5)
        .error();
    assert_eq!(error["path"], "none");
    std::fs::write(dir.path().join("f"), "").unwrap();
    let error = run(dir.path(), ["doctor", "--json", "f"]).expect(1).error();
    assert_eq!(error["errno"], "ENOTDIR");
}
