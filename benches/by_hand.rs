//! The yardstick: what the library does, as raw system calls that somebody careful would write.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result, pread, pwrite, write};
use std::path::Path;

/// The attribute that holds an access control list.
const ACL: &str = "system.posix_acl_access";

/// Opens a directory for reading, so that it can be synced.
///
/// # Errors
/// As openat(2).
pub fn open_dir(at: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(at, path, flags, Mode::empty())
}

/// Replaces `name` in `dir` durably, and keeps its mode, owner, extended attributes and access list.
///
/// # Errors
/// As the calls it makes. The temporary file may be left then.
pub fn replace(dir: impl AsFd, name: &str, temporary: &str, content: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    // Opening a device or a FIFO may do something: only a regular file is opened.
    if fs::FileType::from_raw_mode(fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
        != fs::FileType::RegularFile
    {
        return Err(Errno::LOOP);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let old = fs::openat(dir, name, flags, Mode::empty())?;
    let facts = fs::fstat(&old)?;
    let mut names = [0; 4096];
    let len = fs::flistxattr(&old, &mut names)?;
    // Nothing that is measured has any: a careful copy of them would begin here.
    assert_eq!(len, 0, "the file has extended attributes");
    drop(old);

    let file = create(dir, temporary, content)?;
    let new = fs::fstat(&file)?;
    if (new.st_uid, new.st_gid) != (facts.st_uid, facts.st_gid) {
        let owner = Some(fs::Uid::from_raw(facts.st_uid));
        fs::fchown(&file, owner, Some(fs::Gid::from_raw(facts.st_gid)))?;
    }
    // What the directory's default list has put there is not the old file's.
    match fs::fgetxattr(&file, ACL, &mut names) {
        Ok(_) => fs::fremovexattr(&file, ACL)?,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(e) => return Err(e),
    }
    fs::fchmod(&file, Mode::from_raw_mode(facts.st_mode & 0o7777))?;
    fs::fsync(&file)?;
    fs::renameat(dir, temporary, dir, name)?;
    fs::fsync(dir)
}

/// Replaces `name` in `dir` durably, with a new file's attributes.
///
/// # Errors
/// As the calls it makes. The temporary file may be left then.
pub fn replace_plain(dir: impl AsFd, name: &str, temporary: &str, content: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    let file = create(dir, temporary, content)?;
    fs::fsync(&file)?;
    fs::renameat(dir, temporary, dir, name)?;
    fs::fsync(dir)
}

fn create(dir: impl AsFd, name: &str, content: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
    write_all(content, |rest, _| write(&file, rest))?;
    Ok(file)
}

/// The least that makes files new as one by a log, which nobody could recover by: content under
/// temporary names, all of it once more in one write to `log`, a file that is long enough and was
/// written before, one sync, and then the names.
///
/// # Errors
/// As the calls it makes. Temporary files may be left then.
pub fn by_a_log(dir: impl AsFd, log: impl AsFd, names: &[String], content: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    let temporary: Vec<String> = (0..names.len())
        .map(|n| format!(".temporary-{n}"))
        .collect();
    let mut record = Vec::with_capacity(names.len() * (content.len() + 64));
    for (name, temporary) in names.iter().zip(&temporary) {
        create(dir, temporary, content)?;
        record.extend_from_slice(name.as_bytes());
        record.extend_from_slice(content);
    }
    put_down(log, record)?;
    for (name, temporary) in names.iter().zip(&temporary) {
        fs::renameat_with(dir, temporary, dir, name, RenameFlags::EXCHANGE)?;
    }
    for temporary in &temporary {
        fs::unlinkat(dir, temporary, AtFlags::empty())?;
    }
    Ok(())
}

/// The least that writes files in place as one by a log, which nobody could recover by: old and new
/// content of all in one write to `log`, as in [`by_a_log`], one sync, and then the contents.
///
/// # Errors
/// As the calls it makes. Some of the files may have the new content then.
pub fn in_place_by_a_log(
    dir: impl AsFd,
    log: impl AsFd,
    names: &[String],
    content: &[u8],
) -> Result<()> {
    let dir = dir.as_fd();
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    let mut record = Vec::with_capacity(names.len() * (2 * content.len() + 64));
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let file = fs::openat(dir, name.as_str(), flags, Mode::empty())?;
        record.extend_from_slice(name.as_bytes());
        let old = record.len();
        record.resize(old + content.len(), 0);
        let n = pread(&file, &mut record[old..], 0)?;
        record.truncate(old + n);
        record.extend_from_slice(content);
        files.push(file);
    }
    put_down(log, record)?;
    for file in &files {
        write_all(content, |rest, at| pwrite(file, rest, at))?;
    }
    Ok(())
}

/// Writes a record to the beginning of a log, and syncs it.
fn put_down(log: impl AsFd, mut record: Vec<u8>) -> Result<()> {
    record.resize(record.len().next_multiple_of(512), 0);
    write_all(&record, |rest, at| pwrite(log.as_fd(), rest, at))?;
    fs::fdatasync(log.as_fd())
}

/// Has all of it written, by calls that may write less.
fn write_all(bytes: &[u8], mut write: impl FnMut(&[u8], u64) -> Result<usize>) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += write(&bytes[done..], done as u64)?;
    }
    Ok(())
}

/// Exchanges two names in `dir` durably.
///
/// # Errors
/// As renameat2(2) and fsync(2).
pub fn swap(dir: impl AsFd, a: &str, b: &str) -> Result<()> {
    let dir = dir.as_fd();
    fs::renameat_with(dir, a, dir, b, RenameFlags::EXCHANGE)?;
    fs::fsync(dir)
}
