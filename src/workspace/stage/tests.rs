//! Tests of staging.

use super::{Staging, stage};
use crate::sys::hook::{self, Action, Plan};
use crate::sys::{Errno, XattrFlags};
use crate::workspace::draft::{AttrRequest, Draft, DraftSet, NewContent, Piece, Source};
use crate::workspace::mapping::{Body, Object, Set};
use crate::workspace::testbed::{Builder, World};
use crate::{DiskState, ErrorKind};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn draft(world: &World, fill: impl FnOnce(&mut Builder<'_>)) -> Draft {
    let mut builder = world.draft();
    fill(&mut builder);
    builder.draft
}

/// Everything at once.
fn everything(b: &mut Builder<'_>) {
    b.replace("a", b"new a");
    b.create("d/n", &[3; 40_000]);
    let (c, _) = b.old("c");
    b.change(c, DraftSet::Content(Source::Bytes(b"in place"[..].into())));
    let attr = AttrRequest {
        mode: Some(0o640),
        xattrs: vec![(b"user.x".to_vec(), Some(b"y".to_vec()))],
        ..AttrRequest::default()
    };
    let (file, sf) = b.old("d/f");
    b.change(file, DraftSet::Attributes(attr.clone()));
    let pieces = vec![
        Piece::Existing(file),
        Piece::Given(Source::Bytes(b"+"[..].into())),
    ];
    let appended = b.make(NewContent::File(pieces), attr, Some(file));
    b.put(sf, appended);
    let dir = b.dir();
    let at = b.free("dir");
    b.put(at, dir);
    let (m, sm) = b.old("m");
    b.put(sm, None);
    let at = b.within(dir, "m");
    b.put(at, m);
    let link = b.make(NewContent::Link(c), AttrRequest::default(), None);
    let at = b.free("c2");
    b.put(at, link);
    let text = NewContent::Symlink(b"x".to_vec());
    let symlink = b.make(text, AttrRequest::default(), None);
    let at = b.free("s");
    b.put(at, symlink);
}

fn prepared() -> World {
    let world = World::new();
    for name in ["a", "c", "d/f", "m"] {
        world.write(name, name.as_bytes());
    }
    world
}

fn assert_clean(world: &World, before: &impl PartialEq<Shot>, what: &str) {
    assert!(*before == world.shot(), "{what}: something was changed");
    for folder in ["staged", "kept", "retired"] {
        assert_eq!(world.private(folder), [""; 0], "{what}: {folder}");
    }
}

type Shot = std::collections::BTreeMap<String, String>;

#[test]
fn an_error_anywhere_changes_nothing_and_leaves_nothing() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::PERM] {
        for at in 1.. {
            let world = prepared();
            let before = world.shot();
            let wanted = draft(&world, everything);
            let plan = Some(Plan {
                at,
                action: Action::Fail(errno),
            });
            let what = format!("{errno:?} at {at}");
            let (done, calls) = hook::scope(plan, || {
                world.with(|ctx| stage(ctx, wanted).map(Staging::committed))
            });
            if let Err(e) = &done {
                assert_eq!(e.disk_state(), DiskState::Unchanged, "{what}");
                assert_clean(&world, &before, &what);
            } else if (calls.len() as u64) < at {
                break;
            }
        }
    }
}

#[test]
fn what_is_not_committed_is_removed() {
    let world = prepared();
    let before = world.shot();
    let wanted = draft(&world, everything);
    world.with(|ctx| {
        let staging = stage(ctx, wanted).unwrap();
        assert!(world.private("staged").len() > 4);
        assert_eq!(world.private("kept").len(), 1);
        drop(staging);
    });
    assert_clean(&world, &before, "dropped");
}

fn syncs(world: &World, wanted: Draft) -> Vec<&'static str> {
    let (done, calls) = hook::scope(None, || {
        world.with(|ctx| stage(ctx, wanted).map(Staging::committed))
    });
    done.unwrap();
    let is_sync = |call: &&'static str| call.contains("sync");
    calls.into_iter().filter(is_sync).collect()
}

