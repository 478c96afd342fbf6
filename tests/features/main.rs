//! What the optional features add.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

mod asynchronous;
mod serialized;

/// What other threads may be given, and what they may share.
#[test]
fn handles_can_be_sent_and_shared() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync + 'static>() {}
    use steadfast::{claim, journal, lease, publish, root, workspace};
    shared::<steadfast::Error>();
    shared::<steadfast::Root>();
    shared::<steadfast::Dir>();
    shared::<steadfast::Name>();
    shared::<root::Capabilities>();
    shared::<publish::FileOptions>();
    shared::<publish::FolderOptions>();
    shared::<publish::Receipt>();
    shared::<publish::PendingFile<'static>>();
    shared::<publish::PendingFolder<'static>>();
    shared::<publish::Batch<'static>>();
    shared::<workspace::Workspace>();
    shared::<workspace::Plan>();
    shared::<workspace::Status>();
    shared::<journal::Log>();
    shared::<claim::Claims>();
    shared::<claim::Claim>();
    shared::<lease::Leases>();
    shared::<lease::Lease>();
    shared::<steadfast::nonblocking::Root>();
    sent::<workspace::Transaction<'static>>();
    sent::<workspace::Section<'static>>();
    sent::<steadfast::nonblocking::PendingFile>();
}
