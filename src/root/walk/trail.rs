//! The directories that a walk came through, from the root to where it stands, in a bounded number of
//! descriptors.
//!
//! `..` must lead back to the directory that the walk came from, never to what the kernel holds for the
//! parent now: a directory may have been moved out of the root meanwhile. So the descriptors are kept. With
//! more levels than descriptors, the outer ones are closed, and found again when `..` comes to them: from
//! the nearest one kept (or the root) downwards by the names remembered, and each must be the same directory
//! as before. Those that are kept lie the closer together the nearer they are, so that going up again any
//! number of levels opens each of them a few times and not once for every step.

use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FileId, Metadata, Mode, OFlags, OwnedFd};
use std::ffi::CStr;

/// Where the walk stands, or an errno, or that the tree changed so that it must begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Errno(Errno),
    /// A level that had been closed is not where it was.
    Changed,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// How a directory is opened to go through it: needs no read permission, sets off automounts as a look-up by
/// the kernel does, and never follows a link.
pub(super) const THROUGH: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW);

/// Of the descriptors kept, those of the innermost levels: none of these is closed for another.
const NEAREST: usize = 16;

/// One level below the root.
#[derive(Debug)]
struct Level {
    /// Where its name begins in the names.
    start: usize,
    /// Its descriptor, unless it is the current directory or was closed.
    fd: Option<OwnedFd>,
    /// What it was when its descriptor was closed; elsewhere, since few are.
    was: Option<Box<Identity>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    id: FileId,
    mount: Option<u64>,
}

impl Identity {
    fn of(facts: &Metadata) -> Self {
        Self {
            id: facts.id(),
            mount: facts.mount_id(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Trail<'r> {
    root: BorrowedFd<'r>,
    /// The names of the levels, each with a NUL behind it, and perhaps a candidate behind those.
    names: Vec<u8>,
    /// Where the names of the levels end.
    end: usize,
    levels: Vec<Level>,
    /// The current directory; `None` exactly if there are no levels and it is the root.
    here: Option<OwnedFd>,
    /// The levels whose descriptors are open, from the outermost inwards.
    open: Vec<usize>,
    /// How many descriptors may be open besides the current directory's.
    limit: usize,
}

impl<'r> Trail<'r> {
    pub(super) fn new(root: BorrowedFd<'r>, path_len: usize, limit: usize) -> Self {
        Self {
            root,
            names: Vec::with_capacity(path_len + 2),
            end: 0,
            levels: Vec::new(),
            here: None,
            open: Vec::new(),
            limit,
        }
    }

    /// The current directory.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        match &self.here {
            Some(fd) => fd.as_fd(),
            None => self.root,
        }
    }

    pub(super) fn at_root(&self) -> bool {
        self.levels.is_empty()
    }

    /// Notes the name that is looked at next; it is in [`candidate`](Self::candidate) until the next one.
    pub(super) fn set_candidate(&mut self, name: &[u8]) {
        self.names.truncate(self.end);
        self.names.extend_from_slice(name);
        self.names.push(0);
    }

    /// The name noted.
    pub(super) fn candidate(&self) -> Result<&CStr, Errno> {
        self.name_at(self.end)
    }

    /// Goes into the directory with the name noted.
    pub(super) fn enter(&mut self, fd: OwnedFd) -> Result<(), Stop> {
        let start = std::mem::replace(&mut self.end, self.names.len());
        let outer = self.here.replace(fd);
        let level = self.levels.len();
        if level == 0 {
            // Deep enough for most paths without growing.
            self.levels.reserve(16);
            self.open.reserve(16);
        }
        self.levels.push(Level {
            start,
            fd: None,
            was: None,
        });
        match outer {
            Some(outer) => self.keep(level - 1, outer),
            None => Ok(()),
        }
    }

    /// Goes back to the directory from which the walk came to this one. At the root it stays.
    pub(super) fn leave(&mut self) -> Result<(), Stop> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        self.end = level.start;
        self.here = None;
        let Some(now) = self.levels.len().checked_sub(1) else {
            return Ok(());
        };
        if let Some(fd) = self.levels.last_mut().and_then(|l| l.fd.take()) {
            self.open.pop();
            self.here = Some(fd);
            return Ok(());
        }
        self.find_again(now)
    }

    /// Goes to the root.
    pub(super) fn leave_all(&mut self) {
        self.end = 0;
        self.levels.clear();
        self.open.clear();
        self.here = None;
    }

    /// The names from the root to the current directory, and the name noted after them if `with_candidate`.
    pub(super) fn into_path(mut self, with_candidate: bool) -> Vec<u8> {
        if !with_candidate {
            self.names.truncate(self.end);
        }
        self.names.pop();
        for byte in &mut self.names {
            if *byte == 0 {
                *byte = b'/';
            }
        }
        self.names
    }

    fn name_at(&self, start: usize) -> Result<&CStr, Errno> {
        let names = self.names.get(start..).unwrap_or_default();
        CStr::from_bytes_until_nul(names).map_err(|_| Errno::INVAL)
    }

