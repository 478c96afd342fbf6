//! Deploys a site in releases: each a folder of its own, a link that says which one is live, a way back.
//!
//! A release is built aside and appears whole. One transaction moves the link, writes the history and removes
//! releases that nobody needs. A visitor opens the live folder once, and reads all pages of one release.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast::publish::{FileOptions, FolderOptions, FolderTarget};
use steadfast::sys::Mode;
use steadfast::workspace::Workspace;
use steadfast::{Durability, ErrorKind, Root};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// So many releases are kept, the live one included.
const KEEP: usize = 3;

/// Builds a release. Until `commit` nobody sees it, and whatever fails before leaves nothing.
fn build(root: &Root, release: usize) -> Result<()> {
    // A release that exists is never changed.
    let folder = FolderOptions::new()
        .target(FolderTarget::CreateNew)
        .begin(root, format!("releases/{release}"))?;
    // `commit` syncs the folder as a whole.
    let page = FileOptions::new()
        .durability(Durability::None)
        .create_parents(Mode::from_raw_mode(0o755));
    for path in ["index.html", "css/site.css", "news/today.html"] {
        page.write(folder.root(), path, format!("{path} of release {release}"))?;
    }
    folder.commit()?;
    Ok(())
}

/// Makes a release live, and removes old ones: all of it or nothing.
fn go_live(workspace: &Workspace, release: usize) -> Result<()> {
    let mut tx = workspace.begin();
    tx.label(&format!("release {release} goes live"));
    tx.expect_present(format!("releases/{release}"));
    // A link cannot be written over, but renamed over.
    tx.symlink(format!("releases/{release}"), "next");
    tx.rename("next", "live");
    tx.append("history", format!("{release}\n"))?;
    let mut kept = Vec::new();
    for name in tx.list("releases")? {
        kept.push(name.as_os_str().to_string_lossy().parse::<usize>()?);
    }
    kept.sort_unstable();
    kept.retain(|old| *old != release);
    for old in kept.iter().rev().skip(KEEP - 1) {
        tx.remove_tree(format!("releases/{old}"));
    }
    tx.commit()?;
    Ok(())
}

/// The release that a visitor sees: the same on every page, or an error.
fn visit(root: &Root) -> Result<usize> {
    loop {
        // By descriptor: when the link moves, this visitor stays with the release that it began with.
        let site = Root::from(root.open_dir("live")?);
        let mut seen = Vec::new();
        for path in ["index.html", "news/today.html"] {
            let mut text = String::new();
            match site.open_file(path) {
                Ok(mut file) => file.read_to_string(&mut text)?,
                // It was removed for its age meanwhile: begin anew with the live one.
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(e.into()),
            };
            let number = text.rsplit(' ').next().unwrap_or_default();
            seen.push(number.parse::<usize>()?);
        }
        match seen[..] {
            [a, b] if a == b => return Ok(a),
            [a, b] => return Err(format!("a mixture of releases {a} and {b}").into()),
            _ => {}
        }
    }
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("releases"))?;
    let root = Root::open(dir.path())?;
    let workspace = Workspace::open(&root)?;
    build(&root, 1)?;
    go_live(&workspace, 1)?;

    // Visitors come all the time.
    let over = AtomicBool::new(false);
    let visits = std::thread::scope(|scope| -> Result<usize> {
        let visitor = scope.spawn(|| -> std::result::Result<usize, String> {
            let (mut visits, mut last) = (0, 0);
            while visits == 0 || !over.load(Ordering::Relaxed) {
                let release = visit(&root).map_err(|e| e.to_string())?;
                if release < last {
                    return Err(format!("release {release} came back after {last}"));
                }
                (visits, last) = (visits + 1, release);
            }
            Ok(visits)
        });
        let deployed = (2..=12).try_for_each(|release| {
            build(&root, release)?;
            go_live(&workspace, release)
        });
        over.store(true, Ordering::Relaxed);
        let visits = visitor.join().map_err(|_| "the visitor panicked")?;
        deployed?;
        Ok(visits?)
    })?;
    assert_eq!(visit(&root)?, 12);
    println!("12 releases, {visits} visits, none of them saw a mixture");

    // Back to the one before: it is still there.
    go_live(&workspace, 11)?;
    assert_eq!(visit(&root)?, 11);
    let mut left: Vec<_> = fs::read_dir(dir.path().join("releases"))?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<std::result::Result<_, _>>()?;
    left.sort();
    assert_eq!(left, ["10", "11", "12"]);
    println!("back to release 11; kept: {left:?}");

    // A release that was never built cannot go live, and an existing one cannot be built again.
    assert!(go_live(&workspace, 13).is_err());
    assert!(build(&root, 12).is_err());
    assert_eq!(visit(&root)?, 11);
    workspace.close()?;
    Ok(())
}
