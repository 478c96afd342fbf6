//! Who may read and write the new file, at the end and on the way.

use crate::common;
use crate::support::{
    NOBODY, as_nobody, chmod, is_root, mode, names, read, refused, replacing, skipped, temporaries,
};
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use steadfast::publish::{FileOptions, Note, Preserve, Staging};
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::sys::{self, Errno, XattrFlags};
use steadfast::{ErrorKind, Root};

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";

/// An access control list as the kernel takes it: owner, one user, group, mask, others.
fn acl(owner: u16, user: u16, group: u16, mask: u16, others: u16) -> Vec<u8> {
    let none = u32::MAX;
    let entries = [
        (0x01, owner, none),
        (0x02, user, 12345),
        (0x04, group, none),
        (0x10, mask, none),
        (0x20, others, none),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(bits));
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

/// Gives a file or directory a list; `false` where there are none.
fn set_acl(test: &str, at: &Path, name: &CStr, list: &[u8]) -> bool {
    let file = File::open(at).unwrap();
    match sys::fsetxattr(&file, name, list, XattrFlags::empty()) {
        Ok(()) => true,
        Err(Errno::OPNOTSUPP) => {
            skipped(test, "no access control lists on this file system");
            false
        }
        Err(e) => panic!("{e}"),
    }
}

fn get_acl(at: &Path) -> Option<Vec<u8>> {
    sys::fgetxattr(File::open(at).unwrap(), ACCESS).unwrap_or(None)
}

/// chown(2) clears set-user-id: where the mode is set before the owner, 4755 becomes 755.
#[test]
fn set_user_id_is_kept() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    for bits in [0o4755, 0o2755, 0o6711, 0o4700] {
        if is_root() {
            chown(&f, Some(1234), Some(2345)).unwrap();
        }
        chmod(&f, bits);
        for options in replacing(&root, "f") {
            options.write(&root, "f", "new").unwrap();
            assert_eq!(mode(&f), bits, "{bits:o}");
        }
        if is_root() {
            let meta = fs::metadata(&f).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 2345), "the owner is kept");
        }
    }
}

/// Stops the operation at every call with its temporary still there, and looks at that.
fn look_on_the_way(
    dir: &Path,
    options: &FileOptions,
    before: impl Fn(&Path),
    look: impl Fn(&Path, &str),
) {
    let root = Root::open(dir).unwrap();
    let mut looks = 0;
    for at in 1.. {
        before(&dir.join("f"));
        let action = Action::Fail(Errno::IO);
        let (_, calls) = hook::scope(Some(Plan { at, action }), || {
            // The temporary cannot be removed.
            hook::deny(&[("unlinkat", Errno::IO)], || {
                options.write(&root, "f", "secret")
            })
        });
        let Some(call) = calls.get(at as usize - 1) else {
            break;
        };
        for name in temporaries(dir) {
            look(&dir.join(&name), &format!("call {at}, {call}"));
            fs::remove_file(dir.join(&name)).unwrap();
            looks += 1;
        }
    }
    assert!(looks > 1, "there was something to look at: {looks}");
}

/// Elsewhere the new content lies in a file that others may read, until its mode is set.
#[test]
fn a_private_file_is_private_on_the_way() {
    for bits in [0o600, 0o640, 0o400, 0o604] {
        for staging in [Staging::Beside, Staging::Unnamed] {
            let tmp = common::dir();
            fs::write(tmp.path().join("f"), "old").unwrap();
            chmod(&tmp.path().join("f"), bits);
            let options = FileOptions::new().staging(staging);
            look_on_the_way(
                tmp.path(),
                &options,
                |f| chmod(f, bits),
                |at, context| {
                    assert_eq!(mode(at) & !bits & 0o077, 0, "{context}: {:o}", mode(at));
                },
            );
            assert_eq!(mode(&tmp.path().join("f")), bits);
        }
    }
}

/// The mode's group bits are the mask where there is a list; taken for the group's right, they widen it.
#[test]
fn the_mask_does_not_become_the_groups_right() {
    let test = "the_mask_does_not_become_the_groups_right";
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    let list = acl(6, 6, 4, 6, 0);
    if !set_acl(test, &f, ACCESS, &list) {
        return;
    }
    assert_eq!(mode(&f), 0o660, "the mask shows as the group's right");
    for options in replacing(&root, "f") {
        options.write(&root, "f", "new").unwrap();
        assert_eq!(get_acl(&f), Some(list.clone()));
        assert_eq!(mode(&f), 0o660);
    }
    let listed = |f: &Path| assert!(set_acl(test, f, ACCESS, &list));
    look_on_the_way(tmp.path(), &FileOptions::new(), listed, |at, context| {
        // Before the list is there the group has what is its own.
        let ok = get_acl(at) == Some(list.clone()) || mode(at) & 0o077 & !0o040 == 0;
        assert!(ok, "{context}: {:o}", mode(at));
    });
    listed(&f);
    // Without the list the group keeps its own right, and gets no other.
    let options = FileOptions::new().preserve(Preserve::default().xattrs(false));
    let receipt = options.write(&root, "f", "new").unwrap();
    assert_eq!((mode(&f), get_acl(&f)), (0o640, None));
    assert!(receipt.notes().contains(&Note::AclNotKept));
}

