//! The clock that counts from boot, and which boot and time namespace it counts for.

use super::{AtFlags, CWD, Errno, FsKind, Mode, OFlags, OwnedFd, Result, fs_kind, openat, read};
use super::{retry, statx};
use std::ffi::CStr;
use std::time::Duration;

/// The time since boot with the time that the machine was suspended (`CLOCK_BOOTTIME`, Linux
/// 2.6.39). Nobody can set it, and it never goes back.
///
/// Two processes read the same clock if [`boot_id`] and [`time_namespace`] are the same for both.
///
/// # Errors
/// As clock_gettime(2). `EINVAL`: a kernel without it.
pub fn boottime() -> Result<Duration> {
    #[cfg(feature = "_hook")]
    if let Some(machine) = super::hook::machine() {
        return super::call("clock_gettime", || Ok(machine.boottime));
    }
    let now = retry("clock_gettime", || {
        rustix::time::clock_gettime_dynamic(rustix::time::DynamicClockId::Boottime)
    })?;
    // It counts from 0 up, and nanoseconds are below a thousand million.
    let seconds = u64::try_from(now.tv_sec).map_err(|_| Errno::INVAL)?;
    let nanos = u32::try_from(now.tv_nsec).map_err(|_| Errno::INVAL)?;
    Ok(Duration::new(seconds, nanos))
}

/// The time of day since 1970, for people and for times of files: it may jump. A clock before that
/// is nothing.
#[must_use]
pub(crate) fn realtime() -> Duration {
    #[cfg(feature = "_hook")]
    if let Some(clock) = super::hook::clock() {
        return clock;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

/// [`realtime`] by the clock that the kernel stamps files with (`CLOCK_REALTIME_COARSE`, clock_getres(2)),
/// which goes on with each tick: it may be some milliseconds behind.
fn file_clock() -> Duration {
    #[cfg(feature = "_hook")]
    if let Some(clock) = super::hook::clock() {
        return clock;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    // As above, before 1970 is nothing.
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// A time that is later than those of files that had changed when [`realtime`] was `since`, and not later
/// than those of files that change from now on, as long as nobody sets the clock. Waits for the next tick, if
/// it has not come yet.
#[must_use]
pub(crate) fn between_files(since: Duration) -> Duration {
    // The longest tick has 10 milliseconds. A clock that stands still, or was set back, is not waited for.
    for _ in 0..30 {
        let now = file_clock();
        #[cfg(feature = "_hook")]
        if super::hook::is_still() {
            return now;
        }
        if now > since {
            return now;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    file_clock()
}

/// The number that the kernel drew at random for this boot (random(4)); `None` where procfs does
/// not tell, or something else is mounted over its file, as some containers do.
///
/// Equal numbers are one boot of one machine, or a virtual machine that was copied while it ran.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`; else as read(2).
pub fn boot_id() -> Result<Option<[u8; 16]>> {
    #[cfg(feature = "_hook")]
    if let Some(machine) = super::hook::machine() {
        return Ok(machine.boot_id);
    }
    let Some(fd) = open(c"/proc/sys/kernel/random/boot_id", OFlags::RDONLY)? else {
        return Ok(None);
    };
    if fs_kind(&fd)? != FsKind::Proc {
        return Ok(None);
    }
    // 36 characters and a newline, which procfs gives at once.
    let mut text = [0; 64];
    let len = read(&fd, &mut text)?;
    Ok(parse(text.get(..len).unwrap_or_default()))
}

/// The time namespace (time_namespaces(7), Linux 5.6) that this thread is in, by its inode number:
/// each has a [`boottime`] of its own. No other one has that number while a process is in it. 0 for
/// a kernel that has none; `None` where procfs does not tell.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn time_namespace() -> Result<Option<u64>> {
    /// `NSFS_MAGIC`: what the links of `ns` lead to.
    const NSFS: FsKind = FsKind::Other(0x6e73_6673);
    #[cfg(feature = "_hook")]
    if let Some(machine) = super::hook::machine() {
        return Ok(machine.time_namespace);
    }
    let Some(dir) = open(c"/proc/thread-self/ns", OFlags::PATH | OFlags::DIRECTORY)? else {
        return Ok(None);
    };
    if fs_kind(&dir)? != FsKind::Proc {
        return Ok(None);
    }
    match openat(&dir, c"time", OFlags::PATH, Mode::empty()) {
        Ok(fd) if fs_kind(&fd)? == NSFS => Ok(Some(statx(&fd, c"", AtFlags::EMPTY_PATH)?.id().ino)),
        Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(e),
        Err(Errno::NOENT) => Ok(Some(0)),
        _ => Ok(None),
    }
}

/// Opens a file of procfs; `None` if it is not there or not allowed.
fn open(path: &CStr, flags: OFlags) -> Result<Option<OwnedFd>> {
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(e),
        Err(_) => Ok(None),
    }
}

/// A UUID: 32 hexadecimal digits, with hyphens.
fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut digits = text.iter().filter(|b| **b != b'-');
    let mut digit = || char::from(*digits.next()?).to_digit(16);
    let mut id = [0; 16];
    for byte in &mut id {
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    digits.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_boot_id() {
        let id = parse(b"00010203-0405-0607-0809-0a0b0c0dfeff\n").unwrap();
        assert_eq!(
            id,
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xfe, 0xff]
        );
        for bad in [
            &b""[..],
            b"\n",
            b"0001",
            b"0001020304050607 8090a0b0c0dfeff",
            b"000102030405060708090a0b0c0dfeff0",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    /// By the time of day, which runs on between two ticks, most of those made afterwards were before it.
    #[test]
    fn a_time_between_files_is_between_them() {
        // In memory: elsewhere times may be kept to the second, or be a server's.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let made = |name: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let meta = std::fs::metadata(path).unwrap();
            let since = std::time::SystemTime::UNIX_EPOCH;
            meta.modified().unwrap().duration_since(since).unwrap()
        };
        for n in 0..20 {
            let earlier = made(format!("{n}, before"));
            let between = between_files(realtime());
            let later = made(format!("{n}, after"));
            assert!(earlier < between && between <= later, "{n}: {between:?}");
        }
    }

    #[test]
    fn the_clock_runs_and_the_boot_stays() {
        let before = boottime().unwrap();
        assert!(before > Duration::ZERO);
        assert!(boottime().unwrap() >= before);
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(time_namespace().unwrap(), time_namespace().unwrap());
        if std::path::Path::new("/proc/self/ns/time").exists() {
            assert!(time_namespace().unwrap().unwrap() > 0);
            assert!(boot_id().unwrap().is_some());
        }
    }
}
