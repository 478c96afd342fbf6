//! Somebody else replaces, edits or removes things before and between the steps: theirs stays, a conflict is
//! found where one is, and the rest is done.

use super::{Ready, after, scenes, stops};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::some;
use crate::workspace::mapping::{Before, Mapping, Object, Place};
use crate::workspace::realise::{Mode, Outcome};
use crate::workspace::testbed::both_ways;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Replace,
    Edit,
    Remove,
}

/// The paths, before the transaction, of its names that can be meddled with: no directory above them is
/// itself removed or moved.
fn victims(mapping: &Mapping) -> Vec<(usize, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut out = Vec::new();
    for (at, slot) in mapping.slots.iter().enumerate() {
        let Place::Existing { path, .. } = &mapping.places[slot.place] else {
            continue;
        };
        let name = text(slot.name.as_bytes());
        let path = text(path);
        if path.is_empty() {
            out.push((at, name));
        }
    }
    out
}

/// Does the deed, and gives the inode number of theirs.
fn meddle(path: &Path, deed: Deed) -> Option<u64> {
    let meta = fs::symlink_metadata(path).ok();
    match deed {
        Deed::Replace if !meta.as_ref().is_some_and(fs::Metadata::is_dir) => {
            let theirs = path.with_extension("theirs");
            fs::write(&theirs, b"theirs").unwrap();
            fs::rename(&theirs, path).unwrap();
        }
        Deed::Edit if meta.as_ref().is_some_and(fs::Metadata::is_file) => {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(b" and theirs").unwrap();
        }
        Deed::Remove if meta.as_ref().is_some_and(|m| !m.is_dir()) => {
            fs::remove_file(path).unwrap();
            return None;
        }
        _ => return None,
    }
    Some(fs::symlink_metadata(path).unwrap().ino())
}

/// Whether a file with this inode number and some of theirs in it is beneath `dir`, but for private folders
/// other than `kept/`.
fn holds(dir: &Path, ino: u64) -> bool {
    fs::read_dir(dir).unwrap().map(Result::unwrap).any(|entry| {
        let path = entry.path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            let private = path.ends_with("staged") || path.ends_with("retired");
            return !private && holds(&path, ino);
        }
        meta.ino() == ino && fs::read(&path).unwrap().ends_with(b"theirs")
    })
}

/// What of the wanted names must be there although others are in conflict.
fn rest<'w>(
    mapping: &'w Mapping,
    outcome: &Outcome,
    victim: usize,
    want: &'w BTreeMap<String, String>,
) -> impl Iterator<Item = (&'w String, &'w String)> {
    let mut spoiled: Vec<String> = Vec::new();
    let mut spoil = |path: &[u8]| spoiled.push(String::from_utf8(path.to_vec()).unwrap());
    outcome.conflicts.iter().for_each(|c| spoil(&c.path));
    // The victim, and wherever what stood there goes, and whatever is another name of it.
    let slot = &mapping.slots[victim];
    spoil(&slot.path);
    if let Before::Object(object) = slot.before {
        let all = mapping.slots.iter();
        all.filter(|s| s.after == Some(object))
            .for_each(|s| spoil(&s.path));
    }
    let spoiled_inode = move |path: &str, text: &str| {
        // In a new directory the path of a slot is its name.
        let whole = |s: &String| {
            path == s || path.starts_with(&format!("{s}/")) || path.ends_with(&format!("/{s}"))
        };
        spoiled.iter().any(whole) || spoiled.iter().any(|s| text.ends_with(&format!("= {s}")))
    };
    want.iter().filter(move |(path, text)| {
        let linked = text.split("= ").nth(1).is_some_and(|first| {
            first != path.as_str()
                || want
                    .values()
                    .filter(|t| t.ends_with(&format!("= {first}")))
                    .count()
                    > 1
        });
        !linked && !spoiled_inode(path, text)
    })
}

