//! Content that is written over in place: old and new content are durable under private names, so that every
//! mixture that a crash may leave is told from somebody else's work, and is finished.

use super::super::identity::Ident;
use super::super::mapping::{Body, Change, Object, ObjectIx, Set};
use super::super::place::{self, read_at, times};
use super::change::{Changed, reopen};
use super::state::{Pos, Purpose, Work};
use super::{Mode, fail};
use crate::sys::{
    self, AsFd, BorrowedFd, Errno, Metadata, Mode as FileMode, OFlags, OwnedFd, RenameFlags,
};
use crate::{Dir, Name, Result};
use std::ffi::CStr;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How much is compared or copied at once.
const BUFFER: usize = 256 << 10;
impl<'m> Work<'_, '_, 'm> {
    /// Writes the content of the staged file `after` over that of the object. Of a chain it is the
    /// last one. It is not durable, and the copies stay, until
    /// [`settle_content`](Self::settle_content).
    pub(super) fn change_content(
        &mut self,
        object: ObjectIx,
        place: &OwnedFd,
        meta: &Metadata,
        after: &Name,
        chain: &[&'m Change],
    ) -> Result<Changed> {
        let path = self.path_of(object);
        let Some(new) = self.open_new(after, path)? else {
            if self.mode == Mode::First {
                return Err(fail("openat", Errno::NOENT, path));
            }
            // It is removed when the file is complete and durable, and not before.
            self.forget_all(chain, path)?;
            return Ok(Changed::Done);
        };
        let new_meta = place::facts(&new).map_err(|e| fail("statx", e, path))?;
        let Some(file) = reopen(place, meta, OFlags::RDWR, path)? else {
            return Ok(Changed::Conflict(None));
        };
        let found = Ident::of(meta);
        let untouched = unchanged(
            &super::state::ident_of(&self.mapping.objects[object]),
            &found,
        ) || self.was_seen(object, |seen| unchanged(seen, &found));
        let ours = match self.mode {
            Mode::First => untouched,
            Mode::Again => {
                untouched || self.is_mixture(object, &file, &self.versions(chain, path)?, path)?
            }
        };
        if !ours {
            return self.keep_content(after, path).map(Changed::Conflict);
        }
        write_over(&file, &new, new_meta.len(), meta.len(), path)?;
        let stamp = times(None, Some(Ident::of(&new_meta).mtime));
        sys::futimens(&file, &stamp).map_err(|e| fail("futimens", e, path))?;
        if new_meta.id().dev == meta.id().dev {
            self.sync_later(file, path)?;
        } else {
            // A sync of the file system of the private folders does not reach it.
            sys::fsync(&file).map_err(|e| fail("fsync", e, path))?;
        }
        self.written.push((object, chain.to_vec()));
        Ok(Changed::Done)
    }

    /// Makes durable what was written in place, and then removes the copies, which could otherwise
    /// finish it after a crash. A failed sync leaves all of them, so that everything is written
    /// again.
    pub(super) fn settle_content(&mut self) -> Result<()> {
        self.sync_unsynced()?;
        for (object, chain) in std::mem::take(&mut self.written) {
            let path = self.path_of(object);
            match chain.split_last() {
                Some((last, earlier)) if self.is_another(object) => {
                    // Nothing but the new content tells the next recovery, should there be one, that this
                    // file is ours. It goes with the log.
                    self.forget_all(earlier, path)?;
                    if let Set::Content { before, .. } = &last.what {
                        unlink(self.ctx.kept, before, path)?;
                    }
                }
                _ => self.forget_all(&chain, path)?,
            }
        }
        Ok(())
    }

    /// In recovery: finds files that a later transaction has removed or replaced, and that an
    /// earlier recovery was writing over when it was cut. Their length and time are nobody's, their
    /// content tells.
    pub(super) fn know_half_written(&mut self) -> Result<()> {
        if self.purpose != Purpose::Commit {
            return Ok(());
        }
        for object in 0..self.ids.len() {
            let is_to_go = self.target[object].is_none()
                && matches!(self.mapping.objects[object], Object::Existing { .. });
            if !is_to_go {
                continue;
            }
            let chain: Vec<&Change> = (self.mapping.changes.iter())
                .filter(|it| it.object == object && matches!(it.what, Set::Content { .. }))
                .collect();
            if chain.is_empty() {
                continue;
            }
            // It may have been put away.
            self.scan()?;
            let everywhere = (0..self.slots.len()).map(Pos::Slot);
            let everywhere = everywhere.chain((0..self.homes.len()).map(Pos::Home));
            let everywhere = everywhere.chain((0..self.asides.len()).map(Pos::Aside));
            let found = everywhere.filter_map(|pos| Some((pos, self.at(pos).thing()?)));
            let strange =
                |(_, found): &(Pos, Ident)| self.is(object, found) && !self.is_ours(found);
            let Some((pos, found)) = found.into_iter().find(strange) else {
                continue;
            };
            let Some((dir, name)) = self.name_at(pos) else {
                continue;
            };
            let path = self.path(pos);
            let Some(file) = open_to_compare(dir, name, path)? else {
                continue;
            };
            if self.is_mixture(object, &file, &self.versions(&chain, path)?, path)? {
                self.half_written.push((object, found));
            }
        }
        Ok(())
    }

    /// Whether a new object is no longer the inode that was recorded, but one that a recovery has
    /// made.
    fn is_another(&self, object: ObjectIx) -> bool {
        let recorded = &self.mapping.objects[object];
        matches!(recorded, Object::New { .. })
            && !super::state::ident_of(recorded).is(&self.ids[object])
    }

    /// Whether a file may be a new object that an earlier recovery has made anew, and then begun to
    /// write over, or has written over.
    pub(super) fn is_written_over(&self, object: ObjectIx, pos: Pos) -> Result<bool> {
        let chain: Vec<&Change> = (self.mapping.changes.iter())
            .filter(|change| {
                matches!(change.what, Set::Content { .. }) && self.made_as(change.object) == object
            })
            .collect();
        let (Some(last), Some((dir, name))) = (chain.last(), self.name_at(pos)) else {
            return Ok(false);
        };
        let path = self.path(pos);
        if let Set::Content { after, .. } = &last.what
            && open_private(self.ctx.staged, after, path)?.is_none()
        {
            return Ok(false);
        }
        let Some(file) = open_to_compare(dir, name, path)? else {
            return Ok(false);
        };
        self.is_mixture(object, &file, &self.versions(&chain, path)?, path)
    }

    /// A content that has nowhere to go: it is kept.
    pub(super) fn give_up_content(&mut self, change: &Change) -> Result<Option<Name>> {
        match &change.what {
            Set::Content { after, .. } => {
                let path = self.path_of(change.object);
                self.keep_content(after, path)
            }
            _ => Ok(None),
        }
    }

    fn keep_content(&mut self, after: &Name, path: &[u8]) -> Result<Option<Name>> {
        // The same name is free in the other folder: names are given out once.
        let (from, to) = (self.ctx.staged, self.ctx.kept);
        match sys::renameat2(
            from,
            after.as_c_str(),
            to,
            after.as_c_str(),
            RenameFlags::empty(),
        ) {
            Ok(()) => {}
            Err(Errno::NOENT) => match place::ident_at(to, after.as_c_str()) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(e) => return Err(fail("statx", e, path)),
            },
            Err(e) => return Err(fail("renameat", e, path)),
        }
        self.kept = true;
        Ok(Some(after.clone()))
    }

