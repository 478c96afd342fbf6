//! Every call fails once with every errno, and what a power cut finds.

use crate::common::{self, no_child};
use crate::support::{MINUTE, file, kind, leases, long};
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use steadfast::lease::{Lease, LeaseOptions, Leases};
use steadfast::sys::Errno;
use steadfast::sys::hook::{self, Action, Machine, Plan};
use steadfast::{DiskState, ErrorKind};

/// What a test does with a lease. It gives the number if it was granted one.
struct Op {
    name: &'static str,
    options: LeaseOptions,
    /// How often it was held before.
    before: u32,
    run: fn(&Leases, &LeaseOptions) -> steadfast::Result<Option<Lease>>,
}

fn acquire(leases: &Leases, options: &LeaseOptions) -> steadfast::Result<Option<Lease>> {
    options.try_acquire(leases, "a").map(Some)
}

fn ops() -> Vec<Op> {
    let kernel = LeaseOptions::new();
    let timed = LeaseOptions::new().ttl(MINUTE);
    let mut ops = Vec::new();
    for (options, by) in [(kernel, "by kernel"), (timed, "by time")] {
        for before in [0, 1, 2] {
            ops.push(Op {
                name: by,
                options: options.clone(),
                before,
                run: acquire,
            });
        }
    }
    ops
}

fn actions() -> Vec<Action> {
    let mut all = vec![
        Action::Fail(Errno::INTR),
        Action::Fail(Errno::IO),
        Action::FailAfter(Errno::IO),
        Action::Fail(Errno::NOSPC),
        Action::Fail(Errno::NOLCK),
    ];
    if long() {
        all.extend([
            Action::Fail(Errno::ACCESS),
            Action::Fail(Errno::MFILE),
            Action::Fail(Errno::DQUOT),
            Action::FailAfter(Errno::NOSPC),
        ]);
    }
    all
}

/// Whatever is in the way for a time is gone.
fn much_later() -> Machine {
    Machine {
        boot_id: steadfast::sys::boot_id().unwrap(),
        time_namespace: steadfast::sys::time_namespace().unwrap(),
        boottime: steadfast::sys::boottime().unwrap() + 100 * MINUTE,
    }
}

/// Takes the lease in the end, and gives its number.
fn after_all(leases: &Leases, options: &LeaseOptions, why: &str) -> u64 {
    let now = much_later();
    hook::set_machine(Some(now));
    let mut lease = options.try_acquire(leases, "a");
    if lease.is_err() {
        let boottime = now.boottime + 2 * MINUTE;
        hook::set_machine(Some(Machine { boottime, ..now }));
        lease = options.try_acquire(leases, "a");
    }
    let lease = lease.unwrap_or_else(|e| panic!("{why}: never again: {e}"));
    lease.check().unwrap();
    let number = lease.fence().get();
    drop(lease);
    hook::set_machine(None);
    number
}

fn bytes(dir: &Path) -> Option<Vec<u8>> {
    fs::read(file(dir, "a")).ok()
}

#[test]
fn every_call_of_taking_fails_in_turn() {
    let _no_child = no_child();
    let mut runs = 0;
    for (op, action) in ops()
        .iter()
        .flat_map(|op| actions().into_iter().map(move |a| (op, a)))
    {
        for at in 1.. {
            assert!(at < 200, "{}: no end", op.name);
            let tmp = common::dir();
            let leases = leases(tmp.path());
            let mut last = 0;
            for _ in 0..op.before {
                let lease = op.options.try_acquire(&leases, "a").unwrap();
                last = lease.fence().get();
                lease.release().unwrap();
            }
            let before = bytes(tmp.path());
            let plan = Some(Plan { at, action });
            let (done, seen) = hook::scope(plan, || (op.run)(&leases, &op.options));
            let Some(call) = seen.get(at as usize - 1) else {
                done.unwrap();
                break;
            };
            runs += 1;
            let why = format!("{} ({}), {call} {at}: {action:?}", op.name, op.before);
            match done {
                Ok(lease) => {
                    let lease = lease.unwrap();
                    assert!(lease.fence().get() > last, "{why}");
                    last = lease.fence().get();
                    lease.check().unwrap_or_else(|e| panic!("{why}: {e}"));
                    assert_eq!(kind(op.options.try_acquire(&leases, "a")), ErrorKind::Busy);
                    // What failed and was granted all the same had no part in the number's safety.
                    let needed = ["pwrite64", "fdatasync", "fcntl(F_OFD_SETLK)"];
                    let again = action == Action::Fail(Errno::INTR) && *call != "fdatasync";
                    assert!(again || !needed.contains(call), "{why}: granted");
                }
                Err(e) => {
                    // A call that a signal interrupts is made again, but not a sync.
                    let once = ["fsync", "fdatasync"].contains(call);
                    assert!(action != Action::Fail(Errno::INTR) || once, "{why}: {e}");
                    match e.disk_state() {
                        DiskState::Unchanged => {
                            let now = bytes(tmp.path());
                            // The first taking makes the file, in which nobody is named.
                            let made = before.is_none() && leases.current("a").unwrap().is_none();
                            assert!(now == before || made, "{why}: {e}");
                        }
                        DiskState::Indeterminate => {}
                        other => panic!("{why}: {other:?}"),
                    }
                    assert_eq!(e.path().unwrap(), "a", "{why}");
                }
            }
            let high = leases.current("a").unwrap().map_or(0, |f| f.get());
            assert!(high >= last, "{why}");
            let next = after_all(&leases, &op.options, &why);
            assert!(next > high, "{why}: {next} after {high}");
        }
    }
    println!("{runs} disturbed runs");
}

