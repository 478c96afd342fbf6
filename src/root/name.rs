//! One checked path component.

use crate::sys::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// One path component: any bytes but `/` and NUL, not empty, not `.` and not `..`.
///
/// Every change is made on a directory descriptor and a `Name`, so that nothing is left for the kernel to
/// resolve. Its length is the file system's business.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(CString);

impl Name {
    /// Checks a component.
    ///
    /// # Errors
    /// `ENOENT` when empty; `EINVAL` with a NUL, a slash, or for `.` and `..`.
    pub fn new(name: impl AsRef<OsStr>) -> Result<Self, Errno> {
        Self::from_bytes(name.as_ref().as_bytes())
    }

    pub(crate) fn from_bytes(name: &[u8]) -> Result<Self, Errno> {
        check(name)?;
        CString::new(name).map(Self).map_err(|_| Errno::INVAL)
    }

    /// [`from_bytes`](Self::from_bytes), in the same memory if there is room for a NUL.
    pub(crate) fn from_vec(name: Vec<u8>) -> Result<Self, Errno> {
        check(&name)?;
        CString::new(name).map(Self).map_err(|_| Errno::INVAL)
    }

    /// From a directory's own listing, which holds neither `.` nor `..` nor a slash.
    pub(crate) fn from_entry(name: &CStr) -> Result<Self, Errno> {
        Self::from_bytes(name.to_bytes())
    }

    /// As a C string.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// As an [`OsStr`].
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(self.0.as_bytes())
    }

    /// As bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// All but NUL, which is found when it becomes a C string.
fn check(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(Errno::NOENT),
        b"." | b".." => Err(Errno::INVAL),
        _ if name.contains(&b'/') => Err(Errno::INVAL),
        _ => Ok(()),
    }
}

impl AsRef<OsStr> for Name {
    fn as_ref(&self) -> &OsStr {
        self.as_os_str()
    }
}

impl AsRef<std::path::Path> for Name {
    fn as_ref(&self) -> &std::path::Path {
        self.as_os_str().as_ref()
    }
}

impl AsRef<CStr> for Name {
    fn as_ref(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_os_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_are_names() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a/", b"a\0b"] {
            assert!(Name::from_bytes(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".a", b"\xff\xfe", b"a b\n"] {
            assert_eq!(
                Name::from_bytes(good).map(|n| n.as_bytes().to_vec()),
                Ok(good.to_vec())
            );
        }
    }
}
