//! `recover` and `resolve-conflict`: after a kill at any call, and after somebody else's change.

use crate::common::{dir, names, run};
use crate::faults::{MANY, planned, seam};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

const MANIFEST: &str = "\
    [[operations]]\nop = 'write'\npath = 'f'\ncontent = 'new'\n\
    [[operations]]\nop = 'rename'\npath = 'a'\nto = 'd/b'\n\
    [[operations]]\nop = 'write'\npath = 'a'\ncontent = 'new'\n\
    [[operations]]\nop = 'remove_tree'\npath = 'old'\n\
    [[operations]]\nop = 'create_dir'\npath = 'd/e'\n\
    [[operations]]\nop = 'append'\npath = 'log'\ncontent = 'new'\n";

pub(crate) fn prepare(d: &Path) {
    fs::write(d.join("m.toml"), MANIFEST).unwrap();
    fs::write(d.join("f"), "old").unwrap();
    fs::write(d.join("a"), "old").unwrap();
    fs::write(d.join("log"), "old").unwrap();
    fs::create_dir(d.join("d")).unwrap();
    fs::create_dir_all(d.join("old/deep")).unwrap();
    fs::write(d.join("old/deep/f"), "old").unwrap();
}

/// Everything in a folder but the state folder, as one text.
pub(crate) fn picture(d: &Path) -> String {
    let mut out = String::new();
    for name in names(d) {
        let path = d.join(&name);
        let name = name.to_string_lossy();
        if name == ".steadfast" {
            continue;
        }
        if path.is_dir() {
            let inner = picture(&path);
            out.push_str(&format!("{name}/({inner}) "));
        } else if name != "m.toml" {
            out.push_str(&format!("{name}={} ", fs::read_to_string(&path).unwrap()));
        }
    }
    out
}

pub(crate) const OLD: &str = "a=old d/() f=old log=old old/(deep/(f=old ) ) ";
pub(crate) const NEW: &str = "a=new d/(b=old e/() ) f=new log=oldnew ";

#[track_caller]
pub(crate) fn no_litter(d: &Path) {
    for room in ["staged", "kept", "retired", "conflicts"] {
        let room = d.join(".steadfast").join(room);
        assert!(names(&room).is_empty(), "{room:?}: {:?}", names(&room));
    }
}

/// The first number from 1 for which something holds that holds for all after it too.
fn first(holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (1, MANY);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    assert!((10..MANY).contains(&low), "{low}");
    low
}

/// Each of so many numbers below the end, on several threads: most of the time goes by in waiting for the
/// disk.
fn each(end: u32, step: usize, look: impl Fn(u32) + Sync) {
    const THREADS: u32 = 4;
    let long = std::env::var_os("STEADFAST_LONG").is_some();
    let step = if long { 1 } else { step };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let look = &look;
            let numbers = (1..end).filter(move |n| n % THREADS == thread);
            let numbers = numbers.step_by(step);
            scope.spawn(move || numbers.for_each(look));
        }
    });
}

fn stopped(d: &Path, n: u32, args: &[&str]) -> bool {
    planned(d, &format!("stop-before:{n}"), args).code == -1
}

#[test]
fn killed_at_any_call_it_is_all_or_nothing_after_recover() {
    if !seam("killed_at_any_call_it_is_all_or_nothing_after_recover") {
        return;
    }
    let end = first(|n| {
        let dir = dir();
        prepare(dir.path());
        !stopped(dir.path(), n, &["apply", "m.toml"])
    });
    let counts = [const { AtomicU32::new(0) }; 3];
    let count = |n: usize| counts[n].fetch_add(1, Ordering::Relaxed);
    each(end, 1, |n| {
        let dir = dir();
        let d = dir.path();
        prepare(d);
        assert!(stopped(d, n, &["apply", "m.toml"]), "call {n} of {end}");
        let found = run(d, ["recover", "--json"]);
        match picture(d).as_str() {
            OLD => count(0),
            NEW => count(1),
            other => panic!("call {n}: {other}: {found:?}"),
        };
        // There may not be a workspace yet.
        if found.code == 5 {
            assert_eq!(picture(d), OLD);
            assert!(!d.join(".steadfast/format").exists());
            return;
        }
        let json = found.expect(0).json();
        if json["finished"].as_array().is_some_and(|f| !f.is_empty()) {
            count(2);
        }
        assert_eq!(json["conflicts"].as_array().unwrap().len(), 0);
        no_litter(d);
        // And it is over.
        let again = run(d, ["recover"]).expect(0);
        assert_eq!(again.stdout, "nothing to recover\n", "call {n}");
    });
    let [old, new, finished] = counts.map(AtomicU32::into_inner);
    assert!(
        old > 10 && new > 5 && finished > 3,
        "{old} {new} {finished}"
    );
}

/// The first call before which the transaction is decided: a kill there leaves all of it to recovery.
pub(crate) fn decided() -> u32 {
    first(|n| {
        let dir = dir();
        let d = dir.path();
        prepare(d);
        stopped(d, n, &["apply", "m.toml"]);
        run(d, ["recover"]);
        picture(d) == NEW
    })
}

