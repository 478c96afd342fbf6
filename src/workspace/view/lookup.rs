//! Resolving paths in the view, as the kernel would if the operations so far had been done.

use super::disk::{enter, look, other_mount};
use super::stop::{Done, Stop};
use super::{Entry, Inode, InodeIx, Origin, ROOT, STATE, View, join};
use crate::Name;
use crate::root::{Last, PATH_MAX, split};
use crate::sys::{self, AtFlags, Errno, FsKind, Metadata, ResolveFlags};
use crate::workspace::identity::{Ident, Kind};

/// Links that are followed in one path, as in the kernel.
const LINKS: u32 = 40;

/// Longest name, of every file system that can hold a workspace (limits.h).
const NAME_MAX: usize = 255;

/// A directory, and the name in it that an operation is about.
#[derive(Debug)]
pub(super) struct At {
    pub(super) dir: InodeIx,
    pub(super) last: Last,
    /// The path ended with a slash.
    pub(super) slash: bool,
}

impl At {
    /// The name, or this errno from this call for what is none.
    pub(super) fn name(&self, call: &'static str, otherwise: Errno) -> Done<&Name> {
        match &self.last {
            Last::Normal(name) => Ok(name),
            _ => Err(Stop::Call(call, otherwise)),
        }
    }

    /// The name of a directory that is to go, or what the kernel answers for what is none.
    pub(super) fn directory(&self, call: &'static str) -> Done<&Name> {
        match &self.last {
            Last::Normal(name) => Ok(name),
            Last::Dot => Err(Stop::Call(call, Errno::INVAL)),
            Last::DotDot => Err(Stop::Call(call, Errno::NOTEMPTY)),
            Last::Root => Err(Stop::Call(call, Errno::BUSY)),
        }
    }
}

/// A walk along one path.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) here: InodeIx,
    links: u32,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self {
            here: ROOT,
            links: 0,
        }
    }
}

/// The components of a path, without empty ones.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty())
}

