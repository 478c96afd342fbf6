//! One system call each: safe signatures, typed flags, the errno kept, no policy.
//!
//! Everything above this layer reaches the kernel through it. A function here makes one call (the
//! exceptions say so), gives back the kernel's [`Errno`] as it came, and decides nothing. Flag types are
//! those of [`rustix`], which accept bits that this crate does not know yet.
//!
//! A call that a signal interrupted (`EINTR`) is made again, except for [`fsync`], [`fdatasync`] and
//! [`syncfs`]: the kernel may already have handed over, and so forgotten, a write error, and a second
//! call could then answer 0 for data that is not on the disk.
//!
//! Every descriptor that is opened here is close-on-exec.

mod clock;
mod copy;
mod dirent;
mod errno;
#[cfg(feature = "_hook")]
#[doc(hidden)]
pub mod hook;
mod io;
mod link;
mod lock;
mod lookup;
mod open;
mod proc;
mod random;
mod raw;
mod rename;
mod stat;
mod sync;
mod unlink;
mod xattr;

pub(crate) use clock::{between_files, realtime};
pub use clock::{boot_id, boottime, time_namespace};
pub use copy::{copy_file_range, fallocate, ficlone, seek_data, seek_hole};
pub use dirent::{DirEntry, DirStream};
pub use errno::{Errno, errno_name};
pub use io::{dup_inheritable, ftruncate, pread, pwrite, read, seek, write};
pub use link::{link_descriptor, link_empty_path, link_proc, linkat, readlinkat, symlinkat};
pub use lock::{
    LockKind, LockRange, lease_free_of_writers, ofd_lock, ofd_try_lock, ofd_unlock, ofd_would_wait,
    try_flock,
};
pub use open::{OpenHow, open_tmpfile, openat, openat2, openat2_blocked};
pub use random::random;
pub use rename::{rename_call, renameat2};
pub use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawMode,
    RenameFlags, ResolveFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
    XattrFlags,
};
pub use rustix::path::Arg;
pub use stat::{
    FileId, FsKind, Metadata, fchmod, fchmod_empty_path, fchmodat, fchown, fchownat, fs_kind,
    futimens, is_read_only, statx, utimensat, utimensat_follow,
};
pub use sync::{SyncRange, fdatasync, fsync, sync_file_range, syncfs};
pub use unlink::{mkdirat, mkfifoat, mknodat, rmdirat, unlinkat};
pub use xattr::{fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr};

pub(crate) use lookup::{
    fsuid, has_capability, link_facts, may_change, may_write, mount_by_handle, protected_symlinks,
};
pub(crate) use proc::{descriptor_limit, descriptor_link, process_id};
pub(crate) use stat::{Born, Rights, born};

/// What a system call gives: its value, or the kernel's errno.
pub type Result<T> = core::result::Result<T, Errno>;

/// The one point that every system call passes.
///
/// `name` is the call's name, with its variant where a variant can be missing on its own (such as
/// `"renameat2(RENAME_EXCHANGE)"`). Without the test seam this is the call and nothing else.
#[inline(always)]
pub(crate) fn call<T>(name: &'static str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    #[cfg(feature = "_hook")]
    {
        hook::pass(name, f)
    }
    #[cfg(not(feature = "_hook"))]
    {
        let _ = name;
        f()
    }
}

/// [`call`] of one of the calls that make `fd` durable. With the feature `tracing` they are told of.
#[inline(always)]
pub(crate) fn call_on(
    name: &'static str,
    fd: BorrowedFd<'_>,
    f: impl FnOnce() -> Result<()>,
) -> Result<()> {
    #[cfg(feature = "_hook")]
    let made = || hook::pass_on(name, fd, f);
    #[cfg(not(feature = "_hook"))]
    let made = {
        let _ = fd;
        f
    };
    #[cfg(feature = "tracing")]
    {
        crate::trace::sync(name, made)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = name;
        made()
    }
}

/// [`call`], made again as long as a signal interrupts it.
#[inline(always)]
pub(crate) fn retry<T>(name: &'static str, mut f: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call(name, &mut f) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
