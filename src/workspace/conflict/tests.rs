//! What says what a conflict is, as bytes.

use super::*;

#[test]
fn no_flipped_bit_is_believed() {
    let ident = |ino| Ident {
        kind: Kind::File,
        ino,
        btime: Some((1, 2)),
        len: 3,
        mtime: (4, 5),
    };
    let conflict = Conflict {
        id: ConflictId {
            number: 7,
            index: 1,
        },
        path: b"d/f".to_vec(),
        label: b"label".to_vec(),
        found: Some(ident(8)),
        kept: Some((Name::new("kept").unwrap(), ident(9))),
        change: None,
    };
    let bytes = conflict.encode();
    assert_eq!(Conflict::decode(&bytes).unwrap(), conflict);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = Conflict::decode(&flipped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bit}");
    }
}

mod known {
    use super::super::*;
    use crate::sys::hook::{self, Action, Plan};
    use crate::workspace::WorkspaceOptions;
    use crate::workspace::child::{dir, no_child};
    use std::fs;
    use std::time::{Duration, SystemTime};

    /// A tree with two files, and its workspace opened twice, as by two processes.
    fn scene() -> (tempfile::TempDir, Workspace, Workspace) {
        let tmp = dir();
        for name in ["a", "b"] {
            fs::write(tmp.path().join(name), "old").unwrap();
        }
        let root = Root::open(tmp.path()).unwrap();
        let open = || {
            let options = WorkspaceOptions::new().wait(Duration::ZERO);
            options.open(&root).unwrap()
        };
        let (one, other) = (open(), open());
        (tmp, one, other)
    }

    fn write(workspace: &Workspace, name: &str) -> Result<()> {
        let mut tx = workspace.begin();
        tx.write(name, "ours").unwrap();
        tx.commit().map(drop)
    }

    /// Whether a commit that comes to an end lists the conflicts.
    fn lists(workspace: &Workspace, name: &str) -> bool {
        let (done, calls) = hook::scope(None, || write(workspace, name));
        done.unwrap();
        calls.contains(&"getdents64")
    }

