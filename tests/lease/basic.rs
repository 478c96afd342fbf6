//! One holder, growing numbers, names, lists, and files that somebody replaces.

use crate::common::{self, no_child};
use crate::support::{MINUTE, file, kind, leases, take};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use steadfast::lease::{
    Fence, Holder, Lease, LeaseMode, LeaseOptions, LeaseState, Leases, MAX_LABEL, MAX_NAME,
};
use steadfast::sys::{CWD, Errno, Mode, OFlags, hook};
use steadfast::{Dir, ErrorKind, Root};

#[test]
fn one_holder_and_a_number_that_grows() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    assert_eq!(leases.current("a").unwrap(), None);
    assert_eq!(
        kind(leases.check_fence("a", Fence::new(1))),
        ErrorKind::Changed
    );
    let mut last = Fence::new(0);
    for _ in 0..20 {
        let lease = leases.try_acquire("a").unwrap();
        assert!(lease.fence() > last);
        last = lease.fence();
        assert_eq!((lease.name(), lease.mode()), (&b"a"[..], LeaseMode::Kernel));
        lease.check().unwrap();
        lease.renew().unwrap();
        assert_eq!(lease.remaining().unwrap(), None);
        assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
        assert_eq!(leases.current("a").unwrap(), Some(last));
        leases.check_fence("a", last).unwrap();
        let older = Fence::new(last.get() - 1);
        assert_eq!(kind(leases.check_fence("a", older)), ErrorKind::Fenced);
        let never = Fence::new(last.get() + 1);
        assert_eq!(kind(leases.check_fence("a", never)), ErrorKind::Changed);
        // Another name is another lease.
        let other = leases.try_acquire("b").unwrap();
        if last.get().is_multiple_of(2) {
            lease.release().unwrap();
        }
        drop(other);
        leases.check_fence("a", last).unwrap();
    }
}

#[test]
fn who_is_in_the_way_is_named() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let before = SystemTime::now() - Duration::from_secs(1);
    let options = LeaseOptions::new().label("deploy \"x\"");
    let lease = options.try_acquire(&leases, "a").unwrap();
    let error = leases.try_acquire("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.path().unwrap(), "a");
    let holder = error.detail().unwrap().downcast_ref::<Holder>().unwrap();
    assert_eq!(holder.pid(), std::process::id());
    assert_eq!(holder.label(), b"deploy \"x\"");
    assert_eq!(
        (holder.fence(), holder.mode()),
        (lease.fence(), LeaseMode::Kernel)
    );
    assert!(holder.since() >= before && holder.since() <= SystemTime::now());
    let text = error.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(text.contains("deploy"), "{text}");
}

#[test]
fn any_bytes_are_a_name_and_are_listed() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let longest = [0xff; MAX_NAME];
    let names: [&[u8]; 9] = [
        b"", b".", b"..", b"a/b", b"\0\n", b"Deploy", b"deploy", b"%41", &longest,
    ];
    let held: Vec<Lease> = names
        .iter()
        .map(|n| leases.try_acquire(n).unwrap())
        .collect();
    let options = LeaseOptions::new().ttl(MINUTE).label("l");
    let timed = options.try_acquire(&leases, "timed").unwrap();
    drop(leases.try_acquire("free").unwrap());
    // What is none of ours is not listed.
    for other in ["lease-A", "lease", "other", "take-0000000000000002-a"] {
        fs::write(tmp.path().join("leases").join(other), "x").unwrap();
    }
    let list = leases.list().unwrap();
    assert_eq!(list.len(), names.len() + 2);
    for lease in held.iter().chain([&timed]) {
        let info = list.iter().find(|i| i.name() == lease.name()).unwrap();
        assert_eq!(info.state(), LeaseState::Live);
        assert_eq!(info.fence(), Some(lease.fence()));
        assert_eq!(info.holder().unwrap().mode(), lease.mode());
    }
    let free = list.iter().find(|i| i.name() == b"free").unwrap();
    assert_eq!(free.state(), LeaseState::Free);
    assert_eq!(free.holder().unwrap().pid(), std::process::id());
    drop((held, timed));
    assert!(
        leases
            .list()
            .unwrap()
            .iter()
            .all(|i| i.state() == LeaseState::Free)
    );

    let too_long = leases.try_acquire([b'a'; MAX_NAME + 1]).unwrap_err();
    assert_eq!(too_long.errno(), Some(Errno::NAMETOOLONG));
    for wrong in [
        LeaseOptions::new().label([b'l'; MAX_LABEL + 1]),
        LeaseOptions::new().ttl(Duration::ZERO),
    ] {
        assert_eq!(
            kind(wrong.try_acquire(&leases, "a")),
            ErrorKind::InvalidInput
        );
    }
    let all = LeaseOptions::new()
        .label([0xff; MAX_LABEL])
        .ttl(Duration::MAX);
    let lease = all.try_acquire(&leases, longest).unwrap();
    lease.check().unwrap();
    lease.renew().unwrap();
}

