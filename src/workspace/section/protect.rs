//! Protecting paths: what they are beneath the root, their claims, their images.

use super::Section;
use super::image;
use super::record::Item;
use super::undo::{Fragment, Place, Spot, What, covers, join};
use crate::claim::{ClaimPath, Want};
use crate::sys::{self, AsFd, AtFlags, Errno, Metadata};
use crate::tree::{self, RemoveOptions, acl};
use crate::workspace::identity::Ident;
use crate::workspace::mapping::Attributes;
use crate::workspace::state;
use crate::{Dir, Error, ErrorKind, Name, Result, Root};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const OP: &str = "protect";
/// How often the paths may turn out to be others than those that were claimed (a link on the way changed).
const ROUNDS: u32 = 8;

/// A path as it is beneath the root.
struct Target {
    /// Of the directory, without links.
    above: Vec<u8>,
    dir: Dir,
    /// What that is.
    ident: Ident,
    name: Name,
}

impl Target {
    fn path(&self) -> Vec<u8> {
        join(&self.above, &self.name)
    }
}

enum Found {
    /// The root itself.
    All,
    One(Target),
}

pub(super) fn protect(section: &mut Section<'_>, paths: &[PathBuf]) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut all = false;
        let mut targets: Vec<Target> = Vec::new();
        for path in paths {
            match find(&section.workspace.root, path)? {
                Found::All => all = true,
                Found::One(target) => targets.push(target),
            }
        }
        let mut wants = Vec::new();
        if all {
            wants.push(Want::exclusive(ClaimPath::default()));
        } else {
            for target in &targets {
                let path = ClaimPath::new(OsStr::from_bytes(&target.path()))?;
                wants.push(Want::exclusive(path));
            }
        }
        if section.claim(wants)? {
            continue;
        }
        if all {
            targets = entries(&section.workspace.root)?;
        }
        let targets = open(section, targets, all)?;
        return keep(section, &targets, all);
    }
    Err(Error::of_kind(OP, ErrorKind::Busy)
        .with_advice("links on the way change all the time: try again"))
}

/// What a path leads to, with links on the way followed; of a path that is not there, the first directory
/// that is missing.
fn find(root: &Root, path: &Path) -> Result<Found> {
    let mut path = path.to_path_buf();
    loop {
        let (dir, name) = match root.split(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                // It ends with `.` or `..`.
                let canonical = root.canonicalize(&path).map_err(|e| e.with_operation(OP))?;
                if canonical == Path::new(".") {
                    return Ok(Found::All);
                }
                path = canonical;
                continue;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if !path.pop() || path.as_os_str().is_empty() {
                    return Err(e.with_operation(OP));
                }
                continue;
            }
            Err(e) => return Err(e.with_operation(OP)),
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let above = match parent.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => root
                .canonicalize(parent)
                .map_err(|e| e.with_operation(OP))?,
        };
        let above = match above.as_os_str().as_bytes() {
            b"." => Vec::new(),
            above => above.to_vec(),
        };
        let own = state::FOLDER.to_bytes();
        if covers(own, &join(&above, &name)) {
            return Err(Error::of_kind(OP, ErrorKind::InvalidInput)
                .with_path(&path)
                .with_detail("it is the workspace's own folder"));
        }
        let ident = Ident::of(&dir.metadata()?);
        return Ok(Found::One(Target {
            above,
            dir,
            ident,
            name,
        }));
    }
}

/// All names of the root but the workspace's own.
fn entries(root: &Root) -> Result<Vec<Target>> {
    let ident = Ident::of(&root.dir().metadata()?);
    let mut out = Vec::new();
    for name in names(root)? {
        out.push(Target {
            above: Vec::new(),
            dir: root.dir().try_clone()?,
            ident,
            name,
        });
    }
    Ok(out)
}

/// The names in the root, but the workspace's own.
pub(super) fn names(root: &Root) -> Result<Vec<Name>> {
    let fail = |e: Errno| Error::new(OP, "getdents64", e);
    let mut out = Vec::new();
    let mut stream = root.dir().read_dir().map_err(|e| e.with_operation(OP))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        let name = Name::from_entry(entry.name()).map_err(fail)?;
        if name.as_c_str() != state::FOLDER {
            out.push(name);
        }
    }
    Ok(out)
}

/// Those of the targets that have to be kept: not what is kept already, or was not there before the section.
fn open(section: &Section<'_>, targets: Vec<Target>, all: bool) -> Result<Vec<Target>> {
    let mut out: Vec<Target> = Vec::new();
    let sum = &section.sum;
    if all && sum.top().is_none() && !sum.paths().is_empty() {
        return Err(late(Path::new(".")));
    }
    for target in targets {
        let path = section.moves.before(&target.path());
        // Nothing was there before: whatever is there goes.
        let is_new = |spot: &Spot| spot.what == What::Nothing && covers(&sum.path(spot), &path);
        if sum.protects(&path) || sum.made(&target.ident) || sum.spots().iter().any(is_new) {
            continue;
        }
        let touched = |spot: &Spot| spot.what.matters() && covers(&path, &sum.path(spot));
        if sum.spots().iter().any(touched) {
            return Err(late(Path::new(OsStr::from_bytes(&target.path()))));
        }
        out.push(target);
    }
    // What is inside another one comes with it.
    let paths: Vec<Vec<u8>> = out.iter().map(Target::path).collect();
    let mut at = 0;
    out.retain(|_| {
        let path = &paths[at];
        let inside =
            |(i, p): (usize, &Vec<u8>)| i != at && covers(p, path) && (p != path || i < at);
        let keep = !paths.iter().enumerate().any(inside);
        at += 1;
        keep
    });
    Ok(out)
}

