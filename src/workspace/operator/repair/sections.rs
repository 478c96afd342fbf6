//! A section whose records make no sense: what it has put away and its records are set aside, and then it is
//! given up.

use super::{OP, Place, Work, is_lost, private_names};
use crate::journal::Entry;
use crate::sys::Errno;
use crate::workspace::operator::look::names_in;
use crate::workspace::record::{COMMIT_IN_FILE, InFile};
use crate::workspace::section::{Story, is_of_section};
use crate::workspace::{setup, writers};
use crate::{Error, Name, Result};
use std::collections::BTreeSet;
use std::ffi::CString;

impl Work<'_> {
    /// Sections of a log that nobody holds. `known`: those that are given up.
    pub(super) fn sections(
        &mut self,
        index: u32,
        records: &[Entry],
        known: &BTreeSet<u64>,
    ) -> Result<()> {
        let (mut lost, mut other) = (Vec::new(), false);
        for (number, story) in Story::each(records) {
            let read = story.and_then(|story| {
                let is_over = story.is_over();
                self.look.steps(story).map(|()| is_over)
            });
            match read {
                _ if known.contains(&number) => {}
                Ok(is_over) => other |= !is_over,
                Err(e) if is_lost(&e) => lost.push(number),
                Err(e) => return Err(e.with_operation(OP)),
            }
        }
        // Each has a log of its own. If that is not so, what is there is needed to take the other one back.
        if !lost.is_empty() && !other {
            self.put_away(index, records)?;
        }
        for number in lost {
            // All of it is kept before it is decided: after that it is litter.
            self.copy_records(number, records)?;
            self.give_up(number)?;
        }
        Ok(())
    }

    /// What was put away under a log's index, but for what its transactions and conflicts need.
    pub(super) fn put_away(&mut self, index: u32, records: &[Entry]) -> Result<()> {
        let mut needed: BTreeSet<Name> = BTreeSet::new();
        for entry in records {
            if entry.kind == COMMIT_IN_FILE {
                needed.extend(InFile::decode(&entry.payload).ok().map(|f| f.name));
            }
            if let Ok(Some(commit)) = self.look.commit(entry) {
                needed.extend(private_names(&commit.mapping));
            }
        }
        let conflicts = self.look.conflicts()?.0;
        needed.extend(conflicts.iter().filter_map(|c| c.kept_name().cloned()));
        for place in [Place::Staged, Place::Kept, Place::Retired] {
            let Some(folder) = self.look.folder(place.name())? else {
                continue;
            };
            for name in names_in(&folder, OP)? {
                if writers::owner_of(&name) == Some(index) && !needed.contains(&name) {
                    self.move_aside(&folder, Some(place), &name)?;
                }
            }
        }
        self.sync()
    }

    /// The log is used again one day, so that its records are copied: for each its number, its kind and its
    /// length (8 bytes each), and its bytes.
    fn copy_records(&mut self, number: u64, records: &[Entry]) -> Result<()> {
        let mut bytes = Vec::new();
        let own = |e: &&Entry| is_of_section(e) && e.transaction == number;
        for entry in records.iter().filter(own) {
            for n in [entry.seq, entry.kind.into(), entry.payload.len() as u64] {
                bytes.extend_from_slice(&n.to_le_bytes());
            }
            bytes.extend_from_slice(&entry.payload);
        }
        // By this name nothing looks for it. An earlier repair may have been killed after it.
        let name = CString::new(format!("damaged-section-{number}"))
            .map_err(|_| Error::new(OP, "openat", Errno::INVAL))?;
        setup::put(&self.look.dir, &name, &bytes).map_err(|e| e.with_operation(OP))?;
        let name = super::to_name(&name)?;
        self.note_aside(None, &name);
        self.changed.insert(None);
        self.sync()
    }
}
