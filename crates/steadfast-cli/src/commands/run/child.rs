//! Running a command under watch: its signals, its end, and that it does not outlive this process.
//!
//! The command shares the terminal, the process group and the descriptors 0 to 2. A signal that the terminal
//! sends goes to the whole group, so the command has it already; one that a process sends to this one alone
//! is passed on.
//!
//! If this process is killed, the kernel kills the command too (`PR_SET_PDEATHSIG`). A child must ask for
//! that itself, before it becomes the command: so this binary starts itself under another name
//! ([`NAME`]), asks, and becomes the command.

use crate::output;
use crate::signals;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The name (`argv[0]`) by which this binary knows that it is to become a command.
const NAME: &str = "steadfast-run-child";
/// As env(1) and timeout(1) have it.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
const PARENT_GONE: u8 = 125;

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    status: ExitStatus,
    /// The signal that a process sent to this one meanwhile.
    pub(super) told: Option<u8>,
}

impl Ended {
    /// Its exit code, or 128 and the number of the signal that killed it.
    pub(super) fn code(&self) -> u8 {
        let code = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        };
        u8::try_from(code).unwrap_or(255)
    }

    /// Whether it ended by itself and with 0.
    pub(super) fn success(&self) -> bool {
        self.status.success()
    }

    /// The signal that killed it.
    pub(super) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Starts the command and waits for its end. `None`: a signal came before it was started.
pub(super) fn run(words: &[OsString]) -> io::Result<Option<Ended>> {
    let wanted = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
    // What the parent ignores (nohup) the command ignores too.
    let heeded = wanted.into_iter().filter(|s| !signals::is_ignored(*s));
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(heeded)?;
    let handle = signals.handle();
    if signals::pending().is_some() {
        return Ok(None);
    }
    // A parent may have had it ignored, and then children leave no status.
    static CHILD: AtomicBool = AtomicBool::new(false);
    signal_hook::flag::register(SIGCHLD, &CHILD)?;
    let me = rustix::process::getpid().as_raw_nonzero().to_string();
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg(me)
        .args(words)
        .spawn()?;
    let pid = Pid::from_child(&child);
    let told = AtomicU8::new(0);
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| {
            for info in signals.forever().filter(|info| is_sent(info.si_code)) {
                pass_on(pid, info.si_signo);
                told.store(number(info.si_signo), Ordering::SeqCst);
            }
        });
        let waited = until_ended(pid);
        // The thread ends, and only then is the child forgotten: its number is nobody else's until then.
        handle.close();
        waited
    });
    // What came while it ended.
    for info in signals.pending().filter(|info| is_sent(info.si_code)) {
        told.store(number(info.si_signo), Ordering::SeqCst);
    }
    let status = child.wait()?;
    waited?;
    let told = Some(told.into_inner()).filter(|n| *n != 0);
    Ok(Some(Ended { status, told }))
}

/// Whether a signal of this `si_code` is from a process, not from the kernel for a key of the terminal.
fn is_sent(code: i32) -> bool {
    code <= 0
}

fn number(signal: i32) -> u8 {
    u8::try_from(signal).unwrap_or(0)
}

fn pass_on(pid: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Waits, and leaves the child to be asked for its status.
fn until_ended(pid: Pid) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(drop).map_err(Into::into),
        }
    }
}

/// Becomes a command if this process was started for that; else does nothing. Gives the exit code if it
/// could not.
pub(crate) fn become_command(args: &[OsString]) -> Option<u8> {
    let [name, parent, word, rest @ ..] = args else {
        return None;
    };
    if name != NAME {
        return None;
    }
    let parent = parent.to_str()?.parse().ok()?;
    // Without it the command only outlives a killed `run`; what was to be put back is put back later.
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let parent_now = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
    if asked.is_ok() && parent_now != Some(parent) {
        return Some(PARENT_GONE);
    }
    let error = Command::new(word).args(rest).exec();
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or(&words);
    output::eprint(&format!("steadfast: cannot run {word:?}: {words}\n"));
    Some(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    })
}
