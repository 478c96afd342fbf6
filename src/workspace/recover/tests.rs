//! What recovery refuses, and who waits for whom.

mod twice;

use super::*;
use crate::DiskState;
use crate::journal::Record;
use crate::sys::hook;
use crate::workspace::child::no_child;
use crate::workspace::record::PHASE;
use crate::workspace::{Attributes, Transaction, Workspace, operator};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A workspace with a transaction that made the file `f`.
fn committed() -> (tempfile::TempDir, Root, Workspace) {
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    let mut tx = workspace.begin();
    tx.write("f", "lost in a power cut").unwrap();
    tx.commit().unwrap();
    (tmp, root, workspace)
}

/// From now on this thread is on another boot. Gives what it was on.
fn reboot() -> Option<hook::Machine> {
    hook::set_machine(Some(hook::Machine {
        boot_id: Some([7; 16]),
        time_namespace: Some(7),
        boottime: Duration::from_secs(5),
    }))
}

/// A sync that has failed is not made again, by whoever comes next, until the file system is mounted anew.
#[test]
fn after_a_failed_sync_nobody_settles() {
    let (_tmp, _root, workspace) = committed();
    let settle = || workspace.settle().unwrap_err().kind();
    let failed = hook::deny(&[("syncfs", Errno::IO)], settle);
    let (again, calls) = hook::scope(None, settle);
    assert_eq!([failed, again], [ErrorKind::Poisoned; 2]);
    assert!(!calls.contains(&"syncfs"));
}

#[test]
fn nobody_begins_while_somebody_recovers() {
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    Workspace::open(&root).unwrap().close().unwrap();
    let state = State::open(&root, false).unwrap();
    let lock = state.ledger.recovery_lock(Duration::ZERO).unwrap();
    let open = || WorkspaceOptions::new().wait(Duration::ZERO).open(&root);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Busy);
    drop(lock);
    open().unwrap().close().unwrap();
}

#[test]
fn a_section_that_makes_no_sense_is_refused_before_anything_is_done() {
    let _alone = no_child();
    let (tmp, root, workspace) = committed();
    let record = Record::new(PHASE, b"no beginning").transaction(9);
    workspace.writer.log.append_durable(&[record]).unwrap();
    drop(workspace);
    std::fs::remove_file(tmp.path().join("f")).unwrap();
    let own = reboot();
    let error = Workspace::open(&root).unwrap_err();
    hook::set_machine(own);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!tmp.path().join("f").exists());
}

/// The decision to give it up is forgotten only when the release of its record is durable: whoever ends in
/// between, at whichever call, leaves one or the other.
#[test]
fn what_was_given_up_stays_given_up_wherever_the_next_one_ends() {
    let _alone = no_child();
    for at in 1.. {
        let (_tmp, root, workspace) = committed();
        let number = workspace.state.ledger.draw().unwrap();
        let record = Record::new(PHASE, b"no beginning").transaction(number);
        workspace.writer.log.append_durable(&[record]).unwrap();
        drop(workspace);
        let _ = operator::repair(&root).unwrap();
        let plan = hook::Plan {
            at,
            action: hook::Action::FailFrom(Errno::IO),
        };
        let (done, calls) = hook::scope(Some(plan), || Workspace::open(&root).map(drop));
        let again = Workspace::open(&root);
        assert!(again.is_ok(), "ended at call {at}, {done:?}: {again:?}");
        if (calls.len() as u64) < at {
            assert!(done.is_ok() && at > 50, "{done:?} after {at} calls");
            break;
        }
    }
}

#[test]
fn a_record_of_a_later_version_is_refused_before_anything_is_done() {
    let _alone = no_child();
    let (tmp, root, workspace) = committed();
    let number = workspace.state.ledger.draw().unwrap();
    let record = Record::new(PHASE + 100, b"of a later version").transaction(number);
    workspace.writer.log.append_durable(&[record]).unwrap();
    drop(workspace);
    std::fs::remove_file(tmp.path().join("f")).unwrap();
    let own = reboot();
    let refused = [
        Workspace::open(&root).map(drop),
        operator::repair(&root).map(drop),
    ];
    let status = operator::status(&root).unwrap();
    hook::set_machine(own);
    for error in refused.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("newer version"), "{error}");
    }
    let problems: Vec<_> = status.problems.iter().map(|p| p.kind).collect();
    assert_eq!(problems, [ErrorKind::Unsupported]);
    assert!(!tmp.path().join("f").exists());
}

