//! Errno values and their names.

pub use rustix::io::Errno;

/// The symbolic name of an errno, such as `"ENOSPC"`; `None` for a number that has none here.
///
/// ```
/// use steadfast::sys::{Errno, errno_name};
/// assert_eq!(errno_name(Errno::NOSPC), Some("ENOSPC"));
/// ```
///
/// Source: errno(3).
#[must_use]
pub fn errno_name(errno: Errno) -> Option<&'static str> {
    NAMES.iter().find(|(e, _)| *e == errno).map(|(_, n)| *n)
}

/// The errno with this symbolic name.
#[cfg(feature = "_hook")]
pub(crate) fn errno_from_name(name: &str) -> Option<Errno> {
    NAMES.iter().find(|(_, n)| *n == name).map(|(e, _)| *e)
}

const NAMES: &[(Errno, &str)] = &[
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::INTR, "EINTR"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::FAULT, "EFAULT"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::XDEV, "EXDEV"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NOTTY, "ENOTTY"),
    (Errno::TXTBSY, "ETXTBSY"),
    (Errno::FBIG, "EFBIG"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::SPIPE, "ESPIPE"),
    (Errno::ROFS, "EROFS"),
    (Errno::MLINK, "EMLINK"),
    (Errno::PIPE, "EPIPE"),
    (Errno::RANGE, "ERANGE"),
    (Errno::DEADLK, "EDEADLK"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::NOLCK, "ENOLCK"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOTEMPTY, "ENOTEMPTY"),
    (Errno::LOOP, "ELOOP"),
    (Errno::NODATA, "ENODATA"),
    (Errno::NOLINK, "ENOLINK"),
    (Errno::PROTO, "EPROTO"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    (Errno::ILSEQ, "EILSEQ"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::ALREADY, "EALREADY"),
    (Errno::STALE, "ESTALE"),
    (Errno::UCLEAN, "EUCLEAN"),
    (Errno::REMOTEIO, "EREMOTEIO"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::NOMEDIUM, "ENOMEDIUM"),
    (Errno::MEDIUMTYPE, "EMEDIUMTYPE"),
    (Errno::CANCELED, "ECANCELED"),
    (Errno::NOKEY, "ENOKEY"),
];
