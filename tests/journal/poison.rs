//! After a write or sync has failed: nothing is added, nothing is made again, everybody is told; and what
//! the log relies on is on the disk, whatever the page cache shows.

use crate::common::{self, FOREVER};
use crate::support::*;
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use steadfast::journal::{Damage, DamageKind, Log, LogOptions, inspect};
use steadfast::sys::{self, Errno, hook};
use steadfast::{DiskState, ErrorKind};

const NO_SYNC: [(&str, Errno); 1] = [("fdatasync", Errno::IO)];

/// Appends records until no more fit, and says how many did.
fn fill(log: &Log) -> u64 {
    let full = |n: &u64| log.append_durable(&[record(&payload(*n, 900))]).is_err();
    (0..100).find(full).unwrap()
}

#[test]
fn a_log_that_failed_once_makes_no_call_again() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let first = log.append_durable(&[record(&payload(1, 10))]).unwrap();
    let text = payload(2, 10);
    let late = record(&text);
    let appended = log.append(&[late]).unwrap();
    let failed = hook::deny(&NO_SYNC, || log.sync(appended.last)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Io);
    let last = log.last();
    let (_, calls) = hook::scope(None, || {
        for error in [
            log.append(&[late]).map(drop).unwrap_err(),
            log.append_durable(&[late]).map(drop).unwrap_err(),
            log.sync(appended.last).unwrap_err(),
            log.release(first.last).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            // It says what had failed, and is no chain.
            assert_eq!(error.errno(), failed.errno(), "{error}");
            assert!(std::error::Error::source(&error).is_none(), "{error:?}");
        }
        assert_eq!(log.last(), last, "something was added");
    });
    assert!(calls.is_empty(), "{calls:?}");
    let error = log.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    // The one that was durable, and perhaps the other; but nothing that came after.
    let (_, found) = open(tmp.path()).unwrap();
    assert!(!found.clean && found.last <= last, "{found:?}");
    assert_eq!(numbers(&found.records)[0], 1);
}

/// Who waits for a release is told that none will come.
#[test]
fn who_waits_for_room_is_told_of_a_failure() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let room = fill(&log);
    let tmp = common::dir();
    let options = small().wait_for_release(FOREVER);
    let (log, _) = options.open(dir(tmp.path())).unwrap();
    for n in 1..room {
        log.append_durable(&[record(&payload(n, 900))]).unwrap();
    }
    let last = log.append(&[record(&payload(room, 900))]).unwrap().last;
    std::thread::scope(|s| {
        let waiter = s.spawn(|| log.append(&[record(&payload(77, 900))]).map(drop));
        // Mostly it waits by now; if not, it is told when it begins.
        std::thread::sleep(Duration::from_millis(20));
        hook::deny(&NO_SYNC, || log.sync(last)).unwrap_err();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    });
}

/// A log that is closed shows only what was synced before its closing frame was written: the next open makes
/// nothing safe.
#[test]
fn a_closing_frame_comes_after_a_sync() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append(&[record(&payload(1, 10))]).unwrap();
    let error = hook::deny(&NO_SYNC, || log.close()).unwrap_err();
    assert_eq!(error.disk_state(), DiskState::Indeterminate);
    let (opened, seen) = hook::scope(None, || open(tmp.path()).unwrap());
    assert!(!opened.1.clean);
    assert_eq!(numbers(&opened.1.records), [1]);
    assert!(
        count(&seen, "pwrite64") == 1 && count(&seen, "fdatasync") == 1,
        "{seen:?}"
    );
}

