//! Holders in other processes: killed, stopped, forked.

use crate::common::{self, Random, no_child, wait_until};
use crate::support::{MINUTE, child_dir, file, kind, leases, output, spawn, take, wait_for};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, getpid, kill_process};
use rustix::process::{pidfd_getfd, pidfd_open};
use std::fs;
use std::io::Write;
use std::process::Child;
use std::time::Duration;
use steadfast::ErrorKind;
use steadfast::lease::{LeaseOptions, LeaseState};
use steadfast::sys::hook::{self, Machine};
use steadfast::sys::{OwnedFd, boot_id, boottime, time_namespace};

fn say(what: &str) {
    println!("\n{what}");
    std::io::stdout().flush().unwrap();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Run as a child: holds the lease until it is killed.
#[test]
fn child_that_holds() {
    let Some(dir) = child_dir() else { return };
    let leases = leases(&dir);
    let _held = take(&leases, "a");
    say("holding");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_killed_holder_frees_its_lease_at_once_and_a_stopped_one_never() {
    let tmp = common::dir();
    let leases = leases(tmp.path());
    let first = leases.try_acquire("a").unwrap().fence();
    let mut child = spawn("processes::child_that_holds", tmp.path(), "");
    wait_for(&mut child, "holding");
    let held = leases.current("a").unwrap().unwrap();
    assert!(held > first);
    signal(&child, Signal::STOP);
    for _ in 0..20 {
        assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
    }
    // However long: no clock is asked.
    hook::set_machine(Some(Machine {
        boot_id: Some([9; 16]),
        time_namespace: None,
        boottime: Duration::from_secs(1 << 32),
    }));
    let timed = LeaseOptions::new().ttl(Duration::from_nanos(1));
    assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
    assert_eq!(kind(timed.try_acquire(&leases, "a")), ErrorKind::Busy);
    hook::set_machine(None);
    let info = leases.list().unwrap().remove(0);
    assert_eq!(info.state(), LeaseState::Live);
    assert_eq!(info.holder().unwrap().pid(), child.id());
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let next = leases.try_acquire("a").unwrap();
    assert!(next.fence() > held);
}

/// Run as a child: takes and gives back, and writes down what it was granted while it has it.
#[test]
fn child_that_works() {
    let Some(dir) = child_dir() else { return };
    let leases = leases(&dir);
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    for _ in 0..100_000 {
        let lease = take(&leases, "a");
        // One write each, which a kill does not tear.
        log.write_all(format!("+{}\n", lease.fence()).as_bytes())
            .unwrap();
        log.write_all(format!("-{}\n", lease.fence()).as_bytes())
            .unwrap();
        lease.release().unwrap();
        if dir.join("stop").exists() {
            return;
        }
    }
}

#[test]
fn numbers_grow_through_a_thousand_holders_and_any_kill() {
    let wanted = if crate::support::long() { 20_000 } else { 1000 };
    let tmp = common::dir();
    fs::write(tmp.path().join("log"), "").unwrap();
    let start = || spawn("processes::child_that_works", tmp.path(), "");
    let mut children: Vec<Child> = (0..8).map(|_| start()).collect();
    let mut random = Random(8);
    let (mut kills, mut lines) = (0, 0);
    while lines < 2 * wanted || kills <= 10 {
        std::thread::sleep(Duration::from_millis(random.next() % 20));
        // On a busy machine a child needs longer to begin, and none would come to anything.
        wait_until("a holder", || {
            lines = fs::read_to_string(tmp.path().join("log"))
                .unwrap()
                .lines()
                .count();
            lines > kills
        });
        let child = random.below(children.len());
        children[child].kill().unwrap();
        children[child].wait().unwrap();
        children[child] = start();
        kills += 1;
    }
    fs::write(tmp.path().join("stop"), "").unwrap();
    for mut child in children {
        // So that it does not wait to be read.
        let said = output(&mut child);
        assert!(child.wait().unwrap().success(), "{said}");
    }
    let log = fs::read_to_string(tmp.path().join("log")).unwrap();
    let (mut last, mut granted) = (0, 0);
    let mut inside = None;
    for line in log.lines() {
        let (what, number) = line.split_at(1);
        let number: u64 = number.parse().unwrap();
        match what {
            // Whoever was inside before has been killed there, or was not alone.
            "+" => {
                assert!(number > last, "{number} after {last}");
                (last, inside) = (number, Some(number));
                granted += 1;
            }
            _ => assert_eq!(inside.take(), Some(number), "not alone"),
        }
    }
    println!("{granted} holders, {kills} kills");
    assert!(granted >= wanted);
    let lease = leases(tmp.path()).try_acquire("a").unwrap();
    assert!(lease.fence().get() > last);
}

/// A further descriptor of the lease's file, with the same lock: what a forked child has.
fn copy_of_descriptor(of: &std::path::Path) -> OwnedFd {
    let own = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let number = own
        .filter(|e| fs::read_link(e.path()).is_ok_and(|to| to == of))
        .map(|e| e.file_name().into_string().unwrap().parse().unwrap())
        .next();
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    pidfd_getfd(&me, number.unwrap(), PidfdGetfdFlags::empty()).unwrap()
}

/// A fork is a second value with the same descriptor, in a process with another number.
#[test]
fn a_forked_child_has_no_lease_and_ends_none() {
    // A real child of another test would be one more, until its exec.
    let _no_child = no_child();
    let tmp = common::dir();
    let dir = tmp.path().canonicalize().unwrap();
    let leases = leases(&dir);
    let lease = leases.try_acquire("a").unwrap();
    let parents = copy_of_descriptor(&file(&dir, "a"));
    hook::set_process(Some(1));
    for answer in [lease.check(), lease.renew(), lease.guard().map(drop)] {
        assert_eq!(kind(answer), ErrorKind::Fenced);
    }
    drop(lease);
    hook::set_process(None);
    assert_eq!(kind(leases.try_acquire("a")), ErrorKind::Busy);
    drop(parents);
    let lease = leases.try_acquire("a").unwrap();
    // And giving it back ends it, whatever a child still holds.
    let childs = copy_of_descriptor(&file(&dir, "a"));
    drop(lease);
    leases.try_acquire("a").unwrap().release().unwrap();
    drop(childs);

    let timed = LeaseOptions::new().ttl(MINUTE);
    let lease = timed.try_acquire(&leases, "a").unwrap();
    hook::set_process(Some(1));
    for answer in [lease.check(), lease.renew(), lease.guard().map(drop)] {
        assert_eq!(kind(answer), ErrorKind::Fenced);
    }
    drop(lease);
    hook::set_process(None);
    assert_eq!(kind(timed.try_acquire(&leases, "a")), ErrorKind::Busy);
}

/// Run as a child that is killed at one of its calls.
#[test]
fn child_that_is_killed() {
    let Some(dir) = child_dir() else { return };
    hook::arm_from_env();
    let leases = leases(&dir);
    let granted = |fence| say(&format!("granted {fence}"));
    let lease = leases.try_acquire("a").unwrap();
    granted(lease.fence());
    lease.release().unwrap();
    let lease = leases.try_acquire("a").unwrap();
    granted(lease.fence());
    lease.with_publication(|_| Ok(())).unwrap();
    drop(lease);
    let timed = LeaseOptions::new().ttl(MINUTE);
    let lease = timed.try_acquire(&leases, "a").unwrap();
    granted(lease.fence());
    lease.renew().unwrap();
    lease.release().unwrap();
    let lease = timed.try_acquire(&leases, "a").unwrap();
    granted(lease.fence());
    std::mem::forget(lease);
    say("done");
}

/// A minute and more later, on the same boot.
fn later() -> Machine {
    Machine {
        boot_id: boot_id().unwrap(),
        time_namespace: time_namespace().unwrap(),
        boottime: boottime().unwrap() + Duration::from_secs(3600),
    }
}

#[test]
fn killed_at_every_call() {
    let mut kills = 0;
    for side in ["before", "after"] {
        for at in 1.. {
            assert!(at < 500, "no end");
            let tmp = common::dir();
            let plan = format!("stop-{side}:{at}");
            let mut child = spawn("processes::child_that_is_killed", tmp.path(), &plan);
            let said = output(&mut child);
            let ended = child.wait().unwrap();
            let done = said.contains("done");
            assert_eq!(done, ended.success(), "{plan}: {said}");
            let numbers = said.lines().filter_map(|l| l.strip_prefix("granted "));
            let numbers: Vec<u64> = numbers.map(|n| n.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{plan}: {numbers:?}");
            let last = numbers.last().copied().unwrap_or(0);

            let leases = leases(tmp.path());
            let seen = leases.current("a").unwrap().map_or(0, |f| f.get());
            assert!(seen >= last, "{plan}: {seen} after {numbers:?}");
            // By the kernel's lock it is free at once. By time it is free later, and so is an
            // announced number.
            let lease = match numbers.len() {
                0 | 1 => leases.try_acquire("a"),
                _ => {
                    let timed = LeaseOptions::new().ttl(MINUTE);
                    let first = later();
                    hook::set_machine(Some(first));
                    let lease = timed.try_acquire(&leases, "a").or_else(|e| {
                        assert_eq!(e.kind(), ErrorKind::Busy);
                        let boottime = first.boottime + 2 * MINUTE;
                        hook::set_machine(Some(Machine { boottime, ..first }));
                        timed.try_acquire(&leases, "a")
                    });
                    lease.inspect(|lease| lease.check().unwrap())
                }
            };
            let lease = lease.unwrap_or_else(|e| panic!("{plan}: {numbers:?}: {e}"));
            assert!(lease.fence().get() > seen, "{plan}");
            drop(lease);
            hook::set_machine(None);
            let left: Vec<_> = fs::read_dir(tmp.path().join("leases")).unwrap().collect();
            assert_eq!(left.len(), 1, "{plan}: {left:?}");
            if done {
                break;
            }
            kills += 1;
        }
    }
    println!("{kills} processes killed");
    assert!(kills > 100);
}
