//! Power cuts in the middle of sections, on real file systems.
//!
//! Needs root and loop devices. Sections are run one after the other on a fresh file system, with other
//! programs in between, and the power goes at every few calls. After recovery everything is as before the
//! section, or, from the record of its commit on, as it was left; and what was acknowledged stays.

use crate::images::{self, BTRFS, Camera, EXT4, Kind, XFS, possible};
use crate::scenes;
use crate::support::{
    Tree, assert_clean, assert_same, furnish, open, tree, without_times_of_dirs, write,
};
use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use steadfast::Result;
use steadfast::sys::hook;
use steadfast::workspace::{Section, Transaction, Workspace};

/// What counts of a tree.
type View = fn(Tree) -> Tree;

/// What may be there after a power cut.
#[derive(Clone, Copy, Debug)]
struct Known {
    acknowledged: usize,
    /// The next one may be decided.
    more: bool,
}

#[derive(Debug, Default)]
struct Story {
    states: Vec<Tree>,
    acknowledged: usize,
    /// A section is being committed: its end is the next that is written.
    ending: bool,
    more: bool,
    /// The test itself looks at the tree.
    looking: bool,
}

/// A run, and what the tree was after each step of it.
struct Run<'a> {
    top: &'a Path,
    workspace: Workspace,
    story: Rc<RefCell<Story>>,
    camera: Rc<Camera<Known>>,
}

impl<'a> Run<'a> {
    fn new(top: &'a Path, camera: &Rc<Camera<Known>>) -> Self {
        furnish(top);
        let workspace = open(top);
        workspace.settle().unwrap();
        let story = Story {
            states: vec![tree(top)],
            ..Story::default()
        };
        Self {
            top,
            workspace,
            story: Rc::new(RefCell::new(story)),
            camera: camera.clone(),
        }
    }

