//! What a section writes into its log.
//!
//! It has a log of its own for as long as it lives: a beginning, then for each step what takes it back, and
//! the end, which decides. What is too long for the log is in a file, as with commits.

use super::evidence::{self, Evidence};
use super::undo::{Fragment, Place, Spot, Undo, What};
use crate::journal::Entry;
use crate::workspace::decode::{Nonsense, Reader};
use crate::workspace::encode::Writer;
use crate::workspace::identity::Stamp;
use crate::workspace::record::{
    self, InFile, PHASE, SECTION_BEGIN, SECTION_END, SECTION_ITEM, corrupt,
};
use crate::{Dir, Error, Result};
use std::collections::BTreeSet;

const TAG: Nonsense = "the record holds something of no known sort";
const OTHER: Nonsense = "it is that of another section";

/// How a section begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::workspace) struct Begin {
    pub(in crate::workspace) number: u64,
    /// When: nothing that anybody did before has a later time.
    pub(in crate::workspace) time: Stamp,
    pub(in crate::workspace) label: Vec<u8>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// What takes a change back.
    Undo(Fragment),
    Resource {
        hook: String,
        payload: Vec<u8>,
    },
    Evidence(Vec<Evidence>),
    /// Another one, which was too long.
    InFile(InFile),
}

/// How it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With these keys and their values.
    Committed(Vec<(Vec<u8>, Vec<u8>)>),
    TakenBack,
    /// What was there when its process died stays.
    GivenUp,
}

impl Begin {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = record::begin();
        w.u64(self.number);
        w.stamp(self.time);
        w.bytes(&self.label);
        w.out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        record::decode(bytes, |r| {
            Ok(Self {
                number: r.u64()?,
                time: r.stamp()?,
                label: r.bytes()?,
            })
        })
    }
}

impl Item {
    pub(super) fn encode(&self, number: u64) -> Vec<u8> {
        let mut w = record::begin();
        w.u64(number);
        match self {
            Self::Undo(fragment) => {
                w.u8(0);
                put_fragment(&mut w, fragment);
            }
            Self::Resource { hook, payload } => {
                w.u8(1);
                w.bytes(hook.as_bytes());
                w.bytes(payload);
            }
            Self::Evidence(all) => {
                w.u8(2);
                w.list(all, evidence::put);
            }
            Self::InFile(file) => {
                w.u8(3);
                w.bytes(&file.encode());
            }
        }
        w.out
    }

    pub(super) fn decode(bytes: &[u8], number: u64) -> Result<Self> {
        let raw = record::decode(bytes, |r| {
            own(r, number)?;
            Ok(match r.u8()? {
                0 => Raw::Item(Self::Undo(get_fragment(r)?)),
                1 => Raw::Item(Self::Resource {
                    hook: String::from_utf8(r.bytes()?).map_err(|_| TAG)?,
                    payload: r.bytes()?,
                }),
                2 => Raw::Item(Self::Evidence(r.counted(evidence::get)?)),
                3 => Raw::File(r.bytes()?),
                _ => return Err(TAG),
            })
        })?;
        match raw {
            Raw::Item(item) => Ok(item),
            Raw::File(bytes) => InFile::decode(&bytes).map(Self::InFile),
        }
    }

    /// The item itself, where it is in a file.
    fn load(self, staged: &Dir, number: u64) -> Result<Self> {
        match self {
            Self::InFile(file) => {
                let content = file.content(staged)?;
                file.check(&content)?;
                match Self::decode(&content, number)? {
                    Self::InFile(_) => Err(corrupt("the file names another file")),
                    item => Ok(item),
                }
            }
            item => Ok(item),
        }
    }
}

/// The number with which each record begins, which its frame bears as well.
fn own(r: &mut Reader<'_>, number: u64) -> std::result::Result<(), Nonsense> {
    if r.u64()? == number {
        Ok(())
    } else {
        Err(OTHER)
    }
}

enum Raw {
    Item(Item),
    File(Vec<u8>),
}

pub(super) fn encode_phase(number: u64, name: &str) -> Vec<u8> {
    let mut w = record::begin();
    w.u64(number);
    w.bytes(name.as_bytes());
    w.out
}

fn decode_phase(bytes: &[u8], number: u64) -> Result<String> {
    record::decode(bytes, |r| {
        own(r, number)?;
        String::from_utf8(r.bytes()?).map_err(|_| TAG)
    })
}

impl End {
    pub(super) fn encode(&self, number: u64) -> Vec<u8> {
        let mut w = record::begin();
        w.u64(number);
        match self {
            Self::TakenBack => w.u8(0),
            Self::GivenUp => w.u8(2),
            Self::Committed(keys) => {
                w.u8(1);
                w.list(keys, |w, (key, value)| {
                    w.bytes(key);
                    w.bytes(value);
                });
            }
        }
        w.out
    }

    pub(super) fn decode(bytes: &[u8], number: u64) -> Result<Self> {
        record::decode(bytes, |r| {
            own(r, number)?;
            Ok(match r.u8()? {
                0 => Self::TakenBack,
                2 => Self::GivenUp,
                1 => Self::Committed(r.counted(|r| Ok((r.bytes()?, r.bytes()?)))?),
                _ => return Err(TAG),
            })
        })
    }
}

