//! What tests of this layer work with: a tree with its private folders, and drafts put together by hand.

use super::ctx::Ctx;
use super::draft::{
    AttrRequest, Draft, DraftChange, DraftObject, DraftSet, NewContent, Piece, Source,
};
use super::identity::Ident;
use super::mapping::{Before, ObjectIx, Place, PlaceIx, Slot, SlotIx};
use super::place;
use crate::sys::hook;
use crate::sys::{CWD, errno_name};
use crate::{Dir, Error, Name, Result, Root};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(super) struct World {
    pub(super) tmp: tempfile::TempDir,
    pub(super) root: Root,
    staged: Dir,
    kept: Dir,
    retired: Dir,
    keys: Dir,
    next: std::cell::Cell<u64>,
}

thread_local! {
    static LOGS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Both ways to write in place: with copies, whatever the length, and with the contents in the record.
pub(super) fn both_ways(run: fn()) {
    for logs in [false, true] {
        LOGS.set(logs);
        run();
    }
    LOGS.set(false);
}

const STATE: &str = ".steadfast";

impl World {
    pub(super) fn new() -> Self {
        let tmp = super::child::dir();
        let state = tmp.path().join(STATE);
        let dir = |name: &str| {
            let path = state.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            Root::open(&path).unwrap().dir().try_clone().unwrap()
        };
        Self {
            staged: dir("staged"),
            kept: dir("kept"),
            retired: dir("retired"),
            keys: dir("keys"),
            root: Root::open(tmp.path()).unwrap(),
            tmp,
            next: std::cell::Cell::new(0),
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.tmp.path().join(path)
    }

    /// A place for what is to be gone, out of the tree.
    pub(super) fn lost(&self, ino: u64) -> PathBuf {
        let lost = self.path(STATE).join("lost");
        fs::create_dir_all(&lost).unwrap();
        lost.join(ino.to_string())
    }

    pub(super) fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    pub(super) fn name(&self) -> Name {
        let n = self.next.get();
        self.next.set(n + 1);
        Name::new(format!("{:08x}-{n:016x}", 1)).unwrap()
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Ctx<'_>) -> R) -> R {
        let mut names = || -> Result<Name> { Ok(self.name()) };
        let mut ctx = Ctx {
            root: &self.root,
            staged: &self.staged,
            kept: &self.kept,
            retired: &self.retired,
            keys: &self.keys,
            state: None,
            each: false,
            logs_contents: LOGS.get(),
            later: crate::workspace::displaced::Later::NEVER,
            device: std::cell::OnceCell::new(),
            names: &mut names,
        };
        f(&mut ctx)
    }

    /// What is in a private folder.
    pub(super) fn private(&self, folder: &str) -> Vec<String> {
        let path = self.path(STATE).join(folder);
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// All that anybody can see, and the keys: type, mode, owner, content, and which names are one file.
    pub(super) fn shot(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let mut inodes = BTreeMap::new();
        self.walk(self.tmp.path(), &mut out, &mut inodes);
        self.walk(&self.path(STATE).join("keys"), &mut out, &mut inodes);
        out
    }

    fn walk(
        &self,
        dir: &Path,
        out: &mut BTreeMap<String, String>,
        inodes: &mut BTreeMap<u64, String>,
    ) {
        let mut entries: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        entries.sort();
        for path in entries.into_iter().filter(|p| !p.ends_with(STATE)) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(self.tmp.path()).unwrap();
            let name = name.to_str().unwrap().to_owned();
            let mut text = format!("{:o} {}:{} ", meta.mode(), meta.uid(), meta.gid());
            if meta.is_dir() {
                self.walk(&path, out, inodes);
            } else if meta.is_symlink() {
                text += fs::read_link(&path).unwrap().to_str().unwrap();
            } else if meta.is_file() {
                let content = fs::read(&path).unwrap();
                text += &format!("{} {:08x}", content.len(), crc32c::crc32c(&content));
                let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
                text += &format!(" = {first}");
            }
            out.insert(name, text);
        }
    }

    pub(super) fn draft(&self) -> Builder<'_> {
        Builder {
            world: self,
            draft: Draft::default(),
        }
    }
}

/// A draft under construction.
pub(super) struct Builder<'w> {
    world: &'w World,
    pub(super) draft: Draft,
}