/// A free segment is looked at again before anything is written to it.
#[test]
fn a_free_segment_that_was_changed_is_not_taken() {
    let other = common::dir();
    drop(open(other.path()).unwrap());
    let foreign = image(other.path()).remove("0000000000000001.seg").unwrap();
    // The shortest is 8 KiB long: one that is longer, and was cut, may still be as long as that.
    let cut = |len: u64| move |file: &File| file.set_len(len).unwrap();
    let put = |at: u64, bytes: Vec<u8>| move |file: &File| file.write_all_at(&bytes, at).unwrap();
    type Change<'c> = &'c dyn Fn(&File);
    let ways: [(DamageKind, Change<'_>); 6] = [
        (DamageKind::Length, &cut(4096)),
        (DamageKind::Length, &cut(9 << 10)),
        (DamageKind::Length, &cut(64 << 10)),
        (DamageKind::Header, &cut(100)),
        (DamageKind::Header, &put(50, vec![1])),
        (DamageKind::Foreign, &put(0, foreign[..512].to_vec())),
    ];
    for (n, (kind, change)) in ways.into_iter().enumerate() {
        let tmp = common::dir();
        let (log, _) = open(tmp.path()).unwrap();
        fill(&log);
        log.sync(log.release(log.last()).unwrap()).unwrap();
        assert_eq!(log.released(), log.last() - 1);
        for name in image(tmp.path()).into_keys() {
            // That of another log says that it is the first.
            if kind != DamageKind::Foreign || name == "0000000000000001.seg" {
                let file = File::options().write(true).open(tmp.path().join(name));
                change(&file.unwrap());
            }
        }
        // The segment that is being written has room for the release only.
        let mut error = None;
        for n in 0..20 {
            error = error.or(log.append(&[record(&payload(n, 900))]).err());
        }
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{n}");
        let damage = error.detail().and_then(|d| d.downcast_ref::<Damage>());
        assert_eq!(damage.unwrap().kind, kind, "{n}: {error}");
    }
}

/// A closing frame that was found is not said to be durable by what is written along with it: a power cut may
/// leave one and not the other, and then the log ends before, as any torn one.
#[test]
fn what_is_written_with_a_closing_frame_does_not_vouch_for_it() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    log.append_durable(&[record(&payload(1, 10))]).unwrap();
    let before = image(tmp.path());
    log.close().unwrap();
    let (log, found) = open(tmp.path()).unwrap();
    assert!(found.clean);
    log.append_durable(&[record(&payload(2, 10))]).unwrap();
    drop(log);
    let after = image(tmp.path());
    let (name, bytes) = after.first_key_value().unwrap();
    let old = &before[name];
    let at = (0..bytes.len())
        .step_by(512)
        .find(|at| old[*at..at + 512] != bytes[*at..at + 512]);
    let at = at.unwrap();
    // The block of the closing frame is lost, those behind it are not.
    let file = File::options()
        .write(true)
        .open(tmp.path().join(name))
        .unwrap();
    file.write_all_at(&old[at..at + 512], at as u64).unwrap();
    let (_, found) = open(tmp.path()).unwrap();
    assert_eq!(numbers(&found.records), [1]);
}

/// A frame says of all that was synced before it that it was, the closing frame of an earlier run among it.
#[test]
fn a_new_segment_says_that_the_closing_frame_before_it_is_durable() {
    let tmp = common::dir();
    let options = LogOptions::new().segment_len(8192);
    let (log, _) = options.open(dir(tmp.path())).unwrap();
    log.append_durable(&[record(&payload(1, 10))]).unwrap();
    log.close().unwrap();
    let (log, found) = options.open(dir(tmp.path())).unwrap();
    // Too long for what is left of the first segment.
    let long = log.max_payload() as usize;
    log.append_durable(&[record(&payload(2, long))]).unwrap();
    let images = image(tmp.path());
    let (_, newest) = images.last_key_value().unwrap();
    assert_eq!(images.len(), 2);
    let durable = newest[512 + 32..512 + 40].try_into().unwrap();
    assert_eq!(u64::from_le_bytes(durable), found.last);
}

/// Somebody else's file that has the name of the next segment.
#[test]
fn a_new_segment_replaces_nothing() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let theirs = tmp.path().join("0000000000000002.seg");
    std::fs::write(&theirs, "theirs").unwrap();
    for n in 0..12 {
        log.append_durable(&[record(&payload(n, 900))]).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    assert!(image(tmp.path()).len() > 2);
}

