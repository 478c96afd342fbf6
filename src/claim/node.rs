//! One path in the lock table: a range of bytes, and how the modes of hierarchical locking are made of
//! shared and exclusive byte locks.
//!
//! The modes are those of Gray, Lorie, Putzolu and Traiger, "Granularity of Locks and Degrees of
//! Consistency in a Shared Data Base" (1976): intent to share or to change something below, shared,
//! exclusive, and their combinations. Byte locks know only shared and exclusive, but intents to change must
//! get along with each other and not with a shared claim, which must get along with its like as well. So
//! each intent to change takes one byte of many exclusively, drawn by lot, and a shared claim takes all of
//! these shared.

use crate::sys::{self, Errno, LockKind, LockRange, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one node: the first is for intents to share, the others are drawn by intents to change.
const WIDTH: u64 = 1 << 12;

/// How many of the bytes are drawn before the node counts as taken. Of a hundred holders' bytes one is hit
/// once in forty draws.
const DRAWS: u32 = 4;

/// The place of a path in the table, by a hash. Two paths that share one only exclude each other needlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node(u64);

impl Node {
    /// The root itself.
    pub(super) const ROOT: Self = Self(0xcbf2_9ce4_8422_2325);

    /// FNV-1a over the components, each with a slash behind it. Processes that share a table must agree on
    /// it, so it is part of the format.
    pub(super) fn child(self, name: &[u8]) -> Self {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        Self(name.iter().chain(b"/").fold(self.0, step))
    }

    /// Where its bytes begin: 50 bits of the hash, well mixed, so that the end is a file offset still.
    fn start(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 14) * WIDTH
    }

    /// Takes what `modes` has more than `before`, which this holder has already; notes the byte drawn.
    /// After an error some of it may be held: [`give_back`](Self::give_back).
    pub(super) fn take(
        self,
        fd: &OwnedFd,
        process: u32,
        before: Modes,
        modes: &mut Modes,
    ) -> Result<(), Errno> {
        let lock = |kind, from, len| sys::ofd_try_lock(fd, kind, self.range(from, len)?);
        modes.drawn = before.drawn;
        if before.exclusive {
            return Ok(());
        }
        if modes.exclusive {
            return lock(LockKind::Exclusive, 0, WIDTH);
        }
        if modes.intent_shared && !before.intent_shared {
            lock(LockKind::Shared, 0, 1)?;
        }
        if modes.shared && !before.shared {
            for (from, len) in around(before.drawn) {
                lock(LockKind::Shared, from, len)?;
            }
        }
        if modes.intent_exclusive && modes.drawn.is_none() {
            modes.drawn = Some(draw(process, |at| lock(LockKind::Exclusive, at, 1))?);
        }
        Ok(())
    }

    /// Goes back to `before` from anything above it. What `before` has is held all the time: a lock is
    /// weakened in one step, without being given up between.
    pub(super) fn give_back(self, fd: &OwnedFd, before: Modes) -> Result<(), Errno> {
        if before.exclusive {
            return Ok(());
        }
        let set = |shared: bool, from, len| {
            let range = self.range(from, len)?;
            match shared {
                true => sys::ofd_try_lock(fd, LockKind::Shared, range),
                false => sys::ofd_unlock(fd, range),
            }
        };
        set(before.intent_shared, 0, 1)?;
        for (from, len) in around(before.drawn) {
            set(before.shared, from, len)?;
        }
        Ok(())
    }

    fn range(self, from: u64, len: u64) -> Result<LockRange, Errno> {
        LockRange::new(self.start() + from, len).ok_or(Errno::OVERFLOW)
    }
}

/// The bytes of intents to change, without the one drawn: start and length of each piece.
fn around(drawn: Option<u64>) -> impl Iterator<Item = (u64, u64)> {
    let pieces = match drawn {
        None => [(1, WIDTH - 1), (0, 0)],
        Some(at) => [(1, at - 1), (at + 1, WIDTH - at - 1)],
    };
    pieces.into_iter().filter(|(_, len)| *len > 0)
}

/// Tries one byte after the other, drawn by lot, and gives the one that could be locked.
fn draw(process: u32, mut lock: impl FnMut(u64) -> Result<(), Errno>) -> Result<u64, Errno> {
    // Any sequence does that differs between holders, and between processes after a fork.
    static TURN: AtomicU64 = AtomicU64::new(0);
    let mut last = Err(Errno::AGAIN);
    for _ in 0..DRAWS {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) ^ u64::from(process) << 32;
        let mixed = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let at = 1 + mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) % (WIDTH - 1);
        match lock(at) {
            Ok(()) => return Ok(at),
            Err(e @ (Errno::AGAIN | Errno::ACCESS)) => last = Err(e),
            Err(e) => return Err(e),
        }
    }
    last
}

/// What one holder has of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    intent_shared: bool,
    intent_exclusive: bool,
    shared: bool,
    exclusive: bool,
    /// The byte of the intent to change.
    drawn: Option<u64>,
}

impl Modes {
    const NONE: Self = Self {
        intent_shared: false,
        intent_exclusive: false,
        shared: false,
        exclusive: false,
        drawn: None,
    };
    pub(super) const INTENT_SHARED: Self = Self {
        intent_shared: true,
        ..Self::NONE
    };
    pub(super) const INTENT_EXCLUSIVE: Self = Self {
        intent_exclusive: true,
        ..Self::NONE
    };
    pub(super) const SHARED: Self = Self {
        shared: true,
        ..Self::NONE
    };
    pub(super) const EXCLUSIVE: Self = Self {
        exclusive: true,
        ..Self::NONE
    };

    /// Both.
    pub(super) fn add(&mut self, other: Self) {
        self.intent_shared |= other.intent_shared;
        self.intent_exclusive |= other.intent_exclusive;
        self.shared |= other.shared;
        self.exclusive |= other.exclusive;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes of different versions share a table: the places must not move.
    #[test]
    fn the_places_are_fixed() {
        let a = Node::ROOT.child(b"a");
        assert_eq!(a.0, 0x089b_f907_b545_18f9);
        assert_ne!(a, Node::ROOT.child(b"a/"));
        assert_ne!(a.child(b"b"), Node::ROOT.child(b"ab"));
        assert_eq!(Node::ROOT.start() % WIDTH, 0);
        for node in [Node(u64::MAX), Node(0), Node::ROOT, a] {
            assert!(node.range(0, WIDTH).is_ok(), "{node:?}");
        }
    }
}
