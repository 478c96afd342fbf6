//! The trials behind the capabilities: each feature on fresh files, in a private directory that goes again.

use super::capabilities::{Capability, Feature};
use super::{Name, temp_name};
use crate::sys::{self, AsFd, AtFlags, BorrowedFd, Errno, FallocateFlags, LockKind, LockRange};
use crate::sys::{
    FileId, FileType, Mode, OFlags, OpenHow, OwnedFd, RenameFlags, ResolveFlags, XattrFlags,
};
use std::ffi::CStr;

/// The answers so far; what was not tried is unknown.
pub(super) struct Answers([Capability; Feature::ALL.len()]);

impl Answers {
    pub(super) fn new() -> Self {
        Self([Capability::Unknown(Errno::CANCELED); Feature::ALL.len()])
    }

    pub(super) fn put<T>(&mut self, feature: Feature, answer: sys::Result<T>) {
        self.0[feature as usize] = match answer {
            Ok(_) => Capability::Yes,
            Err(e) if refuses(e, feature) => Capability::No(e),
            Err(e) => Capability::Unknown(e),
        };
    }

    /// What could not be tried because of `e`.
    fn unknown(&mut self, e: Errno, features: &[Feature]) {
        for feature in features {
            self.0[*feature as usize] = Capability::Unknown(e);
        }
    }

    pub(super) fn done(self) -> [Capability; Feature::ALL.len()] {
        self.0
    }
}

/// Whether the errno says that it is not to be had, and not that something else went wrong.
fn refuses(e: Errno, feature: Feature) -> bool {
    match e {
        Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY => true,
        Errno::XDEV | Errno::ISDIR | Errno::NOLCK | Errno::BADF => true,
        // A security module; without files, a directory that this process may not search.
        Errno::ACCESS => WITH_FILES.contains(&feature),
        // The refusal of a descriptor without a right, and of procfs that is not there.
        Errno::NOENT => matches!(feature, Feature::LinkEmptyPath | Feature::LinkProc),
        _ => false,
    }
}

/// What needs nothing to be made.
pub(super) fn without_files(dir: BorrowedFd<'_>, answers: &mut Answers) {
    let how = OpenHow::new(OFlags::PATH | OFlags::DIRECTORY).resolve(ResolveFlags::BENEATH);
    answers.put(Feature::OpenAt2, sys::openat2(dir, c".", how));

    // A sync of the whole file system is too much for a question: a descriptor that is good for nothing gets
    // EBADF from a kernel that has the call.
    let place = sys::openat(dir, c".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let synced = place.and_then(|place| match sys::syncfs(place) {
        Err(Errno::BADF) => Ok(()),
        done => done,
    });
    answers.put(Feature::SyncFs, synced);
}

/// What needs fresh files.
///
/// # Errors
/// The private directory, and why it could not be removed.
pub(super) fn with_files(dir: BorrowedFd<'_>, answers: &mut Answers) -> Result<(), (Name, Errno)> {
    let name = match temp_name::fresh(b'd') {
        Ok(name) => name,
        Err(e) => {
            answers.unknown(e, &WITH_FILES);
            return Ok(());
        }
    };
    let made = sys::mkdirat(dir, name.as_c_str(), Mode::RWXU);
    let room = made.and_then(|()| open_dir(dir, name.as_c_str()));
    let gone = match (&room, made) {
        (Ok(room), _) => {
            try_in(room.as_fd(), answers);
            clean(dir, &name, Some(room.as_fd()))
        }
        (Err(e), Ok(())) => {
            answers.unknown(*e, &WITH_FILES);
            clean(dir, &name, None)
        }
        (Err(e), Err(_)) => {
            answers.unknown(*e, &WITH_FILES);
            // After most errors there is nothing; after some (a network's) there may be.
            if *e != Errno::EXIST && id_of(dir, name.as_c_str()).is_ok() {
                clean(dir, &name, None)
            } else {
                Ok(())
            }
        }
    };
    gone.map_err(|e| (name, e))
}

/// What [`with_files`] answers.
const WITH_FILES: [Feature; 16] = [
    Feature::NoReplace,
    Feature::Exchange,
    Feature::Whiteout,
    Feature::TmpFile,
    Feature::LinkEmptyPath,
    Feature::LinkProc,
    Feature::HardLink,
    Feature::Reflink,
    Feature::CopyFileRange,
    Feature::Fallocate,
    Feature::UserXattr,
    Feature::PosixAcl,
    Feature::SyncDirectory,
    Feature::OfdLock,
    Feature::FlockDirectory,
    Feature::WriteLease,
];

/// Every name that a trial makes.
const NAMES: [&CStr; 8] = [c"a", c"b", c"c", c"n", c"w", c"e", c"p", c"h"];

