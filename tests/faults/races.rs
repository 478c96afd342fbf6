//! What somebody else does between two calls: the moment is found by counting, so that each race is won.

use crate::common;
use crate::dir;
use std::cell::{Cell, RefCell};
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;
use steadfast::publish::{
    FileOptions, FolderOptions, FolderTarget, Kept, Note, Receipt, Staging, SweepOptions, Target,
    Version, sweep,
};
use steadfast::sys::{self, Errno, LockKind, hook};
use steadfast::{DiskState, Durability, Error, ErrorKind, Result, Root};

const EXCHANGE: &str = "renameat2(RENAME_EXCHANGE)";

/// Every entry of a directory, with the text of those that are files.
fn entries(dir: &Path) -> Vec<(String, Option<String>)> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            let name = e.file_name().into_string().unwrap();
            (name, fs::read_to_string(e.path()).ok())
        })
        .collect();
    found.sort();
    found
}

/// A temporary that is there.
fn litter(top: &Path) -> Option<PathBuf> {
    let found = entries(top).into_iter().map(|(name, _)| name);
    let mut found = found.filter(|name| name.starts_with(".sf-"));
    found.next().map(|name| top.join(name))
}

fn file(name: &str, text: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(text.to_owned()))
}

/// Runs an operation with somebody else who hears of each of its calls, and how many came before it.
fn beside<T>(mut other: impl FnMut(u64, &'static str) + 'static, f: impl FnOnce() -> T) -> T {
    let mut heard = 0;
    hook::observe(
        move |call, _| {
            other(heard, call);
            heard += 1;
        },
        f,
    )
}

/// Runs an operation twice, each time in a new directory: undisturbed, and with a deed that is done `ahead`
/// calls before its first call of this name. `None`: it makes no such call here.
fn race<T: 'static>(
    call: &'static str,
    ahead: u64,
    prepare: fn(&Path),
    operation: fn(&Root) -> Result<T>,
    deed: fn(&Path),
) -> Option<(tempfile::TempDir, Result<T>, Vec<&'static str>)> {
    if hook::denied_by_env(call) {
        common::skipped("a race", format_args!("no {call}"));
        return None;
    }
    let prepared = || {
        let tmp = dir();
        prepare(tmp.path());
        let root = Root::open(tmp.path()).unwrap();
        (tmp, root)
    };
    // What is looked up once in a process, is looked up now.
    drop(operation(&prepared().1));
    let (_tmp, root) = prepared();
    let (_, calls) = hook::scope(None, || operation(&root));
    let at = calls.iter().rposition(|c| *c == call).unwrap() as u64 - ahead;
    let (tmp, root) = prepared();
    let top = tmp.path().to_owned();
    let (done, calls) = hook::scope(None, || {
        beside(
            move |heard, _| {
                if heard + 1 == at {
                    deed(&top);
                }
            },
            || operation(&root),
        )
    });
    Some((tmp, done, calls))
}

fn old_file(top: &Path) {
    fs::write(top.join("f"), "old").unwrap();
}

fn old_folder(top: &Path) {
    fs::create_dir(top.join("f")).unwrap();
}

fn replace_file(root: &Root) -> Result<Receipt> {
    let options = FileOptions::new().target(Target::Replace);
    options.write(root, "f", "new")
}

fn replace_folder(root: &Root) -> Result<Receipt> {
    FolderOptions::new().begin(root, "f")?.commit()
}

fn if_unchanged(root: &Root) -> Result<Receipt> {
    let seen = Version::of(root, "f")?;
    let options = FileOptions::new().target(Target::IfUnchanged(seen));
    options.write(root, "f", "new")
}

fn move_over(root: &Root) -> Result<Receipt> {
    let options = FolderOptions::new().durability(Durability::None);
    options.publish(root, "m", root, "f")
}

/// Both a file, of which one replaces the other.
fn two_files(top: &Path) {
    old_file(top);
    fs::write(top.join("m"), "new").unwrap();
}

fn put_folder(top: &Path) {
    fs::remove_file(top.join("f")).unwrap();
    fs::create_dir(top.join("f")).unwrap();
    fs::write(top.join("f/theirs"), "theirs").unwrap();
}

/// Gives a file of theirs a name, whatever had it.
fn put(top: &Path, name: &str, text: &str) {
    fs::write(top.join("theirs"), text).unwrap();
    let name = top.join(name);
    if name.is_dir() {
        fs::remove_dir_all(&name).unwrap();
    }
    fs::rename(top.join("theirs"), name).unwrap();
}

