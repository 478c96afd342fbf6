//! Opening a file some folders down, and making such folders.

use crate::harness::{Case, Done, Watch, open};
use cap_std::ambient_authority;
use pathrs::flags::OpenFlags;
use rustix::fs::{Mode, OFlags, ResolveFlags, fsync, mkdirat, openat, openat2};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use steadfast::root::{Backend, RootOptions};
use steadfast::{Durability, Root};

/// Look-ups in one sample.
const TURNS: usize = 256;
/// How many folders are made.
const DEEP: usize = 8;

/// With openat2.
pub(super) fn cases(long: bool) -> Vec<Case> {
    let depths: &[usize] = if long { &[1, 2, 4, 8, 16] } else { &[1, 4, 16] };
    let mut all: Vec<_> = depths.iter().map(|&n| lookup(n, false, true)).collect();
    all.push(lookup(8, true, true));
    all.push(kept(16));
    if long {
        all.push(cold(8));
    }
    all.push(makes(false));
    all.push(makes(true));
    all
}

/// In a process in which openat2 is not there.
pub(super) fn without_openat2(long: bool) -> Vec<Case> {
    let depths: &[usize] = if long { &[1, 2, 4, 8, 16] } else { &[1, 4, 16] };
    let mut all: Vec<_> = depths.iter().map(|&n| lookup(n, false, false)).collect();
    all.push(lookup(8, true, false));
    all
}

/// A file so many components down; every second folder behind a symlink, if wanted.
fn tree(dir: &Path, depth: usize, links: bool) -> Done<PathBuf> {
    let mut path = PathBuf::new();
    for level in 1..depth {
        let name = format!("folder-{level}");
        fs::create_dir(dir.join(&path).join(&name))?;
        if links && level % 2 == 0 {
            symlink(&name, dir.join(&path).join("link"))?;
            path.push("link");
        } else {
            path.push(&name);
        }
    }
    path.push("file");
    fs::write(dir.join(&path), "content")?;
    Ok(path)
}

/// Opens it again and again.
fn turns<T>(mut open: impl FnMut() -> Done<T>) -> impl FnMut(&mut Watch) -> Done {
    move |w: &mut Watch| {
        w.time(|| {
            for _ in 0..TURNS {
                open()?;
            }
            Ok(())
        })
    }
}

fn beneath(at: impl AsFd, path: &Path) -> Done<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(at, path, flags, Mode::empty(), resolve)?)
}

/// The least that a walk by hand does: no symlinks, no way up, every folder by the one before.
fn by_hand(at: impl AsFd, path: &Path) -> Done<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let from = held.as_ref().map_or(at.as_fd(), AsFd::as_fd);
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if components.peek().is_some() {
            flags |= OFlags::PATH | OFlags::DIRECTORY;
        }
        held = Some(openat(from, component.as_os_str(), flags, Mode::empty())?);
    }
    held.ok_or_else(|| "an empty path".into())
}

