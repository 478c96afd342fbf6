//! Going through a tree, each directory before and after its contents.

use super::chain::{Chain, Identity, NameBuf, READ_DIR, Reader, Trouble, look, look_at, path_of};
use crate::root::Name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, FileType, Metadata, Mode};
use crate::{Error, ErrorKind, Result};
use std::ffi::CStr;
use std::fmt;
use std::path::PathBuf;

const OPERATION: &str = "walk tree";

/// How often an entry that changes its type between two looks is looked at again.
const TRIES: u32 = 8;

/// Goes through a tree: every directory before and after its contents, everything else once, in the order of
/// the directories' listings.
///
/// It follows no symlink and needs at most 18 descriptors at any depth. What vanishes meanwhile is passed
/// over. Where a directory that was entered is moved away, the walk says so
/// ([`ErrorKind::Changed`]) and ends; it does not go on in another place.
///
/// A directory that cannot be opened is an error; calling [`next`](Self::next) again goes on behind it.
///
/// For levels beyond the innermost 16 the names that were not yet handed out are kept in memory.
///
/// ```
/// use steadfast::{Name, Root, tree::{Event, Walk}};
/// let dir = tempfile::tempdir()?;
/// std::fs::create_dir(dir.path().join("a"))?;
/// std::fs::write(dir.path().join("a/b"), "content")?;
/// let root = Root::open(dir.path())?;
/// let mut walk = Walk::new(&root, &Name::new("a")?)?;
/// let mut bytes = 0;
/// while let Some(event) = walk.next()? {
///     if let Event::Other(file) = event {
///         bytes += file.metadata()?.map_or(0, |m| m.len());
///     }
/// }
/// assert_eq!(bytes, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Walk<D> {
    chain: Chain<D, Reader>,
    /// The top, until it was looked at.
    start: Option<Name>,
    entry: NameBuf,
    name: Option<Name>,
    meta: Option<Metadata>,
    pending: Pending,
    same_mount: bool,
}

/// What is to be done before the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// Leave the directory whose last event was handed out.
    Pop,
    /// Hand out the last event of the directory, without its contents.
    Skip,
    /// Nothing comes any more.
    End,
}

/// One step of a [`Walk`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'w> {
    /// A directory, before its contents.
    Enter(Entry<'w>),
    /// A directory, after its contents.
    Leave(Entry<'w>),
    /// A directory on another mount, which was not entered: only with [`Walk::same_mount`].
    Mount(Entry<'w>),
    /// Anything else.
    Other(Entry<'w>),
}

/// What an [`Event`] is about.
#[derive(Clone, Copy)]
pub struct Entry<'w> {
    parent: BorrowedFd<'w>,
    name: &'w Name,
    kind: FileType,
    dir: Option<BorrowedFd<'w>>,
    meta: Option<&'w Metadata>,
    above: &'w [Option<Name>],
}

impl<'w> Entry<'w> {
    /// The directory that holds it.
    #[must_use]
    pub fn parent(&self) -> BorrowedFd<'w> {
        self.parent
    }

    /// Its name there.
    #[must_use]
    pub fn name(&self) -> &'w Name {
        self.name
    }

    /// Its type: of a directory that was entered, what it is; else what the listing said.
    #[must_use]
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// The directory itself, open for reading; `None` for anything else.
    #[must_use]
    pub fn dir(&self) -> Option<BorrowedFd<'w>> {
        self.dir
    }

    /// How many directories of the tree are above it.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.above.len()
    }

    /// Its path, which begins with the name of the tree's top.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(self.above, Some(self.name.as_c_str()))
    }

    /// Facts about it, not following a symlink: for a directory those taken when it was entered, without a
    /// further call. `None`: it has vanished.
    ///
    /// # Errors
    /// As statx(2).
    pub fn metadata(&self) -> Result<Option<Metadata>> {
        if let Some(meta) = self.meta {
            return Ok(Some(*meta));
        }
        match look_at(self.parent, self.name.as_c_str()) {
            Ok(meta) => Ok(Some(meta)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::new(OPERATION, "statx", e).with_path(self.path())),
        }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &self.path())
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<D> fmt::Debug for Walk<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").finish_non_exhaustive()
    }
}

