//! Owners, modes, access lists and attributes of copies, where they cannot all be kept.

use crate::common;
use crate::support::{
    NOBODY, acl, as_nobody, chmod, give_away, is_root, list, mode_of, name, set_xattr, skipped,
    xattr,
};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use steadfast::sys::Errno;
use steadfast::sys::hook::deny;
use steadfast::tree::{CopyOptions, Keep, Preserve, copy};
use steadfast::{DiskState, ErrorKind, Root};

fn preserve(owner: Keep, xattrs: Keep) -> CopyOptions {
    let mut preserve = Preserve::default();
    preserve.owner = owner;
    preserve.xattrs = xattrs;
    CopyOptions::new().preserve(preserve)
}

const ACL: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

#[test]
fn rights_meant_for_others_do_not_fall_to_us() {
    if !is_root() {
        skipped("rights_meant_for_others", "needs root");
        return;
    }
    let dir = common::dir();
    chmod(dir.path(), 0o755);
    fs::create_dir(dir.path().join("t")).unwrap();
    fs::create_dir(dir.path().join("nobodys")).unwrap();
    give_away(&dir.path().join("nobodys"));
    for (file, mode) in [
        ("suid", 0o6775),
        ("group", 0o664),
        ("plain", 0o644),
        ("odd", 0o447),
    ] {
        fs::write(dir.path().join("t").join(file), "x").unwrap();
        chmod(&dir.path().join("t").join(file), mode);
    }
    let root = Root::open(dir.path()).unwrap();
    let done = as_nobody(|| root.copy_tree("t", &root, "nobodys/t", &CopyOptions::new())).unwrap();
    assert_eq!(done.owners_missed, 5);
    let to = dir.path().join("nobodys/t");
    let modes: Vec<_> = ["suid", "group", "plain", "odd"]
        .map(|f| mode_of(&to.join(f)))
        .to_vec();
    assert_eq!(modes, [0o755, 0o644, 0o644, 0o447]);
    assert_eq!(to.join("suid").metadata().unwrap().uid(), NOBODY);

    let required = preserve(Keep::Required, Keep::BestEffort);
    let error = as_nobody(|| root.copy_tree("t", &root, "nobodys/u", &required)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.system_call(), Some("fchown"));
    assert_eq!(error.disk_state(), DiskState::Unchanged);
    assert_eq!(list(&dir.path().join("nobodys")), ["t"]);

    // As root the owner is kept, or by wish not.
    let own = preserve(Keep::No, Keep::BestEffort);
    root.copy_tree("nobodys/t", &root, "mine", &own).unwrap();
    let meta = dir.path().join("mine/suid").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
    root.copy_tree("nobodys/t", &root, "theirs", &CopyOptions::new())
        .unwrap();
    let meta = dir.path().join("theirs/suid").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY));
}

#[test]
fn set_user_id_survives_the_change_of_owner() {
    if !is_root() {
        skipped("set_user_id_survives", "needs root");
        return;
    }
    let dir = common::dir();
    fs::write(dir.path().join("f"), "x").unwrap();
    std::os::unix::fs::chown(dir.path().join("f"), Some(1), Some(2)).unwrap();
    chmod(&dir.path().join("f"), 0o6755);
    let root = Root::open(dir.path()).unwrap();
    copy(&root, &name("f"), &root, &name("g"), &CopyOptions::new()).unwrap();
    let meta = dir.path().join("g").metadata().unwrap();
    assert_eq!(
        (meta.uid(), meta.gid(), meta.mode() & 0o7777),
        (1, 2, 0o6755)
    );
}

#[test]
fn nothing_is_inherited_from_the_targets_directory() {
    let dir = common::dir();
    fs::create_dir_all(dir.path().join("t/sub")).unwrap();
    fs::create_dir(dir.path().join("to")).unwrap();
    fs::write(dir.path().join("t/sub/f"), "x").unwrap();
    fs::write(dir.path().join("single"), "x").unwrap();
    chmod(&dir.path().join("t/sub/f"), 0o664);
    chmod(&dir.path().join("single"), 0o664);
    // Everybody named 7 may do everything in what is made there.
    let list = acl(7, (7, 7), 7, 7, 0);
    if !set_xattr(&dir.path().join("to"), DEFAULT, &list) {
        skipped("nothing_is_inherited", "no access lists here");
        return;
    }
    chmod(&dir.path().join("to"), 0o2777);
    let root = Root::open(dir.path()).unwrap();
    for keep in [Keep::BestEffort, Keep::No] {
        let options = preserve(keep, keep);
        for (from, to) in [("t", "to/t"), ("single", "to/single")] {
            root.copy_tree(from, &root, to, &options).unwrap();
            root.remove_tree(
                "copy",
                &steadfast::tree::RemoveOptions::new().missing_ok(true),
            )
            .unwrap();
            fs::rename(dir.path().join(to), dir.path().join("copy")).unwrap();
            let paths: &[&str] = if from == "t" {
                &["", "sub", "sub/f"]
            } else {
                &[""]
            };
            for path in paths {
                // Not joined when empty, which would ask for a directory.
                let join = |top: &str| {
                    let top = dir.path().join(top);
                    if path.is_empty() { top } else { top.join(path) }
                };
                let copy = join("copy");
                assert_eq!(
                    (xattr(&copy, ACL), xattr(&copy, DEFAULT)),
                    (None, None),
                    "{path}"
                );
                assert_eq!(mode_of(&copy), mode_of(&join(from)), "{path}");
            }
        }
    }
}

