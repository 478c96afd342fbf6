//! Removing what nobody needs any more.

use super::look::{Look, names_in};
use super::repair::ASIDE;
use super::status::{self, bytes, needed_logs};
use crate::journal::{End, LogOptions};
use crate::root::{Dir, sync_names};
use crate::sys::{self, AsFd, AtFlags, Errno, RenameFlags};
use crate::tree::{self, RemoveOptions};
use crate::workspace::identity::Ident;
use crate::workspace::section::{self, Story};
use crate::workspace::state::{self, Sub};
use crate::workspace::{Workspace, WorkspaceOptions, abandoned, writers};
use crate::{Error, ErrorKind, Name, Result, Root};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const OP: &str = "prune workspace";

/// What [`prune`] removes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct PruneOptions {
    dry_run: bool,
    keep_logs: usize,
    keys_older_than: Option<Duration>,
    set_aside: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            keep_logs: 4,
            keys_older_than: None,
            set_aside: false,
        }
    }
}

impl PruneOptions {
    /// Litter of dead processes, and closed empty logs beyond four. No keys, and nothing that a repair
    /// has set aside, or that is kept of a section that was given up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only say what would be removed. Nothing is changed then, and no lock is taken.
    pub fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// How many logs that nobody holds and that have nothing in them are kept: the next writers take them.
    pub fn keep_logs(mut self, number: usize) -> Self {
        self.keep_logs = number;
        self
    }

    /// Also idempotency keys that were recorded longer ago than this, by the wall clock. Work under such
    /// a key is done again if somebody asks for it again.
    pub fn keys_older_than(mut self, age: Duration) -> Self {
        self.keys_older_than = Some(age);
        self
    }

    /// Also what repairs have set aside (`damaged-...`), and what sections that were given up have put away
    /// before (`given-up-NUMBER-...`): for good.
    pub fn set_aside(mut self, yes: bool) -> Self {
        self.set_aside = yes;
        self
    }
}

/// What was removed, or would be: [`prune`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pruned {
    /// Private things of dead processes, beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub litter: Vec<PathBuf>,
    /// Indices of logs.
    pub logs: Vec<u32>,
    /// How many idempotency keys.
    pub keys: u64,
    /// What repairs had set aside, and what was kept of sections that were given up, beneath the root.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serial::paths"))]
    pub set_aside: Vec<PathBuf>,
    /// The length of the files among all these, in bytes.
    pub bytes: u64,
}

impl Pruned {
    /// There is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Removes from the workspace of `root` what nobody needs: see [`PruneOptions`]. It opens the workspace, and
/// so finishes first what dead processes have left (but for a dry run). Others may be at work.
///
/// # Errors
/// As [`WorkspaceOptions::open`], [`Workspace::settle`] for keys, unlink(2). What was removed before an error
/// stays removed.
///
/// # After a crash
/// What was not removed is removed the next time.
pub fn prune(root: &Root, options: &PruneOptions) -> Result<Pruned> {
    operation!("prune workspace");
    // What that leaves is to be removed; and what is damaged is not for removal but for repair.
    let workspace = match options.dry_run {
        true => None,
        false => Some(WorkspaceOptions::new().create(false).open(root)?),
    };
    let look = Look::open(root, OP)?;
    let mut work = Work {
        look: &look,
        options,
        workspace: workspace.as_ref(),
        out: Pruned::default(),
    };
    work.litter()?;
    work.logs()?;
    work.set_aside()?;
    let out = match work.old_keys()? {
        keys if keys.is_empty() => work.out,
        keys => work.keys(keys)?,
    };
    if let Some(workspace) = workspace {
        workspace.close()?;
    }
    Ok(out)
}

struct Work<'a> {
    look: &'a Look,
    options: &'a PruneOptions,
    /// `None`: nothing is to be changed.
    workspace: Option<&'a Workspace>,
    out: Pruned,
}

