//! Removing what was replaced, in a way that a later sweep can finish.

use crate::Name;
use crate::root::temp_name;
use crate::sys::{self, AtFlags, BorrowedFd, Errno, FileId, RenameFlags};
use crate::tree::{self, RemoveOptions};

/// Removes the file or folder `name`, which must be the one with this identity. The error is the name that
/// is left: of another one, which stays, or of what could not go.
///
/// It gets a temporary name first, unless it has one, so that a kill leaves what a sweep removes, and nobody
/// finds half a tree under a name of theirs.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> Result<(), Name> {
    let aside = if temp_name::parse(name.as_bytes()).is_some() {
        name.clone()
    } else {
        match move_aside(dir, name, id) {
            Ok(Some(aside)) => aside,
            Ok(None) => return Ok(()),
            Err(left) => return Err(left),
        }
    };
    let done = tree::remove(dir, &aside, &RemoveOptions::new().missing_ok(true));
    done.map(drop).map_err(|_| aside)
}

/// Renames to a temporary name under which a sweeper removes this identity and no other; `None` if it is
/// gone. The error is the name that it, or what has its name now, was left under.
fn move_aside(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> Result<Option<Name>, Name> {
    let rename = |from: &Name, to: &Name, flags| {
        sys::renameat2(dir, from.as_c_str(), dir, to.as_c_str(), flags)
    };
    let look = |name: &Name| sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    match look(name) {
        Ok(meta) if meta.id() == id => {}
        Err(Errno::NOENT) => return Ok(None),
        _ => return Err(name.clone()),
    }
    let aside = temp_name::exchange(0, id.ino, false).map_err(|_| name.clone())?;
    let renamed = rename(name, &aside, RenameFlags::empty());
    match look(&aside) {
        // Also if the rename answered an error and was carried out all the same.
        Ok(meta) if meta.id() == id => Ok(Some(aside)),
        // Somebody was faster and put something else there: it goes back, unless the name is taken again.
        Ok(_) if renamed.is_ok() => {
            let back = rename(&aside, name, RenameFlags::NOREPLACE);
            Err(if back.is_ok() { name.clone() } else { aside })
        }
        _ if renamed == Err(Errno::NOENT) => Ok(None),
        _ if renamed.is_ok() => Err(aside),
        _ => Err(name.clone()),
    }
}
