//! The records that a workspace writes into its logs.
//!
//! The one that commits a transaction carries the whole mapping, or, if that is too long for the log, says in
//! which file it is. Nothing is written when a transaction is done: the ledger and the horizon tell that.

use super::decode::{Nonsense, Reader};
use super::encode::Writer;
use super::identity::Stamp;
use super::mapping::Mapping;
use super::private;
use crate::journal::{Entry, Record};
use crate::{Dir, Error, ErrorKind, Name, Result};
use std::fmt;

/// The mapping of a transaction, which from this record on is done: a [`Commit`].
pub(crate) const COMMIT: u16 = Record::FIRST_KIND;
/// As [`COMMIT`] (the kind between the two is not used), with the mapping in a file: an [`InFile`].
pub(crate) const COMMIT_IN_FILE: u16 = COMMIT + 2;
/// A protected section begins.
pub(crate) const SECTION_BEGIN: u16 = COMMIT + 3;
/// Something was put away for a section.
pub(crate) const SECTION_ITEM: u16 = COMMIT + 4;
/// A named phase of a section was reached.
pub(crate) const PHASE: u16 = COMMIT + 5;
/// A section is over.
pub(crate) const SECTION_END: u16 = COMMIT + 6;

/// The version of all of them.
const VERSION: u8 = 1;
const OPERATION: &str = "read record";
/// A record that is in a file may be this long.
const LONGEST: usize = 1 << 30;

/// What a transaction does, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) number: u64,
    /// Boot id and unique number of the mount: while both are the same, nothing was lost.
    pub(crate) incarnation: (Option<[u8; 16]>, Option<u64>),
    /// When it was committed, for people.
    pub(crate) time: Stamp,
    /// What the caller calls it.
    pub(crate) label: Vec<u8>,
    pub(crate) mapping: Mapping,
}

impl Commit {
    /// The commit that is in a record of a log, or in the file that `staged` reads; `None`: the record is a
    /// section's.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); [`ErrorKind::Unsupported`] also for a kind that is not known here: what
    /// nobody understands may have changed what others are built on. What `staged` says.
    pub(crate) fn of(
        entry: &Entry,
        staged: impl FnOnce(&InFile) -> Result<Vec<u8>>,
    ) -> Result<Option<Self>> {
        let commit = match entry.kind {
            COMMIT => Self::decode(&entry.payload)?,
            COMMIT_IN_FILE => {
                let in_file = InFile::decode(&entry.payload)?;
                in_file.read(&staged(&in_file)?)?
            }
            SECTION_BEGIN | SECTION_ITEM | PHASE | SECTION_END => return Ok(None),
            kind => {
                return Err(
                    Error::of_kind(OPERATION, ErrorKind::Unsupported).with_advice(format!(
                        "the record is of kind {kind}: a newer version of this program wrote it"
                    )),
                );
            }
        };
        if commit.number == entry.transaction {
            Ok(Some(commit))
        } else {
            Err(corrupt("it is that of another"))
        }
    }

    /// As bytes, whose pieces [`Writer::parts`] gives: contents are not copied.
    pub(crate) fn written(&self) -> Writer {
        let mut w = begin().apart();
        w.u64(self.number);
        w.option(self.incarnation.0, |w, id| w.out.extend_from_slice(&id));
        w.option(self.incarnation.1, Writer::u64);
        w.stamp(self.time);
        w.bytes(&self.label);
        w.mapping(&self.mapping);
        w
    }

    #[cfg(test)]
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.written().parts().concat()
    }

    /// # Errors
    /// [`ErrorKind::Unsupported`]: a version that is not known here. [`ErrorKind::Corrupt`]: no record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes, |r| {
            Ok(Self {
                number: r.u64()?,
                incarnation: (r.option(Reader::array)?, r.option(Reader::u64)?),
                time: r.stamp()?,
                label: r.bytes()?,
                mapping: r.mapping()?,
            })
        })
    }
}

/// A [`Commit`] that is too long for the log: it is, encoded, in a file in `staged/`, which was durable
/// before this record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InFile {
    pub(crate) number: u64,
    pub(crate) name: Name,
    pub(crate) len: u64,
    /// CRC-32C of the content.
    pub(crate) crc: u32,
}

