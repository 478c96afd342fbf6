//! Mode, owner, access list, extended attributes and times: what is kept of a replaced file, and the order in
//! which a new one gets them.
//!
//! The order is owner, mode, access list and attributes, times. chown(2) clears set-user-id, so the mode
//! comes after it; the access list's mask becomes the group bits, so those are narrow until the list is
//! there. All of it is done before the file is synced and long before it has its name, so that an error
//! means "not replaced".

use super::Note;
use crate::Name;
use crate::sys::{
    self, AsFd, AtFlags, BorrowedFd, Errno, Gid, Metadata, Mode, OFlags, OwnedFd, Rights, Uid,
    XattrFlags,
};
use crate::sys::{Timespec, Timestamps, UTIME_OMIT};
use crate::tree::acl;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// What a new file takes over from the file that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Preserve {
    pub(super) mode: bool,
    pub(super) owner: bool,
    pub(super) xattrs: bool,
    pub(super) times: bool,
    pub(super) required: bool,
}

impl Default for Preserve {
    /// Mode, owner where permitted, access list and extended attributes where possible; not the times.
    fn default() -> Self {
        Self {
            mode: true,
            owner: true,
            xattrs: true,
            times: false,
            required: false,
        }
    }
}

impl Preserve {
    /// Nothing: a replacing file is like a new one.
    pub const NOTHING: Self = Self {
        mode: false,
        owner: false,
        xattrs: false,
        times: false,
        required: false,
    };

    /// Permission bits, set-user-id and set-group-id included. Without this the umask decides.
    pub fn mode(mut self, on: bool) -> Self {
        self.mode = on;
        self
    }

    /// Owner and group.
    pub fn owner(mut self, on: bool) -> Self {
        self.owner = on;
        self
    }

    /// Extended attributes and the access control list.
    pub fn xattrs(mut self, on: bool) -> Self {
        self.xattrs = on;
        self
    }

    /// Access and modification time.
    pub fn times(mut self, on: bool) -> Self {
        self.times = on;
        self
    }

    /// Fail (`EPERM` and the like, nothing changed) rather than note what could not be kept.
    pub fn required(mut self, on: bool) -> Self {
        self.required = on;
        self
    }
}

/// What the caller asked for, whatever was there before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explicit {
    pub(crate) mode: Option<Mode>,
    pub(crate) uid: Option<Uid>,
    pub(crate) gid: Option<Gid>,
    pub(crate) atime: Option<Timespec>,
    pub(crate) mtime: Option<Timespec>,
    pub(crate) xattrs: Vec<(CString, Vec<u8>)>,
}

impl Explicit {
    /// Nothing.
    pub(super) const NONE: Self = Self {
        mode: None,
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        xattrs: Vec::new(),
    };

    pub(super) fn is_none(&self) -> bool {
        let owner = self.uid.is_some() || self.gid.is_some();
        self.mode.is_none() && !owner && !self.has_times() && self.xattrs.is_empty()
    }

    pub(super) fn has_times(&self) -> bool {
        self.atime.is_some() || self.mtime.is_some()
    }
}

/// The replaced file's attributes.
#[derive(Debug)]
pub(crate) struct Old {
    pub(crate) meta: Metadata,
    xattrs: Vec<(CString, Vec<u8>)>,
    acl: Acl,
}

/// The access control list of a file.
#[derive(Debug, PartialEq, Eq)]
enum Acl {
    /// None but the mode.
    None,
    List(Vec<u8>),
    /// It could not be read.
    Unknown,
}

