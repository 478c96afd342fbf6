//! SIGINT, SIGTERM and SIGHUP: noted, and acted upon where the work can stop without a trace.
//!
//! A signal before the publication makes the work stop and take back what it staged. After it, the work is
//! finished. A second SIGINT ends the command at once, with exit code 4; what it leaves is found by `sweep`.
//! (Only SIGINT: some supervisors send SIGTERM twice. And not of `run`, whose command gets it as well and
//! decides.)

use crate::exit::Exit;
use signal_hook::consts::signal::SIGXFSZ;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

static SEEN: AtomicUsize = AtomicUsize::new(0);
static IGNORED: AtomicU64 = AtomicU64::new(0);
static ARMED: AtomicBool = AtomicBool::new(false);
/// Nobody asks: see where it is registered.
static LIMIT: AtomicBool = AtomicBool::new(false);
/// Readable once a signal has arrived: what a poll waits for beside its input. Never read from.
static WAKE: OnceLock<PipeReader> = OnceLock::new();

/// Starts noting signals; those that the parent had ignored (nohup) stay ignored. With `insist` a second
/// SIGINT ends the process.
pub(crate) fn install(insist: bool) -> io::Result<()> {
    let (wake, writer) = io::pipe()?;
    IGNORED.store(ignored_mask(), Ordering::SeqCst);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if is_ignored(signal) {
            continue;
        }
        let number = usize::try_from(signal).unwrap_or_default();
        if signal == SIGINT && insist {
            // In this order: the first signal arms it, the second meets it. Nobody knows how far it had come.
            let status = Exit::Indeterminate.code();
            flag::register_conditional_shutdown(signal, status.into(), &ARMED)?;
            flag::register(signal, &ARMED)?;
        }
        flag::register_usize(signal, &SEEN, number)?;
        low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    // Without a handler it kills; with one, writing beyond the limit is an error (EFBIG) as any other.
    flag::register(SIGXFSZ, &LIMIT)?;
    // Set once, here; a second call would only leave the first pipe in place.
    let _ = WAKE.set(wake);
    Ok(())
}

/// The signal that asked this process to stop, if one did.
pub(crate) fn pending() -> Option<u8> {
    match SEEN.load(Ordering::SeqCst) {
        0 => None,
        n => u8::try_from(n).ok(),
    }
}

/// A descriptor that becomes readable when a signal arrives.
pub(crate) fn wake() -> Option<BorrowedFd<'static>> {
    WAKE.get().map(AsFd::as_fd)
}

/// Whether the parent had it ignored.
pub(crate) fn is_ignored(signal: i32) -> bool {
    IGNORED.load(Ordering::SeqCst) & (1 << (signal - 1)) != 0
}

/// Bit n-1 is set for an ignored signal n; nothing where /proc cannot tell.
fn ignored_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("SigIgn:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// The name of a signal that stops work.
pub(crate) fn name(signal: u8) -> &'static str {
    match i32::from(signal) {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        SIGHUP => "SIGHUP",
        SIGQUIT => "SIGQUIT",
        _ => "a signal",
    }
}