/// A folder in which a transaction is decided, and nothing of it is to be seen.
pub(crate) fn undone(at: u32) -> tempfile::TempDir {
    let dir = dir();
    let d = dir.path();
    prepare(d);
    let killed = planned(d, &format!("stop-before:{at}"), &["apply", "m.toml"]);
    assert_eq!((killed.code, picture(d).as_str()), (-1, OLD));
    dir
}

#[test]
fn killed_in_recovery_too_it_goes_on() {
    if !seam("killed_in_recovery_too_it_goes_on") {
        return;
    }
    let at = decided();
    let end = first(|n| !stopped(undone(at).path(), n, &["recover"]));
    each(end, 3, |n| {
        let dir = undone(at);
        let d = dir.path();
        assert!(stopped(d, n, &["recover"]), "call {n} of {end}");
        let found = run(d, ["recover"]).expect(0);
        assert_eq!(picture(d), NEW, "call {n}: {found:?}");
        no_litter(d);
    });
}

#[test]
fn recovery_tells_what_it_did_and_the_next_has_nothing_to_do() {
    if !seam("recovery_tells_what_it_did_and_the_next_has_nothing_to_do") {
        return;
    }
    let dir = undone(decided());
    let d = dir.path();
    let json = run(d, ["recover", "--json"]).expect(0).json();
    assert_eq!(json["finished"].as_array().unwrap().len(), 1);
    assert_eq!(json["taken_back"].as_array().unwrap().len(), 0);
    let again = run(d, ["recover", "--json"]).expect(0).json();
    assert_eq!(again["finished"].as_array().unwrap().len(), 0);
}

#[test]
fn somebody_elses_change_is_kept_until_a_person_has_chosen() {
    if !seam("somebody_elses_change_is_kept_until_a_person_has_chosen") {
        return;
    }
    let at = decided();
    let choices: [(&[&str], &str, Option<&str>); 3] = [
        (&["--theirs"], "theirs", None),
        (&["--ours"], "new", None),
        (&["--aside", "f.theirs"], "new", Some("theirs")),
    ];
    for (choice, at_f, at_aside) in choices {
        let dir = undone(at);
        let d = dir.path();
        fs::write(d.join("f"), "theirs").unwrap();
        let text = run(d, ["recover"]).expect(8).stdout;
        assert!(text.contains("\n1 conflict:\n  "), "{text}");
        assert!(
            text.contains(" f is a file of 6 bytes now; ours is kept in .steadfast/kept/"),
            "{text}"
        );
        let json = run(d, ["recover", "--json"]).expect(8).json();
        let conflict = &json["conflicts"][0];
        assert_eq!(conflict["path"], "f");
        assert_eq!(conflict["theirs"]["kind"], "file");
        assert_eq!(conflict["ours"]["kind"], "kept");
        let kept = d.join(conflict["ours"]["path"].as_str().unwrap());
        assert_eq!(fs::read_to_string(kept).unwrap(), "new");
        // The rest is done.
        assert_eq!(picture(d), NEW.replace("f=new", "f=theirs"));
        // What overlaps it is refused; what does not is not.
        let again = |path: &str| {
            let toml = format!("[[operations]]\nop = 'write'\npath = '{path}'\ncontent = 'x'");
            fs::write(d.join("again.toml"), toml).unwrap();
            run(d, ["apply", "--json", "again.toml"])
        };
        let error = again("f").expect(8).error();
        assert_eq!(
            (&error["kind"], &error["disk_state"]),
            (&"conflict".into(), &"unchanged".into())
        );
        again("log").expect(0);
        let id = conflict["id"].as_str().unwrap();
        let args = ["resolve-conflict", id, "--json"];
        let json = run(d, args.iter().chain(choice)).expect(0).json();
        assert_eq!((&json["path"], &json["id"]), (&"f".into(), &id.into()));
        assert_eq!(fs::read_to_string(d.join("f")).unwrap(), at_f);
        if let Some(content) = at_aside {
            assert_eq!(fs::read_to_string(d.join("f.theirs")).unwrap(), content);
        }
        no_litter(d);
        run(d, ["recover"]).expect(0);
        again("f").expect(0);
        // It is not there any more.
        let error = run(d, args.iter().chain(choice)).expect(5).error();
        assert_eq!(error["kind"], "not_found");
    }
}

#[test]
fn conflicts_are_named_by_two_numbers_and_resolved_in_one_way() {
    let dir = dir();
    let wrong: [&[&str]; 4] = [
        &["12-0"],
        &["12", "--theirs"],
        &["12-0", "--theirs", "--ours"],
        &["12-0", "--aside"],
    ];
    for args in wrong {
        let error = run(dir.path(), [&["resolve-conflict", "--json"], args].concat());
        assert_eq!(error.expect(2).error()["kind"], "usage", "{args:?}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn where_there_is_no_workspace_none_is_made() {
    let dir = dir();
    let commands: [&[&str]; 2] = [&["recover"], &["resolve-conflict", "1-0", "--theirs"]];
    for args in commands {
        let error = run(dir.path(), [args, &["--json"]].concat())
            .expect(5)
            .error();
        assert_eq!(error["kind"], "not_found", "{args:?}");
        assert!(
            error["advice"].as_str().unwrap().contains("apply"),
            "{error}"
        );
    }
    assert_eq!(names(dir.path()), [""; 0]);
}
