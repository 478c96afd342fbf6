//! What a transaction should do: a tree in memory, and the operations by the rules of the manual pages.
//!
//! Names are plain, and a symlink leads nowhere, so that paths need no resolution.

use crate::tree::{Thing, Tree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

type Node = usize;
pub type Done = Result<(), Errno>;

const ROOT: Node = 0;
const IFREG: u32 = 0o100_000;
const IFDIR: u32 = 0o040_000;
const IFLNK: u32 = 0o120_000;
/// Of new files and directories, with the umask 022.
const FILE: u32 = 0o644;
const DIR: u32 = 0o755;

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Dir(BTreeMap<String, Node>),
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// How a name is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renaming {
    Replace,
    NoReplace,
    Exchange,
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    Write(String, Vec<u8>),
    WriteMode(String, Vec<u8>, u32),
    CreateNew(String, Vec<u8>),
    Append(String, Vec<u8>),
    InPlace(String, Vec<u8>),
    Dir(String),
    DirAll(String),
    RemoveFile(String),
    RemoveDir(String),
    RemoveTree(String),
    Rename(String, String, Renaming),
    Symlink(Vec<u8>, String),
    Link(String, String),
    Mode(String, u32),
    Key(Vec<u8>, Vec<u8>),
}

/// A tree, and the keys that are known.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: Vec<(u32, What)>,
    pub keys: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            nodes: vec![(DIR, What::Dir(BTreeMap::new()))],
            keys: BTreeMap::new(),
        }
    }
}

impl Model {
    fn dir(&self, node: Node) -> Option<&BTreeMap<String, Node>> {
        match &self.nodes[node].1 {
            What::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn set(&mut self, dir: Node, name: &str, now: Option<Node>) {
        if let What::Dir(entries) = &mut self.nodes[dir].1 {
            match now {
                Some(node) => entries.insert(name.to_owned(), node),
                None => entries.remove(name),
            };
        }
    }

    fn make(&mut self, dir: Node, name: &str, mode: u32, what: What) -> Node {
        self.nodes.push((mode, what));
        let node = self.nodes.len() - 1;
        self.set(dir, name, Some(node));
        node
    }

    /// The directory of a path, its last name, and what has it.
    fn at<'p>(&self, path: &'p str) -> Result<(Node, &'p str, Option<Node>), Errno> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = ROOT;
        for part in above.split('/').filter(|p| !p.is_empty()) {
            let entries = self.dir(dir).ok_or(Errno::NOTDIR)?;
            dir = *entries.get(part).ok_or(Errno::NOENT)?;
            match self.nodes[dir].1 {
                What::Dir(_) => {}
                What::File(_) => return Err(Errno::NOTDIR),
                What::Link(_) => return Err(Errno::NOENT),
            }
        }
        let entries = self.dir(dir).ok_or(Errno::NOTDIR)?;
        Ok((dir, name, entries.get(name).copied()))
    }

    /// Whether `inner` is `outer` or in it.
    fn is_within(&self, inner: Node, outer: Node) -> bool {
        let below =
            |entries: &BTreeMap<String, Node>| entries.values().any(|n| self.is_within(inner, *n));
        inner == outer || self.dir(outer).is_some_and(below)
    }

    /// Whether something has this name.
    pub fn exists(&self, path: &str) -> bool {
        self.at(path).is_ok_and(|(.., found)| found.is_some())
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        match &self.nodes[self.at(path).ok()?.2?].1 {
            What::File(content) => Some(content),
            _ => None,
        }
    }

    pub fn is_dir(&self, path: &str) -> bool {
        let found = self.at(path).ok().and_then(|(.., found)| found);
        found.is_some_and(|node| self.dir(node).is_some())
    }

    /// Writes into a file that is there, with all of its names.
    pub fn overwrite(&mut self, path: &str, content: &[u8]) -> Done {
        let node = self.at(path)?.2.ok_or(Errno::NOENT)?;
        match &mut self.nodes[node].1 {
            What::File(old) => *old = content.to_vec(),
            What::Dir(_) => return Err(Errno::ISDIR),
            What::Link(_) => return Err(Errno::LOOP),
        }
        Ok(())
    }

    fn put(&mut self, path: &str, content: &[u8], mode: Option<u32>, append: bool) -> Done {
        let (dir, name, old) = self.at(path)?;
        let (mut was, mut all) = (FILE, Vec::new());
        if let Some(old) = old {
            was = self.nodes[old].0;
            match &self.nodes[old].1 {
                What::Dir(_) => return Err(Errno::ISDIR),
                What::Link(_) => return Err(Errno::LOOP),
                What::File(old) if append => all.clone_from(old),
                What::File(_) => {}
            }
        }
        all.extend_from_slice(content);
        self.make(dir, name, mode.unwrap_or(was), What::File(all));
        Ok(())
    }

    fn vacant<'p>(&self, path: &'p str) -> Result<(Node, &'p str), Errno> {
        match self.at(path)? {
            (_, _, Some(_)) => Err(Errno::EXIST),
            (dir, name, None) => Ok((dir, name)),
        }
    }

