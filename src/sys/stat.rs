//! statx(2), and changing owner, mode and times.

use super::{
    Arg, AsFd, AtFlags, BorrowedFd, FileType, Gid, Mode, Result, StatxFlags, Timestamps, Uid, raw,
    retry,
};
use rustix::fs::{Statx, StatxAttributes, StatxTimestamp, Timespec};
use std::ffi::CStr;

/// What identifies a file: device, inode number, and birth time where the file system records one, so that
/// a recycled inode number is not taken for the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FileId {
    /// Device number. It may change over a reboot.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time: seconds and nanoseconds since the epoch.
    pub btime: Option<(i64, u32)>,
}

/// Facts about a file, from statx(2).
// What the kernel gives is twice as long, and many of these are held at once.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Metadata {
    dev: u64,
    ino: u64,
    len: u64,
    blocks: u64,
    rdev: u64,
    mount_id: u64,
    attributes: StatxAttributes,
    attributes_mask: StatxAttributes,
    atime: Time,
    mtime: Time,
    ctime: Time,
    btime: Time,
    /// Which facts the kernel gave.
    mask: u32,
    links: u32,
    uid: u32,
    gid: u32,
    mode: u16,
}

/// Seconds and nanoseconds, without room behind them.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Time {
    sec: i64,
    nsec: u32,
}

impl From<StatxTimestamp> for Time {
    fn from(t: StatxTimestamp) -> Self {
        Self {
            sec: t.tv_sec,
            nsec: t.tv_nsec,
        }
    }
}

impl Metadata {
    fn of(stx: &Statx) -> Self {
        Self {
            dev: rustix::fs::makedev(stx.stx_dev_major, stx.stx_dev_minor),
            ino: stx.stx_ino,
            len: stx.stx_size,
            blocks: stx.stx_blocks,
            rdev: rustix::fs::makedev(stx.stx_rdev_major, stx.stx_rdev_minor),
            mount_id: stx.stx_mnt_id,
            attributes: stx.stx_attributes,
            attributes_mask: stx.stx_attributes_mask,
            atime: stx.stx_atime.into(),
            mtime: stx.stx_mtime.into(),
            ctime: stx.stx_ctime.into(),
            btime: stx.stx_btime.into(),
            mask: stx.stx_mask,
            links: stx.stx_nlink,
            uid: stx.stx_uid,
            gid: stx.stx_gid,
            mode: stx.stx_mode,
        }
    }

    /// Device, inode and birth time.
    #[must_use]
    pub fn id(&self) -> FileId {
        let has_btime = self.mask & StatxFlags::BTIME.bits() != 0;
        FileId {
            dev: self.dev,
            ino: self.ino,
            btime: has_btime.then_some((self.btime.sec, self.btime.nsec)),
        }
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode.into())
    }

    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// True for a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    /// True for a symlink.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind() == FileType::Symlink
    }

    pub(crate) fn rights(&self) -> Rights {
        Rights {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// Permission bits with set-user-id, set-group-id and sticky, without the type.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode.into())
    }

    /// Owner.
    #[must_use]
    pub fn uid(&self) -> Uid {
        Uid::from_raw(self.uid)
    }

    /// Group.
    #[must_use]
    pub fn gid(&self) -> Gid {
        Gid::from_raw(self.gid)
    }

    /// Number of names.
    #[must_use]
    pub fn links(&self) -> u64 {
        self.links.into()
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if the size is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Space in use, in bytes.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.blocks.saturating_mul(512)
    }

    /// Device number of a device file.
    #[must_use]
    pub fn rdev(&self) -> u64 {
        self.rdev
    }

    /// Last access.
    #[must_use]
    pub fn atime(&self) -> Timespec {
        timespec(self.atime)
    }

    /// Last change of content.
    #[must_use]
    pub fn mtime(&self) -> Timespec {
        timespec(self.mtime)
    }

    /// Last change of content or metadata.
    #[must_use]
    pub fn ctime(&self) -> Timespec {
        timespec(self.ctime)
    }

    /// The mount that it was reached through: unique for this boot since Linux 6.8, a number that may be
    /// reused since 5.8, `None` before.
    #[must_use]
    pub fn mount_id(&self) -> Option<u64> {
        let known = StatxFlags::MNT_ID.bits() | MNT_ID_UNIQUE;
        (self.mask & known != 0).then_some(self.mount_id)
    }

    /// Whether [`mount_id`](Self::mount_id) is a number that this boot will not use again (Linux 6.8).
    #[must_use]
    pub fn mount_id_is_unique(&self) -> bool {
        self.mask & MNT_ID_UNIQUE != 0
    }

    /// Whether this is the root of a mount; `None` if the kernel (before 5.8) cannot tell.
    #[must_use]
    pub fn is_mount_root(&self) -> Option<bool> {
        self.attribute(StatxAttributes::MOUNT_ROOT)
    }

    /// Whether this is an automount point that has not been mounted; `None` if the file system cannot tell.
    #[must_use]
    pub fn is_automount(&self) -> Option<bool> {
        self.attribute(StatxAttributes::AUTOMOUNT)
    }

    /// Whether it must not be changed, moved or removed by anybody (`chattr +i`); `None` if the file system
    /// cannot tell.
    #[must_use]
    pub fn is_immutable(&self) -> Option<bool> {
        self.attribute(StatxAttributes::IMMUTABLE)
    }

    /// Whether it can only be added to, and not be moved or removed (`chattr +a`); `None` if the file system
    /// cannot tell.
    #[must_use]
    pub fn is_append_only(&self) -> Option<bool> {
        self.attribute(StatxAttributes::APPEND)
    }

    fn attribute(&self, bit: StatxAttributes) -> Option<bool> {
        let known = self.attributes_mask.contains(bit);
        known.then_some(self.attributes.contains(bit))
    }
}

