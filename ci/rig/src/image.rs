//! A disk in memory: chunks that copies share until one of them is written.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, OnceLock};

/// What a device writes as a whole.
pub(crate) const SECTOR: usize = 512;
const CHUNK: usize = 64 << 10;

#[derive(Clone, Debug)]
struct Chunk {
    data: Box<[u8]>,
    hash: OnceLock<u64>,
}

/// What is not there reads as zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    chunks: Vec<Option<Arc<Chunk>>>,
}

/// Where the parts of a range are: chunk, place in the chunk, place in the range, length.
fn parts(at: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (chunk, inside) = ((at + done) / CHUNK, (at + done) % CHUNK);
        let part = (len - done).min(CHUNK - inside);
        let from = done;
        done += part;
        (part > 0).then_some((chunk, inside, from, part))
    })
}

impl Image {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            chunks: vec![None; size.div_ceil(CHUNK)],
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The range, as far as the disk goes.
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len.min(self.size().saturating_sub(at))];
        for (chunk, inside, from, part) in parts(at, out.len()) {
            if let Some(chunk) = &self.chunks[chunk] {
                out[from..from + part].copy_from_slice(&chunk.data[inside..inside + part]);
            }
        }
        out
    }

    /// Beyond the end nothing is written.
    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        let len = data.len().min(self.size().saturating_sub(at));
        for (chunk, inside, from, part) in parts(at, len) {
            let place = self.chunks[chunk].get_or_insert_with(|| {
                Arc::new(Chunk {
                    data: vec![0; CHUNK].into(),
                    hash: OnceLock::new(),
                })
            });
            let chunk = Arc::make_mut(place);
            chunk.hash = OnceLock::new();
            chunk.data[inside..inside + part].copy_from_slice(&data[from..from + part]);
        }
    }

    pub(crate) fn zero(&mut self, at: usize, len: usize) {
        let len = len.min(self.size().saturating_sub(at));
        for (chunk, inside, _, part) in parts(at, len) {
            if part == CHUNK {
                self.chunks[chunk] = None;
            } else if let Some(place) = &mut self.chunks[chunk] {
                let chunk = Arc::make_mut(place);
                chunk.hash = OnceLock::new();
                chunk.data[inside..inside + part].fill(0);
            }
        }
    }

    /// The parts that are not all zeros, and where they are.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let there = self.chunks.iter().enumerate();
        there.filter_map(|(number, chunk)| Some((number * CHUNK, &*chunk.as_ref()?.data)))
    }

    /// Equal for equal disks, but for a chunk of zeros that was written.
    pub(crate) fn hash(&self) -> u64 {
        let mut whole = DefaultHasher::new();
        for (number, chunk) in self.chunks.iter().enumerate() {
            if let Some(chunk) = chunk {
                whole.write_usize(number);
                whole.write_u64(*chunk.hash.get_or_init(|| {
                    let mut hasher = DefaultHasher::new();
                    hasher.write(&chunk.data);
                    hasher.finish()
                }));
            }
        }
        whole.finish()
    }
}