impl<D: AsFd> Walk<D> {
    /// Over the tree `name` in `parent`, itself included; it may be a single file.
    ///
    /// # Errors
    /// None yet: the first [`next`](Self::next) looks.
    pub fn new(parent: D, name: &Name) -> Result<Self> {
        Ok(Self::make(Chain::new(parent), Some(name.clone())))
    }

    /// Over the contents of `dir`, which is read through a descriptor of its own. No event is about `dir`
    /// itself.
    ///
    /// # Errors
    /// `EACCES`: it may not be read. `ENOTDIR`.
    pub fn over(dir: D) -> Result<Self> {
        let fail = |call| move |e| Error::new(OPERATION, call, e);
        let fd = sys::openat(&dir, c".", READ_DIR, Mode::empty()).map_err(fail("openat"))?;
        let meta = look(&fd).map_err(fail("statx"))?;
        let mut chain = Chain::new(dir);
        chain
            .push(None, fd, Identity::of(&meta))
            .map_err(fail("getdents64"))?;
        Ok(Self::make(chain, None))
    }

    fn make(chain: Chain<D, Reader>, start: Option<Name>) -> Self {
        Self {
            chain,
            start,
            entry: NameBuf::default(),
            name: None,
            meta: None,
            pending: Pending::Nothing,
            same_mount: false,
        }
    }

    /// Whether directories on other mounts are left out ([`Event::Mount`] instead of entering them). Off by
    /// default. On kernels before 5.8 a mount is told by its device number alone.
    #[must_use]
    pub fn same_mount(mut self, on: bool) -> Self {
        self.same_mount = on;
        self
    }

    /// After [`Event::Enter`]: leaves the contents of that directory out; its [`Event::Leave`] comes next.
    pub fn skip_contents(&mut self) {
        if self.pending == Pending::Nothing {
            self.pending = Pending::Skip;
        }
    }