/// A failed step: the call and the errno.
pub(crate) type Failed = (&'static str, Errno);

impl Old {
    /// Whether mode and owner are those of this new file.
    pub(crate) fn is_like(&self, new: &Metadata) -> bool {
        let rights = |meta: &Metadata| (meta.mode(), meta.uid(), meta.gid());
        rights(&self.meta) == rights(new)
    }

    /// Whether there are extended attributes or a list to keep.
    pub(crate) fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty() || self.acl != Acl::None
    }

    /// With nothing to keep but mode, owner and times.
    fn bare(meta: Metadata) -> Self {
        Self {
            meta,
            xattrs: Vec::new(),
            acl: Acl::None,
        }
    }

    /// Reads what is to be kept of `name` in `dir`, which `meta` says is a regular file or a directory. If
    /// it was replaced meanwhile, of what is there now, as long as that is of the same kind (else `EAGAIN`).
    pub(crate) fn read(
        dir: impl AsFd,
        name: &Name,
        meta: Metadata,
        preserve: Preserve,
        notes: &mut Vec<Note>,
    ) -> Result<Self, Failed> {
        let mut old = Self::bare(meta);
        if !preserve.xattrs {
            // Without the list the mode's group bits may be its mask and not the group's right.
            if preserve.mode {
                old.acl = Acl::Unknown;
            } else {
                return Ok(old);
            }
        }
        let Some(fd) = old.open(dir, name, preserve)? else {
            return Ok(old);
        };
        old.meta = sys::statx(&fd, c"", AtFlags::EMPTY_PATH).map_err(|e| ("statx", e))?;
        if old.meta.kind() != meta.kind() {
            return Err(("openat", Errno::AGAIN));
        }
        old.read_xattrs(&fd, preserve, notes)?;
        Ok(old)
    }

    /// [`read`](Self::read) for who looks later whether what is replaced is still what `meta` is about, and
    /// does nothing if not. One call less.
    pub(crate) fn read_of(
        dir: impl AsFd,
        name: &Name,
        meta: Metadata,
        notes: &mut Vec<Note>,
    ) -> Result<Self, Failed> {
        let mut old = Self::bare(meta);
        let preserve = Preserve::default();
        if let Some(fd) = old.open(dir, name, preserve)? {
            old.read_xattrs(&fd, preserve, notes)?;
        }
        Ok(old)
    }

    /// Opens it; `None`: it may not be read, and need not.
    fn open(
        &mut self,
        dir: impl AsFd,
        name: &Name,
        preserve: Preserve,
    ) -> Result<Option<OwnedFd>, Failed> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match sys::openat(dir, name.as_c_str(), flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ACCESS | Errno::PERM) if !preserve.required => {
                self.acl = Acl::Unknown;
                Ok(None)
            }
            Err(e) => Err(("openat", e)),
        }
    }

    fn read_xattrs(
        &mut self,
        fd: &OwnedFd,
        preserve: Preserve,
        notes: &mut Vec<Note>,
    ) -> Result<(), Failed> {
        let names = match sys::flistxattr(fd) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Vec::new(),
            Err(e) => return Err(("flistxattr", e)),
        };
        self.acl = Acl::None;
        for name in names {
            let is_acl = name.as_c_str() == acl::ACCESS;
            if is_of_content(&name) || acl::is_alias(&name) || !(is_acl || preserve.xattrs) {
                continue;
            }
            match sys::fgetxattr(fd, name.as_c_str()) {
                Ok(Some(value)) if is_acl => self.acl = Acl::List(value),
                Ok(Some(value)) => self.xattrs.push((name, value)),
                Ok(None) => {}
                Err(e) if preserve.required => return Err(("fgetxattr", e)),
                Err(_) if is_acl => self.acl = Acl::Unknown,
                Err(_) => notes.push(not_kept(&name)),
            }
        }
        Ok(())
    }
}

/// Attributes that vouch for content, and so are wrong for other content (evm(7), IMA).
fn is_of_content(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"security.ima" | b"security.evm")
}

fn not_kept(name: &CStr) -> Note {
    Note::AttributeNotKept(OsStr::from_bytes(name.to_bytes()).to_owned())
}

/// Gives the new file, which was made with the rights `new`, its attributes.
pub(crate) fn apply(
    fd: BorrowedFd<'_>,
    new: Rights,
    old: Option<&Old>,
    preserve: Preserve,
    explicit: &Explicit,
    notes: &mut Vec<Note>,
) -> Result<(), Failed> {
    let kept = apply_owner(fd, new, old, preserve, explicit, notes)?;
    apply_mode(fd, new, old, preserve, explicit, kept, notes)?;
    if let Some(old) = old.filter(|_| preserve.xattrs) {
        for (name, value) in &old.xattrs {
            match sys::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(e) if preserve.required => return Err(("fsetxattr", e)),
                Err(_) => notes.push(not_kept(name)),
            }
        }
    }
    for (name, value) in &explicit.xattrs {
        // Nothing, or what had a NUL byte in it.
        if name.is_empty() {
            return Err(("fsetxattr", Errno::INVAL));
        }
        sys::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty())
            .map_err(|e| ("fsetxattr", e))?;
    }
    let old_times = old
        .filter(|_| preserve.times)
        .map(|o| (o.meta.atime(), o.meta.mtime()));
    if explicit.has_times() || old_times.is_some() {
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: explicit.atime.or(old_times.map(|t| t.0)).unwrap_or(omit),
            last_modification: explicit.mtime.or(old_times.map(|t| t.1)).unwrap_or(omit),
        };
        sys::futimens(fd, &times).map_err(|e| ("futimens", e))?;
    }
    Ok(())
}

