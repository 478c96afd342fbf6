//! Parts of these tests that need a process of their own: this binary again, told by the environment what
//! to be.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the process is to be.
pub(crate) const ROLE: &str = "STEADFAST_TEST_ROLE";
/// The directory to work in.
pub(crate) const TOP: &str = "STEADFAST_TEST_TOP";

/// The test below, run alone, in a process with this role.
pub(crate) fn command(role: &str, top: &Path, more: &[(&str, &str)]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Ok(exe) = std::env::current_exe() {
        command = Command::new(exe);
    }
    command
        .args([
            "--exact",
            "children::role",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ROLE, role)
        .env(TOP, top)
        .envs(more.iter().copied());
    command
}

/// Runs it to its end, which must be a good one.
pub(crate) fn run(role: &str, top: &Path, more: &[(&str, &str)]) {
    let output = command(role, top, more).output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for line in said.lines().filter(|line| line.starts_with("SKIPPED")) {
        let (test, why) = line
            .trim_start_matches("SKIPPED ")
            .split_once(": ")
            .unwrap_or((line, ""));
        super::support::skipped(test, why);
    }
    assert!(output.status.success(), "{role}:\n{said}");
}

/// Starts it, to be ended by [`Stop`].
pub(crate) fn start(role: &str, top: &Path, more: &[(&str, &str)]) -> Stop {
    let mut command = command(role, top, more);
    Stop(command.stdout(Stdio::null()).spawn().unwrap())
}

/// A process that ends with this value.
pub(crate) struct Stop(Child);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test of its own: what the other processes run. Without a role there is nothing to do.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "attacker" => super::attack::child(),
        "depth" => super::depth::child(),
        "filtered" => super::blocked::filtered_child(),
        "genuine" => super::blocked::genuine_child(),
        "no-proc" => super::blocked::no_proc_child(),
        other => panic!("no role {other:?}"),
    }
}