/// A failure of a call on a held lease leaves it held or given back, as it says, and costs no
/// number.
#[test]
fn every_call_on_a_held_lease_fails_in_turn() {
    let _no_child = no_child();
    type Run = fn(Lease) -> (steadfast::Result<()>, Option<Lease>);
    let runs: [(&str, Run); 4] = [
        ("check", |l| (l.check(), Some(l))),
        ("renew", |l| (l.renew(), Some(l))),
        ("publish", |l| (l.with_publication(|_| Ok(())), Some(l))),
        ("release", |l| (l.release(), None)),
    ];
    let all = [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)];
    for (options, (name, run)) in all.iter().flat_map(|o| runs.iter().map(move |r| (o, r))) {
        for action in actions() {
            for at in 1.. {
                assert!(at < 200, "{name}: no end");
                let tmp = common::dir();
                let leases = leases(tmp.path());
                let lease = options.try_acquire(&leases, "a").unwrap();
                let number = lease.fence();
                let plan = Some(Plan { at, action });
                let ((done, lease), seen) = hook::scope(plan, || run(lease));
                let Some(call) = seen.get(at as usize - 1) else {
                    done.unwrap();
                    break;
                };
                let why = format!("{name} {options:?}, {call} {at}: {action:?}");
                if let Err(e) = &done {
                    let once = *call == "fdatasync";
                    assert!(action != Action::Fail(Errno::INTR) || once, "{why}: {e}");
                    let unknown = e.disk_state() == DiskState::Indeterminate;
                    assert!(!unknown || *name == "renew", "{why}: {e}");
                    assert_eq!(e.path().unwrap(), "a", "{why}");
                }
                if let Some(lease) = lease {
                    lease.check().unwrap_or_else(|e| panic!("{why}: {e}"));
                    assert_eq!(
                        kind(options.try_acquire(&leases, "a")),
                        ErrorKind::Busy,
                        "{why}"
                    );
                    // One more renewal heals what the failed one left.
                    lease.renew().unwrap_or_else(|e| panic!("{why}: {e}"));
                }
                assert_eq!(leases.current("a").unwrap(), Some(number), "{why}");
                let next = after_all(&leases, options, &why);
                assert!(next > number.get(), "{why}");
            }
        }
    }
}

/// What is durable when a lease is granted: the names of folder and file before the first number is
/// written, and each number before it is granted.
#[test]
fn the_number_is_synced_before_it_is_granted() {
    for options in [LeaseOptions::new(), LeaseOptions::new().ttl(MINUTE)] {
        let tmp = common::dir();
        let leases = leases(tmp.path());
        let ino = |path: &Path| fs::metadata(path).unwrap().ino();
        for round in 0..3 {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let log = seen.clone();
            let lease = hook::observe(
                move |name, synced| log.borrow_mut().push((name, synced.map(|s| s.1))),
                || options.try_acquire(&leases, "a").unwrap(),
            );
            let seen = seen.borrow();
            let written = seen.iter().rposition(|(n, _)| *n == "pwrite64").unwrap();
            let of = Some(ino(&file(tmp.path(), "a")));
            assert!(seen[written..].contains(&("fdatasync", of)), "{seen:?}");
            let synced = |path: &Path| {
                let at = seen.iter().position(|s| *s == ("fsync", Some(ino(path))));
                at.is_some_and(|at| at < written)
            };
            let names = [tmp.path().join("leases"), tmp.path().to_owned()];
            for path in &names {
                assert_eq!(synced(path), round == 0, "{path:?}: {seen:?}");
            }
            lease.release().unwrap();
        }
    }
}

/// Somebody made the file and could not sync its name: whoever is granted the first number syncs
/// it.
#[test]
fn a_name_that_another_made_is_synced_all_the_same() {
    let [one, two] = [common::dir(), common::dir()];
    let reference = leases(one.path());
    let (_, calls) = hook::scope(None, || drop(reference.try_acquire("a").unwrap()));
    let syncs = |calls: &[&str]| calls.iter().filter(|c| **c == "fsync").count();
    // Content, folder, and what the folder is in.
    assert_eq!(syncs(&calls), 3);
    let leases = leases(two.path());
    let of_folder = calls
        .iter()
        .enumerate()
        .filter(|(_, c)| **c == "fsync")
        .nth(1);
    let plan = Plan {
        at: of_folder.unwrap().0 as u64 + 1,
        action: Action::Fail(Errno::IO),
    };
    let (done, _) = hook::scope(Some(plan), || leases.try_acquire("a"));
    assert_eq!(done.unwrap_err().system_call(), Some("fsync"));
    assert!(file(two.path(), "a").exists());
    let (_, first) = hook::scope(None, || drop(leases.try_acquire("a").unwrap()));
    let (_, second) = hook::scope(None, || drop(leases.try_acquire("a").unwrap()));
    assert_eq!((syncs(&first), syncs(&second)), (2, 0));
}

/// A power cut in the middle of writing a number: any part of it may be there.
#[test]
fn a_number_that_is_torn_was_not_granted() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let path = file(tmp.path(), "a");
    let mut last = 0;
    for cut in (0..512).step_by(37) {
        last = leases.try_acquire("a").unwrap().fence().get().max(last);
        let before = fs::read(&path).unwrap();
        let torn = leases.try_acquire("a").unwrap().fence().get();
        let mut bytes = fs::read(&path).unwrap();
        let slot = (torn % 2) as usize * 4096;
        bytes[slot + cut..slot + 512].copy_from_slice(&before[slot + cut..slot + 512]);
        fs::write(&path, &bytes).unwrap();
        let next = leases.try_acquire("a").unwrap().fence().get();
        assert!(next > last, "{cut}: {next} after {last}");
    }
}