/// Moves what has a name to `old`, and gives the name to a symlink of theirs.
fn put_link(top: &Path, name: &str, to: &str) {
    fs::rename(top.join(name), top.join("old")).unwrap();
    symlink(to, top.join(name)).unwrap();
}

fn changed(error: &Error) {
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::Changed, DiskState::Unchanged), "{error}");
}

#[test]
fn what_came_to_the_name_in_the_last_moment_stays() {
    type Case = (fn(&Path), fn(&Root) -> Result<Receipt>, fn(&Path));
    let theirs: fn(&Path) = |top| put(top, "f", "theirs");
    let cases: [Case; 3] = [
        (old_file, replace_file, put_folder),
        (old_file, if_unchanged, theirs),
        (old_folder, replace_folder, theirs),
    ];
    // Before the exchange, and before the look that comes before it: then nobody sees an exchange.
    for (n, (prepare, operation, deed)) in cases.into_iter().enumerate() {
        for ahead in [0, 1] {
            let Some((tmp, done, calls)) = race(EXCHANGE, ahead, prepare, operation, deed) else {
                return;
            };
            changed(&done.unwrap_err());
            let found = entries(tmp.path());
            let folder = ("f".to_owned(), None);
            assert_eq!(found, [if n == 0 { folder } else { file("f", "theirs") }]);
            assert!(n > 0 || tmp.path().join("f/theirs").exists());
            let exchanges = calls.iter().filter(|c| **c == EXCHANGE).count();
            assert_eq!(exchanges, if ahead == 0 { 2 } else { 0 }, "{n}");
        }
    }
}

