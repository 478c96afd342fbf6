//! A copy under way: its directories, what it has made, and taking that away again.

use super::Watch;
use super::acl::drop_inherited;
use super::chain::{self, Chain, Identity, READ_DIR, look, look_at, path_of};
use super::content::Copier;
use super::copy::{Copied, CopyOptions, progress};
use super::links::Links;
use super::meta::carry;
use super::remove::{RemoveOptions, remove};
use super::walk::{Event, Walk, trouble_error};
use crate::root::Name;
use crate::sys::{self, AsFd, BorrowedFd, Errno, Metadata, Mode, OwnedFd, Uid};
use crate::{DiskState, Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::path::PathBuf;

pub(super) const OPERATION: &str = "copy tree";

/// A copy under way. Dropped before its end, it removes what it made.
pub(super) struct Work<'a, 'w> {
    pub(super) to: Chain<BorrowedFd<'a>, OwnedFd>,
    pub(super) to_name: &'a Name,
    pub(super) options: &'a CopyOptions,
    pub(super) watch: &'a mut Watch<'w>,
    /// Facts about the directories of the source that were entered.
    pub(super) entered: Vec<Metadata>,
    pub(super) links: Links,
    pub(super) copier: Copier,
    pub(super) done: Copied,
    pub(super) made: Made,
    /// The directory that holds the copy.
    pub(super) place: Option<Identity>,
    /// The top directory was there before, and is not ours to remove.
    pub(super) existing: bool,
    /// Who owns what this process creates here: known from the first directory, checked in the first thing
    /// made inside it. A directory of somebody else's is not the one that was made.
    pub(super) creator: Option<Uid>,
}

/// How far the top of the copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Nothing,
    /// The name may have been created: a device error came in answer.
    Perhaps,
    /// The name was created, what it is not yet looked at.
    Name,
    /// This is it.
    Known(Identity),
    /// The copy is complete.
    Finished,
}