fn put_fragment(w: &mut Writer, fragment: &Fragment) {
    w.list(&fragment.places, |w, place| {
        w.bytes(&place.path);
        w.ident(&place.ident);
        w.u8(place.made.into());
    });
    w.list(&fragment.spots, |w, spot| {
        w.index(spot.place);
        w.name(&spot.name);
        match &spot.what {
            What::Passing => w.u8(0),
            What::Nothing => w.u8(1),
            What::Was(ident) => {
                w.u8(4);
                w.ident(ident);
            }
            What::Thing(ident) => {
                w.u8(2);
                w.ident(ident);
            }
            What::Image {
                name,
                ident,
                live,
                since,
            } => {
                w.u8(3);
                w.name(name);
                w.ident(ident);
                w.ident(live);
                w.stamp(*since);
            }
        }
    });
    w.list(&fragment.changes, |w, undo| {
        w.ident(&undo.thing);
        w.set(&undo.set);
    });
    w.list(&fragment.touched, Writer::ident);
    w.option(fragment.top.as_ref(), Writer::attributes);
}

fn get_fragment(r: &mut Reader<'_>) -> std::result::Result<Fragment, Nonsense> {
    let places = r.counted(|r| {
        Ok(Place {
            path: r.path()?,
            ident: r.ident()?,
            made: r.flag()?,
        })
    })?;
    let spots = r.counted(|r| {
        Ok(Spot {
            place: r.index(places.len())?,
            name: r.name()?,
            what: match r.u8()? {
                0 => What::Passing,
                1 => What::Nothing,
                4 => What::Was(r.ident()?),
                2 => What::Thing(r.ident()?),
                3 => What::Image {
                    name: r.name()?,
                    ident: r.ident()?,
                    live: r.ident()?,
                    since: r.stamp()?,
                },
                _ => return Err(TAG),
            },
        })
    })?;
    let changes = r.counted(|r| {
        Ok(Undo {
            thing: r.ident()?,
            set: r.set()?,
        })
    })?;
    Ok(Fragment {
        places,
        spots,
        changes,
        touched: r.counted(Reader::ident)?,
        top: r.option(Reader::attributes)?,
    })
}

/// All that a log says about one section.
#[derive(Clone, Debug)]
pub(in crate::workspace) struct Story {
    pub(in crate::workspace) begin: Begin,
    /// The last phase that was reached.
    pub(in crate::workspace) phase: Option<String>,
    /// With the numbers of their records in the log.
    items: Vec<(u64, Item)>,
    pub(super) end: Option<End>,
}

impl Story {
    /// Whether it is decided.
    pub(in crate::workspace) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// The sections in a log's records, in the order in which they began, but for these.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub(in crate::workspace) fn read(
        entries: &[Entry],
        given_up: &BTreeSet<u64>,
    ) -> Result<Vec<Self>> {
        (Self::each(entries).into_iter())
            .filter(|(number, _)| !given_up.contains(number))
            .map(|(_, story)| story)
            .collect()
    }

    /// The number of each section in a log's records, and its story, or what is wrong with that.
    pub(in crate::workspace) fn each(entries: &[Entry]) -> Vec<(u64, Result<Self>)> {
        let mut out: Vec<(u64, Result<Self>)> = Vec::new();
        for entry in entries.iter().filter(|entry| is_of_section(entry)) {
            let number = entry.transaction;
            match out.iter_mut().find(|(known, _)| *known == number) {
                None => out.push((number, Self::begin(entry).map_err(|e| name(e, entry)))),
                Some((_, known)) => {
                    if let Ok(story) = known
                        && let Err(e) = story.add(entry)
                    {
                        *known = Err(name(e, entry));
                    }
                }
            }
        }
        out
    }

    fn begin(entry: &Entry) -> Result<Self> {
        if entry.kind != SECTION_BEGIN {
            return Err(corrupt("the section has no beginning"));
        }
        let begin = Begin::decode(&entry.payload)?;
        if begin.number != entry.transaction {
            return Err(corrupt(OTHER));
        }
        Ok(Self {
            begin,
            phase: None,
            items: Vec::new(),
            end: None,
        })
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let (payload, number) = (&entry.payload, self.begin.number);
        if self.is_over() {
            return Err(corrupt("the section was over before it"));
        }
        match entry.kind {
            SECTION_ITEM => (self.items).push((entry.seq, Item::decode(payload, number)?)),
            PHASE => self.phase = Some(decode_phase(payload, number)?),
            SECTION_END => self.end = Some(End::decode(payload, number)?),
            _ => return Err(corrupt("the section begins twice")),
        }
        Ok(())
    }

    /// Whether it can be taken back, as far as reading it tells.
    pub(in crate::workspace) fn check(self, staged: &Dir) -> Result<()> {
        match self.is_over() {
            true => Ok(()),
            false => self.load(staged).map(drop),
        }
    }

    /// Its steps, those in files included.
    pub(super) fn load(self, staged: &Dir) -> Result<Vec<Item>> {
        let number = self.begin.number;
        let named = |e, seq| in_record(e, seq, number);
        (self.items.into_iter())
            .map(|(seq, item)| item.load(staged, number).map_err(|e| named(e, seq)))
            .collect()
    }
}

/// Whether a record belongs to a section.
pub(in crate::workspace) fn is_of_section(entry: &Entry) -> bool {
    (SECTION_BEGIN..=SECTION_END).contains(&entry.kind)
}

fn name(error: Error, entry: &Entry) -> Error {
    in_record(error, entry.seq, entry.transaction)
}

/// Says in which record it is, and what helps.
fn in_record(error: Error, seq: u64, section: u64) -> Error {
    record::in_record(error, format_args!("record {seq}, section {section}"))
}
