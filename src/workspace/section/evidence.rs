//! What was seen of a path at a moment: for people, and for programs that compare.

use crate::sys::{FileType, Gid, Mode, Uid};
use crate::workspace::decode::{Nonsense, Reader};
use crate::workspace::encode::Writer;
use crate::workspace::identity::Stamp;
use crate::{Error, ErrorKind, Result, Root};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const OP: &str = "take evidence";

/// Facts about one path, taken by [`Section::evidence`](super::Section::evidence).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Evidence {
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub(super) path: PathBuf,
    pub(super) seen: Option<Seen>,
}

/// Facts about what was at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Seen {
    /// What it is.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::file_type"))]
    pub kind: FileType,
    /// Length in bytes.
    pub len: u64,
    /// Permission bits, set-user-id and the like included.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::mode"))]
    pub mode: Mode,
    /// Owner.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::uid"))]
    pub uid: Uid,
    /// Group.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::gid"))]
    pub gid: Gid,
    /// Last change of content.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::time"))]
    pub modified: SystemTime,
    /// Inode number.
    pub inode: u64,
    /// SHA-256 of the content of a regular file, if it was asked for (feature `sha256`).
    pub sha256: Option<[u8; 32]>,
}

impl Evidence {
    /// The path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was there; `None`: nothing.
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }
}

pub(super) fn take(root: &Root, path: &Path, with_hash: bool) -> Result<Evidence> {
    let meta = match root.symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Evidence {
                path: path.to_owned(),
                seen: None,
            });
        }
        Err(e) => return Err(e.with_operation(OP)),
    };
    let sha256 = match with_hash {
        true if meta.is_file() => Some(hash(root, path)?),
        _ => None,
    };
    let modified = meta.mtime();
    Ok(Evidence {
        path: path.to_owned(),
        seen: Some(Seen {
            kind: meta.kind(),
            len: meta.len(),
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            modified: time((
                modified.tv_sec,
                u32::try_from(modified.tv_nsec).unwrap_or_default(),
            )),
            inode: meta.id().ino,
            sha256,
        }),
    })
}

/// A point in time, which may be before the epoch.
fn time((seconds, nanos): Stamp) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    start
        .and_then(|start| start.checked_add(Duration::from_nanos(nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

fn stamp(time: SystemTime) -> Stamp {
    let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (whole(after), after.subsec_nanos()),
        Err(e) => match e.duration() {
            before if before.subsec_nanos() == 0 => (-whole(before), 0),
            before => (-whole(before) - 1, 1_000_000_000 - before.subsec_nanos()),
        },
    }
}

#[cfg(feature = "sha256")]
fn hash(root: &Root, path: &Path) -> Result<[u8; 32]> {
    use crate::sys::{self, OFlags};
    use sha2::Digest;
    let fail = |call| move |e| Error::new(OP, call, e).with_path(path);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = root
        .open_raw(path.as_os_str().as_bytes(), flags, Mode::empty())
        .map_err(fail("openat2"))?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match sys::read(&fd, &mut buffer).map_err(fail("read"))? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(not(feature = "sha256"))]
fn hash(_: &Root, path: &Path) -> Result<[u8; 32]> {
    Err(Error::of_kind(OP, ErrorKind::Unsupported)
        .with_path(path)
        .with_detail("hashes need the feature sha256"))
}

pub(super) fn put(w: &mut Writer, evidence: &Evidence) {
    w.bytes(evidence.path.as_os_str().as_bytes());
    w.option(evidence.seen.as_ref(), |w, seen| {
        w.u32(seen.kind.as_raw_mode());
        w.u64(seen.len);
        w.u32(seen.mode.as_raw_mode());
        w.u32(seen.uid.as_raw());
        w.u32(seen.gid.as_raw());
        w.stamp(stamp(seen.modified));
        w.u64(seen.inode);
        w.option(seen.sha256, |w, hash| w.out.extend_from_slice(&hash));
    });
}

pub(super) fn get(r: &mut Reader<'_>) -> std::result::Result<Evidence, Nonsense> {
    Ok(Evidence {
        path: OsString::from_vec(r.bytes()?).into(),
        seen: r.option(|r| {
            Ok(Seen {
                kind: FileType::from_raw_mode(r.u32()?),
                len: r.u64()?,
                mode: Mode::from_raw_mode(r.u32()?),
                uid: Uid::from_raw(r.u32()?),
                gid: Gid::from_raw(r.u32()?),
                modified: time(r.stamp()?),
                inode: r.u64()?,
                sha256: r.option(Reader::array)?,
            })
        })?,
    })
}
