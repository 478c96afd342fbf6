//! Small files that commits have displaced, and that wait under their private names for the next checkpoint.
//!
//! To remove them takes as long as to put others in their place, and nothing depends on it: a commit of many
//! files leaves it for later. Whoever opens the workspace after a kill sweeps them up with all else that has
//! its owner's number.

use crate::sys;
use crate::{Dir, Error, ErrorKind, Name};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest content of one that may wait: longer files take room that somebody may be in need of.
pub(super) const LONGEST: u64 = 16 << 10;
/// How many may wait.
const AT_MOST: usize = 1024;

/// How many displaced files a commit may leave for later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Later {
    /// Those of a commit that displaces fewer are removed at once.
    pub(crate) from: usize,
    pub(crate) at_most: usize,
}

impl Later {
    /// None.
    pub(crate) const NEVER: Self = Self {
        from: usize::MAX,
        at_most: 0,
    };
}

/// Those that wait, in the order of their displacement.
#[derive(Debug, Default)]
pub(super) struct Displaced(Mutex<Vec<Name>>);

impl Displaced {
    /// What a commit may add, which leaves files for later if it displaces `from` of them.
    pub(super) fn room(&self, from: usize) -> Later {
        let at_most = AT_MOST.saturating_sub(self.lock().len());
        Later { from, at_most }
    }

    /// Those of a commit. If others have taken the room meanwhile, the last of them are removed.
    pub(super) fn add(&self, mut names: Vec<Name>, staged: &Dir) {
        if names.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let room = AT_MOST.saturating_sub(waiting.len());
        let over = names.split_off(room.min(names.len()));
        waiting.append(&mut names);
        drop(waiting);
        remove(staged, &over);
    }

