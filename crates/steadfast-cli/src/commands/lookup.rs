//! `lookup`: where a path leads, and what is there.

use super::Done;
use crate::args::{LookupArgs, ResolverArg};
use crate::failure::Failure;
use crate::output::{Report, Text};
use crate::paths::shown;
use crate::place::{Place, split};
use std::path::{Path, PathBuf};
use steadfast::sys::{FileType, Mode, OFlags};
use steadfast::{Backend, Dir, Error, Root, RootOptions, Scope};

/// One look.
pub(crate) fn run(args: &LookupArgs) -> Done {
    let options = RootOptions::new()
        .scope(if args.in_root {
            Scope::InRoot
        } else {
            Scope::Beneath
        })
        .backend(match args.resolver {
            ResolverArg::Auto => Backend::Auto,
            ResolverArg::Openat2 => Backend::Kernel,
            ResolverArg::Walk => Backend::Walk,
        })
        .no_symlinks(args.no_symlinks)
        .no_magic_links(args.no_magic_links)
        .no_mount_crossing(args.no_mount_crossing);
    let root = options.open(&args.root).map_err(|e| Failure::of(e, &[]))?;
    let place = Place {
        root,
        path: args.path.clone(),
        given: args.path.clone(),
        prefix: Path::new("").into(),
    };
    let mut flags = OFlags::PATH;
    flags.set(OFlags::NOFOLLOW, args.no_follow);
    let root = &place.root;
    let found = root
        .open_with(&place.path, flags, Mode::empty())
        .map(Dir::from)
        .and_then(|fd| Ok((fd.metadata()?, canonical(root, args)?)));
    let (meta, canonical) = found.map_err(|e| place.fail(e, &[]))?;
    let (id, kind) = (meta.id(), kind(meta.kind()));
    let (major, minor) = (rustix::fs::major(id.dev), rustix::fs::minor(id.dev));
    let mut text = Text::default();
    let canonical_shown = shown(&canonical);
    for (label, value) in [
        ("path", canonical_shown.as_str()),
        ("type", kind),
        ("device", &format!("{major}:{minor}")),
        ("inode", &id.ino.to_string()),
    ] {
        text.push(format!("{label:<7} {value}\n"));
    }
    Ok(Report::answer(text)
        .with_path("path", &args.path)
        .with_path("canonical", &canonical)
        .with("type", kind.replace(' ', "_"))
        .with("device", id.dev)
        .with("device_major", major)
        .with("device_minor", minor)
        .with("inode", id.ino))
}

/// The path without links; with `--no-follow`, but for a link at its end.
fn canonical(root: &Root, args: &LookupArgs) -> Result<PathBuf, Error> {
    let (parent, last) = split(&args.path);
    let plain = ![".", ".."].iter().any(|dots| last == Path::new(dots));
    let slash = last.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !args.no_follow || !plain || slash {
        return root.canonicalize(&args.path);
    }
    let parent = root.canonicalize(parent)?;
    Ok(if parent == Path::new(".") {
        last.into()
    } else {
        parent.join(last)
    })
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
}
