//! Small new files that are told from each other, and by all their names, when recovery makes them anew.

use super::power::{Tear, tear};
use super::written_over::{copies, linked, put_back};
use super::{Ready, Scene};
use crate::workspace::compose::compose;
use crate::workspace::draft::{AttrRequest, DraftSet, NewContent, Piece, Source};
use crate::workspace::mapping::Object;
use crate::workspace::realise::{Mode, realise};
use crate::workspace::stage::stage;
use crate::workspace::testbed::Builder;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;

fn mode(bits: u32) -> AttrRequest {
    AttrRequest {
        mode: Some(bits),
        ..AttrRequest::default()
    }
}

fn bits(ready: &Ready, name: &str) -> u32 {
    let meta = fs::metadata(ready.world.path(name)).unwrap();
    meta.permissions().mode() & 0o777
}

/// A further transaction, which is carried out and then part of the mapping.
fn then(ready: &mut Ready, draw: impl FnOnce(&mut Builder<'_>)) {
    let mut draft = ready.world.draft();
    draw(&mut draft);
    let draft = draft.draft;
    let next = (ready.world).with(|ctx| stage(ctx, draft).unwrap().committed());
    let outcome = (ready.world).with(|ctx| realise(ctx, &next, Mode::First));
    assert_eq!(outcome.unwrap().conflicts, []);
    compose(&mut ready.mapping, next);
}

/// Two new files with the same content. One is nowhere, and has been written over since; the other was made
/// anew by an earlier recovery, and stands where it is to stand. It is not taken for the first one.
#[test]
fn of_two_files_with_one_content_each_is_its_own() {
    let scene = Scene {
        name: "two alike",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| {
            for (name, bits) in [("n", 0o640), ("other", 0o600)] {
                let slot = b.free(name);
                let pieces = vec![Piece::Given(Source::Bytes(b"small"[..].into()))];
                let file = b.make(NewContent::File(pieces), mode(bits), None);
                b.put(slot, file);
            }
        },
        check: |_| {},
    };
    let mut ready = Ready::of(&scene);
    ready.run(Mode::First).unwrap();
    let mut all = Vec::new();
    for text in [[1; 1700], [2; 1700]] {
        let mut draft = ready.world.draft();
        let (n, _) = draft.old("n");
        draft.change(n, DraftSet::Content(Source::Bytes(text.into())));
        let draft = draft.draft;
        let next = (ready.world).with(|ctx| stage(ctx, draft).unwrap().committed());
        all.extend(copies(&ready));
        (ready.world).with(|ctx| realise(ctx, &next, Mode::First).unwrap());
        compose(&mut ready.mapping, next);
    }
    // Their removal was lost, and the name of the one; the other is another inode.
    all.iter().for_each(put_back);
    fs::remove_file(ready.world.path("n")).unwrap();
    let other = ready.world.path("other");
    let time = fs::metadata(&other).unwrap().modified().unwrap();
    fs::rename(&other, ready.world.path("was")).unwrap();
    fs::write(&other, "small").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let file = File::options().write(true).open(&other).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    fs::remove_file(ready.world.path("was")).unwrap();
    let outcome = ready.run(Mode::Again).unwrap();
    assert_eq!(outcome.conflicts, []);
    assert_eq!(ready.world.read("n"), [2; 1700]);
    assert_eq!(ready.world.read("other"), b"small");
    assert_eq!((bits(&ready, "n"), bits(&ready, "other")), (0o640, 0o600));
}

/// What was changed by a name that is gone by now is a change of the file, and also of what stands in for it.
#[test]
fn what_was_made_anew_is_changed_by_names_that_are_gone() {
    for how in [Tear::Empty, Tear::Zeros, Tear::Missing] {
        let mut ready = Ready::of(&linked());
        ready.run(Mode::First).unwrap();
        let closed = |b: &mut Builder<'_>| {
            let (m, _) = b.old("m");
            b.change(m, DraftSet::Attributes(mode(0o600)));
        };
        then(&mut ready, closed);
        then(&mut ready, |b| b.remove("m"));
        tear(&ready, how);
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts, [], "{how:?}");
        assert_eq!(ready.world.read("n"), b"first", "{how:?}");
        assert_eq!(bits(&ready, "n"), 0o600, "{how:?}");
        assert!(!ready.world.path("m").exists(), "{how:?}");
    }
}

/// A file was moved by one of its names, and by the other it was replaced. After the cut it stands
/// where it was replaced, and under its private name: that it is ours is known by both. And so it is
/// if an earlier recovery has put a stand-in where the file was moved to.
#[test]
fn a_torn_file_gives_way_at_all_its_names() {
    for stands_in in [false, true] {
        let mut ready = Ready::of(&linked());
        ready.run(Mode::First).unwrap();
        let old = ready.world.path("old");
        fs::hard_link(ready.world.path("n"), &old).unwrap();
        then(&mut ready, |b| {
            let ((n, at), (_, gone), to) = (b.old("n"), b.old("m"), b.free("moved"));
            b.put(to, n);
            b.put(gone, None);
            let second = b.file(b"second");
            b.put(at, second);
        });
        let moved = ready.world.path("moved");
        let time = fs::metadata(&moved).unwrap().modified().unwrap();
        fs::remove_file(&moved).unwrap();
        if stands_in {
            fs::write(&moved, b"first").unwrap();
            let file = File::options().write(true).open(&moved).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        } else {
            // The first thing that was made.
            let Object::New { staged, .. } = &ready.mapping.objects[0] else {
                panic!("it is new");
            };
            let private = ready.world.path(".steadfast/staged").join(staged);
            fs::hard_link(&old, private).unwrap();
        }
        fs::rename(&old, ready.world.path("n")).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts, [], "{stands_in}");
        assert_eq!(ready.world.read("n"), b"second", "{stands_in}");
        assert_eq!(ready.world.read("moved"), b"first", "{stands_in}");
        assert!(!ready.world.path("m").exists(), "{stands_in}");
    }
}
