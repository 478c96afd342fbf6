//! Feature `tracing`: the spans of an operation, and the syncs in them.
//!
//! One test in a binary of its own: whether anybody listens is kept for each place in the code, and another
//! test that reaches the same place without a listener could be the one that is remembered.
#![allow(clippy::unwrap_used)] // Helpers of tests, too, fail by panicking.

#[path = "../common/mod.rs"]
mod common;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use steadfast::publish::FileOptions;
use steadfast::sys::hook;
use steadfast::{Durability, Root};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down spans and events as they come.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The fields but those that are another number each time.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "micros" {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("steadfast")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(format!("span {}", span.metadata().name()));
        span.record(&mut fields);
        let mut notes = self.0.lock().unwrap();
        notes.push(fields.0);
        Id::from_u64(notes.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(event.metadata().level().to_string());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
    fn enter(&self, _: &Id) {
        self.0.lock().unwrap().push("enter".to_owned());
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().push("exit".to_owned());
    }
}

#[test]
fn each_sync_is_told_within_its_operation() {
    let dir = common::dir();
    let root = Root::open(dir.path()).unwrap();
    let notes = Notes::default();
    let begin = ["span begin file path=\"a\"", "enter", "exit"];
    let publish = ["span publish file path=\"a\"", "enter"];
    let synced = "DEBUG message=synced call=\"fsync\"";
    tracing::subscriber::with_default(notes.clone(), || {
        FileOptions::new().write(&root, "a", "1").unwrap();
        let expected = [&begin[..], &publish, &[synced, synced, "exit"]].concat();
        assert_eq!(notes.take(), expected);

        let options = FileOptions::new().durability(Durability::None);
        options.write(&root, "a", "2").unwrap();
        assert_eq!(notes.take(), [&begin[..], &publish, &["exit"]].concat());
    });
    // Nobody listens any more.
    FileOptions::new().write(&root, "a", "3").unwrap();
    assert_eq!(notes.take(), [""; 0]);

    tracing::subscriber::with_default(notes.clone(), || {
        hook::deny(&[("fsync", steadfast::sys::Errno::IO)], || {
            FileOptions::new().write(&root, "a", "1").unwrap_err();
        });
    });
    let failed = "WARN message=sync failed call=\"fsync\" errno=\"EIO\"";
    let found = notes.take();
    assert_eq!(
        found.iter().filter(|n| *n == failed).count(),
        1,
        "{found:#?}"
    );
}