    /// Whether nothing comes any more: at the end, and after an error that the walk cannot get past. After an
    /// error about one entry, such as a directory that may not be read, it goes on behind that.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pending == Pending::End
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// `ENOENT`: the top does not exist. `EACCES`: a directory may not be read. [`ErrorKind::Changed`]: a
    /// directory that was entered is no longer where it was. Else as openat(2), statx(2), getdents(2). The
    /// path begins with the name of the tree's top.
    #[allow(clippy::should_implement_trait)] // The event borrows from the walk.
    pub fn next(&mut self) -> Result<Option<Event<'_>>> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::Skip => return self.leave(),
            Pending::Pop => {
                if let Err(trouble) = self.chain.pop() {
                    return Err(self.trouble(trouble));
                }
            }
            Pending::End => {
                self.pending = Pending::End;
                return Ok(None);
            }
        }
        if let Some(name) = self.start.take() {
            return match self.classify(name.as_c_str(), FileType::Unknown) {
                Ok(Some(found)) => self.hand_out(name, found).map(Some),
                Ok(None) => {
                    self.pending = Pending::End;
                    Err(self.fail("openat", Errno::NOENT, Some(name.as_c_str())))
                }
                Err((call, e)) => {
                    self.pending = Pending::End;
                    Err(self.fail(call, e, Some(name.as_c_str())))
                }
            };
        }
        loop {
            let Some(top) = self.chain.top() else {
                self.pending = Pending::End;
                return Ok(None);
            };
            let hint = match top.next(&mut self.entry) {
                Ok(Some(kind)) => kind,
                Ok(None) => return self.leave(),
                Err(e) => {
                    self.pending = Pending::End;
                    return Err(self.fail("getdents64", e, None));
                }
            };
            let name = Name::from_entry(self.entry.as_c_str())
                .map_err(|e| self.fail("getdents64", e, None))?;
            match self.classify(name.as_c_str(), hint) {
                Ok(Some(found)) => return self.hand_out(name, found).map(Some),
                Ok(None) => {}
                Err((call, e)) => return Err(self.fail(call, e, Some(name.as_c_str()))),
            }
        }
    }

    /// What `name` in the innermost directory is, a directory opened; `None` if it has vanished.
    fn classify(
        &mut self,
        name: &CStr,
        mut hint: FileType,
    ) -> std::result::Result<Option<Found>, (&'static str, Errno)> {
        for _ in 0..TRIES {
            if hint == FileType::Unknown {
                match look_at(self.chain.fd(), name) {
                    Ok(meta) => hint = meta.kind(),
                    Err(Errno::NOENT) => return Ok(None),
                    Err(e) => return Err(("statx", e)),
                }
            }
            if hint != FileType::Directory {
                return Ok(Some((hint, None)));
            }
            match self.chain.open_in(name, READ_DIR, Mode::empty()) {
                Ok(fd) => {
                    let meta = look(&fd).map_err(|e| ("statx", e))?;
                    return Ok(Some((hint, Some((fd, meta)))));
                }
                Err(Errno::NOENT) => return Ok(None),
                // No directory any more: look what it is now.
                Err(Errno::NOTDIR | Errno::LOOP) => hint = FileType::Unknown,
                Err(e) => return Err(("openat", e)),
            }
        }
        Err(("openat", Errno::AGAIN))
    }

    fn hand_out(&mut self, name: Name, found: Found) -> Result<Event<'_>> {
        match found {
            (kind, None) => {
                self.meta = None;
                let name = self.name.insert(name);
                Ok(Event::Other(Entry {
                    parent: self.chain.fd(),
                    name,
                    kind,
                    dir: None,
                    meta: None,
                    above: self.chain.names(),
                }))
            }
            (_, Some((_, meta)))
                if self.same_mount && self.chain.id().is_some_and(|id| id.crosses_to(&meta)) =>
            {
                let (name, meta) = (self.name.insert(name), self.meta.insert(meta));
                Ok(Event::Mount(Entry {
                    parent: self.chain.fd(),
                    name,
                    kind: FileType::Directory,
                    dir: None,
                    meta: Some(meta),
                    above: self.chain.names(),
                }))
            }
            (_, Some((fd, meta))) => {
                let id = Identity::of(&meta);
                if let Err(e) = self.chain.push(Some(name.clone()), fd, id) {
                    return Err(self.fail("getdents64", e, None));
                }
                self.meta = Some(meta);
                if let Err(trouble) = self.chain.open_parent() {
                    return Err(self.trouble(trouble));
                }
                self.innermost().map(Event::Enter)
            }
        }
    }

    /// The last event of the innermost directory.
    fn leave(&mut self) -> Result<Option<Event<'_>>> {
        self.meta = None;
        if self.chain.name().is_none() {
            self.pending = Pending::End;
            return Ok(None);
        }
        if let Err(trouble) = self.chain.open_parent() {
            return Err(self.trouble(trouble));
        }
        self.pending = Pending::Pop;
        self.innermost().map(|entry| Some(Event::Leave(entry)))
    }

    /// The innermost directory as an entry of the one above, which is open.
    fn innermost(&self) -> Result<Entry<'_>> {
        let names = self.chain.names();
        let Some((Some(name), above)) = names.split_last() else {
            return Err(trouble_error(OPERATION, Trouble::Moved(0), names));
        };
        Ok(Entry {
            parent: self.chain.parent_fd(),
            name,
            kind: FileType::Directory,
            dir: Some(self.chain.fd()),
            meta: self.meta.as_ref(),
            above,
        })
    }

    fn fail(&self, call: &'static str, errno: Errno, leaf: Option<&CStr>) -> Error {
        Error::new(OPERATION, call, errno).with_path(self.chain.path(leaf))
    }

    /// The way back is lost: the walk is over.
    fn trouble(&mut self, trouble: Trouble) -> Error {
        self.pending = Pending::End;
        trouble_error(OPERATION, trouble, self.chain.names())
    }
}

/// The error for a level that is not where it was, or cannot be reached.
pub(super) fn trouble_error(
    operation: &'static str,
    trouble: Trouble,
    names: &[Option<Name>],
) -> Error {
    match trouble {
        Trouble::Call(call, e) => Error::new(operation, call, e).with_path(path_of(names, None)),
        Trouble::Moved(depth) => Error::of_kind(operation, ErrorKind::Changed)
            .with_path(path_of(&names[..names.len().min(depth + 1)], None))
            .with_advice("the directory was moved away or replaced meanwhile"),
    }
}

/// The type of an entry, and of a directory its descriptor and facts.
type Found = (FileType, Option<(sys::OwnedFd, Metadata)>);
