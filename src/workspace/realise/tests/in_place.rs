//! Many files that are written over in place: one sync for all, and their copies go after it.

use super::written_over::{copies, put_back};
use super::{Ready, Scene, after};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::some;
use crate::workspace::compose::compose;
use crate::workspace::draft::{AttrRequest, DraftSet, Source};
use crate::workspace::mapping::{Mapping, Set};
use crate::workspace::realise::{Mode, realise};
use crate::workspace::stage::stage;
use crate::workspace::testbed::{World, both_ways};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const FILES: u8 = 5;

/// The files are closed to writing as well.
fn scene() -> Scene {
    Scene {
        name: "in place, and closed",
        prepare: |w| (0..FILES).for_each(|n| w.write(&format!("f{n}"), &[n; 1300])),
        draft: |b| {
            for n in 0..FILES {
                let (f, _) = b.old(&format!("f{n}"));
                let text = Source::Bytes(vec![n + 5; 1300].into());
                b.change(f, DraftSet::Content(text));
                let mode = Some(0o400);
                let closed = AttrRequest {
                    mode,
                    ..AttrRequest::default()
                };
                b.change(f, DraftSet::Attributes(closed));
            }
        },
        check: |w| (0..FILES).for_each(|n| assert_eq!(w.read(&format!("f{n}")), vec![n + 5; 1300])),
    }
}

fn is_sync(call: &&str) -> bool {
    ["fsync", "fdatasync", "syncfs"].contains(call)
}

fn stopped_after(at: u64) -> Option<Plan> {
    let action = Action::FailAfter(Errno::IO);
    Some(Plan { at, action })
}

/// Until the first copy has gone, a file may lose any part of what was written.
#[test]
fn content_is_durable_before_its_copies_go() {
    let scene = scene();
    let want = after(&scene);
    let ready = Ready::of(&scene);
    let (done, calls) = hook::scope(None, || ready.run(Mode::First));
    assert_eq!(done.unwrap().conflicts, []);
    assert_eq!(calls.iter().filter(|c| is_sync(c)).count(), 1, "{calls:?}");
    let synced = calls.iter().position(is_sync).unwrap();
    let (before, behind) = calls.split_at(synced);
    assert!(!before.contains(&"unlinkat"), "{calls:?}");
    assert!(!behind.contains(&"pwrite64"), "{calls:?}");
    // Who is not root cannot write again what is closed to writing.
    let closes = |call: &&str| call.contains("chmod");
    assert!(!before.iter().any(closes), "{calls:?}");
    assert!(behind.iter().any(closes), "{calls:?}");
    for lost in 0..1 << FILES {
        let ready = Ready::of(&scene);
        let run = hook::scope(stopped_after(synced as u64), || ready.run(Mode::First));
        assert!(run.0.is_err());
        for n in (0..FILES).filter(|n| lost >> n & 1 == 1) {
            let path = ready.world.path(&format!("f{n}"));
            let mut content = fs::read(&path).unwrap();
            content[512..1024].fill(n);
            fs::write(&path, content).unwrap();
        }
        ready.finish(&scene, &want, &format!("lost in {lost:b}"));
    }
}

/// Files that one transaction has written over in place, and another that is to do it again. The removal of
/// the first one's copies was lost, of some.
fn twice(lost: u32) -> (Ready, Mapping) {
    let scene = scene();
    let ready = Ready::of(&scene);
    let copies = copies(&ready);
    assert_eq!(ready.run(Mode::First).unwrap().conflicts, []);
    for n in 0..FILES {
        // That was lost as well; and who is not root has to write to it.
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(ready.world.path(&format!("f{n}")), open).unwrap();
    }
    for (n, copy) in copies.iter().enumerate() {
        if lost >> (n % 3) & 1 == 1 {
            put_back(copy);
        }
    }
    let mut draft = ready.world.draft();
    for n in 0..FILES {
        let (file, _) = draft.old(&format!("f{n}"));
        // Some are longer than what the first has left, some shorter.
        let text = vec![n + 100; 700 + 300 * usize::from(n)];
        draft.change(file, DraftSet::Content(Source::Bytes(text.into())));
    }
    let draft = draft.draft;
    let next = (ready.world).with(|ctx| stage(ctx, draft).unwrap().committed());
    (ready, next)
}

/// Whatever of two transactions has come to the disk when the power goes, the second one stands after it.
#[test]
fn what_two_write_over_is_finished_as_the_second_has_it() {
    both_ways(check_two);
}