impl InFile {
    /// The record for a file of this name with `content`, an encoded [`Commit`] in pieces.
    pub(crate) fn of(number: u64, name: Name, content: &[&[u8]]) -> Self {
        let crc = |crc, piece: &&[u8]| crc32c::crc32c_append(crc, piece);
        Self {
            number,
            name,
            len: content.iter().map(|piece| piece.len() as u64).sum(),
            crc: content.iter().fold(0, crc),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = begin();
        w.u64(self.number);
        w.bytes(self.name.as_bytes());
        w.u64(self.len);
        w.u32(self.crc);
        w.out
    }

    /// # Errors
    /// As [`Commit::decode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        decode(bytes, |r| {
            Ok(Self {
                number: r.u64()?,
                name: r.name()?,
                len: r.u64()?,
                crc: r.u32()?,
            })
        })
    }

    /// What the file holds.
    pub(crate) fn content(&self, staged: &Dir) -> Result<Vec<u8>> {
        private::read(staged, &self.name, LONGEST)
    }

    /// Whether it is the content that was written.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is not.
    pub(crate) fn check(&self, content: &[u8]) -> Result<()> {
        if content.len() as u64 != self.len || crc32c::crc32c(content) != self.crc {
            return Err(corrupt("the file is not the one that was committed"));
        }
        Ok(())
    }

    /// The commit in the file's content.
    ///
    /// # Errors
    /// As [`Commit::decode`]; [`ErrorKind::Corrupt`] also where it is not the content that was written.
    pub(crate) fn read(&self, content: &[u8]) -> Result<Commit> {
        self.check(content)?;
        let commit = Commit::decode(content)?;
        if commit.number == self.number {
            Ok(commit)
        } else {
            Err(corrupt("the file is that of another transaction"))
        }
    }
}

pub(super) fn begin() -> Writer {
    Writer::new(vec![VERSION])
}

pub(super) fn decode<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> std::result::Result<T, Nonsense>,
) -> Result<T> {
    let mut reader = Reader(bytes);
    match reader.u8() {
        Ok(VERSION) => {}
        Ok(version) if version > VERSION => {
            return Err(
                Error::of_kind(OPERATION, ErrorKind::Unsupported).with_advice(format!(
                    "the record has version {version}: a newer version of this program wrote it"
                )),
            );
        }
        _ => return Err(corrupt("the record has no version")),
    }
    let value = read(&mut reader);
    let at = bytes.len() - reader.0.len();
    match value {
        Err(what) => Err(corrupt_at(what, at)),
        Ok(_) if !reader.0.is_empty() => Err(corrupt_at("the record goes on after its end", at)),
        Ok(value) => Ok(value),
    }
}

/// How a record begins, whatever follows; `None`: it does not begin so, or is of another version.
pub(super) fn decode_start<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> std::result::Result<T, Nonsense>,
) -> Option<T> {
    let mut reader = Reader(bytes);
    (reader.u8() == Ok(VERSION)).then(|| read(&mut reader).ok())?
}

#[cold]
pub(super) fn corrupt(what: Nonsense) -> Error {
    Error::of_kind(OPERATION, ErrorKind::Corrupt).with_detail(what)
}

#[cold]
fn corrupt_at(what: Nonsense, at: usize) -> Error {
    Error::of_kind(OPERATION, ErrorKind::Corrupt).with_detail(format!("byte {at}: {what}"))
}