    /// Commits a file that somebody else edits when the record is durable; gives the calls as well.
    fn clash(
        workspace: &Workspace,
        dir: &Path,
        name: &str,
        plan: Option<Plan>,
    ) -> (Error, Vec<&'static str>) {
        let path = dir.join(name);
        let mut again = false;
        let edit = move |call: &'static str, _| {
            if call == "fdatasync" && !std::mem::replace(&mut again, true) {
                fs::write(&path, "theirs, which is longer").unwrap();
            }
        };
        let commit = || hook::scope(plan, || write(workspace, name));
        let (done, calls) = hook::observe(edit, commit);
        (done.unwrap_err(), calls)
    }

    fn assert_conflict(done: Result<()>) {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }

    /// At which call of [`clash`] all processes are told: the conflict has its file.
    fn telling() -> u64 {
        let (tmp, _one, other) = scene();
        let (error, calls) = clash(&other, tmp.path(), "a", None);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let synced = calls.iter().position(|c| *c == "syncfs").unwrap();
        assert_eq!(calls[synced + 1..][..2], ["getrandom", "pwrite64"]);
        synced as u64 + 3
    }

    #[test]
    fn what_others_record_and_resolve_is_known() {
        let _alone = no_child();
        let (tmp, one, other) = scene();
        assert!(lists(&one, "b"));
        assert!(!lists(&one, "b"));
        let (error, _) = clash(&other, tmp.path(), "a", None);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_conflict(write(&one, "a"));
        assert!(!lists(&one, "b"));
        // A copy in a forked child knows as much, and asks as well.
        hook::set_process(Some(1));
        assert_conflict(write(&one, "a"));
        hook::set_process(None);
        let (all, calls) = hook::scope(None, || other.conflicts().unwrap());
        assert!(calls.contains(&"getdents64"));
        // Of one that is resolved nothing is said: what was known of it refuses nobody.
        other.resolve(all[0].id(), &Resolution::KeepTheirs).unwrap();
        assert!(lists(&one, "a"));
        assert!(!lists(&one, "a"));
    }

    #[test]
    fn one_that_is_recorded_while_they_are_listed_is_known_the_next_time() {
        let _alone = no_child();
        let (tmp, one, other) = scene();
        let path = tmp.path().to_owned();
        let other = std::sync::Arc::new(other);
        // What the observer has last is dropped where it must make no calls.
        let _last = std::sync::Arc::clone(&other);
        let mut again = false;
        let record = move |call: &'static str, _| {
            if call == "getdents64" && !std::mem::replace(&mut again, true) {
                let (error, _) = clash(&other, &path, "a", None);
                assert_eq!(error.kind(), ErrorKind::Conflict);
            }
        };
        hook::observe(record, || write(&one, "b")).unwrap();
        assert_conflict(write(&one, "a"));
    }

    /// Takes the edit back, so that nobody finds it any more.
    fn as_before(dir: &Path, modified: SystemTime) {
        let file = fs::File::options().write(true).open(dir.join("a")).unwrap();
        file.set_len(0).unwrap();
        fs::write(dir.join("a"), "old").unwrap();
        file.set_modified(modified).unwrap();
    }

    /// Its file is there, and nobody was told: whoever finishes its transaction finds no conflict any more,
    /// and tells all the same.
    #[test]
    fn one_whose_recorder_was_killed_before_it_told_is_known() {
        let _alone = no_child();
        let at = telling();
        for restored in [false, true] {
            let (tmp, one, other) = scene();
            let modified = fs::metadata(tmp.path().join("a")).unwrap().modified();
            assert!(lists(&one, "b"));
            let action = Action::FailFrom(Errno::IO);
            let (error, _) = clash(&other, tmp.path(), "a", Some(Plan { at, action }));
            assert_eq!(error.disk_state(), DiskState::Committed);
            assert_eq!(one.conflicts().unwrap().len(), 1);
            if restored {
                as_before(tmp.path(), modified.unwrap());
            }
            drop(other);
            assert_conflict(write(&one, "a"));
            assert_eq!(one.recovered().conflicts(), []);
            assert!(!lists(&one, "b"));
        }
    }

    /// It is not recorded for others before they are told: until then its transaction is not done.
    #[test]
    fn who_cannot_tell_has_not_recorded_it() {
        let _alone = no_child();
        let at = telling();
        let (tmp, one, other) = scene();
        let modified = fs::metadata(tmp.path().join("a")).unwrap().modified();
        assert!(lists(&one, "b"));
        let action = Action::Fail(Errno::IO);
        let (error, _) = clash(&other, tmp.path(), "a", Some(Plan { at, action }));
        assert_eq!(error.errno(), Some(Errno::IO));
        assert_eq!(error.disk_state(), DiskState::Committed);
        assert_eq!(write(&one, "a").unwrap_err().kind(), ErrorKind::Busy);
        as_before(tmp.path(), modified.unwrap());
        let _ = other.recover().unwrap();
        assert_conflict(write(&one, "a"));
    }

    /// After a power cut there may be anything.
    #[test]
    fn a_damaged_number_is_nobodys() {
        use std::os::unix::fs::FileExt;
        let _alone = no_child();
        let (tmp, one, other) = scene();
        let ledger = tmp.path().join(".steadfast/ledger");
        let ledger = fs::File::options().write(true).open(ledger).unwrap();
        ledger.write_all_at(&[0xff; 12], 8192 + 1536).unwrap();
        assert!(lists(&one, "b") && lists(&one, "b"));
        let (error, _) = clash(&other, tmp.path(), "a", None);
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_conflict(write(&one, "a"));
        assert!(!lists(&one, "b"));
    }
}
