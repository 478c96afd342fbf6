//! What decides, apart from path and permissions, where a look-up may go: mount, file system and process.

use super::{AsFd, AtFlags, CWD, FsKind, Mode, OFlags, Result, Uid, call, openat, raw, retry};
use super::{fs_kind, read};
use std::ffi::CStr;

/// The kind of file system that `fd` is on, and whether its mount has `nosymfollow` (Linux 5.10): fstatfs(2).
///
/// # Errors
/// As fstatfs(2).
pub(crate) fn link_facts(fd: impl AsFd) -> Result<(FsKind, bool)> {
    /// statfs(2): not every version of libc names it.
    const ST_NOSYMFOLLOW: u64 = 0x2000;
    let facts = call("fstatfs", || rustix::fs::fstatfs(fd.as_fd()))?;
    // The field's width and sign differ between targets; the flags are small.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let flags = facts.f_flags as u64;
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let kind = FsKind::from_magic(facts.f_type as u64);
    Ok((kind, flags & ST_NOSYMFOLLOW != 0))
}

/// The mount that `name` in `dir` is on, of kernels before Linux 5.8 whose statx cannot say:
/// name_to_handle_at(2). With an empty name and `AT_EMPTY_PATH`, that of `dir` itself.
///
/// # Errors
/// As name_to_handle_at(2). `EOPNOTSUPP`: the file system has no handles.
pub(crate) fn mount_by_handle(dir: impl AsFd, name: &CStr, flags: AtFlags) -> Result<i32> {
    retry("name_to_handle_at", || {
        raw::mount_by_handle(dir.as_fd(), name, flags)
    })
}

/// The user whom the kernel takes this thread for when it looks at files: setfsuid(2) with a number that is
/// no user changes nothing and says who it is.
pub(crate) fn fsuid() -> Result<Uid> {
    call("setfsuid", || Ok(Uid::from_raw(raw::fsuid())))
}

/// faccessat2(2) with `AT_EACCESS`, Linux 5.8: whether this process may write to and search the directory
/// `dir`, asked without changing anything.
///
/// # Errors
/// As faccessat2(2). `ENOSYS`: it cannot be asked.
pub(crate) fn may_change(dir: impl AsFd) -> Result<()> {
    use rustix::fs::Access;
    retry("faccessat2", || {
        let rights = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(dir.as_fd(), c".", rights, AtFlags::EACCESS)
    })
}

/// faccessat2(2) with `AT_EACCESS`, Linux 5.8: whether this process may write to the file or directory
/// `name`.
///
/// # Errors
/// As faccessat2(2). `ENOSYS`: it cannot be asked.
pub(crate) fn may_write(dir: impl AsFd, name: &CStr) -> Result<()> {
    use rustix::fs::Access;
    retry("faccessat2", || {
        let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::accessat(dir.as_fd(), name, Access::WRITE_OK, flags)
    })
}

/// The setting `fs.protected_symlinks`, from procfs; `None` where there is no procfs to ask.
pub(crate) fn protected_symlinks() -> Option<bool> {
    let path = c"/proc/sys/fs/protected_symlinks";
    let file = openat(CWD, path, OFlags::RDONLY, Mode::empty()).ok()?;
    if !matches!(fs_kind(&file), Ok(FsKind::Proc)) {
        return None;
    }
    let mut digit = [0];
    match read(&file, &mut digit) {
        Ok(1) => Some(digit != *b"0"),
        _ => None,
    }
}

/// Whether this thread has the right of this number (capabilities(7)) in effect, from procfs; `None` where
/// there is no procfs to ask.
pub(crate) fn has_capability(number: u32) -> Option<bool> {
    let path = c"/proc/thread-self/status";
    let file = openat(CWD, path, OFlags::RDONLY, Mode::empty()).ok()?;
    if !matches!(fs_kind(&file), Ok(FsKind::Proc)) {
        return None;
    }
    let mut text = [0; 4096];
    let len = read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(set >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn a_mount_has_one_number_whichever_way_it_is_reached() {
        let open = |path: &CStr| openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap();
        let (root, proc) = (open(c"/"), open(c"/proc"));
        let by_itself = mount_by_handle(&root, c"", AtFlags::EMPTY_PATH);
        assert_eq!(mount_by_handle(&root, c".", AtFlags::empty()), by_itself);
        // EOPNOTSUPP where the file system has no handles, as some overlays.
        assert!(by_itself.is_ok() || by_itself == Err(Errno::OPNOTSUPP));
        if by_itself.is_ok() {
            assert_ne!(mount_by_handle(&proc, c"", AtFlags::EMPTY_PATH), by_itself);
        }
        let gone = mount_by_handle(&root, c"no-such-name", AtFlags::empty());
        assert_eq!(gone, Err(Errno::NOENT));
    }

    #[test]
    fn the_file_system_user_is_asked_without_changing_it() {
        let before = fsuid().unwrap();
        assert_eq!(fsuid().unwrap(), before);
        assert_eq!(before.as_raw(), rustix::process::geteuid().as_raw());
    }
}
