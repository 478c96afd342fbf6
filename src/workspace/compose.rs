//! Several transactions, one after the other, as one.
//!
//! After a power cut the names of any of them may have been lost, in any order, and what one made another may
//! have moved or removed. So what is pending is not finished one by one but as a whole: for each name what
//! stood there before the first, and what is to stand there after the last.

use super::identity::Ident;
use super::mapping::{
    Before, Body, Change, Mapping, Object, ObjectIx, Place, PlaceIx, Slot, SlotIx,
};
use crate::Name;

/// Adds `next`, which was committed on top of `sum`, to it.
pub(crate) fn compose(sum: &mut Mapping, next: Mapping) {
    // Where the things of `next` are in the sum. What is new is another thing than all that was known.
    let mut objects: Vec<Option<ObjectIx>> = Vec::with_capacity(next.objects.len());
    let first_new = sum.objects.len();
    for object in &next.objects {
        let new = !matches!(object, Object::Existing { .. });
        objects.push(new.then_some(sum.objects.len()));
        if new {
            sum.objects.push(object.clone());
        }
    }
    let places: Vec<PlaceIx> = (next.places.iter())
        .map(|place| find_place(sum, place, &objects))
        .collect();
    let known = sum.slots.len();
    let mut slots: Vec<SlotIx> = Vec::with_capacity(next.slots.len());
    for slot in &next.slots {
        let place = places[slot.place];
        let at = sum.slots[..known]
            .iter()
            .position(|s| s.place == place && s.name == slot.name);
        slots.push(at.unwrap_or(sum.slots.len()));
        if at.is_none() {
            // What stands there is filled in when all things are known.
            sum.slots.push(Slot {
                place,
                after: None,
                before: Before::Nothing,
                ..slot.clone()
            });
        }
    }
    for (ix, object) in next.objects.iter().enumerate() {
        if let Object::Existing { ident, slot } = object {
            objects[ix] = Some(find_existing(sum, ident, slots[*slot], known));
        }
    }
    // Every object has its place in the sum now.
    let to_sum = |object: ObjectIx| objects[object].unwrap_or(object);
    for (slot, ix) in next.slots.into_iter().zip(slots) {
        let target = &mut sum.slots[ix];
        if ix < known && target.after.is_none() && slot.after.is_some() {
            sum.vacated.push(ix);
        }
        target.after = slot.after.map(to_sum);
        target.path = slot.path;
        if ix >= known {
            target.before = match slot.before {
                Before::Object(object) => Before::Object(to_sum(object)),
                other => other,
            };
        }
    }
    for (place, ix) in next.places.iter().zip(places) {
        if let (
            Place::Existing {
                object: Some(o), ..
            },
            Some(Place::Existing { object, .. }),
        ) = (place, sum.places.get_mut(ix))
        {
            *object = Some(to_sum(*o));
        }
    }
    for object in sum.objects.iter_mut().skip(first_new) {
        if let Object::New {
            body: Body::Link(of),
            ..
        } = object
        {
            *of = to_sum(*of);
        }
    }
    let changes = next.changes.into_iter().map(|change| Change {
        object: to_sum(change.object),
        ..change
    });
    sum.changes.extend(changes);
    bury(sum);
}

/// The directory in the sum: by identity, wherever an earlier transaction has made or moved it.
fn find_place(sum: &mut Mapping, place: &Place, objects: &[Option<ObjectIx>]) -> PlaceIx {
    let wanted = match place {
        Place::Keys => Place::Keys,
        Place::New(object) => Place::New(objects[*object].unwrap_or(*object)),
        Place::Existing { path, ident, .. } => {
            let same =
                |p: &Place| matches!(p, Place::Existing { ident: known, .. } if known.is(ident));
            if let Some(known) = sum.places.iter().position(same) {
                return known;
            }
            let object = sum.objects.iter().position(|o| match o {
                Object::New {
                    ident: known,
                    body: Body::Dir,
                    ..
                }
                | Object::Existing { ident: known, .. } => known.is(ident),
                _ => false,
            });
            match object.map(|ix| (ix, &sum.objects[ix])) {
                Some((ix, Object::New { .. })) => Place::New(ix),
                Some((ix, Object::Existing { slot, .. })) => Place::Existing {
                    path: path_before(sum, *slot),
                    ident: *ident,
                    object: Some(ix),
                },
                _ => Place::Existing {
                    path: before_moves(sum, path),
                    ident: *ident,
                    object: None,
                },
            }
        }
    };
    let known = sum.places.iter().position(|p| *p == wanted);
    known.unwrap_or_else(|| {
        sum.places.push(wanted);
        sum.places.len() - 1
    })
}

