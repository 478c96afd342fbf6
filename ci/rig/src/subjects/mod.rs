//! What is put to the test: the library's operations, programs that are known to be wrong, and SQLite.

mod publish;
mod sqlite;
mod state;
mod twice;
mod workspace;
mod wrong;

use crate::play::Subject;

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Subject> {
    let parts = [
        wrong::all(),
        sqlite::all(),
        publish::all(),
        state::all(),
        workspace::all(),
        twice::all(),
    ];
    parts.into_iter().flatten().collect()
}
