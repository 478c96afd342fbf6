//! A write-ahead log in plain files: records in preallocated segments, group commit, replay, repair.
//!
//! It knows nothing of files and transactions: a record is bytes, with a kind and two numbers of
//! the caller's.
//!
//! ```
//! use steadfast::{Root, journal::{LogOptions, Record}};
//! # let tmp = tempfile::tempdir()?;
//! # let dir = || Root::open(tmp.path()).and_then(|root| root.dir().try_clone());
//! let (log, _) = LogOptions::new().open(dir()?)?;
//! let written = log.append_durable(&[Record::new(16, b"first"), Record::new(16, b"second")])?;
//! drop(log); // Or the power goes.
//!
//! let (log, found) = LogOptions::new().open(dir()?)?;
//! assert_eq!(found.records[1].payload, b"second");
//! // What the records ask for is done, and durable where it belongs: they are not shown again.
//! log.release(written.last)?;
//! log.close()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What it promises
//! - **Durable.** Once [`Log::sync`] has returned, a power cut does not take the records back. One
//!   record from one thread is one write(2) and one fdatasync(2); what many threads append shares
//!   them.
//! - **In order.** A crash leaves the records up to some point, never one without those before it,
//!   and never one that was not appended: not half of one, and not one of an earlier use of the
//!   same bytes.
//! - **Torn is not damaged.** What a crash cut off at the end is the normal end. What is missing
//!   although it was durable is [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), with the place;
//!   the log is not opened, nothing is changed, and what stands before remains readable by
//!   [`inspect`]. [`repair`] keeps it, sets the files aside, and says what is given up.
//! - **A failed sync is final.** The log is poisoned, and all who wait are told. See [`Log::sync`].
//!
//! # What it does not promise
//! Damage to the newest records of a log that was not closed looks like a crash, if nothing written
//! later says that they were durable: the last group, or the newest segment file as a whole.
//!
//! The files are described byte by byte in `docs/journal-format.md`.

mod analyse;
mod damage;
mod frame;
mod group;
mod inspect;
mod log;
mod numbers;
mod open;
mod queue;
mod repair;
mod scan;
mod segment;
mod sync;

pub use damage::{Damage, DamageKind};
pub use inspect::{End, Inspection, SegmentFacts, inspect};
pub use log::{Appended, Log, Record};
pub use open::{Entry, LogOptions, Recovered};
pub use repair::{GivenUp, Repaired, repair};

pub(crate) use inspect::is_live;
pub(crate) use numbers::numbers;
