//! Conflicts: somebody who takes no claims has changed what a committed transaction was about to change.
//!
//! Theirs stays as it is, ours is kept on the side, and the path is closed to transactions until somebody has
//! decided. Each conflict is a file in `conflicts/`, written durably before its transaction counts as done.
//! They are rare, and so those that there are stay in memory until the ledger tells of one more.

use super::Workspace;
use super::decode::Reader;
use super::identity::{Ident, Kind};
use super::ledger::Recorded;
use super::mapping::{Before, Mapping, Object, Place, Set, Slot};
use super::realise::{Outcome, Spot};
use super::record::{self, Commit};
use super::stage::Staging;
use super::state::{State, Sub};
use crate::claim::{ClaimPath, Want};
use crate::publish::{FileOptions, Preserve};
use crate::sys::{self, AsFd, AtFlags, Errno, Mode};
use crate::tree::{self, RemoveOptions};
use crate::{Dir, DiskState, Error, ErrorKind, Name, Result, Root};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::RwLock;

const RESOLVE: &str = "resolve conflict";
const READ: &str = "read conflicts";
/// More than any of them is long: paths and attributes.
const LONGEST: usize = 1 << 20;

/// Names a conflict: the number of its transaction, and which of that one's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictId {
    number: u64,
    index: u32,
}

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.index)
    }
}

impl FromStr for ConflictId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('-');
        let parsed = parts.and_then(|(number, index)| {
            Some(Self {
                number: number.parse().ok()?,
                index: index.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| {
            Error::of_kind(RESOLVE, ErrorKind::InvalidInput)
                .with_detail(format!("{text:?} does not name a conflict"))
                .with_advice("they are named by two numbers, such as 12-0")
        })
    }
}

/// What the transaction wants at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Ours {
    /// This, which is kept in the state folder under this path (beneath the root).
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    Kept(PathBuf),
    /// Nothing: the name was to be removed, or to be moved away.
    Nothing,
    /// What is there with other attributes, or other content in place.
    Change,
}

/// What somebody else has put at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Theirs {
    /// Nothing: it was removed, or its directory was.
    Nothing,
    /// A file of this length.
    File(u64),
    /// A directory.
    Dir,
    /// A symlink.
    Symlink,
    /// A FIFO, socket or device.
    Special,
}

/// A path at which a committed transaction found somebody else's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    id: ConflictId,
    path: Vec<u8>,
    label: Vec<u8>,
    found: Option<Ident>,
    kept: Option<(Name, Ident)>,
    change: Option<Set>,
}

impl Conflict {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> ConflictId {
        self.id
    }

    /// The number of the transaction.
    #[must_use]
    pub fn transaction(&self) -> u64 {
        self.id.number
    }