/// The thing that stood at the slot: what the earlier transactions left there, or one that they did not
/// touch.
fn find_existing(sum: &mut Mapping, ident: &Ident, slot: SlotIx, known: usize) -> ObjectIx {
    if slot < known
        && let Some(object) = sum.slots[slot].after
        && ident_of(&sum.objects[object]).is(ident)
    {
        if !ident_of(&sum.objects[object]).is_unchanged(ident) {
            sum.seen.push((object, *ident));
        }
        return object;
    }
    sum.objects.push(Object::Existing {
        ident: *ident,
        slot,
    });
    sum.objects.len() - 1
}

pub(crate) fn ident_of(object: &Object) -> &Ident {
    match object {
        Object::Existing { ident, .. } | Object::New { ident, .. } | Object::Kept { ident, .. } => {
            ident
        }
    }
}

/// The path of a slot before all of it; of one in a new directory, the one it gets.
fn path_before(sum: &Mapping, slot: SlotIx) -> Vec<u8> {
    let slot = &sum.slots[slot];
    match &sum.places[slot.place] {
        Place::Existing { path, .. } => join(path, &slot.name),
        _ => slot.path.clone(),
    }
}

/// A path as it is after the sum, as it was before it: directories on the way may have been moved.
fn before_moves(sum: &Mapping, path: &[u8]) -> Vec<u8> {
    let moved = sum.slots.iter().filter_map(|slot| {
        let below = path.strip_prefix(&slot.path[..])?;
        match &sum.objects[slot.after?] {
            Object::Existing { slot: from, .. } if below.starts_with(b"/") => {
                Some((slot.path.len(), path_before(sum, *from), below))
            }
            _ => None,
        }
    });
    match moved.max_by_key(|(len, ..)| *len) {
        Some((_, mut from, below)) => {
            from.extend_from_slice(below);
            from
        }
        None => path.to_vec(),
    }
}

fn join(path: &[u8], name: &Name) -> Vec<u8> {
    let mut path = path.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

/// Nothing is to be put into directories that are to be gone at the end. Their slots remain as places where
/// something may be found that is to be elsewhere.
fn bury(sum: &mut Mapping) {
    loop {
        let placed = |object: ObjectIx| sum.slots.iter().any(|s| s.after == Some(object));
        let gone: Vec<Vec<u8>> = (sum.objects.iter().enumerate())
            .filter_map(|(ix, object)| match object {
                Object::Existing { slot, .. } if !placed(ix) => Some(path_before(sum, *slot)),
                _ => None,
            })
            .collect();
        let dead = |place: &Place| match place {
            Place::New(object) => !placed(*object),
            Place::Existing {
                object: Some(object),
                ..
            } => !placed(*object),
            Place::Existing { path, .. } => gone.iter().any(|gone| {
                let below = path.strip_prefix(&gone[..]);
                below.is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
            }),
            Place::Keys => false,
        };
        let buried: Vec<SlotIx> = (sum.slots.iter().enumerate())
            .filter(|(_, slot)| slot.after.is_some() && dead(&sum.places[slot.place]))
            .map(|(ix, _)| ix)
            .collect();
        if buried.is_empty() {
            return;
        }
        for ix in buried {
            sum.slots[ix].after = None;
        }
    }
}
