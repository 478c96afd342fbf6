//! The records that a workspace writes into its logs.
//!
//! A record that ends a transaction names it by the number; the one that commits it carries the whole
//! mapping, or, if that is too long for the log, says in which file it is.

#![allow(dead_code)] // Until the layer above calls it.

use super::codec::{Nonsense, Reader, Writer};
use super::identity::Stamp;
use super::mapping::Mapping;
use crate::journal::Record;
use crate::{Error, ErrorKind, Name, Result};

/// The mapping of a transaction, which from this record on is done: a [`Commit`].
pub(crate) const COMMIT: u16 = Record::FIRST_KIND;
/// A transaction is finished: a [`Done`].
pub(crate) const DONE: u16 = COMMIT + 1;
/// As [`COMMIT`], with the mapping in a file: an [`InFile`].
pub(crate) const COMMIT_IN_FILE: u16 = COMMIT + 2;
/// A protected section begins.
pub(crate) const SECTION_BEGIN: u16 = COMMIT + 3;
/// Something was put away for a section.
pub(crate) const SECTION_ITEM: u16 = COMMIT + 4;
/// A named phase of a section was reached.
pub(crate) const PHASE: u16 = COMMIT + 5;
/// A section is over.
pub(crate) const SECTION_END: u16 = COMMIT + 6;

/// The version of all of them.
const VERSION: u8 = 1;
const OPERATION: &str = "read record";

/// What a transaction does, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) number: u64,
    /// Boot id and unique number of the mount: while both are the same, nothing was lost.
    pub(crate) incarnation: (Option<[u8; 16]>, Option<u64>),
    /// When it was committed, for people.
    pub(crate) time: Stamp,
    /// What the caller calls it.
    pub(crate) label: Vec<u8>,
    pub(crate) mapping: Mapping,
}

impl Commit {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = begin();
        w.u64(self.number);
        w.option(self.incarnation.0, |w, id| w.0.extend_from_slice(&id));
        w.option(self.incarnation.1, Writer::u64);
        w.stamp(self.time);
        w.bytes(&self.label);
        w.mapping(&self.mapping);
        w.0
    }

    /// # Errors
    /// [`ErrorKind::Unsupported`]: a version that is not known here. [`ErrorKind::Corrupt`]: no record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes, |r| {
            Ok(Self {
                number: r.u64()?,
                incarnation: (r.option(Reader::array)?, r.option(Reader::u64)?),
                time: r.stamp()?,
                label: r.bytes()?,
                mapping: r.mapping()?,
            })
        })
    }
}

/// The number of a transaction that is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done(pub(crate) u64);

impl Done {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = begin();
        w.u64(self.0);
        w.0
    }

    /// # Errors
    /// As [`Commit::decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes, |r| r.u64().map(Self))
    }
}

/// A [`Commit`] that is too long for the log: it is, encoded, in a file in `staged/`, which was durable
/// before this record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InFile {
    pub(crate) number: u64,
    pub(crate) name: Name,
    pub(crate) len: u64,
    /// CRC-32C of the content.
    pub(crate) crc: u32,
}

impl InFile {
    /// The record for a file of this name with `content`, an encoded [`Commit`].
    pub(crate) fn of(number: u64, name: Name, content: &[u8]) -> Self {
        Self {
            number,
            name,
            len: content.len() as u64,
            crc: crc32c::crc32c(content),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = begin();
        w.u64(self.number);
        w.bytes(self.name.as_bytes());
        w.u64(self.len);
        w.u32(self.crc);
        w.0
    }

    /// # Errors
    /// As [`Commit::decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes, |r| {
            Ok(Self {
                number: r.u64()?,
                name: r.name()?,
                len: r.u64()?,
                crc: r.u32()?,
            })
        })
    }

    /// The commit in the file's content.
    ///
    /// # Errors
    /// As [`Commit::decode`]; [`ErrorKind::Corrupt`] also where it is not the content that was written.
    pub(crate) fn read(&self, content: &[u8]) -> Result<Commit> {
        if content.len() as u64 != self.len || crc32c::crc32c(content) != self.crc {
            return Err(corrupt("the file is not the one that was committed"));
        }
        let commit = Commit::decode(content)?;
        if commit.number == self.number {
            Ok(commit)
        } else {
            Err(corrupt("the file is that of another transaction"))
        }
    }
}

pub(super) fn begin() -> Writer {
    Writer(vec![VERSION])
}

pub(super) fn decode<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> std::result::Result<T, Nonsense>,
) -> Result<T> {
    let mut reader = Reader(bytes);
    match reader.u8() {
        Ok(VERSION) => {}
        Ok(version) if version > VERSION => {
            return Err(
                Error::of_kind(OPERATION, ErrorKind::Unsupported).with_advice(format!(
                    "the record has version {version}: a newer version of this program wrote it"
                )),
            );
        }
        _ => return Err(corrupt("the record has no version")),
    }
    let value = read(&mut reader).map_err(corrupt)?;
    if reader.0.is_empty() {
        Ok(value)
    } else {
        Err(corrupt("the record goes on after its end"))
    }
}

#[cold]
fn corrupt(what: Nonsense) -> Error {
    Error::of_kind(OPERATION, ErrorKind::Corrupt).with_advice(what)
}
