//! A directory in which one state is made after the other: of each only what is not there yet.
//!
//! What was made is remembered, with the times of change that the kernel gave. What recovery did since shows
//! in those ([`Ticker`]).

use crate::build::State;
use crate::disk::{
    Ticker, ctime, id, names, open_anyway, open_dir, read, remove, set_mtime, statx, write,
    xattrs_of,
};
use crate::record::{Attributes, Bytes, Kind, Node, Record, Stamp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Statx, Uid, XattrFlags};
use std::collections::{BTreeMap, HashMap};
use std::mem::MaybeUninit;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use steadfast::sys::hook::{Likeness, Likenesses};

/// Where a name is: from the top, with slashes.
type At = Bytes;

enum Made {
    Dir(Dir),
    File(Arc<Bytes>),
    Link(Bytes),
}

/// What stands at a name.
struct Held {
    made: Made,
    attributes: Attributes,
    mtime: Stamp,
    /// What the kernel says.
    id: (u64, u64),
    ctime: Stamp,
    /// All its names, if there are others.
    names: Option<Rc<Vec<At>>>,
    /// Somebody has changed it.
    is_dirty: bool,
}

struct Dir {
    fd: OwnedFd,
    children: BTreeMap<Bytes, Held>,
    /// Something in it was made or removed since its time was set.
    is_touched: bool,
}

pub(crate) struct Bench {
    top: Option<Held>,
    ticker: Ticker,
    buffer: Vec<MaybeUninit<u8>>,
}

/// While a state is made: its names of files that have several, and where the first of each is.
struct Fitting<'s, 'r> {
    state: &'s State<'r>,
    several: HashMap<Node, Rc<Vec<At>>>,
    /// Of those that are there by now.
    linked: HashMap<Node, (At, bool)>,
    shown: Likenesses,
    /// The latest time of change.
    latest: Stamp,
    root: BorrowedFd<'s>,
}

fn below(at: &[u8], name: &[u8]) -> At {
    match at {
        b"" => name.to_vec(),
        _ => [at, b"/", name].concat(),
    }
}

impl Held {
    fn dir(&mut self) -> &mut Dir {
        match &mut self.made {
            Made::Dir(dir) => dir,
            _ => unreachable!("not a directory"),
        }
    }
}

