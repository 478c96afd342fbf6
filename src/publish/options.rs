//! What to publish a file over, what to keep, how durable: the options, and the calls that take them.

use super::attributes::{Explicit, Old, Preserve};
use super::pending::{PendingFile, REPLACE, To};
use super::place::advise;
use super::staged::Staged;
use super::terms::Terms;
use super::{Note, Receipt, Version, file};
use crate::root::{Access, Last, Place, resolve_error};
use crate::sys::{
    self, AsFd, AtFlags, Errno, FileType, Gid, Metadata, Mode, OFlags, Timespec, Uid,
};
use crate::{DiskState, Durability, Error, ErrorKind, Name, Result, Root};
use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What must be at the name for a publication to go ahead. The kernel decides at the moment of publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Nothing, or a regular file, which is replaced.
    #[default]
    CreateOrReplace,
    /// Nothing: a taken name is [`ErrorKind::AlreadyExists`].
    CreateNew,
    /// A regular file, which is replaced; a free name is [`ErrorKind::NotFound`]. It is exchanged for the new
    /// one (`RENAME_EXCHANGE`), which only works if something is there; without that call it is looked at
    /// just before.
    Replace,
    /// This version of a regular file; any other is [`ErrorKind::Changed`]. It is exchanged for the new one,
    /// looked at, and put back if it is another version, so that readers may see the new file for a moment.
    /// Without `RENAME_EXCHANGE` it is looked at just before, and [`Note::CheckedNotExchanged`] says so.
    IfUnchanged(Version),
}

/// What a symlink at the target means. Links further up the path are always followed, beneath the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SymlinkPolicy {
    /// Refuse ([`ErrorKind::SymlinkLoop`]): neither the link nor what it points to is touched. The default,
    /// for only the caller knows which of the two is meant.
    #[default]
    Refuse,
    /// Publish what the link points to, beneath the root; it need not exist yet.
    Follow,
    /// Replace the link itself, as rename(2) does.
    Replace,
}

/// Where the content is kept until it is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Staging {
    /// In the target's directory, under a temporary name.
    #[default]
    Beside,
    /// In the target's directory, without a name (`O_TMPFILE`, Linux 3.11): a kill while it is written leaves
    /// nothing at all. It gets a temporary name just before it is synced. Where unnamed files are missing, as
    /// [`Beside`](Self::Beside), with [`Note::StagedByName`].
    Unnamed,
    /// In this directory beneath the root, which must be on the same mount, under a temporary name.
    In(PathBuf),
}

/// How to publish a file. One value serves any number of files.
///
/// ```
/// use steadfast::publish::{FileOptions, Target};
/// use steadfast::{ErrorKind, Root};
/// # let tmp = tempfile::tempdir()?;
/// let root = Root::open(tmp.path())?;
/// let new = FileOptions::new().target(Target::CreateNew);
/// new.write(&root, "id", b"1")?;
/// let refused = new.write(&root, "id", b"2").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct FileOptions {
    pub(super) target: Target,
    pub(super) durability: Durability,
    pub(super) symlink: SymlinkPolicy,
    pub(super) staging: Staging,
    pub(super) preserve: Preserve,
    pub(super) explicit: Explicit,
    pub(super) parents: Option<Mode>,
    /// It is created for us alone, whatever mode it ends with.
    pub(super) private: bool,
    pub(super) expect_len: Option<u64>,
    #[cfg(feature = "sha256")]
    pub(super) expect_sha256: Option<[u8; 32]>,
}

impl FileOptions {
    /// Create or replace, fully durable, refusing symlinks, staged beside the target, keeping a replaced
    /// file's mode, owner, access list and extended attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What must be at the name.
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// What a power cut may take back.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What a symlink at the target means.
    pub fn symlink(mut self, policy: SymlinkPolicy) -> Self {
        self.symlink = policy;
        self
    }

    /// Where the content is kept until it is published.
    pub fn staging(mut self, staging: Staging) -> Self {
        self.staging = staging;
        self
    }

    /// What is kept of a replaced file.
    pub fn preserve(mut self, preserve: Preserve) -> Self {
        self.preserve = preserve;
        self
    }

