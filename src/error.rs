//! The error type: what was tried, on which path, the errno, and what state the disk is in.

use crate::sys::{Errno, errno_name};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// What an operation of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a failed operation left on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum DiskState {
    /// The old state is there, as before the call.
    Unchanged,
    /// The new state is visible, but not known to be durable: after a power cut the old one may be back.
    Published,
    /// The change is durable in the journal; recovery will finish it.
    Committed,
    /// Neither the old nor the new state can be promised: some of several steps were done (the message says
    /// which), or a device error left it open.
    Indeterminate,
}

impl DiskState {
    /// A short name for machines: `unchanged`, `published`, `committed` or `indeterminate`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Published => "published",
            Self::Committed => "committed",
            Self::Indeterminate => "indeterminate",
        }
    }
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "nothing was changed",
            Self::Published => "the new state is visible, but may be lost in a power cut",
            Self::Committed => "the change is recorded and recovery will finish it",
            Self::Indeterminate => "the change may be done in part",
        })
    }
}

/// The kind of an [`Error`], to decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name does not exist.
    NotFound,
    /// The name is taken, and the caller asked not to replace.
    AlreadyExists,
    /// A permission is missing.
    PermissionDenied,
    /// Something on the path, or the target, is not a directory.
    NotADirectory,
    /// The target is a directory.
    IsADirectory,
    /// The target is not a regular file where one is needed.
    NotAFile,
    /// A directory is not empty.
    DirectoryNotEmpty,
    /// The path leads out of its root.
    Escape,
    /// The names are not on one file system (or mount, subvolume, project), and a rename cannot join them.
    CrossDevice,
    /// An overlayfs directory from a lower layer cannot be renamed (`redirect_dir` is off).
    LowerLayer,
    /// Too many symlinks, or one where none is allowed.
    SymlinkLoop,
    /// An argument makes no sense: a NUL byte, an unknown flag, a directory moved into itself.
    InvalidInput,
    /// A name or path is too long.
    NameTooLong,
    /// The disk is full.
    StorageFull,
    /// A quota is used up.
    QuotaExceeded,
    /// The file system is read-only.
    ReadOnly,
    /// In use: a mount point (a bind-mounted file cannot be renamed over), or a running program.
    Busy,
    /// It cannot be had at once, and the caller asked not to wait.
    WouldBlock,
    /// The kernel or file system cannot do it, and there is no safe other way.
    Unsupported,
    /// The target is not what the caller said it would be.
    Changed,
    /// The lease is another's: a higher fencing number was granted.
    Fenced,
    /// The lease's time is up; it can only be taken anew.
    Expired,
    /// Somebody who takes no claims has changed what a committed transaction was about to change, and nobody
    /// has decided yet what is to become of it.
    Conflict,
    /// The new content has not the length or hash that the caller announced.
    Mismatch,
    /// The caller's own reader, closure or callback failed.
    Source,
    /// The caller cancelled.
    Cancelled,
    /// An earlier write or sync of this handle failed: it can only be discarded.
    Poisoned,
    /// Data that was durable is damaged or missing.
    Corrupt,
    /// The process or the system has too many open files.
    TooManyFiles,
    /// A device error, or any other errno.
    Io,
}

