//! Tests of realising: it is stopped and hindered at every call, and finished by another run.

mod in_place;
mod mixed_up;
mod outsiders;
mod power;
mod scenes;
mod stops;
mod strangers;
mod syncs;
mod written_over;

use super::super::mapping::Mapping;
use super::super::stage::stage;
use super::super::testbed::{World, short};
use super::{Mode, Outcome, realise_opened};
use crate::Result;
use crate::workspace::WorkspaceOptions;
use crate::workspace::open_files::OpenFiles;
use scenes::Scene;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A transaction that is committed and not yet carried out.
struct Ready {
    world: World,
    mapping: Mapping,
    /// For the first run.
    opened: RefCell<OpenFiles>,
}

impl Ready {
    fn of(scene: &Scene) -> Self {
        let world = World::new();
        (scene.prepare)(&world);
        let mut draft = world.draft();
        (scene.draft)(&mut draft);
        let draft = draft.draft;
        let (opened, mapping) = world.with(|ctx| match stage(ctx, draft) {
            Ok(mut staging) => (staging.take_opened(), staging.committed()),
            Err(e) => panic!("{}: {e}", scene.name),
        });
        Self {
            world,
            mapping,
            opened: RefCell::new(opened),
        }
    }

    fn run(&self, mode: Mode) -> Result<Outcome> {
        let opened = self.opened.take();
        (self.world).with(|ctx| realise_opened(ctx, &self.mapping, mode, opened))
    }

    /// All is new, and nothing is left.
    fn check(&self, scene: &Scene, want: &BTreeMap<String, String>, what: &str) {
        self.check_folders(scene, want, what, &["staged", "retired", "kept"]);
    }

    /// All is new, and nothing is left once a workspace was opened with the log that all of it belongs to:
    /// that clears what nobody knows of. Nothing is ever left in `kept`.
    fn check_opened(&self, scene: &Scene, want: &BTreeMap<String, String>, what: &str) {
        self.check_folders(scene, want, what, &["kept"]);
        let left = |folder: &&str| !self.world.private(folder).is_empty();
        if ["staged", "retired"].iter().any(left) {
            // The first makes the log.
            for _ in 0..2 {
                let options = WorkspaceOptions::new().log(8 << 10, 64);
                options.open(&self.world.root).unwrap().close().unwrap();
            }
        }
        self.check(scene, want, what);
    }

    fn check_folders(
        &self,
        scene: &Scene,
        want: &BTreeMap<String, String>,
        what: &str,
        folders: &[&str],
    ) {
        let shot = self.world.shot();
        assert_eq!(shot, *want, "{}: {what}", scene.name);
        for folder in folders {
            let left = self.world.private(folder);
            assert!(
                left.is_empty(),
                "{}: {what}: {folder}: {left:?}",
                scene.name
            );
        }
    }

    /// Finishes the work, which finds nothing of anybody else's.
    fn finish(&self, scene: &Scene, want: &BTreeMap<String, String>, what: &str) {
        let outcome = self
            .run(Mode::Again)
            .unwrap_or_else(|e| panic!("{}: {what}: {e} {}", scene.name, short(&e)));
        assert_eq!(outcome.conflicts, [], "{}: {what}", scene.name);
        assert!(
            outcome.left.is_empty(),
            "{}: {what}: {:?}",
            scene.name,
            outcome.left
        );
        self.check(scene, want, what);
    }
}

/// What the scene looks like in the end, from a run that nobody disturbs.
fn after(scene: &Scene) -> BTreeMap<String, String> {
    let ready = Ready::of(scene);
    let outcome = ready
        .run(Mode::First)
        .unwrap_or_else(|e| panic!("{}: {e}", scene.name));
    assert_eq!(outcome.conflicts, [], "{}", scene.name);
    (scene.check)(&ready.world);
    let shot = ready.world.shot();
    ready.check(scene, &shot, "first");
    // A second run has nothing to do.
    ready.finish(scene, &shot, "again");
    shot
}

#[test]
fn every_scene_ends_as_it_should() {
    for scene in scenes::all() {
        after(&scene);
        // Recovery alone comes to the same.
        let want = after(&scene);
        Ready::of(&scene).finish(&scene, &want, "recovery alone");
    }
}
