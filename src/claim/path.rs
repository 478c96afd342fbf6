//! What a claim is about: a path beneath the root, in components.

use super::node::{Modes, Node};
use crate::root::Name;
use crate::sys::Errno;
use crate::{Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path to claim, beneath the root, without links, `.` and `..`; empty, or `.`, for the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimPath(Vec<Name>);

impl ClaimPath {
    /// Takes a path apart.
    ///
    /// # Errors
    /// `EINVAL`: a `..`, a leading slash, or a NUL byte.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_bytes();
        let fail = |e| Error::new("claim", "path", e).with_path(path);
        if bytes.starts_with(b"/") {
            return Err(fail(Errno::INVAL));
        }
        let parts = bytes
            .split(|b| *b == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        parts
            .map(|part| Name::from_bytes(part).map_err(fail))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether this is the other path or above it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The locks that claim it: intent on every directory above, the claim itself at the end.
    pub(super) fn nodes(&self, exclusive: bool) -> impl Iterator<Item = (Node, Modes)> + '_ {
        let mut node = Node::ROOT;
        (0..=self.0.len()).map(move |depth| {
            if let Some(name) = depth.checked_sub(1).and_then(|i| self.0.get(i)) {
                node = node.child(name.as_bytes());
            }
            let modes = match (depth == self.0.len(), exclusive) {
                (false, false) => Modes::INTENT_SHARED,
                (false, true) => Modes::INTENT_EXCLUSIVE,
                (true, false) => Modes::SHARED,
                (true, true) => Modes::EXCLUSIVE,
            };
            (node, modes)
        })
    }

    /// The path that one of its locks stands for: it, or one above it.
    pub(super) fn path_of(&self, node: Node) -> Option<PathBuf> {
        let depth = self.nodes(false).position(|(own, _)| own == node)?;
        let names = self.0.iter().take(depth);
        Some(match depth {
            0 => PathBuf::from("."),
            _ => names
                .map(|name| OsStr::from_bytes(name.as_bytes()))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_and_compared() {
        let path = |p: &str| ClaimPath::new(p).unwrap();
        assert_eq!(path("a/b"), path("./a//b/"));
        assert_eq!(path(""), path("."));
        assert!(path("").covers(&path("a")) && path("a").covers(&path("a/b")));
        assert!(!path("a").covers(&path("ab")) && !path("a/b").covers(&path("a")));
        for bad in ["/a", "a/..", "..", "a\0b"] {
            assert!(ClaimPath::new(bad).is_err(), "{bad:?}");
        }
        let deep = path("a/b");
        let shown: Vec<_> = deep
            .nodes(true)
            .map(|(node, _)| deep.path_of(node).unwrap())
            .collect();
        assert_eq!(shown, [Path::new("."), Path::new("a"), Path::new("a/b")]);
        assert_eq!(path("c").path_of(Node::ROOT.child(b"a")), None);
    }
}