/// A call that failed on a name, or an error already complete.
pub(super) enum Trouble {
    Call(&'static str, Errno),
    Kind(ErrorKind, &'static str),
    Full(Error),
}

impl From<(&'static str, Errno)> for Trouble {
    fn from((call, e): (&'static str, Errno)) -> Self {
        Self::Call(call, e)
    }
}

impl<'a, 'w> Work<'a, 'w> {
    pub(super) fn new(
        to: BorrowedFd<'a>,
        to_name: &'a Name,
        options: &'a CopyOptions,
        watch: &'a mut Watch<'w>,
    ) -> Self {
        Self {
            to: Chain::new(to),
            to_name,
            options,
            watch,
            entered: Vec::new(),
            links: Links::default(),
            copier: Copier::default(),
            done: Copied::default(),
            made: Made::Nothing,
            place: None,
            existing: false,
            creator: None,
        }
    }

    /// Copies what the walk finds; `over` is the directory itself, where the walk is over its contents.
    pub(super) fn run(
        mut self,
        walk: Walk<BorrowedFd<'_>>,
        over: Option<BorrowedFd<'_>>,
    ) -> Result<Copied> {
        match self.go(walk.same_mount(self.options.same_mount), over) {
            Ok(()) => {
                self.made = Made::Finished;
                Ok(self.done)
            }
            Err(error) => Err(self.clean_up(error.with_operation(OPERATION))),
        }
    }

    fn go(&mut self, mut walk: Walk<BorrowedFd<'_>>, over: Option<BorrowedFd<'_>>) -> Result<()> {
        if let Some(dir) = over {
            let meta = look(dir).map_err(|e| Error::new(OPERATION, "statx", e))?;
            self.enter(self.to_name, &meta)
                .map_err(|t| self.complete(t, PathBuf::new(), None))?;
        }
        while let Some(event) = walk.next()? {
            match event {
                Event::Enter(entry) => {
                    let done = match entry.metadata()? {
                        Some(meta) => self.enter(self.target(entry.name()), &meta),
                        None => Err(Trouble::Call("statx", Errno::NOENT)),
                    };
                    let name = entry.name();
                    done.map_err(|t| self.complete(t, entry.path(), Some(name)))?;
                }
                Event::Leave(entry) => {
                    let done = match entry.dir() {
                        Some(dir) => self.leave(dir),
                        None => Err(Trouble::Call("openat", Errno::BADF)),
                    };
                    done.map_err(|t| self.complete(t, entry.path(), None))?;
                }
                Event::Mount(entry) => {
                    return Err(Error::new(OPERATION, "statx", Errno::BUSY)
                        .with_path(entry.path())
                        .with_advice("something is mounted there: allow other mounts to copy it"));
                }
                Event::Other(entry) => {
                    let name = entry.name();
                    self.other(&entry)
                        .map_err(|t| self.complete(t, entry.path(), Some(name)))?;
                }
            }
        }
        if let Some(dir) = over {
            self.leave(dir)
                .map_err(|t| self.complete(t, PathBuf::new(), None))?;
        }
        Ok(())
    }

    /// The name of the copy: the caller's for the top, else the same.
    pub(super) fn target<'n>(&self, name: &'n Name) -> &'n Name
    where
        'a: 'n,
    {
        if self.to.depth() == 0 {
            self.to_name
        } else {
            name
        }
    }

    /// Makes a directory, for us alone, and goes into it.
    fn enter(&mut self, name: &Name, meta: &Metadata) -> Result<(), Trouble> {
        self.check_outside(meta)?;
        let top = self.to.depth() == 0;
        if !(top && self.existing) {
            self.created(
                sys::mkdirat(self.to.fd(), name.as_c_str(), Mode::RWXU).map_err(|e| ("mkdirat", e)),
            )?;
        }
        let fd = self
            .to
            .open_in(name.as_c_str(), READ_DIR, Mode::empty())
            .map_err(|e| ("openat", e))?;
        let own = look(&fd).map_err(|e| ("statx", e))?;
        if top {
            self.made = Made::Known(Identity::of(&own));
            self.creator = Some(own.uid());
            drop_inherited(fd.as_fd(), true)?;
        } else {
            self.check_creator(&own)?;
            if self.to.id().is_some_and(|above| above.crosses_to(&own)) {
                return Err(replaced());
            }
        }
        self.to
            .push(Some(name.clone()), fd, Identity::of(&own))
            .map_err(|e| ("openat", e))?;
        self.entered.push(*meta);
        Ok(())
    }

    /// Refuses to go into a directory of the source that holds the copy, or is it. Whether its listing would
    /// show the copy is up to the file system.
    fn check_outside(&mut self, meta: &Metadata) -> Result<(), Trouble> {
        let place = match self.place {
            Some(place) => place,
            None => {
                let meta = look(self.to.base()).map_err(|e| ("statx", e))?;
                *self.place.insert(Identity::of(&meta))
            }
        };
        let source = Identity::of(meta);
        let is_copy = matches!(self.made, Made::Known(top) if top.is_file_of(&source));
        if is_copy || place.is_file_of(&source) {
            let advice = "a tree cannot be copied into itself";
            return Err(Trouble::Kind(ErrorKind::InvalidInput, advice));
        }
        Ok(())
    }

    /// Notes that the top's name is taken by us now.
    pub(super) fn created<T>(
        &mut self,
        done: Result<T, (&'static str, Errno)>,
    ) -> Result<T, Trouble> {
        if self.made == Made::Nothing {
            self.made = match done {
                Ok(_) => Made::Name,
                Err((_, e)) if ErrorKind::from_errno(e) == ErrorKind::Io => Made::Perhaps,
                Err(_) => Made::Nothing,
            };
        }
        done.map_err(Trouble::from)
    }

    /// What was made in the top directory must belong to whom the directory belongs: else it is not the one
    /// that we made, but one that somebody put in its place.
    pub(super) fn check_creator(&mut self, own: &Metadata) -> Result<(), Trouble> {
        match self.creator.take() {
            Some(uid) if uid != own.uid() => Err(replaced()),
            _ => Ok(()),
        }
    }

    /// Finishes the innermost directory, a copy of `from`.
    fn leave(&mut self, from: BorrowedFd<'_>) -> Result<(), Trouble> {
        let Some(meta) = self.entered.pop() else {
            return Ok(());
        };
        // Before its mode changes, which may take away the right to go up from it.
        if let Err(trouble) = self.to.open_parent() {
            return Err(self.lost(trouble));
        }
        self.carry(from, &meta, None)?;
        if let Err(trouble) = self.to.pop() {
            return Err(self.lost(trouble));
        }
        self.done.dirs += 1;
        self.tell(0)
    }

    /// [`carry`] to an open file, or to the innermost directory.
    pub(super) fn carry(
        &mut self,
        from: BorrowedFd<'_>,
        meta: &Metadata,
        to: Option<BorrowedFd<'_>>,
    ) -> Result<(), Trouble> {
        let missed = carry(
            from,
            meta,
            to.unwrap_or(self.to.fd()),
            self.options.preserve,
        )?;
        self.done.owners_missed += u64::from(missed.owner);
        self.done.xattrs_missed += missed.xattrs;
        Ok(())
    }

    pub(super) fn tell(&mut self, n: u64) -> Result<(), Trouble> {
        self.done.bytes += n;
        match (self.watch)(&progress(&self.done)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Trouble::Kind(ErrorKind::Cancelled, "")),
        }
    }

    fn lost(&self, trouble: chain::Trouble) -> Trouble {
        Trouble::Full(trouble_error(OPERATION, trouble, self.to.names()))
    }

    /// The error with the paths of both sides.
    #[cold]
    fn complete(&self, trouble: Trouble, from: PathBuf, leaf: Option<&Name>) -> Error {
        let error = match trouble {
            Trouble::Full(error) => return error,
            Trouble::Call(call, e) => Error::new(OPERATION, call, e),
            Trouble::Kind(kind, "") => Error::of_kind(OPERATION, kind),
            Trouble::Kind(kind, advice) => Error::of_kind(OPERATION, kind).with_advice(advice),
        };
        let leaf = leaf.map(|leaf| self.target(leaf).as_c_str());
        error
            .with_path(from)
            .with_other(path_of(self.to.names(), leaf))
    }

    /// Removes what was made. The error then says that nothing was changed, or what is left.
    #[cold]
    fn clean_up(&mut self, error: Error) -> Error {
        let made = std::mem::replace(&mut self.made, Made::Finished);
        if self.existing {
            return error;
        }
        match made {
            Made::Nothing => return error,
            // Not to be removed: it may as well be somebody else's.
            Made::Perhaps => return error.with_state(DiskState::Indeterminate),
            _ => {}
        }
        match self.remove_made(made) {
            Ok(()) => error.with_state(DiskState::Unchanged),
            Err(_) => error
                .with_state(DiskState::Indeterminate)
                .with_left(self.to_name.as_os_str()),
        }
    }

    fn remove_made(&self, made: Made) -> Result<()> {
        let base = *self.to.base();
        if let Made::Known(id) = made {
            match look_at(base, self.to_name.as_c_str()) {
                Ok(now) if Identity::of(&now) == id => {}
                Err(Errno::NOENT) => return Ok(()),
                // Somebody else's, in the place of ours.
                _ => return Err(Error::of_kind(OPERATION, ErrorKind::Changed)),
            }
        }
        let options = RemoveOptions::new().missing_ok(true);
        remove(base, self.to_name, &options).map(drop)
    }
}

impl Drop for Work<'_, '_> {
    fn drop(&mut self) {
        // Only when the caller's callback panics: nobody is there to be told of an error.
        if !self.existing && matches!(self.made, Made::Name | Made::Known(_)) {
            let _ = self.remove_made(self.made);
        }
    }
}

/// What was made is not what is there.
pub(super) fn replaced() -> Trouble {
    Trouble::Kind(
        ErrorKind::Changed,
        "somebody replaced it while it was copied",
    )
}
