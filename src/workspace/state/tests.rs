//! The state folder: made, opened, refused, adopted.

use super::*;
use crate::journal::Record;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::{command, dir, output, skipped, some, spawn};
use crate::workspace::writers::{self, WriterOptions};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::rc::Rc;

fn root(tmp: &tempfile::TempDir) -> Root {
    Root::open(tmp.path()).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root(test: &str) -> bool {
    let yes = rustix::process::geteuid().is_root();
    if !yes {
        skipped(test, "it must be run as root");
    }
    yes
}

/// Nothing is in the folder but what belongs there, readable by its owner alone.
fn assert_whole(top: &Path) {
    let folder = top.join(".steadfast");
    assert_eq!(mode(&folder), 0o700);
    let found: BTreeSet<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let folders = ["logs", "staged", "kept", "retired", "keys", "conflicts"];
    let files = ["format", "claims", "ledger"];
    let all = folders.iter().chain(&files).map(|name| (*name).to_owned());
    assert_eq!(found, all.collect::<BTreeSet<_>>());
    for name in folders {
        assert_eq!(mode(folder.join(name)), 0o700, "{name}");
    }
    for name in files {
        assert_eq!(mode(folder.join(name)), 0o600, "{name}");
    }
    // Nothing is left beside it either.
    let beside = std::fs::read_dir(top)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    assert!(
        beside
            .into_iter()
            .all(|name| !name.to_string_lossy().starts_with(".sf-"))
    );
}

#[test]
fn what_is_made_is_found_again() {
    let tmp = dir();
    let root = root(&tmp);
    let error = State::open(&root, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!tmp.path().join(".steadfast").exists());
    let made = State::open(&root, true).unwrap();
    assert_whole(tmp.path());
    for create in [false, true] {
        let state = State::open(&root, create).unwrap();
        assert_eq!(state.id, made.id);
        assert!(!state.is_copy());
        assert_eq!(state.incarnation(), made.incarnation());
    }
    let other = dir();
    let other = State::open(&Root::open(other.path()).unwrap(), true).unwrap();
    assert_ne!(other.id, made.id);
}

/// What an ordinary open costs.
#[test]
fn opening_takes_few_calls_and_no_sync() {
    let tmp = dir();
    let root = root(&tmp);
    State::open(&root, true).unwrap();
    let (state, calls) = hook::scope(None, || State::open(&root, false));
    state.unwrap();
    assert_eq!(calls.len(), CALLS, "{calls:?}");
    let writes = |call: &&&str| ["fsync", "fdatasync", "pwrite64", "mkdirat"].contains(call);
    assert_eq!(calls.iter().filter(writes).count(), 0, "{calls:?}");
}
const CALLS: usize = 21;

/// The order that a power cut must not be able to change: all is durable before the format has its name, and
/// that is durable before the folder is used.
#[test]
fn the_format_is_last() {
    let tmp = dir();
    let root = root(&tmp);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let to = Rc::clone(&seen);
    let state = hook::observe(
        move |call, synced| to.borrow_mut().push((call, synced.map(|(_, ino)| ino))),
        || State::open(&root, true).unwrap(),
    );
    let seen = seen.borrow();
    let ino = |path: &str| std::fs::metadata(tmp.path().join(path)).unwrap().ino();
    let [top, folder, ledger, format] =
        ["", ".steadfast", ".steadfast/ledger", ".steadfast/format"].map(ino);
    let is_name = |(call, _): &&(&str, Option<u64>)| call.starts_with("rename");
    let last = seen.iter().rposition(|c| is_name(&c)).unwrap();
    let (before, after) = seen.split_at(last);
    let synced =
        |of: &[(&str, Option<u64>)]| -> Vec<u64> { of.iter().filter_map(|c| c.1).collect() };
    assert_eq!(synced(before), [ledger, folder, top, format]);
    assert_eq!(synced(after), [folder, top]);
    // Nothing gets a name in the folder between its sync and that of the format.
    let sync = before.iter().position(|c| c.1 == Some(folder)).unwrap();
    let made = before
        .iter()
        .rposition(|c| c.0 == "mkdirat" || is_name(&c))
        .unwrap();
    assert!(made < sync, "{before:?}");
    // Who finds it so has nothing to do; who finds a name that may not be durable, syncs it.
    state.ledger.settle([0; 16]).unwrap();
    for syncs in [2, 0] {
        let (opened, calls) = hook::scope(None, || State::open(&root, false));
        opened.unwrap();
        assert_eq!(calls.iter().filter(|c| **c == "fsync").count(), syncs);
    }
}

/// A process is killed before and after each call that makes the folder: the next one goes on, and loses
/// nothing that was finished.
#[test]
fn making_it_may_be_killed_at_any_call() {
    for at in some(1, 0) {
        for when in ["before", "after"] {
            let tmp = dir();
            let plan = format!("stop-{when}:{at}");
            let killed = command("create", tmp.path(), &plan).output().unwrap();
            if killed.status.success() {
                assert!(at > 40, "it was done after {at} calls");
                return;
            }
            assert_eq!(killed.status.signal(), Some(9), "{plan}");
            let found = State::open(&root(&tmp), false).map(|state| state.id);
            let state = State::open(&root(&tmp), true).unwrap();
            match found {
                Ok(id) => assert_eq!(state.id, id, "{plan}"),
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{plan}: {e}"),
            }
            assert_whole(tmp.path());
            assert_eq!(state.ledger.settled().unwrap(), state.id);
        }
    }
}

/// Any call fails, made or not: the next attempt succeeds.
#[test]
fn making_it_may_fail_at_any_call() {
    for at in some(1, 0) {
        for errno in [Errno::IO, Errno::NOSPC] {
            for action in [Action::Fail(errno), Action::FailAfter(errno)] {
                let tmp = dir();
                let top = root(&tmp);
                let plan = Some(Plan { at, action });
                let (first, seen) = hook::scope(plan, || State::open(&top, true));
                let Some(call) = seen.get(at as usize - 1) else {
                    first.unwrap();
                    assert!(at > 40, "it was done after {at} calls");
                    return;
                };
                match first {
                    Err(e) => assert_eq!(e.errno(), Some(errno), "{call}: {e}"),
                    // What cannot be had of procfs is not known; what only closes may fail unheard.
                    Ok(state) => assert!(
                        state.incarnation().boot.is_none() || call.contains("F_UNLCK"),
                        "{at} {call}"
                    ),
                }
                let state = State::open(&root(&tmp), true).unwrap();
                assert_eq!(State::open(&root(&tmp), false).unwrap().id, state.id);
                assert_whole(tmp.path());
            }
        }
    }
}

#[test]
fn many_who_make_it_at_once_make_one() {
    for _ in 0..5 {
        let tmp = dir();
        let children: Vec<_> = (0..3)
            .map(|_| {
                let command = command("create", tmp.path(), "");
                std::thread::spawn(move || output(command))
            })
            .collect();
        let ids: Vec<[u8; 16]> = std::thread::scope(|s| {
            let open = || State::open(&root(&tmp), true).unwrap().id;
            let threads: Vec<_> = (0..4).map(|_| s.spawn(open)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let said = format!("id {:032x} .", u128::from_be_bytes(ids[0]));
        assert!(ids.iter().all(|id| *id == ids[0]));
        for child in children {
            let text = child.join().unwrap();
            assert!(text.contains(&said), "{text}, not {said}");
        }
        assert_whole(tmp.path());
    }
}

#[test]
fn the_umask_does_not_matter() {
    let tmp = dir();
    output(command("create under umask 0777", tmp.path(), ""));
    assert_whole(tmp.path());
}

/// The same without the privilege that makes permissions meaningless: on a thread that is nobody.
#[test]
fn an_unprivileged_owner_is_not_locked_out() {
    if !is_root("an_unprivileged_owner_is_not_locked_out") {
        return;
    }
    let tmp = dir();
    set_mode(tmp.path(), 0o777);
    let nobody = rustix::process::Uid::from_raw(65534);
    let top = tmp.path().to_owned();
    let made = std::thread::spawn(move || {
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let root = Root::open(&top).unwrap();
        State::open(&root, true).unwrap();
        // As a maker leaves it who dies under a umask that takes everything.
        for path in ["format", "ledger"] {
            std::fs::remove_file(top.join(".steadfast").join(path)).unwrap();
        }
        for path in ["claims", "staged", "logs", ""] {
            set_mode(top.join(".steadfast").join(path), 0);
        }
        State::open(&root, true).map(|state| state.id)
    });
    made.join().unwrap().unwrap();
    assert_whole(tmp.path());
    // Nor may somebody else use it, be it root.
    let error = State::open(&root(&tmp), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("another user"), "{error}");
}

fn refused(tmp: &tempfile::TempDir, kind: ErrorKind) -> Error {
    let before = std::fs::read_dir(tmp.path()).unwrap().count();
    for create in [false, true] {
        let error = State::open(&root(tmp), create).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.advice().is_some(), "{error}");
        assert!(error.path().is_some(), "{error}");
    }
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), before);
    State::open(&root(tmp), true).unwrap_err()
}

#[test]
fn what_is_no_folder_of_ours_is_refused() {
    let tmp = dir();
    let folder = tmp.path().join(".steadfast");
    let elsewhere = dir();
    State::open(&root(&elsewhere), true).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join(".steadfast"), &folder).unwrap();
    refused(&tmp, ErrorKind::NotADirectory);
    std::fs::remove_file(&folder).unwrap();
    std::os::unix::fs::symlink("nowhere", &folder).unwrap();
    refused(&tmp, ErrorKind::NotADirectory);
    std::fs::remove_file(&folder).unwrap();
    std::fs::write(&folder, b"mine").unwrap();
    refused(&tmp, ErrorKind::NotADirectory);
    std::fs::remove_file(&folder).unwrap();
    for unsafe_mode in [0o770, 0o720, 0o702] {
        std::fs::create_dir(&folder).unwrap();
        set_mode(&folder, unsafe_mode);
        let error = State::open(&root(&tmp), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }
    State::open(&root(&tmp), true).unwrap();
    set_mode(&folder, 0o770);
    refused(&tmp, ErrorKind::PermissionDenied);
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let tmp = dir();
    let folder = tmp.path().join(".steadfast");
    std::fs::create_dir(&folder).unwrap();
    set_mode(&folder, 0o755);
    std::fs::write(folder.join("notes"), b"mine").unwrap();
    let error = State::open(&root(&tmp), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.path(), Some(Path::new(".steadfast/notes")));
    assert_eq!(
        (std::fs::read_dir(&folder).unwrap().count(), mode(&folder)),
        (1, 0o755)
    );
    std::fs::remove_file(folder.join("notes")).unwrap();
    State::open(&root(&tmp), true).unwrap();
    assert_whole(tmp.path());
}

#[test]
fn another_users_and_another_mounts_folder_is_refused() {
    let test = "another_users_and_another_mounts_folder_is_refused";
    if !is_root(test) {
        return;
    }
    let tmp = dir();
    let folder = tmp.path().join(".steadfast");
    State::open(&root(&tmp), true).unwrap();
    std::os::unix::fs::chown(&folder, Some(65534), None).unwrap();
    refused(&tmp, ErrorKind::PermissionDenied);
    std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
    State::open(&root(&tmp), false).unwrap();
    // The same folder, through another mount: names cannot be moved out of it.
    if let Err(e) = rustix::mount::mount_bind(&folder, &folder) {
        return skipped(test, &format!("no bind mounts here: {e}"));
    }
    let caught = std::panic::catch_unwind(|| refused(&tmp, ErrorKind::CrossDevice));
    rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).unwrap();
    caught.unwrap();
    State::open(&root(&tmp), false).unwrap();
}