fn timespec(t: Time) -> Timespec {
    Timespec {
        tv_sec: t.sec,
        tv_nsec: t.nsec.into(),
    }
}

/// What a writer needs to know of a file that it has just made, and no time but that of its birth.
///
/// Since multigrain timestamps (Linux 6.13) a look at the times of change and modification has its price: the
/// write that follows must then take another time than the one that was seen, and logs the inode once more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    pub(crate) id: FileId,
    pub(crate) links: u32,
    pub(crate) rights: Rights,
}

/// Type, mode, owner and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    mode: u16,
    uid: u32,
    gid: u32,
}

impl Rights {
    pub(crate) fn is_dir(self) -> bool {
        FileType::from_raw_mode(self.mode.into()) == FileType::Directory
    }

    pub(crate) fn mode(self) -> Mode {
        Mode::from_raw_mode(self.mode.into())
    }

    pub(crate) fn uid(self) -> Uid {
        Uid::from_raw(self.uid)
    }

    pub(crate) fn gid(self) -> Gid {
        Gid::from_raw(self.gid)
    }
}

const MNT_ID_UNIQUE: u32 = 0x4000;

/// statx(2), Linux 4.11: facts about `path` in `dir`; with an empty path and `AT_EMPTY_PATH`, about `dir`
/// itself, which may be an `O_PATH` descriptor.
///
/// Asks for the basic facts, birth time and mount id. What the kernel does not know is left out.
///
/// # Errors
/// As statx(2).
pub fn statx(dir: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<Metadata> {
    path.into_with_c_str(|path| ask(dir.as_fd(), path, flags, ALL))
        .map(|stx| Metadata::of(&stx))
}

/// [`statx`] of an open file that was just made.
pub(crate) fn born(fd: impl AsFd) -> Result<Born> {
    let stx = ask(fd.as_fd(), c"", AtFlags::EMPTY_PATH, AT_BIRTH)?;
    let facts = Metadata::of(&stx);
    Ok(Born {
        id: facts.id(),
        links: facts.links,
        rights: facts.rights(),
    })
}

const ALL: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID)
    .union(StatxFlags::from_bits_retain(MNT_ID_UNIQUE));

/// Without any that [`Born`] does not hold.
const AT_BIRTH: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::NLINK)
    .union(StatxFlags::UID)
    .union(StatxFlags::GID)
    .union(StatxFlags::INO)
    .union(StatxFlags::BTIME);