    /// Removes the private copies: the new content last, for its absence says that all is done.
    fn forget_all(&self, chain: &[&Change], path: &[u8]) -> Result<()> {
        for change in chain {
            if let Set::Content { before, after } = &change.what {
                unlink(self.ctx.kept, before, path)?;
                for dir in [self.ctx.kept, self.ctx.staged] {
                    unlink(dir, after, path)?;
                }
            }
        }
        Ok(())
    }

    fn open_new(&self, after: &Name, path: &[u8]) -> Result<Option<OwnedFd>> {
        match open_private(self.ctx.staged, after, path)? {
            Some(new) => Ok(Some(new)),
            // An earlier run has met a conflict.
            None => open_private(self.ctx.kept, after, path),
        }
    }

    /// The contents that a file has one after the other, as far as there are copies of them.
    fn versions(&self, chain: &[&Change], path: &[u8]) -> Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        for change in chain {
            if let Set::Content { before, after } = &change.what {
                all.extend(open_private(self.ctx.kept, before, path)?);
                all.extend(self.open_new(after, path)?);
            }
        }
        Ok(all)
    }

    /// Whether the content that the object was made with is in the log alone: until it is synced, a
    /// power cut leaves nothing of it, or zeros.
    fn is_in_log(&self, object: ObjectIx) -> bool {
        let made = &self.mapping.objects[self.made_as(object)];
        matches!(
            made,
            Object::New {
                body: Body::Inline(_),
                ..
            }
        )
    }

    /// Whether every sector of the file is that of one of these contents, and its length one that
    /// writing a later one over an earlier one passes.
    fn is_mixture(
        &self,
        object: ObjectIx,
        file: &OwnedFd,
        versions: &[OwnedFd],
        path: &[u8],
    ) -> Result<bool> {
        let len = |fd: &OwnedFd| {
            place::facts(fd)
                .map(|meta| meta.len())
                .map_err(|e| fail("statx", e, path))
        };
        let file_len = len(file)?;
        let from_nothing = self.is_in_log(object);
        let mut lens: Vec<u64> = versions.iter().map(len).collect::<Result<_>>()?;
        if from_nothing {
            lens.insert(0, 0);
        }
        if !passes(&lens, file_len) {
            return Ok(false);
        }
        let mut is = vec![0; BUFFER];
        let mut others: Vec<(Vec<u8>, usize)> = vec![(vec![0; BUFFER], 0); versions.len()];
        let read = |fd: BorrowedFd<'_>, buf: &mut [u8], at| {
            buf.fill(0);
            read_at(fd, buf, at).map_err(|e| fail("pread64", e, path))
        };
        let mut at = 0;
        while at < file_len {
            let n = read(file.as_fd(), &mut is, at)?;
            if n == 0 {
                break;
            }
            for (version, (buf, n)) in versions.iter().zip(&mut others) {
                *n = read(version.as_fd(), buf, at)?;
            }
            for from in (0..n).step_by(SECTOR) {
                let part = |buf: &[u8], n: usize| -> Vec<u8> {
                    let end = (from + SECTOR).min(n);
                    buf.get(from..end).unwrap_or_default().to_vec()
                };
                let sector = part(&is, n);
                let like = |(of, of_n): &(Vec<u8>, usize)| {
                    let other = part(of, *of_n);
                    sector.iter().enumerate().all(|(i, byte)| {
                        // Beyond its end a content is zero where another one was longer.
                        other.get(i).map_or(*byte == 0, |b| b == byte)
                    })
                };
                let is_nothing = from_nothing && sector.iter().all(|byte| *byte == 0);
                if !is_nothing && !others.iter().any(like) {
                    return Ok(false);
                }
            }
            at += n as u64;
        }
        Ok(true)
    }
}

