//! One file: replaced or created, durably or not.

use super::size;
use crate::harness::{Case, Watch, open};
use crate::peers;
use rustix::fs::{Mode, OFlags, RenameFlags, fsync, openat, renameat, renameat_with};
use std::fs;
use std::os::fd::AsFd;
use steadfast::publish::{FileOptions, Preserve, Target};
use steadfast::{Durability, Root};
use steadfast_bench::{replace, replace_plain};

const FILE: &str = "file";
const TEMPORARY: &str = ".temporary";

/// Replacing, creating, and both without syncs.
pub(super) fn cases() -> Vec<Case> {
    vec![
        replaces(4 << 10),
        replaces(1 << 20),
        creates(4 << 10),
        unsynced(4 << 10),
    ]
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

fn replaces(len: usize) -> Case {
    let id = format!("replace/{len}");
    Case::new(id, format!("replace a file of {}, durably", size(len)), 1)
        .with("raw", move |dir| {
            let (at, bytes) = (open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| Ok(replace_plain(&at, FILE, TEMPORARY, &bytes)?)))
        })
        .with("raw, attributes kept", move |dir| {
            let (at, bytes) = (open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| Ok(replace(&at, FILE, TEMPORARY, &bytes)?)))
        })
        .with("steadfast, nothing kept", move |dir| {
            let (root, bytes) = (Root::open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            let options = FileOptions::new().preserve(Preserve::NOTHING);
            Ok(move |w: &mut Watch| w.time(|| Ok(options.write(&root, FILE, &bytes).map(drop)?)))
        })
        .with("steadfast", move |dir| {
            let (root, bytes) = (Root::open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            let options = FileOptions::new();
            Ok(move |w: &mut Watch| w.time(|| Ok(options.write(&root, FILE, &bytes).map(drop)?)))
        })
        .with("tempfile + syncs", move |dir| {
            let (at, bytes, dir) = (open(dir)?, content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| peers::tempfile(&dir, &at, FILE, &bytes, false)))
        })
        .with("atomic-write-file", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| peers::atomic_write_file(&dir, FILE, &bytes)))
        })
        .with("atomicwrites", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| peers::atomicwrites(&dir, FILE, &bytes, false)))
        })
        .with("cap-std-ext", move |dir| {
            let bytes = content(len);
            fs::write(dir.join(FILE), &bytes)?;
            let dir = cap_std::fs::Dir::open_ambient_dir(dir, cap_std::ambient_authority())?;
            Ok(move |w: &mut Watch| w.time(|| peers::cap_std_ext(&dir, FILE, &bytes)))
        })
        .with("fs-transaction", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            let names = [FILE.to_owned()];
            Ok(move |w: &mut Watch| w.time(|| peers::fs_transaction(&dir, &names, &bytes, false)))
        })
}

fn creates(len: usize) -> Case {
    let title = format!(
        "create a file of {}, durably, unless it is there",
        size(len)
    );
    // The file of the sample before is removed first, which is not measured.
    Case::new(format!("create/{len}"), title, 1)
        .with("raw", move |dir| {
            let (at, bytes, dir) = (open(dir)?, content(len), dir.to_owned());
            Ok(move |w: &mut Watch| {
                let _ = fs::remove_file(dir.join(FILE)); // Not there the first time.
                w.time(|| {
                    let file = temporary(&at, &bytes)?;
                    fsync(&file)?;
                    renameat_with(&at, TEMPORARY, &at, FILE, RenameFlags::NOREPLACE)?;
                    Ok(fsync(&at)?)
                })
            })
        })
        .with("steadfast", move |dir| {
            let (root, bytes, dir) = (Root::open(dir)?, content(len), dir.to_owned());
            let options = FileOptions::new().target(Target::CreateNew);
            Ok(move |w: &mut Watch| {
                let _ = fs::remove_file(dir.join(FILE)); // Not there the first time.
                w.time(|| Ok(options.write(&root, FILE, &bytes).map(drop)?))
            })
        })
        .with("tempfile + syncs", move |dir| {
            let (at, bytes, dir) = (open(dir)?, content(len), dir.to_owned());
            Ok(move |w: &mut Watch| {
                let _ = fs::remove_file(dir.join(FILE)); // Not there the first time.
                w.time(|| peers::tempfile(&dir, &at, FILE, &bytes, true))
            })
        })
        .with("atomicwrites", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            Ok(move |w: &mut Watch| {
                let _ = fs::remove_file(dir.join(FILE)); // Not there the first time.
                w.time(|| peers::atomicwrites(&dir, FILE, &bytes, true))
            })
        })
        .with("fs-transaction", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            let names = [FILE.to_owned()];
            Ok(move |w: &mut Watch| {
                let _ = fs::remove_file(dir.join(FILE)); // Not there the first time.
                w.time(|| peers::fs_transaction(&dir, &names, &bytes, true))
            })
        })
}

fn unsynced(len: usize) -> Case {
    let title = format!("replace a file of {}, nothing synced", size(len));
    Case::new(format!("unsynced/{len}"), title, 1)
        .with("raw", move |dir| {
            let (at, bytes) = (open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    temporary(&at, &bytes)?;
                    Ok(renameat(&at, TEMPORARY, &at, FILE)?)
                })
            })
        })
        .with("steadfast, nothing kept", move |dir| {
            let (root, bytes) = (Root::open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            let options = FileOptions::new()
                .preserve(Preserve::NOTHING)
                .durability(Durability::None);
            Ok(move |w: &mut Watch| w.time(|| Ok(options.write(&root, FILE, &bytes).map(drop)?)))
        })
        .with("steadfast", move |dir| {
            let (root, bytes) = (Root::open(dir)?, content(len));
            fs::write(dir.join(FILE), &bytes)?;
            let options = FileOptions::new().durability(Durability::None);
            Ok(move |w: &mut Watch| w.time(|| Ok(options.write(&root, FILE, &bytes).map(drop)?)))
        })
        .with("tempfile", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let mut file = tempfile::NamedTempFile::new_in(&dir)?;
                    std::io::Write::write_all(&mut file, &bytes)?;
                    Ok(file.persist(dir.join(FILE)).map(drop)?)
                })
            })
        })
        .with("std::fs::write, torn if it crashes", move |dir| {
            let (bytes, dir) = (content(len), dir.to_owned());
            fs::write(dir.join(FILE), &bytes)?;
            Ok(move |w: &mut Watch| w.time(|| Ok(fs::write(dir.join(FILE), &bytes)?)))
        })
}

fn temporary(at: impl AsFd, bytes: &[u8]) -> crate::harness::Done<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(at, TEMPORARY, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = rustix::io::write(&file, rest)?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(file)
}
