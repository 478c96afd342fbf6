//! Running the command and looking at what it said.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

/// A fresh directory below `STEADFAST_TEST_DIR`, or below the system's place for temporary files.
pub(crate) fn dir() -> tempfile::TempDir {
    let base = std::env::var_os("STEADFAST_TEST_DIR")
        .map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    tempfile::TempDir::with_prefix_in("cli-", base).unwrap()
}

/// Says that a test, or a part of one, did not run. Past the test harness, which keeps what a test prints to
/// itself unless it fails.
pub(crate) fn skipped(test: &str, why: impl std::fmt::Display) {
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        parse(&self.stdout)
    }

    /// The one JSON object on stderr.
    #[track_caller]
    pub(crate) fn error(&self) -> serde_json::Value {
        assert_eq!(self.stdout, "", "a failure says nothing on stdout");
        let error = parse(&self.stderr);
        assert_eq!(error["exit_code"], self.code, "{self:#?}");
        let fields = [
            "error",
            "operation",
            "kind",
            "errno",
            "errno_number",
            "system_call",
            "path",
            "disk_state",
            "advice",
            "left_behind",
            "exit_code",
            "command",
        ];
        for field in fields {
            assert!(error.get(field).is_some(), "{field}: {error}");
        }
        error
    }
}

#[track_caller]
fn parse(text: &str) -> serde_json::Value {
    assert_eq!(text.lines().count(), 1, "one object on one line: {text:?}");
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(value.is_object(), "{text}");
    value
}

/// The command, in `dir`, with nothing of the environment that changes its words.
pub(crate) fn steadfast(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.current_dir(dir);
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COLUMNS", "TERM"] {
        command.env_remove(name);
    }
    command
}

/// Runs with these arguments and nothing on stdin.
pub(crate) fn run<S: AsRef<OsStr>>(
    dir: &std::path::Path,
    args: impl IntoIterator<Item = S>,
) -> Ran {
    run_with(dir, args, b"")
}

/// Runs with these arguments and this on stdin.
pub(crate) fn run_with<S: AsRef<OsStr>>(
    dir: &std::path::Path,
    args: impl IntoIterator<Item = S>,
    stdin: &[u8],
) -> Ran {
    let mut child = spawn(steadfast(dir).args(args));
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that fails early need not read everything.
        let _ = pipe.write_all(&stdin);
    });
    let ran = ended(child);
    feeder.join().unwrap();
    ran
}

/// Children have every signal's default, also where this process was started with some ignored, as a shell
/// starts what it puts in the background: what is handled here is at its default behind an exec. For this
/// process an ignored signal is as before.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
        let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if mask & (1 << (signal - 1)) != 0 {
                signal_hook::flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
}

/// Starts a command with pipes all around.
pub(crate) fn spawn(command: &mut Command) -> Child {
    heed_signals();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until a child pauses; false if it has ended.
pub(crate) fn pauses(child: &Child) -> bool {
    let id = || WaitId::Pid(Pid::from_child(child));
    let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED;
    let status = waitid(id(), either | WaitIdOptions::NOWAIT)
        .unwrap()
        .unwrap();
    if status.stopped() {
        // Once is enough: the next pause is another one.
        waitid(id(), WaitIdOptions::STOPPED).unwrap();
    }
    status.stopped()
}

/// Lets a child that pauses go on.
pub(crate) fn go_on(child: &Child) {
    send(child, Signal::CONT);
}

/// Starts the command so that it pauses before its n-th system call, for each of these, and waits for the
/// first. Whatever is done then is done at this point, however fast the machine is. `None` where the command
/// is built without the test seam.
pub(crate) fn paused(test: &str, command: &mut Command, at: &[u32]) -> Option<Child> {
    const HOOK: &str = "STEADFAST_HOOK";
    let start = |command: &mut Command, at: &[u32]| {
        let mut plan = std::env::var(HOOK).unwrap_or_default() + ";arm";
        for n in at {
            plan.push_str(&format!(";pause-before:{n}"));
        }
        spawn(command.env(HOOK, plan))
    };
    let child = start(command, at);
    if !pauses(&child) {
        let ran = ended(child);
        let here = std::env::temp_dir();
        let probe = start(steadfast(&here).args(["lookup", "--root", ".", "."]), &[1]);
        let seam = pauses(&probe);
        send(&probe, Signal::KILL);
        ended(probe);
        assert!(!seam, "it makes fewer calls than {at:?}: {ran:#?}");
        skipped(test, "the command is built without the test seam");
        return None;
    }
    Some(child)
}

/// Longer than anything takes here, even on a busy machine: a child that still runs then waits for ever.
const FOREVER: Duration = Duration::from_secs(600);

/// Waits for a child, and kills one that would never end.
pub(crate) fn ended(child: Child) -> Ran {
    let pid = Pid::from_child(&child);
    let (done, waiting) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waiting.recv_timeout(FOREVER) == Err(mpsc::RecvTimeoutError::Timeout) {
            // It may end by itself just now.
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    ran(&output)
}

/// What an output says.
pub(crate) fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    for word in ["panicked", "RUST_BACKTRACE", "internal error"] {
        assert!(!ran.stderr.contains(word), "{ran:#?}");
    }
    ran
}

/// The names in a directory, sorted: what was left there.
pub(crate) fn names(dir: &std::path::Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// Whether the file system under test exchanges names; what needs it gives 6 where it does not.
pub(crate) fn exchanges(d: &std::path::Path) -> bool {
    let json = run(d, ["doctor", "--json"]).expect(0).json();
    let features = json["features"].as_array().unwrap();
    features
        .iter()
        .any(|f| f["name"] == "rename-exchange" && f["answer"] == "yes")
}
