//! A manifest's text as a tree in which each value knows its place, the same for TOML and JSON.

use super::error::{Fault, ManifestError, Position};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

/// Lists and tables in one another; a manifest needs five.
const MAX_DEPTH: u32 = 8;

/// A value and where it begins, in bytes.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) at: usize,
    pub(super) value: Value<'a>,
}

/// What a manifest can hold.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Boolean(bool),
    /// TOML has a type for it.
    Time(Datetime),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
    /// Of a type that no field takes: its name.
    Other(&'static str),
}

/// One field of a table.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    /// Where the key is; in JSON where its value is.
    pub(super) at: usize,
    pub(super) node: Node<'a>,
}

impl Node<'_> {
    /// The name of the type, with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a whole number",
            Value::Boolean(_) => "true or false",
            Value::Time(_) => "a time",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(name) => name,
        }
    }
}

/// Reads TOML.
pub(super) fn from_toml(text: &str) -> Result<Node<'_>, ManifestError> {
    let table = DeTable::parse(text).map_err(|e| {
        let offset = e.span().map_or(text.len(), |s| s.start);
        syntax(text, offset, e.message().to_owned())
    })?;
    let at = table.span().start;
    let value = toml_table(text, table.into_inner(), 0)?;
    Ok(Node { at, value })
}

fn toml_table<'a>(
    text: &'a str,
    table: DeTable<'a>,
    depth: u32,
) -> Result<Value<'a>, ManifestError> {
    let entry = |(key, value): (toml::Spanned<Cow<'a, str>>, toml::Spanned<DeValue<'a>>)| {
        Ok(Entry {
            at: key.span().start,
            key: key.into_inner(),
            node: toml_value(text, value, depth + 1)?,
        })
    };
    table
        .into_iter()
        .map(entry)
        .collect::<Result<_, _>>()
        .map(Value::Table)
}

fn toml_value<'a>(
    text: &'a str,
    value: toml::Spanned<DeValue<'a>>,
    depth: u32,
) -> Result<Node<'a>, ManifestError> {
    let at = value.span().start;
    shallow(text, at, depth)?;
    let value = match value.into_inner() {
        DeValue::String(s) => Value::Text(s),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Other("a number of more than 64 bits"),
        },
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(t) => Value::Time(t),
        DeValue::Array(list) => {
            let node = |v| toml_value(text, v, depth + 1);
            Value::List(list.into_iter().map(node).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => toml_table(text, table, depth)?,
    };
    Ok(Node { at, value })
}

/// Reads JSON.
pub(super) fn from_json(text: &str) -> Result<Node<'_>, ManifestError> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| {
        let position = Position {
            line: (e.line() as u64).max(1),
            column: (e.column() as u64).max(1),
        };
        ManifestError::whole(Fault::Syntax(plain(&e))).at(position)
    })?;
    json_value(text, raw, 0)
}

/// One value, of which the syntax is known to be right. Its parts are looked at one level at a time, as that
/// is how their places are known.
fn json_value<'a>(text: &'a str, raw: &'a RawValue, depth: u32) -> Result<Node<'a>, ManifestError> {
    let part = raw.get();
    // The part is a slice of the text.
    let at = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    shallow(text, at, depth)?;
    let fail = |e: serde_json::Error| syntax(text, at, plain(&e));
    let value = match part.bytes().next() {
        Some(b'"') => Value::Text(Cow::Owned(serde_json::from_str(part).map_err(fail)?)),
        Some(b'[') => {
            let list: Vec<&'a RawValue> = serde_json::from_str(part).map_err(fail)?;
            let node = |v| json_value(text, v, depth + 1);
            Value::List(list.into_iter().map(node).collect::<Result<_, _>>()?)
        }
        Some(b'{') => {
            let mut reader = serde_json::Deserializer::from_str(part);
            let pairs = reader.deserialize_map(Pairs).map_err(fail)?;
            Value::Table(json_entries(text, pairs, depth)?)
        }
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'n') => Value::Other("null"),
        _ => match part.parse() {
            Ok(n) => Value::Integer(n),
            Err(_) => Value::Other("a fraction, or a number of more than 64 bits"),
        },
    };
    Ok(Node { at, value })
}

fn json_entries<'a>(
    text: &'a str,
    pairs: Vec<(String, &'a RawValue)>,
    depth: u32,
) -> Result<Vec<Entry<'a>>, ManifestError> {
    let mut entries = Vec::with_capacity(pairs.len());
    let mut seen = std::collections::HashSet::with_capacity(pairs.len());
    for (key, raw) in pairs {
        let node = json_value(text, raw, depth + 1)?;
        if !seen.insert(key.clone()) {
            let error = ManifestError::whole(Fault::Duplicate).in_field(key);
            return Err(error.at(Position::of(text, node.at)));
        }
        entries.push(Entry {
            key: Cow::Owned(key),
            at: node.at,
            node,
        });
    }
    Ok(entries)
}

/// The fields of an object in their order, with those that are there twice.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

fn shallow(text: &str, at: usize, depth: u32) -> Result<(), ManifestError> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(ManifestError::whole(Fault::TooDeep).at(Position::of(text, at)))
}

fn syntax(text: &str, offset: usize, words: String) -> ManifestError {
    ManifestError::whole(Fault::Syntax(words)).at(Position::of(text, offset))
}

/// The words of an error of JSON without its place, which is said apart.
fn plain(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    words.strip_suffix(&place).unwrap_or(&words).to_owned()
}
