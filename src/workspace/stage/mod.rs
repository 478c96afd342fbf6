//! Making everything new before the commit, under private names, so that what can fail fails there.

mod change;
mod check;
mod content;
mod make;
mod sync;
#[cfg(test)]
mod tests;
mod trial;

use super::ctx::Ctx;
use super::draft::{Draft, DraftObject};
use super::identity::Ident;
use super::mapping::{
    Change, Mapping, Object, ObjectIx, Place, PlaceIx, Slot, SlotIx, first_slots,
};
use super::open_files::OpenFiles;
use super::place::{self, Held};
use crate::publish::Note;
use crate::root::resolve_error;
use crate::sys::{self, AsFd, BorrowedFd, Errno, Metadata, OwnedFd};
use crate::{Dir, Error, ErrorKind, Name, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use sync::ToSync;

const OPERATION: &str = "prepare transaction";

/// Contents up to this length travel in the record.
const INLINE: usize = 16 << 10;
/// As long as they are not more than this together.
const INLINE_ALL: usize = 512 << 10;
/// The same for what is written over in place, and what it is written over: in a file of its own, if that is
/// too long for the log.
const LOGGED_ALL: usize = 16 << 20;

/// What was made for a transaction that is not committed yet. Dropped, it is removed again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Staging<'a> {
    mapping: Mapping,
    notes: Vec<Note>,
    /// What is to be removed if there is no commit.
    made: Vec<Made<'a>>,
    opened: OpenFiles,
}

#[derive(Debug)]
struct Made<'a> {
    dir: &'a Dir,
    name: Name,
    is_dir: bool,
}

impl Staging<'_> {
    /// Of a mapping for which nothing has to be made.
    pub(crate) fn of(mapping: Mapping) -> Self {
        Self {
            mapping,
            notes: Vec::new(),
            made: Vec::new(),
            opened: OpenFiles::default(),
        }
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The mapping, which is not kept here any longer.
    pub(crate) fn take_mapping(&mut self) -> Mapping {
        std::mem::take(&mut self.mapping)
    }

    /// What could not be kept of the files that are replaced.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The files that are to be written over, as far as they were kept open.
    pub(crate) fn take_opened(&mut self) -> OpenFiles {
        std::mem::take(&mut self.opened)
    }

    /// The commit is, or may be, durable: what was made stays.
    pub(crate) fn committed(mut self) -> Mapping {
        self.made.clear();
        std::mem::take(&mut self.mapping)
    }

    /// Goes on after an error, and gives the first one.
    fn remove_made(&mut self) -> std::result::Result<(), (Errno, Name)> {
        let mut first = Ok(());
        // Last things first: a directory before what it was made in.
        while let Some(made) = self.made.pop() {
            let name = made.name.as_c_str();
            let done = if made.is_dir {
                sys::rmdirat(made.dir, name)
            } else {
                sys::unlinkat(made.dir, name)
            };
            match done {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => first = first.and(Err((e, made.name))),
            }
        }
        first
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Nobody is left to tell; what stays is litter that a later recovery removes.
        let _ = self.remove_made();
    }
}

/// Makes what the draft needs.
///
/// # Errors
/// Nothing is changed, and what was made is removed. Whatever stands against the transaction and can be
/// known beforehand is found here: permissions, space, mounts.
pub(crate) fn stage<'a>(ctx: &mut Ctx<'a>, mut draft: Draft) -> Result<Staging<'a>> {
    let mut facts = std::mem::take(&mut draft.seen.objects);
    facts.resize(draft.objects.len(), None);
    let mut work = Work {
        places: Vec::new(),
        facts,
        objects: vec![None; draft.objects.len()],
        changes: Vec::new(),
        room: INLINE_ALL,
        room_in_place: LOGGED_ALL,
        sync: ToSync::default(),
        out: Staging {
            mapping: Mapping::default(),
            notes: Vec::new(),
            made: Vec::new(),
            opened: OpenFiles::default(),
        },
        defaults: [None, None],
        hands_down: None,
        ctx,
        slots: first_slots(&draft.slots, draft.objects.len()),
        draft: &draft,
    };
    match work.run() {
        Ok(()) => {
            let (objects, changes) = (work.objects, work.changes);
            let mut out = work.out;
            out.mapping = Mapping {
                objects: objects.into_iter().flatten().collect(),
                changes,
                places: draft.places,
                slots: draft.slots,
                seen: Vec::new(),
                vacated: Vec::new(),
            };
            Ok(out)
        }
        Err(error) => Err(match work.out.remove_made() {
            Ok(()) => error,
            Err((_, name)) => error.with_left(name),
        }),
    }
}

/// An open place.
struct Opened<'a> {
    dir: Held<'a>,
    meta: Metadata,
    /// The default access list, once somebody has asked for it.
    default_list: Option<Option<Vec<u8>>>,
}

struct Work<'c, 'a> {
    ctx: &'c mut Ctx<'a>,
    draft: &'c Draft,
    /// By object: the first slot that it is to stand at.
    slots: Vec<Option<SlotIx>>,
    out: Staging<'a>,
    /// Those that are there already.
    places: Vec<Option<Opened<'a>>>,
    /// Of existing objects, as far as they were looked at.
    facts: Vec<Option<Metadata>>,
    objects: Vec<Option<Object>>,
    changes: Vec<Change>,
    /// How much more content the record takes.
    room: usize,
    /// The same for what is written over in place.
    room_in_place: usize,
    sync: ToSync,
    /// What the umask makes of the mode of a new file and a new directory, once somebody has asked.
    defaults: [Option<u32>; 2],
    /// Whether the folder for new files hands down an access list, once somebody has asked.
    hands_down: Option<bool>,
}

