//! Single values of a manifest: bytes, paths, modes, hashes, extended attributes.

use super::error::Fault;
use super::fields::{Refused, wrong};
use super::node::{Node, Value};
use super::operation::{Expect, Xattr};
use super::{FORMAT, MAX_ENTRIES};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The kernel's limits on an extended attribute (linux/limits.h).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65_536;
/// Longest label, in bytes.
const LABEL_MAX: usize = 1024;
/// Longest idempotency key, in bytes.
const KEY_MAX: usize = 4096;

type Read<T> = Result<T, Refused>;

fn bad<T>(words: &'static str) -> Read<T> {
    Err(Fault::Value(words).into())
}

/// The version of the format.
pub(super) fn format(node: Node<'_>) -> Read<()> {
    match node.value {
        Value::Integer(FORMAT) => Ok(()),
        Value::Integer(_) => bad("this version of steadfast reads format 1 only"),
        _ => Err(wrong("a whole number", &node)),
    }
}

/// Text.
pub(super) fn text(node: Node<'_>) -> Read<String> {
    match node.value {
        Value::Text(text) => Ok(text.into_owned()),
        _ => Err(wrong("text", &node)),
    }
}

/// A line for people.
pub(super) fn label(node: Node<'_>) -> Read<String> {
    let text = text(node)?;
    if text.len() > LABEL_MAX {
        return bad("a label has at most 1024 bytes");
    }
    Ok(text)
}