fn lookup(depth: usize, links: bool, kernel: bool) -> Case {
    let (id, how) = if kernel {
        ("look-up", "")
    } else {
        ("walk", ", without openat2")
    };
    let (mark, behind) = if links {
        ("/links", ", 3 of them symlinks")
    } else {
        ("", "")
    };
    let plural = if depth == 1 { "" } else { "s" };
    let title = format!("open a file {depth} component{plural} deep{behind}{how}, {TURNS} times");
    let mut case = Case::new(format!("{id}/{depth}{mark}"), title, TURNS as u64);
    // Counted by strace it would be another process, which has openat2.
    if !kernel {
        case = case.untraced();
    }
    if kernel {
        case = case.with("raw openat2", move |dir| {
            let path = tree(dir, depth, links)?;
            let at = open(dir)?;
            Ok(turns(move || beneath(&at, &path)))
        });
    } else if !links {
        case = case.with("raw walk, no symlinks", move |dir| {
            let path = tree(dir, depth, links)?;
            let at = open(dir)?;
            Ok(turns(move || by_hand(&at, &path)))
        });
    }
    case = case.with("steadfast", move |dir| {
        let path = tree(dir, depth, links)?;
        let root = Root::open(dir)?;
        Ok(turns(move || {
            Ok(root.open_with(&path, OFlags::RDONLY, Mode::empty())?)
        }))
    });
    if kernel {
        case = case.with("steadfast, walk", move |dir| {
            let path = tree(dir, depth, links)?;
            let root = RootOptions::new().backend(Backend::Walk).open(dir)?;
            Ok(turns(move || {
                Ok(root.open_with(&path, OFlags::RDONLY, Mode::empty())?)
            }))
        });
    }
    case.with("cap-std", move |dir| {
        let path = tree(dir, depth, links)?;
        let dir = cap_std::fs::Dir::open_ambient_dir(dir, ambient_authority())?;
        Ok(turns(move || Ok(dir.open(&path)?)))
    })
    .with("pathrs", move |dir| {
        let path = tree(dir, depth, links)?;
        let root = pathrs::Root::open(dir)?;
        Ok(turns(move || {
            Ok(root.open_subpath(&path, OpenFlags::O_RDONLY)?)
        }))
    })
    .with("std::fs, leads anywhere", move |dir| {
        let path = dir.join(tree(dir, depth, links)?);
        Ok(turns(move || Ok(fs::File::open(&path)?)))
    })
}

/// Where the folder is kept open, only the name is looked up.
fn kept(depth: usize) -> Case {
    let title = format!("open a file in a folder that is kept open, {depth} deep, {TURNS} times");
    Case::new("look-up/kept", title, TURNS as u64)
        .with("raw openat2", move |dir| {
            let path = dir.join(tree(dir, depth, false)?);
            let at = open(path.parent().ok_or("no parent")?)?;
            Ok(turns(move || beneath(&at, Path::new("file"))))
        })
        .with("steadfast", move |dir| {
            let path = tree(dir, depth, false)?;
            let parent = path.parent().ok_or("no parent")?;
            let root = Root::from(Root::open(dir)?.open_dir(parent)?);
            Ok(turns(move || {
                Ok(root.open_with("file", OFlags::RDONLY, Mode::empty())?)
            }))
        })
        .with("cap-std", move |dir| {
            let path = dir.join(tree(dir, depth, false)?);
            let parent = path.parent().ok_or("no parent")?;
            let dir = cap_std::fs::Dir::open_ambient_dir(parent, ambient_authority())?;
            Ok(turns(move || Ok(dir.open("file")?)))
        })
        .with("pathrs", move |dir| {
            let path = dir.join(tree(dir, depth, false)?);
            let root = pathrs::Root::open(path.parent().ok_or("no parent")?)?;
            Ok(turns(move || {
                Ok(root.open_subpath("file", OpenFlags::O_RDONLY)?)
            }))
        })
}