fn ask(dir: BorrowedFd<'_>, path: &CStr, flags: AtFlags, mask: StatxFlags) -> Result<Statx> {
    // Whom a file stands for is told by its times as well.
    #[cfg(feature = "_hook")]
    let mask = if super::hook::is_still() { ALL } else { mask };
    let stx = retry("statx", || rustix::fs::statx(dir, path, flags, mask));
    #[cfg(feature = "_hook")]
    let stx = stx.map(|mut stx| {
        super::hook::liken(&mut stx);
        stx
    });
    stx
}

/// fchmod(2). Not for `O_PATH` descriptors.
///
/// # Errors
/// As fchmod(2).
pub fn fchmod(fd: impl AsFd, mode: Mode) -> Result<()> {
    retry("fchmod", || rustix::fs::fchmod(fd.as_fd(), mode))
}

/// fchmodat(2): the mode of `name` in `dir`; a symlink is followed.
///
/// # Errors
/// As fchmodat(2).
pub fn fchmodat(dir: impl AsFd, name: impl Arg, mode: Mode) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("fchmodat", || {
            rustix::fs::chmodat(dir.as_fd(), name, mode, AtFlags::empty())
        })
    })
}

/// fchmodat2(2) with `AT_EMPTY_PATH`, Linux 6.6: the mode of an open file, which may be an `O_PATH`
/// descriptor.
///
/// # Errors
/// As fchmodat2(2). `ENOSYS`: an older kernel. `EOPNOTSUPP`: a symlink.
pub fn fchmod_empty_path(fd: impl AsFd, mode: Mode) -> Result<()> {
    retry("fchmodat2", || raw::fchmodat2(fd.as_fd(), mode))
}

/// fchown(2); `None` leaves as it is. It clears set-user-id and set-group-id.
///
/// # Errors
/// As fchown(2).
pub fn fchown(fd: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<()> {
    retry("fchown", || rustix::fs::fchown(fd.as_fd(), owner, group))
}

/// fchownat(2) with `AT_SYMLINK_NOFOLLOW`, and with `AT_EMPTY_PATH` where `name` is empty.
///
/// # Errors
/// As fchownat(2).
pub fn fchownat(
    dir: impl AsFd,
    name: impl Arg,
    owner: Option<Uid>,
    group: Option<Gid>,
) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    name.into_with_c_str(|name| {
        retry("fchownat", || {
            rustix::fs::chownat(dir.as_fd(), name, owner, group, flags)
        })
    })
}

/// futimens(3). Not for `O_PATH` descriptors.
///
/// # Errors
/// As utimensat(2).
pub fn futimens(fd: impl AsFd, times: &Timestamps) -> Result<()> {
    retry("futimens", || rustix::fs::futimens(fd.as_fd(), times))
}

/// utimensat(2) with `AT_SYMLINK_NOFOLLOW`, and with `AT_EMPTY_PATH` (Linux 5.8) where `name` is empty.
///
/// # Errors
/// As utimensat(2). `EINVAL` with an empty name: an older kernel.
pub fn utimensat(dir: impl AsFd, name: impl Arg, times: &Timestamps) -> Result<()> {
    name.into_with_c_str(|name| {
        let (call, flags) = if name.is_empty() {
            ("utimensat(AT_EMPTY_PATH)", AtFlags::EMPTY_PATH)
        } else {
            ("utimensat", AtFlags::empty())
        };
        let flags = flags | AtFlags::SYMLINK_NOFOLLOW;
        retry(call, || {
            rustix::fs::utimensat(dir.as_fd(), name, times, flags)
        })
    })
}

/// utimensat(2) without flags: a symlink is followed.
///
/// # Errors
/// As utimensat(2).
pub fn utimensat_follow(dir: impl AsFd, name: impl Arg, times: &Timestamps) -> Result<()> {
    name.into_with_c_str(|name| {
        retry("utimensat", || {
            rustix::fs::utimensat(dir.as_fd(), name, times, AtFlags::empty())
        })
    })
}

