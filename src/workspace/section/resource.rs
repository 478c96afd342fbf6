//! Resources of the application that a section has taken, and the hooks that give them back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a hook gives: any error leaves the section open.
pub type HookResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Hook = dyn Fn(&[u8], &Authority) -> HookResult + Send + Sync;

/// The hooks of a workspace by name.
#[derive(Clone, Default)]
pub(in crate::workspace) struct Hooks(Arc<BTreeMap<String, Arc<Hook>>>);

impl Hooks {
    pub(in crate::workspace) fn add(
        &mut self,
        name: &str,
        hook: impl Fn(&[u8], &Authority) -> HookResult + Send + Sync + 'static,
    ) {
        let mut all = BTreeMap::clone(&self.0);
        all.insert(name.to_owned(), Arc::new(hook));
        self.0 = Arc::new(all);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Hook>> {
        self.0.get(name)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl PartialEq for Hooks {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.is_empty() && other.0.is_empty())
    }
}

impl Eq for Hooks {}

/// The right to undo what a section did, as a hook is given it.
#[derive(Clone, Debug)]
pub struct Authority {
    fence: u64,
    process: u32,
    current: Arc<AtomicBool>,
}

impl Authority {
    pub(super) fn new(fence: u64) -> Self {
        Self {
            fence,
            process: std::process::id(),
            current: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The section's number. Later sections of the same workspace have higher ones, so that a resource which
    /// remembers the highest number it has seen can refuse all that are lower.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether whoever has this may still act: the rollback that gave it is still under way, in this process.
    /// While it is, nobody else can finish the section, for its locks end with the process and not before.
    #[must_use]
    pub fn still_valid(&self) -> bool {
        self.process == std::process::id() && self.current.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.current.store(false, Ordering::SeqCst);
    }
}
