//! What a power cut may leave of names and attributes, by family of file systems. Sources and reasons are in
//! `docs/crash-testing.md`.
//!
//! A state of the metadata is a mask for each [`Unit`], in their order: which of its parts are there.

use crate::common::Random;
use crate::record::{Node, Record, Synced, Unit, What};
use std::collections::{BTreeSet, HashMap};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Weaker than any file system: what a call does in two directories may be there in one of them, and a
    /// sync is about nothing but what it was asked for.
    Bare,
    /// What ext4, xfs and btrfs have in common.
    Posix,
    /// Metadata in order; data before the size that covers it, or zeros in its place.
    Ext4,
    /// `data=writeback`, `noauto_da_alloc`: what other files have left in place of data.
    Ext4Writeback,
    /// Metadata in order.
    Xfs,
    /// A whole state at any moment, and what was synced after it, without what happened between.
    Btrfs,
}

pub(crate) const ALL: [Family; 6] = [
    Family::Bare,
    Family::Posix,
    Family::Ext4,
    Family::Ext4Writeback,
    Family::Xfs,
    Family::Btrfs,
];

/// Without the one that no file system is as weak as, and without what other files have left in place of
/// data: recovery tells a small new file that is torn by its zeros.
pub(crate) const REAL: [Family; 4] = [Family::Posix, Family::Ext4, Family::Xfs, Family::Btrfs];

pub(crate) type Masks = Vec<u8>;

