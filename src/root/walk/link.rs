//! Symlinks: is there one, and may it be followed.

use crate::sys::{self, AtFlags, BorrowedFd, Errno, FsKind, Mode, OFlags, OwnedFd, Uid};
use std::ffi::CStr;

/// A symlink that was found.
#[derive(Debug)]
pub(super) struct Link {
    /// Its text, or why that cannot be read.
    pub(super) text: Result<Vec<u8>, Errno>,
    /// Its owner, if that was asked for.
    pub(super) owner: Option<Uid>,
}

/// What a name turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    Link(Link),
    Dir(OwnedFd),
    Other,
}

/// Looks at a name of which an open said that it may be a link.
///
/// That was a moment ago, so unless it is one now, the name is opened as it is and the answer is about that
/// descriptor: it was the truth at one moment, whatever others do to the name.
pub(super) fn look(dir: BorrowedFd<'_>, name: &CStr, with_owner: bool) -> sys::Result<Found> {
    if !with_owner && let Ok(text) = sys::readlinkat(dir, name) {
        return Ok(Found::Link(Link {
            text: Ok(text.into_bytes()),
            owner: None,
        }));
    }
    let fd = sys::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let facts = sys::statx(&fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(if facts.is_symlink() {
        Found::Link(Link {
            text: sys::readlinkat(&fd, c"").map(|text| text.into_bytes()),
            owner: Some(facts.uid()),
        })
    } else if facts.is_dir() {
        Found::Dir(fd)
    } else {
        Found::Other
    })
}

/// If others may plant links in this directory, its owner: then `fs.protected_symlinks` has a say.
pub(super) fn sticky(dir: BorrowedFd<'_>) -> sys::Result<Option<Uid>> {
    let facts = sys::statx(dir, c"", AtFlags::EMPTY_PATH)?;
    let both = Mode::SVTX | Mode::WOTH;
    Ok(facts.mode().contains(both).then(|| facts.uid()))
}

/// Whether `fs.protected_symlinks` forbids to follow a link of `owner` in a sticky directory of `dir_owner`.
/// Where the setting cannot be read it counts as set, which is what distributions do.
pub(super) fn is_protected(owner: Uid, dir_owner: Uid) -> sys::Result<bool> {
    Ok(owner != dir_owner && owner != sys::fsuid()? && sys::protected_symlinks().unwrap_or(true))
}

/// Whether a link with this text, on this kind of file system, leads to an object and not to a path.
///
/// An ordinary link of procfs has the length of its text as its size; a magic one has 0 or 64 there, or not
/// the mode of a link. Of texts without a slash in front or a colon in them, none is magic.
pub(super) fn is_magic(
    kind: FsKind,
    dir: BorrowedFd<'_>,
    name: &CStr,
    text: &[u8],
) -> sys::Result<bool> {
    const SECURITYFS: FsKind = FsKind::Other(0x7363_6673);
    if !(kind == FsKind::Proc || kind == SECURITYFS)
        || !(text.first() == Some(&b'/') || text.contains(&b':'))
    {
        return Ok(false);
    }
    let facts = sys::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let ordinary = facts.len() == text.len() as u64
        && facts.mode().bits() & 0o777 == 0o777
        && kind == FsKind::Proc;
    Ok(!ordinary)
}
