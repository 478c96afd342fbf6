//! Sections of dead processes: what was decided is finished, all else is taken back.

use super::image;
use super::record::{End, Item, Story};
use super::resource::Hooks;
use super::sum::Sum;
use super::take_back::take_back;
use crate::claim::ClaimPath;
use crate::claim::Want;
use crate::journal::{Entry, Log, Record, Recovered};
use crate::root::sync_names;
use crate::sys::{self, AsFd, RenameFlags};
use crate::workspace::ctx::Ctx;
use crate::workspace::private;
use crate::workspace::record::SECTION_END;
use crate::workspace::recover::sweep_of;
use crate::workspace::state::State;
use crate::workspace::{view, writers};
use crate::{Error, ErrorKind, Result, Root};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What recovery found of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SectionReport {
    number: u64,
    label: String,
    phase: Option<String>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
enum Outcome {
    TakenBack,
    Finished,
    Open(OpenSection),
}

impl SectionReport {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The last phase that it had reached.
    #[must_use]
    pub fn phase(&self) -> Option<&str> {
        self.phase.as_deref()
    }

    /// Everything was put back.
    #[must_use]
    pub fn was_taken_back(&self) -> bool {
        self.outcome == Outcome::TakenBack
    }

    /// It had been committed, or taken back, and only what it had put away was left to be removed.
    #[must_use]
    pub fn was_over(&self) -> bool {
        self.outcome == Outcome::Finished
    }

    /// It could not be taken back, and this is why.
    #[must_use]
    pub fn still_open(&self) -> Option<&OpenSection> {
        match &self.outcome {
            Outcome::Open(open) => Some(open),
            _ => None,
        }
    }
}

/// A section that nobody could take back yet. Its paths are closed to transactions and sections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OpenSection {
    number: u64,
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::raw_paths"))]
    paths: Vec<Vec<u8>>,
    why: StillOpen,
}

impl OpenSection {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What stands against it.
    #[must_use]
    pub fn why(&self) -> &StillOpen {
        &self.why
    }

    /// The paths that it has touched.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        (self.paths.iter()).map(|path| match path.as_slice() {
            b"" => Path::new("."),
            path => Path::new(OsStr::from_bytes(path)),
        })
    }
}

/// Why a section could not be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum StillOpen {
    /// It has resources for which this process registered no hook of this name. Nothing was touched.
    HookMissing(String),
    /// The hook of this name has failed, and what it said.
    HookFailed(String, String),
    /// What is to be put back at this path, or its directory, is not to be found.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::path"))]
    Lost(PathBuf),
    /// A call has failed.
    Failed(String),
}

impl fmt::Display for StillOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HookMissing(name) => write!(f, "there is no hook {name:?}"),
            Self::HookFailed(name, why) => write!(f, "the hook {name:?} has failed: {why}"),
            Self::Lost(path) => write!(f, "what was at {path:?}, or its directory, is gone"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Whether the records of sections can be understood, as far as they are needed.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) and those of reading what is in files.
pub(in crate::workspace) fn check(
    state: &State,
    records: &[Entry],
    given_up: &BTreeSet<u64>,
) -> Result<()> {
    for story in Story::read(records, given_up)? {
        story.check(&state.staged)?;
    }
    Ok(())
}

/// Finishes all sections in a dead process's log but for those that were given up as nobody understands them.
/// The log may be released if none is still open then.
pub(in crate::workspace) fn settle_all(
    root: &Root,
    state: &State,
    hooks: &Hooks,
    index: u32,
    log: &Log,
    found: &Recovered,
    given_up: &BTreeSet<u64>,
) -> Result<Vec<SectionReport>> {
    let mut out = Vec::new();
    let mut stories = Story::read(&found.records, given_up)?;
    // Those that began last first.
    stories.reverse();
    for story in stories {
        let number = story.begin.number;
        let label = String::from_utf8_lossy(&story.begin.label).into_owned();
        let phase = story.phase.clone();
        let outcome = match &story.end {
            Some(End::Committed(keys)) => {
                let mut names = || writers::fresh_name(index);
                put_keys(state, &mut state.ctx(root, &mut names), keys)?;
                Outcome::Finished
            }
            Some(End::TakenBack | End::GivenUp) => Outcome::Finished,
            None => one(root, state, hooks, index, log, story)?,
        };
        out.push(SectionReport {
            number,
            label,
            phase,
            outcome,
        });
    }
    Ok(out)
}

