//! Claims: the kernel's lock table against a model, and what becomes of a holder that dies.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

use proptest::prelude::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use steadfast::claim::{Claim, ClaimPath, Claims, Want};
use steadfast::sys::hook::{self, Action, Plan};
use steadfast::sys::{Errno, OFlags};
use steadfast::{Dir, ErrorKind, Root};

fn table(dir: &std::path::Path) -> Claims {
    Claims::open(Root::open(dir).unwrap().dir()).unwrap()
}

fn shared(path: &str) -> Want {
    Want::shared(ClaimPath::new(path).unwrap())
}

fn exclusive(path: &str) -> Want {
    Want::exclusive(ClaimPath::new(path).unwrap())
}

fn busy<T: std::fmt::Debug>(result: steadfast::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(e) if e.kind() == ErrorKind::Busy => true,
        Err(e) => panic!("{e}"),
    }
}

/// A FIFO can be opened as the lock file is, and has no locks that last.
#[test]
fn the_lock_file_is_a_file() {
    let tmp = common::dir();
    let root = Root::open(tmp.path()).unwrap();
    let mode = steadfast::sys::Mode::RUSR | steadfast::sys::Mode::WUSR;
    steadfast::sys::mkfifoat(&root, "claims", mode).unwrap();
    let error = Claims::open(root.dir()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAFile);
}

/// A forked child that drops its copy gives nothing up: closing does no harm, a call would.
#[test]
fn a_copy_in_another_process_gives_nothing_up() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let unlocks = |calls: &[&str]| calls.iter().filter(|c| c.contains("F_UNLCK")).count();
    for (process, want) in [(None, 1), (Some(1), 0)] {
        let held = claims.try_claim(&[exclusive("a")]).unwrap();
        let (_, calls) = hook::scope(None, || {
            hook::set_process(process);
            drop(held);
            hook::set_process(None);
        });
        assert_eq!(unlocks(&calls), want, "{calls:?}");
    }
}

#[test]
fn trees_exclude_what_is_in_them_and_above() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let held = claims.try_claim(&[exclusive("a/b")]).unwrap();
    for want in ["", "a", "a/b", "a/b/c", "a/b/c/d"] {
        assert!(busy(claims.try_claim(&[exclusive(want)])), "{want}");
        assert!(busy(claims.try_claim(&[shared(want)])), "{want}");
    }
    for want in ["a/c", "b", "ab", "a/bb", "b/a/b"] {
        assert!(!busy(claims.try_claim(&[exclusive(want)])), "{want}");
    }
    let error = claims
        .try_claim(&[exclusive("c"), shared("a/b/c")])
        .unwrap_err();
    assert_eq!(error.path().unwrap(), "a/b");
    // Nothing of the failed attempt is left.
    assert!(!busy(claims.try_claim(&[exclusive("c")])));
    drop(held);
    let _readers = [
        claims.try_claim(&[shared("a")]),
        claims.try_claim(&[shared("a/b/c")]),
    ];
    assert!(busy(claims.try_claim(&[exclusive("a/x")])));
    assert!(busy(claims.try_claim(&[exclusive("")])));
    assert!(!busy(claims.try_claim(&[exclusive("b")])));
}

#[test]
fn claims_are_extended_and_strengthened_without_a_gap() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let mut one = claims.try_claim(&[shared("a"), exclusive("b/c")]).unwrap();
    let two = claims.try_claim(&[shared("a/x")]).unwrap();
    // Somebody else reads below it: it stays shared, and all else as well.
    assert!(busy(one.try_extend(&[exclusive("d"), exclusive("a")])));
    assert!(busy(claims.try_claim(&[exclusive("a")])));
    assert!(busy(claims.try_claim(&[exclusive("b")])));
    assert!(!busy(claims.try_claim(&[exclusive("d")])));
    drop(two);
    one.try_extend(&[exclusive("a"), shared("b")]).unwrap();
    assert!(busy(claims.try_claim(&[shared("a/x")])));
    assert!(busy(claims.try_claim(&[exclusive("b/other")])));
    assert!(!busy(claims.try_claim(&[shared("b/other")])));
    drop(one);
    assert!(!busy(claims.try_claim(&[exclusive("")])));
}