/// Says in which record it is, and what helps.
#[cold]
pub(super) fn in_record(error: Error, which: fmt::Arguments<'_>) -> Error {
    let which = match error.detail() {
        Some(what) => format!("{which}: {what}"),
        None => which.to_string(),
    };
    let helps = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound);
    let error = error.with_detail(which);
    if helps {
        error.with_advice("repair the workspace: that tells what is given up")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::{Ident, Kind};
    use super::super::mapping::{Attributes, Before, Body, Change, Object, Place, Set, Slot};
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn ident(ino: u64) -> Ident {
        Ident {
            kind: Kind::File,
            ino,
            btime: ino.is_multiple_of(2).then_some((-5, 999_999_999)),
            len: 7 * ino,
            mtime: (i64::MAX, 0),
        }
    }

    fn new(body: Body) -> Object {
        Object::New {
            staged: name("00000001-0000000000000002"),
            ident: ident(3),
            body,
            attr: Attributes {
                mode: 0o644,
                uid: 1,
                gid: 2,
                mtime: (3, 4),
                atime: Some((5, 6)),
                xattrs: vec![(b"user.a".to_vec(), vec![0, 255])],
            },
        }
    }

    /// Every sort of everything.
    fn full() -> Commit {
        let change = |what| Change { object: 0, what };
        let slot = |place, before, after| Slot {
            place,
            name: name("n"),
            path: b"d/n".to_vec(),
            before,
            after,
        };
        let places = vec![
            Place::Existing {
                path: b"a/b".to_vec(),
                ident: ident(1),
                object: Some(0),
            },
            Place::New(4),
            Place::Keys,
        ];
        let objects = vec![
            Object::Existing {
                ident: ident(2),
                slot: 1,
            },
            new(Body::Inline(vec![7; 1000].into())),
            new(Body::Staged),
            new(Body::Symlink(b"../x".to_vec())),
            new(Body::Dir),
            new(Body::Link(0)),
            Object::Kept {
                name: name("k"),
                ident: ident(9),
            },
        ];
        let slots = vec![
            slot(0, Before::Nothing, Some(3)),
            slot(1, Before::Object(2), None),
            slot(2, Before::Anything, Some(6)),
        ];
        let changes = vec![
            change(Set::Mode {
                before: 1,
                after: 2,
            }),
            change(Set::Owner {
                before: (1, 2),
                after: (3, 4),
            }),
            change(Set::Times {
                before: (1, 2),
                after: (3, 4),
                atime: None,
            }),
            change(Set::Xattr {
                name: b"user.x".to_vec(),
                before: None,
                after: Some(vec![]),
            }),
            change(Set::Content {
                before: name("b"),
                after: name("c"),
            }),
            change(Set::Logged {
                name: name("d"),
                before: vec![5; 700].into(),
                after: Vec::new().into(),
                time: (-5, 6),
            }),
        ];
        Commit {
            number: 77,
            incarnation: (Some([8; 16]), None),
            time: (-1, 1),
            label: b"label".to_vec(),
            mapping: Mapping {
                places,
                objects,
                slots,
                changes,
                seen: Vec::new(),
                vacated: Vec::new(),
            },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let commit = full();
        let bytes = commit.encode();
        assert_eq!(Commit::decode(&bytes).unwrap(), commit);
        let file = InFile::of(77, name("f"), &[&bytes[..3], &[], &bytes[3..]]);
        assert_eq!(InFile::decode(&file.encode()).unwrap(), file);
        assert_eq!(file.read(&bytes).unwrap(), commit);
        let of_another = InFile::of(78, name("f"), &[&bytes]);
        for wrong in [file.read(&bytes[1..]), of_another.read(&bytes)] {
            assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let empty = Commit::default();
        assert_eq!(Commit::decode(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        let bytes = full().encode();
        for len in 0..bytes.len() {
            let error = Commit::decode(&bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        let error = Commit::decode(&longer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let mut newer = bytes;
        newer[0] = VERSION + 1;
        let error = Commit::decode(&newer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    /// A flipped bit is refused, or gives a record that is written as it was read: nothing is guessed. In a
    /// file it is always refused.
    #[test]
    fn no_flipped_bit_does_harm() {
        let bytes = full().encode();
        let file = InFile::of(77, name("f"), &[&bytes[..3], &[], &bytes[3..]]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = file.check(&flipped).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bit}");
            match Commit::decode(&flipped) {
                Ok(commit) => assert_eq!(commit.encode(), flipped, "{bit}"),
                Err(e) => assert!(
                    matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported),
                    "{bit}"
                ),
            }
        }
    }

    #[test]
    fn references_are_checked() {
        let refused = |spoil: fn(&mut Mapping)| {
            let mut commit = full();
            spoil(&mut commit.mapping);
            let error = Commit::decode(&commit.encode()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        };
        refused(|m| m.slots[0].after = Some(7));
        refused(|m| m.slots[0].place = 3);
        refused(|m| m.slots[0].before = Before::Object(7));
        refused(|m| m.places[1] = Place::New(7));
        refused(|m| m.places[1] = Place::New(1));
        refused(|m| m.objects[5] = new(Body::Link(5)));
        refused(|m| m.objects[5] = new(Body::Link(4)));
        refused(|m| m.changes[0].object = 1);
        refused(|m| {
            m.objects[0] = Object::Existing {
                ident: ident(2),
                slot: 3,
            }
        });
    }

    /// Refused as damage that names the byte, which begins what is wrong.
    fn assert_refused(commit: &Commit, begin: &[u8], context: &str) {
        let bytes = commit.encode();
        let error = Commit::decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}");
        let at = bytes.windows(begin.len()).position(|w| w == begin);
        let at = format!("byte {}: ", at.unwrap());
        assert!(error.to_string().contains(&at), "{context}: {error}, {at}");
    }

    /// Length and bytes.
    fn field(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
    }

    /// What no system call would take, or would take for something else.
    #[test]
    fn what_no_call_would_take_is_refused() {
        let long = |len: usize| vec![b'x'; len];
        for bad in [
            b"/a".to_vec(),
            b"a/../b".to_vec(),
            b"a//b".to_vec(),
            b"a/".to_vec(),
            b"..".to_vec(),
            b"a/nul\0/b".to_vec(),
            [b"a/", &long(4096)[..]].concat(),
        ] {
            let context = String::from_utf8_lossy(&bad).into_owned();
            let mut commit = full();
            let Place::Existing { path, .. } = &mut commit.mapping.places[0] else {
                unreachable!()
            };
            path.clone_from(&bad);
            assert_refused(&commit, &field(&bad), &context);
            let mut commit = full();
            commit.mapping.slots[1].path.clone_from(&bad);
            assert_refused(&commit, &field(&bad), &context);
        }
        for bad in [Vec::new(), b"user.\0".to_vec(), long(256)] {
            let context = String::from_utf8_lossy(&bad).into_owned();
            let mut commit = full();
            let Object::New { attr, .. } = &mut commit.mapping.objects[1] else {
                unreachable!()
            };
            attr.xattrs[0] = (bad.clone(), b"a value".to_vec());
            assert_refused(
                &commit,
                &[field(&bad), field(b"a value")].concat(),
                &context,
            );
            let mut commit = full();
            let Set::Xattr { name, after, .. } = &mut commit.mapping.changes[3].what else {
                unreachable!()
            };
            name.clone_from(&bad);
            *after = Some(b"a value".to_vec());
            let rest = [&[0, 1][..], &field(b"a value")].concat();
            assert_refused(&commit, &[field(&bad), rest].concat(), &context);
        }
        let mut commit = full();
        let Set::Xattr { after, .. } = &mut commit.mapping.changes[3].what else {
            unreachable!()
        };
        *after = Some(long((64 << 10) + 1));
        assert_refused(&commit, &field(&long((64 << 10) + 1)), "value");
        for bad in [Vec::new(), b"nul\0".to_vec(), long(4096)] {
            let mut commit = full();
            commit.mapping.objects[3] = new(Body::Symlink(bad.clone()));
            let behind = 0o644_u32.to_le_bytes();
            assert_refused(&commit, &[&field(&bad)[..], &behind].concat(), "symlink");
        }
        for bad in [0o10000, 0o100_644, 1 << 31] {
            let mut commit = full();
            let Object::New { attr, .. } = &mut commit.mapping.objects[1] else {
                unreachable!()
            };
            attr.mode = bad;
            assert_refused(&commit, &bad.to_le_bytes(), "mode");
            let mut commit = full();
            commit.mapping.changes[0].what = Set::Mode {
                before: 1,
                after: bad,
            };
            assert_refused(&commit, &bad.to_le_bytes(), "mode");
        }
        let mut commit = full();
        commit.time = (5, 1_000_000_000);
        let time = [&5_i64.to_le_bytes()[..], &1_000_000_000_u32.to_le_bytes()].concat();
        assert_refused(&commit, &time, "time");
    }
}
