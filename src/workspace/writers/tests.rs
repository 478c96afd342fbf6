//! Logs are taken, reused, passed over and named.

use super::*;
use crate::Root;
use crate::journal::Record;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::WorkspaceOptions;
use crate::workspace::child::{command, dir, options, spawn, wait_for};
use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

fn workspace() -> (tempfile::TempDir, State) {
    let tmp = dir();
    let state = State::open(&Root::open(tmp.path()).unwrap(), true).unwrap();
    (tmp, state)
}

fn own(state: &State) -> Writer {
    open_own(state, options()).unwrap().0
}

/// One record, durable; gives its number.
fn append(writer: &Writer, text: &[u8]) -> u64 {
    let record = Record::new(Record::FIRST_KIND, text);
    writer.log.append_durable(&[record]).unwrap().last
}

fn log_path(top: &Path, index: u32) -> PathBuf {
    top.join(format!(".steadfast/logs/{index:08x}"))
}

#[test]
fn private_names_tell_their_owner() {
    let name = fresh_name(0xab).unwrap();
    assert!(name.as_bytes().starts_with(b"000000ab-"));
    assert_eq!(owner_of(&name), Some(0xab));
    assert_ne!(name, fresh_name(0xab).unwrap());
    let other = private_name(u32::MAX, u64::MAX).unwrap();
    assert_eq!(owner_of(&other), Some(u32::MAX));
    let good = private_name(0xab, 0x0123_4567_89ab_cdef).unwrap();
    assert_eq!(good.as_bytes(), b"000000ab-0123456789abcdef");
    for at in 0..25 {
        for byte in b"-.gGAF".iter().filter(|b| (**b == b'-') != (at == 8)) {
            let mut bad = good.as_bytes().to_vec();
            bad[at] = *byte;
            assert_eq!(owner_of(&Name::from_bytes(&bad).unwrap()), None);
        }
        assert_eq!(
            owner_of(&Name::from_bytes(&good.as_bytes()[..at + 1]).unwrap()).is_some(),
            at == 24
        );
    }
}

#[test]
fn a_log_is_taken_by_one_and_used_again() {
    let (_tmp, state) = workspace();
    let (one, two) = (own(&state), own(&state));
    assert_eq!((one.index, two.index), (1, 2));
    assert_eq!(list(&state).unwrap(), [(1, true), (2, true)]);
    assert!(is_live(&state, 1).unwrap());
    assert!(!is_live(&state, 3).unwrap());
    let number = append(&one, b"x");
    assert_eq!(first_with_open_work(&state).unwrap(), Some(1));
    append(&two, b"y");
    one.log.release(number).unwrap();
    one.log.close().unwrap();
    drop(two);
    assert_eq!(list(&state).unwrap(), [(1, false), (2, false)]);
    // The second one has a record that is not released: that is recovery's. It has no number that could tell
    // it to be over.
    assert_eq!(first_with_open_work(&state).unwrap(), Some(2));
    let (again, next) = (own(&state), own(&state));
    assert_eq!((again.index, next.index), (1, 3));
    let dead = open_dead(&state).unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].index, 2);
    let (log, found) = dead[0].log.as_ref().unwrap();
    assert_eq!(found.records[0].payload, b"y");
    assert!(is_live(&state, 2).unwrap());
    log.release(found.last).unwrap();
    log.sync(log.last()).unwrap();
    drop(dead);
    assert_eq!(own(&state).index, 2);
}

#[test]
fn many_at_once_get_different_logs() {
    let (tmp, state) = workspace();
    for _ in 0..3 {
        let mut children: Vec<_> = (0..3)
            .map(|_| spawn(&mut command("own", tmp.path(), "")))
            .collect();
        let mut threads: Vec<Writer> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| own(&state))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let mut all: BTreeSet<u32> = threads.iter().map(|w| w.index).collect();
        for child in &mut children {
            let said = wait_for(" .", child);
            let index = said.split("index ").nth(1).unwrap();
            all.insert(index.trim_end_matches(" .").parse().unwrap());
        }
        assert_eq!(all.len(), 7);
        assert!(list(&state).unwrap().len() <= 14);
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for writer in threads.drain(..) {
            append(&writer, b"left");
        }
        // The dead ones' logs are free at once.
        let live = list(&state).unwrap().into_iter().filter(|(_, live)| *live);
        assert_eq!(live.count(), 0);
        for dead in open_dead(&state).unwrap() {
            let (log, found) = dead.log.unwrap();
            log.release(found.last).unwrap();
            log.close().unwrap();
        }
    }
}