impl View<'_> {
    /// Resolves all but the last component.
    pub(super) fn target(&mut self, path: &[u8]) -> Done<At> {
        check(path)?;
        let (parent, last, slash) = split(path);
        let last = match last {
            b"" => Last::Root,
            b"." => Last::Dot,
            b".." => Last::DotDot,
            name => Last::Normal(Name::from_bytes(name).map_err(Stop::Path)?),
        };
        let parent = match parent {
            b"" if last == Last::Root => path,
            parent => parent,
        };
        let dir = self.directory(parent)?;
        Ok(At { dir, last, slash })
    }

    /// Resolves a path, links at its end included, that must be a directory. The empty one is the root.
    pub(super) fn directory(&mut self, path: &[u8]) -> Done<InodeIx> {
        let mut walk = Walk::new();
        self.begin(&mut walk, path)?;
        for part in components(path) {
            self.go(&mut walk, part)?;
        }
        Ok(walk.here)
    }

    /// A path, or a link's text, may begin at the root.
    pub(super) fn begin(&mut self, walk: &mut Walk, path: &[u8]) -> Done<()> {
        if path.first() == Some(&b'/') {
            if self.rules().contains(ResolveFlags::BENEATH) {
                return Err(Stop::Path(Errno::XDEV));
            }
            walk.here = ROOT;
        }
        Ok(())
    }

    /// Goes through one component, which must be a directory or a link to one. After an error the walk is
    /// where that came up.
    pub(super) fn go(&mut self, walk: &mut Walk, part: &[u8]) -> Done<()> {
        // What is left, the next one last.
        let mut left = vec![part.to_vec()];
        while let Some(part) = left.pop() {
            match &part[..] {
                b"." => self.may_search(walk.here)?,
                b".." => self.up(walk)?,
                name => {
                    let name = Name::from_bytes(name).map_err(Stop::Path)?;
                    let next = self
                        .entry_on_the_way(walk.here, &name)?
                        .now
                        .ok_or(Stop::Path(Errno::NOENT))?;
                    match self.inodes[next].kind {
                        Kind::Dir => walk.here = next,
                        Kind::Symlink => {
                            let text = self.follow(walk, next)?;
                            self.begin(walk, &text)?;
                            left.extend(components(&text).rev().map(<[u8]>::to_vec));
                        }
                        _ => return Err(Stop::Path(Errno::NOTDIR)),
                    }
                }
            }
        }
        Ok(())
    }

    fn up(&mut self, walk: &mut Walk) -> Done<()> {
        self.may_search(walk.here)?;
        if walk.here == ROOT && self.rules().contains(ResolveFlags::BENEATH) {
            return Err(Stop::Path(Errno::XDEV));
        }
        // The root stays where it is.
        if let Some((parent, _)) = &self.inodes[walk.here].at {
            walk.here = *parent;
        }
        Ok(())
    }

    /// Lets the kernel judge whether a directory that it knows may be searched.
    fn may_search(&mut self, dir: InodeIx) -> Done<()> {
        if let Some(origin) = &self.inodes[dir].origin {
            let fd = self.disk.dir(dir, origin)?;
            let _meta = sys::statx(fd, c".", AtFlags::empty()).map_err(Stop::Path)?;
        }
        Ok(())
    }

    fn rules(&self) -> ResolveFlags {
        self.disk.root().options().resolve_flags()
    }

    /// The text of a link that is followed.
    fn follow(&mut self, walk: &mut Walk, link: InodeIx) -> Done<Vec<u8>> {
        if walk.links >= LINKS {
            return Err(Stop::Path(Errno::LOOP));
        }
        walk.links += 1;
        let rules = self.rules();
        if rules.contains(ResolveFlags::NO_SYMLINKS) {
            return Err(Stop::Path(Errno::LOOP));
        }
        let text = self.link_text(link)?;
        if let Some(origin) = &self.inodes[link].origin {
            if let Some(dir) = self.inodes[origin.dir].origin.as_ref() {
                let fd = self.disk.dir(origin.dir, dir)?;
                let (kind, nosymfollow) = sys::link_facts(fd).map_err(Stop::Path)?;
                if nosymfollow {
                    return Err(Stop::Path(Errno::LOOP));
                }
                // All that could be a magic link: no workspace needs those of procfs.
                if kind == FsKind::Proc && (text.starts_with(b"/") || text.contains(&b':')) {
                    let none = rules.contains(ResolveFlags::NO_MAGICLINKS);
                    return Err(Stop::Path(if none { Errno::LOOP } else { Errno::XDEV }));
                }
            }
            self.note_read(origin.path.clone(), Some(origin.ident));
        }
        Ok(text)
    }

    /// The text of a symlink.
    pub(super) fn link_text(&mut self, link: InodeIx) -> Done<Vec<u8>> {
        if let Some(text) = &self.inodes[link].text {
            return Ok(text.clone());
        }
        let (dir, name) = match &self.inodes[link].origin {
            Some(Origin {
                dir,
                name: Some(name),
                ..
            }) => (*dir, name),
            _ => return Err(Stop::Path(Errno::INVAL)),
        };
        let Some(above) = &self.inodes[dir].origin else {
            return Err(Stop::Changed);
        };
        let fd = self.disk.dir(dir, above)?;
        let text = match sys::readlinkat(fd, name.as_c_str()) {
            Ok(text) => text.into_bytes(),
            Err(Errno::INVAL | Errno::NOENT) => return Err(Stop::Changed),
            Err(e) => return Err(Stop::Path(e)),
        };
        self.inodes[link].text = Some(text.clone());
        Ok(text)
    }

    /// What a name stands for: from memory, or looked at now.
    pub(super) fn entry(&mut self, dir: InodeIx, name: &Name) -> Done<Entry> {
        match self.known_entry(dir, name)? {
            Some(entry) => Ok(entry),
            None => self.look(dir, name),
        }
    }

    /// [`entry`](Self::entry) that an operation is about.
    pub(super) fn used_entry(&mut self, dir: InodeIx, name: &Name) -> Done<Entry> {
        let entry = self.entry(dir, name)?;
        if let Some(entry) = self.inodes[dir].entries.get_mut(name) {
            entry.used = true;
        }
        Ok(entry)
    }

    /// [`entry`](Self::entry) of what is probably a directory to go through: opens it at once.
    fn entry_on_the_way(&mut self, dir: InodeIx, name: &Name) -> Done<Entry> {
        if let Some(entry) = self.known_entry(dir, name)? {
            return Ok(entry);
        }
        let found = match &self.inodes[dir].origin {
            Some(origin) => enter(self.disk.dir(dir, origin)?, name.as_c_str())?,
            None => None,
        };
        match found {
            None => self.look(dir, name),
            Some((fd, meta)) => {
                let entry = self.found(dir, name, Some(meta))?;
                if let Some(ix) = entry.now {
                    self.disk.keep(ix, fd);
                }
                Ok(entry)
            }
        }
    }

    fn known_entry(&self, dir: InodeIx, name: &Name) -> Done<Option<Entry>> {
        if dir == ROOT && name.as_bytes() == STATE {
            return Err(Stop::State);
        }
        if name.as_bytes().len() > NAME_MAX {
            return Err(Stop::Path(Errno::NAMETOOLONG));
        }
        Ok(self.inodes[dir].entries.get(name).copied())
    }

    /// Looks at a name for the first time.
    fn look(&mut self, dir: InodeIx, name: &Name) -> Done<Entry> {
        let inode = &self.inodes[dir];
        let listed = inode.listing.as_ref().map(|l| l.contains_key(name));
        let meta = match &inode.origin {
            Some(origin) if listed != Some(false) => {
                let meta = look(self.disk.dir(dir, origin)?, name.as_c_str())?;
                if listed == Some(true) && meta.is_none() {
                    return Err(Stop::Changed);
                }
                meta
            }
            _ => None,
        };
        self.found(dir, name, meta)
    }

    /// Notes what stands at a name on the disk.
    fn found(&mut self, dir: InodeIx, name: &Name, meta: Option<Metadata>) -> Done<Entry> {
        let mut entry = Entry::default();
        if let Some(meta) = meta {
            let above = self.inodes[dir].origin.as_ref();
            entry.mounted = meta.is_mount_root() == Some(true)
                || above.is_some_and(|above| other_mount(&meta, &above.meta));
            let foreign = self.disk.is_foreign(&meta);
            let staying = self.rules().contains(ResolveFlags::NO_XDEV);
            if entry.mounted && staying {
                return Err(Stop::Path(Errno::XDEV));
            }
            entry.before = Some(self.inode_of(dir, name, meta, foreign)?);
            entry.now = entry.before;
        }
        self.inodes[dir].entries.insert(name.clone(), entry);
        Ok(entry)
    }

    fn inode_of(
        &mut self,
        dir: InodeIx,
        name: &Name,
        meta: Metadata,
        foreign: bool,
    ) -> Done<InodeIx> {
        let several = !meta.is_dir() && meta.links() > 1;
        if several && let Some(ix) = self.known.get(&meta.id()) {
            let same = self.inodes[*ix].origin.as_ref().map(|o| o.ident);
            let same = same.is_some_and(|ident| ident.is_unchanged(&Ident::of(&meta)));
            return if same { Ok(*ix) } else { Err(Stop::Changed) };
        }
        let mut inode = Inode::new(Kind::of(&meta));
        let above = self.inodes[dir].origin.as_ref();
        let path = above.map_or_else(Vec::new, |above| join(&above.path, name));
        inode.origin = Some(Origin {
            dir,
            name: Some(name.clone()),
            path,
            meta,
            ident: Ident::of(&meta),
            foreign,
        });
        if meta.is_dir() {
            inode.at = Some((dir, name.clone()));
        }
        let ix = self.add(inode);
        if several {
            self.known.insert(meta.id(), ix);
        }
        Ok(ix)
    }
}

/// What the kernel refuses before it looks at anything.
pub(super) fn check(path: &[u8]) -> Done<()> {
    match path {
        b"" => Err(Stop::Path(Errno::NOENT)),
        path if path.contains(&0) => Err(Stop::Path(Errno::INVAL)),
        path if path.len() >= PATH_MAX => Err(Stop::Path(Errno::NAMETOOLONG)),
        _ => Ok(()),
    }
}
