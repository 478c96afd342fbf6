//! The test seam: count system calls, fail the n-th, kill or pause the process at the n-th, switch one off.
//!
//! Compiled only with the feature `_hook`, which no ordinary build has. A plan may be set for the
//! current thread ([`scope`]), or for the whole process from the environment ([`arm_from_env`]), which is
//! how a child process or the command is stopped in the middle of its work.
//!
//! Environment, entries separated by `;`:
//! `deny:NAME=ERRNO` answers every call of that name with the errno, from the start;
//! `fail:N=ERRNO`, `stop-before:N`, `stop-after:N`, `pause-before:N` act on the N-th call (from 1) after
//! [`arm_from_env`]; `arm` counts from the start of the process.

mod still;

use super::Errno;
use super::errno::errno_from_name;
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub use still::{Likeness, Likenesses, Still, likeness, set_likenesses, set_made, set_still, tick};
pub(crate) use still::{clock, drawn, is_still, liken};

/// The environment variable that carries a plan for the whole process.
pub const ENV: &str = "STEADFAST_HOOK";

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The call is not made; it answers this.
    Fail(Errno),
    /// The call is made, and then answers this all the same.
    FailAfter(Errno),
    /// The call is not made, and answers that all is well. Only for those that make something durable.
    Skip,
    /// Neither this call nor any after it is made; all answer this. What is on the disk then is what a
    /// process leaves that is killed here, without a process for it.
    FailFrom(Errno),
    /// The process is killed before the call.
    StopBefore,
    /// The process is killed after the call.
    StopAfter,
    /// The process pauses before the call (SIGSTOP), until somebody lets it go on (SIGCONT).
    PauseBefore,
}

/// One disturbance: an action at the n-th call, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which call, counted from 1.
    pub at: u64,
    /// What happens there.
    pub action: Action,
}

#[derive(Default)]
struct Local {
    active: bool,
    plan: Option<Plan>,
    seen: Vec<&'static str>,
    deny: Vec<(String, Errno)>,
    skip: Vec<String>,
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// Runs `f` with a plan for this thread, and gives its value and the names of the calls that it made.
pub fn scope<R>(plan: Option<Plan>, f: impl FnOnce() -> R) -> (R, Vec<&'static str>) {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            LOCAL.with_borrow_mut(|l| {
                l.active = false;
                l.plan = None;
                l.seen.clear();
            });
        }
    }
    LOCAL.with_borrow_mut(|l| {
        assert!(!l.active, "hook::scope does not nest");
        l.active = true;
        l.plan = plan;
        l.seen.clear();
    });
    let reset = Reset;
    let value = f();
    let seen = LOCAL.with_borrow_mut(|l| std::mem::take(&mut l.seen));
    drop(reset);
    (value, seen)
}

/// Runs `f` while, on this thread, every call of one of these names answers the errno beside it.
pub fn deny<R>(calls: &[(&str, Errno)], f: impl FnOnce() -> R) -> R {
    struct Restore(Vec<(String, Errno)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LOCAL.with_borrow_mut(|l| l.deny = std::mem::take(&mut self.0));
        }
    }
    let now = calls.iter().map(|(n, e)| ((*n).to_owned(), *e)).collect();
    let _restore = Restore(LOCAL.with_borrow_mut(|l| std::mem::replace(&mut l.deny, now)));
    f()
}

/// Runs `f` while, on this thread, no call of one of these names is made that makes something durable; it
/// answers that all is well.
pub fn skip<R>(calls: &[&str], f: impl FnOnce() -> R) -> R {
    struct Restore(Vec<String>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LOCAL.with_borrow_mut(|l| l.skip = std::mem::take(&mut self.0));
        }
    }
    let now = calls.iter().map(|n| (*n).to_owned()).collect();
    let _restore = Restore(LOCAL.with_borrow_mut(|l| std::mem::replace(&mut l.skip, now)));
    f()
}

#[derive(Debug, Default)]
struct FromEnv {
    armed: bool,
    plans: Vec<Plan>,
    deny: Vec<(String, Errno)>,
}

static FROM_ENV: OnceLock<FromEnv> = OnceLock::new();
static ARMED: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Starts counting calls for the environment's plan, if there is one.
pub fn arm_from_env() {
    COUNT.store(0, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
}

/// True if the environment switches off any call, so that tests of the full path can tell.
pub fn denied_by_env(name: &str) -> bool {
    from_env().deny.iter().any(|(n, _)| n == name)
}

fn from_env() -> &'static FromEnv {
    FROM_ENV.get_or_init(|| parse(&std::env::var(ENV).unwrap_or_default()))
}

