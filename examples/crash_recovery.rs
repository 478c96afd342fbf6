//! Kills itself in the middle of a transaction, at one system call after the other, and recovers each time.
//!
//! It starts itself as a child that moves money from one account to another and writes both down, which is
//! killed (SIGKILL) before its first call, then before its fourth, and so on until one gets through. After
//! each the books must be those before or those after, and nothing else may lie around. The same is done with
//! a protected section. `STEADFAST_LONG=1` kills it at every call. For killing at a given call the library's
//! test seam is used, which no ordinary build has. A power cut is worse than a kill: see `docs/promises.md`.

use std::error::Error;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use steadfast::Root;
use steadfast::sys::hook;
use steadfast::workspace::Workspace;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BEFORE: [(&str, &str); 3] = [("anna", "100\n"), ("book", "opened\n"), ("bert", "0\n")];
const AFTER: [(&str, &str); 3] = [
    ("anna", "60\n"),
    ("book", "opened\nanna pays bert 40\n"),
    ("bert", "40\n"),
];

/// The child. Calls are counted from `arm_from_env` on.
fn transfer(path: &str, how: &str) -> Result<()> {
    let root = Root::open(path)?;
    let workspace = Workspace::open(&root)?;
    match how {
        "transaction" => {
            hook::arm_from_env();
            let mut tx = workspace.begin();
            tx.write("anna", AFTER[0].1)?;
            tx.append("book", "anna pays bert 40\n")?;
            tx.write("bert", AFTER[2].1)?;
            tx.commit()?;
        }
        _ => {
            hook::arm_from_env();
            let mut section = workspace.section("transfer")?;
            section.protect(["anna", "book", "bert"])?;
            for (name, text) in AFTER {
                // In place, as any program might. Each is a moment at which the books are wrong.
                fs::write(Path::new(path).join(name), text)?;
                section.phase(name)?;
            }
            section.commit()?;
        }
    }
    Ok(())
}

fn books(dir: &Path) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != ".steadfast" {
            out.push((name, fs::read_to_string(entry.path())?));
        }
    }
    out.sort();
    Ok(out)
}

fn is(found: &[(String, String)], wanted: [(&str, &str); 3]) -> bool {
    let mut wanted = wanted.map(|(name, text)| (name.to_owned(), text.to_owned()));
    wanted.sort();
    found == wanted
}

/// Kills it at one call after the other, and opens what is left.
fn demonstrate(how: &str) -> Result<()> {
    let every = if std::env::var_os("STEADFAST_LONG").is_some() {
        1
    } else {
        3
    };
    let (mut torn, mut map) = (0, String::new());
    for call in (1..).step_by(every) {
        // A kill loses nothing that only a sync would save: memory will do, and is faster.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let root = Root::open(dir.path())?;
        let path = dir.path().to_str().ok_or("not a text")?;
        for (name, text) in BEFORE {
            fs::write(dir.path().join(name), text)?;
        }
        let died = Command::new(std::env::current_exe()?)
            .args([path, how])
            .env(hook::ENV, format!("stop-before:{call}"))
            .stderr(Stdio::null())
            .status()?;
        let at_once = books(dir.path())?;
        torn += u32::from(!is(&at_once, BEFORE) && !is(&at_once, AFTER));

        // Opening is all that recovery needs.
        let workspace = Workspace::open(&root)?;
        let found = books(dir.path())?;
        assert!(workspace.conflicts()?.is_empty());
        workspace.close()?;
        if died.success() {
            assert!(is(&found, AFTER), "it got through: {found:?}");
            println!("{how}: killed {} times", map.len());
            println!("  {torn} times its files were torn right after");
            println!("  opened, they were as before (-) or as after (+): {map}");
            // One record decides: what comes before it is taken back, what comes after it is finished.
            assert!(map.contains("-+") && !map.contains("+-"));
            assert!(torn > 0 || every > 1, "nothing was to be made good");
            return Ok(());
        }
        assert_eq!(died.signal(), Some(9), "{died}");
        map.push(match (is(&found, BEFORE), is(&found, AFTER)) {
            (true, _) => '-',
            (_, true) => '+',
            _ => return Err(format!("killed before call {call}: {found:?}").into()),
        });
    }
    Err("it never got through".into())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, path, how] = &args[..] {
        return transfer(path, how);
    }
    demonstrate("transaction")?;
    demonstrate("section")
}
