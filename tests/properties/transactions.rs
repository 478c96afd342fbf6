//! Transactions with savepoints: what is committed is what plain calls would have made, one after the other,
//! without those that were rolled back; what fails or is dropped has changed nothing.

use crate::script::{Change, by_hand, by_transaction, furnish, path};
use crate::tree::{Tree, difference, litter, tree};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use std::fs;
use std::path::{Path, PathBuf};
use steadfast::workspace::{Transaction, Workspace};
use steadfast::{DiskState, Root};

#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    Savepoint,
    /// To one of those that there are.
    RollbackTo(u8),
    /// What the transaction sees is looked at, now and not only at the end.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<Change>().prop_map(Step::Change),
        2 => Just(Step::Savepoint),
        2 => any::<u8>().prop_map(Step::RollbackTo),
        2 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..14)
}

/// The tree after these changes by hand, or (`None`) that one of them fails.
fn model(changes: &[Change]) -> Option<Tree> {
    let dir = crate::common::memory_dir();
    furnish(dir.path());
    changes
        .iter()
        .all(|change| by_hand(dir.path(), *change).is_ok())
        .then(|| tree(dir.path()))
}

/// What is in the file of this name; no link is followed at the end.
fn content(top: &Path, at: &str) -> Option<Vec<u8>> {
    let file = fs::symlink_metadata(top.join(at)).ok()?.is_file();
    file.then(|| fs::read(top.join(at)).unwrap())
}

/// What the transaction sees is what there would be if it were committed now.
fn look(tx: &mut Transaction<'_>, changes: &[Change]) -> TestCaseResult {
    let twin = crate::common::memory_dir();
    furnish(twin.path());
    if changes.iter().all(|c| by_hand(twin.path(), *c).is_ok()) {
        for at in (0..12).map(path) {
            prop_assert_eq!(tx.read(at).ok(), content(twin.path(), at), "{}", at);
        }
    }
    Ok(())
}

fn run(workspace: &Workspace, top: &Path, steps: &[Step], dropped: bool) -> TestCaseResult {
    let before = tree(top);
    let mut tx = workspace.begin();
    let (mut kept, mut points) = (Vec::<Change>::new(), Vec::new());
    for step in steps {
        match step {
            Step::Change(change) => {
                by_transaction(&mut tx, *change).unwrap();
                kept.push(*change);
            }
            Step::Savepoint => points.push((tx.savepoint(), kept.len())),
            Step::RollbackTo(n) if !points.is_empty() => {
                let (point, len) = points[usize::from(*n) % points.len()];
                tx.rollback_to(point);
                kept.truncate(len);
                points.retain(|(_, of)| *of <= len);
            }
            Step::RollbackTo(_) => {}
            Step::Look => look(&mut tx, &kept)?,
        }
    }
    look(&mut tx, &kept)?;
    prop_assert_eq!(&tree(top), &before, "before the commit");
    if dropped {
        drop(tx);
        prop_assert_eq!(&tree(top), &before, "dropped");
    } else {
        let model = model(&kept);
        let done = tx.commit();
        match (&done, &model) {
            (Ok(_), Some(after)) => {
                prop_assert_eq!(&tree(top), after, "{}", difference(&tree(top), after))
            }
            (Err(error), None) => {
                prop_assert_eq!(error.disk_state(), DiskState::Unchanged, "{}", error);
                prop_assert_eq!(&tree(top), &before, "refused");
            }
            (_, model) => {
                let model = model.is_some();
                prop_assert!(false, "by hand {}: {:?}", model, done);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::config(400))]

    #[test]
    fn a_commit_is_the_model_and_a_rollback_is_nothing(
        transactions in prop::collection::vec((steps(), prop::bool::weighted(0.15)), 1..3),
    ) {
        for (steps, dropped) in &transactions {
            let dir = crate::common::memory_dir();
            furnish(dir.path());
            let workspace = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
            run(&workspace, dir.path(), steps, *dropped)?;
            workspace.close().unwrap();
            prop_assert_eq!(litter(dir.path()), Vec::<PathBuf>::new());
        }
    }
}

/// The exchange brings the file to the name that was meant for its new link.
#[test]
fn a_new_name_of_what_is_exchanged() {
    for (link, exchange) in [
        ("n", "d/e"),
        ("n", "d/a"),
        ("n", "d"),
        ("n", "l"),
        ("d/e/b", "d/e"),
    ] {
        let dir = crate::common::memory_dir();
        furnish(dir.path());
        let workspace = Workspace::open(&Root::open(dir.path()).unwrap()).unwrap();
        let mut tx = workspace.begin();
        tx.hard_link("b", link).exchange("b", exchange);
        tx.commit()
            .unwrap_or_else(|e| panic!("{link} {exchange}: {e}"));
        let file = fs::read_to_string(dir.path().join(exchange)).unwrap();
        assert_eq!(file, "old b");
        workspace.close().unwrap();
    }
}