#[test]
fn the_folder_and_its_files_are_private() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let lease = leases.try_acquire("a").unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&tmp.path().join("leases")), 0o700);
    assert_eq!(mode(&file(tmp.path(), "a")), 0o600);
    let names: Vec<_> = fs::read_dir(tmp.path().join("leases"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["lease-a"]);
    assert!(names[0].as_bytes().is_ascii());
    drop(lease);
}

/// Whoever replaces the file makes a second lock: the holder of the first learns it.
#[test]
fn a_lease_file_that_is_replaced_is_noticed() {
    // Else a child between fork and exec has the file open for writing.
    let _alone = no_child();
    let tmp = common::dir();
    let leases = leases(tmp.path());
    for options in [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)] {
        let lease = options.try_acquire(&leases, "a").unwrap();
        let (here, away) = (file(tmp.path(), "a"), tmp.path().join("away"));
        fs::rename(&here, &away).unwrap();
        assert_eq!(kind(lease.check()), ErrorKind::Changed);
        assert_eq!(kind(lease.renew()), ErrorKind::Changed);
        let mut published = false;
        let done = lease.with_publication(|_| {
            published = true;
            Ok(())
        });
        assert_eq!((kind(done), published), (ErrorKind::Changed, false));
        // A copy is another file.
        fs::copy(&away, &here).unwrap();
        assert_eq!(kind(lease.guard()), ErrorKind::Changed);
        fs::remove_file(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        lease.check().unwrap();
        // So is that of another folder.
        let (folder, moved) = (tmp.path().join("leases"), tmp.path().join("moved"));
        fs::rename(&folder, &moved).unwrap();
        assert_eq!(kind(lease.check()), ErrorKind::Changed);
        fs::rename(&moved, &folder).unwrap();
        lease.with_publication(|_| Ok(())).unwrap();
        lease.release().unwrap();
    }
}

/// The same between opening and locking it: the lock of a file that nobody finds any more is none.
#[test]
fn a_lease_file_that_is_replaced_while_it_is_locked_is_not_used() {
    // Else a child between fork and exec has the file open for writing.
    let _alone = no_child();
    let tmp = common::dir();
    let leases = leases(tmp.path());
    for options in [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)] {
        drop(options.try_acquire(&leases, "a").unwrap());
        let (here, mut done) = (file(tmp.path(), "a"), false);
        let observer = move |name, _| {
            if name == "fcntl(F_OFD_SETLK)" && !std::mem::replace(&mut done, true) {
                let bytes = fs::read(&here).unwrap();
                fs::remove_file(&here).unwrap();
                fs::write(&here, bytes).unwrap();
            }
        };
        let lease = hook::observe(observer, || options.try_acquire(&leases, "a")).unwrap();
        lease.check().unwrap();
        assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
    }
}

/// A file server that was started anew may have given the lock to somebody else.
#[test]
fn a_lock_that_is_lost_is_noticed() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let lease = leases.try_acquire("a").unwrap();
    for errno in [Errno::AGAIN, Errno::ACCESS] {
        hook::deny(&[("fcntl(F_OFD_SETLK)", errno)], || {
            assert_eq!(kind(lease.check()), ErrorKind::Fenced);
            assert_eq!(kind(lease.guard()), ErrorKind::Fenced);
        });
    }
    lease.check().unwrap();
}

