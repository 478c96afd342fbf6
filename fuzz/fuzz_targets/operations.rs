//! Transactions and sections do what a model in memory says, all or nothing, wherever a call fails and
//! wherever the process dies.
//!
//! The input is a program of transactions, sections, checkpoints and reboots. In each of them one call may
//! fail, or all from one call on, which leaves what a kill leaves. Then the workspace is opened again, with
//! the same misfortune in between, and the tree must be the one that the error's `DiskState` has promised.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use steadfast::sys::Mode;
use steadfast::sys::hook::{self, Action, Machine, Plan};
use steadfast::workspace::{Attributes, Savepoint, Section, Transaction, Workspace};
use steadfast::workspace::{WorkspaceOptions, explain, records, status};
use steadfast::{DiskState, Error, ErrorKind, Root};
use steadfast_fuzz::input::Input;
use steadfast_fuzz::model::{Model, Op, Renaming};
use steadfast_fuzz::tree::{difference, exact, tree};

const STATE: &str = ".steadfast";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ERRNOS: [Errno; 6] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::NOMEM,
    Errno::ACCESS,
    Errno::MFILE,
    Errno::ROFS,
];

fn path(input: &mut Input<'_>) -> String {
    let bits = input.byte();
    let name = |n: u8| NAMES[usize::from(n & 3)];
    // Half of the paths are one name.
    match bits >> 6 {
        0 | 1 => name(bits).to_owned(),
        2 => format!("{}/{}", name(bits), name(bits >> 2)),
        _ => format!("{}/{}/{}", name(bits), name(bits >> 2), name(bits >> 4)),
    }
}

fn content(input: &mut Input<'_>) -> Vec<u8> {
    let (byte, len) = (input.byte(), input.byte());
    let len = match len >> 6 {
        0 | 1 => usize::from(len & 15),
        2 => usize::from(len & 63) * 64,
        // Longer than what waits in memory.
        _ => usize::from(len & 7) * 5000,
    };
    (0..len)
        .map(|n| byte.wrapping_add((n / 100) as u8))
        .collect()
}

fn op(input: &mut Input<'_>) -> Op {
    let mode = |input: &mut Input<'_>| input.of(&[0o700, 0o744, 0o600, 0o755]);
    match input.below(20) {
        0..3 => Op::Write(path(input), content(input)),
        3 => Op::WriteMode(path(input), content(input), mode(input)),
        4 => Op::CreateNew(path(input), content(input)),
        5 => Op::Append(path(input), content(input)),
        6 => Op::InPlace(path(input), content(input)),
        7 => Op::Dir(path(input)),
        8 => Op::DirAll(path(input)),
        9 => Op::RemoveFile(path(input)),
        10 => Op::RemoveDir(path(input)),
        11 => Op::RemoveTree(path(input)),
        12 | 13 => Op::Rename(path(input), path(input), Renaming::Replace),
        14 => Op::Rename(path(input), path(input), Renaming::NoReplace),
        15 => Op::Rename(path(input), path(input), Renaming::Exchange),
        16 => Op::Symlink(b"none".to_vec(), path(input)),
        17 => Op::Link(path(input), path(input)),
        18 => Op::Mode(path(input), mode(input)),
        _ => Op::Key(vec![input.byte() % 4], vec![input.byte()]),
    }
}

fn collect(tx: &mut Transaction<'_>, op: &Op) -> steadfast::Result<()> {
    match op {
        Op::Write(path, content) => tx.write(path, content)?,
        Op::WriteMode(path, content, mode) => {
            tx.write_with(
                path,
                content,
                Attributes::new().mode(Mode::from_raw_mode(*mode)),
            )?;
        }
        Op::CreateNew(path, content) => tx.create_new(path, content)?,
        Op::Append(path, content) => tx.append(path, content)?,
        Op::InPlace(path, content) => tx.write_in_place(path, content)?,
        Op::Dir(path) => _ = tx.create_dir(path),
        Op::DirAll(path) => _ = tx.create_dir_all(path),
        Op::RemoveFile(path) => _ = tx.remove_file(path),
        Op::RemoveDir(path) => _ = tx.remove_dir(path),
        Op::RemoveTree(path) => _ = tx.remove_tree(path),
        Op::Rename(from, to, Renaming::Replace) => _ = tx.rename(from, to),
        Op::Rename(from, to, Renaming::NoReplace) => _ = tx.rename_no_replace(from, to),
        Op::Rename(from, to, Renaming::Exchange) => _ = tx.exchange(from, to),
        Op::Symlink(text, path) => {
            tx.symlink(std::str::from_utf8(text).unwrap(), path);
        }
        Op::Link(from, to) => _ = tx.hard_link(from, to),
        Op::Mode(path, mode) => {
            tx.set_attributes(path, Attributes::new().mode(Mode::from_raw_mode(*mode)));
        }
        Op::Key(key, value) => _ = tx.key(key, value),
    }
    Ok(())
}