fn check_two() {
    let scene = scene();
    let mut calls = u64::MAX;
    for at in std::iter::once(0).chain(some(3, 0)) {
        for lost in 0..8 {
            let (mut ready, next) = twice(lost);
            let before: BTreeMap<_, _> = (0..FILES)
                .map(|n| ready.world.path(&format!("f{n}")))
                .map(|path| (path.clone(), fs::read(path).unwrap()))
                .collect();
            let copies = copies(&ready);
            let run = || ready.world.with(|ctx| realise(ctx, &next, Mode::First));
            let (done, seen) = hook::scope(stopped_after(at), run);
            let what = format!("stopped after {at}, lost {lost:b}, {seen:?}");
            if at == 0 {
                assert_eq!(done.unwrap().conflicts, []);
                calls = seen.len() as u64;
            }
            let synced = seen.iter().any(is_sync);
            for (n, (path, old)) in before.iter().enumerate().filter(|_| !synced) {
                let now = fs::read(path).unwrap();
                match (n as u32 + lost) % 3 {
                    0 => fs::write(path, old).unwrap(),
                    // A sector, if both have it.
                    1 if now.len() >= 1024 && old.len() >= 1024 => {
                        let mut now = now;
                        now[512..1024].copy_from_slice(&old[512..1024]);
                        fs::write(path, now).unwrap();
                    }
                    _ => {}
                }
            }
            for (n, copy) in copies.iter().enumerate() {
                if !copy.0.exists() && (n as u32 + lost).is_multiple_of(2) {
                    put_back(copy);
                }
            }
            compose(&mut ready.mapping, next);
            let outcome = ready.run(Mode::Again).unwrap();
            assert_eq!(outcome.conflicts, [], "{what}");
            for n in 0..FILES {
                let text = vec![n + 100; 700 + 300 * usize::from(n)];
                assert_eq!(ready.world.read(&format!("f{n}")), text, "f{n}: {what}");
            }
            let shot = ready.world.shot();
            ready.check_opened(&scene, &shot, &what);
        }
        if at > calls {
            break;
        }
    }
}

/// A file that is written in place and given a time by one transaction. The file system keeps coarser times
/// than the record: what it shows after the content is no time that was recorded, and is ours.
#[test]
fn a_time_that_was_rounded_is_our_own() {
    both_ways(check_rounded);
}

fn check_rounded() {
    let scene = Scene {
        name: "rounded",
        prepare: |w| w.write("f", b"old"),
        draft: |b| {
            let (f, _) = b.old("f");
            b.change(f, DraftSet::Content(Source::Bytes(b"new"[..].into())));
            let time = AttrRequest {
                mtime: Some((1000, 0)),
                ..AttrRequest::default()
            };
            b.change(f, DraftSet::Attributes(time));
        },
        check: |_| {},
    };
    for mode in [Mode::First, Mode::Again] {
        let mut ready = Ready::of(&scene);
        let mut rounded = 0;
        for change in &mut ready.mapping.changes {
            if let Set::Times { before, .. } = &mut change.what {
                before.0 -= 1;
                rounded += 1;
            }
        }
        assert_eq!(rounded, 1);
        assert_eq!(ready.run(mode).unwrap().conflicts, []);
        let meta = fs::metadata(ready.world.path("f")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1000, 0));
        assert_eq!(ready.world.read("f"), b"new");
    }
}

/// What is in the record alone is kept under the name that is recorded for it, once, however often the
/// recovery is run; and a stop in between leaves no half of it.
#[test]
fn a_content_of_the_record_that_has_no_place_is_kept_whole() {
    both_ways(check_kept);
}

