//! A mapping as bytes; `decode` is the way back. The layout is written down in `docs/workspace-format.md`.

use super::identity::{Ident, Kind, Stamp};
use super::mapping::{Attributes, Before, Body, Change, Mapping, Object, Place, Set, Slot};
use crate::Name;
use std::sync::Arc;

/// Contents that are shorter are copied rather than kept apart.
const APART: usize = 512;

/// Bytes under construction.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    /// Long contents, each with where in `out` it stands, if they are kept apart.
    apart: Option<Vec<(usize, Arc<[u8]>)>>,
}

impl Writer {
    /// Bytes that begin with these.
    pub(super) fn new(out: Vec<u8>) -> Self {
        Self { out, apart: None }
    }

    /// Long contents are not copied from now on: [`parts`](Self::parts) has them.
    pub(super) fn apart(mut self) -> Self {
        self.apart = Some(Vec::new());
        self
    }

    /// All bytes in order, in pieces.
    pub(super) fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        let mut rest = self.out.as_slice();
        let mut at = 0;
        for (stands, content) in self.apart.iter().flatten() {
            // It was the length of `out` when the content came, so it is not beyond.
            let (before, after) = rest.split_at(stands - at);
            parts.extend([before, content]);
            (rest, at) = (after, *stands);
        }
        parts.push(rest);
        parts
    }

    /// The content of a file.
    fn content(&mut self, content: &Arc<[u8]>) {
        match &mut self.apart {
            Some(apart) if content.len() >= APART => {
                let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
                self.out.extend_from_slice(&len.to_le_bytes());
                apart.push((self.out.len(), Arc::clone(content)));
            }
            _ => self.bytes(content),
        }
    }

    pub(super) fn u8(&mut self, n: u8) {
        self.out.push(n);
    }

    pub(super) fn u32(&mut self, n: u32) {
        self.out.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn u64(&mut self, n: u64) {
        self.out.extend_from_slice(&n.to_le_bytes());
    }

    pub(super) fn stamp(&mut self, (seconds, nanos): Stamp) {
        self.out.extend_from_slice(&seconds.to_le_bytes());
        self.u32(nanos);
    }

    /// A count or length. What does not fit can not be written either: a record is far shorter.
    pub(super) fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }

    pub(super) fn index(&mut self, n: usize) {
        self.count(n);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn list<T>(&mut self, all: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.count(all.len());
        for one in all {
            write(self, one);
        }
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
            }
        }
    }

    pub(super) fn name(&mut self, name: &Name) {
        self.bytes(name.as_bytes());
    }

    pub(super) fn ident(&mut self, ident: &Ident) {
        self.u8(match ident.kind {
            Kind::File => 0,
            Kind::Dir => 1,
            Kind::Symlink => 2,
            Kind::Special => 3,
        });
        self.u64(ident.ino);
        self.option(ident.btime, Self::stamp);
        self.u64(ident.len);
        self.stamp(ident.mtime);
    }

    pub(super) fn mapping(&mut self, mapping: &Mapping) {
        self.count(mapping.places.len());
        self.count(mapping.objects.len());
        self.count(mapping.slots.len());
        self.count(mapping.changes.len());
        mapping.places.iter().for_each(|p| self.place(p));
        mapping.objects.iter().for_each(|o| self.object(o));
        mapping.slots.iter().for_each(|s| self.slot(s));
        mapping.changes.iter().for_each(|c| self.change(c));
    }

    fn place(&mut self, place: &Place) {
        match place {
            Place::Existing {
                path,
                ident,
                object,
            } => {
                self.u8(0);
                self.bytes(path);
                self.ident(ident);
                self.option(*object, Self::index);
            }
            Place::New(object) => {
                self.u8(1);
                self.index(*object);
            }
            Place::Keys => self.u8(2),
        }
    }

    fn object(&mut self, object: &Object) {
        match object {
            Object::Existing { ident, slot } => {
                self.u8(0);
                self.ident(ident);
                self.index(*slot);
            }
            Object::New {
                staged,
                ident,
                body,
                attr,
            } => {
                self.u8(1);
                self.name(staged);
                self.ident(ident);
                self.body(body);
                self.attributes(attr);
            }
            Object::Kept { name, ident } => {
                self.u8(2);
                self.name(name);
                self.ident(ident);
            }
        }
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Inline(content) => {
                self.u8(0);
                self.content(content);
            }
            Body::Staged => self.u8(1),
            Body::Symlink(target) => {
                self.u8(2);
                self.bytes(target);
            }
            Body::Dir => self.u8(3),
            Body::Link(object) => {
                self.u8(4);
                self.index(*object);
            }
        }
    }

    pub(super) fn attributes(&mut self, attr: &Attributes) {
        self.u32(attr.mode);
        self.u32(attr.uid);
        self.u32(attr.gid);
        self.stamp(attr.mtime);
        self.option(attr.atime, Self::stamp);
        self.count(attr.xattrs.len());
        for (name, value) in &attr.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn slot(&mut self, slot: &Slot) {
        self.index(slot.place);
        self.name(&slot.name);
        self.bytes(&slot.path);
        match slot.before {
            Before::Nothing => self.u8(0),
            Before::Object(object) => {
                self.u8(1);
                self.index(object);
            }
            Before::Anything => self.u8(2),
        }
        self.option(slot.after, Self::index);
    }

    fn change(&mut self, change: &Change) {
        self.index(change.object);
        self.set(&change.what);
    }

    pub(super) fn set(&mut self, set: &Set) {
        match set {
            Set::Mode { before, after } => {
                self.u8(0);
                self.u32(*before);
                self.u32(*after);
            }
            Set::Owner { before, after } => {
                self.u8(1);
                for n in [before.0, before.1, after.0, after.1] {
                    self.u32(n);
                }
            }
            Set::Times {
                before,
                after,
                atime,
            } => {
                self.u8(2);
                self.stamp(*before);
                self.stamp(*after);
                self.option(*atime, Self::stamp);
            }
            Set::Xattr {
                name,
                before,
                after,
            } => {
                self.u8(3);
                self.bytes(name);
                self.option(before.as_deref(), Self::bytes);
                self.option(after.as_deref(), Self::bytes);
            }
            Set::Content { before, after } => {
                self.u8(4);
                self.name(before);
                self.name(after);
            }
            Set::Logged {
                name,
                before,
                after,
                time,
            } => {
                self.u8(5);
                self.name(name);
                self.content(before);
                self.content(after);
                self.stamp(*time);
            }
        }
    }
}