    /// Keeps the descriptor of a level that lies inside all others that are open.
    fn keep(&mut self, level: usize, fd: OwnedFd) -> Result<(), Stop> {
        if let Some(l) = self.levels.get_mut(level) {
            l.fd = Some(fd);
            self.open.push(level);
        }
        if self.open.len() > self.limit {
            self.close_one()?;
        }
        Ok(())
    }

    /// Closes the descriptor that will be missed least: the one whose neighbours leave the smallest gap,
    /// measured by how far it is from here.
    fn close_one(&mut self) -> Result<(), Stop> {
        let here = self.levels.len() as u64;
        let level_of = |i: usize| self.open.get(i).map_or(here, |l| *l as u64);
        let candidates = self.open.len().saturating_sub(NEAREST).max(1);
        let cost = |i: usize| {
            let outer = i.checked_sub(1).map_or(0, |o| level_of(o) + 1);
            (level_of(i + 1) + 1 - outer, here - level_of(i))
        };
        let mut chosen = 0;
        for i in 1..candidates {
            let ((gap, away), (least, least_away)) = (cost(i), cost(chosen));
            // gap / away < least / least_away, in whole numbers.
            if gap * least_away < least * away {
                chosen = i;
            }
        }
        if chosen >= self.open.len() {
            return Ok(());
        }
        let level = self.open.remove(chosen);
        let Some(level) = self.levels.get_mut(level) else {
            return Ok(());
        };
        if let Some(fd) = level.fd.take()
            && level.was.is_none()
        {
            let facts = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
            level.was = Some(Box::new(Identity::of(&facts)));
        }
        Ok(())
    }

    /// Opens the innermost level, whose descriptor was closed, and those on the way to it from the nearest
    /// one that is open.
    fn find_again(&mut self, innermost: usize) -> Result<(), Stop> {
        let from = self.open.last().map_or(0, |level| level + 1);
        for at in from..=innermost {
            let outer = match at.checked_sub(1).and_then(|o| self.levels.get(o)) {
                None => self.root,
                Some(level) => level.fd.as_ref().ok_or(Stop::Changed)?.as_fd(),
            };
            let level = self.levels.get(at).ok_or(Stop::Changed)?;
            let name = self.name_at(level.start)?;
            let fd = match sys::openat(outer, name, THROUGH, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::STALE) => {
                    return Err(Stop::Changed);
                }
                Err(e) => return Err(e.into()),
            };
            let facts = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
            if level.was.as_deref() != Some(&Identity::of(&facts)) {
                return Err(Stop::Changed);
            }
            if at == innermost {
                self.here = Some(fd);
            } else {
                self.keep(at, fd)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_dir(dir: impl AsFd, name: &str) -> OwnedFd {
        sys::openat(dir, name, THROUGH, Mode::empty()).unwrap()
    }

    /// A trail of `levels` below `root`, made on the way, and the directories' identities.
    fn walk_down(root: &OwnedFd, levels: usize, limit: usize) -> (Trail<'_>, Vec<FileId>) {
        let id = |fd: BorrowedFd<'_>| sys::statx(fd, c"", AtFlags::EMPTY_PATH).unwrap().id();
        let mut trail = Trail::new(root.as_fd(), 0, limit);
        let mut ids = vec![id(root.as_fd())];
        for _ in 0..levels {
            sys::mkdirat(trail.here(), c"d", Mode::RWXU).unwrap();
            trail.set_candidate(b"d");
            let next = open_dir(trail.here(), "d");
            ids.push(id(next.as_fd()));
            trail.enter(next).unwrap();
            assert!(trail.open.len() <= limit);
        }
        (trail, ids)
    }

    #[test]
    fn up_again_is_the_way_that_was_come() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_dir(sys::CWD, dir.path().to_str().unwrap());
        let (mut trail, ids) = walk_down(&root, 200, 20);
        for id in ids.iter().rev().skip(1) {
            trail.leave().unwrap();
            assert!(trail.open.len() <= 20);
            let here = sys::statx(trail.here(), c"", AtFlags::EMPTY_PATH).unwrap();
            assert_eq!(here.id(), *id);
        }
        assert!(trail.at_root());
        assert!(trail.leave().is_ok() && trail.at_root());
    }

    /// The number of directories opened to come up again grows little faster than the number of levels.
    #[test]
    fn up_again_is_not_much_work() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_dir(sys::CWD, dir.path().to_str().unwrap());
        let levels = 600;
        let (mut trail, _) = walk_down(&root, levels, 32);
        let ((), calls) = sys::hook::scope(None, || {
            while !trail.at_root() {
                trail.leave().unwrap();
            }
        });
        let opens = calls.iter().filter(|name| **name == "openat").count();
        assert!(opens < 4 * levels, "{opens}");
    }

    #[test]
    fn another_directory_in_the_place_of_a_closed_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_dir(sys::CWD, dir.path().to_str().unwrap());
        let (mut trail, _) = walk_down(&root, 60, 20);
        let top = dir.path();
        std::fs::rename(top.join("d/d/d"), top.join("away")).unwrap();
        std::fs::create_dir_all(top.join("d/d/d").join("d/".repeat(57))).unwrap();
        let stopped = (0..60).find_map(|_| trail.leave().err());
        assert_eq!(stopped, Some(Stop::Changed));
    }
}
