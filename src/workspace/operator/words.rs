//! Names and sentences for people: slots, changes, things, times.

use crate::workspace::identity::Kind;
use crate::workspace::mapping::{Before, Body, Change, Mapping, Object, Set, Slot};
use crate::workspace::plan::Shown;
use crate::workspace::record::{
    COMMIT, COMMIT_IN_FILE, PHASE, SECTION_BEGIN, SECTION_END, SECTION_ITEM,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The name of a kind of record.
pub(super) fn kind(kind: u16) -> &'static str {
    match kind {
        COMMIT => "commit",
        COMMIT_IN_FILE => "commit-in-file",
        SECTION_BEGIN => "section-begin",
        SECTION_ITEM => "section-item",
        PHASE => "phase",
        SECTION_END => "section-end",
        _ => "unknown",
    }
}

fn shown(path: &[u8]) -> Shown<'_> {
    Shown(Path::new(OsStr::from_bytes(path)))
}

fn thing(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Special => "special file",
    }
}

/// What happens at a slot.
pub(super) fn slot(mapping: &Mapping, slot: &Slot) -> String {
    let path = shown(&slot.path);
    let object = |ix: usize| mapping.objects.get(ix);
    let kind = |ix| object(ix).map_or("thing", |o| thing(ident_kind(o)));
    match (slot.before, slot.after.and_then(object), slot.after) {
        (Before::Object(was), _, Some(now)) if was == now => format!("{path} stays"),
        (Before::Object(was), _, None) => {
            let to = mapping.slots.iter().find(|s| s.after == Some(was));
            match to {
                Some(to) => format!("move {path} -> {}", shown(&to.path)),
                None => format!("remove {path} ({})", kind(was)),
            }
        }
        (_, None, _) => format!("leave {path} empty"),
        (before, Some(Object::Existing { slot: from, .. }), _) => {
            let from = mapping.slots.get(*from).map_or(&b""[..], |s| &s.path);
            let replaces = match before {
                Before::Object(_) => " (replaces)",
                _ => "",
            };
            format!("move {} -> {path}{replaces}", shown(from))
        }
        (_, Some(Object::Kept { .. }), _) => format!("put back {path}"),
        (before, Some(Object::New { body, .. }), Some(now)) => {
            let verb = match before {
                Before::Object(_) => "replace",
                _ => "create",
            };
            match body {
                Body::Inline(content) => format!("{verb} {path} (file, {} bytes)", content.len()),
                Body::Link(_) => format!("{verb} {path} (another name of a file)"),
                _ => format!("{verb} {path} ({})", kind(now)),
            }
        }
        (_, Some(_), None) => format!("leave {path} as it is"),
    }
}

fn ident_kind(object: &Object) -> Kind {
    crate::workspace::compose::ident_of(object).kind
}

/// The path that a change is about.
pub(super) fn changed_path<'m>(mapping: &'m Mapping, change: &Change) -> &'m [u8] {
    let after = mapping
        .slots
        .iter()
        .find(|s| s.after == Some(change.object));
    match (after, mapping.objects.get(change.object)) {
        (Some(slot), _) => &slot.path,
        (None, Some(Object::Existing { slot, .. })) => {
            mapping.slots.get(*slot).map_or(&b""[..], |s| &s.path)
        }
        _ => b"",
    }
}

/// What a change does.
pub(super) fn change(mapping: &Mapping, change: &Change) -> String {
    let path = shown(changed_path(mapping, change));
    match &change.what {
        Set::Mode { before, after } => format!("chmod {after:04o} {path} (was {before:04o})"),
        Set::Owner { before, after } => {
            let ((u, g), (old_u, old_g)) = (after, before);
            format!("chown {u}:{g} {path} (was {old_u}:{old_g})")
        }
        Set::Times { .. } => format!("set times of {path}"),
        Set::Xattr { name, after, .. } => {
            let verb = match after {
                Some(_) => "set",
                None => "remove",
            };
            format!("{verb} attribute {} of {path}", shown(name))
        }
        Set::Content { .. } | Set::Logged { .. } => format!("write in place {path}"),
    }
}
