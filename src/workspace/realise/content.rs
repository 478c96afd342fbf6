//! Content that is written over in place: old and new content are durable under private names, so that every
//! mixture that a crash may leave is told from somebody else's work, and is finished.

use super::super::identity::Ident;
use super::super::mapping::{Body, Change, Object, ObjectIx, Set};
use super::super::place::{self, read_at, times};
use super::change::{Changed, reopen};
use super::state::{Pos, Purpose, Work};
use super::{Mode, fail};
use crate::sys::{
    self, BorrowedFd, Errno, Metadata, Mode as FileMode, OFlags, OwnedFd, RenameFlags,
};
use crate::{Dir, Name, Result};
use std::ffi::CStr;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How much is compared or copied at once.
const BUFFER: usize = 256 << 10;
/// No file system has longer blocks.
const BLOCK: u64 = 64 << 10;

/// What is written over.
pub(super) enum To<'f> {
    /// It has to be opened.
    Place(&'f OwnedFd),
    /// It is open.
    File(OwnedFd),
}

impl<'m> Work<'_, '_, 'm> {
    /// Writes the last content of a chain over that of the object. It is not durable, and copies
    /// stay, until [`settle_content`](Self::settle_content); without copies, until the next
    /// checkpoint, for then the log has it.
    pub(super) fn change_content(
        &mut self,
        to: To<'_>,
        meta: &Metadata,
        last: &'m Change,
        chain: &[&'m Change],
    ) -> Result<Changed> {
        let object = last.object;
        let path = self.path_of(object);
        let (new, time) = match &last.what {
            Set::Logged { after, time, .. } => (Version::Bytes(after), *time),
            Set::Content { after, .. } => match self.open_new(after, path)? {
                Some(new) => {
                    let meta = place::facts(&new).map_err(|e| fail("statx", e, path))?;
                    (Version::File(new), Ident::of(&meta).mtime)
                }
                None if self.mode == Mode::First => {
                    return Err(fail("openat", Errno::NOENT, path));
                }
                None => {
                    // It is removed when the file is complete and durable, and not before.
                    self.forget_all(chain, path)?;
                    return Ok(Changed::Done);
                }
            },
            _ => return Ok(Changed::Done),
        };
        let file = match to {
            To::File(file) => file,
            To::Place(place) => match reopen(place, meta, OFlags::RDWR, path)? {
                Some(file) => file,
                None => return Ok(Changed::Conflict(None)),
            },
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
            return self.give_up_content(last).map(Changed::Conflict);
        }
        write_over(&file, &new, meta.len(), path)?;
        sys::futimens(&file, &times(None, Some(time))).map_err(|e| fail("futimens", e, path))?;
        let has_copies = |change: &&Change| matches!(change.what, Set::Content { .. });
        if chain.iter().any(has_copies) {
            if self.ctx.reaches(meta).map_err(|e| fail("statx", e, path))? {
                self.sync_later(file, path)?;
            } else {
                // A sync of the file system of the private folders does not reach it.
                sys::fsync(&file).map_err(|e| fail("fsync", e, path))?;
            }
            self.written.push((object, chain.to_vec()));
        }
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
                .filter(|it| it.object == object && is_content(&it.what))
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
            .filter(|change| is_content(&change.what) && self.made_as(change.object) == object)
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
            Set::Content { after, .. } => self.keep_content(after, self.path_of(change.object)),
            Set::Logged { name, after, .. } => {
                place::keep_bytes(self.ctx.staged, self.ctx.kept, name.as_c_str(), after)
                    .map_err(|(call, e)| fail(call, e, self.path_of(change.object)))?;
                self.kept = true;
                Ok(Some(name.clone()))
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
    fn versions(&self, chain: &[&'m Change], path: &[u8]) -> Result<Vec<Version<'m>>> {
        let mut all = Vec::new();
        for change in chain {
            match &change.what {
                Set::Content { before, after } => {
                    let copies = [
                        open_private(self.ctx.kept, before, path)?,
                        self.open_new(after, path)?,
                    ];
                    all.extend(copies.into_iter().flatten().map(Version::File));
                }
                Set::Logged { before, after, .. } => {
                    all.extend([Version::Bytes(before), Version::Bytes(after)]);
                }
                _ => {}
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
        versions: &[Version<'_>],
        path: &[u8],
    ) -> Result<bool> {
        let file_len = len_of(file, path)?;
        let from_nothing = self.is_in_log(object);
        let mut lens: Vec<u64> = (versions.iter())
            .map(|version| version.len(path))
            .collect::<Result<_>>()?;
        if from_nothing {
            lens.insert(0, 0);
        }
        if !passes(&lens, file_len) {
            return Ok(false);
        }
        let buffer = usize::try_from(file_len).map_or(BUFFER, |len| len.min(BUFFER));
        let mut is = vec![0; buffer];
        let mut others: Vec<(Vec<u8>, usize)> = vec![(vec![0; buffer], 0); versions.len()];
        let mut at = 0;
        while at < file_len {
            is.fill(0);
            let n = read_at(file, &mut is, at).map_err(|e| fail("pread64", e, path))?;
            if n == 0 {
                break;
            }
            for (version, (buf, n)) in versions.iter().zip(&mut others) {
                *n = version.read(buf, at, path)?;
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

/// A content that a file has had, or is to have.
enum Version<'m> {
    /// In a private file.
    File(OwnedFd),
    /// In the record.
    Bytes(&'m [u8]),
}

impl Version<'_> {
    fn len(&self, path: &[u8]) -> Result<u64> {
        match self {
            Self::File(file) => len_of(file, path),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills the buffer from `at` on, behind the end with zeros. Gives how much of it is content.
    fn read(&self, buf: &mut [u8], at: u64, path: &[u8]) -> Result<usize> {
        buf.fill(0);
        match self {
            Self::File(file) => read_at(file, buf, at).map_err(|e| fail("pread64", e, path)),
            Self::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                for (to, byte) in buf.iter_mut().zip(rest) {
                    *to = *byte;
                }
                Ok(n)
            }
        }
    }
}

fn len_of(file: &OwnedFd, path: &[u8]) -> Result<u64> {
    let meta = place::facts(file).map_err(|e| fail("statx", e, path))?;
    Ok(meta.len())
}

pub(super) fn is_content(set: &Set) -> bool {
    matches!(set, Set::Content { .. } | Set::Logged { .. })
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

/// Writes from the start to the end, then cuts off what is longer. The rest of the last block is zeroed with
/// the end of the content before that: so no sector is ever half of each, and what the file system leaves
/// behind the new end on the disk, which btrfs does not zero, is not seen again when the file grows. One that
/// is not longer is not cut: btrfs would write the new length before the content.
fn write_over(file: &OwnedFd, new: &Version<'_>, was: u64, path: &[u8]) -> Result<()> {
    let len = new.len(path)?;
    let cut = was.saturating_sub(len);
    let rest = len.next_multiple_of(BLOCK) - len;
    let zeros = usize::try_from(rest.min(cut)).unwrap_or(0);
    if let (Version::Bytes(bytes), 0) = (new, cut) {
        return write_at(file, bytes, 0, path);
    }
    let chunk = usize::try_from(len).map_or(BUFFER, |len| len.min(BUFFER));
    let mut buf = vec![0; chunk + zeros];
    let mut at = 0;
    loop {
        let n = new.read(buf.get_mut(..chunk).unwrap_or_default(), at, path)?;
        let is_last = n == 0 || at + n as u64 >= len;
        let end = if is_last { n + zeros } else { n };
        write_at(file, buf.get(..end).unwrap_or_default(), at, path)?;
        at += n as u64;
        if is_last {
            break;
        }
    }
    match cut {
        0 => Ok(()),
        _ => sys::ftruncate(file, len).map_err(|e| fail("ftruncate", e, path)),
    }
}

fn write_at(file: &OwnedFd, mut bytes: &[u8], mut at: u64, path: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match sys::pwrite(file, bytes, at).map_err(|e| fail("pwrite64", e, path))? {
            0 => return Err(fail("pwrite64", Errno::NOSPC, path)),
            n => {
                bytes = bytes.get(n..).unwrap_or_default();
                at += n as u64;
            }
        }
    }
    Ok(())
}
