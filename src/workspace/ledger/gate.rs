//! The gate: transactions are inside from drawing their number until they are done; who closes it finds
//! nobody inside, and keeps them out.

use super::{GATE, Ledger, RECOVERY, TURNSTILE};
use crate::claim::{Claim, Extra};
use crate::sys::LockKind;
use crate::{ErrorKind, Result};
use std::time::{Duration, Instant};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(5));

/// The gate, closed until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct ClosedGate {
    _bytes: Claim,
}

/// The right to finish the work of the dead, until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct RecoveryLock {
    _byte: Claim,
}

impl Ledger {
    /// Goes in with a claim; waits at the most this long. Two calls if nobody closes the gate.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: the time is up.
    pub(crate) fn enter(&self, claim: &Claim, wait: Duration) -> Result<()> {
        let start = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            // Whoever holds the turnstile is before us. It is asked for, not taken: many who took it for a
            // moment could keep a closer from ever getting it.
            if !claim.extra_would_wait(LockKind::Shared, TURNSTILE)?
                && claim.try_extra(LockKind::Shared, GATE)?
            {
                return Ok(());
            }
            let left = wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(
                    crate::Error::of_kind("begin a transaction", ErrorKind::Busy)
                        .with_detail("the workspace is being checkpointed or recovered")
                        .with_advice("try again later"),
                );
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Comes out again. One call; it is also done when the claim is dropped.
    pub(crate) fn leave(&self, claim: &Claim) -> Result<()> {
        claim.unlock_extra(GATE)
    }

    /// Closes the gate: nobody is between drawing a number and being done when this returns. It waits at the
    /// most this long for those inside; those who come later wait for it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: somebody inside takes longer, or somebody else closes the gate.
    pub(crate) fn close_gate(&self, wait: Duration) -> Result<ClosedGate> {
        let start = Instant::now();
        let claim = self.take(TURNSTILE, wait, "somebody else is closing the gate")?;
        let left = wait.saturating_sub(start.elapsed());
        claim
            .wait_extra(LockKind::Exclusive, GATE, left)
            .map_err(|e| busy(e, "a transaction takes longer: wait, or try again later"))?;
        Ok(ClosedGate { _bytes: claim })
    }

    /// Takes the right to finish the work of the dead; waits at the most this long.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`]: somebody else is doing it.
    pub(crate) fn recovery_lock(&self, wait: Duration) -> Result<RecoveryLock> {
        let advice = "somebody else is recovering the workspace: wait, or try again later";
        let claim = self.take(RECOVERY, wait, advice)?;
        Ok(RecoveryLock { _byte: claim })
    }

    /// A byte on a descriptor of its own.
    fn take(&self, extra: Extra, wait: Duration, advice: &'static str) -> Result<Claim> {
        let claim = self.claims.try_claim(&[])?;
        claim
            .wait_extra(LockKind::Exclusive, extra, wait)
            .map_err(|e| busy(e, advice))?;
        Ok(claim)
    }
}

#[cold]
fn busy(error: crate::Error, advice: &'static str) -> crate::Error {
    match error.kind() {
        ErrorKind::Busy => error.with_advice(advice),
        _ => error,
    }
}
