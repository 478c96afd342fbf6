//! Steps that the section makes itself: collected like a transaction, and done at once.

use super::record::Item;
use super::undo;
use super::{OP, Section};
use crate::sys::{self, AtFlags, Metadata};
use crate::workspace::commit;
use crate::workspace::identity::Ident;
use crate::workspace::mapping::{Object, Place, Slot};
use crate::workspace::realise;
use crate::workspace::stage::stage;
use crate::workspace::transaction::Transaction;
use crate::{DiskState, Error, ErrorKind, Result, Root};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A thing that was moved aside by [`Section::capture`], and can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    from: PathBuf,
    to: PathBuf,
    ident: Ident,
}

impl Captured {
    /// Where it was.
    #[must_use]
    pub fn from(&self) -> &Path {
        &self.from
    }

    /// Where it was moved to.
    #[must_use]
    pub fn to(&self) -> &Path {
        &self.to
    }

    /// Its inode number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.ident.ino
    }
}

/// A transaction that works with the section's claim, which it gives back however it ends.
struct Lent<'s, 'w> {
    section: &'s mut Section<'w>,
    tx: Transaction<'w>,
}

impl<'s, 'w> Lent<'s, 'w> {
    fn new(section: &'s mut Section<'w>) -> Result<Self> {
        let mut tx = section.workspace.begin();
        let held = section.held.as_mut();
        let held = held.ok_or_else(|| Error::of_kind(OP, ErrorKind::Poisoned))?;
        let empty = section.workspace.state.claims.try_claim(&[])?;
        tx.index = held.writer.index;
        tx.claim = Some(std::mem::replace(&mut held.claim, empty));
        tx.claimed = std::mem::take(&mut section.claimed);
        // What is held stays held, and more is added to it.
        tx.held_by_caller = true;
        Ok(Self { section, tx })
    }
}

impl Drop for Lent<'_, '_> {
    fn drop(&mut self) {
        if let (Some(held), Some(claim)) = (&mut self.section.held, self.tx.claim.take()) {
            held.claim = claim;
        }
        self.section.claimed = std::mem::take(&mut self.tx.claimed);
    }
}

/// One step. `check` looks at the tree once everything is claimed.
pub(super) fn apply<'w>(
    section: &mut Section<'w>,
    change: impl FnOnce(&mut Transaction<'w>) -> Result<()>,
    check: impl FnOnce(&Root) -> Result<()>,
) -> Result<()> {
    let workspace = section.workspace;
    workspace.ready()?;
    let claimed = section.claimed.len();
    let mut lent = Lent::new(section)?;
    change(&mut lent.tx)?;
    let mut draft = commit::claimed_draft(&mut lent.tx)?;
    if draft.is_empty() {
        return Ok(());
    }
    if lent.tx.claimed.len() > claimed {
        lent.section.settle_below()?;
    }
    check(&workspace.root)?;
    draft.forget_seen();
    let mut names = lent.section.names();
    let mut ctx = workspace.ctx(&mut names);
    let mut staging = stage(&mut ctx, draft)?;
    let mapping = staging.mapping();
    let mut look = |slot: &Slot| facts(&workspace.root, mapping, slot);
    let fragment = undo::of_step(mapping, &lent.section.sum, &lent.section.moves, &mut look)?;
    lent.section.record(&Item::Undo(fragment.clone()))?;
    // From here on it is taken back, or kept.
    lent.section.sum.add(fragment);
    lent.section.moves.add(staging.mapping());
    lent.section.broken = true;
    lent.section.notes.extend(staging.take_notes());
    let mapping = staging.committed();
    let used: BTreeSet<_> = (mapping.objects.iter())
        .filter_map(|object| match object {
            Object::New { staged, .. } => Some(staged),
            _ => None,
        })
        .collect();
    lent.tx.files.retain(|name| !used.contains(name));
    let outcome = realise::step(&mut ctx, &mapping)
        .map_err(|e| e.with_operation(OP).with_state(DiskState::Published))?;
    if let Some(found) = outcome.conflicts.first() {
        return Err(Error::of_kind(OP, ErrorKind::Conflict)
            .with_path(OsStr::from_bytes(&found.path))
            .with_state(DiskState::Published)
            .with_detail("somebody else changed it at the same moment")
            .with_advice("take the section back"));
    }
    lent.section.broken = false;
    Ok(())
}

/// Facts about what stands at a slot that was there before.
fn facts(
    root: &Root,
    mapping: &crate::workspace::mapping::Mapping,
    slot: &Slot,
) -> Result<Metadata> {
    let fail = |call| move |e| Error::new(OP, call, e).with_path(OsStr::from_bytes(&slot.path));
    let Place::Existing { path, .. } = &mapping.places[slot.place] else {
        return Err(fail("statx")(sys::Errno::NOENT));
    };
    let path = undo::join(path, &slot.name);
    let (dir, name) = root.split(OsStr::from_bytes(&path))?;
    sys::statx(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(fail("statx"))
}

pub(super) fn capture(section: &mut Section<'_>, from: &Path, to: &Path) -> Result<Captured> {
    const OP: &str = "capture";
    let mut ident = None;
    let rename = |tx: &mut Transaction<'_>| {
        tx.rename_no_replace(from, to);
        Ok(())
    };
    apply(section, rename, |root| {
        ident = Some(Ident::of(&root.symlink_metadata(from)?));
        Ok(())
    })
    .map_err(|e| e.with_operation(OP))?;
    let ident = ident.ok_or_else(|| {
        Error::of_kind(OP, ErrorKind::InvalidInput)
            .with_path(from)
            .with_detail("it is there already")
    })?;
    Ok(Captured {
        from: from.to_owned(),
        to: to.to_owned(),
        ident,
    })
}

pub(super) fn restore(section: &mut Section<'_>, captured: &Captured) -> Result<()> {
    const OP: &str = "restore";
    let rename = |tx: &mut Transaction<'_>| {
        tx.rename_no_replace(&captured.to, &captured.from);
        Ok(())
    };
    apply(section, rename, |root| {
        let now = Ident::of(&root.symlink_metadata(&captured.to)?);
        if captured.ident.is(&now) {
            return Ok(());
        }
        Err(Error::of_kind(OP, ErrorKind::Changed)
            .with_path(&captured.to)
            .with_detail("it is not what was captured"))
    })
    .map_err(|e| e.with_operation(OP))
}
