//! A dead process's section that is neither kept nor taken back: what is there stays.

use super::record::{End, Story};
use crate::journal::Record;
use crate::sys::{self, Errno, RenameFlags};
use crate::workspace::abandoned::Abandon;
use crate::workspace::conflict;
use crate::workspace::record::SECTION_END;
use crate::workspace::recover::names_in;
use crate::workspace::state::{State, Sub};
use crate::workspace::writers::{self, DeadLog};
use crate::{Error, Name, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const OP: &str = "abandon section";
/// How the names begin of what stays of a section; its number follows, and the name that it had before.
const GIVEN_UP: &str = "given-up-";

/// What was given up.
pub(in crate::workspace) struct GivenUp {
    pub(in crate::workspace) label: Vec<u8>,
    /// What was there before, where it is kept now.
    pub(in crate::workspace) kept: Vec<PathBuf>,
}

/// Gives up the section with this number, if it is in one of these logs and open.
///
/// What was put away for it gets a name by which no recovery takes it for litter, or is left to be that. The
/// record at the end decides; after a crash before it, calling this again goes on.
pub(in crate::workspace) fn give_up(
    state: &State,
    dead: &[DeadLog],
    number: u64,
    how: Abandon,
) -> Result<Option<GivenUp>> {
    for DeadLog { index, log } in dead {
        let Ok((log, found)) = log else {
            continue;
        };
        let Some((_, story)) = (Story::each(&found.records).into_iter()).find(|s| s.0 == number)
        else {
            continue;
        };
        let story = story?;
        if story.is_over() {
            continue;
        }
        let kept = match how {
            Abandon::KeepOurs => keep(state, *index, number)?,
            Abandon::Drop => Vec::new(),
        };
        let end = End::GivenUp.encode(number);
        log.append_durable(&[Record::new(SECTION_END, &end).transaction(number)])?;
        return Ok(Some(GivenUp {
            label: story.begin.label,
            kept,
        }));
    }
    Ok(None)
}

/// The section of which this is kept, if it is.
pub(in crate::workspace) fn given_up(name: &Name) -> Option<u64> {
    let name = std::str::from_utf8(name.as_bytes()).ok()?;
    let (number, before) = name.strip_prefix(GIVEN_UP)?.split_once('-')?;
    let before = Name::new(before).ok()?;
    writers::owner_of(&before)?;
    number.parse().ok()
}

/// Renames what was put away under the log's index: images, and what was removed or replaced. Gives the
/// paths, of an earlier try as well.
fn keep(state: &State, index: u32, number: u64) -> Result<Vec<PathBuf>> {
    let of_conflicts: BTreeSet<Name> = conflict::list(state)?
        .into_iter()
        .filter_map(|c| c.kept_name().cloned())
        .collect();
    let prefix = format!("{GIVEN_UP}{number}-");
    let mut out = Vec::new();
    for (sub, dir) in [(Sub::Kept, &state.kept), (Sub::Retired, &state.retired)] {
        let fail = |call| move |e: Errno| Error::new(OP, call, e).with_path(sub.path());
        let folder = sub.path();
        for name in names_in(dir, sub)? {
            if name.as_bytes().starts_with(prefix.as_bytes()) {
                out.push(Path::new(&folder).join(name));
            } else if writers::owner_of(&name) == Some(index) && !of_conflicts.contains(&name) {
                let mut new = prefix.clone().into_bytes();
                new.extend_from_slice(name.as_bytes());
                let new = Name::from_bytes(&new).map_err(fail("renameat"))?;
                let (from, to) = (name.as_c_str(), new.as_c_str());
                sys::renameat2(dir, from, dir, to, RenameFlags::empty())
                    .map_err(fail("renameat"))?;
                out.push(Path::new(&folder).join(new));
            }
        }
        dir.sync()?;
    }
    out.sort();
    Ok(out)
}
