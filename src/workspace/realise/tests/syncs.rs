//! What must be on the disk before the next step relies on it, as the calls show it.

use super::power::{Tear, tear};
use super::{Ready, Scene, stops};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::mapping::{Before, Object};
use crate::workspace::realise::{Mode, realise, roll_back};
use crate::workspace::stage::stage;
use crate::workspace::state::State;
use crate::workspace::testbed::{World, heard};
use std::fs;
use std::os::unix::fs::MetadataExt;

const NOREPLACE: &str = "renameat2(RENAME_NOREPLACE)";

fn ino(world: &World, path: &str) -> u64 {
    fs::symlink_metadata(world.path(path)).unwrap().ino()
}

/// A name that something has left is given to something else: a crash that had the second move without
/// the first would have lost what has left it.
#[test]
fn a_name_is_used_again_when_what_has_left_it_is_durable() {
    let few = Scene {
        name: "rename, and write at the old name",
        prepare: |w| {
            w.write("a", b"old a");
            w.write("d/x", b"");
        },
        draft: |b| {
            let ((a, at), to) = (b.old("a"), b.free("d/z"));
            b.put(to, a);
            let new = b.file(b"new a");
            b.put(at, new);
        },
        check: |_| {},
    };
    let many = Scene {
        name: "many directories",
        prepare: |w| {
            w.write("a", b"old a");
            (0..5).for_each(|n| w.write(&format!("d{n}/f"), b"old f"));
        },
        draft: |b| {
            for n in 0..5 {
                b.rename(&format!("d{n}/f"), &format!("f{n}"));
            }
            let ((a, at), to) = (b.old("a"), b.free("d0/z"));
            b.put(to, a);
            let new = b.file(b"new a");
            b.put(at, new);
        },
        check: |_| {},
    };
    for denied in stops::denials() {
        let is_denied = denied.iter().any(|(call, _)| *call == NOREPLACE);
        let links = is_denied || hook::denied_by_env(NOREPLACE);
        let takes = |call: &str| {
            if links {
                call == "linkat"
            } else {
                call == NOREPLACE
            }
        };
        let leaves = |call: &str| {
            if links {
                call == "unlinkat"
            } else {
                call == NOREPLACE
            }
        };
        for (scene, to, moved) in [(&few, "d", 1), (&many, "d0", 6)] {
            let ready = Ready::of(scene);
            let run = || heard(|| hook::deny(&denied, || ready.run(Mode::First)));
            let (done, calls) = run();
            let what = format!("{}: {denied:?}", scene.name);
            assert_eq!(done.unwrap().conflicts, [], "{what}");
            // The last one is the new file.
            let (first, last) = (calls.first(leaves), calls.last(takes));
            let (top, to) = (ino(&ready.world, ""), ino(&ready.world, to));
            assert!(calls.is_synced(top, first, last), "{what}");
            assert!(calls.is_synced(to, first, last), "{what}");
            if links {
                // Both names are there until the second one is durable.
                let place = if moved == 1 { to } else { top };
                assert!(calls.is_synced(place, calls.first(takes), first), "{what}");
            } else {
                let syncs = if moved == 1 { 2 } else { 1 };
                assert_eq!(calls.synced(first, last).count(), syncs, "{what}");
            }
        }
    }
}

/// What exists is moved into a directory that recovery has made anew: that is durable before, and its name.
#[test]
fn a_directory_that_is_made_anew_is_durable_before_something_moves_into_it() {
    let scene = Scene {
        name: "into a new directory",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| {
            let (n, at) = (b.dir(), b.free("n"));
            b.put(at, n);
            let at = b.within(n, "a");
            let (a, from) = b.old("a");
            b.put(from, None);
            b.put(at, a);
        },
        check: |_| {},
    };
    let ready = Ready::of(&scene);
    let Some(Object::New { staged, .. }) = ready.mapping.objects.first() else {
        panic!("{:?}", ready.mapping);
    };
    // Its inode number is not to be given out again.
    let staged = ready.world.path(".steadfast/staged").join(staged);
    fs::rename(&staged, ready.world.lost(1)).unwrap();
    let (done, calls) = heard(|| ready.run(Mode::Again));
    assert_eq!(done.unwrap().conflicts, []);
    let made = calls.first(|call| call == "mkdirat");
    let moved = calls.first(|call| call.starts_with("renameat") || call == "linkat");
    for path in ["n", ".steadfast/staged"] {
        assert!(
            calls.is_synced(ino(&ready.world, path), made, moved),
            "{path}"
        );
    }
    assert_eq!(ready.world.read("n/a"), b"old a");
}

