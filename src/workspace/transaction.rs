//! A transaction as its caller sees it: changes collected in order, conditions, own reads, savepoints.

use super::Workspace;
use super::attributes::Attributes;
use super::commit::{self, Receipt};
use super::conflict::Conflict;
use super::draft::{AttrRequest, Op, Renaming, Source, StagedFile};
use super::plan::Plan;
use super::private;
use super::view::{Content, View};
use crate::claim::{Claim, ClaimPath, Want};
use crate::publish::Version;
use crate::sys::{AsFd, Mode};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest content that waits in memory; a longer one is written to a private file at once.
const IN_MEMORY: usize = 16 << 10;

/// Something that must hold when the transaction commits, of the state before it.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Absent(PathBuf),
    Present(PathBuf),
    Version(PathBuf, Version),
}

/// Changes that happen together or not at all. Made by [`Workspace::begin`].
///
/// The methods only collect: nothing is looked at on the disk, and nothing but private files is written,
/// before [`commit`](Self::commit), which checks everything at once. So a missing file, a name that is
/// taken or a directory that is not empty is reported there with
/// [`DiskState::Unchanged`](crate::DiskState::Unchanged).
///
/// Operations see what those before them did: renaming a file and writing a new one at its old name,
/// exchanging two files, removing a directory and writing a file of that name are all fine. Paths are
/// beneath the root of the workspace; links on the way are followed beneath it, and one at the end is never
/// followed: writing to a symlink fails with `ELOOP`, removing and renaming take the link itself.
///
/// Dropping it discards it.
#[derive(Debug)]
#[must_use = "nothing happens before commit()"]
pub struct Transaction<'w> {
    /// `None`: it is only to be planned.
    workspace: Option<&'w Workspace>,
    pub(super) root: &'w Root,
    pub(super) ops: Vec<Op>,
    pub(super) conditions: Vec<Condition>,
    pub(super) claim: Option<Claim>,
    pub(super) claimed: Vec<Want>,
    /// The caller has claimed paths, and may have read them since.
    pub(super) held_by_caller: bool,
    pub(super) label: Vec<u8>,
    /// What was read, by path, so that a commit can tell that it is as it was.
    pub(super) reads: super::commit::Reads,
    /// Private files that were written for it; they are removed with it unless they are committed.
    pub(super) files: Vec<Name>,
    /// The log that its private files are named after.
    pub(super) index: u32,
    /// The conflict that it resolves: that one does not stand against it.
    pub(super) resolves: Option<Conflict>,
    /// The picture for own reads, and how many of the operations are in it.
    view: Option<(View<'w>, usize)>,
}

/// A point in a transaction to go back to. See [`Transaction::rollback_to`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    ops: usize,
    conditions: usize,
}

impl<'w> Transaction<'w> {
    pub(super) fn new(workspace: &'w Workspace) -> Self {
        Self::with(&workspace.root, Some(workspace))
    }

