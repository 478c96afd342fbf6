//! `doctor`: what this kernel and file system can do, and what happens where they cannot.

use super::Done;
use crate::args::DoctorArgs;
use crate::failure::Failure;
use crate::output::{Report, Text};
use crate::paths::{count, shown};
use clap::builder::styling::AnsiColor;
use serde_json::{Value, json};
use steadfast::Root;
use steadfast::root::{Capabilities, Capability, Feature};
use steadfast::sys::{Errno, errno_name};

const UNTRIED: &str = "could not be tried here: give a directory that can be written to";

/// Tries everything in the directory.
pub(crate) fn run(args: &DoctorArgs) -> Done {
    let here = |e: steadfast::Error| Failure::of(e.map_paths(|p| args.dir.join(p)), &[]);
    let root = Root::open(&args.dir).map_err(|e| Failure::of(e, &[]))?;
    let can = Capabilities::probe(&root).map_err(here)?;
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy().into_owned();
    let access = if can.is_read_only() {
        "read-only"
    } else {
        "read-write"
    };
    let mut text = Text::default();
    text.push(format!(
        "kernel       Linux {kernel}\ndirectory    {}\nfile system  {}, {access}\n\n",
        shown(&args.dir),
        can.file_system().name(),
    ));
    text.push(format!("{:<17} {:<18} {}\n", "feature", "here", "instead"));
    for (feature, answer) in can.iter() {
        row(&mut text, feature, answer);
    }
    let mut lines = Vec::new();
    let untried = can
        .iter()
        .filter(|(_, a)| matches!(a, Capability::Unknown(_)));
    let untried = untried.count();
    if untried > 0 {
        lines.push(wrapped(
            "  ",
            &format!("{} {UNTRIED}", count(untried as u64, "feature")),
        ));
    }
    for (feature, answer) in can.iter() {
        if let (Capability::No(_), Some(words)) = (answer, advice(feature, answer)) {
            let first = format!("  {:<17} ", format!("{}:", feature.name()));
            lines.push(wrapped(&first, words));
        }
    }
    if !lines.is_empty() {
        text.push(format!("\nadvice\n{}", lines.concat()));
    }
    let features: Vec<Value> = can.iter().map(|(f, a)| as_json(f, a)).collect();
    Ok(Report::answer(text)
        .with_path("dir", &args.dir)
        .with("kernel", kernel)
        .with("file_system", can.file_system().name())
        .with("read_only", can.is_read_only())
        .with("mount_id", can.mount_id())
        .with("features", features))
}

fn row(text: &mut Text, feature: Feature, answer: Capability) {
    let (word, color, errno) = match answer {
        Capability::Yes => ("yes", AnsiColor::Green, None),
        Capability::No(e) => ("no", AnsiColor::Red, Some(e)),
        Capability::Unknown(e) => ("unknown", AnsiColor::Yellow, Some(e)),
    };
    text.push(format!("{:<17} ", feature.name()));
    text.push_colored(word, color);
    if let Some(errno) = errno {
        let why = format!(" ({})", name(errno));
        let width = 18_usize.saturating_sub(word.len());
        let line = format!("{:<17} {:<18} ", "", "");
        let instead = wrapped(&line, feature.fallback());
        text.push(format!("{why:<width$} {}", instead.trim_start()));
    } else {
        text.push("\n");
    }
}

/// What a person can do about a "no"; nothing where nobody need care.
fn advice(feature: Feature, answer: Capability) -> Option<&'static str> {
    let errno = match answer {
        Capability::Yes => return None,
        Capability::Unknown(_) => return Some(UNTRIED),
        Capability::No(errno) => errno,
    };
    Some(match (feature, errno) {
        (Feature::Whiteout, _) => "nothing to do",
        (Feature::OpenAt2, _) => {
            "nothing is lost but speed; Linux 5.6 has it, if no sandbox blocks it"
        }
        (Feature::LinkProc, _) => "mount procfs at /proc",
        (Feature::MountId, _) => "Linux 5.8 has it",
        (Feature::UniqueMountId, _) => "Linux 6.8 has it",
        (_, Errno::NOSYS | Errno::PERM) => {
            "a newer kernel, more rights, or a sandbox that lets the call through"
        }
        (Feature::Exchange, _) => "to swap and to replace folders, use ext4, xfs, btrfs or tmpfs",
        (Feature::NoReplace | Feature::TmpFile | Feature::LinkEmptyPath, _) => {
            "nothing is lost but speed; ext4, xfs, btrfs and tmpfs have it"
        }
        (Feature::Reflink, _) => "to copy without copying, use xfs or btrfs",
        (Feature::SyncDirectory, _) => {
            "names cannot be made durable here: do not keep data that must survive"
        }
        (Feature::FlockDirectory | Feature::WriteLease, _) => {
            "after a kill, remove names that begin with .sf- by hand"
        }
        (Feature::BirthTime | Feature::CopyFileRange | Feature::Fallocate, _) => "nothing to do",
        (Feature::HardLink, _) => "to give a file two names, use ext4, xfs, btrfs or tmpfs",
        (Feature::UserXattr, _) => {
            "to keep attributes, use ext4, xfs or btrfs, or tmpfs since Linux 6.6"
        }
        (Feature::PosixAcl, _) => "to keep access lists, use ext4, xfs or btrfs, and no noacl",
        (Feature::SyncFs, _) => "large folders are synced file by file if the program asks for it",
        (Feature::OfdLock, _) => "keep workspaces, claims and leases on a local file system",
        _ => "if you need it, use ext4, xfs or btrfs",
    })
}

fn as_json(feature: Feature, answer: Capability) -> Value {
    let (word, errno) = match answer {
        Capability::Yes => ("yes", None),
        Capability::No(e) => ("no", Some(name(e))),
        Capability::Unknown(e) => ("unknown", Some(name(e))),
    };
    json!({
        "name": feature.name(),
        "answer": word,
        "errno": errno,
        "fallback": (!answer.is_yes()).then(|| feature.fallback()),
        "advice": advice(feature, answer),
    })
}

fn name(errno: Errno) -> String {
    errno_name(errno).map_or_else(|| format!("errno {}", errno.raw_os_error()), str::to_owned)
}

/// Words after a first part, with further lines under the first word, in 80 columns.
fn wrapped(first: &str, words: &str) -> String {
    let mut out = String::from(first);
    let mut column = first.len();
    for (n, word) in words.split(' ').enumerate() {
        if n > 0 && column + 1 + word.len() > 80 {
            out.push('\n');
            out.push_str(&" ".repeat(first.len()));
            column = first.len();
        } else if n > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_advice_for_each_no_and_it_fits() {
        let errnos = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::PERM];
        for feature in Feature::ALL {
            assert_eq!(advice(feature, Capability::Yes), None);
            for errno in errnos {
                let words = advice(feature, Capability::No(errno)).unwrap();
                assert!(!words.starts_with("if you need it"), "{}", feature.name());
                let lines = wrapped(&format!("  {:<17} ", feature.name()), words);
                assert!(lines.lines().count() <= 2, "{lines}");
                assert!(lines.lines().all(|l| l.len() <= 80), "{lines}");
            }
        }
    }
}