impl<'c> Work<'c, '_> {
    fn run(&mut self) -> Result<()> {
        self.open_places()?;
        self.check()?;
        for (at, object) in self.draft.objects.iter().enumerate() {
            if let DraftObject::Existing { ident, slot } = object {
                self.objects[at] = Some(Object::Existing {
                    ident: *ident,
                    slot: *slot,
                });
            }
        }
        for at in self.makers_first() {
            self.make(at)?;
        }
        self.change_all()?;
        std::mem::take(&mut self.sync).run(self.ctx)
    }

    fn open_places(&mut self) -> Result<()> {
        for place in &self.draft.places {
            let opened = match place {
                Place::Existing { path, ident, .. } => {
                    let shown = Path::new(OsStr::from_bytes(path));
                    let (dir, meta) = match self.draft.seen.root {
                        Some(meta) if path.is_empty() => {
                            (Held::Borrowed(self.ctx.root.as_fd()), meta)
                        }
                        _ => place::open(self.ctx.root, path)
                            .map_err(|e| resolve_error(OPERATION, e, shown))?,
                    };
                    if !ident.is(&Ident::of(&meta)) {
                        return Err(changed(path));
                    }
                    Some(Opened::new(dir, meta))
                }
                Place::Keys => {
                    let dir = Held::Borrowed(self.ctx.keys.as_fd());
                    let meta = place::facts(&dir).map_err(|e| Error::new(OPERATION, "statx", e))?;
                    Some(Opened::new(dir, meta))
                }
                Place::New(_) => None,
            };
            self.places.push(opened);
        }
        Ok(())
    }

    /// The objects to make, so that each comes after those that it refers to: directories before what is
    /// in them, links last.
    fn makers_first(&self) -> Vec<ObjectIx> {
        use super::draft::NewContent;
        let mut order = Vec::new();
        for (at, object) in self.draft.objects.iter().enumerate() {
            if let DraftObject::New { content, .. } = object {
                let rank = match content {
                    NewContent::Link(_) => usize::MAX,
                    _ => self.slot_of(at).map_or(0, |slot| self.depth(slot.place)),
                };
                order.push((rank, at));
            }
        }
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }

    /// The first slot that an object is to stand at.
    fn slot_of(&self, object: ObjectIx) -> Option<&'c Slot> {
        let slot = self.slots.get(object).copied().flatten()?;
        self.draft.slots.get(slot)
    }

    /// How many new directories a place is in, itself included.
    fn depth(&self, place: PlaceIx) -> usize {
        let (mut depth, mut place) = (0, place);
        while let Some(Place::New(object)) = self.draft.places.get(place)
            && depth <= self.draft.places.len()
        {
            depth += 1;
            match self.slot_of(*object) {
                Some(slot) => place = slot.place,
                None => break,
            }
        }
        depth
    }

    /// The directory and name of an existing object.
    fn existing(&self, object: ObjectIx) -> Result<(BorrowedFd<'_>, &'c Slot)> {
        if let Some(DraftObject::Existing { slot, .. }) = self.draft.objects.get(object)
            && let Some(slot) = self.draft.slots.get(*slot)
            && let Some(Some(place)) = self.places.get(slot.place)
        {
            return Ok((place.dir.as_fd(), slot));
        }
        Err(Error::of_kind(OPERATION, ErrorKind::InvalidInput)
            .with_advice("a thing that exists has no place"))
    }

    /// Opens an existing regular file, which must be the one that is meant, and says what it is.
    fn open_existing(&self, object: ObjectIx, flags: sys::OFlags) -> Result<(OwnedFd, Metadata)> {
        use sys::{Mode, OFlags};
        let (dir, slot) = self.existing(object)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |more| sys::openat(dir, slot.name.as_c_str(), flags | more, Mode::empty());
        // A time of last access would have the inode written for each file that is read.
        let fd = match open(OFlags::NOATIME) {
            // Only its owner may leave it alone.
            Err(Errno::PERM) => open(OFlags::empty()),
            done => done,
        };
        let fd = fd.map_err(|e| fail("openat", e, &slot.path))?;
        let meta = place::facts(&fd).map_err(|e| fail("statx", e, &slot.path))?;
        match &self.draft.objects[object] {
            DraftObject::Existing { ident, .. } if ident.is_unchanged(&Ident::of(&meta)) => {
                Ok((fd, meta))
            }
            _ => Err(changed(&slot.path)),
        }
    }

    /// The path that an error about an object names.
    fn path_of(&self, object: ObjectIx) -> &'c [u8] {
        self.slot_of(object).map_or(b"", |slot| &slot.path)
    }
}

impl<'a> Opened<'a> {
    fn new(dir: Held<'a>, meta: Metadata) -> Self {
        Self {
            dir,
            meta,
            default_list: None,
        }
    }
}

#[cold]
fn fail(call: &'static str, errno: Errno, path: &[u8]) -> Error {
    Error::new(OPERATION, call, errno).with_path(OsStr::from_bytes(path))
}

#[cold]
fn changed(path: &[u8]) -> Error {
    Error::of_kind(OPERATION, ErrorKind::Changed)
        .with_path(OsStr::from_bytes(path))
        .with_advice("somebody changed it meanwhile: begin again")
}
