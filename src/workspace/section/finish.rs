//! The end of a section whose process is alive: kept, or taken back.
//!
//! What decides is the record of the end; everything that was put away is removed after it, and not before.
//! Where the end cannot be reached, the section is left as if its process had died: the mark stays without a
//! holder, and whoever comes next takes it up.

use super::record::End;
use super::recover::{self, StillOpen};
use super::take_back::take_back;
use super::{Held, Section};
use crate::workspace::commit::Receipt;
use crate::workspace::record::SECTION_END;
use crate::workspace::writers;
use crate::{DiskState, Error, ErrorKind, Result};

const COMMIT: &str = "commit section";
const BACK: &str = "take back section";

pub(super) fn commit(section: &mut Section<'_>) -> Result<Receipt> {
    let number = section.begin.number;
    let synced = section.usable().and_then(|()| {
        let state = &section.workspace.state;
        (state.syncfs(&state.dir)).map_err(|e| Error::new(COMMIT, "syncfs", e))
    });
    let end = End::Committed(section.keys.clone());
    let decided = match synced {
        Ok(()) if !section.begun && section.keys.is_empty() => Ok(()),
        Ok(()) => section.append(SECTION_END, &end.encode(number)),
        Err(e) => Err(e),
    };
    match decided {
        Ok(()) => {}
        Err(e) if e.disk_state() == DiskState::Unchanged => {
            let e = e.with_operation(COMMIT);
            return Err(match roll_back(section) {
                Ok(()) => e.with_advice("everything is as before the section"),
                Err(_) => e
                    .with_state(DiskState::Indeterminate)
                    .with_advice("it could not be taken back yet: see Workspace::recover"),
            });
        }
        Err(e) => {
            // Only the log itself tells, when it is opened again: as after a crash.
            section.held = None;
            return Err(e
                .with_operation(COMMIT)
                .with_advice("Workspace::recover(), or opening it again, tells which"));
        }
    }
    let Some(held) = section.held.take() else {
        return Err(Error::of_kind(COMMIT, ErrorKind::Poisoned));
    };
    let mut names = {
        let index = held.writer.index;
        move || writers::fresh_name(index)
    };
    let mut ctx = section.workspace.ctx(&mut names);
    let keys = recover::put_keys(&section.workspace.state, &mut ctx, &section.keys);
    keys.and_then(|()| close(section, held))
        .map_err(|e| e.with_operation(COMMIT).with_state(DiskState::Committed))?;
    let notes = std::mem::take(&mut section.notes);
    Ok(Receipt { number, notes })
}

pub(super) fn roll_back(section: &mut Section<'_>) -> Result<()> {
    let number = section.begin.number;
    if section.begun {
        let workspace = section.workspace;
        let mut names = section.names();
        let mut ctx = workspace.ctx(&mut names);
        let hooks = &workspace.options.hooks;
        let back = take_back(
            &mut ctx,
            hooks,
            &section.begin,
            &section.sum,
            &section.resources,
            true,
        );
        let recorded = match back {
            Ok(()) => section.append(SECTION_END, &End::TakenBack.encode(number)),
            Err(why) => Err(refusal(number, &why)),
        };
        if let Err(e) = recorded {
            section.held = None;
            return Err(e.with_operation(BACK).with_state(DiskState::Indeterminate));
        }
    }
    let Some(held) = section.held.take() else {
        return Ok(());
    };
    close(section, held).map_err(|e| e.with_operation(BACK).with_state(DiskState::Published))
}

#[cold]
pub(super) fn refusal(number: u64, why: &StillOpen) -> Error {
    let kind = match why {
        StillOpen::HookMissing(_) => ErrorKind::Unsupported,
        StillOpen::HookFailed(..) => ErrorKind::Source,
        StillOpen::Lost(_) => ErrorKind::Conflict,
        StillOpen::Failed(_) => ErrorKind::Io,
    };
    let error = Error::of_kind(BACK, kind)
        .with_detail(format!("section {number} stays open: {why}"))
        .with_advice("mend that, and call Workspace::recover(), or open the workspace again");
    match why {
        StillOpen::Lost(path) => error.with_path(path),
        _ => error,
    }
}

/// It is decided: removes what was put away, and gives everything free.
fn close(section: &Section<'_>, held: Held) -> Result<()> {
    let state = &section.workspace.state;
    let Held {
        claim,
        mark,
        writer,
    } = held;
    recover::sweep(state, writer.index)?;
    state.ledger.clear(mark, &claim)?;
    writer.log.release(writer.log.last())?;
    writers::close(state, writer.index, writer.log)
}
