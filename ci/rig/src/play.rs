//! What a subject is: work in steps, each with its mark before and after, and the recovery that follows.

use crate::device::{Device, Kind};
use crate::shake::Shake;
use crate::tree::{Tree, difference};
use crate::{Answer, fault};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What must be found of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No violation.
    Clean,
    /// Atomic, but what was acknowledged may be lost, and the rig has to see that.
    Loses,
    /// Known to be wrong: the rig has to see that.
    Wrong,
    /// Known to be wrong, but good or bad luck decides on this file system.
    Any,
}

/// What one state turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Clean,
    /// An older state than what had been acknowledged.
    Lost(String),
    /// No state that the work ever had.
    Torn(String),
    /// The file system does not mount.
    Unmountable(String),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) expect: fn(&Kind) -> Expect,
    /// Each entry is atomic by itself, not all of them together.
    pub(crate) each: bool,
    /// The recovery is cut, too.
    pub(crate) nested: bool,
    /// Makes the tree before.
    pub(crate) prepare: fn(&Path) -> Answer<()>,
    /// The work.
    pub(crate) run: fn(&mut Play<'_>) -> Answer<()>,
    /// Recovers, as the next start of the program would, and tells what is there. An error is a violation.
    pub(crate) recover: fn(&Path) -> Answer<Tree>,
}

impl Subject {
    /// What the found tree means, if so many steps were acknowledged at the least, and begun at the most.
    pub(crate) fn judge(
        &self,
        states: &[Tree],
        found: Answer<Tree>,
        acknowledged: usize,
        begun: usize,
    ) -> Verdict {
        let known = format!("acknowledged {acknowledged}, begun {begun}");
        let now = match found {
            Ok(now) => now,
            Err(e) => return Verdict::Torn(format!("{known}: {e}")),
        };
        // Each step changes at least one entry, or ends where the one before did.
        let is = |n: usize| states.get(n) == Some(&now);
        if self.each {
            return self.judge_each(states, &now, acknowledged, begun, &known);
        }
        match ((0..=begun).any(is), (acknowledged..states.len()).any(is)) {
            (true, true) => Verdict::Clean,
            (true, false) => {
                let state = (0..=begun).rev().find(|n| is(*n)).unwrap_or(0);
                Verdict::Lost(format!("{known}, there is {state}"))
            }
            _ => {
                let nearest = (0..states.len())
                    .min_by_key(|n| difference(&now, &states[*n]).len())
                    .unwrap_or(0);
                let what = difference(&now, &states[nearest]);
                Verdict::Torn(format!("{known}, nearest is {nearest}: {what}"))
            }
        }
    }

    fn judge_each(
        &self,
        states: &[Tree],
        now: &Tree,
        acknowledged: usize,
        begun: usize,
        known: &str,
    ) -> Verdict {
        let mut lost = None;
        let all = states.iter().flat_map(|state| state.keys());
        for path in all.chain(now.keys()) {
            let is = |n: usize| states.get(n).is_some_and(|s| s.get(path) == now.get(path));
            match ((0..=begun).any(is), (acknowledged..states.len()).any(is)) {
                (true, true) => {}
                (true, false) => lost = Some(format!("{known}: {} is older", path.display())),
                _ => return Verdict::Torn(format!("{known}: {} is torn", path.display())),
            }
        }
        lost.map_or(Verdict::Clean, Verdict::Lost)
    }
}

/// A run of a subject.
#[derive(Debug)]
pub(crate) struct Play<'a> {
    pub(crate) top: PathBuf,
    pub(crate) device: &'a mut Device,
    pub(crate) shake: Arc<Shake>,
    /// What is there after so many steps.
    pub(crate) states: Vec<Tree>,
}

impl Play<'_> {
    /// One step, after which `look` tells what is there.
    pub(crate) fn step(
        &mut self,
        look: impl FnOnce(&Path) -> Answer<Tree>,
        what: impl FnOnce(&Path, &Shake) -> Answer<()>,
    ) -> Answer<()> {
        let number = self.states.len() - 1;
        self.device.order(&format!("mark {}", 2 * number))?;
        what(&self.top, &self.shake)
            .map_err(|e| fault(format!("step {number} of the work itself: {e}")))?;
        self.device.order(&format!("mark {}", 2 * number + 1))?;
        self.states.push(look(&self.top)?);
        Ok(())
    }
}