fn parse(text: &str) -> FromEnv {
    let mut out = FromEnv::default();
    let errno = |n: &str| errno_from_name(n).unwrap_or_else(|| panic!("{ENV}: no errno {n:?}"));
    let number = |n: &str| {
        n.parse()
            .unwrap_or_else(|_| panic!("{ENV}: no number {n:?}"))
    };
    for entry in text.split(';').filter(|e| !e.is_empty()) {
        let (verb, rest) = entry.split_once(':').unwrap_or((entry, ""));
        let mut plan = |at, action| out.plans.push(Plan { at, action });
        match (verb, rest.split_once('=')) {
            ("arm", None) => out.armed = true,
            ("deny", Some((name, e))) => out.deny.push((name.to_owned(), errno(e))),
            ("fail", Some((n, e))) => plan(number(n), Action::Fail(errno(e))),
            ("stop-before", None) => plan(number(rest), Action::StopBefore),
            ("stop-after", None) => plan(number(rest), Action::StopAfter),
            ("pause-before", None) => plan(number(rest), Action::PauseBefore),
            _ => panic!("{ENV}: not understood: {entry:?}"),
        }
    }
    out
}

/// What the clock and the boot of a thread are, in place of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What `boot_id` answers.
    pub boot_id: Option<[u8; 16]>,
    /// What `time_namespace` answers.
    pub time_namespace: Option<u64>,
    /// What `boottime` answers.
    pub boottime: std::time::Duration,
}

thread_local! {
    static MACHINE: std::cell::Cell<Option<Machine>> = const { std::cell::Cell::new(None) };
}

/// Puts this thread on another machine, or (`None`) back on its own. Gives the one before.
pub fn set_machine(machine: Option<Machine>) -> Option<Machine> {
    MACHINE.replace(machine)
}

/// The machine that this thread was put on.
pub(crate) fn machine() -> Option<Machine> {
    MACHINE.get()
}

