//! Exit codes: what each means, and which one an error gets.

use steadfast::{DiskState, Error, ErrorKind};

/// How the command ends. The number is what the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Ok,
    /// 1: it failed, and nothing was changed.
    Failed,
    /// 2: the command line makes no sense; nothing was changed.
    Usage,
    /// 3: the new state is visible, but is not known to survive a power cut.
    Published,
    /// 4: done in part, or unknown.
    Indeterminate,
    /// 5: a condition was not met (it exists, does not exist, or has changed); nothing was changed.
    Condition,
    /// 6: this kernel or file system cannot do it; nothing was changed.
    Unsupported,
    /// 7: it is recorded durably, and recovery finishes it.
    Committed,
    /// 8: somebody else's change stands against it, and a person has to choose.
    Conflict,
    /// 125: `run` itself failed.
    Run,
    /// What the command that was run has given.
    Passed(u8),
    /// 128 + the signal's number: interrupted; nothing was changed.
    Interrupted(u8),
}

/// The table in every help text and man page: code, meaning.
pub(crate) const TABLE: &[(&str, &str)] = &[
    ("0", "done"),
    ("1", "failed, nothing was changed"),
    ("2", "wrong usage, nothing was changed"),
    (
        "3",
        "the new state is visible, but may be lost in a power cut",
    ),
    ("4", "done in part, or unknown: the message says which"),
    (
        "5",
        "a condition was not met: exists, does not exist, or changed",
    ),
    ("6", "not supported by this kernel or file system"),
    (
        "7",
        "recorded durably, but not all in place: see steadfast recover",
    ),
    (
        "8",
        "a conflict with somebody else's change: see steadfast status",
    ),
    ("125", "of run: it failed itself, the message says how"),
    ("126", "of run: the command cannot be started"),
    ("127", "of run: the command is not found"),
    ("129", "interrupted by SIGHUP, nothing was changed"),
    ("130", "interrupted by SIGINT, nothing was changed"),
    ("143", "interrupted by SIGTERM, nothing was changed"),
];

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Published => 3,
            Self::Indeterminate => 4,
            Self::Condition => 5,
            Self::Unsupported => 6,
            Self::Committed => 7,
            Self::Conflict => 8,
            Self::Run => 125,
            Self::Passed(code) => code,
            Self::Interrupted(signal) => 128_u8.saturating_add(signal),
        }
    }

    /// For an error of the library; `signal` is the one that arrived, if any.
    pub(crate) fn of(error: &Error, signal: Option<u8>) -> Self {
        match error.disk_state() {
            _ if error.kind() == ErrorKind::Conflict => Self::Conflict,
            DiskState::Unchanged => match (error.kind(), signal) {
                (ErrorKind::Cancelled | ErrorKind::Source, Some(signal)) => {
                    Self::Interrupted(signal)
                }
                (
                    ErrorKind::NotFound
                    | ErrorKind::AlreadyExists
                    | ErrorKind::Changed
                    | ErrorKind::Mismatch,
                    _,
                ) => Self::Condition,
                (ErrorKind::Unsupported | ErrorKind::LowerLayer, _) => Self::Unsupported,
                _ => Self::Failed,
            },
            DiskState::Published => Self::Published,
            DiskState::Committed => Self::Committed,
            _ => Self::Indeterminate,
        }
    }

    /// The one of two that says more about the disk.
    pub(crate) fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Condition => 1,
            Self::Unsupported => 2,
            Self::Usage => 3,
            Self::Failed => 4,
            Self::Interrupted(_) => 5,
            Self::Conflict => 6,
            Self::Published => 7,
            Self::Committed => 8,
            Self::Indeterminate => 9,
            Self::Run | Self::Passed(_) => 10,
        }
    }
}

/// The table as text for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in TABLE {
        text.push_str(&format!("  {code:<4} {meaning}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}
