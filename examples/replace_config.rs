//! Replaces a configuration file: whole, durably, with its mode kept, and only if nobody else changed it.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use steadfast::publish::{FileOptions, Target, Version};
use steadfast::{DiskState, ErrorKind, Root};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("app.conf");
    fs::write(&path, "threads = 2\n")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;

    let root = Root::open(dir.path())?;
    let receipt = FileOptions::new().write(&root, "app.conf", b"threads = 4\n")?;
    println!(
        "replaced {} bytes",
        receipt.replaced().map_or(0, |old| old.len())
    );
    assert_eq!(fs::read_to_string(&path)?, "threads = 4\n");
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);

    // Read, change, write back: refused if somebody was faster, and then nothing of theirs is lost.
    let seen = Version::of(&root, "app.conf")?;
    let changed = fs::read_to_string(&path)?.replace('4', "8");
    fs::write(&path, "threads = 16\n")?;
    let unchanged = FileOptions::new().target(Target::IfUnchanged(seen));
    match unchanged.write(&root, "app.conf", changed.as_bytes()) {
        Err(e) if e.kind() == ErrorKind::Changed => {
            assert_eq!(e.disk_state(), DiskState::Unchanged);
            println!("refused: {e}");
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    assert_eq!(fs::read_to_string(&path)?, "threads = 16\n");

    // In pieces. Without `commit` nothing was ever there.
    let mut draft = FileOptions::new().begin(&root, "draft.conf")?;
    writeln!(draft, "threads = 32")?;
    drop(draft);
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    println!("the draft left nothing behind");
    Ok(())
}
