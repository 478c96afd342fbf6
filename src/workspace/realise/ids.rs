//! What each object is, as far as known now, and which of them a thing that was found may be: by its inode
//! number, so that a transaction of many files does not compare each with each.

use super::super::identity::Ident;
use super::super::mapping::{Mapping, ObjectIx};
use super::state::ident_of;
use std::collections::HashMap;
use std::ops::Index;

/// By object, and by inode number.
pub(super) struct Ids {
    now: Vec<Ident>,
    /// All numbers that an object has, or had since it was recorded. What a transaction has changed, or found
    /// changed, is the same inode.
    by_number: HashMap<u64, Vec<ObjectIx>>,
}

impl Ids {
    /// As the mapping says.
    pub(super) fn new(mapping: &Mapping) -> Self {
        let mut ids = Self {
            now: mapping.objects.iter().map(ident_of).collect(),
            by_number: HashMap::with_capacity(mapping.objects.len()),
        };
        for object in 0..ids.now.len() {
            ids.also(object, ids.now[object]);
        }
        ids
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    /// The object is this now.
    pub(super) fn set(&mut self, object: ObjectIx, ident: Ident) {
        self.now[object] = ident;
        self.also(object, ident);
    }

    fn also(&mut self, object: ObjectIx, ident: Ident) {
        let objects = self.by_number.entry(ident.ino).or_default();
        if !objects.contains(&object) {
            objects.push(object);
        }
    }

    /// Every object that this may be, and perhaps others.
    pub(super) fn candidates(&self, found: &Ident) -> &[ObjectIx] {
        self.by_number.get(&found.ino).map_or(&[], Vec::as_slice)
    }
}

/// Incomplete files of ours that a crash has left, by inode number.
#[derive(Default)]
pub(super) struct Torn(HashMap<u64, Vec<Ident>>);

impl Torn {
    pub(super) fn add(&mut self, torn: Option<Ident>) {
        if let Some(torn) = torn {
            self.0.entry(torn.ino).or_default().push(torn);
        }
    }

    /// Those that this may be.
    pub(super) fn candidates(&self, found: &Ident) -> &[Ident] {
        self.0.get(&found.ino).map_or(&[], Vec::as_slice)
    }
}

impl Index<ObjectIx> for Ids {
    type Output = Ident;

    fn index(&self, object: ObjectIx) -> &Ident {
        &self.now[object]
    }
}