/// The rules of a family for one moment of a record.
pub(crate) struct Rules<'a> {
    pub(crate) record: &'a Record,
    pub(crate) family: Family,
    /// How many calls were made.
    pub(crate) call: usize,
    units: &'a [Unit],
    /// What is there in any case. Of the families with an order, as a first part of all.
    durable: Masks,
    /// For each unit the earlier ones that it is not there without.
    needs: Vec<Vec<usize>>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(record: &'a Record, family: Family, call: usize) -> Self {
        let units = &record.units[..record.units.partition_point(|u| u.call <= call)];
        // The unit that made something: nothing is in a directory that is not there.
        let mut made: HashMap<Node, usize> = HashMap::new();
        if family != Family::Bare {
            for (i, unit) in units.iter().enumerate() {
                for node in unit.of.iter().filter(|node| unit.names(**node)) {
                    if record.things[*node].ctimes[0].0 > 0 {
                        made.entry(*node).or_insert(i);
                    }
                }
            }
        }
        let needs = (0..units.len())
            .map(|i| {
                let dirs: Vec<Node> = units[i].parts().iter().map(|part| part.dir).collect();
                let earlier = (0..i).filter(|j| {
                    let (one, other) = (&units[*j], &units[i]);
                    let same_name = || family != Family::Bare && one.shares_a_name_with(other);
                    one.call < other.call && (!one.of.is_disjoint(&other.of) || same_name())
                        || dirs.iter().any(|dir| made.get(dir) == Some(j))
                });
                earlier.collect()
            })
            .collect();
        let mut rules = Self {
            record,
            family,
            call,
            units,
            durable: vec![0; units.len()],
            needs,
        };
        rules.durable = rules.durable();
        rules
    }

    fn in_order(&self) -> bool {
        matches!(
            self.family,
            Family::Ext4 | Family::Ext4Writeback | Family::Xfs
        )
    }

    fn durable(&self) -> Masks {
        let mut durable = vec![0; self.units.len()];
        for sync in self.record.syncs.iter().filter(|s| s.call <= self.call) {
            let before = self.units.partition_point(|u| u.call <= sync.call);
            let (node, attributes) = match sync.what {
                Synced::All => {
                    self.fill(&mut durable, before);
                    continue;
                }
                Synced::Node(node) => (node, true),
                Synced::Data(node) => (node, false),
            };
            match self.family {
                Family::Ext4 | Family::Ext4Writeback | Family::Xfs => {
                    let is_about = |unit: &Unit| match &unit.what {
                        What::Names(parts) => {
                            unit.of.contains(&node) || parts.iter().any(|p| p.dir == node)
                        }
                        What::Attributes(of, _) => attributes && *of == node,
                    };
                    let last = self.units[..before].iter().rposition(is_about);
                    self.fill(&mut durable, last.map_or(0, |last| last + 1));
                }
                Family::Btrfs => {}
                Family::Bare | Family::Posix => {
                    self.synced(&mut durable, node, attributes, before);
                }
            }
        }
        durable
    }

    fn fill(&self, masks: &mut Masks, up_to: usize) {
        for (mask, unit) in masks.iter_mut().zip(&self.units[..up_to]) {
            *mask = unit.whole();
        }
    }

    /// What a sync of one file or directory carries to the disk, of the units before it.
    fn synced(&self, masks: &mut Masks, node: Node, attributes: bool, before: usize) {
        let is_bare = self.family == Family::Bare;
        let mut named = BTreeSet::from([node]);
        let mut add: Vec<(usize, u8)> = Vec::new();
        for (i, unit) in self.units[..before].iter().enumerate() {
            let mask = match &unit.what {
                What::Attributes(of, _) => u8::from(*of == node && attributes),
                What::Names(parts) => {
                    let here = parts.iter().position(|part| part.dir == node);
                    match here {
                        None if is_bare => 0,
                        None if unit.names(node) => unit.whole(),
                        None => 0,
                        Some(at) if is_bare => 1 << at,
                        Some(at) if unit.is_exchange || !self.may_be_twice(unit, at) => {
                            named.extend(&unit.of);
                            unit.whole()
                        }
                        Some(at) => {
                            named.extend(&unit.of);
                            1 << at
                        }
                    }
                }
            };
            if mask != 0 {
                add.push((i, mask));
            }
        }
        for (i, mask) in add {
            masks[i] |= mask;
            for j in &self.needs[i] {
                match (self.family, &self.units[*j].what) {
                    (Family::Posix, _) => self.carry(masks, *j),
                    // The log has the inode of a new name as it was then.
                    (Family::Btrfs, What::Attributes(..)) => masks[*j] = 1,
                    _ => {}
                }
            }
        }
        if is_bare {
            return;
        }
        // New directories above come along, as long as they never had a name.
        let mut todo = vec![node];
        let mut done = BTreeSet::new();
        while let Some(node) = todo.pop() {
            if !done.insert(node) {
                continue;
            }
            let first = self.units[..before].iter().position(|u| u.names(node));
            if let Some(first) = first
                && self.record.things[node].ctimes[0].0 > 0
            {
                masks[first] = self.units[first].whole();
            }
            todo.extend(self.above(masks, node, before));
        }
    }

    /// One that something durable needs is there, with all that it needs itself.
    fn carry(&self, masks: &mut Masks, i: usize) {
        if masks[i] != self.units[i].whole() {
            masks[i] = self.units[i].whole();
            for j in &self.needs[i] {
                self.carry(masks, *j);
            }
        }
    }

    /// The directories in which something gets a name by what is there.
    fn above(&self, masks: &Masks, node: Node, before: usize) -> Vec<Node> {
        let units = self.units[..before].iter().zip(masks);
        let parts = units.filter(|(_, mask)| **mask != 0).flat_map(|(unit, _)| {
            (unit.parts().iter())
                .filter(move |part| part.names.iter().any(|(_, _, now)| *now == Some(node)))
        });
        parts.map(|part| part.dir).collect()
    }

    /// Whether the part of a rename that gives the new name may be there without the one that takes the old.
    fn may_be_twice(&self, unit: &Unit, part: usize) -> bool {
        let parts = unit.parts();
        let gained = parts[part].names.iter().find_map(|(_, _, now)| *now);
        let is_dir = |node: Node| self.record.things[node].kind == crate::record::Kind::Dir;
        parts.len() == 2 && !unit.is_exchange && gained.is_some_and(|node| !is_dir(node))
    }

    /// What btrfs shows that wrote a whole state after the first `whole` units, and replays its log of syncs.
    fn replayed(&self, whole: usize) -> Masks {
        let mut masks = vec![0; self.units.len()];
        self.fill(&mut masks, whole);
        let from = whole.checked_sub(1).map_or(0, |last| self.units[last].call);
        for sync in self.record.syncs.iter() {
            if sync.call > self.call || sync.call < from {
                continue;
            }
            let before = self.units.partition_point(|u| u.call <= sync.call);
            match sync.what {
                Synced::All => self.fill(&mut masks, before),
                Synced::Node(node) | Synced::Data(node) => {
                    self.synced(&mut masks, node, true, before);
                }
            }
        }
        masks
    }

    /// Whether the family's rules allow this.
    pub(crate) fn allow(&self, masks: &Masks) -> bool {
        if masks.len() != self.units.len() {
            return false;
        }
        match self.family {
            Family::Btrfs => (0..=self.units.len()).any(|whole| self.replayed(whole) == *masks),
            _ if self.in_order() => {
                let there = masks.iter().take_while(|mask| **mask != 0).count();
                let whole = |up_to: usize| {
                    let mut masks = vec![0; self.units.len()];
                    self.fill(&mut masks, up_to);
                    masks
                };
                *masks == whole(there) && self.has_durable(masks)
            }
            _ => {
                let each = |(i, mask): (usize, &u8)| {
                    let unit = &self.units[i];
                    let twice = |at: usize| *mask == 1 << at && self.may_be_twice(unit, at);
                    let fits = *mask == 0
                        || *mask == unit.whole()
                        || (self.family == Family::Bare && *mask < unit.whole())
                        || (0..unit.parts().len()).any(twice);
                    let before = |j: &usize| masks[*j] == self.units[*j].whole();
                    let before_bare = |j: &usize| masks[*j] != 0;
                    let needs = &self.needs[i];
                    let ordered = match self.family {
                        Family::Bare => needs.iter().all(before_bare),
                        _ => needs.iter().all(before),
                    };
                    fits && (*mask == 0 || ordered)
                };
                self.has_durable(masks) && masks.iter().enumerate().all(each)
            }
        }
    }

    fn has_durable(&self, masks: &Masks) -> bool {
        masks.iter().zip(&self.durable).all(|(m, d)| m & d == *d)
    }

    /// Masks that the family allows: all of them where there are few, else a sample with both ends.
    pub(crate) fn masks(&self, limit: usize, random: &mut Random) -> Vec<Masks> {
        let len = self.units.len();
        let mut out: Vec<Masks> = Vec::new();
        if self.in_order() || self.family == Family::Btrfs {
            let least = self.durable.iter().take_while(|mask| **mask != 0).count();
            let all: Vec<usize> = (least..=len).collect();
            for at in &all {
                let at = match all.len() > limit && *at != least && *at != len {
                    true if random.below(all.len()) >= limit => continue,
                    _ => *at,
                };
                let masks = match self.family {
                    Family::Btrfs => self.replayed(at),
                    _ => {
                        let mut masks = vec![0; len];
                        self.fill(&mut masks, at);
                        masks
                    }
                };
                if !out.contains(&masks) {
                    out.push(masks);
                }
            }
            return out;
        }
        let mut add = |masks: Masks| {
            if self.allow(&masks) && !out.contains(&masks) {
                out.push(masks);
            }
        };
        let open: Vec<usize> = (0..len)
            .filter(|i| self.durable[*i] != self.units[*i].whole())
            .collect();
        let whole = || self.units.iter().map(Unit::whole).collect::<Masks>();
        add(self.durable.clone());
        add(whole());
        // All that a unit may be, counted as digits.
        let values = |i: usize| -> Vec<u8> {
            (0..=self.units[i].whole())
                .filter(|mask| mask & self.durable[i] == self.durable[i])
                .collect()
        };
        let number = |i: &usize| values(*i).len() as u64;
        let combinations = open.iter().map(number).try_fold(1_u64, u64::checked_mul);
        if let Some(all) = combinations.filter(|all| *all <= limit as u64 * 4) {
            for mut number in 0..all {
                let mut masks = self.durable.clone();
                for i in &open {
                    let values = values(*i);
                    masks[*i] = values[usize::try_from(number % values.len() as u64).unwrap()];
                    number /= values.len() as u64;
                }
                add(masks);
            }
            out.truncate(limit.max(2));
            return out;
        }
        for round in 0..limit {
            // One is missing with all that needs it, one alone is there with all that it needs, or each by
            // chance.
            let mut masks = match round % 3 {
                0 => whole(),
                _ => self.durable.clone(),
            };
            let one = *random.of(&open);
            match round % 3 {
                0 => masks[one] = *random.of(&values(one)),
                1 => masks[one] = self.units[one].whole(),
                _ => {
                    let odds = 1 + random.below(8);
                    for i in &open {
                        if random.below(9) < odds {
                            masks[*i] = *random.of(&values(*i));
                        }
                    }
                }
            }
            self.mend(&mut masks, round % 3 == 0);
            add(masks);
        }
        out
    }

    /// Takes away what is there without what it needs, or adds what is needed.
    fn mend(&self, masks: &mut Masks, take: bool) {
        let order: Vec<usize> = match take {
            true => (0..masks.len()).collect(),
            false => (0..masks.len()).rev().collect(),
        };
        for i in order {
            for j in &self.needs[i] {
                let is_there = match self.family {
                    Family::Bare => masks[*j] != 0,
                    _ => masks[*j] == self.units[*j].whole(),
                };
                if masks[i] == 0 || is_there {
                    continue;
                }
                if take && self.durable[i] == 0 {
                    masks[i] = 0;
                } else {
                    masks[*j] = self.units[*j].whole();
                }
            }
        }
    }
}
