//! Directories and files of cap-std: in and out by descriptor, without a path.

use anyhow::{Context, Result, ensure};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::os::fd::{AsFd, OwnedFd};
use std::{error, fmt, io};
use steadfast::publish::{Batch, FileOptions, FolderOptions, PendingFile};
use steadfast::workspace::Workspace;
use steadfast::{ErrorKind, Root};

/// A directory of cap-std as a root. It is open for paths only (`O_PATH`), which is enough.
fn root_of(dir: &Dir) -> Result<Root> {
    let fd: OwnedFd = dir.as_fd().try_clone_to_owned()?;
    Ok(Root::from(fd))
}

/// A root as a directory of cap-std.
fn dir_of(root: &Root) -> Result<Dir> {
    let fd: OwnedFd = root.as_fd().try_clone_to_owned()?;
    Ok(Dir::from(fd))
}

/// An error of our own.
#[derive(Clone, Copy, Debug)]
struct Gone(&'static str);

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Gone {}

fn main() -> Result<()> {
    let place = tempfile::tempdir()?;
    let above = Dir::open_ambient_dir(place.path(), ambient_authority())?;
    above.create_dir("app")?;
    above.create_dir("app/data")?;
    let dir = above.open_dir("app")?;
    let root = root_of(&dir)?;

    // Wherever its name goes, this is the directory.
    above.rename("app", &above, "moved")?;

    // What cap-std would write in place is replaced as a whole, and durable.
    dir.write("app.conf", "threads = 4\n")?;
    FileOptions::new().write(&root, "app.conf", "threads = 8\n")?;
    ensure!(dir.read_to_string("app.conf")? == "threads = 8\n");

    // Files: from theirs by descriptor, and to theirs.
    let theirs = dir.open("app.conf")?;
    FileOptions::new().copy_from(&root, "data/copy", &theirs)?;
    let ours = root.open_file("data/copy")?;
    let ours = cap_std::fs::File::from_std(ours);
    ensure!(ours.metadata()?.len() == 12);

    // Everything that needs more than paths works on such a root, too.
    let folder = FolderOptions::new().begin(&root, "site")?;
    dir_of(folder.root())?.write("index.html", "hello")?;
    folder.commit()?;
    let mut batch = Batch::new(&root)?;
    batch.write("data/one", "1", &FileOptions::new())?;
    batch.write("two", "2", &FileOptions::new())?;
    batch.commit()?;
    let workspace = Workspace::open(&root)?;
    let mut tx = workspace.begin();
    tx.rename("site", "data/site").remove_file("two");
    tx.write("app.conf", "threads = 16\n")?;
    tx.commit()?;
    workspace.close()?;
    root.sync_dir(".")?;
    ensure!(dir.read_to_string("data/site/index.html")? == "hello");
    ensure!(dir.read_to_string("app.conf")? == "threads = 16\n");
    ensure!(dir.exists("data/one") && !dir.exists("two"));

    // Both refuse a path that leads out.
    let escape = root.open_file("../moved/app.conf").unwrap_err();
    ensure!(escape.kind() == ErrorKind::Escape);
    ensure!(dir.open("../moved/app.conf").is_err());

    // A smaller capability, and back: the same directory.
    let data = Root::from(root.open_dir("data")?);
    let back = dir_of(&data)?;
    ensure!(back.read_to_string("copy")? == "threads = 8\n");
    ensure!(back.open("../app.conf").is_err());

    // With `?` an error keeps what it knows.
    let failed: Result<()> = (|| {
        root.remove_file("nowhere").context("clearing away")?;
        Ok(())
    })();
    let failed = failed.unwrap_err();
    let inner = failed.downcast_ref::<steadfast::Error>();
    ensure!(inner.is_some_and(|e| e.kind() == ErrorKind::NotFound));

    // A report of the whole chain says each thing once: what our own code gave is a cause, and can be found.
    let failed: Result<()> = (|| {
        let gone = Gone("the rows have run out");
        let fails = |_: &mut PendingFile<'_>| Err(io::Error::other(gone));
        FileOptions::new()
            .write_with(&root, "rows", fails)
            .context("exporting")?;
        Ok(())
    })();
    let failed = failed.unwrap_err();
    let told = format!("{failed:#}");
    ensure!(told.starts_with("exporting: cannot publish file \"rows\": "));
    ensure!(told.matches("the rows have run out").count() == 1, "{told}");
    ensure!(told.matches("nothing was changed").count() == 1, "{told}");
    let cause = failed.root_cause().downcast_ref::<io::Error>();
    let ours = cause.and_then(io::Error::get_ref);
    ensure!(ours.is_some_and(|e| e.is::<Gone>()), "{failed:?}");
    // The same by way of std's error.
    let failed = root.remove_file("nowhere").map_err(io::Error::from);
    let told = format!("{:#}", failed.context("clearing away").unwrap_err());
    ensure!(told.matches("ENOENT").count() == 1, "{told}");
    println!("cap-std: all as promised");
    Ok(())
}