    /// Removes all from their folder: how many there were.
    pub(super) fn purge(&self, staged: &Dir) -> usize {
        let names = std::mem::take(&mut *self.lock());
        remove(staged, &names);
        names.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Name>> {
        // Whoever panicked held it for plain assignments only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes private files that nobody needs.
pub(super) fn remove(staged: &Dir, names: &[Name]) {
    for name in names {
        // What cannot be removed is litter with its owner's number on it.
        let _ = sys::unlinkat(staged, name.as_c_str());
    }
}

/// Whether files that wait for their removal may be what is in the way.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;
    use crate::sys::hook::{self, Action, Plan};
    use crate::sys::{CWD, RenameFlags};
    use crate::workspace::{Workspace, WorkspaceOptions, child};
    use crate::{DiskState, Result, Root};
    use std::fs;
    use std::path::Path;

    struct Bed {
        dir: tempfile::TempDir,
        workspace: Workspace,
    }

    fn bed(options: &WorkspaceOptions) -> Bed {
        let dir = child::dir();
        let root = Root::open(dir.path()).unwrap();
        let workspace = options.clone().open(&root).unwrap();
        Bed { dir, workspace }
    }

    impl Bed {
        /// Private files, on an exchange's file system at least.
        fn staged(&self) -> usize {
            staged(self.dir.path())
        }

        fn put(&self, files: usize, content: &[u8]) {
            for n in 0..files {
                fs::write(self.dir.path().join(n.to_string()), content).unwrap();
            }
        }

        fn replace(&self, files: usize) -> Result<()> {
            let mut tx = self.workspace.begin();
            for n in 0..files {
                tx.write(n.to_string(), "new")?;
            }
            tx.commit().map(drop)
        }
    }

    fn staged(top: &Path) -> usize {
        let names = fs::read_dir(top.join(".steadfast/staged")).unwrap();
        names.count()
    }

    /// How many are left of so many: none where names cannot be exchanged, and the old thing goes first.
    fn left(files: usize) -> usize {
        let dir = child::dir();
        let names = ["a", "b"].map(|name| dir.path().join(name));
        for name in &names {
            fs::write(name, "").unwrap();
        }
        let [a, b] = &names;
        match sys::renameat2(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => files,
            Err(_) => 0,
        }
    }

    #[test]
    fn old_files_wait_for_the_next_checkpoint() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        bed.replace(7).unwrap();
        assert_eq!(bed.staged(), 0, "of a few");
        bed.replace(8).unwrap();
        assert_eq!(bed.staged(), left(8));
        bed.replace(8).unwrap();
        assert_eq!(bed.staged(), left(16));
        let (done, calls) = hook::scope(None, || bed.workspace.settle());
        done.unwrap();
        assert_eq!(bed.staged(), 0);
        let at = |name| calls.iter().position(|call| *call == name);
        assert!(left(1) == 0 || at("unlinkat") < at("syncfs"), "{calls:?}");
        bed.replace(8).unwrap();
        let top = bed.dir.path().to_owned();
        drop(bed.workspace);
        assert_eq!(staged(&top), 0, "nobody knows of them any more");
    }

    #[test]
    fn one_that_takes_room_or_has_another_name_goes_at_once() {
        let bed = bed(&WorkspaceOptions::new().remove_later_from(1));
        let file = bed.dir.path().join("0");
        for (content, waits) in [(16 << 10, 1), ((16 << 10) + 1, 0)] {
            bed.put(1, &vec![b'x'; content]);
            bed.replace(1).unwrap();
            assert_eq!(bed.staged(), left(waits), "{content}");
            bed.workspace.settle().unwrap();
        }
        fs::hard_link(&file, bed.dir.path().join("other")).unwrap();
        bed.replace(1).unwrap();
        assert_eq!(bed.staged(), 0);
        let mut tx = bed.workspace.begin();
        tx.remove_file("0");
        tx.commit().unwrap();
        assert_eq!(bed.staged(), 0, "what is removed is gone");
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(AT_MOST + 1, b"old");
        bed.replace(10).unwrap();
        bed.replace(AT_MOST + 1).unwrap();
        assert_eq!(bed.staged(), left(AT_MOST));
        bed.replace(10).unwrap();
        assert_eq!(bed.staged(), left(AT_MOST));
        // Of two commits that have found the same room.
        let state = &bed.workspace.state;
        state.purge();
        for n in 0..2 {
            let name = |of| Name::new(format!("{n}-{of}")).unwrap();
            let names: Vec<Name> = (0..AT_MOST - 1).map(name).collect();
            for name in &names {
                fs::write(bed.dir.path().join(".steadfast/staged").join(name), "").unwrap();
            }
            state.displaced.add(names, &state.staged);
        }
        assert_eq!(bed.staged(), AT_MOST);
        assert_eq!(state.purge(), AT_MOST);
        assert_eq!(bed.staged(), 0);
    }

    #[test]
    fn nothing_waits_if_nothing_is_to() {
        let bed = bed(&WorkspaceOptions::new().remove_later_from(usize::MAX));
        bed.put(10, b"old");
        bed.replace(10).unwrap();
        assert_eq!(bed.staged(), 0);
    }

    /// Whatever of it the disk is full for, as long as nothing is decided.
    #[test]
    fn a_full_disk_has_them_removed() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        bed.replace(8).unwrap();
        let (done, calls) = hook::scope(None, || bed.replace(8));
        done.unwrap();
        let sync = calls.iter().position(|call| *call == "fdatasync").unwrap();
        // What became of the record itself, nobody knows.
        let record = (calls[..sync].iter().rposition(|call| *call == "pwrite64")).unwrap();
        let mut tried = 0;
        for (at, call) in (1..).zip(&calls[..record]) {
            if !matches!(*call, "write" | "pwrite64") {
                continue;
            }
            for errno in [Errno::NOSPC, Errno::DQUOT] {
                bed.replace(8).unwrap();
                let waiting = bed.staged();
                let action = Action::Fail(errno);
                let (done, calls) = hook::scope(Some(Plan { at, action }), || bed.replace(8));
                tried += 1;
                match done {
                    Ok(()) => assert!(waiting == 0 || bed.staged() == 8, "{at}: {calls:?}"),
                    // Again with nothing that could be removed.
                    Err(e) => {
                        assert_eq!(waiting, 0, "{at}: {e}");
                        assert_eq!(e.disk_state(), DiskState::Unchanged);
                    }
                }
            }
        }
        assert!(tried >= 16, "{calls:?}");
        // It is not tried for ever.
        let full = || hook::deny(&[("write", Errno::NOSPC)], || bed.replace(8));
        assert_eq!(full().unwrap_err().errno(), Some(Errno::NOSPC));
        assert_eq!(bed.staged(), 0);
    }