fn check_kept() {
    let scene = Scene {
        name: "kept",
        prepare: |w| w.write("f", b"old"),
        draft: |b| {
            let (f, _) = b.old("f");
            b.change(f, DraftSet::Content(Source::Bytes([7; 1300].into())));
        },
        check: |_| {},
    };
    for mode in [Mode::First, Mode::Again] {
        for at in 1.. {
            let ready = Ready::of(&scene);
            let logged = matches!(ready.mapping.changes[0].what, Set::Logged { .. });
            ready.world.write("f", b"of somebody else");
            let (stopped, calls) = hook::scope(stopped_after(at), || ready.run(mode));
            let outcome = match stopped {
                Ok(outcome) => outcome,
                Err(_) => ready.run(Mode::Again).unwrap(),
            };
            let [conflict] = &outcome.conflicts[..] else {
                panic!("{mode:?} stopped after {at}: {:?}", outcome.conflicts);
            };
            let name = conflict
                .kept
                .as_ref()
                .unwrap()
                .as_os_str()
                .to_str()
                .unwrap();
            let path = format!(".steadfast/kept/{name}");
            assert_eq!(ready.world.read(&path), [7; 1300], "{mode:?} {at}");
            assert_eq!(ready.world.read("f"), b"of somebody else");
            let again = ready.run(Mode::Again).unwrap();
            assert_eq!(again.conflicts, outcome.conflicts);
            if (calls.len() as u64) < at {
                // The folder is synced at the end.
                let of_files = calls.iter().filter(|call| call.starts_with("fsync"));
                assert_eq!(of_files.count(), 1 + usize::from(logged), "{calls:?}");
                break;
            }
        }
    }
}

/// Behind the end of a shorter content is nothing of the old one, to the end of the block, when it is
/// cut off: btrfs shows it again when the file grows and the power goes. What does not get shorter is
/// not cut.
#[test]
fn what_is_cut_off_is_zeroed_first() {
    for (len, zeroed) in [
        (700, 65_536),
        (65_536, 65_536),
        (70_000, 131_072),
        (150_000, 150_000),
    ] {
        let world = World::new();
        world.write("f", &[1; 150_000]);
        let mut draft = world.draft();
        let (f, _) = draft.old("f");
        let text = vec![9; len];
        draft.change(f, DraftSet::Content(Source::Bytes(text.into())));
        let draft = draft.draft;
        let mapping = world.with(|ctx| stage(ctx, draft).unwrap().committed());
        let run = || world.with(|ctx| realise(ctx, &mapping, Mode::First));
        let (done, calls) = hook::scope(None, || hook::deny(&[("ftruncate", Errno::IO)], run));
        let found = fs::read(world.path("f")).unwrap();
        assert_eq!(found.len(), 150_000);
        let is = |part: &[u8], byte: u8| part.iter().all(|b| *b == byte);
        assert!(is(&found[..len], 9), "{len}");
        if len == found.len() {
            done.unwrap();
            assert!(!calls.iter().any(|call| call.starts_with("ftruncate")));
            continue;
        }
        done.unwrap_err();
        assert!(is(&found[len..zeroed], 0), "{len}");
        assert!(is(&found[zeroed..], 1), "{len}");
    }
}

/// Whoever renames, replaces or writes a file after it was opened for a transaction keeps what he has.
#[test]
fn a_file_that_was_opened_is_written_where_it_stands_and_as_it_was() {
    both_ways(check_opened);
}

fn check_opened() {
    let scene = Scene {
        name: "in place",
        prepare: |w| {
            w.write("f", b"old");
            fs::hard_link(w.path("f"), w.path("link")).unwrap();
        },
        draft: |b| {
            let (f, _) = b.old("f");
            let text = Source::Bytes(b"new".as_slice().into());
            b.change(f, DraftSet::Content(text));
        },
        check: |_| {},
    };
    // What somebody does meanwhile, and what is at the name then, and in the file.
    type Deed = fn(&World);
    let deeds: [(Deed, &str, &str); 4] = [
        (|_| {}, "new", "new"),
        (
            |w| fs::rename(w.path("f"), w.path("away")).unwrap(),
            "",
            "old",
        ),
        (
            |w| {
                w.write("theirs", b"their");
                fs::rename(w.path("theirs"), w.path("f")).unwrap();
            },
            "their",
            "old",
        ),
        (|w| w.write("f", b"their"), "their", "their"),
    ];
    for (deed, at_name, in_file) in deeds {
        let ready = Ready::of(&scene);
        deed(&ready.world);
        let (done, calls) = hook::scope(None, || ready.run(Mode::First));
        let ours = at_name == "new";
        assert_eq!(done.unwrap().conflicts.is_empty(), ours, "{at_name}");
        let found = fs::read_to_string(ready.world.path("f")).unwrap_or_default();
        assert_eq!(found, at_name);
        assert_eq!(ready.world.read("link"), in_file.as_bytes(), "{at_name}");
        let logged = matches!(ready.mapping.changes[0].what, Set::Logged { .. });
        // It is not opened a second time.
        assert_eq!(!calls.contains(&"openat"), logged && ours, "{calls:?}");
    }
}
