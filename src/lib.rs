//! Changes to files and folders on Linux that are **atomic**, **durable** and **contained**.
//!
//! - Atomic: a reader, or a crash, finds the old state or the new one, never a mixture.
//! - Durable: once a call has returned `Ok`, a power cut does not take it back.
//! - Contained: a path never leads outside the directory that it was given relative to.
//!
//! ```
//! use steadfast::{Root, publish::FileOptions};
//! # let tmp = tempfile::tempdir()?;
//! # let path = tmp.path();
//! let root = Root::open(path)?;
//! FileOptions::new().write(&root, "app.conf", b"threads = 4\n")?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | I want to | use |
//! | --- | --- |
//! | write a file so that nobody ever sees half of it | [`publish::write`], [`publish::FileOptions`] |
//! | write it in pieces, or not at all | [`publish::PendingFile`] |
//! | create a file only if there is none; replace it only if nobody changed it | [`publish::Target`] |
//! | publish a whole folder, or put a finished one in place | [`publish::FolderOptions`] |
//! | exchange two folders, and back | [`publish::swap`] |
//! | write a thousand files quickly | [`publish::Batch`] |
//! | remove what a killed process left | [`publish::sweep`] |
//! | change many files and folders as one, after any crash | [`workspace::Transaction`] |
//! | let other programs change files, and take it back if they fail | [`workspace::Section`] |
//! | see or mend what a crash left of it | [`workspace::status`], [`workspace::repair`] |
//! | log records durably, many threads at once, and read them back after a crash | [`journal`] |
//! | open, create, rename, remove beneath a directory that no path may leave | [`Root`] |
//! | walk, copy, remove or sync a tree that others change meanwhile | [`tree`] |
//! | keep several processes or threads out of each other's paths | [`claim::Claims`] |
//! | let one process at a time do something, and refuse one that is late | [`lease::Leases`] |
//! | know what this file system can do | [`Capabilities`] |
//! | `renameat2`, `openat2`, `O_TMPFILE`, locks, with types and nothing more | [`sys`] |
//!
//! # Layers
//! Each module uses only those above it in this list, and is usable alone.
//!
//! - [`sys`]: one system call each, the errno kept, no policy.
//! - [`root`]: a held directory, every path resolved beneath it.
//! - [`tree`]: whole trees by descriptor.
//! - [`publish`]: one file or one folder, atomically.
//! - [`journal`]: a write-ahead log in plain files.
//! - [`claim`]: who works where; it uses only `sys` and a directory handle.
//! - [`lease`]: one holder at a time, with a number that only grows.
//! - [`workspace`]: transactions and protected sections, with recovery.
//!
//! # Errors
//! [`Error`] says what was tried, on which path, the errno, and what state the disk is in ([`DiskState`]): an
//! error after the rename is another matter than one before it. It converts into [`std::io::Error`] and can
//! be found in it again ([`Error::of`]).
//!
//! # What it does not do
//! - Who reads several files without a claim may see some of them before and some after a transaction; one
//!   folder that is published whole ([`publish::FolderOptions`]) changes at one moment.
//! - [`publish::Batch`] makes each of its files atomic and all durable, not all of them one.
//! - A replaced file is a new inode: other hard links and open descriptors keep the old one.
//! - fsync is trusted: a device that lies about it loses data.
//! - It is for Linux only. Kernel 5.6 or later has everything that is needed; what older kernels and other
//!   file systems lack is replaced where that is safe, else it is [`ErrorKind::Unsupported`].
//!
//! # Features
//! None is on by default, and none changes what the others do.
//!
//! | feature | what it adds | further crates |
//! | --- | --- | --- |
//! | `serde` | reports, receipts, plans, capabilities and errors can be serialized | serde |
//! | `sha256` | expected hashes, as a condition on the old content and a check of the new | sha2 |
//! | `tracing` | a span for each operation, and in it an event for each sync | tracing |
//!
//! With `serde`, fields are called as their getters are, and variants are in snake case. Paths are bytes: one
//! that is not UTF-8 is an object with the text (`path`) and all bytes in hexadecimal (`path_bytes_hex`).
//!
//! With `tracing`, spans are of level `DEBUG` and target `steadfast`: "publish file", "commit transaction"
//! and so on. Each fsync(2), fdatasync(2) and syncfs(2) is an event of target `steadfast::sync` with the
//! `call` and the `micros` that it took, at level `DEBUG`; a failed one, with its `errno`, at level `WARN`.

#[cfg(not(target_os = "linux"))]
compile_error!("steadfast works on Linux only: it is built on renameat2, openat2 and O_TMPFILE");

// First, so that its macro is known to the others.
#[cfg(target_os = "linux")]
#[macro_use]
mod trace;

#[cfg(target_os = "linux")]
pub mod claim;
#[cfg(target_os = "linux")]
mod durability;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
pub mod journal;
#[cfg(target_os = "linux")]
pub mod lease;
#[cfg(target_os = "linux")]
pub mod publish;
#[cfg(target_os = "linux")]
pub mod root;
#[cfg(all(target_os = "linux", feature = "serde"))]
mod serial;
#[cfg(target_os = "linux")]
pub mod sys;
#[cfg(target_os = "linux")]
pub mod tree;
#[cfg(target_os = "linux")]
mod wait;
#[cfg(target_os = "linux")]
pub mod workspace;

#[cfg(target_os = "linux")]
pub use durability::Durability;
#[cfg(target_os = "linux")]
pub use error::{DiskState, Error, ErrorKind, Result};
#[cfg(target_os = "linux")]
pub use root::{Backend, Capabilities, Dir, Name, Root, RootOptions, Scope};

// The README's examples are compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// And what we say to those who come from elsewhere.
#[cfg(doctest)]
#[doc = include_str!("../docs/migration.md")]
struct Migration;
