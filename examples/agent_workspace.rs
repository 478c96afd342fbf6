//! Lets an agent run tools in a folder, and takes back all that a tool did unless it went well.
//!
//! A tool is any program: it writes in place, removes, renames, and is killed when it likes. Its changes are
//! visible at once, also to the next check. What counts as "went well" is decided afterwards.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use steadfast::Root;
use steadfast::workspace::Workspace;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a tool's run came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Kept,
    TakenBack(String),
}

/// Runs a tool in the folder, then a check that decides whether its work is kept.
fn run_tool(
    workspace: &Workspace,
    folder: &Path,
    script: &str,
    check: impl Fn() -> Result<()>,
) -> Result<Outcome> {
    let mut section = workspace.section(script)?;
    // From here on whatever happens in the folder can be taken back, also if this process dies now.
    section.protect(["."])?;
    section.phase("the tool runs")?;
    let done = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status()?;
    let verdict = match done.success() {
        true => check().map_err(|e| e.to_string()),
        false => Err(done.to_string()),
    };
    match verdict {
        Ok(()) => {
            section.commit()?;
            Ok(Outcome::Kept)
        }
        Err(why) => {
            section.rollback()?;
            Ok(Outcome::TakenBack(why))
        }
    }
}

/// Everything in the folder but the workspace's own: kind and mode, content or where a link leads.
fn picture(folder: &Path) -> Result<BTreeMap<String, (u32, Vec<u8>)>> {
    fn look(at: &Path, name: &str, out: &mut BTreeMap<String, (u32, Vec<u8>)>) -> Result<()> {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            let last = path.file_name().ok_or("no name")?.to_string_lossy();
            let name = format!("{name}/{last}");
            if name == "/.steadfast" {
                continue;
            }
            let meta = fs::symlink_metadata(&path)?;
            let content = if meta.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else if meta.is_file() {
                fs::read(&path)?
            } else {
                look(&path, &name, out)?;
                Vec::new()
            };
            out.insert(name, (meta.permissions().mode(), content));
        }
        Ok(())
    }
    let mut out = BTreeMap::new();
    look(folder, "", &mut out)?;
    Ok(out)
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let folder = dir.path();
    fs::create_dir(folder.join("src"))?;
    fs::write(folder.join("src/main.txt"), "begin\nend\n")?;
    fs::write(folder.join("notes"), "remember\n")?;
    let root = Root::open(folder)?;
    let workspace = Workspace::open(&root)?;
    // What a build or a test suite would be.
    let check = || -> Result<()> {
        let text = fs::read_to_string(folder.join("src/main.txt"))?;
        match text.starts_with("begin\n") && text.ends_with("end\n") {
            true => Ok(()),
            false => Err("the check says no".into()),
        }
    };

    let add = "printf 'begin\\nmiddle\\nend\\n' >src/main.txt; mkdir docs; echo hello >docs/index";
    let outcome = run_tool(&workspace, folder, add, check)?;
    println!("{outcome:?}: a good tool");
    assert_eq!(outcome, Outcome::Kept);
    let good = picture(folder)?;
    assert_eq!(good.len(), 5);

    let tools = [
        ("fails in the middle", "rm -r docs src; mkdir src; exit 3"),
        (
            "succeeds, but the check says no",
            "echo more >>src/main.txt",
        ),
        ("is killed", "mv src away; chmod 777 notes; kill -9 $$"),
        (
            "makes a mess",
            "cat notes >src/copy; >notes; ln -s /etc docs/link; ln notes src/notes; false",
        ),
    ];
    for (what, script) in tools {
        match run_tool(&workspace, folder, script, check)? {
            Outcome::TakenBack(why) => println!("taken back: a tool that {what} ({why})"),
            Outcome::Kept => return Err(format!("a tool that {what} was kept").into()),
        }
        assert_eq!(picture(folder)?, good, "{what}");
    }

    // An agent that dies itself: here its section is dropped, as by a panic; after a kill the next one that
    // opens the workspace takes it back.
    let mut section = workspace.section("an agent that gives up")?;
    section.protect(["src"])?;
    fs::remove_dir_all(folder.join("src"))?;
    drop(section);
    assert_eq!(picture(folder)?, good);
    println!("taken back: an agent that gave up");
    workspace.close()?;
    Ok(())
}