#[test]
fn syncs_are_few() {
    let many = |n: usize, len: usize| {
        let world = World::new();
        let wanted = draft(&world, |b| {
            for i in 0..n {
                b.create(&format!("f{i}"), &vec![5; len]);
            }
        });
        syncs(&world, wanted)
    };
    assert_eq!(many(100, 100), [""; 0]);
    assert_eq!(many(100, 100_000), ["syncfs"]);
    assert_eq!(many(2, 100_000), ["fsync"; 3]);
    // Beyond what a record takes, small ones are synced as well.
    assert_eq!(many(40, 16 << 10), ["syncfs"]);
}

#[test]
fn a_new_file_is_like_the_one_whose_place_it_takes() {
    let world = prepared();
    let path = world.path("a");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    let file = fs::File::open(&path).unwrap();
    let has = crate::sys::fsetxattr(&file, c"user.x", b"y", XattrFlags::empty()).is_ok();
    let wanted = draft(&world, |b| {
        b.replace("a", b"new");
        b.create("n", b"plain");
    });
    let mapping = world.with(|ctx| stage(ctx, wanted).unwrap().committed());
    let of = |at: usize| match &mapping.objects[at] {
        Object::New { attr, staged, .. } => {
            let name = staged.as_os_str().to_str().unwrap().to_owned();
            let meta = fs::metadata(world.path(".steadfast/staged").join(name)).unwrap();
            (attr.clone(), meta)
        }
        other => panic!("{other:?}"),
    };
    let (attr, meta) = of(1);
    assert_eq!((attr.mode, meta.mode() & 0o7777), (0o4751, 0o4751));
    assert_eq!(attr.mtime.0, meta.mtime());
    let xattrs: Vec<_> = attr.xattrs.iter().filter(|x| x.0 == b"user.x").collect();
    assert_eq!(xattrs.len(), usize::from(has));
    // What the umask leaves, as of any new file.
    fs::write(world.path("plain"), b"").unwrap();
    let plain = fs::metadata(world.path("plain")).unwrap().mode() & 0o7777;
    let (attr, meta) = of(2);
    assert_eq!((attr.mode, meta.mode() & 0o7777), (plain, plain));
}

#[test]
fn a_directory_hands_down_its_group() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = prepared();
    let dir = world.path("d");
    std::os::unix::fs::chown(&dir, None, Some(77)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2775)).unwrap();
    let wanted = draft(&world, |b| b.create("d/n", b"n"));
    let mapping = world.with(|ctx| stage(ctx, wanted).unwrap().committed());
    assert!(matches!(&mapping.objects[0], Object::New { attr, .. } if attr.gid == 77));
}

#[test]
fn what_the_record_needs_is_there() {
    let world = prepared();
    let wanted = draft(&world, everything);
    let mapping = world.with(|ctx| stage(ctx, wanted).unwrap().committed());
    let body = |wanted: &Body| {
        mapping
            .objects
            .iter()
            .any(|o| matches!(o, Object::New { body, .. } if body == wanted))
    };
    assert!(body(&Body::Inline(b"new a"[..].into())));
    assert!(body(&Body::Inline(b"d/f+"[..].into())));
    assert!(body(&Body::Staged));
    assert!(body(&Body::Dir));
    assert!(body(&Body::Symlink(b"x".to_vec())));
    let content = mapping.changes.iter().find_map(|c| match &c.what {
        Set::Content { before, .. } => Some(before.as_os_str().to_str().unwrap().to_owned()),
        _ => None,
    });
    let copy = world.read(&format!(".steadfast/kept/{}", content.unwrap()));
    assert_eq!(copy, b"c");
}

