//! The claims that a transaction needs for what it did in the view.

use super::{View, join};
use crate::Result;
use crate::claim::{ClaimPath, Want};
use crate::workspace::draft::{Draft, DraftObject};
use crate::workspace::mapping::{Before, Place};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

impl View<'_> {
    /// What has to be claimed for the [`draft`](Self::draft) of this view: exclusively every name that
    /// changes, by its path before and after, and what is changed in place; shared what was read, and the
    /// names that an operation found as it needed them. A claim on a directory that moves or goes is one on
    /// all that is in it.
    ///
    /// # Errors
    /// None that a path from the view gives.
    pub(crate) fn wants(&self, draft: &Draft) -> Result<Vec<Want>> {
        let mut paths: Vec<(ClaimPath, bool)> = Vec::with_capacity(2 * draft.slots.len());
        let mut want = |path: &[u8], exclusive: bool| -> Result<()> {
            paths.push((ClaimPath::new(OsStr::from_bytes(path))?, exclusive));
            Ok(())
        };
        let path_before = |slot: usize| {
            let slot = draft.slots.get(slot)?;
            match draft.places.get(slot.place)? {
                Place::Existing { path, .. } => Some(join(path, &slot.name)),
                _ => None,
            }
        };
        for (ix, slot) in draft.slots.iter().enumerate() {
            let before = match slot.before {
                Before::Object(object) => Some(object),
                _ => None,
            };
            let changes = before != slot.after;
            if let Some(path) = path_before(ix).filter(|path| *path != slot.path) {
                want(&path, changes)?;
            }
            want(&slot.path, changes)?;
        }
        for change in &draft.changes {
            if let Some(DraftObject::Existing { slot, .. }) = draft.objects.get(change.object)
                && let Some(path) = path_before(*slot)
            {
                want(&path, true)?;
            }
        }
        for path in self.reads.keys() {
            want(path, false)?;
        }
        for (dir, inode) in self.inodes.iter().enumerate() {
            for (name, _) in inode.entries.iter().filter(|(_, entry)| entry.used) {
                if let Some(path) = self.disk_path(dir, name) {
                    want(&path, false)?;
                }
            }
        }
        paths.sort_unstable();
        paths.dedup_by(|later, first| {
            let same = later.0 == first.0;
            first.1 |= same && later.1;
            same
        });
        // What a claim above covers needs none of its own; a path comes after those above it.
        let mut wants: Vec<Want> = Vec::with_capacity(paths.len());
        let mut above: Vec<usize> = Vec::new();
        for (path, exclusive) in paths {
            while above
                .last()
                .is_some_and(|ix| !wants[*ix].path().covers(&path))
            {
                above.pop();
            }
            let covers = |ix: &usize| wants[*ix].is_exclusive() || !exclusive;
            if !above.iter().any(covers) {
                above.push(wants.len());
                wants.push(match exclusive {
                    true => Want::exclusive(path),
                    false => Want::shared(path),
                });
            }
        }
        Ok(wants)
    }
}
