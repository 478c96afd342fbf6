//! Transactions, protected sections, and what stands beside them.

use crate::play::{Expect, Play, Subject};
use crate::shake::Shake;
use crate::tree::{Entry, Tree, litter, tree};
use crate::{Answer, fault};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use steadfast::Root;
use steadfast::publish::{FileOptions, FolderOptions, SweepOptions, sweep};
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Section, Transaction, Workspace, WorkspaceOptions};

const KEY: &str = "job";

pub(super) fn open(top: &Path) -> Answer<Workspace> {
    Ok(Workspace::open(&Root::open(top)?)?)
}

/// Content of many blocks.
pub(super) fn long(text: &str) -> Vec<u8> {
    text.as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(40_000)
        .collect()
}

/// Opens, which recovers; then nothing must be open, in conflict, or left.
pub(super) fn recover(top: &Path) -> Answer<Tree> {
    let key = reopen(top)?;
    look(top, key)
}

/// What a publication beside the log has left is swept as without a workspace, and what a published
/// folder has replaced may stand at that one's old name (see `FolderOptions::publish`).
fn recover_and_sweep(top: &Path) -> Answer<Tree> {
    let key = reopen(top)?;
    if top.join("e/index").exists() && top.join("next").exists() {
        fs::remove_dir_all(top.join("next"))?;
    }
    let everywhere = SweepOptions::new().recursive(true);
    sweep(&Root::open(top)?, ".", &everywhere)?;
    look(top, key)
}

/// Gives the value of the key.
fn reopen(top: &Path) -> Answer<Option<Vec<u8>>> {
    let workspace = open(top)?;
    let conflicts = workspace.conflicts()?;
    if !conflicts.is_empty() {
        return Err(fault(format!("conflicts: {conflicts:?}")));
    }
    let sections = workspace.recovered().sections();
    if let Some(open) = sections.iter().find(|s| s.still_open().is_some()) {
        return Err(fault(format!("still open: {open:?}")));
    }
    let key = workspace.key(KEY)?;
    workspace.close()?;
    Ok(key)
}

fn look(top: &Path, key: Option<Vec<u8>>) -> Answer<Tree> {
    let mut now = tree(top)?;
    if let Some(value) = key {
        now.insert(PathBuf::from("key"), Entry::File(0, 0, value));
    }
    let left = litter(top, &now);
    if left.is_empty() {
        Ok(now)
    } else {
        Err(fault(format!("left: {left:?}")))
    }
}

fn prepare(top: &Path) -> Answer<()> {
    for name in ["a", "b", "c"] {
        fs::write(top.join(name), format!("old {name}"))?;
    }
    fs::create_dir_all(top.join("d/sub"))?;
    for name in ["one", "two", "sub/deep"] {
        fs::write(top.join("d").join(name), format!("old {name}"))?;
    }
    fs::create_dir(top.join("e"))?;
    fs::write(top.join("e/file"), long("old in e"))?;
    Ok(())
}

