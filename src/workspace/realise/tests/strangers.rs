//! What somebody else has put there in between, or instead of what a power cut has taken.

use super::{Ready, Scene};
use crate::sys::hook;
use crate::workspace::draft::{AttrRequest, DraftSet, NewContent, Source};
use crate::workspace::mapping::Object;
use crate::workspace::realise::Mode;
use crate::workspace::testbed::Builder;
use rustix::fs::XattrFlags;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// A small new file of which the disk has a beginning, or zeros, is torn, and made anew. One that has
/// anything else in it is somebody's work, whatever its time.
#[test]
fn a_file_with_anything_else_in_it_is_not_torn() {
    let scene = Scene {
        name: "create",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| b.create("n", b"first"),
        check: |_| {},
    };
    let cases: [(&[u8], bool); 7] = [
        (b"", true),
        (b"fir", true),
        (b"\0\0\0\0\0", true),
        (b"fi\0\0t", true),
        (b"their", false),
        (b"first, and more", false),
        (b"fir\0\0\0", false),
    ];
    for (text, is_torn) in cases {
        let ready = Ready::of(&scene);
        ready.run(Mode::First).unwrap();
        let path = ready.world.path("n");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, text).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let time = time - Duration::from_millis(1);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        assert_eq!(outcome.conflicts, [], "{text:?}");
        let want: &[u8] = if is_torn { b"first" } else { text };
        assert_eq!(ready.world.read("n"), want, "{text:?}");
    }
}

/// New things that are nowhere, where something of their kind stands at their names: an earlier recovery
/// has made that if it is like them, and else somebody, whose it stays.
#[test]
fn what_stands_at_a_name_is_ours_if_it_is_like_ours() {
    let scene = Scene {
        name: "a directory and a symlink",
        prepare: |w| w.write("a", b"old a"),
        draft: |b| {
            let attr = AttrRequest {
                mode: Some(0o711),
                ..AttrRequest::default()
            };
            let (n, at) = (b.make(NewContent::Dir, attr, None), b.free("n"));
            b.put(at, n);
            let at = b.within(n, "x");
            let x = b.file(b"x");
            b.put(at, x);
            let text = NewContent::Symlink(b"a".to_vec());
            let (s, at) = (b.make(text, AttrRequest::default(), None), b.free("s"));
            b.put(at, s);
        },
        check: |_| {},
    };
    for (mode, text) in [(0o711, "a"), (0o750, "a"), (0o711, "theirs")] {
        let ready = Ready::of(&scene);
        for (n, object) in (1..).zip(&ready.mapping.objects) {
            if let Object::New { staged, .. } = object {
                let staged = ready.world.path(".steadfast/staged").join(staged);
                fs::rename(staged, ready.world.lost(n)).unwrap();
            }
        }
        let (n, s) = (ready.world.path("n"), ready.world.path("s"));
        fs::create_dir(&n).unwrap();
        fs::set_permissions(&n, Permissions::from_mode(mode)).unwrap();
        symlink(text, &s).unwrap();
        let outcome = ready.run(Mode::Again).unwrap();
        let is_ours = (mode == 0o711, text == "a");
        let found = |path: &[u8]| outcome.conflicts.iter().any(|it| it.path == path);
        assert_eq!((!found(b"n"), !found(b"s")), is_ours);
        assert_eq!(n.join("x").exists(), is_ours.0);
        assert_eq!(fs::metadata(&n).unwrap().mode() & 0o777, mode);
        assert_eq!(fs::read_link(&s).unwrap().to_str(), Some(text));
    }
}