    fn create_dir_all(&mut self, path: &str) -> Done {
        let parts: Vec<&str> = path.split('/').collect();
        for n in 1..=parts.len() {
            let above = parts[..n].join("/");
            match self.at(&above)? {
                (dir, name, None) => drop(self.make(dir, name, DIR, What::Dir(BTreeMap::new()))),
                (.., Some(node)) => match self.nodes[node].1 {
                    What::Dir(_) => {}
                    What::File(_) if n < parts.len() => return Err(Errno::NOTDIR),
                    // Of a link that leads nowhere, the name is taken.
                    _ => return Err(Errno::EXIST),
                },
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str, how: Renaming) -> Done {
        let (old_dir, old_name, moved) = self.at(from)?;
        let (new_dir, new_name, there) = self.at(to)?;
        let moved = moved.ok_or(Errno::NOENT)?;
        let exchange = how == Renaming::Exchange;
        match there {
            Some(_) if how == Renaming::NoReplace => return Err(Errno::EXIST),
            None if exchange => return Err(Errno::NOENT),
            _ => {}
        }
        let moves_dir = self.dir(moved).is_some();
        if moves_dir && self.is_within(new_dir, moved) {
            return Err(Errno::INVAL);
        }
        if let Some(there) = there {
            let entries = self.dir(there);
            if entries.is_some() && self.is_within(old_dir, there) {
                return Err(if exchange {
                    Errno::INVAL
                } else {
                    Errno::NOTEMPTY
                });
            }
            if there == moved {
                return Ok(());
            }
            match (moves_dir, entries) {
                _ if exchange => {}
                (true, None) => return Err(Errno::NOTDIR),
                (false, Some(_)) => return Err(Errno::ISDIR),
                (true, Some(entries)) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        self.set(old_dir, old_name, there.filter(|_| exchange));
        self.set(new_dir, new_name, Some(moved));
        Ok(())
    }

    fn remove(&mut self, path: &str, may: impl FnOnce(&What) -> Done) -> Done {
        let (dir, name, found) = self.at(path)?;
        may(&self.nodes[found.ok_or(Errno::NOENT)?].1)?;
        self.set(dir, name, None);
        Ok(())
    }

    /// Does it, or says why not; then nothing is changed but what `create_dir_all` made.
    pub fn run(&mut self, op: &Op) -> Done {
        match op {
            Op::Write(path, content) => self.put(path, content, None, false),
            Op::WriteMode(path, content, mode) => self.put(path, content, Some(*mode), false),
            Op::CreateNew(path, content) => {
                self.vacant(path)?;
                self.put(path, content, None, false)
            }
            Op::Append(path, content) => self.put(path, content, None, true),
            Op::InPlace(path, content) => self.overwrite(path, content),
            Op::Dir(path) => {
                let (dir, name) = self.vacant(path)?;
                self.make(dir, name, DIR, What::Dir(BTreeMap::new()));
                Ok(())
            }
            Op::DirAll(path) => self.create_dir_all(path),
            Op::RemoveFile(path) => self.remove(path, |what| match what {
                What::Dir(_) => Err(Errno::ISDIR),
                _ => Ok(()),
            }),
            Op::RemoveDir(path) => self.remove(path, |what| match what {
                What::Dir(entries) if entries.is_empty() => Ok(()),
                What::Dir(_) => Err(Errno::NOTEMPTY),
                _ => Err(Errno::NOTDIR),
            }),
            Op::RemoveTree(path) => self.remove(path, |_| Ok(())),
            Op::Rename(from, to, how) => self.rename(from, to, *how),
            Op::Symlink(text, path) => {
                let (dir, name) = self.vacant(path)?;
                self.make(dir, name, 0o777, What::Link(text.clone()));
                Ok(())
            }
            Op::Link(from, to) => {
                let node = self.at(from)?.2.ok_or(Errno::NOENT)?;
                let (dir, name) = self.vacant(to)?;
                if self.dir(node).is_some() {
                    return Err(Errno::PERM);
                }
                self.set(dir, name, Some(node));
                Ok(())
            }
            Op::Mode(path, mode) => {
                let node = self.at(path)?.2.ok_or(Errno::NOENT)?;
                if matches!(self.nodes[node].1, What::Link(_)) {
                    return Err(Errno::OPNOTSUPP);
                }
                self.nodes[node].0 = *mode;
                Ok(())
            }
            Op::Key(key, value) => {
                if self.keys.contains_key(key) {
                    return Err(Errno::EXIST);
                }
                self.keys.insert(key.clone(), value.clone());
                Ok(())
            }
        }
    }

    /// As the disk should be.
    pub fn tree(&self) -> Tree {
        let mut names = vec![0; self.nodes.len()];
        let mut out = Vec::new();
        self.walk(ROOT, Path::new(""), &mut out, &mut names);
        out.into_iter()
            .map(|(path, node)| {
                let (mode, what) = &self.nodes[node];
                let (mode, links, content) = match what {
                    What::Dir(_) => (IFDIR | mode, 0, Vec::new()),
                    What::File(content) => (IFREG | mode, names[node], content.clone()),
                    What::Link(text) => (IFLNK | mode, names[node], text.clone()),
                };
                let thing = Thing {
                    mode,
                    links,
                    content,
                };
                (path, thing)
            })
            .collect()
    }

    fn walk(&self, dir: Node, at: &Path, out: &mut Vec<(PathBuf, Node)>, names: &mut [u64]) {
        for (name, node) in self.dir(dir).into_iter().flatten() {
            let path = at.join(name);
            names[*node] += 1;
            out.push((path.clone(), *node));
            self.walk(*node, &path, out, names);
        }
    }
}
