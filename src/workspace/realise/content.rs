//! Content that is written over in place: old and new content are durable under private names, so that every
//! mixture that a crash may leave is told from somebody else's work, and is finished.

use super::super::identity::Ident;
use super::super::mapping::{Body, Change, Object, ObjectIx, Set};
use super::super::place::{self, read_at, times};
use super::change::{Changed, reopen};
use super::state::{Pos, Work};
use super::{Mode, fail};
use crate::sys::{
    self, AsFd, BorrowedFd, Errno, Metadata, Mode as FileMode, OFlags, OwnedFd, RenameFlags,
};
use crate::{Dir, Name, Result};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// How much is compared or copied at once.
const BUFFER: usize = 256 << 10;

impl Work<'_, '_, '_> {
    /// Writes the content of the staged file `after` over that of the object.
    pub(super) fn change_content(
        &mut self,
        object: ObjectIx,
        place: &OwnedFd,
        meta: &Metadata,
        before: &Name,
        after: &Name,
    ) -> Result<Changed> {
        let path = self.path_of(object);
        let new = match open_private(self.ctx.staged, after, path)? {
            Some(new) => Some(new),
            // An earlier run has met a conflict.
            None => open_private(self.ctx.kept, after, path)?,
        };
        let Some(new) = new else {
            if self.mode == Mode::First {
                return Err(fail("openat", Errno::NOENT, path));
            }
            // It is removed when the file is complete and durable, and not before.
            self.forget(before, after, path)?;
            return Ok(Changed::Done);
        };
        let new_meta = place::facts(&new).map_err(|e| fail("statx", e, path))?;
        let Some(file) = reopen(place, meta, OFlags::RDWR, path)? else {
            return Ok(Changed::Conflict(None));
        };
        let old = open_private(self.ctx.kept, before, path)?;
        let found = Ident::of(meta);
        let untouched = unchanged(
            &super::state::ident_of(&self.mapping.objects[object]),
            &found,
        );
        let ours = match self.mode {
            Mode::First => untouched,
            Mode::Again => untouched || self.is_mixture(&file, old.as_ref(), &new, path)?,
        };
        if !ours {
            return self.keep_content(after, path).map(Changed::Conflict);
        }
        write_over(&file, &new, new_meta.len(), meta.len(), path)?;
        let stamp = times(None, Some(Ident::of(&new_meta).mtime));
        sys::futimens(&file, &stamp).map_err(|e| fail("futimens", e, path))?;
        // Before the two contents go, which could otherwise finish it after a crash.
        sys::fsync(&file).map_err(|e| fail("fsync", e, path))?;
        if self.is_another(object) {
            // Nothing but the new content tells the next recovery, should there be one, that this file is
            // ours. It goes with the log.
            self.forget_old(before, path)?;
        } else {
            self.forget(before, after, path)?;
        }
        Ok(Changed::Done)
    }

    /// Whether a new object is no longer the inode that was recorded, but one that a recovery has made.
    fn is_another(&self, object: ObjectIx) -> bool {
        let recorded = &self.mapping.objects[object];
        matches!(recorded, Object::New { .. })
            && !super::state::ident_of(recorded).is(&self.ids[object])
    }

    /// Whether a file may be a new object that an earlier recovery has made anew, and then begun to write
    /// over, or has written over.
    pub(super) fn is_written_over(&self, object: ObjectIx, pos: Pos) -> Result<bool> {
        for change in &self.mapping.changes {
            let Set::Content { before, after } = &change.what else {
                continue;
            };
            let of = match &self.mapping.objects[change.object] {
                Object::New {
                    body: Body::Link(of),
                    ..
                } => *of,
                _ => change.object,
            };
            let (true, Some((dir, name))) = (of == object, self.name_at(pos)) else {
                continue;
            };
            let path = self.path(pos);
            let Some(new) = open_private(self.ctx.staged, after, path)? else {
                continue;
            };
            let old = open_private(self.ctx.kept, before, path)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = match sys::openat(dir, name, flags, FileMode::empty()) {
                // What cannot be read is not known.
                Err(Errno::ACCESS | Errno::PERM) => continue,
                done => done.map_err(|e| fail("openat", e, path))?,
            };
            if self.is_mixture(&file, old.as_ref(), &new, path)? {
                return Ok(true);
            }
        }
        Ok(false)
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
    fn forget(&self, before: &Name, after: &Name, path: &[u8]) -> Result<()> {
        self.forget_old(before, path)?;
        for dir in [self.ctx.kept, self.ctx.staged] {
            unlink(dir, after, path)?;
        }
        Ok(())
    }

    fn forget_old(&self, before: &Name, path: &[u8]) -> Result<()> {
        unlink(self.ctx.kept, before, path)
    }

    /// Whether every sector of the file is that of the old or of the new content, and its length one that
    /// writing the one over the other passes.
    fn is_mixture(
        &self,
        file: &OwnedFd,
        old: Option<&OwnedFd>,
        new: &OwnedFd,
        path: &[u8],
    ) -> Result<bool> {
        let len = |fd: &OwnedFd| {
            place::facts(fd)
                .map(|meta| meta.len())
                .map_err(|e| fail("statx", e, path))
        };
        let (file_len, new_len) = (len(file)?, len(new)?);
        let old_len = match old {
            Some(old) => len(old)?,
            // The copies are removed when the file is complete.
            None => new_len,
        };
        let growing = file_len >= old_len && file_len <= new_len;
        if !(growing || file_len == old_len || file_len == new_len) {
            return Ok(false);
        }
        let (mut is, mut was, mut will) = (vec![0; BUFFER], vec![0; BUFFER], vec![0; BUFFER]);
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
            let new_n = read(new.as_fd(), &mut will, at)?;
            let old_n = match old {
                Some(old) => read(old.as_fd(), &mut was, at)?,
                None => 0,
            };
            for from in (0..n).step_by(SECTOR) {
                let part = |buf: &[u8], n: usize| -> Vec<u8> {
                    let end = (from + SECTOR).min(n);
                    buf.get(from..end).unwrap_or_default().to_vec()
                };
                let sector = part(&is, n);
                let like = |of: &[u8], of_n: usize| {
                    let other = part(of, of_n);
                    sector.iter().enumerate().all(|(i, byte)| {
                        // Beyond its end a content is zero where another one was longer.
                        other.get(i).map_or(*byte == 0, |b| b == byte)
                    })
                };
                if !(like(&will, new_n) || old.is_some() && like(&was, old_n)) {
                    return Ok(false);
                }
            }
            at += n as u64;
        }
        Ok(true)
    }
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

/// Writes from the start to the end, then cuts off what is longer. What stays of the last sector until then
/// is zeroed with it, so that no sector is ever half of each.
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
