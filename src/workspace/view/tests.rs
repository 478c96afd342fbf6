//! The view against the disk: single cases, and what it asks the kernel.

mod by_hand;
mod model;
mod place;

use super::*;
use crate::ErrorKind;
use crate::sys::Errno;
use crate::workspace::draft::{Op, Renaming};
use crate::workspace::mapping::Before;
use std::path::Path;

pub(super) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(base).unwrap()
}

pub(super) fn write(path: &str, bytes: &str) -> Op {
    Op::Write {
        path: path.into(),
        source: Source::Bytes(bytes.as_bytes().into()),
        attr: AttrRequest::default(),
        create_new: false,
    }
}

pub(super) fn rename(from: &str, to: &str, how: Renaming) -> Op {
    Op::Rename {
        from: from.into(),
        to: to.into(),
        how,
    }
}

/// A sequence of numbers that one seed fixes (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

#[test]
fn swapping_through_a_third_name_is_two_slots() {
    let dir = dir();
    std::fs::write(dir.path().join("a"), "a").unwrap();
    std::fs::write(dir.path().join("b"), "b").unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut view = View::new(&root).unwrap();
    for (from, to) in [("a", "tmp"), ("b", "a"), ("tmp", "b")] {
        view.run(&rename(from, to, Renaming::NoReplace)).unwrap();
    }
    let read = view.read(Path::new("a")).unwrap();
    assert!(matches!(&read[..], [Content::Disk(_)]));
    let draft = view.into_draft();
    assert_eq!((draft.slots.len(), draft.objects.len()), (2, 2));
    for slot in &draft.slots {
        assert!(matches!(slot.before, Before::Object(o) if slot.after != Some(o)));
    }
}

#[test]
fn the_state_folder_is_refused() {
    let dir = dir();
    std::fs::create_dir(dir.path().join(".steadfast")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut view = View::new(&root).unwrap();
    for path in [".steadfast", ".steadfast/claims", "./.steadfast/x/y"] {
        let error = view.run(&write(path, "")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
        assert_eq!(error.errno(), None);
    }
    let error = view.run(&write("none/x", "")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::NOENT));
    assert_eq!(view.list(Path::new(".")).unwrap(), []);
}
