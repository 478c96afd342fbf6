//! Programs that are known to be wrong, and good ones beside them: they tell whether the rig sees anything.

use crate::Answer;
use crate::device::Kind;
use crate::play::{Expect, Play, Subject};
use crate::shake::Shake;
use crate::tree::tree;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

const STEPS: usize = 8;

/// What version `n` of a file holds.
fn content(n: usize) -> Vec<u8> {
    format!("version {n}, ").repeat(1500 + 100 * n).into_bytes()
}

fn prepare(top: &Path) -> Answer<()> {
    for name in ["a", "b", "c"] {
        fs::write(top.join(name), content(0))?;
    }
    Ok(())
}

fn sync_dir(top: &Path) -> Answer<()> {
    Ok(File::open(top)?.sync_all()?)
}

/// Writes beside, and renames; with or without the two syncs.
fn replace(top: &Path, shake: &Shake, name: &str, n: usize, file: bool, dir: bool) -> Answer<()> {
    let (new, to) = (top.join(format!("{name}.tmp")), top.join(name));
    let mut out = File::create(&new)?;
    shake.call();
    out.write_all(&content(n))?;
    shake.call();
    if file {
        out.sync_all()?;
        shake.call();
    }
    fs::rename(&new, &to)?;
    shake.call();
    if dir {
        sync_dir(top)?;
        shake.call();
    }
    Ok(())
}

/// What a crash leaves of the temporary files is no matter here.
fn recover(top: &Path) -> Answer<crate::tree::Tree> {
    let mut now = tree(top)?;
    now.retain(|path, _| path.extension().is_none());
    Ok(now)
}

fn steps(play: &mut Play<'_>, step: impl Fn(&Path, &Shake, usize) -> Answer<()>) -> Answer<()> {
    for n in 1..=STEPS {
        play.step(recover, |top, shake| step(top, shake, n))?;
    }
    Ok(())
}

fn wrong(_: &Kind) -> Expect {
    Expect::Wrong
}

/// btrfs writes elsewhere and is not hurt.
fn not_on_btrfs(kind: &Kind) -> Expect {
    if kind.fs == "btrfs" {
        Expect::Any
    } else {
        Expect::Wrong
    }
}

pub(crate) fn all() -> Vec<Subject> {
    let base = |name, expect, run| Subject {
        name,
        expect,
        each: false,
        nested: false,
        prepare,
        run,
        recover,
    };
    vec![
        base("wrong: no fsync of the file", not_on_btrfs, |play| {
            steps(play, |top, shake, n| {
                replace(top, shake, "a", n, false, true)
            })
        }),
        base("wrong: no fsync of the directory", wrong, |play| {
            steps(play, |top, shake, n| {
                replace(top, shake, "a", n, true, false)
            })
        }),
        base("wrong: three files one by one", wrong, |play| {
            steps(play, |top, shake, n| {
                for name in ["a", "b", "c"] {
                    replace(top, shake, name, n, true, true)?;
                }
                Ok(())
            })
        }),
        base("wrong: in place", not_on_btrfs, |play| {
            steps(play, |top, shake, n| {
                let file = File::options().write(true).open(top.join("a"))?;
                let content = content(n);
                file.write_all_at(&content, 0)?;
                shake.call();
                file.set_len(content.len() as u64)?;
                shake.call();
                file.sync_all()?;
                shake.call();
                Ok(())
            })
        }),
        base(
            "good: one file by hand",
            |_| Expect::Clean,
            |play| {
                steps(play, |top, shake, n| {
                    replace(top, shake, "a", n, true, true)
                })
            },
        ),
    ]
}
