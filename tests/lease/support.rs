//! What the tests of leases share.

use crate::common::FOREVER;
pub(crate) use crate::common::long;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use steadfast::lease::{Lease, Leases};
use steadfast::sys::hook::{self, Machine};
use steadfast::{ErrorKind, Root};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn leases(dir: &Path) -> Leases {
    Leases::open(Root::open(dir).unwrap().dir()).unwrap()
}

/// The file of a lease whose name needs no coding.
pub(crate) fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("leases").join(format!("lease-{name}"))
}

/// Waits for a lease that is free but for somebody's moment.
pub(crate) fn take(leases: &Leases, name: &str) -> Lease {
    leases.acquire(name, FOREVER).unwrap()
}

pub(crate) fn kind<T: std::fmt::Debug>(result: steadfast::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A machine whose clock says this many seconds.
pub(crate) fn machine(boot: u8, seconds: u64) -> Machine {
    Machine {
        boot_id: Some([boot; 16]),
        time_namespace: Some(7),
        boottime: Duration::from_secs(seconds),
    }
}

/// Runs `f` on another machine.
pub(crate) fn on<R>(machine: Machine, f: impl FnOnce() -> R) -> R {
    struct Back(Option<Machine>);
    impl Drop for Back {
        fn drop(&mut self) {
            hook::set_machine(self.0);
        }
    }
    let _back = Back(hook::set_machine(Some(machine)));
    f()
}

/// The variable that makes a test the child of another: the directory.
pub(crate) const CHILD: &str = "STEADFAST_TEST_LEASE";

/// The directory, in a child.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(Into::into)
}

/// Starts the test `name` of this binary as a child, with `plan` for its calls beside what the
/// whole run is denied; it is past exec when this returns.
pub(crate) fn spawn(name: &str, dir: &Path, plan: &str) -> Child {
    let inherited = std::env::var(hook::ENV).unwrap_or_default();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(hook::ENV, format!("{inherited};{plan}"))
        .env(CHILD, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    crate::common::spawn(&mut command)
}

/// Reads the child's output until a line has this.
pub(crate) fn wait_for(child: &mut Child, word: &str) {
    let mut out = BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(
            out.read_line(&mut line).unwrap() > 0,
            "it never said {word:?}"
        );
    }
}

/// All that a child says until its end.
pub(crate) fn output(child: &mut Child) -> String {
    let mut out = String::new();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    out
}
