//! What a program that depends on steadfast and nothing else writes, and what it relies on.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use steadfast::publish::{FileOptions, Target};
use steadfast::workspace::Workspace;
use steadfast::{DiskState, ErrorKind, Root};

/// Errors of the library pass through `?` as those of std, and are found again.
fn create_once(root: &Root, name: &str) -> io::Result<()> {
    let options = FileOptions::new().target(Target::CreateNew);
    options.write(root, name, b"once")?;
    Ok(())
}

/// Threads and errors that are passed on.
fn assert_shareable<T: Send + Sync + 'static>() {}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    assert_shareable::<Root>();
    assert_shareable::<Workspace>();
    assert_shareable::<steadfast::Error>();

    let dir = std::env::temp_dir().join(format!("steadfast-consumer-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = work(&dir);
    fs::remove_dir_all(&dir)?;
    done?;
    println!("consumer: all as promised");
    Ok(())
}

fn work(dir: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let root = Root::open(dir)?;

    create_once(&root, "a")?;
    let Err(again) = create_once(&root, "a") else {
        return Err("it was created twice".into());
    };
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    let inner = steadfast::Error::of(&again).ok_or("no error of the library inside")?;
    assert_eq!(inner.kind(), ErrorKind::AlreadyExists);
    assert_eq!(inner.disk_state(), DiskState::Unchanged);

    // Files of std come out, and go in by descriptor.
    let mut text = String::new();
    let file: fs::File = root.open_file("a")?;
    (&file).read_to_string(&mut text)?;
    assert_eq!(text, "once");
    FileOptions::new().copy_from(&root, "b", &file)?;

    // A directory that was opened elsewhere becomes a root.
    let opened: OwnedFd = fs::File::open(dir)?.into();
    let same = Root::from(opened);
    assert_eq!(fs::read(dir.join("b"))?, b"once");
    same.as_fd().try_clone_to_owned()?;

    let mut file = FileOptions::new().begin(&same, "c")?;
    writeln!(file, "in pieces")?;
    file.commit()?;

    let workspace = Workspace::open(&same)?;
    let mut tx = workspace.begin();
    tx.exchange("a", "c").remove_file("b");
    tx.commit()?;
    workspace.close()?;
    assert_eq!(fs::read(dir.join("a"))?, b"in pieces\n");
    assert!(!dir.join("b").exists());

    let Err(escape) = root.open_file("../etc/passwd") else {
        return Err("a path has led outside".into());
    };
    assert_eq!(escape.kind(), ErrorKind::Escape);
    Ok(())
}
