//! Whatever stands in the logs, the ledger and the private folders of a workspace: opening it never panics,
//! never touches anything outside of the root, never loses a file that no record names, and is over after
//! one time.
//!
//! The input is a program that puts down records (of the right form, with bytes changed, or raw), marks,
//! a horizon, decisions to give up, and litter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use steadfast::sys::hook::{self, Machine};
use steadfast::workspace::{
    PruneOptions, Workspace, WorkspaceOptions, explain, prune, records, repair, status,
};
use steadfast::{DiskState, ErrorKind, Root};
use steadfast_fuzz::input::Input;
use steadfast_fuzz::log::Log;
use steadfast_fuzz::record::{Bytes, Thing, World};
use steadfast_fuzz::tree::{difference, exact, tree};

const STATE: &str = ".steadfast";
const BOOT: [u8; 16] = [1; 16];
const FOREIGN: [&str; 2] = ["f0reign-5e1d/one", "f0reign-77aa"];
/// Numbers of transactions from here on leave no room for others.
const HIGH: u64 = 1 << 62;

fn machine(boot: [u8; 16]) {
    hook::set_machine(Some(Machine {
        boot_id: Some(boot),
        time_namespace: Some(1),
        boottime: Duration::from_secs(100),
    }));
}

/// The tree, and the private things that records may name.
fn world(top: &Path) -> World {
    for dir in ["d/e", "n", "f0reign-5e1d"] {
        fs::create_dir_all(top.join(dir)).unwrap();
    }
    for (n, file) in ["a", "b", "c", "d/x", "d/y", "d/e/z"].iter().enumerate() {
        fs::write(top.join(file), format!("old {n}")).unwrap();
    }
    for file in FOREIGN {
        fs::write(top.join(file), "foreign").unwrap();
    }
    fs::hard_link(top.join("a"), top.join("h")).unwrap();
    symlink("../beside", top.join("l")).unwrap();
    let state = top.join(STATE);
    let private = |folder: &str, n: u64, what: u64| {
        let name = format!("00000001-{n:016x}");
        let path = state.join(folder).join(&name);
        match what {
            0 => fs::create_dir(&path).unwrap(),
            1 => symlink("none", &path).unwrap(),
            // Of two lengths: one sector, and more than that.
            _ => fs::write(&path, vec![b'p'; 30 + usize::try_from(n).unwrap() * 300]).unwrap(),
        }
        Thing::of(&state.join(folder), &name)
    };
    let staged = (0..5).map(|n| private("staged", n, n)).collect();
    let kept = (5..9).map(|n| private("kept", n, n - 5)).collect();
    private("retired", 9, 2);
    let of = |paths: &[&str]| paths.iter().map(|path| Thing::of(top, path)).collect();
    World {
        things: of(&[
            "a", "b", "c", "d/x", "d/y", "d/e/z", "d", "d/e", "n", "l", "h",
        ]),
        dirs: of(&["", "d", "d/e", "n"]),
        staged,
        kept,
        beside: Thing::of(top.parent().unwrap(), "beside/b"),
    }
}

struct Put<'a> {
    input: Input<'a>,
    state: &'a Path,
    world: World,
    /// A record names what is foreign, or all that there is.
    names_all: bool,
    /// The highest number of a transaction.
    highest: u64,
    /// Of sections: each begins once.
    begun: BTreeSet<u64>,
    /// There are records of sections: what is wrong with one may show only when it is taken back.
    sections: bool,
}