    /// Exactly these permission bits, whatever the umask, a replaced file or a default access list says.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.explicit.mode = Some(mode);
        self
    }

    /// This owner and group; `None` leaves each to [`Preserve`]. Failing to set them fails the publication.
    pub fn owner(mut self, uid: Option<Uid>, gid: Option<Gid>) -> Self {
        self.explicit.uid = uid;
        self.explicit.gid = gid;
        self
    }

    /// These times of last access and modification; `None` leaves each to [`Preserve`].
    pub fn times(mut self, atime: Option<Timespec>, mtime: Option<Timespec>) -> Self {
        self.explicit.atime = atime;
        self.explicit.mtime = mtime;
        self
    }

    /// An extended attribute, such as `user.origin`. A name with a NUL byte is cut there by no one: setting
    /// it fails the publication with [`ErrorKind::InvalidInput`].
    pub fn xattr(mut self, name: impl AsRef<OsStr>, value: impl Into<Vec<u8>>) -> Self {
        // An empty name is refused when it is set.
        let name = CString::new(name.as_ref().as_bytes()).unwrap_or_default();
        self.explicit.xattrs.push((name, value.into()));
        self
    }

    /// Makes missing directories on the way, with this mode under the umask, as durable as the file. They
    /// stay if the publication then fails.
    pub fn create_parents(mut self, mode: Mode) -> Self {
        self.parents = Some(mode);
        self
    }

    /// The content must have this length in bytes, or nothing is published.
    pub fn expect_len(mut self, len: u64) -> Self {
        self.expect_len = Some(len);
        self
    }

    /// The content must have this SHA-256, or nothing is published. It is read back once before publication.
    #[cfg(feature = "sha256")]
    pub fn expect_sha256(mut self, hash: [u8; 32]) -> Self {
        self.expect_sha256 = Some(hash);
        self
    }

    /// Publishes these bytes at `path` beneath `root`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`PendingFile::commit`]; the error says what state the disk is in.
    pub fn write(
        &self,
        root: &Root,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<Receipt> {
        let mut pending = self.start(root, path.as_ref(), false, Ok)?;
        let done = pending.write_all(bytes.as_ref());
        pending.filled(done)?.commit()
    }

    /// Publishes what the closure writes. If it fails nothing is published.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::Source`] for the closure's own error.
    pub fn write_with(
        &self,
        root: &Root,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut PendingFile<'_>) -> io::Result<()>,
    ) -> Result<Receipt> {
        let mut pending = self.begin(root, path)?;
        let done = fill(&mut pending);
        pending.filled(done)?.commit()
    }

    /// Publishes all that a reader gives, through a buffer of 128 KiB. If it fails nothing is published.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::Source`] for the reader's error.
    pub fn write_from(
        &self,
        root: &Root,
        path: impl AsRef<Path>,
        mut reader: impl Read,
    ) -> Result<Receipt> {
        self.write_with(root, path, |pending| file::copy_from(&mut reader, pending))
    }

    /// Publishes the content of an open file, from its start: shared with it where the file system can
    /// (`FICLONE`), else copied by the kernel, else through a buffer; holes stay holes. Of its attributes
    /// none is taken over. The descriptor's offset moves.
    ///
    /// # Errors
    /// As [`write`](Self::write); `EISDIR` for a directory, [`ErrorKind::NotAFile`] for what else is no
    /// regular file.
    pub fn copy_from(
        &self,
        root: &Root,
        path: impl AsRef<Path>,
        from: impl AsFd,
    ) -> Result<Receipt> {
        let path = path.as_ref();
        let fail = |e| Error::new(REPLACE, "lseek", e).with_path(path);
        sys::seek(&from, io::SeekFrom::Start(0)).map_err(fail)?;
        let mut pending = self.begin(root, path)?;
        match pending.take_content(from.as_fd()) {
            Ok(()) => pending.commit(),
            Err(error) => Err(pending.abandon(error)),
        }
    }

    /// Begins to publish at `path` beneath `root`: write to what this gives, then
    /// [`commit`](PendingFile::commit).
    ///
    /// # Errors
    /// Nothing was changed. [`ErrorKind::Escape`]: the path leads out of the root. [`ErrorKind::NotFound`]:
    /// the parent is missing (see [`create_parents`](Self::create_parents)), or the file that was to be
    /// replaced. [`ErrorKind::AlreadyExists`], [`ErrorKind::Changed`]: the target is not as asked for.
    /// [`ErrorKind::IsADirectory`], [`ErrorKind::NotAFile`], [`ErrorKind::SymlinkLoop`]: the target is a
    /// directory; a FIFO, socket or device; a symlink. Else as open(2).
    pub fn begin<'r>(&self, root: &'r Root, path: impl AsRef<Path>) -> Result<PendingFile<'r>> {
        self.start(root, path.as_ref(), true, Ok)
    }

    /// [`begin`](Self::begin), with a descriptor of its own for the directory, so that the file may outlive
    /// the root and go to another thread.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); `EMFILE`: too many open files.
    pub fn begin_owned(&self, root: &Root, path: impl AsRef<Path>) -> Result<PendingFile<'static>> {
        self.start(root, path.as_ref(), true, Place::into_owned)
    }

    /// `early`: look for a taken name before anything is written, so that a long stream is not refused at
    /// its end. `keep`: how the directory is held on to.
    fn start<'r, 'p>(
        &self,
        root: &'r Root,
        path: &Path,
        early: bool,
        keep: impl FnOnce(Place<'r>) -> sys::Result<Place<'p>>,
    ) -> Result<PendingFile<'p>> {
        operation!("begin file", path = path);
        if let Some(mode) = self.parents
            && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty())
        {
            root.create_dir_all(parent, mode, self.durability)
                .map_err(|e| {
                    // Of what is published nothing was changed; directories that were made stay.
                    e.with_operation(REPLACE).with_state(DiskState::Unchanged)
                })?;
        }
        let fail = |call, e| Error::new(REPLACE, call, e).with_path(path);
        let mut notes = Vec::new();
        let (found, place) = self.find(root, path, early)?;
        let mut expected = None;
        let old = match (&found, &self.target) {
            (Some(_), Target::CreateNew) => {
                return Err(fail("statx", Errno::EXIST));
            }
            (None, Target::Replace | Target::IfUnchanged(_)) => {
                return Err(fail("statx", Errno::NOENT));
            }
            (Some(meta), target) => {
                if let Target::IfUnchanged(version) = target {
                    expected = version
                        .check(&place.dir, &place.name, meta)
                        .map_err(|e| fail("openat", e))?;
                }
                if meta.is_file() { Some(*meta) } else { None }
            }
            (None, _) => None,
        };
        let terms = Terms::of(self, expected).ok_or_else(|| changed(path))?;
        let old = old
            .map(|meta| Old::read(&place.dir, &place.name, meta, self.preserve, &mut notes))
            .transpose();
        let old = match old {
            // Removed meanwhile.
            Err((_, Errno::NOENT)) if self.target == Target::CreateOrReplace => None,
            old => old.map_err(|(call, e)| fail(call, e))?,
        };
        if let Some(links) = old.as_ref().map(|o| o.meta.links()).filter(|n| *n > 1) {
            notes.push(Note::LinksCut(links - 1));
        }
        // What takes over or is given a mode starts out closed; what does not is created as open(2) does, so
        // that umask and default access list apply.
        let closed =
            self.private || self.explicit.mode.is_some() || (old.is_some() && self.preserve.mode);
        let mode = Mode::from_raw_mode(if closed { 0o600 } else { 0o666 });
        let folder = place.folder;
        let dir = keep(place.dir).map_err(|e| fail("fcntl", e))?;
        let to = |dir| To {
            dir,
            name: place.name,
            shown: path.to_owned(),
        };
        let (staged, to) = match &self.staging {
            Staging::Beside => (Staged::named(dir, folder, mode), to(None)),
            Staging::Unnamed => (Staged::unnamed(dir, folder, mode, &mut notes), to(None)),
            Staging::In(at) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = root
                    .open_raw(at.as_os_str().as_bytes(), flags, Mode::empty())
                    .map_err(|e| resolve_error("open the staging directory", e, at))?;
                let folder = at.clone();
                (Staged::named(Place::Below(fd), folder, mode), to(Some(dir)))
            }
        };
        let staged = staged.map_err(|e| match fail("openat", e) {
            error if error.kind() == ErrorKind::PermissionDenied => advise(error),
            error => error,
        })?;
        Ok(PendingFile::new(
            staged,
            to,
            terms,
            old.map(Box::new),
            notes,
        ))
    }

    /// Finds the target, and refuses one that a file cannot be published over.
    fn find<'r>(
        &self,
        root: &'r Root,
        path: &Path,
        early: bool,
    ) -> Result<(Option<Metadata>, Found<'r>)> {
        let create_new = self.target == Target::CreateNew;
        // A link takes the name, whatever the policy.
        let symlink = if create_new {
            SymlinkPolicy::Replace
        } else {
            self.symlink
        };
        let look = early || !create_new;
        let found = find_target(REPLACE, root, path, symlink, look)?;
        if found.slash {
            return Err(resolve_error(REPLACE, Errno::ISDIR, path));
        }
        let kind = found.meta.map(|m| m.kind());
        match (kind, &self.target) {
            (None | Some(FileType::RegularFile), _) | (_, Target::CreateNew) => {}
            (Some(FileType::Symlink), Target::IfUnchanged(_)) => return Err(changed(path)),
            (Some(FileType::Symlink), _) => {}
            (Some(FileType::Directory), _) => {
                return Err(resolve_error(REPLACE, Errno::ISDIR, path));
            }
            _ => {
                return Err(Error::of_kind(REPLACE, ErrorKind::NotAFile)
                    .with_path(path)
                    .with_advice("only regular files are replaced: remove it first"));
            }
        }
        Ok((found.meta, found))
    }
}