/// What goes wrong, if anything: one call, or all from one call on.
fn misfortune(input: &mut Input<'_>) -> Option<Plan> {
    let how = input.below(4);
    let at = 1 + u64::from(input.short() % 512);
    let action = match how {
        0 | 1 => return None,
        2 => Action::Fail(input.of(&ERRNOS)),
        _ => Action::FailFrom(Errno::IO),
    };
    Some(Plan { at, action })
}

/// Runs `f` with it. True: it happened, and true: nothing could be done after it.
fn with<R>(plan: Option<Plan>, f: impl FnOnce() -> R) -> (R, bool, bool) {
    let (value, seen) = hook::scope(plan, f);
    let met = plan.is_some_and(|p| p.at <= seen.len() as u64);
    let dead = met && plan.is_some_and(|p| matches!(p.action, Action::FailFrom(_)));
    (value, met, dead)
}

struct Run<'a> {
    input: Input<'a>,
    top: &'a Path,
    root: Root,
    options: WorkspaceOptions,
    boot: u8,
    model: Model,
    /// Something went wrong since the last boot. If that was a sync of the tree, a commit may have
    /// passed over it, and whatever needs such a sync is refused until then.
    doubt: bool,
    said: Vec<String>,
}

/// What an attempt has left.
enum Left {
    /// The workspace can go on.
    Alive(Box<Workspace>),
    /// It must be opened again, which tells which of these states it is.
    Dead(Vec<Model>),
}