/// A damaged log is told with its index, hides no other, and is not used.
#[test]
fn a_damaged_log_hides_no_other() {
    let (tmp, state) = workspace();
    let writers: Vec<Writer> = (0..3).map(|_| own(&state)).collect();
    for writer in &writers {
        append(writer, b"work");
        append(writer, b"more");
    }
    drop(writers);
    let segment = log_path(tmp.path(), 2).join("0000000000000001.seg");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap();
    file.write_all_at(&[0xee; 8], 512).unwrap();
    let dead = open_dead(&state).unwrap();
    let told = |d: &DeadLog| (d.index, d.log.as_ref().err().map(Error::kind));
    let told: Vec<_> = dead.iter().map(told).collect();
    assert_eq!(told, [(1, None), (2, Some(ErrorKind::Corrupt)), (3, None)]);
    let error = dead[1].log.as_ref().unwrap_err();
    let path = ".steadfast/logs/00000002/0000000000000001.seg";
    assert_eq!(error.path(), Some(Path::new(path)));
    assert!(error.detail().is_some());
    drop(dead);
    assert!(matches!(
        inspect(&state, 2).unwrap().end,
        journal::End::Corrupt(_)
    ));
    assert_eq!(inspect(&state, 1).unwrap().records.len(), 2);
    assert_eq!(own(&state).index, 4);
    // The damage alone counts as open work.
    for dead in open_dead(&state).unwrap() {
        if let Ok((log, found)) = dead.log {
            log.release(found.last).unwrap();
            log.close().unwrap();
        }
    }
    assert_eq!(first_with_open_work(&state).unwrap(), Some(2));
}

/// A log's name is durable before the log is used, whoever made it.
#[test]
fn the_name_of_a_new_log_is_synced() {
    let (_tmp, state) = workspace();
    let syncs = |state: &State| {
        let (writer, calls) = hook::scope(None, || own(state));
        (writer, calls.iter().filter(|c| **c == "fsync").count())
    };
    // The segment, the log's folder, the folder of logs.
    let (one, count) = syncs(&state);
    assert_eq!(count, 3);
    drop(one);
    // Perhaps its maker died before the last of these. The log makes sure of its own folder.
    let (one, count) = syncs(&state);
    assert_eq!((one.index, count), (1, 2));
    let number = append(&one, b"x");
    one.log.release(number).unwrap();
    one.log.close().unwrap();
    let (one, count) = syncs(&state);
    assert_eq!((one.index, count), (1, 0));
}

#[test]
fn taking_a_log_may_be_killed_or_fail_at_any_call() {
    let mut at = 0;
    'calls: loop {
        at += 1;
        for when in ["before", "after"] {
            let (tmp, state) = workspace();
            let mut command = command("own", tmp.path(), &format!("stop-{when}:{at}"));
            let killed = command.stdin(std::process::Stdio::null()).output().unwrap();
            if killed.status.success() {
                break 'calls;
            }
            assert_eq!(killed.status.signal(), Some(9));
            assert!(
                open_dead(&state)
                    .unwrap()
                    .iter()
                    .all(|dead| dead.log.is_ok())
            );
            let writer = own(&state);
            assert_eq!(writer.index, 1);
            append(&writer, b"x");
        }
    }
    assert!(at > 15, "it was done after {at} calls");
    for at in 1.. {
        let (_tmp, state) = workspace();
        let action = Action::Fail(Errno::NOSPC);
        let (first, seen) = hook::scope(Some(Plan { at, action }), || open_own(&state, options()));
        if seen.len() < at as usize {
            first.unwrap();
            return;
        }
        if let Err(e) = first {
            assert_eq!(e.errno(), Some(Errno::NOSPC));
            assert!(
                e.path().is_some_and(|p| p.starts_with(".steadfast/logs")),
                "{e}"
            );
        }
        let writer = own(&state);
        append(&writer, b"x");
    }
}

