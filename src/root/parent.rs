//! The parent of a path and its last component: what every change of a name works on.

use super::{Name, Root};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FileType, Mode, OFlags, OwnedFd};
use std::ffi::CStr;

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// An ordinary name.
    Normal(Name),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is the root (`/`, of a root that takes absolute paths).
    Root,
}

impl Last {
    /// What to hand to a call that makes, removes or renames an entry: the name, or `.` for what is no name.
    /// Every such call refuses `.`, with the errno that it has for it after all that goes before.
    ///
    /// Never for a call that would act on `.`, such as an open or a change of mode.
    pub(crate) fn for_change(&self) -> &CStr {
        match self {
            Self::Normal(name) => name.as_c_str(),
            _ => c".",
        }
    }
}

/// A directory, and the name in it that a change is about.
#[derive(Debug)]
pub(crate) struct Target<'r> {
    pub(crate) dir: Place<'r>,
    pub(crate) last: Last,
    /// The path ended with a slash.
    pub(crate) slash: bool,
}

impl Target<'_> {
    /// The type of what has the name now; a symlink is not followed.
    pub(crate) fn kind(&self) -> sys::Result<FileType> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        sys::statx(&self.dir, self.last.for_change(), flags).map(|facts| facts.kind())
    }
}

/// The root's own descriptor, or one opened below it.
#[derive(Debug)]
pub(crate) enum Place<'r> {
    Root(BorrowedFd<'r>),
    Below(OwnedFd),
}

impl Place<'_> {
    /// The same directory by a descriptor of its own.
    pub(crate) fn into_owned(self) -> sys::Result<Place<'static>> {
        match self {
            // F_DUPFD_CLOEXEC: one call that cannot leave the disk changed.
            Self::Root(fd) => match fd.try_clone_to_owned() {
                Ok(fd) => Ok(Place::Below(fd)),
                Err(e) => Err(super::errno_of(&e)),
            },
            Self::Below(fd) => Ok(Place::Below(fd)),
        }
    }
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// What the parent's descriptor must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A place to work in (`O_PATH`): needs no read permission.
    Place,
    /// Reading and fsync as well; a place where it may not be read.
    Sync,
}

/// Splits a path into its parent, its last component, and whether slashes follow that.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let slash = end < path.len();
    let start = path[..end]
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(0, |i| i + 1);
    (&path[..start], &path[start..end], slash)
}

impl Root {
    /// Resolves the parent of `path`. The errors are those of the kernel for a call that changes a name.
    pub(crate) fn target(&self, path: &[u8], access: Access) -> sys::Result<Target<'_>> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.contains(&0) {
            return Err(Errno::INVAL);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let (parent, last, slash) = split(path);
        let last = match last {
            b"" => Last::Root,
            b"." => Last::Dot,
            b".." => Last::DotDot,
            name => Last::Normal(Name::from_bytes(name)?),
        };
        let dir = if parent.is_empty() && last != Last::Root {
            Place::Root(self.as_fd())
        } else {
            // Of "/" alone the parent is the root itself, which resolving it says or refuses.
            let parent = if parent.is_empty() { path } else { parent };
            let open = |flags| self.open_raw(parent, flags | OFlags::DIRECTORY, Mode::empty());
            match access {
                Access::Place => Place::Below(open(OFlags::PATH)?),
                Access::Sync => match open(OFlags::RDONLY) {
                    // Writing into a directory does not need the right to read it.
                    Err(Errno::ACCESS) => Place::Below(open(OFlags::PATH)?),
                    done => Place::Below(done?),
                },
            }
        };
        Ok(Target { dir, last, slash })
    }
}

/// Longest path in bytes, with its NUL (limits.h).
pub(crate) const PATH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn splits_as_the_kernel_does() {
        type Case<'a> = (&'a [u8], (&'a [u8], &'a [u8], bool));
        let cases: &[Case<'_>] = &[
            (b"a", (b"", b"a", false)),
            (b"a/", (b"", b"a", true)),
            (b"a//b", (b"a//", b"b", false)),
            (b"/a", (b"/", b"a", false)),
            (b"/", (b"", b"", true)),
            (b"///", (b"", b"", true)),
            (b"a/..//", (b"a/", b"..", true)),
            (b".", (b"", b".", false)),
        ];
        for (path, want) in cases {
            assert_eq!(split(path), *want, "{path:?}");
        }
    }
}
