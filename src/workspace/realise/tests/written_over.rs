//! New files and old ones that later transactions write over in place, and what a power cut leaves of that.

use super::power::{Tear, tear};
use super::{Ready, Scene, stops};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::some;
use crate::workspace::compose::compose;
use crate::workspace::draft::{AttrRequest, DraftSet, NewContent, Source};
use crate::workspace::mapping::Object;
use crate::workspace::realise::{Mode, realise};
use crate::workspace::stage::stage;
use crate::workspace::testbed::{Builder, both_ways};
use std::fs::{self, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

/// Two transactions as one: the first has made a file, the second writes over it in place. What
/// stands in for the file, which is torn, is written over as well, and then nothing of what was
/// recorded is in it.
#[test]
fn what_was_made_anew_and_then_written_over_is_known_again() {
    both_ways(check_what_was_made_anew_and_then_written_over_is_known_again);
}

fn check_what_was_made_anew_and_then_written_over_is_known_again() {
    const NEW: [u8; 1700] = [9; 1700];
    let scene = Scene {
        name: "made and written over",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| b.create("n", b"first"),
        check: |_| {},
    };
    let both = || {
        let mut ready = Ready::of(&scene);
        ready.run(Mode::First).unwrap();
        let mut draft = ready.world.draft();
        let (n, _) = draft.old("n");
        draft.change(n, DraftSet::Content(Source::Bytes(NEW.into())));
        let draft = draft.draft;
        let next = ready
            .world
            .with(|ctx| stage(ctx, draft).unwrap().committed());
        compose(&mut ready.mapping, next);
        ready
    };
    let ready = both();
    ready.run(Mode::Again).unwrap();
    let want = ready.world.shot();
    assert_eq!(ready.world.read("n"), NEW);
    for denied in stops::denials() {
        for how in [Tear::Empty, Tear::Zeros] {
            for cut in [false, true] {
                for at in 1.. {
                    let what = format!("{denied:?} {how:?} {cut} stopped after {at}");
                    let ready = both();
                    tear(&ready, how);
                    let action = Action::FailAfter(Errno::IO);
                    let plan = Some(Plan { at, action });
                    let run = || hook::scope(plan, || ready.run(Mode::Again));
                    let (_, calls) = hook::deny(&denied, run);
                    let path = ready.world.path("n");
                    let synced = calls.iter().rposition(|call| call.contains("sync"));
                    let written = calls.iter().rposition(|call| *call == "pwrite64");
                    if cut && written.is_some() && written > synced {
                        // Not all of it has come to the disk.
                        File::options()
                            .write(true)
                            .open(&path)
                            .unwrap()
                            .set_len(1024)
                            .unwrap();
                    }
                    let outcome = hook::deny(&denied, || ready.run(Mode::Again)).unwrap();
                    assert_eq!(outcome.conflicts, [], "{what}");
                    ready.check_opened(&scene, &want, &what);
                    if (calls.len() as u64) < at {
                        break;
                    }
                }
            }
        }
    }
}

/// A small new file with two names.
pub(super) fn linked() -> Scene {
    Scene {
        name: "made and linked",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| {
            b.create("n", b"first");
            let (n, at) = (b.draft.objects.len() - 1, b.free("m"));
            let link = b.make(NewContent::Link(n), AttrRequest::default(), None);
            b.put(at, link);
        },
        check: |_| {},
    }
}

/// A file, and transactions after the first that write over it in place, each by one of its names.
/// Those that were carried out have their copies again: their removal was lost.
fn written_over(scene: &Scene, texts: &[(&str, Vec<u8>)], done: bool) -> Ready {
    let mut ready = Ready::of(scene);
    ready.run(Mode::First).unwrap();
    for (name, text) in texts {
        let mut draft = ready.world.draft();
        let (file, _) = draft.old(name);
        let text = Source::Bytes(text.as_slice().into());
        draft.change(file, DraftSet::Content(text));
        let draft = draft.draft;
        let next = ready
            .world
            .with(|ctx| stage(ctx, draft).unwrap().committed());
        if done {
            let copies = copies(&ready);
            let outcome = ready.world.with(|ctx| realise(ctx, &next, Mode::First));
            assert_eq!(outcome.unwrap().conflicts, []);
            copies.iter().for_each(put_back);
        }
        compose(&mut ready.mapping, next);
    }
    ready
}

/// A file with its content and time.
pub(super) type Copied = (PathBuf, Vec<u8>, std::time::SystemTime);

/// Its removal was lost.
pub(super) fn put_back((path, text, time): &Copied) {
    fs::write(path, text).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let times = FileTimes::new().set_modified(*time);
    file.set_times(times).unwrap();
}

/// What is in the private folders of old and new contents.
pub(super) fn copies(ready: &Ready) -> Vec<Copied> {
    let mut all = Vec::new();
    for folder in ["staged", "kept"] {
        for name in ready.world.private(folder) {
            let path = ready.world.path(".steadfast").join(folder).join(name);
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            all.push((path.clone(), fs::read(&path).unwrap(), time));
        }
    }
    all
}

/// A small file that was never synced is written over in place. The disk may have the time of that,
/// and nothing or zeros of either content.
#[test]
fn what_is_written_over_before_the_disk_had_it_is_known() {
    both_ways(check_what_is_written_over_before_the_disk_had_it_is_known);
}

fn check_what_is_written_over_before_the_disk_had_it_is_known() {
    const NEW: [u8; 1700] = [9; 1700];
    let scene = Scene {
        name: "not on the disk yet",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| b.create("n", b"first"),
        check: |_| {},
    };
    for left in [0, 3, 5, 512, 1700] {
        let ready = written_over(&scene, &[("n", NEW.into())], false);
        fs::write(ready.world.path("n"), vec![0; left]).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts, [], "{left}");
        assert_eq!(ready.world.read("n"), NEW, "{left}");
    }
}

