//! Opening a workspace: one that is clean, and one with ten thousand operations to finish.

use crate::harness::{Case, Done, Watch};
use crate::{filter, peers, sqlite};
use fs_transaction::{StdFs, exec::block_on, recover};
use std::fs;
use std::path::Path;
use std::process::Command;
use steadfast::Root;
use steadfast::workspace::Workspace;

const PENDING: usize = 10_000;

/// Both.
pub(super) fn cases() -> Vec<Case> {
    vec![clean(), recovery()]
}

fn clean() -> Case {
    let title = "open what is clean: a workspace, a database, a folder without a journal";
    Case::new("open", title, 1)
        .with("SQLite", |dir| {
            let names = peers::names(10);
            sqlite::write(&mut sqlite::open(dir)?, &names, b"content")?;
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                drop(w.time(|| {
                    let db = rusqlite::Connection::open(dir.join("db"))?;
                    let query = "SELECT count(*) FROM files";
                    let _: i64 = db.query_row(query, [], |row| row.get(0))?;
                    Ok(db)
                })?);
                Ok(())
            })
        })
        .with("steadfast", |dir| {
            let root = Root::open(dir)?;
            let space = Workspace::open(&root)?;
            let mut tx = space.begin();
            for name in peers::names(10) {
                tx.write(name, "content")?;
            }
            tx.commit()?;
            space.close()?;
            Ok(move |w: &mut Watch| {
                let space = w.time(|| Ok(Workspace::open(&root)?))?;
                Ok(space.close()?)
            })
        })
        .with("fs-transaction, recover", |dir| {
            peers::fs_transaction(dir, &peers::names(10), b"content", false)?;
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                w.time(|| {
                    let done = block_on(recover(&StdFs, &dir));
                    done.map(drop).map_err(|e| e.to_string().into())
                })
            })
        })
}

fn recovery() -> Case {
    let title =
        format!("open a workspace whose writer was killed with {PENDING} files to put in place");
    Case::new("recover", title, PENDING as u64)
        .untraced()
        .rounds(5)
        .with("raw: the same files, created by hand, unsynced", |dir| {
            let dir = dir.to_owned();
            Ok(move |w: &mut Watch| {
                for name in peers::names(PENDING) {
                    let _ = fs::remove_file(dir.join(name)); // Not there the first time.
                }
                w.time(|| {
                    for name in peers::names(PENDING) {
                        fs::write(dir.join(name), "content")?;
                    }
                    Ok(())
                })
            })
        })
        .with("steadfast", |dir| {
            let dir = dir.to_owned();
            let program = std::env::current_exe()?;
            Ok(move |w: &mut Watch| {
                for name in peers::names(PENDING) {
                    let _ = fs::remove_file(dir.join(name)); // Not there the first time.
                }
                let ended = Command::new(&program).arg("pending").arg(&dir).status()?;
                if ended.success() {
                    return Err("it was to be killed".into());
                }
                let root = Root::open(&dir)?;
                let space = w.time(|| Ok(Workspace::open(&root)?))?;
                if !dir.join(format!("file-{}", PENDING - 1)).exists() {
                    return Err("it was not finished".into());
                }
                Ok(space.close()?)
            })
        })
}

/// Commits ten thousand files, and is killed by the kernel when it changes the first name.
pub(crate) fn pending(dir: &Path) -> Done {
    let space = Workspace::open(&Root::open(dir)?)?;
    let mut tx = space.begin();
    for name in peers::names(PENDING) {
        tx.create_new(name, "content")?;
    }
    filter::kill_at_rename()?;
    tx.commit()?;
    Ok(())
}