/// A list, perhaps an empty one.
pub(super) fn list(node: Node<'_>) -> Read<Vec<Node<'_>>> {
    let found = node.type_name();
    match node.value {
        Value::List(list) if list.len() > MAX_ENTRIES => Err(Fault::TooMany.into()),
        Value::List(list) => Ok(list),
        _ => Err(Fault::Type {
            want: "a list",
            found,
        }
        .into()),
    }
}

/// A list that has entries.
pub(super) fn entries(node: Node<'_>) -> Read<Vec<Node<'_>>> {
    match list(node)? {
        list if list.is_empty() => bad("at least one is needed"),
        list => Ok(list),
    }
}

/// Text, or `{ bytes = "base64" }`.
pub(super) fn bytes(node: Node<'_>) -> Read<Vec<u8>> {
    const WANT: &str = "text, or { bytes = \"base64\" },";
    let found = node.type_name();
    match node.value {
        Value::Text(text) => Ok(text.into_owned().into_bytes()),
        Value::Table(mut entries) if entries.len() == 1 => match entries.pop() {
            Some(entry) if entry.key == "bytes" => {
                let at = entry.node.at;
                base64_text(entry.node).map_err(|e| e.in_part(at, "bytes"))
            }
            Some(entry) => {
                Err(Refused::from(Fault::UnknownField(vec!["bytes"])).in_part(entry.at, &entry.key))
            }
            None => Err(Fault::Type { want: WANT, found }.into()),
        },
        _ => Err(Fault::Type { want: WANT, found }.into()),
    }
}

/// Text in base64.
pub(super) fn base64_text(node: Node<'_>) -> Read<Vec<u8>> {
    match node.value {
        Value::Text(text) => match base64(text.as_bytes()) {
            Some(bytes) => Ok(bytes),
            None => bad("not base64 (RFC 4648, with padding)"),
        },
        _ => Err(wrong("text in base64", &node)),
    }
}

/// A path of this machine.
pub(super) fn outside(node: Node<'_>) -> Read<PathBuf> {
    let bytes = bytes(node)?;
    if bytes.is_empty() {
        return bad("a path is not empty");
    }
    if bytes.contains(&0) {
        return bad("a path has no NUL byte");
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// A path beneath the root.
pub(super) fn path(node: Node<'_>) -> Read<PathBuf> {
    let path = outside(node)?;
    if path.is_absolute() {
        return bad("a path is relative to the root");
    }
    Ok(path)
}

/// What a symlink holds.
pub(super) fn link_target(node: Node<'_>) -> Read<Vec<u8>> {
    outside(node).map(|path| path.into_os_string().into_vec())
}

/// The name of an idempotency key.
pub(super) fn key_name(node: Node<'_>) -> Read<Vec<u8>> {
    let name = bytes(node)?;
    if name.is_empty() || name.len() > KEY_MAX {
        return bad("a key has 1 to 4096 bytes");
    }
    Ok(name)
}

/// Permission bits as octal text: a bare number would be decimal in JSON.
pub(super) fn mode(node: Node<'_>) -> Read<u32> {
    let Value::Text(text) = &node.value else {
        return Err(wrong("octal text, such as \"0640\",", &node));
    };
    let octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(bits) if octal && bits <= 0o7777 => Ok(bits),
        _ => bad("a mode is an octal number up to 7777"),
    }
}

/// A user or group by number.
pub(super) fn id(node: Node<'_>) -> Read<u32> {
    match node.value {
        Value::Integer(n) => match u32::try_from(n) {
            // The kernel takes the last one for "leave it as it is".
            Ok(id) if id != u32::MAX => Ok(id),
            _ => bad("an owner or group is a number from 0 to 4294967294"),
        },
        _ => Err(wrong("a whole number", &node)),
    }
}

/// What must be there.
pub(super) fn expect(node: Node<'_>) -> Read<Expect> {
    let text = text(node)?;
    match (text.as_str(), text.strip_prefix("sha256:")) {
        ("absent", _) => Ok(Expect::Absent),
        ("present", _) => Ok(Expect::Present),
        (_, Some(digits)) => match sha256(digits) {
            Some(hash) => Ok(Expect::Sha256(hash)),
            None => bad("a SHA-256 hash has 64 hexadecimal digits"),
        },
        _ => bad("it is \"absent\", \"present\" or \"sha256:\" and the hash"),
    }
}

/// Extended attributes: a value to set, or `false` to remove.
pub(super) fn xattrs(node: Node<'_>) -> Read<Vec<Xattr>> {
    let found = node.type_name();
    let Value::Table(entries) = node.value else {
        let want = "a table";
        return Err(Fault::Type { want, found }.into());
    };
    let one = |entry: super::node::Entry<'_>| {
        let name = entry.key.as_bytes().to_vec();
        let at = entry.node.at;
        let value = match entry.node.value {
            _ if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) => {
                bad("the name of an attribute has 1 to 255 bytes and no NUL")
            }
            Value::Boolean(false) => Ok(None),
            _ => bytes(entry.node).map(Some),
        };
        match value {
            Ok(Some(value)) if value.len() > XATTR_SIZE_MAX => {
                bad("the value of an attribute has at most 65536 bytes")
            }
            value => value.map(|value| (name, value)),
        }
        .map_err(|e| e.in_part(at, &entry.key))
    };
    entries.into_iter().map(one).collect()
}

fn sha256(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// RFC 4648 section 4, strictly: whole groups, padding, and no bits set that mean nothing. White space is
/// skipped, so that long contents can have lines.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut group, mut padding) = (0_u32, 0_u32, 0_u32);
    for byte in text.iter().filter(|b| !b.is_ascii_whitespace()) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if group >= 2 && padding < 2 => {
                padding += 1;
                0
            }
            _ => return None,
        };
        // Nothing comes after the padding.
        if padding > 0 && *byte != b'=' {
            return None;
        }
        bits = bits << 6 | u32::from(six);
        group += 1;
        if group < 4 {
            continue;
        }
        let [_, a, b, c] = bits.to_be_bytes();
        match padding {
            0 => out.extend([a, b, c]),
            1 if c == 0 => out.extend([a, b]),
            2 if b == 0 && c == 0 => out.push(a),
            _ => return None,
        }
        (bits, group) = (0, if padding > 0 { 4 } else { 0 });
    }
    (group == 0 || (group == 4 && padding > 0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc_and_nothing_else() {
        let good: [(&str, &[u8]); 9] = [
            ("", b""),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("Zm9vYmE=", b"fooba"),
            ("Zm9v\n YmFy\n", b"foobar"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
            ("AAAA", &[0, 0, 0]),
        ];
        for (text, bytes) in good {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(bytes), "{text:?}");
        }
        let bad = [
            "Z", "Zg", "Zg=", "Zm8", "Zg===", "====", "=", "Z===", "Zh==", "Zm9=", "Zg==Zg==",
            "Zm9v=", "Zm9vYg=A", "-_-_", "Zm9v,", "Zg==A", "Zg=====",
        ];
        for text in bad {
            assert_eq!(base64(text.as_bytes()), None, "{text:?}");
        }
    }
}