impl Run<'_> {
    fn say(&mut self, what: impl std::fmt::Display) {
        self.said.push(what.to_string());
    }

    fn context(&self) -> String {
        self.said.join("\n")
    }

    fn is(&self, model: &Model) -> bool {
        tree(self.top, STATE) == model.tree()
    }

    /// The tree must be this.
    fn must_be(&self, model: &Model) {
        let now = tree(self.top, STATE);
        let should = model.tree();
        assert!(
            now == should,
            "{}\n{}",
            difference(&now, &should),
            self.context()
        );
    }

    fn is_doubted(&self, error: &Error) -> bool {
        self.doubt && error.kind() == ErrorKind::Poisoned
    }

    fn open(&self) -> steadfast::Result<Workspace> {
        self.options.clone().open(&self.root)
    }

    fn reboot(&mut self) {
        self.doubt = false;
        self.boot = self.boot.wrapping_add(1);
        hook::set_machine(Some(Machine {
            boot_id: Some([self.boot; 16]),
            time_namespace: Some(1),
            boottime: Duration::from_secs(100),
        }));
        self.say("reboot");
    }

    /// Opens it again, after some attempts that are cut short, and finds out in which of the states it is.
    fn again(&mut self, states: Vec<Model>) -> Workspace {
        if self.input.one_in(4) {
            self.reboot();
        }
        for _ in 0..self.input.below(3) {
            let plan = misfortune(&mut self.input);
            self.say(format_args!("open with {plan:?}"));
            let open = || self.open().map(drop);
            let (answer, met, _) = with(plan, open);
            if let Err(e) = answer {
                let expected = met || self.is_doubted(&e);
                assert!(expected, "{e}: {e:?}\n{}", self.context());
            }
            self.doubt |= met;
        }
        // Those who only look see something, whatever it is.
        status(&self.root).unwrap();
        let told = records(&self.root, None).unwrap();
        for record in told.iter().flat_map(|l| &l.records) {
            match explain(&self.root, record.number) {
                Ok(_) => {}
                // It is settled.
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{}", self.context()),
            }
        }
        let mut answer = self.open();
        if answer.as_ref().is_err_and(|e| self.is_doubted(e)) {
            self.reboot();
            answer = self.open();
        }
        let workspace = match answer {
            Ok(workspace) => workspace,
            Err(e) => panic!("{e}: {e:?}\n{}", self.context()),
        };
        let found = workspace.recovered();
        self.said.push(format!("opened: {found:?}"));
        assert!(found.conflicts().is_empty(), "{}", self.context());
        let state = states.iter().find(|model| self.is(model));
        let Some(state) = state else {
            let now = tree(self.top, STATE);
            let all = states.iter().map(|m| difference(&now, &m.tree()));
            let all: Vec<_> = all.collect();
            panic!("{}\n{}", all.join("or\n"), self.context());
        };
        self.model = state.clone();
        self.check_keys(&workspace);
        workspace
    }

    fn check_keys(&self, workspace: &Workspace) {
        for key in 0..4_u8 {
            let is = workspace.key([key]).unwrap();
            let should = self.model.keys.get([key].as_slice());
            assert_eq!(is.as_ref(), should, "key {key}\n{}", self.context());
        }
    }

    /// Collects a transaction: what becomes of it, by the model.
    fn collected(&mut self, tx: &mut Transaction<'_>) -> Result<Model, Expected> {
        let mut now: Result<Model, Errno> = Ok(self.model.clone());
        let mut unmet: Vec<bool> = Vec::new();
        let mut points: Vec<(Savepoint, Result<Model, Errno>, usize)> = Vec::new();
        for _ in 0..1 + self.input.below(8) {
            match self.input.below(16) {
                0 => {
                    points.push((tx.savepoint(), now.clone(), unmet.len()));
                    self.say("savepoint");
                }
                1 => {
                    if let Some((point, then, conditions)) = points.pop() {
                        tx.rollback_to(point);
                        (now, _) = (then, unmet.truncate(conditions));
                        self.say("back to savepoint");
                    }
                }
                2 => {
                    let (path, there) = (path(&mut self.input), self.input.one_in(2));
                    match there {
                        true => tx.expect_present(&path),
                        false => tx.expect_absent(&path),
                    };
                    unmet.push(self.model.exists(&path) != there);
                    self.say(format_args!("expect {path}: {there}"));
                }
                3 => {
                    let path = path(&mut self.input);
                    self.say(format_args!("read {path}"));
                    if let (Ok(now), false) = (&now, unmet.contains(&true)) {
                        let read = tx.read(&path).ok();
                        assert_eq!(read.as_deref(), now.read(&path), "{}", self.context());
                    }
                }
                _ => {
                    let op = op(&mut self.input);
                    collect(tx, &op).unwrap();
                    if let Ok(model) = &mut now
                        && let Err(e) = model.run(&op)
                    {
                        now = Err(e);
                    }
                    let answer = now.as_ref().err();
                    self.said.push(format!("{op:?}: {answer:?}"));
                }
            }
        }
        if unmet.contains(&true) {
            return Err(Expected::Changed);
        }
        now.map_err(Expected::Errno)
    }

    fn transaction(&mut self, workspace: Workspace) -> Left {
        let mut tx = workspace.begin();
        self.say("transaction");
        let next = self.collected(&mut tx);
        let plan = misfortune(&mut self.input);
        let keep = !self.input.one_in(3);
        self.say(format_args!("commit with {plan:?}"));
        let (answer, met, dead) = with(plan, || tx.commit());
        let unsure = (answer.as_ref()).is_err_and(|e| e.disk_state() != DiskState::Unchanged);
        // Dropping it does nothing but close it, dead or not.
        let alive = (keep && !unsure).then_some(workspace);
        self.say(format_args!("committed: {answer:?}"));
        let before = self.model.clone();
        let states = match (&answer, &next) {
            (Ok(_), Ok(next)) => vec![next.clone()],
            (Ok(_), Err(e)) => panic!("should have failed with {e:?}\n{}", self.context()),
            (Err(e), Err(expected)) if !met && !self.is_doubted(e) => {
                self.check_error(e, expected);
                vec![before]
            }
            (Err(e), Ok(_)) if !met && !self.is_doubted(e) => panic!("{e}\n{}", self.context()),
            (Err(e), next) => match (e.disk_state(), next) {
                (DiskState::Unchanged, _) | (_, Err(_)) => vec![before],
                (DiskState::Committed, Ok(next)) => vec![next.clone()],
                (_, Ok(next)) => vec![before, next.clone()],
            },
        };
        self.doubt |= met;
        match alive {
            Some(workspace) if !dead => {
                self.must_be(&states[0]);
                self.model = states[0].clone();
                self.check_keys(&workspace);
                Left::Alive(workspace.into())
            }
            _ => Left::Dead(states),
        }
    }

    fn check_error(&self, e: &Error, expected: &Expected) {
        assert_eq!(e.disk_state(), DiskState::Unchanged, "{}", self.context());
        match expected {
            Expected::Changed => assert_eq!(e.kind(), ErrorKind::Changed, "{}", self.context()),
            Expected::Errno(errno) => {
                let is = e
                    .errno()
                    .map(|e| Errno::from_raw_os_error(e.raw_os_error()));
                assert_eq!(is, Some(*errno), "{e}\n{}", self.context());
            }
        }
    }

    /// Work in a section, up to its end or the first error that breaks it. What it has come to, and whether
    /// it can go on.
    fn steps(&mut self, section: &mut Section<'_>, faults: bool) -> (Model, bool) {
        let mut work = self.model.clone();
        for _ in 0..self.input.below(5) {
            let answer = match self.input.below(6) {
                0 => {
                    let path = path(&mut self.input);
                    let answer = section.protect([&path]);
                    self.say(format_args!("protect {path}: {answer:?}"));
                    if answer.is_ok() && !faults {
                        self.outsider(&mut work, &path);
                    }
                    answer
                }
                1 => section.phase("phase"),
                _ => {
                    let ops: Vec<Op> = (0..1 + self.input.below(3))
                        .map(|_| op(&mut self.input))
                        .filter(|op| !matches!(op, Op::Key(..)))
                        .collect();
                    let mut next = work.clone();
                    let expected = ops.iter().try_for_each(|op| next.run(op));
                    let answer = section.apply(|tx| ops.iter().try_for_each(|op| collect(tx, op)));
                    self.say(format_args!("apply {ops:?}: {answer:?}, {expected:?}"));
                    match (&answer, expected) {
                        (Ok(()), Ok(())) => work = next,
                        (Ok(()), Err(e)) => panic!("should have been {e:?}\n{}", self.context()),
                        _ => {}
                    }
                    answer
                }
            };
            if let Err(e) = answer
                && e.disk_state() != DiskState::Unchanged
            {
                return (work, false);
            }
        }
        (work, true)
    }

    /// Somebody else, who is allowed to change what is protected.
    fn outsider(&mut self, work: &mut Model, path: &str) {
        let text = [self.input.byte(); 9];
        let at = self.top.join(path);
        // Other names of a protected file stay with what was written into it: docs/transactions.md.
        let alone = || at.symlink_metadata().is_ok_and(|meta| meta.nlink() == 1);
        if work.read(path).is_some() && alone() && work.overwrite(path, &text).is_ok() {
            fs::write(at, text).unwrap();
            self.say("theirs: overwritten");
        } else if work.is_dir(path)
            && work
                .run(&Op::CreateNew(format!("{path}/t"), text.into()))
                .is_ok()
        {
            fs::write(self.top.join(path).join("t"), text).unwrap();
            self.say("theirs: created");
        }
    }

    fn section(&mut self, workspace: Workspace) -> Left {
        let plan = misfortune(&mut self.input);
        self.say(format_args!("section with {plan:?}"));
        let before = self.model.clone();
        let (states, met, dead) = with(plan, || {
            let mut section = match workspace.section("fuzz") {
                Ok(section) => section,
                Err(e) => {
                    self.say(format_args!("not begun: {e:?}"));
                    return vec![before.clone()];
                }
            };
            let (work, whole) = self.steps(&mut section, plan.is_some() || self.doubt);
            match self.input.below(4) {
                0..2 if whole => {
                    let answer = section.commit();
                    self.say(format_args!("commit: {answer:?}"));
                    match answer.map_err(|e| e.disk_state()) {
                        Ok(_) | Err(DiskState::Committed) => vec![work],
                        Err(DiskState::Unchanged) => vec![before.clone()],
                        Err(_) => vec![before.clone(), work],
                    }
                }
                2 => {
                    drop(section);
                    self.say("dropped");
                    vec![before.clone()]
                }
                _ => {
                    let answer = section.rollback();
                    self.say(format_args!("rollback: {answer:?}"));
                    vec![before.clone()]
                }
            }
        });
        self.say(format_args!("met {met}, dead {dead}"));
        self.doubt |= met;
        if self.doubt {
            drop(workspace);
            return Left::Dead(states);
        }
        self.must_be(&states[0]);
        self.model = states[0].clone();
        Left::Alive(workspace.into())
    }

    fn run(&mut self) {
        let mut workspace = self.open().unwrap();
        for _ in 0..12 {
            if self.input.is_over() {
                break;
            }
            let left = match self.input.below(8) {
                0..5 => self.transaction(workspace),
                5 => self.section(workspace),
                6 => {
                    let plan = misfortune(&mut self.input);
                    self.say(format_args!("settle with {plan:?}"));
                    let (answer, met, _) = with(plan, || workspace.settle());
                    let failed = answer.as_ref().err();
                    let expected = failed.is_none_or(|e| met || self.is_doubted(e));
                    assert!(expected, "{answer:?}\n{}", self.context());
                    self.doubt |= met;
                    self.must_be(&self.model);
                    match answer {
                        Ok(()) if !met => Left::Alive(workspace.into()),
                        _ => {
                            drop(workspace);
                            Left::Dead(vec![self.model.clone()])
                        }
                    }
                }
                _ => {
                    self.say("close");
                    if let Err(e) = workspace.close() {
                        assert!(self.is_doubted(&e), "{e:?}\n{}", self.context());
                    }
                    Left::Dead(vec![self.model.clone()])
                }
            };
            workspace = match left {
                Left::Alive(workspace) => *workspace,
                Left::Dead(states) => self.again(states),
            };
        }
        drop(workspace);
        let states = vec![self.model.clone()];
        let mut workspace = self.again(states);
        if self.doubt {
            drop(workspace);
            self.reboot();
            workspace = self.open().unwrap();
        }
        workspace.close().unwrap();
        // Opened once more there is nothing to do, and nothing was left.
        let workspace = self.open().unwrap();
        let found = workspace.recovered();
        assert!(found.is_empty(), "{found:?}\n{}", self.context());
        self.must_be(&self.model);
        for folder in ["staged", "kept", "retired", "conflicts"] {
            let at = self.top.join(STATE).join(folder);
            let left = tree(&at, "");
            assert!(left.is_empty(), "{folder}: {left:?}\n{}", self.context());
        }
    }
}

