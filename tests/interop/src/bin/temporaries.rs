//! Files and directories of tempfile: what is drafted there is published here, by descriptor.

use anyhow::{Result, ensure};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use steadfast::publish::{FileOptions, FolderOptions, Target};
use steadfast::workspace::Workspace;
use steadfast::{ErrorKind, Root};

fn main() -> Result<()> {
    // A directory that is gone in the end, with all that is published in it.
    let dir = tempfile::tempdir()?;
    let root = Root::open(dir.path())?;

    // A draft without a name, from anywhere; all of it is taken, wherever its offset is.
    let mut draft = tempfile::tempfile()?;
    writeln!(draft, "a,b\n1,2")?;
    FileOptions::new().copy_from(&root, "report.csv", &draft)?;
    ensure!(fs::read(dir.path().join("report.csv"))? == b"a,b\n1,2\n");

    // The same in a transaction.
    let workspace = Workspace::open(&root)?;
    let mut tx = workspace.begin();
    tx.create_dir("archive")
        .rename("report.csv", "archive/old.csv");
    // Taking it has moved its offset, to where the file system likes.
    draft.seek(SeekFrom::End(0))?;
    writeln!(draft, "3,4")?;
    tx.write_copy("report.csv", &draft)?;
    tx.commit()?;
    workspace.close()?;
    ensure!(fs::read(dir.path().join("report.csv"))? == b"a,b\n1,2\n3,4\n");

    // One with a name, wherever that is: instead of `persist`, which would not sync it.
    let mut named = tempfile::NamedTempFile::new()?;
    writeln!(named, "only once")?;
    let once = FileOptions::new().target(Target::CreateNew);
    once.copy_from(&root, "once", named.as_file())?;
    let again = once.copy_from(&root, "once", named.as_file()).unwrap_err();
    ensure!(again.kind() == ErrorKind::AlreadyExists);
    named.close()?;

    // A folder that was drafted becomes the published one, without a copy.
    let drafts = tempfile::tempdir_in(dir.path())?;
    fs::write(drafts.path().join("index.html"), "hello")?;
    let name = drafts.path().strip_prefix(dir.path())?.to_owned();
    FolderOptions::new().publish(&root, &name, &root, "site")?;
    // Its old name is free: there is nothing to be removed.
    let gone = drafts.keep();
    ensure!(!gone.exists());
    ensure!(fs::read(dir.path().join("site/index.html"))? == b"hello");
    println!("tempfile: all as promised");
    Ok(())
}
