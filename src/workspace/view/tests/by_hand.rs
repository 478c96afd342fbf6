//! The operations by plain system calls, one after the other.

use super::model::paths_in;
use crate::Root;
use crate::sys::Errno;
use crate::tree::RemoveOptions;
use crate::workspace::draft::{AttrRequest, Op, Renaming, Source};
use crate::{Durability, Error};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

type Answer<T = ()> = Result<T, Errno>;

pub(super) struct ByHand {
    top: PathBuf,
    dir: OwnedFd,
    hold: PathBuf,
    root: Root,
}

impl ByHand {
    /// Stands for the refusal to change the root itself, which the kernel does not refuse.
    pub(super) const ROOT: Errno = Errno::DOM;

    pub(super) fn new(base: &Path) -> Self {
        let top = base.join("tree");
        let dir = rustix::fs::open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self {
            root: Root::open(&top).unwrap(),
            hold: base.join("hold"),
            top,
            dir,
        }
    }

    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Answer<OwnedFd> {
        loop {
            let fd = rustix::fs::openat2(
                &self.dir,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH,
            );
            match fd {
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
    }

    /// The directory, and the last component with the slashes behind it.
    fn split(&self, path: &Path) -> Answer<(OwnedFd, Vec<u8>)> {
        let path = path.as_os_str().as_bytes();
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
        let start = path[..end]
            .iter()
            .rposition(|b| *b == b'/')
            .map_or(0, |i| i + 1);
        let parent = match (start, end) {
            (0, 0) => path,
            (0, _) => b".",
            _ => &path[..start],
        };
        let dir = self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((dir, path[start..].to_vec()))
    }

    /// What is at a path: not through a link at its end, unless a slash follows.
    fn handle(&self, path: &Path) -> Answer<OwnedFd> {
        self.open(path.as_os_str().as_bytes(), OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn is_root(&self, fd: &OwnedFd) -> bool {
        let ino = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        ino(fd) == ino(&self.dir)
    }

    pub(super) fn run(&self, op: &Op) -> Answer {
        match op {
            Op::Write {
                path,
                source,
                attr,
                create_new,
            } => self.write(path, &bytes(source), attr, *create_new, false),
            Op::Append { path, source } => {
                self.write(path, &bytes(source), &AttrRequest::default(), false, true)
            }
            Op::CreateDir {
                path,
                mode,
                parents: false,
            } => {
                let (dir, name) = self.split(path)?;
                rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode.unwrap_or(0o777)))
            }
            Op::CreateDir { path, mode, .. } => {
                let mode = Mode::from_raw_mode(mode.unwrap_or(0o777));
                let before = paths_in(&self.top);
                let made = self.root.create_dir_all(path, mode, Durability::None);
                // A transaction makes none of them then.
                if made.is_err() {
                    let after = paths_in(&self.top).into_iter().rev();
                    for path in after.filter(|path| !before.contains(path)) {
                        fs::remove_dir(self.top.join(path)).unwrap();
                    }
                }
                made.map(drop).map_err(errno)
            }
            Op::RemoveFile { path } => {
                let (dir, name) = self.split(path)?;
                rustix::fs::unlinkat(dir, name, AtFlags::empty())
            }
            Op::RemoveDir { path } => {
                let (dir, name) = self.split(path)?;
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
            }
            Op::RemoveTree { path } => {
                let removed = self.root.remove_tree(path, &RemoveOptions::new());
                removed.map(drop).map_err(errno)
            }
            Op::Rename { from, to, how } => {
                let (old, new) = (self.split(from)?, self.split(to)?);
                let flags = match how {
                    Renaming::Replace => RenameFlags::empty(),
                    Renaming::NoReplace => RenameFlags::NOREPLACE,
                    Renaming::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(old.0, old.1, new.0, new.1, flags).map_err(|e| match e {
                    // xfs, of a directory that is not empty. POSIX lets it choose.
                    Errno::EXIST if *how == Renaming::Replace => Errno::NOTEMPTY,
                    e => e,
                })
            }
            Op::Symlink { target, path } => {
                if target.is_empty() {
                    return Err(Errno::NOENT);
                }
                let (dir, name) = self.split(path)?;
                rustix::fs::symlinkat(&target[..], dir, name)
            }
            Op::HardLink { from, to } => self.hard_link(from, to),
            Op::SetAttributes { path, attr } => self.set_attributes(path, attr),
            Op::WriteInPlace { path, source } => {
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let mut file = fs::File::from(self.open(path.as_os_str().as_bytes(), flags)?);
                file.set_len(0).unwrap();
                file.write_all(&bytes(source)).unwrap();
                Ok(())
            }
            Op::Key { .. } => unreachable!(),
        }
    }

    /// Asks the kernel whether the file could be opened for writing, and replaces it by a new one.
    fn write(&self, path: &Path, new: &[u8], attr: &AttrRequest, excl: bool, add: bool) -> Answer {
        let (dir, name) = self.split(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = if excl { flags | OFlags::EXCL } else { flags };
        let old = self.handle(path);
        rustix::fs::openat(&dir, &name[..], flags, Mode::RUSR | Mode::WUSR)?;
        let temp = self.hold.join("temp");
        let mut mode = 0o644;
        let mut content = Vec::new();
        if let Ok(old) = old {
            mode = rustix::fs::fstat(&old).unwrap().st_mode & 0o7777;
            if add {
                let flags = OFlags::RDONLY;
                let fd = rustix::fs::openat(&dir, &name[..], flags, Mode::empty()).unwrap();
                fs::File::from(fd).read_to_end(&mut content).unwrap();
            }
        }
        content.extend_from_slice(new);
        fs::write(&temp, content).unwrap();
        let mode = attr.mode.unwrap_or(mode);
        fs::set_permissions(&temp, PermissionsExt::from_mode(mode)).unwrap();
        let fd = rustix::fs::open(&temp, OFlags::RDONLY, Mode::empty()).unwrap();
        set_times(fd.as_fd(), attr);
        rustix::fs::renameat(rustix::fs::CWD, &temp, dir, name)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Answer {
        let (old, name) = self.split(from)?;
        if name.is_empty() || name.ends_with(b"/") || name == b"." || name == b".." {
            let path = from.as_os_str().as_bytes();
            let dir = self.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
            let (new, to) = self.split(to)?;
            return rustix::fs::linkat(dir, ".", new, to, AtFlags::empty());
        }
        // The kernel looks for the old one first.
        rustix::fs::statat(&old, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
        let (new, to) = self.split(to)?;
        rustix::fs::linkat(old, name, new, to, AtFlags::empty())
    }

    fn set_attributes(&self, path: &Path, attr: &AttrRequest) -> Answer {
        let fd = self.handle(path)?;
        if self.is_root(&fd) {
            return Err(Self::ROOT);
        }
        if let Some(mode) = attr.mode {
            crate::sys::fchmod_empty_path(&fd, Mode::from_raw_mode(mode))?;
        }
        set_times(fd.as_fd(), attr);
        Ok(())
    }
}

/// Sets the time of modification, if that is asked for.
pub(super) fn set_times(fd: rustix::fd::BorrowedFd<'_>, attr: &AttrRequest) {
    if let Some((sec, nsec)) = attr.mtime {
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: omit,
            last_modification: Timespec {
                tv_sec: sec,
                tv_nsec: nsec.into(),
            },
        };
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(fd, c"", &times, flags).unwrap();
    }
}

pub(super) fn bytes(source: &Source) -> Vec<u8> {
    match source {
        Source::Bytes(bytes) => bytes.to_vec(),
        Source::File(_) => unreachable!(),
    }
}

fn errno(error: Error) -> Errno {
    error.errno().unwrap()
}
