//! What a transaction would change, to be shown before it is done.

use super::draft::{AttrRequest, Draft, DraftObject, DraftSet, NewContent, Piece, Source};
use super::identity::Kind;
use super::mapping::{Before, ObjectIx, Place, Slot};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// All that a transaction would change: not its operations, but their sum. What is made and taken away
/// again, or renamed to and fro, is not in it.
///
/// Its text has one line for each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Plan {
    /// The steps: names in the order of their paths, then what stays in place and is changed. All of them
    /// are done or none, so that the order means nothing.
    pub steps: Vec<Step>,
}

/// One change of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Step {
    /// What is about it, beneath the root, as it is called afterwards.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    pub path: PathBuf,
    /// What happens.
    pub kind: StepKind,
}

/// What happens in one [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum StepKind {
    /// Something new gets a free name.
    Create(Thing),
    /// Something new takes the place of what is there.
    Replace(Thing),
    /// What is there goes; a directory with all that is in it.
    Remove(Thing),
    /// What is at `from` gets this name.
    Move {
        /// Its path before.
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
        from: PathBuf,
        /// Whether something else goes for it.
        replaces: bool,
    },
    /// What is here and what is at `with` change places.
    Exchange {
        /// The other path.
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
        with: PathBuf,
    },
    /// The permission bits become these.
    Mode(u32),
    /// Owner, group, or both become these.
    Owner {
        /// Numeric user, if it changes.
        uid: Option<u32>,
        /// Numeric group, if it changes.
        gid: Option<u32>,
    },
    /// The time of modification, of access, or both are set.
    Times,
    /// The extended attribute of this name is set.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::os_str"))]
    SetXattr(OsString),
    /// The extended attribute of this name is removed.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::os_str"))]
    RemoveXattr(OsString),
    /// The content is written over in place.
    WriteInPlace {
        /// Its new length in bytes.
        len: u64,
    },
    /// An idempotency key is recorded.
    Key,
}

/// What a name stands for, in a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Thing {
    /// A regular file.
    File {
        /// Its length in bytes.
        len: u64,
    },
    /// A directory.
    Dir,
    /// A symlink.
    Symlink {
        /// Its text, if it is new.
        #[cfg_attr(
            feature = "serde",
            serde(serialize_with = "crate::serial::path_option")
        )]
        target: Option<PathBuf>,
    },
    /// A further name of a file.
    Link {
        /// One of the names that it has already, as it is called afterwards.
        #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
        of: PathBuf,
    },
    /// A FIFO, socket or device.
    Special,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Shown(&self.path);
        match &self.kind {
            StepKind::Create(thing) => write!(f, "create {path} ({thing})"),
            StepKind::Replace(thing) => write!(f, "replace {path} ({thing})"),
            StepKind::Remove(thing) => write!(f, "remove {path} ({thing})"),
            StepKind::Move { from, replaces } => {
                write!(f, "move {} -> {path}", Shown(from))?;
                f.write_str(if *replaces { " (replaces)" } else { "" })
            }
            StepKind::Exchange { with } => write!(f, "exchange {path} <-> {}", Shown(with)),
            StepKind::Mode(mode) => write!(f, "chmod {mode:04o} {path}"),
            StepKind::Owner { uid, gid } => {
                f.write_str("chown ")?;
                if let Some(uid) = uid {
                    write!(f, "{uid}")?;
                }
                if let Some(gid) = gid {
                    write!(f, ":{gid}")?;
                }
                write!(f, " {path}")
            }
            StepKind::Times => write!(f, "set times of {path}"),
            StepKind::SetXattr(name) => {
                write!(f, "set attribute {} of {path}", Shown(Path::new(name)))
            }
            StepKind::RemoveXattr(name) => {
                write!(f, "remove attribute {} of {path}", Shown(Path::new(name)))
            }
            StepKind::WriteInPlace { len } => write!(f, "write in place {path} ({len} bytes)"),
            StepKind::Key => write!(f, "record key {path}"),
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { len: 1 } => f.write_str("file, 1 byte"),
            Self::File { len } => write!(f, "file, {len} bytes"),
            Self::Dir => f.write_str("directory"),
            Self::Symlink { target: None } => f.write_str("symlink"),
            Self::Symlink { target: Some(text) } => write!(f, "symlink to {}", Shown(text)),
            Self::Link { of } => write!(f, "hard link to {}", Shown(of)),
            Self::Special => f.write_str("special file"),
        }
    }
}

