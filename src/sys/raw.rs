//! The one room for `unsafe`: calls that rustix lacks.
//!
//! Each function takes borrowed descriptors, which are open for as long as the borrow lasts (I/O safety,
//! RFC 3128), and hands the kernel no pointer, a null pointer, or a pointer to a live local value of the type
//! that the call's manual page names.
#![allow(unsafe_code)]

use super::{AtFlags, BorrowedFd, Errno, Mode, Result, SyncRange};
use rustix::fd::AsRawFd;
use std::ffi::CStr;

/// The errno of a libc call that answered -1, or its answer.
fn check(answer: libc::c_int) -> Result<libc::c_int> {
    if answer == -1 {
        // `last_os_error` always carries a number.
        let errno = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(answer)
}

/// openat2 with null pointers: `EFAULT` from a kernel that has it.
pub(super) fn openat2_null() -> Result<()> {
    const SIZE_OF_OPEN_HOW: usize = 24;
    // SAFETY: openat2 is given null for both pointers, which the kernel refuses to read (EFAULT); nothing in
    // this process is read or written by the call, and it creates no descriptor.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_void>(),
            SIZE_OF_OPEN_HOW,
        )
    };
    check(if answer == -1 { -1 } else { 0 }).map(drop)
}

/// fchmodat2 with an empty path and `AT_EMPTY_PATH`.
pub(super) fn fchmodat2(fd: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    // SAFETY: the path is a live, NUL-terminated constant that the kernel only reads; the descriptor is open
    // while borrowed; the other arguments are integers.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            fd.as_raw_fd(),
            c"".as_ptr(),
            mode.as_raw_mode(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(if answer == -1 { -1 } else { 0 }).map(drop)
}

pub(super) fn sync_file_range(
    fd: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    what: SyncRange,
) -> Result<()> {
    let flags = match what {
        SyncRange::Start => libc::SYNC_FILE_RANGE_WRITE,
        SyncRange::WriteAndWait => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    let len = i64::try_from(len).map_err(|_| Errno::INVAL)?;
    // SAFETY: no pointers; the descriptor is open while borrowed.
    check(unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, flags) }).map(drop)
}

/// fcntl with a `struct flock`: `command` is one of `F_OFD_SETLK`, `F_OFD_SETLKW`.
pub(super) fn ofd(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    start: i64,
    len: i64,
) -> Result<()> {
    // The constants are small and positive on every Linux target.
    let (kind, whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
    // OFD locks require l_pid = 0.
    let lock = libc::flock {
        l_type: kind,
        l_whence: whence,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: `lock` is a live `struct flock`, the type that these commands take, and is only read by them;
    // the descriptor is open while borrowed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw const lock) }).map(drop)
}

/// fcntl with `F_OFD_GETLK`: whether somebody else's lock stands against such a one.
pub(super) fn ofd_conflict(
    fd: BorrowedFd<'_>,
    kind: libc::c_int,
    start: i64,
    len: i64,
) -> Result<bool> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: `lock` is a live `struct flock`, the type that this command takes, which it reads and writes;
    // the descriptor is open while borrowed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Takes a read lease with a signal that is ignored by default; `EAGAIN` if the file is open for writing.
pub(super) fn read_lease(fd: BorrowedFd<'_>) -> Result<()> {
    // fcntl(2); libc does not name it. The same number on every target that Rust supports.
    const F_SETSIG: libc::c_int = 10;
    // A lease that is broken sends SIGIO, which would end a process without a handler; SIGURG does nothing.
    // SAFETY: an integer argument, no pointer; the descriptor is open while borrowed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, libc::SIGURG) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) }).map(drop)
}

/// Gives a lease back.
pub(super) fn unlease(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: an integer argument, no pointer; the descriptor is open while borrowed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) }).map(drop)
}

/// name_to_handle_at with room for no handle: it answers `EOVERFLOW`, and the mount's number all the same.
pub(super) fn mount_by_handle(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: AtFlags,
) -> Result<libc::c_int> {
    // `struct file_handle` up to its flexible member: handle_bytes and handle_type.
    let mut handle: [u32; 2] = [0, 0];
    let mut mount: libc::c_int = -1;
    // SAFETY: `name` is a C string for as long as it is borrowed. `handle` is laid out as the fixed part of
    // `struct file_handle`; handle_bytes = 0 says that no room follows it, so the kernel writes those eight
    // bytes at most. `mount` is a live int that the kernel writes. The descriptor is open while borrowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            flags.bits(),
        )
    };
    match check(if answer == -1 { -1 } else { 0 }) {
        Ok(_) | Err(Errno::OVERFLOW) if mount != -1 => Ok(mount),
        Ok(_) => Err(Errno::OPNOTSUPP),
        Err(e) => Err(e),
    }
}

/// setfsuid with -1, which is no user: nothing is changed, and the answer is who it is.
pub(super) fn fsuid() -> u32 {
    // SAFETY: an integer argument, no pointer. The answer is a user number, never an error.
    let answer = unsafe { libc::setfsuid(libc::uid_t::MAX) };
    // A user number as the kernel's unsigned one.
    answer.cast_unsigned()
}

/// getrlimit of `RLIMIT_NOFILE`: the soft limit.
pub(super) fn descriptor_limit() -> Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live `struct rlimit`, the type that this call writes.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    // Narrower than 64 bits on some targets.
    #[allow(clippy::useless_conversion)]
    Ok(limit.rlim_cur.into())
}