/// Removes the private directory with what is in it. Each step is tried again once if it fails.
fn clean(dir: BorrowedFd<'_>, name: &Name, room: Option<BorrowedFd<'_>>) -> sys::Result<()> {
    let pass = || {
        if let Some(room) = room {
            for entry in NAMES {
                match sys::unlinkat(room, entry) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        match sys::rmdirat(dir, name.as_c_str()) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    };
    pass().or_else(|_| pass())
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    sys::openat(dir, name, flags, Mode::empty())
}

fn create(room: BorrowedFd<'_>, name: &CStr) -> sys::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    sys::openat(room, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Records a trial on what was made for it, or why that could not be made.
fn trial<A, T>(
    answers: &mut Answers,
    feature: Feature,
    given: &sys::Result<A>,
    f: impl FnOnce(&A) -> sys::Result<T>,
) {
    match given {
        Ok(given) => answers.put(feature, f(given)),
        Err(e) => answers.unknown(*e, &[feature]),
    }
}

fn both<'f>(
    x: &'f sys::Result<OwnedFd>,
    y: &'f sys::Result<OwnedFd>,
) -> sys::Result<(&'f OwnedFd, &'f OwnedFd)> {
    Ok((x.as_ref().map_err(|e| *e)?, y.as_ref().map_err(|e| *e)?))
}

fn try_in(room: BorrowedFd<'_>, answers: &mut Answers) {
    use Feature as F;

    // Held until the directory is gone: whoever sweeps sees that its maker lives.
    answers.put(F::FlockDirectory, sys::try_flock(room, LockKind::Exclusive));

    let tmpfile = sys::open_tmpfile(room, Mode::RUSR | Mode::WUSR);
    answers.put(F::TmpFile, tmpfile);

    let (a, b, c) = (create(room, c"a"), create(room, c"b"), create(room, c"c"));
    trial(answers, F::HardLink, &a, |_| {
        sys::linkat(room, c"a", room, c"h")
    });
    trial(answers, F::LinkEmptyPath, &a, |a| {
        sys::link_empty_path(a, room, c"e")
    });
    trial(answers, F::LinkProc, &a, |a| sys::link_proc(a, room, c"p"));
    try_content(answers, &a, &b, &c);
    trial(answers, F::UserXattr, &a, |a| {
        sys::fsetxattr(a, c"user.steadfast", b"1", XattrFlags::empty())
    });
    trial(answers, F::PosixAcl, &a, |a| {
        sys::fsetxattr(a, c"system.posix_acl_access", &ACL, XattrFlags::empty())
    });
    trial(answers, F::OfdLock, &a, |a| {
        sys::ofd_try_lock(a, LockKind::Exclusive, LockRange::WHOLE)
    });
    try_renames(room, answers, &a, &b, &c);
    try_lease(room, answers);
    answers.put(F::SyncDirectory, sys::fsync(room));
}

/// An access control list that says what mode 0600 says: version 2, then owner, group and others as tag,
/// rights and id, little-endian (acl(5); `include/uapi/linux/posix_acl_xattr.h`).
#[rustfmt::skip]
const ACL: [u8; 28] = [
    2, 0, 0, 0,
    0x01, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
    0x04, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];

type Made = sys::Result<OwnedFd>;

/// Sharing, copying and reserving need a file with content: an empty one is copied without being looked at.
fn try_content(answers: &mut Answers, a: &Made, b: &Made, c: &Made) {
    let content = [b's'; 4096];
    let filled = both(a, b).and_then(|(a, b)| {
        let written = sys::pwrite(a, &content, 0)?;
        if written == content.len() {
            Ok((a, b))
        } else {
            Err(Errno::NOSPC)
        }
    });
    trial(answers, Feature::Reflink, &filled, |(a, b)| {
        sys::ficlone(b, a)
    });
    let filled = filled.and_then(|(a, _)| Ok((a, c.as_ref().map_err(|e| *e)?)));
    trial(answers, Feature::CopyFileRange, &filled, |(a, c)| {
        match sys::copy_file_range(a, c, content.len())? {
            // Nothing moved although there is something.
            0 => Err(Errno::OPNOTSUPP),
            _ => Ok(()),
        }
    });
    trial(answers, Feature::Fallocate, c, |c| {
        sys::fallocate(c, FallocateFlags::empty(), 0, 64 * 1024)
    });
}

/// Renames with flags: two distinct inodes, and a name that is free (a taken one would be `EEXIST`, and two
/// names of one file an empty success, whether or not the flag is known).
fn try_renames(room: BorrowedFd<'_>, answers: &mut Answers, a: &Made, b: &Made, c: &Made) {
    let rename = |from, to, flags| sys::renameat2(room, from, room, to, flags);
    trial(answers, Feature::NoReplace, c, |_| {
        rename(c"c", c"n", RenameFlags::NOREPLACE)
    });
    let pair = both(a, b).map(drop);
    trial(answers, Feature::Exchange, &pair, |()| {
        let id = |name| id_of(room, name);
        let before = (id(c"a")?, id(c"b")?);
        rename(c"a", c"b", RenameFlags::EXCHANGE)?;
        // A server that takes the flag for none has replaced one by the other.
        let after = (id(c"b"), id(c"a"));
        match after {
            (Ok(a), Ok(b)) if (a, b) == before => Ok(()),
            _ => Err(Errno::INVAL),
        }
    });
    let w = create(room, c"w").map(drop);
    // Onto the other name of `a`'s file or a free one; what is left behind at `w` is removed with the rest.
    trial(answers, Feature::Whiteout, &w, |()| {
        rename(c"w", c"h", RenameFlags::WHITEOUT)
    });
}

fn id_of(room: BorrowedFd<'_>, name: &CStr) -> sys::Result<FileId> {
    sys::statx(room, name, AtFlags::SYMLINK_NOFOLLOW).map(|facts| facts.id())
}

/// A lease on a file that nobody writes.
fn try_lease(room: BorrowedFd<'_>, answers: &mut Answers) {
    // Made without being opened: a child of another thread that is between fork and exec would have a copy
    // of a descriptor for writing.
    let made = match sys::unlinkat(room, c"n") {
        Ok(()) | Err(Errno::NOENT) => {
            let mode = Mode::RUSR | Mode::WUSR;
            sys::mknodat(room, c"n", FileType::RegularFile, mode, 0)
        }
        Err(e) => Err(e),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
    let file = made.and_then(|()| sys::openat(room, c"n", flags, Mode::empty()));
    trial(answers, Feature::WriteLease, &file, |file| {
        sys::lease_free_of_writers(file).map(drop)
    });
}
