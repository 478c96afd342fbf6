//! POSIX access control lists as the kernel passes them in extended attributes.
//!
//! Format: `linux/posix_acl_xattr.h`; a version (2, four bytes), then entries of tag, permissions (two bytes
//! each) and id (four bytes), little-endian. Semantics: acl(5).

use std::ffi::CStr;

/// The access list's attribute.
pub(super) const ACCESS: &CStr = c"system.posix_acl_access";

const VERSION: u32 = 2;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;

/// What the owning group itself may do: its own entry under the mask. Where an access list exists, the mode's
/// group bits are the mask, which may be wider. `None` if the bytes are not an access list.
pub(super) fn group_rights(acl: &[u8]) -> Option<u32> {
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
    }
}
