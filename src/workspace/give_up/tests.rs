//! What is given up is put where it is found again: durably, and over nothing.

use super::*;
use crate::sys::hook::{self, Action, Plan};
use crate::workspace::ctx::Ctx;
use crate::workspace::realise::{Mode, realise};
use crate::workspace::stage::stage;
use crate::workspace::testbed::{Builder, Calls, World, heard};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A transaction that was committed, and perhaps carried out as far as its first move.
struct Dead {
    world: World,
    commit: Commit,
}

impl Dead {
    fn of(draw: fn(&mut Builder<'_>)) -> Self {
        let world = World::new();
        world.write("a", b"old a");
        world.write("d/x", b"x");
        let mut draft = world.draft();
        draw(&mut draft);
        let draft = draft.draft;
        let mapping = world.with(|ctx| stage(ctx, draft).unwrap().committed());
        let commit = Commit {
            number: 5,
            incarnation: (None, None),
            time: (0, 0),
            label: Vec::new(),
            mapping,
        };
        Self { world, commit }
    }

    /// Stopped as soon as the file `a` has left its name.
    fn begun(draw: fn(&mut Builder<'_>)) -> Self {
        (1..)
            .map(|at| {
                let dead = Self::of(draw);
                let action = Action::FailAfter(Errno::IO);
                let plan = Some(Plan { at, action });
                let first = |ctx: &mut Ctx<'_>| realise(ctx, &dead.commit.mapping, Mode::First);
                let (done, _) = hook::scope(plan, || dead.world.with(first));
                assert!(done.is_err());
                dead
            })
            .find(|dead| !dead.world.path("a").exists())
            .unwrap()
    }

    /// Gives all of it up.
    fn give_up(&self, how: Abandon) -> (Vec<conflict::Conflict>, Calls) {
        let root = &self.world.root;
        let state = State::open(root, true).unwrap();
        let what = Abandonment {
            number: 5,
            how,
            unread: false,
            slots: (0..self.commit.mapping.slots.len()).collect(),
            changes: BTreeSet::new(),
        };
        let (done, calls) = heard(|| set_aside(root, &state, &self.commit, &what));
        let found = conflict::list(&state).unwrap();
        assert_eq!(done.unwrap().len(), found.len());
        (found, calls)
    }

    fn ino(&self, path: &str) -> u64 {
        fs::metadata(self.world.path(path)).unwrap().ino()
    }

    /// What is in `kept/`.
    fn kept(&self) -> String {
        let [name] = &self.world.private("kept")[..] else {
            panic!("{:?}", self.world.private("kept"));
        };
        format!(".steadfast/kept/{name}")
    }
}

/// The file `a` moves into a new directory.
fn moves(b: &mut Builder<'_>) {
    let (n, at) = (b.dir(), b.free("d/n"));
    b.put(at, n);
    let at = b.within(n, "a");
    let (a, from) = b.old("a");
    b.put(from, None);
    b.put(at, a);
}

/// A new directory with a new file in it.
fn makes(b: &mut Builder<'_>) {
    let (n, at) = (b.dir(), b.free("d/n"));
    b.put(at, n);
    let at = b.within(n, "new");
    let new = b.file(b"new");
    b.put(at, new);
}

/// What existed before has its name again, durably: the log that alone knows of it is given up next.
#[test]
fn what_gets_its_name_back_has_it_durably() {
    let dead = Dead::begun(moves);
    let (found, calls) = dead.give_up(Abandon::Drop);
    assert_eq!(found, []);
    assert_eq!(dead.world.read("a"), b"old a");
    let moved = calls.last(|call| call.starts_with("renameat") || call == "linkat");
    let mut synced = calls.synced(moved, calls.end());
    assert!(synced.any(|synced| synced == ("fsync", dead.ino(""))));
}

/// Somebody has the name by now: theirs stays, and what existed is kept beside.
#[test]
fn what_cannot_have_its_name_back_is_kept() {
    let dead = Dead::begun(moves);
    dead.world.write("a", b"theirs");
    let (found, _) = dead.give_up(Abandon::Drop);
    assert_eq!(found.len(), 1);
    assert_eq!(dead.world.read("a"), b"theirs");
    assert_eq!(dead.world.read(&dead.kept()), b"old a");
}

/// A new directory is kept with what is to be in it, and all of that is durable, by itself and with the
/// conflict that tells of it.
#[test]
fn what_is_kept_is_durable_with_its_names() {
    let dead = Dead::of(makes);
    let (found, calls) = dead.give_up(Abandon::KeepOurs);
    assert_eq!(found.len(), 1);
    let kept = dead.kept();
    assert_eq!(dead.world.read(&format!("{kept}/new")), b"new");
    let (dir, folder) = (dead.ino(&kept), dead.ino(".steadfast/kept"));
    let first = calls.first(|call| call == "renameat");
    for ino in [dir, folder] {
        let mut synced = calls.synced(first, calls.end());
        assert!(synced.any(|synced| synced == ("fsync", ino)));
    }
    // The conflict's file is there then as well.
    let said = calls.last(|call| call.starts_with("renameat") || call == "linkat");
    assert!(
        calls
            .synced(said, calls.end())
            .any(|(call, _)| call == "syncfs")
    );
}