/// Whether the new file has the replaced file's owner and group.
#[derive(Clone, Copy)]
struct Kept {
    owner: bool,
    group: bool,
}

fn apply_owner(
    fd: BorrowedFd<'_>,
    new: Rights,
    old: Option<&Old>,
    preserve: Preserve,
    explicit: &Explicit,
    notes: &mut Vec<Note>,
) -> Result<Kept, Failed> {
    if explicit.uid.is_some() || explicit.gid.is_some() {
        sys::fchown(fd, explicit.uid, explicit.gid).map_err(|e| ("fchown", e))?;
    }
    // What the file has now.
    let mut uid = explicit.uid.unwrap_or(new.uid());
    let mut gid = explicit.gid.unwrap_or(new.gid());
    let Some(old) = old else {
        return Ok(Kept {
            owner: true,
            group: true,
        });
    };
    let want_uid = (preserve.owner && explicit.uid.is_none()).then_some(old.meta.uid());
    let want_gid = (preserve.owner && explicit.gid.is_none()).then_some(old.meta.gid());
    let want_uid = want_uid.filter(|u| *u != uid);
    let want_gid = want_gid.filter(|g| *g != gid);
    if want_uid.is_some() || want_gid.is_some() {
        match sys::fchown(fd, want_uid, want_gid) {
            Ok(()) => {
                uid = want_uid.unwrap_or(uid);
                gid = want_gid.unwrap_or(gid);
            }
            Err(e) if preserve.required => return Err(("fchown", e)),
            // An owner may give a file to any group of theirs, though not to another owner.
            Err(_) if want_uid.is_some() && want_gid.is_some() => {
                if sys::fchown(fd, None, want_gid).is_ok() {
                    gid = want_gid.unwrap_or(gid);
                }
            }
            Err(_) => {}
        }
        if want_uid.is_some_and(|w| w != uid) {
            notes.push(Note::OwnerNotKept);
        }
        if want_gid.is_some_and(|w| w != gid) {
            notes.push(Note::GroupNotKept);
        }
    }
    // A caller who names an owner has decided who the rights are for.
    Ok(Kept {
        owner: explicit.uid.is_some() || uid == old.meta.uid(),
        group: explicit.gid.is_some() || gid == old.meta.gid(),
    })
}

fn apply_mode(
    fd: BorrowedFd<'_>,
    new: Rights,
    old: Option<&Old>,
    preserve: Preserve,
    explicit: &Explicit,
    kept: Kept,
    notes: &mut Vec<Note>,
) -> Result<(), Failed> {
    let chmod = |mode| sys::fchmod(fd, mode).map_err(|e| ("fchmod", e));
    if let Some(mode) = explicit.mode {
        return chmod(mode);
    }
    let Some(old) = old.filter(|_| preserve.mode) else {
        return Ok(());
    };
    let was = old.meta.mode().as_raw_mode();
    let mut mode = acl::permitted(was, kept.owner, kept.group);
    let (others, list) = (mode & 0o7, &old.acl);
    // Where there is a list, or may be one, the mode's group bits are its mask.
    let group = match list {
        Acl::None => 7,
        Acl::List(acl) => acl::group_rights(acl).unwrap_or(0),
        Acl::Unknown => others,
    };
    mode &= !0o070 | group << 3;
    acl::drop_inherited(fd, new.is_dir())?;
    if mode != new.mode().as_raw_mode() {
        chmod(Mode::from_raw_mode(mode))?;
    }
    match list {
        Acl::List(acl) if preserve.xattrs && kept.group => {
            match sys::fsetxattr(fd, acl::ACCESS, acl, XattrFlags::empty()) {
                Ok(()) => {}
                Err(e) if preserve.required => return Err(("fsetxattr", e)),
                Err(_) => notes.push(Note::AclNotKept),
            }
        }
        Acl::List(_) => notes.push(Note::AclNotKept),
        Acl::Unknown if (mode ^ was) & 0o070 != 0 => notes.push(Note::AclNotKept),
        Acl::Unknown | Acl::None => {}
    }
    Ok(())
}
