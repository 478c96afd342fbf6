//! The steps of a plan: lines for a person, objects for a program. Paths are beneath the root.

use crate::paths::{insert_path, path_value};
use serde_json::{Map, Value, json};
use std::path::Path;
use steadfast::workspace::{Step, StepKind, Thing};

/// One line for each step.
pub(super) fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// One object for each step.
pub(super) fn values(steps: &[Step]) -> Vec<Value> {
    steps.iter().map(value).collect()
}

fn value(step: &Step) -> Value {
    let mut object = Map::new();
    insert_path(&mut object, "path", &step.path);
    let mut put = |key: &str, value: Value| drop(object.insert(key.into(), value));
    let step = match &step.kind {
        StepKind::Create(thing) => {
            put("thing", self::thing(thing));
            "create"
        }
        StepKind::Replace(thing) => {
            put("thing", self::thing(thing));
            "replace"
        }
        StepKind::Remove(thing) => {
            put("thing", self::thing(thing));
            "remove"
        }
        StepKind::Move { from, replaces } => {
            put("from", path_value(from));
            put("replaces", (*replaces).into());
            "move"
        }
        StepKind::Exchange { with } => {
            put("with", path_value(with));
            "exchange"
        }
        StepKind::Mode(mode) => {
            put("mode", format!("{mode:04o}").into());
            "chmod"
        }
        StepKind::Owner { uid, gid } => {
            put("owner", (*uid).into());
            put("group", (*gid).into());
            "chown"
        }
        StepKind::Times => "set_times",
        StepKind::SetXattr(name) => {
            put("name", path_value(Path::new(name)));
            "set_xattr"
        }
        StepKind::RemoveXattr(name) => {
            put("name", path_value(Path::new(name)));
            "remove_xattr"
        }
        StepKind::WriteInPlace { len } => {
            put("bytes", (*len).into());
            "write_in_place"
        }
        StepKind::Key => "record_key",
        _ => "other",
    };
    put("step", step.into());
    object.into()
}

fn thing(thing: &Thing) -> Value {
    match thing {
        Thing::File { len } => json!({"kind": "file", "bytes": len}),
        Thing::Dir => json!({"kind": "directory"}),
        Thing::Symlink { target } => {
            json!({"kind": "symlink", "target": target.as_deref().map(path_value)})
        }
        Thing::Link { of } => json!({"kind": "hard_link", "of": path_value(of)}),
        Thing::Special => json!({"kind": "special"}),
        other => json!({"kind": other.to_string()}),
    }
}
