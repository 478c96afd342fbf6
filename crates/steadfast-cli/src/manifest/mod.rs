//! Manifests: a list of changes to make as one transaction, written in TOML or JSON.
//!
//! Parsing touches no file but the text that it is given. The format is described in `docs/manifest.md`.

mod error;
mod fields;
mod node;
mod operation;
#[cfg(test)]
mod tests;
mod time;
mod values;

pub(crate) use error::{Fault, ManifestError, Section};
pub(crate) use operation::{Attributes, Change, Condition, Content, Expect, Operation};

use error::Position;
use fields::Fields;
use node::Node;

/// The longest manifest, in bytes. Longer contents are given by `from`.
pub(crate) const MAX_LEN: u64 = 16 << 20;
/// The most operations, and the most conditions.
pub(crate) const MAX_ENTRIES: usize = 1 << 16;
/// The version of the format.
const FORMAT: i64 = 1;

/// How a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Json,
}

/// Changes that happen together or not at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// For people who look at the log.
    pub(crate) label: Option<String>,
    pub(crate) conditions: Vec<Condition>,
    /// In their order; each sees what those before it did.
    pub(crate) operations: Vec<Operation>,
}

/// Reads a manifest.
pub(crate) fn parse(text: &[u8], format: Format) -> Result<Manifest, ManifestError> {
    if text.len() as u64 > MAX_LEN {
        return Err(ManifestError::whole(Fault::TooLong));
    }
    let text = std::str::from_utf8(text).map_err(|e| {
        // What is before the fault is UTF-8, and tells the line.
        let good = String::from_utf8_lossy(text.get(..e.valid_up_to()).unwrap_or_default());
        ManifestError::whole(Fault::NotUtf8).at(Position::of(&good, good.len()))
    })?;
    let root = match format {
        Format::Toml => node::from_toml(text)?,
        Format::Json => node::from_json(text)?,
    };
    let mut fields = Fields::of(text, Section::Whole, root)?;
    fields.get("format", values::format)?;
    let label = fields.get("label", values::label)?;
    let conditions = fields.get("conditions", values::list)?.unwrap_or_default();
    let operations = fields.need("operations", values::entries)?;
    fields.finish()?;
    let mut lines = error::Lines::new(text);
    let conditions = numbered(text, conditions, Section::Condition, operation::condition)?;
    let mut operations = numbered(text, operations, Section::Operation, operation::operation)?;
    for operation in &mut operations {
        operation.line = lines.line(operation.at);
    }
    Ok(Manifest {
        label,
        conditions,
        operations,
    })
}

/// Each table of a list, with its number from 1.
fn numbered<T>(
    text: &str,
    tables: Vec<Node<'_>>,
    section: impl Fn(usize) -> Section,
    read: impl Fn(&mut Fields<'_>) -> Result<T, ManifestError>,
) -> Result<Vec<T>, ManifestError> {
    let one = |(index, node)| {
        let mut fields = Fields::of(text, section(index + 1), node)?;
        let value = read(&mut fields)?;
        fields.finish()?;
        Ok(value)
    };
    tables.into_iter().enumerate().map(one).collect()
}
