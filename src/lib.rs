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
//! | do the same from async code | `nonblocking`, with the feature `tokio` |
//! | `renameat2`, `openat2`, `O_TMPFILE`, locks, with types and nothing more | [`sys`] |
//!
//! # What each call promises
//! With its defaults. Paths are resolved beneath a [`Root`], or trees by descriptor, so none leads outside;
//! [`publish::write`] opens the parent of its path as any program would.
//!
//! | call | who reads meanwhile sees | a crash in it leaves | `Ok`, then a power cut |
//! | --- | --- | --- | --- |
//! | [`FileOptions`], [`PendingFile`] | old or new | old or new | new |
//! | [`FolderOptions`] | old or new | old or new | new |
//! | [`publish::swap`] | both as before, or exchanged | the same | exchanged |
//! | [`Batch`], after `commit` | each file old or new | each file old or new | all new |
//! | [`Transaction`] | each name old or new | all old or all new (1) | all new (1) |
//! | [`Workspace::swap`], [`publish_folder`] | old or new (2) | old or new (1) | new |
//! | [`Section`], after `commit` | every step at once | all as before (1) | kept |
//! | [`Root::create_dir_all`] | directories, one by one | some of them | all, with `Full` |
//! | other calls of [`Root`] | what the system call does | the same | not before [`Root::sync_dir`] |
//! | [`tree::copy`] | a tree that grows | any part | not before [`tree::sync`] |
//! | [`tree::remove`] | a tree that shrinks | any part | perhaps back, if not synced |
//! | [`Log::append_durable`] | | the records up to some point | all of them |
//! | [`Claims`] | | nothing: the kernel frees them | nothing: they end with their holder |
//! | [`Leases`] | | free, its number not given again | the same |
//!
//! 1. Once the workspace was opened again. After [`Workspace::settle`] also for who never opens it.
//! 2. Where names cannot be exchanged, a name is absent for a moment.
//!
//! Less is waited for with [`Durability::Ordered`] and [`Durability::None`]. Every error tells which of these
//! states the disk is in ([`DiskState`]).
//!
//! | | ext4, xfs, btrfs | tmpfs | overlayfs | NFS |
//! | --- | --- | --- | --- | --- |
//! | a file, created or replaced | yes | yes | yes | yes |
//! | a file, only if the name is free | yes | yes | yes | by link and unlink |
//! | a file, only if unchanged | yes | yes | yes | looked at just before |
//! | a new folder | yes | yes | yes | over an empty one, made just before |
//! | a replaced folder, a swap | yes | yes | not one of a lower layer | `Unsupported` |
//! | transactions, sections | yes | yes | not a folder of a lower layer | not tried |
//! | claims, leases | yes | yes | yes | perhaps on one machine only |
//! | paths that stay beneath | yes | yes | yes | yes |
//! | a power cut | survived | nothing is | as the layer above | the server's word |
//!
//! | where this is missing | this happens |
//! | --- | --- |
//! | openat2 | a walk in user space, with the same answers |
//! | `RENAME_NOREPLACE` | link and unlink, or an empty folder first: [`Note::NoReplaceByLink`] |
//! | `RENAME_EXCHANGE` | swaps, replaced folders: [`ErrorKind::Unsupported`]; a [`Workspace`] can |
//! | | a condition on a file is looked at just before: [`Note::CheckedNotExchanged`] |
//! | `O_TMPFILE` | named temporary files: [`Note::StagedByName`] |
//! | `FICLONE`, copy_file_range | a copy |
//! | open-file-description locks | claims, leases and workspaces are [`ErrorKind::Unsupported`] |
//! | a syncfs that reports errors (5.8) | a [`Batch`] syncs each file; for folders see [`SyncStrategy`] |
//!
//! [`FileOptions`]: publish::FileOptions
//! [`PendingFile`]: publish::PendingFile
//! [`FolderOptions`]: publish::FolderOptions
//! [`Batch`]: publish::Batch
//! [`SyncStrategy`]: tree::SyncStrategy
//! [`Transaction`]: workspace::Transaction
//! [`Section`]: workspace::Section
//! [`Workspace`]: workspace::Workspace
//! [`Workspace::swap`]: workspace::Workspace::swap
//! [`Workspace::settle`]: workspace::Workspace::settle
//! [`publish_folder`]: workspace::Workspace::publish_folder
//! [`Log::append_durable`]: journal::Log::append_durable
//! [`Claims`]: claim::Claims
//! [`Leases`]: lease::Leases
//! [`Note::NoReplaceByLink`]: publish::Note::NoReplaceByLink
//! [`Note::CheckedNotExchanged`]: publish::Note::CheckedNotExchanged
//! [`Note::StagedByName`]: publish::Note::StagedByName
//!
//! # Chapters
//! In the repository, under `docs`: `durability.md` (what is synced, in which order), `resolution.md` (how
//! a path stays inside), `transactions.md` and `recovery.md`, `limits.md` (what it does not protect from),
//! `filesystems.md`, `kernel-features.md`, `promises.md` and `proof.md` (how they are tested), `migration.md`
//! (coming from other libraries). Programs to begin from are under `examples`.
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
//! be found in it again ([`Error::of`]). An error of the caller's own reader or closure is its
//! [`source`](std::error::Error::source), and not repeated in its text.
//!
//! # What it does not do
//! All of it is in `docs/limits.md`; first of all:
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
//! | `tokio` | the same operations for async code: `nonblocking` | tokio |
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
#[cfg(all(target_os = "linux", feature = "tokio"))]
pub mod nonblocking;
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

// And how other crates' files and directories go in and out.
#[cfg(doctest)]
#[doc = include_str!("../docs/api-guidelines.md")]
struct Guidelines;
