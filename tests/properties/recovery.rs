//! A process that is killed at any call of any transaction, and then once more at any call of the recovery:
//! all of it or nothing, and recovering again changes nothing.

use crate::common::spawn;
use crate::script::{Change, by_transaction, furnish};
use crate::tree::{Tree, difference, litter, tree};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use steadfast::Root;
use steadfast::sys::hook::{self, ENV};
use steadfast::workspace::Workspace;

const DIR: &str = "STEADFAST_PROPERTY_DIR";
const CHANGES: &str = "STEADFAST_PROPERTY_CHANGES";
const SIGKILL: i32 = 9;

fn open(dir: &Path) -> Workspace {
    Workspace::open(&Root::open(dir).unwrap()).unwrap()
}

fn commit(workspace: &Workspace, changes: &[Change]) -> bool {
    let mut tx = workspace.begin();
    for change in changes {
        by_transaction(&mut tx, *change).unwrap();
    }
    tx.commit().is_ok()
}

/// What the children are: this binary with two variables set. On its own it does nothing. Without changes it
/// recovers.
#[test]
fn child() {
    let (Some(dir), Ok(changes)) = (std::env::var_os(DIR), std::env::var(CHANGES)) else {
        return;
    };
    let numbers: Vec<u8> = changes
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let changes: Vec<Change> = numbers
        .chunks_exact(3)
        .map(|c| (c[0], c[1], c[2]))
        .collect();
    if changes.is_empty() {
        hook::arm_from_env();
        open(dir.as_ref()).close().unwrap();
        return;
    }
    let workspace = open(dir.as_ref());
    hook::arm_from_env();
    assert!(commit(&workspace, &changes));
    workspace.close().unwrap();
}

/// Runs a child that is killed at a call; false if it came to its end before.
fn killed(dir: &Path, changes: &[Change], at: u16) -> bool {
    let text: Vec<String> = changes
        .iter()
        .map(|c| format!("{} {} {}", c.0, c.1, c.2))
        .collect();
    // What the whole run is denied stays denied.
    let inherited = std::env::var(ENV).unwrap_or_default();
    let verb = ["stop-before", "stop-after"][usize::from(at % 2)];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "recovery::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ENV, format!("{inherited};{verb}:{}", at / 2 + 1))
        .env(DIR, dir)
        .env(CHANGES, text.join(" "))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = spawn(&mut command).wait().unwrap();
    assert!(
        status.success() || status.signal() == Some(SIGKILL),
        "{status}"
    );
    !status.success()
}

/// Furnished, with a workspace.
fn prepared() -> tempfile::TempDir {
    let dir = crate::common::memory_dir();
    furnish(dir.path());
    open(dir.path()).close().unwrap();
    dir
}

fn is(is: &Tree, should: &Tree, context: &str) -> TestCaseResult {
    prop_assert!(is == should, "{}\n{}", context, difference(is, should));
    Ok(())
}

proptest! {
    #![proptest_config(crate::config(60))]

    #[test]
    fn recovery_cut_anywhere_comes_to_the_same(
        changes in prop::collection::vec(any::<Change>(), 1..6),
        first in 0..260_u16,
        then in prop::collection::vec(0..200_u16, 0..3),
    ) {
        let twin = prepared();
        let old = tree(twin.path());
        let workspace = open(twin.path());
        // Each change that is possible after those before it: what is refused is not what is tested here.
        let mut possible = Vec::new();
        for change in changes {
            if commit(&workspace, &[change]) {
                possible.push(change);
            }
        }
        workspace.close().unwrap();
        let new = tree(twin.path());
        if possible.is_empty() {
            return Ok(());
        }
        let dir = prepared();
        let top = dir.path();
        let died = killed(top, &possible, first);
        for at in then {
            killed(top, &[], at);
        }
        let workspace = open(top);
        let after = tree(top);
        if died && after != new {
            is(&after, &old, "neither old nor new")?;
        } else {
            is(&after, &new, "acknowledged and not there")?;
        }
        prop_assert!(workspace.conflicts().unwrap().is_empty());
        prop_assert_eq!(workspace.recover().unwrap().finished().len(), 0);
        is(&tree(top), &after, "recovered again")?;
        workspace.close().unwrap();
        prop_assert_eq!(litter(top), Vec::<PathBuf>::new());
        open(top).close().unwrap();
        is(&tree(top), &after, "opened again")?;
    }
}
