//! What the device was asked for, in order, and the disks that a power cut could leave of it.

use crate::image::{Image, SECTOR};
use crate::random::Random;
use std::sync::Arc;

/// One request, or a mark of the workload.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write(usize, Arc<[u8]>),
    Zero(usize, usize),
    Flush,
    Mark(usize),
}

/// A row of events, with the disk as it was at the start and after each flush.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) events: Vec<Event>,
    /// Number of events before it, and the disk.
    snapshots: Vec<(usize, Image)>,
    pub(crate) going: bool,
}

impl Recording {
    pub(crate) fn start(disk: &Image) -> Self {
        Self {
            events: Vec::new(),
            snapshots: vec![(0, disk.clone())],
            going: true,
        }
    }

    /// Notes what has just been done to the disk.
    pub(crate) fn add(&mut self, event: Event, disk: &Image) {
        if self.going {
            let flush = matches!(event, Event::Flush);
            self.events.push(event);
            if flush {
                self.snapshots.push((self.events.len(), disk.clone()));
            }
        }
    }

    /// The disk with everything up to the flush that ends the first `after` events, and of the later ones
    /// these: `N`, or torn by sectors: `N<K` the first K, `N>K` all but the first K, `N%S` half of them as
    /// the number S has it.
    pub(crate) fn disk(&self, after: usize, chosen: &[&str]) -> Option<Image> {
        let (_, base) = self.snapshots.iter().find(|(at, _)| *at == after)?;
        let mut disk = base.clone();
        for spec in chosen {
            let cut = spec.find(['<', '>', '%']);
            let event: usize = spec[..cut.unwrap_or(spec.len())].parse().ok()?;
            let number = |at: usize| spec[at + 1..].parse::<usize>().ok();
            match (self.events.get(event)?, cut) {
                (Event::Write(at, data), None) => disk.write(*at, data),
                (Event::Write(at, data), Some(cut)) => {
                    let number = number(cut)?;
                    let middle = (number * SECTOR).min(data.len());
                    match spec.as_bytes()[cut] {
                        b'<' => disk.write(*at, &data[..middle]),
                        b'>' => disk.write(at + middle, &data[middle..]),
                        _ => {
                            let mut random = Random(number as u64);
                            for (n, sector) in data.chunks(SECTOR).enumerate() {
                                if random.one_in(2) {
                                    disk.write(at + n * SECTOR, sector);
                                }
                            }
                        }
                    }
                }
                (Event::Zero(at, len), None) => disk.zero(*at, *len),
                _ => return None,
            }
        }
        Some(disk)
    }
}
