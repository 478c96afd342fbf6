//! Folders: exchanged, or built and published in the place of another.

use crate::harness::{Case, Watch, open};
use crate::peers;
use rustix::fs::{RenameFlags, fsync, renameat, renameat_with, syncfs};
use std::fs;
use std::path::Path;
use steadfast::publish::{self, FolderOptions, FolderTarget};
use steadfast::workspace::Workspace;
use steadfast::{Durability, Root};
use steadfast_bench::swap;

const FILES: usize = 100;
const LEN: usize = 4 << 10;

/// The exchange alone, and a whole publication.
pub(super) fn cases() -> Vec<Case> {
    vec![swaps(), publications()]
}

fn fill(dir: &Path) -> crate::harness::Done {
    fs::create_dir(dir)?;
    for name in peers::names(FILES) {
        fs::write(dir.join(name), [b'x'; LEN])?;
    }
    Ok(())
}

fn two(dir: &Path) -> crate::harness::Done {
    fill(&dir.join("a"))?;
    fill(&dir.join("b"))
}

fn swaps() -> Case {
    Case::new("swap", "exchange two folders, durably", 1)
        .with("raw", |dir| {
            two(dir)?;
            let at = open(dir)?;
            Ok(move |w: &mut Watch| w.time(|| Ok(swap(&at, "a", "b")?)))
        })
        .with("steadfast", |dir| {
            two(dir)?;
            let root = Root::open(dir)?;
            let full = Durability::Full;
            Ok(move |w: &mut Watch| w.time(|| Ok(publish::swap(&root, "a", &root, "b", full)?)))
        })
        .with("steadfast, by a workspace", |dir| {
            two(dir)?;
            let space = Workspace::open(&Root::open(dir)?)?;
            Ok(move |w: &mut Watch| w.time(|| Ok(space.swap("a", "b").map(drop)?)))
        })
        .with("raw, moved aside: a moment without", |dir| {
            two(dir)?;
            let at = open(dir)?;
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    renameat(&at, "a", &at, "c")?;
                    renameat(&at, "b", &at, "a")?;
                    renameat(&at, "c", &at, "b")?;
                    Ok(fsync(&at)?)
                })
            })
        })
}

fn publications() -> Case {
    let title = format!("build a folder of {FILES} files of 4 KiB, publish it, remove the old one");
    Case::new("publish", title, FILES as u64)
        .with("raw, one syncfs", |dir| {
            fill(&dir.join("live"))?;
            let (at, dir) = (open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let new = dir.join(".new");
                    fill(&new)?;
                    syncfs(&at)?;
                    renameat_with(&at, ".new", &at, "live", RenameFlags::EXCHANGE)?;
                    fsync(&at)?;
                    fs::remove_dir_all(&new)?;
                    Ok(fsync(&at)?)
                })
            })
        })
        .with("raw, fsync of each", |dir| {
            fill(&dir.join("live"))?;
            let (at, dir) = (open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let new = dir.join(".new");
                    fs::create_dir(&new)?;
                    for name in peers::names(FILES) {
                        let mut file = fs::File::create(new.join(name))?;
                        std::io::Write::write_all(&mut file, &[b'x'; LEN])?;
                        file.sync_all()?;
                    }
                    fsync(open(&new)?)?;
                    renameat_with(&at, ".new", &at, "live", RenameFlags::EXCHANGE)?;
                    fsync(&at)?;
                    fs::remove_dir_all(&new)?;
                    Ok(fsync(&at)?)
                })
            })
        })
        .with("steadfast", |dir| {
            fill(&dir.join("live"))?;
            let root = Root::open(dir)?;
            let options = FolderOptions::new().target(FolderTarget::Replace);
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let pending = options.begin(&root, "live")?;
                    for name in peers::names(FILES) {
                        let mut file = pending.root().create_new(name)?;
                        std::io::Write::write_all(&mut file, &[b'x'; LEN])?;
                    }
                    Ok(pending.commit().map(drop)?)
                })
            })
        })
}
