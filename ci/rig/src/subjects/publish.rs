//! Files and folders that the library publishes.

use crate::play::{Expect, Play, Subject};
use crate::tree::{Tree, litter, tree};
use crate::{Answer, fault};
use std::fs;
use std::path::Path;
use steadfast::publish::{
    Batch, BatchStrategy, FileOptions, FolderOptions, Staging, SweepOptions, Target, Version, swap,
    sweep,
};
use steadfast::sys::Mode;
use steadfast::{Durability, Root};

fn content(n: usize) -> Vec<u8> {
    format!("version {n}, ").repeat(700 * n + 1).into_bytes()
}

fn prepare(top: &Path) -> Answer<()> {
    for name in ["a", "b", "c"] {
        fs::write(top.join(name), content(0))?;
    }
    for (dir, text) in [("x", "in x"), ("y", "in y")] {
        fs::create_dir(top.join(dir))?;
        fs::write(top.join(dir).join("file"), text)?;
    }
    Ok(())
}

/// Sweeps; then nothing must be left that nobody asked for.
fn recover(top: &Path) -> Answer<Tree> {
    let root = Root::open(top)?;
    let report = sweep(&root, ".", &SweepOptions::new().recursive(true))?;
    let now = tree(top)?;
    let left = litter(top, &now);
    if left.is_empty() {
        Ok(now)
    } else {
        Err(fault(format!("left: {left:?}; {report:?}")))
    }
}

fn replace(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    for n in 1..=6 {
        play.step(tree, |_, _| {
            FileOptions::new().write(&root, "a", content(n))?;
            Ok(())
        })?;
        play.step(tree, |_, _| {
            let options = FileOptions::new().staging(Staging::Unnamed);
            options.write(&root, "b", content(n))?;
            Ok(())
        })?;
    }
    Ok(())
}

fn create(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    let new = FileOptions::new().target(Target::CreateNew);
    for n in 1..=6 {
        play.step(tree, |_, _| {
            new.write(&root, format!("new {n}"), content(n))?;
            Ok(())
        })?;
        play.step(tree, |_, _| {
            let unnamed = new.clone().staging(Staging::Unnamed);
            unnamed.write(&root, format!("x/new {n}"), content(n))?;
            Ok(())
        })?;
    }
    Ok(())
}

/// The forms that exchange.
fn exchange(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    for n in 1..=5 {
        play.step(tree, |_, _| {
            let options = FileOptions::new().target(Target::Replace);
            options.write(&root, "a", content(n))?;
            Ok(())
        })?;
        play.step(tree, |_, _| {
            let version = Version::of(&root, "b")?;
            let options = FileOptions::new().target(Target::IfUnchanged(version));
            options.write(&root, "b", content(n))?;
            Ok(())
        })?;
    }
    Ok(())
}

fn batch(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    let strategies = [
        BatchStrategy::Auto,
        BatchStrategy::EachFile,
        BatchStrategy::StartThenEachFile,
        BatchStrategy::WholeFileSystem,
    ];
    for (n, strategy) in strategies.into_iter().enumerate() {
        play.step(tree, |_, _| {
            let mut batch = Batch::new(&root)?.strategy(strategy);
            for name in ["a", "b", "x/file", "y/file", "new"] {
                batch.write(name, content(n + 1), &FileOptions::new())?;
            }
            batch.commit()?;
            Ok(())
        })?;
    }
    Ok(())
}

fn swaps(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    for (a, b) in [
        ("a", "b"),
        ("x", "y"),
        ("x", "a"),
        ("x", "y/file"),
        ("b", "c"),
    ] {
        play.step(tree, |_, _| Ok(swap(&root, a, &root, b, Durability::Full)?))?;
    }
    Ok(())
}

fn folder(play: &mut Play<'_>) -> Answer<()> {
    let root = Root::open(&play.top)?;
    for n in 1..=5 {
        play.step(tree, |_, _| {
            let site = FolderOptions::new().begin(&root, "site")?;
            let inside = site.root();
            let none = FileOptions::new().durability(Durability::None);
            inside.create_dir_all("sub/deep", Mode::from_bits_retain(0o755), Durability::None)?;
            for name in ["index", "sub/one", "sub/deep/two"] {
                none.write(inside, name, content(n))?;
            }
            site.commit()?;
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn all() -> Vec<Subject> {
    let base = |name, run| Subject {
        name,
        expect: |_| Expect::Clean,
        each: false,
        nested: false,
        prepare,
        run,
        recover,
    };
    vec![
        base("publish: replace", replace),
        base("publish: create", create),
        base("publish: exchange", exchange),
        Subject {
            each: true,
            ..base("publish: batch", batch)
        },
        base("publish: swap", swaps),
        Subject {
            nested: true,
            ..base("publish: folder", folder)
        },
    ]
}
