//! A tree in memory, and what openat2 says about paths in it: a third opinion, written from the rules and
//! recursive where the library's walk is not.

use super::support::Case;
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;

/// Number of a node; 0 is the root.
pub(crate) type Node = usize;

#[derive(Clone, Debug)]
pub(crate) enum What {
    Dir(BTreeMap<Vec<u8>, Node>),
    File,
    Link(Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<(Node, What)>,
}

/// What an open does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Opens(Node),
    /// Makes a file in this directory.
    Makes(Node),
    Fails(Errno),
}

struct Walk<'t> {
    tree: &'t Tree,
    resolve: ResolveFlags,
    links: u32,
}

/// Where a path leads: to a node, or to a name in a directory that is not there.
enum Place {
    Node(Node),
    Missing(Node),
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![(0, What::Dir(BTreeMap::new()))],
        }
    }

    /// Adds a node, unless the name is taken.
    pub(crate) fn add(&mut self, dir: Node, name: &[u8], what: What) -> Option<Node> {
        let new = self.nodes.len();
        let What::Dir(entries) = &mut self.nodes[dir].1 else {
            return None;
        };
        if entries.contains_key(name) {
            return None;
        }
        entries.insert(name.to_vec(), new);
        self.nodes.push((dir, what));
        Some(new)
    }

    fn is_dir(&self, node: Node) -> bool {
        matches!(self.nodes[node].1, What::Dir(_))
    }

    /// The answer to valid arguments of a user who may do everything.
    pub(crate) fn open(&self, case: &Case) -> Answer {
        match self.try_open(case) {
            Ok(answer) => answer,
            Err(e) => Answer::Fails(e),
        }
    }

    fn try_open(&self, case: &Case) -> Result<Answer, Errno> {
        let (path, flags) = (case.path.as_slice(), case.flags);
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.len() > 4095 {
            return Err(Errno::NAMETOOLONG);
        }
        let creates = flags.contains(OFlags::CREATE);
        let exclusive = creates && flags.contains(OFlags::EXCL);
        let mut walk = Walk {
            tree: self,
            resolve: case.resolve,
            links: 0,
        };
        let mut directory = flags.contains(OFlags::DIRECTORY);
        let follow = !exclusive && !flags.contains(OFlags::NOFOLLOW);
        let place = walk.go(0, path, true, follow, creates, &mut directory)?;
        let node = match place {
            Place::Missing(dir) if creates => return Ok(Answer::Makes(dir)),
            Place::Missing(_) => return Err(Errno::NOENT),
            Place::Node(node) => node,
        };
        if exclusive {
            return Err(Errno::EXIST);
        }
        if creates && self.is_dir(node) {
            return Err(Errno::ISDIR);
        }
        if directory && !self.is_dir(node) {
            return Err(Errno::NOTDIR);
        }
        if flags.contains(OFlags::PATH) {
            return Ok(Answer::Opens(node));
        }
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        match self.nodes[node].1 {
            What::Link(_) => Err(Errno::LOOP),
            What::Dir(_) if writes => Err(Errno::ISDIR),
            _ => Ok(Answer::Opens(node)),
        }
    }
}

impl Walk<'_> {
    /// Goes along `path` from `dir`. `outermost`: nothing follows it; then `follow` and `creates` say how its
    /// last component is taken, and `directory` becomes true if a slash demands one.
    fn go(
        &mut self,
        mut dir: Node,
        path: &[u8],
        outermost: bool,
        mut follow: bool,
        creates: bool,
        directory: &mut bool,
    ) -> Result<Place, Errno> {
        if path.starts_with(b"/") {
            if self.resolve.contains(ResolveFlags::BENEATH) {
                return Err(Errno::XDEV);
            }
            dir = 0;
        }
        let names: Vec<&[u8]> = path
            .split(|b| *b == b'/')
            .filter(|n| !n.is_empty())
            .collect();
        for (i, name) in names.iter().enumerate() {
            let last = outermost && i + 1 == names.len();
            let What::Dir(entries) = &self.tree.nodes[dir].1 else {
                return Err(Errno::NOTDIR);
            };
            match *name {
                b"." => continue,
                b".." => {
                    if dir == 0 && self.resolve.contains(ResolveFlags::BENEATH) {
                        return Err(Errno::XDEV);
                    }
                    dir = self.tree.nodes[dir].0;
                    continue;
                }
                _ => {}
            }
            if last && path.ends_with(b"/") {
                if creates {
                    return Err(Errno::ISDIR);
                }
                follow = true;
                *directory = true;
            }
            if name.len() > 255 {
                return Err(Errno::NAMETOOLONG);
            }
            let Some(node) = entries.get(*name).copied() else {
                return if last {
                    Ok(Place::Missing(dir))
                } else {
                    Err(Errno::NOENT)
                };
            };
            let What::Link(text) = &self.tree.nodes[node].1 else {
                dir = node;
                continue;
            };
            if last && !follow {
                return Ok(Place::Node(node));
            }
            self.links += 1;
            if self.links > 40 || self.resolve.contains(ResolveFlags::NO_SYMLINKS) {
                return Err(Errno::LOOP);
            }
            let text = text.clone();
            // What is behind a link that is followed is followed.
            match self.go(dir, &text, last, follow, creates, directory)? {
                Place::Node(next) => dir = next,
                missing @ Place::Missing(_) => return Ok(missing),
            }
        }
        Ok(Place::Node(dir))
    }
}
