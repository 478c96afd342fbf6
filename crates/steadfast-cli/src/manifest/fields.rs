//! Taking a table apart field by field, so that none is forgotten and none misspelt.

use super::error::{Fault, ManifestError, Position, Section};
use super::node::{Entry, Node, Value};

/// Why a value was refused, and which part of it.
#[derive(Debug)]
pub(super) struct Refused {
    fault: Fault,
    /// Of a part of the value: where it is, and its name.
    part: Option<(usize, String)>,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault, part: None }
    }
}

impl Refused {
    /// The same about a part of the value.
    pub(super) fn in_part(self, at: usize, name: &str) -> Self {
        let part = match self.part {
            Some((at, inner)) => (at, format!("{name}.{inner}")),
            None => (at, name.to_owned()),
        };
        Self {
            part: Some(part),
            ..self
        }
    }
}

/// What is left of a table.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    text: &'a str,
    section: Section,
    at: usize,
    left: Vec<Entry<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// All of a table.
    pub(super) fn of(
        text: &'a str,
        section: Section,
        node: Node<'a>,
    ) -> Result<Self, ManifestError> {
        let fields = Self {
            text,
            section,
            at: node.at,
            left: Vec::new(),
            known: Vec::new(),
        };
        let found = node.type_name();
        match node.value {
            Value::Table(left) => Ok(Self { left, ..fields }),
            _ => Err(fields.fail(Fault::Type {
                want: "a table",
                found,
            })),
        }
    }

    /// Where the table begins, in bytes.
    pub(super) fn start(&self) -> usize {
        // A TOML table begins with its header, or with the first of its keys.
        self.left.iter().map(|e| e.at).fold(self.at, usize::min)
    }

    /// A field that may be missing.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Node<'a>) -> Result<T, Refused>,
    ) -> Result<Option<T>, ManifestError> {
        self.known.push(name);
        let Some(index) = self.left.iter().position(|e| e.key == name) else {
            return Ok(None);
        };
        let node = self.left.swap_remove(index).node;
        let at = node.at;
        read(node).map(Some).map_err(|refused| {
            let (at, field) = match refused.part {
                Some((at, part)) => (at, format!("{name}.{part}")),
                None => (at, name.to_owned()),
            };
            let error = ManifestError::whole(refused.fault).in_section(self.section);
            error.in_field(field).at(Position::of(self.text, at))
        })
    }

    /// A field that must be there.
    pub(super) fn need<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Node<'a>) -> Result<T, Refused>,
    ) -> Result<T, ManifestError> {
        match self.get(name, read)? {
            Some(value) => Ok(value),
            None => Err(self.fail(Fault::MissingField).in_field(name)),
        }
    }

    /// `true` or `false`; the latter if it is missing.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, ManifestError> {
        let flag = self.get(name, |node| match node.value {
            Value::Boolean(b) => Ok(b),
            _ => Err(wrong("true or false", &node)),
        })?;
        Ok(flag.unwrap_or(false))
    }

    /// An error about the table as a whole.
    pub(super) fn fail(&self, fault: Fault) -> ManifestError {
        ManifestError::whole(fault)
            .in_section(self.section)
            .at(Position::of(self.text, self.at))
    }

    /// Whatever nobody asked for is a mistake.
    pub(super) fn finish(&mut self) -> Result<(), ManifestError> {
        let Some(first) = self.left.iter().min_by_key(|e| e.at) else {
            return Ok(());
        };
        let error = ManifestError::whole(Fault::UnknownField(std::mem::take(&mut self.known)));
        Err(error
            .in_section(self.section)
            .in_field(first.key.clone())
            .at(Position::of(self.text, first.at)))
    }
}

/// A value of another type than that.
pub(super) fn wrong(want: &'static str, node: &Node<'_>) -> Refused {
    let found = node.type_name();
    Fault::Type { want, found }.into()
}