/// Whether a file may be this long while a later content is written over an earlier one.
fn passes(lens: &[u64], len: u64) -> bool {
    lens.iter().enumerate().any(|(at, from)| {
        let grows = |to: &u64| (*from..=*to).contains(&len);
        len == *from || lens.iter().skip(at + 1).any(grows)
    })
}

fn unchanged(a: &Ident, b: &Ident) -> bool {
    a.ino == b.ino && a.len == b.len && a.mtime == b.mtime
}

fn unlink(dir: &Dir, name: &Name, path: &[u8]) -> Result<()> {
    match sys::unlinkat(dir, name.as_c_str()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(fail("unlinkat", e, path)),
    }
}

fn open_private(dir: &Dir, name: &Name, path: &[u8]) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match sys::openat(dir, name.as_c_str(), flags, FileMode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(fail("openat", e, path)),
    }
}

/// Opens what is not to be written to; `None`: it cannot be read, or is gone.
fn open_to_compare(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    match sys::openat(dir, name, flags, FileMode::empty()) {
        Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::LOOP) => Ok(None),
        done => done.map(Some).map_err(|e| fail("openat", e, path)),
    }
}

/// Writes from the start to the end, then cuts off what is longer. What stays of the last sector
/// until then is zeroed with it, so that no sector is ever half of each.
fn write_over(file: &OwnedFd, new: &OwnedFd, len: u64, was: u64, path: &[u8]) -> Result<()> {
    let mut buf = vec![0; BUFFER];
    let mut at = 0;
    loop {
        buf.fill(0);
        let n = read_at(new, &mut buf, at).map_err(|e| fail("pread64", e, path))?;
        if n == 0 {
            break;
        }
        // At most as far as the file reaches already.
        let whole = n.next_multiple_of(SECTOR);
        let reach = usize::try_from(was.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut rest = buf.get(..whole.min(reach).max(n)).unwrap_or_default();
        let mut to = at;
        while !rest.is_empty() {
            match sys::pwrite(file, rest, to).map_err(|e| fail("pwrite64", e, path))? {
                0 => return Err(fail("pwrite64", Errno::NOSPC, path)),
                n => {
                    rest = rest.get(n..).unwrap_or_default();
                    to += n as u64;
                }
            }
        }
        at += n as u64;
    }
    sys::ftruncate(file, len).map_err(|e| fail("ftruncate", e, path))
}