#[test]
fn a_failed_call_in_the_middle_takes_nothing_and_loses_nothing() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    for at in 1..20 {
        let mut held = claims.try_claim(&[shared("a/b")]).unwrap();
        let plan = Plan {
            at,
            action: Action::Fail(Errno::NOLCK),
        };
        let wants = [exclusive("a/b/c"), exclusive("x/y"), shared("z")];
        let (done, calls) = hook::scope(Some(plan), || held.try_extend(&wants));
        if calls.len() < at as usize {
            done.unwrap();
            assert!(at > 5, "{calls:?}");
            return;
        }
        assert_eq!(done.unwrap_err().errno(), Some(Errno::NOLCK));
        assert!(busy(claims.try_claim(&[exclusive("a")])), "{at}");
        for free in [exclusive("x"), exclusive("z"), shared("a/b/c")] {
            assert!(!busy(claims.try_claim(&[free])), "{at}");
        }
    }
    panic!("it never came to an end");
}

#[test]
fn a_replaced_lock_file_is_noticed() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    std::fs::rename(tmp.path().join("claims"), tmp.path().join("old")).unwrap();
    let error = claims.try_claim(&[shared("a")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    std::fs::remove_file(tmp.path().join("claims")).unwrap();
    std::fs::create_dir(tmp.path().join("claims")).unwrap();
    assert!(Claims::open(Root::open(tmp.path()).unwrap().dir()).is_err());
    std::fs::remove_dir(tmp.path().join("claims")).unwrap();
    std::os::unix::fs::symlink("old", tmp.path().join("claims")).unwrap();
    let error = Claims::open(Root::open(tmp.path()).unwrap().dir()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::LOOP));
    use std::os::unix::fs::MetadataExt;
    let mode = std::fs::metadata(tmp.path().join("old")).unwrap().mode();
    assert_eq!(mode & 0o177, 0);
}

#[test]
fn waiting_ends_with_the_holder_or_the_time() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let held = claims.try_claim(&[exclusive("a")]).unwrap();
    assert!(busy(
        claims.claim(&[exclusive("a")], Duration::from_millis(30))
    ));
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        claims.claim(&[exclusive("a")], common::FOREVER).unwrap();
    });
}

/// Many threads, each with two paths in an order of its own: all come to an end, and never two at once.
#[test]
fn threads_exclude_each_other_and_never_lock_up() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let inside: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|s| {
        for thread in 0..8_usize {
            let (claims, inside) = (&claims, &inside);
            s.spawn(move || {
                for round in 0..100 {
                    let (a, b) = ((thread + round) % 4, (thread * 3 + round * 5) % 4);
                    let wants = [
                        exclusive(&format!("p{a}")),
                        exclusive(&format!("p{b}/deep")),
                    ];
                    let mut mine = vec![a, b];
                    mine.dedup();
                    let held = claims.claim(&wants, common::FOREVER).unwrap();
                    for path in &mine {
                        assert_eq!(inside[*path].fetch_add(1, Ordering::SeqCst), 0);
                    }
                    std::thread::yield_now();
                    for path in &mine {
                        inside[*path].fetch_sub(1, Ordering::SeqCst);
                    }
                    drop(held);
                }
            });
        }
    });
}

const CHILD: &str = "STEADFAST_TEST_CLAIM_CHILD";

