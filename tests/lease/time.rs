//! Leases that end by time, on machines whose clocks the test sets.

use crate::common;
use crate::support::{file, kind, leases, machine, on};
use std::fs;
use std::path::Path;
use std::time::Duration;
use steadfast::lease::{Fence, Lease, LeaseMode, LeaseOptions, LeaseState, Leases};
use steadfast::sys::hook::{self, Machine};
use steadfast::{ErrorKind, Root};

const TTL: Duration = Duration::from_secs(16);

fn timed() -> LeaseOptions {
    LeaseOptions::new().ttl(TTL)
}

fn try_on(machine: Machine, leases: &Leases) -> steadfast::Result<Lease> {
    on(machine, || timed().try_acquire(leases, "a"))
}

/// Nobody can publish under it, and nothing brings it back.
fn lost(lease: &Lease, why: ErrorKind) {
    assert_eq!(kind(lease.check()), why);
    assert_eq!(kind(lease.renew()), why);
    assert_eq!(kind(lease.guard()), why);
    let mut called = false;
    let done = lease.with_publication(|_| {
        called = true;
        Ok(())
    });
    assert_eq!((kind(done), called), (why, false));
}

fn state(leases: &Leases) -> LeaseState {
    leases.list().unwrap()[0].state()
}

#[test]
fn on_one_boot_the_clock_decides_and_renewing_moves_the_end() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let at = |seconds| machine(1, seconds);
    let lease = try_on(at(100), &leases).unwrap();
    assert_eq!(lease.mode(), LeaseMode::Ttl(TTL));
    on(at(110), || {
        assert_eq!(lease.remaining().unwrap(), Some(Duration::from_secs(6)));
        lease.check().unwrap();
        lease.renew().unwrap();
        assert_eq!(lease.remaining().unwrap(), Some(TTL));
    });
    assert_eq!(kind(try_on(at(125), &leases)), ErrorKind::Busy);
    on(at(125), || {
        lease.check().unwrap();
        assert_eq!(state(&leases), LeaseState::Live);
        assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
    });
    on(at(126), || {
        assert_eq!(state(&leases), LeaseState::Free);
        lost(&lease, ErrorKind::Expired);
    });
    let next = try_on(at(126), &leases).unwrap();
    assert!(next.fence() > lease.fence());
    on(at(127), || {
        lost(&lease, ErrorKind::Expired);
        // Its end does no harm to the next one.
        drop(lease);
        next.check().unwrap();
        next.release().unwrap();
        assert_eq!(state(&leases), LeaseState::Free);
        drop(leases.try_acquire("a").unwrap());
    });
}

/// What is given back is free at once, for everybody.
#[test]
fn what_is_given_back_is_free_on_every_machine() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    for release in [true, false] {
        let lease = try_on(machine(1, 100), &leases).unwrap();
        on(machine(1, 101), || match release {
            true => lease.release().unwrap(),
            false => drop(lease),
        });
        on(machine(2, 5), || {
            try_on(machine(2, 5), &leases).unwrap().release().unwrap()
        });
    }
    let lease = try_on(machine(1, 100), &leases).unwrap();
    let late = on(machine(1, 200), || lease.release());
    assert_eq!(kind(late), ErrorKind::Expired);
}

/// Another clock: the lease must be seen unchanged for as long as it lasts, and a sixteenth longer.
#[test]
fn on_another_clock_only_watching_tells() {
    let others = [
        machine(2, 0),
        Machine {
            boot_id: None,
            ..machine(1, 0)
        },
        Machine {
            time_namespace: Some(8),
            ..machine(1, 0)
        },
        Machine {
            time_namespace: None,
            ..machine(1, 0)
        },
    ];
    for (other, start) in others.into_iter().flat_map(|m| [(m, 0), (m, 1_000_000)]) {
        let at = |seconds: u64| Machine {
            boottime: Duration::from_secs(start + seconds),
            ..other
        };
        let tmp = common::dir();
        let leases = leases(tmp.path());
        let lease = try_on(machine(1, 500), &leases).unwrap();
        assert_eq!(kind(try_on(at(0), &leases)), ErrorKind::Busy);
        assert_eq!(on(at(0), || state(&leases)), LeaseState::Unknown);
        // A lease that is held by the kernel's lock is taken no earlier.
        assert_eq!(
            kind(on(at(15), || leases.try_acquire("a"))),
            ErrorKind::Busy
        );
        on(machine(1, 510), || lease.renew().unwrap());
        // The watch begins anew.
        assert_eq!(kind(try_on(at(16), &leases)), ErrorKind::Busy);
        assert_eq!(kind(try_on(at(32), &leases)), ErrorKind::Busy);
        // Another process has not watched.
        let fresh = crate::support::leases(tmp.path());
        assert_eq!(kind(try_on(at(100), &fresh)), ErrorKind::Busy);
        let next = try_on(at(33), &leases).unwrap();
        assert!(next.fence() > lease.fence());
        // The holder was suspended, and its own clock with it.
        on(machine(1, 511), || {
            lost(&lease, ErrorKind::Fenced);
            let refused = leases.check_fence("a", lease.fence());
            assert_eq!(kind(refused), ErrorKind::Fenced);
            drop(lease);
        });
        on(at(34), || next.check().unwrap());
    }
}

