//! The ledger within one process.

use super::*;
use crate::Root;
use crate::workspace::state::{State, tests::dir};

#[test]
fn numbers_rise_and_marks_of_the_dead_are_found() {
    let tmp = dir();
    let state = State::open(&Root::open(tmp.path()).unwrap(), true).unwrap();
    let ledger = &state.ledger;
    assert_eq!((ledger.draw().unwrap(), ledger.draw().unwrap()), (1, 2));
    let claim = state.claims.try_claim(&[]).unwrap();
    let mark = ledger.mark(&claim, 2, 7, MarkKind::Commit).unwrap();
    assert!(ledger.dead().unwrap().is_empty());
    drop((claim, mark));
    let dead = ledger.dead().unwrap();
    assert_eq!(
        (dead[0].number, dead[0].log, dead[0].kind),
        (2, 7, MarkKind::Commit)
    );
    let lock = ledger.recovery_lock(Duration::ZERO).unwrap();
    ledger.clear_dead(&dead[0], &lock).unwrap();
    assert!(ledger.dead().unwrap().is_empty());
}
