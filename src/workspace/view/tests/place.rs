//! The plainest way to bring about what a draft says: everything that moves is put aside, then into place.

use super::by_hand::{bytes, set_times};
use crate::workspace::draft::{Draft, DraftObject, DraftSet, NewContent, Piece};
use crate::workspace::identity::Ident;
use crate::workspace::mapping::{Before, Place};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, renameat};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn through(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(super) fn place(draft: &Draft, top: &Path, hold: &Path) {
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, top, handle, Mode::empty()).unwrap();
    let ident = |fd: &OwnedFd| Ident::of(&crate::sys::statx(fd, c"", AtFlags::EMPTY_PATH).unwrap());
    // Everything is found by its path before anything moves.
    let mut places: Vec<Option<OwnedFd>> = Vec::new();
    for place in &draft.places {
        places.push(match place {
            Place::Existing {
                path, ident: want, ..
            } => {
                let path = if path.is_empty() { &b"."[..] } else { path };
                let fd = openat(&top, path, handle | OFlags::DIRECTORY, Mode::empty()).unwrap();
                assert!(ident(&fd).is_unchanged(want));
                Some(fd)
            }
            _ => None,
        });
    }
    let mut things: Vec<Option<OwnedFd>> = Vec::new();
    for object in &draft.objects {
        things.push(match object {
            DraftObject::Existing { ident: want, slot } => {
                let slot = &draft.slots[*slot];
                let dir = places[slot.place].as_ref().unwrap();
                let fd = openat(dir, slot.name.as_c_str(), handle, Mode::empty()).unwrap();
                assert!(ident(&fd).is_unchanged(want));
                Some(fd)
            }
            DraftObject::New { .. } => None,
        });
    }
    check(draft);
    let staged = |ix: usize| hold.join(format!("n{ix}"));
    for (ix, object) in draft.objects.iter().enumerate() {
        let DraftObject::New {
            content,
            attr,
            like,
        } = object
        else {
            continue;
        };
        match content {
            NewContent::File(pieces) => {
                let mut content = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Given(source) => content.extend(bytes(source)),
                        Piece::Existing(object) => {
                            let fd = things[*object].as_ref().unwrap();
                            content.extend(fs::read(through(fd)).unwrap());
                        }
                    }
                }
                fs::write(staged(ix), content).unwrap();
            }
            NewContent::Dir => fs::create_dir(staged(ix)).unwrap(),
            NewContent::Symlink(text) => {
                let text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(text);
                symlink(text, staged(ix)).unwrap();
            }
            NewContent::Link(_) => continue,
        }
        let like = like.map(|like| things[like].as_ref().unwrap());
        let like = like.map(|fd| fs::metadata(through(fd)).unwrap().mode() & 0o7777);
        if !matches!(content, NewContent::Symlink(_)) {
            let mode = attr.mode.or(like).unwrap_or(0o644);
            fs::set_permissions(staged(ix), PermissionsExt::from_mode(mode)).unwrap();
        }
        let fd = openat(CWD, staged(ix), handle, Mode::empty()).unwrap();
        set_times(fd.as_fd(), attr);
    }
    for (ix, object) in draft.objects.iter().enumerate() {
        if let DraftObject::New {
            content: NewContent::Link(of),
            ..
        } = object
        {
            match &draft.objects[*of] {
                DraftObject::Existing { slot, .. } => {
                    let slot = &draft.slots[*slot];
                    let dir = places[slot.place].as_ref().unwrap();
                    linkat(dir, slot.name.as_c_str(), CWD, staged(ix), AtFlags::empty())
                }
                DraftObject::New { .. } => {
                    linkat(CWD, staged(*of), CWD, staged(ix), AtFlags::empty())
                }
            }
            .unwrap();
        }
    }
    for (place, fd) in draft.places.iter().zip(&mut places) {
        if let Place::New(object) = place {
            *fd = Some(openat(CWD, staged(*object), handle, Mode::empty()).unwrap());
        }
    }
    let dir_of = |slot: usize| places[draft.slots[slot].place].as_ref().unwrap();
    for (ix, slot) in draft.slots.iter().enumerate() {
        if let Before::Object(object) = slot.before
            && slot.after != Some(object)
        {
            renameat(dir_of(ix), slot.name.as_c_str(), CWD, staged(object)).unwrap();
        }
    }
    for (ix, slot) in draft.slots.iter().enumerate() {
        if let Some(object) = slot.after
            && slot.before != Before::Object(object)
        {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            let name = slot.name.as_c_str();
            rustix::fs::renameat_with(CWD, staged(object), dir_of(ix), name, flags).unwrap();
        }
    }
    for change in &draft.changes {
        let fd = things[change.object].as_ref().unwrap();
        match &change.what {
            DraftSet::Content(source) => fs::write(through(fd), bytes(source)).unwrap(),
            DraftSet::Attributes(attr) => {
                if let Some(mode) = attr.mode {
                    fs::set_permissions(through(fd), PermissionsExt::from_mode(mode)).unwrap();
                }
                set_times(fd.as_fd(), attr);
            }
        }
    }
}

/// What holds for every draft: each name once, each object at one name at most, before and after.
fn check(draft: &Draft) {
    let mut names = HashSet::new();
    let (mut before, mut after) = (HashSet::new(), HashSet::new());
    for (ix, slot) in draft.slots.iter().enumerate() {
        assert!(names.insert((slot.place, &slot.name)));
        if let Before::Object(object) = slot.before {
            assert!(before.insert(object));
            let there = &draft.objects[object];
            assert!(matches!(there, DraftObject::Existing { slot, .. } if *slot == ix));
        }
        if let Some(object) = slot.after {
            assert!(after.insert(object));
        }
    }
    // A directory that moves is found by its object.
    for slot in &draft.slots {
        let (Before::Object(moved), Place::Existing { path, .. }) =
            (slot.before, &draft.places[slot.place])
        else {
            continue;
        };
        let from = crate::workspace::view::join(path, &slot.name);
        for place in &draft.places {
            if let Place::Existing { path, object, .. } = place
                && *path == from
                && slot.after != Some(moved)
            {
                assert_eq!(*object, Some(moved));
            }
        }
    }
    for (ix, object) in draft.objects.iter().enumerate() {
        match object {
            DraftObject::Existing { .. } => assert!(before.contains(&ix)),
            DraftObject::New { .. } => assert!(after.contains(&ix), "made for nothing"),
        }
    }
    for place in &draft.places {
        if let Place::Existing {
            object: Some(object),
            ..
        } = place
        {
            let moves = |slot: &crate::workspace::mapping::Slot| {
                slot.before == Before::Object(*object) && slot.after != Some(*object)
            };
            assert!(draft.slots.iter().any(moves));
        }
    }
}
