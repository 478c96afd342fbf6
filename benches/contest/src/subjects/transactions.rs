//! Many files as one.

use super::calls::by_calls;
use super::size;
use crate::harness::{Case, Done, Watch, open};
use crate::{peers, sqlite};
use std::fs;
use std::path::Path;
use steadfast::Root;
use steadfast::workspace::Workspace;
use steadfast_bench::{by_a_log, in_place_by_a_log, replace_plain};

/// So many files of so many bytes in one transaction; and a stream of small transactions.
pub(super) fn cases(long: bool) -> Vec<Case> {
    let mut all: Vec<_> = [1, 10, 100, 1000]
        .into_iter()
        .map(|count| one(count, 4 << 10))
        .collect();
    let large: &[usize] = if long { &[1, 10, 100, 1000] } else { &[1, 10] };
    all.extend(large.iter().map(|&count| one(count, 1 << 20)));
    all.push(stream(200, 4 << 10));
    all
}

/// Other bytes than the time before: SQLite does not write what is there already.
pub(super) fn vary(bytes: &mut [u8]) {
    let next = bytes.first().map_or(0, |b| b.wrapping_add(1));
    bytes.fill(next);
}

fn files(dir: &Path, count: usize, len: usize) -> Done<(Vec<String>, Vec<u8>)> {
    let (names, bytes) = (peers::names(count), vec![b'x'; len]);
    for name in &names {
        fs::write(dir.join(name), &bytes)?;
    }
    Ok((names, bytes))
}

/// What both are compared with: each file durably, for itself.
fn one_by_one(
    dir: &Path,
    count: usize,
    len: usize,
) -> Done<impl FnMut(&mut Watch) -> Done + use<>> {
    let at = open(dir)?;
    let (names, mut bytes) = files(dir, count, len)?;
    Ok(move |w: &mut Watch| {
        vary(&mut bytes);
        w.time(|| {
            for name in &names {
                replace_plain(&at, name, ".temporary", &bytes)?;
            }
            Ok(())
        })
    })
}

/// A file with room for a record of this length, written before.
fn log_by_hand(dir: &Path, len: usize) -> Done<fs::File> {
    let path = dir.join(".log");
    fs::write(&path, vec![0; len + 512])?;
    let log = fs::File::options().write(true).open(path)?;
    log.sync_all()?;
    Ok(log)
}

/// What no transaction by a log can do without.
fn by_hand(
    dir: &Path,
    count: usize,
    len: usize,
    in_place: bool,
) -> Done<impl FnMut(&mut Watch) -> Done + use<>> {
    let at = open(dir)?;
    let (names, mut bytes) = files(dir, count, len)?;
    let log = log_by_hand(dir, count * (2 * len + 64))?;
    Ok(move |w: &mut Watch| {
        vary(&mut bytes);
        w.time(|| match in_place {
            true => Ok(in_place_by_a_log(&at, &log, &names, &bytes)?),
            false => Ok(by_a_log(&at, &log, &names, &bytes)?),
        })
    })
}

