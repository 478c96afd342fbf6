//! The operations on two names: renaming, exchanging, linking.

use super::stop::{Done, Stop};
use super::{InodeIx, View};
use crate::root::Last;
use crate::sys::Errno;
use crate::workspace::draft::Renaming;
use crate::workspace::identity::Kind;

const RENAME: &str = "renameat2";
const LINK: &str = "linkat";

impl View<'_> {
    /// As renameat2(2), with its refusals in its order.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], how: Renaming) -> Done<()> {
        let refuse = |e| Err(Stop::Call(RENAME, e));
        let exchange = how == Renaming::Exchange;
        let taken = match how {
            Renaming::NoReplace => Errno::EXIST,
            _ => Errno::BUSY,
        };
        let old = self.target(from)?;
        let new = self.target(to)?;
        self.on_root_mount(old.dir, RENAME)?;
        self.on_root_mount(new.dir, RENAME)?;
        let old_name = old.name(RENAME, Errno::BUSY)?;
        let new_name = new.name(RENAME, taken)?;

        let there = self.used_entry(old.dir, old_name)?;
        let moved = there.now.ok_or(Stop::Call(RENAME, Errno::NOENT))?;
        let here = self.used_entry(new.dir, new_name)?;
        if how == Renaming::NoReplace && here.now.is_some() {
            return refuse(Errno::EXIST);
        }
        if exchange && here.now.is_none() {
            return refuse(Errno::NOENT);
        }
        let is_dir = |view: &Self, ix: InodeIx| view.inodes[ix].kind == Kind::Dir;
        let moves_dir = is_dir(self, moved);
        let new_is_dir = here.now.is_some_and(|ix| is_dir(self, ix));
        if exchange && new.slash && !new_is_dir {
            return refuse(Errno::NOTDIR);
        }
        if !moves_dir && (old.slash || new.slash && !exchange) {
            return refuse(Errno::NOTDIR);
        }
        if moves_dir && self.is_within(new.dir, moved) {
            return refuse(Errno::INVAL);
        }
        if let Some(ix) = here.now
            && new_is_dir
            && self.is_within(old.dir, ix)
        {
            return refuse(if exchange {
                Errno::INVAL
            } else {
                Errno::NOTEMPTY
            });
        }
        let mounted = there.mounted || here.mounted;
        if here.now == Some(moved) && !mounted {
            return Ok(());
        }
        if let Some(ix) = here.now
            && !exchange
        {
            match (moves_dir, new_is_dir) {
                (true, false) => return refuse(Errno::NOTDIR),
                (false, true) => return refuse(Errno::ISDIR),
                (true, true) if !mounted && !self.is_empty(ix)? => {
                    return refuse(Errno::NOTEMPTY);
                }
                _ => {}
            }
        }
        if mounted {
            return refuse(Errno::BUSY);
        }
        self.set(old.dir, old_name, here.now.filter(|_| exchange));
        self.set(new.dir, new_name, Some(moved));
        Ok(())
    }

    /// As linkat(2) without flags: a symlink itself gets a further name.
    pub(super) fn hard_link(&mut self, from: &[u8], to: &[u8]) -> Done<()> {
        let refuse = |e| Err(Stop::Call(LINK, e));
        let old = self.target(from)?;
        let (file, mounted) = match &old.last {
            Last::Normal(name) if !old.slash => {
                let entry = self.used_entry(old.dir, name)?;
                let file = entry.now.ok_or(Stop::Call(LINK, Errno::NOENT))?;
                (file, entry.mounted)
            }
            _ => (self.directory(from)?, false),
        };
        let (new, name) = self.vacant(to, LINK)?;
        if new.slash {
            return refuse(Errno::NOENT);
        }
        if mounted {
            return Err(Stop::OtherMount(LINK));
        }
        self.on_root_mount(old.dir, LINK)?;
        self.on_root_mount(new.dir, LINK)?;
        if self.inodes[file].kind == Kind::Dir {
            return refuse(Errno::PERM);
        }
        self.set(new.dir, &name, Some(file));
        Ok(())
    }
}
