//! What is wrong with a damaged log, and where.

use crate::{Error, ErrorKind};
use std::fmt;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum DamageKind {
    /// The first block of a segment is not the header that it was.
    Header,
    /// A segment file is shorter or longer than it was created.
    Length,
    /// A segment file is missing.
    Missing,
    /// A frame that was durable cannot be read.
    Frame,
    /// The segments do not belong to one log, or two claim one place in it.
    Foreign,
}

/// Damage to a log: something that was durable cannot be read.
///
/// It is the detail ([`crate::Error::detail`]) of an error of kind [`ErrorKind::Corrupt`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Damage {
    /// What is damaged.
    pub kind: DamageKind,
    /// The number of the segment: its file is called by this number in 16 hexadecimal digits, with `.seg`.
    pub segment: u64,
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// The sequence number of the frame that was expected there.
    pub expected: u64,
    /// Sequence numbers up to this one are known to have been durable.
    pub durable: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            offset,
            expected,
            durable,
            ..
        } = self;
        match self.kind {
            DamageKind::Header => write!(f, "the header of segment {segment} is damaged"),
            DamageKind::Length => write!(
                f,
                "segment {segment} has {offset} bytes, which is not its length"
            ),
            DamageKind::Missing => write!(f, "segment {segment} is missing"),
            DamageKind::Foreign => write!(f, "segment {segment} is not of this log"),
            DamageKind::Frame => write!(
                f,
                "segment {segment}, offset {offset}: frame {expected} is damaged or missing"
            ),
        }?;
        if durable >= expected {
            write!(f, "; frames up to {durable} were durable")?;
        }
        Ok(())
    }
}

impl std::error::Error for Damage {}

impl Damage {
    #[cold]
    pub(super) fn error(self, op: &'static str) -> Error {
        let error = Error::of_kind(op, ErrorKind::Corrupt).with_advice(
            "nothing was changed; journal::inspect shows what can be read, journal::repair keeps it \
             and sets the rest aside",
        );
        match super::segment::name(self.segment) {
            Ok(name) => error.with_path(name),
            Err(_) => error,
        }
        .with_detail(self)
    }
}
