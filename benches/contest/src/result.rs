//! The result file.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) file_systems: Vec<FileSystem>,
}

/// What it ran on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mib: u64,
    pub(crate) compiler: String,
    pub(crate) disk: String,
    /// Versions of what is compared, from the lock file.
    pub(crate) versions: BTreeMap<String, String>,
}

/// All cases on one file system.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct FileSystem {
    pub(crate) name: String,
    pub(crate) mounted: String,
    /// The load of the machine (1 minute) before and after.
    pub(crate) load: [f64; 2],
    pub(crate) seconds: f64,
    pub(crate) cases: Vec<CaseResult>,
}

/// One case.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct CaseResult {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) things: u64,
    pub(crate) contenders: Vec<ContenderResult>,
}

/// One contender in a case: microseconds of one sample, and what it does.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct ContenderResult {
    pub(crate) name: String,
    pub(crate) samples: usize,
    pub(crate) median_us: f64,
    pub(crate) min_us: f64,
    pub(crate) max_us: f64,
    pub(crate) quartile_1_us: f64,
    pub(crate) quartile_3_us: f64,
    pub(crate) mean_us: f64,
    /// Median of the flushes that the device saw.
    pub(crate) flushes: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calls: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) syncs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_kib: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) by_name: BTreeMap<String, u64>,
}

impl CaseResult {
    /// A contender's result.
    pub(crate) fn of(&self, name: &str) -> Option<&ContenderResult> {
        self.contenders.iter().find(|c| c.name == name)
    }
}

impl FileSystem {
    /// The same, with minima for medians.
    pub(crate) fn least(&self) -> Self {
        let mut least = self.clone();
        let cases = least.cases.iter_mut();
        for contender in cases.flat_map(|case| &mut case.contenders) {
            contender.median_us = contender.min_us;
        }
        least
    }

    /// A case's result.
    pub(crate) fn case(&self, id: &str) -> Option<&CaseResult> {
        self.cases.iter().find(|c| c.id == id)
    }
}