/// Whatever else is in the folder is no log.
#[test]
fn other_names_are_passed_over() {
    let (tmp, state) = workspace();
    for name in [
        "x",
        "0000001",
        "000000001",
        "0000000G",
        "0000000A",
        ".sf-d0123456789abcdef96735b5a",
    ] {
        std::fs::create_dir(tmp.path().join(".steadfast/logs").join(name)).unwrap();
    }
    assert_eq!(list(&state).unwrap(), []);
    assert_eq!(open_dead(&state).unwrap().len(), 0);
    assert_eq!(own(&state).index, 1);
    let mode = std::fs::metadata(log_path(tmp.path(), 1))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn a_log_that_is_known_to_be_closed_is_not_looked_through() {
    let (tmp, state) = workspace();
    let own = || open_own(&state, WriterOptions::default()).unwrap().0;
    let closed = |writer: Writer| close(&state, writer.index, writer.log).unwrap();
    let writer = own();
    let number = append(&writer, b"x");
    writer.log.release(number).unwrap();
    closed(writer);
    // The same log, in the same bytes: only what is known of it differs.
    let reads = || {
        let (writer, calls) = hook::scope(None, own);
        closed(writer);
        calls.iter().filter(|call| **call == "pread64").count()
    };
    let known = reads();
    state.ledger.reopened(1).unwrap();
    let unknown = reads();
    if state.incarnation().mount.is_some() {
        assert!(known < unknown, "{known} {unknown}");
    }
    assert_eq!(reads(), known);
    // Who goes on with it and dies has made that void: what he wrote is missed if it is damaged.
    let path = log_path(tmp.path(), 1).join("0000000000000001.seg");
    let before = std::fs::read(&path).unwrap();
    let writer = own();
    for _ in 0..3 {
        append(&writer, b"y");
    }
    drop(writer);
    lose_first_block(&path, &before);
    let [dead] = &open_dead(&state).unwrap()[..] else {
        panic!("one log");
    };
    let error = dead.log.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// What was written first since the file was as `before` never came to the disk.
fn lose_first_block(path: &Path, before: &[u8]) {
    let after = std::fs::read(path).unwrap();
    let first = (0..before.len()).find(|at| before[*at] != after[*at]);
    let block = first.unwrap() / 512 * 512;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; 512], block as u64).unwrap();
}

/// It is known to be closed by its last frame, and by no earlier one: what came after that is missed.
#[test]
fn a_log_that_seems_to_be_closed_earlier_than_is_known_is_looked_through() {
    let (tmp, state) = workspace();
    let own = || open_own(&state, WriterOptions::default()).unwrap().0;
    let path = log_path(tmp.path(), 1).join("0000000000000001.seg");
    let run = || {
        let writer = own();
        assert_eq!(writer.index, 1);
        let number = append(&writer, b"x");
        writer.log.release(number).unwrap();
        close(&state, writer.index, writer.log).unwrap();
        std::fs::read(&path).unwrap()
    };
    let before = run();
    run();
    lose_first_block(&path, &before);
    assert_eq!(own().index, 2);
}

#[test]
fn what_is_known_of_a_log_is_not_believed_of_another_in_its_place() {
    let (tmp, state) = workspace();
    let writer = open_own(&state, WriterOptions::default()).unwrap().0;
    let known = || state.ledger.closed(1, state.incarnation()).unwrap();
    assert_eq!((writer.index, known()), (1, None));
    let number = append(&writer, b"x");
    writer.log.release(number).unwrap();
    close(&state, writer.index, writer.log).unwrap();
    if state.incarnation().mount.is_none() {
        eprintln!("SKIPPED what_is_known_of_a_log: the kernel has no numbers of mounts");
        return;
    }
    assert!(known() > Some(number));
    std::fs::remove_dir_all(log_path(tmp.path(), 1)).unwrap();
    let writer = open_own(&state, WriterOptions::default()).unwrap().0;
    assert_eq!((writer.index, known()), (1, None));
}

/// As documented: those that are added are longer, unless a length is asked for, which is that of all.
#[test]
fn a_workspaces_log_grows_by_longer_segments() {
    for (options, added) in [
        (WorkspaceOptions::new(), 4 << 20),
        (WorkspaceOptions::new().log(1 << 20, 8), 1 << 20),
    ] {
        let tmp = dir();
        let workspace = options.open(&Root::open(tmp.path()).unwrap()).unwrap();
        // Half a MiB of content in each record.
        for _ in 0..3 {
            let mut tx = workspace.begin();
            for n in 0..32 {
                tx.write(format!("f{n}"), vec![n; 15 << 10]).unwrap();
            }
            tx.commit().unwrap();
        }
        let lens = std::fs::read_dir(log_path(tmp.path(), 1)).unwrap();
        let lens = lens.map(|entry| entry.unwrap().metadata().unwrap().len());
        let mut lens: Vec<u64> = lens.filter(|len| *len > 0).collect();
        lens.sort_unstable();
        assert_eq!(lens, [1 << 20, added]);
    }
}
