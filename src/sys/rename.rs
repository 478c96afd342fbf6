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
                return retry("renameat", || {
                    rustix::fs::renameat(old_dir, old, new_dir, new)
                });
            }
            let name = if flags.contains(RenameFlags::EXCHANGE) {
                "renameat2(RENAME_EXCHANGE)"
            } else if flags.contains(RenameFlags::NOREPLACE) {
                "renameat2(RENAME_NOREPLACE)"
            } else {
                "renameat2"
            };
            retry(name, || {
                rustix::fs::renameat_with(old_dir, old, new_dir, new, flags)
            })
        })
    })
}