/// A small file that was never synced, and a later transaction that gives it a time. The disk may
/// have the file with a time of its making that is older than the one that was recorded.
#[test]
fn an_early_time_of_a_new_file_is_its_own() {
    let scene = Scene {
        name: "of its making",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| b.create("n", b"first"),
        check: |_| {},
    };
    let (set, second) = (
        UNIX_EPOCH + Duration::from_secs(1000),
        Duration::from_secs(1),
    );
    for is_ours in [true, false] {
        let mut ready = Ready::of(&scene);
        ready.run(Mode::First).unwrap();
        let mut draft = ready.world.draft();
        let (n, _) = draft.old("n");
        let time = AttrRequest {
            mtime: Some((1000, 0)),
            ..AttrRequest::default()
        };
        draft.change(n, DraftSet::Attributes(time));
        let draft = draft.draft;
        let next = (ready.world).with(|ctx| stage(ctx, draft).unwrap().committed());
        compose(&mut ready.mapping, next);
        let path = ready.world.path("n");
        let recorded = fs::metadata(&path).unwrap().modified().unwrap();
        let shown = match is_ours {
            true => recorded - second,
            false => recorded + second,
        };
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(FileTimes::new().set_modified(shown))
            .unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts.is_empty(), is_ours);
        let found = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(found, if is_ours { set } else { shown });
    }
}

/// Several transactions as one, which write over one file in place, some of them by another of its
/// names. What the last left, or the power cut left of it, is nobody else's work for the first; and
/// also if the file was made by one of them, is torn, and is made anew.
#[test]
fn what_is_written_over_again_and_again_is_known() {
    both_ways(check_what_is_written_over_again_and_again_is_known);
}