impl Bench {
    /// In a directory that is made at `at`.
    pub(crate) fn new(at: &Path) -> Self {
        std::fs::create_dir(at).unwrap();
        let fd = rustix::fs::openat(
            CWD,
            at,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let dir = Dir {
            fd: fd.unwrap(),
            children: BTreeMap::new(),
            is_touched: true,
        };
        let top = Held {
            made: Made::Dir(dir),
            attributes: Attributes::default(),
            mtime: (0, 0),
            id: (0, 0),
            ctime: (0, 0),
            names: None,
            is_dirty: true,
        };
        Self {
            top: Some(top),
            ticker: Ticker::new(at.parent().unwrap()),
            buffer: vec![MaybeUninit::uninit(); 16 * 1024],
        }
    }

    /// Makes a state real, and gives for whom its files are to be taken.
    pub(crate) fn make(&mut self, state: &State<'_>) -> Likenesses {
        let mut top = self.top.take().unwrap();
        let stx = statx(&top.dir().fd, b"").unwrap();
        self.scan(&mut top, &stx);
        self.part(&mut top);
        let root = top.dir().fd.try_clone().unwrap();
        let mut fitting = Fitting {
            state,
            several: several(state),
            linked: HashMap::new(),
            shown: Likenesses::with_capacity(64),
            latest: (0, 0),
            root: root.as_fd(),
        };
        fitting.dir(Record::TOP, &mut top, b"", &mut self.buffer);
        fitting.date_the_linked(&mut top);
        self.ticker.pass(fitting.latest);
        let shown = fitting.shown;
        self.top = Some(top);
        shown
    }

    /// Removes what nobody knows, and forgets what is gone.
    fn scan(&mut self, held: &mut Held, stx: &Statx) {
        held.is_dirty |= ctime(stx) != held.ctime;
        let is_dirty = held.is_dirty;
        let Made::Dir(dir) = &mut held.made else {
            unreachable!("not a directory")
        };
        if is_dirty {
            let there = names(&dir.fd, &mut self.buffer);
            let mut kept = BTreeMap::new();
            for name in there {
                match dir.children.remove(&name) {
                    Some(child) => drop(kept.insert(name, child)),
                    None => {
                        remove(&dir.fd, &name, &mut self.buffer);
                        dir.is_touched = true;
                    }
                }
            }
            dir.children = kept;
        }
        let (fd, is_touched) = (&dir.fd, &mut dir.is_touched);
        dir.children.retain(|name, child| {
            let is_dir = matches!(child.made, Made::Dir(_));
            let stx = match is_dir && !is_dirty {
                // By its own descriptor: it is where it was.
                true => statx(&child.dir().fd, b""),
                false => statx(fd, name),
            };
            let stx = stx.unwrap();
            if id(&stx) != child.id {
                remove(fd, name, &mut self.buffer);
                *is_touched = true;
                return false;
            }
            if is_dir {
                self.scan(child, &stx);
            } else if ctime(&stx) != child.ctime {
                child.is_dirty = true;
                if stx.stx_nlink > 1 && child.names.is_none() {
                    remove(fd, name, &mut self.buffer);
                    *is_touched = true;
                    return false;
                }
            }
            true
        });
    }

    /// Files of several names are there with all of them, and as they were, or not at all.
    fn part(&mut self, top: &mut Held) {
        fn count(dir: &Dir, all: &mut HashMap<*const Vec<At>, (usize, usize)>) {
            for child in dir.children.values() {
                if let Some(names) = &child.names {
                    let found = all.entry(Rc::as_ptr(names)).or_insert((names.len(), 0));
                    found.1 += usize::from(!child.is_dirty);
                }
                if let Made::Dir(dir) = &child.made {
                    count(dir, all);
                }
            }
        }
        fn clear(dir: &mut Dir, all: &HashMap<*const Vec<At>, (usize, usize)>) {
            let (fd, is_touched) = (&dir.fd, &mut dir.is_touched);
            dir.children.retain(|name, child| {
                if let Made::Dir(dir) = &mut child.made {
                    clear(dir, all);
                }
                let names = child.names.as_ref().map(|names| all[&Rc::as_ptr(names)]);
                let stays = names.is_none_or(|(should, is)| should == is);
                if !stays {
                    rustix::fs::unlinkat(fd, name, AtFlags::empty()).unwrap();
                    *is_touched = true;
                }
                stays
            });
        }
        let mut all = HashMap::new();
        count(top.dir(), &mut all);
        if all.values().any(|(should, is)| should != is) {
            clear(top.dir(), &all);
        }
    }
}

/// All names of each file that has several.
fn several(state: &State<'_>) -> HashMap<Node, Rc<Vec<At>>> {
    fn add(state: &State<'_>, dir: Node, at: &[u8], all: &mut HashMap<Node, Vec<At>>) {
        for (name, node) in state.children(dir) {
            let path = below(at, name);
            match state.kind(*node) {
                Kind::Dir => add(state, *node, &path, all),
                _ => all.entry(*node).or_default().push(path),
            }
        }
    }
    if !state.has_links() {
        return HashMap::new();
    }
    let mut all = HashMap::new();
    add(state, Record::TOP, b"", &mut all);
    all.retain(|_, names| names.len() > 1);
    all.into_iter()
        .map(|(node, at)| (node, Rc::new(at)))
        .collect()
}

impl Fitting<'_, '_> {
    fn dir(&mut self, node: Node, held: &mut Held, at: &[u8], buffer: &mut [MaybeUninit<u8>]) {
        let dir = held.dir();
        let (fd, is_touched) = (&dir.fd, &mut dir.is_touched);
        dir.children.retain(|name, child| {
            let stays = match self.state.child(node, name) {
                Some(node) => self.may_stay(node, child),
                None => false,
            };
            if !stays {
                remove(fd, name, buffer);
                *is_touched = true;
            }
            stays
        });
        for (name, child) in self.state.children(node) {
            let here = below(at, name);
            let mut held = match dir.children.remove(name) {
                Some(held) => held,
                None => {
                    dir.is_touched = true;
                    self.new_at(*child, &dir.fd, name)
                }
            };
            match held.made {
                Made::Dir(_) => self.dir(*child, &mut held, &here, buffer),
                _ => self.file(*child, &mut held, &dir.fd, name, &here),
            }
            dir.children.insert(name.clone(), held);
        }
        // After what is in it: a new name changes its times.
        let is_other = held.is_dirty || held.dir().is_touched;
        let mut is_changed = self.attributes(node, held);
        let mtime = self.state.mtime(node);
        let dir = match &mut held.made {
            Made::Dir(dir) => dir,
            _ => unreachable!("not a directory"),
        };
        if is_other || held.mtime != mtime {
            set_mtime(&dir.fd, b"", mtime);
            is_changed = true;
        }
        if is_changed {
            let stx = statx(&dir.fd, b"").unwrap();
            (held.id, held.ctime) = (id(&stx), ctime(&stx));
        }
        dir.is_touched = false;
        (held.mtime, held.is_dirty) = (mtime, false);
        self.show(node, held);
    }