#[test]
fn a_damaged_note_of_a_conflict_is_refused_before_anything_is_done() {
    let _alone = no_child();
    let (tmp, root, workspace) = committed();
    drop(workspace);
    std::fs::remove_file(tmp.path().join("f")).unwrap();
    let note = tmp
        .path()
        .join(Sub::Conflicts.path())
        .join("0000000000000001-00000000");
    std::fs::write(&note, "?").unwrap();
    let own = reboot();
    let error = Workspace::open(&root).unwrap_err();
    let refused = !tmp.path().join("f").exists();
    std::fs::remove_file(&note).unwrap();
    let opened = Workspace::open(&root).map(drop);
    hook::set_machine(own);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(refused, "{error}");
    opened.unwrap();
    assert!(tmp.path().join("f").exists());
}

/// The ledger is not synced: after a power cut it may hold what was never true.
#[test]
fn the_mark_of_a_log_that_is_not_there_is_cleared() {
    let _alone = no_child();
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    for kind in [MarkKind::Commit, MarkKind::Section] {
        Workspace::open(&root).unwrap().close().unwrap();
        let state = State::open(&root, false).unwrap();
        let claim = state.claims.try_claim(&[]).unwrap();
        let mark = state.ledger.mark(&claim, 5, 77, kind).unwrap();
        drop((mark, claim));
        assert_eq!(state.ledger.dead().unwrap().len(), 1);
        let workspace = Workspace::open(&root).unwrap();
        let mut tx = workspace.begin();
        tx.write("f", "goes on").unwrap();
        tx.commit().unwrap();
        assert!(state.ledger.dead().unwrap().is_empty());
    }
}

/// A process that is killed frees its claims and its log one after the other.
#[test]
fn the_horizon_does_not_pass_what_is_half_done() {
    let _alone = no_child();
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let dying = Workspace::open(&root).unwrap();
    let dead = Workspace::open(&root).unwrap();
    let mut tx = dead.begin();
    tx.write("f", "of the dead one").unwrap();
    tx.commit().unwrap();
    drop(dead);
    let ledger = &dying.state.ledger;
    let number = ledger.draw().unwrap();
    let claim = dying.state.claims.try_claim(&[]).unwrap();
    let mark = ledger.mark(&claim, number, dying.writer.index, MarkKind::Commit);
    drop((mark.unwrap(), claim));
    let other = Workspace::open(&root).unwrap();
    assert!(ledger.horizon().unwrap() < number);
    // When its log is free as well, all of it is over.
    drop(dying);
    assert!(other.recover().is_ok());
    other.settle().unwrap();
    assert!(other.state.ledger.horizon().unwrap() >= number);
}

fn mode(tx: &mut Transaction<'_>) {
    let mode = sys::Mode::from_bits_retain(0o600);
    tx.set_attributes("f", Attributes::new().mode(mode));
}

