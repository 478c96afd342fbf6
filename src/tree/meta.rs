//! Carrying owner, mode, extended attributes, ACLs and times from one file to its copy.

use super::acl;
use super::chain::look;
use crate::sys::{self, BorrowedFd, Errno, Metadata, Mode, Timestamps, XattrFlags};

/// How strictly something is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Not at all.
    No,
    /// Where this process may and the file system can; what was not kept is counted.
    #[default]
    BestEffort,
    /// Or it is an error.
    Required,
}

/// What a copy keeps besides content, type, mode, hard links and holes, which it always keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Preserve {
    /// Owner and group. A copy of another owner loses set-user-id; one of another group loses set-group-id,
    /// and its group may do no more than everybody.
    pub owner: Keep,
    /// Extended attributes, ACLs among them. Those of symlinks and special files are never kept.
    pub xattrs: Keep,
    /// Times of access and of change of content.
    pub times: bool,
}

impl Default for Preserve {
    fn default() -> Self {
        Self {
            owner: Keep::BestEffort,
            xattrs: Keep::BestEffort,
            times: true,
        }
    }
}

/// The mode of what an `O_PATH` descriptor is open on, which is no symlink: by fchmodat2(2), and before Linux
/// 6.6 through procfs.
pub(crate) fn chmod_place(fd: BorrowedFd<'_>, mode: Mode) -> Result<(), Refused> {
    match sys::fchmod_empty_path(fd, mode) {
        // EPERM also comes from filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let (proc, number) = sys::descriptor_link(fd).map_err(|e| ("fchmodat2", e))?;
            sys::fchmodat(&proc, number, mode).map_err(|e| ("fchmodat", e))
        }
        done => done.map_err(|e| ("fchmodat2", e)),
    }
}

/// What was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) owner: bool,
    pub(super) xattrs: u64,
}

pub(crate) type Refused = (&'static str, Errno);

/// A refusal that best effort lives with: rights, support, size.
fn tolerable(e: Errno) -> bool {
    matches!(
        e,
        Errno::PERM
            | Errno::ACCESS
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::OVERFLOW
            | Errno::RANGE
            | Errno::TOOBIG
            | Errno::FBIG
            | Errno::NOSPC
            | Errno::DQUOT
    )
}

/// Gives the open file `to` what `from`, whose facts are `meta`, has.
///
/// Owner first, for a change of owner clears set-user-id; attributes while the file is still writable for
/// us; then the mode, then the ACL; times last. At no moment is more permitted than in the end.
pub(super) fn carry(
    from: BorrowedFd<'_>,
    meta: &Metadata,
    to: BorrowedFd<'_>,
    preserve: Preserve,
) -> Result<Missed, Refused> {
    let kept = owner(preserve.owner, meta, |uid, gid| {
        sys::fchown(to, uid, gid).map_err(|e| ("fchown", e))
    })?;
    let mut missed = Missed {
        owner: !kept,
        xattrs: 0,
    };
    let (mode, same_group) = permitted(meta, !kept || preserve.owner == Keep::No, to)?;
    let mut list = None;
    if preserve.xattrs == Keep::No {
        list = read_acl(from)?;
    } else {
        let names = match sys::flistxattr(from) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Vec::new(),
            Err(e) => return Err(("flistxattr", e)),
        };
        for name in names {
            if acl::is_alias(&name) {
                continue;
            }
            let value = match sys::fgetxattr(from, &*name) {
                Ok(Some(value)) => value,
                // It was removed meanwhile.
                Ok(None) => continue,
                Err(e) if preserve.xattrs == Keep::BestEffort && tolerable(e) => {
                    missed.xattrs += 1;
                    continue;
                }
                Err(e) => return Err(("fgetxattr", e)),
            };
            if *name == *acl::ACCESS {
                list = Some(value);
            } else if !set(to, &name, &value, preserve.xattrs)? {
                missed.xattrs += 1;
            }
        }
    }
    let chmod = |mode| sys::fchmod(to, mode).map_err(|e| ("fchmod", e));
    match list {
        None => chmod(mode)?,
        Some(mut list) => {
            if !same_group {
                acl::narrow_group(&mut list);
            }
            // In the mode of a file with an ACL the group's bits are the mask, which may permit more than
            // the group has: they come with the ACL, in one step.
            let without = mode.difference(Mode::RWXG);
            chmod(without)?;
            if preserve.xattrs == Keep::No || !set(to, acl::ACCESS, &list, preserve.xattrs)? {
                missed.xattrs += u64::from(preserve.xattrs != Keep::No);
                let group = acl::group_rights(&list).unwrap_or(0) << 3;
                chmod(without | (Mode::from_raw_mode(group) & mode))?;
            }
        }
    }
    if preserve.times {
        sys::futimens(to, &times(meta)).map_err(|e| ("futimens", e))?;
    }
    Ok(missed)
}