#[test]
fn a_damaged_or_later_format_is_refused() {
    let tmp = dir();
    let path = tmp.path().join(".steadfast/format");
    State::open(&root(&tmp), true).unwrap();
    let good = std::fs::read(&path).unwrap();
    for bad in [&good[..40], &[], &[good.as_slice(), &[0]].concat()] {
        std::fs::write(&path, bad).unwrap();
        refused(&tmp, ErrorKind::Corrupt);
    }
    let mut later = good.clone();
    later[8] = 2;
    let crc = crc32c::crc32c(&later[..60]);
    later[60..].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, later).unwrap();
    refused(&tmp, ErrorKind::Unsupported);
    std::fs::write(&path, good).unwrap();
    State::open(&root(&tmp), false).unwrap();
}

#[test]
fn an_empty_folder_that_was_lost_is_made_again_and_logs_are_missed() {
    let tmp = dir();
    let folder = tmp.path().join(".steadfast");
    State::open(&root(&tmp), true).unwrap();
    for name in ["staged", "kept", "retired", "keys", "conflicts"] {
        std::fs::remove_dir(folder.join(name)).unwrap();
    }
    let (_, durable) = synced(|| State::open(&root(&tmp), false).unwrap());
    assert!(durable.contains(&identity(&folder)));
    assert_whole(tmp.path());
    std::fs::remove_dir(folder.join("logs")).unwrap();
    refused(&tmp, ErrorKind::Corrupt);
    std::fs::create_dir(folder.join("logs")).unwrap();
    std::fs::remove_file(folder.join("ledger")).unwrap();
    refused(&tmp, ErrorKind::Corrupt);
}