/// Something else that has the name of a segment is told, and makes nobody wait.
#[test]
fn a_segment_is_a_file() {
    let tmp = common::dir();
    let (log, _) = open(tmp.path()).unwrap();
    let mode = sys::Mode::RUSR | sys::Mode::WUSR;
    sys::mkfifoat(dir(tmp.path()), "0000000000000002.seg", mode).unwrap();
    let path = tmp.path().join("0000000000000002.seg");
    let seen = unwaited(&path, |at| inspect(&dir(at)).map(drop));
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::NotAFile);
    drop(log);
    let seen = unwaited(&path, |at| open(at).map(drop));
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::NotAFile);
}

/// What `look` says of the log that has this FIFO. Should it wait there, the FIFO is opened from the other
/// end, and that is the failure.
fn unwaited<T: Send>(fifo: &Path, look: impl FnOnce(&Path) -> T + Send) -> T {
    let (say, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Nobody hears it who has failed.
            let _ = say.send(look(fifo.parent().unwrap()));
        });
        hear.recv_timeout(FOREVER).unwrap_or_else(|_| {
            let other_end = File::options().read(true).write(true).open(fifo);
            hear.recv().unwrap();
            panic!("it waited at {other_end:?}");
        })
    })
}

/// Nor does something else that has the name of the lock make anybody wait who only looks.
#[test]
fn a_lock_that_is_a_fifo_is_looked_at() {
    let tmp = common::dir();
    drop(open(tmp.path()).unwrap());
    std::fs::remove_file(tmp.path().join("lock")).unwrap();
    let mode = sys::Mode::RUSR | sys::Mode::WUSR;
    sys::mkfifoat(dir(tmp.path()), "lock", mode).unwrap();
    let seen = unwaited(&tmp.path().join("lock"), |at| inspect(&dir(at)));
    assert!(!seen.unwrap().live);
}

/// The lock is on the file that has the name, or it keeps nobody out.
#[test]
fn a_lock_on_a_removed_file_is_none() {
    let tmp = common::dir();
    drop(open(tmp.path()).unwrap());
    let path = tmp.path().join("lock");
    let mut there = true;
    let done = hook::observe(
        move |call, _| {
            if call == "fcntl(F_OFD_SETLK)" && std::mem::take(&mut there) {
                std::fs::remove_file(&path).unwrap();
            }
        },
        || open(tmp.path()).map(drop),
    );
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Busy);
    open(tmp.path()).unwrap();
}

/// A forked child that drops its copy does not free its parent's lock: closing does no harm, a call would.
#[test]
fn a_copy_in_another_process_frees_nothing() {
    let tmp = common::dir();
    for (process, want) in [(None, 1), (Some(1), 0)] {
        let (log, _) = open(tmp.path()).unwrap();
        let (_, calls) = hook::scope(None, || {
            hook::set_process(process);
            drop(log);
            hook::set_process(None);
        });
        assert_eq!(count(&calls, "fcntl(F_OFD_SETLK, F_UNLCK)"), want);
    }
}

const AT: &str = "STEADFAST_UMASK";

/// Opens a log under the umask that this process was started with.
#[test]
fn child_with_a_umask() {
    if let Some(path) = std::env::var_os(AT) {
        drop(open(path.as_ref()).unwrap());
    }
}

/// A umask may take rights from the owner, who could not open it again, or leave them to everybody.
#[test]
fn files_have_their_rights_under_any_umask() {
    for umask in ["0777", "0"] {
        let tmp = common::dir();
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!(
                "umask {umask}; exec \"$0\" --exact poison::child_with_a_umask"
            ))
            .arg(exe)
            .env(AT, tmp.path());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let mut seen = 0;
        for entry in std::fs::read_dir(tmp.path()).unwrap() {
            let meta = entry.unwrap().metadata().unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, 0o600, "{umask}");
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
}