impl ErrorKind {
    /// The kind that an errno stands for, outside path resolution (where `EXDEV` is an escape).
    #[must_use]
    pub fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::EXIST => Self::AlreadyExists,
            Errno::PERM | Errno::ACCESS => Self::PermissionDenied,
            Errno::NOTDIR => Self::NotADirectory,
            Errno::ISDIR => Self::IsADirectory,
            Errno::NOTEMPTY => Self::DirectoryNotEmpty,
            Errno::XDEV => Self::CrossDevice,
            Errno::LOOP => Self::SymlinkLoop,
            Errno::INVAL | Errno::ILSEQ => Self::InvalidInput,
            Errno::NAMETOOLONG => Self::NameTooLong,
            Errno::NOSPC => Self::StorageFull,
            Errno::DQUOT => Self::QuotaExceeded,
            Errno::ROFS => Self::ReadOnly,
            Errno::BUSY | Errno::TXTBSY => Self::Busy,
            Errno::AGAIN => Self::WouldBlock,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::Unsupported,
            Errno::MFILE | Errno::NFILE => Self::TooManyFiles,
            _ => Self::Io,
        }
    }

    fn io(self) -> std::io::ErrorKind {
        use std::io::ErrorKind as K;
        match self {
            Self::NotFound => K::NotFound,
            Self::AlreadyExists => K::AlreadyExists,
            Self::PermissionDenied | Self::Escape => K::PermissionDenied,
            Self::NotADirectory => K::NotADirectory,
            Self::IsADirectory => K::IsADirectory,
            Self::DirectoryNotEmpty => K::DirectoryNotEmpty,
            Self::CrossDevice | Self::LowerLayer => K::CrossesDevices,
            Self::InvalidInput | Self::NotAFile => K::InvalidInput,
            Self::NameTooLong => K::InvalidFilename,
            Self::StorageFull => K::StorageFull,
            Self::QuotaExceeded => K::QuotaExceeded,
            Self::ReadOnly => K::ReadOnlyFilesystem,
            Self::Busy => K::ResourceBusy,
            Self::WouldBlock => K::WouldBlock,
            Self::Unsupported => K::Unsupported,
            Self::Mismatch | Self::Corrupt => K::InvalidData,
            // Cancelled too: `K::Interrupted` is what loops that read and write take for "try again".
            _ => K::Other,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "it does not exist",
            Self::AlreadyExists => "the name is taken",
            Self::PermissionDenied => "permission denied",
            Self::NotADirectory => "not a directory",
            Self::IsADirectory => "it is a directory",
            Self::NotAFile => "it is not a regular file",
            Self::DirectoryNotEmpty => "the directory is not empty",
            Self::Escape => "the path leads out of its root",
            Self::CrossDevice => "the names are not on one file system",
            Self::LowerLayer => "the directory is in a lower overlayfs layer",
            Self::SymlinkLoop => "too many symlinks, or one where none is allowed",
            Self::InvalidInput => "invalid argument",
            Self::NameTooLong => "the name is too long",
            Self::StorageFull => "the disk is full",
            Self::QuotaExceeded => "the quota is used up",
            Self::ReadOnly => "the file system is read-only",
            Self::Busy => "it is in use",
            Self::WouldBlock => "it would have to wait",
            Self::Unsupported => "not supported here",
            Self::Changed => "it is not what was expected",
            Self::Fenced => "the lease went to a later holder",
            Self::Expired => "the lease's time is up",
            Self::Conflict => "it was changed by somebody else as well",
            Self::Mismatch => "the content is not what was announced",
            Self::Source => "the source of the content failed",
            Self::Cancelled => "cancelled",
            Self::Poisoned => "an earlier write failed",
            Self::Corrupt => "data is damaged",
            Self::TooManyFiles => "too many open files",
            Self::Io => "input/output error",
        }
    }
}

/// A failed operation: what was tried, on which path, the errno, what state the disk is in, what to do next.
///
/// Its text is one line with all of this. Only what the caller's own reader, closure or callback gave
/// is not in it: that is the [`source`](std::error::Error::source), whose text a reporter that prints
/// the chain (as `{:#}` of anyhow) puts after this one's.
///
/// It converts into [`std::io::Error`] with the matching kind and itself inside, so that
/// [`Error::of`] finds it (and its errno) again; the source stays the source.
///
/// ```
/// use std::{error::Error as _, io};
/// use steadfast::{ErrorKind, Root, publish::FileOptions};
/// # let dir = tempfile::tempdir()?;
/// let root = Root::open(dir.path())?;
/// let failed = FileOptions::new().write_with(&root, "list", |_| Err(io::Error::other("no more lines")));
///
/// let error = failed.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Source);
/// assert!(!error.to_string().contains("no more lines"));
/// assert_eq!(error.source().unwrap().to_string(), "no more lines");
///
/// let error = io::Error::from(error);
/// assert_eq!(steadfast::Error::of(&error).unwrap().kind(), ErrorKind::Source);
/// assert_eq!(error.source().unwrap().to_string(), "no more lines");
/// # Ok::<(), io::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    operation: &'static str,
    kind: ErrorKind,
    state: DiskState,
    path: Option<PathBuf>,
    other: Option<PathBuf>,
    call: Option<&'static str>,
    errno: Option<Errno>,
    advice: Option<Cow<'static, str>>,
    /// What this crate knows further: a part of the text.
    detail: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What the caller's own code gave: no part of the text.
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    left: Vec<PathBuf>,
}

impl Error {
    /// From an errno of a system call, with nothing changed.
    #[cold]
    pub(crate) fn new(operation: &'static str, call: &'static str, errno: Errno) -> Self {
        let mut error = Self::of_kind(operation, ErrorKind::from_errno(errno));
        error.0.call = Some(call);
        error.0.errno = Some(errno);
        error
    }