fn check_what_is_written_over_again_and_again_is_known() {
    let old = Scene {
        name: "written over",
        prepare: |w| {
            w.write("n", b"old");
            fs::hard_link(w.path("n"), w.path("m")).unwrap();
        },
        draft: |b| b.create("other", b"other"),
        check: |_| {},
    };
    let made = linked();
    let (long, short, middle) = (vec![9; 1700], vec![8; 600], vec![7; 1300]);
    let chains: [&[(&str, Vec<u8>)]; 5] = [
        &[("m", long.clone())],
        &[("n", long.clone()), ("n", middle.clone())],
        &[("n", short.clone()), ("m", long.clone())],
        &[("m", long.clone()), ("n", short.clone())],
        &[("n", middle), ("n", short), ("n", long)],
    ];
    let cases = [
        (&old, None),
        (&made, None),
        (&made, Some(Tear::Empty)),
        (&made, Some(Tear::Zeros)),
    ];
    for (scene, tear_as) in cases {
        for (nth, texts) in chains.into_iter().enumerate() {
            let names: Vec<_> = texts
                .iter()
                .map(|(name, text)| (name, text.len()))
                .collect();
            let last = &texts[texts.len() - 1].1;
            let want = {
                let ready = written_over(scene, texts, true);
                let copies = copies(&ready);
                for (path, ..) in copies {
                    fs::remove_file(path).unwrap();
                }
                assert_eq!(ready.world.read("n"), *last);
                ready.world.shot()
            };
            for (n, denied) in stops::denials().into_iter().enumerate() {
                for at in some(5, n + nth) {
                    let what = format!("{denied:?} {names:?} {tear_as:?} stopped after {at}");
                    // What has been torn was never synced, and so not written over.
                    let ready = written_over(scene, texts, tear_as.is_none());
                    if let Some(how) = tear_as {
                        tear(&ready, how);
                    }
                    let plan = Some(Plan {
                        at,
                        action: Action::FailAfter(Errno::IO),
                    });
                    let run = || hook::scope(plan, || ready.run(Mode::Again));
                    let (_, calls) = hook::deny(&denied, run);
                    let synced = calls.iter().rposition(|call| call.contains("sync"));
                    let written = calls.iter().rposition(|call| *call == "pwrite64");
                    if at % 2 == 0 && written.is_some() && written > synced {
                        // Not all of it has come to the disk.
                        let path = ready.world.path("n");
                        let file = File::options().write(true).open(path).unwrap();
                        file.set_len(512).unwrap();
                    }
                    let again = hook::deny(&denied, || ready.run(Mode::Again));
                    let outcome = again.unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert_eq!(outcome.conflicts, [], "{}: {what}", scene.name);
                    ready.check_opened(scene, &want, &what);
                    if (calls.len() as u64) < at {
                        break;
                    }
                }
            }
        }
    }
}

/// A file that one transaction writes over in place and another replaces, removes or moves. A
/// recovery that is stopped between the content and its time leaves a time that nobody has
/// recorded: the file is ours all the same, by its content, and by nothing else.
#[test]
fn what_is_written_over_and_then_goes_is_known_by_its_content() {
    both_ways(check_what_is_written_over_and_then_goes_is_known_by_its_content);
}

