//! Publishes a folder as a whole, and takes the release back by exchanging two names.

use std::error::Error;
use std::fs;
use steadfast::publish::{FileOptions, FolderOptions, swap};
use steadfast::sys::Mode;
use steadfast::{Durability, Root};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let root = Root::open(dir.path())?;
    let read = |path: &str| fs::read_to_string(dir.path().join(path));

    // The first release. Nobody sees the folder before `commit`, which syncs all of it at once.
    let unsynced = FileOptions::new().durability(Durability::None);
    let site = FolderOptions::new().begin(&root, "live")?;
    unsynced.write(site.root(), "index.html", "release 1")?;
    site.commit()?;
    assert_eq!(read("live/index.html")?, "release 1");

    // The second one takes its place; the first is kept. At no moment is there no folder.
    let site = FolderOptions::new()
        .keep_old("previous")
        .begin(&root, "live")?;
    unsynced.write(site.root(), "index.html", "release 2")?;
    site.root().create_dir("news", Mode::from_raw_mode(0o755))?;
    unsynced.write(site.root(), "news/today.html", "new in release 2")?;
    let receipt = site.commit()?;
    println!("replaced a folder: {}", receipt.replaced().is_some());
    assert_eq!(read("live/index.html")?, "release 2");
    assert_eq!(read("previous/index.html")?, "release 1");

    // Back to the first release, and forward again: one step each.
    swap(&root, "live", &root, "previous", Durability::Full)?;
    assert_eq!(read("live/index.html")?, "release 1");
    swap(&root, "live", &root, "previous", Durability::Full)?;
    assert_eq!(read("live/news/today.html")?, "new in release 2");

    // A folder that is not committed was never there.
    drop(FolderOptions::new().begin(&root, "live")?);
    let mut names: Vec<_> = fs::read_dir(dir.path())?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    assert_eq!(names, ["live", "previous"]);
    println!("{names:?} and nothing else");
    Ok(())
}
