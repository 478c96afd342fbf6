//! Installs a new version of a package: several files, a directory and a link, all of them or none.

use std::error::Error;
use std::fs;
use steadfast::publish::Version;
use steadfast::workspace::{Attributes, Workspace};
use steadfast::{DiskState, ErrorKind, Root, sys::Mode};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    fs::create_dir_all(dir.path().join("etc"))?;
    fs::create_dir_all(dir.path().join("lib/tool-1"))?;
    fs::write(dir.path().join("lib/tool-1/code"), "one")?;
    fs::write(dir.path().join("etc/tool.conf"), "colour = blue\n")?;
    fs::write(dir.path().join("installed"), "tool 1\n")?;

    let root = Root::open(dir.path())?;
    let workspace = Workspace::open(&root)?;
    let before = Version::of(&root, "installed")?;

    let mut tx = workspace.begin();
    tx.label("install tool 2");
    // Somebody else may have installed it meanwhile.
    tx.expect_version("installed", before.clone());
    tx.create_dir("bin").create_dir("lib/tool-2");
    let program = Attributes::new().mode(Mode::from_raw_mode(0o755));
    tx.write_with("lib/tool-2/run", "#!/bin/sh\necho two\n", program)?;
    tx.symlink("../lib/tool-2/run", "bin/tool");
    tx.remove_tree("lib/tool-1");
    // What is read is what would be there, and must still be the same when this is committed.
    let conf = String::from_utf8(tx.read("etc/tool.conf")?)?;
    tx.write("etc/tool.conf", conf + "shape = round\n")?;

    // A part that can be left out.
    let point = tx.savepoint();
    tx.write("etc/tool.extra", "sound = loud\n")?;
    if !tx.exists("lib/sound")? {
        tx.rollback_to(point);
    }
    tx.write("installed", "tool 2\n")?;
    print!("{}", tx.plan()?);
    let receipt = tx.commit()?;
    println!("installed by transaction {}", receipt.number());

    let file = |path: &str| fs::read_to_string(dir.path().join(path));
    assert_eq!(file("bin/tool")?, "#!/bin/sh\necho two\n");
    assert_eq!(file("etc/tool.conf")?, "colour = blue\nshape = round\n");
    assert!(!dir.path().join("lib/tool-1").exists());
    assert!(!dir.path().join("etc/tool.extra").exists());

    // With what was true before, a second one is refused, and changes nothing.
    let mut late = workspace.begin();
    late.expect_version("installed", before);
    late.remove_tree("bin").remove_tree("lib");
    match late.commit() {
        Err(e) if e.kind() == ErrorKind::Changed => {
            assert_eq!(e.disk_state(), DiskState::Unchanged);
            println!("refused: {e}");
        }
        other => return Err(format!("not refused: {other:?}").into()),
    }
    assert_eq!(file("installed")?, "tool 2\n");
    workspace.close()?;
    Ok(())
}
