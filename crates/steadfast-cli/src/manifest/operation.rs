//! What a manifest asks for: its operations and conditions.

use super::error::{Fault, ManifestError};
use super::fields::Fields;
use super::{time, values};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One change, and where it stands in the manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// From 1.
    pub(crate) line: u64,
    /// In bytes.
    pub(super) at: usize,
    pub(crate) change: Change,
}

/// What is to be changed. Paths are relative to the root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Write {
        path: PathBuf,
        content: Content,
        create_new: bool,
        attributes: Attributes,
    },
    Append {
        path: PathBuf,
        content: Content,
    },
    WriteInPlace {
        path: PathBuf,
        content: Content,
    },
    CreateDir {
        path: PathBuf,
        parents: bool,
        attributes: Attributes,
    },
    RemoveFile {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
    RemoveTree {
        path: PathBuf,
    },
    Rename {
        path: PathBuf,
        to: PathBuf,
        no_replace: bool,
    },
    Exchange {
        path: PathBuf,
        with: PathBuf,
    },
    Symlink {
        path: PathBuf,
        target: Vec<u8>,
    },
    HardLink {
        path: PathBuf,
        target: PathBuf,
    },
    SetAttributes {
        path: PathBuf,
        attributes: Attributes,
    },
    Key {
        name: Vec<u8>,
        value: Vec<u8>,
    },
}

/// What a file is to hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// What is in this file, which is found from the manifest's own directory.
    From(PathBuf),
}

/// Name of an extended attribute, and the value to set, or `None` to remove it.
pub(crate) type Xattr = (Vec<u8>, Option<Vec<u8>>);

/// Attributes to set; what is `None` is as it comes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) mtime: Option<SystemTime>,
    pub(crate) atime: Option<SystemTime>,
    pub(crate) xattrs: Vec<Xattr>,
}

/// What must hold before the first operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) path: PathBuf,
    pub(crate) expect: Expect,
}

/// What must be at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    Present,
    /// A file whose content has this hash.
    Sha256([u8; 32]),
}

impl Change {
    /// Its name in a manifest.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Append { .. } => "append",
            Self::WriteInPlace { .. } => "write_in_place",
            Self::CreateDir { .. } => "create_dir",
            Self::RemoveFile { .. } => "remove_file",
            Self::RemoveDir { .. } => "remove_dir",
            Self::RemoveTree { .. } => "remove_tree",
            Self::Rename { .. } => "rename",
            Self::Exchange { .. } => "exchange",
            Self::Symlink { .. } => "symlink",
            Self::HardLink { .. } => "hard_link",
            Self::SetAttributes { .. } => "set_attributes",
            Self::Key { .. } => "key",
        }
    }

    /// The paths beneath the root that it names.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Rename {
                path, to: other, ..
            }
            | Self::Exchange { path, with: other }
            | Self::HardLink {
                path,
                target: other,
            } => vec![path, other],
            Self::Write { path, .. }
            | Self::Append { path, .. }
            | Self::WriteInPlace { path, .. }
            | Self::CreateDir { path, .. }
            | Self::RemoveFile { path }
            | Self::RemoveDir { path }
            | Self::RemoveTree { path }
            | Self::Symlink { path, .. }
            | Self::SetAttributes { path, .. } => vec![path],
            Self::Key { .. } => Vec::new(),
        }
    }
}

impl Attributes {
    /// Whether none is to be set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

type Read<T> = Result<T, ManifestError>;

/// One entry of `operations`.
pub(super) fn operation(fields: &mut Fields<'_>) -> Read<Operation> {
    let at = fields.start();
    let op = fields.need("op", values::text)?;
    let change = match op.as_str() {
        "write" => Change::Write {
            path: path(fields)?,
            content: content(fields)?,
            create_new: fields.flag("create_new")?,
            attributes: attributes(fields)?,
        },
        "append" => Change::Append {
            path: path(fields)?,
            content: content(fields)?,
        },
        "write_in_place" => Change::WriteInPlace {
            path: path(fields)?,
            content: content(fields)?,
        },
        "create_dir" => Change::CreateDir {
            path: path(fields)?,
            parents: fields.flag("parents")?,
            attributes: attributes(fields)?,
        },
        "remove_file" => Change::RemoveFile {
            path: path(fields)?,
        },
        "remove_dir" => Change::RemoveDir {
            path: path(fields)?,
        },
        "remove_tree" => Change::RemoveTree {
            path: path(fields)?,
        },
        "rename" => Change::Rename {
            path: path(fields)?,
            to: fields.need("to", values::path)?,
            no_replace: fields.flag("no_replace")?,
        },
        "exchange" => Change::Exchange {
            path: path(fields)?,
            with: fields.need("with", values::path)?,
        },
        "symlink" => Change::Symlink {
            path: path(fields)?,
            target: fields.need("target", values::link_target)?,
        },
        "hard_link" => Change::HardLink {
            path: path(fields)?,
            target: fields.need("target", values::path)?,
        },
        "set_attributes" => Change::SetAttributes {
            path: path(fields)?,
            attributes: some_attributes(fields)?,
        },
        "key" => Change::Key {
            name: fields.need("name", values::key_name)?,
            value: fields.get("value", values::bytes)?.unwrap_or_default(),
        },
        _ => {
            let words = "unknown; known are write, append, write_in_place, create_dir, remove_file, \
                remove_dir, remove_tree, rename, exchange, symlink, hard_link, set_attributes, key";
            return Err(fields.fail(Fault::Value(words)).in_field("op"));
        }
    };
    Ok(Operation {
        line: 0,
        at,
        change,
    })
}

/// One entry of `conditions`.
pub(super) fn condition(fields: &mut Fields<'_>) -> Read<Condition> {
    Ok(Condition {
        path: path(fields)?,
        expect: fields.need("expect", values::expect)?,
    })
}

fn path(fields: &mut Fields<'_>) -> Read<PathBuf> {
    fields.need("path", values::path)
}

fn content(fields: &mut Fields<'_>) -> Read<Content> {
    let text = fields.get("content", values::text)?;
    let base64 = fields.get("content_base64", values::base64_text)?;
    let from = fields.get("from", values::outside)?;
    match (text, base64, from) {
        (Some(text), None, None) => Ok(Content::Bytes(text.into_bytes())),
        (None, Some(bytes), None) => Ok(Content::Bytes(bytes)),
        (None, None, Some(path)) => Ok(Content::From(path)),
        _ => Err(fields.fail(Fault::OneOf(&["content", "content_base64", "from"]))),
    }
}

fn attributes(fields: &mut Fields<'_>) -> Read<Attributes> {
    Ok(Attributes {
        mode: fields.get("mode", values::mode)?,
        owner: fields.get("owner", values::id)?,
        group: fields.get("group", values::id)?,
        mtime: fields.get("mtime", time::time)?,
        atime: fields.get("atime", time::time)?,
        xattrs: fields.get("xattrs", values::xattrs)?.unwrap_or_default(),
    })
}

/// Setting nothing is a mistake.
fn some_attributes(fields: &mut Fields<'_>) -> Read<Attributes> {
    let attributes = attributes(fields)?;
    if attributes.is_empty() {
        let words = "at least one of mode, owner, group, mtime, atime, xattrs is needed";
        return Err(fields.fail(Fault::Value(words)));
    }
    Ok(attributes)
}
