//! Lets another program change files, and takes everything back when it fails.

use std::error::Error;
use std::fs;
use std::process::Command;
use steadfast::Root;
use steadfast::workspace::{Section, WorkspaceOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("db"))?;
    fs::write(dir.path().join("db/rows"), "1\n2\n3\n")?;
    fs::write(dir.path().join("version"), "1\n")?;
    let root = Root::open(dir.path())?;
    // Also called by whoever opens the workspace after this process has died.
    let workspace = WorkspaceOptions::new()
        .hook("maintenance page", |page, _| {
            println!("gives back: {}", String::from_utf8_lossy(page));
            Ok(())
        })
        .open(&root)?;

    // What readers see changes at once; every way out but `commit` puts it back.
    let migrate = |script: &str| -> Result<Section<'_>, Box<dyn Error>> {
        let mut section = workspace.section("migrate")?;
        section.protect(["db"])?;
        section.resource("maintenance page", "page 1")?;
        section.apply(|tx| tx.write("version", "2\n"))?;
        section.phase("files are being changed")?;
        let done = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&dir)
            .status()?;
        if !done.success() {
            return Err(format!("the migration failed: {done}").into());
        }
        Ok(section)
    };
    let file = |path: &str| fs::read_to_string(dir.path().join(path));

    let failed = migrate("echo 4 >>db/rows; rm version; mv db/rows db/lines; exit 3");
    println!("{}", failed.err().ok_or("it should have failed")?);
    assert_eq!(file("db/rows")?, "1\n2\n3\n");
    assert_eq!(file("version")?, "1\n");
    assert!(!dir.path().join("db/lines").exists());

    migrate("echo 4 >>db/rows")?.commit()?;
    assert_eq!(file("db/rows")?, "1\n2\n3\n4\n");
    assert_eq!(file("version")?, "2\n");
    println!("migrated");
    workspace.close()?;
    Ok(())
}
