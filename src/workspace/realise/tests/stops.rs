//! Stopped before and after every call, and hindered by every errno at every call.

use super::{Ready, after, scenes};
use crate::sys::Errno;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::child::{long, some};
use crate::workspace::realise::Mode;
use crate::workspace::testbed::both_ways;

/// No call of ours takes this for anything but the end.
const STOP: Errno = Errno::IO;

/// Every way to switch something off.
pub(super) fn denials() -> Vec<Vec<(&'static str, Errno)>> {
    let exchange = ("renameat2(RENAME_EXCHANGE)", Errno::INVAL);
    let noreplace = ("renameat2(RENAME_NOREPLACE)", Errno::INVAL);
    let mut all = vec![vec![], vec![exchange, noreplace]];
    if long() {
        all.push(vec![exchange]);
        all.push(vec![noreplace]);
        all.push(vec![("openat2", Errno::NOSYS), ("fchmodat2", Errno::NOSYS)]);
    }
    all
}

fn stopped(ready: &Ready, mode: Mode, at: u64, action: Action) -> usize {
    let plan = Some(Plan { at, action });
    // The error is the stop.
    let (_, calls) = hook::scope(plan, || ready.run(mode));
    calls.len()
}

#[test]
fn a_stop_anywhere_is_made_good_by_the_next_run() {
    both_ways(check_a_stop_anywhere_is_made_good_by_the_next_run);
}

fn check_a_stop_anywhere_is_made_good_by_the_next_run() {
    for denied in denials() {
        for (n, scene) in scenes::all().into_iter().enumerate() {
            hook::deny(&denied, || {
                let want = after(&scene);
                for action in [Action::Fail(STOP), Action::FailAfter(STOP)] {
                    for at in some(1, n) {
                        let ready = Ready::of(&scene);
                        let calls = stopped(&ready, Mode::First, at, action);
                        let what = format!("{denied:?} {action:?} at {at} of {calls}");
                        ready.finish(&scene, &want, &what);
                        if (calls as u64) < at {
                            break;
                        }
                    }
                }
            });
        }
    }
}

#[test]
fn recovery_that_is_stopped_anywhere_is_made_good_as_well() {
    both_ways(check_recovery_that_is_stopped_anywhere_is_made_good_as_well);
}

fn check_recovery_that_is_stopped_anywhere_is_made_good_as_well() {
    for (n, denied) in denials().into_iter().enumerate() {
        for scene in scenes::all() {
            hook::deny(&denied, || {
                let want = after(&scene);
                let action = Action::FailAfter(STOP);
                for at in some(9, n) {
                    let mut done = false;
                    for again in some(9, n) {
                        let ready = Ready::of(&scene);
                        let calls = stopped(&ready, Mode::First, at, action);
                        done = (calls as u64) < at;
                        let more = stopped(&ready, Mode::Again, again, action);
                        let what = format!("{denied:?} at {at}, then at {again}");
                        ready.finish(&scene, &want, &what);
                        if (more as u64) < again {
                            break;
                        }
                    }
                    if done {
                        break;
                    }
                }
            });
        }
    }
}

#[test]
fn no_error_of_any_call_leaves_what_cannot_be_finished() {
    both_ways(check_no_error_of_any_call_leaves_what_cannot_be_finished);
}

fn check_no_error_of_any_call_leaves_what_cannot_be_finished() {
    let errnos = [
        Errno::PERM,
        Errno::NOENT,
        Errno::ACCESS,
        Errno::EXIST,
        Errno::INVAL,
        Errno::NOSPC,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::XDEV,
        Errno::LOOP,
        Errno::STALE,
        Errno::BUSY,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
        Errno::MFILE,
        Errno::DQUOT,
        Errno::ROFS,
        Errno::NOTEMPTY,
        Errno::INTR,
        Errno::AGAIN,
        Errno::NODATA,
        Errno::MLINK,
    ];
    let errnos = if long() { &errnos[..] } else { &errnos[..7] };
    let denials = if long() { denials() } else { vec![vec![]] };
    for denied in denials {
        for scene in scenes::all() {
            hook::deny(&denied, || {
                let want = after(&scene);
                for (n, errno) in errnos.iter().copied().enumerate() {
                    for at in some(3, n) {
                        let ready = Ready::of(&scene);
                        let calls = stopped(&ready, Mode::First, at, Action::Fail(errno));
                        let what = format!("{denied:?} {errno:?} at {at} of {calls}");
                        if errno == Errno::NOENT {
                            // A lie about a name makes a conflict, and what was removed is kept for it.
                            let again = ready.run(Mode::Again);
                            assert_eq!(again.unwrap().conflicts, [], "{}: {what}", scene.name);
                            ready.check_folders(&scene, &want, &what, &["staged", "retired"]);
                        } else {
                            ready.finish(&scene, &want, &what);
                        }
                        if (calls as u64) < at {
                            break;
                        }
                    }
                }
            });
        }
    }
}

/// What one small file costs.
#[test]
fn a_small_file_costs_few_calls() {
    let scene = &scenes::all()[0];
    let ready = Ready::of(scene);
    let (done, calls) = hook::scope(None, || ready.run(Mode::First));
    assert_eq!(done.unwrap().conflicts, []);
    if !hook::denied_by_env("renameat2(RENAME_EXCHANGE)") {
        // Nothing is asked of the root, which is open: it is what it was.
        assert_eq!(calls, ["renameat2(RENAME_EXCHANGE)", "statx", "unlinkat"]);
    }
}
