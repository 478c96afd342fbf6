//! POSIX access control lists as the kernel passes them in extended attributes.
//!
//! Format: `linux/posix_acl_xattr.h`; a version (2, four bytes), then entries of tag, permissions (two bytes
//! each) and id (four bytes), little-endian. Semantics: acl(5).

use crate::sys::{self, BorrowedFd, Errno};
use std::ffi::CStr;

/// The access list's attribute.
pub(crate) const ACCESS: &CStr = c"system.posix_acl_access";
/// A directory's list for what is made in it.
pub(crate) const DEFAULT: &CStr = c"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What the owning group itself may do: its own entry under the mask. Where an access list exists, the mode's
/// group bits are the mask, which may be wider. `None` if the bytes are not an access list.
pub(crate) fn group_rights(acl: &[u8]) -> Option<u32> {
    let (version, entries) = acl.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(8) {
        return None;
    }
    let find = |wanted: u16| {
        entries.chunks_exact(8).find_map(|e| {
            let tag = u16::from_le_bytes([e[0], e[1]]);
            (tag == wanted).then(|| u32::from(u16::from_le_bytes([e[2], e[3]])) & 7)
        })
    };
    Some(find(GROUP_OBJ)? & find(MASK).unwrap_or(7))
}

/// Whether an attribute is another name for an access list: xfs shows its own form of them to root. The list
/// itself says all.
pub(crate) fn is_alias(name: &CStr) -> bool {
    name == c"trusted.SGI_ACL_FILE" || name == c"trusted.SGI_ACL_DEFAULT"
}

/// Limits what the owning group itself may do to what others may: for a copy with another group.
pub(crate) fn narrow_group(acl: &mut [u8]) {
    let find = |acl: &[u8], wanted: u16| {
        (4..acl.len().saturating_sub(7))
            .step_by(8)
            .find(|at| acl[*at..at + 2] == wanted.to_le_bytes())
    };
    if let Some(group) = find(acl, GROUP_OBJ) {
        let others = find(acl, OTHER).map_or(0, |at| acl[at + 2]);
        acl[group + 2] &= others;
    }
}

/// The list that chmod(2) leaves: owner, group class and others have the rights of the mode.
///
/// Source: acl(5), correspondence between ACL entries and file permission bits.
pub(crate) fn with_mode(list: &[u8], mode: u32) -> Vec<u8> {
    let mut list = list.to_vec();
    let Some((_, entries)) = list.split_first_chunk_mut::<4>() else {
        return list;
    };
    let group_class = group_class(entries);
    for entry in entries.chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        for (class, shift) in [(USER_OBJ, 6), (group_class, 3), (OTHER, 0)] {
            if tag == class {
                entry[2] = (mode >> shift & 7) as u8;
            }
        }
    }
    list
}

/// The mode of a file that gets this list: the rights of owner, group class and others are those of the list.
/// `None` if the bytes are no list.
pub(crate) fn mode_of(list: &[u8], mode: u32) -> Option<u32> {
    group_rights(list)?;
    let entries = &list[4..];
    let group_class = group_class(entries);
    let mut mode = mode;
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        for (class, shift) in [(USER_OBJ, 6), (group_class, 3), (OTHER, 0)] {
            if tag == class {
                mode = mode & !(7 << shift) | u32::from(entry[2] & 7) << shift;
            }
        }
    }
    Some(mode)
}

/// The entry that the group's bits of the mode stand for.
fn group_class(entries: &[u8]) -> u16 {
    let is_mask = |e: &[u8]| e[..2] == MASK.to_le_bytes();
    if entries.chunks_exact(8).any(is_mask) {
        MASK
    } else {
        GROUP_OBJ
    }
}

/// What a new file gets of its directory's default list: the access list, and the mode. `wanted` is the
/// mode that its maker asks for; the umask does not count. `None` if the bytes are no list.
///
/// Source: acl(5), object creation and default ACLs.
pub(crate) fn inherit(default: &[u8], wanted: u32) -> Option<(Vec<u8>, u32)> {
    group_rights(default)?;
    let mut list = default.to_vec();
    let group_class = group_class(&list[4..]);
    let mut mode = wanted & 0o7000;
    for entry in list[4..].chunks_exact_mut(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        for (class, shift) in [(USER_OBJ, 6), (group_class, 3), (OTHER, 0)] {
            if tag == class {
                entry[2] &= (wanted >> shift & 7) as u8;
                mode |= u32::from(entry[2]) << shift;
            }
        }
    }
    Some((list, mode))
}

/// The rights of owner, group and others (with set-user-id, set-group-id and sticky) that a copy may have
/// whose owner or group is not that of its original: what was meant for another owner or group must not fall
/// to ours. A group that is another one gets what everybody has.
pub(crate) fn permitted(mode: u32, same_owner: bool, same_group: bool) -> u32 {
    let mut mode = mode & 0o7777;
    if !same_owner {
        mode &= !0o4000;
    }
    if !same_group {
        mode &= !0o2000;
        mode &= !0o070 | (mode & 0o007) << 3;
    }
    mode
}

/// Takes away what a new file has inherited from its directory's default list, which could permit more than
/// its original does. Asked for first: removing what is not there costs some file systems a transaction.
pub(crate) fn drop_inherited(
    to: BorrowedFd<'_>,
    is_dir: bool,
) -> Result<(), (&'static str, Errno)> {
    for name in if is_dir {
        &[ACCESS, DEFAULT][..]
    } else {
        &[ACCESS]
    } {
        if sys::fgetxattr(to, *name).is_ok_and(|list| list.is_some()) {
            match sys::fremovexattr(to, *name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(e) => return Err(("fremovexattr", e)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_own_right_is_its_entry_under_the_mask() {
        let entry = |tag: u16, perm: u16| {
            [
                &tag.to_le_bytes()[..],
                &perm.to_le_bytes(),
                &u32::MAX.to_le_bytes(),
            ]
            .concat()
        };
        let acl = |entries: &[Vec<u8>]| [&2u32.to_le_bytes()[..], &entries.concat()].concat();
        let list = acl(&[
            entry(1, 6),
            entry(2, 7),
            entry(GROUP_OBJ, 4),
            entry(MASK, 6),
            entry(32, 0),
        ]);
        assert_eq!(group_rights(&list), Some(4));
        let narrow = acl(&[entry(GROUP_OBJ, 7), entry(MASK, 5)]);
        assert_eq!(group_rights(&narrow), Some(5));
        assert_eq!(group_rights(&acl(&[entry(GROUP_OBJ, 6)])), Some(6));
        assert_eq!(group_rights(&list[..list.len() - 1]), None);
        assert_eq!(group_rights(&[3, 0, 0, 0]), None);
        assert_eq!(group_rights(b""), None);
        let mut narrowed = acl(&[entry(GROUP_OBJ, 7), entry(MASK, 6), entry(OTHER, 5)]);
        narrow_group(&mut narrowed);
        let want = acl(&[entry(GROUP_OBJ, 5), entry(MASK, 6), entry(OTHER, 5)]);
        assert_eq!(narrowed, want);
        narrow_group(&mut [2, 0, 0, 0, 4]);
    }

    #[test]
    fn another_owner_or_group_gets_no_right_of_the_first() {
        assert_eq!(permitted(0o106755, true, true), 0o6755);
        assert_eq!(permitted(0o6755, false, true), 0o2755);
        assert_eq!(permitted(0o6775, true, false), 0o4755);
        assert_eq!(permitted(0o2660, false, false), 0o600);
        assert_eq!(permitted(0o0646, true, false), 0o646);
    }
}
