//! SQLite, whose promises are known: the rig has to see those that it does not make, and no other fault.

use crate::Answer;
use crate::fault;
use crate::play::{Expect, Play, Subject};
use crate::tree::{Tree, value};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

const STEPS: usize = 8;

fn open(top: &Path, mode: &str, synchronous: &str) -> Answer<Connection> {
    let db = Connection::open(top.join("db"))?;
    db.query_row(&format!("pragma journal_mode={mode}"), [], |_| Ok(()))?;
    db.execute_batch(&format!("pragma synchronous={synchronous}"))?;
    Ok(db)
}

fn prepare(top: &Path, mode: &str) -> Answer<()> {
    let db = open(top, mode, "extra")?;
    db.execute_batch(
        "create table t (k integer primary key, v text);
         insert into t values (1, '0'), (2, '0'), (3, '0');",
    )?;
    Ok(())
}

/// The row of values, which must be one and the same.
fn look(db: &Connection) -> Answer<Tree> {
    let check: String = db.query_row("pragma integrity_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(fault(check));
    }
    let values = db
        .prepare("select substr(v, 1, 8) || length(v) from t order by k")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(value(values.join(" ")))
}

fn recover(top: &Path) -> Answer<Tree> {
    look(&Connection::open(top.join("db"))?)
}

fn steps(play: &mut Play<'_>, mode: &str, synchronous: &str) -> Answer<()> {
    let db = open(&play.top, mode, synchronous)?;
    play.states = vec![look(&db)?];
    let shake = Arc::clone(&play.shake);
    for n in 1..=STEPS {
        let long = "x".repeat(500 * n);
        play.step(
            |_| look(&db),
            |_, _| {
                shake.beside(|| {
                    db.execute_batch("begin immediate")?;
                    for k in 1..=3 {
                        let v = format!("{n:08}{long}");
                        db.execute("update t set v = ?1 where k = ?2", (v, k))?;
                        shake.call();
                    }
                    db.execute_batch("commit")?;
                    shake.call();
                    Ok(())
                })
            },
        )?;
    }
    Ok(())
}

pub(crate) fn all() -> Vec<Subject> {
    let wal = |name, expect, run| Subject {
        name,
        expect,
        each: false,
        nested: false,
        prepare: |top| prepare(top, "wal"),
        run,
        recover,
    };
    let delete = |name, expect, run| Subject {
        prepare: |top| prepare(top, "delete"),
        ..wal(name, expect, run)
    };
    vec![
        wal(
            "sqlite: WAL, FULL",
            |_| Expect::Clean,
            |play| steps(play, "wal", "full"),
        ),
        wal(
            "sqlite: WAL, NORMAL",
            |_| Expect::Loses,
            |play| steps(play, "wal", "normal"),
        ),
        delete(
            "sqlite: DELETE, EXTRA",
            |_| Expect::Clean,
            |play| steps(play, "delete", "extra"),
        ),
        delete(
            "sqlite: DELETE, FULL",
            // With `data=writeback` its file may come back with blocks of another, as ours may.
            |kind| match kind.name {
                "ext4-writeback" => Expect::Any,
                _ => Expect::Loses,
            },
            |play| steps(play, "delete", "full"),
        ),
    ]
}