    /// What was streamed is removed with what was prepared: nothing can be prepared with it again.
    #[test]
    fn a_full_disk_ends_what_was_streamed() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        let commit = |plan| {
            let mut tx = bed.workspace.begin();
            tx.write_from("long", &[1; 40_000][..]).unwrap();
            for n in 0..8 {
                tx.write(n.to_string(), "short").unwrap();
            }
            bed.replace(8).unwrap();
            assert_eq!(bed.staged(), 1 + left(8));
            hook::scope(plan, || tx.commit())
        };
        let (done, calls) = commit(None);
        done.unwrap();
        let last = calls.iter().rposition(|call| *call == "write").unwrap() as u64;
        fs::remove_file(bed.dir.path().join("long")).unwrap();
        let action = Action::Fail(Errno::NOSPC);
        let (done, calls) = commit(Some(Plan {
            at: last + 1,
            action,
        }));
        let e = done.expect_err(&format!("{calls:?}"));
        assert_eq!(e.errno(), Some(Errno::NOSPC), "{e}");
        assert_eq!(e.disk_state(), DiskState::Unchanged);
        assert_eq!(bed.staged(), left(8));
        assert!(!bed.dir.path().join("long").exists());
    }

    #[test]
    fn a_full_disk_for_a_name_has_them_removed() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        bed.replace(8).unwrap();
        let (done, calls) = hook::scope(None, || bed.replace(8));
        done.unwrap();
        let sync = calls.iter().position(|call| *call == "fdatasync").unwrap() as u64;
        let plan = Plan {
            at: sync + 2,
            action: Action::Fail(Errno::NOSPC),
        };
        let (done, calls) = hook::scope(Some(plan), || bed.replace(8));
        assert_eq!(done.is_ok(), left(1) == 1, "{calls:?}");
        assert!(bed.workspace.recover().unwrap().conflicts().is_empty());
        for n in 0..8 {
            let text = fs::read(bed.dir.path().join(n.to_string())).unwrap();
            assert_eq!(text, b"new", "{n}");
        }
    }

    #[test]
    fn who_streams_content_has_the_room() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        bed.replace(8).unwrap();
        assert_eq!(bed.staged(), left(8));
        let mut tx = bed.workspace.begin();
        tx.write_from("0", &[1; 40_000][..]).unwrap();
        assert_eq!(bed.staged(), 1);
        drop(tx);
        bed.replace(8).unwrap();
        assert_eq!(bed.staged(), left(8));
        bed.workspace.section("copies").unwrap().rollback().unwrap();
        assert_eq!(bed.staged(), 0);
    }

    #[test]
    fn the_next_open_sweeps_those_of_the_dead() {
        let bed = bed(&WorkspaceOptions::new());
        bed.put(8, b"old");
        bed.replace(8).unwrap();
        let names = fs::read_dir(bed.dir.path().join(".steadfast/staged")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
        let root = bed.workspace.root().try_clone().unwrap();
        let _alone = child::no_child();
        drop(bed.workspace);
        // As a kill would have left them.
        for name in &names {
            fs::write(name, "old").unwrap();
        }
        let again = Workspace::open(&root).unwrap();
        assert_eq!(again.recovered().removed(), names.len() as u64);
        assert_eq!(staged(bed.dir.path()), 0);
    }
}