/// The kind of file system, by the magic number of statfs(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsKind {
    /// ext2, ext3 or ext4 (they share a number).
    Ext,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// tmpfs, also devtmpfs.
    Tmpfs,
    /// ramfs.
    Ramfs,
    /// overlayfs.
    Overlay,
    /// f2fs.
    F2fs,
    /// NFS of any version.
    Nfs,
    /// CIFS and SMB.
    Cifs,
    /// 9p.
    V9fs,
    /// Any FUSE file system.
    Fuse,
    /// FAT.
    Msdos,
    /// exFAT.
    Exfat,
    /// procfs.
    Proc,
    /// bcachefs.
    Bcachefs,
    /// ZFS.
    Zfs,
    /// Another one, with its number.
    Other(u64),
}

impl FsKind {
    /// From statfs(2)'s `f_type`, a number of 32 bits that some targets extend with its sign.
    pub(super) fn from_magic(magic: u64) -> Self {
        match magic & 0xffff_ffff {
            0xef53 => Self::Ext,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            0x8584_58f6 => Self::Ramfs,
            0x794c_7630 => Self::Overlay,
            0xf2f5_2010 => Self::F2fs,
            0x6969 => Self::Nfs,
            0xff53_4d42 | 0xfe53_4d42 | 0x517b => Self::Cifs,
            0x0102_1997 => Self::V9fs,
            0x6573_5546 => Self::Fuse,
            0x4d44 => Self::Msdos,
            0x2011_bab0 => Self::Exfat,
            0x9fa0 => Self::Proc,
            0xca45_1a4e => Self::Bcachefs,
            0x2fc1_2fc1 => Self::Zfs,
            other => Self::Other(other),
        }
    }

    /// True where other machines may hold the same files open, so that local locks and leases prove nothing.
    #[must_use]
    pub fn is_shared_storage(self) -> bool {
        matches!(
            self,
            Self::Nfs | Self::Cifs | Self::V9fs | Self::Fuse | Self::Other(_)
        )
    }

    /// Its usual name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext2/ext3/ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Ramfs => "ramfs",
            Self::Overlay => "overlayfs",
            Self::F2fs => "f2fs",
            Self::Nfs => "nfs",
            Self::Cifs => "cifs",
            Self::V9fs => "9p",
            Self::Fuse => "fuse",
            Self::Msdos => "vfat",
            Self::Exfat => "exfat",
            Self::Proc => "proc",
            Self::Bcachefs => "bcachefs",
            Self::Zfs => "zfs",
            Self::Other(_) => "unknown",
        }
    }
}

/// fstatfs(2), for the kind of file system that `fd` is on.
///
/// # Errors
/// As fstatfs(2).
pub fn fs_kind(fd: impl AsFd) -> Result<FsKind> {
    let magic = retry("fstatfs", || rustix::fs::fstatfs(fd.as_fd()))?.f_type;
    // The field's sign and width differ between targets.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    Ok(FsKind::from_magic(magic as u64))
}

/// fstatvfs(3): whether the mount that `fd` was reached through, or its file system, is read-only.
///
/// # Errors
/// As fstatvfs(3).
pub fn is_read_only(fd: impl AsFd) -> Result<bool> {
    let flags = retry("fstatfs", || rustix::fs::fstatvfs(fd.as_fd()))?.f_flag;
    Ok(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{OFlags, openat, unlinkat};

    /// Had they been looked at, the change after that would always have another time.
    #[test]
    fn a_new_file_is_looked_at_without_its_times() {
        let dir = tempfile::tempdir().unwrap();
        let dir = openat(super::super::CWD, dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let same_tick = (0..1000).any(|_| {
            let file = openat(&dir, c"new", flags, Mode::RUSR).unwrap();
            let made = born(&file).unwrap();
            fchmod(&file, Mode::RUSR).unwrap();
            let now = statx(&file, c"", AtFlags::EMPTY_PATH).unwrap();
            unlinkat(&dir, c"new").unwrap();
            assert_eq!((made.id, made.rights), (now.id(), now.rights()));
            assert_eq!((made.links, made.rights.mode()), (1, Mode::RUSR));
            let ctime = (now.ctime.sec, now.ctime.nsec);
            made.id.btime.is_none_or(|btime| btime == ctime)
        });
        assert!(same_tick);
    }
}