#[derive(Debug)]
enum Expected {
    Changed,
    Errno(Errno),
}

fn run(data: &[u8]) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let temp = steadfast_fuzz::fresh();
    let top = temp.path().join("root");
    fs::create_dir(&top).unwrap();
    fs::create_dir(temp.path().join("beside")).unwrap();
    for name in ["a", "beside/b"] {
        fs::write(temp.path().join(name), "not ours").unwrap();
    }
    let outside = exact(temp.path(), "root");
    let mut input = Input(data);
    let segments = input.of(&[4, 8, 64]);
    let mut run = Run {
        options: WorkspaceOptions::new()
            .log(input.of(&[8 << 10, 16 << 10, 64 << 10]), segments)
            .checkpoint_bytes(input.of(&[1, 2000, 1 << 20]))
            // Without another byte of the input, which would be another one then.
            .remove_later_from(segments as usize / 4)
            .checkpoint_every(Duration::MAX),
        input,
        top: &top,
        root: Root::open(&top).unwrap(),
        boot: 0,
        model: Model::default(),
        doubt: false,
        said: Vec::new(),
    };
    run.reboot();
    run.run();
    assert_eq!(exact(temp.path(), "root"), outside, "\n{}", run.context());
}

fuzz_target!(
    init: steadfast_fuzz::fixed::write_if_asked(),
    |data: &[u8]| run(data)
);
