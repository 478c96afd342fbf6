//! From a collected transaction to its one record: claims, conditions, staging.

use super::displaced::is_full;
use super::draft::{Draft, Op};
use super::mapping::{Mapping, Object, Set};
use super::plan::{Plan, describe};
use super::stage::stage;
use super::transaction::{Condition, Transaction};
use super::view::{Read, View};
use crate::claim::{ClaimPath, Want};
use crate::publish::Note;
use crate::{Error, ErrorKind, Name, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OP: &str = "commit transaction";

/// How often the paths may turn out to be others than those that were claimed (a link on the way changed).
const ROUNDS: u32 = 8;

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Receipt {
    pub(super) number: u64,
    pub(super) notes: Vec<Note>,
}

impl Receipt {
    /// The number of the transaction in its workspace. Of two transactions on one path the later has the
    /// higher number. 0 if there was nothing to change, or if the kernel did it in one call that needs no
    /// record ([`Workspace::swap`](super::Workspace::swap)).
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What could not be kept of files that were replaced: an owner, a group, an access list, an attribute.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// What a transaction has read, with what was there.
#[derive(Debug, Default)]
pub(super) struct Reads(BTreeMap<Vec<u8>, Read>);

impl Reads {
    pub(super) fn take_from(&mut self, view: &View<'_>) {
        for (path, read) in view.reads() {
            // What was seen first is what the caller has decided by.
            let seen = self.0.entry(path.clone()).or_insert(*read);
            if read.is_more_than(seen) {
                *seen = *read;
            }
        }
    }
}

/// Claims further paths for the transaction, and finishes first what a dead process has left there.
pub(super) fn claim(tx: &mut Transaction<'_>, wants: Vec<Want>) -> Result<()> {
    let workspace = tx.workspace()?;
    workspace.ready()?;
    let claims = &workspace.state.claims;
    let wait = workspace.options.wait;
    match &mut tx.claim {
        Some(claim) => claim.extend(&wants, wait),
        None => claims.claim(&wants, wait).map(|claim| {
            tx.claim = Some(claim);
        }),
    }
    .map_err(|e| e.with_operation(OP))?;
    tx.claimed.extend(wants);
    workspace.finish_the_dead()
}

/// What the transaction would do now, without claims.
pub(super) fn plan(tx: &Transaction<'_>) -> Result<Plan> {
    Ok(describe(&look(tx)?.draft()))
}

pub(super) fn commit(mut tx: Transaction<'_>) -> Result<Receipt> {
    operation!(
        "commit transaction",
        label = String::from_utf8_lossy(&tx.label)
    );
    tx.workspace()?.ready()?;
    let draft = claimed_draft(&mut tx)?;
    let done = commit_draft(&mut tx, draft);
    match &done {
        // Nothing was decided, and there is more room now. But private files of the transaction are gone
        // with what was prepared.
        Err(e) if is_full(e) && tx.claim.is_some() && tx.files.is_empty() => {
            if tx.workspace()?.state.purge() == 0 {
                return done;
            }
            let draft = claimed_draft(&mut tx)?;
            commit_draft(&mut tx, draft)
        }
        _ => done,
    }
}

/// The second half of [`commit`]: what was drawn up is prepared, recorded, and done.
///
/// # Errors
/// The claim stays the transaction's if nothing could be prepared.
pub(super) fn commit_draft(tx: &mut Transaction<'_>, draft: Draft) -> Result<Receipt> {
    let workspace = tx.workspace()?;
    let (true, Some(claim)) = (!draft.is_empty(), tx.claim.take()) else {
        return Ok(Receipt {
            number: 0,
            notes: Vec::new(),
        });
    };
    let mut names = workspace.names();
    let staging = match stage(&mut workspace.ctx(&mut names), draft) {
        Ok(staging) => staging,
        Err(e) => {
            tx.claim = Some(claim);
            return Err(e);
        }
    };
    // What is committed is not the transaction's any more; what was overwritten in it, still is.
    if !tx.files.is_empty() {
        let committed = files_of(staging.mapping());
        tx.files.retain(|name| !committed.contains(name));
    }
    workspace.decide(claim, staging, std::mem::take(&mut tx.label))
}

/// The private files that a transaction of this mapping puts in place, or takes content from.
fn files_of(mapping: &Mapping) -> BTreeSet<&Name> {
    let new = mapping.objects.iter().filter_map(|object| match object {
        Object::New { staged, .. } => Some(staged),
        _ => None,
    });
    let in_place = mapping
        .changes
        .iter()
        .filter_map(|change| match &change.what {
            Set::Content { after, .. } => Some(after),
            _ => None,
        });
    new.chain(in_place).collect()
}

/// The sum of the transaction, from a picture of the tree that is claimed as a whole.
pub(super) fn claimed_draft(tx: &mut Transaction<'_>) -> Result<Draft> {
    claim_as_written(tx)?;
    // Which paths, is known only when the links on the way have been looked at, and they may change until
    // they are claimed.
    let mut view = look(tx)?;
    for _ in 0..ROUNDS {
        let draft = view.draft();
        let wants = view.wants(&draft)?;
        let missing: Vec<Want> = match wants == tx.claimed {
            true => Vec::new(),
            false => (wants.iter().filter(|w| !is_claimed(tx, w)).cloned()).collect(),
        };
        if missing.is_empty() {
            if !tx.workspace()?.unblocked(&wants, tx.resolves.as_ref())? {
                return Ok(draft);
            }
            view = look(tx)?;
            continue;
        }
        if tx.claim.is_some() && !tx.held_by_caller {
            // Not one after the other, which could wait for each other: all anew.
            tx.claim = None;
            tx.claimed.clear();
            claim(tx, wants)?;
        } else {
            claim(tx, missing)?;
        }
        view = look(tx)?;
    }
    Err(Error::of_kind(OP, ErrorKind::Busy)
        .with_advice("links on the way change all the time: try again"))
}

/// Claims what will be wanted if no path has a link on the way, and nobody has any of it: then one look is
/// enough. Whether that was so, the look tells.
fn claim_as_written(tx: &mut Transaction<'_>) -> Result<()> {
    let plain = tx.claim.is_none() && tx.conditions.is_empty() && tx.reads.0.is_empty();
    let Some(wants) = plain.then(|| as_written(&tx.ops)).flatten() else {
        return Ok(());
    };
    let workspace = tx.workspace()?;
    // Whatever stands against it is told when it is tried again.
    if let Ok(claim) = workspace.state.claims.try_claim(&wants) {
        tx.claim = Some(claim);
        tx.claimed = wants;
        workspace.finish_the_dead()?;
    }
    Ok(())
}

/// The claims of operations that write files, in the order of a view's; `None`: there are others, or paths
/// that may stand for others than they name.
fn as_written(ops: &[Op]) -> Option<Vec<Want>> {
    let mut paths = Vec::with_capacity(ops.len());
    for op in ops {
        let (Op::Write { path, .. } | Op::WriteInPlace { path, .. }) = op else {
            return None;
        };
        let bytes = path.as_os_str().as_bytes();
        let odd = |part: &[u8]| matches!(part, b"" | b"." | b"..");
        if bytes.split(|b| *b == b'/').any(odd) {
            return None;
        }
        paths.push(ClaimPath::new(path).ok()?);
    }
    paths.sort_unstable();
    paths.dedup();
    let wants = paths.into_iter().map(Want::exclusive).collect::<Vec<_>>();
    (!wants.is_empty()).then_some(wants)
}

/// Whether what is claimed covers it.
fn is_claimed(tx: &Transaction<'_>, want: &Want) -> bool {
    let enough = |held: &Want| held.is_exclusive() || !want.is_exclusive();
    tx.claimed
        .iter()
        .any(|held| enough(held) && held.path().covers(want.path()))
}

/// The tree as it is now, with the conditions checked, and the operations run in it.
fn look<'w>(tx: &Transaction<'w>) -> Result<View<'w>> {
    let mut view = View::new(tx.root)?;
    for condition in &tx.conditions {
        check(tx, &mut view, condition)?;
    }
    for (path, seen) in &tx.reads.0 {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let now = view.identity(path)?;
        if !seen.is_still(now.as_ref()) {
            return Err(changed(path, "it has changed since it was read"));
        }
    }
    for op in &tx.ops {
        view.run(op)?;
    }
    Ok(view)
}

