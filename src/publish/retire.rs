//! Removing what was replaced, in a way that a later sweep can finish.

use crate::Name;
use crate::root::temp_name;
use crate::sys::{self, AtFlags, BorrowedFd, Errno, FileId, RenameFlags};
use crate::tree::{self, RemoveOptions};

/// What became of a name that is to be freed.
pub(super) enum Freed {
    /// It is a temporary name already.
    Temporary(Name),
    /// What had it has this temporary name now.
    Aside(Name),
    /// There is nothing of that name.
    Gone,
}

/// Frees `name` of the file or folder with this identity, which gets a temporary name unless it has one: then
/// a kill leaves what a sweep removes, and nobody finds half a tree under a name of theirs. The error is the
/// name of what could not be moved, or is another one.
pub(super) fn free(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> Result<Freed, Name> {
    if temp_name::parse(name.as_bytes()).is_some() {
        return Ok(Freed::Temporary(name.clone()));
    }
    move_aside(dir, name, id).map(|aside| aside.map_or(Freed::Gone, Freed::Aside))
}

/// Removes the file or folder that has this temporary name; false if not all of it could go.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &Name) -> bool {
    tree::remove(dir, name, &RemoveOptions::new().missing_ok(true)).is_ok()
}

/// Renames to a temporary name under which a sweeper removes this identity and no other; `None` if it is
/// gone. The error is the name that it, or what has its name now, was left under.
fn move_aside(dir: BorrowedFd<'_>, name: &Name, id: FileId) -> Result<Option<Name>, Name> {
    let rename = |from: &Name, to: &Name, flags| {
        sys::renameat2(dir, from.as_c_str(), dir, to.as_c_str(), flags)
    };
    let look = |name: &Name| sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
    let meta = match look(name) {
        Ok(meta) if meta.id() == id => meta,
        Err(Errno::NOENT) => return Ok(None),
        _ => return Err(name.clone()),
    };
    let aside = temp_name::exchange(0, temp_name::mark(&meta), false).map_err(|_| name.clone())?;
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
