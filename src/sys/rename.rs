//! renameat2(2).

use super::{Arg, AsFd, RenameFlags, Result, retry};

/// renameat2(2), Linux 3.15; with no flags, renameat(2).
///
/// # Errors
/// As renameat2(2). `EINVAL` for `RENAME_NOREPLACE`, `RENAME_EXCHANGE` or `RENAME_WHITEOUT` means, where
/// neither the flags nor a directory moved into itself explain it, that the file system lacks the flag;
/// a target that exists is `EEXIST` (`ENOTEMPTY` or `EEXIST` for a directory without flags).
pub fn renameat2(
    old_dir: impl AsFd,
    old: impl Arg,
    new_dir: impl AsFd,
    new: impl Arg,
    flags: RenameFlags,
) -> Result<()> {
    let (old_dir, new_dir) = (old_dir.as_fd(), new_dir.as_fd());
    old.into_with_c_str(|old| {
        new.into_with_c_str(|new| {
            if flags.is_empty() {
                return retry(rename_call(flags), || {
                    rustix::fs::renameat(old_dir, old, new_dir, new)
                });
            }
            retry(rename_call(flags), || {
                rustix::fs::renameat_with(old_dir, old, new_dir, new, flags)
            })
        })
    })
}

/// The name of the call that [`renameat2`] makes with these flags, for messages.
#[must_use]
pub fn rename_call(flags: RenameFlags) -> &'static str {
    if flags.is_empty() {
        "renameat"
    } else if flags.contains(RenameFlags::EXCHANGE) {
        "renameat2(RENAME_EXCHANGE)"
    } else if flags.contains(RenameFlags::NOREPLACE) {
        "renameat2(RENAME_NOREPLACE)"
    } else {
        "renameat2"
    }
}
