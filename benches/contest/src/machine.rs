//! What this ran on.

use crate::result::Machine;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// The crates whose versions matter to a reader.
const COMPARED: [&str; 10] = [
    "atomic-write-file",
    "atomicwrites",
    "cap-std",
    "cap-std-ext",
    "fs-transaction",
    "libsqlite3-sys",
    "pathrs",
    "rusqlite",
    "rustix",
    "tempfile",
];

/// Describes the machine; `disk` is the script's word for what the images lie on.
pub(crate) fn describe(disk: String) -> Machine {
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        let text = output.map(|o| o.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    let field = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let kib: u64 = memory
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    Machine {
        date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        kernel: said("uname", &["-sr"]),
        processor: field("/proc/cpuinfo", "model name"),
        processors: std::thread::available_parallelism().map_or(0, Into::into),
        memory_mib: kib / 1024,
        compiler: said("rustc", &["--version"]),
        disk,
        versions: versions(),
    }
}

fn versions() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../Cargo.lock").lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        } else if let Some(value) = line.strip_prefix("version = ")
            && COMPARED.contains(&name)
        {
            all.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    all
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|n| n.parse().ok()).unwrap_or(0.0)
}