/// Run by [`a_killed_holder_frees_its_claims_at_once`] in a process of its own; nothing to do else.
#[test]
fn child_that_holds_a_claim() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let claims = table(dir.as_ref());
    let _held = claims.try_claim(&[exclusive("a")]).unwrap();
    println!("\nholding");
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_killed_holder_frees_its_claims_at_once() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_that_holds_a_claim", "--nocapture"])
        .env(CHILD, tmp.path())
        .stdout(Stdio::piped());
    let mut child = common::spawn(&mut command);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("holding"))
    );
    assert!(busy(claims.try_claim(&[shared("a/b")])));
    child.kill().unwrap();
    child.wait().unwrap();
    claims.try_claim(&[exclusive("a")]).unwrap();
}

fn want() -> impl Strategy<Value = Want> {
    let path = prop::collection::vec(0..3_u8, 0..4);
    (path, any::<bool>()).prop_map(|(path, exclusive)| {
        let path: Vec<String> = path.iter().map(|n| format!("n{n}")).collect();
        let path = ClaimPath::new(path.join("/")).unwrap();
        if exclusive {
            Want::exclusive(path)
        } else {
            Want::shared(path)
        }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Claim(Vec<Want>),
    Extend(usize, Vec<Want>),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let wants = || prop::collection::vec(want(), 1..4);
    prop_oneof![
        3 => wants().prop_map(Step::Claim),
        2 => (any::<usize>(), wants()).prop_map(|(i, w)| Step::Extend(i, w)),
        2 => any::<usize>().prop_map(Step::Drop),
    ]
}

/// The same cases in each run, unless there is time for others.
fn config() -> ProptestConfig {
    match common::long() {
        true => ProptestConfig::with_cases(2_000),
        false => ProptestConfig {
            cases: 200,
            rng_seed: proptest::test_runner::RngSeed::Fixed(1),
            ..ProptestConfig::default()
        },
    }
}

proptest! {
    #![proptest_config(config())]

    /// The kernel grants exactly what a list of holders and a comparison of paths would.
    #[test]
    fn the_lock_table_is_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let tmp = common::dir();
        let claims = table(tmp.path());
        let mut holders: Vec<(Claim, Vec<Want>)> = Vec::new();
        for step in steps {
            let free = |wants: &[Want], but: Option<usize>| {
                let others = holders.iter().enumerate().filter(|(i, _)| Some(*i) != but);
                others.flat_map(|(_, (_, held))| held).all(|held| {
                    wants.iter().all(|want| !want.conflicts_with(held))
                })
            };
            match step {
                Step::Claim(wants) => {
                    let expected = free(&wants, None);
                    let done = claims.try_claim(&wants);
                    prop_assert_eq!(done.is_ok(), expected, "{:?}", wants);
                    if let Ok(claim) = done {
                        holders.push((claim, wants));
                    }
                }
                Step::Extend(i, wants) if !holders.is_empty() => {
                    let i = i % holders.len();
                    let expected = free(&wants, Some(i));
                    let done = holders[i].0.try_extend(&wants);
                    prop_assert_eq!(done.is_ok(), expected, "{:?}", wants);
                    if expected {
                        holders[i].1.extend(wants);
                    }
                }
                Step::Drop(i) if !holders.is_empty() => {
                    let i = i % holders.len();
                    drop(holders.swap_remove(i));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn handles_may_cross_threads_and_need_no_right_to_read_the_directory() {
    fn both<T: Send + Sync>() {}
    both::<Claims>();
    both::<Claim>();
    let tmp = common::dir();
    let place = steadfast::sys::openat(
        steadfast::sys::CWD,
        tmp.path(),
        OFlags::PATH | OFlags::DIRECTORY,
        steadfast::sys::Mode::empty(),
    );
    let claims = Claims::open(&Dir::from(place.unwrap())).unwrap();
    claims.try_claim(&[exclusive("")]).unwrap();
}

/// A child has a copy of every descriptor until it runs its program; a claim must not live on in it.
#[test]
fn a_claim_that_is_given_up_does_not_live_on_in_a_new_child() {
    let tmp = common::dir();
    let claims = table(tmp.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..100 {
                Command::new("true").status().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            drop(claims.try_claim(&[exclusive("a/b")]).unwrap());
        }
    });
}
