//! Transactions by name: a tree before, and what is done to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use steadfast::Result;
use steadfast::sys::Mode;
use steadfast::workspace::{Attributes, Transaction};

pub(crate) struct Script {
    pub(crate) name: &'static str,
    /// Makes the tree before.
    pub(crate) before: fn(&Path),
    /// Collects the transaction.
    pub(crate) run: fn(&mut Transaction<'_>) -> Result<()>,
}

/// Five files and some company, the old state of most scripts.
pub(crate) fn five(dir: &Path) {
    for n in 0..5 {
        fs::write(dir.join(format!("f{n}")), format!("old {n}")).unwrap();
    }
    fs::set_permissions(dir.join("f1"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(dir.join("d/e")).unwrap();
    fs::write(dir.join("d/x"), "old x").unwrap();
    fs::write(dir.join("d/e/y"), "old y").unwrap();
    symlink("f0", dir.join("link")).unwrap();
}

/// Longer than what travels in the record.
fn long(text: &str) -> Vec<u8> {
    text.as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(40_000)
        .collect()
}

pub(crate) fn all() -> Vec<Script> {
    vec![
        Script {
            name: "five overwritten",
            before: five,
            run: |tx| {
                for n in 0..5 {
                    tx.write(format!("f{n}"), format!("new {n}"))?;
                }
                Ok(())
            },
        },
        Script {
            name: "five created",
            before: five,
            run: |tx| {
                for n in 0..5 {
                    tx.create_new(format!("n{n}"), format!("new {n}"))?;
                }
                Ok(())
            },
        },
        Script {
            name: "five long ones",
            before: five,
            run: |tx| {
                for n in 0..5 {
                    tx.write(format!("f{}", n + 2), long(&format!("new {n} ")))?;
                }
                Ok(())
            },
        },
        Script {
            name: "a mix",
            before: five,
            run: |tx| {
                tx.write("f0", "new 0")?;
                tx.rename("f1", "d/f1");
                tx.remove_file("f2");
                tx.create_dir_all("p/q");
                tx.write("p/q/n", "new n")?;
                tx.rename("f3", "p/f3");
                tx.write("f3", "new 3")?;
                tx.remove_tree("d/e");
                tx.symlink("p/q", "link2");
                tx.remove_file("link");
                Ok(())
            },
        },
        Script {
            name: "swap by three renames",
            before: five,
            run: |tx| {
                tx.rename("f0", "tmp")
                    .rename("f1", "f0")
                    .rename("tmp", "f1");
                Ok(())
            },
        },
        Script {
            name: "rotate four",
            before: five,
            run: |tx| {
                tx.rename("f0", "tmp").rename("f1", "f0").rename("f2", "f1");
                tx.rename("f3", "f2").rename("tmp", "f3");
                Ok(())
            },
        },
        Script {
            name: "exchange a directory and a file, write in the directory",
            before: five,
            run: |tx| {
                tx.exchange("d", "f0");
                tx.write("f0/new", "new")?;
                tx.write("d", "what was f0")
            },
        },
        Script {
            name: "rename a directory and write in it",
            before: five,
            run: |tx| {
                tx.rename("d", "g");
                tx.write("g/x", "new x")?;
                tx.write("g/e/z", "new z")?;
                tx.remove_file("g/e/y");
                tx.create_dir("d");
                tx.write("d/x", "another x")
            },
        },
        Script {
            name: "a directory becomes a file, a file a directory",
            before: five,
            run: |tx| {
                tx.remove_tree("d");
                tx.write("d", "a file now")?;
                tx.remove_file("f4");
                tx.create_dir("f4");
                tx.write("f4/in", "in it")
            },
        },
        Script {
            name: "links, attributes, append",
            before: five,
            run: |tx| {
                tx.hard_link("f0", "d/again");
                tx.write("n", "new")?;
                tx.hard_link("n", "n2");
                tx.append("f3", " and more")?;
                tx.append("log", "first line")?;
                tx.set_attributes("f1", Attributes::new().mode(Mode::from_bits_retain(0o640)));
                tx.set_attributes("d", Attributes::new().mode(Mode::from_bits_retain(0o700)));
                Ok(())
            },
        },
        Script {
            name: "a tree moved into a new one",
            before: five,
            run: |tx| {
                tx.create_dir("new");
                tx.rename("d", "new/d");
                tx.rename("f0", "new/d/e/f0");
                tx.write("new/d/x", "new x")?;
                tx.key("job 1", "done");
                Ok(())
            },
        },
        Script {
            name: "in place",
            before: five,
            run: |tx| {
                tx.write_in_place("f0", long("new 0 "))?;
                tx.write_in_place("f1", "n")?;
                tx.write("f2", "new 2")
            },
        },
    ]
}