/// Each in a transaction of its own, and then the power goes, when all of it is on the disk but for what is
/// lost.
fn after_a_power_cut(
    tmp: &tempfile::TempDir,
    steps: &[fn(&mut Transaction<'_>)],
    lose: impl FnOnce(),
) -> Workspace {
    let root = Root::open(tmp.path()).unwrap();
    let workspace = Workspace::open(&root).unwrap();
    for step in steps {
        let mut tx = workspace.begin();
        step(&mut tx);
        tx.commit().unwrap();
    }
    drop(workspace);
    lose();
    let own = reboot();
    let workspace = Workspace::open(&root);
    hook::set_machine(own);
    workspace.unwrap()
}

/// As long as nothing can have been lost, the prepared file itself is put in place; unless its content is not
/// what was recorded, as after a failed write to the disk.
#[test]
fn what_a_killed_process_has_prepared_is_used_unless_it_may_have_lost_something() {
    let _alone = no_child();
    for (torn, boot, used) in [
        (false, false, true),
        (true, false, false),
        (false, true, false),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let root = Root::open(tmp.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        let mut tx = workspace.begin();
        tx.write("f", "content").unwrap();
        let io = ["renameat2(RENAME_NOREPLACE)", "linkat"].map(|call| (call, Errno::IO));
        let done = hook::deny(&io, || tx.commit());
        assert_eq!(done.unwrap_err().disk_state(), DiskState::Committed);
        drop(workspace);
        let staged = tmp.path().join(Sub::Staged.path());
        let names = std::fs::read_dir(staged)
            .unwrap()
            .map(|e| e.unwrap().path());
        let prepared = names.collect::<Vec<_>>();
        let [prepared] = &prepared[..] else {
            panic!("{prepared:?}");
        };
        let was = std::fs::metadata(prepared).unwrap();
        if torn {
            std::fs::write(prepared, [0; 7]).unwrap();
            let file = std::fs::File::options().write(true).open(prepared).unwrap();
            file.set_modified(was.modified().unwrap()).unwrap();
        }
        // Its number is not given to another file.
        let held = std::fs::File::open(prepared).unwrap();
        let own = boot.then(reboot);
        let opened = Workspace::open(&root);
        own.map(hook::set_machine);
        opened.unwrap();
        let file = tmp.path().join("f");
        assert_eq!(std::fs::read(&file).unwrap(), b"content");
        let same = std::fs::metadata(&file).unwrap().ino() == was.ino();
        assert_eq!(same, used, "torn {torn}, booted {boot}");
        drop(held);
    }
}

/// A change of what a later transaction has replaced or removed has nowhere to go, and nobody misses it.
#[test]
fn what_was_changed_and_is_to_be_gone_is_no_conflict() {
    let _alone = no_child();
    let new: fn(&mut Transaction<'_>) = |tx| tx.write("f", "one").unwrap();
    let changes: [fn(&mut Transaction<'_>); 3] = [
        |tx| tx.write_in_place("f", "two").unwrap(),
        |tx| tx.append("f", "two").unwrap(),
        mode,
    ];
    let ends: [fn(&mut Transaction<'_>); 3] = [
        |tx| tx.write("f", "three").unwrap(),
        |tx| _ = tx.remove_file("f"),
        |tx| _ = tx.rename("f", "g"),
    ];
    for first in [Some(new), None] {
        for (n, change) in changes.into_iter().enumerate() {
            for (m, end) in ends.into_iter().enumerate() {
                let tmp = tempfile::tempdir().unwrap();
                if first.is_none() {
                    std::fs::write(tmp.path().join("f"), "one").unwrap();
                }
                let steps: Vec<_> = first.into_iter().chain([change, end]).collect();
                let workspace = after_a_power_cut(&tmp, &steps, || ());
                let found = workspace.recovered().conflicts();
                assert!(found.is_empty(), "{} {n} {m}: {found:?}", first.is_some());
                assert_eq!(tmp.path().join("f").exists(), m == 0);
                assert_eq!(tmp.path().join("g").exists(), m == 2);
            }
        }
    }
}

/// What has another name that stays is still changed, also where the disk has the names and not yet the mode.
#[test]
fn what_was_changed_by_a_name_that_is_gone_is_found_by_another() {
    let _alone = no_child();
    let link: fn(&mut Transaction<'_>) = |tx| _ = tx.hard_link("f", "g");
    let gone: fn(&mut Transaction<'_>) = |tx| _ = tx.remove_file("f");
    for steps in [[link, mode, gone], [mode, link, gone]] {
        for lost in [false, true] {
            let tmp = tempfile::tempdir().unwrap();
            std::fs::write(tmp.path().join("f"), "one").unwrap();
            let set = |mode| {
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(tmp.path().join("g"), mode).unwrap();
            };
            let old = std::fs::metadata(tmp.path().join("f")).unwrap().mode();
            let workspace = after_a_power_cut(&tmp, &steps, || {
                if lost {
                    set(old);
                }
            });
            let found = workspace.recovered().conflicts();
            assert!(found.is_empty(), "{lost}: {found:?}");
            let now = std::fs::metadata(tmp.path().join("g")).unwrap().mode();
            assert_eq!(now & 0o777, 0o600, "{lost}");
        }
    }
}

/// A name from which one transaction has taken what stood there, and to which the next has brought
/// something, is empty when the disk has the one and not the other.
#[test]
fn a_name_that_a_transaction_has_left_empty_was_robbed_by_nobody() {
    let _alone = no_child();
    let gone: fn(&mut Transaction<'_>) = |tx| _ = tx.remove_file("f");
    let change: fn(&mut Transaction<'_>) = |tx| tx.write("f", "another").unwrap();
    let moved: fn(&mut Transaction<'_>) = |tx| _ = tx.rename("g", "f");
    for steps in [vec![gone, moved], vec![change, gone, moved]] {
        let tmp = tempfile::tempdir().unwrap();
        let [f, g] = ["f", "g"].map(|name| tmp.path().join(name));
        std::fs::write(&f, "old").unwrap();
        std::fs::write(&g, "moved").unwrap();
        let workspace = after_a_power_cut(&tmp, &steps, || std::fs::rename(&f, &g).unwrap());
        let found = workspace.recovered().conflicts();
        assert!(found.is_empty(), "{} steps: {found:?}", steps.len());
        assert_eq!(std::fs::read(&f).unwrap(), b"moved");
        assert!(!g.exists());
    }
}

/// A new file of which a power cut has left nothing but its attributes is made anew, also if a later
/// transaction has given it another time.
#[test]
fn a_new_file_that_is_torn_is_known_by_the_time_that_was_set() {
    let _alone = no_child();
    let new: fn(&mut Transaction<'_>) = |tx| tx.write("f", "the content").unwrap();
    let link: fn(&mut Transaction<'_>) = |tx| _ = tx.hard_link("f", "g");
    let linked: fn(&mut Transaction<'_>) = |tx| {
        tx.write("f", "the content").unwrap();
        let _ = tx.hard_link("f", "g");
    };
    let early: fn(&mut Transaction<'_>) = |tx| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1000);
        tx.set_attributes("f", Attributes::new().modified(time));
    };
    let late: fn(&mut Transaction<'_>) = |tx| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        tx.set_attributes("f", Attributes::new().modified(time));
    };
    let late_by_link: fn(&mut Transaction<'_>) = |tx| {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        tx.set_attributes("g", Attributes::new().modified(time));
    };
    for (n, steps) in [
        vec![new, early],
        vec![new, late],
        vec![new, late, mode, early],
        vec![new, link, late],
        vec![new, link, late_by_link],
        vec![linked, late_by_link],
        vec![linked, late],
    ]
    .into_iter()
    .enumerate()
    {
        for len in [0, 11] {
            let tmp = tempfile::tempdir().unwrap();
            let f = tmp.path().join("f");
            let time = || std::fs::metadata(&f).unwrap().modified().unwrap();
            let mut set = None;
            let workspace = after_a_power_cut(&tmp, &steps, || {
                set = Some(time());
                let file = std::fs::File::options().write(true).open(&f).unwrap();
                file.set_len(0).unwrap();
                file.set_len(len).unwrap();
                file.set_modified(set.unwrap()).unwrap();
            });
            let found = workspace.recovered().conflicts();
            assert!(found.is_empty(), "{n} {len}: {found:?}");
            assert_eq!(std::fs::read(&f).unwrap(), b"the content", "{n} {len}");
            assert_eq!(Some(time()), set, "{n} {len}");
            let g = tmp.path().join("g");
            if g.exists() {
                let [f, g] = [f, g].map(|path| std::fs::metadata(path).unwrap().ino());
                assert_eq!(f, g, "{n} {len}");
            }
        }
    }
}