fn try_one(
    scene: &scenes::Scene,
    want: &BTreeMap<String, String>,
    stop: u64,
    deed: Deed,
    at: usize,
) {
    let ready = Ready::of(scene);
    let victims = victims(&ready.mapping);
    let Some((slot, path)) = victims.get(at) else {
        return;
    };
    let what = format!("{}: {deed:?} {path} after {stop}", scene.name);
    let mode = if stop > 0 {
        let action = Action::FailAfter(Errno::IO);
        let plan = Some(Plan { at: stop, action });
        let _ = hook::scope(plan, || ready.run(Mode::First));
        Mode::Again
    } else {
        Mode::First
    };
    let theirs = meddle(&ready.world.path(path), deed);
    if theirs.is_none() && deed != Deed::Remove {
        return;
    }
    let outcome = ready.run(mode).unwrap_or_else(|e| panic!("{what}: {e}"));
    if let Some(ino) = theirs {
        assert!(holds(ready.world.tmp.path(), ino), "{what}: theirs is lost");
    }
    // Theirs has taken the place of something that was to go from here, or to come here.
    let object = ready.mapping.slots[*slot].after;
    let stays = object.map(Before::Object) == Some(ready.mapping.slots[*slot].before);
    if theirs.is_some() && stop == 0 && deed == Deed::Replace && !stays {
        assert!(!outcome.conflicts.is_empty(), "{what}: no conflict");
        assert_eq!(ready.world.read(path), b"theirs", "{what}");
    }
    let shot = ready.world.shot();
    for (path, text) in rest(&ready.mapping, &outcome, *slot, want) {
        let now = fs::symlink_metadata(ready.world.path(path)).map(|m| m.ino());
        if theirs.is_none() || now.ok() != theirs {
            assert_eq!(
                shot.get(path),
                Some(text),
                "{what}: {path} {:?}",
                outcome.conflicts
            );
        }
    }
    for folder in ["staged", "retired"] {
        assert_eq!(ready.world.private(folder), [""; 0], "{what}: {folder}");
    }
    let kept = ready.world.private("kept");
    for conflict in &outcome.conflicts {
        if let Some(name) = &conflict.kept {
            let name = name.as_os_str().to_str().unwrap().to_owned();
            assert!(kept.contains(&name), "{what}: {name} is not kept");
        }
    }
    // A further run may find more that can be done, and does no harm to theirs.
    ready
        .run(Mode::Again)
        .unwrap_or_else(|e| panic!("{what}, again: {e}"));
    if let Some(ino) = theirs {
        assert!(
            holds(ready.world.tmp.path(), ino),
            "{what}, again: theirs is lost"
        );
    }
}

#[test]
fn what_others_do_stays() {
    both_ways(check_what_others_do_stays);
}

fn check_what_others_do_stays() {
    for denied in stops::denials() {
        for scene in scenes::all() {
            hook::deny(&denied, || {
                let want = after(&scene);
                let ready = Ready::of(&scene);
                let victims = victims(&ready.mapping).len();
                let (_, calls) = hook::scope(None, || ready.run(Mode::First));
                for deed in [Deed::Replace, Deed::Edit, Deed::Remove] {
                    for at in 0..victims {
                        // 0 is no stop at all.
                        let stops = some(6, 5 * at).take_while(|n| *n <= calls.len() as u64);
                        for stop in iter::once(0).chain(stops) {
                            try_one(&scene, &want, stop, deed, at);
                        }
                    }
                }
            });
        }
    }
}

/// What was made and put away for a conflict is complete.
#[test]
fn what_is_kept_is_whole() {
    let scene = &scenes::all()[0];
    let ready = Ready::of(scene);
    meddle(&ready.world.path("a"), Deed::Replace);
    let outcome = ready.run(Mode::First).unwrap();
    let [found] = &outcome.conflicts[..] else {
        panic!("{outcome:?}");
    };
    let kept = found.kept.as_ref().unwrap().as_os_str().to_str().unwrap();
    assert_eq!(
        ready.world.read(&format!(".steadfast/kept/{kept}")),
        b"new a"
    );
    assert_eq!(found.path, b"a");
    let theirs = fs::metadata(ready.world.path("a")).unwrap();
    assert_eq!(found.found.unwrap().ino, theirs.ino());
    assert!(matches!(ready.mapping.objects[1], Object::New { .. }));
}