fn one(
    root: &Root,
    state: &State,
    hooks: &Hooks,
    index: u32,
    log: &Log,
    story: Story,
) -> Result<Outcome> {
    let begin = story.begin.clone();
    let number = begin.number;
    let (mut sum, mut resources) = (Sum::default(), Vec::new());
    for item in story.load(&state.staged)? {
        match item {
            Item::Undo(fragment) => sum.add(fragment),
            Item::Resource { hook, payload } => resources.push((hook, payload)),
            Item::Evidence(_) | Item::InFile(_) => {}
        }
    }
    let mut names = || writers::fresh_name(index);
    let mut ctx = state.ctx(root, &mut names);
    match take_back(&mut ctx, hooks, &begin, &sum, &resources, false) {
        Ok(()) => {
            let end = End::TakenBack.encode(number);
            let record = Record::new(SECTION_END, &end).transaction(number);
            log.append_durable(&[record])?;
            Ok(Outcome::TakenBack)
        }
        Err(why) => Ok(Outcome::Open(OpenSection {
            number,
            paths: sum.paths(),
            why,
        })),
    }
}

/// Writes the files of idempotency keys, durably. Those that are there stay.
pub(super) fn put_keys(
    state: &State,
    ctx: &mut Ctx<'_>,
    keys: &[(Vec<u8>, Vec<u8>)],
) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let fail = |call| move |e| Error::new("record key", call, e);
    for (key, value) in keys {
        let name = view::key_name(key).map_err(fail("openat"))?;
        if image::look(&state.keys, &name)
            .map_err(fail("statx"))?
            .is_some()
        {
            continue;
        }
        let file = private::durable(ctx, &[value])?;
        let (from, to) = (file.as_c_str(), name.as_c_str());
        // The key is claimed, or its holder is dead and not yet finished: nobody else is at it.
        sys::renameat2(&state.staged, from, &state.keys, to, RenameFlags::empty())
            .map_err(fail("renameat"))?;
    }
    sync_names(state.keys.as_fd()).map_err(fail("fsync"))
}

/// Removes everything private that was made under a log's index.
pub(super) fn sweep(state: &State, index: u32) -> Result<u64> {
    sweep_of(state, &BTreeSet::from([index]))
}

/// Refuses paths of sections that are still open.
pub(in crate::workspace) fn blocked<'a>(
    open: impl IntoIterator<Item = &'a OpenSection>,
    wants: &[Want],
) -> Result<()> {
    for section in open {
        for path in &section.paths {
            let own = ClaimPath::new(OsStr::from_bytes(path))?;
            let overlaps = |w: &Want| w.path().covers(&own) || own.covers(w.path());
            if wants.iter().any(overlaps) {
                let e = super::finish::refusal(section.number, &section.why);
                return Err(e
                    .with_kind(ErrorKind::Conflict)
                    .with_path(OsStr::from_bytes(path)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::child::dir;
    use crate::workspace::testbed::heard;
    use std::os::unix::fs::MetadataExt;

    /// Whoever finds a key does nothing of its work: the log that says so too may go then.
    #[test]
    fn keys_are_durable() {
        let tmp = dir();
        let root = Root::open(tmp.path()).unwrap();
        let state = State::open(&root, true).unwrap();
        let mut names = || writers::fresh_name(1);
        let mut ctx = state.ctx(&root, &mut names);
        let keys = [(b"key".to_vec(), b"value".to_vec())];
        let (done, calls) = heard(|| put_keys(&state, &mut ctx, &keys));
        done.unwrap();
        let folder = tmp.path().join(".steadfast/keys");
        assert_eq!(folder.read_dir().unwrap().count(), 1);
        let ino = folder.metadata().unwrap().ino();
        let named = calls.last(|call| call == "renameat");
        let mut synced = calls.synced(named, calls.end());
        assert!(synced.any(|synced| synced == ("fsync", ino)));
    }
}
