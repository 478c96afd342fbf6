//! What the library may cost, whether it does, and what can be had at all where it does not.

use crate::result::{CaseResult, ContenderResult, FileSystem};

/// One bound on a number that a run gives.
pub(crate) struct Target {
    pub(crate) text: &'static str,
    /// `None`: not a bound, but what to judge the one above it by.
    pub(crate) limit: Option<f64>,
    /// Whether the limit is the least, and not the most.
    pub(crate) at_least: bool,
    pub(crate) unit: &'static str,
    pub(crate) value: fn(&FileSystem) -> Option<f64>,
}

impl Target {
    /// Whether a value is within.
    pub(crate) fn met(&self, value: f64) -> bool {
        self.limit.is_none_or(|limit| match self.at_least {
            true => value >= limit,
            false => value <= limit,
        })
    }
}

const fn at_most(text: &'static str, limit: f64, value: fn(&FileSystem) -> Option<f64>) -> Target {
    Target {
        text,
        limit: Some(limit),
        at_least: false,
        unit: "",
        value,
    }
}

const fn at_least(text: &'static str, limit: f64, value: fn(&FileSystem) -> Option<f64>) -> Target {
    Target {
        at_least: true,
        ..at_most(text, limit, value)
    }
}

const fn beside(text: &'static str, value: fn(&FileSystem) -> Option<f64>) -> Target {
    Target {
        limit: None,
        ..at_most(text, 0.0, value)
    }
}

const OURS: &str = "steadfast";
const PLAIN: &str = "steadfast, nothing kept";
const BY_A_LOG: &str = "raw, by a log that nobody can recover by";
const CALLS: &str = "the calls of a commit";
const CALLS_IN_PLACE: &str = "the calls of a commit, in place";

/// All bounds.
pub(crate) const ALL: [Target; 26] = [
    at_most("replace 4 KiB, nothing kept / raw", 1.02, |fs| {
        ratio(fs, "replace/4096", PLAIN, &["raw"])
    }),
    at_most("replace 4 KiB / raw, attributes kept", 1.02, |fs| {
        ratio(fs, "replace/4096", OURS, &["raw, attributes kept"])
    }),
    at_most("replace 1 MiB, nothing kept / raw", 1.02, |fs| {
        ratio(fs, "replace/1048576", PLAIN, &["raw"])
    }),
    at_most("1 file in a transaction / raw replace", 0.4, |fs| {
        ratio(fs, "transaction/1/4096", OURS, &["raw, one by one"])
    }),
    beside("- the calls of such a commit / raw replace", |fs| {
        ratio(fs, "transaction/1/4096", CALLS, &["raw, one by one"])
    }),
    beside("- the least by a log / raw replace", |fs| {
        ratio(fs, "transaction/1/4096", BY_A_LOG, &["raw, one by one"])
    }),
    at_most("1 file in a transaction / SQLite", 1.0, |fs| {
        ratio(fs, "transaction/1/4096", OURS, &["SQLite"])
    }),
    beside("- the least by a log / SQLite", |fs| {
        ratio(fs, "transaction/1/4096", BY_A_LOG, &["SQLite"])
    }),
    at_most("10 files in a transaction / raw, one by one", 0.15, |fs| {
        ratio(fs, "transaction/10/4096", OURS, &["raw, one by one"])
    }),
    at_most("100 files in a transaction / raw, one by one", 0.08, |fs| {
        ratio(fs, "transaction/100/4096", OURS, &["raw, one by one"])
    }),
    at_least("10 files: fs-transaction / steadfast", 8.0, |fs| {
        ratio(fs, "transaction/10/4096", "fs-transaction", &[OURS])
    }),
    beside("- fs-transaction / the least by a log", |fs| {
        ratio(fs, "transaction/10/4096", "fs-transaction", &[BY_A_LOG])
    }),
    at_least("100 files: fs-transaction / steadfast", 8.0, |fs| {
        ratio(fs, "transaction/100/4096", "fs-transaction", &[OURS])
    }),
    at_most("10 files in place / SQLite", 1.0, |fs| {
        ratio(
            fs,
            "transaction/10/4096",
            "steadfast, in place",
            &["SQLite"],
        )
    }),
    beside("- the calls of such a commit / SQLite", |fs| {
        ratio(fs, "transaction/10/4096", CALLS_IN_PLACE, &["SQLite"])
    }),
    at_most("100 files in place / SQLite", 1.0, |fs| {
        ratio(
            fs,
            "transaction/100/4096",
            "steadfast, in place",
            &["SQLite"],
        )
    }),
    beside("- the calls of such a commit / SQLite", |fs| {
        ratio(fs, "transaction/100/4096", CALLS_IN_PLACE, &["SQLite"])
    }),
    at_least("commits per second, 16 threads / 1", 4.0, |fs| {
        let of = |id| Some(fs.case(id)?.of(OURS)?.median_us);
        Some(of("threads/1")? / of("threads/16")?)
    }),
    at_most("batch of 1,000 new files / best raw", 1.05, |fs| {
        batch(fs, "batch/create/1000")
    }),
    at_most("batch of 1,000 replaced files / best raw", 1.05, |fs| {
        batch(fs, "batch/replace/1000")
    }),
    at_most("folder swap / raw", 1.05, |fs| {
        ratio(fs, "swap", OURS, &["raw"])
    }),
    at_most("open beneath, 4 deep / raw openat2", 1.1, |fs| {
        ratio(fs, "look-up/4", OURS, &["raw openat2"])
    }),
    at_most("open beneath, 16 deep / raw openat2", 1.1, |fs| {
        ratio(fs, "look-up/16", OURS, &["raw openat2"])
    }),
    at_most("the same without openat2, 4 deep / best peer", 1.0, |fs| {
        ratio(fs, "walk/4", OURS, &["cap-std", "pathrs"])
    }),
    at_most("the same without openat2, 16 deep / best peer", 1.0, |fs| {
        ratio(fs, "walk/16", OURS, &["cap-std", "pathrs"])
    }),
    Target {
        unit: " us",
        ..at_most("open a clean workspace", 200.0, |fs| {
            Some(fs.case("open")?.of(OURS)?.median_us)
        })
    },
];

/// One contender's median by the best of others'.
fn ratio(fs: &FileSystem, case: &str, name: &str, others: &[&str]) -> Option<f64> {
    let case = fs.case(case)?;
    let best = best(case, |c| others.contains(&c.name.as_str()))?;
    Some(case.of(name)?.median_us / best)
}

fn batch(fs: &FileSystem, case: &str) -> Option<f64> {
    let case = fs.case(case)?;
    let best = best(case, |c| c.name.starts_with("raw"))?;
    Some(case.of(PLAIN)?.median_us / best)
}

fn best(case: &CaseResult, of: impl Fn(&ContenderResult) -> bool) -> Option<f64> {
    let all = case.contenders.iter().filter(|c| of(c));
    all.map(|c| c.median_us).min_by(f64::total_cmp)
}