#[test]
fn something_else_in_the_place_of_a_lease_or_the_folder_is_refused() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let at = |name| file(tmp.path(), name);
    fs::create_dir(at("dir")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    drop(leases.try_acquire("real").unwrap());
    std::os::unix::fs::symlink("lease-real", at("link")).unwrap();
    assert_eq!(kind(leases.try_acquire("dir")), ErrorKind::IsADirectory);
    assert_eq!(kind(leases.try_acquire("fifo")), ErrorKind::NotAFile);
    assert_eq!(kind(leases.try_acquire("link")), ErrorKind::SymlinkLoop);
    let damaged = leases.list().unwrap();
    let damaged = damaged.iter().filter(|i| i.state() == LeaseState::Damaged);
    assert_eq!(damaged.count(), 3);

    let other = common::dir();
    std::os::unix::fs::symlink(tmp.path().join("leases"), other.path().join("leases")).unwrap();
    assert!(Leases::open(Root::open(other.path()).unwrap().dir()).is_err());
}

#[test]
fn handles_may_cross_threads_and_need_no_right_to_read_the_directory() {
    fn both<T: Send + Sync>() {}
    both::<Leases>();
    both::<Lease>();
    let tmp = common::dir();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let place = steadfast::sys::openat(CWD, tmp.path(), flags, Mode::empty()).unwrap();
    let leases = Leases::open(&Dir::from(place)).unwrap();
    leases.try_acquire("a").unwrap().release().unwrap();
}

#[test]
fn threads_are_alone_with_a_lease() {
    let tmp = common::dir();
    let (inside, last) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|s| {
        for thread in 0..6 {
            let (inside, last, dir) = (&inside, &last, tmp.path());
            s.spawn(move || {
                // Half of them share a handle's settings, all share the file.
                let leases = leases(dir);
                let options = match thread % 2 {
                    0 => LeaseOptions::new(),
                    _ => LeaseOptions::new().ttl(MINUTE),
                };
                for _ in 0..15 {
                    let lease = options.acquire(&leases, "a", common::FOREVER).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    let fence = lease.fence().get();
                    assert!(last.swap(fence, Ordering::SeqCst) < fence);
                    let shown = lease.with_publication(|f| Ok(f.get())).unwrap();
                    assert_eq!(shown, fence);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lease.release().unwrap();
                }
            });
        }
    });
}

/// A sweep asks the kernel whether anybody writes a file, and who opens it for writing meanwhile is told
/// `EAGAIN`: that passes, and is waited for.
#[test]
fn a_file_that_somebody_makes_sure_of_is_busy_for_a_moment() {
    // Else a child between fork and exec has the file open for writing.
    let _alone = no_child();
    let tmp = common::dir();
    let leases = leases(tmp.path());
    for options in [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)] {
        options
            .try_acquire(&leases, "a")
            .unwrap()
            .release()
            .unwrap();
        let file = std::os::fd::OwnedFd::from(fs::File::open(file(tmp.path(), "a")).unwrap());
        let sure = match steadfast::sys::lease_free_of_writers(&file) {
            Ok(sure) => sure,
            Err(e) => {
                let test = "a_file_that_somebody_makes_sure_of_is_busy_for_a_moment";
                return common::skipped(test, format_args!("no read lease here: {e}"));
            }
        };
        assert_eq!(kind(options.try_acquire(&leases, "a")), ErrorKind::Busy);
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| options.acquire(&leases, "a", common::FOREVER));
            drop(sure);
            waiting.join().unwrap().unwrap().release().unwrap();
        });
    }
}

#[test]
fn waiting_ends_with_the_holder_or_the_time() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let held = leases.try_acquire("a").unwrap();
    assert_eq!(
        kind(leases.acquire("a", Duration::from_millis(30))),
        ErrorKind::Busy
    );
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        take(&leases, "a").check().unwrap();
    });
}

/// The calls of a granted lease, so that none comes in unnoticed.
#[test]
fn a_lease_that_exists_costs_one_sync() {
    let _no_child = no_child();
    let tmp = common::dir();
    let leases = leases(tmp.path());
    drop(leases.try_acquire("a").unwrap());
    let (lease, calls) = hook::scope(None, || leases.try_acquire("a").unwrap());
    let expected = [
        "openat",
        "statx",
        "fcntl(F_OFD_SETLK)",
        "statx",
        "pread64",
        "pwrite64",
        "fdatasync",
    ];
    assert_eq!(calls, expected);
    let (done, calls) = hook::scope(None, || lease.release());
    done.unwrap();
    assert_eq!(calls, ["fcntl(F_OFD_SETLK, F_UNLCK)"]);
}