#[test]
fn what_changed_since_the_draft_is_refused() {
    let world = prepared();
    let wanted = draft(&world, |b| b.replace("a", b"new"));
    fs::write(world.path("a"), b"theirs").unwrap();
    let before = world.shot();
    let error = world.with(|ctx| stage(ctx, wanted).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_clean(&world, &before, "changed");
}

/// Who writes a file has not read it. And for each that is read, the kernel would write an inode.
#[test]
fn what_is_written_in_place_keeps_its_time_of_last_access() {
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77);
    let world = prepared();
    let accessed = |name: &str| fs::metadata(world.path(name)).unwrap().accessed().unwrap();
    for name in ["a", "c"] {
        let file = fs::File::options().write(true).open(world.path(name));
        let times = fs::FileTimes::new().set_accessed(long_ago);
        file.unwrap().set_times(times).unwrap();
    }
    assert_eq!(world.read("a"), b"a");
    if accessed("a") == long_ago {
        let name = "what_is_written_in_place_keeps_its_time_of_last_access";
        crate::workspace::child::skipped(name, "this mount keeps no times of last access");
    }
    let in_place = || {
        draft(&world, |b| {
            let (c, _) = b.old("c");
            b.change(c, DraftSet::Content(Source::Bytes(b"new"[..].into())));
        })
    };
    let staged = |plan| {
        let wanted = in_place();
        hook::scope(plan, || {
            world.with(|ctx| stage(ctx, wanted).map(Staging::committed).map(drop))
        })
    };
    let (done, calls) = staged(None);
    done.unwrap();
    assert_eq!(accessed("c"), long_ago);
    // Of somebody else's file it may not be asked for: then it is opened as any other.
    let opened = (1..).zip(&calls).filter(|(_, call)| **call == "openat");
    let again = opened.filter(|(at, _)| {
        let action = Action::Fail(Errno::PERM);
        let (done, again) = staged(Some(Plan { at: *at, action }));
        done.is_ok() && again.len() == calls.len() + 1
    });
    assert_eq!(again.count(), 1);
}

/// What takes the place of a file that has nothing but mode and owner is made with them, whatever the umask
/// and the folder's default list make of that.
#[test]
fn what_replaces_a_plain_file_has_its_rights_and_no_list() {
    // Everything to everybody, and to one user by name.
    let entry = |tag: u16, id: u32| {
        let rights = 7_u16.to_le_bytes();
        [&tag.to_le_bytes()[..], &rights, &id.to_le_bytes()].concat()
    };
    let all = [
        (1, u32::MAX),
        (2, 77),
        (4, u32::MAX),
        (16, u32::MAX),
        (32, u32::MAX),
    ];
    let entries = all.map(|(tag, id)| entry(tag, id)).concat();
    let list = [&2_u32.to_le_bytes()[..], &entries].concat();
    for handed_down in [false, true] {
        for mode in [0o600, 0o640, 0o644, 0o666, 0o444, 0o4711, 0o000] {
            let world = World::new();
            world.write("a", b"old");
            let wanted = draft(&world, |b| b.replace("a", b"new"));
            let set = |mode| fs::set_permissions(world.path("a"), fs::Permissions::from_mode(mode));
            set(mode).unwrap();
            if handed_down {
                let staged = fs::File::open(world.path(".steadfast/staged")).unwrap();
                let name = "system.posix_acl_default";
                match crate::sys::fsetxattr(&staged, name, &list, XattrFlags::empty()) {
                    Err(Errno::OPNOTSUPP) => continue,
                    done => done.unwrap(),
                }
            }
            let ((mapping, made), calls) = hook::scope(None, || {
                world.with(|ctx| {
                    let staging = stage(ctx, wanted).unwrap();
                    let made = staging.made[0]
                        .name
                        .as_os_str()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    (staging.committed(), made)
                })
            });
            let made = fs::File::open(world.path(&format!(".steadfast/staged/{made}")));
            // Without a right to read it, only root can look.
            if let Ok(made) = &made {
                assert_eq!(made.metadata().unwrap().mode() & 0o7777, mode, "{mode:o}");
                let names = crate::sys::flistxattr(made).unwrap_or_default();
                assert!(
                    !names
                        .iter()
                        .any(|n| n.to_bytes().starts_with(b"system.posix"))
                );
            }
            assert!(matches!(&mapping.objects[1], Object::New { attr, .. } if attr.mode == mode));
            // As it is made, it is right: there is nothing to set.
            let right = [0o600, 0o640, 0o644, 0o444, 0o000].contains(&mode);
            if !handed_down && made.is_ok() {
                assert_eq!(!calls.contains(&"fchmod"), right, "{mode:o}");
            }
        }
    }
}