    fn observed(&self, f: impl FnOnce()) -> Vec<Tree> {
        let (story, camera) = (self.story.clone(), self.camera.clone());
        let observer = move |name: &'static str, _| {
            let mut story = story.borrow_mut();
            if story.looking {
                return;
            }
            story.more |= story.ending && name.starts_with("pwrite");
            let known = Known {
                acknowledged: story.acknowledged,
                more: story.more,
            };
            camera.call(name, || known);
        };
        hook::observe(observer, f);
        std::mem::take(&mut self.story.borrow_mut().states)
    }

    /// The tree, of which nobody hears.
    fn tree(&self) -> Tree {
        self.story.borrow_mut().looking = true;
        let now = tree(self.top);
        self.story.borrow_mut().looking = false;
        now
    }

    fn acknowledged(&self) {
        let mut story = self.story.borrow_mut();
        story.acknowledged = story.states.len() - 1;
        (story.ending, story.more) = (false, false);
    }

    fn transaction(&self, what: impl FnOnce(&mut Transaction<'_>) -> Result<()>) {
        self.story.borrow_mut().more = true;
        let mut tx = self.workspace.begin();
        what(&mut tx).unwrap();
        tx.commit().unwrap();
        let now = self.tree();
        self.story.borrow_mut().states.push(now);
        self.acknowledged();
    }

    fn section<'w>(&'w self, name: &str, f: impl FnOnce(&mut Section<'w>)) -> Section<'w> {
        let mut section = self.workspace.section(name).unwrap();
        f(&mut section);
        // All is done, and nothing is decided.
        let acknowledged = self.story.borrow().acknowledged;
        let known = Known {
            acknowledged,
            more: false,
        };
        self.camera.cut(name, known);
        section
    }

    fn committed<'w>(&'w self, name: &str, f: impl FnOnce(&mut Section<'w>)) {
        let section = self.section(name, f);
        let left = self.tree();
        self.story.borrow_mut().states.push(left);
        self.story.borrow_mut().ending = true;
        section.commit().unwrap();
        self.acknowledged();
    }

    fn taken_back<'w>(&'w self, name: &str, f: impl FnOnce(&mut Section<'w>)) {
        self.section(name, f).rollback().unwrap();
        let now = self.tree();
        let story = self.story.borrow();
        assert_same(&now, &story.states[story.acknowledged], name);
    }
}

/// Steps of its own and of others, in files and folders that others write at the same time.
fn mixed(s: &mut Section<'_>, top: &Path) {
    s.protect(["a", "d"]).unwrap();
    let mut a = fs::File::options().append(true).open(top.join("a"));
    a.as_mut().unwrap().write_all(b", and more").unwrap();
    write(top.join("d/theirs"), "theirs");
    write(top.join("d/two"), "edited");
    fs::remove_file(top.join("d/sub/deep")).unwrap();
    s.apply(|tx| {
        tx.write("b", b"b new")?;
        tx.write("new", vec![b'n'; 50_000])?;
        tx.create_dir_all("x/y");
        tx.write("x/y/file", b"new")
    })
    .unwrap();
    s.phase("half").unwrap();
    s.apply(|tx| {
        tx.remove_tree("e");
        tx.rename("d", "moved");
        Ok(())
    })
    .unwrap();
    write(top.join("moved/sub/theirs"), "theirs as well");
    s.apply(|tx| {
        tx.write("moved/one", b"one new")?;
        tx.create_dir("d");
        tx.write("d/one", b"another")
    })
    .unwrap();
    write(top.join("a"), "theirs, from the beginning");
}

/// On what the first has left.
fn second(s: &mut Section<'_>, top: &Path) {
    s.protect(["moved"]).unwrap();
    fs::remove_dir_all(top.join("moved/sub")).unwrap();
    write(top.join("moved/sub"), "a file now");
    s.apply(|tx| {
        tx.exchange("d", "b");
        tx.remove_tree("x");
        tx.rename("c", "d2").rename("a", "c");
        tx.write("b/one", b"in what was d")
    })
    .unwrap();
}

fn check(top: &Path, states: &[Tree], known: Known, view: View, name: &str) {
    let workspace = open(top);
    assert!(workspace.conflicts().unwrap().is_empty(), "{name}");
    let recovered = workspace.recovered();
    let open = recovered
        .sections()
        .iter()
        .any(|s| s.still_open().is_some());
    assert!(!open, "{name}: {recovered:?}");
    let now = view(tree(top));
    if !(known.more && states.get(known.acknowledged + 1) == Some(&now)) {
        let context = format!("{name}, {known:?}");
        assert_same(&now, &states[known.acknowledged], &context);
    }
    workspace.close().unwrap();
    assert_clean(top, name);
}

fn cuts(kind: &Kind, every: u64, view: View, row: impl Fn(&Run<'_>)) {
    let work = |at: &Path, camera: &Rc<Camera<Known>>| {
        let run = Run::new(at, camera);
        // Dropped, not closed: as a crash would.
        let states = run.observed(|| row(&run));
        states.into_iter().map(view).collect()
    };
    let checked = |at: &Path, states: &Vec<Tree>, known: &Known, name: &str| {
        check(at, states, *known, view, name);
    };
    images::cuts(kind, every, ["a", "d"], work, checked);
}

/// Sections and transactions that are kept, and one that is not.
fn kept(kind: &Kind) {
    let every = if crate::long() { 5 } else { 41 };
    cuts(kind, every, without_times_of_dirs, |run| {
        run.transaction(|tx| tx.write("d/two", "two of a transaction"));
        run.committed("mixed", |s| mixed(s, run.top));
        run.transaction(|tx| {
            tx.rename("moved", "m").rename("m", "moved");
            tx.write("moved/one", "of a transaction")
        });
        run.taken_back("taken back", |s| second(s, run.top));
        run.committed("second", |s| second(s, run.top));
        run.transaction(|tx| tx.write("c", "c of a transaction"));
    });
}

/// Every scene, taken back.
fn taken_back(kind: &Kind) {
    let every = if crate::long() { 19 } else { 197 };
    cuts(
        kind,
        every,
        |tree| tree,
        |run| {
            run.taken_back("mixed", |s| mixed(s, run.top));
            for scene in scenes::all() {
                run.taken_back(scene.name, |s| (scene.run)(s, run.top).unwrap());
            }
        },
    );
}

#[test]
fn power_cuts_of_what_is_kept_on_ext4() {
    if possible("power_cuts_of_what_is_kept_on_ext4", &EXT4) {
        kept(&EXT4);
    }
}

#[test]
fn power_cuts_of_what_is_taken_back_on_ext4() {
    if possible("power_cuts_of_what_is_taken_back_on_ext4", &EXT4) {
        taken_back(&EXT4);
    }
}

#[test]
fn power_cuts_of_what_is_kept_on_xfs() {
    if possible("power_cuts_of_what_is_kept_on_xfs", &XFS) {
        kept(&XFS);
    }
}

#[test]
fn power_cuts_of_what_is_taken_back_on_xfs() {
    if possible("power_cuts_of_what_is_taken_back_on_xfs", &XFS) {
        taken_back(&XFS);
    }
}

#[test]
fn power_cuts_of_what_is_kept_on_btrfs() {
    if possible("power_cuts_of_what_is_kept_on_btrfs", &BTRFS) {
        kept(&BTRFS);
    }
}

#[test]
fn power_cuts_of_what_is_taken_back_on_btrfs() {
    if possible("power_cuts_of_what_is_taken_back_on_btrfs", &BTRFS) {
        taken_back(&BTRFS);
    }
}