impl Work<'_> {
    fn litter(&mut self) -> Result<()> {
        // Whoever recovers has things under private names that no log owns.
        let _alone = match self.workspace {
            Some(workspace) => {
                let wait = workspace.options.wait;
                Some(workspace.state.ledger.recovery_lock(wait)?)
            }
            None => None,
        };
        // The names first: whoever makes one later holds a log later.
        let mut all = Vec::new();
        for sub in [Sub::Staged, Sub::Kept, Sub::Retired] {
            for name in self.look.names(sub)?.unwrap_or_default() {
                if let Some(owner) = writers::owner_of(&name) {
                    all.push((sub, name, owner));
                }
            }
        }
        let ledger = self.look.ledger()?;
        let needed = needed_logs(&self.look.logs()?, &ledger);
        let (conflicts, damaged) = self.look.conflicts()?;
        if let Some((_, error)) = damaged.into_iter().next() {
            return Err(error.with_operation(OP));
        }
        let kept: BTreeSet<&Name> = conflicts.iter().filter_map(|c| c.kept_name()).collect();
        for (sub, name, owner) in &all {
            if needed.contains(owner) || kept.contains(name) {
                continue;
            }
            let Some(dir) = self.look.sub(*sub)? else {
                continue;
            };
            let path = Path::new(&sub.path()).join(name);
            self.remove(&dir, name, path, |out, path| out.litter.push(path))?;
        }
        Ok(())
    }

    fn remove(
        &mut self,
        dir: &Dir,
        name: &Name,
        path: PathBuf,
        note: impl FnOnce(&mut Pruned, PathBuf),
    ) -> Result<()> {
        self.out.bytes += bytes(dir, name);
        if self.workspace.is_some() {
            let options = RemoveOptions::new().missing_ok(true);
            tree::remove(dir, name, &options).map_err(|e| e.with_operation(OP).with_path(&path))?;
        }
        note(&mut self.out, path);
        Ok(())
    }

    /// Closed logs without records, but for the first few.
    fn logs(&mut self) -> Result<()> {
        let empty: Vec<u32> = (self.look.logs()?.iter())
            .filter_map(|seen| {
                let log = seen.log.as_ref().ok()?;
                let closed = matches!(log.end, End::Clean) && log.records.is_empty();
                (!log.live && closed).then_some(seen.index)
            })
            .collect();
        let Some(logs) = self.look.sub(Sub::Logs)? else {
            return Ok(());
        };
        for index in empty.into_iter().skip(self.options.keep_logs) {
            let name = Name::new(format!("{index:08x}")).map_err(|e| fail("openat", e))?;
            let size = bytes(&logs, &name);
            if let Some(workspace) = self.workspace
                && !remove_log(workspace, &logs, index, &name)?
            {
                continue;
            }
            self.out.bytes += size;
            self.out.logs.push(index);
        }
        Ok(())
    }

    fn set_aside(&mut self) -> Result<()> {
        if !self.options.set_aside {
            return Ok(());
        }
        let mut folders = vec![(
            PathBuf::from(state::shown()),
            Some(self.look.dir.try_clone()?),
        )];
        let subs = [
            Sub::Logs,
            Sub::Staged,
            Sub::Kept,
            Sub::Retired,
            Sub::Conflicts,
        ];
        for sub in subs {
            folders.push((sub.path().into(), self.look.sub(sub)?));
        }
        let abandoned = self.look.folder(abandoned::FOLDER)?;
        folders.push((abandoned::shown().into(), abandoned));
        if let Some(logs) = self.look.sub(Sub::Logs)? {
            for seen in self.look.logs()? {
                let dir = writers::open_in(&logs, seen.index)?;
                folders.push((super::look::log_path(seen.index), Some(dir)));
            }
        }
        let open = self.open_sections()?;
        for (path, dir) in folders {
            let Some(dir) = dir else { continue };
            for name in names_in(&dir, OP)? {
                let of = section::given_up(&name);
                let kept = of.zip(open.as_ref());
                let kept = kept.is_some_and(|(number, open)| !open.contains(&number));
                if kept || name.as_bytes().starts_with(ASIDE) {
                    let path = path.join(&name);
                    self.remove(&dir, &name, path, |out, path| out.set_aside.push(path))?;
                }
            }
        }
        Ok(())
    }

    /// Sections that are not over. What one has put away has another name already when somebody was killed
    /// in the middle of giving it up. `None`: a log cannot be read, and may have one.
    fn open_sections(&self) -> Result<Option<BTreeSet<u64>>> {
        let mut open = BTreeSet::new();
        for seen in self.look.logs()? {
            let Ok(log) = seen.log else { return Ok(None) };
            for (number, story) in Story::each(&log.records) {
                if !story.is_ok_and(|story| story.is_over()) {
                    open.insert(number);
                }
            }
        }
        Ok(Some(open))
    }

    /// Keys that are old enough.
    fn old_keys(&self) -> Result<Vec<Name>> {
        let (Some(age), Some(dir)) = (self.options.keys_older_than, self.look.sub(Sub::Keys)?)
        else {
            return Ok(Vec::new());
        };
        let now = SystemTime::now();
        let mut out = Vec::new();
        for name in names_in(&dir, OP)? {
            if is_older(&dir, &name, now, age)? {
                out.push(name);
            }
        }
        Ok(out)
    }

    /// Removes keys when nobody is in the middle of a commit, and everything that was committed is durable in
    /// place, so that no recovery makes them again.
    fn keys(mut self, keys: Vec<Name>) -> Result<Pruned> {
        let Some(workspace) = self.workspace else {
            self.out.keys += keys.len() as u64;
            return Ok(self.out);
        };
        let now = SystemTime::now();
        let age = self.options.keys_older_than.unwrap_or(Duration::MAX);
        let dir = &workspace.state.keys;
        let out = &mut self.out;
        workspace.settled(|| {
            for name in &keys {
                // It may have been recorded anew meanwhile.
                if !is_older(dir, name, now, age)? {
                    continue;
                }
                out.bytes += bytes(dir, name);
                match sys::unlinkat(dir, name.as_c_str()) {
                    Ok(()) => out.keys += 1,
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(fail("unlinkat", e).with_path(Sub::Keys.path())),
                }
            }
            sync_names(dir.as_fd()).map_err(|e| fail("fsync", e).with_path(Sub::Keys.path()))
        })?;
        Ok(self.out)
    }
}