#[cold]
fn late(path: &Path) -> Error {
    Error::of_kind(OP, ErrorKind::InvalidInput)
        .with_path(path)
        .with_detail("this section has changed it, or something in it, already")
        .with_advice("protect what others will change before changing it")
}

/// Makes the images, then the record that speaks of them.
fn keep(section: &mut Section<'_>, targets: &[Target], all: bool) -> Result<()> {
    let workspace = section.workspace;
    let all = all && section.sum.top().is_none();
    if targets.is_empty() && !all {
        return Ok(());
    }
    let mut made = Vec::new();
    let done = images(section, targets, &mut made).and_then(|mut fragment| {
        if all {
            fragment.top = Some(attributes(&workspace.root)?);
        }
        if !made.is_empty() {
            // Also of what was written through a mapping before, so that what comes later shows in the time
            // of change.
            let state = &workspace.state;
            (state.syncfs(&state.dir)).map_err(|e| Error::new(OP, "syncfs", e))?;
        }
        section.record(&Item::Undo(fragment.clone()))?;
        Ok(fragment)
    });
    match done {
        Ok(fragment) => {
            section.sum.add(fragment);
            Ok(())
        }
        Err(e) if section.broken => Err(e),
        Err(mut e) => {
            for name in made {
                let options = RemoveOptions::new().missing_ok(true);
                if tree::remove(&workspace.state.kept, &name, &options).is_err() {
                    e = e.with_left(&name);
                }
            }
            Err(e)
        }
    }
}

fn images(section: &mut Section<'_>, targets: &[Target], made: &mut Vec<Name>) -> Result<Fragment> {
    let mut fragment = Fragment::default();
    let mut names = section.names();
    let mut ctx = section.workspace.ctx(&mut names);
    let since = image::clock(&mut ctx)?;
    let mut trees = Vec::new();
    for target in targets {
        let shown = target.path();
        let shown = OsStr::from_bytes(&shown);
        let fail = |e| Error::new(OP, "statx", e).with_path(shown);
        let before = image::look(&target.dir, &target.name).map_err(fail)?;
        let what = match before {
            None => What::Nothing,
            Some(meta) => {
                refuse_mount(&meta, shown)?;
                let live = Ident::of(&meta);
                let (name, ident) = image::take(&mut ctx, &target.dir, &target.name)
                    .map_err(|e| e.map_paths(|_| shown.into()))?;
                made.push(name.clone());
                trees.push((&target.dir, &target.name, name.clone()));
                let after = image::look(&target.dir, &target.name).map_err(fail)?;
                if !after.is_some_and(|after| live.is(&Ident::of(&after))) {
                    return Err(Error::of_kind(OP, ErrorKind::Changed).with_path(shown));
                }
                What::Image {
                    name,
                    ident,
                    live,
                    since,
                }
            }
        };
        let place = fragment.place(Place {
            path: section.moves.before(&target.above),
            ident: target.ident,
            made: false,
        });
        fragment.spots.push(Spot {
            place,
            name: target.name.clone(),
            what,
        });
    }
    if trees.len() > 1 {
        image::link(&mut ctx, &trees)?;
        for spot in &mut fragment.spots {
            if let What::Image { name, ident, .. } = &mut spot.what
                && let Some(meta) = image::look(&section.workspace.state.kept, name)
                    .map_err(|e| Error::new(OP, "statx", e))?
            {
                *ident = Ident::of(&meta);
            }
        }
    }
    Ok(fragment)
}

/// What is mounted over a name cannot be replaced there.
fn refuse_mount(meta: &Metadata, path: &OsStr) -> Result<()> {
    if meta.is_mount_root() == Some(true) {
        return Err(Error::of_kind(OP, ErrorKind::Busy)
            .with_path(path)
            .with_detail("it is a mount point"));
    }
    Ok(())
}

/// The attributes of the root itself.
fn attributes(root: &Root) -> Result<Attributes> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(".");
    let meta = sys::statx(root, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    let atime = meta.atime();
    let mut out = Attributes {
        mode: meta.mode().as_raw_mode(),
        uid: meta.uid().as_raw(),
        gid: meta.gid().as_raw(),
        mtime: Ident::of(&meta).mtime,
        atime: Some((
            atime.tv_sec,
            u32::try_from(atime.tv_nsec).unwrap_or_default(),
        )),
        xattrs: Vec::new(),
    };
    let names = match sys::flistxattr(root.as_fd()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Vec::new(),
        done => done.map_err(fail("flistxattr"))?,
    };
    for name in names.into_iter().filter(|name| !acl::is_alias(name)) {
        let value = sys::fgetxattr(root.as_fd(), name.as_c_str()).map_err(fail("fgetxattr"))?;
        if let Some(value) = value {
            out.xattrs.push((name.into_bytes(), value));
        }
    }
    Ok(out)
}