/// A reboot: the same machine, another boot, and a clock that begins again.
#[test]
fn after_a_reboot_an_end_that_is_far_away_is_not_waited_for() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    drop(try_on(machine(1, 1_000_000), &leases).map(std::mem::forget));
    assert_eq!(kind(try_on(machine(2, 10), &leases)), ErrorKind::Busy);
    assert_eq!(kind(try_on(machine(2, 26), &leases)), ErrorKind::Busy);
    drop(try_on(machine(2, 27), &leases).unwrap());
}

/// Two machines with one boot id: a clock that cannot have set the end is not believed.
#[test]
fn an_end_that_this_clock_cannot_have_set_is_watched() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let lease = try_on(machine(1, 1_000_000), &leases).unwrap();
    assert_eq!(kind(try_on(machine(1, 10), &leases)), ErrorKind::Busy);
    drop(try_on(machine(1, 27), &leases).unwrap());
    std::mem::forget(lease);
}

/// Among the processes of one kernel the publication is exact: the lease does not pass on before
/// the guard is gone, though its time is up.
#[test]
fn a_guard_holds_the_lease_past_its_end() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let root = Root::open(tmp.path()).unwrap();
    let write = |text: &str| {
        let options = steadfast::publish::FileOptions::new();
        options.write(&root, "site", text)
    };
    let lease = try_on(machine(1, 100), &leases).unwrap();
    let guard = on(machine(1, 115), || lease.guard()).unwrap();
    assert!(guard.locks());
    assert_eq!(guard.fence(), lease.fence());
    assert_eq!(kind(try_on(machine(1, 117), &leases)), ErrorKind::Busy);
    write("first").unwrap();
    assert_eq!(
        kind(on(machine(1, 117), || guard.check())),
        ErrorKind::Expired
    );
    drop(guard);
    let next = try_on(machine(1, 117), &leases).unwrap();
    on(machine(1, 118), || {
        next.with_publication(|_| write("second")).unwrap();
        let late = lease.with_publication(|_| write("late"));
        assert_eq!(kind(late), ErrorKind::Expired);
    });
    assert_eq!(fs::read(tmp.path().join("site")).unwrap(), b"second");
}

/// A holder that renews after its end would bring back a lease that another may have.
#[test]
fn what_is_over_stays_over_though_nobody_took_it() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let lease = try_on(machine(1, 100), &leases).unwrap();
    on(machine(1, 116), || lost(&lease, ErrorKind::Expired));
    on(machine(1, 9000), || lost(&lease, ErrorKind::Expired));
    let bytes = fs::read(file(tmp.path(), "a")).unwrap();
    on(machine(1, 9000), || drop(lease));
    assert_eq!(fs::read(file(tmp.path(), "a")).unwrap(), bytes);
}

/// The clock runs while the lease is taken or renewed: what is over by then is not held.
#[test]
fn time_that_passes_during_a_call_counts() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let slow = |call: &'static str, seconds: u64, f: &dyn Fn() -> steadfast::Result<()>| {
        let observer = move |name, _| {
            if name == call {
                hook::set_machine(Some(machine(1, seconds)));
            }
        };
        on(machine(1, 100), || hook::observe(observer, f))
    };
    let short = LeaseOptions::new().ttl(Duration::from_secs(4));
    let take = |options: &LeaseOptions| options.try_acquire(&leases, "a").map(drop);
    assert_eq!(
        kind(slow("fdatasync", 104, &|| take(&short))),
        ErrorKind::Expired
    );
    // Nobody has to wait for it.
    on(machine(1, 100), || take(&short)).unwrap();
    // Others do not wait for longer than this for whoever announces a number.
    assert_eq!(
        kind(slow("fdatasync", 106, &|| take(&timed()))),
        ErrorKind::Busy
    );
    slow("fdatasync", 105, &|| take(&timed())).unwrap();
    let lease = try_on(machine(1, 100), &leases).unwrap();
    assert_eq!(
        kind(slow("pread64", 116, &|| lease.check())),
        ErrorKind::Expired
    );
    on(machine(1, 100), || lease.check()).unwrap();
    assert_eq!(
        kind(slow("fdatasync", 116, &|| lease.renew())),
        ErrorKind::Expired
    );
}

