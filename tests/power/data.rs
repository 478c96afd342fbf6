//! What a power cut may leave of a file's content.

use crate::common::Random;
use crate::record::{Bytes, Kind, Node, Record, Stamp, Synced, Version};
use crate::rules::Family;
use std::fmt;
use std::sync::Arc;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What is in a file, of all that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    /// The n-th version. One past the last: nothing.
    Version(usize),
    /// The last version's length, and zeros where the durable one has nothing.
    Zeros,
    /// The durable one, and zeros up to the last version's length.
    Tail,
    /// The same with what another file has left there.
    Stale,
    /// The first half of the last version, in whole sectors, over the durable one.
    Half,
    /// Each sector as in one of the versions, by a seed.
    Torn(u32, u64),
    /// Nothing, zeros and a first part of the last version, whatever was durable.
    Lost(u8),
    /// Written over in place, and the inode with length and times is the durable one: sectors of the last
    /// version (0), or of any, by a seed.
    Silent(u64),
    /// The durable content, and the times of the last version.
    Touched,
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(n) => write!(f, "v{n}"),
            Self::Zeros => write!(f, "z"),
            Self::Tail => write!(f, "n"),
            Self::Stale => write!(f, "s"),
            Self::Half => write!(f, "h"),
            Self::Torn(sector, seed) => write!(f, "t{sector}.{seed}"),
            Self::Lost(how) => write!(f, "l{how}"),
            Self::Silent(seed) => write!(f, "i{seed}"),
            Self::Touched => write!(f, "m"),
        }
    }
}