/// Whether a key was recorded longer ago than this.
fn is_older(dir: &Dir, name: &Name, now: SystemTime, age: Duration) -> Result<bool> {
    match sys::statx(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(meta) => {
            let since = status::time(Ident::of(&meta).mtime);
            // One from the future, or from before the clocks, tells nothing.
            let passed = since.and_then(|since| now.duration_since(since).ok());
            Ok(meta.is_file() && passed.is_some_and(|passed| passed > age))
        }
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(fail("statx", e).with_path(Sub::Keys.path())),
    }
}

/// Removes a log that is still closed and empty. It is moved away first, held, so that it is there whole or
/// not at all.
fn remove_log(workspace: &Workspace, logs: &Dir, index: u32, name: &Name) -> Result<bool> {
    let opened =
        writers::open_in(logs, index).and_then(|dir| LogOptions::new().create(false).open(dir));
    let log = match opened {
        Ok((log, found)) if found.records.is_empty() && found.clean => log,
        Ok(_) => return Ok(false),
        Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::NotFound) => return Ok(false),
        Err(e) => return Err(e.with_operation(OP)),
    };
    let retired = &workspace.state.retired;
    let aside = writers::fresh_name(workspace.writer.index)?;
    let flags = RenameFlags::empty();
    sys::renameat2(logs, name.as_c_str(), retired, aside.as_c_str(), flags)
        .map_err(|e| fail("renameat", e).with_path(Sub::Logs.path()))?;
    let removed = tree::remove(retired, &aside, &RemoveOptions::new().missing_ok(true));
    drop(log);
    removed.map(|_| true).map_err(|e| e.with_operation(OP))
}

fn fail(call: &'static str, errno: Errno) -> Error {
    Error::new(OP, call, errno)
}
