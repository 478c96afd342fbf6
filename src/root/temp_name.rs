//! Temporary names: random, recognisable, and never taken for a name that somebody else chose.
//!
//! `.sf-`, a class letter, 16 random hexadecimal digits, and 8 more that are the CRC-32C of all before.
//! The check digits are no secret; they keep a user's own `.sf-something` from being swept away.

use super::Name;
use crate::sys::{self, Errno};

const PREFIX: &[u8] = b".sf-";
/// Bytes before the check digits: prefix, class, 16 digits.
const CHECKED: usize = PREFIX.len() + 1 + 16;
/// Bytes of a whole name.
const LEN: usize = CHECKED + 8;

/// A fresh name of this class, which is one ASCII lower-case letter. 64 random bits: two processes do not
/// meet, and an exclusive creation decides if they do. One call.
///
/// # Errors
/// As getrandom(2); `EINVAL` for a class that is no letter.
pub(crate) fn fresh(class: u8) -> sys::Result<Name> {
    if !class.is_ascii_lowercase() {
        return Err(Errno::INVAL);
    }
    let mut random = [0; 8];
    sys::random(&mut random)?;
    let mut name = Vec::with_capacity(LEN);
    name.extend_from_slice(PREFIX);
    name.push(class);
    hex(u64::from_ne_bytes(random), 16, &mut name);
    let check = crc32c::crc32c(&name);
    hex(check.into(), 8, &mut name);
    Name::from_bytes(&name)
}

/// The class letter, if `name` is one that [`fresh`] makes: its whole pattern, check digits included.
pub(crate) fn parse(name: &[u8]) -> Option<u8> {
    if name.len() != LEN || !name.starts_with(PREFIX) {
        return None;
    }
    let (checked, check) = name.split_at(CHECKED);
    let class = checked[PREFIX.len()];
    let is_digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if !class.is_ascii_lowercase() || !checked[PREFIX.len() + 1..].iter().all(is_digit) {
        return None;
    }
    let mut want = Vec::with_capacity(8);
    hex(crc32c::crc32c(checked).into(), 8, &mut want);
    (check == want).then_some(class)
}

/// Appends the lowest `digits` hexadecimal digits of `value`.
fn hex(value: u64, digits: u32, to: &mut Vec<u8>) {
    for i in (0..digits).rev() {
        to.push(b"0123456789abcdef"[(value >> (4 * i)) as usize & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_names_are_recognised_and_differ() {
        let (a, b) = (fresh(b't').unwrap(), fresh(b't').unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_bytes().len(), 29);
        assert_eq!(parse(a.as_bytes()), Some(b't'));
        assert_eq!(parse(fresh(b'd').unwrap().as_bytes()), Some(b'd'));
        assert_eq!(fresh(b'/'), Err(Errno::INVAL));
        assert_eq!(fresh(b'T'), Err(Errno::INVAL));
    }

    /// The form is part of what older versions left on disks, so it is fixed here by value.
    #[test]
    fn the_form_is_fixed() {
        let checked = b".sf-d0123456789abcdef";
        let mut name = checked.to_vec();
        hex(crc32c::crc32c(checked).into(), 8, &mut name);
        assert_eq!(name, b".sf-d0123456789abcdef96735b5a");
        assert_eq!(parse(&name), Some(b'd'));
    }

    /// Any other byte at any place, one byte more or less, or upper case: not ours.
    #[test]
    fn nothing_else_is_recognised() {
        let name = fresh(b't').unwrap().as_bytes().to_vec();
        for at in 0..name.len() {
            for byte in 0..=255 {
                let mut other = name.clone();
                other[at] = byte;
                assert_eq!(parse(&other).is_some(), other == name, "{at} {byte}");
            }
        }
        assert_eq!(parse(&name[..28]), None);
        assert_eq!(parse(&[&name[..], b"0"].concat()), None);
        assert_eq!(parse(b""), None);
        let mut bad_class = b".sf-T0123456789abcdef".to_vec();
        let check = crc32c::crc32c(&bad_class);
        hex(check.into(), 8, &mut bad_class);
        assert_eq!(parse(&bad_class), None);
    }
}
