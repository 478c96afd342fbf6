//! What stands against a transaction and can be known before it is committed.

use super::{OPERATION, Work, changed, fail};
use crate::sys::{self, Errno, Metadata, Mode};
use crate::workspace::draft::{DraftObject, DraftSet};
use crate::workspace::identity::Ident;
use crate::workspace::mapping::{Before, ObjectIx, Slot};
use crate::workspace::place;
use crate::{Error, ErrorKind, Result};

/// capabilities(7): to change files of others.
const CAP_FOWNER: u32 = 3;
/// To give files away.
const CAP_CHOWN: u32 = 0;

impl Work<'_, '_> {
    /// Looks at every thing that is to go or to change, and at every directory whose names change.
    pub(super) fn check(&mut self) -> Result<()> {
        let mut writable = vec![false; self.draft.places.len()];
        for slot in &self.draft.slots {
            let stays = match slot.before {
                Before::Nothing => slot.after.is_none(),
                Before::Object(object) => slot.after == Some(object),
                Before::Anything => false,
            };
            if stays {
                continue;
            }
            if let Some(place) = &self.places[slot.place]
                && !std::mem::replace(&mut writable[slot.place], true)
            {
                match sys::may_change(&place.dir) {
                    // It cannot be asked: the rename will tell.
                    Ok(()) | Err(Errno::NOSYS | Errno::INVAL) => {}
                    Err(e) => {
                        return Err(fail("faccessat2", e, &slot.path).with_advice(
                            "needed: the right to write to and search the directory",
                        ));
                    }
                }
                if place.meta.is_append_only() == Some(true) {
                    return Err(guarded(slot));
                }
            }
            if let Before::Object(object) = slot.before {
                self.check_goes(object, slot)?;
            }
        }
        for change in &self.draft.changes {
            self.check_change(change.object, &change.what)?;
        }
        Ok(())
    }

    /// Facts about an existing object, which must be what the draft says.
    pub(super) fn facts(&mut self, object: ObjectIx) -> Result<Metadata> {
        if let Some(meta) = self.facts[object] {
            return Ok(meta);
        }
        let (dir, slot) = self.existing(object)?;
        let meta =
            place::look(dir, slot.name.as_c_str()).map_err(|e| fail("statx", e, &slot.path))?;
        match &self.draft.objects[object] {
            DraftObject::Existing { ident, .. } if ident.is_unchanged(&Ident::of(&meta)) => {}
            _ => return Err(changed(&slot.path)),
        }
        self.facts[object] = Some(meta);
        Ok(meta)
    }

    /// A thing that loses its name.
    fn check_goes(&mut self, object: ObjectIx, slot: &Slot) -> Result<()> {
        let meta = self.facts(object)?;
        if meta.is_mount_root() == Some(true) {
            return Err(fail("statx", Errno::BUSY, &slot.path).with_advice(
                "it is a mount point, such as a bind-mounted file or folder, and cannot be renamed \
                 or removed: change it where it was mounted from, or write a file in place",
            ));
        }
        if meta.is_immutable() == Some(true) || meta.is_append_only() == Some(true) {
            return Err(guarded(slot));
        }
        let Some(place) = &self.places[slot.place] else {
            return Ok(());
        };
        if place.meta.mode().contains(Mode::SVTX) {
            let me = sys::fsuid().map_err(|e| Error::new(OPERATION, "setfsuid", e))?;
            let owners = [meta.uid(), place.meta.uid()];
            if !owners.contains(&me) && !may(CAP_FOWNER) {
                return Err(fail("rename", Errno::PERM, &slot.path)
                    .with_advice("in a sticky directory only one's own files can be replaced"));
            }
        }
        Ok(())
    }

    fn may_write(&self, object: ObjectIx) -> Result<sys::Result<()>> {
        let (dir, slot) = self.existing(object)?;
        Ok(sys::may_write(dir, slot.name.as_c_str()))
    }

    fn check_change(&mut self, object: ObjectIx, what: &DraftSet) -> Result<()> {
        let meta = self.facts(object)?;
        let (_, slot) = self.existing(object)?;
        if meta.is_immutable() == Some(true) || meta.is_append_only() == Some(true) {
            return Err(guarded(slot));
        }
        match what {
            DraftSet::Content(_) if !meta.is_file() => {
                let error = Error::of_kind(OPERATION, ErrorKind::NotAFile);
                Err(error.with_path(slot.name.as_os_str()))
            }
            DraftSet::Content(_) => Ok(()),
            DraftSet::Attributes(attr) => {
                let me = sys::fsuid().map_err(|e| Error::new(OPERATION, "setfsuid", e))?;
                let named =
                    |kind: &[u8]| attr.xattrs.iter().any(|(name, _)| name.starts_with(kind));
                // The access lists.
                let lists = named(b"system.");
                let of_owner =
                    attr.mode.is_some() || attr.mtime.is_some() || attr.atime.is_some() || lists;
                let gives = attr.uid.is_some_and(|uid| uid != meta.uid().as_raw());
                let regroups = attr.gid.is_some_and(|gid| gid != meta.gid().as_raw());
                let foreign = meta.uid() != me;
                // xattr(7): who may write to it; in a sticky directory only its owner. A new mode that lets
                // the owner write comes first.
                let opens = attr.mode.is_some_and(|mode| mode & 0o200 != 0) && !foreign;
                let written = named(b"user.") && !opens;
                let sticky = meta.is_dir() && meta.mode().contains(Mode::SVTX);
                let refused = if (gives || regroups && foreign) && !may(CAP_CHOWN) {
                    Some("fchownat")
                } else if of_owner && foreign && !may(CAP_FOWNER) {
                    Some(if lists { "fsetxattr" } else { "fchmod" })
                } else if named(b"user.") && sticky && foreign && !may(CAP_FOWNER) {
                    Some("fsetxattr")
                } else {
                    None
                };
                if written {
                    match self.may_write(object)? {
                        // It cannot be asked.
                        Ok(()) | Err(Errno::NOSYS | Errno::INVAL) => {}
                        Err(e) => {
                            return Err(fail("faccessat2", e, &slot.path)
                                .with_advice("needed: the right to write to it"));
                        }
                    }
                }
                match refused {
                    Some(call) => Err(fail(call, Errno::PERM, &slot.path)
                        .with_advice("only the owner, or a process with that right, may")),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Whether this process has a right. If that cannot be known, the call itself will tell.
fn may(capability: u32) -> bool {
    sys::has_capability(capability).unwrap_or(true)
}

#[cold]
fn guarded(slot: &Slot) -> Error {
    fail("statx", Errno::PERM, &slot.path).with_advice(
        "it is immutable or append-only (chattr(1)), and can not be changed or removed",
    )
}