fn mark(dir: &Path, fence: u64) -> std::path::PathBuf {
    dir.join("leases").join(format!("take-{fence:016x}-a"))
}

/// A taker on another machine, which no lock reaches: it has announced the next number.
#[test]
fn an_announced_number_is_waited_for_and_then_passed_over() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let at = |seconds| machine(1, seconds);
    let first = try_on(at(0), &leases).unwrap();
    let taken = first.fence().get();
    on(at(1), || first.release().unwrap());
    fs::write(mark(tmp.path(), taken + 1), "").unwrap();
    assert_eq!(kind(try_on(at(2), &leases)), ErrorKind::Busy);
    assert_eq!(kind(try_on(at(11), &leases)), ErrorKind::Busy);
    assert!(mark(tmp.path(), taken + 1).exists());
    let next = try_on(at(12), &leases).unwrap();
    assert_eq!(next.fence().get(), taken + 2);
    // Nothing of it is left, and the numbers go on.
    on(at(13), || next.release().unwrap());
    assert_eq!(fs::read_dir(tmp.path().join("leases")).unwrap().count(), 1);
    assert_eq!(try_on(at(14), &leases).unwrap().fence().get(), taken + 3);
}

/// Another machine takes the lease between the look at the file and the announcement of the number.
#[test]
fn a_faster_taker_on_another_machine_is_not_written_over() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    on(machine(1, 0), || {
        drop(try_on(machine(1, 0), &leases).unwrap())
    });
    let path = file(tmp.path(), "a");
    let before = fs::read(&path).unwrap();
    let faster = try_on(machine(2, 50), &leases).unwrap();
    let after = fs::read(&path).unwrap();
    for call in ["clock_gettime", "getrandom"] {
        fs::write(&path, &before).unwrap();
        let (at, bytes, mut done) = (path.clone(), after.clone(), false);
        let result = hook::observe(
            move |name, _| {
                if name == call && !std::mem::replace(&mut done, true) {
                    fs::write(&at, &bytes).unwrap();
                }
            },
            || try_on(machine(1, 10), &leases),
        );
        assert_eq!(kind(result), ErrorKind::Busy);
        assert_eq!(fs::read(&path).unwrap(), after);
        assert_eq!(fs::read_dir(tmp.path().join("leases")).unwrap().count(), 1);
    }
    on(machine(2, 51), || faster.check()).unwrap();
    // And one that writes after everybody had to give it up: its own writing is looked at again.
    fs::write(&path, &before).unwrap();
    let (at, bytes) = (path.clone(), after.clone());
    let result = hook::observe(
        move |name, _| {
            if name == "fdatasync" {
                fs::write(&at, &bytes).unwrap();
            }
        },
        || try_on(machine(1, 10), &leases),
    );
    assert_eq!(kind(result), ErrorKind::Busy);
    assert_eq!(fs::read(&path).unwrap(), after);
    on(machine(2, 52), || faster.check()).unwrap();
}

/// A holder on another machine that renews too late writes over its own record, never over the next
/// number.
#[test]
fn a_late_renewal_takes_nothing_back() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let path = file(tmp.path(), "a");
    let late = try_on(machine(1, 0), &leases).unwrap();
    let before = fs::read(&path).unwrap();
    on(machine(1, 5), || late.renew().unwrap());
    let renewed = fs::read(&path).unwrap();
    // What its renewal writes, and where.
    let from = (0..before.len())
        .find(|i| before[*i] != renewed[*i])
        .unwrap()
        / 4096
        * 4096;
    let next = try_on(machine(1, 100), &leases).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[from..from + 512].copy_from_slice(&renewed[from..from + 512]);
    fs::write(&path, bytes).unwrap();
    on(machine(1, 101), || {
        next.check().unwrap();
        assert_eq!(leases.current("a").unwrap(), Some(next.fence()));
        drop(late);
        next.release().unwrap();
    });
    assert!(try_on(machine(1, 102), &leases).unwrap().fence() > Fence::new(3));
}