/// Changes owner and group by `chown`; false if they could not be kept.
pub(super) fn owner(
    keep: Keep,
    meta: &Metadata,
    chown: impl Fn(Option<sys::Uid>, Option<sys::Gid>) -> Result<(), Refused>,
) -> Result<bool, Refused> {
    let (uid, gid) = (Some(meta.uid()), Some(meta.gid()));
    match keep {
        Keep::No => Ok(true),
        Keep::Required => chown(uid, gid).map(|()| true),
        Keep::BestEffort => match chown(uid, gid) {
            Ok(()) => Ok(true),
            // A group of our own may be given.
            Err((_, e)) if tolerable(e) => match chown(None, gid) {
                Err((call, e)) if !tolerable(e) => Err((call, e)),
                _ => Ok(false),
            },
            Err(e) => Err(e),
        },
    }
}

/// The mode to give the file `to`: what was meant for another owner or group than it has is left out. And
/// whether it has the same group.
pub(super) fn permitted(
    meta: &Metadata,
    check: bool,
    to: BorrowedFd<'_>,
) -> Result<(Mode, bool), Refused> {
    if !check {
        return Ok((meta.mode(), true));
    }
    let now = look(to).map_err(|e| ("statx", e))?;
    let (same_owner, same_group) = (now.uid() == meta.uid(), now.gid() == meta.gid());
    let mode = acl::permitted(meta.mode().as_raw_mode(), same_owner, same_group);
    Ok((Mode::from_raw_mode(mode), same_group))
}

/// `mode`, which is that of the special file `from` (`O_PATH`), with the group's own rights in place of the
/// mask, if it has an access list: special files are copied without it.
pub(super) fn without_list(from: BorrowedFd<'_>, mode: Mode) -> Mode {
    // It must not be opened, but procfs has a way to it.
    let list = sys::descriptor_link(from).map(|(_, number)| {
        let path = [b"/proc/thread-self/fd/", number.as_bytes()].concat();
        sys::getxattr(path, acl::ACCESS)
    });
    let group = match list {
        Ok(Ok(None) | Err(Errno::OPNOTSUPP | Errno::NOSYS)) => return mode,
        Ok(Ok(Some(list))) => acl::group_rights(&list).unwrap_or(0) << 3,
        // Nobody knows: what everybody may.
        Ok(Err(_)) | Err(_) => mode.intersection(Mode::RWXO).as_raw_mode() << 3,
    };
    mode.difference(Mode::RWXG.difference(Mode::from_raw_mode(group)))
}

pub(super) fn times(meta: &Metadata) -> Timestamps {
    Timestamps {
        last_access: meta.atime(),
        last_modification: meta.mtime(),
    }
}

/// Sets one attribute; false if best effort was not enough.
fn set(
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    value: &[u8],
    keep: Keep,
) -> Result<bool, Refused> {
    match sys::fsetxattr(to, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(e) if keep == Keep::BestEffort && tolerable(e) => Ok(false),
        Err(e) => Err(("fsetxattr", e)),
    }
}

fn read_acl(from: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Refused> {
    match sys::fgetxattr(from, acl::ACCESS) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        done => done.map_err(|e| ("fgetxattr", e)),
    }
}