/// What `f` gives, and the device and inode of each thing that it made durable by itself.
fn synced<R>(f: impl FnOnce() -> R) -> (R, BTreeSet<(u64, u64)>) {
    let synced = Rc::new(RefCell::new(BTreeSet::new()));
    let observer = {
        let synced = Rc::clone(&synced);
        move |call: &'static str, what: Option<(u64, u64)>| {
            if call == "fsync" {
                synced.borrow_mut().extend(what);
            }
        }
    };
    let done = hook::observe(observer, f);
    (done, synced.take())
}

fn identity(path: &Path) -> (u64, u64) {
    let meta = std::fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}

fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    let done = spawn(command.arg("-a").arg(from).arg(to)).wait();
    assert!(done.unwrap().success());
}

#[test]
fn a_copy_gets_an_id_of_its_own_and_a_moved_root_is_none() {
    let tmp = dir();
    let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
    std::fs::create_dir(&a).unwrap();
    let made = State::open(&Root::open(&a).unwrap(), true).unwrap();
    std::fs::rename(&a, &b).unwrap();
    let moved = State::open(&Root::open(&b).unwrap(), false).unwrap();
    assert!(!moved.is_copy());
    assert_eq!(moved.id, made.id);
    copy(&b, &a);
    let open = || State::open(&Root::open(&a).unwrap(), false).unwrap();
    let (mut copy, mut second) = (open(), open());
    assert!(copy.is_copy());
    assert_eq!(copy.id, made.id);
    let ((), durable) = synced(|| copy.adopt().unwrap());
    assert!(durable.contains(&identity(&a.join(".steadfast"))));
    assert!(!copy.is_copy());
    assert_ne!(copy.id, made.id);
    // Somebody else who was about to do the same finds it done.
    second.adopt().unwrap();
    assert_eq!((second.id, second.is_copy()), (copy.id, false));
    let again = open();
    assert_eq!((again.id, again.is_copy()), (copy.id, false));
    assert_whole(&a);
}

#[test]
fn a_copy_with_open_work_is_not_adopted() {
    let tmp = dir();
    let (a, b) = (tmp.path().join("a"), tmp.path().join("b"));
    std::fs::create_dir(&a).unwrap();
    let state = State::open(&Root::open(&a).unwrap(), true).unwrap();
    let (writer, _) = writers::open_own(&state, WriterOptions::default()).unwrap();
    let record = Record::new(Record::FIRST_KIND, b"work").transaction(5);
    writer.log.append_durable(&[record]).unwrap();
    copy(&a, &b);
    let mut copy = State::open(&Root::open(&b).unwrap(), true).unwrap();
    let error = copy.adopt().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_eq!(error.path(), Some(Path::new(".steadfast/logs/00000001")));
    assert!(copy.is_copy());
    assert_eq!(copy.id, state.id);
    // Work up to the horizon is over.
    copy.ledger.set_horizon(4).unwrap();
    assert!(copy.adopt().is_err());
    copy.ledger.set_horizon(5).unwrap();
    copy.adopt().unwrap();
    assert_ne!(copy.id, state.id);
}