thread_local! {
    static PROCESS: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Gives this thread another process's number, as a forked child has one, or (`None`) its own back.
pub fn set_process(id: Option<u32>) {
    PROCESS.set(id);
}

/// The number that this thread was given.
pub(crate) fn process() -> Option<u32> {
    PROCESS.get()
}

/// Hears of every call of its thread after it was made: the name, and of the calls that make something
/// durable what that was (device and inode), if they succeeded.
type Observer = Box<dyn FnMut(&'static str, Option<(u64, u64)>)>;

thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

/// Runs `f` while `observer` hears of every call of this thread but its own.
pub fn observe<R>(
    observer: impl FnMut(&'static str, Option<(u64, u64)>) + 'static,
    f: impl FnOnce() -> R,
) -> R {
    struct Restore(Option<Observer>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OBSERVER.set(self.0.take());
        }
    }
    let _restore = Restore(OBSERVER.replace(Some(Box::new(observer))));
    f()
}

/// [`pass`] for a call that makes `fd` durable.
pub(crate) fn pass_on(
    name: &'static str,
    fd: super::BorrowedFd<'_>,
    f: impl FnOnce() -> super::Result<()>,
) -> super::Result<()> {
    let mut is_made = false;
    let done = disturb(name, Some(()), || {
        is_made = true;
        f()
    });
    tell(|observer| {
        let is_durable = is_made && done.is_ok();
        let made = is_durable.then(|| rustix::fs::fstat(fd).ok()).flatten();
        observer(name, made.map(|s| (s.st_dev, s.st_ino)));
    });
    done
}

pub(crate) fn pass<T>(
    name: &'static str,
    f: impl FnOnce() -> super::Result<T>,
) -> super::Result<T> {
    let done = disturb(name, None, f);
    tell(|observer| observer(name, None));
    done
}

/// Calls the observer, which is not there meanwhile: of its own calls it does not hear.
fn tell(with: impl FnOnce(&mut Observer)) {
    if let Some(mut observer) = OBSERVER.take() {
        with(&mut observer);
        OBSERVER.set(Some(observer));
    }
}

/// Makes the call, or what the plans say in its place. `skipped` is the answer of one that is not made.
fn disturb<T>(
    name: &'static str,
    skipped: Option<T>,
    f: impl FnOnce() -> super::Result<T>,
) -> super::Result<T> {
    // While one thread is in the kernel, another may run.
    #[cfg(feature = "_schedules")]
    shuttle::thread::yield_now();
    tick();
    let env = from_env();
    let denied = LOCAL.with_borrow(|l| {
        l.deny
            .iter()
            .chain(&env.deny)
            .find(|(n, _)| n == name)
            .map(|(_, e)| *e)
    });
    let mut due = LOCAL.with_borrow_mut(|l| {
        if !l.active {
            return None;
        }
        l.seen.push(name);
        let n = l.seen.len() as u64;
        l.plan
            .filter(|p| p.at == n || matches!(p.action, Action::FailFrom(_)) && p.at < n)
    });
    if env.armed || ARMED.load(Ordering::Relaxed) {
        let n = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
        due = due.or_else(|| env.plans.iter().copied().find(|p| p.at == n));
    }
    if due.is_none()
        && LOCAL.with_borrow(|l| l.skip.iter().any(|n| n == name))
        && let Some(answer) = skipped
    {
        return Ok(answer);
    }
    let action = due.map(|p| p.action);
    match action {
        Some(Action::StopBefore) => stop(),
        Some(Action::PauseBefore) => pause(),
        Some(Action::Fail(errno) | Action::FailFrom(errno)) => return Err(errno),
        Some(Action::Skip) => {
            return Ok(skipped.unwrap_or_else(|| panic!("{name} makes nothing durable")));
        }
        _ => {}
    }
    let value = match denied {
        Some(errno) => Err(errno),
        None => f(),
    };
    match action {
        Some(Action::StopAfter) => stop(),
        Some(Action::FailAfter(errno)) => Err(errno),
        _ => value,
    }
}

fn stop() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // SIGKILL cannot be held back; this line only satisfies the type.
    std::process::abort()
}

fn pause() {
    // To oneself it is always allowed.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{CWD, Mode, OFlags, openat};

    #[test]
    fn counts_fails_and_denies() {
        let open = || openat(CWD, c"/", OFlags::PATH, Mode::empty()).map(drop);
        let (r, seen) = scope(None, open);
        assert_eq!((r, seen), (Ok(()), vec!["openat"]));
        let plan = |at| {
            Some(Plan {
                at,
                action: Action::Fail(Errno::IO),
            })
        };
        assert_eq!(scope(plan(1), open).0, Err(Errno::IO));
        assert_eq!(scope(plan(2), open).0, Ok(()));
        assert_eq!(deny(&[("openat", Errno::NOSYS)], open), Err(Errno::NOSYS));
        assert_eq!(open(), Ok(()));
    }

    #[test]
    fn skips_a_sync_and_says_so() {
        let fd = openat(CWD, c"/", OFlags::RDONLY, Mode::empty()).unwrap();
        let heard = std::rc::Rc::new(RefCell::new(Vec::new()));
        for action in [None, Some(Action::Skip)] {
            let kept = heard.clone();
            let plan = action.map(|action| Plan { at: 1, action });
            let observer =
                move |name, made: Option<_>| kept.borrow_mut().push((name, made.is_some()));
            let sync = || scope(plan, || crate::sys::fsync(&fd));
            assert_eq!(observe(observer, sync).0, Ok(()));
        }
        assert_eq!(*heard.borrow(), [("fsync", true), ("fsync", false)]);
    }

    #[test]
    fn skips_all_syncs_of_a_name() {
        // Of this descriptor no sync would be possible.
        let fd = openat(CWD, c"/", OFlags::PATH, Mode::empty()).unwrap();
        let sync = || (crate::sys::fsync(&fd), crate::sys::fdatasync(&fd));
        let bad = Err(Errno::BADF);
        assert_eq!(skip(&["fsync"], sync), (Ok(()), bad));
        assert_eq!(skip(&["fsync", "fdatasync"], sync), (Ok(()), Ok(())));
        assert_eq!(sync(), (bad, bad));
    }

    #[test]
    fn from_one_call_on_nothing_is_made() {
        let open = || openat(CWD, c"/", OFlags::PATH, Mode::empty()).map(drop);
        let plan = Plan {
            at: 2,
            action: Action::FailFrom(Errno::IO),
        };
        let (answers, _) = scope(Some(plan), || [open(), open(), open()]);
        assert_eq!(answers, [Ok(()), Err(Errno::IO), Err(Errno::IO)]);
        assert_eq!(open(), Ok(()));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let plan = Plan {
            at: 1,
            action: Action::Fail(Errno::INTR),
        };
        let (r, seen) = scope(Some(plan), || {
            openat(CWD, c"/", OFlags::PATH, Mode::empty()).map(drop)
        });
        assert_eq!((r, seen.len()), (Ok(()), 2));
    }

    #[test]
    fn reads_the_environment() {
        assert!(parse("fail:2=EIO;arm").armed);
        let env = parse("deny:openat2=ENOSYS;stop-after:7;pause-before:3");
        assert!(!env.armed);
        assert_eq!(env.deny, [("openat2".to_owned(), Errno::NOSYS)]);
        assert_eq!(
            env.plans,
            [(7, Action::StopAfter), (3, Action::PauseBefore)]
                .map(|(at, action)| Plan { at, action })
        );
    }
}