    /// Whether what is there can be made into what is to be there.
    fn may_stay(&self, node: Node, held: &Held) -> bool {
        if held.names != self.several.get(&node).cloned() {
            return false;
        }
        match (self.state.kind(node), &held.made) {
            (Kind::Dir, Made::Dir(_)) => true,
            (Kind::File, Made::File(content)) => {
                held.names.is_none() || content == self.state.content(node)
            }
            (Kind::Link(text), Made::Link(is)) => text == is && !held.is_dirty,
            _ => false,
        }
    }

    /// Nothing is there yet.
    fn new_at(&mut self, node: Node, dir: &OwnedFd, name: &[u8]) -> Held {
        let mut attributes = Attributes::default();
        let mut is_dirty = true;
        if let Some((first, _)) = self.linked.get(&node) {
            let flags = AtFlags::empty();
            rustix::fs::linkat(self.root, first.as_slice(), dir, name, flags).unwrap();
            attributes = self.state.attributes(node).clone();
            is_dirty = false;
        }
        let made = match self.state.kind(node) {
            Kind::Dir => {
                rustix::fs::mkdirat(dir, name, Mode::RWXU).unwrap();
                Made::Dir(Dir {
                    fd: open_dir(dir, name),
                    children: BTreeMap::new(),
                    is_touched: true,
                })
            }
            Kind::Link(text) => {
                if is_dirty {
                    rustix::fs::symlinkat(text.as_slice(), dir, name).unwrap();
                }
                Made::Link(text.clone())
            }
            Kind::File => Made::File(Arc::default()),
        };
        Held {
            made,
            attributes,
            mtime: (0, 0),
            id: (0, 0),
            ctime: (0, 0),
            names: self.several.get(&node).cloned(),
            is_dirty,
        }
    }

    fn file(&mut self, node: Node, held: &mut Held, dir: &OwnedFd, name: &[u8], here: &[u8]) {
        let mtime = self.state.mtime(node);
        let content = self.state.content(node);
        let is_new = held.id == (0, 0);
        if held.names.is_some() {
            if self.linked.contains_key(&node) {
                if let Made::File(is) = &mut held.made {
                    *is = content.clone();
                }
                (held.mtime, held.is_dirty) = (mtime, false);
                return;
            }
            self.linked.insert(node, (here.to_vec(), is_new));
        }
        let mut is_changed = false;
        let mut file = None;
        match &mut held.made {
            Made::File(is) if held.is_dirty || *is != *content => {
                let mut flags = OFlags::RDWR;
                flags.set(OFlags::CREATE | OFlags::EXCL, is_new);
                let (fd, has_other_mode) = open_anyway(dir, name, flags);
                let before = match held.is_dirty && !is_new {
                    true => Arc::new(read(&fd)),
                    false => is.clone(),
                };
                held.is_dirty |= has_other_mode;
                write(&fd, &before, content);
                *is = content.clone();
                is_changed = true;
                // A write takes these bits away, if it is not the superuser's.
                held.is_dirty |= self.state.attributes(node).mode & 0o6000 != 0;
                file = Some(fd);
            }
            _ => {}
        }
        is_changed |= match &file {
            Some(file) => self.attributes_of(node, held, file, b""),
            None => self.attributes_of(node, held, dir, name),
        };
        if is_changed || held.is_dirty || held.mtime != mtime {
            match &file {
                Some(file) => set_mtime(file, b"", mtime),
                None => set_mtime(dir, name, mtime),
            }
            let stx = match &file {
                Some(file) => statx(file, b""),
                None => statx(dir, name),
            };
            let stx = stx.unwrap();
            (held.id, held.ctime) = (id(&stx), ctime(&stx));
        }
        (held.mtime, held.is_dirty) = (mtime, false);
        self.show(node, held);
    }