/// One transaction as a step.
fn commit(
    play: &mut Play<'_>,
    workspace: &Workspace,
    what: impl FnOnce(&mut Transaction<'_>) -> steadfast::Result<()>,
) -> Answer<()> {
    play.step(tree, |_, _| {
        let mut tx = workspace.begin();
        what(&mut tx)?;
        tx.commit()?;
        Ok(())
    })
}

/// Each kind of operation, on what the transactions before have made.
fn transactions(play: &mut Play<'_>) -> Answer<()> {
    let workspace = open(&play.top)?;
    commit(play, &workspace, |tx| {
        tx.create_dir_all("n/m");
        tx.write("n/one", "first")?;
        tx.write("n/two", long("2"))?;
        tx.write("a", "a 1")
    })?;
    commit(play, &workspace, |tx| {
        tx.rename("n/one", "n/m/moved");
        tx.write("n/one", "another")?;
        tx.write("a", "a 2")
    })?;
    commit(play, &workspace, |tx| {
        tx.rename("n/m", "g");
        tx.append("g/moved", " and more")?;
        tx.create_dir("n/m");
        tx.write("n/m/new", "in a new one")
    })?;
    commit(play, &workspace, |tx| {
        tx.exchange("n/two", "a");
        tx.remove_file("n/one");
        tx.hard_link("g/moved", "linked");
        tx.symlink("g", "link");
        Ok(())
    })?;
    commit(play, &workspace, |tx| {
        tx.remove_tree("n");
        tx.write("n", "a file now")?;
        tx.write_in_place("linked", long("both names"))
    })?;
    commit(play, &workspace, |tx| {
        tx.rename("b", "tmp").rename("c", "b").rename("tmp", "c");
        for n in 0..12 {
            tx.write(format!("d/n{n}"), format!("number {n}"))?;
        }
        tx.set_attributes("b", Attributes::new().mode(Mode::from_bits_retain(0o640)));
        tx.set_attributes("e", Attributes::new().mode(Mode::from_bits_retain(0o700)));
        Ok(())
    })?;
    play.step(tree, |_, _| Ok(workspace.settle()?))?;
    commit(play, &workspace, |tx| {
        for n in 0..6 {
            tx.remove_file(format!("d/n{n}"));
        }
        tx.write("d/n9", "once more")?;
        tx.create_dir("h");
        tx.rename("d", "h/d");
        tx.exchange("e", "h/d/sub");
        Ok(())
    })?;
    commit(play, &workspace, |tx| tx.write("h/d/sub/file", "new in e"))
}

/// A log that soon is full: checkpoints come by themselves, segments are used again. In between the process
/// dies, and files are saved without the journal.
fn recycling(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    let open = || -> Answer<_> {
        let options = WorkspaceOptions::new().log(16 << 10, 4);
        let options = options.checkpoint_bytes(10 << 10).remove_later_from(1);
        Ok(options.open(&root)?)
    };
    let mut workspace = open()?;
    for n in 0..14 {
        let text = format!("version {n}, ").repeat(150 + 10 * n);
        commit(play, &workspace, |tx| {
            tx.write("a", &text)?;
            tx.write("d/two", &text)?;
            tx.append("log", format!("line {n}\n"))
        })?;
        if n % 5 == 2 {
            play.step(tree, |_, _| {
                workspace.settle()?;
                // Nothing of the log may come back over it.
                FileOptions::new().write(&root, "a", format!("by itself {n}"))?;
                Ok(())
            })?;
        }
        if n % 6 == 4 {
            drop(workspace);
            workspace = open()?;
        }
    }
    Ok(())
}

/// Exchanging and publishing in a workspace, with a key.
fn folders(play: &mut Play<'_>) -> Answer<()> {
    let workspace = open(&play.top)?;
    commit(play, &workspace, |tx| tx.write("a", "before"))?;
    play.step(tree, |_, _| {
        workspace.swap("a", "d")?;
        Ok(())
    })?;
    commit(play, &workspace, |tx| {
        tx.create_dir_all("next/sub");
        tx.write("next/sub/file", long("next"))?;
        tx.write("next/index", "next")
    })?;
    play.step(tree, |_, _| {
        workspace.publish_folder("next", "e", &FolderOptions::new())?;
        Ok(())
    })?;
    let with_key = |top: &Path| look(top, Some(b"done".to_vec()));
    play.step(with_key, |_, _| {
        let mut tx = workspace.begin();
        tx.write("b", "with a key")?;
        tx.key(KEY, "done");
        tx.commit()?;
        Ok(())
    })?;
    play.step(with_key, |_, _| {
        workspace.swap("b", "e")?;
        Ok(())
    })
}

/// Steps of its own and of another program, in files and folders that both write.
fn mixed(s: &mut Section<'_>, top: &Path, shake: &Shake) -> Answer<()> {
    s.protect(["a", "d"])?;
    let mut a = File::options().append(true).open(top.join("a"))?;
    a.write_all(b", and more")?;
    shake.call();
    fs::write(top.join("d/theirs"), "theirs")?;
    shake.call();
    fs::write(top.join("d/two"), "edited")?;
    fs::remove_file(top.join("d/sub/deep"))?;
    shake.call();
    s.apply(|tx| {
        tx.write("b", "b new")?;
        tx.write("new", long("n"))?;
        tx.create_dir_all("x/y");
        tx.write("x/y/file", "new")
    })?;
    s.phase("half")?;
    s.apply(|tx| {
        tx.remove_tree("e");
        tx.rename("d", "moved");
        Ok(())
    })?;
    fs::write(top.join("moved/sub/theirs"), "theirs as well")?;
    shake.call();
    s.apply(|tx| {
        tx.write("moved/one", "one new")?;
        tx.create_dir("d");
        tx.write("d/one", "another")
    })?;
    fs::write(top.join("a"), "theirs, from the beginning")?;
    shake.call();
    Ok(())
}

/// On what the first has left.
fn second(s: &mut Section<'_>, top: &Path, shake: &Shake) -> Answer<()> {
    s.protect(["moved"])?;
    fs::remove_dir_all(top.join("moved/sub"))?;
    shake.call();
    fs::write(top.join("moved/sub"), "a file now")?;
    shake.call();
    s.apply(|tx| {
        tx.exchange("d", "b");
        tx.remove_tree("x");
        tx.rename("c", "d2").rename("a", "c");
        tx.write("b/one", "in what was d")
    })?;
    let captured = s.capture("new", "aside")?;
    s.restore(&captured)?;
    s.capture("new", "aside")?;
    Ok(())
}

type Change = fn(&mut Section<'_>, &Path, &Shake) -> Answer<()>;

fn section(play: &mut Play<'_>, workspace: &Workspace, what: Change, keep: bool) -> Answer<()> {
    play.step(tree, |top, shake| {
        let mut section = workspace.section("section")?;
        what(&mut section, top, shake)?;
        if keep {
            section.commit()?;
        } else {
            section.rollback()?;
        }
        Ok(())
    })
}

fn sections(play: &mut Play<'_>) -> Answer<()> {
    let workspace = open(&play.top)?;
    commit(play, &workspace, |tx| {
        tx.write("d/two", "two of a transaction")
    })?;
    section(play, &workspace, mixed, false)?;
    section(play, &workspace, mixed, true)?;
    commit(play, &workspace, |tx| {
        tx.rename("moved", "m").rename("m", "moved");
        tx.write("moved/one", "of a transaction")
    })?;
    section(play, &workspace, second, false)?;
    section(play, &workspace, second, true)?;
    commit(play, &workspace, |tx| tx.write("c", "c of a transaction"))
}

/// Transactions on what [`prepare`] makes.
pub(super) fn base(name: &'static str, run: fn(&mut Play<'_>) -> Answer<()>) -> Subject {
    Subject {
        name,
        expect: |_| Expect::Clean,
        each: false,
        nested: true,
        prepare,
        run,
        recover,
    }
}

pub(crate) fn all() -> Vec<Subject> {
    vec![
        base("transactions", transactions),
        Subject {
            recover: recover_and_sweep,
            ..base("transactions, log recycled", recycling)
        },
        Subject {
            recover: recover_and_sweep,
            ..base("swap and publish in a workspace", folders)
        },
        base("sections", sections),
    ]
}
