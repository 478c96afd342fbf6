//! A mapping from bytes, as `encode` has written it: no panic, and no large allocation, on any bytes.
//!
//! Lists are a count and their elements; the elements are added one by one, so that a count that is not true
//! finds the end of the bytes and nothing else.

use super::identity::{Ident, Kind, Stamp};
use super::mapping::{Attributes, Before, Body, Change, Mapping, Object, Place, Set, Slot};
use crate::Name;
use crate::root::PATH_MAX;

/// What is wrong with bytes that are no record.
pub(super) type Nonsense = &'static str;

/// Bytes that are read from the front.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

type Read<T> = Result<T, Nonsense>;

const SHORT: Nonsense = "the record ends before its content does";
const TAG: Nonsense = "the record holds something of no known sort";
const INDEX: Nonsense = "the record refers to something that it does not hold";

/// Permission bits, set-user-id, set-group-id and sticky bit.
const MODE: u32 = 0o7777;
/// File systems in user space may have names as long as a path.
const LONGEST_NAME: usize = PATH_MAX - 1;
/// `XATTR_NAME_MAX` and `XATTR_SIZE_MAX`.
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 64 << 10;

/// How many of each a mapping says it has.
struct Counts {
    places: usize,
    objects: usize,
    slots: usize,
    changes: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[n]| n)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn stamp(&mut self) -> Read<Stamp> {
        let start = self.0;
        let seconds = self.array().map(i64::from_le_bytes)?;
        let nanos = self.u32()?;
        if nanos < 1_000_000_000 {
            return Ok((seconds, nanos));
        }
        self.0 = start;
        Err("the record holds a time that is none")
    }

    fn count(&mut self) -> Read<usize> {
        let n = self.u32()?;
        usize::try_from(n).map_err(|_| SHORT)
    }

    pub(super) fn index(&mut self, of: usize) -> Read<usize> {
        let n = self.count()?;
        if n < of { Ok(n) } else { Err(INDEX) }
    }

    pub(super) fn bytes(&mut self) -> Read<Vec<u8>> {
        let n = self.count()?;
        self.take(n).map(<[u8]>::to_vec)
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(TAG),
        }
    }

    pub(super) fn name(&mut self) -> Read<Name> {
        let start = self.0;
        let n = self.count()?;
        let bytes = self.take(n)?;
        Name::from_bytes(bytes)
            .ok()
            .filter(|_| n <= LONGEST_NAME)
            .ok_or_else(|| {
                self.0 = start;
                "the record holds a name that is none"
            })
    }

    /// A path beneath the root that goes straight down. It may be longer than the kernel takes at once: links
    /// lead there.
    pub(super) fn path(&mut self) -> Read<Vec<u8>> {
        let straight = |part: &[u8]| part.len() <= LONGEST_NAME && Name::from_bytes(part).is_ok();
        let is_path = |path: &[u8]| path.is_empty() || path.split(|b| *b == b'/').all(straight);
        self.checked(
            is_path,
            "the record holds a path that does not go straight down",
        )
    }

    /// Bytes that pass a test. If not, the reader stays in front of them.
    fn checked(&mut self, test: impl FnOnce(&[u8]) -> bool, what: Nonsense) -> Read<Vec<u8>> {
        let start = self.0;
        let bytes = self.bytes()?;
        if test(&bytes) {
            return Ok(bytes);
        }
        self.0 = start;
        Err(what)
    }

    /// The text of a symlink.
    fn target(&mut self) -> Read<Vec<u8>> {
        let is_target = |text: &[u8]| (1..PATH_MAX).contains(&text.len()) && !text.contains(&0);
        self.checked(is_target, "the record holds a symlink's text that is none")
    }

    /// The name of an extended attribute.
    pub(super) fn xattr(&mut self) -> Read<Vec<u8>> {
        let is_name = |name: &[u8]| (1..=XATTR_NAME).contains(&name.len()) && !name.contains(&0);
        self.checked(
            is_name,
            "the record holds a name of an extended attribute that is none",
        )
    }

    /// The value of an extended attribute.
    fn value(&mut self) -> Read<Vec<u8>> {
        let is_value = |value: &[u8]| value.len() <= XATTR_VALUE;
        self.checked(
            is_value,
            "the record holds a value of an extended attribute that is too long",
        )
    }

    /// Permissions, without the type of the file.
    fn mode(&mut self) -> Read<u32> {
        let start = self.0;
        let mode = self.u32()?;
        if mode & !MODE == 0 {
            return Ok(mode);
        }
        self.0 = start;
        Err("the record holds a mode that is none")
    }

    pub(super) fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(TAG),
        }
    }

    pub(super) fn ident(&mut self) -> Read<Ident> {
        let kind = match self.u8()? {
            0 => Kind::File,
            1 => Kind::Dir,
            2 => Kind::Symlink,
            3 => Kind::Special,
            _ => return Err(TAG),
        };
        Ok(Ident {
            kind,
            ino: self.u64()?,
            btime: self.option(Self::stamp)?,
            len: self.u64()?,
            mtime: self.stamp()?,
        })
    }

    fn list<T>(&mut self, n: usize, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut list = Vec::new();
        for _ in 0..n {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// A count, and so many elements.
    pub(super) fn counted<T>(&mut self, read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let n = self.count()?;
        self.list(n, read)
    }

    pub(super) fn mapping(&mut self) -> Read<Mapping> {
        let counts = Counts {
            places: self.count()?,
            objects: self.count()?,
            slots: self.count()?,
            changes: self.count()?,
        };
        let mapping = Mapping {
            places: self.list(counts.places, |r| r.place(&counts))?,
            objects: self.list(counts.objects, |r| r.object(&counts))?,
            slots: self.list(counts.slots, |r| r.slot(&counts))?,
            changes: self.list(counts.changes, |r| r.change(&counts))?,
            seen: Vec::new(),
            vacated: Vec::new(),
        };
        check(&mapping)?;
        Ok(mapping)
    }

    fn place(&mut self, counts: &Counts) -> Read<Place> {
        Ok(match self.u8()? {
            0 => Place::Existing {
                path: self.path()?,
                ident: self.ident()?,
                object: self.option(|r| r.index(counts.objects))?,
            },
            1 => Place::New(self.index(counts.objects)?),
            2 => Place::Keys,
            _ => return Err(TAG),
        })
    }

    fn object(&mut self, counts: &Counts) -> Read<Object> {
        Ok(match self.u8()? {
            0 => Object::Existing {
                ident: self.ident()?,
                slot: self.index(counts.slots)?,
            },
            1 => Object::New {
                staged: self.name()?,
                ident: self.ident()?,
                body: self.body(counts)?,
                attr: self.attributes()?,
            },
            2 => Object::Kept {
                name: self.name()?,
                ident: self.ident()?,
            },
            _ => return Err(TAG),
        })
    }

    fn body(&mut self, counts: &Counts) -> Read<Body> {
        Ok(match self.u8()? {
            0 => Body::Inline(self.bytes()?.into()),
            1 => Body::Staged,
            2 => Body::Symlink(self.target()?),
            3 => Body::Dir,
            4 => Body::Link(self.index(counts.objects)?),
            _ => return Err(TAG),
        })
    }

    pub(super) fn attributes(&mut self) -> Read<Attributes> {
        Ok(Attributes {
            mode: self.mode()?,
            uid: self.u32()?,
            gid: self.u32()?,
            mtime: self.stamp()?,
            atime: self.option(Self::stamp)?,
            xattrs: {
                let n = self.count()?;
                self.list(n, |r| Ok((r.xattr()?, r.value()?)))?
            },
        })
    }

    fn slot(&mut self, counts: &Counts) -> Read<Slot> {
        Ok(Slot {
            place: self.index(counts.places)?,
            name: self.name()?,
            path: self.path()?,
            before: match self.u8()? {
                0 => Before::Nothing,
                1 => Before::Object(self.index(counts.objects)?),
                2 => Before::Anything,
                _ => return Err(TAG),
            },
            after: self.option(|r| r.index(counts.objects))?,
        })
    }

    fn change(&mut self, counts: &Counts) -> Read<Change> {
        let object = self.index(counts.objects)?;
        let what = self.set()?;
        Ok(Change { object, what })
    }

    pub(super) fn set(&mut self) -> Read<Set> {
        Ok(match self.u8()? {
            0 => Set::Mode {
                before: self.mode()?,
                after: self.mode()?,
            },
            1 => Set::Owner {
                before: (self.u32()?, self.u32()?),
                after: (self.u32()?, self.u32()?),
            },
            2 => Set::Times {
                before: self.stamp()?,
                after: self.stamp()?,
                atime: self.option(Self::stamp)?,
            },
            3 => Set::Xattr {
                name: self.xattr()?,
                before: self.option(Self::value)?,
                after: self.option(Self::value)?,
            },
            4 => Set::Content {
                before: self.name()?,
                after: self.name()?,
            },
            5 => Set::Logged {
                name: self.name()?,
                before: self.bytes()?.into(),
                after: self.bytes()?.into(),
                time: self.stamp()?,
            },
            _ => return Err(TAG),
        })
    }
}

/// What each part for itself does not show: that references mean something.
fn check(mapping: &Mapping) -> Read<()> {
    let new = |object: usize| match mapping.objects.get(object) {
        Some(Object::New { body, .. }) => Some(body),
        _ => None,
    };
    for place in &mapping.places {
        if let Place::New(object) = place
            && new(*object) != Some(&Body::Dir)
        {
            return Err("the record has names in a new thing that is no directory");
        }
    }
    for object in &mapping.objects {
        if let Object::New {
            body: Body::Link(to),
            ..
        } = object
            && matches!(new(*to), Some(Body::Link(_) | Body::Dir))
        {
            return Err("the record has a link to a link or directory");
        }
    }
    for change in &mapping.changes {
        if !matches!(
            mapping.objects.get(change.object),
            Some(Object::Existing { .. })
        ) {
            return Err("the record changes something that was not there");
        }
    }
    Ok(())
}
