//! What is measured: one module for each subject.

mod batches;
mod calls;
mod files;
mod folders;
mod lookups;
mod many;
mod opening;
mod streaming;
mod transactions;
mod trees;

use crate::harness::Case;

pub(crate) use many::worker;
pub(crate) use opening::pending;

/// All cases, in the order of the report. The long form adds sizes and numbers to most.
pub(crate) fn all(long: bool, openat2: bool) -> Vec<Case> {
    if !openat2 {
        return lookups::without_openat2(long);
    }
    let mut cases = files::cases();
    cases.extend(transactions::cases(long));
    cases.extend(many::cases(long));
    cases.extend(batches::cases());
    cases.extend(folders::cases());
    cases.extend(opening::cases());
    cases.extend(lookups::cases(long));
    cases.extend(trees::cases(long));
    cases.extend(streaming::cases());
    cases
}

/// A size as text.
fn size(bytes: usize) -> String {
    match bytes {
        n if n >= 1 << 20 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} bytes"),
    }
}