/// Somebody puts a file, or a symlink to one, in the place of a file that is being changed, behind whichever
/// call. Theirs stays as it is.
#[test]
fn what_takes_the_place_of_what_is_changed_is_not_changed() {
    let scene = Scene {
        name: "change in place",
        prepare: |w| {
            w.write("f", &[1; 1300]);
            w.write("other", b"old");
        },
        draft: |b| {
            let (f, _) = b.old("f");
            let text = Source::Bytes([9; 1700].into());
            b.change(f, DraftSet::Content(text));
            let attr = AttrRequest {
                mode: Some(0o640),
                mtime: Some((1000, 0)),
                xattrs: vec![(b"user.ours".to_vec(), Some(b"ours".to_vec()))],
                ..AttrRequest::default()
            };
            b.change(f, DraftSet::Attributes(attr));
        },
        check: |_| {},
    };
    let theirs = UNIX_EPOCH + Duration::from_secs(5000);
    for mode in [Mode::First, Mode::Again] {
        for link in [false, true] {
            for at in 1.. {
                let ready = Ready::of(&scene);
                let (f, victim) = (ready.world.path("f"), ready.world.path("victim"));
                fs::write(&victim, b"theirs").unwrap();
                fs::set_permissions(&victim, Permissions::from_mode(0o604)).unwrap();
                let file = File::options().write(true).open(&victim).unwrap();
                file.set_times(FileTimes::new().set_modified(theirs))
                    .unwrap();
                let before = fs::metadata(&victim).unwrap();
                let put = {
                    let (f, other) = (f.clone(), ready.world.path("other"));
                    let victim = victim.clone();
                    let mut calls = 0;
                    move |_: &'static str, _| {
                        calls += 1;
                        if calls != at {
                            return;
                        }
                        fs::remove_file(&other).unwrap();
                        match link {
                            true => symlink("victim", &other).unwrap(),
                            false => fs::hard_link(&victim, &other).unwrap(),
                        }
                        fs::rename(&other, &f).unwrap();
                    }
                };
                let what = format!("{mode:?} {link} behind call {at}");
                let done = hook::observe(put, || ready.run(mode));
                done.unwrap_or_else(|e| panic!("{what}: {e}"));
                if ready.world.path("other").symlink_metadata().is_ok() {
                    break;
                }
                let now = fs::metadata(&victim).unwrap();
                assert_eq!(fs::read(&victim).unwrap(), b"theirs", "{what}");
                assert_eq!(now.mode(), before.mode(), "{what}");
                assert_eq!(now.mtime(), before.mtime(), "{what}");
                let mut value = [0; 8];
                let has = rustix::fs::getxattr(&victim, "user.ours", &mut value);
                assert!(has.is_err(), "{what}");
            }
        }
    }
}

/// An attribute with neither of the two values that are recorded is somebody else's: it stays, and is told.
#[test]
fn an_attribute_that_somebody_else_has_set_stays() {
    type Case = (Scene, fn(&Path), fn(&Path) -> String);
    let scene = |name, draft| Scene {
        name,
        prepare: |w| w.write("f", b"old"),
        draft,
        check: |_| {},
    };
    fn change(b: &mut Builder<'_>, attr: AttrRequest) {
        let (f, _) = b.old("f");
        b.change(f, DraftSet::Attributes(attr));
    }
    let mut cases: Vec<Case> = vec![
        (
            scene("mode", |b| {
                let mode = Some(0o711);
                change(
                    b,
                    AttrRequest {
                        mode,
                        ..AttrRequest::default()
                    },
                );
            }),
            |f| fs::set_permissions(f, Permissions::from_mode(0o604)).unwrap(),
            |f| format!("{:o}", fs::metadata(f).unwrap().mode()),
        ),
        (
            scene("time", |b| {
                let mtime = Some((1000, 0));
                change(
                    b,
                    AttrRequest {
                        mtime,
                        ..AttrRequest::default()
                    },
                );
            }),
            |f| {
                let time = UNIX_EPOCH + Duration::from_secs(5000);
                let file = File::options().write(true).open(f).unwrap();
                file.set_times(FileTimes::new().set_modified(time)).unwrap();
            },
            |f| fs::metadata(f).unwrap().mtime().to_string(),
        ),
        (
            scene("extended attribute", |b| {
                let xattrs = vec![(b"user.x".to_vec(), Some(b"ours".to_vec()))];
                change(
                    b,
                    AttrRequest {
                        xattrs,
                        ..AttrRequest::default()
                    },
                );
            }),
            |f| rustix::fs::setxattr(f, "user.x", b"their", XattrFlags::empty()).unwrap(),
            |f| {
                let mut value = [0; 8];
                let n = rustix::fs::getxattr(f, "user.x", &mut value).unwrap();
                format!("{:?}", &value[..n])
            },
        ),
    ];
    if rustix::process::geteuid().is_root() {
        cases.push((
            scene("owner", |b| {
                let gid = Some(1);
                change(
                    b,
                    AttrRequest {
                        gid,
                        ..AttrRequest::default()
                    },
                );
            }),
            |f| chown(f, Some(2), Some(2)).unwrap(),
            |f| {
                let meta = fs::metadata(f).unwrap();
                format!("{}:{}", meta.uid(), meta.gid())
            },
        ));
    } else {
        eprintln!(
            "SKIPPED an_attribute_that_somebody_else_has_set_stays: another owner needs root"
        );
    }
    for (scene, theirs, look) in cases {
        for mode in [Mode::First, Mode::Again] {
            let ready = Ready::of(&scene);
            let f = ready.world.path("f");
            theirs(&f);
            let before = look(&f);
            let outcome = ready.run(mode).unwrap();
            assert_eq!(outcome.conflicts.len(), 1, "{}, {mode:?}", scene.name);
            assert_eq!(look(&f), before, "{}, {mode:?}", scene.name);
        }
    }
}