/// What has no way to be exchanged gives way to its image where it stands. What belongs elsewhere has been
/// moved out of it before, perhaps by an earlier run, of which nobody knows what is durable.
#[test]
fn what_is_removed_in_place_is_removed_after_a_sync() {
    let scene = Scene {
        name: "replace",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| b.replace("a", b"new a"),
        check: |_| {},
    };
    let mut ready = Ready::of(&scene);
    for slot in &mut ready.mapping.slots {
        // As of a section that is taken back.
        slot.before = Before::Anything;
    }
    let denied = [("renameat2(RENAME_EXCHANGE)", Errno::XDEV)];
    let back = || ready.world.with(|ctx| roll_back(ctx, &ready.mapping));
    let (done, calls) = heard(|| hook::deny(&denied, back));
    assert_eq!(done.unwrap().conflicts, []);
    let removed = calls.last(|call| call == "unlinkat");
    assert!(calls.first(|call| call == "syncfs") < removed);
    assert_eq!(ready.world.read("a"), b"new a");
}

/// What a conflict keeps is durable, and its name, before anybody is told of it.
#[test]
fn what_a_conflict_keeps_is_durable() {
    for (name, len) in [("small", 10), ("long", 40_000)] {
        let world = World::new();
        world.write("a", b"old a");
        let mut draft = world.draft();
        draft.replace("a", &vec![7; len]);
        let draft = draft.draft;
        let mapping = world.with(|ctx| stage(ctx, draft).unwrap().committed());
        world.write("theirs", b"theirs");
        fs::rename(world.path("theirs"), world.path("a")).unwrap();
        let (done, calls) = heard(|| world.with(|ctx| realise(ctx, &mapping, Mode::First)));
        let outcome = done.unwrap();
        let kept = outcome.conflicts[0].kept.as_ref().unwrap();
        let kept = format!(".steadfast/kept/{}", kept.as_os_str().to_str().unwrap());
        assert_eq!(world.read(&kept), vec![7; len]);
        let moved = calls.last(|call| call == "renameat");
        let folder = ino(&world, ".steadfast/kept");
        assert!(calls.is_synced(folder, moved, calls.end()), "{name}");
        // What is long was synced before the commit.
        let is_synced = calls.is_synced(ino(&world, &kept), moved, calls.end());
        assert_eq!(is_synced, len == 10, "{name}");
    }
}

/// Small new files in a directory.
fn made() -> Scene {
    Scene {
        name: "made",
        prepare: |w| w.write("d/x", b""),
        draft: |b| (0..5).for_each(|n| b.create(&format!("d/n{n}"), b"new")),
        check: |_| {},
    }
}

/// Where a sync of the file system proves nothing each file is synced by itself, however many there are.
#[test]
fn each_file_is_synced_by_itself_where_that_alone_proves_something() {
    let ready = Ready::of(&made());
    tear(&ready, Tear::Empty);
    let (done, calls) = heard(|| {
        ready.world.with(|ctx| {
            ctx.each = true;
            realise(ctx, &ready.mapping, Mode::Again)
        })
    });
    assert_eq!(done.unwrap().conflicts, []);
    let named = calls.first(|call| call.starts_with("renameat") || call == "linkat");
    for n in 0..5 {
        let file = ino(&ready.world, &format!("d/n{n}"));
        let mut before = calls.synced(0, named);
        assert!(before.any(|synced| synced == ("fsync", file)), "n{n}");
    }
}

/// There a sync that fails, of a file or of names, is told to everybody: the log has it all, and stays.
#[test]
fn a_sync_of_one_thing_that_fails_is_told_to_everybody() {
    let try_it = |plan: Option<Plan>| {
        let ready = Ready::of(&made());
        let root = &ready.world.root;
        let state = State::open(root, true).unwrap();
        let mut names = || Ok(ready.world.name());
        let mut ctx = state.ctx(root, &mut names);
        ctx.each = true;
        let run = || realise(&mut ctx, &ready.mapping, Mode::First);
        let (done, calls) = hook::scope(plan, run);
        assert_eq!(done.unwrap().conflicts, []);
        let is_told = state.ledger.is_in_doubt(state.incarnation()).unwrap();
        (is_told, calls)
    };
    let (is_told, calls) = try_it(None);
    assert!(!is_told);
    let syncs = (1..).zip(&calls).filter(|(_, call)| **call == "fsync");
    let syncs: Vec<u64> = syncs.map(|(at, _)| at).collect();
    assert_eq!(syncs.len(), 6, "{calls:?}");
    for at in syncs {
        let action = Action::Fail(Errno::IO);
        assert!(try_it(Some(Plan { at, action })).0, "{at} of {calls:?}");
    }
}