fn check_what_is_written_over_and_then_goes_is_known_by_its_content() {
    type End = (&'static str, fn(&mut Builder<'_>));
    let ends: [End; 4] = [
        ("replaced", |b| b.replace("n", b"another")),
        ("removed", |b| b.remove("n")),
        ("swapped", |b| {
            let ((_, n), (d, from)) = (b.old("n"), b.old("d"));
            b.put(n, d);
            b.put(from, None);
        }),
        ("moved", |b| {
            b.rename("n", "m");
        }),
    ];
    let scene = Scene {
        name: "written over, and gone",
        prepare: |w| {
            w.write("n", &[1; 1300]);
            w.write("d", b"other");
        },
        draft: |b| {
            let (n, _) = b.old("n");
            let text = Source::Bytes([9; 1700].into());
            b.change(n, DraftSet::Content(text));
        },
        check: |_| {},
    };
    let both = |end: &End, done: bool| {
        let mut ready = Ready::of(&scene);
        let copies = copies(&ready);
        ready.run(Mode::First).unwrap();
        copies.iter().for_each(put_back);
        let mut draft = ready.world.draft();
        (end.1)(&mut draft);
        let draft = draft.draft;
        let next = (ready.world).with(|ctx| stage(ctx, draft).unwrap().committed());
        let new = next.objects.iter().find_map(|object| match object {
            Object::New { staged, .. } => Some(staged.clone()),
            _ => None,
        });
        if let (true, Some(new)) = (done, new) {
            // It has replaced the file, whose removal was lost.
            let (old, private) = (ready.world.path("n"), ready.world.path(".steadfast/staged"));
            fs::hard_link(old, ready.world.path(".steadfast/old")).unwrap();
            (ready.world).with(|ctx| realise(ctx, &next, Mode::First).unwrap());
            fs::rename(ready.world.path(".steadfast/old"), private.join(new)).unwrap();
        }
        compose(&mut ready.mapping, next);
        ready
    };
    let mut half_written = 0;
    let cases = (ends.iter().map(|end| (end, false))).chain([(&ends[0], true)]);
    for (end, done) in cases {
        let want = {
            let ready = both(end, done);
            assert_eq!(ready.run(Mode::Again).unwrap().conflicts, []);
            ready.world.shot()
        };
        for denied in stops::denials() {
            for at in 1.. {
                let what = format!("{} {done} {denied:?} stopped after {at}", end.0);
                let ready = both(end, done);
                let plan = Some(Plan {
                    at,
                    action: Action::FailAfter(Errno::IO),
                });
                let run = || hook::scope(plan, || ready.run(Mode::Again));
                let (_, calls) = hook::deny(&denied, run);
                if (calls.len() as u64) < at {
                    break;
                }
                half_written += u32::from(calls.last() == Some(&"pwrite64"));
                let again = hook::deny(&denied, || ready.run(Mode::Again));
                let outcome = again.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(outcome.conflicts, [], "{what}");
                ready.check_opened(&scene, &want, &what);
            }
        }
    }
    assert_ne!(half_written, 0);
    // The same with a byte that neither content has is somebody's work.
    for end in &ends[..3] {
        let ready = both(end, false);
        let mut text = [9; 1700];
        text[600] = 7;
        fs::write(ready.world.path("n"), text).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_ne!(outcome.conflicts, [], "{}", end.0);
        assert_eq!(ready.world.read("n"), text, "{}", end.0);
    }
}

/// A file that is half written over is known by whole sectors of old and new content and by its
/// length. What differs from that by one byte, by half a sector or by its length is somebody's work,
/// and stays.
#[test]
fn what_is_no_mixture_of_old_and_new_stays() {
    let scene = Scene {
        name: "no mixture",
        prepare: |w| w.write("n", &[1; 1300]),
        draft: |b| {
            let (n, _) = b.old("n");
            let text = Source::Bytes([9; 1700].into());
            b.change(n, DraftSet::Content(text));
        },
        check: |_| {},
    };
    let bytes = |parts: &[(u8, usize)]| -> Vec<u8> {
        let part = |(byte, len): &(u8, usize)| vec![*byte; *len];
        parts.iter().flat_map(part).collect()
    };
    let cases = [
        ("nothing written", bytes(&[(1, 1300)]), true),
        ("one sector", bytes(&[(9, 512), (1, 788)]), true),
        ("the last one only", bytes(&[(1, 1024), (9, 512)]), true),
        (
            "grown, with zeros",
            bytes(&[(9, 1024), (1, 276), (0, 400)]),
            true,
        ),
        ("all", bytes(&[(9, 1700)]), true),
        ("half a sector", bytes(&[(9, 256), (1, 1044)]), false),
        ("a byte", bytes(&[(9, 1024), (7, 1), (9, 675)]), false),
        ("beyond the old end", bytes(&[(1, 1400)]), false),
        ("shorter than both", bytes(&[(1, 1024)]), false),
        ("shorter, and new", bytes(&[(9, 1024)]), false),
        ("longer than both", bytes(&[(9, 1700), (0, 300)]), false),
        ("empty", Vec::new(), false),
    ];
    for (what, text, is_ours) in cases {
        let ready = Ready::of(&scene);
        fs::write(ready.world.path("n"), &text).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts.is_empty(), is_ours, "{what}");
        let want = if is_ours { vec![9; 1700] } else { text };
        assert_eq!(ready.world.read("n"), want, "{what}");
    }
}