    fn attributes(&self, node: Node, held: &mut Held) -> bool {
        if &held.attributes == self.state.attributes(node) && !held.is_dirty {
            return false;
        }
        let fd = held.dir().fd.try_clone();
        self.attributes_of(node, held, fd.unwrap(), b"")
    }

    /// Gives owner, mode and extended attributes to a file, directory or symlink.
    fn attributes_of(&self, node: Node, held: &mut Held, dir: impl AsFd, name: &[u8]) -> bool {
        let should = self.state.attributes(node);
        if held.attributes == *should && !held.is_dirty {
            return false;
        }
        let dir = dir.as_fd();
        let is_link = matches!(held.made, Made::Link(_));
        if !(is_link || held.id == (0, 0) && should.xattrs.is_empty()) {
            // By a descriptor, which the mode may forbid to get later.
            let own = (!name.is_empty()).then(|| open_anyway(dir, name, OFlags::RDONLY).0);
            let fd = own.as_ref().map_or(dir, |own| own.as_fd());
            let is = xattrs_of(fd);
            for name in is.keys().filter(|name| !should.xattrs.contains_key(*name)) {
                rustix::fs::fremovexattr(fd, name.as_slice()).unwrap();
            }
            for (name, value) in &should.xattrs {
                if is.get(name) != Some(value) {
                    let flags = XattrFlags::empty();
                    rustix::fs::fsetxattr(fd, name.as_slice(), value, flags).unwrap();
                }
            }
        }
        let stx = statx(dir, name).unwrap();
        let (uid, gid) = should.owner;
        let is_owned = (stx.stx_uid, stx.stx_gid) == should.owner;
        if !is_owned {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            rustix::fs::chownat(dir, name, uid, gid, flags).unwrap();
        }
        // A change of the owner takes bits of the mode away.
        if !(is_link || is_owned && u32::from(stx.stx_mode) & 0o7777 == should.mode) {
            let mode = Mode::from_raw_mode(should.mode);
            match name {
                b"" => rustix::fs::fchmod(dir, mode).unwrap(),
                _ => rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).unwrap(),
            }
        }
        held.attributes = should.clone();
        true
    }

    /// A new link changes the time of a file.
    fn date_the_linked(&mut self, top: &mut Held) {
        let mut times = HashMap::new();
        for (node, (first, is_new)) in std::mem::take(&mut self.linked) {
            if is_new {
                let stx = statx(self.root, &first).unwrap();
                times.insert(Rc::as_ptr(&self.several[&node]), (id(&stx), ctime(&stx)));
                self.show_as(node, id(&stx), ctime(&stx));
            }
        }
        fn date(dir: &mut Dir, times: &HashMap<*const Vec<At>, ((u64, u64), Stamp)>) {
            for child in dir.children.values_mut() {
                if let Made::Dir(dir) = &mut child.made {
                    date(dir, times);
                }
                let names = child.names.as_ref().map(Rc::as_ptr);
                if let Some(found) = names.and_then(|names| times.get(&names)) {
                    (child.id, child.ctime) = *found;
                }
            }
        }
        if !times.is_empty() {
            date(top.dir(), &times);
        }
    }

    fn show(&mut self, node: Node, held: &Held) {
        self.show_as(node, held.id, held.ctime);
    }

    fn show_as(&mut self, node: Node, id: (u64, u64), made: Stamp) {
        self.latest = self.latest.max(made);
        let (ino, btime) = self.state.identity(node);
        let like = Likeness {
            ino,
            btime,
            ctime: [made, self.state.ctime(node)],
            mtime: [(0, 0); 2],
        };
        self.shown.insert(id, like);
    }
}
