//! Transactions over many files and folders, on plain files: all of it, or nothing, after any crash.
//!
//! A transaction collects changes, checks its conditions under claims, prepares every new file under a
//! private name, and commits with one record in a log: from that record on it is finished whatever
//! happens, by this process or by the next one that opens the workspace. Before it nothing is visible.

mod codec;
mod ctx;
mod draft;
mod identity;
mod mapping;
mod realise;
mod record;
mod stage;
