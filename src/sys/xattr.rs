//! Extended attributes of open files. See xattr(7).

use super::{Arg, AsFd, Errno, Result, XattrFlags, retry};
use std::ffi::CString;

/// fgetxattr(2): the value, whatever its size; `None` if the attribute does not exist.
///
/// One call for values up to 512 bytes, more when the value is larger or grows meanwhile.
///
/// # Errors
/// As fgetxattr(2). `EOPNOTSUPP`: no such attributes here.
pub fn fgetxattr(fd: impl AsFd, name: impl Arg) -> Result<Option<Vec<u8>>> {
    name.into_with_c_str(|name| {
        value(|buf| {
            retry("fgetxattr", || {
                rustix::fs::fgetxattr(fd.as_fd(), name, &mut *buf)
            })
        })
    })
}

fn value(read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Option<Vec<u8>>> {
    match grow(read) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(e),
    }
}

/// getxattr(2): as [`fgetxattr`], of a path; a symlink is followed.
///
/// # Errors
/// As getxattr(2). `EOPNOTSUPP`: no such attributes here.
pub fn getxattr(path: impl Arg, name: impl Arg) -> Result<Option<Vec<u8>>> {
    path.into_with_c_str(|path| {
        name.into_with_c_str(|name| {
            value(|buf| retry("getxattr", || rustix::fs::getxattr(path, name, &mut *buf)))
        })
    })
}

/// fsetxattr(2).
///
/// # Errors
/// As setxattr(2). `ENOSPC`, `E2BIG`, `EFBIG`: too large here.
pub fn fsetxattr(fd: impl AsFd, name: impl Arg, value: &[u8], flags: XattrFlags) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("fsetxattr", || {
            rustix::fs::fsetxattr(fd.as_fd(), name, value, flags)
        })
    })
}

/// fremovexattr(2).
///
/// # Errors
/// As removexattr(2). `ENODATA`: there is none of that name.
pub fn fremovexattr(fd: impl AsFd, name: impl Arg) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("fremovexattr", || {
            rustix::fs::fremovexattr(fd.as_fd(), name)
        })
    })
}

/// flistxattr(2): the names of all attributes.
///
/// # Errors
/// As listxattr(2). `EOPNOTSUPP`: no attributes here.
pub fn flistxattr(fd: impl AsFd) -> Result<Vec<CString>> {
    let list = grow(|buf| {
        retry("flistxattr", || {
            rustix::fs::flistxattr(fd.as_fd(), &mut *buf)
        })
    })?;
    Ok(list
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        // Split at NULs, so that no part holds one.
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

/// Calls with a larger and larger buffer while the answer is `ERANGE`. The kernel's limit for both values
/// and lists is 64 KiB (xattr(7)).
fn grow(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buf = vec![0; 512];
    loop {
        match read(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            Err(Errno::RANGE) if buf.len() < (1 << 20) => buf.resize(buf.len() * 8, 0),
            Err(e) => return Err(e),
        }
    }
}