    /// The path beneath the root.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The transaction's label.
    #[must_use]
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.label).into_owned()
    }

    /// What the transaction wants there.
    #[must_use]
    pub fn ours(&self) -> Ours {
        match (&self.kept, &self.change) {
            (Some((name, _)), _) => Ours::Kept(Path::new(&Sub::Kept.path()).join(name)),
            (None, Some(_)) => Ours::Change,
            (None, None) => Ours::Nothing,
        }
    }

    /// What was found there.
    #[must_use]
    pub fn theirs(&self) -> Theirs {
        match self.found {
            None => Theirs::Nothing,
            Some(found) => match found.kind {
                Kind::File => Theirs::File(found.len),
                Kind::Dir => Theirs::Dir,
                Kind::Symlink => Theirs::Symlink,
                Kind::Special => Theirs::Special,
            },
        }
    }

    pub(super) fn kept_name(&self) -> Option<&Name> {
        self.kept.as_ref().map(|(name, _)| name)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = record::begin();
        w.u64(self.id.number);
        w.u32(self.id.index);
        w.bytes(&self.path);
        w.bytes(&self.label);
        w.option(self.found.as_ref(), |w, ident| w.ident(ident));
        w.option(self.kept.as_ref(), |w, (name, ident)| {
            w.name(name);
            w.ident(ident);
        });
        w.option(self.change.as_ref(), |w, set| w.set(set));
        let crc = crc32c::crc32c(&w.out);
        w.u32(crc);
        w.out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        // All versions end with the checksum of what is before.
        let content = match bytes.split_last_chunk() {
            Some((content, crc)) if crc32c::crc32c(content) == u32::from_le_bytes(*crc) => content,
            _ => {
                return Err(Error::of_kind(READ, ErrorKind::Corrupt)
                    .with_advice("repair the workspace: it keeps what the conflict keeps"));
            }
        };
        record::decode(content, |r| {
            Ok(Self {
                id: ConflictId {
                    number: r.u64()?,
                    index: r.u32()?,
                },
                path: r.path()?,
                label: r.bytes()?,
                found: r.option(Reader::ident)?,
                kept: r.option(|r| Ok((r.name()?, r.ident()?)))?,
                change: r.option(Reader::set)?,
            })
        })
    }

    /// Whether it is what the file of this name is to hold.
    fn check(&self, name: &Name) -> Result<()> {
        let path = ClaimPath::new(self.path());
        if self.file()? == *name && path.is_ok() {
            return Ok(());
        }
        Err(Error::of_kind(READ, ErrorKind::Corrupt)
            .with_detail("it is not what was written under this name"))
    }

    /// Whether its path is one of these, in one, or above one.
    fn is_about(&self, wants: &[Want]) -> bool {
        // One that is no path was refused when it was read.
        ClaimPath::new(self.path()).map_or(true, |path| {
            let overlaps = |w: &Want| w.path().covers(&path) || path.covers(w.path());
            wants.iter().any(overlaps)
        })
    }

    fn file(&self) -> Result<Name> {
        let ConflictId { number, index } = self.id;
        Name::new(format!("{number:016x}-{index:08x}")).map_err(|e| Error::new(READ, "openat", e))
    }
}

/// What is to become of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution {
    /// What is there stays, and what the transaction wanted is removed for good.
    KeepTheirs,
    /// What the transaction wanted takes the place of what is there, which is removed for good.
    KeepOurs,
    /// What is there moves to this path beneath the root, which must be free; then ours takes its place.
    SetAside(PathBuf),
}

/// Makes what a transaction has found durable, and says to all processes that there is more. Gives the names.
///
/// Who was stopped in the middle has perhaps not said it, and what was found then may not be found again: so
/// whoever goes on with that transaction says it too ([`Ledger::note_recorded`](super::ledger::Ledger)),
/// whatever he finds.
pub(super) fn record(state: &State, commit: &Commit, outcome: &Outcome) -> Result<Vec<ConflictId>> {
    let mut out = Vec::new();
    if outcome.conflicts.is_empty() {
        return Ok(out);
    }
    let known = list(state)?;
    let folder = Root::from(state.conflicts.try_clone()?);
    for found in &outcome.conflicts {
        let change = match found.at {
            Spot::Change(ix) => (commit.mapping.changes.get(ix)).map(|c| c.what.without_contents()),
            Spot::Slot(_) => None,
        };
        let kept = match &found.kept {
            Some(name) => identity(&state.kept, name)?.map(|ident| (name.clone(), ident)),
            None => None,
        };
        // Recovery that was stopped after this comes here again.
        let same = |c: &&Conflict| c.id.number == commit.number && c.path == found.path;
        if let Some(known) = known.iter().find(same)
            && known.change == change
        {
            out.push(known.id);
            continue;
        }
        let of_same = known
            .iter()
            .filter(|c| c.id.number == commit.number)
            .count();
        let index = u32::try_from(of_same + out.len()).unwrap_or(u32::MAX);
        let conflict = Conflict {
            id: ConflictId {
                number: commit.number,
                index,
            },
            path: found.path.clone(),
            label: commit.label.clone(),
            found: found.found,
            kept,
            change,
        };
        FileOptions::new()
            .preserve(Preserve::NOTHING)
            .mode(Mode::RUSR | Mode::WUSR)
            .write(&folder, conflict.file()?, conflict.encode())?;
        out.push(conflict.id);
    }
    // What is kept must be as durable as what says so.
    (state.syncfs(&state.dir)).map_err(|e| Error::new("record conflict", "syncfs", e))?;
    state.ledger.note_recorded()?;
    Ok(out)
}