/// Once, after the kernel has forgotten all names. That is felt by the whole machine: in the long form only.
fn cold(depth: usize) -> Case {
    let one = |w: &mut Watch, open: &dyn Fn() -> Done| {
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        w.time(open)
    };
    let title = format!("open a file {depth} components deep, from the disk");
    Case::new("look-up/cold", title, 1)
        .untraced()
        .with("raw openat2", move |dir| {
            let path = tree(dir, depth, false)?;
            let at = open(dir)?;
            Ok(move |w: &mut Watch| one(w, &|| beneath(&at, &path).map(drop)))
        })
        .with("steadfast", move |dir| {
            let path = tree(dir, depth, false)?;
            let root = Root::open(dir)?;
            Ok(move |w: &mut Watch| {
                let open = || root.open_with(&path, OFlags::RDONLY, Mode::empty());
                one(w, &|| Ok(open().map(drop)?))
            })
        })
        .with("steadfast, walk", move |dir| {
            let path = tree(dir, depth, false)?;
            let root = RootOptions::new().backend(Backend::Walk).open(dir)?;
            Ok(move |w: &mut Watch| {
                let open = || root.open_with(&path, OFlags::RDONLY, Mode::empty());
                one(w, &|| Ok(open().map(drop)?))
            })
        })
        .with("cap-std", move |dir| {
            let path = tree(dir, depth, false)?;
            let dir = cap_std::fs::Dir::open_ambient_dir(dir, ambient_authority())?;
            Ok(move |w: &mut Watch| one(w, &|| Ok(dir.open(&path).map(drop)?)))
        })
        .with("pathrs", move |dir| {
            let path = tree(dir, depth, false)?;
            let root = pathrs::Root::open(dir)?;
            Ok(move |w: &mut Watch| {
                let open = || root.open_subpath(&path, OpenFlags::O_RDONLY);
                one(w, &|| Ok(open().map(drop)?))
            })
        })
        .with("std::fs, leads anywhere", move |dir| {
            let path = dir.join(tree(dir, depth, false)?);
            Ok(move |w: &mut Watch| one(w, &|| Ok(fs::File::open(&path).map(drop)?)))
        })
}

fn deep() -> PathBuf {
    (0..DEEP).map(|n| format!("folder-{n}")).collect()
}

/// Folders made one in the other, which are removed before the next sample.
fn makes(durable: bool) -> Case {
    let (id, how) = if durable {
        ("durable", "durably")
    } else {
        ("unsynced", "nothing synced")
    };
    let fresh = |dir: &Path| {
        let _ = fs::remove_dir_all(dir.join("folder-0")); // Not there the first time.
    };
    let title = format!("create {DEEP} folders, one in the other, {how}");
    let durability = if durable {
        Durability::Full
    } else {
        Durability::None
    };
    let case = Case::new(format!("folders/{id}"), title, DEEP as u64)
        .with("raw", move |dir| {
            let (at, dir) = (open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                fresh(&dir);
                w.time(|| {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    let mut held: Option<OwnedFd> = None;
                    for name in &deep() {
                        let from = held.as_ref().map_or(at.as_fd(), AsFd::as_fd);
                        mkdirat(from, name, Mode::from_raw_mode(0o777))?;
                        let next = openat(from, name, flags | OFlags::CLOEXEC, Mode::empty())?;
                        if durable {
                            fsync(from)?;
                        }
                        held = Some(next);
                    }
                    Ok(())
                })
            })
        })
        .with("steadfast", move |dir| {
            let (root, dir) = (Root::open(dir)?, dir.to_owned());
            Ok(move |w: &mut Watch| {
                fresh(&dir);
                let mode = Mode::from_raw_mode(0o777);
                w.time(|| {
                    let made = root.create_dir_all(deep(), mode, durability);
                    Ok(made.map(drop)?)
                })
            })
        });
    if durable {
        return case;
    }
    case.with("cap-std", move |dir| {
        let at = cap_std::fs::Dir::open_ambient_dir(dir, ambient_authority())?;
        let dir = dir.to_owned();
        Ok(move |w: &mut Watch| {
            fresh(&dir);
            w.time(|| Ok(at.create_dir_all(deep())?))
        })
    })
    .with("pathrs", move |dir| {
        let (root, dir) = (pathrs::Root::open(dir)?, dir.to_owned());
        Ok(move |w: &mut Watch| {
            fresh(&dir);
            let mode = fs::Permissions::from_mode(0o755);
            w.time(|| Ok(root.mkdir_all(deep(), &mode).map(drop)?))
        })
    })
    .with("std::fs, leads anywhere", move |dir| {
        let dir = dir.to_owned();
        Ok(move |w: &mut Watch| {
            fresh(&dir);
            w.time(|| Ok(fs::create_dir_all(dir.join(deep()))?))
        })
    })
}
