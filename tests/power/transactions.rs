//! Transactions: after recovery the tree is as after some of them, at least after all that were acknowledged;
//! after a checkpoint it is so without recovery.

use crate::common;
use crate::recorder::Recorder;
use crate::rules::REAL;
use crate::run::{Budget, Failure, Subject, record, scale};
use crate::scripts::{self, five};
use crate::tree::{Tree, difference, litter, tree};
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};
use steadfast::Root;
use steadfast::publish::FolderOptions;
use steadfast::sys::hook::{self, Plan};
use steadfast::sys::{Errno, Mode};
use steadfast::workspace::{Attributes, Receipt, Transaction, Workspace, WorkspaceOptions};

/// What is known at a cut.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// How many transactions were acknowledged.
    done: usize,
    /// And nothing was begun since a checkpoint.
    settled: bool,
}

/// A workspace with small logs, and what the tree was after each of its transactions.
pub(crate) struct Row<'a> {
    top: &'a Path,
    recorder: &'a Recorder<Known>,
    states: Rc<RefCell<Vec<Tree>>>,
    workspace: Workspace,
}

pub(crate) type Collect = dyn Fn(&mut Transaction<'_>) -> steadfast::Result<()>;

impl Row<'_> {
    fn known(&self, settled: bool) {
        let done = self.states.borrow().len() - 1;
        self.recorder.know(Known { done, settled });
    }

    pub(crate) fn commit(&self, collect: &Collect) {
        self.known(false);
        let mut tx = self.workspace.begin();
        collect(&mut tx).unwrap();
        tx.commit().unwrap();
        self.states.borrow_mut().push(tree(self.top));
        self.known(false);
    }

    /// One change of names outside of a transaction, without the kernel's exchange.
    fn unexchanged(&self, change: impl FnOnce(&Workspace) -> steadfast::Result<Receipt>) {
        self.known(false);
        let denied = [("renameat2(RENAME_EXCHANGE)", Errno::INVAL)];
        hook::deny(&denied, || change(&self.workspace)).unwrap();
        self.states.borrow_mut().push(tree(self.top));
        self.known(false);
    }

    pub(crate) fn settle(&self) {
        self.workspace.settle().unwrap();
        self.known(true);
    }
}

pub(crate) fn open(at: &Path) -> Result<Workspace, String> {
    open_leaving(at, WorkspaceOptions::new())
}

fn open_leaving(at: &Path, options: WorkspaceOptions) -> Result<Workspace, String> {
    // One segment after the other fills up, so that they are used again. Nothing depends on how fast we are.
    let options = options.log(16 * 1024, 6);
    let options = options
        .checkpoint_every(Duration::MAX)
        .wait(common::FOREVER);
    let root = Root::open(at).map_err(|e| e.to_string())?;
    options.open(&root).map_err(|e| format!("{e}: {e:?}"))
}

fn check(at: &Path, states: &[Tree], known: Known) -> Result<(), String> {
    if known.settled {
        let now = tree(at);
        let should = &states[known.done];
        if now != *should {
            let what = difference(&now, should);
            return Err(format!("settled, and without recovery: {what}"));
        }
    }
    let workspace = open(at)?;
    let found = workspace.conflicts().map_err(|e| e.to_string())?;
    if !found.is_empty() {
        return Err(format!("{found:?}"));
    }
    let now = tree(at);
    if !states[known.done..].contains(&now) {
        let next = states.get(known.done + 1).unwrap_or(&now);
        let older = states.iter().rposition(|state| *state == now);
        return Err(format!(
            "it is as after {older:?}\n{}\nor\n{}",
            difference(&now, &states[known.done]),
            difference(&now, next)
        ));
    }
    workspace.close().map_err(|e| e.to_string())?;
    let left = litter(at);
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("left {left:?}")),
    }
}