impl Builder<'_> {
    fn ident(&self, path: &str) -> Ident {
        let path = self.world.path(path);
        let path = path.to_str().unwrap();
        let path = std::ffi::CString::new(path).unwrap();
        Ident::of(&place::look(CWD, &path).unwrap())
    }

    /// The directory with this path.
    pub(super) fn place(&mut self, path: &str) -> PlaceIx {
        let found = self
            .draft
            .places
            .iter()
            .position(|p| matches!(p, Place::Existing { path: p, .. } if p == path.as_bytes()));
        found.unwrap_or_else(|| {
            let ident = self.ident(path);
            self.draft.places.push(Place::Existing {
                path: path.as_bytes().to_vec(),
                ident,
                object: None,
            });
            self.draft.places.len() - 1
        })
    }

    fn add(&mut self, place: PlaceIx, name: &str, path: &str, before: Before) -> SlotIx {
        self.draft.slots.push(Slot {
            place,
            name: Name::new(name).unwrap(),
            path: path.as_bytes().to_vec(),
            before,
            after: None,
        });
        self.draft.slots.len() - 1
    }

    fn split(path: &str) -> (&str, &str) {
        path.rsplit_once('/').unwrap_or(("", path))
    }

    /// A thing that exists, and its slot, where it stays unless [`put`](Self::put) says otherwise.
    pub(super) fn old(&mut self, path: &str) -> (ObjectIx, SlotIx) {
        let (dir, name) = Self::split(path);
        let (ident, place) = (self.ident(path), self.place(dir));
        let object = self.draft.objects.len();
        let slot = self.add(place, name, path, Before::Object(object));
        self.draft.slots[slot].after = Some(object);
        self.draft
            .objects
            .push(DraftObject::Existing { ident, slot });
        (object, slot)
    }

    /// A name that is free.
    pub(super) fn free(&mut self, path: &str) -> SlotIx {
        let (dir, name) = Self::split(path);
        let place = self.place(dir);
        self.add(place, name, path, Before::Nothing)
    }

    /// A name in a new directory.
    pub(super) fn within(&mut self, dir: ObjectIx, name: &str) -> SlotIx {
        let place = self.draft.places.len();
        self.draft.places.push(Place::New(dir));
        self.add(place, name, name, Before::Nothing)
    }

    pub(super) fn key(&mut self, name: &str) -> SlotIx {
        let place = self.draft.places.len();
        self.draft.places.push(Place::Keys);
        self.add(place, name, name, Before::Nothing)
    }

    pub(super) fn put(&mut self, slot: SlotIx, object: impl Into<Option<ObjectIx>>) {
        self.draft.slots[slot].after = object.into();
    }

    /// Says that the directory of a place is itself this object.
    pub(super) fn moves(&mut self, path: &str, moved: ObjectIx) {
        let at = self.place(path);
        if let Place::Existing { object, .. } = &mut self.draft.places[at] {
            *object = Some(moved);
        }
    }

    pub(super) fn make(
        &mut self,
        content: NewContent,
        attr: AttrRequest,
        like: Option<ObjectIx>,
    ) -> ObjectIx {
        self.draft.objects.push(DraftObject::New {
            content,
            attr,
            like,
        });
        self.draft.objects.len() - 1
    }

    pub(super) fn file(&mut self, content: &[u8]) -> ObjectIx {
        let pieces = vec![Piece::Given(Source::Bytes(content.into()))];
        self.make(NewContent::File(pieces), AttrRequest::default(), None)
    }

    pub(super) fn dir(&mut self) -> ObjectIx {
        self.make(NewContent::Dir, AttrRequest::default(), None)
    }

    pub(super) fn change(&mut self, object: ObjectIx, what: DraftSet) {
        self.draft.changes.push(DraftChange { object, what });
    }

    /// Replaces the file at `path`.
    pub(super) fn replace(&mut self, path: &str, content: &[u8]) {
        let (old, slot) = self.old(path);
        let pieces = vec![Piece::Given(Source::Bytes(content.into()))];
        let new = self.make(NewContent::File(pieces), AttrRequest::default(), Some(old));
        self.put(slot, new);
    }

    pub(super) fn create(&mut self, path: &str, content: &[u8]) {
        let slot = self.free(path);
        let new = self.file(content);
        self.put(slot, new);
    }

    pub(super) fn remove(&mut self, path: &str) {
        let (_, slot) = self.old(path);
        self.put(slot, None);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> ObjectIx {
        let (object, slot) = self.old(from);
        self.put(slot, None);
        let to = self.free(to);
        self.put(to, object);
        object
    }
}

/// For messages.
pub(super) fn short(error: &Error) -> String {
    format!(
        "{:?} {:?} {:?}",
        error.system_call(),
        error.errno().and_then(errno_name),
        error
            .path()
            .map(|p| String::from_utf8_lossy(p.as_os_str().as_bytes()).into_owned())
    )
}

/// The calls of a thread, in order, and of those that made something durable which inode that was.
pub(super) struct Calls(Vec<(&'static str, Option<u64>)>);

impl Calls {
    pub(super) fn first(&self, is: impl Fn(&str) -> bool) -> usize {
        let found = self.0.iter().position(|(call, _)| is(call));
        found.unwrap_or_else(|| panic!("{:?}", self.0))
    }

    pub(super) fn last(&self, is: impl Fn(&str) -> bool) -> usize {
        let found = self.0.iter().rposition(|(call, _)| is(call));
        found.unwrap_or_else(|| panic!("{:?}", self.0))
    }

    /// Whether the inode was synced, alone or with its file system, behind the one call and before the other.
    pub(super) fn is_synced(&self, ino: u64, from: usize, to: usize) -> bool {
        self.synced(from, to)
            .any(|(call, synced)| call == "syncfs" || synced == ino)
    }

    /// What was synced in between.
    pub(super) fn synced(
        &self,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = (&'static str, u64)> {
        let calls = self.0[from + 1..to].iter();
        calls.filter_map(|(call, synced)| Some((*call, (*synced)?)))
    }

    pub(super) fn end(&self) -> usize {
        self.0.len()
    }
}

/// What `f` gives, and its calls.
pub(super) fn heard<R>(f: impl FnOnce() -> R) -> (R, Calls) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let observer = {
        let heard = Rc::clone(&heard);
        move |call, synced: Option<(u64, u64)>| {
            heard.borrow_mut().push((call, synced.map(|(_, ino)| ino)));
        }
    };
    let done = hook::observe(observer, f);
    (done, Calls(heard.take()))
}
