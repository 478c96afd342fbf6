//! Making the state folder: durable before it counts, by whom ever, however often it is broken off.
//!
//! Everything in it is synced before the file `format` gets its name; that is synced last. Until then the
//! folder is unfinished, and whoever opens it with the wish to create goes on with it.

use super::abandoned;
use super::format::{FolderId, Format};
use super::ledger;
use super::state::{self, FOLDER, OP, Sub, open_folder};
use crate::claim::{Claims, Extra};
use crate::root::{Dir, sync_names, temp_name};
use crate::sys::{self, AsFd, AtFlags, Errno, LockKind, Mode, OFlags, OwnedFd};
use crate::{DiskState, Error, ErrorKind, Name, Result, Root};
use std::ffi::CStr;
use std::time::Duration;

/// Held by whoever makes the folder.
const SETUP: Extra = Extra::new(3);
/// How long to wait for somebody else who makes it: a few syncs.
const WAIT: Duration = Duration::from_secs(30);
pub(super) const FOLDER_MODE: Mode = Mode::RWXU;
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The folder itself, made if it is missing.
pub(super) fn folder(root: &Root) -> Result<Dir> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(state::shown());
    match sys::mkdirat(root, FOLDER, FOLDER_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail("mkdirat")(e)),
    }
    match open_folder(root) {
        // Its maker's umask takes rights from the owner.
        Err(Errno::ACCESS) => {}
        done => return done.map_err(|e| state::refusal("openat", e)),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let place = sys::openat(root, FOLDER, flags, Mode::empty()).map_err(fail("openat"))?;
    let facts = sys::statx(&place, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    if facts.uid() == sys::fsuid().map_err(fail("setfsuid"))? {
        match sys::fchmod_empty_path(&place, FOLDER_MODE) {
            // An older kernel, or a filter that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => sys::descriptor_link(&place)
                .and_then(|(proc, name)| sys::fchmodat(&proc, name.as_c_str(), FOLDER_MODE)),
            done => done,
        }
        .map_err(fail("fchmodat2"))?;
    }
    open_folder(root).map_err(|e| state::refusal("openat", e))
}

/// Makes everything in the folder, up to the name of the file `format`, which is not synced.
pub(super) fn fill(root: &Root, dir: &Dir) -> Result<()> {
    refuse_strangers(dir)?;
    fill_own(root, dir).map_err(|e| match e.disk_state() {
        // The folder stays, and the next one goes on with it.
        DiskState::Unchanged => e.with_state(DiskState::Indeterminate),
        _ => e,
    })
}

fn fill_own(root: &Root, dir: &Dir) -> Result<()> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(state::shown());
    make_claims(dir)?;
    let lock = Claims::open(dir)?.try_claim(&[])?;
    lock.wait_extra(LockKind::Exclusive, SETUP, WAIT)
        .map_err(|e| {
            e.with_operation(OP)
                .with_advice("somebody else is making it")
        })?;
    if Format::read(dir)?.is_some() {
        return Ok(());
    }
    sys::fchmod(dir, FOLDER_MODE).map_err(fail("fchmod"))?;
    for name in refuse_strangers(dir)? {
        // Left by somebody who died: the lock is ours.
        sys::unlinkat(dir, name.as_c_str()).map_err(fail("unlinkat"))?;
    }
    for sub in Sub::ALL {
        make_sub(dir, sub)?;
    }
    ledger::create(dir)?;
    sync_names(dir.as_fd()).map_err(fail("fsync"))?;
    sync_names(root.as_fd()).map_err(fail("fsync"))?;
    let facts = sys::statx(dir, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
    Format::fresh(FolderId::of(&facts))?.write(dir)
}

/// Fails if something in the folder is not of a workspace; gives what was never given its final name.
fn refuse_strangers(dir: &Dir) -> Result<Vec<Name>> {
    let fail = |e| Error::new(OP, "getdents64", e).with_path(state::shown());
    let mut unfinished = Vec::new();
    let mut stream = dir
        .read_dir()
        .map_err(|e| e.with_operation(OP).with_default_path(state::shown()))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        let name = entry.name();
        let own = [c"format", c"claims", ledger::FILE, c"leases", abandoned::FOLDER].contains(&name)
            // Set aside by a repair.
            || name.to_bytes().starts_with(b"damaged-")
            || Sub::ALL.iter().any(|sub| sub.name() == name);
        if temp_name::parse(name.to_bytes()) == Some(temp_name::TempName::File) {
            unfinished.push(Name::from_entry(name).map_err(fail)?);
        } else if !own {
            let path = format!("{}/{}", state::shown(), name.to_string_lossy());
            return Err(Error::of_kind(OP, ErrorKind::AlreadyExists)
                .with_path(path)
                .with_advice(
                    "the folder is no workspace's and holds something of somebody else's: move it \
                     out of the way",
                ));
        }
    }
    Ok(unfinished)
}

