//! Copying a tree.

use super::acl::drop_inherited;
use super::chain::look;
use super::content::{Copier, Failure};
use super::meta::carry;
pub use super::meta::{Keep, Preserve};
use super::walk::Walk;
use super::work::{OPERATION, Work};
use super::{Progress, Watch};
use crate::root::Name;
use crate::sys::{AsFd, BorrowedFd, Errno, FileType};
use crate::{Error, ErrorKind, Result};
use std::ops::ControlFlow;

/// What becomes of FIFOs, sockets and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Special {
    /// They are an error ([`ErrorKind::NotAFile`]).
    #[default]
    Refuse,
    /// They are left out, and counted.
    Skip,
    /// They are made anew (mknod(2)); devices need `CAP_MKNOD`.
    Recreate,
}

/// How [`copy`] works.
#[derive(Clone, Debug)]
#[must_use]
pub struct CopyOptions {
    pub(super) preserve: Preserve,
    pub(super) special: Special,
    pub(super) same_mount: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            preserve: Preserve::default(),
            special: Special::default(),
            same_mount: true,
        }
    }
}

impl CopyOptions {
    /// Owner and attributes as far as possible, times; special files and other mounts are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is kept.
    pub fn preserve(mut self, preserve: Preserve) -> Self {
        self.preserve = preserve;
        self
    }

    /// What becomes of FIFOs, sockets and devices.
    pub fn special(mut self, special: Special) -> Self {
        self.special = special;
        self
    }

    /// Whether to refuse (`EBUSY`, [`ErrorKind::Busy`]) a mount inside the tree. On by default; without it,
    /// what is mounted is copied as part of the tree.
    pub fn same_mount(mut self, on: bool) -> Self {
        self.same_mount = on;
        self
    }
}

/// What [`copy`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Copied {
    /// Regular files copied, further names of the same file not counted.
    pub files: u64,
    /// Directories made.
    pub dirs: u64,
    /// Symlinks made.
    pub symlinks: u64,
    /// FIFOs, sockets and devices made.
    pub specials: u64,
    /// Hard links made: further names of a file copied before.
    pub hard_links: u64,
    /// Bytes of content, holes not counted.
    pub bytes: u64,
    /// FIFOs, sockets and devices left out ([`Special::Skip`]).
    pub skipped: u64,
    /// Files whose size or time of change was not the same after copying as before: what was copied may be
    /// a mixture of two states.
    pub changed: u64,
    /// Files and directories that have another owner or group than their source.
    pub owners_missed: u64,
    /// Extended attributes and ACLs that could not be set.
    pub xattrs_missed: u64,
    /// Further names of a file that became files of their own, where the target cannot link them.
    pub links_missed: u64,
}

/// Copies the tree `from_name` in `from` to the name `to_name` in `to`, which must not exist: a directory
/// with all that is in it, a single file, a symlink.
///
/// Content is shared with the source where the file system can (`FICLONE`), else copied by the kernel
/// (copy_file_range(2)), else through a buffer; memory does not depend on sizes. Holes stay holes. Names
/// that are hard links of each other in the source are that in the copy. Symlinks are copied as they are and
/// never followed. FIFOs and devices are never opened. While the copy grows, nothing of it is more readable
/// than its source.
///
/// The target appears at once and grows: to make a finished tree appear, copy to a temporary name and rename.
/// What vanishes from the source meanwhile is left out; a source that changes gives what was there when it
/// was read, and is counted in [`Copied::changed`].
///
/// # Errors
/// `EEXIST`: the target exists. `ENOENT`: the source does not. `EINVAL`: the target is inside the source.
/// `EBUSY`: a mount in the source. [`ErrorKind::NotAFile`]: a special file. `EACCES`: a source that may not
/// be read. `ENOSPC`, `EDQUOT`. [`ErrorKind::Changed`]: a directory was moved away or replaced under the
/// work. Else as openat(2), write(2), fchown(2), fsetxattr(2) and the calls above. [`path`](Error::path) is
/// the source's, beginning with `from_name`, and [`other_path`](Error::other_path) the target's.
///
/// After an error the part that was copied is removed again ([`Unchanged`](crate::DiskState)); if that
/// fails too, [`left_behind`](Error::left_behind) has its name.
///
/// # After a crash
/// Nothing is synced: any part of the copy may be there, or empty. [`sync`](super::sync) it, then its parent.
pub fn copy(
    from: impl AsFd,
    from_name: &Name,
    to: impl AsFd,
    to_name: &Name,
    options: &CopyOptions,
) -> Result<Copied> {
    let watch: &mut Watch<'_> = &mut |_| ControlFlow::Continue(());
    copy_watched(from, from_name, to, to_name, options, watch)
}