/// A symlink too, even if it leads to what was there, or to nothing.
#[test]
fn a_symlink_that_came_in_the_last_moment_stays() {
    type Case = (fn(&Path), fn(&Root) -> Result<Receipt>);
    type Link = (&'static str, fn(&Path));
    let cases: [Case; 3] = [
        (old_file, replace_file),
        (old_file, if_unchanged),
        (old_folder, replace_folder),
    ];
    let leads: [Link; 2] = [
        ("old", |top| put_link(top, "f", "old")),
        ("nothing", |top| put_link(top, "f", "nothing")),
    ];
    for (n, (prepare, operation)) in cases.into_iter().enumerate() {
        for (ahead, (to, deed)) in [0, 1].into_iter().flat_map(|a| leads.map(|l| (a, l))) {
            let Some((tmp, done, calls)) = race(EXCHANGE, ahead, prepare, operation, deed) else {
                return;
            };
            changed(&done.unwrap_err());
            assert_eq!(entries(tmp.path()).len(), 2, "{n}");
            let link = fs::read_link(tmp.path().join("f")).unwrap();
            assert_eq!(link, Path::new(to), "{n}");
            let exchanges = calls.iter().filter(|c| **c == EXCHANGE).count();
            assert_eq!(exchanges, if ahead == 0 { 2 } else { 0 }, "{n}");
        }
    }
}

/// A symlink that takes the name in the last moment is not what was to get it, even if it leads there.
#[test]
fn a_symlink_to_the_source_is_not_the_source() {
    let prepare: fn(&Path) = |top| fs::write(top.join("m"), "new").unwrap();
    let operation = |root: &Root| {
        let options = FolderOptions::new().target(FolderTarget::CreateNew);
        options.publish(root, "m", root, "f")
    };
    let deed: fn(&Path) = |top| symlink("m", top.join("f")).unwrap();
    let call = "renameat2(RENAME_NOREPLACE)";
    let Some((tmp, done, _)) = race(call, 0, prepare, operation, deed) else {
        return;
    };
    let error = done.unwrap_err();
    let state = (error.kind(), error.disk_state());
    assert_eq!(state, (ErrorKind::AlreadyExists, DiskState::Unchanged));
    let link = fs::read_link(tmp.path().join("f")).unwrap();
    assert_eq!(link, Path::new("m"));
}

/// While an exchange is taken back somebody replaces what is to be taken back, once or again and again: the
/// last of theirs has the name, and the one before it stays too.
#[test]
fn what_came_while_an_exchange_was_taken_back_stays_too() {
    if hook::denied_by_env(EXCHANGE) {
        return common::skipped("taking an exchange back", "no exchange");
    }
    type Case = (fn(&Path), fn(&Root) -> Result<Receipt>);
    let cases: [Case; 2] = [(old_file, if_unchanged), (old_folder, replace_folder)];
    for (prepare, operation) in cases {
        let first = dir();
        prepare(first.path());
        let root = Root::open(first.path()).unwrap();
        let (done, calls) = hook::scope(None, || operation(&root));
        done.unwrap();
        // Some of a process's first calls are made once.
        let before = calls.iter().rev().position(|c| *c == EXCHANGE).unwrap();
        let again = dir();
        prepare(again.path());
        let root = Root::open(again.path()).unwrap();
        let (_, calls) = hook::scope(None, || operation(&root));
        assert_eq!(
            calls.iter().rev().position(|c| *c == EXCHANGE),
            Some(before)
        );
        let at = calls.iter().position(|c| *c == EXCHANGE).unwrap() as u64;

        for times in 1..=5 {
            let tmp = dir();
            prepare(tmp.path());
            let (top, came, exchanged) = (tmp.path().to_owned(), Cell::new(0), Cell::new(false));
            let root = Root::open(tmp.path()).unwrap();
            let done = beside(
                move |heard, call| {
                    if heard + 1 == at {
                        put(&top, "f", "theirs 0");
                    }
                    if call == EXCHANGE {
                        exchanged.set(true);
                    } else if call == "statx" && exchanged.take() && came.get() < times {
                        came.set(came.get() + 1);
                        put(&top, "f", &format!("theirs {}", came.get()));
                    }
                },
                || operation(&root),
            );
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
            let [left] = error.left_behind() else {
                panic!("{error}");
            };
            let left = left.to_str().unwrap();
            assert_eq!(
                entries(tmp.path()),
                [
                    file(left, &format!("theirs {}", times - 1)),
                    file("f", &format!("theirs {times}"))
                ]
            );
        }
    }
}

/// A source that is another one when it is opened is not published.
#[test]
fn the_source_is_what_was_found() {
    let operation = |root: &Root| FolderOptions::new().publish(root, "m", root, "n");
    let prepare: fn(&Path) = |top| fs::write(top.join("m"), "new").unwrap();
    // It is opened, looked at and synced.
    let theirs: fn(&Path) = |top| put(top, "m", "theirs");
    let (sync, open) = ("fsync", 2);
    let first = |root: &Root| operation(root);
    // The last syncs are of the directories.
    let tmp = dir();
    prepare(tmp.path());
    let root = Root::open(tmp.path()).unwrap();
    let (_, calls) = hook::scope(None, || first(&root));
    let fsyncs = calls.iter().filter(|c| **c == sync).count();
    let from_last = calls.iter().rposition(|c| *c == sync).unwrap()
        - calls.iter().position(|c| *c == sync).unwrap();
    assert!(fsyncs > 1);
    let ahead = from_last as u64 + open;
    let Some((tmp, done, _)) = race(sync, ahead, prepare, operation, theirs) else {
        return;
    };
    changed(&done.unwrap_err());
    assert_eq!(entries(tmp.path()), [file("m", "theirs")]);
}

/// What is proved of one file is not believed of another that has its name by now.
#[test]
fn a_sweep_removes_what_it_has_looked_at() {
    let _no_child = common::no_child();
    let prepare: fn(&Path) = |top| {
        hook::deny(&[("unlinkat", Errno::IO)], || {
            drop(FileOptions::new().begin(&Root::open(top).unwrap(), "t"));
        });
    };
    let operation = |root: &Root| sweep(root, ".", &SweepOptions::new());
    let theirs: fn(&Path) = |top| {
        let (name, _) = entries(top).pop().unwrap();
        put(top, &name, "theirs");
    };
    // It is looked at by its name, opened, looked at again, and asked for.
    let raced = race("fcntl(F_SETLEASE)", 2, prepare, operation, theirs);
    let Some((tmp, done, _)) = raced else { return };
    let report = done.unwrap();
    assert!(report.removed().is_empty());
    assert!(matches!(report.kept(), [(_, Kept::InUse)]), "{report:?}");
    let (_, text) = entries(tmp.path()).pop().unwrap();
    assert_eq!(text.as_deref(), Some("theirs"));
}

/// What was replaced has the source's name, and is removed from there; but only that.
#[test]
fn what_has_the_sources_name_meanwhile_stays() {
    if hook::denied_by_env(EXCHANGE) {
        return common::skipped("the source's name", "no exchange");
    }
    let theirs: fn(&Path) = |top| put(top, "m", "theirs");
    // Behind the exchange are three calls until the old file is aside: what came out, what has the name, the
    // rename. And one more that looks at it.
    for ahead in [2, 1] {
        let raced = race("renameat", ahead - 1, two_files, move_over, theirs);
        let Some((tmp, done, _)) = raced else { return };
        let receipt = done.unwrap();
        let [.., Note::Left(left)] = receipt.notes() else {
            panic!("{receipt:?}");
        };
        // It goes back where a name can be given that must be free.
        assert!(left == Path::new("m") || hook::denied_by_env("renameat2(RENAME_NOREPLACE)"));
        let mut want = [file("f", "new"), file(left.to_str().unwrap(), "theirs")];
        want.sort();
        assert_eq!(entries(tmp.path()), want);
    }
}

/// Nor is a symlink removed that leads to what was replaced.
#[test]
fn a_symlink_that_has_the_sources_name_meanwhile_stays() {
    if hook::denied_by_env(EXCHANGE) {
        return common::skipped("a symlink with the source's name", "no exchange");
    }
    let theirs: fn(&Path) = |top| put_link(top, "m", "old");
    for ahead in [2, 1] {
        let raced = race("renameat", ahead - 1, two_files, move_over, theirs);
        let Some((tmp, done, _)) = raced else { return };
        let receipt = done.unwrap();
        let [.., Note::Left(left)] = receipt.notes() else {
            panic!("{receipt:?}");
        };
        let link = fs::read_link(tmp.path().join(left)).unwrap();
        assert_eq!(link, Path::new("old"));
        let mut want = [
            file("f", "new"),
            file("old", "old"),
            file(left.to_str().unwrap(), "old"),
        ];
        want.sort();
        assert_eq!(entries(tmp.path()), want);
    }
}

/// What was moved aside by mistake cannot go back where somebody has taken the name again.
#[test]
fn what_was_moved_aside_by_mistake_replaces_nothing() {
    if hook::denied_by_env(EXCHANGE) {
        return common::skipped("moved aside by mistake", "no exchange");
    }
    let tmp = dir();
    two_files(tmp.path());
    let (top, seen) = (tmp.path().to_owned(), Rc::new(RefCell::new(Vec::new())));
    let root = Root::open(tmp.path()).unwrap();
    let heard = seen.clone();
    let done = beside(
        move |_, call| {
            let mut seen = heard.borrow_mut();
            if !seen.is_empty() || call == EXCHANGE {
                seen.push(call);
            }
            // The exchange, what came out, what has the name: then the rename.
            match seen[..] {
                [EXCHANGE, "statx", "statx"] => put(&top, "m", "theirs"),
                [EXCHANGE, "statx", "statx", "renameat"] => put(&top, "m", "theirs as well"),
                _ => {}
            }
        },
        || move_over(&root),
    );
    let receipt = done.unwrap();
    assert!(seen.borrow().len() > 4);
    let [.., Note::Left(left)] = receipt.notes() else {
        panic!("{receipt:?}");
    };
    assert_eq!(
        entries(tmp.path()),
        [
            file(left.to_str().unwrap(), "theirs"),
            file("f", "new"),
            file("m", "theirs as well")
        ]
    );
}

#[test]
fn attributes_are_those_of_a_file() {
    // It is looked at and opened; the temporary is opened after it.
    let write = |root: &Root| FileOptions::new().write(root, "f", "new");
    let tmp = dir();
    old_file(tmp.path());
    let root = Root::open(tmp.path()).unwrap();
    write(&root).unwrap();
    let (_, calls) = hook::scope(None, || write(&root));
    let opens: Vec<_> = (0..).zip(&calls).filter(|(_, c)| **c == "openat").collect();
    let ahead = opens[opens.len() - 1].0 - opens[opens.len() - 2].0;
    let Some((tmp, done, _)) = race("openat", ahead, old_file, write, put_folder) else {
        return;
    };
    let error = done.unwrap_err();
    let state = (error.errno(), error.disk_state());
    assert_eq!(state, (Some(Errno::AGAIN), DiskState::Unchanged), "{error}");
    assert_eq!(entries(tmp.path()), [("f".to_owned(), None)]);
}

/// A file that changes while its hash is taken is no version at all.
#[test]
fn a_hash_is_of_a_file_that_stands_still() {
    let tmp = dir();
    old_file(tmp.path());
    let root = Root::open(tmp.path()).unwrap();
    // Of "old".
    let hash = [
        0xcb, 0xa0, 0x6b, 0x57, 0x36, 0xfa, 0xf6, 0x7e, 0x54, 0xb0, 0x7b, 0x56, 0x1e, 0xae, 0x94,
        0x39, 0x5e, 0x77, 0x4c, 0x51, 0x7a, 0x7d, 0x91, 0x0a, 0x54, 0x36, 0x9e, 0x12, 0x63, 0xcc,
        0xfb, 0xd4,
    ];
    let options = FileOptions::new().target(Target::IfUnchanged(Version::sha256(hash)));
    drop(options.begin(&root, "f").unwrap());
    let path = tmp.path().join("f");
    let mut before = true;
    let done = beside(
        move |_, call| {
            if call == "pread64" && std::mem::take(&mut before) {
                // As long as before: what was read is all that there is to read.
                fs::write(&path, "OLD").unwrap();
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        },
        || options.begin(&root, "f").map(drop),
    );
    changed(&done.unwrap_err());
    assert_eq!(entries(tmp.path()), [file("f", "OLD")]);
}

/// A sweeper that sees a temporary before its maker holds it, removes it; then another one is made.
#[test]
fn what_is_swept_at_once_is_made_again() {
    let tmp = dir();
    let root = Root::open(tmp.path()).unwrap();
    let (top, mut swept) = (tmp.path().to_owned(), false);
    let done = beside(
        move |_, call| {
            if let Some(name) = litter(&top).filter(|_| call == "openat" && !swept) {
                fs::remove_file(name).unwrap();
                swept = true;
            }
        },
        || FileOptions::new().write(&root, "f", "new"),
    );
    done.unwrap();
    let (top, mut swept) = (tmp.path().to_owned(), false);
    let done = beside(
        move |_, call| {
            if let Some(name) = litter(&top).filter(|_| call == "flock" && !swept) {
                fs::remove_dir(name).unwrap();
                swept = true;
            }
        },
        || FolderOptions::new().begin(&root, "d")?.commit(),
    );
    done.unwrap();
    assert_eq!(
        entries(tmp.path()),
        [("d".to_owned(), None), file("f", "new")]
    );
}

/// A file that has taken a new folder's name is no folder, and is left as it is.
#[test]
fn a_file_that_has_a_staged_folders_name_stays() {
    let tmp = dir();
    let root = Root::open(tmp.path()).unwrap();
    let (top, mut done) = (tmp.path().to_owned(), false);
    let begun = beside(
        move |_, call| {
            if let Some(name) = litter(&top).filter(|_| call == "mkdirat" && !done) {
                fs::remove_dir(&name).unwrap();
                fs::write(&name, "theirs").unwrap();
                fs::set_permissions(&name, Permissions::from_mode(0o600)).unwrap();
                done = true;
            }
        },
        || FolderOptions::new().begin(&root, "d").map(drop),
    );
    assert_eq!(begun.unwrap_err().errno(), Some(Errno::NOTDIR));
    let theirs = litter(tmp.path()).unwrap();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    assert_eq!(fs::metadata(theirs).unwrap().mode() & 0o777, 0o600);
}

/// As long as an exchange may be taken back, its directories are locked, and sweepers judge nothing there.
#[test]
fn an_exchange_holds_others_away() {
    if hook::denied_by_env(EXCHANGE) {
        return common::skipped("an exchange holds others away", "no exchange");
    }
    let tmp = dir();
    for dir in ["d", "n"] {
        fs::create_dir(tmp.path().join(dir)).unwrap();
    }
    fs::write(tmp.path().join("d/f"), "old").unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let staged_elsewhere = |root: &Root| {
        let seen = Target::IfUnchanged(Version::of(root, "d/f")?);
        let options = FileOptions::new().target(seen);
        options
            .staging(Staging::In(".".into()))
            .write(root, "d/f", "new")
    };
    let folder = |root: &Root| FolderOptions::new().begin(root, "n")?.commit();
    type Case = (fn(&Root) -> Result<Receipt>, &'static [&'static str]);
    let cases: [Case; 2] = [(staged_elsewhere, &[".", "d"]), (folder, &["."])];
    for (operation, dirs) in cases {
        let open = |name: &&str| OwnedFd::from(File::open(tmp.path().join(name)).unwrap());
        let dirs: Vec<_> = dirs.iter().map(open).collect();
        let top = tmp.path().to_owned();
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        beside(
            move |_, call| {
                if call == EXCHANGE {
                    for dir in &dirs {
                        let lock = sys::try_flock(dir, LockKind::Exclusive);
                        assert_eq!(lock, Err(Errno::AGAIN));
                    }
                    // A sweeper, too, who sees the old one under its temporary name.
                    let root = Root::open(&top).unwrap();
                    let report = sweep(&root, ".", &SweepOptions::new()).unwrap();
                    assert!(matches!(report.kept(), [(_, Kept::InUse)]), "{report:?}");
                    count.set(count.get() + 1);
                }
            },
            || operation(&root).unwrap(),
        );
        assert_eq!(asked.get(), 1);
    }
}
