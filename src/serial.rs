//! How reports, plans and errors are written by serde: what its own rules have no good answer for.
//!
//! Paths and names are any bytes. Those that are UTF-8 are strings; another is an object with `path`, which
//! can be read, and `path_bytes_hex`, which is exact.

use crate::sys::{Errno, Gid, Metadata, Mode, Timespec, Uid, errno_name};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Any bytes, of which most are text.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> From<&'a Path> for Bytes<'a> {
    fn from(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        if let Ok(text) = std::str::from_utf8(self.0) {
            return to.serialize_str(text);
        }
        let mut hex = String::with_capacity(self.0.len() * 2);
        for byte in self.0 {
            write!(hex, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        let mut object = to.serialize_struct("Bytes", 2)?;
        object.serialize_field("path", &String::from_utf8_lossy(self.0))?;
        object.serialize_field("path_bytes_hex", &hex)?;
        object.end()
    }
}

pub(crate) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    Bytes::from(path).serialize(to)
}

pub(crate) fn paths<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| Bytes::from(path.as_path())))
}

pub(crate) fn path_option<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(Bytes::from).serialize(to)
}

/// Paths as bytes, of which an empty one is the root.
pub(crate) fn raw_paths<S: Serializer>(paths: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| match path.as_slice() {
        b"" => Bytes(b"."),
        path => Bytes(path),
    }))
}

pub(crate) fn os_str<S: Serializer>(text: &OsString, to: S) -> Result<S::Ok, S::Error> {
    Bytes(OsStr::as_bytes(text)).serialize(to)
}

/// An errno by its name.
pub(crate) fn errno<S: Serializer>(errno: &Errno, to: S) -> Result<S::Ok, S::Error> {
    match errno_name(*errno) {
        Some(name) => to.serialize_str(name),
        None => to.collect_str(&format_args!("errno {}", errno.raw_os_error())),
    }
}

pub(crate) fn mode<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(mode.bits())
}

pub(crate) fn uid<S: Serializer>(uid: &Uid, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(uid.as_raw())
}

pub(crate) fn gid<S: Serializer>(gid: &Gid, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u32(gid.as_raw())
}

/// What a thing is, in a word.
pub(crate) fn file_type<S: Serializer>(
    kind: &crate::sys::FileType,
    to: S,
) -> Result<S::Ok, S::Error> {
    use crate::sys::FileType as F;
    to.serialize_str(match kind {
        F::RegularFile => "file",
        F::Directory => "dir",
        F::Symlink => "symlink",
        F::Fifo => "fifo",
        F::Socket => "socket",
        F::CharacterDevice => "character_device",
        F::BlockDevice => "block_device",
        F::Unknown => "unknown",
    })
}

/// A moment as serde writes one, but for those before 1970, which it refuses: here seconds may be negative.
struct Moment {
    secs: i64,
    nanos: u32,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let secs = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self {
                secs: secs(after),
                nanos: after.subsec_nanos(),
            },
            Err(e) => match (secs(e.duration()), e.duration().subsec_nanos()) {
                (secs, 0) => Self {
                    secs: -secs,
                    nanos: 0,
                },
                (secs, nanos) => Self {
                    secs: -secs - 1,
                    nanos: 1_000_000_000 - nanos,
                },
            },
        }
    }

    fn of_timespec(time: Timespec) -> Self {
        Self {
            secs: time.tv_sec,
            nanos: u32::try_from(time.tv_nsec).unwrap_or(0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("SystemTime", 2)?;
        object.serialize_field("secs_since_epoch", &self.secs)?;
        object.serialize_field("nanos_since_epoch", &self.nanos)?;
        object.end()
    }
}

pub(crate) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    Moment::of(*time).serialize(to)
}

pub(crate) fn time_option<S: Serializer>(
    time: &Option<SystemTime>,
    to: S,
) -> Result<S::Ok, S::Error> {
    time.map(Moment::of).serialize(to)
}

