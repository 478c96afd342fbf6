//! Inputs that are the same in each run, whatever the code does: from a corpus, with fixed seeds.
//!
//! What libFuzzer tries next depends on what it has covered so far, so that a change anywhere in the library
//! makes it try others. These depend on the corpus and their number alone: what fails one of them is the
//! change at hand.

use std::fs;
use std::path::Path;

/// Where they are to be written, from which corpus, and how many, from which number on: with these variables
/// set, a target does only that.
const TO: &str = "STEADFAST_FUZZ_TO";
const FROM: &str = "STEADFAST_FUZZ_FROM";
const COUNT: &str = "STEADFAST_FUZZ_COUNT";
const FIRST: &str = "STEADFAST_FUZZ_FIRST";

/// Longest input.
const MOST: usize = 4096;

/// A small generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`; 0 if there is none.
    fn below(&mut self, n: usize) -> usize {
        match n {
            0 => 0,
            n => (self.next() % n as u64) as usize,
        }
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Input number `n` of this corpus.
fn input(corpus: &[Vec<u8>], n: u64) -> Vec<u8> {
    // The numbers next to one another give others.
    let mut random = Random(n.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let pick = |random: &mut Random| corpus[random.below(corpus.len())].clone();
    let mut out = match random.below(8) {
        0 => {
            let len = 1 + random.below(400);
            random.bytes(len)
        }
        1..4 => {
            // The front of one and the end of another.
            let (mut front, end) = (pick(&mut random), pick(&mut random));
            front.truncate(random.below(front.len() + 1));
            front.extend(&end[random.below(end.len() + 1)..]);
            front
        }
        _ => pick(&mut random),
    };
    let changes = 1 << random.below(6);
    for _ in 0..random.below(changes) {
        let at = random.below(out.len());
        let upto = |random: &mut Random, out: &[u8]| (at + 1 + random.below(16)).min(out.len());
        match random.below(8) {
            0..3 if !out.is_empty() => out[at] = random.next() as u8,
            3 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            4 if !out.is_empty() => {
                out[at] = out[at].wrapping_add([1, 255][random.below(2)]);
            }
            5 => {
                let end = upto(&mut random, &out);
                out.drain(at.min(end)..end);
            }
            6 => {
                let other = pick(&mut random);
                let from = random.below(other.len());
                let to = (from + 1 + random.below(32)).min(other.len());
                out.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let len = 1 + random.below(8);
                let new = random.bytes(len);
                out.splice(at..at, new);
            }
        }
    }
    out.truncate(MOST);
    out
}

/// Writes them and ends the process, if that is what it was started for.
pub fn write_if_asked() {
    let variables = (std::env::var_os(TO), std::env::var_os(FROM));
    let numbers = (std::env::var(FIRST), std::env::var(COUNT));
    let ((Some(to), Some(from)), (Ok(first), Ok(count))) = (variables, numbers) else {
        return;
    };
    let (first, count): (u64, u64) = match (first.parse(), count.parse()) {
        (Ok(first), Ok(count)) => (first, count),
        _ => panic!("{FIRST} and {COUNT} are numbers"),
    };
    let mut files: Vec<_> = fs::read_dir(from)
        .expect("a corpus")
        .map(|entry| entry.expect("a file of the corpus").path())
        .collect();
    // In an order that is no file system's.
    files.sort();
    let corpus: Vec<_> = files
        .iter()
        .map(|file| fs::read(file).expect("a file of the corpus"))
        .collect();
    for n in first..first + count {
        let path = Path::new(&to).join(format!("{n:08}"));
        fs::write(path, input(&corpus, n)).expect("room for the inputs");
    }
    std::process::exit(0);
}
