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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{AsFd, CWD, Mode, OFlags, OwnedFd};

    fn open(path: &CStr) -> OwnedFd {
        sys::openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap()
    }

    /// Whether something is on the same mount as `dir`, by each way of asking that there is here.
    fn ways(dir: &OwnedFd) -> Vec<Mount> {
        let facts = sys::statx(dir, c"", AtFlags::EMPTY_PATH).unwrap();
        let mut ways = vec![Mount::Device(facts.id().dev)];
        ways.extend(facts.mount_id().map(Mount::Number));
        match sys::mount_by_handle(dir, c"", AtFlags::EMPTY_PATH) {
            Ok(number) => ways.push(Mount::Handle(number)),
            Err(e) => assert_eq!(e, Errno::OPNOTSUPP),
        }
        ways
    }

    #[test]
    fn another_mount_is_refused_in_every_way_of_asking() {
        let top = open(c"/");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let path = std::ffi::CString::new(dir.path().to_str().unwrap()).unwrap();
        let dir = open(&path);
        for only in ways(&top).into_iter().map(Some) {
            let mounts = Mounts { only };
            let found = mounts.before(top.as_fd(), c"proc", true);
            assert_eq!(found, Err(Errno::XDEV), "{only:?}");
            assert_eq!(
                mounts.after(open(c"/proc").as_fd()),
                Err(Errno::XDEV),
                "{only:?}"
            );
            assert_eq!(mounts.after(top.as_fd()), Ok(()), "{only:?}");
        }
        for only in ways(&dir).into_iter().map(Some) {
            let mounts = Mounts { only };
            assert_eq!(mounts.before(dir.as_fd(), c"d", true), Ok(()), "{only:?}");
            assert_eq!(
                mounts.before(dir.as_fd(), c"none", true),
                Ok(()),
                "{only:?}"
            );
        }
    }
}