/// A directory's default list gives rights to every new file in it, also to one that replaces a private one.
#[test]
fn a_default_list_does_not_widen_a_replaced_file() {
    let test = "a_default_list_does_not_widen_a_replaced_file";
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    chmod(&f, 0o640);
    if !set_acl(test, tmp.path(), DEFAULT, &acl(7, 7, 7, 7, 7)) {
        return;
    }
    for options in replacing(&root, "f") {
        options.write(&root, "f", "new").unwrap();
        assert_eq!((mode(&f), get_acl(&f)), (0o640, None));
    }
    let private = |f: &Path| chmod(f, 0o640);
    look_on_the_way(tmp.path(), &FileOptions::new(), private, |at, context| {
        // Under a list these bits are the mask: nobody but the owner, and the group in the end.
        assert_eq!(mode(at) & 0o037, 0, "{context}: {:o}", mode(at));
        let group_may = mode(at) & 0o040 != 0;
        assert!(
            !group_may || get_acl(at).is_none(),
            "{context}: the user of the list may read"
        );
    });
    // A new file gets what every new file gets there.
    fs::write(tmp.path().join("plain"), "").unwrap();
    FileOptions::new().write(&root, "new", "").unwrap();
    let of = |name: &str| {
        (
            mode(&tmp.path().join(name)),
            get_acl(&tmp.path().join(name)),
        )
    };
    assert_eq!(of("new"), of("plain"));
    assert!(of("new").1.is_some());
}

/// Who may not give a file away gets a file of their own: without the old owner's set-user-id, and without
/// the old group's rights.
#[test]
fn an_owner_that_cannot_be_kept_takes_set_user_id_along() {
    let test = "an_owner_that_cannot_be_kept_takes_set_user_id_along";
    if !is_root() {
        return skipped(test, "needs root");
    }
    let prepare = |dir: &Path| {
        fs::write(dir.join("f"), "old").unwrap();
        chmod(&dir.join("f"), 0o6775);
    };
    as_nobody(test, prepare, |dir| {
        let root = Root::open(dir).unwrap();
        let strict = FileOptions::new().preserve(Preserve::default().required(true));
        refused(strict.write(&root, "f", "new"), ErrorKind::PermissionDenied);
        assert_eq!(
            (mode(&dir.join("f")), names(dir)),
            (0o6775, vec!["f".to_owned()])
        );
        let receipt = FileOptions::new().write(&root, "f", "new").unwrap();
        let meta = fs::metadata(dir.join("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY));
        assert_eq!(mode(&dir.join("f")), 0o755);
        for note in [Note::OwnerNotKept, Note::GroupNotKept] {
            assert!(receipt.notes().contains(&note), "{receipt:?}");
        }
    });
}

#[test]
fn a_read_only_file_is_replaced_and_stays_read_only() {
    as_nobody(
        "a_read_only_file_is_replaced_and_stays_read_only",
        |_| {},
        |dir| {
            let root = Root::open(dir).unwrap();
            for bits in [0o444, 0o000, 0o200] {
                FileOptions::new().write(&root, "f", "old").unwrap();
                chmod(&dir.join("f"), bits);
                FileOptions::new().write(&root, "f", "new").unwrap();
                assert_eq!(mode(&dir.join("f")), bits);
                fs::remove_file(dir.join("f")).unwrap();
            }
        },
    );
}

#[test]
fn further_names_of_the_file_are_told() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::write(at("f"), "old").unwrap();
    fs::hard_link(at("f"), at("g")).unwrap();
    let receipt = FileOptions::new().write(&root, "f", "new").unwrap();
    assert!(receipt.notes().contains(&Note::LinksCut(1)), "{receipt:?}");
    assert_eq!(
        (read(&at("f")), read(&at("g"))),
        ("new".to_owned(), "old".to_owned())
    );
}

/// What vouches for the old content (IMA's digest) would be wrong for the new one; a label is kept.
#[test]
fn what_vouches_for_the_old_content_is_not_kept() {
    let test = "what_vouches_for_the_old_content_is_not_kept";
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let f = tmp.path().join("f");
    fs::write(&f, "old").unwrap();
    let file = File::open(&f).unwrap();
    // A SHA-1 digest by its form.
    let digest = [&[1][..], &[7; 20]].concat();
    for (name, value) in [
        (c"security.ima", &digest[..]),
        (c"security.steadfast-test", b"kept"),
    ] {
        match sys::fsetxattr(&file, name, value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(e) => return skipped(test, format!("{name:?} cannot be set: {e}")),
        }
    }
    FileOptions::new().write(&root, "f", "new").unwrap();
    let new = File::open(&f).unwrap();
    let get = |name| sys::fgetxattr(&new, name).unwrap();
    assert_eq!(get(c"security.steadfast-test"), Some(b"kept".to_vec()));
    assert_eq!(get(c"security.ima"), None);
    assert_eq!(read(&f), "new");
}