impl Put<'_> {
    fn number(&mut self) -> u64 {
        let number = match self.input.below(16) {
            0 => self.input.long(),
            n => n as u64,
        };
        self.highest = self.highest.max(number);
        number
    }

    /// The same bytes, with some changed.
    fn changed(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.input.below(16).saturating_sub(11) {
            let at = usize::from(self.input.short()) % (bytes.len() + 1);
            match self.input.below(4) {
                0 => bytes.truncate(at),
                1 => {
                    let n = self.input.below(20);
                    let new = self.input.take(n).to_vec();
                    bytes.splice(at..at, new);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.input.byte();
                    }
                }
            }
        }
        bytes
    }

    /// What is too long for a record: the file it is in, and the record of that.
    fn in_file(&mut self, number: u64, content: &[u8], n: usize) -> Vec<u8> {
        let name = format!("00000001-f{n:015x}");
        fs::write(self.state.join("staged").join(&name), content).unwrap();
        let mut out = Bytes(vec![1]);
        out.u64(number);
        out.bytes(name.as_bytes());
        out.u64(content.len() as u64);
        out.u32(crc32c::crc32c(content));
        out.0
    }

    fn record(&mut self, number: u64, n: usize) -> (u16, Vec<u8>) {
        let of_number = |tail: &[u8]| [&[1], &number.to_le_bytes()[..], tail].concat();
        match self.input.below(16) {
            0..7 => (16, self.world.commit(&mut self.input, number, BOOT)),
            7 => {
                let commit = self.world.commit(&mut self.input, number, BOOT);
                let commit = self.changed(commit);
                (18, self.in_file(number, &commit, n))
            }
            8 => {
                let mut out = Bytes(of_number(&[]));
                out.stamp((1_700_000_000, 0));
                out.bytes(b"section");
                (19, out.0)
            }
            9..12 => {
                let (bytes, all) = self.world.fragment(&mut self.input, number);
                self.names_all |= all;
                if self.input.one_in(6) {
                    let file = self.in_file(number, &bytes, n);
                    let mut out = Bytes(of_number(&[3]));
                    out.bytes(&file);
                    return (20, out.0);
                }
                (20, bytes)
            }
            12 => {
                let mut out = Bytes(of_number(&[1]));
                out.bytes(self.input.of(&[b"hook".as_slice(), b"none", b"fails"]));
                out.bytes(b"payload");
                (20, out.0)
            }
            13 => {
                let mut out = Bytes(of_number(&[]));
                out.bytes(b"phase");
                (21, out.0)
            }
            14 => {
                let mut out = Bytes(of_number(&[self.input.byte() % 4]));
                if out.0.last() == Some(&1) {
                    out.count(1);
                    out.bytes(b"key");
                    out.bytes(b"value");
                }
                (22, out.0)
            }
            _ => {
                let n = usize::from(self.input.byte());
                (
                    16 + u16::from(self.input.byte() % 8),
                    self.input.take(n).to_vec(),
                )
            }
        }
    }

    fn log(&mut self, index: u32) {
        let dir = self.state.join(format!("logs/{index:08x}"));
        // What is there is the log of whoever made the workspace.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let mut log = Log::new([index as u8; 16], 32 << 10);
        let mut section = None;
        for n in 0..1 + self.input.below(6) {
            // A section's records have its number.
            let number = match section {
                Some(number) if !self.input.one_in(4) => number,
                _ => self.number(),
            };
            let (kind, bytes) = self.record(number, n + usize::try_from(index).unwrap() * 16);
            if kind == 19 {
                section = Some(number);
                if !self.begun.insert(number) {
                    continue;
                }
            }
            let payload = self.changed(bytes.clone());
            let foreign = |w: &[u8]| w == b"f0reign-";
            let is_section = (19..=22).contains(&kind);
            self.sections |= is_section;
            self.names_all |= is_section && payload != bytes || payload.windows(8).any(foreign);
            log.append(vec![(kind, number, 0, payload)]);
            match self.input.below(24) {
                0 => log.release(log.last()),
                1 => log.close(),
                2 => log.run(),
                _ => {}
            }
        }
        for (number, bytes) in &log.segments {
            fs::write(dir.join(format!("{number:016x}.seg")), bytes).unwrap();
        }
    }

    fn ledger(&mut self) {
        let path = self.state.join("ledger");
        let mut bytes = fs::read(&path).unwrap();
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        for _ in 0..self.input.below(4) {
            let number = match self.input.below(16) {
                0 => self.input.long(),
                n => n as u64 / 2,
            };
            self.highest = self.highest.max(number);
            let mut out = Bytes::default();
            match self.input.below(6) {
                0 => {
                    out.0.extend_from_slice(b"sfhorizn");
                    out.u64(number);
                    out.u32(crc32c::crc32c(&out.0));
                    put(4096 * self.input.below(2), &out.0);
                }
                1 => {
                    out.u64(number);
                    out.u32(crc32c::crc32c(&out.0));
                    put(8192, &out.0);
                }
                2 => {
                    let n = self.input.below(32);
                    let at = usize::from(self.input.short()) % (16384 - 32);
                    put(at, self.input.take(n));
                }
                _ => {
                    out.u64(number);
                    out.u32(u32::from(self.input.byte() % 4));
                    out.0.extend_from_slice(&[self.input.byte() % 4, 0]);
                    let crc = crc32c::crc32c(&out.0);
                    out.0.extend_from_slice(&crc.to_le_bytes()[..2]);
                    put(12288 + 16 * self.input.below(256), &out.0);
                }
            }
        }
        fs::write(path, bytes).unwrap();
    }

    /// A decision to give something up.
    fn abandoned(&mut self) {
        let dir = self.state.join("abandoned");
        fs::create_dir_all(&dir).unwrap();
        let number = self.number();
        let mut out = Bytes(vec![1]);
        out.u64(number);
        out.u8(self.input.byte() % 3);
        out.u8(u8::from(self.input.one_in(4)));
        for _ in 0..2 {
            let count = self.input.below(4);
            out.u64(count as u64);
            (0..count).for_each(|_| out.u64(u64::from(self.input.byte() % 8)));
        }
        out.u32(crc32c::crc32c(&out.0));
        let bytes = self.changed(out.0);
        fs::write(dir.join(format!("{number:016x}")), bytes).unwrap();
    }

    fn litter(&mut self) {
        let folder = self
            .input
            .of(&["staged", "kept", "retired", "conflicts", "keys", "logs"]);
        let n = self.input.below(3);
        let name = match self.input.below(4) {
            0 => format!("0000000{n}-00000000000000f{n}"),
            1 => format!("{n:016x}"),
            2 => format!("{:08x}", n + 4),
            _ => "litter".to_owned(),
        };
        let path = self.state.join(folder).join(name);
        // It may be there.
        let _ = match self.input.below(3) {
            0 => fs::create_dir(&path),
            1 => symlink("../../../beside", &path),
            _ => fs::write(&path, self.input.take(40)),
        };
    }

    fn all(&mut self) {
        for _ in 0..1 + self.input.below(4) {
            match self.input.below(8) {
                0..4 => self.log(1),
                4 => self.log(2),
                5 => self.ledger(),
                6 => self.abandoned(),
                _ => self.litter(),
            }
        }
        if self.input.one_in(2) {
            self.ledger();
        }
    }
}

