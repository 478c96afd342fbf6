//! What the tests of the log share: directories, images of logs, records by number.

pub(crate) use crate::common::long;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use steadfast::journal::{Entry, Log, LogOptions, Record, Recovered};
use steadfast::sys::OwnedFd;
use steadfast::{Dir, Result};

/// The kind of all records here.
pub(crate) const KIND: u16 = 16;

pub(crate) fn dir(path: &Path) -> Dir {
    // Not by a call that a test counts or lets fail.
    Dir::from(OwnedFd::from(fs::File::open(path).unwrap()))
}

/// Small segments of two lengths, so that few records fill one.
pub(crate) fn small() -> LogOptions {
    LogOptions::new()
        .segment_len(8192)
        .further_segment_len(12 << 10)
        .max_segments(3)
}

pub(crate) fn open(path: &Path) -> Result<(Log, Recovered)> {
    small().open(dir(path))
}

/// The payload of record `n`: it can be checked by itself.
pub(crate) fn payload(n: u64, len: usize) -> Vec<u8> {
    let mut out = n.to_le_bytes().to_vec();
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < len.max(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.push(x as u8);
    }
    out
}

pub(crate) fn record(payload: &[u8]) -> Record<'_> {
    let n = number_in(payload);
    Record::new(KIND, payload).transaction(n).fence(n + 1)
}

/// The number that [`payload`] was made of.
pub(crate) fn number_in(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// The numbers of the records, each checked to be whole.
pub(crate) fn numbers(entries: &[Entry]) -> Vec<u64> {
    for pair in entries.windows(2) {
        assert!(pair[0].seq < pair[1].seq);
    }
    entries
        .iter()
        .map(|e| {
            let n = number_in(&e.payload);
            assert_eq!(
                e.payload,
                payload(n, e.payload.len()),
                "a record was changed"
            );
            assert_eq!((e.kind, e.transaction, e.fence), (KIND, n, n + 1));
            n
        })
        .collect()
}

/// A small generator of its own, so that a seed says everything.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// The segment files of a log.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

pub(crate) fn image(path: &Path) -> Image {
    fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap())
        .filter_map(|e| {
            let name = e.file_name().into_string().unwrap();
            name.ends_with(".seg")
                .then(|| (name, fs::read(e.path()).unwrap()))
        })
        .collect()
}

/// A fresh directory that holds these segments.
pub(crate) fn materialise(image: &Image) -> tempfile::TempDir {
    let tmp = crate::common::dir();
    for (name, bytes) in image {
        fs::write(tmp.path().join(name), bytes).unwrap();
    }
    tmp
}

/// How many of these calls are among those seen.
pub(crate) fn count(seen: &[&str], call: &str) -> usize {
    seen.iter().filter(|c| **c == call).count()
}
