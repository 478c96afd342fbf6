//! Staying on one mount (`RESOLVE_NO_XDEV`).

use crate::sys::{self, AtFlags, BorrowedFd, Errno, Metadata};
use std::ffi::CStr;

/// A mount, by the best that the kernel can say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mount {
    /// The number that statx gives, since Linux 5.8.
    Number(u64),
    /// The number that name_to_handle_at gives, before that.
    Handle(i32),
    /// The device, where the file system has no handles. Bind mounts of one device look the same.
    Device(u64),
}

/// The mount that a walk must not leave, if it must not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mounts {
    only: Option<Mount>,
}

impl Mounts {
    pub(super) fn new(root: BorrowedFd<'_>, stay: bool) -> Result<Self, Errno> {
        let only = if stay {
            let facts = sys::statx(root, c"", AtFlags::EMPTY_PATH)?;
            Some(match facts.mount_id() {
                Some(number) => Mount::Number(number),
                None => match sys::mount_by_handle(root, c"", AtFlags::EMPTY_PATH) {
                    Ok(number) => Mount::Handle(number),
                    Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                        Mount::Device(facts.id().dev)
                    }
                    Err(e) => return Err(e),
                },
            })
        } else {
            None
        };
        Ok(Self { only })
    }

    /// Before `name` is opened: refuses another mount there, and if `mounts` (the open would set it off) an
    /// automount point too. A name that cannot be looked at is the open's to judge.
    pub(super) fn before(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        mounts: bool,
    ) -> Result<(), Errno> {
        let Some(only) = self.only else {
            return Ok(());
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let Ok(facts) = sys::statx(dir, name, flags) else {
            return Ok(());
        };
        if mounts && facts.is_automount() == Some(true) {
            return Err(Errno::XDEV);
        }
        same(only, dir, name, AtFlags::empty(), &facts)
    }

    /// After the open: refuses what was mounted between the two.
    pub(super) fn after(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let Some(only) = self.only else {
            return Ok(());
        };
        let facts = sys::statx(fd, c"", AtFlags::EMPTY_PATH)?;
        same(only, fd, c"", AtFlags::EMPTY_PATH, &facts)
    }
}

fn same(
    only: Mount,
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: AtFlags,
    facts: &Metadata,
) -> Result<(), Errno> {
    let same = match only {
        Mount::Number(number) => facts.mount_id() == Some(number),
        Mount::Device(device) => facts.id().dev == device,
        Mount::Handle(number) => match sys::mount_by_handle(dir, name, flags) {
            Ok(found) => found == number,
            // The root's file system has handles, so this is another one.
            Err(Errno::OPNOTSUPP) => false,
            Err(e) => return Err(e),
        },
    };
    if same { Ok(()) } else { Err(Errno::XDEV) }
}