#[test]
fn the_mask_of_an_access_list_does_not_become_the_groups_right() {
    let dir = common::dir();
    let from = dir.path().join("f");
    fs::write(&from, "x").unwrap();
    // The group may read, the mask (for user 7) allows writing.
    let list = acl(6, (7, 6), 4, 6, 0);
    if !set_xattr(&from, ACL, &list) {
        skipped("the_mask_of_an_access_list", "no access lists here");
        return;
    }
    assert_eq!(mode_of(&from), 0o660);
    let root = Root::open(dir.path()).unwrap();
    let run = |to: &str, options: &CopyOptions| copy(&root, &name("f"), &root, &name(to), options);
    run("kept", &CopyOptions::new()).unwrap();
    assert_eq!(xattr(&dir.path().join("kept"), ACL), Some(list));
    assert_eq!(mode_of(&dir.path().join("kept")), 0o660);
    // Not asked for, or refused.
    run("plain", &preserve(Keep::BestEffort, Keep::No)).unwrap();
    assert_eq!(mode_of(&dir.path().join("plain")), 0o640);
    let refused = [("fsetxattr", Errno::OPNOTSUPP)];
    let done = deny(&refused, || run("refused", &CopyOptions::new())).unwrap();
    assert_eq!(done.xattrs_missed, 1);
    assert_eq!(mode_of(&dir.path().join("refused")), 0o640);
}

#[test]
fn attributes_as_far_as_possible_or_not_at_all() {
    let dir = common::dir();
    let from = dir.path().join("f");
    fs::write(&from, "x").unwrap();
    if !set_xattr(&from, "user.a", b"1") {
        skipped("attributes_as_far_as_possible", "no user attributes here");
        return;
    }
    // Not writable for its owner in the end: attributes must come before that.
    set_xattr(&from, "user.b", &[7; 2000]);
    give_away(&from);
    chmod(&from, 0o444);
    chmod(dir.path(), 0o777);
    let root = Root::open(dir.path()).unwrap();
    let run = |to: &str, options: &CopyOptions| copy(&root, &name("f"), &root, &name(to), options);
    as_nobody(|| run("kept", &preserve(Keep::Required, Keep::Required))).unwrap();
    assert_eq!(
        xattr(&dir.path().join("kept"), "user.a"),
        Some(b"1".to_vec())
    );
    assert_eq!(
        xattr(&dir.path().join("kept"), "user.b"),
        Some(vec![7; 2000])
    );
    run("none", &preserve(Keep::BestEffort, Keep::No)).unwrap();
    assert_eq!(xattr(&dir.path().join("none"), "user.a"), None);
    for errno in [Errno::OPNOTSUPP, Errno::NOSPC, Errno::PERM, Errno::TOOBIG] {
        let refused = [("fsetxattr", errno)];
        let done = deny(&refused, || run("some", &CopyOptions::new())).unwrap();
        assert_eq!(done.xattrs_missed, 2);
        fs::remove_file(dir.path().join("some")).unwrap();
        let error = deny(&refused, || run("all", &preserve(Keep::No, Keep::Required))).unwrap_err();
        assert_eq!(error.errno(), Some(errno));
        assert_eq!(error.disk_state(), DiskState::Unchanged);
    }
    let error = deny(&[("fsetxattr", Errno::IO)], || {
        run("all", &CopyOptions::new())
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(list(dir.path()), ["f", "kept", "none"]);
}

#[test]
fn old_kernels_change_special_files_another_way() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    root.mkfifo("p", rustix::fs::Mode::RUSR).unwrap();
    chmod(&dir.path().join("p"), 0o615);
    let options = CopyOptions::new().special(steadfast::tree::Special::Recreate);
    let old = [("fchmodat2", Errno::NOSYS)];
    deny(&old, || {
        copy(&root, &name("p"), &root, &name("q"), &options)
    })
    .unwrap();
    assert_eq!(mode_of(&dir.path().join("q")), 0o615);
    let none = [("fchmodat2", Errno::NOSYS), ("fchmodat", Errno::OPNOTSUPP)];
    let error = deny(&none, || {
        copy(&root, &name("p"), &root, &name("r"), &options)
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.path(), Some(Path::new("p")));
    assert_eq!(list(dir.path()), ["p", "q"]);
}