fn one(count: usize, len: usize) -> Case {
    let plural = if count == 1 { "" } else { "s" };
    let title = format!(
        "a transaction: replace {count} file{plural} of {}",
        size(len)
    );
    let case = Case::new(format!("transaction/{count}/{len}"), title, count as u64)
        .with("raw, one by one", move |dir| one_by_one(dir, count, len))
        .with("steadfast", move |dir| {
            let (names, mut bytes) = files(dir, count, len)?;
            let space = Workspace::open(&Root::open(dir)?)?;
            Ok(move |w: &mut Watch| {
                vary(&mut bytes);
                w.time(|| {
                    let mut tx = space.begin();
                    for name in &names {
                        tx.write(name, &bytes)?;
                    }
                    Ok(tx.commit().map(drop)?)
                })
            })
        })
        .with("steadfast, settled", move |dir| {
            let (names, mut bytes) = files(dir, count, len)?;
            let space = Workspace::open(&Root::open(dir)?)?;
            Ok(move |w: &mut Watch| {
                vary(&mut bytes);
                w.time(|| {
                    let mut tx = space.begin();
                    for name in &names {
                        tx.write(name, &bytes)?;
                    }
                    tx.commit()?;
                    Ok(space.settle()?)
                })
            })
        });
    let case = if len > 64 << 10 {
        case
    } else {
        case.with("steadfast, in place", move |dir| {
            let (names, mut bytes) = files(dir, count, len)?;
            let space = Workspace::open(&Root::open(dir)?)?;
            Ok(move |w: &mut Watch| {
                vary(&mut bytes);
                w.time(|| {
                    let mut tx = space.begin();
                    for name in &names {
                        tx.write_in_place(name, &bytes)?;
                    }
                    Ok(tx.commit().map(drop)?)
                })
            })
        })
    };
    let case = if len > 64 << 10 {
        case
    } else {
        case.with("raw, by a log that nobody can recover by", move |dir| {
            by_hand(dir, count, len, false)
        })
    };
    // It keeps them open.
    let case = if len > 64 << 10 || count > 100 {
        case
    } else {
        case.with("raw, in place, by such a log", move |dir| {
            by_hand(dir, count, len, true)
        })
        .with("the calls of a commit", move |dir| {
            let (names, bytes) = files(dir, count, len)?;
            by_calls(dir, &names, bytes, false)
        })
        .with("the calls of a commit, in place", move |dir| {
            let (names, bytes) = files(dir, count, len)?;
            by_calls(dir, &names, bytes, true)
        })
    };
    case.with("fs-transaction", move |dir| {
        let (names, mut bytes) = files(dir, count, len)?;
        let dir = dir.to_owned();
        Ok(move |w: &mut Watch| {
            vary(&mut bytes);
            w.time(|| peers::fs_transaction(&dir, &names, &bytes, false))
        })
    })
    .with("SQLite", move |dir| {
        let (names, mut bytes) = (peers::names(count), vec![b'x'; len]);
        let mut db = sqlite::open(dir)?;
        Ok(move |w: &mut Watch| {
            vary(&mut bytes);
            w.time(|| sqlite::write(&mut db, &names, &bytes))
        })
    })
}

/// Each file by a transaction of its own, and the checkpoint.
fn commits(
    dir: &Path,
    count: usize,
    len: usize,
    in_place: bool,
) -> Done<impl FnMut(&mut Watch) -> Done + use<>> {
    let (names, mut bytes) = files(dir, count, len)?;
    let space = Workspace::open(&Root::open(dir)?)?;
    Ok(move |w: &mut Watch| {
        vary(&mut bytes);
        w.time(|| {
            for name in &names {
                let mut tx = space.begin();
                match in_place {
                    true => tx.write_in_place(name, &bytes)?,
                    false => tx.write(name, &bytes)?,
                }
                tx.commit()?;
            }
            Ok(space.settle()?)
        })
    })
}

/// The same with nothing that can be done without; what settles it is one syncfs.
fn by_hand_each(
    dir: &Path,
    count: usize,
    len: usize,
) -> Done<impl FnMut(&mut Watch) -> Done + use<>> {
    let at = open(dir)?;
    let (names, mut bytes) = files(dir, count, len)?;
    let log = log_by_hand(dir, len + 64)?;
    Ok(move |w: &mut Watch| {
        vary(&mut bytes);
        w.time(|| {
            for name in &names {
                by_a_log(&at, &log, std::slice::from_ref(name), &bytes)?;
            }
            Ok(rustix::fs::syncfs(&at)?)
        })
    })
}

/// What comes later is paid here, too: checkpoints are within.
fn stream(count: usize, len: usize) -> Case {
    let title = format!(
        "{count} transactions of one file of {}, the last checkpoint included",
        size(len)
    );
    Case::new(format!("stream/{count}/{len}"), title, count as u64)
        .untraced()
        .rounds(12)
        .with("raw, one by one", move |dir| one_by_one(dir, count, len))
        .with("steadfast", move |dir| commits(dir, count, len, false))
        .with("steadfast, in place", move |dir| {
            commits(dir, count, len, true)
        })
        .with("raw, by a log that nobody can recover by", move |dir| {
            by_hand_each(dir, count, len)
        })
        .with("SQLite", move |dir| {
            let (names, mut bytes) = (peers::names(count), vec![b'x'; len]);
            let mut db = sqlite::open(dir)?;
            Ok(move |w: &mut Watch| {
                vary(&mut bytes);
                w.time(|| {
                    for name in &names {
                        sqlite::write(&mut db, std::slice::from_ref(name), &bytes)?;
                    }
                    sqlite::checkpoint(&db)
                })
            })
        })
}
