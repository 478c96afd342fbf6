//! Everything here as text for people.

use super::abandon::{Abandoned, AbandonedStep};
use super::explain::{ExplainedStep, Explanation, Now};
use super::prune::Pruned;
use super::records::{LogRecord, LogRecords};
use super::repair::{Repaired, RepairedLog};
use super::status::{
    FolderStatus, Problem, SectionStatus, Status, TransactionState, TransactionStatus, WriterStatus,
};
use crate::workspace::conflict::{Conflict, Ours, Theirs};
use crate::workspace::plan::Shown;
use std::fmt;
use std::path::PathBuf;

impl TransactionState {
    /// One word, which does not change.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in-progress",
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Lost => "lost",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Now {
    /// One word, which does not change.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
            Self::Between => "between",
            Self::Theirs => "theirs",
            Self::Unknown => "unknown",
            Self::GivenUp => "given-up",
        }
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Shown(&self.path), self.what)
    }
}

impl fmt::Display for WriterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = if self.live { "live" } else { "nobody's" };
        let Self {
            index,
            records,
            bytes,
            ..
        } = self;
        write!(
            f,
            "log {index:08x}: {life}, {records} records, {bytes} bytes"
        )?;
        match &self.damage {
            Some(damage) => write!(f, "; damaged: {damage}"),
            None => Ok(()),
        }
    }
}

/// A caller's text after a number, quoted, if there is any.
struct Label<'l>(&'l str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            text => write!(f, " {text:?}"),
        }
    }
}

impl fmt::Display for TransactionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = Label(&self.label);
        write!(f, "transaction {}{label}: {}", self.number, self.state)?;
        for path in &self.paths {
            write!(f, " {}", Shown(path))?;
        }
        Ok(())
    }
}

impl fmt::Display for SectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.live { "live" } else { "dead" };
        write!(f, "section {}{}: {state}", self.number, Label(&self.label))?;
        match &self.phase {
            Some(phase) => write!(f, ", phase {phase:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FolderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} needed ({} bytes), {} litter ({} bytes), {} others",
            Shown(&self.path),
            self.owned,
            self.owned_bytes,
            self.litter,
            self.litter_bytes,
            self.others
        )
    }
}

fn conflict(f: &mut fmt::Formatter<'_>, conflict: &Conflict) -> fmt::Result {
    let path = Shown(conflict.path());
    write!(f, "conflict {}: {path}: there is ", conflict.id())?;
    match conflict.theirs() {
        Theirs::Nothing => f.write_str("nothing"),
        Theirs::File(len) => write!(f, "a file of {len} bytes"),
        Theirs::Dir => f.write_str("a directory"),
        Theirs::Symlink => f.write_str("a symlink"),
        Theirs::Special => f.write_str("a special file"),
    }?;
    f.write_str(", the transaction wants ")?;
    match conflict.ours() {
        Ours::Kept(path) => writeln!(f, "what is kept in {}", Shown(&path)),
        Ours::Nothing => writeln!(f, "nothing there"),
        Ours::Change => writeln!(f, "to change it"),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "workspace {:032x}", u128::from_be_bytes(id))?,
            None => f.write_str("workspace without a readable format")?,
        }
        if let Some(version) = self.version {
            write!(f, ", version {version}")?;
        }
        if let (Some(horizon), Some(last)) = (self.horizon, self.last) {
            write!(f, ", {last} numbers given out, in place up to {horizon}")?;
        }
        writeln!(f)?;
        if self.copy {
            writeln!(f, "it is a copy of another workspace")?;
        }
        lines(f, "problem: ", &self.problems)?;
        lines(f, "", &self.writers)?;
        lines(f, "", &self.transactions)?;
        lines(f, "", &self.sections)?;
        for one in &self.conflicts {
            conflict(f, one)?;
        }
        lines(f, "", &self.private)?;
        for lease in &self.leases {
            let name = String::from_utf8_lossy(lease.name());
            writeln!(f, "lease {name:?}: {:?}", lease.state())?;
        }
        Ok(())
    }
}

fn lines<T: fmt::Display>(f: &mut fmt::Formatter<'_>, before: &str, all: &[T]) -> fmt::Result {
    for one in all {
        writeln!(f, "{before}{one}")?;
    }
    Ok(())
}

impl fmt::Display for ExplainedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]: {}", self.what, self.now, self.would)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.transaction, &self.section) {
            (Some(transaction), _) => writeln!(f, "{transaction}")?,
            (None, Some(section)) => writeln!(f, "{section}")?,
            (None, None) => writeln!(f, "number {}", self.number)?,
        }
        writeln!(f, "{}", self.outlook)?;
        lines(f, "  ", &self.steps)
    }
}

impl fmt::Display for LogRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = Label(&self.label);
        write!(f, "{} {} {}{label}", self.seq, self.kind, self.number)?;
        if self.damaged {
            f.write_str(" (cannot be read)")?;
        }
        for (n, line) in self.summary.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { "; " })?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

impl fmt::Display for LogRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = if self.live { " (live)" } else { "" };
        writeln!(f, "log {:08x}{life}", self.writer)?;
        lines(f, "  ", &self.records)?;
        if let Some(damage) = &self.damage {
            writeln!(f, "  damaged: {damage}")?;
        }
        match &self.error {
            Some(error) => writeln!(f, "  cannot be read: {error}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AbandonedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = Label(&self.label);
        writeln!(f, "transaction {}{label} is given up", self.number)?;
        lines(f, "done, and stays: ", &self.done)?;
        lines(f, "given up: ", &self.given_up)?;
        lines(f, "kept as conflict ", &self.conflicts)
    }
}

impl fmt::Display for RepairedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, last, .. } = self;
        write!(
            f,
            "log {index:08x}: {}; kept up to record {last}",
            self.damage
        )?;
        if !self.given_up.is_empty() {
            write!(f, "; given up: transactions {}", Numbers(&self.given_up))?;
        }
        match self.unreadable {
            _ if self.everything => f.write_str("; nothing in it can be read: all is given up"),
            0 => Ok(()),
            n => write!(f, "; {n} records cannot be read at all"),
        }
    }
}

struct Numbers<'n>(&'n [u64]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing is damaged");
        }
        if self.format {
            writeln!(f, "format: written anew, with a new id")?;
        }
        paths(f, "made folder", &self.folders)?;
        if let Some(ledger) = self.ledger {
            writeln!(
                f,
                "ledger: rebuilt; in place up to {}, new numbers above {}",
                ledger.horizon, ledger.last
            )?;
        }
        lines(f, "", &self.logs)?;
        if !self.unreadable.is_empty() {
            let numbers = Numbers(&self.unreadable);
            writeln!(f, "given up, as their records make no sense: {numbers}")?;
        }
        paths(f, "damaged, and set aside:", &self.notes)?;
        paths(f, "the damaged bytes are in", &self.set_aside)
    }
}

fn paths(f: &mut fmt::Formatter<'_>, before: &str, all: &[PathBuf]) -> fmt::Result {
    for path in all {
        writeln!(f, "{before} {}", Shown(path))?;
    }
    Ok(())
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "there is nothing to remove");
        }
        paths(f, "litter", &self.litter)?;
        for index in &self.logs {
            writeln!(f, "log {index:08x}")?;
        }
        if self.keys > 0 {
            writeln!(f, "{} keys", self.keys)?;
        }
        paths(f, "set aside", &self.set_aside)?;
        writeln!(f, "{} bytes in all", self.bytes)
    }
}
