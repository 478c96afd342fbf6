//! The name of a lease, and the names of its files.
//!
//! Small letters, digits, `-` and `_` stand for themselves, every other byte is `%` and two
//! hexadecimal digits. So two names never meet in one file, on a file system that does not tell
//! large letters from small ones either, and a file's name can be read back.

use crate::Name;
use crate::sys::Errno;

/// The longest name of a lease in bytes. Three times as much, with what is put before it, is a file
/// name.
pub const MAX_NAME: usize = 72;

const LEASE: &[u8] = b"lease-";
const TAKE: &[u8] = b"take-";

/// The file of the lease `name`.
///
/// `ENAMETOOLONG`: longer than [`MAX_NAME`].
pub(super) fn file(name: &[u8]) -> Result<Name, Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    Name::from_bytes(&[LEASE, &encode(name)].concat())
}

/// The mark of whoever is about to take the lease `name` with this number.
pub(super) fn mark(name: &[u8], fence: u64) -> Result<Name, Errno> {
    let number = format!("{fence:016x}-");
    Name::from_bytes(&[TAKE, number.as_bytes(), &encode(name)].concat())
}

/// The lease that a file is of; `None` for what is none.
pub(super) fn of_file(file: &[u8]) -> Option<Vec<u8>> {
    let encoded = file.strip_prefix(LEASE)?;
    let mut name = Vec::new();
    let mut bytes = encoded.iter();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        name.push(match byte {
            b'%' => u8::try_from(digit()? << 4 | digit()?).ok()?,
            _ => *byte,
        });
    }
    // Each name has one file only.
    (name.len() <= MAX_NAME && encode(&name) == encoded).then_some(name)
}

fn encode(name: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(*byte),
            _ => out.extend([
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_file_and_can_be_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for name in all
            .chunks(MAX_NAME)
            .chain([&b""[..], b"deploy", b"..", b"a/b", b"A"])
        {
            let file = file(name).unwrap();
            assert!(file.as_bytes().len() <= 255);
            assert_eq!(of_file(file.as_bytes()).unwrap(), name);
            assert!(mark(name, u64::MAX).unwrap().as_bytes().len() <= 255);
        }
        assert_eq!(file(&[0xff; MAX_NAME]).unwrap().as_bytes().len(), 222);
        assert_eq!(file(&[b'a'; MAX_NAME + 1]), Err(Errno::NAMETOOLONG));
        assert_eq!(file(b"web.1").unwrap().as_bytes(), b"lease-web%2e1");
    }

    #[test]
    fn what_is_not_written_so_is_no_lease() {
        for other in [
            "lease",
            "take-a",
            "lease-A",
            "lease-%",
            "lease-%4",
            "lease-%61",
            "lease-%2E",
            "lease-a.b",
            "lease-%+1",
            ".sf-x",
        ] {
            assert_eq!(of_file(other.as_bytes()), None, "{other}");
        }
    }
}