/// Where a target is, and what is there.
#[derive(Debug)]
pub(super) struct Found<'r> {
    pub(super) dir: Place<'r>,
    pub(super) name: Name,
    /// The directory as the caller would write it.
    pub(super) folder: PathBuf,
    /// Slashes follow the name.
    pub(super) slash: bool,
    /// `None`: nothing, or nobody looked.
    pub(super) meta: Option<Metadata>,
}

/// Finds the directory and name that a publication at `path` is about, following or refusing a symlink there.
pub(super) fn find_target<'r>(
    operation: &'static str,
    root: &'r Root,
    path: &Path,
    symlink: SymlinkPolicy,
    look: bool,
) -> Result<Found<'r>> {
    /// Symlinks in one resolution, as the kernel counts (path_resolution(7)).
    const LINKS: u32 = 40;
    let mut bytes = Cow::Borrowed(path.as_os_str().as_bytes());
    for _ in 0..=LINKS {
        let target = root.target(&bytes, Access::Sync).map_err(|e| {
            let error = resolve_error(operation, e, path);
            match e {
                Errno::NOENT => error.with_advice("its directory does not exist: create it first"),
                _ => error,
            }
        })?;
        let Last::Normal(name) = target.last else {
            return Err(resolve_error(operation, Errno::ISDIR, path));
        };
        let mut found = Found {
            dir: target.dir,
            name,
            folder: folder_of(&bytes),
            slash: target.slash,
            meta: None,
        };
        if !look {
            return Ok(found);
        }
        let at = found.name.as_c_str();
        let meta = match sys::statx(&found.dir, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(meta) => meta,
            Err(Errno::NOENT) => return Ok(found),
            Err(e) => return Err(Error::new(operation, "statx", e).with_path(path)),
        };
        if !meta.is_symlink() || symlink == SymlinkPolicy::Replace {
            found.meta = Some(meta);
            return Ok(found);
        }
        if symlink == SymlinkPolicy::Refuse {
            return Err(Error::of_kind(operation, ErrorKind::SymlinkLoop)
                .with_path(path)
                .with_detail("the target is a symlink")
                .with_advice("choose: follow it, or replace the link itself"));
        }
        match sys::readlinkat(&found.dir, at) {
            Ok(text) => bytes = join_link(&bytes, text.as_bytes()).into(),
            // Replaced by something else meanwhile: look again.
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(Error::new(operation, "readlinkat", e).with_path(path)),
        }
    }
    Err(resolve_error(operation, Errno::LOOP, path))
}

fn changed(path: &Path) -> Error {
    Error::of_kind(REPLACE, ErrorKind::Changed)
        .with_path(path)
        .with_advice("it is another version: read it again and decide anew")
}

/// The path without its last component.
fn folder_of(path: &[u8]) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path));
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// The path that a symlink at `path` with this text stands for.
fn join_link(path: &[u8], text: &[u8]) -> Vec<u8> {
    if text.starts_with(b"/") {
        return text.to_vec();
    }
    let parent = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    [&path[..parent], text].concat()
}

/// Publishes `bytes` at `path`, which is resolved as any program would: create or replace, fully durable,
/// with the default [`FileOptions`] and the path's parent directory as the [`Root`].
///
/// # Errors
/// As [`FileOptions::write`].
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<Receipt> {
    let (root, name) = Root::around(path)?;
    FileOptions::new().write(&root, name, bytes)
}