/// Records a row of transactions in a workspace that is settled, and hunts. `later`: as
/// [`WorkspaceOptions::remove_later_from`].
pub(crate) fn hunt(
    name: &str,
    before: fn(&Path),
    later: usize,
    plan: Option<Plan>,
    budget: Budget,
    row: impl FnOnce(&Row<'_>),
) -> Result<usize, Failure> {
    let ready = |top: &Path| {
        before(top);
        open(top).unwrap().close().unwrap();
    };
    let run = |top: &Path, recorder: &Recorder<Known>| {
        let options = WorkspaceOptions::new().remove_later_from(later);
        let states = Rc::new(RefCell::new(vec![tree(top)]));
        let row_of = Row {
            top,
            recorder,
            states: states.clone(),
            workspace: open_leaving(top, options).unwrap(),
        };
        let ((), _) = hook::scope(plan, || row(&row_of));
        // Dropped, not closed: as a crash would.
        drop(row_of);
        states.take()
    };
    let (record, cuts, states, _work) = record(Known::default(), ready, run);
    // What they do without a system call is the business of their own tests.
    if common::switched_off() {
        return Ok(0);
    }
    let checked = |at: &Path, known: &Known| check(at, &states, *known);
    let subject = Subject {
        name,
        families: &REAL,
        record,
        cuts,
        budget,
        check: &checked,
    };
    let total = subject.hunt()?;
    crate::count(name, total);
    Ok(total)
}

/// The calls that a row makes.
pub(crate) fn calls(before: fn(&Path), row: fn(&Row<'_>)) -> Vec<&'static str> {
    let mut calls = Vec::new();
    record(
        Known::default(),
        |top| {
            before(top);
            open(top).unwrap().close().unwrap();
        },
        |top, recorder| {
            let row_of = Row {
                top,
                recorder,
                states: Rc::new(RefCell::new(vec![tree(top)])),
                workspace: open(top).unwrap(),
            };
            calls = hook::scope(None, || row(&row_of)).1;
        },
    );
    calls
}

fn budget() -> Budget {
    Budget {
        masks: 1 + scale() / 2,
        torn: scale() as u64 / 4,
        mixed: 1 + scale() / 4,
        nested: if scale() > 1 { 40 } else { 120 },
    }
}

/// Where displaced files wait for the next checkpoint, what is recovered is recovered with them.
#[derive(Clone, Copy, PartialEq)]
enum Displaced {
    GoAtOnce,
    Wait,
}

#[track_caller]
fn prove(name: &str, before: fn(&Path), row: impl FnOnce(&Row<'_>)) {
    prove_where(Displaced::GoAtOnce, name, before, row);
}

#[track_caller]
fn prove_where(displaced: Displaced, name: &str, before: fn(&Path), row: impl FnOnce(&Row<'_>)) {
    let (name, later) = match displaced {
        Displaced::GoAtOnce => (name.to_owned(), usize::MAX),
        Displaced::Wait => (format!("{name}, old files waiting"), 1),
    };
    if let Err(Failure(story)) = hunt(&name, before, later, None, budget(), row) {
        panic!("{story}");
    }
}

#[test]
fn each_kind_of_transaction() {
    // Some of them by default.
    let every = if scale() > 1 { 1 } else { 4 };
    for (n, script) in scripts::all().iter().enumerate().step_by(every) {
        let wait = (n / every).is_multiple_of(2);
        let displaced = if wait {
            Displaced::Wait
        } else {
            Displaced::GoAtOnce
        };
        prove_where(displaced, script.name, script.before, |row| {
            row.commit(&script.run)
        });
    }
}

/// Eight of them on one tree, with checkpoints between, in logs that are used again and again.
#[test]
fn a_row_of_transactions() {
    for displaced in [Displaced::GoAtOnce, Displaced::Wait] {
        prove_where(displaced, "row", five, |row| {
            let all = scripts::all();
            let script = |name: &str| all.iter().find(|s| s.name == name).unwrap().run;
            row.commit(&script("five overwritten"));
            row.commit(&script("rotate four"));
            row.settle();
            row.commit(&|tx| {
                tx.create_dir_all("p/q");
                tx.rename("f1", "p/f1");
                tx.write("f1", "another 1")?;
                tx.write("p/q/long", vec![b'l'; 9_000])
            });
            row.commit(&|tx| {
                tx.rename("p/q", "q");
                tx.append("q/long", "er")?;
                tx.remove_tree("d");
                tx.write("d", "a file now")
            });
            row.commit(&|tx| {
                tx.rename("q/long", "f0");
                tx.remove_dir("q");
                tx.exchange("p", "f2");
                tx.hard_link("f3", "linked");
                Ok(())
            });
            row.settle();
            row.commit(&|tx| tx.write_in_place("f3", "both names"));
            row.commit(&|tx| {
                tx.remove_tree("f2");
                tx.remove_file("linked");
                Ok(())
            });
        });
    }
}

/// What several transactions do to one file, and none of it is settled before the next: attributes and
/// content again and again, by one name or another, and then the file is replaced, moved or removed.
#[test]
fn one_thing_again_and_again() {
    fn mode(bits: u32) -> Attributes {
        Attributes::new().mode(Mode::from_raw_mode(bits))
    }
    fn time(n: u64) -> Attributes {
        Attributes::new().modified(UNIX_EPOCH + Duration::from_secs(n))
    }
    prove("changed again", five, |row| {
        row.commit(&|tx| {
            tx.set_attributes("f0", mode(0o640).xattr("user.of", "one"));
            Ok(())
        });
        row.commit(&|tx| {
            tx.set_attributes("f0", mode(0o600).xattr("user.of", "two"));
            Ok(())
        });
        row.commit(&|tx| tx.write_in_place("f0", vec![b'a'; 1_700]));
        row.commit(&|tx| {
            tx.set_attributes("f0", time(1_000));
            tx.hard_link("f0", "g0");
            Ok(())
        });
        row.commit(&|tx| {
            tx.set_attributes("g0", time(2_000));
            tx.write_in_place("g0", vec![b'b'; 600])
        });
        row.commit(&|tx| {
            tx.set_attributes("f0", mode(0o644));
            tx.write_in_place("f0", vec![b'c'; 1_300])
        });
    });
    prove_where(Displaced::Wait, "made and changed", five, |row| {
        row.commit(&|tx| tx.write("new", "small"));
        row.commit(&|tx| tx.write_in_place("new", vec![b'n'; 1_700]));
        row.commit(&|tx| {
            tx.write("another", "small")?;
            tx.hard_link("another", "linked");
            Ok(())
        });
        row.commit(&|tx| {
            tx.set_attributes("linked", time(1_740_000_000));
            tx.write_in_place("new", vec![b'm'; 600])
        });
        row.commit(&|tx| {
            tx.set_attributes("another", mode(0o600));
            tx.write_in_place("linked", vec![b'l'; 900])
        });
        row.commit(&|tx| {
            tx.rename("linked", "new");
            tx.write("another", "small again")
        });
    });
    prove_where(Displaced::Wait, "changed and gone", five, |row| {
        row.commit(&|tx| {
            tx.set_attributes("f1", time(1_000));
            tx.write_in_place("f2", "in place")
        });
        row.commit(&|tx| {
            tx.remove_file("f2");
            tx.write_in_place("f3", "twice")?;
            tx.write("f1", "another")
        });
        row.commit(&|tx| {
            tx.set_attributes("f1", mode(0o600));
            tx.write_in_place("f3", "in place, and moved")
        });
        row.commit(&|tx| {
            tx.rename("f3", "f1");
            tx.set_attributes("f0", time(2_000));
            Ok(())
        });
        row.commit(&|tx| {
            tx.set_attributes("f1", time(3_000));
            tx.exchange("f0", "f1");
            Ok(())
        });
        row.commit(&|tx| {
            tx.remove_file("f0");
            tx.write("f1", "the last")
        });
    });
}

/// Files written in place, and again by other transactions: contents that travel in the record, so long
/// ones that they are copied first, so many of these that one sync makes all of them durable, and one
/// kind over the other.
#[test]
fn many_in_place() {
    prove("many in place", five, |row| {
        for n in [1, 2] {
            row.commit(&move |tx| {
                for file in 0..5 {
                    let text = vec![b'a' + n * file; 1_800 / usize::from(n + file)];
                    tx.write_in_place(format!("f{file}"), text)?;
                }
                Ok(())
            });
        }
        row.commit(&|tx| tx.write("f1", "replaced"));
    });
    prove("many long ones in place", five, |row| {
        for n in [1, 2] {
            row.commit(&move |tx| {
                for file in 0..4 {
                    // All of the first transaction, and one of the second.
                    let is_long = n == 1 || file == 0;
                    let len = if is_long { 16_500 } else { 1_300 };
                    let text = vec![b'a' + 5 * n + file; len + 100 * usize::from(file)];
                    tx.write_in_place(format!("f{file}"), text)?;
                }
                Ok(())
            });
        }
        row.commit(&|tx| tx.write("f1", "replaced"));
    });
}

/// Swapping and publishing where names cannot be exchanged: through the log.
#[test]
fn without_an_exchange() {
    fn folders(top: &Path) {
        five(top);
        fs::create_dir_all(top.join("next/sub")).unwrap();
        fs::write(top.join("next/a"), "next a").unwrap();
        fs::write(top.join("next/sub/b"), "next b").unwrap();
    }
    prove("swap by the log", folders, |row| {
        row.unexchanged(|w| w.swap("f0", "f1"));
        row.unexchanged(|w| w.swap("next", "f2"));
    });
    prove("published by the log", folders, |row| {
        row.unexchanged(|w| w.publish_folder("next", "d", &FolderOptions::new()));
        row.commit(&|tx| tx.write("d/a", "a again"));
    });
}

/// Logs that are full again and again, so that commits make checkpoints and segments are written anew.
#[test]
fn logs_are_used_again() {
    // It has more cuts than any other.
    let usual = budget();
    let budget = Budget {
        masks: usual.masks.div_ceil(2),
        mixed: usual.mixed.div_ceil(2),
        ..usual
    };
    let row = |row: &Row<'_>| {
        for n in 0..if scale() > 1 { 14 } else { 7 } {
            row.commit(&move |tx| tx.write(format!("f{}", n % 3), vec![b'a' + n; 9_000]));
        }
    };
    if let Err(Failure(story)) = hunt("used again", five, 1, None, budget, row) {
        panic!("{story}");
    }
}

/// A cut in the middle of opening for the first time, and of closing.
#[test]
fn opening_and_closing() {
    let before = |top: &Path| five(top);
    let run = |top: &Path, _: &Recorder<Known>| {
        let states = vec![tree(top)];
        let workspace = open(top).unwrap();
        let mut tx = workspace.begin();
        tx.write("f0", "new 0").unwrap();
        drop(tx);
        workspace.close().unwrap();
        states
    };
    let (record, cuts, states, _work) = record(Known::default(), before, run);
    if common::switched_off() {
        return;
    }
    let checked = |at: &Path, known: &Known| check(at, &states, *known);
    let subject = Subject {
        name: "opening",
        families: &REAL,
        record,
        cuts,
        budget: budget(),
        check: &checked,
    };
    crate::count("opening", subject.prove());
}

/// Two recordings are the same, to the last byte and time: so a state that fails can be made again.
#[test]
fn nothing_is_up_to_chance() {
    let recorded = || {
        let ready = |top: &Path| {
            five(top);
            open(top).unwrap().close().unwrap();
        };
        let run = |top: &Path, recorder: &Recorder<()>| {
            let workspace = open(top).unwrap();
            let mut tx = workspace.begin();
            tx.write("f0", vec![b'l'; 9_000]).unwrap();
            tx.rename("f1", "g");
            tx.commit().unwrap();
            fs::write(top.join("f2"), "by somebody else").unwrap();
            recorder.know(());
            let mut section = workspace.section("section").unwrap();
            section.protect(["f3", "d"]).unwrap();
            fs::write(top.join("f3"), "taken back").unwrap();
            section.rollback().unwrap();
        };
        let (record, cuts, (), _work) = record((), ready, run);
        format!("{record:?} {cuts:?}")
    };
    assert!(recorded() == recorded());
}
