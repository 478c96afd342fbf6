//! Attributes that are asked for one after the other, as one request.

use super::Inode;
use super::stop::{Done, Stop};
use crate::sys::Errno;
use crate::workspace::draft::AttrRequest;
use crate::workspace::identity::Kind;
use crate::workspace::mapping::unprivileged;

/// Permission bits, set-user-id and the like included.
const MODE: u32 = 0o7777;

/// Refuses what the kernel refuses for this kind of thing.
pub(super) fn check(kind: Kind, attr: &AttrRequest) -> Done<()> {
    if kind == Kind::Symlink && attr.mode.is_some() {
        return Err(Stop::Call("fchmodat2", Errno::OPNOTSUPP));
    }
    let of_users = |(name, _): &(Vec<u8>, _)| name.starts_with(b"user.");
    if !matches!(kind, Kind::File | Kind::Dir) && attr.xattrs.iter().any(of_users) {
        return Err(Stop::Call("fsetxattr", Errno::PERM));
    }
    Ok(())
}

/// `first`, and then `then`.
pub(super) fn both(first: &AttrRequest, then: &AttrRequest, kind: Kind) -> AttrRequest {
    let mut mode = first.mode;
    if let Some(bits) = &mut mode
        && (then.uid.is_some() || then.gid.is_some())
        && kind == Kind::File
    {
        *bits = unprivileged(*bits);
    }
    let mut xattrs = Vec::new();
    for (name, value) in first.xattrs.iter().chain(&then.xattrs) {
        xattrs.retain(|(other, _)| other != name);
        xattrs.push((name.clone(), value.clone()));
    }
    AttrRequest {
        mode: then.mode.or(mode).map(|bits| bits & MODE),
        uid: then.uid.or(first.uid),
        gid: then.gid.or(first.gid),
        mtime: then.mtime.or(first.mtime),
        atime: then.atime.or(first.atime),
        xattrs,
    }
}

/// What a file that takes this one's place keeps of what was asked for: all but the times.
pub(super) fn kept(old: &Inode) -> AttrRequest {
    AttrRequest {
        mtime: None,
        atime: None,
        ..old.attr.clone()
    }
}
