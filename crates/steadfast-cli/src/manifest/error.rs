//! What is wrong with a manifest, and where.

use std::fmt;

/// Why a manifest was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestError {
    fault: Fault,
    section: Section,
    field: Option<String>,
    position: Option<Position>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Neither TOML nor JSON as it was announced, in the words of its reader.
    Syntax(String),
    NotUtf8,
    /// The text is longer than a manifest may be.
    TooLong,
    /// A list has more entries than it may have.
    TooMany,
    /// Lists and tables in one another, deeper than any manifest needs.
    TooDeep,
    /// The field is not one of these.
    UnknownField(Vec<&'static str>),
    MissingField,
    /// The key is there twice.
    Duplicate,
    /// Exactly one of these must be there.
    OneOf(&'static [&'static str]),
    /// Another type than this one.
    Type {
        want: &'static str,
        found: &'static str,
    },
    /// A value of the right type that makes no sense, in words.
    Value(&'static str),
}

/// The part of a manifest that an error is about. Numbers are from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Whole,
    Condition(usize),
    Operation(usize),
}

/// A place in the text; line and column (in characters) are from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Position {
    /// Of a byte.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
        let start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |i| i + 1);
        let line = before.iter().filter(|b| **b == b'\n').count();
        // Each character has one byte that does not continue another.
        let columns = before.iter().skip(start).filter(|b| **b & 0xc0 != 0x80);
        Self {
            line: line as u64 + 1,
            column: columns.count() as u64 + 1,
        }
    }
}

/// Line numbers of offsets that only grow, in one pass over the text.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a [u8],
    offset: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text: text.as_bytes(),
            offset: 0,
            line: 1,
        }
    }

    /// The line of this byte, from 1.
    pub(super) fn line(&mut self, offset: usize) -> u64 {
        let part = self.text.get(self.offset..offset).unwrap_or_default();
        self.line += part.iter().filter(|b| **b == b'\n').count() as u64;
        self.offset = self.offset.max(offset);
        self.line
    }
}

impl ManifestError {
    /// About the manifest as a whole.
    pub(super) fn whole(fault: Fault) -> Self {
        Self {
            fault,
            section: Section::Whole,
            field: None,
            position: None,
        }
    }

    pub(super) fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    pub(super) fn in_section(mut self, section: Section) -> Self {
        self.section = section;
        self
    }

    pub(super) fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The part of the manifest.
    pub(crate) fn section(&self) -> Section {
        self.section
    }

    /// The field, such as `mode`, or `xattrs.user.origin`.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The place in the text; a text that is too long has none.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// What is wrong, as one word for programs.
    pub(crate) fn kind(&self) -> &'static str {
        match self.fault {
            Fault::Syntax(_) | Fault::NotUtf8 => "syntax",
            Fault::TooLong | Fault::TooMany | Fault::TooDeep => "limit",
            Fault::UnknownField(_) => "unknown_field",
            Fault::MissingField | Fault::OneOf(_) => "missing_field",
            Fault::Duplicate => "duplicate",
            Fault::Type { .. } => "type",
            Fault::Value(_) => "value",
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        match self.section {
            Section::Whole => {}
            Section::Condition(n) => write!(f, "condition {n}: ")?,
            Section::Operation(n) => write!(f, "operation {n}: ")?,
        }
        if let Some(field) = &self.field {
            // As it stands there, which may be anything.
            write!(f, "field {field:?}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(words) => f.write_str(words),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::TooLong => {
                let mib = super::MAX_LEN >> 20;
                write!(f, "longer than {mib} MiB; give long contents by \"from\"")
            }
            Self::TooMany => write!(f, "more than {} entries", super::MAX_ENTRIES),
            Self::TooDeep => f.write_str("lists and tables in one another, too deep"),
            Self::UnknownField(known) => {
                write!(f, "unknown; known here: {}", known.join(", "))
            }
            Self::MissingField => f.write_str("missing"),
            Self::Duplicate => f.write_str("there twice"),
            Self::OneOf(fields) => write!(f, "exactly one of {} is needed", fields.join(", ")),
            Self::Type { want, found } => write!(f, "{want} is needed, not {found}"),
            Self::Value(words) => f.write_str(words),
        }
    }
}