/// [`copy`], telling `watch` after each entry, and after each piece of a large file.
///
/// # Errors
/// As [`copy`], and [`ErrorKind::Cancelled`].
pub fn copy_watched(
    from: impl AsFd,
    from_name: &Name,
    to: impl AsFd,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    operation!("copy tree", from = from_name, to = to_name);
    let walk = Walk::new(from.as_fd(), from_name)?;
    Work::new(to.as_fd(), to_name, options, watch).run(walk, None)
}

/// [`copy_watched`] into the empty directory `to_name`, which the caller has made and removes after an error.
/// It gets the attributes of the source.
pub(crate) fn copy_into(
    from: BorrowedFd<'_>,
    from_name: &Name,
    to: BorrowedFd<'_>,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let walk = Walk::new(from, from_name)?;
    let mut work = Work::new(to, to_name, options, watch);
    work.existing = true;
    work.run(walk, None)
}

/// Copies content and attributes of the regular file `from` to the empty file `to`, which the caller removes
/// after an error. Both stand at their start.
pub(crate) fn copy_file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    preserve: Preserve,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let fail = |(call, e)| Error::new(OPERATION, call, e);
    let meta = look(from).map_err(|e| fail(("statx", e)))?;
    let mut done = copy_content(from, to, watch)?;
    drop_inherited(to, false).map_err(fail)?;
    let missed = carry(from, &meta, to, preserve).map_err(fail)?;
    done.owners_missed = missed.owner.into();
    done.xattrs_missed = missed.xattrs;
    Ok(done)
}

/// [`copy_file`] without the attributes.
pub(crate) fn copy_content(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let fail = |call, e| Error::new(OPERATION, call, e);
    let meta = look(from).map_err(|e| fail("statx", e))?;
    // Of a directory some file systems find no data to read, and so no reason to refuse.
    match meta.kind() {
        FileType::RegularFile => {}
        FileType::Directory => return Err(fail("statx", Errno::ISDIR)),
        _ => return Err(Error::of_kind(OPERATION, ErrorKind::NotAFile)),
    }
    let mut done = Copied::default();
    let copied = Copier::default().copy(from, &meta, to, &mut |n| {
        done.bytes += n;
        watch(&progress(&done))
    });
    match copied {
        Ok(content) => done.changed = content.changed.into(),
        Err(Failure::Call(call, e)) => return Err(fail(call, e)),
        Err(Failure::Cancelled) => return Err(Error::of_kind(OPERATION, ErrorKind::Cancelled)),
    }
    done.files = 1;
    Ok(done)
}

/// [`copy_watched`] of a directory that is open.
pub(super) fn copy_dir(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    to_name: &Name,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    let walk = Walk::over(from).map_err(|e| e.with_operation(OPERATION))?;
    Work::new(to, to_name, options, watch).run(walk, Some(from))
}

/// The part of it that a watcher is told.
pub(super) fn progress(done: &Copied) -> Progress {
    Progress {
        files: done.files + done.symlinks + done.specials + done.hard_links,
        dirs: done.dirs,
        bytes: done.bytes,
    }
}
