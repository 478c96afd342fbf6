//! One durable file, by each library: what its documentation says, and the syncs that it leaves to its user.

use crate::harness::Done;
use cap_std_ext::dirext::CapStdExtDirExt;
use fs_transaction::{ChangeSet, StdFs, exec::block_on};
use rustix::fs::fsync;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// tempfile, with the file and the directory synced by hand.
pub(crate) fn tempfile(dir: &Path, at: impl AsFd, name: &str, content: &[u8], new: bool) -> Done {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    if new {
        file.persist_noclobber(dir.join(name))?;
    } else {
        file.persist(dir.join(name))?;
    }
    Ok(fsync(at)?)
}

/// atomic-write-file, which syncs both itself.
pub(crate) fn atomic_write_file(dir: &Path, name: &str, content: &[u8]) -> Done {
    let mut file = atomic_write_file::AtomicWriteFile::open(dir.join(name))?;
    file.write_all(content)?;
    Ok(file.commit()?)
}

/// atomicwrites, which syncs both itself.
pub(crate) fn atomicwrites(dir: &Path, name: &str, content: &[u8], new: bool) -> Done {
    use atomicwrites::OverwriteBehavior::{AllowOverwrite, DisallowOverwrite};
    let over = if new {
        DisallowOverwrite
    } else {
        AllowOverwrite
    };
    let file = atomicwrites::AtomicFile::new(dir.join(name), over);
    file.write(|file| file.write_all(content))
        .map_err(|e| e.to_string().into())
}

/// cap-std-ext, which syncs both itself.
pub(crate) fn cap_std_ext(dir: &cap_std::fs::Dir, name: &str, content: &[u8]) -> Done {
    Ok(dir.atomic_write(name, content)?)
}

/// fs-transaction: all files, with its journal if they are more than one.
pub(crate) fn fs_transaction(dir: &Path, names: &[String], content: &[u8], new: bool) -> Done {
    let mut change = ChangeSet::new();
    for name in names {
        if new {
            change.expect_absent(name);
        }
        change.write(name, content);
    }
    block_on(change.apply(&StdFs, dir)).map_err(|e| e.to_string().into())
}

/// The names of so many files.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("file-{n}")).collect()
}
