//! Changes to a small tree: by a transaction, and by plain calls one after the other.

use std::fs;
use std::io;
use std::path::Path;
use steadfast::workspace::Transaction;

/// What and where, as numbers: any three are a change.
pub(crate) type Change = (u8, u8, u8);

const PATHS: [&str; 12] = [
    "a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/b", "n", "n/a",
];

pub(crate) fn path(n: u8) -> &'static str {
    PATHS[usize::from(n) % PATHS.len()]
}

/// The tree at the beginning.
pub(crate) fn furnish(top: &Path) {
    fs::create_dir_all(top.join("d/e")).unwrap();
    for name in ["a", "b", "d/a", "d/e/a"] {
        fs::write(top.join(name), format!("old {name}")).unwrap();
    }
    fs::hard_link(top.join("b"), top.join("d/b")).unwrap();
    std::os::unix::fs::symlink("d", top.join("l")).unwrap();
}

/// Whether two paths are names of a thing and of itself or something in it.
fn nested(p: &str, q: &str) -> bool {
    Path::new(p).starts_with(q) || Path::new(q).starts_with(p)
}

pub(crate) fn by_transaction(tx: &mut Transaction<'_>, change: Change) -> steadfast::Result<()> {
    let (p, q) = (path(change.1), path(change.2));
    match change.0 % 9 {
        0 | 1 => tx.write(p, content(change))?,
        2 => drop(tx.create_dir_all(p)),
        3 => drop(tx.remove_file(p)),
        4 => drop(tx.remove_tree(p)),
        5 => drop(tx.rename(p, q)),
        6 if !nested(p, q) => drop(tx.exchange(p, q)),
        6 => tx.create_new(p, content(change))?,
        7 => drop(tx.symlink(q, p)),
        _ => drop(tx.hard_link(p, q)),
    }
    Ok(())
}

pub(crate) fn by_hand(top: &Path, change: Change) -> io::Result<()> {
    let (p, q) = (path(change.1), path(change.2));
    let (from, to) = (top.join(p), top.join(q));
    match change.0 % 9 {
        0 | 1 => match fs::symlink_metadata(&from) {
            Ok(there) if !there.is_file() => Err(io::ErrorKind::InvalidInput.into()),
            _ => {
                // A new file: other names of the old one keep what they have.
                let aside = from.with_file_name(".aside");
                fs::write(&aside, content(change))?;
                fs::rename(aside, from)
            }
        },
        2 => fs::create_dir_all(from),
        3 => fs::remove_file(from),
        4 if fs::symlink_metadata(&from)?.is_dir() => fs::remove_dir_all(from),
        4 => fs::remove_file(from),
        5 => fs::rename(from, to),
        6 if !nested(p, q) => {
            // Through the link, it may be one name.
            if let (Ok(one), Ok(two)) = (fs::canonicalize(&from), fs::canonicalize(&to))
                && one == two
                && from.file_name() == to.file_name()
                && fs::symlink_metadata(&from)?.is_file()
            {
                return Ok(());
            }
            let aside = top.join(".aside");
            fs::rename(&from, &aside)?;
            fs::rename(&to, &from)?;
            fs::rename(aside, to)
        }
        6 => fs::File::create_new(&from)
            .and_then(|mut file| io::Write::write_all(&mut file, content(change).as_bytes())),
        7 => std::os::unix::fs::symlink(q, from),
        _ => fs::hard_link(from, to),
    }
}

/// Now and then too long to travel in the record.
fn content(change: Change) -> String {
    let len = if change.2.is_multiple_of(7) {
        20_000
    } else {
        10
    };
    format!("{change:?}{}", "x".repeat(len))
}
