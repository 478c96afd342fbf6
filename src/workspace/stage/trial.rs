//! What the kernel may refuse to change on a thing that exists, tried on a private one before the commit:
//! after it there is no way back.

use super::{Work, fail};
use crate::Result;
use crate::sys::{self, AsFd, BorrowedFd, Errno, Gid, Metadata, Mode, OwnedFd, Uid, XattrFlags};
use crate::tree::acl;
use crate::workspace::identity::Ident;
use crate::workspace::mapping::Set;
use crate::workspace::place::{self, times};
use std::ffi::CString;

impl<'a> Work<'_, 'a> {
    /// Tries owners, attributes and unusual times. A time that the file system cannot hold becomes the one
    /// that it makes of it. `of` is the thing itself, if its attributes are to change.
    pub(super) fn try_out(
        &mut self,
        sets: &mut [Set],
        meta: &Metadata,
        of: Option<BorrowedFd<'_>>,
        path: &[u8],
    ) -> Result<()> {
        if !sets.iter().any(is_doubtful) {
            return Ok(());
        }
        let dir = self.ctx.staged;
        let fd = self.make_trial(meta.is_dir(), path)?;
        if let Some(of) = of {
            take_over(of, fd.as_fd()).map_err(|(call, e)| fail(call, e, path))?;
        }
        for set in sets.iter_mut().filter(|set| is_doubtful(set)) {
            try_set(set, &fd).map_err(|(call, e)| fail(call, e, path))?;
        }
        // After an error whoever gives up the staging removes it.
        let Some(made) = self.out.made.last() else {
            return Ok(());
        };
        let name = made.name.as_c_str();
        let removed = match made.is_dir {
            true => sys::rmdirat(dir, name),
            false => sys::unlinkat(dir, name),
        };
        removed.map_err(|e| fail("unlinkat", e, path))?;
        self.out.made.pop();
        Ok(())
    }

    fn make_trial(&mut self, is_dir: bool, path: &[u8]) -> Result<OwnedFd> {
        let dir = self.ctx.staged;
        if !is_dir {
            let (_, fd) = self.create_file(dir, Mode::RUSR | Mode::WUSR, path)?;
            return Ok(fd);
        }
        let (name, ()) = self.create(dir, true, path, "mkdirat", |dir, name| {
            sys::mkdirat(dir, name.as_c_str(), Mode::RWXU)
        })?;
        place::open_in(dir, name.as_c_str()).map_err(|e| fail("openat", e, path))
    }
}

fn is_doubtful(set: &Set) -> bool {
    match set {
        Set::Owner { .. } | Set::Xattr { after: Some(_), .. } => true,
        // 32 bits of seconds are what every file system has.
        Set::Times { after, .. } => i32::try_from(after.0).is_err(),
        Set::Xattr { after: None, .. }
        | Set::Mode { .. }
        | Set::Content { .. }
        | Set::Logged { .. } => false,
    }
}

fn try_set(set: &mut Set, fd: &OwnedFd) -> std::result::Result<(), (&'static str, Errno)> {
    match set {
        Set::Owner { before, after } => {
            // What stays is not asked for.
            let uid = (after.0 != before.0).then(|| Uid::from_raw(after.0));
            let gid = (after.1 != before.1).then(|| Gid::from_raw(after.1));
            sys::fchownat(fd, c"", uid, gid).map_err(|e| ("fchownat", e))
        }
        Set::Xattr {
            name,
            after: Some(value),
            ..
        } => {
            let name = CString::new(name.as_slice()).map_err(|_| ("fsetxattr", Errno::INVAL))?;
            sys::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty())
                .map_err(|e| ("fsetxattr", e))
        }
        Set::Times { after, .. } => {
            sys::futimens(fd, &times(None, Some(*after))).map_err(|e| ("futimens", e))?;
            let meta = place::facts(fd).map_err(|e| ("statx", e))?;
            *after = Ident::of(&meta).mtime;
            Ok(())
        }
        Set::Xattr { after: None, .. }
        | Set::Mode { .. }
        | Set::Content { .. }
        | Set::Logged { .. } => Ok(()),
    }
}

/// Gives the trial the attributes that are there, for all of them share one room.
fn take_over(
    of: BorrowedFd<'_>,
    trial: BorrowedFd<'_>,
) -> std::result::Result<(), (&'static str, Errno)> {
    for name in sys::flistxattr(of).map_err(|e| ("flistxattr", e))? {
        if acl::is_alias(&name) {
            continue;
        }
        let value = sys::fgetxattr(of, name.as_c_str()).map_err(|e| ("fgetxattr", e))?;
        if let Some(value) = value {
            // One that this process may not set takes no room away from those that it may.
            match sys::fsetxattr(trial, name.as_c_str(), &value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(e) => return Err(("fsetxattr", e)),
            }
        }
    }
    Ok(())
}
