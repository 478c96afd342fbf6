//! Installs, upgrades and removes a package of several hundred files: each time all of it or nothing.
//!
//! The list of installed files is written by the same transaction as the files. A configuration file that the
//! user has changed is kept, and the package's is put beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Workspace};
use steadfast::{DiskState, ErrorKind, Root};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Package {
    name: &'static str,
    version: u32,
    files: BTreeMap<String, String>,
}

/// A package as a build would make it. From one version to the next files come, go and change.
fn package(version: u32) -> Package {
    let mut files = BTreeMap::new();
    for n in version * 20..version * 20 + 400 {
        let text = format!("module {n}, version {version}\n");
        files.insert(format!("lib/tool/{}/m{n}.so", n % 7), text);
    }
    files.insert("bin/tool".into(), format!("#!/bin/sh\necho {version}\n"));
    files.insert("etc/tool.conf".into(), format!("# defaults {version}\n"));
    Package {
        name: "tool",
        version,
        files,
    }
}

fn is_config(path: &str) -> bool {
    path.starts_with("etc/")
}

/// Installs a package or another version of it. `wanted` none: removes it.
fn change(workspace: &Workspace, name: &str, wanted: Option<&Package>) -> Result<u64> {
    let list = format!("var/packages/{name}");
    let mut tx = workspace.begin();
    // The list: a line with the version, then for each file its path and, of configuration, what it was.
    let mut before = BTreeMap::new();
    if tx.exists(&list)? {
        for line in String::from_utf8(tx.read(&list)?)?.lines().skip(1) {
            let (path, text) = line.split_once('\t').ok_or("a damaged list")?;
            before.insert(path.to_owned(), text.to_owned());
        }
    }
    let mut after = String::new();
    if let Some(package) = wanted {
        tx.label(&format!("install {name} {}", package.version));
        after = format!("version {}\n", package.version);
        let mut dirs = BTreeSet::new();
        for (path, text) in &package.files {
            if let Some(parent) = Path::new(path).parent()
                && dirs.insert(parent)
            {
                tx.create_dir_all(parent);
            }
            let note = if is_config(path) { text.trim() } else { "" };
            after += &format!("{path}\t{note}\n");
            let known = before.remove(path);
            if is_config(path) && known.is_some() {
                let now = String::from_utf8(tx.read(path)?)?;
                if known.as_deref() != Some(now.trim()) {
                    tx.write(format!("{path}.new"), text)?;
                    continue;
                }
            }
            let mode = if path.starts_with("bin/") {
                0o755
            } else {
                0o644
            };
            let attributes = Attributes::new().mode(Mode::from_raw_mode(mode));
            // What is not ours is not written over: then nothing at all is installed.
            if known.is_none() {
                tx.expect_absent(path);
            }
            tx.write_with(path, text, attributes)?;
        }
    }
    // What the old version had and the new one has not.
    for path in before.keys() {
        tx.remove_file(path);
    }
    match wanted {
        Some(_) => {
            tx.create_dir_all("var/packages");
            tx.write(&list, after)?;
        }
        None => {
            tx.remove_file(&list);
        }
    }
    Ok(tx.commit()?.number())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = Root::open(dir.path())?;
    let workspace = Workspace::open(&root)?;
    let file = |path: &str| fs::read_to_string(dir.path().join(path));
    let modules = || -> Result<usize> {
        let mut count = 0;
        for folder in fs::read_dir(dir.path().join("lib/tool"))? {
            count += fs::read_dir(folder?.path())?.count();
        }
        Ok(count)
    };

    let start = Instant::now();
    let one = package(1);
    change(&workspace, one.name, Some(&one))?;
    println!("{} files in {:?}", one.files.len(), start.elapsed());
    assert_eq!(
        (modules()?, file("etc/tool.conf")?.as_str()),
        (400, "# defaults 1\n")
    );

    // An upgrade that meets somebody else's file: not one of the hundreds of others is touched.
    fs::write(dir.path().join("lib/tool/3/m423.so"), "mine")?;
    let two = package(2);
    match change(&workspace, two.name, Some(&two)) {
        Err(e) => match e.downcast_ref::<steadfast::Error>() {
            Some(e) if e.kind() == ErrorKind::Changed => {
                assert_eq!(e.disk_state(), DiskState::Unchanged);
                println!("refused: {e}");
            }
            _ => return Err(e),
        },
        Ok(_) => return Err("it was installed over somebody's file".into()),
    }
    assert_eq!(file("bin/tool")?, "#!/bin/sh\necho 1\n");
    assert_eq!(
        (modules()?, file("lib/tool/3/m423.so")?.as_str()),
        (401, "mine")
    );

    // Without it the upgrade goes through; what the user has set stays.
    fs::remove_file(dir.path().join("lib/tool/3/m423.so"))?;
    fs::write(dir.path().join("etc/tool.conf"), "colour = green\n")?;
    change(&workspace, two.name, Some(&two))?;
    assert_eq!(
        (modules()?, file("bin/tool")?.as_str()),
        (400, "#!/bin/sh\necho 2\n")
    );
    assert_eq!(file("etc/tool.conf")?, "colour = green\n");
    assert_eq!(file("etc/tool.conf.new")?, "# defaults 2\n");
    assert!(file("var/packages/tool")?.starts_with("version 2\n"));
    println!("upgraded; {} modules, the user's settings kept", modules()?);

    change(&workspace, "tool", None)?;
    assert_eq!(modules()?, 0);
    assert!(!dir.path().join("bin/tool").exists());
    println!("removed");
    workspace.close()?;
    Ok(())
}
