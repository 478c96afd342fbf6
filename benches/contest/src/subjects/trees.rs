//! Whole trees: copied, removed, synced.

use crate::harness::{Case, Done, Watch, open};
use cap_std::ambient_authority;
use rustix::fs::{fsync, syncfs};
use std::fs;
use std::path::Path;
use std::process::Command;
use steadfast::Root;
use steadfast::tree::{CopyOptions, RemoveOptions, SyncStrategy};

/// Files in one folder of the tree.
const EACH: usize = 100;
const LEN: usize = 4 << 10;

/// A thousand entries; in the long form also a hundred thousand.
pub(super) fn cases(long: bool) -> Vec<Case> {
    let sizes: &[usize] = if long { &[1000, 100_000] } else { &[1000] };
    let mut all = Vec::new();
    for &entries in sizes {
        for case in [copies(entries), removals(entries), syncs(entries)] {
            let rounds = if entries > 1000 { 3 } else { usize::MAX };
            let case = case.rounds(rounds);
            all.push(if entries > 1000 {
                case.untraced()
            } else {
                case
            });
        }
    }
    all
}

fn build(dir: &Path, entries: usize) -> Done {
    fs::create_dir(dir)?;
    for folder in 0..entries / (EACH + 1) {
        let folder = dir.join(format!("folder-{folder}"));
        fs::create_dir(&folder)?;
        for file in 0..EACH {
            fs::write(folder.join(format!("file-{file}")), [b'x'; LEN])?;
        }
    }
    Ok(())
}

fn std_copy(from: &Path, to: &Path) -> Done {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std_copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn said(ok: std::process::ExitStatus) -> Done {
    if ok.success() {
        Ok(())
    } else {
        Err(ok.to_string().into())
    }
}

fn fresh(dir: &Path) {
    let _ = fs::remove_dir_all(dir.join("copy")); // Not there the first time.
}

fn copies(entries: usize) -> Case {
    let title = format!("copy a tree of {entries} entries, nothing synced");
    Case::new(format!("tree/copy/{entries}"), title, entries as u64)
        .with("cp -a --reflink=auto", move |dir| {
            build(&dir.join("tree"), entries)?;
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                fresh(&dir);
                let mut cp = Command::new("cp");
                cp.args(["-a", "--reflink=auto", "tree", "copy"]);
                cp.current_dir(&dir);
                w.time(|| said(cp.status()?))
            })
        })
        .with("steadfast", move |dir| {
            build(&dir.join("tree"), entries)?;
            let (root, dir) = (Root::open(dir)?, dir.to_owned());
            let options = CopyOptions::new();
            Ok(move |w: &mut Watch| {
                fresh(&dir);
                w.time(|| {
                    let copied = root.copy_tree("tree", &root, "copy", &options);
                    Ok(copied.map(drop)?)
                })
            })
        })
        .with("std::fs, by hand: mode and content", move |dir| {
            build(&dir.join("tree"), entries)?;
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                fresh(&dir);
                w.time(|| std_copy(&dir.join("tree"), &dir.join("copy")))
            })
        })
}

fn removals(entries: usize) -> Case {
    let title = format!("remove a tree of {entries} entries, nothing synced");
    Case::new(format!("tree/remove/{entries}"), title, entries as u64)
        .with("rm -rf", move |dir| {
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                build(&dir.join("tree"), entries)?;
                let mut rm = Command::new("rm");
                rm.args(["-rf", "tree"]).current_dir(&dir);
                w.time(|| said(rm.status()?))
            })
        })
        .with("steadfast", move |dir| {
            let (root, dir) = (Root::open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                build(&dir.join("tree"), entries)?;
                w.time(|| {
                    let removed = root.remove_tree("tree", &RemoveOptions::new());
                    Ok(removed.map(drop)?)
                })
            })
        })
        .with("cap-std", move |dir| {
            let dir = dir.to_owned();
            let at = cap_std::fs::Dir::open_ambient_dir(&dir, ambient_authority())?;
            Ok(move |w: &mut Watch| {
                build(&dir.join("tree"), entries)?;
                w.time(|| Ok(at.remove_dir_all("tree")?))
            })
        })
        .with("pathrs", move |dir| {
            let (root, dir) = (pathrs::Root::open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                build(&dir.join("tree"), entries)?;
                w.time(|| Ok(root.remove_all("tree")?))
            })
        })
        .with("std::fs::remove_dir_all", move |dir| {
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                build(&dir.join("tree"), entries)?;
                w.time(|| Ok(fs::remove_dir_all(dir.join("tree"))?))
            })
        })
}

fn syncs(entries: usize) -> Case {
    let title = format!("sync a tree of {entries} entries that was just written");
    let again = move |dir: &Path| -> Done {
        let _ = fs::remove_dir_all(dir.join("tree")); // Not there the first time.
        build(&dir.join("tree"), entries)
    };
    Case::new(format!("tree/sync/{entries}"), title, entries as u64)
        .with("raw, one syncfs", move |dir| {
            let (at, dir) = (open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                again(&dir)?;
                w.time(|| Ok(syncfs(&at)?))
            })
        })
        .with("raw, fsync of each", move |dir| {
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                again(&dir)?;
                w.time(|| sync_each(&dir.join("tree")))
            })
        })
        .with("steadfast", move |dir| {
            let (root, dir) = (Root::open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                again(&dir)?;
                w.time(|| Ok(root.sync_tree("tree", SyncStrategy::Auto).map(drop)?))
            })
        })
}

fn sync_each(dir: &Path) -> Done {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_each(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(fsync(open(dir)?)?)
}
