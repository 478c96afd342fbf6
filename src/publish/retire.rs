//! Removing what was replaced, in a way that a later sweep can finish.

use crate::Name;
use crate::root::temp_name;
use crate::sys::{self, AtFlags, BorrowedFd, Errno, FileId, RenameFlags};
use crate::tree::{self, RemoveOptions};

/// Removes the file or folder `name`, which must be the one with this identity. `false`: it is another one,
/// which stays, or not all of it could go.
///
/// It gets a temporary name first, unless it has one, so that a kill leaves what a sweep removes, and nobody
/// finds half a tree under a name of theirs.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> bool {
    let aside = if temp_name::parse(name.as_bytes()).is_some() {
        name.clone()
    } else {
        match move_aside(dir, name, id) {
            Ok(Some(aside)) => aside,
            Ok(None) => return true,
            Err(_) => return false,
        }
    };
    tree::remove(dir, &aside, &RemoveOptions::new().missing_ok(true)).is_ok()
}

/// Renames to a temporary name under which a sweeper removes this identity and no other; `None` if it is
/// gone.
fn move_aside(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> Result<Option<Name>, Errno> {
    let rename = |from: &Name, to: &Name, flags| {
        sys::renameat2(dir, from.as_c_str(), dir, to.as_c_str(), flags)
    };
    let look = |name: &Name| sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    match look(name) {
        Ok(meta) if meta.id() == id => {}
        Ok(_) => return Err(Errno::STALE),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e),
    }
    let aside = temp_name::exchange(0, id.ino, false)?;
    match rename(name, &aside, RenameFlags::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        done => done?,
    }
    if look(&aside)?.id() == id {
        return Ok(Some(aside));
    }
    // Somebody was faster and put something else there: it goes back, unless the name is taken again.
    rename(&aside, name, RenameFlags::NOREPLACE)?;
    Err(Errno::STALE)
}
