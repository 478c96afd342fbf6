//! Why an operation is refused in the view, and the error that this is for the caller.

use crate::root::resolve_error;
use crate::sys::Errno;
use crate::{Error, ErrorKind};
use std::path::Path;

/// A refusal, without the operation and its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The path cannot be resolved.
    Path(Errno),
    /// The kernel's answer to a call, or what it would be.
    Call(&'static str, Errno),
    /// A name on another mount, or in another subvolume, than the root.
    OtherMount(&'static str),
    /// A FIFO, socket or device where a file is needed.
    NotAFile,
    /// The state folder, or something in it.
    State,
    /// The root itself.
    Root,
    /// What is on the disk is not what was there a moment ago.
    Changed,
}

/// What the view does by itself, or an operation on it.
pub(super) type Done<T> = Result<T, Stop>;

impl Stop {
    pub(super) fn into_error(self, operation: &'static str, path: &Path) -> Error {
        let of_kind = |kind| Error::of_kind(operation, kind).with_path(path);
        match self {
            Self::Path(errno) => resolve_error(operation, errno, path),
            Self::Call(call, errno) => Error::new(operation, call, errno).with_path(path),
            Self::OtherMount(call) => Error::new(operation, call, Errno::XDEV)
                .with_path(path)
                .with_advice("use a workspace on that mount, or write the file in place"),
            Self::NotAFile => of_kind(ErrorKind::NotAFile),
            Self::State => of_kind(ErrorKind::PermissionDenied)
                .with_detail("the state folder is not for transactions"),
            Self::Root => {
                of_kind(ErrorKind::InvalidInput).with_detail("the root has no name of its own")
            }
            Self::Changed => of_kind(ErrorKind::Changed)
                .with_detail("somebody changed it during the transaction")
                .with_advice("begin the transaction again"),
        }
    }
}
