//! The state folder as it is, opened for reading only: no lock, nothing made, nothing checked beforehand.

use crate::journal::{self, Entry, Inspection};
use crate::root::Dir;
use crate::sys::{self, AtFlags, Errno, Mode, OFlags};
use crate::workspace::abandoned::{self, Abandonment};
use crate::workspace::conflict;
use crate::workspace::format::{FolderId, Format};
use crate::workspace::incarnation::Incarnation;
use crate::workspace::ledger::{self, Peek};
use crate::workspace::record::Commit;
use crate::workspace::section::Story;
use crate::workspace::state::{self, Sub};
use crate::workspace::writers;
use crate::{Error, ErrorKind, Name, Result, Root};
use std::ffi::CStr;

/// An open state folder.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) dir: Dir,
    pub(super) folder: FolderId,
    pub(super) incarnation: Incarnation,
    op: &'static str,
}

/// What can be read of a log.
#[derive(Debug)]
pub(super) struct LogSeen {
    pub(super) index: u32,
    pub(super) log: Result<Inspection>,
}

/// Entries of a folder, or that it is missing.
pub(super) type Names = Option<Vec<Name>>;

impl Look {
    pub(super) fn open(root: &Root, op: &'static str) -> Result<Self> {
        let fail = |call| move |e| state::refusal(call, e).with_operation(op);
        let dir = match state::open_folder(root) {
            Err(Errno::NOENT) => {
                return Err(Error::of_kind(op, ErrorKind::NotFound)
                    .with_path(state::shown())
                    .with_advice("there is no workspace here"));
            }
            done => done.map_err(fail("openat"))?,
        };
        let facts = sys::statx(&dir, c"", AtFlags::EMPTY_PATH).map_err(fail("statx"))?;
        Ok(Self {
            dir,
            folder: FolderId::of(&facts),
            incarnation: Incarnation::of(&facts)?,
            op,
        })
    }

    /// What `format` says; `None`: it is missing.
    pub(super) fn format(&self) -> Result<Option<Format>> {
        Format::read(&self.dir).map_err(|e| e.with_operation(self.op))
    }

    pub(super) fn ledger(&self) -> Result<Peek> {
        ledger::peek(&self.dir).map_err(|e| e.with_operation(self.op))
    }

    /// A folder inside; `None`: it is missing.
    pub(super) fn folder(&self, name: &CStr) -> Result<Option<Dir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        match sys::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => {
                let path = format!("{}/{}", state::shown(), name.to_string_lossy());
                Err(Error::new(self.op, "openat", e).with_path(path))
            }
        }
    }

    pub(super) fn sub(&self, sub: Sub) -> Result<Option<Dir>> {
        self.folder(sub.name())
    }

    /// The names in a folder, in order.
    pub(super) fn names(&self, sub: Sub) -> Result<Names> {
        match self.sub(sub)? {
            Some(dir) => names_in(&dir, self.op)
                .map_err(|e| e.with_path(sub.path()))
                .map(Some),
            None => Ok(None),
        }
    }

    /// All logs, in the order of their indices.
    pub(super) fn logs(&self) -> Result<Vec<LogSeen>> {
        let Some(logs) = self.sub(Sub::Logs)? else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        for name in names_in(&logs, self.op).map_err(|e| e.with_path(Sub::Logs.path()))? {
            let Some(index) = writers::parse(name.as_bytes()) else {
                continue;
            };
            let path = log_path(index);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let log = match sys::openat(&logs, name.as_c_str(), flags, Mode::empty()) {
                // Removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(e) => Err(Error::new(self.op, "openat", e).with_path(path)),
                Ok(fd) => journal::inspect(&fd.into())
                    .map_err(|e| e.with_operation(self.op).map_paths(|p| path.join(p))),
            };
            out.push(LogSeen { index, log });
        }
        Ok(out)
    }

    /// The commit in a record; `None`: it is of another kind.
    pub(super) fn commit(&self, entry: &Entry) -> Result<Option<Commit>> {
        Commit::of(entry, |file| file.content(&self.staged()?))
    }

    /// Whether the steps of a section can be read.
    pub(super) fn steps(&self, story: Story) -> Result<()> {
        story.check(&self.staged()?)
    }

    fn staged(&self) -> Result<Dir> {
        self.sub(Sub::Staged)?.ok_or_else(|| {
            Error::new(self.op, "openat", Errno::NOENT).with_path(Sub::Staged.path())
        })
    }

    /// All conflicts that can be read, and what is wrong with the others.
    pub(super) fn conflicts(&self) -> Result<conflict::Listing> {
        match self.sub(Sub::Conflicts)? {
            Some(dir) => conflict::list_in(&dir),
            None => Ok((Vec::new(), Vec::new())),
        }
    }

    /// What was given up, as far as it can be read.
    pub(super) fn abandoned(&self) -> Result<Vec<(Name, Result<Abandonment>)>> {
        abandoned::list(&self.dir)
    }
}

pub(super) fn names_in(dir: &Dir, op: &'static str) -> Result<Vec<Name>> {
    let fail = |e| Error::new(op, "getdents64", e);
    let mut out = Vec::new();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(op))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        out.push(Name::from_entry(entry.name()).map_err(fail)?);
    }
    out.sort();
    Ok(out)
}

/// Where a log is, beneath the root.
pub(super) fn log_path(index: u32) -> std::path::PathBuf {
    std::path::Path::new(&Sub::Logs.path()).join(format!("{index:08x}"))
}