/// Facts about a file: those that everything has.
impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Kind(crate::sys::FileType);
        impl Serialize for Kind {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                file_type(&self.0, to)
            }
        }
        let mut object = to.serialize_struct("Metadata", 10)?;
        object.serialize_field("id", &self.id())?;
        object.serialize_field("kind", &Kind(self.kind()))?;
        object.serialize_field("mode", &self.mode().bits())?;
        object.serialize_field("uid", &self.uid().as_raw())?;
        object.serialize_field("gid", &self.gid().as_raw())?;
        object.serialize_field("links", &self.links())?;
        object.serialize_field("len", &self.len())?;
        object.serialize_field("atime", &Moment::of_timespec(self.atime()))?;
        object.serialize_field("mtime", &Moment::of_timespec(self.mtime()))?;
        object.serialize_field("ctime", &Moment::of_timespec(self.ctime()))?;
        object.end()
    }
}

impl Serialize for crate::Error {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Named(Errno);
        impl Serialize for Named {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                errno(&self.0, to)
            }
        }
        let left: Vec<_> = self
            .left_behind()
            .iter()
            .map(|p| Bytes::from(&**p))
            .collect();
        let detail = self.detail().map(ToString::to_string);
        let source = std::error::Error::source(self).map(crate::error::chain);
        let mut object = to.serialize_struct("Error", 12)?;
        object.serialize_field("message", &self.to_string())?;
        object.serialize_field("operation", self.operation())?;
        object.serialize_field("kind", &self.kind())?;
        object.serialize_field("disk_state", &self.disk_state())?;
        object.serialize_field("path", &self.path().map(Bytes::from))?;
        object.serialize_field("other_path", &self.other_path().map(Bytes::from))?;
        object.serialize_field("system_call", &self.system_call())?;
        object.serialize_field("errno", &self.errno().map(Named))?;
        object.serialize_field("detail", &detail)?;
        object.serialize_field("source", &source)?;
        object.serialize_field("advice", &self.advice())?;
        object.serialize_field("left_behind", &left)?;
        object.end()
    }
}

impl Serialize for crate::Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Bytes(self.as_bytes()).serialize(to)
    }
}

impl Serialize for crate::root::Capabilities {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Answers<'a>(&'a crate::root::Capabilities);
        impl Serialize for Answers<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_map(self.0.iter().map(|(feature, can)| (feature.name(), can)))
            }
        }
        let mut object = to.serialize_struct("Capabilities", 4)?;
        object.serialize_field("file_system", self.file_system().name())?;
        object.serialize_field("read_only", &self.is_read_only())?;
        object.serialize_field("mount_id", &self.mount_id())?;
        object.serialize_field("features", &Answers(self))?;
        object.end()
    }
}

impl Serialize for crate::workspace::Conflict {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("Conflict", 6)?;
        object.serialize_field("id", &self.id())?;
        object.serialize_field("transaction", &self.transaction())?;
        object.serialize_field("path", &Bytes::from(self.path()))?;
        object.serialize_field("label", &self.label())?;
        object.serialize_field("ours", &self.ours())?;
        object.serialize_field("theirs", &self.theirs())?;
        object.end()
    }
}

impl Serialize for crate::workspace::ConflictId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for crate::lease::Holder {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("Holder", 5)?;
        object.serialize_field("fence", &self.fence())?;
        object.serialize_field("mode", &self.mode())?;
        object.serialize_field("pid", &self.pid())?;
        object.serialize_field("label", &Bytes(self.label()))?;
        object.serialize_field("since", &Moment::of(self.since()))?;
        object.end()
    }
}

impl Serialize for crate::lease::LeaseInfo {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("LeaseInfo", 4)?;
        object.serialize_field("name", &Bytes(self.name()))?;
        object.serialize_field("fence", &self.fence())?;
        object.serialize_field("holder", &self.holder())?;
        object.serialize_field("state", &self.state())?;
        object.end()
    }
}

impl Serialize for crate::publish::SweepReport {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Left<'a>(&'a (PathBuf, crate::publish::Kept));
        impl Serialize for Left<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut object = to.serialize_struct("Left", 2)?;
                object.serialize_field("path", &Bytes::from(self.0.0.as_path()))?;
                object.serialize_field("why", &self.0.1)?;
                object.end()
            }
        }
        let removed: Vec<_> = self.removed().iter().map(|p| Bytes::from(&**p)).collect();
        let kept: Vec<_> = self.kept().iter().map(Left).collect();
        let mut object = to.serialize_struct("SweepReport", 2)?;
        object.serialize_field("removed", &removed)?;
        object.serialize_field("kept", &kept)?;
        object.end()
    }
}