    /// Without an errno, with nothing changed.
    #[cold]
    pub(crate) fn of_kind(operation: &'static str, kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            operation,
            kind,
            state: DiskState::Unchanged,
            path: None,
            other: None,
            call: None,
            errno: None,
            advice: None,
            detail: None,
            source: None,
            left: Vec::new(),
        }))
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = operation;
        self
    }

    pub(crate) fn with_state(mut self, state: DiskState) -> Self {
        self.0.state = state;
        self
    }

    pub(crate) fn with_path(mut self, path: impl AsRef<OsStr>) -> Self {
        self.0.path = Some(PathBuf::from(path.as_ref()));
        self
    }

    /// Names the path, unless the error has one already.
    pub(crate) fn with_default_path(self, path: impl AsRef<OsStr>) -> Self {
        if self.0.path.is_some() {
            self
        } else {
            self.with_path(path)
        }
    }

    pub(crate) fn with_other(mut self, path: impl AsRef<OsStr>) -> Self {
        self.0.other = Some(PathBuf::from(path.as_ref()));
        self
    }

    pub(crate) fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// What this crate knows further, as words or as a value of its own.
    pub(crate) fn with_detail(
        mut self,
        detail: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// An error of the caller's own code.
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_left(mut self, path: impl AsRef<OsStr>) -> Self {
        self.0.left.push(PathBuf::from(path.as_ref()));
        self
    }

    /// The same failure as another operation met it, with nothing changed. The detail is words in it.
    pub(crate) fn met_by(&self, operation: &'static str) -> Self {
        let mut error = Self::of_kind(operation, self.kind());
        error.0.path.clone_from(&self.0.path);
        error.0.call = self.0.call;
        error.0.errno = self.0.errno;
        match self.detail() {
            Some(detail) => error.with_detail(detail.to_string()),
            None => error,
        }
    }

    /// The error of this crate inside an [`std::io::Error`] that one was converted into.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What was tried, such as `"replace file"`.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The kind, to decide by.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the disk looks like now.
    #[must_use]
    pub fn disk_state(&self) -> DiskState {
        self.0.state
    }

    /// The path that the operation was about, as the caller gave it.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The second path, of an operation that has two.
    #[must_use]
    pub fn other_path(&self) -> Option<&Path> {
        self.0.other.as_deref()
    }

    /// The same error with each of its paths (the path, the other path, what is left behind, in this order)
    /// replaced by what `f` makes of it.
    ///
    /// A [`Root`](crate::Root) does not know its own name; a caller who does can give its users the paths as
    /// they know them.
    #[must_use]
    pub fn map_paths(mut self, mut f: impl FnMut(&Path) -> PathBuf) -> Self {
        let e = &mut *self.0;
        for path in e.path.iter_mut().chain(&mut e.other).chain(&mut e.left) {
            *path = f(path);
        }
        self
    }

    /// The system call that failed, such as `"fsync"`.
    #[must_use]
    pub fn system_call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// The kernel's errno.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// The errno as a number, as [`std::io::Error::raw_os_error`] gives it.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.errno.map(Errno::raw_os_error)
    }

    /// What to do next, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// What this crate knows further, as a value: such as a [`Damage`](crate::journal::Damage) or a lease's
    /// [`Holder`](crate::lease::Holder), found by `downcast_ref`; else words.
    ///
    /// It is a part of the error's text already. What the caller's own reader, closure or callback gave is no
    /// part of it, and is the [`source`](std::error::Error::source).
    #[must_use]
    pub fn detail(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.0.detail.as_deref()
    }

    /// Temporary names that could not be removed after the failure;
    /// [`sweep`](crate::publish::sweep) removes them later.
    #[must_use]
    pub fn left_behind(&self) -> &[PathBuf] {
        &self.0.left
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        write!(f, "cannot {}", e.operation)?;
        if let Some(path) = &e.path {
            write!(f, " {path:?}")?;
        }
        if let Some(other) = &e.other {
            write!(f, " -> {other:?}")?;
        }
        f.write_str(": ")?;
        match e.errno {
            Some(errno) => {
                // The kind says more than strerror where this crate has given it a meaning of its own.
                if e.kind == ErrorKind::from_errno(errno) {
                    let text = std::io::Error::from(errno).to_string();
                    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
                    f.write_str(&text)?;
                } else {
                    f.write_str(e.kind.words())?;
                }
                let name = errno_name(errno).map_or_else(
                    || Cow::from(format!("errno {}", errno.raw_os_error())),
                    Cow::from,
                );
                match e.call {
                    Some(call) => write!(f, " ({name} from {call})")?,
                    None => write!(f, " ({name})")?,
                }
            }
            None => f.write_str(e.kind.words())?,
        }
        if let Some(detail) = &e.detail {
            write!(f, ": {detail}")?;
        }
        write!(f, "; {}", e.state)?;
        for path in &e.left {
            write!(f, "; left behind: {path:?}")?;
        }
        if let Some(advice) = &e.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &*self.0;
        f.debug_struct("Error")
            .field("operation", &e.operation)
            .field("kind", &e.kind)
            .field("disk_state", &e.state)
            .field("path", &e.path)
            .field("other_path", &e.other)
            .field("system_call", &e.call)
            .field("errno", &e.errno.map(|n| errno_name(n).unwrap_or("?")))
            .field("advice", &e.advice)
            .field("detail", &e.detail)
            .field("source", &e.source)
            .field("left_behind", &e.left)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// An error with all its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind().io(), error)
    }
}
