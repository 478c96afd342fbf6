//! What openat2 refuses before it looks anything up, in its order.

use crate::root::parent::PATH_MAX;
use crate::root::resolve::Request;
use crate::sys::{Errno, OFlags, ResolveFlags, Result};

/// The flags that this walk knows how to carry out: those of openat2(2) as of Linux 6.18.
const KNOWN: OFlags = OFlags::ACCMODE
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOCTTY)
    .union(OFlags::TRUNC)
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned()))
    .union(OFlags::DIRECT)
    .union(OFlags::LARGEFILE)
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC)
    .union(OFlags::PATH)
    .union(OFlags::TMPFILE);

/// `O_TMPFILE` without the `O_DIRECTORY` in it.
const TMPFILE_BIT: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);

const KNOWN_RESOLVE: ResolveFlags = ResolveFlags::NO_XDEV
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::BENEATH)
    .union(ResolveFlags::IN_ROOT)
    .union(ResolveFlags::CACHED);

/// Refuses what openat2 refuses without looking at the tree.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    let (flags, resolve) = (request.flags, request.resolve);
    let makes = flags.intersects(OFlags::CREATE.union(TMPFILE_BIT));
    let writes = flags.intersects(OFlags::ACCMODE);
    let scopes = resolve.intersection(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT);
    let for_paths = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !KNOWN.contains(flags)
        || !KNOWN_RESOLVE.contains(resolve)
        // No scope at all would be no containment; this walk is not for that.
        || (scopes != ResolveFlags::BENEATH && scopes != ResolveFlags::IN_ROOT)
        || (request.mode.bits() != 0 && !makes)
        || request.mode.bits() & !0o7777 != 0
        || flags.contains(OFlags::DIRECTORY | OFlags::CREATE)
        || (flags.intersects(TMPFILE_BIT) && !(flags.contains(OFlags::DIRECTORY) && writes))
        || (flags.contains(OFlags::PATH) && !for_paths.contains(flags))
        || request.path.contains(&0)
    {
        return Err(Errno::INVAL);
    }
    let cached = resolve.contains(ResolveFlags::CACHED);
    if cached && (makes || flags.contains(OFlags::TRUNC)) {
        return Err(Errno::AGAIN);
    }
    if request.path.is_empty() {
        return Err(Errno::NOENT);
    }
    if request.path.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if request.path.first() == Some(&b'/') && scopes == ResolveFlags::BENEATH {
        return Err(Errno::XDEV);
    }
    // Whether a look-up would wait for the disk cannot be known here.
    if cached { Err(Errno::AGAIN) } else { Ok(()) }
}
