//! The state folder: made, opened, refused.

use super::*;
use crate::workspace::writers::{self, WriterOptions};

pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).unwrap()
}

#[test]
fn what_is_made_is_found_again() {
    let tmp = dir();
    let root = Root::open(tmp.path()).unwrap();
    let error = State::open(&root, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!tmp.path().join(".steadfast").exists());
    let made = State::open(&root, true).unwrap();
    assert!(!made.is_copy());
    for create in [false, true] {
        let state = State::open(&root, create).unwrap();
        assert_eq!(state.id, made.id);
        assert!(!state.is_copy());
        assert_eq!(state.incarnation(), made.incarnation());
    }
    let (writer, found) = writers::open_own(&made, WriterOptions::default()).unwrap();
    assert_eq!((writer.index, found.last), (1, 0));
}
