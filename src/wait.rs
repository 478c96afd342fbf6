//! Trying again until something is free, or the time is up.

use crate::{ErrorKind, Result};
use std::time::{Duration, Instant};

/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(20));

/// Tries until it is not [`ErrorKind::Busy`] any more, or the time is up.
pub(crate) fn again_until<T>(wait: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        match attempt() {
            Err(e) if e.kind() == ErrorKind::Busy => {
                let left = wait.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(e);
                }
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(PAUSE.1);
            }
            done => return done,
        }
    }
}