impl Data {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        Some(match kind {
            "v" => Self::Version(rest.parse().ok()?),
            "z" => Self::Zeros,
            "n" => Self::Tail,
            "s" => Self::Stale,
            "h" => Self::Half,
            "i" => Self::Silent(rest.parse().ok()?),
            "m" => Self::Touched,
            "t" => {
                let (sector, seed) = rest.split_once('.')?;
                Self::Torn(sector.parse().ok()?, seed.parse().ok()?)
            }
            "l" => Self::Lost(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// What may be in one file at one moment: the version that was synced last, and those since.
pub(crate) struct Window<'a> {
    versions: &'a [Version],
    /// Index of the first that may be there; `None`: it was never synced.
    durable: Option<usize>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(record: &'a Record, node: Node, call: usize) -> Option<Self> {
        let thing = &record.things[node];
        let end = thing.versions.partition_point(|v| v.call <= call);
        if thing.kind != Kind::File || end == 0 {
            return None;
        }
        let is_about = |what| match what {
            Synced::All => true,
            Synced::Node(of) | Synced::Data(of) => of == node,
        };
        let synced = (record.syncs.iter().rev())
            .find(|s| s.call <= call && is_about(s.what))
            .map_or(0, |s| s.call);
        let durable = thing.versions[..end].iter().rposition(|v| v.call <= synced);
        Some(Self {
            versions: &thing.versions[..end],
            durable,
        })
    }

    /// The last one.
    pub(crate) fn whole(&self) -> Data {
        Data::Version(self.versions.len() - 1)
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.durable == Some(self.versions.len() - 1)
    }

    /// The least that is there.
    pub(crate) fn least(&self) -> Data {
        Data::Version(self.durable.unwrap_or(self.versions.len()))
    }

    /// Everything that a family allows, with some torn ones.
    pub(crate) fn all(&self, family: Family, torn: u64, random: &mut Random) -> Vec<Data> {
        let mut all: Vec<Data> = (self.durable.unwrap_or(0)..self.versions.len())
            .rev()
            .map(Data::Version)
            .collect();
        if self.is_durable() {
            return all;
        }
        if self.durable.is_none() {
            all.push(Data::Version(self.versions.len()));
        }
        all.push(Data::Half);
        if self.durable.is_some() {
            all.push(Data::Touched);
            // On btrfs new content comes with the inode.
            if family != Family::Btrfs && !self.old().is_empty() {
                all.push(Data::Silent(0));
                all.extend((0..torn / 2).map(|_| Data::Silent(1 + random.next() % 100_000)));
            }
        }
        match family {
            Family::Bare => all.extend([
                Data::Lost(0),
                Data::Lost(1),
                Data::Lost(2),
                Data::Zeros,
                Data::Tail,
            ]),
            Family::Posix | Family::Ext4 => all.extend([Data::Zeros, Data::Tail]),
            Family::Ext4Writeback => all.extend([Data::Zeros, Data::Tail, Data::Stale]),
            Family::Xfs | Family::Btrfs => {}
        }
        for _ in 0..torn {
            let seed = random.next() % 100_000;
            // On btrfs data is never written over: whole blocks are old or new.
            let sector = match family {
                Family::Btrfs => 4096,
                _ => *random.of(&[512, 4096]),
            };
            all.push(Data::Torn(sector, seed));
        }
        all
    }

    fn old(&self) -> &[u8] {
        self.durable.map_or(&[], |at| &self.versions[at].bytes)
    }

    /// What comes to light behind that when the file grows.
    fn old_beyond(&self) -> &[u8] {
        self.durable.map_or(&[], |at| &self.versions[at].beyond)
    }

    /// The call whose times the inode shows with this content; `None`: those before any of it.
    pub(crate) fn dated(&self, data: Data) -> Option<usize> {
        let of = |at: usize| self.versions.get(at).map(|v| v.call);
        match data {
            Data::Version(at) => of(at),
            Data::Silent(_) => self.durable.and_then(of),
            _ => of(self.versions.len() - 1),
        }
    }

    /// The digest of a content that was recorded as it is.
    pub(crate) fn digest(&self, data: Data) -> Option<u64> {
        match data {
            Data::Version(at) => self.versions.get(at).map(|v| v.digest),
            _ => None,
        }
    }

    /// The content, and its time of modification. `stale` is what another file has left.
    pub(crate) fn content(&self, data: Data, stale: &[u8]) -> (Arc<Bytes>, Stamp) {
        let last = self.versions.last().unwrap();
        let new = &last.bytes;
        let filled = |with: &dyn Fn(usize) -> u8| {
            // The sector in which the durable one ends is written as a whole.
            let old = self.old().len().next_multiple_of(SECTOR);
            let bytes = (0..new.len()).map(|at| match at < old {
                true => new[at],
                false => with(at),
            });
            Arc::new(bytes.collect::<Bytes>())
        };
        match data {
            Data::Version(at) => match self.versions.get(at) {
                Some(version) => (version.bytes.clone(), version.mtime),
                None => (Arc::default(), last.mtime),
            },
            Data::Zeros => (filled(&|_| 0), last.mtime),
            Data::Tail => {
                let mut bytes = self.old().to_vec();
                bytes.extend_from_slice(self.old_beyond());
                bytes.resize(new.len(), 0);
                (Arc::new(bytes), last.mtime)
            }
            Data::Stale => {
                let stale = |at: usize| match stale.is_empty() {
                    true => 0xa5,
                    false => stale[at % stale.len()],
                };
                (filled(&stale), last.mtime)
            }
            Data::Half => {
                let half = first_part(new);
                let mut bytes = new[..half].to_vec();
                bytes.extend_from_slice(self.old().get(half..).unwrap_or_default());
                (Arc::new(bytes), last.mtime)
            }
            Data::Lost(how) => {
                let bytes = match how {
                    0 => Vec::new(),
                    1 => vec![0; new.len()],
                    _ => new[..first_part(new)].to_vec(),
                };
                (Arc::new(bytes), last.mtime)
            }
            Data::Torn(sector, seed) => {
                let (bytes, mtime, _) = self.torn(sector as usize, seed);
                (bytes, mtime)
            }
            Data::Silent(seed) => {
                let (old, mtime) = (self.durable.unwrap_or(0), last.mtime);
                let mtime = self.versions.get(old).map_or(mtime, |v| v.mtime);
                (Arc::new(self.silent(seed).0), mtime)
            }
            Data::Touched => (Arc::new(self.old().to_vec()), last.mtime),
        }
    }

    /// What is on the disk beyond the file's end, if that is within a sector which was written whole: it may
    /// come to light when the file grows again.
    pub(crate) fn beyond(&self, data: Data) -> Bytes {
        let beyond = match data {
            Data::Torn(sector, seed) => self.torn(sector as usize, seed).2,
            Data::Silent(seed) => self.silent(seed).1,
            _ => Bytes::new(),
        };
        match beyond.iter().all(|b| *b == 0) {
            true => Bytes::new(),
            false => beyond,
        }
    }

    /// With what is beyond its end, which was zeroed in a shorter version that was cut off.
    fn silent(&self, seed: u64) -> (Bytes, Bytes) {
        let mut random = Random(seed);
        let all = &self.versions[self.durable.unwrap_or(0)..];
        let mut bytes = vec![0; self.old().len()];
        let mut beyond = Bytes::new();
        for (n, to) in bytes.chunks_mut(SECTOR).enumerate() {
            let from = match seed {
                0 => &all[all.len() - 1],
                _ => random.of(all),
            };
            beyond = copy(Some(from), n * SECTOR, to);
        }
        (bytes, beyond)
    }

    fn torn(&self, sector: usize, seed: u64) -> (Arc<Bytes>, Stamp, Bytes) {
        let mut random = Random(seed);
        let all: Vec<&Version> = self.versions[self.durable.unwrap_or(0)..].iter().collect();
        let mut lens: Vec<usize> = all.iter().map(|v| v.bytes.len()).collect();
        if self.durable.is_none() {
            lens.push(0);
        }
        let len = *random.of(&lens);
        let mtime = random.of(&all).mtime;
        let mut bytes = vec![0; len];
        let mut beyond = Bytes::new();
        for (n, to) in bytes.chunks_mut(sector).enumerate() {
            // One more than there are: what was never written.
            let from = random.below(all.len() + usize::from(self.durable.is_none()));
            beyond = copy(all.get(from).copied(), n * sector, to);
        }
        (Arc::new(bytes), mtime, beyond)
    }
}

/// Writes what a version has from `at` on, and gives what is on the disk behind that, up to the sector's end.
fn copy(from: Option<&Version>, at: usize, to: &mut [u8]) -> Bytes {
    let Some(from) = from else {
        return Bytes::new();
    };
    let bytes = from.bytes.get(at..).unwrap_or_default();
    let common = bytes.len().min(to.len());
    to[..common].copy_from_slice(&bytes[..common]);
    // It has grown, and nothing was written to this sector.
    if !bytes.is_empty() && common < to.len() {
        let shown = from.beyond.len().min(to.len() - common);
        to[common..common + shown].copy_from_slice(&from.beyond[..shown]);
    }
    let end = to.len().next_multiple_of(SECTOR).min(bytes.len());
    bytes.get(to.len()..end).unwrap_or_default().to_vec()
}

/// Half of it, in whole sectors: a length that no call has set ends where a block does, and a sector is not
/// torn.
fn first_part(bytes: &[u8]) -> usize {
    let half = bytes.len() / 2;
    half - half % SECTOR
}