/// The lock file, which must be one and the same for all, with a mode that lets it be opened.
pub(super) fn make_claims(dir: &Dir) -> Result<()> {
    const FILE: &CStr = c"claims";
    let fail = |call| move |e| Error::new(OP, call, e).with_path("claims");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = || sys::openat(dir, FILE, flags, FILE_MODE);
    let fd = match open() {
        // Whoever made it died before setting the mode. Nobody else may change names in this folder.
        Err(Errno::ACCESS) => {
            sys::fchmodat(dir, FILE, FILE_MODE).map_err(fail("fchmodat"))?;
            open()
        }
        done => done,
    };
    let fd = fd.map_err(fail("openat"))?;
    sys::fchmod(&fd, FILE_MODE).map_err(fail("fchmod"))
}

/// A folder inside, made if it is missing.
pub(super) fn make_sub(dir: &Dir, sub: Sub) -> Result<Dir> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(sub.path());
    make_folder(dir, sub.name()).map_err(|(call, e)| fail(call)(e))
}

/// A folder of mode 0700 whatever the umask, made if it is missing, in a folder where nobody else may
/// change names.
pub(super) fn make_folder(dir: &Dir, name: &CStr) -> Result<Dir, (&'static str, Errno)> {
    match sys::mkdirat(dir, name, FOLDER_MODE) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(("mkdirat", e)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let open = || sys::openat(dir, name, flags, Mode::empty());
    let fd = match open() {
        Err(Errno::ACCESS) => {
            sys::fchmodat(dir, name, FOLDER_MODE).map_err(|e| ("fchmodat", e))?;
            open()
        }
        done => done,
    };
    let fd = fd.map_err(|e| ("openat", e))?;
    sys::fchmod(&fd, FOLDER_MODE).map_err(|e| ("fchmod", e))?;
    Ok(fd.into())
}

/// A file with this content, synced before it gets its name, which replaces another. The name is not synced.
pub(super) fn put(dir: &Dir, name: &CStr, bytes: &[u8]) -> Result<()> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(name.to_string_lossy().as_ref());
    let temp = temp_name::fresh(b't').map_err(fail("getrandom"))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = sys::openat(dir, temp.as_c_str(), flags, FILE_MODE).map_err(fail("openat"))?;
    let done = fill_file(&fd, bytes).and_then(|()| {
        sys::renameat2(dir, temp.as_c_str(), dir, name, sys::RenameFlags::empty())
            .map_err(|e| ("renameat", e))
    });
    done.map_err(|(call, e)| {
        let error = fail(call)(e);
        match sys::unlinkat(dir, temp.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => error,
            Err(_) => error.with_left(&temp),
        }
    })
}

fn fill_file(fd: &OwnedFd, bytes: &[u8]) -> Result<(), (&'static str, Errno)> {
    sys::fchmod(fd, FILE_MODE).map_err(|e| ("fchmod", e))?;
    let mut done = 0;
    while done < bytes.len() {
        match sys::pwrite(fd, &bytes[done..], done as u64).map_err(|e| ("pwrite64", e))? {
            0 => return Err(("pwrite64", Errno::IO)),
            n => done += n,
        }
    }
    sys::fsync(fd).map_err(|e| ("fsync", e))
}