/// A path as it is, or quoted where it holds anything that could be taken for something else.
pub(super) struct Shown<'p>(pub(super) &'p Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "/._-+@%,=:~".contains(c);
        match self.0.to_str() {
            Some(text) if !text.is_empty() && text.chars().all(plain) => f.write_str(text),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

/// What a draft would change.
pub(crate) fn describe(draft: &Draft) -> Plan {
    let reader = Reader::new(draft);
    let mut slots: Vec<_> = draft.slots.iter().collect();
    slots.sort_by(|a, b| a.path.cmp(&b.path));
    let mut steps: Vec<Step> = slots
        .into_iter()
        .filter_map(|slot| {
            let kind = reader.step_of(slot)?;
            let path = path(&slot.path);
            Some(Step { path, kind })
        })
        .collect();
    for change in &draft.changes {
        let path = reader.path_after(change.object);
        let kinds = match &change.what {
            DraftSet::Content(source) => vec![StepKind::WriteInPlace {
                len: len_of(source),
            }],
            DraftSet::Attributes(attr) => attributes(attr),
        };
        steps.extend(kinds.into_iter().map(|kind| Step {
            path: path.clone(),
            kind,
        }));
    }
    Plan { steps }
}

fn attributes(attr: &AttrRequest) -> Vec<StepKind> {
    let (uid, gid) = (attr.uid, attr.gid);
    let owner = (uid.is_some() || gid.is_some()).then_some(StepKind::Owner { uid, gid });
    let times = (attr.mtime.is_some() || attr.atime.is_some()).then_some(StepKind::Times);
    let mut out: Vec<_> = owner.into_iter().collect();
    out.extend(attr.mode.map(StepKind::Mode));
    for (name, value) in &attr.xattrs {
        let name = OsString::from_vec(name.clone());
        out.push(match value {
            Some(_) => StepKind::SetXattr(name),
            None => StepKind::RemoveXattr(name),
        });
    }
    out.extend(times);
    out
}

struct Reader<'d> {
    draft: &'d Draft,
    /// The slot in which an object is afterwards.
    after: HashMap<ObjectIx, &'d Slot>,
}

impl<'d> Reader<'d> {
    fn new(draft: &'d Draft) -> Self {
        let slots = draft.slots.iter();
        let after = slots.filter_map(|slot| Some((slot.after?, slot))).collect();
        Self { draft, after }
    }

    fn step_of(&self, slot: &Slot) -> Option<StepKind> {
        if matches!(self.draft.places.get(slot.place), Some(Place::Keys)) {
            return Some(StepKind::Key);
        }
        let before = match slot.before {
            Before::Object(object) => Some(object),
            _ => None,
        };
        let Some(after) = slot.after else {
            // What moves is told where it goes to.
            let gone = before.filter(|object| !self.after.contains_key(object))?;
            return self.thing(gone).map(StepKind::Remove);
        };
        if before == Some(after) {
            return None;
        }
        let replaces = before.is_some_and(|object| !self.after.contains_key(&object));
        match self.draft.objects.get(after)? {
            DraftObject::New { .. } => {
                let thing = self.thing(after)?;
                Some(match replaces {
                    true => StepKind::Replace(thing),
                    false => StepKind::Create(thing),
                })
            }
            DraftObject::Existing { slot: from, .. } => {
                let from = self.draft.slots.get(*from)?;
                let old = self.path_before(from);
                if before.is_some() && from.after == before {
                    // Told once, at the first of the two names.
                    return (slot.path < from.path).then(|| StepKind::Exchange {
                        with: path(&from.path),
                    });
                }
                Some(StepKind::Move {
                    from: old,
                    replaces,
                })
            }
        }
    }

    fn thing(&self, object: ObjectIx) -> Option<Thing> {
        Some(match self.draft.objects.get(object)? {
            DraftObject::Existing { ident, .. } => match ident.kind {
                Kind::File => Thing::File { len: ident.len },
                Kind::Dir => Thing::Dir,
                Kind::Symlink => Thing::Symlink { target: None },
                Kind::Special => Thing::Special,
            },
            DraftObject::New { content, .. } => match content {
                NewContent::File(pieces) => Thing::File {
                    len: pieces.iter().map(|piece| self.len(piece)).sum(),
                },
                NewContent::Symlink(text) => Thing::Symlink {
                    target: Some(path(text)),
                },
                NewContent::Dir => Thing::Dir,
                NewContent::Link(of) => Thing::Link {
                    of: self.path_after(*of),
                },
            },
        })
    }

    fn len(&self, piece: &Piece) -> u64 {
        match piece {
            Piece::Given(source) => len_of(source),
            Piece::Existing(object) => match self.draft.objects.get(*object) {
                Some(DraftObject::Existing { ident, .. }) => ident.len,
                _ => 0,
            },
        }
    }

    fn path_before(&self, slot: &Slot) -> PathBuf {
        match self.draft.places.get(slot.place) {
            Some(Place::Existing { path: dir, .. }) => path(dir).join(slot.name.as_os_str()),
            _ => path(&slot.path),
        }
    }

    /// The path of an object afterwards; if it has none then, that which it had.
    fn path_after(&self, object: ObjectIx) -> PathBuf {
        if let Some(slot) = self.after.get(&object) {
            return path(&slot.path);
        }
        match self.draft.objects.get(object) {
            Some(DraftObject::Existing { slot, .. }) => match self.draft.slots.get(*slot) {
                Some(slot) => self.path_before(slot),
                None => PathBuf::new(),
            },
            _ => PathBuf::new(),
        }
    }
}

fn len_of(source: &Source) -> u64 {
    match source {
        Source::Bytes(bytes) => bytes.len() as u64,
        Source::File(file) => file.len,
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}
