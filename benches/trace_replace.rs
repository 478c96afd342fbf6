//! Replaces a file twice, by the library or by hand, for `ci/strace-replace.sh` to look at the second time.
//!
//! `trace-replace library|hand kept|plain root|below DIRECTORY`: keeping the old file's attributes or not, in
//! the root directory or in a folder below it. A getppid(2) marks the beginning and the end of each replace.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::parent_id;
use std::path::Path;
use steadfast::Root;
use steadfast::publish::{FileOptions, Preserve};
use steadfast_bench::{open_dir, replace, replace_plain};

/// A system call that nobody else makes.
fn mark() {
    std::hint::black_box(parent_id());
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [who, what, place, dir] = args.as_slice() else {
        return Err("usage: trace-replace library|hand kept|plain root|below DIRECTORY".into());
    };
    let dir = Path::new(dir);
    let kept = what == "kept";
    let parent = if place == "below" { "folder" } else { "" };
    fs::create_dir_all(dir.join("folder"))?;
    let file = Path::new(parent).join("file");
    fs::write(dir.join(&file), "old")?;
    fs::set_permissions(dir.join(&file), fs::Permissions::from_mode(0o640))?;

    let root = Root::open(dir)?;
    let by_hand = open_dir(rustix::fs::CWD, dir)?;
    let mut options = FileOptions::new();
    if !kept {
        options = options.preserve(Preserve::NOTHING);
    }
    for content in ["first", "second"] {
        mark();
        if who == "library" {
            options.write(&root, &file, content.as_bytes())?;
        } else {
            let below;
            let at = if parent.is_empty() {
                &by_hand
            } else {
                below = open_dir(&by_hand, Path::new(parent))?;
                &below
            };
            if kept {
                replace(at, "file", ".temporary", content.as_bytes())?;
            } else {
                replace_plain(at, "file", ".temporary", content.as_bytes())?;
            }
        }
        mark();
        if fs::read(dir.join(&file))? != content.as_bytes() {
            return Err("the file was not replaced".into());
        }
    }
    let mode = fs::metadata(dir.join(&file))?.permissions().mode() & 0o7777;
    if kept && mode != 0o640 {
        return Err(format!("the mode became {mode:o}").into());
    }
    Ok(())
}