fn options() -> WorkspaceOptions {
    WorkspaceOptions::new()
        .create(false)
        .log(8 << 10, 16)
        .wait(Duration::from_secs(1))
        .hook("hook", |_, _| Ok(()))
        .hook("fails", |_, _| Err("it fails".into()))
}

fn run(data: &[u8]) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    machine(BOOT);
    let temp = steadfast_fuzz::fresh();
    let top = temp.path().join("root");
    fs::create_dir(&top).unwrap();
    fs::create_dir(temp.path().join("beside")).unwrap();
    for name in ["a", "beside/b"] {
        fs::write(temp.path().join(name), "not ours").unwrap();
    }
    let root = Root::open(&top).unwrap();
    Workspace::open(&root).unwrap().close().unwrap();
    let state = top.join(STATE);
    let mut put = Put {
        world: world(&top),
        input: Input(data),
        state: &state,
        names_all: false,
        highest: 0,
        begun: BTreeSet::new(),
        sections: false,
    };
    put.all();
    let outside = exact(temp.path(), "root");
    check(&root, &top, &put);
    let now = exact(temp.path(), "root");
    assert!(now == outside, "outside: {}", difference(&now, &outside));
    if !put.names_all {
        for file in FOREIGN {
            assert_eq!(fs::read(top.join(file)).unwrap(), b"foreign", "{file}");
        }
    }
}

fn check(root: &Root, top: &Path, put: &Put<'_>) {
    let before = exact(top, "");
    // Those who only look, change nothing.
    let seen = status(root);
    if let Ok(told) = records(root, None) {
        for record in told.iter().flat_map(|log| &log.records) {
            // It may not be there, or not be readable.
            let _ = explain(root, record.number);
        }
    }
    let now = exact(top, "");
    assert!(now == before, "looked at: {}", difference(&now, &before));
    let before = exact(top, STATE);
    match options().open(root) {
        Ok(workspace) => {
            assert!(seen.is_ok(), "opened, but {seen:?}");
            once_more(root, top, put, workspace);
        }
        Err(e) => {
            let again = options().open(root).map(drop);
            let newer = e.kind() == ErrorKind::Unsupported;
            if e.kind() == ErrorKind::Corrupt || newer && e.disk_state() == DiskState::Unchanged {
                let now = exact(top, STATE);
                assert!(now == before, "{e}: {}", difference(&now, &before));
                assert_eq!(again.map_err(|e| e.kind()), Err(e.kind()), "{e}");
            }
            if repair(root).is_ok()
                && !put.sections
                && let Err(e) = options().open(root)
            {
                assert_ne!(e.kind(), ErrorKind::Corrupt, "repaired: {e:?}");
            }
        }
    }
}

/// It is open: a second time there is nothing to do, and work goes on.
fn once_more(root: &Root, top: &Path, put: &Put<'_>, workspace: Workspace) {
    let first = workspace.recovered().clone();
    drop(workspace);
    let after = tree(top, STATE);
    let workspace = options()
        .open(root)
        .unwrap_or_else(|e| panic!("{e:?} after {first:?}"));
    let second = workspace.recovered();
    let now = tree(top, STATE);
    assert!(
        now == after,
        "{first:?}\n{second:?}\n{}",
        difference(&now, &after)
    );
    // What is in one log with a section that stays open, is looked at each time.
    let is_open = second.sections().iter().any(|s| s.still_open().is_some());
    let nothing = second.finished().is_empty() || is_open;
    assert!(
        nothing && second.taken_back().is_empty() && second.conflicts().is_empty(),
        "{first:?}\n{second:?}"
    );
    if put.highest < HIGH && !put.names_all && second.sections().is_empty() {
        let mut tx = workspace.begin();
        tx.write("f0reign-5e1d/more", "more").unwrap();
        match tx.commit() {
            Ok(_) => {}
            // All of it is closed as long as somebody has to decide.
            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e:?} after {first:?}"),
        }
    }
    drop(workspace);
    // And those who tidy up find their way.
    let options = PruneOptions::new().keep_logs(0).set_aside(true);
    let _ = prune(root, &options);
    let now = tree(top, STATE);
    assert!(
        now.len() >= after.len(),
        "pruned: {}",
        difference(&now, &after)
    );
}

fuzz_target!(
    init: steadfast_fuzz::fixed::write_if_asked(),
    |data: &[u8]| run(data)
);