    /// A transaction beneath `root` that can be [planned](Self::plan) and not committed. Nothing is changed,
    /// no lock is taken, and no workspace is needed or made. It is planned from what is there: where there
    /// is a workspace, what dead processes have left in it is not finished first, and paths that others have
    /// claimed, or that wait for [`Workspace::resolve`], do not stand against it.
    ///
    /// Contents from memory and from readers stay in memory; a file to be copied is not read.
    ///
    /// ```
    /// use steadfast::{Root, workspace::Transaction};
    /// # let dir = tempfile::tempdir()?;
    /// let root = Root::open(dir.path())?;
    /// let mut tx = Transaction::to_plan(&root);
    /// tx.create_dir("conf");
    /// tx.write("conf/a", "1")?;
    /// assert_eq!(tx.plan()?.steps.len(), 2);
    /// assert!(std::fs::read_dir(dir.path())?.next().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn to_plan(root: &'w Root) -> Self {
        Self::with(root, None)
    }

    fn with(root: &'w Root, workspace: Option<&'w Workspace>) -> Self {
        Self {
            workspace,
            root,
            ops: Vec::new(),
            conditions: Vec::new(),
            claim: None,
            claimed: Vec::new(),
            held_by_caller: false,
            label: Vec::new(),
            reads: super::commit::Reads::default(),
            files: Vec::new(),
            index: workspace.map_or(0, |w| w.writer.index),
            resolves: None,
            view: None,
        }
    }

    /// A text for people who look at the log or at a conflict.
    pub fn label(&mut self, text: &str) -> &mut Self {
        self.label = text.as_bytes().to_vec();
        self
    }

    /// Replaces or creates a file with this content. A replaced file keeps its mode, owner where permitted,
    /// access list and extended attributes; a new one has mode 0666 less the umask.
    ///
    /// # Errors
    /// Those of writing a private file, if the content is long: `ENOSPC`, `EDQUOT`, `EIO`.
    pub fn write(&mut self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        self.write_with(path, content, Attributes::new())
    }

    /// [`write`](Self::write) with these attributes.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(
        &mut self,
        path: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<()> {
        let source = self.source(content.as_ref())?;
        self.push_write(path.as_ref(), source, attributes.0, false);
        Ok(())
    }

    /// Creates a file; if something has that name, the commit fails with
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn create_new(&mut self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let source = self.source(content.as_ref())?;
        self.push_write(path.as_ref(), source, AttrRequest::default(), true);
        Ok(())
    }

    /// [`write`](Self::write) with what `reader` gives until its end, in constant memory.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`ErrorKind::Source`](crate::ErrorKind::Source) if the reader fails.
    pub fn write_from(&mut self, path: impl AsRef<Path>, reader: impl Read) -> Result<()> {
        let source = match self.workspace {
            Some(workspace) => {
                let staged = workspace.stage_reader(self.index, reader)?;
                self.file(staged)
            }
            None => Source::Bytes(private::in_memory(reader)?.into()),
        };
        self.push_write(path.as_ref(), source, AttrRequest::default(), false);
        Ok(())
    }

    /// [`write`](Self::write) with the content of an open file, from its start: shared with it where the
    /// file system can, else copied by the kernel.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of reading `from`.
    pub fn write_copy(&mut self, path: impl AsRef<Path>, from: impl AsFd) -> Result<()> {
        let source = match self.workspace {
            Some(workspace) => {
                let staged = workspace.stage_copy(self.index, from.as_fd())?;
                self.file(staged)
            }
            None => Source::File(Arc::new(private::as_it_is(from.as_fd())?)),
        };
        self.push_write(path.as_ref(), source, AttrRequest::default(), false);
        Ok(())
    }

    /// Adds to the end of a file, or creates it. Readers see the file without or with all of it: the file is
    /// replaced by a copy (which costs nothing where the file system can share content).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn append(&mut self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
        let source = self.source(content.as_ref())?;
        let path = path.as_ref().to_owned();
        self.ops.push(Op::Append { path, source });
        Ok(())
    }

    /// Writes over the content of a file that cannot be replaced, such as a bind-mounted single file. It
    /// stays the inode that it is, with its other names.
    ///
    /// A crash gives the old content or the new one, once recovery has run; other than with
    /// [`write`](Self::write), a reader beside it may see part of both. Both contents travel in the record
    /// if neither is longer than 16 KiB (16 MiB in one transaction), and cost no sync of their own; others
    /// are copied and synced on the side first, so this is for files of moderate size. As with write(2) by
    /// others than root, the file loses set-user-id, and set-group-id if its group may execute it, unless a
    /// mode is set as well. Its time of last access stays, if the caller owns it or may act so (`O_NOATIME`,
    /// open(2)); recovery after a crash may change it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_in_place(
        &mut self,
        path: impl AsRef<Path>,
        content: impl AsRef<[u8]>,
    ) -> Result<()> {
        let source = self.source(content.as_ref())?;
        let path = path.as_ref().to_owned();
        self.ops.push(Op::WriteInPlace { path, source });
        Ok(())
    }

    /// Creates a directory, mode 0777 less the umask.
    pub fn create_dir(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.push_dir(path.as_ref(), None, false)
    }

    /// Creates a directory and those above it that are missing. No error if it exists.
    pub fn create_dir_all(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.push_dir(path.as_ref(), None, true)
    }

    /// [`create_dir`](Self::create_dir) with exactly this mode, whatever the umask.
    pub fn create_dir_with(&mut self, path: impl AsRef<Path>, mode: Mode) -> &mut Self {
        self.push_dir(path.as_ref(), Some(mode.bits()), false)
    }

    /// Removes a file, symlink or special file.
    pub fn remove_file(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.push(Op::RemoveFile {
            path: path.as_ref().to_owned(),
        })
    }

    /// Removes an empty directory.
    pub fn remove_dir(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.push(Op::RemoveDir {
            path: path.as_ref().to_owned(),
        })
    }

    /// Removes whatever has this name, with all that is in it. It disappears at once.
    pub fn remove_tree(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.push(Op::RemoveTree {
            path: path.as_ref().to_owned(),
        })
    }

    /// As rename(2): a file replaces a file, a directory an empty directory.
    pub fn rename(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> &mut Self {
        self.push_rename(from.as_ref(), to.as_ref(), Renaming::Replace)
    }

    /// As renameat2(2) with `RENAME_NOREPLACE`.
    pub fn rename_no_replace(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> &mut Self {
        self.push_rename(from.as_ref(), to.as_ref(), Renaming::NoReplace)
    }

    /// Exchanges two names, of any kind. Where the file system lacks `RENAME_EXCHANGE` it is done in three
    /// renames, which recovery finishes; a name is missing for a moment in between.
    pub fn exchange(&mut self, a: impl AsRef<Path>, b: impl AsRef<Path>) -> &mut Self {
        self.push_rename(a.as_ref(), b.as_ref(), Renaming::Exchange)
    }

    /// Creates a symlink at `path`.
    pub fn symlink(&mut self, target: impl AsRef<OsStr>, path: impl AsRef<Path>) -> &mut Self {
        self.push(Op::Symlink {
            target: target.as_ref().as_bytes().to_vec(),
            path: path.as_ref().to_owned(),
        })
    }

    /// Gives the file `from` (a symlink itself, if it is one) the further name `to`.
    pub fn hard_link(&mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> &mut Self {
        self.push(Op::HardLink {
            from: from.as_ref().to_owned(),
            to: to.as_ref().to_owned(),
        })
    }

    /// Changes attributes of what is at `path`, which stays what it is.
    pub fn set_attributes(&mut self, path: impl AsRef<Path>, attributes: Attributes) -> &mut Self {
        self.push(Op::SetAttributes {
            path: path.as_ref().to_owned(),
            attr: attributes.0,
        })
    }

    /// Records that the work known under this key is done, with a value to find again
    /// ([`Workspace::key`]). If the key is there already the commit fails with
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists): somebody has done it.
    pub fn key(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(Op::Key {
            name: key.as_ref().to_vec(),
            value: value.as_ref().to_vec(),
        })
    }

    /// Commits only if nothing has this name before the transaction.
    pub fn expect_absent(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.expect(Condition::Absent(path.as_ref().to_owned()))
    }

    /// Commits only if something has this name before the transaction.
    pub fn expect_present(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.expect(Condition::Present(path.as_ref().to_owned()))
    }

    /// Commits only if the file is in this version before the transaction: by identity
    /// ([`Version::of`]) or by hash (feature `sha256`).
    pub fn expect_version(&mut self, path: impl AsRef<Path>, version: Version) -> &mut Self {
        self.expect(Condition::Version(path.as_ref().to_owned(), version))
    }

    /// Claims paths now, and until the end of the transaction: what is read of them stays as it is as far as
    /// other transactions are concerned. Without this a commit fails with
    /// [`ErrorKind::Changed`](crate::ErrorKind::Changed) if something that was read has changed since.
    ///
    /// Waits as long as the workspace's options say. To keep clear of deadlocks claim everything in one call.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy): somebody else had it all the time. Those of finishing
    /// a dead process's work. [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): it is only
    /// [to be planned](Self::to_plan).
    pub fn claim<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) -> Result<()> {
        let wants = paths
            .into_iter()
            .map(|path| ClaimPath::new(path).map(Want::exclusive))
            .collect::<Result<Vec<_>>>()?;
        commit::claim(self, wants)?;
        self.held_by_caller = true;
        self.view = None;
        Ok(())
    }

    /// The content that `path` would have if this were committed now.
    ///
    /// # Errors
    /// As open(2) and read(2); those of the operations collected so far.
    pub fn read(&mut self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.look(|view| {
            let mut out = Vec::new();
            for piece in view.read(path.as_ref())? {
                match piece {
                    Content::Bytes(bytes) => out.extend_from_slice(&bytes),
                    Content::Staged(file) => private::read_from_start(&file.fd, &mut out)?,
                    Content::Disk(file) => private::read_from_start(&file, &mut out)?,
                }
            }
            Ok(out)
        })
    }

    /// Whether `path` would exist.
    ///
    /// # Errors
    /// As statx(2), but for `ENOENT` and `ENOTDIR`; those of the operations collected so far.
    pub fn exists(&mut self, path: impl AsRef<Path>) -> Result<bool> {
        self.look(|view| view.exists(path.as_ref()))
    }

    /// The names that the directory would have, in order.
    ///
    /// # Errors
    /// As open(2) and getdents(2); those of the operations collected so far.
    pub fn list(&mut self, path: impl AsRef<Path>) -> Result<Vec<Name>> {
        self.look(|view| {
            let names = view.list(path.as_ref())?;
            Ok(names.into_iter().map(|(name, _)| name).collect())
        })
    }

    /// What a commit would do now, name by name. Nothing is changed, and nothing claimed.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit) that are known beforehand.
    pub fn plan(&self) -> Result<Plan> {
        commit::plan(self)
    }

    /// Remembers where the transaction stands.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            ops: self.ops.len(),
            conditions: self.conditions.len(),
        }
    }

    /// Forgets what was collected after the savepoint. What was read and claimed stays read and claimed. A
    /// savepoint made after `to` is void, and going to it does nothing.
    pub fn rollback_to(&mut self, to: Savepoint) {
        self.ops.truncate(to.ops);
        self.conditions.truncate(to.conditions);
        self.view = None;
    }

    /// Makes it happen: once this returns `Ok`, all of it is visible and survives a power cut.
    ///
    /// One record is written and synced once (large contents are synced before, together); the names are
    /// then changed without further syncs, and a power cut before the next checkpoint is mended by the next
    /// open. Who reads the tree after a power cut *without* a workspace having been opened may see part of
    /// the transaction; [`Workspace::settle`] rules that out.
    ///
    /// # Errors
    /// With [`DiskState::Unchanged`](crate::DiskState::Unchanged):
    /// [`ErrorKind::Changed`](crate::ErrorKind::Changed) (a condition, or something that was read),
    /// [`Busy`](crate::ErrorKind::Busy) (others hold a claim), [`Conflict`](crate::ErrorKind::Conflict)
    /// (a path waits for [`Workspace::resolve`]), and what the single operations give: `ENOENT`, `EEXIST`,
    /// `ENOSPC`, `EDQUOT`, `EACCES` and so on; [`Unsupported`](crate::ErrorKind::Unsupported) if it is only
    /// [to be planned](Self::to_plan).
    ///
    /// With [`DiskState::Committed`](crate::DiskState::Committed): it is decided and recorded, but a name
    /// could not be changed yet. It is tried again by [`Workspace::recover`], at close, and by the next
    /// open; until then its paths stay claimed.
    ///
    /// With [`DiskState::Indeterminate`](crate::DiskState::Indeterminate): the record could not be synced,
    /// and only opening the workspace again tells whether it is there.
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) for all that come after it.
    pub fn commit(self) -> Result<Receipt> {
        commit::commit(self)
    }

    fn look<T>(&mut self, f: impl FnOnce(&mut View<'w>) -> Result<T>) -> Result<T> {
        let (mut view, done) = match self.view.take() {
            Some(view) => view,
            None => (View::new(self.root)?, 0),
        };
        for op in self.ops.get(done..).unwrap_or_default() {
            view.run(op)?;
        }
        let answer = f(&mut view);
        self.reads.take_from(&view);
        self.view = Some((view, self.ops.len()));
        answer
    }

    /// The workspace that it is to be committed in.
    pub(super) fn workspace(&self) -> Result<&'w Workspace> {
        self.workspace.ok_or_else(|| {
            Error::of_kind("commit transaction", ErrorKind::Unsupported)
                .with_detail("it was begun only to be planned")
                .with_advice("begin one in a workspace")
        })
    }

    fn file(&mut self, staged: StagedFile) -> Source {
        self.files.push(staged.name.clone());
        Source::File(Arc::new(staged))
    }

    fn source(&mut self, content: &[u8]) -> Result<Source> {
        match self.workspace {
            Some(workspace) if content.len() > IN_MEMORY => {
                let staged = workspace.stage_reader(self.index, content)?;
                Ok(self.file(staged))
            }
            _ => Ok(Source::Bytes(Arc::from(content))),
        }
    }

    fn push(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }

    fn push_write(&mut self, path: &Path, source: Source, attr: AttrRequest, create_new: bool) {
        self.ops.push(Op::Write {
            path: path.to_owned(),
            source,
            attr,
            create_new,
        });
    }

    fn push_dir(&mut self, path: &Path, mode: Option<u32>, parents: bool) -> &mut Self {
        self.push(Op::CreateDir {
            path: path.to_owned(),
            mode,
            parents,
        })
    }

    fn push_rename(&mut self, from: &Path, to: &Path, how: Renaming) -> &mut Self {
        self.push(Op::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            how,
        })
    }

    fn expect(&mut self, condition: Condition) -> &mut Self {
        self.conditions.push(condition);
        self
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // What cannot be removed is litter with its owner's number on it.
        if let Some(workspace) = self.workspace {
            workspace.discard(&self.files);
        }
    }
}
