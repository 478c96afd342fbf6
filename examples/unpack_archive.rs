//! Unpacks an archive that nobody vouches for: beneath one directory, whole or not at all.
//!
//! Every path of the archive is resolved beneath the folder that it is unpacked to, so that no `..`, absolute
//! path or symlink leads out of it, whatever was unpacked before. The folder appears when all of it is there.

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use steadfast::publish::{FileOptions, FolderOptions, FolderTarget};
use steadfast::sys::Mode;
use steadfast::{Durability, ErrorKind, Root};
use tar::{Archive, Builder, EntryType, Header};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Of an archive: what it is, its path, and its content or where it leads.
type Entry<'a> = (EntryType, &'a str, &'a str);

/// What an archive may unpack to, in bytes and in things.
const BYTES: u64 = 1 << 20;
const ENTRIES: usize = 1000;

/// Unpacks to the new folder `to`. After an error nothing of it is there.
fn unpack(root: &Root, to: &str, archive: impl Read) -> Result<usize> {
    let folder = FolderOptions::new()
        .target(FolderTarget::CreateNew)
        .begin(root, to)?;
    let inside = folder.root();
    // `commit` syncs the folder as a whole.
    let file = FileOptions::new().durability(Durability::None);
    let (mut left, mut entries, mut links) = (BYTES, 0, Vec::new());
    for entry in Archive::new(archive).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        // Nobody gets a setuid bit from a stranger.
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o755 | 0o600);
        entries += 1;
        if entries > ENTRIES {
            return Err("too many entries".into());
        }
        let open = Mode::from_raw_mode(0o755);
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            inside.create_dir_all(parent, open, Durability::None)?;
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                inside.create_dir_all(&path, open, Durability::None)?;
            }
            EntryType::Regular => {
                // The size in the header is a claim; what counts is what comes.
                let mut content = entry.take(left + 1);
                file.clone()
                    .mode(mode)
                    .write_from(inside, &path, &mut content)?;
                left = match content.limit().checked_sub(1) {
                    Some(left) => left,
                    None => return Err("too many bytes".into()),
                };
            }
            EntryType::Symlink => {
                let text = entry.link_name()?.ok_or("a link to nothing")?;
                inside.symlink(&text, &path)?;
                links.push(path);
            }
            kind => return Err(format!("{}: a {kind:?} is not welcome", path.display()).into()),
        }
    }
    // Here no link leads out, but other programs follow them without asking: so none may point out either.
    for link in links {
        match inside.canonicalize(&link) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    folder.commit()?;
    Ok(entries)
}

/// An archive, whose names are written without the looks that the builder would take.
fn archive(entries: &[Entry<'_>]) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let mut data = content.as_bytes();
        if *kind == EntryType::Symlink {
            header.as_old_mut().linkname[..data.len()].copy_from_slice(data);
            data = b"";
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data)?;
    }
    builder.into_inner()
}

fn main() -> Result<()> {
    use EntryType::{Char, Directory, Link, Regular, Symlink};
    let dir = tempfile::tempdir()?;
    let outside = dir.path().join("outside");
    let inside = dir.path().join("unpacked");
    fs::create_dir(&outside)?;
    fs::create_dir(&inside)?;
    let root = Root::open(&inside)?;

    let good = archive(&[
        (Directory, "tool", ""),
        (Regular, "tool/bin/run", "#!/bin/sh\n"),
        (Regular, "tool/README", "read me\n"),
        (Symlink, "tool/run", "bin/run"),
        (Symlink, "tool/later", "not/there/yet"),
    ])?;
    println!("good: {} entries", unpack(&root, "good", &good[..])?);
    assert_eq!(fs::read(inside.join("good/tool/run"))?, b"#!/bin/sh\n");
    let mode = fs::metadata(inside.join("good/tool/bin/run"))?.permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777,
        0o755
    );

    let long = "x".repeat(BYTES as usize / 2 + 1);
    let absolute = outside.join("a").to_string_lossy().into_owned();
    let there = outside.to_string_lossy().into_owned();
    let evil: [(&str, Vec<Entry<'_>>); 8] = [
        ("dots", vec![(Regular, "../../outside/a", "x")]),
        (
            "dots in the middle",
            vec![(Directory, "a", ""), (Regular, "a/../../../outside/a", "x")],
        ),
        ("absolute", vec![(Regular, &absolute, "x")]),
        (
            "link, then through it",
            vec![(Symlink, "l", &there), (Regular, "l/a", "x")],
        ),
        (
            "link up, then through it",
            vec![(Symlink, "l", "../../outside"), (Directory, "l/a", "")],
        ),
        (
            "link out",
            vec![(Regular, "a", "x"), (Symlink, "l", "../../outside")],
        ),
        ("a bomb", vec![(Regular, "a", &long), (Regular, "b", &long)]),
        ("strange things", vec![(Link, "a", ""), (Char, "null", "")]),
    ];
    for (name, entries) in &evil {
        // Each begins harmlessly, so that there is something to take back.
        let mut all = vec![(Regular, "first", "harmless")];
        all.extend(entries);
        match unpack(&root, "evil", &archive(&all)?[..]) {
            Err(e) => println!("{name}: {e}"),
            Ok(_) => return Err(format!("{name}: it was unpacked").into()),
        }
        assert_eq!(fs::read_dir(&outside)?.count(), 0, "{name}: outside");
        assert!(Path::new(&there).is_dir());
        assert_eq!(
            fs::read_dir(&inside)?.count(),
            1,
            "{name}: it left something"
        );
    }
    Ok(())
}
