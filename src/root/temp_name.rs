//! Temporary names: random, recognisable, and never taken for a name that somebody else chose.
//!
//! `.sf-`, a class letter, 16 hexadecimal digits (32 in `x` and `k`), and 8 more that are the CRC-32C of all
//! before. The check digits are no secret; they keep a user's own `.sf-something` from being swept away.
//!
//! Classes: `t` a file, `d` a directory: both hold nothing that anybody misses. `x` stands on one side of
//! an exchange that must not lose the other side; its digits are the inode number of the new file and the
//! mark of the file it is meant to replace, so that whoever finds it knows which of the two it has before
//! it. `k` is the same where the old side is to be kept.

use super::Name;
use crate::sys::{self, Metadata};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const PREFIX: &[u8] = b".sf-";

/// A temporary name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TempName {
    /// A file that was not published yet, or was replaced already.
    File,
    /// A directory likewise.
    Dir,
    /// One side of an exchange: the inode number of the new thing, the [`mark`] of the old one (0: not known
    /// either), and whether the old one was to be kept.
    Exchange { new: u64, old: u64, keep: bool },
}

/// A fresh name for a temporary file (`t`) or directory (`d`). 64 bits, random for each process: two
/// processes do not meet, and an exclusive creation decides if they do. No call after the process's first.
///
/// # Errors
/// As getrandom(2).
pub(crate) fn fresh(class: u8) -> sys::Result<Name> {
    debug_assert!(matches!(class, b't' | b'd'));
    build(class, &[next_random()?])
}

/// What tells a file that may be replaced from any other, and from itself with another content: 64 bits
/// made of inode number, length and time of modification. A directory is told by its inode number,
/// whatever is in it.
#[must_use]
#[cfg_attr(not(feature = "_hook"), allow(unreachable_pub))] // Tests have a use for it.
pub fn mark(meta: &Metadata) -> u64 {
    let (ino, mtime) = (meta.id().ino, meta.mtime());
    if meta.is_dir() {
        return ino;
    }
    mark_of_file(ino, meta.len(), (mtime.tv_sec, mtime.tv_nsec))
}

pub(crate) fn mark_of_file(ino: u64, len: u64, mtime: (i64, i64)) -> u64 {
    let numbers = [ino, len, mtime.0.cast_unsigned(), mtime.1.cast_unsigned()];
    numbers
        .iter()
        .fold(0, |z, n| mix((z ^ n).wrapping_add(STEP)))
}

/// The name for one side of an exchange, by inode number and [`mark`]. What is not known, or is no concern,
/// is 0.
pub(crate) fn exchange(new: u64, old: u64, keep: bool) -> sys::Result<Name> {
    build(if keep { b'k' } else { b'x' }, &[new, old])
}

fn build(class: u8, numbers: &[u64]) -> sys::Result<Name> {
    // With its NUL: nothing is copied.
    let mut name = Vec::with_capacity(PREFIX.len() + 1 + 16 * numbers.len() + 8 + 1);
    name.extend_from_slice(PREFIX);
    name.push(class);
    for number in numbers {
        hex(*number, 16, &mut name);
    }
    let check = crc32c::crc32c(&name);
    hex(check.into(), 8, &mut name);
    Name::from_vec(name)
}

/// What a name is, if it is one of ours: its whole pattern, check digits included.
pub(crate) fn parse(name: &[u8]) -> Option<TempName> {
    let digits = name.strip_prefix(PREFIX)?;
    let (class, digits) = digits.split_first()?;
    let numbers = match class {
        b't' | b'd' => 1,
        b'x' | b'k' => 2,
        _ => return None,
    };
    let is_digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if digits.len() != numbers * 16 + 8 || !digits.iter().all(is_digit) {
        return None;
    }
    let (checked, check) = name.split_at(name.len() - 8);
    if number(check) != u64::from(crc32c::crc32c(checked)) {
        return None;
    }
    Some(match class {
        b't' => TempName::File,
        b'd' => TempName::Dir,
        class => TempName::Exchange {
            new: number(&digits[..16]),
            old: number(&digits[16..32]),
            keep: *class == b'k',
        },
    })
}

/// The next number of a sequence that getrandom(2) seeds once in a process (SplitMix64, Steele et al., "Fast
/// Splittable Pseudorandom Number Generators", OOPSLA 2014). After a fork parent and child draw the same
/// numbers, which exclusive creation sorts out.
pub(crate) fn next_random() -> sys::Result<u64> {
    #[cfg(feature = "_hook")]
    if let Some(number) = sys::hook::drawn() {
        return Ok(number);
    }
    static SEED: OnceLock<u64> = OnceLock::new();
    static STEPS: AtomicU64 = AtomicU64::new(0);
    let seed = match SEED.get() {
        Some(seed) => *seed,
        None => {
            let mut bytes = [0; 8];
            sys::random(&mut bytes)?;
            *SEED.get_or_init(|| u64::from_ne_bytes(bytes))
        }
    };
    Ok(mix(
        seed.wrapping_add(STEPS.fetch_add(STEP, Ordering::Relaxed))
    ))
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The end of a SplitMix64 step: every bit of the result depends on every bit of `z`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The value of up to 16 hexadecimal digits, which the caller has checked.
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |n, d| {
        let digit = if d.is_ascii_digit() {
            d - b'0'
        } else {
            d - b'a' + 10
        };
        n << 4 | u64::from(digit)
    })
}

/// Appends the lowest `digits` hexadecimal digits of `value`.
pub(crate) fn hex(value: u64, digits: u32, to: &mut Vec<u8>) {
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
        assert_eq!(parse(a.as_bytes()), Some(TempName::File));
        assert_eq!(parse(fresh(b'd').unwrap().as_bytes()), Some(TempName::Dir));
        for keep in [false, true] {
            let both = exchange(7, u64::MAX, keep).unwrap();
            let want = TempName::Exchange {
                new: 7,
                old: u64::MAX,
                keep,
            };
            assert_eq!(parse(both.as_bytes()), Some(want));
        }
    }

    /// The form is part of what older versions left on disks, so it is fixed here by value.
    #[test]
    fn the_form_is_fixed() {
        assert_eq!(parse(b".sf-d0123456789abcdef96735b5a"), Some(TempName::Dir));
        assert_eq!(
            build(b'd', &[0x0123_4567_89ab_cdef])
                .unwrap()
                .as_bytes()
                .len(),
            29
        );
        assert_eq!(
            build(b'd', &[0x0123_4567_89ab_cdef]).unwrap().as_bytes(),
            b".sf-d0123456789abcdef96735b5a"
        );
    }

    /// Any other byte at any place, one byte more or less, or upper case: not ours.
    #[test]
    fn nothing_else_is_recognised() {
        for name in [fresh(b't').unwrap(), exchange(1, 2, false).unwrap()] {
            let name = name.as_bytes().to_vec();
            for at in 0..name.len() {
                for byte in 0..=255 {
                    let mut other = name.clone();
                    other[at] = byte;
                    assert_eq!(parse(&other).is_some(), other == name, "{at} {byte}");
                }
            }
            assert_eq!(parse(&name[..name.len() - 1]), None);
            assert_eq!(parse(&[&name[..], b"0"].concat()), None);
        }
        assert_eq!(parse(b""), None);
        assert!(build(b'q', &[1]).is_ok_and(|n| parse(n.as_bytes()).is_none()));
    }
}