fn check(tx: &Transaction<'_>, view: &mut View<'_>, condition: &Condition) -> Result<()> {
    match condition {
        Condition::Absent(path) => match view.exists(path)? {
            true => Err(changed(path, "it exists")),
            false => Ok(()),
        },
        Condition::Present(path) => match view.exists(path)? {
            true => Ok(()),
            false => Err(changed(path, "it does not exist")),
        },
        Condition::Version(path, version) => {
            // The path is claimed as one that was read.
            view.identity(path)?;
            match version.is_current(tx.root, path) {
                Ok(true) => Ok(()),
                Ok(false) => Err(changed(path, "it is not in the expected version")),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Err(changed(path, "it does not exist"))
                }
                Err(e) => Err(e),
            }
        }
    }
}

fn changed(path: &Path, what: &'static str) -> Error {
    Error::of_kind(OP, ErrorKind::Changed)
        .with_path(path)
        .with_detail(what)
        .with_advice("look at it again, and decide anew")
}

#[cfg(test)]
mod tests {
    use crate::sys::hook;
    use crate::workspace::mapping::Before;
    use crate::workspace::{Resolution, Workspace, WorkspaceOptions, child};
    use crate::{DiskState, ErrorKind, Result, Root};
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::time::Duration;

    /// The calls of a commit that writes these paths, up to the sync of its record.
    fn calls(workspace: &Workspace, paths: &[&str]) -> Vec<&'static str> {
        let mut tx = workspace.begin();
        for path in paths {
            tx.write(path, "new").unwrap();
        }
        let (done, calls) = hook::scope(None, || tx.commit());
        done.unwrap();
        let end = calls.iter().position(|call| *call == "fdatasync");
        calls[..end.unwrap()].to_vec()
    }

    #[test]
    fn paths_without_links_are_looked_at_once_before_they_are_prepared() {
        let dir = child::dir();
        let root = Root::open(dir.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        calls(&workspace, &["a", "b", "c"]);
        let statx = |paths: &[&str]| {
            let calls = calls(&workspace, paths);
            calls.iter().filter(|call| **call == "statx").count()
        };
        // Those two, the root, and the lock file.
        assert_eq!(statx(&["a"]), 4);
        // In the look, and of the new file.
        assert_eq!(statx(&["c", "b", "a"]) - statx(&["b", "a"]), 2);
        assert_eq!(statx(&["./a", "b"]) - statx(&["./a"]), 3);
    }

    /// Commits while somebody does this after the second call of this name: between the look and staging.
    fn meanwhile(
        call: &'static str,
        theirs: impl Fn() + 'static,
        commit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut calls = 0;
        let heard = move |made: &'static str, _| {
            calls += u32::from(made == call);
            if made == call && calls == 2 {
                theirs();
            }
        };
        hook::observe(heard, commit)
    }

    #[test]
    fn what_comes_between_the_look_and_staging_is_found() {
        let dir = child::dir();
        let root = Root::open(dir.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        calls(&workspace, &["other"]);
        let file = dir.path().join("f");
        let rewrite = || {
            let file = file.clone();
            move || std::fs::write(&file, "theirs, which is longer").unwrap()
        };
        let text = || std::fs::read_to_string(&file).unwrap();
        // The marks of the dead are read before the look, and the number of conflicts after it.
        let commit = |in_place| {
            std::fs::write(&file, "old").unwrap();
            let mut tx = workspace.begin();
            match in_place {
                true => tx.write_in_place("f", "new").unwrap(),
                false => tx.write("f", "new").unwrap(),
            };
            tx.commit().map(drop)
        };
        let error = meanwhile("pread64", rewrite(), || commit(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert_eq!(error.disk_state(), DiskState::Unchanged);
        assert_eq!(text(), "theirs, which is longer");
        // Rights are recorded as the opened file has them.
        let mode = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let setuid = {
            let file = file.clone();
            move || std::fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap()
        };
        mode(0o755);
        meanwhile("pread64", setuid, || commit(true)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);
        assert_eq!(text(), "new");
        // The exchange tells.
        let error = meanwhile("pread64", rewrite(), || commit(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(error.disk_state(), DiskState::Committed);
        assert_eq!(text(), "theirs, which is longer");
        let found = workspace.conflicts().unwrap();
        workspace
            .resolve(found[0].id(), &Resolution::KeepOurs)
            .unwrap();
        assert_eq!(text(), "new");
    }

    /// A file of two names that is mounted at one of them: what was seen at the other does not tell.
    #[test]
    fn only_what_was_seen_at_a_name_is_taken_for_what_is_there() {
        let dir = child::dir();
        let root = Root::open(dir.path()).unwrap();
        let workspace = Workspace::open(&root).unwrap();
        std::fs::write(dir.path().join("a"), "old").unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let mut tx = workspace.begin();
        tx.write("b", "new").unwrap();
        tx.write("a", "new").unwrap();
        let draft = super::claimed_draft(&mut tx).unwrap();
        let seen = |path: &str| {
            let slot = draft.slots.iter().find(|slot| slot.path == path.as_bytes());
            let Some(Before::Object(object)) = slot.map(|slot| slot.before) else {
                panic!("{path}");
            };
            draft.seen.objects.get(object).is_some_and(Option::is_some)
        };
        assert!(seen("b") && !seen("a"));
        drop(draft);
        tx.commit().unwrap();
    }

    /// What is written through a link excludes those who hold what it leads to.
    #[test]
    fn a_link_on_the_way_is_claimed_as_what_it_leads_to() {
        let dir = child::dir();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let options = WorkspaceOptions::new().wait(Duration::ZERO);
        let workspace = options.open(&root).unwrap();
        let mut holder = workspace.begin();
        holder.claim(["d/f"]).unwrap();
        for path in ["link/f", "d/f"] {
            let mut tx = workspace.begin();
            tx.write(path, "new").unwrap();
            assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Busy, "{path}");
        }
        drop(holder);
        calls(&workspace, &["link/f"]);
        assert_eq!(std::fs::read(dir.path().join("d/f")).unwrap(), b"new");
    }
}
