//! SQLite as a store of named contents: WAL, synchronous FULL.

use crate::harness::Done;
use rusqlite::{Connection, params};
use std::path::Path;

/// A database in this directory, with one table of names and contents.
pub(crate) fn open(dir: &Path) -> Done<Connection> {
    let db = Connection::open(dir.join("db"))?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch(
        "PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID;",
    )?;
    Ok(db)
}

/// All these, as one transaction.
pub(crate) fn write(db: &mut Connection, names: &[String], content: &[u8]) -> Done {
    let tx = db.transaction()?;
    {
        let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2)")?;
        for name in names {
            insert.execute(params![name, content])?;
        }
    }
    Ok(tx.commit()?)
}

/// The log back into the database, as it must be some day.
pub(crate) fn checkpoint(db: &Connection) -> Done {
    Ok(db.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?)
}