fn identity(dir: impl AsFd, name: &Name) -> Result<Option<Ident>> {
    match sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(meta) => Ok(Some(Ident::of(&meta))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::new(READ, "statx", e).with_path(name)),
    }
}

/// All that nobody has resolved, in order.
pub(super) fn list(state: &State) -> Result<Vec<Conflict>> {
    let (out, damaged) = list_in(&state.conflicts)?;
    match damaged.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(out),
    }
}

/// Conflicts, and what is wrong with the files of others.
pub(super) type Listing = (Vec<Conflict>, Vec<(Name, Error)>);

/// Those that can be read, and what is wrong with the others.
pub(super) fn list_in(dir: &Dir) -> Result<Listing> {
    let fail = |e| Error::new(READ, "getdents64", e).with_path(Sub::Conflicts.path());
    let mut names = Vec::new();
    let mut stream = dir.read_dir().map_err(|e| e.with_operation(READ))?;
    while let Some(entry) = stream.next().map_err(fail)? {
        // Others are temporaries of the write above, and what a repair has set aside.
        let name = Name::from_entry(entry.name()).map_err(fail)?;
        if name.as_bytes().len() == 25 && !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    let (mut out, mut damaged) = (Vec::new(), Vec::new());
    for name in names {
        let flags = sys::OFlags::RDONLY | sys::OFlags::NOFOLLOW | sys::OFlags::NONBLOCK;
        let fd = match sys::openat(dir, name.as_c_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            // Resolved meanwhile.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(Error::new(READ, "openat", e).with_path(&name)),
        };
        let read = super::private::read_all(&fd, LONGEST)
            .and_then(|bytes| Conflict::decode(&bytes))
            .and_then(|conflict| conflict.check(&name).map(|()| conflict));
        match read {
            Ok(conflict) => out.push(conflict),
            Err(e) => {
                let path = Path::new(&Sub::Conflicts.path()).join(&name);
                damaged.push((name, e.with_path(path)));
            }
        }
    }
    Ok((out, damaged))
}

/// Refuses claims on what a conflict is about. The one that is being resolved does not count, nor do others
/// of the same transaction about the same path, of which one has to be the first. One call, if none is about
/// these paths and none was recorded since they were listed last.
///
/// The caller holds the claims, and has finished what the dead have left: conflicts of their transactions are
/// recorded, and the ledger says so.
pub(super) fn unblocked(state: &State, wants: &[Want], resolved: Option<&Conflict>) -> Result<()> {
    // Before the list: one that comes between the two is looked for again.
    let recorded = state.ledger.recorded()?;
    if state.known.has_none(recorded, wants) {
        return Ok(());
    }
    // Some may have been resolved, of which nothing is said.
    let all = list(state)?;
    let together =
        |c: &Conflict| resolved.is_some_and(|r| r.id.number == c.id.number && r.path == c.path);
    let mut others = all.iter().filter(|c| !together(c));
    let refused = others.find(|conflict| conflict.is_about(wants)).map(|c| {
        Error::of_kind("commit transaction", ErrorKind::Conflict)
            .with_path(c.path())
            .with_detail(format!("conflict {} is not resolved", c.id))
            .with_advice("look at it, and resolve it: Workspace::resolve")
    });
    state.known.note(recorded, all);
    refused.map_or(Ok(()), Err)
}

/// The conflicts that there were when the ledger had this number.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<Option<(Recorded, Vec<Conflict>)>>);

impl Known {
    /// Whether it is known that none is about these paths. Nobody is waited for: another thread may have been
    /// here when this process was forked.
    fn has_none(&self, now: Option<Recorded>, wants: &[Want]) -> bool {
        let known = match self.0.try_read() {
            Ok(known) => known,
            Err(_) => return false,
        };
        let current = known.as_ref().filter(|(then, _)| Some(*then) == now);
        current.is_some_and(|(_, all)| !all.iter().any(|conflict| conflict.is_about(wants)))
    }

    fn note(&self, then: Option<Recorded>, all: Vec<Conflict>) {
        if let (Some(then), Ok(mut known)) = (then, self.0.try_write()) {
            *known = Some((then, all));
        }
    }
}

impl Workspace {
    /// The conflicts that nobody has resolved yet.
    ///
    /// # Errors
    /// As open(2) and read(2); [`ErrorKind::Corrupt`].
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        list(&self.state)
    }

    /// Resolves a conflict, as a transaction of its own. Gives its number, or 0 if nothing had to change.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such conflict (any more).
    /// [`AlreadyExists`](ErrorKind::AlreadyExists): the path to set aside to is taken.
    /// [`Changed`](ErrorKind::Changed): what is there has changed again meanwhile, or what was kept is gone.
    /// Else as [`Transaction::commit`](super::Transaction::commit); the conflict stays if it is not
    /// committed.
    pub fn resolve(&self, id: ConflictId, resolution: &Resolution) -> Result<u64> {
        operation!("resolve conflict", id = id);
        let all = list(&self.state)?;
        let Some(conflict) = all.into_iter().find(|c| c.id == id) else {
            return Err(Error::of_kind(RESOLVE, ErrorKind::NotFound)
                .with_detail(format!("there is no conflict {id}")));
        };
        let number = match (resolution, &conflict.change) {
            (Resolution::KeepTheirs, _) => 0,
            (Resolution::KeepOurs, None) => self.put_ours(&conflict, None)?,
            (Resolution::SetAside(to), None) => self.put_ours(&conflict, Some(to))?,
            (Resolution::KeepOurs, Some(set)) => self.change_as_ours(&conflict, set)?,
            (Resolution::SetAside(_), Some(_)) => {
                return Err(Error::of_kind(RESOLVE, ErrorKind::InvalidInput)
                    .with_path(conflict.path())
                    .with_detail("ours is a change of what is there, not another thing")
                    .with_advice("keep theirs, or ours"));
            }
        };
        self.forget(&conflict)?;
        Ok(number)
    }

    /// One transaction: theirs goes, or moves; ours comes.
    fn put_ours(&self, conflict: &Conflict, aside: Option<&Path>) -> Result<u64> {
        let path = conflict.path();
        let mut wants = vec![Want::exclusive(ClaimPath::new(path)?)];
        if let Some(aside) = aside {
            wants.push(Want::exclusive(ClaimPath::new(aside)?));
        }
        let claim = self.state.claims.claim(&wants, self.options.wait)?;
        self.finish_the_dead()?;
        let mut mapping = Mapping::default();
        let slot = self.slot(&mut mapping, path)?;
        let theirs = match slot.before {
            Before::Object(object) => Some(object),
            _ => None,
        };
        let ours = match &conflict.kept {
            None => None,
            Some((name, ident)) => {
                let now = identity(&self.state.kept, name)?;
                if !now.is_some_and(|now| now.is(ident)) {
                    return Err(Error::of_kind(RESOLVE, ErrorKind::Changed)
                        .with_path(path)
                        .with_detail("what was kept is gone, or is another thing")
                        .with_advice("keep theirs; or write the file anew after that"));
                }
                mapping.objects.push(Object::Kept {
                    name: name.clone(),
                    ident: *ident,
                });
                Some(mapping.objects.len() - 1)
            }
        };
        mapping.slots.push(Slot {
            after: ours,
            ..slot
        });
        if let (Some(aside), Some(theirs)) = (aside, theirs) {
            let slot = self.slot(&mut mapping, aside)?;
            if slot.before != Before::Nothing {
                return Err(Error::of_kind(RESOLVE, ErrorKind::AlreadyExists).with_path(aside));
            }
            mapping.slots.push(Slot {
                after: Some(theirs),
                ..slot
            });
        }
        let label = format!("resolve conflict {}", conflict.id).into_bytes();
        self.decide(claim, Staging::of(mapping), label)
            .map(|receipt| receipt.number())
            .map_err(|e| e.with_operation(RESOLVE))
    }

    /// A slot for a path as it is now, whose thing becomes an object.
    fn slot(&self, mapping: &mut Mapping, path: &Path) -> Result<Slot> {
        let (dir, name) = self.root.split(path)?;
        // The path without links, for those who look for the directory after a crash.
        let above = match path.parent().filter(|above| !above.as_os_str().is_empty()) {
            Some(above) => self.root.canonicalize(above),
            None => Ok(PathBuf::new()),
        };
        let above = above.map_err(|e| e.with_operation(RESOLVE))?;
        let above = above.as_os_str().as_bytes();
        let place = mapping.places.len();
        mapping.places.push(Place::Existing {
            path: if above == b"." {
                Vec::new()
            } else {
                above.to_vec()
            },
            ident: Ident::of(&dir.metadata()?),
            object: None,
        });
        let before = match identity(&dir, &name)? {
            None => Before::Nothing,
            Some(ident) => {
                mapping.objects.push(Object::Existing {
                    ident,
                    slot: mapping.slots.len(),
                });
                Before::Object(mapping.objects.len() - 1)
            }
        };
        Ok(Slot {
            place,
            name,
            path: path.as_os_str().as_bytes().to_vec(),
            before,
            after: None,
        })
    }

    fn change_as_ours(&self, conflict: &Conflict, set: &Set) -> Result<u64> {
        use super::attributes::Attributes;
        use super::draft::AttrRequest;
        let mut attr = AttrRequest::default();
        match set {
            Set::Mode { after, .. } => attr.mode = Some(*after),
            Set::Owner { after, .. } => (attr.uid, attr.gid) = (Some(after.0), Some(after.1)),
            Set::Times { after, atime, .. } => {
                (attr.mtime, attr.atime) = (Some(*after), *atime);
            }
            Set::Xattr { name, after, .. } => attr.xattrs.push((name.clone(), after.clone())),
            Set::Content { .. } | Set::Logged { .. } => {
                return Err(Error::of_kind(RESOLVE, ErrorKind::Unsupported)
                    .with_path(conflict.path())
                    .with_detail("ours is content that was to be written in place")
                    .with_advice(
                        "keep theirs, and write anew what is wanted: the content is in kept/",
                    ));
            }
        }
        let mut tx = self.begin();
        tx.resolves = Some(conflict.clone());
        tx.set_attributes(conflict.path(), Attributes(attr));
        tx.commit().map(|receipt| receipt.number())
    }

    /// Removes what was kept, and the conflict.
    fn forget(&self, conflict: &Conflict) -> Result<()> {
        let file = conflict.file()?;
        match sys::unlinkat(&self.state.conflicts, file.as_c_str()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::new(RESOLVE, "unlinkat", e).with_path(&file)),
        }
        // In this order: what is kept without a conflict is litter, the other way round it is lost.
        self.state.conflicts.sync().map_err(|e| {
            e.with_operation(RESOLVE)
                .with_state(DiskState::Indeterminate)
        })?;
        if let Some((name, _)) = &conflict.kept {
            let options = RemoveOptions::new().missing_ok(true);
            tree::remove(&self.state.kept, name, &options)
                .map_err(|e| e.with_operation(RESOLVE))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
